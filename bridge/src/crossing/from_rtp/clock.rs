//! The times of a WebRTC publisher's tracks on one timeline.
//!
//! Every track counts in its own clock from a random number on (RFC 3550 §5.1). A track begins where its first packet
//! arrived, so nothing waits for sender reports; when they have come, they tell how the tracks lie to each other, and
//! pictures are moved there so slowly that nobody sees it. Sound is never moved: its times are its samples, and players
//! take their clock from it. So pictures follow also where the clocks of a publisher's microphone and of its computer
//! run apart.
//!
//! What this does not do: follow the wall clock. The timeline runs as fast as the publisher's sound does.

use std::time::Instant;

use freshet_media::MediaTime;

/// Where the packet that comes first lies. The other track's first one may have come a little before it, and containers
/// know no time below 0.
pub(super) const START_MICROS: i64 = 100_000;
/// No packet lies before this: AAC's first frame comes out 27.8 ms before it, the delays of two codecs.
const EARLIEST: MediaTime = MediaTime::from_millis(30);

/// Steps of RTP time and arrival that differ by more are no jitter but a source that has changed its count.
const JUMP_MICROS: i64 = 5_000_000;
/// RTP time that goes back by more has been set back. Less is B-frames, whatever they do in WebRTC.
const STEP_BACK_MICROS: i64 = 1_000_000;

/// Reports that would move a track by more are about something else: a computer whose clock was set between the
/// reports of its two tracks.
const MAX_MISALIGNMENT_MICROS: i64 = 5_000_000;
/// Of each step of time so much may go into moving a track: 1 %, a tenth of what is seen as unsteady.
const SLEW_SHARE: i64 = 100;
/// The weight of a new report, since reports wander by milliseconds.
const REPORT_WEIGHT: i64 = 4;
/// A longer step counts as this long, so that a pause is no licence to jump.
const MAX_SLEW_STEP_MICROS: i64 = 1_000_000;

/// A moment of a track.
#[derive(Debug, Clone, Copy)]
struct Reference {
    rtp: u32,
    wall_micros: i64,
}

/// The last packet.
#[derive(Debug, Clone, Copy)]
struct Last {
    rtp: u32,
    /// Counted from the track's first packet on, without wrap.
    ticks: i64,
    arrival: Instant,
}

#[derive(Debug)]
struct Track {
    clock_hz: u32,
    last: Option<Last>,
    /// Time of the first packet.
    offset_micros: i64,
    /// What the reports say it should be.
    target_micros: Option<i64>,
    reference: Option<Reference>,
    /// The last time given out.
    latest: MediaTime,
}

impl Track {
    /// Time since the first packet at a tick.
    fn micros(&self, ticks: i64) -> i64 {
        (i128::from(ticks) * 1_000_000 / i128::from(self.clock_hz)) as i64
    }

    fn ticks(&self, micros: i64) -> i64 {
        (i128::from(micros) * i128::from(self.clock_hz) / 1_000_000) as i64
    }

    /// When the moment of the report was since the first packet.
    fn micros_of(&self, reference: Reference, last: Last) -> i64 {
        let ticks = last.ticks.saturating_add(i64::from(reference.rtp.wrapping_sub(last.rtp).cast_signed()));
        self.micros(ticks)
    }

    /// Time minus wall time by the last report.
    fn time_minus_wall(&self) -> Option<i64> {
        let (reference, last) = (self.reference?, self.last?);
        let time = self.offset_micros.saturating_add(self.micros_of(reference, last));
        Some(time.saturating_sub(reference.wall_micros))
    }

    /// The offset that makes time minus wall time what it is on another track.
    fn offset_for(&self, time_minus_wall: i64, last: Last) -> Option<i64> {
        let reference = self.reference?;
        let time = reference.wall_micros.saturating_add(time_minus_wall);
        Some(time.saturating_sub(self.micros_of(reference, last)))
    }
}

/// The clocks of all tracks.
#[derive(Debug)]
pub(super) struct Clocks {
    origin: Option<Instant>,
    tracks: Vec<Track>,
    /// The track that is never moved.
    master: usize,
}

impl Clocks {
    /// For tracks of these rates. The others follow `master`.
    pub(super) fn new(clocks_hz: impl Iterator<Item = u32>, master: usize) -> Clocks {
        let track = |clock_hz: u32| Track {
            clock_hz: clock_hz.max(1),
            last: None,
            offset_micros: 0,
            target_micros: None,
            reference: None,
            latest: EARLIEST,
        };
        Clocks { origin: None, tracks: clocks_hz.map(track).collect(), master }
    }

