//! What a source's video is like: bit rate and pictures per second, measured over the last seconds.

use std::collections::VecDeque;

use freshet_media::MediaTime;

/// Long enough to hold a keyframe and what is saved behind it, for the usual GOP.
const WINDOW_MICROS: i64 = 2_000_000;
/// 2 s of 240 pictures per second. More only makes the window shorter.
const MAX_ENTRIES: usize = 480;
/// Below this a measurement says nothing yet.
const MIN_SPAN_MICROS: i64 = 900_000;

/// The sliding window.
#[derive(Debug, Default)]
pub(super) struct RateMeter {
    pictures: VecDeque<(MediaTime, usize)>,
    bytes: usize,
}

/// What was measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Measured {
    pub(super) bitrate_bps: f64,
    pub(super) pictures_per_second: f64,
}

impl RateMeter {
    /// Counts a picture by its decoding time, which never runs backwards.
    pub(super) fn add(&mut self, dts: MediaTime, bytes: usize) {
        self.pictures.push_back((dts, bytes));
        self.bytes = self.bytes.saturating_add(bytes);
        while let Some((oldest, size)) = self.pictures.front().copied() {
            let age = dts.micros().saturating_sub(oldest.micros());
            if (0..=WINDOW_MICROS).contains(&age) && self.pictures.len() <= MAX_ENTRIES {
                break;
            }
            self.bytes = self.bytes.saturating_sub(size);
            self.pictures.pop_front();
        }
    }

    /// The averages, once there is enough to average.
    pub(super) fn measured(&self) -> Option<Measured> {
        let (first, last) = (self.pictures.front()?, self.pictures.back()?);
        let span = last.0.micros().saturating_sub(first.0.micros());
        if span < MIN_SPAN_MICROS {
            return None;
        }
        let seconds = span as f64 / 1e6;
        // The last picture's own time is not in the span.
        let bytes = self.bytes.saturating_sub(last.1);
        let pictures_per_second = (self.pictures.len() - 1) as f64 / seconds;
        Some(Measured { bitrate_bps: bytes as f64 * 8.0 / seconds, pictures_per_second })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_those_of_the_last_seconds() {
        let mut meter = RateMeter::default();
        assert_eq!(meter.measured(), None);
        for i in 0..300 {
            // 30 per second of 5000 bytes, then 60 per second of 1000.
            let (millis, bytes) = if i < 150 { (i * 1000 / 30, 5000) } else { (5000 + (i - 150) * 1000 / 60, 1000) };
            meter.add(MediaTime::from_millis(millis), bytes);
            if i == 149 {
                let measured = meter.measured().unwrap();
                assert!((measured.bitrate_bps - 1.2e6).abs() < 2e4, "{measured:?}");
                assert!((measured.pictures_per_second - 30.0).abs() < 0.5, "{measured:?}");
            }
        }
        let measured = meter.measured().unwrap();
        assert!((measured.bitrate_bps - 480e3).abs() < 1e4, "{measured:?}");
        assert!((measured.pictures_per_second - 60.0).abs() < 0.5, "{measured:?}");
        // Time that stands still or runs back does no harm.
        for millis in [9_000, 9_000, 1, i64::MIN / 2000, i64::MAX / 2000] {
            meter.add(MediaTime::from_millis(millis), usize::MAX);
            meter.measured();
        }
        for _ in 0..1000 {
            meter.add(MediaTime::from_millis(1), 1);
        }
        assert!(meter.pictures.len() <= MAX_ENTRIES);
    }
}
