//! One keyframe as a JPEG: what a list of streams shows of each.
//!
//! The picture is decoded alone, made smaller by the mean of the pixels that fall together, and turned to RGB by the range
//! and the matrix that the stream tells: Chromium sends full-range BT.709 at any size. Where it tells none, limited range,
//! and BT.601 or BT.709 by its height. Does not do: other codecs than H.264, pixels that are not square, HDR.

use freshet_media::h264::{AvcConfig, Colour, Sps};
use freshet_media::{Codec, Frame};
use jpeg_encoder::{ColorType, Encoder};
use openh264::formats::YUVSource;

use super::decode::{Fit, PictureDecoder};
use crate::transcode::TranscodeError;

/// Pictures of this height and more are BT.709 (ITU-R BT.709 against BT.601): what encoders assume of HD.
const HD_HEIGHT: usize = 720;

/// Good enough that nobody sees blocks at these sizes, a fifth of the bytes of 95.
const JPEG_QUALITY: u8 = 80;

/// A decoded picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Still {
    width: usize,
    height: usize,
    /// Three bytes for each pixel.
    rgb: Vec<u8>,
}

impl Still {
    /// Decodes a keyframe. The picture is no wider than `max_width`.
    ///
    /// # Errors
    /// No H.264 of a kind that is decoded here, no keyframe, or a broken one.
    pub fn decode(keyframe: &Frame, max_width: usize) -> Result<Still, TranscodeError> {
        let codec = keyframe.config.codec;
        if codec != Codec::H264 {
            return Err(TranscodeError::UnsupportedCodec { codec });
        }
        let broken = |reason: &str| TranscodeError::BrokenFrame { codec, at: keyframe.pts, reason: reason.to_owned() };
        let avc = AvcConfig::parse(&keyframe.config.record).map_err(|error| broken(&error.to_string()))?;
        let mut sps = avc.sps.first().cloned().unwrap_or_default();
        let mut decoder = PictureDecoder::new(avc, sps.clone())?;
        if let Fit::Other(own) = decoder.fits(keyframe) {
            sps = own;
            decoder = PictureDecoder::new(decoder.avc().clone(), sps.clone())?;
        }
        let colour = Sps::parse(&sps).map(|sps| sps.colour).unwrap_or_default();
        if let Some(picture) = decoder.decode(keyframe)? {
            return Ok(Still::of(&picture, colour, max_width));
        }
        // A decoder that reorders holds the first picture back until it knows better.
        let held = decoder.drain();
        held.first()
            .map(|picture| Still::of(picture, colour, max_width))
            .ok_or_else(|| broken("no picture came out of it"))
    }

    /// Width and height in pixels.
    pub fn size(&self) -> (usize, usize) {
        (self.width, self.height)
    }

    /// Bytes that it holds in memory.
    pub fn bytes(&self) -> usize {
        self.rgb.len()
    }

    /// As a JPEG, no wider than `max_width`.
    ///
    /// # Errors
    /// The encoder refuses it, which is for pictures of more than 65,535 pixels in a row.
    pub fn to_jpeg(&self, max_width: usize) -> Result<Vec<u8>, TranscodeError> {
        let failed =
            |reason: String| TranscodeError::Encoder { codec: Codec::H264, reason: format!("as JPEG: {reason}") };
        let (width, height) = fitted((self.width, self.height), max_width);
        let smaller;
        let rgb = if (width, height) == (self.width, self.height) {
            &self.rgb
        } else {
            smaller = self.scaled(width, height);
            &smaller
        };
        let side = |pixels: usize| u16::try_from(pixels).map_err(|error| failed(error.to_string()));
        let mut jpeg = Vec::new();
        let encoder = Encoder::new(&mut jpeg, JPEG_QUALITY);
        let encoded = encoder.encode(rgb, side(width)?, side(height)?, ColorType::Rgb);
        encoded.map_err(|error| failed(error.to_string()))?;
        Ok(jpeg)
    }

    fn of(picture: &impl YUVSource, colour: Colour, max_width: usize) -> Still {
        let full = picture.dimensions();
        let (width, height) = fitted(full, max_width);
        let (y_stride, u_stride, v_stride) = picture.strides();
        let chroma = (full.0.div_ceil(2), full.1.div_ceil(2));
        let matrix = Matrix::of(colour, full.1);
        let mut rgb = Vec::with_capacity(width * height * 3);
        for row in 0..height {
            let (rows, chroma_rows) = (part(row, height, full.1), part(row, height, chroma.1));
            for column in 0..width {
                let (columns, chroma_columns) = (part(column, width, full.0), part(column, width, chroma.0));
                let y = mean(picture.y(), y_stride, columns, rows);
                let u = mean(picture.u(), u_stride, chroma_columns, chroma_rows);
                let v = mean(picture.v(), v_stride, chroma_columns, chroma_rows);
                rgb.extend_from_slice(&matrix.rgb(y, u, v));
            }
        }
        Still { width, height, rgb }
    }

