//! `AV1CodecConfigurationRecord`, AV1-ISOBMFF §2.3, from a sequence header.

use bytes::Bytes;

use super::av1::append_unit;
use crate::av1::{SequenceHeader, obus};

/// Marker bit and version 1.
const MARKER_AND_VERSION: u8 = 0x81;
/// The record of a unit with its header and without size. `None` if it cannot be read.
pub(super) fn of(sequence_header: &[u8]) -> Option<Bytes> {
    let unit = obus(sequence_header).next()?;
    let SequenceHeader { profile, level, tier, colour, .. } = SequenceHeader::parse(unit.payload)?;
    let mut record = vec![MARKER_AND_VERSION, profile << 5 | level];
    let (horizontal, vertical) = colour.subsampling;
    record.push(
        u8::from(tier) << 7
            | u8::from(colour.high_bitdepth) << 6
            | u8::from(colour.twelve_bit) << 5
            | u8::from(colour.is_monochrome) << 4
            | u8::from(horizontal) << 3
            | u8::from(vertical) << 2
            | colour.sample_position,
    );
    // No initial presentation delay.
    record.push(0);
    append_unit(&mut record, &unit);
    Some(record.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::av1::config_obus;
    use crate::testing::{Random, hex};

    /// Records that ffmpeg writes for libaom and SVT-AV1, see `tests/data/README.md`.
    const RECORDS: &str = include_str!("../../tests/data/av1c.hex");

    fn sequence_header(record: &[u8]) -> Vec<u8> {
        let unit = config_obus(record).next().unwrap();
        [unit.header(), unit.payload].concat()
    }

    #[test]
    fn records_are_those_that_ffmpeg_writes() {
        for line in RECORDS.lines() {
            let expected = hex(line);
            assert_eq!(of(&sequence_header(&expected)).unwrap(), expected, "{line}");
        }
    }

    #[test]
    fn mutants_are_survived() {
        let mut random = Random::new(6);
        for _ in 0..20_000 {
            let mut header = sequence_header(&hex(RECORDS.lines().next().unwrap()));
            random.mutate(&mut header);
            let _ = of(&header);
        }
        assert_eq!((of(&[]), of(&[0x0c]), of(&[8])), (None, None, None));
    }
}
