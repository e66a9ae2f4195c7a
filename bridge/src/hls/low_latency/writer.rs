//! Segments of fragmented MP4, part by part.

use std::time::Duration;

use bytes::Bytes;
use freshet_media::{Codec, Frame, MediaKind, MediaTime};
use tracing::debug;

use super::playlist::{LowLatencyPlaylist, Rendition, Segment};
use crate::fmp4::{Fmp4Error, Fmp4Muxer, Fmp4Track};
use crate::hls::cutter::{Closing, Opening, SegmentWriter};

/// The part target is longer than the frames that it is made of by this, so that frames need not come like clockwork:
/// parts of 93.5 to 110 % of them are right.
const JITTER_PERCENT: u32 = 10;
/// Parts other than the last of a segment have at least this much of the target (§4.4.4.9).
const LEAST_PERCENT: u32 = 85;
/// When the picture has not moved for that long, sound alone ends parts. More than encoders interleave by.
const SOUND_LEADS_AFTER: Duration = Duration::from_millis(500);
/// Of the last part of a segment, which may hold no more than what came too late for the one before.
const LEAST_DURATION: Duration = Duration::from_millis(1);
/// The media source extensions of Chromium and Firefox refuse these in MP4, and with one of them the other track.
const NOT_PLAYED: [Codec; 2] = [Codec::Vp8, Codec::Mp3];
/// Frames farther apart say nothing of the frame rate.
const MAX_INTERVAL: Duration = Duration::from_secs(1);

/// Frames at which a segment can be cut into parts afterwards: 30 s of 120 pictures each. Behind them time alone cuts.
const MAX_LEADING: usize = 3_600;

/// How far the frames of a segment that lead are apart: pictures, or sound where there are none.
#[derive(Debug, Default)]
struct Pace {
    newest: Option<MediaTime>,
    frames: u32,
    intervals: u32,
    total: Duration,
}

impl Pace {
    fn note(&mut self, at: MediaTime) {
        self.frames = self.frames.saturating_add(1);
        if let Some(before) = self.newest.replace(at) {
            let interval = at.since(before);
            if !interval.is_zero() && interval <= MAX_INTERVAL {
                self.intervals = self.intervals.saturating_add(1);
                self.total = self.total.saturating_add(interval);
            }
        }
    }

    fn interval(&self) -> Option<Duration> {
        (self.intervals > 0).then(|| self.total / self.intervals)
    }
}

/// Makes parts and segments.
#[derive(Debug)]
pub struct LowLatencyWriter {
    muxer: Fmp4Muxer,
    /// How long parts should be.
    part: Duration,
    has_pictures: bool,
    is_open: bool,
    /// Where the open part begins.
    part_start: MediaTime,
    /// In the open segment.
    pace: Pace,
    /// When the leading frames of the open segment are decoded, while no part target is known.
    leading: Vec<MediaTime>,
    playlist: LowLatencyPlaylist,
}

impl LowLatencyWriter {
    pub(super) fn new(part: Duration, playlist: LowLatencyPlaylist) -> LowLatencyWriter {
        LowLatencyWriter {
            muxer: Fmp4Muxer::new(),
            part,
            has_pictures: false,
            is_open: false,
            part_start: MediaTime::default(),
            pace: Pace::default(),
            leading: Vec::new(),
            playlist,
        }
    }

    /// Ends the parts that are full at `until`, where the next leading frame is.
    fn cut_full(&mut self, until: MediaTime) {
        self.cut_overdue(until);
        let target = self.playlist.open_part_target();
        let least = target.map(|target| target * LEAST_PERCENT / 100);
        if least.is_some_and(|least| until.since(self.part_start) >= least) {
            self.cut_part(until);
        }
    }

    /// Ends the parts that must have ended before `until`.
    fn cut_overdue(&mut self, until: MediaTime) {
        let Some(target) = self.playlist.open_part_target() else { return };
        while until.since(self.part_start) > target {
            self.cut_part(self.part_start + target);
        }
    }

    fn cut_part(&mut self, end: MediaTime) {
        let mut data = Vec::new();
        let fragment = self.muxer.flush(Some(end), &mut data);
        let start = std::mem::replace(&mut self.part_start, end);
        // A part without frames would be none: a lone picture may last for longer than the part that it is in.
        if let Some(fragment) = fragment {
            let duration = end.since(start);
            self.playlist.push_part(duration, fragment.has_keyframe, Bytes::from(data));
        }
    }

    /// What is left of a segment.
    fn cut_rest(&mut self, closing: &Closing) {
        self.cut_overdue(closing.end);
        let mut data = Vec::new();
        // Sound that is ahead goes on in the next segment, if that is one of the same tracks.
        let until = (!closing.is_last).then_some(closing.end);
        if let Some(fragment) = self.muxer.flush(until, &mut data) {
            let duration = closing.end.since(self.part_start).max(LEAST_DURATION);
            self.playlist.push_part(duration, fragment.has_keyframe, Bytes::from(data));
        }
    }

