//! The packets of one track that were forwarded lately: one ring, shared by all viewers, from which lost ones are
//! sent again and from which viewers that join start.
//!
//! How far it reaches back is its [`Depth`]. A publisher that makes a keyframe when asked needs no more than what
//! repairs ask for. Where nobody can be asked, everything since the last keyframe is kept, and the group of pictures
//! before it for as long as viewers that were amid it may ask for repairs.

use std::time::{Duration, Instant};

use crate::packet::RtpPacket;

/// A NACK for anything older comes too late for a live picture: it is a round trip, the receiver's reordering wait
/// and a few retries, and browsers give up after about a second.
const MAX_AGE: Duration = Duration::from_millis(2000);
/// Slots at the start: a second of audio, a third of a second of 1080p video.
const MIN_SLOTS: usize = 64;
/// Two seconds of 20 Mbit/s.
const MAX_SLOTS: usize = 4096;

/// A viewer that joins is sent at most this much; with more behind it, a new keyframe is the better start.
const MAX_BACKLOG_PACKETS: u64 = 400;
/// Encoders of broadcast streams make a keyframe every 2 to 10 seconds; beyond this a viewer waits for the next one.
const MAX_DEEP_AGE: Duration = Duration::from_secs(16);
/// 16 seconds of 16 Mbit/s: what one stream may hold of a machine's memory for the sake of a quick start.
const MAX_DEEP_BYTES: u64 = 32 * 1024 * 1024;
/// The same in packets of a kilobyte.
const MAX_DEEP_SLOTS: usize = 32_768;

/// How much of a publisher's tracks is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// What NACKs may ask for: the publisher makes a keyframe when asked.
    Shallow,
    /// Everything since the last keyframe: nobody can be asked for one.
    Deep,
}

/// A ring of packets by sequence number.
#[derive(Debug)]
pub(crate) struct History {
    depth: Depth,
    slots: Vec<Option<RtpPacket>>,
    newest: Option<Newest>,
    keyframe: Option<Keyframe>,
    /// First packet of the group of pictures before the last keyframe, and until when it is kept. Only if deep.
    former: Option<(u64, Instant)>,
    /// Payload bytes since the last keyframe.
    bytes: u64,
}

#[derive(Debug, Clone, Copy)]
struct Newest {
    layer: u8,
    seq: u64,
    timestamp: u32,
}

/// Where the last keyframe begins.
#[derive(Debug, Clone, Copy)]
struct Keyframe {
    layer: u8,
    seq: u64,
    timestamp: u32,
    arrival: Instant,
}

impl History {
    pub(crate) fn new(depth: Depth) -> History {
        History { depth, slots: Vec::new(), newest: None, keyframe: None, former: None, bytes: 0 }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        *self = History::new(self.depth);
    }

    /// Keeps a packet, in place of the one whose slot it needs.
    pub(crate) fn insert(&mut self, packet: &RtpPacket) {
        if self.slots.is_empty() {
            self.slots.resize(MIN_SLOTS, None);
        }
        while self.slots.len() < self.max_slots() && self.displaces(packet) {
            self.grow();
        }
        let slot = self.slot(packet.seq);
        self.slots[slot] = Some(packet.clone());
        if packet.opens_keyframe {
            self.note_keyframe(packet);
        }
        let (layer, seq, timestamp) = (packet.layer, packet.seq, packet.timestamp);
        if self.newest.is_none_or(|n| n.layer != layer || n.seq < seq) {
            self.newest = Some(Newest { layer, seq, timestamp });
        }
        if self.depth == Depth::Deep {
            self.bound(packet);
        }
    }

    fn max_slots(&self) -> usize {
        match self.depth {
            Depth::Shallow => MAX_SLOTS,
            Depth::Deep => MAX_DEEP_SLOTS,
        }
    }

    /// Whether a packet that is still of use stands in the slot.
    fn displaces(&self, packet: &RtpPacket) -> bool {
        let displaced = self.slots[self.slot(packet.seq)].as_ref();
        displaced.is_some_and(|old| old.seq != packet.seq && self.keeps(packet.arrival, old))
    }

