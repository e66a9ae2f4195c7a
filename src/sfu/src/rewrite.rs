//! Sequence numbers and timestamps of one viewer's track: continuous, whatever happens to its source.
//!
//! What a viewer receives is a chain of *spans*. Within a span every packet keeps its distance to its neighbours, so a
//! packet that is missing or late keeps its place; a new span begins where the source changes (another layer,
//! another publisher, a packet left out) and goes on where the last one ended.

use std::time::Instant;

use crate::packet::RtpPacket;
use crate::vp8;

/// Names the source of a span: publisher and layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Source {
    /// Counts the publishers that a viewer has seen on its stream.
    pub(crate) generation: u32,
    /// Simulcast layer.
    pub(crate) layer: u8,
}

/// Spans that are remembered, for packets and NACKs that come late.
const MAX_SPANS: usize = 4;

#[derive(Debug, Clone, Copy)]
struct Span {
    source: Source,
    first_in: u64,
    first_out: u64,
    timestamps: Timestamps,
    vp8: vp8::Offsets,
}

/// From the source's timestamps to the viewer's.
#[derive(Debug, Clone, Copy)]
struct Timestamps {
    offset: u32,
    /// A backlog ends here: what is older is moved together, by [`BACKLOG_SHIFT`].
    live_from: Option<u32>,
}

/// A viewer that joins is given the pictures since the last keyframe at once. With their own distances a player would
/// show them at their own pace and stay behind by their length for good; 32 times as fast they are over before they
/// are decoded.
const BACKLOG_SHIFT: u32 = 5;

impl Timestamps {
    fn apply(self, timestamp: u32) -> u32 {
        let behind = self.live_from.map_or(0, |live| live.wrapping_sub(timestamp));
        if behind == 0 || behind > i32::MAX as u32 {
            return timestamp.wrapping_add(self.offset);
        }
        let live = timestamp.wrapping_add(behind).wrapping_add(self.offset);
        live.wrapping_sub(behind >> BACKLOG_SHIFT)
    }
}

/// How a packet is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rewritten {
    /// Extended sequence number, the SRTP index.
    pub(crate) seq: u64,
    pub(crate) timestamp: u32,
    pub(crate) vp8: vp8::Offsets,
}

/// The newest packet that was sent.
#[derive(Debug, Clone, Copy)]
struct Newest {
    seq_in: u64,
    seq_out: u64,
    timestamp_out: u32,
    arrival: Instant,
    vp8: Option<vp8::Descriptor>,
}

/// Rewrites one track for one viewer.
#[derive(Debug)]
pub(crate) struct Rewriter {
    first_seq: u64,
    first_timestamp: u32,
    spans: [Option<Span>; MAX_SPANS],
    newest: Option<Newest>,
}

impl Rewriter {
    /// Starts at random numbers. A first sequence number below 2¹⁵ lets the receiver begin with roll-over counter 0
    /// even if the first packets are lost or swapped (RFC 3711 §3.3.1).
    pub(crate) fn new(random: u64) -> Rewriter {
        Rewriter {
            first_seq: random & 0x7fff,
            first_timestamp: (random >> 32) as u32,
            spans: [None; MAX_SPANS],
            newest: None,
        }
    }

    /// Whether packets of this source can be sent without a new span.
    pub(crate) fn follows(&self, source: Source) -> bool {
        self.spans[0].is_some_and(|s| s.source == source)
    }

    /// Begins a span with `packet` as its first one.
    pub(crate) fn begin(&mut self, source: Source, packet: &RtpPacket, clock_hz: u32, is_vp8: bool) {
        self.begin_span(source, packet, None, clock_hz, is_vp8);
    }

    /// Begins a span with a backlog from `packet` to `live`, the newest one of its source.
    pub(crate) fn begin_backlog(
        &mut self,
        source: Source,
        packet: &RtpPacket,
        live: &RtpPacket,
        clock_hz: u32,
        is_vp8: bool,
    ) {
        self.begin_span(source, packet, Some(live), clock_hz, is_vp8);
    }

