//! Streams that the server feeds (`feed`): opening, packets, closing, and requests for keyframes.

use std::sync::Arc;
use std::time::Instant;

use super::{Shard, ShardEvent};
use crate::feed::{FeedPacket, FeedParams, Feeder};
use crate::history::Depth;
use crate::packet::RtpPacket;
use crate::relay::{RelayMessage, SessionId};
use crate::router::Origin;
use crate::session::CloseReason;

impl Shard {
    pub(super) fn open_feed(&mut self, now: Instant, params: FeedParams) {
        let (id, home, key, tracks) = (params.id, self.config.id, params.key.clone(), Arc::clone(&params.tracks));
        if self.feeders.by_id.contains_key(&id) {
            return;
        }
        let stream = self.router.entry(&key);
        let Some(state) = self.router.stream_mut(stream) else { return };
        state.sessions += 1;
        state.set_feed(id, Origin::Server, Depth::Deep, Arc::clone(&tracks));
        let clocks = params.clocks.clone();
        self.feeders.by_id.insert(id, Feeder::new(params, stream, now));
        self.broadcast(RelayMessage::Up { key, publisher: id, home, depth: Depth::Deep, tracks });
        for (track, reference) in clocks.into_iter().enumerate().take(usize::from(u8::MAX)) {
            self.router.set_clock(stream, id, track as u8, reference);
        }
        self.events.push_back(ShardEvent::Connected(id));
    }

    pub(super) fn feed(&mut self, now: Instant, id: SessionId, packets: Vec<FeedPacket>) {
        let Some(feeder) = self.feeders.by_id.get_mut(&id) else { return };
        let stream = feeder.stream;
        let (mut cached, mut live) = (Vec::new(), Vec::new());
        for packet in packets {
            let is_cached = packet.cached;
            if let Some(packet) = feeder.accept(packet, now, &self.config.epoch) {
                self.config.status.published_packets.add(1);
                if is_cached { &mut cached } else { &mut live }.push(packet);
            }
        }
        let cached: Arc<[RtpPacket]> = cached.into();
        self.router.accept_backlog(stream, id, &cached);
        for packet in live {
            self.router.accept(stream, id, packet, &self.config.epoch);
        }
        if cached.is_empty() {
            return;
        }
        let feed = self.router.stream(stream).and_then(|s| s.feed.as_ref());
        let Some(feed) = feed.filter(|f| f.publisher == id) else { return };
        for shard in &feed.wanted_by {
            let (key, packets) = (feeder.key.clone(), Arc::clone(&cached));
            self.outbox.push_back((*shard, RelayMessage::Backlog { key, publisher: id, packets }));
        }
        self.start_pictures(now, stream);
    }

    /// Ends a feed. False: there is none of that name.
    pub(super) fn close_feed(&mut self, id: SessionId, reason: CloseReason) -> bool {
        let Some(feeder) = self.feeders.by_id.remove(&id) else { return false };
        if let Some(state) = self.router.stream_mut(feeder.stream) {
            state.sessions -= 1;
            if state.clear_feed(id) {
                self.broadcast(RelayMessage::Down { key: feeder.key, publisher: id });
            }
        }
        self.router.release(feeder.stream);
        self.events.push_back(ShardEvent::Closed(id, reason));
        true
    }

    /// Tells the server that viewers of one of its feeds need a keyframe; if it has just been told, a little later.
    pub(super) fn ask_feeder(&mut self, now: Instant, id: SessionId) {
        if let Some(feeder) = self.feeders.by_id.get_mut(&id) {
            feeder.throttle.wish();
            self.poll_feeders(now);
        }
    }

    pub(super) fn poll_feeders(&mut self, now: Instant) {
        let (status, events) = (&self.config.status, &mut self.events);
        self.feeders.poll(now, |id| {
            status.keyframe_requests_sent.add(1);
            events.push_back(ShardEvent::KeyframeWanted(id));
        });
    }
}
