//! Gathers frames and writes them fragment by fragment.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use freshet_media::{Frame, MediaKind, MediaTime, Mp3Header, packet_samples};

use super::fragment::{self, Run, Sample};
use super::sound_clock::SoundClock;
use super::track::{Fmp4Track, Shape};
use super::{Fmp4Error, FragmentInfo, init, track_id};

/// Most bytes that wait for the end of their fragment: 30 s of 17 Mbit/s, which no segment exceeds either.
const MAX_PENDING_BYTES: usize = 64 * 1024 * 1024;
/// Most frames that do: a minute of 240 pictures and 400 packets of sound a second.
const MAX_PENDING_FRAMES: usize = 40_000;

/// Distance of pictures until it is known, and the longest that is believed.
const DEFAULT_INTERVAL: Duration = Duration::from_millis(33);
const MAX_INTERVAL: Duration = Duration::from_secs(1);
/// A packet of sound that does not tell how long it is: 20 ms.
const DEFAULT_SOUND_PER_SECOND: u32 = 50;

/// A frame that waits.
#[derive(Debug)]
struct Pending {
    dts: MediaTime,
    /// Its decoding time in ticks, as it will be written.
    at: i64,
    composition_offset: i64,
    /// In ticks, of sound; pictures last until the next one.
    own_duration: Option<i64>,
    is_keyframe: bool,
    data: Bytes,
}

/// One announced track.
#[derive(Debug)]
struct Track {
    info: Fmp4Track,
    pending: VecDeque<Pending>,
    clock: SoundClock,
    /// Of pictures.
    interval: Duration,
    newest: Option<MediaTime>,
}

impl Track {
    fn new(info: &Fmp4Track) -> Track {
        let (pending, clock) = (VecDeque::new(), SoundClock::default());
        Track { info: info.clone(), pending, clock, interval: DEFAULT_INTERVAL, newest: None }
    }

    fn note_time(&mut self, dts: MediaTime) {
        if let Some(before) = self.newest.replace(dts) {
            let interval = dts.since(before);
            if !interval.is_zero() {
                self.interval = interval.min(MAX_INTERVAL);
            }
        }
    }

    /// How long a packet of sound says to be, in ticks.
    fn sound_samples(&self, data: &[u8]) -> Option<i64> {
        let usual = self.info.clock_hz / DEFAULT_SOUND_PER_SECOND;
        let samples = match &self.info.shape {
            Shape::Picture { .. } => return None,
            Shape::Aac(aac) => aac.frame_length.into(),
            Shape::Mp3(header) => Mp3Header::parse(data).unwrap_or(*header).frame_samples.into(),
            Shape::Opus(_) => packet_samples(data).unwrap_or(usual),
        };
        Some(samples.into())
    }

    fn push(&mut self, frame: &Frame, origin: MediaTime, data: Bytes) {
        let clock_hz = self.info.clock_hz;
        let ticks = |time: MediaTime| time.ticks(clock_hz).saturating_sub(origin.ticks(clock_hz));
        let own_duration = self.sound_samples(&data);
        let at = match own_duration {
            Some(samples) => self.clock.place(ticks(frame.dts), samples, clock_hz),
            None => ticks(frame.dts),
        };
        let composition_offset = if own_duration.is_some() { 0 } else { ticks(frame.pts).saturating_sub(at) };
        let (dts, is_keyframe) = (frame.dts, frame.is_keyframe || own_duration.is_some());
        self.note_time(dts);
        self.pending.push_back(Pending { dts, at: at.max(0), composition_offset, own_duration, is_keyframe, data });
    }

    /// Takes the frames before `until` out; all if there is none.
    fn take_run(&mut self, until: Option<MediaTime>) -> Option<(Run, FragmentInfo)> {
        let is_later = |frame: &Pending| until.is_some_and(|until| frame.dts >= until);
        let count = self.pending.iter().position(is_later).unwrap_or(self.pending.len());
        let taken: Vec<Pending> = self.pending.drain(..count).collect();
        let (first, last) = (taken.first()?, taken.last()?);
        let end = self.pending.front().map_or_else(|| self.expected_end(last, until), |next| next.at);
        let duration = clamp_u32(end.saturating_sub(first.at));
        let info = FragmentInfo {
            start: first.dts,
            duration: Duration::from_nanos(u64::from(duration) * 1_000_000_000 / u64::from(self.info.clock_hz)),
            is_independent: first.is_keyframe,
            has_keyframe: taken.iter().any(|frame| frame.is_keyframe),
        };
        let ends = taken.iter().skip(1).map(|next| next.at).chain([end]);
        let samples = taken.iter().zip(ends).map(|(frame, end)| Sample {
            duration: clamp_u32(end.saturating_sub(frame.at)),
            composition_offset: frame.composition_offset.clamp(i32::MIN.into(), i32::MAX.into()) as i32,
            is_sync: frame.is_keyframe,
            data: frame.data.clone(),
        });
        let kind = self.info.kind();
        let run = Run {
            track_id: track_id(kind),
            base_time: first.at.unsigned_abs(),
            is_sound: kind == MediaKind::Audio,
            samples: samples.collect(),
        };
        Some((run, info))
    }

