//! `HEVCDecoderConfigurationRecord`, ISO/IEC 14496-15 §8.3.3.1, from parameter sets.

use bytes::Bytes;

use super::DepacketizeError;
use crate::h265::{Sps, nal, nal_type};

/// The record of parameter sets that are sorted by kind.
pub(super) fn of(sets: &[Bytes]) -> Result<Bytes, DepacketizeError> {
    let sps = sets.iter().find(|unit| nal_type(unit) == nal::SPS).ok_or(DepacketizeError::NoParameters)?;
    if [nal::VPS, nal::PPS].iter().any(|kind| !sets.iter().any(|unit| nal_type(unit) == *kind)) {
        return Err(DepacketizeError::NoParameters);
    }
    let facts = Sps::parse(sps).ok_or(DepacketizeError::BadParameters("an H.265 SPS"))?;
    let mut record = vec![1];
    record.extend(facts.profile_tier_level);
    // Nothing is said of segmentation (§8.3.3.1: 4 bits reserved, 12 of 0), parallelism and frame rate.
    record.extend([0xf0, 0, 0xfc, 0xfc | facts.chroma_format]);
    // The record has three bits for each.
    let depth = |bits: u8| 0xf8 | (bits - 8).min(7);
    record.extend([depth(facts.bit_depth_luma), depth(facts.bit_depth_chroma), 0, 0]);
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
