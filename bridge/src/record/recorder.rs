//! Where one file ends and the next begins.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use freshet_media::{Frame, MediaKind, MediaTime, TrackConfig};

use super::format::{Container, Start};
use super::interleave::Interleaver;
use super::{RecordError, RecordFormat, RecordPlan};
use crate::fanout::Tracks;

/// A keyframe that comes this much too early ends a segment all the same: encoders' times are rounded.
const TOLERANCE: Duration = Duration::from_millis(100);
/// Longest file whatever the plan: the clock of MPEG-TS wraps after 26.5 hours.
const MAX_FILE: Duration = Duration::from_secs(24 * 3_600);
/// Bytes are given out when there are so many, or after that much of media time: what a process that is killed loses.
const WRITE_BYTES: usize = 256 * 1024;
const WRITE_AFTER: Duration = Duration::from_secs(1);
/// Distance of frames until it is known, and the longest that is believed.
const DEFAULT_INTERVAL: Duration = Duration::from_millis(33);
const MAX_INTERVAL: Duration = Duration::from_secs(1);

/// What is to be done with files. `Write`, `WriteAt` and `Close` are about the file that was opened last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// A file begins, with a frame of that time on the stream's timeline.
    Open {
        /// Decoding time of the first frame.
        start: MediaTime,
    },
    /// Bytes to append.
    Write {
        /// The bytes.
        data: Bytes,
        /// How much of the stream the file holds then.
        duration: Duration,
    },
    /// Bytes that replace others. Only shortly before `Close`.
    WriteAt {
        /// Where.
        offset: u64,
        /// The bytes.
        data: Bytes,
    },
    /// The file is complete.
    Close,
    /// A track, from now on, or one frame is not in the recording.
    LeftOut(RecordError),
}

/// A track as its frames have shown it.
#[derive(Debug, Default)]
struct Track {
    config: Option<Arc<TrackConfig>>,
    /// The first frame of that configuration.
    first: Option<Frame>,
    is_refused: bool,
    newest: Option<MediaTime>,
    interval: Option<Duration>,
}

impl Track {
    fn recorded(&self) -> Option<&Arc<TrackConfig>> {
        self.config.as_ref().filter(|_| !self.is_refused)
    }

    /// Notes a frame's time and tells where it ends.
    fn note_time(&mut self, at: MediaTime) -> MediaTime {
        if let Some(before) = self.newest.replace(at) {
            let interval = at.since(before);
            if !interval.is_zero() {
                self.interval = Some(interval.min(MAX_INTERVAL));
            }
        }
        at + self.interval.unwrap_or(DEFAULT_INTERVAL)
    }
}

/// The file that is being written.
#[derive(Debug)]
struct Open {
    container: Box<dyn Container>,
    tracks: Tracks,
    start: MediaTime,
    /// Where its last frame ends.
    end: MediaTime,
    /// Bytes that were given out, and those that were not yet, and since when.
    written: u64,
    buffer: Vec<u8>,
    buffered_since: Option<MediaTime>,
}

/// Records one stream.
#[derive(Debug)]
pub struct Recorder {
    format: RecordFormat,
    plan: RecordPlan,
    queue: Interleaver,
    audio: Track,
    video: Track,
    open: Option<Open>,
    /// The next file begins with the next keyframe.
    wants_cut: bool,
    /// A frame of this file has been complained about.
    has_complained: bool,
    outputs: VecDeque<Output>,
}

impl Recorder {
    /// Nothing is recorded yet.
    pub fn new(format: RecordFormat, plan: RecordPlan) -> Recorder {
        Recorder {
            format,
            plan,
            queue: Interleaver::default(),
            audio: Track::default(),
            video: Track::default(),
            open: None,
            wants_cut: false,
            has_complained: false,
            outputs: VecDeque::new(),
        }
    }

