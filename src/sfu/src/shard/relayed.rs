//! What a shard does with the messages of other shards.

use std::time::Instant;

use super::{MAX_STEERED, Shard};
use crate::packet::RtpPacket;
use crate::relay::{RelayMessage, SessionId, ShardId};

impl Shard {
    pub(super) fn handle_relay(&mut self, now: Instant, message: RelayMessage) {
        match message {
            RelayMessage::Up { key, publisher, home, tracks } => {
                let stream = self.router.entry(&key);
                let Some(state) = self.router.stream_mut(stream) else { return };
                state.set_feed(publisher, home, None, tracks);
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
                let viewers = self.router.stream(stream).map(|s| s.subscribers.clone()).unwrap_or_default();
                for viewer in viewers {
                    self.start_picture(now, viewer);
                }
            }
            RelayMessage::Clock { key, publisher, track, reference } => {
                if let Some(stream) = self.router.find(&key) {
                    self.router.set_clock(stream, publisher, track, reference);
                }
            }
            RelayMessage::KeyframeRequest { publisher } => {
                if let Some(index) = self.by_id.get(&publisher).copied() {
                    self.ask_publisher(now, index);
                }
            }
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
        let Some(index) = self.by_id.get(&publisher).copied() else { return };
        let Some((session, desk)) = self.desk(now, index) else { return };
        let Some(stream) = session.stream.and_then(|s| desk.router.stream_mut(s)) else { return };
        let inbox = stream.inbox.as_slice();
        let Some(feed) = stream.feed.as_mut().filter(|f| f.publisher == publisher) else { return };
        feed.wanted_by.retain(|s| *s != from);
        if on {
            feed.wanted_by.push(from);
            let clocks = feed.states.iter().enumerate().filter_map(|(track, s)| Some((track as u8, s.reference?)));
            let key = &session.key;
            let messages = clocks.map(|(track, reference)| {
                (from, RelayMessage::Clock { key: key.clone(), publisher, track, reference })
            });
            let mut messages: Vec<_> = messages.collect();
            let backlog: Vec<RtpPacket> = feed.backlog(now, inbox).cloned().collect();
            let (key, starts, packets) = (key.clone(), !backlog.is_empty(), backlog.into());
            messages.push((from, RelayMessage::Backlog { key, publisher, packets }));
            self.outbox.extend(messages);
            if !starts {
                self.ask_publisher(now, index);
            }
        }
    }
}
