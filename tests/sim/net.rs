//! One direction of a bad network: delay, jitter, loss, reordering, duplicates, rate. Everything is drawn from one
//! seeded generator per link, so that a run can be repeated.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

/// Which datagrams are lost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Loss {
    None,
    /// Each one with this probability.
    Random(f64),
    /// Gilbert-Elliott: everything is lost in the bad state, nothing in the good one.
    Burst {
        enter: f64,
        leave: f64,
    },
}

/// What a link does to its datagrams.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Profile {
    pub(crate) delay: Duration,
    /// Uniform, on top of the delay. Keeps the order.
    pub(crate) jitter: Duration,
    pub(crate) loss: Loss,
    /// Share of datagrams that are held back by `reorder_by` and overtaken by others.
    pub(crate) reorder: f64,
    pub(crate) reorder_by: Duration,
    /// Share of datagrams that arrive twice.
    pub(crate) duplicate: f64,
    /// Share of datagrams in which a bit flips; only towards the server.
    pub(crate) damage: f64,
    pub(crate) rate_bps: Option<u64>,
    /// What waits at the bottleneck at most.
    pub(crate) queue: Duration,
    /// Extra delay by content.
    pub(crate) extra: Option<fn(&[u8], &mut StdRng) -> Duration>,
}

impl Profile {
    pub(crate) const fn clean(delay: Duration) -> Profile {
        Profile {
            delay,
            jitter: Duration::ZERO,
            loss: Loss::None,
            reorder: 0.0,
            reorder_by: Duration::from_millis(15),
            duplicate: 0.0,
            damage: 0.0,
            rate_bps: None,
            queue: Duration::from_millis(500),
            extra: None,
        }
    }

    pub(crate) const fn with_loss(self, loss: Loss) -> Profile {
        Profile { loss, ..self }
    }

    pub(crate) const fn with_jitter(self, jitter: Duration) -> Profile {
        Profile { jitter, ..self }
    }
}

/// One direction between a client and the server.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) profile: Profile,
    random: StdRng,
    is_bad: bool,
    /// Arrival of the newest datagram that keeps the order.
    last: Option<Instant>,
    /// The bottleneck is busy until then.
    busy: Option<Instant>,
    pub(crate) sent: u64,
    pub(crate) lost: u64,
}

impl Link {
    pub(crate) fn new(profile: Profile, seed: u64) -> Link {
        Link { profile, random: StdRng::seed_from_u64(seed), is_bad: false, last: None, busy: None, sent: 0, lost: 0 }
    }

    /// When copies of the datagram arrive: none, one or two times.
    pub(crate) fn carry(&mut self, now: Instant, datagram: &[u8]) -> [Option<Instant>; 2] {
        let p = self.profile;
        self.sent += 1;
        if self.loses() {
            self.lost += 1;
            return [None; 2];
        }
        let mut leaves = now;
        if let Some(rate_bps) = p.rate_bps {
            // 28 bytes: IPv4 and UDP.
            let takes = Duration::from_nanos((datagram.len() as u64 + 28) * 8 * 1_000_000_000 / rate_bps.max(1));
            let starts = self.busy.unwrap_or(now).max(now);
            if starts - now > p.queue {
                self.lost += 1;
                return [None; 2];
            }
            leaves = starts + takes;
            self.busy = Some(leaves);
        }
        let mut at = leaves + p.delay;
        if !p.jitter.is_zero() {
            at += p.jitter.mul_f64(self.random.random());
        }
        if let Some(extra) = p.extra {
            return [Some(at + extra(datagram, &mut self.random)), None];
        }
        if p.reorder > 0.0 && self.random.random_bool(p.reorder) {
            at += p.reorder_by;
        } else {
            at = self.last.map_or(at, |last| at.max(last));
            self.last = Some(at);
        }
        let again = p.duplicate > 0.0 && self.random.random_bool(p.duplicate);
        [Some(at), again.then(|| at + Duration::from_millis(3))]
    }

    /// Flips a bit, now and then.
    pub(crate) fn damage(&mut self, datagram: &mut [u8]) {
        if self.profile.damage > 0.0 && self.random.random_bool(self.profile.damage) {
            let at = self.random.random_range(0..datagram.len().max(1));
            if let Some(byte) = datagram.get_mut(at) {
                *byte ^= 1 << self.random.random_range(0..8);
            }
        }
    }

    fn loses(&mut self) -> bool {
        match self.profile.loss {
            Loss::None => false,
            Loss::Random(share) => self.random.random_bool(share),
            Loss::Burst { enter, leave } => {
                let turns = self.random.random_bool(if self.is_bad { leave } else { enter });
                self.is_bad ^= turns;
                self.is_bad
            }
        }
    }
}
