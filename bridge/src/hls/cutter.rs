//! Where one segment ends and the next begins, whatever is made of it: SRS's rules, and those of RFC 8216 that bind them.
//!
//! A [`Cutter`] waits until a publisher's tracks are known, begins with a keyframe, decides where to cut, what is
//! discontinuous and which date a segment has. A [`SegmentWriter`] makes bytes of it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use freshet_media::{Frame, MediaKind, MediaTime, TrackConfig};

use super::HlsOptions;

/// A publisher that has sent for that long has shown all its tracks.
const SETTLE_WITHIN: Duration = Duration::from_millis(500);
/// Most frames that wait for that; streams of tiny frames without times.
const MAX_WAITING_FRAMES: usize = 1_024;
/// Most bytes of them, which are a few large pictures without times: half a second of 250 Mbit/s.
const MAX_WAITING_BYTES: usize = 16 * 1024 * 1024;
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

/// A keyframe is asked for this much before the segment is long enough; it takes a round trip to come.
const ASK_AHEAD: Duration = Duration::from_millis(50);

/// What makes bytes of segments.
pub trait SegmentWriter {
    /// What it must know of a track.
    type Track: Clone + std::fmt::Debug;
    /// Why a track or a frame cannot be carried.
    type Error: Clone + std::fmt::Debug;
    /// What players see.
    type Playlist;

    /// The track that a frame belongs to, `None` if this frame does not tell enough of it.
    fn track(frame: &Frame) -> Result<Option<Self::Track>, Self::Error>;
    /// Begins a segment.
    fn begin(&mut self, opening: Opening<Self::Track>) -> Result<(), Self::Error>;
    /// Takes a frame of the open segment. One that cannot be carried leaves nothing behind.
    fn write(&mut self, frame: &Frame) -> Result<(), Self::Error>;
    /// Bytes of the open segment so far.
    fn open_bytes(&self) -> usize;
    /// Ends the open segment.
    fn end(&mut self, closing: &Closing);
    /// Forgets the open segment. False: it is too late for that, it must be ended.
    fn discard(&mut self) -> bool;
    /// `EXT-X-TARGETDURATION`.
    fn target_seconds(&self) -> u64;
    /// Sets the least that it must be.
    fn raise_target(&mut self, seconds: u64);
    /// What players see.
    fn playlist(&self) -> &Self::Playlist;
    /// The playlist says that it is complete, until another segment comes.
    fn complete(&mut self);
}

/// The beginning of a segment.
#[derive(Debug)]
pub struct Opening<T> {
    pub(super) at: MediaTime,
    pub(super) starts_at: SystemTime,
    /// Its parameters or its times do not follow those of the one before.
    pub(super) is_discontinuous: bool,
    /// The tracks differ from those of the segment before.
    pub(super) has_other_tracks: bool,
    pub(super) audio: Option<T>,
    pub(super) video: Option<T>,
}

/// The end of a segment.
#[derive(Debug)]
pub struct Closing {
    pub(super) end: MediaTime,
    pub(super) duration: Duration,
    /// It can be decoded without the one before.
    pub(super) is_independent: bool,
    /// Nothing of what follows goes on where this ends.
    pub(super) is_last: bool,
}

/// A track as its frames have shown it.
#[derive(Debug)]
struct Track<W: SegmentWriter> {
    config: Option<Arc<TrackConfig>>,
    /// What the writer makes of it.
    writable: Option<W::Track>,
    /// Why it is left out.
    refused: Option<W::Error>,
    newest: Option<MediaTime>,
    interval: Option<Duration>,
}

impl<W: SegmentWriter> Default for Track<W> {
    fn default() -> Track<W> {
        Track { config: None, writable: None, refused: None, newest: None, interval: None }
    }
}

impl<W: SegmentWriter> Track<W> {
    fn playable(&self) -> Option<&Arc<TrackConfig>> {
        self.config.as_ref().filter(|_| self.writable.is_some())
    }

    fn interval(&self) -> Duration {
        self.interval.unwrap_or(DEFAULT_INTERVAL)
    }