    fn scaled(&self, width: usize, height: usize) -> Vec<u8> {
        let mut rgb = Vec::with_capacity(width * height * 3);
        for row in 0..height {
            for column in 0..width {
                let (columns, rows) = (part(column, width, self.width), part(row, height, self.height));
                for colour in 0..3 {
                    let (mut sum, mut count) = (0u32, 0u32);
                    for y in rows.0..rows.1 {
                        for x in columns.0..columns.1 {
                            sum += u32::from(self.rgb.get((y * self.width + x) * 3 + colour).copied().unwrap_or(0));
                            count += 1;
                        }
                    }
                    rgb.push((sum / count.max(1)) as u8);
                }
            }
        }
        rgb
    }
}

/// The size of a picture that must not be wider, in its own proportions.
fn fitted((width, height): (usize, usize), max_width: usize) -> (usize, usize) {
    if width <= max_width {
        return (width, height);
    }
    let max_width = max_width.max(1);
    (max_width, ((height * max_width + width / 2) / width).max(1))
}

/// Which of `from` pixels, first and behind the last, make the `at`-th of `to`. One at the least.
fn part(at: usize, to: usize, from: usize) -> (usize, usize) {
    let start = (at * from / to).min(from.saturating_sub(1));
    (start, ((at + 1) * from / to).max(start + 1).min(from))
}

fn mean(plane: &[u8], stride: usize, columns: (usize, usize), rows: (usize, usize)) -> u8 {
    let (mut sum, mut count) = (0u32, 0u32);
    for row in rows.0..rows.1 {
        let pixels = plane.get(row * stride + columns.0..row * stride + columns.1).unwrap_or_default();
        sum += pixels.iter().map(|pixel| u32::from(*pixel)).sum::<u32>();
        count += pixels.len() as u32;
    }
    (sum / count.max(1)) as u8
}

/// From luma and colour differences to RGB, in 1/65536.
struct Matrix {
    black: i32,
    luma: i32,
    red_v: i32,
    green_u: i32,
    green_v: i32,
    blue_u: i32,
}

impl Matrix {
    fn of(colour: Colour, height: usize) -> Matrix {
        let is_601 = match colour.matrix {
            Some(matrix) => matches!(matrix, 5 | 6),
            None => height < HD_HEIGHT,
        };
        // The weights of red and blue in luma (ITU-R BT.601-7 §2.5.1, BT.709-6 §3.2).
        let (red, blue) = if is_601 { (0.299, 0.114) } else { (0.2126, 0.0722) };
        let green = 1.0 - red - blue;
        let (luma, chroma) = if colour.is_full_range { (1.0, 1.0) } else { (255.0 / 219.0, 255.0 / 224.0) };
        let fixed = |weight: f64| (weight * 65536.0) as i32;
        Matrix {
            black: if colour.is_full_range { 0 } else { 16 },
            luma: fixed(luma),
            red_v: fixed(2.0 * (1.0 - red) * chroma),
            green_u: fixed(2.0 * blue * (1.0 - blue) / green * chroma),
            green_v: fixed(2.0 * red * (1.0 - red) / green * chroma),
            blue_u: fixed(2.0 * (1.0 - blue) * chroma),
        }
    }

