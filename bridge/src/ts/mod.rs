//! MPEG transport streams: one program with one picture and one sound track at most, as HLS segments hold them.
//!
//! ISO/IEC 13818-1 (ITU-T H.222.0) for packets, tables and PES; RFC 8216 §3.2 for what HLS adds. Carried: H.264, H.265,
//! AAC with ADTS headers, MP3. One [`TsMuxer`] writes all segments of a stream one after the other, so that continuity
//! counters run on over them. Not done: other tables than PAT and PMT, encryption, constant bit rate.

mod elementary;
mod packet;
mod tables;

use std::sync::Arc;

use freshet_media::{Codec, Frame, MediaKind, MediaTime, TrackConfig};
use thiserror::Error;

use elementary::Elementary;
use packet::{CLOCK_HZ, Counter, PesHeader, PesTimes, push_clock, push_pes};

/// Where the tracks are, customary numbers.
const PMT_PID: u16 = 0x1000;
const VIDEO_PID: u16 = 0x100;
const AUDIO_PID: u16 = 0x101;

/// Times in the stream are later than those of the frames by this: room for the clock, which goes before the decoding
/// times, and for presentation times a little below zero.
const TIME_OFFSET: i64 = CLOCK_HZ;

/// The clock goes ahead of decoding by this: data must have arrived before its decoding time, also that of the other
/// track, which encoders interleave by a few hundred milliseconds at most.
const CLOCK_LEAD: i64 = CLOCK_HZ / 2;

/// Longest distance of clock references. §2.7.2 allows 100 ms.
const MAX_CLOCK_INTERVAL: i64 = CLOCK_HZ / 10;

/// Sound moves the clock on where pictures are too rare to do it, but only this far behind its own times: pictures that
/// are merely interleaved late must not come after the clock.
const SOUND_HOLDS_BACK: i64 = CLOCK_HZ * 3 / 10;

/// A hole that long is a break, over which the clock jumps.
const MAX_FILLED_HOLE: i64 = 5 * CLOCK_HZ;

/// Why a track or a frame cannot be carried.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TsError {
    /// There is no place for the codec.
    #[error("{0} cannot be carried in MPEG-TS; H.264, H.265, AAC and MP3 can")]
    Codec(Codec),
    /// Its decoder configuration is not understood.
    #[error("the decoder configuration of {codec} cannot be used: {reason}")]
    Config {
        /// The codec.
        codec: Codec,
        /// What is wrong.
        reason: String,
    },
    /// The frame's track has not been announced in the tables.
    #[error("a frame of {0} came that no table announces")]
    NoTrack(MediaKind),
    /// Lengths within the frame go beyond its end, or nothing is in it.
    #[error("a frame of {0} is malformed")]
    Malformed(Codec),
    /// Sound packets have lengths of 16 bits.
    #[error("a packet of sound of {0} bytes is too large")]
    TooLarge(usize),
}

/// Whether MPEG-TS can carry a track.
///
/// # Errors
/// It cannot; the error says why.
pub fn check_track(config: &TrackConfig) -> Result<(), TsError> {
    Elementary::new(config).map(|_| ())
}

/// One announced track.
#[derive(Debug)]
struct Track {
    config: Arc<TrackConfig>,
    elementary: Elementary,
}

/// Writes a transport stream.
#[derive(Debug, Default)]
pub struct TsMuxer {
    audio: Option<Track>,
    video: Option<Track>,
    counters: Counters,
    /// `version_number` of the PMT.
    version: u8,
    /// The last clock reference, in ticks that do not wrap.
    clock: Option<i64>,
    /// An access unit on its way into packets; kept for its allocation.
    unit: Vec<u8>,
}

#[derive(Debug, Default)]
struct Counters {
    pat: Counter,
    pmt: Counter,
    audio: Counter,
    video: Counter,
}

impl TsMuxer {
    /// A stream without tracks.
    pub fn new() -> TsMuxer {
        TsMuxer::default()
    }

