//! Sequence parameter sets, H.265 §7.3.2.2, up to the bit depths.

use super::{nal, nal_type};
use crate::bits::BitReader;

/// Bytes of the general part of `profile_tier_level`, §7.3.3.
const PROFILE_BYTES: usize = 12;
/// Pixels that a picture may be wide or high: more than level 6.2 allows (§A.4.1).
const MAX_SIDE: u32 = 16_888;

/// What a sequence parameter set says of the pictures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sps {
    /// The general part of `profile_tier_level` as it stands.
    pub profile_tier_level: [u8; PROFILE_BYTES],
    /// Layers of frame rates, the lowest included.
    pub temporal_layers: u8,
    /// `sps_temporal_id_nesting_flag`.
    pub is_nested: bool,
    /// `chroma_format_idc`: 0 grey, 1 4:2:0, 2 4:2:2, 3 4:4:4.
    pub chroma_format: u8,
    /// Width of what is shown, in pixels.
    pub width: u32,
    /// Height of what is shown, in pixels.
    pub height: u32,
    /// Bits per luma sample, 8 to 16.
    pub bit_depth_luma: u8,
    /// Bits per chroma sample, 8 to 16.
    pub bit_depth_chroma: u8,
}

impl Sps {
    /// Reads the NAL unit of an SPS, header included. `None` for another unit, a truncated one, values beyond limits.
    pub fn parse(unit: &[u8]) -> Option<Sps> {
        if nal_type(unit) != nal::SPS {
            return None;
        }
        let mut bits = BitReader::of_nal_unit(unit.get(2..)?);
        let _vps_id = bits.bits(4)?;
        let sub_layers = bits.byte(3)?;
        let is_nested = bits.flag()?;
        let mut profile_tier_level = [0; PROFILE_BYTES];
        for byte in &mut profile_tier_level {
            *byte = bits.byte(8)?;
        }
        skip_sub_layers(&mut bits, sub_layers)?;
        let _sps_id = bits.ue()?;
        let chroma_format = u8::try_from(bits.ue()?).ok().filter(|format| *format <= 3)?;
        if chroma_format == 3 {
            let _separate_colour_planes = bits.flag()?;
        }
        let (width, height) = picture_size(&mut bits, chroma_format)?;
        let mut depth = || u8::try_from(bits.ue()?).ok().filter(|above_8| *above_8 <= 8).map(|above_8| 8 + above_8);
        Some(Sps {
            profile_tier_level,
            temporal_layers: sub_layers + 1,
            is_nested,
            chroma_format,
            width,
            height,
            bit_depth_luma: depth()?,
            bit_depth_chroma: depth()?,
        })
    }
}

/// The rest of `profile_tier_level`, §7.3.3.
fn skip_sub_layers(bits: &mut BitReader<'_>, sub_layers: u8) -> Option<()> {
    if sub_layers == 0 {
        return Some(());
    }
    let mut to_skip = 0;
    for _ in 0..sub_layers {
        to_skip += if bits.flag()? { 88 } else { 0 };
        to_skip += if bits.flag()? { 8 } else { 0 };
    }
    // Seven sub-layers are reserved, but their three bits can say it.
    bits.skip(u32::from(8 - sub_layers) * 2)?;
    bits.skip(to_skip)
}

/// Width and height less the conformance window.
fn picture_size(bits: &mut BitReader<'_>, chroma_format: u8) -> Option<(u32, u32)> {
    let (width, height) = (bits.ue()?, bits.ue()?);
    if width > MAX_SIDE || height > MAX_SIDE {
        return None;
    }
    let (mut crop_x, mut crop_y) = (0, 0);
    if bits.flag()? {
        // Table 6-1: the window counts samples of chroma.
        let unit_x = if matches!(chroma_format, 1 | 2) { 2 } else { 1 };
        let unit_y = if chroma_format == 1 { 2 } else { 1 };
        let mut crop = |unit: u32| bits.ue()?.checked_add(bits.ue()?)?.checked_mul(unit);
        (crop_x, crop_y) = (crop(unit_x)?, crop(unit_y)?);
    }
    let shown = |side: u32, crop: u32| side.checked_sub(crop).filter(|side| *side > 0);
    Some((shown(width, crop_x)?, shown(height, crop_y)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::h265::HevcConfig;
    use crate::testing::{Random, hex};

    /// Records that ffmpeg writes for x265 of 320x180, see `tests/data/README.md`.
    const RECORDS: &str = include_str!("../../tests/data/hvcc.hex");

    #[test]
    fn sizes_are_those_of_the_pictures() {
        for (line, depth) in RECORDS.lines().zip([8, 10]) {
            let sets = HevcConfig::parse(&hex(line)).unwrap().parameter_sets;
            let sps = Sps::parse(&sets[1]).unwrap();
            assert_eq!((sps.width, sps.height), (320, 180));
            assert_eq!((sps.bit_depth_luma, sps.bit_depth_chroma), (depth, depth));
            assert_eq!(Sps::parse(&sets[0]), None);
        }
    }

    #[test]
    fn mutants_are_survived() {
        let mut random = Random::new(5);
        let sets = HevcConfig::parse(&hex(RECORDS.lines().next().unwrap())).unwrap().parameter_sets;
        for _ in 0..20_000 {
            let mut sps = sets[1].to_vec();
            random.mutate(&mut sps);
            let _ = Sps::parse(&sps);
        }
    }
}
