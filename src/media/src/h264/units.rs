//! The NAL units of a frame.

/// The units of a frame, behind lengths of `nal_length_bytes` (ISO/IEC 14496-15 §5.2.3) or, where that is evidently
/// what the encoder wrote, behind the start codes of Annex B.
///
/// Empty units are left out. A length that reaches beyond the data ends the list and sets [`Units::is_malformed`].
pub fn units(data: &[u8], nal_length_bytes: u8) -> Units<'_> {
    let mut units = Units { rest: data, length_bytes: nal_length_bytes.clamp(1, 4).into(), is_malformed: false };
    // A start code may also be the length of a unit of 1 or 256..=511 bytes; then the lengths add up.
    let has_start_code = data.starts_with(&[0, 0, 1]) || data.starts_with(&[0, 0, 0, 1]);
    if has_start_code && !lengths_add_up(units.clone()) {
        units.length_bytes = 0;
    }
    units
}

/// Iterator of [`units`].
#[derive(Debug, Clone)]
pub struct Units<'a> {
    rest: &'a [u8],
    /// 0 for Annex B.
    length_bytes: usize,
    is_malformed: bool,
}

impl<'a> Units<'a> {
    /// Whether what has been read so far ended in a length that reaches beyond the data.
    pub fn is_malformed(&self) -> bool {
        self.is_malformed
    }

    fn next_annex_b(&mut self) -> Option<&'a [u8]> {
        loop {
            let (at, length) = start_code(self.rest)?;
            let unit = &self.rest[at + length..];
            let end = start_code(unit).map_or(unit.len(), |(at, _)| at);
            self.rest = &unit[end..];
            // `trailing_zero_8bits`: a unit itself never ends in a zero byte.
            let end = unit[..end].iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            if end > 0 {
                return Some(&unit[..end]);
            }
        }
    }
}

impl<'a> Iterator for Units<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.length_bytes == 0 {
            return self.next_annex_b();
        }
        while !self.rest.is_empty() {
            let Some((length, tail)) = self.rest.split_at_checked(self.length_bytes) else { break };
            let length = length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
            let Some((unit, tail)) = tail.split_at_checked(length) else { break };
            self.rest = tail;
            if !unit.is_empty() {
                return Some(unit);
            }
        }
        self.is_malformed |= !self.rest.is_empty();
        self.rest = &[];
        None
    }
}

fn lengths_add_up(mut units: Units<'_>) -> bool {
    units.by_ref().for_each(drop);
    !units.is_malformed
}

/// Where the next start code begins, and how long it is.
fn start_code(data: &[u8]) -> Option<(usize, usize)> {
    let at = data.windows(3).position(|window| window == [0, 0, 1])?;
    Some(if at > 0 && data[at - 1] == 0 { (at - 1, 4) } else { (at, 3) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    /// The data, bytes of a length, the units, whether it is malformed.
    type Case<'a> = (&'a [u8], u8, &'a [&'a [u8]], bool);

    #[test]
    fn both_framings_are_read() {
        let long = [[0, 0, 1, 2].as_slice(), &[0x65; 0x102]].concat();
        let cases: [Case<'_>; 12] = [
            (&[0, 0, 0, 2, 0x67, 1, 0, 0, 0, 1, 0x68], 4, &[&[0x67, 1], &[0x68]], false),
            (&[0, 2, 0x67, 1, 0, 1, 0x68], 2, &[&[0x67, 1], &[0x68]], false),
            (&[2, 0x67, 1, 0, 1, 0x68], 1, &[&[0x67, 1], &[0x68]], false),
            (&[0, 0, 0, 2, 0x67, 1, 0, 0, 0, 9, 0x68], 4, &[&[0x67, 1]], true),
            (&[0, 0, 0, 2, 0x67, 1, 0, 0], 4, &[&[0x67, 1]], true),
            (&[0xff, 0xff, 0xff, 0xff, 1], 4, &[], true),
            (&[], 4, &[], false),
            (&[0, 0, 0, 1, 0x67, 1, 0, 0, 0, 1, 0x68, 0, 0, 1, 0x65, 9], 4, &[&[0x67, 1], &[0x68], &[0x65, 9]], false),
            (&[0, 0, 1, 0x67, 1, 0, 0, 0, 0, 1, 0x68, 0], 4, &[&[0x67, 1], &[0x68]], false),
            (&[0, 0, 1, 0, 0, 1], 4, &[], false),
            // Lengths that look like a start code.
            (&[0, 0, 0, 1, 0x0a, 0, 0, 0, 2, 0x41, 7], 4, &[&[0x0a], &[0x41, 7]], false),
            (&long, 4, &[&[0x65; 0x102]], false),
        ];
        for (data, length_bytes, expected, malformed) in cases {
            let mut found = units(data, length_bytes);
            assert_eq!(found.by_ref().collect::<Vec<_>>(), expected, "{data:02x?}");
            assert_eq!(found.is_malformed(), malformed, "{data:02x?}");
        }
    }

    #[test]
    fn garbage_is_survived() {
        let mut random = Random::new(1);
        for _ in 0..20_000 {
            let length = random.below(40);
            let mut data = random.bytes(length);
            data.iter_mut().for_each(|byte| *byte &= [0xff, 3, 1, 0][random.below(4)]);
            for length_bytes in 0..=9 {
                let total: usize = units(&data, length_bytes).map(<[u8]>::len).sum();
                assert!(total <= data.len());
            }
        }
    }
}
