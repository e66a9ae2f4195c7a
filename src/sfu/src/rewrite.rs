//! Sequence numbers and timestamps of one viewer's track: continuous, whatever happens to its source.
//!
//! What a viewer receives is a chain of *spans*. Within a span every packet keeps its distance to its neighbours, so a
//! packet that is missing or late keeps its place; a new span begins where the source changes (another layer,
//! another publisher, a packet left out) and goes on where the last one ended.

use std::time::{Duration, Instant};

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
    clock_hz: u32,
    backlog: Option<Backlog>,
}

/// The part of a span that is sent faster than it was recorded: from the last keyframe to where the live edge will be
/// when it has been caught up with.
///
/// With their own distances a player would show these pictures at their own pace, begin late by their length and stay
/// behind for good. So they are moved together to the time that sending them takes: each is due when it comes, and the
/// last one is on the live edge.
#[derive(Debug, Clone, Copy)]
struct Backlog {
    /// RTP time of the source at which it ends; from there on time passes as it does.
    end: u32,
    /// Ticks that it covers at the source.
    covers: u32,
    /// Ticks that it takes to send.
    takes: u32,
}

impl Timestamps {
    fn apply(self, timestamp: u32) -> u32 {
        timestamp.wrapping_add(self.shift(timestamp)).wrapping_add(self.offset)
    }

    /// How many ticks later than it was recorded a packet of the backlog is shown.
    fn shift(self, timestamp: u32) -> u32 {
        let Some(backlog) = self.backlog else { return 0 };
        let behind = backlog.end.wrapping_sub(timestamp);
        if behind == 0 || behind > i32::MAX as u32 {
            return 0;
        }
        let kept = u64::from(behind) * u64::from(backlog.takes) / u64::from(backlog.covers.max(1));
        behind.saturating_sub(kept as u32)
    }

    fn shift_time(self, timestamp: u32) -> Duration {
        Duration::from_micros(u64::from(self.shift(timestamp)) * 1_000_000 / u64::from(self.clock_hz.max(1)))
    }
}

/// Where a backlog stands and how long it takes to send.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BacklogSpan<'a> {
    /// The newest packet of the source.
    pub(crate) live: &'a RtpPacket,
    /// Until the live edge is reached.
    pub(crate) takes: Duration,
}

/// How a packet is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rewritten {
    /// Extended sequence number, the SRTP index.
    pub(crate) seq: u64,
    pub(crate) timestamp: u32,
    pub(crate) vp8: vp8::Offsets,
}

impl Span {
    /// For packets that are not older than its first one.
    fn rewrite(&self, packet: &RtpPacket) -> Rewritten {
        let seq = self.first_out + packet.seq.saturating_sub(self.first_in);
        Rewritten { seq, timestamp: self.timestamps.apply(packet.timestamp), vp8: self.vp8 }
    }
}

/// A packet that was sent, as its source numbered it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Original {
    pub(crate) source: Source,
    /// The source's number.
    pub(crate) seq: u64,
    span: Span,
}

impl Original {
    /// The numbers that the packet was sent under, even if it has been sent under others since.
    pub(crate) fn rewrite(&self, packet: &RtpPacket) -> Rewritten {
        self.span.rewrite(packet)
    }
}

/// The newest packet that was sent.
#[derive(Debug, Clone, Copy)]
struct Newest {
    seq_in: u64,
    seq_out: u64,
    timestamp_out: u32,
    /// The moment that its timestamp stands for: its arrival, and later for a packet of a backlog.
    time: Instant,
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

    /// Begins a span with a backlog that begins with `packet`.
    pub(crate) fn begin_backlog(
        &mut self,
        source: Source,
        packet: &RtpPacket,
        span: BacklogSpan<'_>,
        clock_hz: u32,
        is_vp8: bool,
    ) {
        self.begin_span(source, packet, Some(span), clock_hz, is_vp8);
    }

    fn begin_span(
        &mut self,
        source: Source,
        packet: &RtpPacket,
        backlog: Option<BacklogSpan<'_>>,
        clock_hz: u32,
        is_vp8: bool,
    ) {
        // The packet that is shown now: the first one, which for a backlog has the timestamp of the newest.
        let anchor = backlog.map_or(packet, |b| b.live);
        let descriptor = is_vp8.then(|| vp8::Descriptor::parse(&packet.payload)).flatten();
        let (first_out, timestamp, vp8) = match &self.newest {
            None => (self.first_seq, self.first_timestamp, vp8::Offsets::default()),
            Some(newest) => {
                let vp8 = match (newest.vp8, descriptor) {
                    (Some(last), Some(first)) => vp8::Offsets::continuing(last, first),
                    _ => vp8::Offsets::default(),
                };
                (newest.seq_out + 1, self.timestamp_after(newest, source, anchor, clock_hz), vp8)
            }
        };
        let offset = timestamp.wrapping_sub(anchor.timestamp);
        let backlog = backlog.map(|b| {
            let takes = (b.takes.as_micros() * u128::from(clock_hz) / 1_000_000) as u32;
            let end = anchor.timestamp.wrapping_add(takes);
            Backlog { end, covers: end.wrapping_sub(packet.timestamp), takes }
        });
        let timestamps = Timestamps { offset, clock_hz, backlog };
        self.push(Span { source, first_in: packet.seq, first_out, timestamps, vp8 });
    }

