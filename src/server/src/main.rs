//! Freshet.
fn main() {}
