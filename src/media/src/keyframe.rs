//! Telling from an RTP payload whether a picture that can be decoded on its own begins in it.

use crate::Codec;

/// Whether a video payload opens a keyframe: its first packet, or the parameter sets that stand before it.
///
/// Looks at descriptors and headers only, never at more than the first bytes; a short payload is no keyframe.
/// Sections: H.264 RFC 6184 §5, H.265 RFC 7798 §4.4, VP8 RFC 7741 §4, VP9 RFC 9628 §4, AV1 RTP specification §4.4.
pub fn opens_keyframe(codec: Codec, payload: &[u8]) -> bool {
    match codec {
        Codec::H264 => h264(payload),
        Codec::H265 => h265(payload),
        Codec::Vp8 => vp8(payload).unwrap_or(false),
        Codec::Vp9 => vp9(payload),
        Codec::Av1 => av1(payload),
        Codec::Opus | Codec::Pcmu | Codec::Pcma | Codec::Red | Codec::Aac | Codec::Mp3 => false,
    }
}

fn h264(payload: &[u8]) -> bool {
    const IDR: u8 = 5;
    const SPS: u8 = 7;
    const STAP_A: u8 = 24;
    const FU_A: u8 = 28;
    let opens = |kind: u8| kind == IDR || kind == SPS;
    match payload {
        [first, rest @ ..] if first & 0x1f == STAP_A => length_prefixed(rest, |unit| opens(unit[0] & 0x1f)),
        [first, header, ..] if first & 0x1f == FU_A => header & 0x80 != 0 && opens(header & 0x1f),
        [first, ..] => opens(first & 0x1f),
        [] => false,
    }
}

fn h265(payload: &[u8]) -> bool {
    const AGGREGATION: u8 = 48;
    const FRAGMENTATION: u8 = 49;
    // Intra random access pictures are 16..=23, VPS, SPS and PPS 32..=34.
    let opens = |kind: u8| matches!(kind, 16..=23 | 32..=34);
    let kind = |first: u8| first >> 1 & 0x3f;
    match payload {
        [first, _, rest @ ..] if kind(*first) == AGGREGATION => length_prefixed(rest, |unit| opens(kind(unit[0]))),
        [first, _, header, ..] if kind(*first) == FRAGMENTATION => header & 0x80 != 0 && opens(header & 0x3f),
        [first, ..] => opens(kind(*first)),
        [] => false,
    }
}

/// Whether any of the units behind two-byte lengths fulfils `opens`. Units are never empty when it is called.
fn length_prefixed(mut rest: &[u8], opens: impl Fn(&[u8]) -> bool) -> bool {
    while let [hi, lo, tail @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*hi, *lo]));
        let Some(unit) = tail.get(..length).filter(|u| !u.is_empty()) else { return false };
        if opens(unit) {
            return true;
        }
        rest = &tail[length..];
    }
    false
}

fn vp8(payload: &[u8]) -> Option<bool> {
    let first = *payload.first()?;
    let mut at = 1;
    if first & 0x80 != 0 {
        let extension = *payload.get(1)?;
        at = 2;
        if extension & 0x80 != 0 {
            at += if payload.get(at)? & 0x80 != 0 { 2 } else { 1 };
        }
        at += usize::from(extension & 0x40 != 0);
        at += usize::from(extension & 0x30 != 0);
    }
    let starts_frame = first & 0x10 != 0 && first & 0x07 == 0;
    Some(starts_frame && payload.get(at)? & 0x01 == 0)
}

fn vp9(payload: &[u8]) -> bool {
    let Some(&first) = payload.first() else { return false };
    let (has_picture_id, inter, has_layers, begins) =
        (first & 0x80 != 0, first & 0x40 != 0, first & 0x20 != 0, first & 0x08 != 0);
    if inter || !begins {
        return false;
    }
    let mut at = 1;
    if has_picture_id {
        at += if payload.get(at).is_some_and(|b| b & 0x80 != 0) { 2 } else { 1 };
    }
    // Only the base spatial layer opens a picture; upper ones of a key picture are not inter-predicted either.
    !has_layers || payload.get(at).is_some_and(|b| b >> 1 & 0x07 == 0)
}

fn av1(payload: &[u8]) -> bool {
    // The aggregation header's N bit: first packet of a coded video sequence.
    payload.first().is_some_and(|first| first & 0x08 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h264_forms() {
        let cases: [(&[u8], bool); 8] = [
            (&[0x67, 0x42], true),
            (&[0x65, 0x88], true),
            (&[0x41, 0x9a], false),
            (&[0x78, 0, 2, 0x09, 0x10, 0, 2, 0x67, 0x42], true),
            (&[0x78, 0, 9, 0x67], false),
            (&[0x7c, 0x85, 0x88], true),
            (&[0x7c, 0x05, 0x88], false),
            (&[], false),
        ];
        for (payload, expected) in cases {
            assert_eq!(opens_keyframe(Codec::H264, payload), expected, "{payload:02x?}");
        }
    }

    #[test]
    fn h265_forms() {
        assert!(opens_keyframe(Codec::H265, &[0x40, 1, 0]));
        assert!(opens_keyframe(Codec::H265, &[0x26, 1, 0]));
        assert!(!opens_keyframe(Codec::H265, &[0x02, 1, 0]));
        assert!(opens_keyframe(Codec::H265, &[0x62, 1, 0x80 | 19]));
        assert!(!opens_keyframe(Codec::H265, &[0x62, 1, 19]));
        assert!(opens_keyframe(Codec::H265, &[0x60, 1, 0, 2, 0x42, 1]));
    }

    #[test]
    fn vpx_and_av1_forms() {
        assert!(opens_keyframe(Codec::Vp8, &[0x10, 0x00]));
        assert!(!opens_keyframe(Codec::Vp8, &[0x10, 0x01]));
        assert!(opens_keyframe(Codec::Vp8, &[0x90, 0xe0, 0x80, 1, 5, 0x20, 0x00]));
        assert!(!opens_keyframe(Codec::Vp8, &[0x80, 0xe0, 0x80, 1, 5, 0x20, 0x00]));
        assert!(opens_keyframe(Codec::Vp9, &[0x88, 1]));
        assert!(!opens_keyframe(Codec::Vp9, &[0xc8, 1]));
        assert!(!opens_keyframe(Codec::Vp9, &[0xa8, 1, 0x02]));
        assert!(opens_keyframe(Codec::Av1, &[0x18, 0x0a]));
        assert!(!opens_keyframe(Codec::Av1, &[0x10, 0x32]));
    }

    #[test]
    fn short_payloads_are_survived() {
        for codec in Codec::RTP {
            for first in 0..=255 {
                for length in 0..4 {
                    let _ = opens_keyframe(codec, &[first, 0xff, 0xff, 0xff][..length]);
                }
            }
        }
    }
}
