//! The first words of a slice header, H.264 §7.3.3.

use super::{nal, nal_type};
use crate::bits::BitReader;

/// How a slice is predicted, Table 7-6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SliceType {
    /// From one picture at a time.
    P,
    /// From two pictures at a time, which may both come later in time.
    B,
    /// From nothing else.
    I,
    /// P, for switching between streams.
    Sp,
    /// I, for switching between streams.
    Si,
}

/// The type of a slice; `None` if the unit is no slice or ends too early.
pub fn slice_type(unit: &[u8]) -> Option<SliceType> {
    // Type 2 is partition A of a slice, which begins alike.
    if !matches!(nal_type(unit), nal::SLICE | 2 | nal::IDR) {
        return None;
    }
    let mut bits = BitReader::of_nal_unit(unit.get(1..)?);
    let _first_macroblock = bits.ue()?;
    Some(match bits.ue()? {
        0 | 5 => SliceType::P,
        1 | 6 => SliceType::B,
        2 | 7 => SliceType::I,
        3 | 8 => SliceType::Sp,
        4 | 9 => SliceType::Si,
        _ => return None,
    })
}

/// Whether the unit is a slice that is predicted from two pictures.
pub fn is_b_slice(unit: &[u8]) -> bool {
    slice_type(unit) == Some(SliceType::B)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slice_types_are_read() {
        for (unit, expected) in [
            // First macroblock 0, type 7, 5, 6, 1.
            (&[0x65, 0b1000_1000][..], Some(SliceType::I)),
            (&[0x41, 0b1001_1000], Some(SliceType::P)),
            (&[0x01, 0b1001_1100], Some(SliceType::B)),
            (&[0x01, 0b1010_0000], Some(SliceType::B)),
            // First macroblock 510 (00000000 11111111 1), an escape that is none after one zero byte.
            (&[0x01, 0, 0xff, 0xc0], Some(SliceType::P)),
            (&[0x01], None),
            (&[], None),
            (&[0x67, 0b1000_1000], None),
            // Type 10.
            (&[0x01, 0b1000_1011], None),
        ] {
            assert_eq!(slice_type(unit), expected, "{unit:02x?}");
        }
    }
}
