//! FLV files (Adobe FLV 10.1, annex E; Enhanced RTMP v2 for newer codecs).
//!
//! A track whose parameters change gets another sequence header in mid-file. The metadata's `duration` and `filesize`
//! are 0 until the file is closed.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use freshet_media::{Frame, MediaKind, MediaTime, TrackConfig};

use super::{Container, Patch, RecordError, RecordFormat, Start, same, shifted};
use crate::flv::{self, TagType, flv_header, flv_tag};

pub(super) fn check(config: &TrackConfig) -> Result<(), RecordError> {
    match flv::can_carry(config.codec) {
        true => Ok(()),
        false => Err(RecordError::Codec { codec: config.codec, format: RecordFormat::Flv }),
    }
}

#[derive(Debug)]
pub(super) struct FlvFile {
    start: MediaTime,
    /// What the last sequence headers told.
    audio: Option<Arc<TrackConfig>>,
    video: Option<Arc<TrackConfig>>,
    /// Where the numbers are that are known at the end.
    duration_at: u64,
    size_at: u64,
}

impl FlvFile {
    pub(super) fn begin(start: &Start<'_>, out: &mut Vec<u8>) -> FlvFile {
        let begun_at = out.len();
        out.extend_from_slice(&flv_header(start.audio.is_some(), start.video.is_some()));
        let described = flv::describe_file(start.configs().into_iter().flatten().map(AsRef::as_ref));
        // The offsets are those of the script data, which stands behind the tag's header.
        let script_at = (out.len() - begun_at + flv::TAG_HEADER_BYTES) as u64;
        out.extend_from_slice(&flv_tag(TagType::Script, 0, &[], &described.script));
        FlvFile {
            start: start.at,
            audio: None,
            video: None,
            duration_at: script_at + described.duration_at as u64,
            size_at: script_at + described.size_at as u64,
        }
    }
}

impl Container for FlvFile {
    fn takes_change(&self, old: &TrackConfig, new: &TrackConfig) -> bool {
        old.codec == new.codec
    }

    fn write(&mut self, frame: &Frame, out: &mut Vec<u8>) -> Result<(), RecordError> {
        let frame = shifted(frame, self.start);
        let kind = TagType::from(frame.kind());
        // Milliseconds modulo 2^32; files end long before that.
        let at_ms = frame.dts.millis() as u32;
        let known = match frame.kind() {
            MediaKind::Audio => &mut self.audio,
            MediaKind::Video => &mut self.video,
        };
        if !same(known.as_ref(), &frame.config) {
            *known = Some(Arc::clone(&frame.config));
            if let Some(header) = flv::sequence_header(&frame.config) {
                out.extend_from_slice(&flv_tag(kind, at_ms, &[], &header));
            }
        }
        let codec = frame.config.codec;
        let body = flv::tag_body(&frame).ok_or(RecordError::Codec { codec, format: RecordFormat::Flv })?;
        out.extend_from_slice(&flv_tag(kind, at_ms, body.header(), &body.data));
        Ok(())
    }

    fn finish(&mut self, duration: Duration, written: u64, out: &mut Vec<u8>) -> Vec<Patch> {
        let number = |offset, value: f64| Patch { offset, data: Bytes::copy_from_slice(&value.to_be_bytes()) };
        let size = written + out.len() as u64;
        vec![number(self.duration_at, duration.as_secs_f64()), number(self.size_at, size as f64)]
    }
}
