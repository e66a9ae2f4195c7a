//! Reading headers bit by bit: fixed-length fields and the Exp-Golomb codes of H.264 (§9.1) and H.265.

/// Reads from the most significant bit on. `None` from any method means that the data has ended or a code is too long.
#[derive(Debug, Clone)]
pub(crate) struct BitReader<'a> {
    data: &'a [u8],
    /// The byte that is being read.
    at: usize,
    /// Bits of it that have been read.
    used: u8,
    /// Zero bytes right before it, as far as emulation prevention is concerned.
    zeros: u8,
    escaped: bool,
}

impl<'a> BitReader<'a> {
    /// Over plain bytes.
    pub(crate) fn new(data: &'a [u8]) -> BitReader<'a> {
        BitReader { data, at: 0, used: 0, zeros: 0, escaped: false }
    }

    /// Over a NAL unit, whose emulation prevention bytes (H.264 §7.4.1.1) are passed over.
    pub(crate) fn of_nal_unit(data: &'a [u8]) -> BitReader<'a> {
        BitReader { escaped: true, ..BitReader::new(data) }
    }

    /// One bit.
    pub(crate) fn flag(&mut self) -> Option<bool> {
        if self.used == 0 && self.escaped && self.zeros >= 2 && *self.data.get(self.at)? == 3 {
            (self.at, self.zeros) = (self.at + 1, 0);
        }
        let byte = *self.data.get(self.at)?;
        let bit = byte >> (7 - self.used) & 1 == 1;
        self.used += 1;
        if self.used == 8 {
            (self.at, self.used) = (self.at + 1, 0);
            self.zeros = if byte == 0 { self.zeros.saturating_add(1) } else { 0 };
        }
        Some(bit)
    }

    /// Up to 32 bits.
    pub(crate) fn bits(&mut self, count: u32) -> Option<u32> {
        (0..count).try_fold(0_u32, |value, _| Some(value << 1 | u32::from(self.flag()?)))
    }

    /// A field of up to 8 bits.
    pub(crate) fn byte(&mut self, count: u32) -> Option<u8> {
        u8::try_from(self.bits(count)?).ok()
    }

    /// Passes over bits.
    pub(crate) fn skip(&mut self, count: u32) -> Option<()> {
        (0..count).try_for_each(|_| self.flag().map(drop))
    }

    /// An unsigned Exp-Golomb code, `ue(v)`.
    pub(crate) fn ue(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while !self.flag()? {
            zeros += 1;
            if zeros > 31 {
                return None;
            }
        }
        Some((1_u32 << zeros) - 1 + self.bits(zeros)?)
    }

    /// A signed Exp-Golomb code, `se(v)`.
    pub(crate) fn se(&mut self) -> Option<i32> {
        let code = i64::from(self.ue()?);
        i32::try_from(if code % 2 == 1 { (code + 1) / 2 } else { -(code / 2) }).ok()
    }

    /// Passes over the rest of a byte that has been begun.
    pub(crate) fn align(&mut self) -> Option<()> {
        self.skip(u32::from((8 - self.used) % 8))
    }

    /// How many bits are left, escapes included.
    pub(crate) fn remaining(&self) -> usize {
        (self.data.len() - self.at) * 8 - usize::from(self.used)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_golomb_codes() {
        // 1 010 011 00100 00101 00110 and the rest.
        let mut bits = BitReader::new(&[0b1010_0110, 0b0100_0010, 0b1001_1000]);
        assert_eq!((0..6).map(|_| bits.ue().unwrap()).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
        let mut bits = BitReader::new(&[0b1010_0110, 0b0100_0010, 0b1001_1000]);
        assert_eq!((0..6).map(|_| bits.se().unwrap()).collect::<Vec<_>>(), [0, 1, -1, 2, -2, 3]);
        assert_eq!(BitReader::new(&[0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff]).ue(), Some(u32::MAX - 1));
        assert_eq!(BitReader::new(&[0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff]).se(), Some(-i32::MAX));
        assert_eq!(BitReader::new(&[0; 9]).ue(), None);
        assert_eq!(BitReader::new(&[0, 1]).ue(), None);
    }

    #[test]
    fn escapes_are_passed_over() {
        let escaped = [0x11, 0, 0, 3, 1, 0, 0, 3, 0, 0, 3];
        let read = |mut bits: BitReader<'_>| std::iter::from_fn(|| bits.byte(8)).collect::<Vec<_>>();
        assert_eq!(read(BitReader::of_nal_unit(&escaped)), [0x11, 0, 0, 1, 0, 0, 0, 0]);
        assert_eq!(read(BitReader::new(&escaped)), escaped);
        let mut bits = BitReader::of_nal_unit(&escaped);
        assert_eq!((bits.bits(4), bits.align(), bits.bits(32)), (Some(1), Some(()), Some(0x0000_0100)));
        assert_eq!((bits.skip(24), bits.flag(), bits.bits(0)), (Some(()), None, Some(0)));
    }
}
