//! `AV1CodecConfigurationRecord`, AV1-ISOBMFF §2.3, from a sequence header.

use bytes::Bytes;

use super::av1::append_unit;
use crate::av1::obus;
use crate::bits::BitReader;

/// Marker bit and version 1.
const MARKER_AND_VERSION: u8 = 0x81;
/// §6.4.2: the values that together mean RGB, which is never subsampled.
const SRGB: (u32, u32, u32) = (1, 13, 0);

struct Facts {
    profile: u8,
    level: u8,
    tier: bool,
    colour: Colour,
}

struct Colour {
    high_bitdepth: bool,
    twelve_bit: bool,
    is_monochrome: bool,
    subsampling: (bool, bool),
    sample_position: u8,
}

/// The record of a unit with its header and without size. `None` if it cannot be read.
pub(super) fn of(sequence_header: &[u8]) -> Option<Bytes> {
    let unit = obus(sequence_header).next()?;
    let Facts { profile, level, tier, colour } = read(unit.payload)?;
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

/// `sequence_header_obu`, AV1 specification §5.5.1.
fn read(payload: &[u8]) -> Option<Facts> {
    let mut bits = BitReader::new(payload);
    let profile = bits.byte(3)?;
    let _still_picture = bits.flag()?;
    let is_reduced = bits.flag()?;
    let (level, tier) = if is_reduced { (bits.byte(5)?, false) } else { operating_points(&mut bits)? };
    let (width_bits, height_bits) = (bits.bits(4)? + 1, bits.bits(4)? + 1);
    bits.skip(width_bits + height_bits)?;
    if !is_reduced && bits.flag()? {
        let _frame_id_lengths = bits.bits(4 + 3)?;
    }
    // Superblocks of 128, filter intra, intra edge filter.
    bits.skip(3)?;
    if !is_reduced {
        tools(&mut bits)?;
    }
    // Super-resolution, CDEF, loop restoration.
    bits.skip(3)?;
    Some(Facts { profile, level, tier, colour: colour(&mut bits, profile)? })
}

/// Timing and the operating points; level and tier of the first one.
fn operating_points(bits: &mut BitReader<'_>) -> Option<(u8, bool)> {
    let mut delay_bits = None;
    if bits.flag()? {
        bits.skip(32 + 32)?;
        if bits.flag()? {
            let _ticks_per_picture = bits.ue()?;
        }
        if bits.flag()? {
            delay_bits = Some(bits.bits(5)? + 1);
            bits.skip(32 + 5 + 5)?;
        }
    }
    let has_display_delays = bits.flag()?;
    let mut first = None;
    for _ in 0..=bits.bits(5)? {
        bits.skip(12)?;
        let level = bits.byte(5)?;
        let tier = level > 7 && bits.flag()?;
        if let Some(delay_bits) = delay_bits
            && bits.flag()?
        {
            bits.skip(2 * delay_bits + 1)?;
        }
        if has_display_delays && bits.flag()? {
            bits.skip(4)?;
        }
        first.get_or_insert((level, tier));
    }
    first
}

/// The coding tools that only full headers name.
fn tools(bits: &mut BitReader<'_>) -> Option<()> {
    // Inter-intra and masked compound, warped motion, dual filter.
    bits.skip(4)?;
    let has_order_hint = bits.flag()?;
    if has_order_hint {
        bits.skip(2)?;
    }
    let may_choose_screen_content = bits.flag()?;
    let screen_content = may_choose_screen_content || bits.flag()?;
    if screen_content && !bits.flag()? {
        let _integer_motion_vectors = bits.flag()?;
    }
    if has_order_hint {
        bits.skip(3)?;
    }
    Some(())
}

/// `color_config`, §5.5.2.
fn colour(bits: &mut BitReader<'_>, profile: u8) -> Option<Colour> {
    let high_bitdepth = bits.flag()?;
    let twelve_bit = profile == 2 && high_bitdepth && bits.flag()?;
    let is_monochrome = profile != 1 && bits.flag()?;
    let described = if bits.flag()? { (bits.bits(8)?, bits.bits(8)?, bits.bits(8)?) } else { (2, 2, 2) };
    let mut colour = Colour { high_bitdepth, twelve_bit, is_monochrome, subsampling: (true, true), sample_position: 0 };
    if !is_monochrome && described == SRGB {
        colour.subsampling = (false, false);
        return Some(colour);
    }
    let _full_range = bits.flag()?;
    if is_monochrome {
        return Some(colour);
    }
    colour.subsampling = match profile {
        0 => (true, true),
        1 => (false, false),
        _ if twelve_bit => {
            let horizontal = bits.flag()?;
            (horizontal, horizontal && bits.flag()?)
        }
        _ => (true, false),
    };
    if colour.subsampling == (true, true) {
        colour.sample_position = bits.byte(2)?;
    }
    Some(colour)
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
