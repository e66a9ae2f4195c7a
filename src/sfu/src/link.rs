//! What a viewer's link can carry, judged by what its receiver reports as lost, and how much it is therefore sent.
//!
//! A link that cannot carry a stream drops packets at random: hardly a frame arrives whole, every loss is asked for
//! again, and sound suffers with the picture. Then it is better to send less: [`Link`] notices loss that lasts in
//! spite of retransmission and sets a budget a little below what arrived. Under a budget the picture is sent no faster
//! than that, and when it falls behind, whole frames are left out up to the next keyframe (`sender`); sound is never held
//! back, but counts.
//!
//! The budget grows slowly while nothing is lost. When it turns out to be too much again, the next attempt comes later
//! (a growing back-off). It ends when the whole stream has gone through for a while.
//!
//! This is no congestion control: there is no other rate to send, and a link that carries the stream is never slowed
//! down. Evidence is what receiver reports tell (RFC 3550 §6.4.1): loss, and under a budget the round trip, which grows
//! with the queues on the way. REMB and transport-cc are not negotiated.

use std::time::{Duration, Instant};

/// A report that tells of more loss than this is a bad one. Random loss up to here is what retransmission is for.
const BAD_LOSS: f32 = 0.20;
/// Smoothed loss from which on a link is taken to be overloaded...
const OVERLOAD_LOSS: f32 = 0.27;
/// ...if every report has been bad for so long.
const OVERLOAD_TIME: Duration = Duration::from_millis(1900);
/// Loss is smoothed over this time.
const SMOOTHING: Duration = Duration::from_secs(4);
/// Reports that follow closer than this say too little: a handful of packets.
const MIN_REPORT_INTERVAL: Duration = Duration::from_millis(300);
/// Share of what arrived that the first budget is, in percent: queues on the way have to drain.
const FIRST_PERCENT: u64 = 85;
/// After a change, reports still tell of what was sent before it.
const SETTLING: Duration = Duration::from_millis(2500);
/// A receiver learns of the last losses before a pause from the first packet after it, and tells in its next report.
const FIRST_REPORT: Duration = Duration::from_millis(1500);
/// Under a budget: loss that shows that it is still too much, of the picture, and of sound, which is not sent again and
/// is what a budget is there to protect.
const TOO_MUCH_LOSS: f32 = 0.10;
const TOO_MUCH_SOUND_LOSS: f32 = 0.03;
/// With more loss than this a budget does not grow.
const GROWTH_LOSS: f32 = 0.03;
/// A round trip that is so much longer than an idle link's tells of a queue that will soon be full, sound in it.
const MAX_QUEUE: Duration = Duration::from_millis(150);
/// Routes change: what an idle link takes is believed to rise by so much per report.
const IDLE_RTT_DRIFT: Duration = Duration::from_millis(2);
/// What a budget is cut to, in percent.
const CUT_PERCENT: u64 = 85;
/// How fast it grows, in per mille per second; where the picture comes seldom, for at most so long at once.
const GROWTH_PERMILLE: u64 = 10;
const MAX_GROWTH_TIME: Duration = Duration::from_secs(10);
/// Only a budget of which so much is used proves anything.
const USED_PERCENT: u64 = 70;
/// A budget that was too much stays as it is for this time, twice as long each time, up to the latter.
const FIRST_HOLD: Duration = Duration::from_secs(15);
const LAST_HOLD: Duration = Duration::from_secs(120);
/// A budget under which the picture has kept to the live edge for that long has become superfluous.
const PROOF: Duration = Duration::from_secs(10);
/// Then the link is judged anew: loss that no budget helps against must not keep a viewer from its picture for good.
const MAX_TERM: Duration = Duration::from_secs(300);
/// It keeps to it if it is there at least so often.
const EDGE_GAP: Duration = Duration::from_secs(1);
/// A keyframe is asked for so long after a picture was left, twice as long each time, up to the latter: others see
/// every keyframe that one viewer asks for.
const FIRST_BACK_OFF: Duration = Duration::from_secs(1);
const LAST_BACK_OFF: Duration = Duration::from_secs(8);
/// Sound, and a picture now and then.
const MIN_BUDGET_BPS: u64 = 100_000;
/// What may be sent at once under a budget.
const MAX_CREDIT: Duration = Duration::from_millis(50);
/// What is assumed to stand in queues when a budget begins.
const FIRST_DEBT: Duration = Duration::from_millis(500);

