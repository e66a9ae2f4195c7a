//! Sequence parameter sets, H.264 §7.3.2.1 and Annex E.

use super::{H264Error, nal, nal_type};
use crate::bits::BitReader;

/// Most macroblocks that a picture may be wide or high: the root of eight times `MaxFS` of level 6.2, §A.3.1.
const MAX_MACROBLOCKS: u32 = 1055;

/// What a sequence parameter set says of the pictures.
#[derive(Debug, Clone, PartialEq)]
pub struct Sps {
    /// `profile_idc`: 66 Baseline, 77 Main, 88 Extended, 100 High, 110 High 10, 122 High 4:2:2, 244 High 4:4:4.
    pub profile: u8,
    /// The constraint flags, first one in the highest bit.
    pub constraints: u8,
    /// `level_idc`, ten times the level.
    pub level: u8,
    /// Width of what is shown, in pixels.
    pub width: u32,
    /// Height of what is shown, in pixels.
    pub height: u32,
    /// `chroma_format_idc`: 0 grey, 1 4:2:0, 2 4:2:2, 3 4:4:4.
    pub chroma_format: u8,
    /// Bits per luma sample, 8 to 14.
    pub bit_depth_luma: u8,
    /// Bits per chroma sample, 8 to 14.
    pub bit_depth_chroma: u8,
    /// `pic_order_cnt_type`. With 2 pictures are shown in decoding order.
    pub pic_order_count_type: u8,
    /// No picture is interlaced.
    pub frame_mbs_only: bool,
    /// How many pictures may come before one that is shown earlier, if the encoder says so.
    pub max_num_reorder_frames: Option<u32>,
    /// Pictures per second, if the encoder says so.
    pub frames_per_second: Option<f64>,
    /// How the samples stand for colours.
    pub colour: Colour,
}

/// What the usability information says of colours, §E.2.1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Colour {
    /// `video_full_range_flag`: black is 0 and not 16.
    pub is_full_range: bool,
    /// `matrix_coefficients`, if told: 1 is BT.709, 5 and 6 are BT.601.
    pub matrix: Option<u8>,
}

impl Sps {
    /// Reads the NAL unit of an SPS, header included. Usability information that breaks off or makes no sense counts
    /// as missing, since encoders get it wrong and decoders do not depend on it.
    ///
    /// # Errors
    /// Another unit, a truncated one, values beyond the standard's limits.
    pub fn parse(unit: &[u8]) -> Result<Sps, H264Error> {
        if nal_type(unit) != nal::SPS {
            return Err(H264Error::UnitType(nal_type(unit)));
        }
        let truncated = H264Error::Truncated("the SPS");
        let mut bits = BitReader::of_nal_unit(&unit[1..]);
        let mut byte = || bits.byte(8).ok_or(truncated);
        let (profile, constraints, level) = (byte()?, byte()?, byte()?);
        let _id = bits.ue().ok_or(truncated)?;
        let format = if has_sample_format(profile) { sample_format(&mut bits)? } else { SampleFormat::default() };
        let _log2_max_frame_num = bits.ue().ok_or(truncated)?;
        let pic_order_count_type = pic_order_count(&mut bits)?;
        let _max_num_ref_frames = bits.ue().ok_or(truncated)?;
        let _gaps_allowed = bits.flag().ok_or(truncated)?;
        let size = picture_size(&mut bits, format.chroma_format)?;
        let vui = match bits.flag() {
            Some(true) => usability(&mut bits).unwrap_or_default(),
            _ => Usability::default(),
        };
        Ok(Sps {
            profile,
            constraints,
            level,
            width: size.width,
            height: size.height,
            chroma_format: format.chroma_format,
            bit_depth_luma: format.bit_depth_luma,
            bit_depth_chroma: format.bit_depth_chroma,
            pic_order_count_type,
            frame_mbs_only: size.frame_mbs_only,
            max_num_reorder_frames: vui.max_num_reorder_frames,
            frames_per_second: vui.frames_per_second,
            colour: vui.colour,
        })
    }

