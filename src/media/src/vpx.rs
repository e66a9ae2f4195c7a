//! What the header of a VP8 or VP9 keyframe says; and the `VPCodecConfigurationRecord` of the "VP Codec ISO Media File
//! Format Binding", §"VP Codec Configuration Box", which says the same but for the size.

use bytes::Bytes;

use crate::Codec;
use crate::bits::BitReader;

/// What the header of a keyframe says of the pictures that follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VpxHeader {
    profile: u8,
    bit_depth: u8,
    /// 0 and 1 for 4:2:0, 2 for 4:2:2, 3 for 4:4:4.
    chroma: u8,
    is_full_range: bool,
    /// `matrixCoefficients` of ISO/IEC 23091-4, 2 if nothing is said.
    matrix: u8,
    /// Width of the picture, in pixels.
    pub width: u32,
    /// Height of the picture, in pixels.
    pub height: u32,
}

impl VpxHeader {
    /// The header of a keyframe of that codec. `None` of anything else.
    pub fn of_keyframe(codec: Codec, frame: &[u8]) -> Option<VpxHeader> {
        match codec {
            Codec::Vp8 => VpxHeader::of_vp8(frame),
            Codec::Vp9 => VpxHeader::of_vp9(frame),
            _ => None,
        }
    }

    /// The record, without the version and flags of the box.
    pub fn to_record(self) -> Bytes {
        const UNSPECIFIED: u8 = 2;
        let sampling = self.bit_depth << 4 | self.chroma << 1 | u8::from(self.is_full_range);
        let head = [self.profile, self.level(), sampling, UNSPECIFIED, UNSPECIFIED, self.matrix, 0, 0];
        Bytes::copy_from_slice(&head)
    }

    /// The lowest level (VP9 levels, Annex A) whose pictures are large enough. The rate of pictures is not known here; 60
    /// a second are assumed from 720p on, as the table pairs them.
    fn level(&self) -> u8 {
        const LARGEST_PICTURES: [(u64, u8); 9] = [
            (36_864, 10),
            (73_728, 11),
            (122_880, 20),
            (245_760, 21),
            (552_960, 30),
            (983_040, 31),
            (2_228_224, 41),
            (8_912_896, 51),
            (35_651_584, 61),
        ];
        let samples = u64::from(self.width) * u64::from(self.height);
        LARGEST_PICTURES.iter().find(|(largest, _)| samples <= *largest).map_or(62, |(_, level)| *level)
    }

    /// RFC 6386 §9.1. `None` unless it is a keyframe's.
    pub(crate) fn of_vp8(frame: &[u8]) -> Option<VpxHeader> {
        let [tag, _, _, 0x9d, 0x01, 0x2a, w0, w1, h0, h1, ..] = frame else { return None };
        if tag & 1 != 0 {
            return None;
        }
        let size = |low: u8, high: u8| u32::from(u16::from_le_bytes([low, high]) & 0x3fff);
        Some(VpxHeader {
            profile: tag >> 1 & 7,
            bit_depth: 8,
            chroma: 1,
            is_full_range: false,
            matrix: 2,
            width: size(*w0, *w1),
            height: size(*h0, *h1),
        })
    }

    /// VP9 bitstream specification §6.2, `uncompressed_header`. `None` unless it is a keyframe's.
    pub(crate) fn of_vp9(frame: &[u8]) -> Option<VpxHeader> {
        const RGB: u32 = 7;
        let mut bits = BitReader::new(frame);
        let marker = bits.bits(2)?;
        let profile = bits.byte(1)? | bits.byte(1)? << 1;
        let reserved = profile == 3 && bits.flag()?;
        let (shows_existing, is_inter) = (bits.flag()?, bits.flag()?);
        if marker != 2 || reserved || shows_existing || is_inter {
            return None;
        }
        let _shown_and_resilient = bits.bits(2)?;
        if bits.bits(24)? != 0x49_8342 {
            return None;
        }
        let bit_depth = if profile < 2 {
            8
        } else if bits.flag()? {
            12
        } else {
            10
        };
        let space = bits.bits(3)?;
        let (mut is_full_range, mut chroma) = (true, 3);
        if space != RGB {
            is_full_range = bits.flag()?;
            chroma = if profile & 1 == 0 { 1 } else { Self::vp9_chroma(&mut bits)? };
        } else if profile & 1 == 1 {
            bits.skip(1)?;
        }
        let (width, height) = (bits.bits(16)? + 1, bits.bits(16)? + 1);
        // `color_space`, §7.2.2, in the numbers of ISO/IEC 23091-4.
        let matrix = [2, 6, 1, 6, 7, 9, 2, 0][space as usize & 7];
        Some(VpxHeader { profile, bit_depth, chroma, is_full_range, matrix, width, height })
    }

    fn vp9_chroma(bits: &mut BitReader<'_>) -> Option<u8> {
        let (horizontal, vertical) = (bits.flag()?, bits.flag()?);
        bits.skip(1)?;
        // 4:4:0 has no number of its own.
        Some(if horizontal && !vertical { 2 } else { 3 })
    }
}
