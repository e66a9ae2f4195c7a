//! Redundant audio, RFC 2198.

/// The primary block of a RED payload (§3): what its sender would have sent without redundancy. `None` if the headers do
/// not fit the payload.
pub fn red_primary(payload: &[u8]) -> Option<&[u8]> {
    const FOLLOWS: u8 = 0x80;
    let (mut rest, mut redundant_bytes) = (payload, 0);
    loop {
        match rest {
            [last, blocks @ ..] if last & FOLLOWS == 0 => return blocks.get(redundant_bytes..),
            [_, _, high, low, tail @ ..] => {
                redundant_bytes += usize::from(high & 0x03) << 8 | usize::from(*low);
                rest = tail;
            }
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_block_comes_out() {
        let cases: [(&[u8], Option<&[u8]>); 6] = [
            (&[111, 7, 8], Some(&[7, 8])),
            (&[0x80 | 111, 0, 0, 2, 111, 1, 2, 7, 8], Some(&[7, 8])),
            (&[0x80 | 111, 0, 0x01, 0, 111, 1], None),
            (&[0x80 | 111, 0, 0], None),
            (&[111], Some(&[])),
            (&[], None),
        ];
        for (payload, expected) in cases {
            assert_eq!(red_primary(payload), expected, "{payload:02x?}");
        }
    }
}