    /// Whether pictures are certain to be shown in decoding order: a profile without B slices or of intra pictures
    /// only (§E.2.1), a picture order count that allows no other order, or the encoder's word.
    pub fn never_reorders(&self) -> bool {
        let is_intra_only = self.constraints & 0x10 != 0 && matches!(self.profile, 44 | 86 | 100 | 110 | 122 | 244);
        self.profile == 66 || is_intra_only || self.pic_order_count_type == 2 || self.max_num_reorder_frames == Some(0)
    }
}

struct SampleFormat {
    chroma_format: u8,
    bit_depth_luma: u8,
    bit_depth_chroma: u8,
}

impl Default for SampleFormat {
    fn default() -> Self {
        SampleFormat { chroma_format: 1, bit_depth_luma: 8, bit_depth_chroma: 8 }
    }
}

/// The profiles that §7.3.2.1.1 lists.
fn has_sample_format(profile: u8) -> bool {
    matches!(profile, 100 | 110 | 122 | 244 | 44 | 83 | 86 | 118 | 128 | 138 | 139 | 134 | 135)
}

fn sample_format(bits: &mut BitReader<'_>) -> Result<SampleFormat, H264Error> {
    let truncated = H264Error::Truncated("the SPS's sample format");
    let mut field = |most: u32, name| {
        let value = bits.ue().ok_or(truncated)?;
        u8::try_from(value).ok().filter(|v| u32::from(*v) <= most).ok_or(H264Error::OutOfRange(name))
    };
    let chroma_format = field(3, "chroma format")?;
    if chroma_format == 3 {
        // A plane of 1 in place of ue(v) fields must not be read as one.
        let _separate_colour_planes = bits.flag().ok_or(truncated)?;
    }
    let mut depth = || {
        let value = bits.ue().ok_or(truncated)?;
        u8::try_from(value).ok().filter(|v| *v <= 6).map(|v| v + 8).ok_or(H264Error::OutOfRange("bit depth"))
    };
    let (bit_depth_luma, bit_depth_chroma) = (depth()?, depth()?);
    let _transform_bypass = bits.flag().ok_or(truncated)?;
    if bits.flag().ok_or(truncated)? {
        let lists = if chroma_format == 3 { 12 } else { 8 };
        for list in 0..lists {
            skip_scaling_list(bits, if list < 6 { 16 } else { 64 }).ok_or(truncated)?;
        }
    }
    Ok(SampleFormat { chroma_format, bit_depth_luma, bit_depth_chroma })
}

/// §7.3.2.1.1.1.
fn skip_scaling_list(bits: &mut BitReader<'_>, size: usize) -> Option<()> {
    if !bits.flag()? {
        return Some(());
    }
    let mut scale = 8_i64;
    for _ in 0..size {
        scale = (scale + i64::from(bits.se()?)).rem_euclid(256);
        if scale == 0 {
            break;
        }
    }
    Some(())
}

fn pic_order_count(bits: &mut BitReader<'_>) -> Result<u8, H264Error> {
    let truncated = H264Error::Truncated("the SPS's picture order count");
    let kind = bits.ue().ok_or(truncated)?;
    match kind {
        0 => drop(bits.ue().ok_or(truncated)?),
        1 => {
            let _always_zero = bits.flag().ok_or(truncated)?;
            let _offset_for_non_reference = bits.se().ok_or(truncated)?;
            let _offset_for_bottom_field = bits.se().ok_or(truncated)?;
            let cycle = bits.ue().ok_or(truncated)?;
            if cycle > 255 {
                return Err(H264Error::OutOfRange("picture order count cycle"));
            }
            for _ in 0..cycle {
                bits.se().ok_or(truncated)?;
            }
        }
        2 => {}
        _ => return Err(H264Error::OutOfRange("picture order count type")),
    }
    Ok(kind as u8)
}

struct PictureSize {
    width: u32,
    height: u32,
    frame_mbs_only: bool,
}

