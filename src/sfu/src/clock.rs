//! One wall clock for all tracks of a publisher, from which viewers' sender reports are made.
//!
//! Players keep lips and sound together by the NTP times of sender reports. A publisher's reports tie its RTP times to
//! its own clock; that clock is tied to ours once per publisher, so both tracks are shifted by the same amount and no
//! network jitter enters. Until a track's first report its first packet's arrival stands in.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Seconds from 1900 to 1970.
const NTP_UNIX_OFFSET_SECONDS: u64 = 2_208_988_800;

/// Microseconds since 1970.
pub type UnixMicros = i64;

/// Ties the monotonic clock to the wall clock, once per process.
#[derive(Debug, Clone, Copy)]
pub struct Epoch {
    instant: Instant,
    unix: UnixMicros,
}

impl Epoch {
    /// Both clocks at the same moment.
    pub fn new(instant: Instant, system: SystemTime) -> Epoch {
        Epoch { instant, unix: unix_micros(system) }
    }

    /// Milliseconds since the epoch was taken, at least 1.
    pub fn millis(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.instant).as_millis() as u64 + 1
    }

    /// The wall time of an instant.
    pub fn wall(&self, at: Instant) -> UnixMicros {
        match at.checked_duration_since(self.instant) {
            Some(later) => self.unix + micros(later),
            None => self.unix - micros(self.instant - at),
        }
    }
}

fn micros(d: Duration) -> i64 {
    i64::try_from(d.as_micros()).unwrap_or(i64::MAX)
}

pub(crate) fn unix_micros(time: SystemTime) -> UnixMicros {
    match time.duration_since(UNIX_EPOCH) {
        Ok(d) => micros(d),
        Err(e) => -micros(e.duration()),
    }
}

/// NTP time in 32.32 fixed point (RFC 5905 §6).
pub(crate) fn ntp(wall: UnixMicros) -> u64 {
    let wall = wall.max(0) as u64;
    let seconds = wall / 1_000_000 + NTP_UNIX_OFFSET_SECONDS;
    let fraction = ((wall % 1_000_000) << 32) / 1_000_000;
    seconds << 32 | fraction
}

/// A moment on a track: its RTP time and its wall time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockReference {
    /// RTP time.
    pub rtp: u32,
    /// Wall time.
    pub wall: UnixMicros,
}

impl ClockReference {
    /// Wall time of another RTP time of the track, at most half a wrap away.
    pub(crate) fn wall_of(&self, rtp: u32, clock_hz: u32) -> UnixMicros {
        let ticks = i64::from(rtp.wrapping_sub(self.rtp) as i32);
        self.wall + ticks * 1_000_000 / i64::from(clock_hz.max(1))
    }
}

/// The clock of one publisher.
#[derive(Debug, Default)]
pub(crate) struct PublisherClock {
    /// Ours minus the publisher's.
    offset: Option<i64>,
}

impl PublisherClock {
    /// Takes a sender report that says "`rtp` was at `ntp`" and arrived at `arrival`, all wall times.
    pub(crate) fn sender_report(&mut self, rtp: u32, ntp: UnixMicros, arrival: UnixMicros) -> ClockReference {
        let mut offset = *self.offset.get_or_insert(arrival - ntp);
        // A publisher that set its clock: begin anew rather than tell viewers times from another hour.
        if (arrival - ntp - offset).abs() > 5_000_000 {
            offset = arrival - ntp;
            self.offset = Some(offset);
        }
        ClockReference { rtp, wall: ntp + offset }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_tracks_keep_the_publishers_distance() {
        let mut clock = PublisherClock::default();
        // The publisher's clock is an hour off; its reports take 40 and 90 ms.
        let hour = 3_600_000_000;
        let audio = clock.sender_report(48_000, 1_000_000, hour + 1_040_000);
        let video = clock.sender_report(90_000, 1_000_000, hour + 1_090_000);
        assert_eq!(audio.wall_of(96_000, 48_000), video.wall_of(180_000, 90_000));
    }

    #[test]
    fn wall_of_counts_over_the_wrap() {
        let reference = ClockReference { rtp: u32::MAX - 44_999, wall: 0 };
        assert_eq!(reference.wall_of(45_000, 90_000), 1_000_000);
        assert_eq!(reference.wall_of(u32::MAX - 89_999, 90_000), -500_000);
    }

    #[test]
    fn ntp_of_the_unix_epoch() {
        assert_eq!(ntp(500_000), 2_208_988_800 << 32 | 1 << 31);
    }
}
