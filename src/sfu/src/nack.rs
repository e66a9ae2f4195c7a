//! Which packets of a publisher's layer are missing, and when to ask for them (generic NACK, RFC 4585 §6.2.1).
//!
//! A gap is asked for as soon as it is more than a change of places, and again about each round trip, until the packet
//! comes or is too old to be of use to anybody. The round trip is what single requests have lately taken to be answered,
//! since publishers do not tell it. Everything that is missing is remembered by age, not by its distance from the newest
//! packet: a keyframe of high bit rate is hundreds of packets in one round trip.
//!
//! It counts; it neither writes RTCP nor opens what comes back (see [`crate::repair`]).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Packets of one burst change places within this time.
const REORDERING: Duration = Duration::from_millis(5);
/// Until the first answer has told better.
const FIRST_ROUND_TRIP: Duration = Duration::from_millis(100);
/// On top of the round trip: what the publisher needs to answer, and the jitter of the way.
const MARGIN: Duration = Duration::from_millis(10);
/// However slow answers have been.
const MAX_INTERVAL: Duration = Duration::from_millis(400);
/// Longest that viewers and crossings wait for a packet.
const MAX_AGE: Duration = Duration::from_millis(1000);
/// A publisher that has not answered so often will not.
const MAX_REQUESTS: u8 = 10;
/// Most packets that are asked for at once: half a second of 10 Mbit/s. Who has lost more needs a keyframe.
const MAX_MISSING: usize = 512;
/// An answer that took longer than usual counts by half of the difference, a quicker one by this share.
const FALL_SHARE: u32 = 8;

#[derive(Debug, Clone, Copy)]
struct Missing {
    since: Instant,
    due: Instant,
    asked: Option<Instant>,
    requests: u8,
}

/// The missing packets of one layer.
#[derive(Debug, Default)]
pub(crate) struct Nacks {
    newest: Option<u64>,
    missing: BTreeMap<u64, Missing>,
    round_trip: Option<Duration>,
    next_due: Option<Instant>,
}

impl Nacks {
    /// A packet has come, for the first time or again.
    pub(crate) fn received(&mut self, now: Instant, seq: u64) {
        let Some(newest) = self.newest else {
            self.newest = Some(seq);
            return;
        };
        if seq <= newest {
            if let Some(missing) = self.missing.remove(&seq) {
                self.answered(now, missing);
            }
            return;
        }
        self.newest = Some(seq);
        if seq - newest > MAX_MISSING as u64 {
            self.missing.clear();
            return;
        }
        let due = now + REORDERING;
        for seq in newest + 1..seq {
            self.missing.insert(seq, Missing { since: now, due, asked: None, requests: 0 });
            self.next_due = Some(self.next_due.map_or(due, |next| next.min(due)));
        }
        while self.missing.len() > MAX_MISSING {
            self.missing.pop_first();
        }
    }

    /// The missing packet that has the lower half of its number in common.
    pub(crate) fn missing(&self, low: u16) -> Option<u64> {
        self.missing.keys().copied().find(|seq| *seq as u16 == low)
    }

    /// Whether anything is missing that may still come.
    pub(crate) fn is_empty(&self) -> bool {
        self.missing.is_empty()
    }

    /// When [`Nacks::poll`] has something to ask for.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.next_due
    }

    /// Appends the packets that are to be asked for now, in order. Counts as asked.
    pub(crate) fn poll(&mut self, now: Instant, due: &mut Vec<u16>) {
        if self.next_due.is_none_or(|at| now < at) {
            return;
        }
        let interval = (self.round_trip.unwrap_or(FIRST_ROUND_TRIP) + MARGIN).min(MAX_INTERVAL);
        self.missing.retain(|_, missing| now.saturating_duration_since(missing.since) < MAX_AGE);
        for (seq, missing) in &mut self.missing {
            if now >= missing.due && missing.requests < MAX_REQUESTS {
                due.push(*seq as u16);
                (missing.requests, missing.asked, missing.due) = (missing.requests + 1, Some(now), now + interval);
            }
        }
        let may_ask = self.missing.values().filter(|missing| missing.requests < MAX_REQUESTS);
        self.next_due = may_ask.map(|missing| missing.due).min();
    }

    /// Only an answer to a single request tells which request it answers (Karn's rule).
    fn answered(&mut self, now: Instant, missing: Missing) {
        let Some(asked) = missing.asked.filter(|_| missing.requests == 1) else { return };
        let took = now.saturating_duration_since(asked);
        let usual = self.round_trip.unwrap_or(took);
        self.round_trip = Some(match took.checked_sub(usual) {
            Some(more) => usual + more / 2,
            None => usual - (usual - took) / FALL_SHARE,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn asked(nacks: &mut Nacks, now: Instant) -> Vec<u16> {
        let mut due = Vec::new();
        nacks.poll(now, &mut due);
        due
    }

    #[test]
    fn gaps_are_asked_for_until_they_are_filled() {
        let start = Instant::now();
        let at = |ms: u32| start + MS * ms;
        let mut nacks = Nacks::default();
        // When, what comes, what is asked for, when the next request is due.
        type Step<'a> = (u32, &'a [u64], &'a [u16], Option<u32>);
        let steps: [Step<'_>; 8] = [
            (0, &[65_534], &[], None),
            // Two change places; of 65,536 and the next one nothing comes.
            (10, &[65_538, 65_535], &[], Some(15)),
            (15, &[], &[0, 1], Some(125)),
            (40, &[], &[], Some(125)),
            // 40 ms after it was asked for: that is the round trip from now on.
            (55, &[65_537], &[], Some(125)),
            (125, &[], &[0], Some(175)),
            (175, &[], &[0], Some(225)),
            (200, &[65_536], &[], Some(225)),
        ];
        for (ms, come, expected, due) in steps {
            come.iter().for_each(|seq| nacks.received(at(ms), *seq));
            assert_eq!(asked(&mut nacks, at(ms)), expected, "at {ms} ms");
            assert_eq!(nacks.deadline(), due.map(at), "at {ms} ms");
        }
        assert_eq!(asked(&mut nacks, at(225)), []);
        assert_eq!((nacks.deadline(), nacks.is_empty(), nacks.round_trip), (None, true, Some(MS * 40)));
    }

    #[test]
    fn a_packet_is_missed_a_thousand_packets_later_but_not_a_second() {
        let start = Instant::now();
        let mut nacks = Nacks::default();
        nacks.received(start, 1);
        (3..1003).for_each(|seq| nacks.received(start + MS, seq));
        assert_eq!((asked(&mut nacks, start + MS * 10), nacks.missing(2)), (vec![2], Some(2)));
        let times = (11..2000).filter(|ms| !asked(&mut nacks, start + MS * *ms).is_empty()).count();
        assert_eq!((times + 1, nacks.deadline()), (usize::from(MAX_REQUESTS), None));
        // It is forgotten when there is something else to ask for.
        nacks.received(start + MS * 2000, 1004);
        assert_eq!((asked(&mut nacks, start + MS * 2005), nacks.missing(2)), (vec![1003], None));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let now = Instant::now();
        let mut nacks = Nacks::default();
        for i in 0..2000 {
            nacks.received(now, i * 3);
            assert!(nacks.missing.len() <= MAX_MISSING);
        }
        // A jump is no loss.
        nacks.received(now, 1 << 40);
        assert!(nacks.is_empty());
        nacks.received(now, u64::MAX);
        assert_eq!(nacks.newest, Some(u64::MAX));
    }
}
