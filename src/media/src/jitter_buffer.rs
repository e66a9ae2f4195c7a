//! Puts a track's packets in order, and waits for missing ones as long as they are worth it.
//!
//! The wait is a time, not a number of packets: retransmissions take a round trip or two whatever the bit rate is. What
//! is in order passes at once, so that nothing is delayed on a path without loss.
//!
//! It knows neither codec nor RTCP: whoever receives the packets asks for missing ones again. There is no clock in it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Most packets that wait behind a missing one: 200 ms at 50 Mbit/s in packets of 1100 bytes come to 1,140.
const MAX_PACKETS: usize = 2048;
/// Most bytes that wait: what [`MAX_PACKETS`] come to at the size of a datagram.
const MAX_BYTES: usize = MAX_PACKETS * 1500;
/// A packet so far behind is none that was late but the beginning of a new count.
const RESTART_DISTANCE: u64 = 4096;

/// How a [`JitterBuffer`] works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JitterBufferOptions {
    /// How long the packets behind a missing one wait for it, from the first of them on.
    pub deadline: Duration,
    /// How long the very first packet waits for others that were sent before it and came behind it. After that it is
    /// the first one.
    pub settle: Duration,
}

impl Default for JitterBufferOptions {
    /// Two round trips of 100 ms: one retransmission may be lost as well. Packets of one burst change places within
    /// the jitter of a path, and whoever loses the first packet loses the first picture.
    fn default() -> Self {
        JitterBufferOptions { deadline: Duration::from_millis(200), settle: Duration::from_millis(30) }
    }
}

/// One RTP packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JitterPacket {
    /// Sequence number, roll-overs counted.
    pub seq: u64,
    /// RTP time.
    pub timestamp: u32,
    /// RTP marker.
    pub marker: bool,
    /// When it arrived.
    pub arrival: Instant,
    /// Payload without padding.
    pub payload: Arc<[u8]>,
}

/// What comes out, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JitterOutput {
    /// The next packet.
    Packet(JitterPacket),
    /// Packets that did not come in time.
    Lost {
        /// How many; 0 if the sender has begun to count anew.
        count: u64,
    },
}

/// The packets of one track.
#[derive(Debug)]
pub struct JitterBuffer {
    options: JitterBufferOptions,
    /// Sequence number of the packet that comes out next; `None` until it has settled.
    next: Option<u64>,
    /// When the first packet arrived, until it has settled.
    begun_at: Option<Instant>,
    waiting: BTreeMap<u64, JitterPacket>,
    bytes: usize,
    /// When the first of the packets that wait arrived, while one before them is missing.
    waits_since: Option<Instant>,
    has_restarted: bool,
    late: u64,
}

impl JitterBuffer {
    /// An empty one.
    pub fn new(options: JitterBufferOptions) -> JitterBuffer {
        JitterBuffer {
            options,
            next: None,
            begun_at: None,
            waiting: BTreeMap::new(),
            bytes: 0,
            waits_since: None,
            has_restarted: false,
            late: 0,
        }
    }

    /// Takes a packet. Those that came before or too late are dropped.
    pub fn push(&mut self, packet: JitterPacket) {
        match self.next {
            Some(next) if packet.seq < next => {
                if next - packet.seq < RESTART_DISTANCE {
                    self.late += 1;
                    return;
                }
                self.restart_at(packet.seq);
            }
            _ => {}
        }
        if self.waiting.contains_key(&packet.seq) {
            self.late += 1;
            return;
        }
        self.bytes += packet.payload.len();
        match self.next {
            None => _ = self.begun_at.get_or_insert(packet.arrival),
            Some(next) if next != packet.seq => _ = self.waits_since.get_or_insert(packet.arrival),
            Some(_) => {}
        }
        self.waiting.insert(packet.seq, packet);
    }

