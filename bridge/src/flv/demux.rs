//! From tags to frames.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use freshet_media::{Codec, Frame, MediaKind, MediaTime, TrackConfig};
use thiserror::Error;

use super::Tag;
use super::body::{codec_id, codec_of, frame_type, multitrack, packet_type, sound_format};
use crate::timeline::Timeline;

/// Composition times beyond this are an encoder's mistake and count as none: players would wait for them.
const MAX_COMPOSITION_MS: i64 = 10_000;

/// A decoder configuration beyond this is none. Parameter sets have some hundred bytes.
const MAX_RECORD_BYTES: usize = 64 * 1024;

/// An `OpusHead` (RFC 7845 §5.1) of two channels, for publishers that send none: WebRTC's Opus is always that.
const OPUS_HEAD: &[u8] = b"OpusHead\x01\x02\x38\x01\x80\xbb\x00\x00\x00\x00\x00";

/// Why a tag gave no frame. The stream goes on: the tag, or its track, is left out.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FlvError {
    /// A codec that Freshet does not carry. Told once per track and codec.
    #[error("unsupported codec {codec} in an RTMP {kind} tag: the stream goes on without it")]
    UnsupportedCodec {
        /// The track that is left out.
        kind: MediaKind,
        /// The codec's name, FourCC or number.
        codec: String,
    },
    /// A tag ends too early.
    #[error("{kind} tag of {length} bytes is cut off")]
    CutOff {
        /// Whose tag.
        kind: MediaKind,
        /// How long its body is.
        length: usize,
    },
    /// A decoder configuration that cannot be one.
    #[error("{codec} sequence header of {length} bytes is none")]
    BadSequenceHeader {
        /// The codec that it is for.
        codec: Codec,
        /// Its length.
        length: usize,
    },
    /// Frames came before their decoder configuration. Told once per track until it comes.
    #[error("{codec} frames came before their sequence header")]
    NoSequenceHeader {
        /// The codec of the frames.
        codec: Codec,
    },
}

/// What a tag body says once its header is understood. Offsets have been checked.
#[derive(Debug, PartialEq, Eq)]
enum Body {
    SequenceHeader {
        codec: Codec,
        record: Bytes,
    },
    Frame {
        codec: Codec,
        is_keyframe: bool,
        composition_ms: i64,
        data: Bytes,
    },
    Unsupported(String),
    /// Commands, ends of sequences, tracks other than the first, empty tags.
    Nothing,
}

#[derive(Debug, Default)]
struct Track {
    config: Option<Arc<TrackConfig>>,
    /// The last error told, so that a track's thousands of frames do not repeat it.
    told: Option<FlvError>,
}

/// One publisher's tags, or those of several publishers of a stream in turn, as frames on one timeline.
#[derive(Debug, Default)]
pub struct Demuxer {
    timeline: Timeline,
    audio: Track,
    video: Track,
}

impl Demuxer {
    /// For a stream that starts now.
    pub fn new() -> Demuxer {
        Demuxer::default()
    }

    /// For a stream that has run on this timeline already.
    pub fn with_timeline(timeline: Timeline) -> Demuxer {
        Demuxer { timeline, ..Demuxer::default() }
    }

    /// Another publisher comes, or the same one again, `gap` after the last frame.
    pub fn begin_again(&mut self, gap: Duration) {
        self.timeline.begin_again(gap);
        self.audio.told = None;
        self.video.told = None;
    }

    /// The timeline, for whoever carries the stream on.
    pub fn into_timeline(self) -> Timeline {
        self.timeline
    }

    /// The parameters of a track as far as they have come.
    pub fn config(&self, kind: MediaKind) -> Option<&Arc<TrackConfig>> {
        match kind {
            MediaKind::Audio => self.audio.config.as_ref(),
            MediaKind::Video => self.video.config.as_ref(),
        }
    }

    /// The frame in a tag, if there is one. An error leaves out this tag only, or its track from here on.
    pub fn tag(&mut self, tag: &Tag) -> Result<Option<Frame>, FlvError> {
        let parsed = match tag.kind {
            MediaKind::Audio => audio_body(&tag.body),
            MediaKind::Video => video_body(&tag.body),
        };
        let body = parsed.ok_or(FlvError::CutOff { kind: tag.kind, length: tag.body.len() })?;
        let track = match tag.kind {
            MediaKind::Audio => &mut self.audio,
            MediaKind::Video => &mut self.video,
        };
        match body {
            Body::Nothing => Ok(None),
            Body::Unsupported(codec) => track.tell_once(FlvError::UnsupportedCodec { kind: tag.kind, codec }),
            Body::SequenceHeader { codec, record } => track.configure(codec, record).map(|()| None),
            Body::Frame { codec, is_keyframe, composition_ms, data } => {
                let Some(config) = track.config_for(codec) else {
                    return track.tell_once(FlvError::NoSequenceHeader { codec });
                };
                let dts = self.timeline.place(tag.kind, tag.timestamp_ms);
                let composition_ms = if composition_ms.abs() > MAX_COMPOSITION_MS { 0 } else { composition_ms };
                let pts = MediaTime::from_micros(dts.micros() + composition_ms * 1000);
                Ok(Some(Frame { config, dts, pts, is_keyframe, data }))
            }
        }
    }
}

