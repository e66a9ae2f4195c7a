//! What shards tell each other. Everything else of a shard is its own.
//!
//! A stream's packets go once to every shard that has viewers of it, as a shared batch, over one bounded ring per pair
//! of shards. Media that finds a ring full is dropped and counted; everything else is kept and sent later.

use std::net::SocketAddr;
use std::sync::Arc;

use freshet_media::{MediaKind, StreamKey};

use crate::batch::{Path, Protocol};
use crate::clock::ClockReference;
use crate::format::Format;
use crate::history::Depth;
use crate::packet::{RtpPacket, TrackIndex};

/// Names a shard; the first one is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardId(pub u16);

/// Names a session for the life of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

/// A published track.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrackInfo {
    /// Audio or video.
    pub kind: MediaKind,
    /// Formats that were negotiated; packets name theirs by index.
    pub formats: Vec<Format>,
}

/// One message from shard to shard.
#[derive(Debug, Clone)]
pub enum RelayMessage {
    /// A publisher is on the air.
    Up {
        /// Its stream.
        key: StreamKey,
        /// The publisher.
        publisher: SessionId,
        /// Its shard.
        home: ShardId,
        /// How much of it is kept.
        depth: Depth,
        /// Its tracks.
        tracks: Arc<[TrackInfo]>,
    },
    /// A publisher has gone.
    Down {
        /// Its stream.
        key: StreamKey,
        /// The publisher.
        publisher: SessionId,
    },
    /// A shard has viewers of a publisher, or has none any more.
    Want {
        /// The publisher, at home on the receiving shard.
        publisher: SessionId,
        /// The shard that wants.
        from: ShardId,
        /// Whether it wants.
        on: bool,
    },
    /// Packets of a publisher, in order of arrival.
    Media {
        /// Their stream.
        key: StreamKey,
        /// The publisher.
        publisher: SessionId,
        /// The packets.
        packets: Arc<[RtpPacket]>,
    },
    /// What was sent since the last keyframe, for viewers that have just come.
    Backlog {
        /// The stream.
        key: StreamKey,
        /// The publisher.
        publisher: SessionId,
        /// The packets.
        packets: Arc<[RtpPacket]>,
    },
    /// The wall time of a track has become known better.
    Clock {
        /// The stream.
        key: StreamKey,
        /// The publisher.
        publisher: SessionId,
        /// The track.
        track: TrackIndex,
        /// An RTP time and its wall time.
        reference: ClockReference,
    },
    /// A viewer elsewhere needs a keyframe.
    KeyframeRequest {
        /// The publisher, at home on the receiving shard.
        publisher: SessionId,
    },
    /// A datagram that the kernel gave to the wrong shard.
    Datagram {
        /// The shard that received it.
        from: ShardId,
        /// Its path.
        path: Path,
        /// Its bytes.
        payload: Box<[u8]>,
    },
    /// Datagrams from this address belong to a session of shard `home`.
    Steer {
        /// UDP or TCP.
        protocol: Protocol,
        /// The address.
        remote: SocketAddr,
        /// Where to.
        home: ShardId,
    },
}

impl RelayMessage {
    /// Whether it may be dropped when a ring is full.
    pub fn is_media(&self) -> bool {
        matches!(self, RelayMessage::Media { .. } | RelayMessage::Backlog { .. } | RelayMessage::Datagram { .. })
    }
}
