//! Segments of MPEG-TS.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use freshet_media::{Frame, TrackConfig};
use tracing::debug;

use super::cutter::{Closing, Cutter, Opening, SegmentWriter};
use super::encryption::Encryption;
use super::playlist::{Playlist, Segment};
use super::{HlsOptions, whole_seconds_above};
use crate::ts::{self, TsError, TsMuxer};

/// Cuts one stream into segments of MPEG-TS.
pub type Segmenter = Cutter<TsWriter>;

impl Segmenter {
    /// Of a stream whose first segment will have that number. A number that no earlier segment of the same name has
    /// had keeps caches from mixing them up.
    pub fn new(options: HlsOptions, first_sequence: u64) -> Segmenter {
        let target_seconds = whole_seconds_above(options.reap_after());
        let playlist = Playlist::new(options.window, first_sequence, target_seconds);
        Cutter::with_writer(options, TsWriter { muxer: TsMuxer::new(), open: None, playlist })
    }

    /// Encrypts all segments.
    #[must_use]
    pub fn with_encryption(mut self, encryption: Encryption) -> Segmenter {
        self.writer_mut().playlist.encrypt(encryption);
        self
    }
}

/// The segment that is being written.
#[derive(Debug)]
struct Open {
    starts_at: SystemTime,
    is_discontinuous: bool,
    data: Vec<u8>,
}

/// Writes segments of MPEG-TS.
#[derive(Debug)]
pub struct TsWriter {
    muxer: TsMuxer,
    open: Option<Open>,
    playlist: Playlist,
}

impl SegmentWriter for TsWriter {
    type Track = Arc<TrackConfig>;
    type Error = TsError;
    type Playlist = Playlist;

    fn track(frame: &Frame) -> Result<Option<Arc<TrackConfig>>, TsError> {
        ts::check_track(&frame.config).map(|()| Some(Arc::clone(&frame.config)))
    }

    fn begin(&mut self, opening: Opening<Arc<TrackConfig>>) -> Result<(), TsError> {
        self.muxer.set_tracks(opening.audio.as_ref(), opening.video.as_ref())?;
        let mut data = Vec::new();
        self.muxer.write_tables(&mut data);
        let Opening { starts_at, is_discontinuous, .. } = opening;
        self.open = Some(Open { starts_at, is_discontinuous, data });
        Ok(())
    }

    fn write(&mut self, frame: &Frame) -> Result<(), TsError> {
        match &mut self.open {
            Some(open) => self.muxer.write_frame(frame, &mut open.data),
            None => Ok(()),
        }
    }

    fn open_bytes(&self) -> usize {
        self.open.as_ref().map_or(0, |open| open.data.len())
    }

    fn end(&mut self, closing: &Closing) {
        let Some(mut open) = self.open.take() else { return };
        debug!(seconds = closing.duration.as_secs_f32(), bytes = open.data.len(), "segment closed");
        open.data.shrink_to_fit();
        self.playlist.push(Segment {
            sequence: 0,
            duration: closing.duration,
            starts_at: open.starts_at,
            is_discontinuous: open.is_discontinuous,
            is_independent: closing.is_independent,
            key: None,
            data: Bytes::from(open.data),
        });
    }

    fn discard(&mut self) -> bool {
        self.open = None;
        true
    }

    fn target_seconds(&self) -> u64 {
        self.playlist.target_seconds()
    }

    fn raise_target(&mut self, seconds: u64) {
        self.playlist.raise_target(seconds);
    }

    fn playlist(&self) -> &Playlist {
        &self.playlist
    }

    fn complete(&mut self) {
        self.playlist.end();
    }
}

#[cfg(test)]
#[path = "segmenter_tests.rs"]
mod tests;
