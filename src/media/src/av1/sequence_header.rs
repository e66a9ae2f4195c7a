//! Sequence headers, AV1 specification §5.5.1, up to the colours.

use crate::bits::BitReader;

/// §6.4.2: the values that together mean RGB, which is never subsampled.
const SRGB: (u32, u32, u32) = (1, 13, 0);

/// What a sequence header says of the pictures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SequenceHeader {
    /// `seq_profile`: 0 Main, 1 High, 2 Professional.
    pub profile: u8,
    /// `seq_level_idx` of the first operating point.
    pub level: u8,
    /// Its `seq_tier`: the high one.
    pub tier: bool,
    /// Width of the largest picture, in pixels.
    pub width: u32,
    /// Height of the largest picture, in pixels.
    pub height: u32,
    /// How samples are to be understood.
    pub colour: Colour,
}

/// `color_config`, §5.5.2, as far as configuration records repeat it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Colour {
    /// More than 8 bits per sample.
    pub high_bitdepth: bool,
    /// 12 bits rather than 10.
    pub twelve_bit: bool,
    /// Luma only.
    pub is_monochrome: bool,
    /// Whether chroma is subsampled horizontally and vertically.
    pub subsampling: (bool, bool),
    /// `chroma_sample_position`.
    pub sample_position: u8,
}

impl SequenceHeader {
    /// Reads the payload of the unit. `None` if it is truncated.
    pub fn parse(payload: &[u8]) -> Option<SequenceHeader> {
        let mut bits = BitReader::new(payload);
        let profile = bits.byte(3)?;
        let _still_picture = bits.flag()?;
        let is_reduced = bits.flag()?;
        let (level, tier) = if is_reduced { (bits.byte(5)?, false) } else { operating_points(&mut bits)? };
        let (width_bits, height_bits) = (bits.bits(4)? + 1, bits.bits(4)? + 1);
        let (width, height) = (bits.bits(width_bits)? + 1, bits.bits(height_bits)? + 1);
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
        Some(SequenceHeader { profile, level, tier, width, height, colour: colour(&mut bits, profile)? })
    }
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

    /// Records that ffmpeg writes for pictures of 320x180, see `tests/data/README.md`.
    const RECORDS: &str = include_str!("../../tests/data/av1c.hex");

    #[test]
    fn sizes_are_those_of_the_pictures() {
        for line in RECORDS.lines() {
            let header = SequenceHeader::parse(config_obus(&hex(line)).next().unwrap().payload).unwrap();
            assert_eq!((header.width, header.height), (320, 180));
        }
    }

    #[test]
    fn mutants_are_survived() {
        let mut random = Random::new(6);
        let record = hex(RECORDS.lines().next().unwrap());
        let header = config_obus(&record).next().unwrap().payload;
        for _ in 0..20_000 {
            let mut header = header.to_vec();
            random.mutate(&mut header);
            let _ = SequenceHeader::parse(&header);
        }
    }
}
