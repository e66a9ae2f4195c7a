//! Puts a track's packets in order, and waits for missing ones as long as they are worth it.
//!
//! The wait is a time, not a number of packets: retransmissions take a round trip or two whatever the bit rate is, and how
//! long is learned from those that come. What is in order passes at once, so that nothing is delayed on a path without
//! loss. Who cannot use anything before a keyframe need not wait for what is missing before one that is here already
//! ([`JitterBuffer::skip_to_opening`]).
//!
//! It knows neither codec nor RTCP: whoever receives the packets asks for missing ones again. There is no clock in it.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::repair_time::{Patience, RepairTime};

/// Most packets that wait behind a missing one: 500 ms at 30 Mbit/s in packets of 1100 bytes come to 1,700.
const MAX_PACKETS: usize = 2048;
/// Most bytes that wait: what [`MAX_PACKETS`] come to at the size of a datagram.
const MAX_BYTES: usize = MAX_PACKETS * 1500;
/// A packet so far behind is none that was late but the beginning of a new count.
const RESTART_DISTANCE: u64 = 4096;
/// Gaps that are remembered after they were given up, to learn from what fills them too late.
const MAX_GIVEN_UP: usize = 32;

/// How a [`JitterBuffer`] works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JitterBufferOptions {
    /// How long the packets behind a missing one wait for it, from the first of them on.
    pub patience: Patience,
    /// How long the very first packet waits for others that were sent before it and came behind it. After that it is
    /// the first one.
    pub settle: Duration,
}

impl JitterBufferOptions {
    /// For pictures, which are repaired and stop without.
    pub const fn for_pictures() -> JitterBufferOptions {
        let millis = Duration::from_millis;
        let patience = Patience { shortest: millis(120), first: millis(300), longest: millis(500) };
        // Packets of one burst change places within the jitter of a path, and whoever loses the first packet loses the
        // first picture.
        JitterBufferOptions { patience, settle: millis(30) }
    }

    /// For sound, of which browsers repair nothing, so that it soon waits the shortest time, and whose holes are concealed.
    pub const fn for_sound() -> JitterBufferOptions {
        let millis = Duration::from_millis;
        let patience = Patience { shortest: millis(120), first: millis(200), longest: millis(300) };
        JitterBufferOptions { patience, settle: millis(30) }
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
    /// A picture that can be decoded on its own begins here.
    pub opens: bool,
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
    /// Packets that did not come in time, or are not waited for.
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
    /// Is to be told before the next packet.
    lost: Option<u64>,
    given_up: VecDeque<(Range<u64>, Instant)>,
    repair_time: RepairTime,
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
            lost: None,
            given_up: VecDeque::new(),
            repair_time: RepairTime::new(options.patience),
            late: 0,
        }
    }

    /// Takes a packet. Those that came before or too late are dropped.
    pub fn push(&mut self, packet: JitterPacket) {
        match self.next {
            Some(next) if packet.seq < next => {
                if next - packet.seq < RESTART_DISTANCE {
                    self.learn_from_late(&packet);
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
        if let Some((_, successor)) = self.waiting.range(packet.seq..).next() {
            self.repair_time.repaired(packet.arrival.saturating_duration_since(successor.arrival));
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
        if let Some(count) = self.lost.take() {
            return Some(JitterOutput::Lost { count });
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
            self.see_gap(next.saturating_add(1));
            return Some(JitterOutput::Packet(packet));
        }
        if is_over { self.give_up(first) } else { None }
    }

    /// Nothing before a keyframe is of use: what waits before one that is here already is left out, and what is missing
    /// before it is not waited for. Of several it is the first one that is whole, otherwise the first.
    pub fn skip_to_opening(&mut self) {
        if self.waits_since.is_none() {
            return;
        }
        let mut openings = self.waiting.values().filter(|packet| packet.opens).map(|packet| packet.timestamp);
        let Some(first) = openings.next() else { return };
        let whole = std::iter::once(first).chain(openings).find_map(|timestamp| {
            let start = self.start_of(timestamp)?;
            self.is_whole(start, timestamp).then_some(start)
        });
        let (Some(start), Some(next)) = (whole.or_else(|| self.start_of(first)), self.next) else { return };
        if start <= next {
            return;
        }
        let kept = self.waiting.split_off(&start);
        let dropped = std::mem::replace(&mut self.waiting, kept);
        self.bytes -= dropped.values().map(|packet| packet.payload.len()).sum::<usize>();
        let missing = (start - next).saturating_sub(dropped.len() as u64);
        self.lost = Some(self.lost.unwrap_or(0).saturating_add(missing));
        self.next = Some(start);
        self.see_gap(start);
    }

    /// Whether a keyframe has begun that has not come out yet.
    pub fn holds_opening(&self) -> bool {
        self.waiting.values().any(|packet| packet.opens)
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
        settled.or_else(|| self.waits_since.and_then(|since| since.checked_add(self.repair_time.wait())))
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
        let next = self.next.replace(first)?;
        if let Some(since) = self.waits_since {
            if self.given_up.len() >= MAX_GIVEN_UP {
                self.given_up.pop_front();
            }
            self.given_up.push_back((next..first, since));
            self.repair_time.gave_up();
        }
        Some(JitterOutput::Lost { count: first.saturating_sub(next) })
    }

    /// Begins to wait, or ends it: `next` comes out next.
    fn see_gap(&mut self, next: u64) {
        let has_gap = self.waiting.first_key_value().is_some_and(|(seq, _)| *seq != next);
        self.waits_since = if has_gap { self.waiting.values().map(|packet| packet.arrival).min() } else { None };
    }

    fn learn_from_late(&mut self, packet: &JitterPacket) {
        let gap = self.given_up.iter_mut().find(|(seqs, _)| seqs.contains(&packet.seq));
        if let Some((_, since)) = gap {
            self.repair_time.repaired(packet.arrival.saturating_duration_since(*since));
        }
    }

    /// Where the picture of a time begins: missing packets right before its first one may be part of it.
    fn start_of(&self, timestamp: u32) -> Option<u64> {
        let mut seqs = self.waiting.iter().filter(|(_, packet)| packet.timestamp == timestamp).map(|(seq, _)| *seq);
        let first = seqs.next()?;
        let before = self.waiting.range(..first).next_back();
        before.map_or(self.next, |(seq, _)| Some(seq.saturating_add(1)))
    }

    /// Whether all of a picture is here.
    fn is_whole(&self, start: u64, timestamp: u32) -> bool {
        let mut expected = start;
        for (seq, packet) in self.waiting.range(start..) {
            if *seq != expected {
                return false;
            }
            if packet.timestamp != timestamp || packet.marker {
                return true;
            }
            expected = expected.saturating_add(1);
        }
        false
    }

    fn restart_at(&mut self, seq: u64) {
        self.waiting.clear();
        self.bytes = 0;
        (self.waits_since, self.begun_at) = (None, None);
        self.given_up.clear();
        self.next = Some(seq);
        self.lost = Some(0);
    }
}

#[cfg(test)]
#[path = "jitter_buffer_tests.rs"]
mod tests;
