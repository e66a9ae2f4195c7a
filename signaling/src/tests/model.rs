//! Random actions against a small model of who should know what.
