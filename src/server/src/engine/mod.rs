//! The door between the asynchronous side (HTTP, TCP, signals) and the shards that carry media.

mod types;

use std::net::SocketAddr;

use bytes::Bytes;
use tokio::net::TcpStream;

pub use types::*;

/// Opens, changes and ends WebRTC sessions. One per process, shared as `Arc<Engine>`.
#[derive(Debug, Default)]
pub struct Engine {}

impl Engine {
    /// Checks the offer, reserves the stream and answers. About a millisecond of CPU, never blocks.
    pub fn open(&self, _request: OpenRequest) -> Result<Opened, Refusal> {
        Err(Refusal::new(503, 5022, "not-ready", "no engine", "wait"))
    }
    /// The live session of that token.
    pub fn session(&self, _token: &SessionToken) -> Option<SessionView> {
        None
    }
    /// Trickle or ICE restart; decides 404, 428, 412, 400 and 422 itself.
    pub async fn patch(&self, _token: &SessionToken, _if_match: Option<&str>, _fragment: &str) -> Result<Patched, Refusal> {
        Err(Refusal::new(404, 5022, "no-session", "no such session", "open a new one"))
    }
    /// Ends a session. [`None`] when there is none of that token.
    pub fn close(&self, _token: &SessionToken) -> Option<Role> {
        None
    }
    /// Ends a session by its public id.
    pub fn kick(&self, _client_id: &str) -> bool {
        false
    }
    /// All streams that have a publisher or a viewer.
    pub fn streams(&self) -> Vec<StreamSnapshot> {
        Vec::new()
    }
    /// All sessions.
    pub fn clients(&self) -> Vec<ClientSnapshot> {
        Vec::new()
    }
    /// Counters for `/metrics`.
    pub fn metrics(&self) -> MetricsSnapshot {
        MetricsSnapshot::default()
    }
    /// From now on `open` answers 503.
    pub fn drain(&self) {}
    /// Whether [`Engine::drain`] was called.
    pub fn is_draining(&self) -> bool {
        false
    }
    /// Number of live sessions.
    pub fn session_count(&self) -> usize {
        0
    }
    /// Carries an ICE-TCP connection (RFC 6544, RFC 4571 framing) until it ends. `read_ahead` is what has been read from it already.
    pub async fn serve_ice_tcp(&self, _stream: TcpStream, _peer: SocketAddr, _read_ahead: Bytes) {}
}
