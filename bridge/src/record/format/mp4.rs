//! Fragmented MP4 files (ISO/IEC 14496-12): the initialization segment, then fragments of up to two seconds, each of
//! which can be played once it is written. A file that is cut off anywhere loses no more than its last fragment.
//!
//! A track whose parameters change needs another file.

use std::time::Duration;

use freshet_media::{Codec, Frame, MediaKind, MediaTime, TrackConfig};

use super::{Container, Patch, RecordError, RecordFormat, Start};
use crate::fmp4::{self, Fmp4Error, Fmp4Muxer, Fmp4Track};

/// A keyframe ends a fragment that is at least so long.
const MIN_FRAGMENT: Duration = Duration::from_millis(900);
/// Any frame ends one that is so long: keyframes may be far apart.
const MAX_FRAGMENT: Duration = Duration::from_secs(2);

fn refused(codec: Codec, error: Fmp4Error) -> RecordError {
    match error {
        Fmp4Error::Codec(codec) => RecordError::Codec { codec, format: RecordFormat::Mp4 },
        other => RecordError::Refused { codec, format: RecordFormat::Mp4, reason: other.to_string() },
    }
}

pub(super) fn check(config: &TrackConfig) -> Result<(), RecordError> {
    fmp4::check_track(config).map_err(|error| refused(config.codec, error))
}

#[derive(Debug)]
pub(super) struct Mp4File {
    muxer: Fmp4Muxer,
    has_pictures: bool,
    fragment_start: MediaTime,
}

impl Mp4File {
    pub(super) fn begin(start: &Start<'_>, out: &mut Vec<u8>) -> Result<Mp4File, RecordError> {
        let track = |frame: Option<&Frame>| {
            let made = frame.map(|frame| Fmp4Track::new(frame).map_err(|error| refused(frame.config.codec, error)));
            made.transpose()
        };
        let (audio, video) = (track(start.audio)?, track(start.video)?);
        let mut muxer = Fmp4Muxer::new();
        muxer.set_origin(start.at);
        muxer.set_tracks(audio.as_ref(), video.as_ref());
        out.extend_from_slice(&muxer.init_segment());
        Ok(Mp4File { muxer, has_pictures: video.is_some(), fragment_start: start.at })
    }
}

impl Container for Mp4File {
    fn takes_change(&self, _old: &TrackConfig, _new: &TrackConfig) -> bool {
        false
    }

    fn comes_in_fragments(&self) -> bool {
        true
    }

    fn write(&mut self, frame: &Frame, out: &mut Vec<u8>) -> Result<(), RecordError> {
        let codec = frame.config.codec;
        let mut pushed = self.muxer.push(frame);
        if matches!(pushed, Err(Fmp4Error::Full { .. })) {
            self.muxer.flush(None, out);
            self.fragment_start = frame.dts;
            pushed = self.muxer.push(frame);
        }
        pushed.map_err(|error| refused(codec, error))?;
        let age = frame.dts.since(self.fragment_start);
        let is_picture = frame.kind() == MediaKind::Video;
        let leads = is_picture || !self.has_pictures;
        let is_entry = is_picture && frame.is_keyframe;
        // The frame waits already, so that the one before it lasts until it, to the microsecond. Sound ends a fragment
        // only where pictures fail to.
        let is_due = (is_entry && age >= MIN_FRAGMENT) || (leads && age >= MAX_FRAGMENT) || age >= 2 * MAX_FRAGMENT;
        if is_due {
            self.muxer.flush(Some(frame.dts), out);
            self.fragment_start = frame.dts;
        }
        Ok(())
    }

    fn finish(&mut self, _duration: Duration, _written: u64, out: &mut Vec<u8>) -> Vec<Patch> {
        self.muxer.flush(None, out);
        Vec::new()
    }
}
