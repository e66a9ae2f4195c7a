//! What the server asks of a shard.

use std::time::Instant;

use super::{SessionIndex, Shard};
use crate::feed::{FeedPacket, FeedParams};
use crate::relay::SessionId;
use crate::session::CloseReason;
use crate::transport::Credentials;

/// What the server asks for.
#[derive(Debug, Clone)]
pub enum Command {
    /// End a session.
    Close {
        /// Which.
        id: SessionId,
        /// Why.
        reason: CloseReason,
    },
    /// New ICE credentials (RFC 8445 §9).
    RestartIce {
        /// Of which session.
        id: SessionId,
        /// Ours.
        local: Credentials,
        /// The peer's.
        remote: Credentials,
    },
    /// End all sessions and feeds.
    CloseAll {
        /// Why.
        reason: CloseReason,
    },
    /// A stream is fed by the server itself: on the air like a publisher's session, without transport. Answered with
    /// [`ShardEvent::Connected`](crate::ShardEvent::Connected).
    OpenFeed(Box<FeedParams>),
    /// Packets of a feed of this shard, in order. They are forwarded as one batch.
    Feed {
        /// Which feed.
        id: SessionId,
        /// The packets.
        packets: Vec<FeedPacket>,
    },
    /// A feed is over; its viewers wait for the next publisher. [`Command::Close`] does the same for another reason.
    CloseFeed {
        /// Which.
        id: SessionId,
    },
    /// Hand a publisher's packets to the server as well (see [`Tapped`](crate::Tapped)), or no longer. The publisher is
    /// at home on this shard, connected or not; any other name is passed over ([`Shard::is_tapped`] tells). A second
    /// "on" starts anew, with tracks and what is kept.
    Tap {
        /// The publisher's session.
        publisher: SessionId,
        /// Whether the packets are wanted.
        on: bool,
    },
    /// Ask a publisher of this shard for a keyframe, as a viewer does: any number of requests are two a second.
    RequestKeyframe {
        /// The publisher's session, or a feed.
        publisher: SessionId,
    },
}

impl Shard {
    pub(super) fn handle_command(&mut self, now: Instant, command: Command) {
        match command {
            Command::Close { id, reason } => {
                if let Some(index) = self.by_id.get(&id).copied() {
                    self.end(now, index, reason);
                } else {
                    self.close_feed(id, reason);
                }
            }
            Command::RestartIce { id, local, remote } => {
                let Some(index) = self.by_id.get(&id).copied() else { return };
                if let Some((session, _)) = self.desk(now, index) {
                    session.restart_ice(&local, &remote);
                }
            }
            Command::CloseAll { reason } => {
                let mut all: Vec<SessionIndex> = self.by_id.values().copied().collect();
                all.sort_unstable();
                for index in all {
                    self.end(now, index, reason);
                }
                let mut feeds: Vec<SessionId> = self.feeders.by_id.keys().copied().collect();
                feeds.sort_unstable();
                for id in feeds {
                    self.close_feed(id, reason);
                }
            }
            Command::OpenFeed(params) => self.open_feed(now, *params),
            Command::Feed { id, packets } => self.feed(now, id, packets),
            Command::CloseFeed { id } => {
                self.close_feed(id, CloseReason::Deleted);
            }
            Command::Tap { publisher, on } => self.tap(now, publisher, on),
            Command::RequestKeyframe { publisher } => self.ask_local(now, publisher),
        }
    }
}