    /// The next packet, or the word that some are given up. To be called until it gives nothing, after each packet and
    /// at [`JitterBuffer::poll_timeout`].
    pub fn poll(&mut self, now: Instant) -> Option<JitterOutput> {
        if std::mem::take(&mut self.has_restarted) {
            return Some(JitterOutput::Lost { count: 0 });
        }
        let first = *self.waiting.first_key_value()?.0;
        let is_full = self.waiting.len() > MAX_PACKETS || self.bytes > MAX_BYTES;
        let is_over = is_full || self.poll_timeout().is_some_and(|timeout| now >= timeout);
        let next = match self.next {
            Some(next) => next,
            None if is_over => self.begin_with(first),
            None => return None,
        };
        if first == next {
            let (_, packet) = self.waiting.pop_first()?;
            self.bytes -= packet.payload.len();
            // Sequence numbers come from the network.
            self.next = Some(next.saturating_add(1));
            let has_gap = self.waiting.first_key_value().is_some_and(|(seq, _)| *seq != next.saturating_add(1));
            self.waits_since = if has_gap { self.waiting.values().map(|packet| packet.arrival).min() } else { None };
            return Some(JitterOutput::Packet(packet));
        }
        if is_over { self.give_up(first) } else { None }
    }

    /// Gives up what is missing now, without waiting: nothing more will come.
    pub fn flush(&mut self) -> Option<JitterOutput> {
        let first = *self.waiting.first_key_value()?.0;
        let next = self.next.unwrap_or_else(|| self.begin_with(first));
        if next == first {
            let arrival = self.waiting.first_key_value()?.1.arrival;
            return self.poll(arrival);
        }
        self.give_up(first)
    }