    fn note_time(&mut self, at: MediaTime) {
        if let Some(before) = self.newest.replace(at) {
            let interval = at.since(before);
            if !interval.is_zero() && interval <= MAX_INTERVAL {
                self.interval = Some(interval);
            }
        }
    }
}

/// The segment that is being written.
#[derive(Debug)]
struct Open {
    start: MediaTime,
    is_discontinuous: bool,
    is_independent: bool,
    /// The newest picture in it.
    picture: Option<MediaTime>,
    newest: MediaTime,
    /// Where its last frame ends, by the distance of frames.
    end: MediaTime,
    /// Where its last picture ends.
    picture_end: Option<MediaTime>,
}

impl Open {
    /// Where it ends if nothing follows: with the picture, as all other segments do, unless that has stood still.
    fn own_end(&self) -> MediaTime {
        self.picture_end.filter(|end| self.end.since(*end) <= MAX_HOLE).unwrap_or(self.end)
    }
}

/// What the last segment announced.
#[derive(Debug, Default, PartialEq, Eq)]
struct Announced {
    audio: Option<Arc<TrackConfig>>,
    video: Option<Arc<TrackConfig>>,
}

/// Cuts one stream into segments.
#[derive(Debug)]
pub struct Cutter<W: SegmentWriter> {
    options: HlsOptions,
    writer: W,
    audio: Track<W>,
    video: Track<W>,
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
}

impl<W: SegmentWriter> Cutter<W> {
    pub(super) fn with_writer(options: HlsOptions, writer: W) -> Cutter<W> {
        Cutter {
            options,
            writer,
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
        }
    }

    /// What players see.
    pub fn playlist(&self) -> &W::Playlist {
        self.writer.playlist()
    }

    pub(super) fn writer_mut(&mut self) -> &mut W {
        &mut self.writer
    }

    /// The segment could end, or the first one begin, if only a keyframe came.
    pub fn wants_keyframe(&self) -> bool {
        if self.video.playable().is_none() || !self.options.wait_keyframe {
            // A track of which only a keyframe tells enough waits for one as well.
            return self.video.config.is_some() && self.video.refused.is_none() && self.video.writable.is_none();
        }
        let Some(open) = &self.open else { return self.is_settled && self.is_fresh };
        let newest = self.video.newest.unwrap_or(open.start);
        self.announced.video.is_none() || newest.since(open.start) + ASK_AHEAD >= self.options.reap_after()
    }

    /// Why nothing of the publisher's can be played, once that is sure.
    pub fn unplayable(&self) -> Option<&W::Error> {
        if !self.is_settled || self.audio.playable().is_some() || self.video.playable().is_some() {
            return None;
        }
        self.video.refused.as_ref().or(self.audio.refused.as_ref())
    }

