//! The SFU.
