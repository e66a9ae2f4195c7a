//! Formats: a codec with its parameters, and which of a viewer's formats fits a publisher's.

use freshet_media::{Codec, MediaKind};

use crate::sdp::{OfferedCodec, parameter};

/// One payload format of a published track.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Format {
    /// Payload type at the publisher.
    pub pt: u8,
    /// The codec.
    pub codec: Codec,
    /// RTP clock in Hz.
    pub clock_hz: u32,
    /// Channels of an audio codec.
    pub channels: u8,
    /// Format parameters as negotiated.
    pub fmtp: String,
}

impl Format {
    /// The format that a negotiated codec stands for.
    pub fn new(codec: &OfferedCodec) -> Format {
        let channels = match codec.codec.kind() {
            MediaKind::Audio => codec.channels.unwrap_or(1),
            MediaKind::Video => 0,
        };
        Format { pt: codec.pt, codec: codec.codec, clock_hz: codec.clock_hz, channels, fmtp: codec.fmtp.clone() }
    }

    /// A format that was not negotiated: what the server makes of another protocol's media. `fmtp` is written as in
    /// SDP; what it leaves out has the default of the codec's payload format.
    pub fn unnegotiated(codec: Codec, fmtp: impl Into<String>) -> Format {
        let (clock_hz, channels) = match codec {
            // RFC 7587 §7: always 48000/2, whatever is inside.
            Codec::Opus | Codec::Red => (48_000, 2),
            Codec::Pcmu | Codec::Pcma => (8000, 1),
            // In frames only; no viewer has them.
            Codec::Aac | Codec::Mp3 => (48_000, 2),
            Codec::H264 | Codec::H265 | Codec::Vp8 | Codec::Vp9 | Codec::Av1 => (90_000, 0),
        };
        Format { pt: 0, codec, clock_hz, channels, fmtp: fmtp.into() }
    }

    /// H.264 in packetization mode 1. The three bytes are those after the version of an
    /// `AVCDecoderConfigurationRecord`: profile, constraints, level.
    pub fn h264(profile_level_id: [u8; 3]) -> Format {
        let [profile, constraints, level] = profile_level_id;
        let id = format!("{profile:02x}{constraints:02x}{level:02x}");
        Format::unnegotiated(Codec::H264, format!("packetization-mode=1;profile-level-id={id}"))
    }
}

/// How well a viewer's codec fits a published format: larger is better, [`None`] not at all.
///
/// H.264 and H.265 match across profiles with a low score: decoders take more than they announce (Chromium offers no
/// High profile and plays it), and a picture that may not decode is worth more than a certain refusal. VP9 and AV1
/// profiles differ in bit depth and chroma, which a decoder that does not announce them cannot show.
pub fn match_score(published: &Format, viewer: &OfferedCodec) -> Option<u32> {
    if published.codec != viewer.codec || published.clock_hz != viewer.clock_hz {
        return None;
    }
    let same = |name: &str, default: &str| {
        let value = |fmtp| parameter(fmtp, name).unwrap_or(default).to_ascii_lowercase();
        value(&published.fmtp) == value(&viewer.fmtp)
    };
    match published.codec {
        Codec::H264 => {
            let profile = |fmtp| h264_profile(parameter(fmtp, "profile-level-id").unwrap_or("42000a"));
            let (published_profile, viewer_profile) = (profile(&published.fmtp), profile(&viewer.fmtp));
            // RFC 6184 §6.2: a mode-0 receiver cannot take FU-A and STAP-A; browsers can, so it only costs score.
            let mode = u32::from(same("packetization-mode", "0"));
            let fit = match viewer_profile.cmp(&published_profile) {
                std::cmp::Ordering::Equal => 8,
                std::cmp::Ordering::Greater => 4,
                std::cmp::Ordering::Less => 2,
            };
            Some(fit + mode)
        }
        Codec::H265 => Some(1 + u32::from(same("profile-id", "1")) + u32::from(same("tier-flag", "0"))),
        Codec::Vp9 => same("profile-id", "0").then_some(1),
        Codec::Av1 => same("profile", "0").then_some(1),
        Codec::Opus => Some(1 + u32::from(same("stereo", "0"))),
        Codec::Vp8 | Codec::Pcmu | Codec::Pcma | Codec::Red => Some(1),
        Codec::Aac | Codec::Mp3 => None,
    }
}