fn picture_size(bits: &mut BitReader<'_>, chroma_format: u8) -> Result<PictureSize, H264Error> {
    let truncated = H264Error::Truncated("the SPS's picture size");
    let out_of_range = H264Error::OutOfRange("picture size");
    let mut macroblocks = || bits.ue().ok_or(truncated).map(|less_one| less_one.saturating_add(1));
    let (columns, rows) = (macroblocks()?, macroblocks()?);
    let frame_mbs_only = bits.flag().ok_or(truncated)?;
    if columns > MAX_MACROBLOCKS || rows > MAX_MACROBLOCKS {
        return Err(out_of_range);
    }
    let fields = if frame_mbs_only { 1 } else { 2 };
    if !frame_mbs_only {
        let _adaptive = bits.flag().ok_or(truncated)?;
    }
    let _direct_8x8_inference = bits.flag().ok_or(truncated)?;
    let (mut width, mut height) = (columns * 16, rows * 16 * fields);
    if bits.flag().ok_or(truncated)? {
        // Table 6-1: samples of chroma are twice as wide or high as those of luma.
        let unit_x = if matches!(chroma_format, 1 | 2) { 2 } else { 1 };
        let unit_y = if chroma_format == 1 { 2 } else { 1 } * fields;
        let mut crop = |unit: u32| -> Result<u32, H264Error> {
            let mut side = || bits.ue().ok_or(truncated);
            let (before, after) = (side()?, side()?);
            before.checked_add(after).and_then(|sum| sum.checked_mul(unit)).ok_or(out_of_range)
        };
        let (crop_x, crop_y) = (crop(unit_x)?, crop(unit_y)?);
        width = width.checked_sub(crop_x).filter(|w| *w > 0).ok_or(out_of_range)?;
        height = height.checked_sub(crop_y).filter(|h| *h > 0).ok_or(out_of_range)?;
    }
    Ok(PictureSize { width, height, frame_mbs_only })
}

#[derive(Default)]
struct Usability {
    max_num_reorder_frames: Option<u32>,
    frames_per_second: Option<f64>,
    colour: Colour,
}

/// `vui_parameters`, §E.1.1.
fn usability(bits: &mut BitReader<'_>) -> Option<Usability> {
    const EXTENDED_SAR: u32 = 255;
    if bits.flag()? && bits.bits(8)? == EXTENDED_SAR {
        bits.skip(32)?;
    }
    if bits.flag()? {
        let _overscan_appropriate = bits.flag()?;
    }
    let mut found = Usability::default();
    if bits.flag()? {
        let _video_format = bits.bits(3)?;
        found.colour.is_full_range = bits.flag()?;
        if bits.flag()? {
            let _primaries_and_transfer = bits.bits(16)?;
            // 2 is "unspecified" (table E-5).
            found.colour.matrix = bits.byte(8).filter(|matrix| *matrix != 2);
        }
    }
    if bits.flag()? {
        let _chroma_location = (bits.ue()?, bits.ue()?);
    }
    if bits.flag()? {
        let (units_in_tick, time_scale, _fixed) = (bits.bits(32)?, bits.bits(32)?, bits.flag()?);
        if units_in_tick > 0 && time_scale > 0 {
            // A tick is the time of a field.
            found.frames_per_second = Some(f64::from(time_scale) / (2.0 * f64::from(units_in_tick)));
        }
    }
    let has_nal_rates = bits.flag()?;
    if has_nal_rates {
        skip_rates(bits)?;
    }
    let has_vcl_rates = bits.flag()?;
    if has_vcl_rates {
        skip_rates(bits)?;
    }
    if has_nal_rates || has_vcl_rates {
        let _low_delay = bits.flag()?;
    }
    let _has_picture_structure = bits.flag()?;
    if bits.flag()? {
        let _vectors_over_boundaries = bits.flag()?;
        for _ in 0..4 {
            bits.ue()?;
        }
        let (reordered, buffered) = (bits.ue()?, bits.ue()?);
        // More than what can be held at all is a mistake, §A.3.1.
        found.max_num_reorder_frames = (reordered <= buffered && buffered <= 16).then_some(reordered);
    }
    Some(found)
}

/// `hrd_parameters`, §E.1.2.
fn skip_rates(bits: &mut BitReader<'_>) -> Option<()> {
    let count = bits.ue()?;
    bits.skip(8)?;
    if count > 31 {
        return None;
    }
    for _ in 0..=count {
        let _rate_and_size = (bits.ue()?, bits.ue()?, bits.flag()?);
    }
    bits.skip(20)
}

#[cfg(test)]
#[path = "sps_tests.rs"]
mod tests;
