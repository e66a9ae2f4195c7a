//! How long a viewer's player should hold pictures back, so that repairs arrive before they are shown.
//!
//! Browsers size their jitter buffer by the jitter of packets that were not sent again; every loss then shows as a
//! stall of a round trip. The playout-delay header extension tells them a minimum. On a clean network that is zero
//! and costs no byte; with loss it is what the repairs have lately taken, on the publisher's leg as it was seen here,
//! on the viewer's as its NACKs and its round trip tell.

use std::time::{Duration, Instant};

/// What repairs took counts half after this time.
const HALF_LIFE: Duration = Duration::from_secs(15);
/// Repairs that take longer are too rare or too late to wait for.
const MAX: Duration = Duration::from_millis(800);
/// What a receiver needs to notice a gap and we to answer, beyond the round trip.
const REACTION: Duration = Duration::from_millis(30);
/// Shares of packets NACKed by which one or two repairs of the same packet are provided for, in per mille.
const ONE_ROUND_PERMILLE: u32 = 3;
const TWO_ROUNDS_PERMILLE: u32 = 40;
/// The shortest delay that is worth telling.
const WORTHWHILE: Duration = Duration::from_millis(20);

/// The time that most repairs have lately taken: quick to rise, slow to fall, not held up by a single late one.
#[derive(Debug, Default)]
pub(crate) struct Lateness {
    usual: Option<(Duration, Instant)>,
}

impl Lateness {
    /// A packet came that much behind its successor.
    pub(crate) fn note(&mut self, late_by: Duration, now: Instant) {
        let usual = self.value(now);
        if let Some(more) = late_by.checked_sub(usual).filter(|_| late_by <= MAX) {
            self.usual = Some((usual + more / 2, now));
        }
    }

    pub(crate) fn value(&self, now: Instant) -> Duration {
        self.usual.map_or(Duration::ZERO, |(usual, at)| {
            let age = now.saturating_duration_since(at).as_secs_f32() / HALF_LIFE.as_secs_f32();
            usual.mul_f32(0.5_f32.powf(age))
        })
    }
}

/// The minimum delay that one viewer is told.
#[derive(Debug, Default)]
pub(crate) struct Patience {
    served: u32,
    sent: u32,
    loss_permille: f32,
    delay: Duration,
    told: bool,
}

impl Patience {
    /// A packet was sent for the first time.
    pub(crate) fn sent(&mut self) {
        self.sent += 1;
    }

    /// A packet was sent again.
    pub(crate) fn resent(&mut self) {
        self.served += 1;
    }

    /// Called about once a second.
    pub(crate) fn update(&mut self, upstream: Duration, rtt: Option<Duration>) {
        let (served, sent) = (std::mem::take(&mut self.served), std::mem::take(&mut self.sent));
        if sent > 0 {
            let now = served as f32 * 1000.0 / sent as f32;
            // Quick to believe in loss, slow to forget it.
            let weight = if now > self.loss_permille { 0.5 } else { 0.1 };
            self.loss_permille += (now - self.loss_permille) * weight;
        }
        let rounds = match self.loss_permille as u32 {
            ..ONE_ROUND_PERMILLE => 0,
            ONE_ROUND_PERMILLE..TWO_ROUNDS_PERMILLE => 1,
            _ => 2,
        };
        let downstream = (rtt.unwrap_or_default() + REACTION) * rounds;
        let wanted = (upstream + downstream).min(MAX);
        self.delay = if wanted >= self.delay { wanted } else { self.delay - (self.delay - wanted) / 10 };
        if self.delay < WORTHWHILE {
            self.delay = Duration::ZERO;
        }
        self.told |= !self.delay.is_zero();
    }

    /// The extension's value: minimum and maximum, 12 bits each, in units of 10 ms. [`None`]: nothing to tell.
    pub(crate) fn playout_delay(&self) -> Option<u32> {
        const MAX_UNITS: u32 = 1000;
        self.told.then(|| (self.delay.as_millis() as u32 / 10).min(MAX_UNITS) << 12 | MAX_UNITS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds_of(patience: &mut Patience, seconds: u32, lost_per_100: u32, upstream: u64) {
        for _ in 0..seconds {
            (0..100).for_each(|_| patience.sent());
            (0..lost_per_100).for_each(|_| patience.resent());
            patience.update(Duration::from_millis(upstream), Some(Duration::from_millis(80)));
        }
    }

    #[test]
    fn a_clean_network_is_told_nothing() {
        let mut patience = Patience::default();
        seconds_of(&mut patience, 10, 0, 5);
        assert_eq!(patience.playout_delay(), None);
    }

    #[test]
    fn loss_buys_time_for_its_repairs_and_is_forgotten_slowly() {
        let mut patience = Patience::default();
        seconds_of(&mut patience, 5, 10, 120);
        assert_eq!(patience.playout_delay().unwrap() >> 12, (120 + 2 * 110) / 10);
        seconds_of(&mut patience, 3, 0, 120);
        assert!(patience.delay > Duration::from_millis(250));
        seconds_of(&mut patience, 120, 0, 0);
        assert_eq!(patience.playout_delay(), Some(1000));
    }

    #[test]
    fn lateness_rises_by_halves_and_falls_by_halves() {
        let start = Instant::now();
        let mut lateness = Lateness::default();
        for late_by in [200, 200, 50, 3000] {
            lateness.note(Duration::from_millis(late_by), start);
        }
        assert_eq!(lateness.value(start).as_millis(), 150);
        let later = lateness.value(start + HALF_LIFE).as_millis();
        assert!((74..=76).contains(&later), "{later}");
    }
}