impl Track {
    fn tell_once(&mut self, error: FlvError) -> Result<Option<Frame>, FlvError> {
        if self.told.as_ref() == Some(&error) {
            return Ok(None);
        }
        self.told = Some(error.clone());
        Err(error)
    }

    fn configure(&mut self, codec: Codec, record: Bytes) -> Result<(), FlvError> {
        if !is_plausible(codec, &record) {
            return Err(FlvError::BadSequenceHeader { codec, length: record.len() });
        }
        self.told = None;
        // Encoders repeat the header with every keyframe; only a real change may look like one.
        if self.config.as_ref().is_none_or(|config| config.codec != codec || config.record != record) {
            // A copy of its own: the slice would keep the whole message it came in alive.
            let record = Bytes::copy_from_slice(&record);
            self.config = Some(Arc::new(TrackConfig { codec, record }));
        }
        Ok(())
    }

    fn config_for(&mut self, codec: Codec) -> Option<Arc<TrackConfig>> {
        if let Some(config) = self.config.as_ref().filter(|config| config.codec == codec) {
            return Some(Arc::clone(config));
        }
        let record = match codec {
            Codec::Mp3 | Codec::Vp8 | Codec::Vp9 => Bytes::new(),
            Codec::Opus => Bytes::from_static(OPUS_HEAD),
            _ => return None,
        };
        let config = Arc::new(TrackConfig { codec, record });
        self.config = Some(Arc::clone(&config));
        Some(config)
    }
}

/// The least that a record must be; what is in it is its decoder's affair.
fn is_plausible(codec: Codec, record: &[u8]) -> bool {
    let least = match codec {
        // ISO/IEC 14496-15 §5.3.3.1: version 1, profile, level, length size, number of SPS, number of PPS.
        Codec::H264 => return (7..=MAX_RECORD_BYTES).contains(&record.len()) && record[0] == 1,
        // §8.3.3.1: 22 bytes and the number of arrays. Drafts wrote version 0, and so do some encoders.
        Codec::H265 => 23,
        Codec::Av1 => 4,
        Codec::Aac => 2,
        // "OpusHead" may be left out by those who send the fields alone.
        Codec::Opus => 10,
        _ => 0,
    };
    (least..=MAX_RECORD_BYTES).contains(&record.len())
}

/// `None` if it is cut off.
fn video_body(body: &Bytes) -> Option<Body> {
    let mut rest = body.clone();
    let Ok(first) = rest.try_get_u8() else { return Some(Body::Nothing) };
    if first & 0x80 != 0 {
        return enhanced_video(first, rest);
    }
    let (kind, id) = (first >> 4, first & 0x0f);
    if kind == frame_type::COMMAND {
        return Some(Body::Nothing);
    }
    let codec = match id {
        codec_id::AVC => Codec::H264,
        codec_id::HEVC => Codec::H265,
        other => return Some(Body::Unsupported(legacy_video_name(other))),
    };
    let packet = rest.try_get_u8().ok()?;
    let composition_ms = composition_time(&mut rest)?;
    Some(match packet {
        packet_type::SEQUENCE_START => Body::SequenceHeader { codec, record: rest },
        packet_type::CODED_FRAMES => frame(codec, kind == frame_type::KEY, composition_ms, rest),
        _ => Body::Nothing,
    })
}

/// Enhanced RTMP, "Enhanced Video": `first` has the `IsExVideoHeader` bit.
fn enhanced_video(first: u8, mut rest: Bytes) -> Option<Body> {
    let kind = first >> 4 & 0x07;
    let packet = skip_mod_ex(first & 0x0f, &mut rest)?;
    if kind == frame_type::COMMAND && packet != packet_type::METADATA {
        return Some(Body::Nothing);
    }
    let Some((packet, four_cc, mut rest)) = first_track(packet, packet_type::VIDEO_MULTITRACK, rest)? else {
        return Some(Body::Nothing);
    };
    let codec = match codec_of(four_cc) {
        Some(codec) if codec.kind() == MediaKind::Video => codec,
        _ => return Some(Body::Unsupported(four_cc_name(four_cc))),
    };
    let composition_ms = match (packet, codec) {
        (packet_type::CODED_FRAMES, Codec::H264 | Codec::H265) => composition_time(&mut rest)?,
        _ => 0,
    };
    Some(match packet {
        packet_type::SEQUENCE_START => Body::SequenceHeader { codec, record: rest },
        packet_type::CODED_FRAMES | packet_type::CODED_FRAMES_X => {
            frame(codec, kind == frame_type::KEY, composition_ms, rest)
        }
        _ => Body::Nothing,
    })
}

