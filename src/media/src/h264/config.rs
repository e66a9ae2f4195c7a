//! `AVCDecoderConfigurationRecord`, ISO/IEC 14496-15 §5.2.4.1: what FLV and MP4 carry instead of parameter sets in the
//! stream.

use bytes::Bytes;

use super::{H264Error, Sps, nal, nal_type};

/// Most sequence parameter sets that a record's five bits can count.
const MAX_SPS: usize = 31;
/// Most picture parameter sets that a record's byte can count.
const MAX_PPS: usize = 255;

/// A parsed configuration record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AvcConfig {
    /// `profile_idc`.
    pub profile: u8,
    /// The constraint flags, first one in the highest bit.
    pub constraints: u8,
    /// `level_idc`.
    pub level: u8,
    /// Bytes of the length before each unit of a frame: 1, 2 or 4.
    pub nal_length_bytes: u8,
    /// The sequence parameter sets, NAL header included.
    pub sps: Vec<Bytes>,
    /// The picture parameter sets, NAL header included.
    pub pps: Vec<Bytes>,
}

impl AvcConfig {
    /// Reads a record. Extensions behind the parameter sets (chroma format, bit depth) repeat what the SPS says and
    /// are passed over, and so are empty parameter sets.
    ///
    /// # Errors
    /// Another version, a truncated list, lengths of three bytes.
    pub fn parse(record: &[u8]) -> Result<AvcConfig, H264Error> {
        let [version, profile, constraints, level, length_size, rest @ ..] = record else {
            return Err(H264Error::Truncated("the configuration record"));
        };
        if *version != 1 {
            return Err(H264Error::RecordVersion(*version));
        }
        let nal_length_bytes = (length_size & 3) + 1;
        if nal_length_bytes == 3 {
            return Err(H264Error::LengthSize);
        }
        let (sps, rest) = parameter_sets(rest, 0x1f).ok_or(H264Error::Truncated("the list of SPS"))?;
        let (pps, _) = parameter_sets(rest, 0xff).ok_or(H264Error::Truncated("the list of PPS"))?;
        let (profile, constraints, level) = (*profile, *constraints, *level);
        Ok(AvcConfig { profile, constraints, level, nal_length_bytes, sps, pps })
    }

    /// From parameter sets as an encoder or an RTP stream gives them; frames then have lengths of four bytes.
    ///
    /// # Errors
    /// No SPS, units of other types, more or larger ones than a record can hold.
    pub fn from_parameter_sets(sps: Vec<Bytes>, pps: Vec<Bytes>) -> Result<AvcConfig, H264Error> {
        for (units, expected, most) in [(&sps, nal::SPS, MAX_SPS), (&pps, nal::PPS, MAX_PPS)] {
            if let Some(other) = units.iter().find(|unit| nal_type(unit) != expected) {
                return Err(H264Error::UnitType(nal_type(other)));
            }
            if units.len() > most || units.iter().any(|unit| unit.len() > usize::from(u16::MAX)) {
                return Err(H264Error::TooLarge);
            }
        }
        let Some([_, profile, constraints, level, ..]) = sps.first().map(AsRef::as_ref) else {
            return Err(H264Error::Truncated("the SPS"));
        };
        let (profile, constraints, level) = (*profile, *constraints, *level);
        Ok(AvcConfig { profile, constraints, level, nal_length_bytes: 4, sps, pps })
    }

    /// Writes the record, the extension of the high profiles included.
    pub fn to_record(&self) -> Bytes {
        let mut record = vec![1, self.profile, self.constraints, self.level, 0xfc | (self.nal_length_bytes - 1) & 3];
        record.push(0xe0 | self.sps.len().min(MAX_SPS) as u8);
        self.sps.iter().take(MAX_SPS).for_each(|unit| push_unit(&mut record, unit));
        record.push(self.pps.len().min(MAX_PPS) as u8);
        self.pps.iter().take(MAX_PPS).for_each(|unit| push_unit(&mut record, unit));
        if matches!(self.profile, 100 | 110 | 122 | 144)
            && let Some(Ok(sps)) = self.sps.first().map(|unit| Sps::parse(unit))
        {
            let depths = [sps.bit_depth_luma - 8, sps.bit_depth_chroma - 8];
            record.extend([0xfc | sps.chroma_format, 0xf8 | depths[0], 0xf8 | depths[1], 0]);
        }
        record.into()
    }