    /// The length of whole frames that is nearest to what parts should be, with room for jitter.
    fn find_part_target(&self) -> Duration {
        let part = self.part.min(Duration::from_secs(self.playlist.target_seconds()));
        let frames = self.pace.interval().map_or(part, |interval| {
            let count = (part.as_secs_f64() / interval.as_secs_f64()).round().max(1.0);
            interval.mul_f64(count)
        });
        frames + frames * JITTER_PERCENT / 100
    }

    /// Whether parts of whole frames keep to a target.
    fn suits(&self, target: Duration) -> bool {
        let Some(interval) = self.pace.interval() else { return true };
        let count = (target.as_secs_f64() / interval.as_secs_f64() * (1.0 - 0.01)).floor();
        interval.mul_f64(count) >= target * LEAST_PERCENT / 100
    }
}

impl SegmentWriter for LowLatencyWriter {
    type Track = Fmp4Track;
    type Error = Fmp4Error;
    type Playlist = LowLatencyPlaylist;

    fn track(frame: &Frame) -> Result<Option<Fmp4Track>, Fmp4Error> {
        let codec = frame.config.codec;
        if NOT_PLAYED.contains(&codec) {
            return Err(Fmp4Error::NotPlayed(codec));
        }
        match Fmp4Track::new(frame) {
            Ok(track) => Ok(Some(track)),
            Err(Fmp4Error::NotInThisFrame(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn begin(&mut self, opening: Opening<Fmp4Track>) -> Result<(), Fmp4Error> {
        let Opening { at, starts_at, is_discontinuous, has_other_tracks, audio, video } = opening;
        if has_other_tracks || !self.playlist.has_init() {
            self.muxer.set_tracks(audio.as_ref(), video.as_ref());
            let tracks = [video.as_ref(), audio.as_ref()];
            let names = tracks.iter().flatten().map(|track| track.codec_string().to_owned()).collect();
            let size = video.as_ref().and_then(Fmp4Track::size);
            self.playlist
                .push_init(self.muxer.init_segment().into(), Rendition { codecs: names, size, interval: None });
            self.has_pictures = video.is_some();
        }
        (self.is_open, self.part_start, self.pace) = (true, at, Pace::default());
        self.leading.clear();
        self.playlist.open(Segment::new(starts_at, is_discontinuous));
        Ok(())
    }

    fn write(&mut self, frame: &Frame) -> Result<(), Fmp4Error> {
        match self.muxer.push(frame) {
            // A change is announced where the next segment begins, which is soon.
            Err(Fmp4Error::OtherConfig(_)) => return Ok(()),
            pushed => pushed?,
        }
        let at = frame.dts;
        let is_picture = frame.kind() == MediaKind::Video;
        let leads = is_picture || !self.has_pictures;
        if is_picture && self.pace.frames == 0 && !frame.is_keyframe {
            self.playlist.note_dependent();
        }
        if leads {
            self.pace.note(at);
            if self.playlist.open_part_target().is_none() && self.leading.len() < MAX_LEADING {
                self.leading.push(at);
            }
        }
        let stands_still = || at.since(self.pace.newest.unwrap_or(self.part_start)) >= SOUND_LEADS_AFTER;
        if leads {
            self.cut_full(at);
        } else if stands_still() {
            self.cut_overdue(at);
        }
        Ok(())
    }

    fn open_bytes(&self) -> usize {
        self.playlist.open_bytes() + self.muxer.pending_bytes()
    }

    fn end(&mut self, closing: &Closing) {
        if !std::mem::take(&mut self.is_open) {
            return;
        }
        self.cut_rest(closing);
        self.playlist.close(closing.duration);
        // Where a publisher leaves, sound and picture do not end together.
        if self.has_pictures && self.pace.frames > 0 && !closing.is_last {
            self.playlist.note_interval(closing.duration / self.pace.frames);
        }
        debug!(seconds = closing.duration.as_secs_f32(), "low-latency segment closed");
    }

    fn discard(&mut self) -> bool {
        let is_new = self.playlist.discard_open();
        if is_new {
            self.is_open = false;
            self.muxer.flush(None, &mut Vec::new());
        }
        is_new
    }

    fn target_seconds(&self) -> u64 {
        self.playlist.target_seconds()
    }

    fn playlist(&self) -> &LowLatencyPlaylist {
        &self.playlist
    }

    fn complete(&mut self) {
        self.playlist.end();
    }

    fn raise_target(&mut self, seconds: u64) {
        self.playlist.raise_target(seconds);
        if self.playlist.part_target().is_none_or(|target| !self.suits(target)) {
            let target = self.find_part_target();
            self.playlist.set_part_target(target);
        }
        if self.playlist.open_part_target().is_none() {
            // Players begin with parts only if there are some behind the end.
            self.playlist.set_open_part_target();
            for at in std::mem::take(&mut self.leading) {
                self.cut_full(at);
            }
        }
    }
}
