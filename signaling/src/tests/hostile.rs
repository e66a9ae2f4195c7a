//! Broken and random messages: they are refused, and nothing else happens.