    /// `profile-level-id` of SDP (RFC 6184 §8.1): six hexadecimal digits.
    pub fn profile_level_id(&self) -> String {
        format!("{:02x}{:02x}{:02x}", self.profile, self.constraints, self.level)
    }
}

fn parameter_sets(data: &[u8], count_mask: u8) -> Option<(Vec<Bytes>, &[u8])> {
    let (count, mut rest) = data.split_first()?;
    let mut units = Vec::new();
    for _ in 0..count & count_mask {
        let (length, tail) = rest.split_first_chunk::<2>()?;
        let (unit, tail) = tail.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        if !unit.is_empty() {
            units.push(Bytes::copy_from_slice(unit));
        }
        rest = tail;
    }
    Some((units, rest))
}

fn push_unit(record: &mut Vec<u8>, unit: &[u8]) {
    let unit = &unit[..unit.len().min(usize::from(u16::MAX))];
    record.extend((unit.len() as u16).to_be_bytes());
    record.extend(unit);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::hex;

    const RECORD: [u8; 19] = [1, 0x42, 0xc0, 0x1e, 0xff, 0xe1, 0, 5, 0x67, 0x42, 0xc0, 0x1e, 1, 1, 0, 3, 0x68, 2, 3];

    #[test]
    fn a_record_is_read_and_written() {
        let config = AvcConfig::parse(&RECORD).unwrap();
        assert_eq!((config.nal_length_bytes, config.profile_level_id()), (4, "42c01e".to_owned()));
        assert_eq!((&config.sps[0][..], &config.pps[0][..]), (&RECORD[8..13], &RECORD[16..]));
        assert_eq!(config.to_record(), RECORD[..]);
        assert_eq!(AvcConfig::from_parameter_sets(config.sps.clone(), config.pps.clone()), Ok(config));
    }

    #[test]
    fn the_extension_of_high_profiles_is_written() {
        // x264's, 4:2:0 at 8 bits.
        let record =
            hex("0164000dffe1001a6764000dacd941419f9f0110000003001000000303c0f142996001000668ebe3cb22c0fdf8f800");
        assert_eq!(AvcConfig::parse(&record).unwrap().to_record(), record);
    }

    #[test]
    fn bad_records_are_told_apart() {
        for cut in 0..RECORD.len() {
            assert!(matches!(AvcConfig::parse(&RECORD[..cut]), Err(H264Error::Truncated(_))), "{cut}");
        }
        assert_eq!(AvcConfig::parse(&[0, 1, 2, 3, 4, 5]), Err(H264Error::RecordVersion(0)));
        assert_eq!(AvcConfig::parse(&[1, 66, 0, 30, 0xfe, 0xe0, 0]), Err(H264Error::LengthSize));
        // Parameter sets may all be in the stream instead.
        assert_eq!(AvcConfig::parse(&[1, 66, 0, 30, 0xff, 0xe0, 0]).unwrap().sps.len(), 0);
        let unit = |header, length| vec![Bytes::from(vec![header; length])];
        for (sps, pps, error) in [
            (unit(0x68, 5), unit(0x68, 5), H264Error::UnitType(8)),
            (unit(0x67, 3), unit(0x68, 5), H264Error::Truncated("the SPS")),
            (unit(0x67, 9), unit(0x68, 70_000), H264Error::TooLarge),
            (vec![Bytes::from_static(&[0x67; 9]); 32], vec![], H264Error::TooLarge),
        ] {
            assert_eq!(AvcConfig::from_parameter_sets(sps, pps), Err(error));
        }
    }
}