    fn begin_span(
        &mut self,
        source: Source,
        packet: &RtpPacket,
        live: Option<&RtpPacket>,
        clock_hz: u32,
        is_vp8: bool,
    ) {
        // The packet whose timestamp is tied to the present, and how far the first one stands before it.
        let anchor = live.unwrap_or(packet);
        let lead = anchor.timestamp.wrapping_sub(packet.timestamp) >> BACKLOG_SHIFT;
        let descriptor = is_vp8.then(|| vp8::Descriptor::parse(&packet.payload)).flatten();
        let (first_out, timestamp, vp8) = match &self.newest {
            None => (self.first_seq, self.first_timestamp.wrapping_add(lead), vp8::Offsets::default()),
            Some(newest) => {
                let elapsed = anchor.arrival.saturating_duration_since(newest.arrival);
                // At least one tick: equal timestamps would make one frame of two.
                let ticks = (elapsed.as_micros() * u128::from(clock_hz) / 1_000_000) as u32;
                let ticks = ticks.max(lead + 1);
                let vp8 = match (newest.vp8, descriptor) {
                    (Some(last), Some(first)) => vp8::Offsets::continuing(last, first),
                    _ => vp8::Offsets::default(),
                };
                (newest.seq_out + 1, newest.timestamp_out.wrapping_add(ticks), vp8)
            }
        };
        let offset = timestamp.wrapping_sub(anchor.timestamp);
        let timestamps = Timestamps { offset, live_from: live.map(|l| l.timestamp) };
        self.push(Span { source, first_in: packet.seq, first_out, timestamps, vp8 });
    }

    /// Leaves `packet` out without a gap: what follows closes up. Only the packet right behind the newest can be left
    /// out; any other one leaves a gap, which costs the viewer a useless NACK and nothing else.
    pub(crate) fn skip(&mut self, source: Source, packet: &RtpPacket) {
        let (Some(span), Some(newest)) = (self.spans[0], &mut self.newest) else { return };
        if span.source == source && packet.seq == newest.seq_in + 1 {
            newest.seq_in = packet.seq;
            let next = Span { first_in: packet.seq + 1, first_out: newest.seq_out + 1, ..span };
            if span.first_in == packet.seq {
                self.spans[0] = Some(next);
            } else {
                self.push(next);
            }
        }
    }

    /// Numbers for a packet of the present source, in order or late. [`None`]: it belongs before the first packet.
    pub(crate) fn rewrite(&mut self, source: Source, packet: &RtpPacket, is_vp8: bool) -> Option<Rewritten> {
        let span = self.span_of(source, packet.seq)?;
        let seq = span.first_out + (packet.seq - span.first_in);
        let timestamp = span.timestamps.apply(packet.timestamp);
        if self.newest.is_none_or(|n| seq > n.seq_out) {
            let descriptor = is_vp8.then(|| vp8::Descriptor::parse(&packet.payload)).flatten();
            self.newest = Some(Newest {
                seq_in: packet.seq,
                seq_out: seq,
                timestamp_out: timestamp,
                arrival: packet.arrival,
                vp8: descriptor.map(|d| span.vp8.apply(d)),
            });
        }
        Some(Rewritten { seq, timestamp, vp8: span.vp8 })
    }

    /// Where a sequence number that was sent came from: source, publisher's number, and how it was rewritten.
    pub(crate) fn origin(&self, seq: u16) -> Option<(Source, u64)> {
        let newest = self.newest?.seq_out;
        // The extended number nearest below the newest.
        let behind = u64::from((newest as u16).wrapping_sub(seq));
        let out = newest.checked_sub(behind).filter(|_| behind < 0x8000)?;
        let span = self.spans.iter().flatten().find(|s| out >= s.first_out)?;
        Some((span.source, span.first_in + (out - span.first_out)))
    }

    /// The timestamp that the present source's `timestamp` is sent as.
    pub(crate) fn timestamp(&self, timestamp: u32) -> Option<u32> {
        Some(self.spans[0]?.timestamps.apply(timestamp))
    }

