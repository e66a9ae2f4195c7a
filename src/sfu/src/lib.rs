//! Freshet's SFU: publishers' packets in, viewers' packets out, as a plain state machine.
//!
//! A [`Shard`] is everything that one thread needs: it is given datagrams and the time and yields datagrams, messages
//! for other shards and events. It opens no socket, starts no thread and reads no clock, so a whole server can be run
//! in a test, in virtual time, over a simulated network.
//!
//! The way of a packet: [`Shard`] finds the session of a datagram; the session's transport (str0m) decrypts it; the
//! publisher makes it a packet of a track and layer; the router keeps it in the track's history and in the
//! stream's inbox; and when the batch is in, every viewer's subscriber gives the packets its own numbers, protects
//! them and lays them into the [`SendBatch`].
//!
//! A stream may also be fed by the server itself ([`Command::OpenFeed`]), with what another protocol brought. Viewers
//! start from the last keyframe and catch up with the live edge; one whose link cannot carry the stream is sent whole
//! pictures as far as they fit.
//!
//! The server may have a publisher's packets as well ([`Command::Tap`]), to make another protocol's media of them.
//!
//! What it does not do: rooms, recording, other protocols than WebRTC, estimating bandwidth towards viewers.

#![forbid(unsafe_code)]

mod batch;
mod catch_up;
mod clock;
mod feed;
mod format;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod history;
mod link;
mod lobby;
mod nack;
mod packet;
mod patience;
mod publisher;
mod relay;
mod repair;
mod rewrite;
mod router;
mod rtcp;
pub mod sdp;
mod sender;
mod session;
mod shard;
mod srtp;
mod status;
mod subscriber;
mod tap;
mod throttle;
mod transport;
mod vp8;

pub use batch::{Message, Path, Protocol, SendBatch};
pub use clock::{ClockReference, Epoch, UnixMicros};
pub use feed::{FeedPacket, FeedParams};
pub use format::{Format, best_match, match_score};
pub use history::Depth;
pub use lobby::{Lobby, Whereabouts};
pub use packet::{Extensions, RtpPacket, TrackIndex};
pub use relay::{RelayMessage, SessionId, ShardId, TrackInfo};
pub use session::{CloseReason, Session, SessionLimits, SessionParams};
pub use shard::{Command, Input, Shard, ShardConfig, ShardEvent};
pub use status::{Counter, SessionStatus, ShardStatus, TrackStatus};
pub use tap::Tapped;
pub use transport::{BindingRequest, Credentials, Identity, IdentityError, TransportError};
