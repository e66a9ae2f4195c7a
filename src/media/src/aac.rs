//! `AudioSpecificConfig`, ISO/IEC 14496-3 §1.6.2.1: what FLV and MP4 say of an AAC track; and ADTS headers, which say the
//! same in front of each packet.

use std::fmt;

use crate::bits::BitReader;

/// Sampling frequencies by index, Table 1.18.
const SAMPLE_RATES: [u32; 13] =
    [96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350];
/// The index that says that the frequency follows.
const EXPLICIT_RATE: u32 = 15;

/// Object types, Table 1.17.
const SBR: u8 = 5;
const ER_AAC_LC: u8 = 17;
const ER_AAC_LTP: u8 = 19;
const ER_AAC_LD: u8 = 23;
const PS: u8 = 29;

/// What is wrong with an `AudioSpecificConfig`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AacError {
    /// It ends too early.
    Truncated,
    /// The object type is no AAC, or one that is configured in another way.
    ObjectType(u8),
    /// The frequency is reserved or 0.
    SampleRate,
    /// The number of channels is reserved or 0.
    Channels,
}

impl fmt::Display for AacError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AacError::Truncated => f.write_str("the AAC configuration ends too early"),
            AacError::ObjectType(kind) => write!(f, "audio object type {kind} is not supported"),
            AacError::SampleRate => f.write_str("the AAC configuration has no valid sample rate"),
            AacError::Channels => f.write_str("the AAC configuration has no valid number of channels"),
        }
    }
}

impl std::error::Error for AacError {}

/// A parsed `AudioSpecificConfig`.
///
/// Decoders may find SBR and PS in the packets though neither is announced here; what comes out then has twice the
/// rate, or two channels instead of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AacConfig {
    /// The object type of the core: 1 Main, 2 LC, 3 SSR, 4 LTP, 17 and up for the error-resilient ones.
    pub object_type: u8,
    /// Sample rate of the core, in Hz.
    pub sample_rate: u32,
    /// Sample rate of what comes out, in Hz: with SBR usually twice that of the core.
    pub output_sample_rate: u32,
    /// Channels of the core. With PS one, although two come out.
    pub channels: u8,
    /// Whether spectral band replication is said to be there (HE-AAC), `None` if nothing is said.
    pub sbr: Option<bool>,
    /// Whether parametric stereo is said to be there (HE-AAC v2), `None` if nothing is said.
    pub ps: Option<bool>,
    /// Samples per packet and channel at the rate of the core: 1024 or 960, of AAC-LD 512 or 480.
    pub frame_length: u16,
    /// `channelConfiguration` as it stands, 0 where the channels are listed one by one.
    channel_configuration: u8,
}

impl AacConfig {
    /// Reads the configuration of AAC in its general audio forms.
    ///
    /// # Errors
    /// It is truncated, reserved, or that of another codec.
    pub fn parse(config: &[u8]) -> Result<AacConfig, AacError> {
        let mut bits = BitReader::new(config);
        let mut object_type = read_object_type(&mut bits)?;
        let sample_rate = read_sample_rate(&mut bits)?;
        let channel_configuration = bits.byte(4).ok_or(AacError::Truncated)?;
        let (mut sbr, mut ps, mut output_sample_rate) = (None, None, sample_rate);
        if object_type == SBR || object_type == PS {
            (sbr, ps) = (Some(true), (object_type == PS).then_some(true));
            output_sample_rate = read_sample_rate(&mut bits)?;
            object_type = read_object_type(&mut bits)?;
        }
        // Scalable streams come in several tracks; the other types between are no AAC.
        if !matches!(object_type, 1..=4 | ER_AAC_LC | ER_AAC_LTP | ER_AAC_LD) {
            return Err(AacError::ObjectType(object_type));
        }
        let (is_short, listed) = general_audio(&mut bits, object_type, channel_configuration)?;
        let channels = match channel_configuration {
            0 => listed.filter(|channels| *channels > 0).ok_or(AacError::Channels)?,
            1..=6 => channel_configuration,
            7 | 12 | 14 => 8,
            11 => 7,
            _ => return Err(AacError::Channels),
        };
        let frame_length = match (object_type == ER_AAC_LD, is_short) {
            (false, false) => 1024,
            (false, true) => 960,
            (true, false) => 512,
            (true, true) => 480,
        };
        if sbr.is_none()
            && let Some(found) = sync_extension(bits)
        {
            (sbr, ps) = (Some(found.rate.is_some()), found.ps);
            output_sample_rate = found.rate.unwrap_or(sample_rate);
        }
        Ok(AacConfig {
            object_type,
            sample_rate,
            output_sample_rate,
            channels,
            sbr,
            ps,
            frame_length,
            channel_configuration,
        })
    }

