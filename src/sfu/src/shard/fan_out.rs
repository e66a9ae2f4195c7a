//! From a stream's inbox to its viewers, viewer by viewer, all packets of a batch next to each other.

use super::Shard;
use crate::packet::equalise;
use crate::session::Session;
use crate::subscriber::Outlet;

/// How far the fan-out of the first dirty stream has got.
#[derive(Debug, Default)]
pub(super) struct FanOut {
    /// The batch has been prepared and handed to other shards.
    prepared: bool,
    /// For each packet of the inbox.
    padding: Vec<u8>,
    next_subscriber: usize,
}

impl Shard {
    /// Forwards to the next viewers. False when nothing is left to forward.
    pub(super) fn fan_out_step(&mut self) -> bool {
        let Some(stream) = self.router.dirty.front().copied() else { return false };
        if !std::mem::replace(&mut self.fan_out.prepared, true) {
            let inbox = self.router.stream(stream).map_or(&[][..], |s| &s.inbox);
            equalise(inbox, &mut self.fan_out.padding);
            self.router.share(stream, &mut self.outbox);
        }
        let Some(state) = self.router.stream_mut(stream) else {
            self.finish_fan_out();
            return true;
        };
        let Some(feed) = &state.feed else {
            state.clear_inbox();
            self.finish_fan_out();
            return true;
        };
        while let Some(viewer) = state.subscribers.get(self.fan_out.next_subscriber) {
            if self.batch.is_full() {
                return true;
            }
            self.fan_out.next_subscriber += 1;
            let slot = self.slots.get_mut(viewer.slot as usize).filter(|s| s.generation == viewer.generation);
            let session = slot.and_then(|s| s.session.as_deref_mut());
            let Some((subscriber, path, status)) = session.and_then(Session::subscriber) else { continue };
            let mut outlet = Outlet { batch: &mut self.batch, path, status, shard: &self.config.status };
            for (packet, padding) in state.inbox.iter().zip(&self.fan_out.padding) {
                subscriber.forward(packet, *padding, feed, &mut outlet);
            }
        }
        state.clear_inbox();
        self.finish_fan_out();
        true
    }

    fn finish_fan_out(&mut self) {
        self.router.dirty.pop_front();
        self.fan_out.prepared = false;
        self.fan_out.next_subscriber = 0;
    }
}