    /// Sets the tracks that the next tables announce.
    ///
    /// # Errors
    /// One of them cannot be carried; nothing changes then.
    pub fn set_tracks(
        &mut self,
        audio: Option<&Arc<TrackConfig>>,
        video: Option<&Arc<TrackConfig>>,
    ) -> Result<(), TsError> {
        let track = |config: Option<&Arc<TrackConfig>>| {
            let made =
                config.map(|config| Ok(Track { config: Arc::clone(config), elementary: Elementary::new(config)? }));
            made.transpose()
        };
        let (audio, video) = (track(audio)?, track(video)?);
        let types =
            |tracks: [&Option<Track>; 2]| tracks.map(|track| track.as_ref().map(|t| t.elementary.stream_type()));
        if types([&audio, &video]) != types([&self.audio, &self.video]) {
            // Five bits; receivers only ask whether it is another one.
            self.version = (self.version + 1) & 0x1f;
        }
        (self.audio, self.video) = (audio, video);
        Ok(())
    }

    /// Writes PAT and PMT, which every segment begins with (RFC 8216 §3.2).
    pub fn write_tables(&mut self, out: &mut Vec<u8>) {
        tables::push_pat(out, &mut self.counters.pat, PMT_PID);
        let streams = [(VIDEO_PID, &self.video), (AUDIO_PID, &self.audio)];
        let streams: Vec<_> =
            streams.iter().filter_map(|(pid, track)| Some((*pid, track.as_ref()?.elementary.stream_type()))).collect();
        let place = (PMT_PID, self.clock_pid(), self.version);
        tables::push_pmt(out, &mut self.counters.pmt, place, &streams);
    }

    /// Writes a frame. One that cannot be written leaves nothing behind.
    ///
    /// # Errors
    /// The frame is malformed, or its track is not announced.
    pub fn write_frame(&mut self, frame: &Frame, out: &mut Vec<u8>) -> Result<(), TsError> {
        let kind = frame.kind();
        let track = match kind {
            MediaKind::Audio => &mut self.audio,
            MediaKind::Video => &mut self.video,
        };
        let Some(track) = track else { return Err(TsError::NoTrack(kind)) };
        if !Arc::ptr_eq(&track.config, &frame.config) {
            track.elementary = Elementary::new(&frame.config)?;
            track.config = Arc::clone(&frame.config);
        }
        self.unit.clear();
        track.elementary.push(frame, &mut self.unit)?;
        let ticks = |time: MediaTime| time.ticks(CLOCK_HZ as u32).saturating_add(TIME_OFFSET);
        let times = PesTimes { pts: ticks(frame.pts), dts: ticks(frame.dts) };
        let due = times.dts.saturating_sub(CLOCK_LEAD);
        let clock = self.clock.map_or(due, |last| last.max(due));
        let clock_pid = self.clock_pid();
        let (pid, stream_id, counter) = match kind {
            MediaKind::Audio => (AUDIO_PID, 0xc0, &mut self.counters.audio),
            MediaKind::Video => (VIDEO_PID, 0xe0, &mut self.counters.video),
        };
        let carries_clock = pid == clock_pid;
        if carries_clock {
            fill_clock_gap(&mut self.clock, clock, pid, counter, out);
            self.clock = Some(clock);
        }
        let header = PesHeader {
            pid,
            stream_id,
            times,
            clock: carries_clock.then_some(clock),
            is_entry: frame.is_keyframe && carries_clock,
        };
        push_pes(out, counter, &header, &self.unit);
        if !carries_clock {
            // Sound goes on while there is no picture.
            let until = due.saturating_sub(SOUND_HOLDS_BACK);
            fill_clock_gap(&mut self.clock, until, clock_pid, &self.counters.video, out);
        }
        Ok(())
    }

    fn clock_pid(&self) -> u16 {
        if self.video.is_some() { VIDEO_PID } else { AUDIO_PID }
    }
}

/// Writes the clock references that are due between the last one and `until`.
fn fill_clock_gap(last: &mut Option<i64>, until: i64, pid: u16, counter: &Counter, out: &mut Vec<u8>) {
    let Some(last) = last else { return };
    if until.saturating_sub(*last) > MAX_FILLED_HOLE {
        *last = until;
    }
    while until - *last > MAX_CLOCK_INTERVAL {
        *last += MAX_CLOCK_INTERVAL;
        push_clock(out, pid, counter, *last);
    }
}

#[cfg(test)]
#[path = "mux_tests.rs"]
mod tests;
