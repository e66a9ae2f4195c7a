//! The containers of recordings. A new one is a file beside these and a line in the two tables here.

mod flv;
mod ts;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use freshet_media::{Frame, MediaTime, TrackConfig};

use super::RecordError;
use crate::fanout::Tracks;

/// A container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RecordFormat {
    /// FLV, with Enhanced RTMP's codecs.
    Flv,
    /// MPEG-TS.
    Ts,
}

impl RecordFormat {
    /// All of them.
    pub const ALL: [RecordFormat; 2] = [RecordFormat::Flv, RecordFormat::Ts];

    /// As configuration and API write it; also the files' ending.
    pub fn name(self) -> &'static str {
        match self {
            RecordFormat::Flv => "flv",
            RecordFormat::Ts => "ts",
        }
    }

    /// Whether the container takes a track.
    pub(super) fn check(self, config: &TrackConfig) -> Result<(), RecordError> {
        match self {
            RecordFormat::Flv => flv::check(config),
            RecordFormat::Ts => ts::check(config),
        }
    }

    /// A file of these tracks, and its beginning.
    pub(super) fn begin(
        self,
        tracks: &Tracks,
        start: MediaTime,
        out: &mut Vec<u8>,
    ) -> Result<Box<dyn Container>, RecordError> {
        Ok(match self {
            RecordFormat::Flv => Box::new(flv::FlvFile::begin(tracks, start, out)),
            RecordFormat::Ts => Box::new(ts::TsFile::begin(tracks, start, out)?),
        })
    }
}

impl fmt::Display for RecordFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
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
