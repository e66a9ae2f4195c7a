//! What a viewer keeps of the packets it has seen: numbers and bits, no media. Sized for thousands of viewers.

use std::time::Duration;

/// How far back a packet may come late and still be recognised. At 200 packets/s this is five seconds, longer than any
/// retransmission cache.
const WINDOW: u64 = 1024;
const WORDS: usize = (WINDOW / 64) as usize;

/// What the arrival of a number meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// Higher than all before.
    New,
    /// Fills a hole: reordered or retransmitted.
    Late,
    /// Was there already.
    Duplicate,
    /// Too far back to know.
    TooOld,
}

/// Finds holes and duplicates in a series of numbers that arrive roughly in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct SeqWindow {
    seen: [u64; WORDS],
    first: Option<u64>,
    highest: u64,
    pub(crate) unique: u64,
    pub(crate) late: u64,
    pub(crate) duplicates: u64,
    pub(crate) too_old: u64,
}

impl SeqWindow {
    pub(crate) fn record(&mut self, number: u64) -> Arrival {
        let Some(first) = self.first else {
            self.first = Some(number);
            self.highest = number;
            self.mark(number);
            self.unique = 1;
            return Arrival::New;
        };
        if number > self.highest {
            for skipped in (self.highest + 1..=number).rev().take(WINDOW as usize) {
                self.clear(skipped);
            }
            self.highest = number;
            self.mark(number);
            self.unique += 1;
            return Arrival::New;
        }
        if self.highest - number >= WINDOW {
            self.too_old += 1;
            return Arrival::TooOld;
        }
        if self.is_marked(number) {
            self.duplicates += 1;
            return Arrival::Duplicate;
        }
        self.first = Some(first.min(number));
        self.mark(number);
        self.unique += 1;
        self.late += 1;
        Arrival::Late
    }

    /// Like [`SeqWindow::record`], but only `advance` moves the end, and nothing counts from before the start: numbers
    /// are followed over a span of time, and those of the span may still come after it.
    pub(crate) fn record_span(&mut self, number: u64, advance: bool) {
        let within = self.first.is_some_and(|first| number >= first && number <= self.highest);
        let beyond = self.first.is_none_or(|_| number > self.highest);
        if within || (advance && beyond) {
            self.record(number);
        }
    }

    /// The number nearest to the highest one so far whose lower 16 bits these are (RFC 3550 §A.1, without probation).
    pub(crate) fn extend(&self, lower: u16) -> u64 {
        if self.first.is_none() {
            // One cycle in, so that a packet from before the first has a number too.
            return 0x1_0000 + u64::from(lower);
        }
        let ahead = lower.wrapping_sub(self.highest as u16) as i16;
        self.highest.saturating_add_signed(ahead.into())
    }

    /// Numbers between the first and the highest that never came.
    pub(crate) fn lost(&self) -> u64 {
        let Some(first) = self.first else { return 0 };
        (self.highest - first + 1).saturating_sub(self.unique + self.too_old)
    }

    fn mark(&mut self, number: u64) {
        self.seen[word(number)] |= bit(number);
    }

    fn clear(&mut self, number: u64) {
        self.seen[word(number)] &= !bit(number);
    }

    fn is_marked(&self, number: u64) -> bool {
        self.seen[word(number)] & bit(number) != 0
    }
}

fn word(number: u64) -> usize {
    (number % WINDOW / 64) as usize
}

fn bit(number: u64) -> u64 {
    1 << (number % 64)
}

/// Frames that may be open at a time; at 30 fps two seconds.
const OPEN_FRAMES: usize = 64;

#[derive(Debug, Clone, Copy, Default)]
struct OpenFrame {
    /// Frame number + 1; 0 is a free place.
    tag: u64,
    received: u32,
    count: u32,
}

/// Counts frames whose packets have all come. Feed it each packet once.
#[derive(Debug, Clone)]
pub(crate) struct FrameTracker {
    open: [OpenFrame; OPEN_FRAMES],
    pub(crate) complete: u64,
    /// Frames of which at least one packet came and at least one didn't.
    pub(crate) incomplete: u64,
}

impl FrameTracker {
    pub(crate) fn new() -> FrameTracker {
        FrameTracker { open: [OpenFrame::default(); OPEN_FRAMES], complete: 0, incomplete: 0 }
    }

    /// Whether this packet completed its frame.
    pub(crate) fn record(&mut self, frame: u64, count: u32) -> bool {
        let place = &mut self.open[(frame % OPEN_FRAMES as u64) as usize];
        if place.tag > frame + 1 {
            return false;
        }
        if place.tag != frame + 1 {
            if place.received < place.count {
                self.incomplete += 1;
            }
            *place = OpenFrame { tag: frame + 1, received: 0, count };
        }
        place.received += 1;
        let done = place.received == place.count;
        self.complete += u64::from(done);
        done
    }

