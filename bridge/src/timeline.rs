//! One timeline for what publishers send.
