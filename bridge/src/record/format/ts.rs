//! MPEG-TS files (ISO/IEC 13818-1). Tables stand at the beginning and before every keyframe, so that a player may
//! start anywhere. A track whose parameters change needs nothing new: pictures bring theirs along, sound its headers.

use std::time::Duration;

use freshet_media::{Codec, Frame, MediaKind, MediaTime, TrackConfig};

use super::{Container, Patch, RecordError, RecordFormat, Start, shifted};
use crate::ts::{self, TsError, TsMuxer};

fn refused(codec: Codec, error: TsError) -> RecordError {
    match error {
        TsError::Codec(codec) => RecordError::Codec { codec, format: RecordFormat::Ts },
        other => RecordError::Refused { codec, format: RecordFormat::Ts, reason: other.to_string() },
    }
}

pub(super) fn check(config: &TrackConfig) -> Result<(), RecordError> {
    ts::check_track(config).map_err(|error| refused(config.codec, error))
}

#[derive(Debug)]
pub(super) struct TsFile {
    start: MediaTime,
    muxer: TsMuxer,
    /// Tables have just been written.
    is_introduced: bool,
}

impl TsFile {
    pub(super) fn begin(start: &Start<'_>, out: &mut Vec<u8>) -> Result<TsFile, RecordError> {
        let mut muxer = TsMuxer::new();
        let [audio, video] = start.configs();
        let codec = video.or(audio).map_or(Codec::H264, |config| config.codec);
        muxer.set_tracks(audio, video).map_err(|error| refused(codec, error))?;
        muxer.write_tables(out);
        Ok(TsFile { start: start.at, muxer, is_introduced: true })
    }
}

impl Container for TsFile {
    fn takes_change(&self, old: &TrackConfig, new: &TrackConfig) -> bool {
        old.codec == new.codec
    }

    fn write(&mut self, frame: &Frame, out: &mut Vec<u8>) -> Result<(), RecordError> {
        let frame = shifted(frame, self.start);
        if frame.kind() == MediaKind::Video && frame.is_keyframe && !self.is_introduced {
            self.muxer.write_tables(out);
        }
        self.is_introduced = false;
        self.muxer.write_frame(&frame, out).map_err(|error| refused(frame.config.codec, error))
    }

    fn finish(&mut self, _duration: Duration, _written: u64, _out: &mut Vec<u8>) -> Vec<Patch> {
        Vec::new()
    }
}
