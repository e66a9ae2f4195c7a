//! Publishers of this shard whose packets the server wants as well (`tap`).

use std::time::Instant;

use super::Shard;
use crate::relay::SessionId;
use crate::session::Session;
use crate::tap::Tapped;

impl Shard {
    /// What the next tap yields, and whose it is. To be asked after [`Shard::poll_transmit`], which forwards.
    pub fn poll_tap(&mut self) -> Option<(SessionId, Tapped)> {
        self.router.tapped.pop_front()
    }

    /// Whether a publisher is at home here and its tap is open. It closes with the publisher.
    pub fn is_tapped(&self, publisher: SessionId) -> bool {
        let index = self.by_id.get(&publisher);
        let session = index.and_then(|i| self.slots.get(i.slot as usize)).and_then(|s| s.session.as_deref());
        session.and_then(Session::publisher).is_some_and(|p| p.tapped)
    }

    pub(super) fn tap(&mut self, now: Instant, publisher: SessionId, on: bool) {
        let index = self.by_id.get(&publisher).copied();
        let Some((session, desk)) = index.and_then(|index| self.desk(now, index)) else { return };
        let stream = session.stream;
        let Some(receiving) = session.publisher_mut() else { return };
        // One that is not on the air yet begins to yield when it is.
        receiving.tapped = on;
        let Some((state, queue)) = stream.and_then(|s| desk.router.tapping(s)) else { return };
        if !on {
            state.close_tap(publisher);
        } else if state.open_tap(now, publisher, queue) {
            self.ask_local(now, publisher);
        }
    }
}