    /// Takes the next frame, which was live at that time of the wall clock.
    ///
    /// # Errors
    /// The frame, or from here on its whole track, is left out. A track is complained about once.
    pub fn push(&mut self, frame: Frame, live_at: SystemTime) -> Result<(), W::Error> {
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

    /// The publisher will not come back: the playlist says that it is complete. A frame that comes nevertheless takes
    /// that back.
    pub fn end(&mut self) {
        self.finish();
        self.writer.complete();
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

    fn track(&mut self, kind: MediaKind) -> &mut Track<W> {
        match kind {
            MediaKind::Audio => &mut self.audio,
            MediaKind::Video => &mut self.video,
        }
    }

    fn note_config(&mut self, frame: &Frame) -> Result<(), W::Error> {
        let track = self.track(frame.kind());
        let is_known = track.writable.is_some() || track.refused.is_some();
        if is_known && track.config.as_ref().is_some_and(|known| Arc::ptr_eq(known, &frame.config)) {
            return Ok(());
        }
        let is_same = track.config.as_ref().is_some_and(|known| **known == *frame.config);
        track.config = Some(Arc::clone(&frame.config));
        if is_same && is_known {
            return Ok(());
        }
        (track.writable, track.refused) = (None, None);
        match W::track(frame) {
            Ok(writable) => track.writable = writable,
            Err(error) => {
                track.refused = Some(error.clone());
                return Err(error);
            }
        }
        Ok(())
    }

    fn tracks_are_known(&self) -> bool {
        let bytes: usize = self.waiting.iter().map(|(frame, _)| frame.data.len()).sum();
        let is_full = self.waiting.len() >= MAX_WAITING_FRAMES || bytes >= MAX_WAITING_BYTES;
        if self.audio.config.is_some() && self.video.config.is_some() || is_full {
            return true;
        }
        let times = || self.waiting.iter().map(|(frame, _)| frame.dts);
        let (first, last) = (times().min(), times().max());
        first.zip(last).is_some_and(|(first, last)| last.since(first) >= SETTLE_WITHIN)
    }

    fn accept(&mut self, frame: Frame, live_at: SystemTime) -> Result<(), W::Error> {
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
        let announced = if is_picture { &self.announced.video } else { &self.announced.audio };
        if announced.is_none() {
            // What begins in mid-stream begins with the next keyframe, in a segment of its own.
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
        // What goes with the keyframe if it comes now; the rest would be left out then.
        let is_old = |early: &Frame| frame.dts.since(early.dts) > SOUND_BEFORE_PICTURE;
        let mut bytes: usize = self.early_sound.iter().map(|early| early.data.len()).sum();
        while let Some(oldest) = self.early_sound.front()
            && (is_old(oldest) || self.early_sound.len() >= MAX_WAITING_FRAMES || bytes >= MAX_WAITING_BYTES)
        {
            bytes -= oldest.data.len();
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
        if age + interval > self.longest() || self.writer.open_bytes() >= MAX_SEGMENT_BYTES {
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
            false => Duration::from_secs(self.writer.target_seconds()) + ROUNDED_AWAY,
        }
    }

    fn begin(&mut self, frame: &Frame, live_at: SystemTime) -> Result<(), W::Error> {
        let wanted = self.wanted();
        let follows = self.last_end.is_none_or(|end| frame.dts.since(end).max(end.since(frame.dts)) <= MAX_HOLE);
        let is_first = self.last_end.is_none();
        let has_other_tracks = wanted != self.announced;
        let is_discontinuous = !is_first && (!follows || has_other_tracks) || self.owes_discontinuity;
        let opening = Opening {
            at: frame.dts,
            starts_at: self.date_of(frame.dts, live_at),
            is_discontinuous,
            has_other_tracks,
            audio: self.audio.writable.clone(),
            video: self.video.writable.clone(),
        };
        self.writer.begin(opening)?;
        self.open = Some(Open {
            start: frame.dts,
            is_discontinuous,
            is_independent: true,
            picture: None,
            newest: frame.dts,
            end: frame.dts,
            picture_end: None,
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

    fn write(&mut self, frame: &Frame) -> Result<(), W::Error> {
        let is_picture = frame.kind() == MediaKind::Video;
        let interval = if is_picture { self.video.interval() } else { self.audio.interval() };
        let Some(open) = &mut self.open else { return Ok(()) };
        self.writer.write(frame)?;
        open.newest = open.newest.max(frame.dts);
        open.end = open.end.max(frame.dts + interval);
        if is_picture {
            open.is_independent &= open.picture.is_some() || frame.is_keyframe;
            open.picture = Some(frame.dts);
            open.picture_end = Some(frame.dts + interval);
        }
        Ok(())
    }

    /// Ends the open segment, where `next` begins or after its own last frame.
    fn close(&mut self, next: Option<&Frame>) {
        let Some(open) = self.open.take() else { return };
        let longest = self.longest().saturating_add(Duration::from_millis(99));
        let next = next.filter(|next| next.dts.since(open.newest) <= MAX_HOLE && next.dts.since(open.start) <= longest);
        let end = next.map_or(open.own_end(), |next| next.dts);
        let duration = end.since(open.start).min(longest);
        if duration < MIN_SEGMENT && self.writer.discard() {
            self.owes_discontinuity |= open.is_discontinuous;
            return;
        }
        if self.finds_target {
            self.writer.raise_target((duration.as_millis() as u64 + 500) / 1000);
            self.finds_target = false;
        }
        let is_last = next.is_none() || self.wanted() != self.announced;
        self.last_end = Some(end);
        self.writer.end(&Closing { end, duration, is_independent: open.is_independent, is_last });
    }
}