    /// The ADTS header (§1.A.2) without checksum for a packet of `payload_bytes`, as MPEG-TS and plain AAC files need
    /// it. `None` where ADTS has no words for it: other object types, rates or channels, packets beyond 8184 bytes.
    pub fn adts_header(&self, payload_bytes: usize) -> Option<[u8; 7]> {
        const HEADER_BYTES: usize = 7;
        const MAX_FRAME_BYTES: usize = 0x1fff;
        let rate = SAMPLE_RATES.iter().position(|rate| *rate == self.sample_rate)? as u8;
        let length = payload_bytes.checked_add(HEADER_BYTES).filter(|length| *length <= MAX_FRAME_BYTES)?;
        if !(1..=4).contains(&self.object_type) || !(1..=7).contains(&self.channel_configuration) {
            return None;
        }
        let (profile, channels) = (self.object_type - 1, self.channel_configuration);
        Some([
            0xff,
            0xf1,
            profile << 6 | rate << 2 | channels >> 2,
            channels << 6 | (length >> 11) as u8,
            (length >> 3) as u8,
            (length << 5) as u8 | 0x1f,
            0xfc,
        ])
    }
}

fn read_object_type(bits: &mut BitReader<'_>) -> Result<u8, AacError> {
    const ESCAPE: u8 = 31;
    let kind = bits.byte(5).ok_or(AacError::Truncated)?;
    if kind < ESCAPE { Ok(kind) } else { bits.byte(6).map(|more| 32 + more).ok_or(AacError::Truncated) }
}

fn read_sample_rate(bits: &mut BitReader<'_>) -> Result<u32, AacError> {
    let index = bits.bits(4).ok_or(AacError::Truncated)?;
    let rate = if index == EXPLICIT_RATE {
        bits.bits(24).ok_or(AacError::Truncated)?
    } else {
        SAMPLE_RATES.get(index as usize).copied().unwrap_or(0)
    };
    if rate == 0 { Err(AacError::SampleRate) } else { Ok(rate) }
}

/// `GASpecificConfig`, §4.4.1: whether frames are of the shorter length, and how many channels are listed.
fn general_audio(
    bits: &mut BitReader<'_>,
    object_type: u8,
    channel_configuration: u8,
) -> Result<(bool, Option<u8>), AacError> {
    let mut flag = || bits.flag().ok_or(AacError::Truncated);
    let (is_short, depends_on_core) = (flag()?, flag()?);
    if depends_on_core {
        bits.skip(14).ok_or(AacError::Truncated)?;
    }
    let is_extended = bits.flag().ok_or(AacError::Truncated)?;
    let listed =
        if channel_configuration == 0 { Some(listed_channels(bits).ok_or(AacError::Truncated)?) } else { None };
    if is_extended {
        let resilience_flags = if matches!(object_type, ER_AAC_LC | ER_AAC_LTP | ER_AAC_LD) { 3 } else { 0 };
        bits.skip(resilience_flags + 1).ok_or(AacError::Truncated)?;
    }
    Ok((is_short, listed))
}

/// `program_config_element`, §4.4.1.1: how many channels its elements have.
fn listed_channels(bits: &mut BitReader<'_>) -> Option<u8> {
    let _tag_and_type_and_rate = bits.bits(10)?;
    let (front, side, back) = (bits.bits(4)?, bits.bits(4)?, bits.bits(4)?);
    let (low, data, coupling) = (bits.bits(2)?, bits.bits(3)?, bits.bits(4)?);
    for mixdown_bits in [4, 4, 3] {
        if bits.flag()? {
            bits.skip(mixdown_bits)?;
        }
    }
    let mut channels = low as u8;
    for _ in 0..front + side + back {
        channels += if bits.flag()? { 2 } else { 1 };
        bits.skip(4)?;
    }
    bits.skip(low * 4 + data * 4 + coupling * 5)?;
    bits.align()?;
    let comment = bits.bits(8)?;
    bits.skip(comment * 8)?;
    Some(channels)
}

struct SyncExtension {
    /// Sample rate of the output, if there is SBR.
    rate: Option<u32>,
    ps: Option<bool>,
}

