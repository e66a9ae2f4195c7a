//! Where sound goes on the timeline: sample after sample, as decoders put it out, close to the times that it came with.
//!
//! Times from RTMP are rounded to milliseconds and those of some encoders jitter by more. Written as they are, every
//! packet would leave a tiny gap or overlap with the one before. So packets follow each other by their own lengths, and
//! a part of what that differs from their times is made up at each packet: rounding vanishes, a clock that drifts is
//! followed, a hole is left as it is.

/// Longest distance from the times that came which is evened out; more is a hole, or a jump.
const MAX_JITTER_MS: i64 = 50;
/// At each packet this part of the distance is made up. A millisecond of rounding is then less than a tick at usual
/// rates, and half of any distance is gone after a second.
const SHARE: i64 = 64;

/// The timeline of one sound track, in ticks of its sample rate.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct SoundClock {
    /// Where the next packet goes if it follows the last one.
    next: Option<i64>,
    last: i64,
}

impl SoundClock {
    /// Where a packet of `samples` goes that came with the time `at`.
    pub(super) fn place(&mut self, at: i64, samples: i64, clock_hz: u32) -> i64 {
        let tolerance = i64::from(clock_hz) * MAX_JITTER_MS / 1000;
        let placed = match self.next {
            Some(next) if at.saturating_sub(next).saturating_abs() <= tolerance => next + (at - next) / SHARE,
            Some(_) => at.max(self.last),
            None => at,
        };
        self.last = placed;
        self.next = Some(placed.saturating_add(samples));
        placed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Places packets of 1024 samples at 48 kHz.
    fn place(times: impl Iterator<Item = i64>) -> Vec<i64> {
        let mut clock = SoundClock::default();
        times.map(|at| clock.place(at, 1024, 48_000)).collect()
    }

    #[test]
    fn rounding_vanishes() {
        // As milliseconds, rounded down.
        let placed = place((0..5_000).map(|i| i * 1024 / 48 * 48));
        assert!(placed.windows(2).all(|w| w[1] - w[0] == 1024), "{:?}", &placed[..9]);
    }

    #[test]
    fn drift_is_followed_and_jitter_evened_out() {
        let jitter = |i: i64| (i * 7_919 % 21 - 10) * 48;
        let placed = place((0..20_000).map(|i| 100_000 + i * 1025 + jitter(i)));
        for (i, pair) in placed.windows(2).enumerate() {
            assert!((1024 - 20..=1024 + 20).contains(&(pair[1] - pair[0])), "{i}: {pair:?}");
            let error = (pair[0] - 100_000 - i as i64 * 1025).abs();
            assert!(error <= 15 * 48, "{i}: {error}");
        }
    }

    #[test]
    fn holes_stay_and_time_does_not_run_back() {
        let placed = place([0, 1024, 2048 + 48_000, 3072 + 48_000, 1, 2, 3].into_iter());
        assert_eq!(placed[..4], [0, 1024, 50_048, 51_072]);
        assert!(placed.windows(2).all(|w| w[1] >= w[0]), "{placed:?}");
        let extremes = place([i64::MIN, i64::MAX, i64::MIN, 0, i64::MAX].into_iter());
        assert!(extremes.windows(2).all(|w| w[1] >= w[0]), "{extremes:?}");
    }
}
