//! Where one segment ends and the next begins.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use freshet_media::{Frame, MediaKind, MediaTime, TrackConfig};
use tracing::debug;

use super::HlsOptions;
use super::encryption::Encryption;
use super::playlist::{Playlist, Segment};
use crate::ts::{self, TsError, TsMuxer};

/// A publisher that has sent for that long has shown all its tracks.
const SETTLE_WITHIN: Duration = Duration::from_millis(500);
/// Most frames that wait for that; streams of tiny frames without times.
const MAX_WAITING_FRAMES: usize = 1_024;
/// Sound that came before the first keyframe and goes with it: what encoders begin earlier with.
const SOUND_BEFORE_PICTURE: Duration = Duration::from_millis(500);

/// A keyframe that comes this much too early counts as in time: encoders' and containers' times are rounded.
const TOLERANCE: Duration = Duration::from_millis(100);
/// What is shorter when a publisher leaves is left out (SRS's rule).
const MIN_SEGMENT: Duration = Duration::from_millis(100);
/// Longest first segment of a publisher, before the target duration is known: the longest distance of keyframes that
/// is waited for.
const MAX_FIRST_SEGMENT: Duration = Duration::from_secs(30);
/// Largest segment: 30 s of 17 Mbit/s.
const MAX_SEGMENT_BYTES: usize = 64 * 1024 * 1024;
/// A segment's duration is rounded to whole seconds and must not be above the target then (§4.3.3.1). Less than half a
/// second, for the frame that ends it comes late.
const ROUNDED_AWAY: Duration = Duration::from_millis(400);

/// Times that jump by more do not follow each other.
const MAX_HOLE: Duration = Duration::from_millis(500);
/// The dates of segments follow the frames' times. When both have drifted apart by this, they are set anew.
const MAX_DATE_ERROR: Duration = Duration::from_secs(1);
/// Distance of frames until it is known, and the longest that is believed.
const DEFAULT_INTERVAL: Duration = Duration::from_millis(33);
const MAX_INTERVAL: Duration = Duration::from_secs(1);

/// A track as its frames have shown it.
#[derive(Debug, Default)]
struct Track {
    config: Option<Arc<TrackConfig>>,
    /// Why it is left out.
    refused: Option<TsError>,
    newest: Option<MediaTime>,
    interval: Option<Duration>,
}

impl Track {
    fn playable(&self) -> Option<&Arc<TrackConfig>> {
        self.config.as_ref().filter(|_| self.refused.is_none())
    }

    fn interval(&self) -> Duration {
        self.interval.unwrap_or(DEFAULT_INTERVAL)
    }

    fn note_time(&mut self, at: MediaTime) {
        if let Some(before) = self.newest.replace(at) {
            let interval = at.since(before);
            if !interval.is_zero() {
                self.interval = Some(interval.min(MAX_INTERVAL));
            }
        }
    }
}

/// The segment that is being written.
#[derive(Debug)]
struct Open {
    start: MediaTime,
    starts_at: SystemTime,
    is_discontinuous: bool,
    is_independent: bool,
    /// The newest picture in it.
    picture: Option<MediaTime>,
    newest: MediaTime,
    /// Where its last frame ends, by the distance of frames.
    end: MediaTime,
    data: Vec<u8>,
}

/// What the tables of the last segment announced.
#[derive(Debug, Default, PartialEq, Eq)]
struct Announced {
    audio: Option<Arc<TrackConfig>>,
    video: Option<Arc<TrackConfig>>,
}

/// Cuts one stream into segments.
#[derive(Debug)]
pub struct Segmenter {
    options: HlsOptions,
    muxer: TsMuxer,
    audio: Track,
    video: Track,
    /// Frames that came before the tracks were known; empty and unused afterwards.
    waiting: VecDeque<(Frame, SystemTime)>,
    is_settled: bool,
    /// Sound before the first keyframe.
    early_sound: VecDeque<Frame>,
    open: Option<Open>,
    announced: Announced,
    /// The publisher has no segment yet.
    is_fresh: bool,
    /// A segment with a discontinuity was left out.
    owes_discontinuity: bool,
    /// Where the last segment ended.
    last_end: Option<MediaTime>,
    /// A time on the timeline and when that was.
    date: Option<(MediaTime, SystemTime)>,
    /// The publisher's first segment is not done: its keyframes decide what the target duration must be.
    finds_target: bool,
    playlist: Playlist,
}

impl Segmenter {
    /// Of a stream whose first segment will have that number. A number that no earlier segment of the same name has
    /// had keeps caches from mixing them up.
    pub fn new(options: HlsOptions, first_sequence: u64) -> Segmenter {
        let target_seconds = whole_seconds_above(options.reap_after());
        let playlist = Playlist::new(options.window, first_sequence, target_seconds);
        Segmenter {
            options,
            muxer: TsMuxer::new(),
            audio: Track::default(),
            video: Track::default(),
            waiting: VecDeque::new(),
            is_settled: false,
            early_sound: VecDeque::new(),
            open: None,
            announced: Announced::default(),
            is_fresh: true,
            owes_discontinuity: false,
            last_end: None,
            date: None,
            finds_target: true,
            playlist,
        }
    }

