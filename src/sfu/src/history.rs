//! The packets of one track that were forwarded lately: one ring, shared by all viewers, from which lost ones are
//! sent again.

use std::time::{Duration, Instant};

use crate::packet::RtpPacket;

/// A NACK for anything older comes too late for a live picture: it is a round trip, the receiver's reordering wait
/// and a few retries, and browsers give up after about a second.
const MAX_AGE: Duration = Duration::from_millis(2000);
/// Slots at the start: a second of audio, a third of a second of 1080p video.
const MIN_SLOTS: usize = 64;
/// Two seconds of 20 Mbit/s.
const MAX_SLOTS: usize = 4096;

/// A viewer that joins is sent at most this much at once; with more behind it, a new keyframe is the better start.
const MAX_BACKLOG_PACKETS: u64 = 400;

/// A ring of packets by sequence number.
#[derive(Debug, Default)]
pub(crate) struct History {
    slots: Vec<Option<RtpPacket>>,
    newest: Option<(u8, u64)>,
    keyframe: Option<Keyframe>,
}

/// Where the last keyframe begins.
#[derive(Debug, Clone, Copy)]
struct Keyframe {
    layer: u8,
    seq: u64,
    timestamp: u32,
}

impl History {
    /// Keeps a packet, in place of the one whose slot it needs.
    pub(crate) fn insert(&mut self, packet: &RtpPacket) {
        if self.slots.is_empty() {
            self.slots.resize(MIN_SLOTS, None);
        }
        let displaced = self.slots[self.slot(packet.seq)].as_ref();
        let too_small = displaced.is_some_and(|old| packet.arrival.saturating_duration_since(old.arrival) < MAX_AGE);
        if too_small && self.slots.len() < MAX_SLOTS {
            self.grow();
        }
        let slot = self.slot(packet.seq);
        self.slots[slot] = Some(packet.clone());
        if self.newest.is_none_or(|(layer, seq)| layer != packet.layer || seq < packet.seq) {
            self.newest = Some((packet.layer, packet.seq));
        }
        if packet.opens_keyframe {
            self.note_keyframe(packet);
        }
    }

    /// How much later than its successor a packet comes, [`None`] in the usual case that it is the newest.
    pub(crate) fn lateness(&self, packet: &RtpPacket) -> Option<Duration> {
        /// A packet further back was not held up by a loss.
        const REACH: u64 = 64;
        let (_, newest) = self.newest.filter(|(layer, seq)| *layer == packet.layer && *seq > packet.seq)?;
        let successor = (packet.seq + 1..=newest.min(packet.seq + REACH))
            .find_map(|seq| self.get(packet.arrival, packet.layer, seq))?;
        Some(packet.arrival.saturating_duration_since(successor.arrival))
    }

    /// Several packets of one keyframe open it: parameter sets, slices. The first of them counts.
    fn note_keyframe(&mut self, packet: &RtpPacket) {
        let (layer, seq, timestamp) = (packet.layer, packet.seq, packet.timestamp);
        let of_the_same = self.keyframe.is_some_and(|k| k.layer == layer && k.timestamp == timestamp && k.seq <= seq);
        let late = self.keyframe.is_some_and(|k| k.layer == layer && k.timestamp != timestamp && k.seq > seq);
        if !of_the_same && !late {
            self.keyframe = Some(Keyframe { layer, seq, timestamp });
        }
    }

    /// The packets from the last keyframe on, up to and without `end`. [`None`]: it is too long ago.
    pub(crate) fn backlog(&self, now: Instant, end: Option<u64>) -> Option<impl Iterator<Item = &RtpPacket>> {
        let (keyframe, (layer, newest)) = (self.keyframe?, self.newest?);
        let end = end.unwrap_or(newest + 1);
        let fits = keyframe.layer == layer && keyframe.seq < end && end - keyframe.seq <= MAX_BACKLOG_PACKETS;
        self.get(now, layer, keyframe.seq).filter(|_| fits)?;
        Some((keyframe.seq..end).filter_map(move |seq| self.get(now, layer, seq)))
    }

    /// The packet of that sequence number and layer, if it is still young enough to be of use.
    pub(crate) fn get(&self, now: Instant, layer: u8, seq: u64) -> Option<&RtpPacket> {
        let packet = self.slots.get(self.slot(seq))?.as_ref()?;
        let young = now.saturating_duration_since(packet.arrival) <= MAX_AGE;
        (packet.seq == seq && packet.layer == layer && young).then_some(packet)
    }

    /// Whether a packet was here and is too old to be sent again, or has been displaced: its picture cannot be mended.
    pub(crate) fn has_forgotten(&self, now: Instant, layer: u8, seq: u64) -> bool {
        let slot = self.slots.get(self.slot(seq)).and_then(Option::as_ref);
        let passed = self.newest.is_some_and(|(l, newest)| l == layer && newest > seq + self.slots.len() as u64);
        passed || slot.is_some_and(|p| p.layer == layer && p.seq == seq && self.get(now, layer, seq).is_none())
    }

    /// Forgets packets that are too old to be asked for, so that a silent track holds no memory of its past.
    pub(crate) fn expire(&mut self, now: Instant) {
        for slot in &mut self.slots {
            if slot.as_ref().is_some_and(|p| now.saturating_duration_since(p.arrival) > MAX_AGE) {
                *slot = None;
            }
        }
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
        let mut history = History::default();
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
        let mut history = History::default();
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
        assert!(history.backlog(now + MAX_AGE * 2, None).is_none());
    }

    #[test]
    fn old_packets_are_not_handed_out() {
        let start = Instant::now();
        let mut history = History::default();
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