    fn span_of(&self, source: Source, seq: u64) -> Option<Span> {
        let mut newer_start = u64::MAX;
        for span in self.spans.iter().flatten() {
            if span.source != source {
                return None;
            }
            if seq >= span.first_in {
                let inside = span.first_out + (seq - span.first_in) < newer_start;
                return inside.then_some(*span);
            }
            newer_start = span.first_out;
        }
        None
    }

    fn push(&mut self, span: Span) {
        self.spans.rotate_right(1);
        self.spans[0] = Some(span);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const A: Source = Source { generation: 0, layer: 0 };
    const B: Source = Source { generation: 1, layer: 0 };

    fn packet(seq: u64, timestamp: u32, arrival: Instant) -> RtpPacket {
        RtpPacket::for_test(seq, timestamp, arrival)
    }

    #[test]
    fn loss_keeps_its_gap_and_late_packets_their_place() {
        let now = Instant::now();
        let mut r = Rewriter::new(5);
        r.begin(A, &packet(1000, 90, now), 90_000, false);
        let mut seq = |s| r.rewrite(A, &packet(s, 90, now), false).map(|r| r.seq);
        assert_eq!([seq(1000), seq(1003), seq(1001), seq(999)], [Some(5), Some(8), Some(6), None]);
        assert_eq!(r.origin(7), Some((A, 1002)));
        assert_eq!(r.origin(9), None);
    }

    #[test]
    fn another_publisher_continues_numbers_and_time() {
        let now = Instant::now();
        let mut r = Rewriter::new(5 | 7 << 32);
        r.begin(A, &packet(65_000, 100, now), 90_000, false);
        let last = r.rewrite(A, &packet(65_000, 100, now), false).unwrap();
        assert_eq!((last.seq, last.timestamp), (5, 7));
        let later = packet(3, 4_000_000_000, now + Duration::from_secs(2));
        assert!(!r.follows(B));
        r.begin(B, &later, 90_000, false);
        let first = r.rewrite(B, &later, false).unwrap();
        assert_eq!((first.seq, first.timestamp), (6, 7 + 180_000));
        assert_eq!(r.origin(5), Some((A, 65_000)));
        assert_eq!(r.origin(6), Some((B, 3)));
        // What is late from the former publisher has no place any more.
        assert_eq!(r.rewrite(A, &packet(65_001, 100, now), false), None);
    }

    #[test]
    fn a_backlog_is_moved_together_and_ends_on_the_live_edge() {
        let now = Instant::now();
        let mut r = Rewriter::new(7 << 32);
        let first = packet(100, u32::MAX - 44_999, now);
        let live = packet(130, 45_000, now + Duration::from_secs(1));
        r.begin_backlog(A, &first, &live, 90_000, false);
        let mut at = |p: &RtpPacket| r.rewrite(A, p, false).unwrap().timestamp;
        assert_eq!(at(&first), 7);
        assert_eq!(at(&packet(115, 0, now)), 7 + 45_000 / 32);
        assert_eq!(at(&live), 7 + 90_000 / 32);
        // From there on time passes as it does.
        assert_eq!(at(&packet(131, 48_000, now)), 7 + 90_000 / 32 + 3000);
    }

    #[test]
    fn a_packet_left_out_closes_up() {
        let now = Instant::now();
        let mut r = Rewriter::new(0);
        r.begin(A, &packet(10, 0, now), 90_000, false);
        r.rewrite(A, &packet(10, 0, now), false);
        r.skip(A, &packet(11, 0, now));
        r.skip(A, &packet(12, 0, now));
        assert_eq!(r.rewrite(A, &packet(13, 0, now), false).unwrap().seq, 1);
        assert_eq!(r.origin(1), Some((A, 13)));
        // Left out, so it must not take the place of its follower.
        assert_eq!(r.rewrite(A, &packet(11, 0, now), false), None);
    }
}
