//! Where a viewer that is not on the live edge stands in its track's history, and when it is given more.
//!
//! A viewer that joins starts with the last keyframe, which may be seconds old. It is sent what has come since faster
//! than it was recorded, from the shared history and at a pace that its link is likely to bear, until it has caught up
//! with the live edge. A viewer whose link has a budget (`link`) is sent its picture that way for good.

use std::time::{Duration, Instant};

use crate::packet::RtpPacket;
use crate::rewrite::Source;

/// A backlog is sent this many times as fast as it was recorded, while the stream goes on: eight times in all. A longer
/// one is sent even faster, so that nobody is behind for longer than the time given. A viewer that asks for a keyframe
/// after that may have a link that does not take as much, so it is given more time.
const SPEED_UPS: [(u32, Duration); 3] =
    [(7, Duration::from_millis(1250)), (3, Duration::from_secs(4)), (1, Duration::from_secs(10))];
/// Packets that are sent at once; a large keyframe takes several turns. Together with the interval below this is about
/// 100 Mbit/s: links and the queues of sockets take it, and other viewers get their turn in between.
pub(crate) const MAX_PIECE_PACKETS: usize = 50;
/// The time between two turns.
pub(crate) const PIECE_INTERVAL: Duration = Duration::from_millis(4);
/// A viewer with a budget is looked after so often.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// A picture under a budget that is further behind than this is left until the next keyframe: players hold sound back by
/// about as much to keep it with the picture, and repairs of a shallow history reach back twice as far.
pub(crate) const MAX_LAG: Duration = Duration::from_millis(1000);
/// A keyframe that has begun is sent to its end unless it takes longer than this.
pub(crate) const MAX_FRAME_TIME: Duration = Duration::from_secs(3);
/// A viewer's requests restart its picture from the last keyframe no more often than this, twice as long each time it
/// asks soon again, up to the latter: a link that the first restart overloads is not helped by a second.
const FIRST_RESTART_INTERVAL: Duration = Duration::from_secs(1);
const LAST_RESTART_INTERVAL: Duration = Duration::from_secs(16);

/// A place in a history.
#[derive(Debug)]
pub(crate) struct Cursor {
    pub(crate) source: Source,
    /// The packet that is next.
    pub(crate) next: u64,
    /// RTP time of the frame that was sent last.
    pub(crate) frame: Option<u32>,
    pub(crate) pace: Pace,
}

/// How fast.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pace {
    /// Up to the live edge.
    Plan(Plan),
    /// As the link's budget allows, for as long as there is one.
    Budget,
}

/// How a backlog is spread over the time that it is sent in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    started: Instant,
    first: u32,
    covers: Duration,
    pub(crate) takes: Duration,
    clock_hz: u32,
}

impl Plan {
    /// From `first`, a keyframe's first packet, to `live`, the newest one. `attempts` counts the plans that the viewer
    /// had before.
    pub(crate) fn new(now: Instant, first: &RtpPacket, live: &RtpPacket, clock_hz: u32, attempts: usize) -> Plan {
        let behind = media_time(first.timestamp, live.timestamp, clock_hz);
        let (speed_up, longest) = SPEED_UPS[attempts.min(SPEED_UPS.len() - 1)];
        let takes = (behind / speed_up).min(longest);
        Plan { started: now, first: first.timestamp, covers: behind + takes, takes, clock_hz }
    }

    /// When a packet of that RTP time may be sent.
    pub(crate) fn due(&self, timestamp: u32) -> Instant {
        let position = media_time(self.first, timestamp, self.clock_hz);
        let after = position.as_micros() * self.takes.as_micros() / self.covers.as_micros().max(1);
        self.started + Duration::from_micros(u64::try_from(after).unwrap_or(u64::MAX)).min(self.takes)
    }
}

/// The time from one RTP time to a later one, zero if it is not later.
pub(crate) fn media_time(from: u32, to: u32, clock_hz: u32) -> Duration {
    let ticks = u64::try_from(to.wrapping_sub(from) as i32).unwrap_or(0);
    Duration::from_micros(ticks * 1_000_000 / u64::from(clock_hz.max(1)))
}

/// Limits how often a viewer's picture begins again from the last keyframe.
#[derive(Debug, Default)]
pub(crate) struct Restarts {
    last: Option<Restart>,
}

#[derive(Debug, Clone, Copy)]
struct Restart {
    at: Instant,
    /// Until the next one.
    interval: Duration,
    attempts: usize,
}

impl Restarts {
    /// Whether it may, which is taken as done.
    #[must_use]
    pub(crate) fn admit(&mut self, now: Instant) -> bool {
        let mut next = Restart { at: now, interval: FIRST_RESTART_INTERVAL, attempts: 0 };
        if let Some(last) = self.last {
            let passed = now.saturating_duration_since(last.at);
            if passed < last.interval {
                return false;
            }
            if passed < 2 * LAST_RESTART_INTERVAL {
                next.interval = (last.interval * 2).min(LAST_RESTART_INTERVAL);
                next.attempts = last.attempts + 1;
            }
        }
        self.last = Some(next);
        true
    }

    /// Admitted attempts before the last one, without those of long ago.
    pub(crate) fn attempts(&self) -> usize {
        self.last.map_or(0, |last| last.attempts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_spreads_a_backlog_and_is_bounded() {
        let now = Instant::now();
        let packet = |timestamp| RtpPacket::for_test(0, timestamp, now);
        // Seconds of backlog, milliseconds until the live edge.
        for (backlog, takes) in [(0, 0), (1, 142), (7, 1000), (10, 1250), (16, 1250)] {
            let first = u32::MAX - 90_000;
            let edge = first.wrapping_add(backlog * 90_000);
            let plan = Plan::new(now, &packet(first), &packet(edge), 90_000, 0);
            assert_eq!(plan.takes.as_millis(), takes, "{backlog} s");
            assert_eq!(plan.due(first), now);
            let at_end = edge.wrapping_add((plan.takes.as_micros() * 90_000 / 1_000_000) as u32);
            let late = (now + plan.takes) - plan.due(at_end);
            assert!(late < Duration::from_millis(1), "{backlog} s: {late:?}");
            assert!(plan.due(edge) <= plan.due(at_end) && plan.due(first.wrapping_sub(90_000)) == now);
        }
    }

    #[test]
    fn later_attempts_take_longer() {
        let now = Instant::now();
        let (first, live) = (RtpPacket::for_test(0, 0, now), RtpPacket::for_test(9, 900_000, now));
        let takes = [0, 1, 2, 7].map(|attempts| Plan::new(now, &first, &live, 90_000, attempts).takes.as_millis());
        assert_eq!(takes, [1250, 3333, 10_000, 10_000]);
    }

    #[test]
    fn restarts_become_rarer_while_they_are_asked_for() {
        let start = Instant::now();
        let mut restarts = Restarts::default();
        let admitted: Vec<u64> =
            (0..700).filter(|i| restarts.admit(start + Duration::from_millis(i * 100))).map(|i| i / 10).collect();
        assert_eq!(admitted, [0, 1, 3, 7, 15, 31, 47, 63]);
        assert_eq!(restarts.attempts(), 7);
        assert!(restarts.admit(start + Duration::from_secs(200)) && restarts.attempts() == 0);
        assert!(!restarts.admit(start + Duration::from_millis(200_900)));
        assert!(restarts.admit(start + Duration::from_secs(201)));
    }
}
