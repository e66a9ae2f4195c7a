//! The encoding half: pictures to Constrained Baseline.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use freshet_media::h264::{AvcConfig, nal, nal_type};
use freshet_media::{Codec, Frame, MediaTime, TrackConfig};
use openh264::OpenH264API;
use openh264::encoder::{
    BitRate, Complexity, Encoder, EncoderConfig, FrameRate, FrameType, Profile, RateControlMode, SpsPpsStrategy,
    UsageType,
};
use openh264::formats::YUVSource;

use super::rate::Measured;
use crate::transcode::TranscodeError;

/// Baseline has neither B-frames nor CABAC, which save about this much at the same quality.
const BASELINE_SURCHARGE: f64 = 1.2;
/// The bit rate before the source's is known, per pixel and second at 30 pictures per second: 2.8 Mbit/s for 720p.
const GUESSED_BITS_PER_PIXEL: f64 = 0.1;
const GUESSED_PICTURES_PER_SECOND: f64 = 30.0;
/// Below, pictures fall apart; above, no viewer's link is meant.
const BITRATES_BPS: std::ops::RangeInclusive<f64> = 100_000.0..=40_000_000.0;
const PICTURES_PER_SECOND: std::ops::RangeInclusive<f64> = 1.0..=120.0;
/// A source that differs by more from what the encoder was set to is worth a new encoder.
const TOLERANCE: f64 = 0.3;

/// An encoder set to one size and one rate.
pub(super) struct PictureEncoder {
    encoder: Encoder,
    /// The size in pixels.
    size: (usize, usize),
    set_to: Measured,
    config: Option<Arc<TrackConfig>>,
}

impl PictureEncoder {
    /// `measured` is what the source is like, if that is known yet.
    pub(super) fn new(
        size: (usize, usize),
        measured: Option<Measured>,
        threads: u16,
    ) -> Result<PictureEncoder, TranscodeError> {
        let set_to = settings(size, measured);
        let config = EncoderConfig::new()
            .profile(Profile::Baseline)
            .usage_type(UsageType::CameraVideoRealTime)
            .complexity(Complexity::Low)
            .rate_control_mode(RateControlMode::Bitrate)
            .bitrate(BitRate::from_bps(set_to.bitrate_bps as u32))
            .max_frame_rate(FrameRate::from_hz(set_to.pictures_per_second as f32))
            // As many pictures out as in; too many bits are better than a stutter.
            .skip_frames(false)
            // Keyframes come where the source has them and where a viewer asks.
            .scene_change_detect(false)
            .background_detection(false)
            .adaptive_quantization(false)
            .long_term_reference(false)
            .sps_pps_strategy(SpsPpsStrategy::ConstantId)
            .num_threads(threads);
        let encoder = Encoder::with_api_config(OpenH264API::from_source(), config).map_err(failed)?;
        Ok(PictureEncoder { encoder, size, set_to, config: None })
    }

    /// Whether it was set to what the source is like, or nearly.
    pub(super) fn fits(&self, size: (usize, usize), measured: Option<Measured>) -> bool {
        if size != self.size {
            return false;
        }
        let Some(measured) = measured else { return true };
        let wanted = settings(size, Some(measured));
        let is_near = |a: f64, b: f64| (a / b - 1.0).abs() <= TOLERANCE;
        is_near(wanted.bitrate_bps, self.set_to.bitrate_bps)
            && is_near(wanted.pictures_per_second, self.set_to.pictures_per_second)
    }

    /// Encodes a picture. `None` if the encoder made nothing of it.
    pub(super) fn encode(
        &mut self,
        picture: &impl YUVSource,
        pts: MediaTime,
        as_keyframe: bool,
    ) -> Result<Option<Frame>, TranscodeError> {
        if as_keyframe {
            self.encoder.force_intra_frame();
        }
        let millis = u64::try_from(pts.millis()).unwrap_or(0);
        let coded = self.encoder.encode_at(picture, openh264::Timestamp::from_millis(millis)).map_err(failed)?;
        let is_keyframe = match coded.frame_type() {
            FrameType::IDR => true,
            FrameType::Skip | FrameType::Invalid => return Ok(None),
            FrameType::I | FrameType::P | FrameType::IPMixed => false,
        };
        let mut data = BytesMut::new();
        let (mut sps, mut pps) = (Vec::new(), Vec::new());
        for layer in (0..coded.num_layers()).filter_map(|i| coded.layer(i)) {
            for unit in (0..layer.nal_count()).filter_map(|i| layer.nal_unit(i)) {
                let unit = without_start_code(unit);
                match nal_type(unit) {
                    nal::SPS => sps.push(Bytes::copy_from_slice(unit)),
                    nal::PPS => pps.push(Bytes::copy_from_slice(unit)),
                    _ => {
                        data.put_u32(unit.len() as u32);
                        data.put_slice(unit);
                    }
                }
            }
        }
        if !sps.is_empty() {
            self.take_parameter_sets(sps, pps)?;
        }
        let Some(config) = &self.config else { return Ok(None) };
        let config = Arc::clone(config);
        Ok(Some(Frame { config, dts: pts, pts, is_keyframe, data: data.freeze() }))
    }

    /// Carries on the parameters of an encoder that this one takes over from, if they stay the same.
    pub(super) fn succeed(&mut self, other: &PictureEncoder) {
        self.config = other.config.clone();
    }

    fn take_parameter_sets(&mut self, sps: Vec<Bytes>, pps: Vec<Bytes>) -> Result<(), TranscodeError> {
        let record = AvcConfig::from_parameter_sets(sps, pps)
            .map_err(|error| TranscodeError::Encoder { codec: Codec::H264, reason: error.to_string() })?
            .to_record();
        let config = TrackConfig { codec: Codec::H264, record };
        if self.config.as_deref() != Some(&config) {
            self.config = Some(Arc::new(config));
        }
        Ok(())
    }
}

fn settings(size: (usize, usize), measured: Option<Measured>) -> Measured {
    let pixels = size.0 as f64 * size.1 as f64;
    let wanted = match measured {
        Some(source) => Measured { bitrate_bps: source.bitrate_bps * BASELINE_SURCHARGE, ..source },
        None => Measured {
            bitrate_bps: pixels * GUESSED_PICTURES_PER_SECOND * GUESSED_BITS_PER_PIXEL,
            pictures_per_second: GUESSED_PICTURES_PER_SECOND,
        },
    };
    Measured {
        bitrate_bps: wanted.bitrate_bps.clamp(*BITRATES_BPS.start(), *BITRATES_BPS.end()),
        pictures_per_second: wanted.pictures_per_second.clamp(*PICTURES_PER_SECOND.start(), *PICTURES_PER_SECOND.end()),
    }
}

fn without_start_code(unit: &[u8]) -> &[u8] {
    let zeros = unit.iter().take_while(|byte| **byte == 0).count();
    if zeros >= 2 && unit.get(zeros) == Some(&1) { &unit[zeros + 1..] } else { unit }
}

fn failed(error: openh264::Error) -> TranscodeError {
    TranscodeError::Encoder { codec: Codec::H264, reason: error.to_string() }
}