    fn rgb(&self, y: u8, u: u8, v: u8) -> [u8; 3] {
        let luma = (i32::from(y) - self.black) * self.luma + 32_768;
        let (u, v) = (i32::from(u) - 128, i32::from(v) - 128);
        let clip = |value: i32| (value >> 16).clamp(0, 255) as u8;
        [clip(luma + self.red_v * v), clip(luma - self.green_u * u - self.green_v * v), clip(luma + self.blue_u * u)]
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use freshet_media::{MediaTime, TrackConfig};

    use super::*;
    use crate::transcode::testing::frames_of_flv;

    const PYRAMID: &[u8] = include_bytes!("../../../tests/data/bframes-pyramid.flv");
    /// What ffmpeg decodes of it: 60 grey pictures of 40x20.
    const PYRAMID_GREY: &[u8] = include_bytes!("../../../tests/data/bframes-pyramid.gray");

    #[test]
    fn a_keyframe_becomes_the_picture_that_ffmpeg_sees() {
        let keyframe = &frames_of_flv(PYRAMID)[0];
        let still = Still::decode(keyframe, usize::MAX).unwrap();
        let (width, height) = still.size();
        assert!(width > 40 && height > 20);
        // Luma out of red, green and blue (BT.601), back in limited range.
        let small = still.scaled(40, 20);
        let luma = |rgb: &[u8]| {
            let [r, g, b] = [rgb[0], rgb[1], rgb[2]].map(f64::from);
            16.0 + (0.299 * r + 0.587 * g + 0.114 * b) * 219.0 / 255.0
        };
        let errors = small.chunks(3).zip(PYRAMID_GREY).map(|(rgb, grey)| (luma(rgb) - f64::from(*grey)).abs());
        let mean = errors.sum::<f64>() / 800.0;
        assert!(mean < 6.0, "off by {mean}");
    }

    #[test]
    fn sizes_keep_their_proportions() {
        let keyframe = &frames_of_flv(PYRAMID)[0];
        let whole = Still::decode(keyframe, usize::MAX).unwrap();
        let (width, height) = whole.size();
        for max_width in [width * 2, width, width / 2, 37, 1] {
            let still = Still::decode(keyframe, max_width).unwrap();
            let expected = fitted((width, height), max_width);
            assert_eq!((still.size(), still.bytes()), (expected, expected.0 * expected.1 * 3));
            let jpeg = whole.to_jpeg(max_width).unwrap();
            assert_eq!(jpeg_size(&jpeg), expected, "{max_width}");
        }
    }

    /// Width and height in the frame header of a JPEG (ITU-T T.81 B.2.2).
    fn jpeg_size(jpeg: &[u8]) -> (usize, usize) {
        assert_eq!((&jpeg[..2], &jpeg[jpeg.len() - 2..]), (&[0xff, 0xd8][..], &[0xff, 0xd9][..]));
        let mut at = 2;
        while !(0xc0..=0xc2).contains(&jpeg[at + 1]) {
            at += 2 + usize::from(u16::from_be_bytes([jpeg[at + 2], jpeg[at + 3]]));
        }
        let side = |at: usize| usize::from(u16::from_be_bytes([jpeg[at], jpeg[at + 1]]));
        (side(at + 7), side(at + 5))
    }

    #[test]
    fn what_is_no_keyframe_of_h264_is_refused() {
        let frames = frames_of_flv(PYRAMID);
        let later = frames.iter().find(|frame| !frame.is_keyframe).unwrap();
        assert!(matches!(Still::decode(later, 100), Err(TranscodeError::BrokenFrame { .. })));
        let with = |codec, record: &[u8], data: &[u8]| Frame {
            config: Arc::new(TrackConfig { codec, record: Bytes::copy_from_slice(record) }),
            dts: MediaTime::default(),
            pts: MediaTime::default(),
            is_keyframe: true,
            data: Bytes::copy_from_slice(data),
        };
        let av1 = Still::decode(&with(Codec::Av1, &[], &[1]), 100);
        assert_eq!(av1, Err(TranscodeError::UnsupportedCodec { codec: Codec::Av1 }));
        let record = &frames[0].config.record;
        for data in [&[][..], &[0, 0, 0, 9, 1], &[0, 0, 0, 1, 0x65]] {
            assert!(Still::decode(&with(Codec::H264, record, data), 100).is_err(), "{data:?}");
        }
        assert!(Still::decode(&with(Codec::H264, &[], &frames[0].data), 100).is_err());
    }

    #[test]
    fn colours_are_right() {
        let colour = |is_full_range, matrix| Colour { is_full_range, matrix };
        // Black, white, and primaries.
        let (bt_601, bt_709, full) = (colour(false, Some(6)), colour(false, Some(1)), colour(true, Some(1)));
        let cases = [
            (bt_601, (16, 128, 128), [0, 0, 0]),
            (bt_601, (235, 128, 128), [255, 255, 255]),
            (bt_601, (81, 90, 240), [255, 0, 0]),
            (bt_601, (145, 54, 34), [0, 255, 0]),
            (bt_601, (41, 240, 110), [0, 0, 255]),
            (bt_709, (63, 102, 240), [255, 0, 0]),
            (bt_709, (173, 42, 26), [0, 255, 0]),
            (full, (0, 128, 128), [0, 0, 0]),
            (full, (255, 128, 128), [255, 255, 255]),
            (full, (54, 99, 255), [255, 0, 0]),
            (full, (18, 255, 116), [0, 0, 255]),
        ];
        for (colour, (y, u, v), expected) in cases {
            let rgb = Matrix::of(colour, 480).rgb(y, u, v);
            assert!(rgb.iter().zip(expected).all(|(a, b)| a.abs_diff(b) <= 3), "{colour:?}: {rgb:?} {expected:?}");
        }
        let told_nothing = |height| Matrix::of(Colour::default(), height).red_v;
        assert_eq!(told_nothing(480), Matrix::of(bt_601, 480).red_v);
        assert_eq!(told_nothing(720), Matrix::of(bt_709, 480).red_v);
    }
}
