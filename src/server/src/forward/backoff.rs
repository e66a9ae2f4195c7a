//! How long to wait before the next attempt: twice as long each time, a little differently each time.

use std::time::Duration;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);

/// A connection that held for so long was a good one: the next failure begins anew.
const GOOD_AFTER: Duration = Duration::from_secs(10);

/// The waits of one target.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The wait after a failure, given how long the target had taken the stream before and a random number from 0 to 1.
    /// Half of the wait is drawn by lot, so that a hundred streams do not all come back in the same moment.
    pub(super) fn after(&mut self, live_for: Duration, random: f64) -> Duration {
        if live_for >= GOOD_AFTER {
            self.failures = 0;
        }
        let whole = FIRST.saturating_mul(1 << self.failures.min(16)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        whole.mul_f64(0.75 + random.clamp(0.0, 1.0) / 2.0).min(LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_bound_and_begin_anew_after_a_good_time() {
        let mut backoff = Backoff::default();
        let mut next = |live| backoff.after(Duration::from_secs(live), 0.5).as_millis();
        let waits: Vec<u128> = (0..7).map(|_| next(0)).collect();
        assert_eq!(waits, [1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
        assert_eq!(next(9), 30_000);
        assert_eq!(next(10), 1000);
        let mut backoff = Backoff::default();
        assert_eq!(backoff.after(Duration::ZERO, 0.0).as_millis(), 750);
        assert_eq!(backoff.after(Duration::ZERO, 1.0).as_millis(), 2500);
        for _ in 0..100 {
            assert!(backoff.after(Duration::ZERO, 1.0) <= LONGEST);
        }
    }
}