    /// The time of a packet, in the order of sequence numbers.
    pub(super) fn place(&mut self, track: usize, rtp: u32, arrival: Instant) -> MediaTime {
        let origin = *self.origin.get_or_insert(arrival);
        let others_minus_wall = self.others_minus_wall(track);
        let is_master = track == self.master;
        let Some(track) = self.tracks.get_mut(track) else { return MediaTime::default() };
        let last = match track.last {
            None => {
                let last = Last { rtp, ticks: 0, arrival };
                let arrived = START_MICROS.saturating_add(signed_micros(origin, arrival));
                let reported = others_minus_wall.and_then(|others| track.offset_for(others, last));
                let is_plausible = |offset: &i64| offset.abs_diff(arrived) <= MAX_MISALIGNMENT_MICROS.unsigned_abs();
                track.offset_micros = reported.filter(is_plausible).unwrap_or(arrived);
                last
            }
            Some(last) => step(track, last, rtp, arrival, is_master),
        };
        track.last = Some(last);
        let time = track.offset_micros.saturating_add(track.micros(last.ticks));
        track.latest = track.latest.max(MediaTime::from_micros(time));
        track.latest
    }

    /// A sender report: the packet of this RTP time was at this wall time.
    pub(super) fn refer(&mut self, track: usize, rtp: u32, wall_micros: i64) {
        let Some(referred) = self.tracks.get_mut(track) else { return };
        referred.reference = Some(Reference { rtp, wall_micros });
        let Some(master_minus_wall) = self.tracks.get(self.master).and_then(Track::time_minus_wall) else { return };
        for (i, follower) in self.tracks.iter_mut().enumerate() {
            let Some(last) = follower.last.filter(|_| i != self.master) else { continue };
            let Some(offset) = follower.offset_for(master_minus_wall, last) else { continue };
            if offset.abs_diff(follower.offset_micros) > MAX_MISALIGNMENT_MICROS.unsigned_abs() {
                continue;
            }
            let target = follower.target_micros.map_or(offset, |target| target + (offset - target) / REPORT_WEIGHT);
            follower.target_micros = Some(target);
        }
    }

    fn others_minus_wall(&self, track: usize) -> Option<i64> {
        let others = self.tracks.iter().enumerate().filter(|(i, _)| *i != track);
        others.filter_map(|(_, other)| other.time_minus_wall()).next()
    }
}

/// Moves a track on to its next packet.
fn step(track: &mut Track, last: Last, rtp: u32, arrival: Instant, is_master: bool) -> Last {
    let ticks = i64::from(rtp.wrapping_sub(last.rtp).cast_signed());
    let (stepped, arrived) = (track.micros(ticks), signed_micros(last.arrival, arrival));
    if stepped < -STEP_BACK_MICROS || stepped.abs_diff(arrived) > JUMP_MICROS.unsigned_abs() {
        // The track goes on after the time that has passed. Reports were about the former count.
        (track.reference, track.target_micros) = (None, None);
        let ticks = last.ticks.saturating_add(track.ticks(arrived.max(0)));
        return Last { rtp, ticks, arrival };
    }
    if let Some(target) = track.target_micros.filter(|_| !is_master) {
        let most = stepped.clamp(0, MAX_SLEW_STEP_MICROS) / SLEW_SHARE;
        track.offset_micros += (target - track.offset_micros).clamp(-most, most);
    }
    Last { rtp, ticks: last.ticks.saturating_add(ticks), arrival }
}

