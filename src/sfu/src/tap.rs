//! A publisher's packets for the server: what a crossing to another protocol is made from.
//!
//! A tap yields the publisher's tracks, what ties their RTP times to the wall clock, what is kept since the last
//! keyframe, and from there on every packet once, decrypted, in order of arrival. It costs nothing while it is closed
//! and one allocation per batch while it is open; a batch that other shards want as well is shared with them.
//!
//! It does not put late packets in their place, ask for lost ones again (the transport does) or wait for a reader:
//! the queue is emptied after every input, and what cannot be taken is the server's to count.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use freshet_media::MediaKind;

use crate::clock::ClockReference;
use crate::packet::{RtpPacket, TrackIndex};
use crate::relay::{SessionId, TrackInfo};
use crate::router::{Feed, StreamState};

/// What a tap yields, in this order: the tracks once, then clocks and packets as they come.
#[derive(Debug, Clone)]
pub enum Tapped {
    /// The publisher's tracks; packets name theirs by index. First of all, as soon as the publisher is on the air.
    Tracks(Arc<[TrackInfo]>),
    /// Packets in order of arrival. The first ones may be older: what is kept since the last keyframe.
    Packets(Arc<[RtpPacket]>),
    /// The wall time of a track, known anew or better, for the packets that follow. The first one stems from the
    /// arrival of the track's first packet if no sender report came before it.
    Clock {
        /// The track.
        track: TrackIndex,
        /// An RTP time and its wall time.
        reference: ClockReference,
    },
}

/// What taps have yielded and nobody has taken yet.
pub(crate) type TapQueue = VecDeque<(SessionId, Tapped)>;

impl Feed {
    /// What is kept since the last keyframe, sound that came with it included, in order of arrival; and whether every
    /// picture can start from it.
    fn start(&self, now: Instant) -> (Vec<RtpPacket>, bool) {
        let (mut packets, mut starts) = (Vec::<RtpPacket>::new(), true);
        let of_kind = |kind| self.tracks.iter().zip(&self.states).filter(move |(t, _)| t.kind == kind).map(|(_, s)| s);
        for state in of_kind(MediaKind::Video) {
            let backlog = state.history.backlog(now, None);
            starts &= backlog.is_some();
            packets.extend(backlog.into_iter().flatten().cloned());
        }
        if let Some(since) = packets.iter().map(|p| p.arrival).min() {
            for state in of_kind(MediaKind::Audio) {
                packets.extend(state.history.since(now, since).cloned());
            }
        }
        packets.sort_by_key(|p| (p.arrival, p.track, p.seq));
        (packets, starts)
    }
}

impl StreamState {
    /// Opens the tap of the publisher that is on the air, or starts it anew. True: its picture needs a keyframe.
    pub(crate) fn open_tap(&mut self, now: Instant, publisher: SessionId, queue: &mut TapQueue) -> bool {
        let Some(feed) = self.feed.as_mut().filter(|f| f.publisher == publisher) else { return false };
        feed.tapped = true;
        queue.push_back((publisher, Tapped::Tracks(Arc::clone(&feed.tracks))));
        for (track, state) in feed.states.iter().enumerate() {
            if let Some(reference) = state.reference {
                queue.push_back((publisher, Tapped::Clock { track: track as TrackIndex, reference }));
            }
        }
        let (packets, starts) = feed.start(now);
        if !packets.is_empty() {
            queue.push_back((publisher, Tapped::Packets(packets.into())));
        }
        // What waits for the fan-out is kept already, so it is in there or from before the start.
        self.inbox_tapped = self.inbox.len();
        !starts
    }

    /// Closes a publisher's tap.
    pub(crate) fn close_tap(&mut self, publisher: SessionId) {
        if let Some(feed) = self.feed.as_mut().filter(|f| f.publisher == publisher) {
            feed.tapped = false;
        }
    }

    /// Yields what the tap, if there is one, has not had of the inbox. `batch` is the inbox, if it is shared anyway.
    pub(crate) fn tap_inbox(&mut self, batch: Option<&Arc<[RtpPacket]>>, queue: &mut TapQueue) {
        let Some(feed) = self.feed.as_ref().filter(|f| f.tapped) else { return };
        let fresh = self.inbox.get(self.inbox_tapped..).unwrap_or_default();
        if fresh.is_empty() {
            return;
        }
        let packets = match batch {
            Some(batch) if batch.len() == fresh.len() => Arc::clone(batch),
            _ => fresh.into(),
        };
        queue.push_back((feed.publisher, Tapped::Packets(packets)));
        self.inbox_tapped = self.inbox.len();
    }