    /// Gives up the start from the last keyframe when it would be too long.
    fn bound(&mut self, packet: &RtpPacket) {
        let Some(keyframe) = self.keyframe else { return };
        self.bytes += packet.payload.len() as u64;
        let too_old = packet.arrival.saturating_duration_since(keyframe.arrival) > MAX_DEEP_AGE;
        let displaced = packet.seq.saturating_sub(keyframe.seq) >= MAX_DEEP_SLOTS as u64;
        if too_old || displaced || self.bytes > MAX_DEEP_BYTES {
            (self.keyframe, self.former) = (None, None);
        }
    }

    /// How much later than its successor a packet comes, [`None`] in the usual case that it is the newest.
    pub(crate) fn lateness(&self, packet: &RtpPacket) -> Option<Duration> {
        /// A packet further back was not held up by a loss.
        const REACH: u64 = 64;
        let newest = self.newest.filter(|n| n.layer == packet.layer && n.seq > packet.seq)?;
        let successor = (packet.seq + 1..=newest.seq.min(packet.seq + REACH))
            .find_map(|seq| self.get(packet.arrival, packet.layer, seq))?;
        Some(packet.arrival.saturating_duration_since(successor.arrival))
    }

    /// Several packets of one keyframe open it: parameter sets, slices. The first of them counts.
    fn note_keyframe(&mut self, packet: &RtpPacket) {
        let (layer, seq, timestamp, arrival) = (packet.layer, packet.seq, packet.timestamp, packet.arrival);
        // A feed comes in order, and may bring the same pictures again under new numbers.
        let goes_on = self.depth == Depth::Shallow || self.newest.is_some_and(|n| n.timestamp == timestamp);
        let is_same = |k: &Keyframe| k.layer == layer && k.timestamp == timestamp && k.seq <= seq && goes_on;
        let is_late = |k: &Keyframe| k.layer == layer && k.timestamp != timestamp && k.seq > seq;
        if self.keyframe.is_some_and(|k| is_same(&k) || is_late(&k)) {
            return;
        }
        if self.depth == Depth::Deep {
            self.former = self.keyframe.map(|k| (k.seq, arrival + MAX_AGE));
            self.bytes = 0;
        }
        self.keyframe = Some(Keyframe { layer, seq, timestamp, arrival });
    }

    /// The packets from the last keyframe on, up to and without `end`. [`None`]: it is too long ago.
    pub(crate) fn backlog(&self, now: Instant, end: Option<u64>) -> Option<impl Iterator<Item = &RtpPacket>> {
        let (start, layer, end) = self.backlog_range(now, end)?;
        Some((start..end).filter_map(move |seq| self.get(now, layer, seq)))
    }

    /// What is kept of the packets that arrived at `arrival` or later, in no particular order.
    pub(crate) fn since(&self, now: Instant, arrival: Instant) -> impl Iterator<Item = &RtpPacket> {
        let layer = self.newest.map(|n| n.layer);
        let is_fresh = move |p: &&RtpPacket| p.arrival >= arrival && Some(p.layer) == layer && self.keeps(now, p);
        self.slots.iter().flatten().filter(is_fresh)
    }

    /// The first and the last packet of the [`backlog`](Self::backlog).
    pub(crate) fn backlog_ends(&self, now: Instant, end: Option<u64>) -> Option<(&RtpPacket, &RtpPacket)> {
        let (start, layer, end) = self.backlog_range(now, end)?;
        let last = (start..end).rev().find_map(|seq| self.get(now, layer, seq))?;
        Some((self.get(now, layer, start)?, last))
    }

    fn backlog_range(&self, now: Instant, end: Option<u64>) -> Option<(u64, u8, u64)> {
        let (keyframe, newest) = (self.keyframe?, self.newest?);
        let end = end.unwrap_or(newest.seq + 1);
        let short = self.depth == Depth::Deep || end.saturating_sub(keyframe.seq) <= MAX_BACKLOG_PACKETS;
        let fits = keyframe.layer == newest.layer && keyframe.seq < end && short;
        self.get(now, newest.layer, keyframe.seq).filter(|_| fits)?;
        Some((keyframe.seq, newest.layer, end))
    }

    /// The packets of a layer from `seq` on up to `end`, each the next one that is there, at most a ring's length back.
    pub(crate) fn next_from(&self, now: Instant, layer: u8, seq: u64, end: u64) -> Option<&RtpPacket> {
        let start = seq.max(end.saturating_sub(self.slots.len() as u64));
        (start..end).find_map(|seq| self.get(now, layer, seq))
    }

