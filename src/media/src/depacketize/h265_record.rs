//! `HEVCDecoderConfigurationRecord`, ISO/IEC 14496-15 §8.3.3.1, from parameter sets.

use bytes::Bytes;

use super::DepacketizeError;
use crate::bits::BitReader;
use crate::h265::{nal, nal_type};

/// Bytes of the general part of `profile_tier_level`, H.265 §7.3.3, which the record repeats as it is.
const PROFILE_BYTES: usize = 12;

/// What the record takes from the sequence parameter set.
struct Facts {
    profile_tier_level: [u8; PROFILE_BYTES],
    temporal_layers: u8,
    is_nested: bool,
    chroma_format: u8,
    bit_depth_luma_minus8: u8,
    bit_depth_chroma_minus8: u8,
}

/// The record of parameter sets that are sorted by kind.
pub(super) fn of(sets: &[Bytes]) -> Result<Bytes, DepacketizeError> {
    let sps = sets.iter().find(|unit| nal_type(unit) == nal::SPS).ok_or(DepacketizeError::NoParameters)?;
    if [nal::VPS, nal::PPS].iter().any(|kind| !sets.iter().any(|unit| nal_type(unit) == *kind)) {
        return Err(DepacketizeError::NoParameters);
    }
    let facts = read(sps).ok_or(DepacketizeError::BadParameters("an H.265 SPS"))?;
    let mut record = vec![1];
    record.extend(facts.profile_tier_level);
    // Nothing is said of segmentation (§8.3.3.1: 4 bits reserved, 12 of 0), parallelism and frame rate.
    record.extend([0xf0, 0, 0xfc, 0xfc | facts.chroma_format]);
    record.extend([0xf8 | facts.bit_depth_luma_minus8, 0xf8 | facts.bit_depth_chroma_minus8, 0, 0]);
    const LENGTHS_OF_FOUR_BYTES: u8 = 3;
    record.push(facts.temporal_layers << 3 | u8::from(facts.is_nested) << 2 | LENGTHS_OF_FOUR_BYTES);
    record.push(3);
    for kind in nal::VPS..=nal::PPS {
        let of_kind = || sets.iter().filter(move |unit| nal_type(unit) == kind);
        const IS_COMPLETE: u8 = 0x80;
        record.push(IS_COMPLETE | kind);
        record.extend((of_kind().count() as u16).to_be_bytes());
        for unit in of_kind() {
            let length =
                u16::try_from(unit.len()).map_err(|_| DepacketizeError::BadParameters("a huge H.265 parameter set"))?;
            record.extend(length.to_be_bytes());
            record.extend_from_slice(unit);
        }
    }
    Ok(record.into())
}

/// §7.3.2.2, up to the bit depths.
fn read(sps: &[u8]) -> Option<Facts> {
    let mut bits = BitReader::of_nal_unit(sps.get(2..)?);
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
    let _size = (bits.ue()?, bits.ue()?);
    if bits.flag()? {
        let _conformance_window = (bits.ue()?, bits.ue()?, bits.ue()?, bits.ue()?);
    }
    let mut depth = || u8::try_from(bits.ue()?).ok().filter(|above_8| *above_8 <= 8);
    let (luma, chroma) = (depth()?, depth()?);
    Some(Facts {
        profile_tier_level,
        temporal_layers: sub_layers + 1,
        is_nested,
        chroma_format,
        // The record has three bits for each.
        bit_depth_luma_minus8: luma.min(7),
        bit_depth_chroma_minus8: chroma.min(7),
    })
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
    bits.skip(u32::from(8 - sub_layers) * 2)?;
    bits.skip(to_skip)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::h265::HevcConfig;
    use crate::testing::{Random, hex};

    /// Records that ffmpeg writes for x265, see `tests/data/README.md`.
    const RECORDS: &str = include_str!("../../tests/data/hvcc.hex");

    #[test]
    fn records_are_those_that_ffmpeg_writes() {
        for line in RECORDS.lines() {
            let expected = hex(line);
            let sets = HevcConfig::parse(&expected).unwrap().parameter_sets;
            assert_eq!(of(&sets).unwrap(), expected, "{line}");
        }
    }

    #[test]
    fn mutants_are_survived() {
        let mut random = Random::new(5);
        let sets = HevcConfig::parse(&hex(RECORDS.lines().next().unwrap())).unwrap().parameter_sets;
        for _ in 0..20_000 {
            let mut sps = sets[1].to_vec();
            random.mutate(&mut sps);
            let _ = of(&[sets[0].clone(), sps.into(), sets[2].clone()]);
        }
        assert_eq!(of(&sets[..2]), Err(DepacketizeError::NoParameters));
        assert_eq!(of(&sets[1..]), Err(DepacketizeError::NoParameters));
        assert_eq!(of(&[]), Err(DepacketizeError::NoParameters));
    }
}