/// The best index into `viewer` for a published format.
pub fn best_match(published: &Format, viewer: &[OfferedCodec]) -> Option<usize> {
    let scored = viewer.iter().enumerate().filter_map(|(i, codec)| Some((match_score(published, codec)?, i)));
    // The earlier one of equals: the viewer's own order of preference.
    scored.max_by_key(|(score, i)| (*score, std::cmp::Reverse(*i))).map(|(_, i)| i)
}

/// H.264 profiles in the order in which a decoder of one can also decode those below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum H264Profile {
    ConstrainedBaseline,
    Baseline,
    Main,
    ConstrainedHigh,
    High,
    Other(u8),
}

/// RFC 6184 table 5: profile_idc together with the constraint flags.
fn h264_profile(profile_level_id: &str) -> H264Profile {
    let number = u32::from_str_radix(profile_level_id, 16).unwrap_or(0x42_00_0a);
    let [_, idc, iop, _] = number.to_be_bytes();
    let (set0, set1) = (iop & 0x80 != 0, iop & 0x40 != 0);
    match idc {
        66 if set1 => H264Profile::ConstrainedBaseline,
        77 if set0 => H264Profile::ConstrainedBaseline,
        88 if set0 && set1 => H264Profile::ConstrainedBaseline,
        66 => H264Profile::Baseline,
        77 => H264Profile::Main,
        100 if iop & 0x0c == 0x0c => H264Profile::ConstrainedHigh,
        100 => H264Profile::High,
        other => H264Profile::Other(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn viewer(codec: Codec, fmtp: &str) -> OfferedCodec {
        let clock_hz = if codec.kind() == MediaKind::Video { 90_000 } else { 48_000 };
        let rtpmap = format!("{}/{clock_hz}", codec.rtp_name());
        OfferedCodec { pt: 96, codec, rtpmap, clock_hz, channels: None, fmtp: fmtp.into(), rtx: None, feedback: vec![] }
    }

    fn published(codec: Codec, fmtp: &str) -> Format {
        Format::new(&viewer(codec, fmtp))
    }

    #[test]
    fn constrained_baseline_has_several_spellings() {
        for id in ["42e01f", "42c00a", "4d801f", "58c01f"] {
            assert_eq!(h264_profile(id), H264Profile::ConstrainedBaseline, "{id}");
        }
        assert_eq!(h264_profile("42001f"), H264Profile::Baseline);
        assert_eq!(h264_profile("640c1f"), H264Profile::ConstrainedHigh);
        assert_eq!(h264_profile("64001f"), H264Profile::High);
    }

    #[test]
    fn the_equal_profile_and_mode_wins() {
        let offered = [
            viewer(Codec::H264, "packetization-mode=0;profile-level-id=42e01f"),
            viewer(Codec::H264, "packetization-mode=1;profile-level-id=4d001f"),
            viewer(Codec::H264, "packetization-mode=1;profile-level-id=42e034"),
        ];
        let cb = published(Codec::H264, "profile-level-id=42e01f;packetization-mode=1");
        assert_eq!(best_match(&cb, &offered), Some(2));
        let high = published(Codec::H264, "profile-level-id=64001f;packetization-mode=1");
        assert!(best_match(&high, &offered).is_some());
    }

    #[test]
    fn what_was_not_negotiated_matches_too() {
        let offered = [
            viewer(Codec::H264, "packetization-mode=1;profile-level-id=42e01f"),
            viewer(Codec::H264, "packetization-mode=1;profile-level-id=640c1f"),
            viewer(Codec::Opus, "stereo=1"),
            viewer(Codec::H265, ""),
        ];
        assert_eq!(best_match(&Format::h264([0x42, 0xc0, 0x1e]), &offered), Some(0));
        assert_eq!(best_match(&Format::h264([0x64, 0x0c, 0x28]), &offered), Some(1));
        assert_eq!(Format::h264([0x64, 0, 0x28]).fmtp, "packetization-mode=1;profile-level-id=640028");
        assert_eq!(best_match(&Format::unnegotiated(Codec::Opus, ""), &offered), Some(2));
        assert_eq!(best_match(&Format::unnegotiated(Codec::H265, "profile-id=1"), &offered), Some(3));
        assert_eq!(best_match(&Format::unnegotiated(Codec::Av1, ""), &offered), None);
    }

    #[test]
    fn vp9_and_av1_need_their_profile() {
        let ten_bit = published(Codec::Vp9, "profile-id=2");
        assert_eq!(best_match(&ten_bit, &[viewer(Codec::Vp9, "profile-id=0")]), None);
        let av1 = published(Codec::Av1, "level-idx=5;profile=0;tier=0");
        assert_eq!(best_match(&av1, &[viewer(Codec::Av1, "")]), Some(0));
    }
}