    /// Yields a clock, after the packets that came before it: these may be of another layer.
    pub(crate) fn tap_clock(&mut self, track: TrackIndex, reference: ClockReference, queue: &mut TapQueue) {
        self.tap_inbox(None, queue);
        if let Some(feed) = self.feed.as_ref().filter(|f| f.tapped) {
            queue.push_back((feed.publisher, Tapped::Clock { track, reference }));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use freshet_media::{Codec, StreamKey};

    use super::*;
    use crate::clock::Epoch;
    use crate::format::Format;
    use crate::history::Depth;
    use crate::relay::ShardId;
    use crate::router::{Origin, Router};

    const PUBLISHER: SessionId = SessionId(7);

    /// Packets by track and number, or the track of a clock.
    #[derive(Debug, PartialEq)]
    enum Seen {
        Tracks,
        Clock(u8),
        Packets(Vec<(u8, u64)>),
    }

    fn take(router: &mut Router) -> Vec<Seen> {
        let seen = |(of, tapped)| {
            assert_eq!(of, PUBLISHER);
            match tapped {
                Tapped::Tracks(_) => Seen::Tracks,
                Tapped::Clock { track, .. } => Seen::Clock(track),
                Tapped::Packets(packets) => Seen::Packets(packets.iter().map(|p| (p.track, p.seq)).collect()),
            }
        };
        router.tapped.drain(..).map(seen).collect()
    }

    /// A tap that is opened while packets wait for the fan-out, and a clock that comes while others do.
    #[test]
    fn what_waits_for_the_fan_out_is_yielded_once() {
        let now = Instant::now();
        let epoch = Epoch::new(now, SystemTime::UNIX_EPOCH);
        let at = |millis| now + Duration::from_millis(millis);
        let mut router = Router::default();
        let stream = router.entry(&StreamKey::new("", "live", "cam").unwrap());
        let formats = [Format::h264([0x42, 0xe0, 0x1f]), Format::unnegotiated(Codec::Opus, "")];
        let tracks: Arc<[TrackInfo]> =
            formats.into_iter().map(|f| TrackInfo { kind: f.codec.kind(), formats: vec![f] }).collect();
        let state = router.stream_mut(stream).unwrap();
        state.set_feed(PUBLISHER, Origin::Server, Depth::Shallow, tracks);
        state.feed.as_mut().unwrap().wanted_by.push(ShardId(1));
        let accept = |router: &mut Router, track, seq, millis: u32, opens_keyframe| {
            let timestamp = millis * if track == 0 { 90 } else { 48 };
            let packet = RtpPacket::for_test(seq, timestamp, at(u64::from(millis)));
            router.accept(stream, PUBLISHER, RtpPacket { track, opens_keyframe, ..packet }, &epoch);
        };
        let mut outbox = VecDeque::new();
        // The keyframe begins at 2, and its second packet comes late; sound of the time before is no part of the start.
        for (track, seq, millis, opens) in
            [(1, 50, 0, false), (0, 1, 5, false), (0, 2, 10, true), (0, 4, 11, false), (1, 51, 12, false)]
        {
            accept(&mut router, track, seq, millis, opens);
        }
        router.share(stream, &mut outbox);
        router.stream_mut(stream).unwrap().clear_inbox();
        accept(&mut router, 0, 3, 30, false);
        accept(&mut router, 1, 52, 31, false);
        let (state, queue) = router.tapping(stream).unwrap();
        assert!(!state.open_tap(at(32), PUBLISHER, queue), "it has a start");
        let start = vec![(0, 2), (0, 4), (1, 51), (0, 3), (1, 52)];
        assert_eq!(take(&mut router), [Seen::Tracks, Seen::Clock(0), Seen::Clock(1), Seen::Packets(start)]);
        // The rest of that batch, with a report in its middle.
        accept(&mut router, 0, 5, 33, false);
        router.set_clock(stream, PUBLISHER, 0, ClockReference { rtp: 33 * 90, wall: 40_000 });
        accept(&mut router, 0, 6, 34, false);
        router.share(stream, &mut outbox);
        router.stream_mut(stream).unwrap().clear_inbox();
        assert_eq!(take(&mut router), [Seen::Packets(vec![(0, 5)]), Seen::Clock(0), Seen::Packets(vec![(0, 6)])]);
        // A whole batch is the one that other shards are given.
        accept(&mut router, 0, 7, 40, false);
        accept(&mut router, 1, 53, 41, false);
        outbox.clear();
        router.share(stream, &mut outbox);
        let shared = outbox.iter().find_map(|(_, message)| match message {
            crate::relay::RelayMessage::Media { packets, .. } => Some(packets),
            _ => None,
        });
        let (_, Tapped::Packets(packets)) = &router.tapped[0] else { panic!("packets") };
        assert!(Arc::ptr_eq(packets, shared.unwrap()));
        // Closed, and a name that is not on the air.
        let (state, _) = router.tapping(stream).unwrap();
        state.clear_inbox();
        state.close_tap(PUBLISHER);
        router.tapped.clear();
        accept(&mut router, 0, 8, 50, false);
        router.share(stream, &mut outbox);
        let (state, queue) = router.tapping(stream).unwrap();
        assert!(!state.open_tap(at(51), SessionId(8), queue));
        assert_eq!(take(&mut router), []);
        // After three seconds of silence nothing is kept to start from.
        let (state, queue) = router.tapping(stream).unwrap();
        assert!(state.open_tap(at(3050), PUBLISHER, queue));
        assert_eq!(take(&mut router), [Seen::Tracks, Seen::Clock(0), Seen::Clock(1)]);
    }
}
