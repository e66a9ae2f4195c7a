//! The mark that the publisher puts at the end of every payload and the viewer reads back: a clock, the stream, and the
//! packet's place in its track and frame. It makes loss, duplication and delay visible from end to end, whatever the
//! server does to sequence numbers and timestamps.
//!
//! It sits at the *end* of the payload, so it has one place for all codecs, and every byte of it is 0x80 or above, so
//! it never forms a start code inside an H.264 NAL unit.

use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Length of a stamp in bytes.
pub(crate) const STAMP_LEN: usize = 34;
const MAGIC: [u8; 4] = [0xf5, 0x9e, 0xa7, 0xd3];
const FLAG_ALWAYS: u8 = 0x80;
const FLAG_VIDEO: u8 = 0x01;
const FLAG_KEYFRAME: u8 = 0x02;

/// What a packet says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) video: bool,
    pub(crate) keyframe: bool,
    /// Which publisher of the run (21 bits).
    pub(crate) stream: u32,
    /// [`clock_ns`] when the frame was made.
    pub(crate) clock_ns: u64,
    /// Number of the packet within its track, from 0 (35 bits).
    pub(crate) packet: u64,
    /// Number of the frame within its track, from 0 (35 bits).
    pub(crate) frame: u64,
    /// Place of the packet within its frame (21 bits).
    pub(crate) index: u32,
    /// Packets of the frame (21 bits).
    pub(crate) count: u32,
}

impl Stamp {
    /// Appends the stamp to a payload.
    pub(crate) fn append_to(&self, payload: &mut Vec<u8>) {
        let mut flags = FLAG_ALWAYS;
        if self.video {
            flags |= FLAG_VIDEO;
        }
        if self.keyframe {
            flags |= FLAG_KEYFRAME;
        }
        payload.extend_from_slice(&MAGIC);
        payload.push(flags);
        put(payload, self.stream.into(), 3);
        put(payload, self.clock_ns, 10);
        put(payload, self.packet, 5);
        put(payload, self.frame, 5);
        put(payload, self.index.into(), 3);
        put(payload, self.count.into(), 3);
    }

    /// Reads the stamp at the end of a payload; [`None`] when there is none.
    pub(crate) fn from_payload(payload: &[u8]) -> Option<Stamp> {
        let start = payload.len().checked_sub(STAMP_LEN)?;
        let rest = payload.get(start..)?.strip_prefix(&MAGIC)?;
        let (&flags, mut rest) = rest.split_first()?;
        let mut take = |len| take(&mut rest, len);
        Some(Stamp {
            video: flags & FLAG_VIDEO != 0,
            keyframe: flags & FLAG_KEYFRAME != 0,
            stream: take(3)? as u32,
            clock_ns: take(10)?,
            packet: take(5)?,
            frame: take(5)?,
            index: take(3)? as u32,
            count: take(3)? as u32,
        })
    }
}

/// Nanoseconds since the Unix epoch, advanced by the monotonic clock from one reading of the wall clock: it never jumps
/// within a process, and two processes of one machine agree on it.
pub(crate) fn clock_ns() -> u64 {
    clock_ns_at(Instant::now())
}

/// [`clock_ns`] at a given moment of this process.
pub(crate) fn clock_ns_at(now: Instant) -> u64 {
    static ANCHOR: LazyLock<(Instant, Duration)> =
        LazyLock::new(|| (Instant::now(), SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()));
    let (instant, unix) = *ANCHOR;
    (unix + now.saturating_duration_since(instant)).as_nanos() as u64
}

fn put(payload: &mut Vec<u8>, value: u64, len: usize) {
    payload.extend((0..len).rev().map(|i| 0x80 | (value >> (7 * i)) as u8));
}

fn take(rest: &mut &[u8], len: usize) -> Option<u64> {
    let (head, tail) = rest.split_at_checked(len)?;
    *rest = tail;
    Some(head.iter().fold(0, |value, byte| value << 7 | u64::from(byte & 0x7f)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp() -> Stamp {
        Stamp {
            video: true,
            keyframe: true,
            stream: 1_999_999,
            clock_ns: 1_800_000_000_123_456_789,
            packet: 34_000_000_000,
            frame: 9,
            index: 3,
            count: 2_000_000,
        }
    }

    #[test]
    fn survives_a_round_trip_behind_any_prefix() {
        let mut payload = vec![0x7c, 0x85];
        stamp().append_to(&mut payload);
        assert_eq!(payload.len(), 2 + STAMP_LEN);
        assert_eq!(Stamp::from_payload(&payload), Some(stamp()));
    }

    #[test]
    fn never_looks_like_a_start_code() {
        let mut payload = Vec::new();
        Stamp { clock_ns: 0, packet: 0, frame: 0, index: 0, count: 0, stream: 0, ..stamp() }.append_to(&mut payload);
        assert!(payload.iter().all(|byte| *byte >= 0x80));
    }

    #[test]
    fn foreign_payloads_have_no_stamp() {
        assert_eq!(Stamp::from_payload(&[0x9e; 20]), None);
        assert_eq!(Stamp::from_payload(&[0x9e; 200]), None);
    }
}