    /// Takes the next frame.
    pub fn push(&mut self, frame: Frame) {
        self.queue.push(frame);
        while let Some(frame) = self.queue.pop() {
            self.accept(&frame);
        }
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Ends the file: the publisher has gone, or another one comes.
    pub fn finish(&mut self) {
        while let Some(frame) = self.queue.pop_any() {
            self.accept(&frame);
        }
        self.close();
        self.queue.clear();
        (self.audio, self.video) = (Track::default(), Track::default());
        self.wants_cut = false;
    }

    /// Goes on in another file from the next keyframe on: the present one cannot be written any more.
    pub fn cut(&mut self) {
        self.wants_cut = true;
    }

    /// Why the recording is empty, once nothing that has come can be recorded.
    pub fn is_barren(&self) -> bool {
        let is_known = self.audio.config.is_some() || self.video.config.is_some();
        is_known && self.audio.recorded().is_none() && self.video.recorded().is_none()
    }

    fn track(&mut self, kind: MediaKind) -> &mut Track {
        match kind {
            MediaKind::Audio => &mut self.audio,
            MediaKind::Video => &mut self.video,
        }
    }

    fn accept(&mut self, frame: &Frame) {
        self.note_config(frame);
        let kind = frame.kind();
        // A file announces both its tracks, also the one whose first frame comes a moment later.
        let other = if kind == MediaKind::Audio { MediaKind::Video } else { MediaKind::Audio };
        if self.track(other).config.is_none()
            && let Some(waiting) = self.queue.front(other).cloned()
        {
            self.note_config(&waiting);
        }
        if self.track(kind).recorded().is_none() {
            return;
        }
        let end = self.track(kind).note_time(frame.dts);
        // Where there is a picture, files begin with one.
        let is_entry = self.video.recorded().is_none() || (kind == MediaKind::Video && frame.is_keyframe);
        if is_entry && self.should_cut(frame.dts) {
            self.close();
        }
        if self.open.is_none() && is_entry {
            self.begin(frame);
        }
        self.write(frame, end);
    }

    fn note_config(&mut self, frame: &Frame) {
        let format = self.format;
        let track = self.track(frame.kind());
        if track.config.as_ref().is_some_and(|known| Arc::ptr_eq(known, &frame.config)) {
            return;
        }
        let is_same = track.config.as_ref().is_some_and(|known| **known == *frame.config);
        track.config = Some(Arc::clone(&frame.config));
        if is_same {
            return;
        }
        let checked = format.check(&frame.config);
        track.is_refused = checked.is_err();
        track.first = (!track.is_refused).then(|| frame.clone());
        self.outputs.extend(checked.err().map(Output::LeftOut));
    }

    fn should_cut(&self, at: MediaTime) -> bool {
        let Some(open) = &self.open else { return false };
        let age = at.since(open.start);
        let is_due = match self.plan {
            RecordPlan::Session => age >= MAX_FILE,
            RecordPlan::Segment(length) => age + TOLERANCE.min(length / 10) >= length.min(MAX_FILE),
        };
        is_due
            || self.wants_cut
            || !open.takes(open.tracks.audio.as_ref(), self.audio.recorded())
            || !open.takes(open.tracks.video.as_ref(), self.video.recorded())
    }

    fn begin(&mut self, entry: &Frame) {
        self.has_complained = false;
        let mut begun = self.try_begin(entry);
        if let Err(error) = &begun
            && error.codec().kind() != entry.kind()
        {
            // Sound that cannot be announced must not cost the picture.
            self.track(error.codec().kind()).is_refused = true;
            self.outputs.push_back(Output::LeftOut(error.clone()));
            begun = self.try_begin(entry);
        }
        match begun {
            Ok(open) => {
                self.wants_cut = false;
                self.outputs.push_back(Output::Open { start: open.start });
                self.open = Some(open);
            }
            Err(error) => self.complain(error),
        }
    }

    fn try_begin(&self, entry: &Frame) -> Result<Open, RecordError> {
        let tracks = Tracks { audio: self.audio.recorded().cloned(), video: self.video.recorded().cloned() };
        let first = |track: &'_ Track| track.first.clone().filter(|_| !track.is_refused);
        let sound = first(&self.audio);
        let start = Start {
            at: entry.dts,
            audio: sound.as_ref(),
            video: Some(entry).filter(|entry| entry.kind() == MediaKind::Video),
        };
        let mut buffer = Vec::new();
        let container = self.format.begin(&start, &mut buffer)?;
        let (start, buffered_since) = (entry.dts, Some(entry.dts));
        Ok(Open { container, tracks, start, end: start, written: 0, buffer, buffered_since })
    }

    fn write(&mut self, frame: &Frame, end: MediaTime) {
        let Some(open) = &mut self.open else { return };
        let announced = match frame.kind() {
            MediaKind::Audio => open.tracks.audio.as_ref(),
            MediaKind::Video => open.tracks.video.as_ref(),
        };
        // Sound from before the first picture; parameters for which the next file must be waited for.
        if frame.dts < open.start || announced.is_none() || !open.takes(announced, Some(&frame.config)) {
            return;
        }
        if let Err(error) = open.container.write(frame, &mut open.buffer) {
            self.complain(error);
            return;
        }
        open.end = open.end.max(end);
        if open.buffer.is_empty() {
            return;
        }
        let since = *open.buffered_since.get_or_insert(frame.dts);
        let is_due = open.buffer.len() >= WRITE_BYTES || frame.dts.since(since) >= WRITE_AFTER;
        if is_due || open.container.comes_in_fragments() {
            self.outputs.extend(open.take_buffer());
        }
    }

    fn close(&mut self) {
        let Some(mut open) = self.open.take() else { return };
        let patches = open.container.finish(open.duration(), open.written, &mut open.buffer);
        self.outputs.extend(open.take_buffer());
        self.outputs
            .extend(patches.into_iter().map(|patch| Output::WriteAt { offset: patch.offset, data: patch.data }));
        self.outputs.push_back(Output::Close);
    }

    fn complain(&mut self, error: RecordError) {
        if !std::mem::replace(&mut self.has_complained, true) {
            self.outputs.push_back(Output::LeftOut(error));
        }
    }
}

impl Open {
    fn duration(&self) -> Duration {
        self.end.since(self.start)
    }