/// From one moment to another, which may be the earlier one.
fn signed_micros(from: Instant, to: Instant) -> i64 {
    let micros = |duration: std::time::Duration| i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
    match to.checked_duration_since(from) {
        Some(later) => micros(later),
        None => -micros(from.saturating_duration_since(to)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const AUDIO: usize = 0;
    const VIDEO: usize = 1;

    fn clocks() -> Clocks {
        Clocks::new([48_000, 90_000].into_iter(), AUDIO)
    }

    fn us(micros: i64) -> Duration {
        Duration::from_micros(micros as u64)
    }

    #[test]
    fn a_day_of_times_wraps_without_a_trace() {
        let start = Instant::now();
        let mut clocks = clocks();
        let (audio_base, video_base) = (u32::MAX - 1000, u32::MAX - 5);
        for second in 0..30 * 3600_i64 {
            let arrival = start + us(second * 1_000_000);
            let audio = clocks.place(AUDIO, audio_base.wrapping_add((second * 48_000) as u32), arrival);
            let video = clocks.place(VIDEO, video_base.wrapping_add((second * 90_000) as u32), arrival);
            assert_eq!((audio.micros(), video.micros()), (START_MICROS + second * 1_000_000, audio.micros()));
        }
    }

    #[test]
    fn a_late_report_moves_pictures_slowly_and_sound_not_at_all() {
        // The first picture was 80 ms on its way longer than the first sound.
        let start = Instant::now();
        let mut clocks = clocks();
        let mut last = None;
        for i in 0..900_i64 {
            let (at, arrival) = (i * 33_333, start + us(i * 33_333 + if i == 0 { 80_000 } else { 0 }));
            let audio = clocks.place(AUDIO, (at * 48 / 1000) as u32, start + us(at));
            assert!((audio.micros() - at - START_MICROS).abs() < 30);
            let video = clocks.place(VIDEO, (at * 90 / 1000) as u32, arrival).micros();
            let off = video - audio.micros();
            match i {
                ..150 => assert!((off - 80_000).abs() < 30, "{i}: {off}"),
                500.. => assert!(off.abs() < 200, "{i}: {off}"),
                _ => {}
            }
            if let Some(last) = last.replace(video) {
                assert!((32_900..33_800).contains(&(video - last)), "{i}: {}", video - last);
            }
            // Both reports, whose wall times wander by 1 ms; at first only that of the sound.
            if i >= 100 && i % 25 == 0 {
                clocks.refer(AUDIO, (at * 48 / 1000) as u32, 77_000_000_000 + at);
            }
            if i >= 150 && i % 25 == 0 {
                clocks.refer(VIDEO, (at * 90 / 1000) as u32, 77_000_000_000 + at);
            }
        }
    }

    #[test]
    fn clocks_that_run_apart_stay_together() {
        // The microphone runs 200 ppm fast.
        let start = Instant::now();
        let mut clocks = clocks();
        for i in 0..3600_i64 * 4 {
            let (at, arrival) = (i * 250_000, start + us(i * 250_000));
            let sound = at + at / 5000;
            let audio = clocks.place(AUDIO, (sound * 48 / 1000) as u32, arrival);
            let video = clocks.place(VIDEO, (at * 90 / 1000) as u32, arrival);
            let off = video.micros() - audio.micros();
            assert!(off.abs() < 5_000, "{i}: {off}");
            if i % 4 == 0 {
                clocks.refer(AUDIO, (sound * 48 / 1000) as u32, at);
                clocks.refer(VIDEO, (at * 90 / 1000) as u32, at);
            }
        }
    }

    #[test]
    fn what_is_known_before_the_first_packet_is_used() {
        let start = Instant::now();
        let mut clocks = clocks();
        clocks.refer(VIDEO, 90_000, 1_000_000);
        clocks.refer(AUDIO, 0, 1_000_000);
        // Pictures from the cache first, then the sound, 500 ms after them and 60 ms on its way.
        assert_eq!(clocks.place(VIDEO, 90_000, start).micros(), START_MICROS);
        let audio = clocks.place(AUDIO, 24_000, start + us(560_000));
        assert_eq!(audio.micros(), START_MICROS + 500_000);
    }

    #[test]
    fn counts_that_are_set_go_on_by_arrival() {
        let start = Instant::now();
        let cases: [(i64, u32, i64); 6] = [
            // Time since the last packet, RTP step, time that it should have.
            (20_000, 1_800, 20_000),
            (20_000, 900_000_000, 20_000),
            (20_000, 0u32.wrapping_sub(900_000_000), 20_000),
            (3_600_000_000, 1_800, 3_600_000_000),
            // A stall and what it had held up, a pause with a clock that went on.
            (3_000_000, 1_800, 20_000),
            (600_000_000, 54_000_000, 600_000_000),
        ];
        for (waited, step, expected) in cases {
            let mut clocks = clocks();
            clocks.place(VIDEO, 5, start);
            clocks.refer(VIDEO, 5, 0);
            let time = clocks.place(VIDEO, 5u32.wrapping_add(step), start + us(waited));
            assert_eq!(time.micros(), START_MICROS + expected, "{waited} {step}");
            let next = clocks.place(VIDEO, 5u32.wrapping_add(step).wrapping_add(3000), start + us(waited + 33_333));
            assert!((next.micros() - time.micros() - 33_333).abs() <= 1, "{waited} {step}");
        }
    }

    #[test]
    fn nonsense_is_survived() {
        let start = Instant::now();
        let mut clocks = clocks();
        for (i, wall) in [i64::MAX, i64::MIN, 0, -1].into_iter().enumerate() {
            clocks.refer(AUDIO, (i as u32).wrapping_mul(0x4000_0000), wall);
            clocks.place(VIDEO, (i as u32).wrapping_mul(0x7000_0000), start);
            clocks.refer(VIDEO, (i as u32).wrapping_mul(0x7fff_ffff), wall);
            clocks.place(AUDIO, (i as u32).wrapping_mul(0x8000_0000), start);
            clocks.refer(9, 0, wall);
            clocks.place(9, 0, start);
        }
    }
}
