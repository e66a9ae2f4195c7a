//! How far the source's time stamps and the samples made have come apart, and what to do about it.
//!
//! A source's sample clock and the clock of its time stamps are never quite the same (100 ppm are usual), and time
//! stamps are rounded, to milliseconds in FLV. So sound is laid out by counting samples, and the count is steered
//! towards the time stamps' average, too slowly to hear. What is too far off to be steered was never there or came
//! twice.

use super::resample::OUT_HZ;

/// Up to here it is drift, beyond it is a jump. A lost AAC frame (21–23 ms) is steered away in seconds, without a hole.
const JUMP_SAMPLES: f64 = 0.040 * OUT_HZ as f64;
/// Where the limit ends up at most for a source whose time stamps wander (taken from a wall clock, say): a quarter of
/// what a viewer would notice between lips and sound.
const MAX_JUMP_SAMPLES: f64 = 0.150 * OUT_HZ as f64;
/// Steering starts here: well above rounding, well below what lips and sound may be apart (−125 to +45 ms, BT.1359).
const START_SAMPLES: f64 = 0.004 * OUT_HZ as f64;
/// And ends here.
const STOP_SAMPLES: f64 = 0.0005 * OUT_HZ as f64;
/// The time over which the error is averaged.
const AVERAGE_SECONDS: f64 = 1.0;
/// The time in which steering would take the error away; a drift of 200 ppm then stands at 2 ms.
const CORRECTION_SECONDS: f64 = 10.0;
/// The strongest bend: 0.3 % is 5 cents, about where trained ears begin to notice a change of pitch.
const MAX_BEND: f64 = 0.003;

/// What to do with a frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Verdict {
    /// Append it, making this share more samples of it.
    Bend(f64),
    /// Start over at its time stamp, which lies this many samples after (or before) where it would be appended.
    Jump(f64),
}

/// The controller. Errors are in output samples, positive if the source is ahead of what was made.
#[derive(Debug, Default)]
pub(super) struct Drift {
    average: f64,
    /// Mean distance of the errors from their average.
    jitter: f64,
    is_steering: bool,
}

impl Drift {
    /// Judges a frame of `length` output samples whose time stamp is `error` samples after where it would be appended.
    pub(super) fn judge(&mut self, error: f64, length: f64) -> Verdict {
        let off_average = (error - self.average).abs();
        if error.abs() > (JUMP_SAMPLES + 4.0 * self.jitter).min(MAX_JUMP_SAMPLES) {
            let jitter = self.jitter;
            *self = Drift::default();
            // Wandering time stamps must be able to raise the limit, though each jump starts the average anew.
            self.jitter = (jitter + JUMP_SAMPLES / 8.0).min(MAX_JUMP_SAMPLES);
            return Verdict::Jump(error);
        }
        let weight = (length / (AVERAGE_SECONDS * f64::from(OUT_HZ))).clamp(0.0, 1.0);
        self.average += weight * (error - self.average);
        self.jitter += weight * (off_average - self.jitter);
        self.is_steering = self.average.abs() > if self.is_steering { STOP_SAMPLES } else { START_SAMPLES };
        if !self.is_steering {
            return Verdict::Bend(0.0);
        }
        Verdict::Bend((self.average / (CORRECTION_SECONDS * f64::from(OUT_HZ))).clamp(-MAX_BEND, MAX_BEND))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where a source ends up in milliseconds after 10 minutes, and how far it was off at worst, if every frame of
    /// 1024 samples takes `ppm` millionths longer by its time stamps and those are rounded down to milliseconds.
    fn run(ppm: f64, first_error_ms: f64) -> (f64, f64) {
        let mut drift = Drift::default();
        let (mut made, mut worst) = (-first_error_ms * 48.0, 0.0f64);
        for i in 0..(600 * OUT_HZ / 1024) {
            let time = f64::from(i) * 1024.0 * (1.0 + ppm / 1e6);
            let Verdict::Bend(by) = drift.judge((time / 48.0).floor() * 48.0 - made, 1024.0) else {
                panic!("jump in frame {i}");
            };
            made += 1024.0 * (1.0 + by);
            if i > 60 * OUT_HZ / 1024 {
                worst = worst.max((made - time - 1024.0).abs() / 48.0);
            }
        }
        (made / 48.0, worst)
    }

    #[test]
    fn ten_minutes_of_drift_stay_within_ten_milliseconds() {
        for ppm in [-1000.0, -200.0, -20.0, 0.0, 20.0, 200.0, 1000.0] {
            for first_error in [0.0, 35.0, -35.0] {
                let (_, worst) = run(ppm, first_error);
                let bound = if ppm.abs() > 200.0 { 12.0 } else { 6.0 };
                assert!(worst < bound, "{ppm} ppm, {first_error} ms at first: {worst} ms");
            }
        }
    }

    #[test]
    fn only_what_is_too_far_off_is_a_jump() {
        for (error_ms, is_jump) in [(0.0, false), (39.0, false), (-39.0, false), (41.0, true), (-41.0, true)] {
            let verdict = Drift::default().judge(error_ms * 48.0, 960.0);
            assert_eq!(matches!(verdict, Verdict::Jump(_)), is_jump, "{error_ms} ms: {verdict:?}");
        }
    }
}
