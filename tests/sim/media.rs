//! Media without an encoder: payloads shaped like H.264, VP8 and Opus as far as a forwarding server looks into them.
//! Each ends with a [`Stamp`] that tells the receiver exactly which packet it has.

use std::time::{Duration, Instant};

/// What every packet carries at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Stamp {
    /// Which publisher made it.
    pub(crate) source: u16,
    /// Its simulcast layer.
    pub(crate) layer: u8,
    pub(crate) keyframe: bool,
    pub(crate) frame: u32,
    /// Which packet of the frame, of how many.
    pub(crate) index: u16,
    pub(crate) count: u16,
    /// Virtual time of capture.
    pub(crate) micros: u64,
}

const MAGIC: u32 = 0x5374_616d;
pub(crate) const STAMP_BYTES: usize = 24;

impl Stamp {
    fn append_to(&self, payload: &mut Vec<u8>) {
        payload.extend_from_slice(&MAGIC.to_be_bytes());
        payload.extend_from_slice(&self.source.to_be_bytes());
        payload.extend_from_slice(&[self.layer, u8::from(self.keyframe)]);
        payload.extend_from_slice(&self.frame.to_be_bytes());
        payload.extend_from_slice(&self.index.to_be_bytes());
        payload.extend_from_slice(&self.count.to_be_bytes());
        payload.extend_from_slice(&self.micros.to_be_bytes());
    }

    /// Reads the stamp at the end of a payload and checks the filler before it.
    pub(crate) fn read(payload: &[u8]) -> Option<Stamp> {
        let (body, s) = payload.split_last_chunk::<STAMP_BYTES>()?;
        let [m0, m1, m2, m3, s0, s1, layer, key, f0, f1, f2, f3, i0, i1, c0, c1, time @ ..] = *s;
        let stamp = Stamp {
            source: u16::from_be_bytes([s0, s1]),
            layer,
            keyframe: key == 1,
            frame: u32::from_be_bytes([f0, f1, f2, f3]),
            index: u16::from_be_bytes([i0, i1]),
            count: u16::from_be_bytes([c0, c1]),
            micros: u64::from_be_bytes(time),
        };
        let whole = body.iter().skip(HEADER_BYTES).all(|b| *b == stamp.filler());
        (u32::from_be_bytes([m0, m1, m2, m3]) == MAGIC && whole).then_some(stamp)
    }

    fn filler(&self) -> u8 {
        (self.frame as u8).wrapping_mul(31).wrapping_add(self.index as u8)
    }
}

/// Shape of a track's payloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    H264,
    Vp8,
    Opus,
}

impl Shape {
    pub(crate) fn clock_hz(self) -> u32 {
        if self == Shape::Opus { 48_000 } else { 90_000 }
    }

    pub(crate) fn is_video(self) -> bool {
        self != Shape::Opus
    }
}

/// Room for the header of any shape; filler follows.
const HEADER_BYTES: usize = 6;

/// Makes one packet.
pub(crate) fn payload(shape: Shape, stamp: &Stamp, bytes: usize) -> Vec<u8> {
    let mut p = Vec::with_capacity(bytes.max(HEADER_BYTES + STAMP_BYTES));
    let (first, last) = (stamp.index == 0, stamp.index + 1 == stamp.count);
    match shape {
        Shape::H264 => {
            // RFC 6184 §5.8: FU-A; an IDR slice is type 5, any other 1.
            let kind = if stamp.keyframe { 5 } else { 1 };
            p.extend_from_slice(&[0x7c, u8::from(first) << 7 | u8::from(last) << 6 | kind, 0, 0, 0, 0]);
        }
        Shape::Vp8 => {
            // RFC 7741 §4.2: X and S, then I and L with a 15-bit PictureID and TL0PICIDX, then the payload header.
            let [hi, lo] = (stamp.frame as u16 & 0x7fff).to_be_bytes();
            let key = u8::from(!stamp.keyframe);
            p.extend_from_slice(&[0x80 | u8::from(first) << 4, 0xc0, 0x80 | hi, lo, stamp.frame as u8, key]);
        }
        Shape::Opus => p.extend_from_slice(&[0xfc, 0, 0, 0, 0, 0]),
    }
    p.resize(bytes.saturating_sub(STAMP_BYTES).max(HEADER_BYTES), stamp.filler());
    stamp.append_to(&mut p);
    p
}

/// PictureID and TL0PICIDX of a VP8 payload made here, as they arrived.
pub(crate) fn vp8_numbers(payload: &[u8]) -> Option<(u16, u8)> {
    let [_, _, hi, lo, tl0, ..] = *payload else { return None };
    Some((u16::from_be_bytes([hi & 0x7f, lo]), tl0))
}

/// How a track looks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look {
    pub(crate) shape: Shape,
    pub(crate) interval: Duration,
    pub(crate) delta_packets: u16,
    pub(crate) key_packets: u16,
    pub(crate) packet_bytes: usize,
}

impl Look {
    /// 30 frames a second of two packets, keyframes of eight.
    pub(crate) const fn video(shape: Shape) -> Look {
        let interval = Duration::from_micros(33_333);
        Look { shape, interval, delta_packets: 2, key_packets: 8, packet_bytes: 600 }
    }

    pub(crate) const fn audio() -> Look {
        let interval = Duration::from_millis(20);
        Look { shape: Shape::Opus, interval, delta_packets: 1, key_packets: 1, packet_bytes: 100 }
    }
}

/// Microseconds between two instants, both virtual.
pub(crate) fn micros_since(start: Instant, at: Instant) -> u64 {
    at.saturating_duration_since(start).as_micros() as u64
}
