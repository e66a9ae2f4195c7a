//! How often a socket may send: a token bucket that is filled by the time that has passed.

use std::time::{Duration, Instant};

use crate::limits::{MAX_REFUSED_IN_A_ROW, RATE_BURST, RATE_PER_SECOND};

/// The time in which one message is earned.
const PER_MESSAGE: Duration = Duration::from_millis(1_000 / RATE_PER_SECOND as u64);

/// What to do with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Pass,
    Refuse,
    /// It has been told often enough.
    HangUp,
}

/// The messages that one socket may still send.
#[derive(Debug, Clone)]
pub(crate) struct Rate {
    left: u32,
    /// Up to when messages have been earned.
    filled: Instant,
    refused_in_a_row: u32,
}

impl Rate {
    pub(crate) fn new(now: Instant) -> Rate {
        Rate { left: RATE_BURST, filled: now, refused_in_a_row: 0 }
    }

    /// Judges a message that has come.
    pub(crate) fn judge(&mut self, now: Instant) -> Verdict {
        let earned = now.saturating_duration_since(self.filled).as_millis() / PER_MESSAGE.as_millis();
        if earned >= u128::from(RATE_BURST - self.left) {
            self.left = RATE_BURST;
            self.filled = now;
        } else {
            // Less than the burst, so it fits.
            self.left += earned as u32;
            self.filled += PER_MESSAGE * earned as u32;
        }
        if self.left > 0 {
            self.left -= 1;
            self.refused_in_a_row = 0;
            return Verdict::Pass;
        }
        self.refused_in_a_row = self.refused_in_a_row.saturating_add(1);
        if self.refused_in_a_row > MAX_REFUSED_IN_A_ROW { Verdict::HangUp } else { Verdict::Refuse }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(rate: &mut Rate, now: Instant, messages: u32) -> usize {
        (0..messages).filter(|_| rate.judge(now) == Verdict::Pass).count()
    }

    #[test]
    fn a_burst_passes_and_then_twenty_a_second() {
        let start = Instant::now();
        let mut rate = Rate::new(start);
        assert_eq!(passed(&mut rate, start, 100), 60);
        assert_eq!(passed(&mut rate, start + Duration::from_millis(49), 5), 0);
        assert_eq!(passed(&mut rate, start + Duration::from_millis(50), 5), 1);
        // The half of an interval that was left over counts for the next.
        assert_eq!(passed(&mut rate, start + Duration::from_millis(125), 5), 1);
        assert_eq!(passed(&mut rate, start + Duration::from_millis(150), 5), 1);
        assert_eq!(passed(&mut rate, start + Duration::from_millis(1_150), 50), 20);
        assert_eq!(passed(&mut rate, start + Duration::from_secs(3_600), 100), 60);
    }

    #[test]
    fn a_flood_is_hung_up_on_and_a_pause_forgives() {
        let start = Instant::now();
        let mut rate = Rate::new(start);
        for sent in 0..160 {
            assert_ne!(rate.judge(start), Verdict::HangUp, "message {sent}");
        }
        assert_eq!(rate.judge(start), Verdict::HangUp);
        assert_eq!(rate.judge(start + Duration::from_millis(50)), Verdict::Pass);
        assert_eq!(rate.judge(start + Duration::from_millis(50)), Verdict::Refuse);
    }

    #[test]
    fn a_clock_that_stands_still_or_goes_back_is_harmless() {
        let start = Instant::now() + Duration::from_secs(10);
        let mut rate = Rate::new(start);
        assert_eq!(passed(&mut rate, start - Duration::from_secs(5), 100), 60);
    }
}