/// What stands behind the configuration for decoders that know of SBR and PS, §1.6.5.2 ("backward compatible").
fn sync_extension(mut bits: BitReader<'_>) -> Option<SyncExtension> {
    const SBR_SYNC: u32 = 0x2b7;
    const PS_SYNC: u32 = 0x548;
    if bits.remaining() < 16 || bits.bits(11)? != SBR_SYNC || bits.bits(5)? != SBR.into() {
        return None;
    }
    if !bits.flag()? {
        return Some(SyncExtension { rate: None, ps: None });
    }
    let rate = read_sample_rate(&mut bits).ok()?;
    let ps = if bits.remaining() >= 12 && bits.bits(11)? == PS_SYNC { bits.flag() } else { None };
    Some(SyncExtension { rate: Some(rate), ps })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Random, hex};

    /// Object type, rates of core and output, channels, SBR, PS, frame length.
    type Expected = (u8, u32, u32, u8, Option<bool>, Option<bool>, u16);

    /// Written by encoders and by hand from the tables.
    const CONFIGS: [(&str, &str, Expected); 13] = [
        ("LC 44.1 kHz stereo", "1210", (2, 44_100, 44_100, 2, None, None, 1024)),
        ("LC 48 kHz stereo", "1190", (2, 48_000, 48_000, 2, None, None, 1024)),
        ("LC 48 kHz mono", "1188", (2, 48_000, 48_000, 1, None, None, 1024)),
        ("LC 48 kHz 5.1", "11b0", (2, 48_000, 48_000, 6, None, None, 1024)),
        ("LC 48 kHz 7.1", "11b8", (2, 48_000, 48_000, 8, None, None, 1024)),
        ("960 samples", "1194", (2, 48_000, 48_000, 2, None, None, 960)),
        ("no SBR, as ffmpeg says it", "121056e500", (2, 44_100, 44_100, 2, Some(false), None, 1024)),
        ("SBR, compatibly", "139056e5a0", (2, 22_050, 44_100, 2, Some(true), None, 1024)),
        ("SBR and PS, compatibly", "138856e5a54880", (2, 22_050, 44_100, 1, Some(true), Some(true), 1024)),
        ("SBR, explicitly", "2b920800", (2, 22_050, 44_100, 2, Some(true), None, 1024)),
        ("SBR and PS, explicitly", "eb8a0800", (2, 22_050, 44_100, 1, Some(true), Some(true), 1024)),
        ("a rate of its own", "1780562210", (2, 44_100, 44_100, 2, None, None, 1024)),
        ("channels listed", "118004c400002000", (2, 48_000, 48_000, 2, None, None, 1024)),
    ];

    #[test]
    fn configurations_are_read() {
        for (what, config, expected) in CONFIGS {
            let c = AacConfig::parse(&hex(config)).unwrap();
            let found = (c.object_type, c.sample_rate, c.output_sample_rate, c.channels, c.sbr, c.ps, c.frame_length);
            assert_eq!(found, expected, "{what}");
        }
    }

    #[test]
    fn other_configurations_are_refused() {
        for (config, error) in [
            ("", AacError::Truncated),
            ("12", AacError::Truncated),
            ("17805622", AacError::Truncated),
            ("1690", AacError::SampleRate),
            ("1780000010", AacError::SampleRate),
            ("11c0", AacError::Channels),
            ("0190", AacError::ObjectType(0)),
            ("f9488000", AacError::ObjectType(42)),
            ("b190", AacError::ObjectType(22)),
        ] {
            assert_eq!(AacConfig::parse(&hex(config)), Err(error), "{config}");
        }
    }

    #[test]
    fn adts_headers() {
        let header = |config: &str, bytes| AacConfig::parse(&hex(config)).unwrap().adts_header(bytes);
        // As ffmpeg writes it for a packet of 345 bytes in all.
        assert_eq!(header("1210", 338), Some([0xff, 0xf1, 0x50, 0x80, 0x2b, 0x3f, 0xfc]));
        assert_eq!(header("2b920800", 0), Some([0xff, 0xf1, 0x5c, 0x80, 0x00, 0xff, 0xfc]));
        assert_eq!(header("1210", 8184).map(|h| (h[3], h[4], h[5])), Some((0x83, 0xff, 0xff)));
        assert_eq!((header("1210", 8185), header("1210", usize::MAX)), (None, None));
        assert_eq!(header("118004c400002000", 9), None);
    }

    #[test]
    fn mutants_are_survived() {
        let mut random = Random::new(7);
        for round in 0..30_000 {
            let mut config = hex(CONFIGS[round % CONFIGS.len()].1);
            random.mutate(&mut config);
            if let Ok(config) = AacConfig::parse(&config) {
                assert!(config.channels > 0 && config.sample_rate > 0 && config.output_sample_rate > 0);
                let _ = config.adts_header(random.below(9000));
            }
        }
    }
}