/// One viewer's link.
#[derive(Debug)]
pub(crate) struct Link {
    loss: f32,
    bad: Option<Bad>,
    /// The last report that counted, and what had been sent by then.
    reported: Option<(Instant, u64)>,
    /// The round trip of an idle link.
    idle_rtt: Option<Duration>,
    hold: Duration,
    budget: Option<Budget>,
}

/// A time of bad reports: since when, and how many bits have arrived.
#[derive(Debug, Clone, Copy)]
struct Bad {
    since: Instant,
    /// The interval of the first report counts too.
    from: Instant,
    bits: u64,
}

#[derive(Debug)]
struct Budget {
    bps: u64,
    /// Cutting has an end: there is loss that it does not help against.
    least_bps: u64,
    since: Instant,
    /// Bits that may be sent, below zero while too many were.
    credit_bits: i64,
    /// When `credit_bits` held, and what had been sent by then.
    credited: (Instant, u64),
    /// Reports before tell of what was sent earlier.
    settled_at: Instant,
    grow_after: Instant,
    grown: Instant,
    /// The picture has not begun again since the last loss: its first report will tell of that loss once more.
    is_stale: bool,
    /// When the picture was last on the live edge, and since when it has kept near to it.
    edge: Instant,
    whole_since: Instant,
    back_off: Duration,
    ask_after: Instant,
}

impl Default for Link {
    fn default() -> Link {
        Link { loss: 0.0, bad: None, reported: None, idle_rtt: None, hold: FIRST_HOLD, budget: None }
    }
}

impl Link {
    /// Whether there is a budget.
    pub(crate) fn is_limited(&self) -> bool {
        self.budget.is_some()
    }

    /// Whether a keyframe may be asked for on the viewer's behalf.
    pub(crate) fn may_ask(&self, now: Instant) -> bool {
        self.budget.as_ref().is_none_or(|b| now >= b.ask_after)
    }

    /// Takes a report about the picture. `sent_bytes` counts everything that was sent to the viewer. True: from now on
    /// there is a budget; the picture has to be left until a keyframe comes.
    #[must_use]
    pub(crate) fn report(&mut self, now: Instant, fraction_lost: u8, rtt: Option<Duration>, sent_bytes: u64) -> bool {
        let queued = rtt.is_some_and(|rtt| {
            let idle = self.idle_rtt.map_or(rtt, |idle| rtt.min(idle + IDLE_RTT_DRIFT));
            self.idle_rtt = Some(idle);
            rtt > idle + MAX_QUEUE
        });
        let lost = f32::from(fraction_lost) / 256.0;
        let Some((before, sent_before)) = self.reported else {
            self.reported = Some((now, sent_bytes));
            return false;
        };
        let elapsed = now.saturating_duration_since(before);
        if elapsed < MIN_REPORT_INTERVAL {
            return false;
        }
        self.reported = Some((now, sent_bytes));
        let weight = (elapsed.as_secs_f32() / SMOOTHING.as_secs_f32()).min(0.5);
        self.loss += (lost - self.loss) * weight;
        let sent_bps = sent_bytes.saturating_sub(sent_before).saturating_mul(8000) / elapsed.as_millis().max(1) as u64;
        let arrived_bps = (sent_bps as f32 * (1.0 - lost)) as u64;
        if self.budget.is_some() {
            self.adjust(now, lost, queued, sent_bps, arrived_bps);
            return false;
        }
        if lost <= BAD_LOSS {
            self.bad = None;
            return false;
        }
        let bad = self.bad.get_or_insert(Bad { since: now, from: before, bits: 0 });
        bad.bits += arrived_bps * elapsed.as_millis() as u64 / 1000;
        // Reports and what they are about are a round trip apart: one interval alone says little of the rate.
        let bps = bad.bits * 1000 / now.saturating_duration_since(bad.from).as_millis().max(1) as u64;
        let lasting = now.saturating_duration_since(bad.since) >= OVERLOAD_TIME;
        let overloaded = lasting && self.loss > OVERLOAD_LOSS;
        if overloaded {
            self.limit(now, bps * FIRST_PERCENT / 100, sent_bytes);
        }
        overloaded
    }