    /// Encrypts all segments.
    #[must_use]
    pub fn with_encryption(mut self, encryption: Encryption) -> Segmenter {
        self.playlist.encrypt(encryption);
        self
    }

    /// What players see.
    pub fn playlist(&self) -> &Playlist {
        &self.playlist
    }

    /// Why nothing of the publisher's can be played, once that is sure.
    pub fn unplayable(&self) -> Option<&TsError> {
        if !self.is_settled || self.audio.playable().is_some() || self.video.playable().is_some() {
            return None;
        }
        self.video.refused.as_ref().or(self.audio.refused.as_ref())
    }

    /// Takes the next frame, which was live at that time of the wall clock.
    ///
    /// # Errors
    /// The frame, or from here on its whole track, is left out. A track is complained about once.
    pub fn push(&mut self, frame: Frame, live_at: SystemTime) -> Result<(), TsError> {
        let shown = self.note_config(&frame);
        if self.is_settled {
            return shown.and(self.accept(frame, live_at));
        }
        self.waiting.push_back((frame, live_at));
        if self.tracks_are_known() {
            self.is_settled = true;
            let waiting = std::mem::take(&mut self.waiting);
            return waiting.into_iter().fold(shown, |said, (frame, live_at)| said.and(self.accept(frame, live_at)));
        }
        shown
    }

    /// Another publisher comes. Its frames are later than those before.
    pub fn start_over(&mut self) {
        self.finish();
        self.finds_target = true;
    }

    /// The publisher has gone: what there is of the open segment can be played.
    pub fn finish(&mut self) {
        for (frame, live_at) in std::mem::take(&mut self.waiting) {
            self.is_settled = true;
            // A frame that cannot be carried is missed by nobody now.
            let _ = self.accept(frame, live_at);
        }
        self.close(None);
        (self.audio, self.video) = (Track::default(), Track::default());
        (self.is_settled, self.is_fresh) = (false, true);
        self.early_sound.clear();
    }

    /// The publisher will not come back: the playlist says that it is complete. A frame that comes nevertheless takes
    /// that back.
    pub fn end(&mut self) {
        self.finish();
        self.playlist.end();
    }

    fn track(&mut self, kind: MediaKind) -> &mut Track {
        match kind {
            MediaKind::Audio => &mut self.audio,
            MediaKind::Video => &mut self.video,
        }
    }

    fn note_config(&mut self, frame: &Frame) -> Result<(), TsError> {
        let track = self.track(frame.kind());
        if track.config.as_ref().is_some_and(|known| Arc::ptr_eq(known, &frame.config)) {
            return Ok(());
        }
        let is_same = track.config.as_ref().is_some_and(|known| **known == *frame.config);
        track.config = Some(Arc::clone(&frame.config));
        if is_same {
            return Ok(());
        }
        track.refused = ts::check_track(&frame.config).err();
        track.refused.clone().map_or(Ok(()), Err)
    }

    fn tracks_are_known(&self) -> bool {
        if self.audio.config.is_some() && self.video.config.is_some() || self.waiting.len() >= MAX_WAITING_FRAMES {
            return true;
        }
        let times = || self.waiting.iter().map(|(frame, _)| frame.dts);
        let (first, last) = (times().min(), times().max());
        first.zip(last).is_some_and(|(first, last)| last.since(first) >= SETTLE_WITHIN)
    }

    fn accept(&mut self, frame: Frame, live_at: SystemTime) -> Result<(), TsError> {
        let kind = frame.kind();
        if self.track(kind).playable().is_none() {
            return Ok(());
        }
        if self.should_cut(&frame) {
            self.close(Some(&frame));
        }
        self.track(kind).note_time(frame.dts);
        let is_picture = kind == MediaKind::Video;
        if self.open.is_none() {
            // Players take what the first segment lacks for what the stream lacks.
            if self.is_fresh && self.video.playable().is_some() && !(is_picture && frame.is_keyframe) {
                if !is_picture {
                    self.keep_early_sound(frame);
                }
                return Ok(());
            }
            self.begin(&frame, live_at)?;
        }
        if is_picture && self.announced.video.is_none() {
            // Pictures that begin in mid-stream begin with the next keyframe, in a segment of their own.
            return Ok(());
        }
        let written = self.write(&frame);
        for sound in std::mem::take(&mut self.early_sound) {
            if frame.dts.since(sound.dts) <= SOUND_BEFORE_PICTURE {
                self.write(&sound)?;
            }
        }
        written
    }