    /// The timestamp of a span's first packet, behind `newest` by the time that has passed between them.
    fn timestamp_after(&self, newest: &Newest, source: Source, anchor: &RtpPacket, clock_hz: u32) -> u32 {
        /// One source's own times are better than arrivals, unless its encoder has begun to count anew.
        const PLAUSIBLE_SECONDS: u32 = 2;
        let elapsed = anchor.arrival.saturating_duration_since(newest.time);
        let by_arrival = (elapsed.as_micros() * u128::from(clock_hz) / 1_000_000) as u32;
        let by_source = self.spans[0].filter(|s| s.source == source).map(|s| {
            let timestamp = anchor.timestamp.wrapping_add(s.timestamps.offset);
            timestamp.wrapping_sub(newest.timestamp_out)
        });
        let plausible =
            |ticks: &u32| (ticks.wrapping_sub(by_arrival) as i32).unsigned_abs() < PLAUSIBLE_SECONDS * clock_hz;
        let ticks = by_source.filter(plausible).unwrap_or(by_arrival);
        // At least one tick: equal timestamps would make one frame of two.
        newest.timestamp_out.wrapping_add(if ticks as i32 > 0 { ticks } else { 1 })
    }

    /// Closes the gap before `packet` if what is missing lies within `left_out`: packets that were not meant for viewers
    /// that play already.
    pub(crate) fn close_gap(&mut self, source: Source, packet: &RtpPacket, left_out: (u64, u64)) {
        let (Some(span), Some(newest)) = (self.spans[0], &self.newest) else { return };
        let first_missing = newest.seq_in + 1;
        let is_gap = span.source == source && first_missing < packet.seq;
        if is_gap && left_out.0 <= first_missing && packet.seq - 1 <= left_out.1 {
            self.push(Span { first_in: packet.seq, first_out: newest.seq_out + 1, ..span });
        }
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
        let Rewritten { seq, timestamp, .. } = span.rewrite(packet);
        if self.newest.is_none_or(|n| seq > n.seq_out) {
            let descriptor = is_vp8.then(|| vp8::Descriptor::parse(&packet.payload)).flatten();
            self.newest = Some(Newest {
                seq_in: packet.seq,
                seq_out: seq,
                timestamp_out: timestamp,
                time: packet.arrival + span.timestamps.shift_time(packet.timestamp),
                vp8: descriptor.map(|d| span.vp8.apply(d)),
            });
        }
        Some(Rewritten { seq, timestamp, vp8: span.vp8 })
    }

    /// Where a sequence number that was sent came from.
    pub(crate) fn original(&self, seq: u16) -> Option<Original> {
        let newest = self.newest?.seq_out;
        // The extended number nearest below the newest.
        let behind = u64::from((newest as u16).wrapping_sub(seq));
        let out = newest.checked_sub(behind).filter(|_| behind < 0x8000)?;
        let span = *self.spans.iter().flatten().find(|s| out >= s.first_out)?;
        Some(Original { seq: span.first_in + (out - span.first_out), source: span.source, span })
    }

