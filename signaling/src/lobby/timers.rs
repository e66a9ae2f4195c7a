//! What is due when: pings and the patience with sockets, and seats that are kept.

use std::collections::BTreeSet;
use std::time::Instant;

use super::{CloseCode, Departure, Lobby, Output, Peer, PeerId, Place};
use crate::limits::{MAX_MISSED_PINGS, PING_INTERVAL, PUBLISHER_PING_INTERVAL};
use crate::room::Presence;

/// Something that is due at a time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    Peer(PeerId),
    Seat { room: String, id: String },
}

/// All that is due: one entry for each socket and each seat that is kept.
#[derive(Debug, Default)]
pub(super) struct Timers {
    queue: BTreeSet<(Instant, Due)>,
    /// Where a socket stands in the queue.
    peers: std::collections::BTreeMap<PeerId, Instant>,
}

impl Timers {
    pub(super) fn next(&self) -> Option<Instant> {
        self.queue.first().map(|(at, _)| *at)
    }

    pub(super) fn set_peer(&mut self, peer: PeerId, at: Instant) {
        self.remove_peer(peer);
        self.peers.insert(peer, at);
        self.queue.insert((at, Due::Peer(peer)));
    }

    pub(super) fn remove_peer(&mut self, peer: PeerId) {
        if let Some(at) = self.peers.remove(&peer) {
            self.queue.remove(&(at, Due::Peer(peer)));
        }
    }

    pub(super) fn set_seat(&mut self, room: &str, id: &str, until: Instant) {
        self.queue.insert((until, Due::Seat { room: room.to_owned(), id: id.to_owned() }));
    }

    pub(super) fn remove_seat(&mut self, room: &str, id: &str, until: Instant) {
        self.queue.remove(&(until, Due::Seat { room: room.to_owned(), id: id.to_owned() }));
    }

    pub(super) fn clear(&mut self) {
        self.queue.clear();
        self.peers.clear();
    }

    fn pop_due(&mut self, now: Instant) -> Option<Due> {
        if self.next().is_none_or(|at| at > now) {
            return None;
        }
        let (_, due) = self.queue.pop_first()?;
        if let Due::Peer(peer) = &due {
            self.peers.remove(peer);
        }
        Some(due)
    }
}

impl Peer {
    /// When this socket has to be looked at.
    pub(super) fn due(&self) -> Instant {
        match self.place {
            Place::Nowhere { until } => until.min(self.next_ping),
            Place::Room(_) => self.next_ping,
        }
    }
}

impl Lobby {
    /// Does what is due: pings, lost sockets, seats that nobody took again.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(due) = self.timers.pop_due(now) {
            match due {
                Due::Peer(peer) => self.check_peer(now, peer),
                Due::Seat { room, id } => {
                    if let Some(position) = self.rooms.get(&room).and_then(|room| room.position(&id)) {
                        self.remove_member(&room, position);
                    }
                }
            }
        }
    }

    fn check_peer(&mut self, now: Instant, id: PeerId) {
        let interval = self.ping_interval(id);
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if matches!(peer.place, Place::Nowhere { until } if until <= now) {
            self.close(now, id, CloseCode::Idle, Departure::Closed);
            return;
        }
        if peer.next_ping <= now {
            if peer.missed_pings >= MAX_MISSED_PINGS {
                self.counters.lost += 1;
                self.close(now, id, CloseCode::Lost, Departure::Lost);
                return;
            }
            peer.missed_pings += 1;
            peer.next_ping = now + interval;
            self.outputs.push_back(Output::Ping { peer: id });
        }
        let due = peer.due();
        self.timers.set_peer(id, due);
    }

    /// Somebody's media has begun or ended, and with it the patience with a silent socket changes.
    pub(super) fn reschedule_ping(&mut self, now: Instant, id: PeerId) {
        let interval = self.ping_interval(id);
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.next_ping = peer.next_ping.min(now + interval);
        let due = peer.due();
        self.timers.set_peer(id, due);
    }

    fn ping_interval(&self, id: PeerId) -> std::time::Duration {
        let room = match self.peers.get(&id).map(|peer| &peer.place) {
            Some(Place::Room(room)) => self.rooms.get(room),
            Some(Place::Nowhere { .. }) | None => None,
        };
        let is_publishing = room.is_some_and(|room| {
            room.members.iter().any(|member| member.publishing && member.presence == Presence::Here(id))
        });
        if is_publishing { PUBLISHER_PING_INTERVAL } else { PING_INTERVAL }
    }
}
