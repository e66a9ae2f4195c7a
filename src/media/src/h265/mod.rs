//! H.265/HEVC bitstreams as far as a server looks into them: the configuration record, the sequence parameter
//! set and the types of units.
//!
//! ITU-T H.265 §7.3.1.2 for the NAL header, ISO/IEC 14496-15 §8.3.3.1 for the record. The units of a frame are read with
//! [`crate::h264::units`], since the framing is the same.

mod sps;

use std::fmt;

use bytes::Bytes;

pub use sps::Sps;

/// Types of NAL units, Table 7-1.
pub mod nal {
    /// The first type of a random access picture; a decoder can start there.
    pub const FIRST_IRAP: u8 = 16;
    /// The last type of a random access picture, reserved ones included.
    pub const LAST_IRAP: u8 = 23;
    /// The last type that carries coded slices.
    pub const LAST_VCL: u8 = 31;
    /// A video parameter set.
    pub const VPS: u8 = 32;
    /// A sequence parameter set.
    pub const SPS: u8 = 33;
    /// A picture parameter set.
    pub const PPS: u8 = 34;
    /// Supplemental enhancement information before a picture.
    pub const PREFIX_SEI: u8 = 39;
    /// Supplemental enhancement information after a picture.
    pub const SUFFIX_SEI: u8 = 40;
}

/// The type of a NAL unit. One without a whole header has the reserved type 63.
pub fn nal_type(unit: &[u8]) -> u8 {
    if unit.len() < 2 { 63 } else { unit[0] >> 1 & 0x3f }
}

/// What is wrong with a configuration record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum H265Error {
    /// It ends within the named part.
    Truncated(&'static str),
    /// Lengths of three bytes do not exist.
    LengthSize,
}

impl fmt::Display for H265Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            H265Error::Truncated(part) => write!(f, "H.265 data ends within {part}"),
            H265Error::LengthSize => f.write_str("H.265 configuration record with unit lengths of three bytes"),
        }
    }
}

impl std::error::Error for H265Error {}

/// A parsed `HEVCDecoderConfigurationRecord`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HevcConfig {
    /// Bytes of the length before each unit of a frame: 1, 2 or 4.
    pub nal_length_bytes: u8,
    /// Video, sequence and picture parameter sets in this order, NAL header included.
    pub parameter_sets: Vec<Bytes>,
}

impl HevcConfig {
    /// Reads a record. The version is not looked at: files with 0 are common.
    ///
    /// # Errors
    /// A truncated list, lengths of three bytes.
    pub fn parse(record: &[u8]) -> Result<HevcConfig, H265Error> {
        let Some((head, mut rest)) = record.split_first_chunk::<23>() else {
            return Err(H265Error::Truncated("the configuration record"));
        };
        let nal_length_bytes = (head[21] & 3) + 1;
        if nal_length_bytes == 3 {
            return Err(H265Error::LengthSize);
        }
        let mut parameter_sets = Vec::new();
        for _ in 0..head[22] {
            rest = parameter_set_array(rest, &mut parameter_sets).ok_or(H265Error::Truncated("the parameter sets"))?;
        }
        parameter_sets.retain(|unit| (nal::VPS..=nal::PPS).contains(&nal_type(unit)));
        parameter_sets.sort_by_key(|unit| nal_type(unit));
        Ok(HevcConfig { nal_length_bytes, parameter_sets })
    }
}

fn parameter_set_array<'a>(data: &'a [u8], units: &mut Vec<Bytes>) -> Option<&'a [u8]> {
    let (head, mut rest) = data.split_first_chunk::<3>()?;
    for _ in 0..u16::from_be_bytes([head[1], head[2]]) {
        let (length, tail) = rest.split_first_chunk::<2>()?;
        let (unit, tail) = tail.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        units.push(Bytes::copy_from_slice(unit));
        rest = tail;
    }
    Some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_in_decoding_order() {
        let mut record = vec![1; 23];
        (record[21], record[22]) = (0xf3, 3);
        record.extend([0xa2, 0, 1, 0, 3, 0x44, 1, 9]);
        record.extend([0xa0, 0, 1, 0, 3, 0x40, 1, 7]);
        record.extend([0xa7, 0, 1, 0, 3, 0x4e, 1, 5]);
        let config = HevcConfig::parse(&record).unwrap();
        assert_eq!(config.nal_length_bytes, 4);
        assert_eq!(config.parameter_sets, [&[0x40_u8, 1, 7][..], &[0x44, 1, 9]]);
        for cut in 0..record.len() {
            assert!(matches!(HevcConfig::parse(&record[..cut]), Err(H265Error::Truncated(_))), "{cut}");
        }
        record[21] = 2;
        assert_eq!(HevcConfig::parse(&record), Err(H265Error::LengthSize));
    }
}