    /// When the wait for what is missing is over.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let settled = self.begun_at.and_then(|begun| begun.checked_add(self.options.settle));
        settled.or_else(|| self.waits_since.and_then(|since| since.checked_add(self.options.deadline)))
    }

    /// How many packets came too late, or twice.
    pub fn late(&self) -> u64 {
        self.late
    }

    fn begin_with(&mut self, first: u64) -> u64 {
        self.begun_at = None;
        // Holes that are there already have waited since then.
        self.waits_since = self.waiting.values().map(|packet| packet.arrival).min();
        *self.next.insert(first)
    }

    fn give_up(&mut self, first: u64) -> Option<JitterOutput> {
        let count = first.saturating_sub(self.next?);
        self.next = Some(first);
        Some(JitterOutput::Lost { count })
    }

    fn restart_at(&mut self, seq: u64) {
        self.waiting.clear();
        self.bytes = 0;
        (self.waits_since, self.begun_at) = (None, None);
        self.next = Some(seq);
        self.has_restarted = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    const MS: Duration = Duration::from_millis(1);
    const AT_ONCE: JitterBufferOptions =
        JitterBufferOptions { deadline: Duration::from_millis(200), settle: Duration::ZERO };

    /// When in milliseconds, which packet, what comes out, when the wait ends.
    type Step<'a> = (u32, Option<u64>, &'a [i64], Option<u32>);

    fn packet(seq: u64, arrival: Instant) -> JitterPacket {
        JitterPacket { seq, timestamp: seq as u32, marker: false, arrival, payload: [seq as u8; 10][..].into() }
    }

    /// What has come out: sequence numbers, and negative numbers of lost packets.
    fn drain(buffer: &mut JitterBuffer, now: Instant) -> Vec<i64> {
        let value = |output| match output {
            JitterOutput::Packet(packet) => packet.seq as i64,
            JitterOutput::Lost { count } => -(count as i64),
        };
        std::iter::from_fn(|| buffer.poll(now)).map(value).collect()
    }

    #[test]
    fn order_is_made_and_waits_end() {
        let start = Instant::now();
        let at = |ms: u32| start + MS * ms;
        let mut buffer = JitterBuffer::new(JitterBufferOptions::default());
        let steps: [Step<'_>; 17] = [
            // The first ones change places.
            (0, Some(101), &[], Some(30)),
            (10, Some(100), &[], Some(30)),
            (30, None, &[100, 101], None),
            // Reordered.
            (32, Some(103), &[], Some(232)),
            (33, Some(102), &[102, 103], None),
            // Twice, and late.
            (34, Some(103), &[], None),
            (35, Some(90), &[], None),
            // One is missing and comes in time.
            (40, Some(105), &[], Some(240)),
            (60, Some(106), &[], Some(240)),
            (239, Some(104), &[104, 105, 106], None),
            // Two gaps: the second one's wait begins with its own successor.
            (300, Some(108), &[], Some(500)),
            (400, Some(110), &[], Some(500)),
            (499, None, &[], Some(500)),
            (500, None, &[-1, 108], Some(600)),
            (600, None, &[-1, 110], None),
            // Too late.
            (601, Some(107), &[], None),
            (602, Some(111), &[111], None),
        ];
        for (ms, seq, expected, timeout) in steps {
            if let Some(seq) = seq {
                buffer.push(packet(seq, at(ms)));
            }
            assert_eq!(drain(&mut buffer, at(ms)), expected, "at {ms} ms");
            assert_eq!(buffer.poll_timeout(), timeout.map(at), "at {ms} ms");
        }
        assert_eq!(buffer.late(), 3);
    }

    #[test]
    fn a_missing_packet_that_comes_uncovers_the_wait_of_the_next_one() {
        let start = Instant::now();
        let mut buffer = JitterBuffer::new(AT_ONCE);
        for (ms, seq) in [(0, 1), (10, 3), (150, 5), (160, 2)] {
            buffer.push(packet(seq, start + MS * ms));
        }
        assert_eq!(drain(&mut buffer, start + MS * 160), [1, 2, 3]);
        assert_eq!(buffer.poll_timeout(), Some(start + MS * 350));
        assert_eq!(drain(&mut buffer, start + MS * 350), [-1, 5]);
    }

    #[test]
    fn a_new_count_is_taken_up() {
        let now = Instant::now();
        let mut buffer = JitterBuffer::new(AT_ONCE);
        for (seqs, expected) in [([10_000, 10_001, 10_003], vec![10_000, 10_001]), ([5, 6, 5], vec![0, 5, 6])] {
            seqs.iter().for_each(|seq| buffer.push(packet(*seq, now)));
            assert_eq!(drain(&mut buffer, now), expected);
        }
        buffer.push(packet(u64::MAX, now));
        buffer.push(packet(u64::MAX - 1, now));
        assert_eq!(drain(&mut buffer, now + MS * 200).len(), 3);
        buffer.push(packet(u64::MAX, now));
        let _ = drain(&mut buffer, now + MS * 400);
    }

    #[test]
    fn what_waits_is_bounded() {
        let now = Instant::now();
        let mut buffer = JitterBuffer::new(JitterBufferOptions { deadline: Duration::from_secs(3600), ..AT_ONCE });
        let mut out = 0;
        buffer.push(packet(0, now));
        for seq in 2..10_000 {
            buffer.push(packet(seq, now));
            out += drain(&mut buffer, now).len();
            assert!(buffer.waiting.len() <= MAX_PACKETS + 1);
        }
        assert!(out > 7000, "{out}");
        for seq in 10_001..10_100 {
            buffer.push(JitterPacket { payload: vec![0; 1 << 20].into(), ..packet(seq, now) });
            drain(&mut buffer, now);
            assert!(buffer.bytes <= MAX_BYTES + (1 << 20));
        }
    }

    #[test]
    fn whatever_happens_order_and_count_hold() {
        let mut random = Random::new(3);
        for round in 0..200 {
            let start = Instant::now();
            let mut buffer = JitterBuffer::new(JitterBufferOptions::default());
            let mut packets = Vec::new();
            for seq in 1..300 {
                if random.below(100) >= round % 20 {
                    packets.push((seq * 5 + random.below(round) as u64, seq + 7));
                }
            }
            packets.sort_by_key(|(ms, _)| *ms);
            let (mut next, mut out) = (None, Vec::new());
            for (ms, seq) in &packets {
                let now = start + MS * *ms as u32;
                buffer.push(packet(*seq, now));
                out.extend(drain(&mut buffer, now));
            }
            out.extend(drain(&mut buffer, start + MS * 10_000));
            for value in out {
                let expected = next.unwrap_or(value);
                next = Some(if value < 0 { expected - value } else { value + 1 });
                assert!(value <= 0 || value == expected, "round {round}: {value}, not {expected}");
            }
            let last = packets.iter().map(|(_, seq)| *seq as i64).max().unwrap();
            assert_eq!((next, buffer.poll_timeout()), (Some(last + 1), None));
        }
    }
}