    /// Layer and sequence number of the newest packet.
    pub(crate) fn newest(&self) -> Option<(u8, u64)> {
        self.newest.map(|n| (n.layer, n.seq))
    }

    /// The packet of that sequence number and layer, if it is still of use.
    pub(crate) fn get(&self, now: Instant, layer: u8, seq: u64) -> Option<&RtpPacket> {
        let packet = self.slots.get(self.slot(seq))?.as_ref()?;
        (packet.seq == seq && packet.layer == layer && self.keeps(now, packet)).then_some(packet)
    }

    fn keeps(&self, now: Instant, packet: &RtpPacket) -> bool {
        let of_last = || self.keyframe.is_some_and(|k| packet.seq >= k.seq);
        let of_former = || self.former.is_some_and(|(from, until)| packet.seq >= from && now <= until);
        let young = now.saturating_duration_since(packet.arrival) <= MAX_AGE;
        young || self.depth == Depth::Deep && (of_last() || of_former())
    }

    /// Whether a packet was here and is too old to be sent again, or has been displaced: its picture cannot be mended.
    pub(crate) fn has_forgotten(&self, now: Instant, layer: u8, seq: u64) -> bool {
        let slot = self.slots.get(self.slot(seq)).and_then(Option::as_ref);
        let passed = self.newest.is_some_and(|n| n.layer == layer && n.seq > seq + self.slots.len() as u64);
        passed || slot.is_some_and(|p| p.layer == layer && p.seq == seq && !self.keeps(now, p))
    }

    /// Forgets packets that are of no use any more, so that a silent track holds no memory of its past.
    pub(crate) fn expire(&mut self, now: Instant) {
        if self.depth == Depth::Deep
            && self.keyframe.is_some_and(|k| now.saturating_duration_since(k.arrival) > MAX_DEEP_AGE)
        {
            (self.keyframe, self.former) = (None, None);
        }
        let mut slots = std::mem::take(&mut self.slots);
        for slot in &mut slots {
            if slot.as_ref().is_some_and(|p| !self.keeps(now, p)) {
                *slot = None;
            }
        }
        self.slots = slots;
    }

    fn slot(&self, seq: u64) -> usize {
        // The number of slots is a power of two.
        seq as usize & self.slots.len().wrapping_sub(1)
    }