    /// Closes what is still open.
    pub(crate) fn finish(&mut self) {
        self.incomplete += self.open.iter().filter(|place| place.received < place.count).count() as u64;
        self.open = [OpenFrame::default(); OPEN_FRAMES];
    }
}

/// Steps per power of two: values are kept to within 3 %.
const STEPS: u64 = 32;
/// From 1 µs to 2^31 µs (36 minutes).
const OCTAVES: u64 = 32;

/// Counts of durations in logarithmic steps.
#[derive(Debug, Clone)]
pub(crate) struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max_us: u64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram::new()
    }
}

impl Histogram {
    pub(crate) fn new() -> Histogram {
        Histogram { counts: vec![0; (STEPS * OCTAVES) as usize], total: 0, max_us: 0 }
    }

    pub(crate) fn record(&mut self, value: Duration) {
        let us = value.as_micros() as u64;
        self.counts[bucket(us)] += 1;
        self.total += 1;
        self.max_us = self.max_us.max(us);
    }

    pub(crate) fn merge(&mut self, other: &Histogram) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.total += other.total;
        self.max_us = self.max_us.max(other.max_us);
    }

    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// The value below which `share` (0 to 1) of all lie, in milliseconds; 0 when there are none.
    pub(crate) fn quantile_ms(&self, share: f64) -> f64 {
        let rank = (self.total as f64 * share).ceil().max(1.0) as u64;
        let mut below = 0;
        for (index, count) in self.counts.iter().enumerate() {
            below += count;
            if below >= rank {
                return upper_edge_us(index as u64).min(self.max_us) as f64 / 1000.0;
            }
        }
        0.0
    }

    pub(crate) fn max_ms(&self) -> f64 {
        self.max_us as f64 / 1000.0
    }
}

fn bucket(us: u64) -> usize {
    if us < STEPS {
        return us as usize;
    }
    let octave = u64::from(us.ilog2()) - u64::from(STEPS.ilog2());
    let step = us >> octave;
    ((octave + 1) * STEPS + step - STEPS).min(STEPS * OCTAVES - 1) as usize
}

fn upper_edge_us(index: u64) -> u64 {
    if index < STEPS {
        return index;
    }
    let octave = index / STEPS - 1;
    let step = index % STEPS + STEPS;
    ((step + 1) << octave) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_that_are_filled_late_are_not_lost() {
        let mut window = SeqWindow::default();
        for number in [10, 11, 14, 12, 14, 15] {
            window.record(number);
        }
        assert_eq!(window.lost(), 1);
        assert_eq!((window.unique, window.late, window.duplicates), (5, 1, 1));
    }

    #[test]
    fn a_jump_beyond_the_window_forgets_old_marks() {
        let mut window = SeqWindow::default();
        window.record(5);
        assert_eq!(window.record(5 + 3 * WINDOW), Arrival::New);
        assert_eq!(window.record(5 + 3 * WINDOW - WINDOW / 2), Arrival::Late);
        assert_eq!(window.record(5), Arrival::TooOld);
    }

    #[test]
    fn a_number_before_the_first_extends_the_range() {
        let mut window = SeqWindow::default();
        window.record(20);
        assert_eq!(window.record(18), Arrival::Late);
        assert_eq!(window.lost(), 1);
    }

    #[test]
    fn a_span_takes_late_numbers_but_none_from_outside() {
        let mut window = SeqWindow::default();
        for (number, advance) in [(3, false), (5, true), (4, true), (8, true), (9, false), (7, false)] {
            window.record_span(number, advance);
        }
        assert_eq!((window.unique, window.lost(), window.late), (3, 1, 1));
    }

    #[test]
    fn sixteen_bit_numbers_wrap() {
        let mut window = SeqWindow::default();
        for lower in [65_534, 65_535, 1, 0, 65_533] {
            let number = window.extend(lower);
            window.record(number);
        }
        assert_eq!((window.lost(), window.late, window.unique), (0, 2, 5));
    }

    #[test]
    fn frames_are_complete_only_with_all_packets() {
        let mut frames = FrameTracker::new();
        assert!(!frames.record(0, 2));
        assert!(frames.record(0, 2));
        frames.record(1, 3);
        frames.record(1 + OPEN_FRAMES as u64, 2);
        assert_eq!((frames.complete, frames.incomplete), (1, 1));
        frames.finish();
        assert_eq!(frames.incomplete, 2);
    }

    #[test]
    fn quantiles_are_within_the_step() {
        let mut histogram = Histogram::new();
        for us in 1..=10_000 {
            histogram.record(Duration::from_micros(us));
        }
        let p50 = histogram.quantile_ms(0.5);
        assert!((4.85..=5.2).contains(&p50), "{p50}");
        assert_eq!(histogram.quantile_ms(1.0), 10.0);
        assert_eq!(Histogram::new().quantile_ms(0.5), 0.0);
    }
}