    fn limit(&mut self, now: Instant, bps: u64, sent_bytes: u64) {
        let bps = bps.max(MIN_BUDGET_BPS);
        self.bad = None;
        self.budget = Some(Budget {
            bps,
            least_bps: (bps / 2).max(MIN_BUDGET_BPS),
            since: now,
            credit_bits: -bits_in(FIRST_DEBT, bps),
            credited: (now, sent_bytes),
            settled_at: now + SETTLING,
            grow_after: now + self.hold,
            grown: now,
            is_stale: true,
            edge: now,
            whole_since: now,
            back_off: FIRST_BACK_OFF,
            ask_after: now + FIRST_BACK_OFF,
        });
    }

    fn adjust(&mut self, now: Instant, lost: f32, queued: bool, sent_bps: u64, arrived_bps: u64) {
        let Some(budget) = &mut self.budget else { return };
        if now.saturating_duration_since(budget.edge) > EDGE_GAP {
            budget.whole_since = now;
        }
        if now < budget.settled_at {
            return;
        }
        let is_used = sent_bps * 100 >= budget.bps * USED_PERCENT;
        if lost > TOO_MUCH_LOSS || queued {
            let carried = if is_used { arrived_bps.min(budget.bps) } else { budget.bps };
            self.cut(now, carried);
            return;
        }
        if lost < GROWTH_LOSS && now >= budget.grow_after && is_used {
            let time = now.saturating_duration_since(budget.grown.max(budget.grow_after)).min(MAX_GROWTH_TIME);
            budget.bps += budget.bps * GROWTH_PERMILLE * time.as_millis() as u64 / 1_000_000;
            budget.grown = now;
        }
        let is_whole = lost <= TOO_MUCH_LOSS && now.saturating_duration_since(budget.whole_since) >= PROOF;
        if is_whole || now.saturating_duration_since(budget.since) >= MAX_TERM {
            // A link that fails soon again is given less hope the next time.
            let brief = now.saturating_duration_since(budget.since) < 4 * PROOF;
            self.hold = if brief { (self.hold * 2).min(LAST_HOLD) } else { FIRST_HOLD };
            self.budget = None;
        }
    }

    /// Takes a report about sound.
    pub(crate) fn report_sound(&mut self, now: Instant, fraction_lost: u8) {
        let lost = f32::from(fraction_lost) / 256.0;
        if let Some(budget) = self.budget.as_ref().filter(|b| now >= b.settled_at && lost > TOO_MUCH_SOUND_LOSS) {
            let bps = budget.bps;
            self.cut(now, bps);
        }
    }

    fn cut(&mut self, now: Instant, carried_bps: u64) {
        let Some(budget) = &mut self.budget else { return };
        budget.bps = (carried_bps * CUT_PERCENT / 100).max(budget.least_bps);
        budget.settled_at = now + SETTLING;
        budget.is_stale = true;
        self.hold = (self.hold * 2).min(LAST_HOLD);
        budget.grow_after = now + self.hold;
    }

    /// The picture begins with a keyframe.
    pub(crate) fn picture_begins(&mut self, now: Instant) {
        if let Some(budget) = &mut self.budget
            && std::mem::take(&mut budget.is_stale)
        {
            budget.settled_at = budget.settled_at.max(now + FIRST_REPORT);
        }
    }

    /// The picture is on the live edge.
    pub(crate) fn picture_is_live(&mut self, now: Instant) {
        if let Some(budget) = &mut self.budget {
            budget.edge = now;
        }
    }

    /// The picture fell behind and is left until the next keyframe.
    pub(crate) fn picture_left(&mut self, now: Instant) {
        if let Some(budget) = &mut self.budget {
            budget.ask_after = now + budget.back_off;
            budget.back_off = (budget.back_off * 2).min(LAST_BACK_OFF);
        }
    }

    /// When the budget allows the next packet: [`None`] at once.
    pub(crate) fn next_send(&mut self, now: Instant, sent_bytes: u64) -> Option<Instant> {
        let budget = self.budget.as_mut()?;
        let (at, sent_before) = budget.credited;
        let earned = bits_in(now.saturating_duration_since(at).min(PROOF), budget.bps);
        let spent = i64::try_from(sent_bytes.saturating_sub(sent_before)).unwrap_or(i64::MAX).saturating_mul(8);
        let credit = budget.credit_bits.saturating_add(earned).saturating_sub(spent);
        budget.credit_bits = credit.min(bits_in(MAX_CREDIT, budget.bps));
        budget.credited = (now, sent_bytes);
        (budget.credit_bits < 0).then(|| {
            let owed_micros = budget.credit_bits.unsigned_abs().saturating_mul(1_000_000) / budget.bps.max(1);
            now + Duration::from_micros(owed_micros.min(1_000_000) + 1)
        })
    }
}