    fn grow(&mut self) {
        let old = std::mem::take(&mut self.slots);
        self.slots.resize(old.len() * 2, None);
        for packet in old.into_iter().flatten() {
            let slot = self.slot(packet.seq);
            self.slots[slot] = Some(packet);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(seq: u64, arrival: Instant) -> RtpPacket {
        RtpPacket::for_test(seq, 0, arrival)
    }

    #[test]
    fn grows_until_two_seconds_fit_and_no_further() {
        let start = Instant::now();
        let mut history = History::new(Depth::Shallow);
        for i in 0..20_000u64 {
            history.insert(&packet(i, start + Duration::from_micros(i * 500)));
        }
        assert_eq!(history.slots.len(), MAX_SLOTS);
        let now = start + Duration::from_micros(19_999 * 500);
        assert!(history.get(now, 0, 19_999 - 3999).is_some());
        assert!(history.get(now, 0, 19_999 - 4001).is_none());
        assert!(history.get(now, 1, 19_999).is_none());
    }

    #[test]
    fn backlog_begins_with_the_first_packet_of_the_last_keyframe() {
        let now = Instant::now();
        let mut history = History::new(Depth::Shallow);
        let mut insert = |seq, timestamp, opens_keyframe| {
            history.insert(&RtpPacket { timestamp, opens_keyframe, ..packet(seq, now) });
        };
        for (seq, timestamp, opens) in [(1, 0, true), (2, 0, true), (3, 90, false), (5, 180, true), (4, 180, true)] {
            insert(seq, timestamp, opens);
        }
        insert(6, 180, true);
        insert(8, 270, false);
        let seqs = |end| history.backlog(now, end).map(|b| b.map(|p| p.seq).collect::<Vec<_>>());
        assert_eq!(seqs(None), Some(vec![4, 5, 6, 8]));
        assert_eq!(seqs(Some(8)), Some(vec![4, 5, 6]));
        assert_eq!(seqs(Some(4)), None);
        assert_eq!(history.since(now, now).count(), 7);
        assert_eq!(history.since(now, now + MAX_AGE).count(), 0);
        assert!(history.backlog(now + MAX_AGE * 2, None).is_none());
    }

    /// A feed of 200 packets a second with a keyframe of three packets every `group` packets.
    fn deep(packets: u64, group: u64, bytes: usize) -> (History, Instant) {
        let (start, step) = (Instant::now(), Duration::from_millis(5));
        let mut history = History::new(Depth::Deep);
        let payload: std::sync::Arc<[u8]> = vec![0; bytes].into();
        for i in 0..packets {
            let keyframe = i % group < 3;
            let timestamp = (if keyframe { i - i % group } else { i }) as u32 * 450;
            let payload = std::sync::Arc::clone(&payload);
            let arrival = start + step * i as u32;
            history.insert(&RtpPacket { timestamp, opens_keyframe: keyframe, payload, ..packet(i, arrival) });
        }
        (history, start + step * (packets - 1) as u32)
    }

    #[test]
    fn a_deep_history_reaches_back_to_its_last_keyframe() {
        let (history, now) = deep(4500, 2000, 1);
        let ends = history.backlog_ends(now, None).map(|(first, last)| (first.seq, last.seq));
        assert_eq!(ends, Some((4000, 4499)));
        assert_eq!(history.backlog(now, None).unwrap().count(), 500);
        // 2.5 s after the keyframe nothing is left of the group before; a second after it everything is.
        assert!(history.get(now, 0, 3999).is_none() && history.has_forgotten(now, 0, 3999));
        let (history, now) = deep(4200, 2000, 1);
        assert!(history.get(now, 0, 2000).is_some() && history.get(now, 0, 1999).is_none());
        // 10 s with packets of 1200 bytes still fit, as does a hole at the end of what is asked for.
        let (history, now) = deep(1999, 2000, 1200);
        assert_eq!(history.backlog(now, Some(1900)).unwrap().count(), 1900);
    }

    #[test]
    fn a_deep_history_is_bounded_in_time_bytes_and_packets() {
        let (history, now) = deep(3200, 10_000, 1);
        assert!(history.backlog(now, None).is_some());
        let (mut history, now) = deep(3300, 10_000, 1);
        assert!(history.backlog(now, None).is_none(), "16.5 s");
        history.expire(now);
        assert_eq!(history.slots.iter().flatten().count(), 401, "two seconds are left for repairs");
        let (history, now) = deep(2000, 10_000, 20_000);
        assert!(history.backlog(now, None).is_none(), "40 MB");
        let mut history = History::new(Depth::Deep);
        let start = Instant::now();
        for i in 0..40_000 {
            history.insert(&RtpPacket { opens_keyframe: i == 0, ..packet(i, start) });
        }
        assert!(history.backlog(start, None).is_none());
        assert_eq!(history.slots.len(), MAX_DEEP_SLOTS);
        // A jump of the numbers costs no more than a ring's length.
        history.insert(&packet(1 << 60, start));
        assert_eq!(history.next_from(start, 0, 39_999, (1 << 60) + 1).map(|p| p.seq), Some(1 << 60));
    }

    #[test]
    fn the_same_pictures_under_new_numbers_are_a_new_start() {
        let now = Instant::now();
        let mut history = History::new(Depth::Deep);
        for (seq, timestamp, opens_keyframe) in
            [(1, 0, true), (2, 0, true), (3, 90, false), (4, 0, true), (5, 0, true), (6, 90, false)]
        {
            history.insert(&RtpPacket { timestamp, opens_keyframe, ..packet(seq, now) });
        }
        assert_eq!(history.backlog_ends(now, None).map(|(first, last)| (first.seq, last.seq)), Some((4, 6)));
    }

    #[test]
    fn old_packets_are_not_handed_out() {
        let start = Instant::now();
        let mut history = History::new(Depth::Shallow);
        assert!(history.get(start, 0, 1).is_none());
        history.insert(&packet(1, start));
        assert!(history.get(start + MAX_AGE, 0, 1).is_some());
        let late = start + MAX_AGE + Duration::from_millis(1);
        assert!(history.get(late, 0, 1).is_none());
        assert!(history.has_forgotten(late, 0, 1));
        assert!(!history.has_forgotten(late, 0, 2));
        history.expire(start + MAX_AGE * 2);
        assert!(history.slots.iter().all(Option::is_none));
    }
}
