//! How long missing packets are worth waiting for, learned from those that came.
//!
//! A repair takes a round trip and what both sides need to notice, and one that is lost itself is asked for again after
//! about as long. So the wait is several times what repairs have lately taken: long enough for the third or fourth
//! attempt, short on a short path. Where nothing is ever repaired (sound without NACK), waiting only holds up what is
//! there, and the wait becomes the shortest.

use std::time::Duration;

/// So many attempts are waited for: at 10 % loss both ways one of a thousand lost packets is missing after four.
const ATTEMPTS: u32 = 4;
/// After so many gaps in a row that nothing filled, repairs are taken not to come.
const GAPS_IN_VAIN: u32 = 3;
/// A repair that took longer counts by half of the difference, a shorter one by this share: few are slow, and it is the
/// slow ones that have to be waited for.
const FALL_SHARE: u32 = 16;

/// Bounds of the wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Where packets only change places, or are never repaired.
    pub shortest: Duration,
    /// Until the first repair has come.
    pub first: Duration,
    /// However long repairs take.
    pub longest: Duration,
}

impl Patience {
    /// A wait that never changes.
    pub const fn fixed(wait: Duration) -> Patience {
        Patience { shortest: wait, first: wait, longest: wait }
    }
}

/// What is known of a track's repairs.
#[derive(Debug)]
pub(crate) struct RepairTime {
    patience: Patience,
    usual: Option<Duration>,
    in_vain: u32,
}

impl RepairTime {
    pub(crate) fn new(patience: Patience) -> RepairTime {
        RepairTime { patience, usual: None, in_vain: 0 }
    }

    /// A packet came that long after one behind it, in time or not.
    pub(crate) fn repaired(&mut self, late_by: Duration) {
        self.in_vain = 0;
        // Packets that have only changed places are many, and say nothing about repairs.
        if self.usual.is_some() && late_by * ATTEMPTS <= self.patience.shortest {
            return;
        }
        let usual = self.usual.unwrap_or(late_by);
        let moved = match late_by.checked_sub(usual) {
            Some(more) => usual + more / 2,
            None => usual - (usual - late_by) / FALL_SHARE,
        };
        self.usual = Some(moved.min(self.patience.longest));
    }

    /// A gap was waited for in vain.
    pub(crate) fn gave_up(&mut self) {
        self.in_vain = self.in_vain.saturating_add(1);
    }

    /// How long the next gap is worth.
    pub(crate) fn wait(&self) -> Duration {
        let Patience { shortest, first, longest } = self.patience;
        if self.in_vain >= GAPS_IN_VAIN {
            return shortest;
        }
        self.usual.map_or(first, |usual| (usual * ATTEMPTS).max(shortest).min(longest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_wait_follows_what_repairs_take() {
        let patience = Patience { shortest: MS * 120, first: MS * 300, longest: MS * 500 };
        // Repairs in milliseconds, 0 for a gap given up; the wait afterwards.
        let cases: [(&[u64], u64); 7] = [
            (&[], 300),
            (&[15], 120),
            (&[50, 50], 200),
            (&[50, 110], 320),
            (&[110], 440),
            (&[900, 900], 500),
            (&[110, 0, 0], 440),
        ];
        for (repairs, expected) in cases {
            let mut time = RepairTime::new(patience);
            for repair in repairs {
                if *repair == 0 { time.gave_up() } else { time.repaired(MS * *repair as u32) }
            }
            assert_eq!(time.wait(), MS * expected as u32, "{repairs:?}");
        }
        // A path that has become short again.
        let mut time = RepairTime::new(patience);
        time.repaired(MS * 110);
        (0..60).for_each(|_| time.repaired(MS * 20));
        assert_eq!(time.wait(), MS * 440, "packets change places");
        (0..60).for_each(|_| time.repaired(MS * 40));
        assert_eq!(time.wait().as_millis(), 165);
    }

    #[test]
    fn where_nothing_is_repaired_nothing_is_waited_for() {
        let mut time = RepairTime::new(Patience { shortest: MS * 120, first: MS * 300, longest: MS * 500 });
        let waits: Vec<_> = (0..4)
            .map(|_| {
                time.gave_up();
                time.wait()
            })
            .collect();
        assert_eq!(waits, [MS * 300, MS * 300, MS * 120, MS * 120]);
        // One comes after all, too late.
        time.repaired(MS * 130);
        assert_eq!(time.wait(), MS * 500);
        assert_eq!(RepairTime::new(Patience::fixed(MS * 200)).wait(), MS * 200);
    }
}
