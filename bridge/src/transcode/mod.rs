//! Decoding and encoding.