    fn keep_early_sound(&mut self, frame: Frame) {
        if self.early_sound.len() >= MAX_WAITING_FRAMES {
            self.early_sound.pop_front();
        }
        self.early_sound.push_back(frame);
    }

    fn wanted(&self) -> Announced {
        Announced { audio: self.audio.playable().cloned(), video: self.video.playable().cloned() }
    }

    fn should_cut(&self, frame: &Frame) -> bool {
        let Some(open) = &self.open else { return false };
        let is_picture = frame.kind() == MediaKind::Video;
        let is_entry = is_picture && frame.is_keyframe;
        let has_pictures = self.video.playable().is_some();
        if (is_entry || !has_pictures) && self.wanted() != self.announced {
            return true;
        }
        let age = frame.dts.since(open.start);
        let interval = if is_picture { self.video.interval() } else { self.audio.interval() };
        if age + interval > self.longest() || open.data.len() >= MAX_SEGMENT_BYTES {
            return true;
        }
        if is_picture {
            let reap_after = self.options.reap_after();
            age + TOLERANCE.min(reap_after / 10) >= reap_after && (is_entry || !self.options.wait_keyframe)
        } else {
            let reap_after = self.options.reap_sound_after();
            let without_picture = frame.dts.since(open.picture.unwrap_or(open.start));
            age >= reap_after && (!has_pictures || without_picture >= reap_after)
        }
    }

    /// How long a segment may become.
    fn longest(&self) -> Duration {
        match self.finds_target {
            true => MAX_FIRST_SEGMENT,
            false => Duration::from_secs(self.playlist.target_seconds()) + ROUNDED_AWAY,
        }
    }

    fn begin(&mut self, frame: &Frame, live_at: SystemTime) -> Result<(), TsError> {
        let wanted = self.wanted();
        self.muxer.set_tracks(wanted.audio.as_ref(), wanted.video.as_ref())?;
        let follows = self.last_end.is_none_or(|end| frame.dts.since(end).max(end.since(frame.dts)) <= MAX_HOLE);
        let is_first = self.last_end.is_none();
        let mut data = Vec::new();
        self.muxer.write_tables(&mut data);
        self.open = Some(Open {
            start: frame.dts,
            starts_at: self.date_of(frame.dts, live_at),
            is_discontinuous: !is_first && (!follows || wanted != self.announced) || self.owes_discontinuity,
            is_independent: true,
            picture: None,
            newest: frame.dts,
            end: frame.dts,
            data,
        });
        self.announced = wanted;
        self.is_fresh = false;
        self.owes_discontinuity = false;
        Ok(())
    }

    /// When a time on the timeline is, or was.
    fn date_of(&mut self, at: MediaTime, live_at: SystemTime) -> SystemTime {
        if let Some((media, date)) = self.date {
            let expected = date + at.since(media);
            let error = expected.duration_since(live_at).unwrap_or_else(|e| e.duration());
            if error <= MAX_DATE_ERROR {
                return expected;
            }
        }
        self.date = Some((at, live_at));
        live_at
    }

    fn write(&mut self, frame: &Frame) -> Result<(), TsError> {
        let is_picture = frame.kind() == MediaKind::Video;
        let interval = if is_picture { self.video.interval() } else { self.audio.interval() };
        let Some(open) = &mut self.open else { return Ok(()) };
        self.muxer.write_frame(frame, &mut open.data)?;
        open.newest = open.newest.max(frame.dts);
        open.end = open.end.max(frame.dts + interval);
        if is_picture {
            open.is_independent &= open.picture.is_some() || frame.is_keyframe;
            open.picture = Some(frame.dts);
        }
        Ok(())
    }

    /// Ends the open segment, where `next` begins or after its own last frame.
    fn close(&mut self, next: Option<&Frame>) {
        let Some(mut open) = self.open.take() else { return };
        let longest = self.longest().saturating_add(Duration::from_millis(99));
        let end = match next {
            Some(next) if next.dts.since(open.newest) <= MAX_HOLE && next.dts.since(open.start) <= longest => next.dts,
            _ => open.end,
        };
        let duration = end.since(open.start).min(longest);
        if duration < MIN_SEGMENT {
            self.owes_discontinuity |= open.is_discontinuous;
            return;
        }
        if self.finds_target {
            self.playlist.raise_target((duration.as_millis() as u64 + 500) / 1000);
            self.finds_target = false;
        }
        debug!(seconds = duration.as_secs_f32(), bytes = open.data.len(), "segment closed");
        open.data.shrink_to_fit();
        self.last_end = Some(end);
        self.playlist.push(Segment {
            sequence: 0,
            duration,
            starts_at: open.starts_at,
            is_discontinuous: open.is_discontinuous,
            is_independent: open.is_independent,
            key: None,
            data: Bytes::from(open.data),
        });
    }
}

fn whole_seconds_above(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

#[cfg(test)]
#[path = "segmenter_tests.rs"]
mod tests;
