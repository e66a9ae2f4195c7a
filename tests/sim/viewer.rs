//! What a watching client keeps of what it receives, and the checks on it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant, SystemTime};

use str0m::media::Mid;

use crate::media::{Stamp, vp8_numbers};

/// One packet as it arrived.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival {
    pub(crate) at: Instant,
    pub(crate) timestamp: u32,
    pub(crate) marker: bool,
    pub(crate) pt: u8,
    pub(crate) stamp: Stamp,
    pub(crate) vp8: Option<(u16, u8)>,
}

/// A sender report as it arrived.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Report {
    pub(crate) at: Instant,
    pub(crate) ntp: SystemTime,
    pub(crate) rtp: u32,
    pub(crate) packets: u32,
}

/// One track.
#[derive(Debug, Default)]
pub(crate) struct TrackLog {
    /// By extended sequence number.
    pub(crate) packets: BTreeMap<u64, Arrival>,
    pub(crate) reports: Vec<Report>,
    /// Packets whose stamp cannot be read, or whose number was used for another one before.
    pub(crate) broken: usize,
    /// The same packet of the publisher under two numbers.
    pub(crate) twice: usize,
    seen: BTreeSet<(u16, u8, u32, u16)>,
    pub(crate) last: Option<Instant>,
    missing_since: HashMap<u64, Instant>,
}

/// The watching side of a client.
#[derive(Debug, Default)]
pub(crate) struct Viewer {
    pub(crate) video_mid: Option<Mid>,
    pub(crate) video: TrackLog,
    pub(crate) audio: TrackLog,
    /// Asks for a keyframe when a packet is missing for that long, as players do.
    pub(crate) gives_up_after: Option<Duration>,
    pub(crate) asked: Vec<Instant>,
    pub(crate) plain_nack: bool,
}

impl TrackLog {
    pub(crate) fn take(&mut self, seq: u64, arrival: Option<Arrival>) {
        let Some(arrival) = arrival else {
            self.broken += 1;
            return;
        };
        self.last = Some(arrival.at);
        let s = arrival.stamp;
        if !self.seen.insert((s.source, s.layer, s.frame, s.index)) {
            self.twice += 1;
        }
        if self.packets.insert(seq, arrival).is_some() {
            self.broken += 1;
        }
    }

    /// Frames of a publisher that have arrived whole, with the moment of their last packet.
    pub(crate) fn frames(&self, source: u16) -> BTreeMap<u32, Instant> {
        let mut parts: BTreeMap<u32, (u16, u16, Instant)> = BTreeMap::new();
        for a in self.packets.values().filter(|a| a.stamp.source == source) {
            let part = parts.entry(a.stamp.frame).or_insert((0, a.stamp.count, a.at));
            part.0 += 1;
            part.2 = part.2.max(a.at);
        }
        let whole = parts.into_iter().filter(|(_, (have, count, _))| have == count);
        whole.map(|(frame, (_, _, at))| (frame, at)).collect()
    }

    /// Numbers that were never filled.
    pub(crate) fn gaps(&self) -> u64 {
        let (Some((first, _)), Some((last, _))) = (self.packets.first_key_value(), self.packets.last_key_value())
        else {
            return 0;
        };
        last - first + 1 - self.packets.len() as u64
    }

    /// In the order of their numbers, timestamps never run back, frames are whole and in order, markers stand at ends.
    pub(crate) fn assert_in_order(&self) {
        assert_eq!((self.broken, self.twice), (0, 0), "broken packets, packets under two numbers");
        let mut previous: Option<(u64, &Arrival)> = None;
        for (seq, arrival) in &self.packets {
            if let Some((before_seq, before)) = previous {
                let step = arrival.timestamp.wrapping_sub(before.timestamp) as i32;
                let same = |a: &Arrival| (a.stamp.source, a.stamp.layer, a.stamp.frame);
                if same(arrival) == same(before) {
                    assert_eq!(step, 0, "one frame, two timestamps at {seq}");
                    let distance = u64::from(arrival.stamp.index) - u64::from(before.stamp.index);
                    assert_eq!(seq - before_seq, distance, "numbers within a frame at {seq}");
                } else {
                    assert!(step > 0, "timestamp steps by {step} at {seq}: {before:?} {arrival:?}");
                    if let (Some((id, tl0)), Some((id_before, tl0_before))) = (arrival.vp8, before.vp8)
                        && before.marker
                        && seq - before_seq == 1
                    {
                        assert_eq!(id, (id_before + 1) & 0x7fff, "PictureID at {seq}");
                        assert_eq!(tl0, tl0_before.wrapping_add(1), "TL0PICIDX at {seq}");
                    }
                }
            }
            previous = Some((*seq, arrival));
        }
    }

    fn lost_for_longer_than(&mut self, limit: Duration, now: Instant) -> bool {
        let Some((last, _)) = self.packets.last_key_value() else { return false };
        let window = last.saturating_sub(200).max(self.packets.first_key_value().map_or(0, |(s, _)| *s))..*last;
        let mut lost = false;
        for seq in window {
            if self.packets.contains_key(&seq) {
                self.missing_since.remove(&seq);
            } else {
                let since = *self.missing_since.entry(seq).or_insert(now);
                // Just passed the limit: ask once for each.
                lost |= now - since > limit && now - since < limit + Duration::from_millis(250);
            }
        }
        lost
    }
}

impl Viewer {
    pub(crate) fn receive(&mut self, now: Instant, mid: Mid, packet: &str0m::rtp::RtpPacket) {
        let is_video = self.video_mid == Some(mid);
        let pt = *packet.header.payload_type;
        let arrival = Stamp::read(&packet.payload).map(|stamp| Arrival {
            at: now,
            timestamp: packet.header.timestamp,
            marker: packet.header.marker,
            pt,
            stamp,
            vp8: if pt == 96 { vp8_numbers(&packet.payload) } else { None },
        });
        let track = if is_video { &mut self.video } else { &mut self.audio };
        track.take(*packet.seq_no, arrival);
    }

    /// True: ask for a keyframe now.
    pub(crate) fn has_given_up(&mut self, now: Instant) -> bool {
        let Some(limit) = self.gives_up_after else { return false };
        let recent = self.asked.last().is_some_and(|at| now - *at < Duration::from_secs(1));
        let asks = self.video.lost_for_longer_than(limit, now) && !recent;
        if asks {
            self.asked.push(now);
        }
        asks
    }
}
