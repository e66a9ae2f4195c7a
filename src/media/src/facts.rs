//! What a decoder configuration tells: for listings, and for the formats that viewers are offered.

use crate::aac::AacConfig;
use crate::h264::{AvcConfig, Sps};
use crate::opus::OpusHead;
use crate::{Codec, MediaKind, TrackConfig, av1, h265};

/// The facts of a track that people and SDP ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Sampling rate of sound, 90,000 for pictures.
    pub clock_hz: u32,
    /// Channels of sound, 0 for pictures and where unknown.
    pub channels: u8,
    /// Format parameters as SDP writes them (RFC 6184 §8.1 for H.264), may be empty.
    pub fmtp: String,
    /// Width and height of the picture. Of VP8 and VP9 only their frames tell it.
    pub size: Option<(u32, u32)>,
}

/// Reads a configuration. What it does not tell, or tells wrongly, is left open.
pub fn facts(config: &TrackConfig) -> Facts {
    let mut facts = Facts { clock_hz: 90_000, channels: 0, fmtp: String::new(), size: None };
    if config.kind() == MediaKind::Audio {
        facts.clock_hz = 48_000;
    }
    match config.codec {
        Codec::H264 => {
            if let Ok(avc) = AvcConfig::parse(&config.record) {
                let id = avc.profile_level_id();
                facts.fmtp = format!("level-asymmetry-allowed=1;packetization-mode=1;profile-level-id={id}");
                facts.size = avc.sps.first().and_then(|sps| Sps::parse(sps).ok()).map(|sps| (sps.width, sps.height));
            }
        }
        Codec::H265 => {
            let sps = h265::HevcConfig::parse(&config.record).ok().and_then(|hevc| {
                hevc.parameter_sets
                    .iter()
                    .find(|unit| h265::nal_type(unit) == h265::nal::SPS)
                    .and_then(|u| h265::Sps::parse(u))
            });
            facts.size = sps.map(|sps| (sps.width, sps.height));
        }
        Codec::Av1 => {
            let header = av1::config_obus(&config.record).find(|unit| unit.kind() == av1::obu::SEQUENCE_HEADER);
            let header = header.and_then(|unit| av1::SequenceHeader::parse(unit.payload));
            facts.size = header.map(|header| (header.width, header.height));
        }
        Codec::Aac => {
            if let Ok(aac) = AacConfig::parse(&config.record) {
                (facts.clock_hz, facts.channels) = (aac.output_sample_rate, aac.channels);
            }
        }
        Codec::Opus => facts.channels = OpusHead::parse(&config.record).map_or(2, |head| head.channels),
        _ => {}
    }
    facts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::hex;

    #[test]
    fn sizes_are_read_from_records() {
        for (codec, records) in [
            (Codec::H265, include_str!("../tests/data/hvcc.hex")),
            (Codec::Av1, include_str!("../tests/data/av1c.hex")),
        ] {
            for line in records.lines() {
                let config = TrackConfig { codec, record: hex(line).into() };
                assert_eq!(facts(&config).size, Some((320, 180)), "{codec}");
            }
            let config = TrackConfig { codec, record: bytes::Bytes::from_static(&[1, 2, 3]) };
            assert_eq!(facts(&config).size, None);
        }
    }
}
