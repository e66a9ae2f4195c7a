//! What SRS's envelope, and its hooks, say about the process.

use std::time::Instant;

/// The names of this server and of this start of it.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    /// `vid-…`, the name of this server.
    pub(crate) server: String,
    /// The name of this start.
    pub(crate) service: String,
    /// SRS prints the process id as text.
    pub(crate) pid: String,
    /// When that was.
    pub(crate) started: Instant,
}

impl Identity {
    /// Draws names.
    pub(crate) fn new() -> Identity {
        Identity {
            server: format!("vid-{}", random_name(7)),
            service: random_name(8),
            pid: std::process::id().to_string(),
            started: Instant::now(),
        }
    }
}

fn random_name(len: usize) -> String {
    const LETTERS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    (0..len).map(|_| char::from(LETTERS[rand::random_range(0..LETTERS.len())])).collect()
}
