//! What is known of a track before its first fragment.

use std::sync::Arc;

use bytes::Bytes;
use freshet_media::h264::{self, AvcConfig};
use freshet_media::h265::HevcConfig;
use freshet_media::{AacConfig, Codec, Frame, MediaKind, Mp3Header, OpusHead, TrackConfig, VpxHeader, facts};

use super::{Fmp4Error, PICTURE_CLOCK_HZ, codec_string};

/// Opus counts at this rate.
const OPUS_CLOCK_HZ: u32 = 48_000;
/// What enhanced FLV may leave out of an `OpusHead`.
const OPUS_MAGIC: &[u8; 8] = b"OpusHead";
/// Bytes of a `VPCodecConfigurationRecord` without initialization data.
const VPX_RECORD_BYTES: usize = 8;

/// A track as the initialization segment announces it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fmp4Track {
    config: Arc<TrackConfig>,
    pub(super) clock_hz: u32,
    pub(super) shape: Shape,
    codec_string: String,
}

/// What each kind of sample entry needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Shape {
    Picture {
        width: u16,
        height: u16,
        /// The configuration box's payload.
        record: Bytes,
        /// Where frames are NAL units behind lengths.
        nal_length_bytes: Option<u8>,
    },
    Aac(AacConfig),
    Mp3(Mp3Header),
    Opus(OpusHead),
}

