//! The codecs that Freshet carries.

use std::fmt;

/// Whether a track is heard or seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MediaKind {
    /// Sound.
    Audio,
    /// Picture.
    Video,
}

impl fmt::Display for MediaKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            MediaKind::Audio => "audio",
            MediaKind::Video => "video",
        })
    }
}

/// A codec of either plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Codec {
    /// H.264/AVC, RFC 6184.
    H264,
    /// H.265/HEVC, RFC 7798.
    H265,
    /// VP8, RFC 7741.
    Vp8,
    /// VP9, RFC 9628.
    Vp9,
    /// AV1, the AOMedia RTP payload specification.
    Av1,
    /// Opus, RFC 7587.
    Opus,
    /// G.711 µ-law, RFC 3551.
    Pcmu,
    /// G.711 A-law, RFC 3551.
    Pcma,
    /// Redundant audio, RFC 2198.
    Red,
    /// AAC of any profile, ISO/IEC 14496-3. Only in frames.
    Aac,
    /// MPEG-1 and MPEG-2 audio layer III. Only in frames.
    Mp3,
}

impl Codec {
    /// Every codec that WebRTC carries here, in the order in which lists are printed.
    pub const RTP: [Codec; 9] = [
        Codec::H264,
        Codec::H265,
        Codec::Vp8,
        Codec::Vp9,
        Codec::Av1,
        Codec::Opus,
        Codec::Pcmu,
        Codec::Pcma,
        Codec::Red,
    ];

    /// The encoding name of the RTP payload format registry, in its usual spelling.
    pub fn rtp_name(self) -> &'static str {
        match self {
            Codec::H264 => "H264",
            Codec::H265 => "H265",
            Codec::Vp8 => "VP8",
            Codec::Vp9 => "VP9",
            Codec::Av1 => "AV1",
            Codec::Opus => "opus",
            Codec::Pcmu => "PCMU",
            Codec::Pcma => "PCMA",
            Codec::Red => "red",
            Codec::Aac => "mpeg4-generic",
            Codec::Mp3 => "MPA",
        }
    }

    /// Finds a codec that WebRTC carries here by its encoding name, without regard to case (RFC 8866 §6.6).
    pub fn from_rtp_name(name: &str) -> Option<Codec> {
        // Older WebRTC stacks call AV1 "AV1X", query strings and configuration say "hevc".
        if name.eq_ignore_ascii_case("AV1X") {
            return Some(Codec::Av1);
        }
        if name.eq_ignore_ascii_case("hevc") {
            return Some(Codec::H265);
        }
        Codec::RTP.into_iter().find(|c| c.rtp_name().eq_ignore_ascii_case(name))
    }

    /// Audio or video.
    pub fn kind(self) -> MediaKind {
        match self {
            Codec::H264 | Codec::H265 | Codec::Vp8 | Codec::Vp9 | Codec::Av1 => MediaKind::Video,
            Codec::Opus | Codec::Pcmu | Codec::Pcma | Codec::Red | Codec::Aac | Codec::Mp3 => MediaKind::Audio,
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Codec::Opus => "Opus",
            Codec::Red => "RED",
            Codec::Aac => "AAC",
            Codec::Mp3 => "MP3",
            other => other.rtp_name(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_codec_is_found_by_its_own_name() {
        for codec in Codec::RTP {
            assert_eq!(Codec::from_rtp_name(&codec.rtp_name().to_lowercase()), Some(codec));
        }
        assert_eq!(Codec::from_rtp_name("AV1X"), Some(Codec::Av1));
        assert_eq!(Codec::from_rtp_name("flexfec-03"), None);
    }
}
