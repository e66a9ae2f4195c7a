//! Every bound of the protocol, and what the operator may set.

use std::time::Duration;

/// Longest message that is looked at, in bytes; SRS's server reads as much.
pub const MAX_MESSAGE_BYTES: usize = 16_384;

/// How long the seat of a lost socket is kept. A phone that goes from Wi-Fi to mobile is back within five seconds.
pub const SEAT_GRACE: Duration = Duration::from_secs(10);

/// How often a socket is pinged. Proxies drop a connection that is silent for 30 to 60 s.
pub(crate) const PING_INTERVAL: Duration = Duration::from_secs(15);

/// How often one is pinged whose picture others wait for: a lost network shows within 9 s.
pub(crate) const PUBLISHER_PING_INTERVAL: Duration = Duration::from_secs(3);

/// So many pings without a sign of life, and the socket is lost.
pub(crate) const MAX_MISSED_PINGS: u32 = 2;

/// A socket that has joined nothing for so long is of no use to anybody.
pub(crate) const JOIN_WITHIN: Duration = Duration::from_secs(60);

/// Longest `tid`, in bytes. SRS's pages use seven.
pub(crate) const MAX_TID_BYTES: usize = 64;

/// Longest name of a room, a person or a control call, in bytes. Room and person together are a stream's name, which
/// has 255 at most.
pub(crate) const MAX_NAME_BYTES: usize = 64;

/// Longest token or seat that is compared, in bytes.
pub(crate) const MAX_SECRET_BYTES: usize = 1_024;

/// Most capabilities of a client, and their length in bytes: they are repeated in every list of participants.
pub(crate) const MAX_CAPABILITIES: usize = 16;
/// See [`MAX_CAPABILITIES`].
pub(crate) const MAX_CAPABILITY_BYTES: usize = 32;

/// Messages that a socket may send at once: a page that joins a full room tells its state and greets everybody.
pub(crate) const RATE_BURST: u32 = 60;

/// Messages a second that it may send after that. A person who types and toggles stays far below.
pub(crate) const RATE_PER_SECOND: u32 = 20;

/// So many messages refused for their rate in a row are no mistake.
pub(crate) const MAX_REFUSED_IN_A_ROW: u32 = 100;

/// People in a one-to-one call.
pub(crate) const CALL_PEOPLE: usize = 2;

/// What the operator decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Rooms at a time.
    pub max_rooms: usize,
    /// People in one room.
    pub max_people: usize,
    /// When not empty, one of these must be shown to join.
    pub tokens: Vec<String>,
}

impl Default for Settings {
    fn default() -> Settings {
        // Sixteen pictures are what a laptop decodes and a screen shows.
        Settings { max_rooms: 5_000, max_people: 16, tokens: Vec::new() }
    }
}