/// Whether MP4 can carry a track, as far as its configuration tells.
///
/// # Errors
/// It cannot; the error says why.
pub fn check_track(config: &TrackConfig) -> Result<(), Fmp4Error> {
    match Shape::new(config, None) {
        Ok(_) | Err(Fmp4Error::NotInThisFrame(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

impl Fmp4Track {
    /// The track that a frame belongs to. Of VP8, VP9 and MP3 it must be a frame that decoding can begin with, for the
    /// size of the picture and the rate of the sound are written there only.
    ///
    /// # Errors
    /// MP4 cannot carry the track, or the frame is none of those.
    pub fn new(frame: &Frame) -> Result<Fmp4Track, Fmp4Error> {
        let config = Arc::clone(&frame.config);
        let (shape, codec_string) = Shape::new(&config, Some(&frame.data))?;
        let clock_hz = match &shape {
            Shape::Picture { .. } => PICTURE_CLOCK_HZ,
            Shape::Aac(aac) => aac.sample_rate,
            Shape::Mp3(header) => header.sample_rate,
            Shape::Opus(_) => OPUS_CLOCK_HZ,
        };
        Ok(Fmp4Track { config, clock_hz, shape, codec_string })
    }

    /// The configuration that frames of the track carry.
    pub fn config(&self) -> &Arc<TrackConfig> {
        &self.config
    }

    /// Audio or video.
    pub fn kind(&self) -> MediaKind {
        self.config.kind()
    }

    /// The codec in the words of RFC 6381, as `avc1.64001F` or `mp4a.40.2`.
    pub fn codec_string(&self) -> &str {
        &self.codec_string
    }

    /// Width and height of the picture in pixels.
    pub fn size(&self) -> Option<(u16, u16)> {
        match self.shape {
            Shape::Picture { width, height, .. } => Some((width, height)),
            _ => None,
        }
    }

    /// Whether a frame with that configuration can go on in the track.
    pub fn takes(&self, config: &Arc<TrackConfig>) -> bool {
        Arc::ptr_eq(&self.config, config) || *self.config == **config
    }
}

impl Shape {
    /// With the codec's name; what only frames tell is read from `frame`.
    fn new(config: &TrackConfig, frame: Option<&[u8]>) -> Result<(Shape, String), Fmp4Error> {
        let codec = config.codec;
        let unusable = |reason: String| Fmp4Error::Config { codec, reason };
        let elsewhere = Fmp4Error::NotInThisFrame(codec);
        match codec {
            Codec::H264 => {
                let avc = AvcConfig::parse(&config.record).map_err(|e| unusable(e.to_string()))?;
                let name = codec_string::avc(&avc);
                Ok((picture(config, Some(avc.nal_length_bytes))?, name))
            }
            Codec::H265 => {
                let hevc = HevcConfig::parse(&config.record).map_err(|e| unusable(e.to_string()))?;
                let name = codec_string::hevc(&config.record).ok_or_else(|| unusable("it is truncated".to_owned()))?;
                Ok((picture(config, Some(hevc.nal_length_bytes))?, name))
            }
            Codec::Av1 => {
                let name = codec_string::av1(&config.record).ok_or_else(|| unusable("it is truncated".to_owned()))?;
                Ok((picture(config, None)?, name))
            }
            Codec::Vp8 | Codec::Vp9 => {
                let header = frame.and_then(|frame| VpxHeader::of_keyframe(codec, frame)).ok_or(elsewhere)?;
                let record = vpx_record(&config.record).unwrap_or_else(|| header.to_record());
                let four_cc = if codec == Codec::Vp8 { "vp08" } else { "vp09" };
                let name = codec_string::vpx(four_cc, &record).ok_or_else(|| unusable("it is truncated".to_owned()))?;
                let (width, height) = sides(codec, (header.width, header.height))?;
                Ok((Shape::Picture { width, height, record, nal_length_bytes: None }, name))
            }
            Codec::Aac => {
                let aac = AacConfig::parse(&config.record).map_err(|e| unusable(e.to_string()))?;
                let name = codec_string::aac(&aac);
                Ok((Shape::Aac(aac), name))
            }
            Codec::Opus => {
                let head = opus_head(&config.record).map_err(|e| unusable(e.to_string()))?;
                Ok((Shape::Opus(head), "opus".to_owned()))
            }
            Codec::Mp3 => {
                let header = frame.and_then(Mp3Header::parse).ok_or(elsewhere)?;
                Ok((Shape::Mp3(header), codec_string::mp3(&header)))
            }
            other => Err(Fmp4Error::Codec(other)),
        }
    }

    /// A frame's data as samples hold it.
    pub(super) fn sample(&self, frame: &Frame) -> Result<Bytes, Fmp4Error> {
        let codec = frame.config.codec;
        let malformed = Fmp4Error::Malformed(codec);
        if frame.data.is_empty() {
            return Err(malformed);
        }
        let Shape::Picture { nal_length_bytes: Some(length_bytes), .. } = *self else { return Ok(frame.data.clone()) };
        if lengths_add_up(&frame.data, length_bytes) {
            return Ok(frame.data.clone());
        }
        // Some encoders write start codes where lengths belong.
        let mut data = Vec::with_capacity(frame.data.len() + 16);
        let mut units = h264::units(&frame.data, length_bytes);
        for unit in units.by_ref() {
            let length =
                u32::try_from(unit.len()).ok().filter(|length| length_bytes == 4 || *length >> (8 * length_bytes) == 0);
            let length = length.ok_or_else(|| malformed.clone())?.to_be_bytes();
            data.extend_from_slice(&length[4 - usize::from(length_bytes)..]);
            data.extend_from_slice(unit);
        }
        if units.is_malformed() || data.is_empty() { Err(malformed) } else { Ok(data.into()) }
    }
}

fn picture(config: &TrackConfig, nal_length_bytes: Option<u8>) -> Result<Shape, Fmp4Error> {
    let reason = || "it says nothing of the picture's size".to_owned();
    let size = facts(config).size.ok_or_else(|| Fmp4Error::Config { codec: config.codec, reason: reason() })?;
    let (width, height) = sides(config.codec, size)?;
    Ok(Shape::Picture { width, height, record: config.record.clone(), nal_length_bytes })
}

/// Sample entries have 16 bits for each side.
fn sides(codec: Codec, (width, height): (u32, u32)) -> Result<(u16, u16), Fmp4Error> {
    match (u16::try_from(width), u16::try_from(height)) {
        (Ok(width), Ok(height)) if width > 0 && height > 0 => Ok((width, height)),
        _ => Err(Fmp4Error::Config { codec, reason: format!("pictures of {width}x{height} do not exist") }),
    }
}

/// The record without the version and flags of its box, which some writers of FLV leave in front of it.
fn vpx_record(record: &Bytes) -> Option<Bytes> {
    let start = if record.len() >= 4 + VPX_RECORD_BYTES && record.starts_with(&[1, 0, 0, 0]) { 4 } else { 0 };
    (record.len() >= start + VPX_RECORD_BYTES).then(|| record.slice(start..start + VPX_RECORD_BYTES))
}

fn opus_head(record: &[u8]) -> Result<OpusHead, freshet_media::OpusHeadError> {
    match record {
        // A track without any has what WebRTC always sends.
        [] => Ok(OpusHead::new(2)),
        _ if record.starts_with(OPUS_MAGIC) => OpusHead::parse(record),
        _ => OpusHead::parse(&[OPUS_MAGIC, record].concat()),
    }
}

/// Whether the data is units behind lengths, to its end.
fn lengths_add_up(mut data: &[u8], length_bytes: u8) -> bool {
    while !data.is_empty() {
        let Some((length, rest)) = data.split_at_checked(usize::from(length_bytes)) else { return false };
        let length = length.iter().fold(0_usize, |value, byte| value << 8 | usize::from(*byte));
        let Some(rest) = rest.get(length..) else { return false };
        data = rest;
    }
    true
}