/// `None` if it is cut off.
fn audio_body(body: &Bytes) -> Option<Body> {
    let mut rest = body.clone();
    let Ok(first) = rest.try_get_u8() else { return Some(Body::Nothing) };
    match first >> 4 {
        sound_format::AAC => {
            let packet = rest.try_get_u8().ok()?;
            Some(match packet {
                packet_type::SEQUENCE_START => Body::SequenceHeader { codec: Codec::Aac, record: rest },
                packet_type::CODED_FRAMES => frame(Codec::Aac, true, 0, rest),
                _ => Body::Nothing,
            })
        }
        sound_format::MP3 | sound_format::MP3_8_KHZ => Some(frame(Codec::Mp3, true, 0, rest)),
        sound_format::EX_HEADER => enhanced_audio(first & 0x0f, rest),
        other => Some(Body::Unsupported(legacy_audio_name(other))),
    }
}

/// Enhanced RTMP, "Enhanced Audio".
fn enhanced_audio(packet: u8, mut rest: Bytes) -> Option<Body> {
    let packet = skip_mod_ex(packet, &mut rest)?;
    let Some((packet, four_cc, rest)) = first_track(packet, packet_type::AUDIO_MULTITRACK, rest)? else {
        return Some(Body::Nothing);
    };
    let codec = match codec_of(four_cc) {
        Some(codec) if codec.kind() == MediaKind::Audio => codec,
        _ => return Some(Body::Unsupported(four_cc_name(four_cc))),
    };
    Some(match packet {
        packet_type::SEQUENCE_START => Body::SequenceHeader { codec, record: rest },
        packet_type::CODED_FRAMES => frame(codec, true, 0, rest),
        _ => Body::Nothing,
    })
}

fn frame(codec: Codec, is_keyframe: bool, composition_ms: i64, data: Bytes) -> Body {
    if data.is_empty() {
        return Body::Nothing;
    }
    Body::Frame { codec, is_keyframe, composition_ms, data }
}

/// Skips extensions of the header (nanosecond offsets and what may come), up to the packet type behind them.
fn skip_mod_ex(mut packet: u8, rest: &mut Bytes) -> Option<u8> {
    while packet == packet_type::MOD_EX {
        let mut length = usize::from(rest.try_get_u8().ok()?) + 1;
        if length == 256 {
            length = usize::from(rest.try_get_u16().ok()?) + 1;
        }
        skip(rest, length)?;
        packet = rest.try_get_u8().ok()? & 0x0f;
    }
    Some(packet)
}

/// The packet type, FourCC and bytes of the only track, or of that with id 0 among several; `Some(None)` if it is not
/// there.
fn first_track(packet: u8, multitrack_packet: u8, mut rest: Bytes) -> Option<Option<(u8, [u8; 4], Bytes)>> {
    if packet != multitrack_packet {
        let four_cc = get_four_cc(&mut rest)?;
        return Some(Some((packet, four_cc, rest)));
    }
    let form = rest.try_get_u8().ok()?;
    let (form, packet) = (form >> 4, form & 0x0f);
    let mut four_cc = [0; 4];
    match form {
        multitrack::ONE_TRACK | multitrack::MANY_TRACKS => four_cc = get_four_cc(&mut rest)?,
        multitrack::MANY_TRACKS_MANY_CODECS => {}
        _ => return Some(None),
    }
    while rest.has_remaining() {
        if form == multitrack::MANY_TRACKS_MANY_CODECS {
            four_cc = get_four_cc(&mut rest)?;
        }
        let id = rest.try_get_u8().ok()?;
        if form == multitrack::ONE_TRACK {
            return Some((id == 0).then_some((packet, four_cc, rest)));
        }
        let length = get_u24(&mut rest)? as usize;
        if id == 0 {
            return (length <= rest.len()).then(|| Some((packet, four_cc, rest.split_to(length))));
        }
        skip(&mut rest, length)?;
    }
    Some(None)
}

fn skip(rest: &mut Bytes, length: usize) -> Option<()> {
    if length > rest.len() {
        return None;
    }
    rest.advance(length);
    Some(())
}

fn get_four_cc(rest: &mut Bytes) -> Option<[u8; 4]> {
    rest.try_get_u32().ok().map(u32::to_be_bytes)
}

fn get_u24(rest: &mut Bytes) -> Option<u32> {
    rest.try_get_uint(3).ok().map(|value| value as u32)
}

fn composition_time(rest: &mut Bytes) -> Option<i64> {
    rest.try_get_int(3).ok()
}

fn four_cc_name(four_cc: [u8; 4]) -> String {
    format!("\"{}\"", four_cc.escape_ascii())
}

fn legacy_video_name(id: u8) -> String {
    match id {
        2 => "Sorenson H.263".to_owned(),
        3 | 6 => "Screen video".to_owned(),
        4 | 5 => "On2 VP6".to_owned(),
        other => format!("number {other}"),
    }
}

fn legacy_audio_name(format: u8) -> String {
    match format {
        0 | 3 => "PCM".to_owned(),
        1 => "ADPCM".to_owned(),
        4..=6 => "Nellymoser".to_owned(),
        7 => "G.711 A-law".to_owned(),
        8 => "G.711 µ-law".to_owned(),
        11 => "Speex".to_owned(),
        other => format!("number {other}"),
    }
}

#[cfg(test)]
#[path = "demux_tests.rs"]
mod tests;
