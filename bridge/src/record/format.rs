//! The containers of recordings. A new one is a file beside these and a line in the two tables here.

mod flv;
mod mp4;
mod ts;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use freshet_media::{Frame, MediaTime, TrackConfig};

use super::RecordError;

/// A container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RecordFormat {
    /// Fragmented MP4.
    Mp4,
    /// FLV, with Enhanced RTMP's codecs.
    Flv,
    /// MPEG-TS.
    Ts,
}

impl RecordFormat {
    /// All of them.
    pub const ALL: [RecordFormat; 3] = [RecordFormat::Mp4, RecordFormat::Flv, RecordFormat::Ts];

    /// As configuration and API write it; also the files' ending.
    pub fn name(self) -> &'static str {
        match self {
            RecordFormat::Mp4 => "mp4",
            RecordFormat::Flv => "flv",
            RecordFormat::Ts => "ts",
        }
    }

    /// Whether the container takes a track.
    pub(super) fn check(self, config: &TrackConfig) -> Result<(), RecordError> {
        match self {
            RecordFormat::Mp4 => mp4::check(config),
            RecordFormat::Flv => flv::check(config),
            RecordFormat::Ts => ts::check(config),
        }
    }

    /// A file, and its beginning.
    pub(super) fn begin(self, start: &Start<'_>, out: &mut Vec<u8>) -> Result<Box<dyn Container>, RecordError> {
        Ok(match self {
            RecordFormat::Mp4 => Box::new(mp4::Mp4File::begin(start, out)?),
            RecordFormat::Flv => Box::new(flv::FlvFile::begin(start, out)),
            RecordFormat::Ts => Box::new(ts::TsFile::begin(start, out)?),
        })
    }
}

impl fmt::Display for RecordFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a file begins with.
#[derive(Debug)]
pub(super) struct Start<'a> {
    /// The decoding time that becomes 0.
    pub(super) at: MediaTime,
    /// A frame of the sound, if there is any.
    pub(super) audio: Option<&'a Frame>,
    /// The keyframe that the picture begins with, if there is one.
    pub(super) video: Option<&'a Frame>,
}

impl Start<'_> {
    fn configs(&self) -> [Option<&Arc<TrackConfig>>; 2] {
        [self.audio, self.video].map(|frame| frame.map(|frame| &frame.config))
    }
}

/// Bytes that replace others of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Patch {
    pub(super) offset: u64,
    pub(super) data: Bytes,
}

/// One file that is being written. Bytes are appended to `out` whenever there are enough of them.
pub(super) trait Container: fmt::Debug + Send + Sync {
    /// Whether the file can go on when a track's parameters become others.
    fn takes_change(&self, old: &TrackConfig, new: &TrackConfig) -> bool;

    /// Whether bytes come in pieces that should be written at once, rather than be gathered first.
    fn comes_in_fragments(&self) -> bool {
        false
    }

    /// Takes a frame of an announced track.
    fn write(&mut self, frame: &Frame, out: &mut Vec<u8>) -> Result<(), RecordError>;

    /// Ends the file. `written`: bytes of it before `out`.
    fn finish(&mut self, duration: Duration, written: u64, out: &mut Vec<u8>) -> Vec<Patch>;
}

/// A frame at its time in a file that began at `start`.
fn shifted(frame: &Frame, start: MediaTime) -> Frame {
    let shift = |at: MediaTime| MediaTime::from_micros(at.micros().saturating_sub(start.micros()));
    Frame { dts: shift(frame.dts), pts: shift(frame.pts), ..frame.clone() }
}

fn same(known: Option<&Arc<TrackConfig>>, config: &Arc<TrackConfig>) -> bool {
    known.is_some_and(|known| Arc::ptr_eq(known, config) || **known == **config)
}