    /// Whether the file that announced `announced` can hold frames of `wanted`.
    fn takes(&self, announced: Option<&Arc<TrackConfig>>, wanted: Option<&Arc<TrackConfig>>) -> bool {
        match (announced, wanted) {
            (Some(old), Some(new)) => Arc::ptr_eq(old, new) || old == new || self.container.takes_change(old, new),
            (None, Some(_)) => false,
            (_, None) => true,
        }
    }

    fn take_buffer(&mut self) -> Option<Output> {
        self.buffered_since = None;
        if self.buffer.is_empty() {
            return None;
        }
        self.written += self.buffer.len() as u64;
        let data = Bytes::from(std::mem::take(&mut self.buffer));
        Some(Output::Write { data, duration: self.duration() })
    }
}

#[cfg(test)]
#[path = "recorder_tests.rs"]
mod tests;

#[cfg(test)]
pub(super) mod testing {
    use freshet_media::Codec;

    use super::*;

    /// The parameter sets of x264 for 320×180.
    const AVC: [u8; 40] = [
        1, 0x42, 0xc0, 0x0c, 0xff, 0xe1, 0, 25, 0x67, 0x42, 0xc0, 0x0c, 0xd9, 0x01, 0x41, 0x9f, 0x9f, 0x01, 0x10, 0x00,
        0x00, 0x03, 0x00, 0x10, 0x00, 0x00, 0x03, 0x03, 0x20, 0xf1, 0x42, 0xa4, 0x80, 1, 0, 4, 0x68, 0xce, 0x3c, 0x80,
    ];

    /// A configuration of a picture; others have other levels.
    pub(in crate::record) fn avc(level: u8) -> Arc<TrackConfig> {
        let mut record = AVC;
        (record[3], record[11]) = (level, level);
        Arc::new(TrackConfig { codec: Codec::H264, record: Bytes::copy_from_slice(&record) })
    }

    pub(in crate::record) fn aac() -> Arc<TrackConfig> {
        Arc::new(TrackConfig { codec: Codec::Aac, record: Bytes::from_static(&[0x11, 0x90]) })
    }

    pub(in crate::record) fn frame(config: Arc<TrackConfig>, ms: i64, is_keyframe: bool) -> Frame {
        let at = MediaTime::from_millis(ms);
        let data: &[u8] = if config.kind() == MediaKind::Video { &[0, 0, 0, 5, 0x65, 1, 2, 3, 4] } else { &[7; 50] };
        Frame { config, dts: at, pts: at, is_keyframe, data: Bytes::from_static(data) }
    }

    pub(in crate::record) fn picture(ms: i64, is_keyframe: bool) -> Frame {
        frame(avc(0x1e), ms, is_keyframe)
    }

    pub(in crate::record) fn sound(ms: i64) -> Frame {
        frame(aac(), ms, true)
    }
}
