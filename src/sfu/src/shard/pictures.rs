//! How viewers come by their pictures: from what is kept, or by a keyframe that is asked for.

use std::time::Instant;

use super::{REMOTE_REQUEST_INTERVAL, SessionIndex, Shard};
use crate::relay::RelayMessage;
use crate::router::{Origin, StreamIndex, StreamState};

impl Shard {
    /// Gives a picture to all viewers of a stream that wait for one, from packets that have just been kept.
    pub(super) fn start_pictures(&mut self, now: Instant, stream: StreamIndex) {
        let viewers = self.router.stream(stream).map(|s| s.subscribers.clone()).unwrap_or_default();
        for viewer in viewers {
            self.start_picture(now, viewer);
        }
    }

    /// Gives a viewer its first picture: from what is kept, or by a new keyframe.
    pub(super) fn start_picture(&mut self, now: Instant, viewer: SessionIndex) {
        let Some((session, desk)) = self.desk(now, viewer) else { return };
        let supply = session.stream.and_then(|s| desk.router.stream(s)).and_then(StreamState::supply);
        let (Some(supply), Some((subscriber, ..))) = (supply, session.subscriber()) else { return };
        if subscriber.start(now, supply) {
            self.advance(now, viewer);
        } else {
            self.request_keyframe(now, viewer);
        }
    }

    /// A viewer's picture cannot go on: starts it again from what is kept, and asks for a keyframe.
    pub(super) fn refresh_picture(&mut self, now: Instant, viewer: SessionIndex) {
        let Some((session, desk)) = self.desk(now, viewer) else { return };
        let supply = session.stream.and_then(|s| desk.router.stream(s)).and_then(StreamState::supply);
        if let (Some(supply), Some((subscriber, ..))) = (supply, session.subscriber()) {
            subscriber.restart(now, supply);
        }
        self.advance(now, viewer);
        self.request_keyframe(now, viewer);
    }

    /// Sends the first piece of a picture that has just started, unless enough is waiting to be sent already.
    pub(super) fn advance(&mut self, now: Instant, viewer: SessionIndex) {
        if let Some((session, mut desk)) = self.desk(now, viewer) {
            session.advance(&mut desk);
            self.arm(now, viewer);
        }
    }

    /// Asks the publisher of a viewer's stream for a keyframe.
    pub(super) fn request_keyframe(&mut self, now: Instant, viewer: SessionIndex) {
        let Some((session, desk)) = self.desk(now, viewer) else { return };
        let Some(stream) = session.stream else { return };
        let Some(feed) = desk.router.stream(stream).and_then(|s| s.feed.as_ref()) else { return };
        let publisher = feed.publisher;
        match feed.origin {
            Origin::Session(publisher) => self.ask_publisher(now, publisher),
            Origin::Server => self.ask_feeder(now, publisher),
            Origin::Shard(home) => {
                let recent = |at: &Instant| now.saturating_duration_since(*at) < REMOTE_REQUEST_INTERVAL;
                if !self.remote_requests.get(&publisher).is_some_and(recent) {
                    self.remote_requests.insert(publisher, now);
                    self.outbox.push_back((home, RelayMessage::KeyframeRequest { publisher }));
                }
            }
        }
    }

    pub(super) fn ask_publisher(&mut self, now: Instant, publisher: SessionIndex) {
        let Some((session, mut desk)) = self.desk(now, publisher) else { return };
        let outcome = session.request_keyframe(&mut desk);
        self.settle(now, publisher, outcome);
    }
}