    /// The timestamp that the present source's `timestamp` is sent as on the live edge.
    pub(crate) fn timestamp(&self, timestamp: u32) -> Option<u32> {
        Some(timestamp.wrapping_add(self.spans[0]?.timestamps.offset))
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
    use super::*;

    const A: Source = Source { generation: 0, layer: 0 };
    const B: Source = Source { generation: 1, layer: 0 };

    fn packet(seq: u64, timestamp: u32, arrival: Instant) -> RtpPacket {
        RtpPacket::for_test(seq, timestamp, arrival)
    }

    fn origin(r: &Rewriter, seq: u16) -> Option<(Source, u64)> {
        r.original(seq).map(|o| (o.source, o.seq))
    }

    #[test]
    fn loss_keeps_its_gap_and_late_packets_their_place() {
        let now = Instant::now();
        let mut r = Rewriter::new(5);
        r.begin(A, &packet(1000, 90, now), 90_000, false);
        let mut seq = |s| r.rewrite(A, &packet(s, 90, now), false).map(|r| r.seq);
        assert_eq!([seq(1000), seq(1003), seq(1001), seq(999)], [Some(5), Some(8), Some(6), None]);
        assert_eq!(origin(&r, 7), Some((A, 1002)));
        assert_eq!(origin(&r, 9), None);
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
        assert_eq!(origin(&r, 5), Some((A, 65_000)));
        assert_eq!(origin(&r, 6), Some((B, 3)));
        // What is late from the former publisher has no place any more.
        assert_eq!(r.rewrite(A, &packet(65_001, 100, now), false), None);
    }

    #[test]
    fn a_backlog_is_moved_together_and_ends_on_the_live_edge() {
        let now = Instant::now();
        let mut r = Rewriter::new(7 << 32);
        // Nine seconds up to now, caught up with in one.
        let first = packet(100, u32::MAX - 404_999, now - Duration::from_secs(9));
        let live = packet(400, 405_000, now);
        let span = BacklogSpan { live: &live, takes: Duration::from_secs(1) };
        r.begin_backlog(A, &first, span, 90_000, false);
        let mut at = |p: &RtpPacket| r.rewrite(A, p, false).unwrap().timestamp;
        assert_eq!(at(&first), 7, "shown at once");
        assert_eq!(at(&packet(250, 45_000, now - Duration::from_secs(4))), 7 + 45_000);
        assert_eq!(at(&live), 7 + 81_000);
        assert_eq!(at(&packet(430, 495_000, now + Duration::from_secs(1))), 7 + 90_000, "on the live edge");
        // From there on time passes as it does.
        assert_eq!(at(&packet(431, 498_000, now + Duration::from_secs(1))), 7 + 93_000);
        assert_eq!(r.timestamp(405_000), Some(7));
    }

    #[test]
    fn starting_again_from_the_same_packets_gives_them_new_numbers() {
        let now = Instant::now();
        let mut r = Rewriter::new(0);
        let at = |seq: u64| packet(seq, seq as u32 * 3000, now + Duration::from_millis(seq * 1000 / 30));
        r.begin(A, &at(10), 90_000, false);
        for seq in 10..20 {
            r.rewrite(A, &at(seq), false);
        }
        r.begin_backlog(A, &at(10), BacklogSpan { live: &at(19), takes: Duration::from_millis(50) }, 90_000, false);
        let again = r.rewrite(A, &at(10), false).unwrap();
        assert_eq!((again.seq, again.timestamp), (10, 9 * 3000 + 1));
        // A NACK for the first time is answered with the first numbers.
        let original = r.original(3).unwrap();
        assert_eq!((original.source, original.seq), (A, 13));
        let first = original.rewrite(&at(13));
        assert_eq!((first.seq, first.timestamp), (3, 3 * 3000));
        // The live edge has moved by the one tick.
        assert_eq!(r.rewrite(A, &at(40), false).unwrap().timestamp, 30 * 3000 + 1);
    }

    #[test]
    fn another_source_amid_a_backlog_goes_on_from_what_is_shown() {
        let now = Instant::now();
        let mut r = Rewriter::new(0);
        let first = packet(1, 0, now - Duration::from_secs(9));
        let live = packet(10, 810_000, now);
        r.begin_backlog(A, &first, BacklogSpan { live: &live, takes: Duration::from_secs(1) }, 90_000, false);
        let half = r.rewrite(A, &packet(5, 450_000, now - Duration::from_secs(4)), false).unwrap().timestamp;
        let other = packet(77, 5, now + Duration::from_millis(600));
        r.begin(B, &other, 90_000, false);
        let step = r.rewrite(B, &other, false).unwrap().timestamp - half;
        assert!((8_999..=9_001).contains(&step), "{step} ticks for a tenth of a second");
    }

    #[test]
    fn what_was_left_out_leaves_no_gap() {
        let now = Instant::now();
        let mut r = Rewriter::new(0);
        r.begin(A, &packet(10, 0, now), 90_000, false);
        r.rewrite(A, &packet(10, 0, now), false);
        r.close_gap(A, &packet(31, 0, now), (12, 30));
        assert_eq!(r.rewrite(A, &packet(31, 0, now), false).unwrap().seq, 21, "number 11 was lost");
        r.close_gap(A, &packet(51, 0, now), (32, 50));
        assert_eq!(r.rewrite(A, &packet(51, 0, now), false).unwrap().seq, 22);
        assert_eq!((origin(&r, 22), origin(&r, 21)), (Some((A, 51)), Some((A, 31))));
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
        assert_eq!(origin(&r, 1), Some((A, 13)));
        // Left out, so it must not take the place of its follower.
        assert_eq!(r.rewrite(A, &packet(11, 0, now), false), None);
    }
}
