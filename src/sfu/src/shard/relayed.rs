//! What a shard does with the messages of other shards.

use std::time::Instant;

use super::{MAX_STEERED, Shard};
use crate::packet::RtpPacket;
use crate::relay::{RelayMessage, SessionId, ShardId};
use crate::router::Origin;

impl Shard {
    pub(super) fn handle_relay(&mut self, now: Instant, message: RelayMessage) {
        match message {
            RelayMessage::Up { key, publisher, home, depth, tracks } => {
                let stream = self.router.entry(&key);
                let Some(state) = self.router.stream_mut(stream) else { return };
                state.set_feed(publisher, Origin::Shard(home), depth, tracks);
                if let Some(viewer) = state.subscribers.first().copied() {
                    let want = RelayMessage::Want { publisher, from: self.config.id, on: true };
                    self.outbox.push_back((home, want));
                    self.request_keyframe(now, viewer);
                }
            }
            RelayMessage::Down { key, publisher } => {
                let Some(stream) = self.router.find(&key) else { return };
                if let Some(state) = self.router.stream_mut(stream) {
                    state.clear_feed(publisher);
                }
                self.router.release(stream);
            }
            RelayMessage::Want { publisher, from, on } => self.handle_want(now, publisher, from, on),
            RelayMessage::Media { key, publisher, packets } => {
                let Some(stream) = self.router.find(&key) else { return };
                for packet in packets.iter() {
                    self.router.accept(stream, publisher, packet.clone(), &self.config.epoch);
                }
            }
            RelayMessage::Backlog { key, publisher, packets } => {
                let Some(stream) = self.router.find(&key) else { return };
                self.router.accept_backlog(stream, publisher, &packets);
                self.start_pictures(now, stream);
            }
            RelayMessage::Clock { key, publisher, track, reference } => {
                if let Some(stream) = self.router.find(&key) {
                    self.router.set_clock(stream, publisher, track, reference);
                }
            }
            RelayMessage::KeyframeRequest { publisher } => self.ask_local(now, publisher),
            RelayMessage::Datagram { from, path, payload } => {
                self.handle_datagram(now, path, &payload, Some(from));
            }
            RelayMessage::Steer { protocol, remote, home } => {
                if self.steered.len() >= MAX_STEERED {
                    self.steered.clear();
                }
                self.steered.insert((protocol, remote), home);
            }
        }
    }

    fn handle_want(&mut self, now: Instant, publisher: SessionId, from: ShardId, on: bool) {
        let session = self.by_id.get(&publisher).copied();
        let stream = match session.and_then(|index| self.desk(now, index)) {
            Some((session, _)) => session.stream,
            None => self.feeders.by_id.get(&publisher).map(|f| f.stream),
        };
        let Some(stream) = stream.and_then(|s| self.router.stream_mut(s)) else { return };
        let inbox = stream.inbox.as_slice();
        let Some(feed) = stream.feed.as_mut().filter(|f| f.publisher == publisher) else { return };
        feed.wanted_by.retain(|s| *s != from);
        if on {
            feed.wanted_by.push(from);
            let key = &stream.key;
            for (track, state) in feed.states.iter().enumerate() {
                if let Some(reference) = state.reference {
                    let clock = RelayMessage::Clock { key: key.clone(), publisher, track: track as u8, reference };
                    self.outbox.push_back((from, clock));
                }
            }
            let backlog: Vec<RtpPacket> = feed.backlog(now, inbox).cloned().collect();
            let (key, starts, packets) = (key.clone(), !backlog.is_empty(), backlog.into());
            self.outbox.push_back((from, RelayMessage::Backlog { key, publisher, packets }));
            if !starts {
                self.ask_local(now, publisher);
            }
        }
    }

    /// Asks a publisher of this shard for a keyframe.
    pub(super) fn ask_local(&mut self, now: Instant, publisher: SessionId) {
        match self.by_id.get(&publisher).copied() {
            Some(index) => self.ask_publisher(now, index),
            None => self.ask_feeder(now, publisher),
        }
    }
}