fn bits_in(time: Duration, bps: u64) -> i64 {
    i64::try_from(u128::from(bps) * time.as_micros() / 1_000_000).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A second of a stream over a link that loses `percent` of it.
    fn second(link: &mut Link, now: &mut Instant, sent: &mut u64, bps: u64, percent: u32) -> bool {
        *now += Duration::from_secs(1);
        *sent += bps / 8;
        link.report(*now, (percent * 256 / 100) as u8, None, *sent)
    }

    #[test]
    fn only_lasting_heavy_loss_sets_a_budget() {
        // Loss in percent, second by second, and the second in which a budget is set.
        let cases: [(&[u32], Option<usize>); 6] = [
            (&[50; 6], Some(3)),
            (&[10; 60], None),
            (&[20; 60], None),
            (&[100, 100, 0, 100, 100, 0, 0, 100], None),
            (&[0, 35, 35, 35, 35, 35, 35, 35], Some(6)),
            (&[90, 90, 5, 5, 5, 30, 30, 10, 0], None),
        ];
        for (losses, expected) in cases {
            let (mut link, mut now, mut sent) = (Link::default(), Instant::now(), 0);
            let set = losses.iter().position(|loss| second(&mut link, &mut now, &mut sent, 2_000_000, *loss));
            assert_eq!(set, expected, "{losses:?}");
        }
    }

    #[test]
    fn a_budget_paces_and_sound_counts() {
        let (mut link, mut now, mut sent) = (Link::default(), Instant::now(), 0);
        assert_eq!(link.next_send(now, 0), None);
        while !second(&mut link, &mut now, &mut sent, 2_000_000, 50) {}
        assert!(!link.may_ask(now) && link.may_ask(now + FIRST_BACK_OFF));
        assert!(link.next_send(now, sent).is_some(), "queues drain first");
        now += Duration::from_millis(501);
        assert_eq!(link.next_send(now, sent), None);
        // 850 kbit/s: 10 kB are 94 ms.
        now += Duration::from_secs(1);
        assert_eq!(link.next_send(now, sent), None);
        let at = link.next_send(now, sent + 10_000).unwrap();
        let wait = at - now;
        assert!(wait > Duration::from_millis(40) && wait < Duration::from_millis(50), "{wait:?}");
    }

    #[test]
    fn a_budget_grows_is_cut_and_ends() {
        let (mut link, mut now, mut sent) = (Link::default(), Instant::now(), 0);
        while !second(&mut link, &mut now, &mut sent, 2_000_000, 50) {}
        let bps = |l: &Link| l.budget.as_ref().map(|b| b.bps);
        assert_eq!(bps(&link), Some(850_000));
        for _ in 0..14 {
            assert!(!second(&mut link, &mut now, &mut sent, 850_000, 0));
        }
        assert_eq!(bps(&link), Some(850_000), "it is held");
        for _ in 0..16 {
            assert!(!second(&mut link, &mut now, &mut sent, 850_000, 0));
        }
        assert!(bps(&link).unwrap() > 950_000);
        assert!(!second(&mut link, &mut now, &mut sent, 1_000_000, 15));
        assert!(bps(&link).unwrap() < 850_000);
        assert_eq!(link.hold, FIRST_HOLD * 2);
        for _ in 0..12 {
            link.picture_is_live(now);
            assert!(!second(&mut link, &mut now, &mut sent, 700_000, 0));
        }
        assert!(!link.is_limited(), "the picture was whole for ten seconds");
    }

    #[test]
    fn a_queue_on_the_way_cuts_a_budget_before_anything_is_lost() {
        let (mut link, mut now, mut sent) = (Link::default(), Instant::now(), 0);
        assert!(!link.report(now, 0, Some(Duration::from_millis(40)), sent));
        while !second(&mut link, &mut now, &mut sent, 2_000_000, 50) {}
        for (rtt, bps) in [(60, 850_000), (60, 850_000), (60, 850_000), (180, 850_000), (240, 722_500), (400, 722_500)]
        {
            now += Duration::from_secs(1);
            sent += 106_250;
            assert!(!link.report(now, 0, Some(Duration::from_millis(rtt)), sent));
            assert_eq!(link.budget.as_ref().unwrap().bps, bps, "{rtt} ms");
        }
    }
}
