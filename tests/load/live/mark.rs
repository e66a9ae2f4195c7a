//! What is kept of a media message while its bytes pass: the beginning, the end and the length. Bodies are not stored,
//! so that a player costs the tool a few hundred bytes.

use crate::stamp::{STAMP_LEN, Stamp};

pub(super) const AUDIO: u8 = 8;
pub(super) const VIDEO: u8 = 9;

/// A sound format of FLV (E.4.2.1), in the upper four bits.
const SOUND_AAC: u8 = 10;

/// A message, or tag, that has come whole.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrived<'a> {
    /// Message type of RTMP, tag type of FLV: the same values for media.
    pub(super) kind: u8,
    pub(super) timestamp_ms: u32,
    pub(super) mark: &'a Mark,
    /// The whole body of messages that are no media; empty for media.
    pub(super) body: &'a [u8],
}

impl Arrived<'_> {
    /// Whether it is sound or picture, and no decoder configuration or end of sequence.
    pub(super) fn is_media(&self) -> bool {
        match self.kind {
            VIDEO => self.mark.head[1] == 1,
            AUDIO => self.mark.head[0] >> 4 != SOUND_AAC || self.mark.head[1] == 1,
            _ => false,
        }
    }

    /// Whether it is a keyframe's picture.
    pub(super) fn is_keyframe(&self) -> bool {
        self.kind == VIDEO && self.is_media() && self.mark.head[0] >> 4 == 1
    }
}

/// Beginning, end and length of a body.
#[derive(Debug, Clone, Default)]
pub(super) struct Mark {
    head: [u8; 2],
    tail: Tail,
    tail_length: usize,
    pub(super) length: usize,
}

#[derive(Debug, Clone)]
struct Tail([u8; STAMP_LEN]);

impl Default for Tail {
    fn default() -> Tail {
        Tail([0; STAMP_LEN])
    }
}

impl Mark {
    /// Takes the next piece of the body.
    pub(super) fn put(&mut self, piece: &[u8]) {
        for (place, byte) in self.head.iter_mut().skip(self.length).zip(piece) {
            *place = *byte;
        }
        self.length += piece.len();
        if let Some(last) = piece.last_chunk() {
            self.tail.0 = *last;
            self.tail_length = STAMP_LEN;
            return;
        }
        let kept = self.tail_length.min(STAMP_LEN - piece.len());
        self.tail.0.copy_within(self.tail_length - kept..self.tail_length, 0);
        self.tail_length = kept + piece.len();
        self.tail.0[kept..self.tail_length].copy_from_slice(piece);
    }

    /// The stamp at the end, if the publisher is one of ours.
    pub(super) fn stamp(&self) -> Option<Stamp> {
        Stamp::from_payload(&self.tail.0[..self.tail_length])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stamp_is_found_wherever_a_body_is_cut() {
        let stamp = Stamp {
            video: true,
            keyframe: false,
            stream: 0,
            clock_ns: 1_800_000_000_000_000_000,
            packet: 5,
            frame: 5,
            index: 0,
            count: 1,
        };
        let mut body = vec![0x27, 1, 0, 0, 0];
        body.resize(90, 0xab);
        stamp.append_to(&mut body);
        for size in 1..body.len() {
            let mut mark = Mark::default();
            body.chunks(size).for_each(|piece| mark.put(piece));
            assert_eq!((mark.stamp(), mark.length, mark.head), (Some(stamp), body.len(), [0x27, 1]));
        }
    }
}