    /// Where a frame ends whose follower is not known.
    fn expected_end(&self, last: &Pending, until: Option<MediaTime>) -> i64 {
        let duration = last.own_duration.unwrap_or_else(|| {
            // A cut is usually made where the next picture is.
            let to_cut = until.map(|until| until.since(last.dts));
            let distance = to_cut.filter(|to_cut| *to_cut <= self.interval * 2).unwrap_or(self.interval);
            (MediaTime::default() + distance).ticks(self.info.clock_hz)
        });
        last.at.saturating_add(duration)
    }
}

/// Durations that do not fit are absurd, and so are negative ones.
fn clamp_u32(ticks: i64) -> u32 {
    u32::try_from(ticks.max(0)).unwrap_or(u32::MAX)
}

/// Writes one stream as fragmented MP4.
#[derive(Debug, Default)]
pub struct Fmp4Muxer {
    audio: Option<Track>,
    video: Option<Track>,
    origin: MediaTime,
    /// Of the last fragment.
    sequence: u32,
    pending_bytes: usize,
}

impl Fmp4Muxer {
    /// A stream without tracks.
    pub fn new() -> Fmp4Muxer {
        Fmp4Muxer::default()
    }

    /// Sets the time that becomes 0. Files want that of their first frame; segments of a stream share the stream's own
    /// and leave this at 0. Frames before it are written as if they were there.
    pub fn set_origin(&mut self, origin: MediaTime) {
        self.origin = origin;
    }

    /// Sets the tracks that the next initialization segment announces. Frames that wait are dropped; what is before a
    /// change is to be flushed before. A track that stays as it is goes on without a seam.
    pub fn set_tracks(&mut self, audio: Option<&Fmp4Track>, video: Option<&Fmp4Track>) {
        for (track, wanted) in [(&mut self.audio, audio), (&mut self.video, video)] {
            match (track.as_mut(), wanted) {
                (Some(track), Some(wanted)) if track.info.clock_hz == wanted.clock_hz => {
                    track.info = wanted.clone();
                    track.pending.clear();
                }
                _ => *track = wanted.map(Track::new),
            }
        }
        self.pending_bytes = 0;
    }

    /// The initialization segment of these tracks: `ftyp` and `moov`.
    pub fn init_segment(&self) -> Vec<u8> {
        let tracks: Vec<_> = [&self.video, &self.audio].into_iter().flatten().map(|track| &track.info).collect();
        let mut out = Vec::with_capacity(1_500);
        init::write(&mut out, &tracks);
        out
    }

    /// Takes a frame, which waits until [`Fmp4Muxer::flush`].
    ///
    /// # Errors
    /// The frame is malformed, its track is not announced or was so with another configuration, or too much waits. The
    /// frame is left out.
    pub fn push(&mut self, frame: &Frame) -> Result<(), Fmp4Error> {
        let (kind, frames) = (frame.kind(), self.pending_frames());
        let track = match kind {
            MediaKind::Audio => &mut self.audio,
            MediaKind::Video => &mut self.video,
        };
        let Some(track) = track else { return Err(Fmp4Error::NoTrack(kind)) };
        if !track.info.takes(&frame.config) {
            return Err(Fmp4Error::OtherConfig(kind));
        }
        let data = track.info.shape.sample(frame)?;
        let bytes = self.pending_bytes + data.len();
        if bytes > MAX_PENDING_BYTES || frames >= MAX_PENDING_FRAMES {
            return Err(Fmp4Error::Full { frames, bytes: self.pending_bytes });
        }
        self.pending_bytes = bytes;
        track.push(frame, self.origin, data);
        Ok(())
    }

    /// Appends one fragment of all frames that are decoded before `until`, or of all that wait, and says what is in it.
    /// Nothing is appended if there are none. The last frame of each track lasts until the next one that waits, or as
    /// long as the ones before.
    pub fn flush(&mut self, until: Option<MediaTime>, out: &mut Vec<u8>) -> Option<FragmentInfo> {
        let tracks = [&mut self.video, &mut self.audio].into_iter().flatten();
        let (runs, infos): (Vec<Run>, Vec<FragmentInfo>) = tracks.filter_map(|track| track.take_run(until)).unzip();
        let mut info = *infos.first()?;
        // Sound alone is no place to begin at, if there is a picture.
        let lacks_picture = self.video.is_some() && runs.iter().all(|run| run.is_sound);
        info.is_independent &= !lacks_picture;
        info.has_keyframe &= !lacks_picture;
        let bytes: usize = runs.iter().flat_map(|run| &run.samples).map(|sample| sample.data.len()).sum();
        self.pending_bytes = self.pending_bytes.saturating_sub(bytes);
        self.sequence = self.sequence.wrapping_add(1);
        fragment::write(out, self.sequence, &runs);
        Some(info)
    }

    /// How many frames wait.
    pub fn pending_frames(&self) -> usize {
        [&self.audio, &self.video].into_iter().flatten().map(|track| track.pending.len()).sum()
    }

    /// How many bytes of frames wait.
    pub fn pending_bytes(&self) -> usize {
        self.pending_bytes
    }
}
