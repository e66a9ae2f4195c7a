//! Frames as the elementary streams of MPEG-TS: NAL units behind start codes, AAC behind ADTS headers.

use bytes::Bytes;
use freshet_media::h264::{self, AvcConfig, units};
use freshet_media::h265::{self, HevcConfig};
use freshet_media::{AacConfig, Codec, Frame, TrackConfig};

use super::TsError;
use super::tables::StreamType;

const START_CODE: [u8; 4] = [0, 0, 0, 1];
/// An access unit delimiter that allows all slice types (H.264 §7.3.2.4).
const H264_DELIMITER: [u8; 2] = [0x09, 0xf0];
/// The same of H.265 (§7.3.2.5), layer 0, temporal id 0.
const H265_DELIMITER: [u8; 3] = [0x46, 0x01, 0x50];
/// The type of the latter.
const H265_AUD: u8 = 35;
/// Longest PES packet of sound: its length has 16 bits, its header 13 bytes of that.
const MAX_SOUND_BYTES: usize = u16::MAX as usize - 13;

/// What is done to the frames of a track.
#[derive(Debug)]
pub(super) enum Elementary {
    H264 { nal_length_bytes: u8, parameter_sets: Vec<Bytes> },
    H265 { nal_length_bytes: u8, parameter_sets: Vec<Bytes> },
    Aac(AacConfig),
    Mp3,
}

impl Elementary {
    pub(super) fn new(config: &TrackConfig) -> Result<Elementary, TsError> {
        let codec = config.codec;
        let unusable = |reason: String| TsError::Config { codec, reason };
        match codec {
            Codec::H264 => {
                let avc = AvcConfig::parse(&config.record).map_err(|e| unusable(e.to_string()))?;
                let parameter_sets = [avc.sps, avc.pps].concat();
                Ok(Elementary::H264 { nal_length_bytes: avc.nal_length_bytes, parameter_sets })
            }
            Codec::H265 => {
                let HevcConfig { nal_length_bytes, parameter_sets } =
                    HevcConfig::parse(&config.record).map_err(|e| unusable(e.to_string()))?;
                Ok(Elementary::H265 { nal_length_bytes, parameter_sets })
            }
            Codec::Aac => {
                let aac = AacConfig::parse(&config.record).map_err(|e| unusable(e.to_string()))?;
                match aac.adts_header(0) {
                    Some(_) => Ok(Elementary::Aac(aac)),
                    None => Err(unusable("ADTS headers cannot express it".to_owned())),
                }
            }
            Codec::Mp3 => Ok(Elementary::Mp3),
            other => Err(TsError::Codec(other)),
        }
    }

    pub(super) fn stream_type(&self) -> StreamType {
        let (number, registration) = match self {
            Elementary::H264 { .. } => (0x1b, None),
            Elementary::H265 { .. } => (0x24, Some(*b"HEVC")),
            Elementary::Aac(_) => (0x0f, None),
            Elementary::Mp3 => (0x03, None),
        };
        StreamType { number, registration }
    }

    /// Appends a frame's access unit.
    pub(super) fn push(&self, frame: &Frame, unit: &mut Vec<u8>) -> Result<(), TsError> {
        match self {
            Elementary::H264 { nal_length_bytes, parameter_sets } => {
                let rules = NalRules {
                    kind: h264::nal_type,
                    delimiter: h264::nal::AUD,
                    own_delimiter: &H264_DELIMITER,
                    parameters: &[h264::nal::SPS, h264::nal::PPS],
                };
                push_picture(frame, *nal_length_bytes, parameter_sets, &rules, unit)
            }
            Elementary::H265 { nal_length_bytes, parameter_sets } => {
                let rules = NalRules {
                    kind: h265::nal_type,
                    delimiter: H265_AUD,
                    own_delimiter: &H265_DELIMITER,
                    parameters: &[h265::nal::VPS, h265::nal::SPS, h265::nal::PPS],
                };
                push_picture(frame, *nal_length_bytes, parameter_sets, &rules, unit)
            }
            Elementary::Aac(config) => {
                let header = config.adts_header(frame.data.len()).ok_or(TsError::TooLarge(frame.data.len()))?;
                if frame.data.is_empty() {
                    return Err(TsError::Malformed(Codec::Aac));
                }
                unit.extend(header);
                unit.extend_from_slice(&frame.data);
                Ok(())
            }
            Elementary::Mp3 => {
                if frame.data.is_empty() {
                    return Err(TsError::Malformed(Codec::Mp3));
                }
                if frame.data.len() > MAX_SOUND_BYTES {
                    return Err(TsError::TooLarge(frame.data.len()));
                }
                unit.extend_from_slice(&frame.data);
                Ok(())
            }
        }
    }
}

/// Where H.264 and H.265 differ.
struct NalRules<'a> {
    kind: fn(&[u8]) -> u8,
    delimiter: u8,
    own_delimiter: &'a [u8],
    /// Types of the parameter sets.
    parameters: &'a [u8],
}

/// A delimiter (which §2.14.1 of ISO/IEC 13818-1 requires), the parameter sets of a keyframe unless it brings its own,
/// and the units.
fn push_picture(
    frame: &Frame,
    nal_length_bytes: u8,
    parameter_sets: &[Bytes],
    rules: &NalRules<'_>,
    out: &mut Vec<u8>,
) -> Result<(), TsError> {
    let malformed = TsError::Malformed(frame.config.codec);
    let start = out.len();
    push_unit(out, rules.own_delimiter);
    if frame.is_keyframe {
        let brings = |kind: &u8| units(&frame.data, nal_length_bytes).any(|unit| (rules.kind)(unit) == *kind);
        if !rules.parameters.iter().all(brings) {
            parameter_sets.iter().for_each(|unit| push_unit(out, unit));
        }
    }
    let before = out.len();
    let mut units = units(&frame.data, nal_length_bytes);
    for unit in units.by_ref().filter(|unit| (rules.kind)(unit) != rules.delimiter) {
        push_unit(out, unit);
    }
    if units.is_malformed() || out.len() == before {
        out.truncate(start);
        return Err(malformed);
    }
    Ok(())
}

fn push_unit(out: &mut Vec<u8>, unit: &[u8]) {
    out.extend(START_CODE);
    out.extend_from_slice(unit);
}
