//! One timeline for what a publisher sends: encoders start anywhere, wrap, jump, and come back after a break.
//!
//! Times in are milliseconds modulo 2^32 as RTMP carries them, per track in decoding order. Times out start at 0, never
//! run backwards within a track and have no large holes: a jump, forwards or back, is closed up to the distance that
//! the track's next frame is expected at. Both tracks move together, so that sound and picture keep their relation: the
//! track that jumps first opens a new *span* of the source's clock, and the other one joins it when its own times
//! arrive there.
//!
//! A wrap at 2^32 ms is no jump. One at 2^24 ms (4.66 h, encoders that forget the extended timestamp) is an ordinary
//! jump back. What this does not do: correct a clock that drifts, or tell a real pause from a jump (there is no clock).

use std::time::Duration;

use freshet_media::{MediaKind, MediaTime};

/// A step forwards up to this is a hole that stays (lost frames, a stalled encoder). Larger than any interleaving of
/// sound and picture that encoders produce, so that it also tells whether the two tracks are in the same span.
const MAX_STEP_MS: i64 = 3_000;

/// A step back up to this is disorder within the span: times stand still until the source has caught up. Decoding
/// times of one track never run back legitimately; 250 ms covers an encoder's rounding and late adjustments.
const MAX_STEP_BACK_MS: i64 = 250;

/// Distances outside this say nothing about the next one.
const PLAUSIBLE_INTERVAL_MS: std::ops::RangeInclusive<i64> = 1..=1_000;

/// A longer break before a republish counts as this one, so that no sum of times can overflow.
const MAX_GAP_MS: i64 = 24 * 3_600 * 1_000;

/// Distance to the next frame until one has been seen: 30 pictures a second, 1024 samples at 44.1 kHz.
const DEFAULT_INTERVAL_MS: [i64; 2] = [23, 33];

/// Where a track is.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// The source's time of its last frame.
    source_ms: u32,
    /// That time on the timeline, before it was kept from running backwards.
    position_ms: i64,
    /// Number of the span of the source's clock that both belong to; later spans have higher numbers.
    span: u64,
}

impl Place {
    /// How far `source_ms` is after this, modulo 2^32.
    fn distance_to(&self, source_ms: u32) -> i64 {
        i64::from(source_ms.wrapping_sub(self.source_ms).cast_signed())
    }

    fn moved_to(&self, source_ms: u32) -> Place {
        Place { source_ms, position_ms: self.position_ms + self.distance_to(source_ms), span: self.span }
    }
}

#[derive(Debug, Clone, Copy)]
struct Track {
    place: Option<Place>,
    /// The last time given out.
    last_ms: Option<i64>,
    interval_ms: i64,
}

/// Puts one publisher's frames, or those of several in turn, on one timeline.
#[derive(Debug, Clone)]
pub struct Timeline {
    /// Audio, video.
    tracks: [Track; 2],
    /// Where the first frame goes after a beginning.
    start_ms: i64,
    spans: u64,
}

impl Default for Timeline {
    fn default() -> Timeline {
        Timeline::new()
    }
}

impl Timeline {
    /// A timeline whose first frame is at 0.
    pub fn new() -> Timeline {
        let tracks = DEFAULT_INTERVAL_MS.map(|interval_ms| Track { place: None, last_ms: None, interval_ms });
        Timeline { tracks, start_ms: 0, spans: 0 }
    }

    /// The time of the track's next frame, from its decoding time at the source.
    pub fn place(&mut self, kind: MediaKind, dts_ms: u32) -> MediaTime {
        let (own, other) = match kind {
            MediaKind::Audio => (0, 1),
            MediaKind::Video => (1, 0),
        };
        let place = self.locate(self.tracks[own], self.tracks[other].place, dts_ms);
        let track = &mut self.tracks[own];
        track.place = Some(place);
        let floor = track.last_ms.unwrap_or(0);
        let at = place.position_ms.max(floor);
        if track.last_ms.is_some() && PLAUSIBLE_INTERVAL_MS.contains(&(at - floor)) {
            track.interval_ms = at - floor;
        }
        track.last_ms = Some(at);
        MediaTime::from_millis(at)
    }

    /// The latest time given out so far.
    pub fn latest(&self) -> MediaTime {
        MediaTime::from_millis(self.latest_ms().unwrap_or(0))
    }

    /// A publisher comes (back), `gap` after the last frame of the one before: what follows goes there, wherever the
    /// source's clock is now.
    pub fn begin_again(&mut self, gap: Duration) {
        let Some(latest) = self.latest_ms() else { return };
        let gap_ms = i64::try_from(gap.as_millis()).unwrap_or(MAX_GAP_MS).min(MAX_GAP_MS);
        let interval_ms = self.tracks.iter().map(|track| track.interval_ms).max().unwrap_or(0);
        self.start_ms = latest.saturating_add(gap_ms.max(interval_ms));
        for track in &mut self.tracks {
            track.place = None;
        }
    }

    /// The same, if others have put frames on the timeline meanwhile, up to `latest`.
    pub fn begin_again_after(&mut self, latest: MediaTime, gap: Duration) {
        for track in &mut self.tracks {
            if let Some(last_ms) = &mut track.last_ms {
                *last_ms = latest.millis().max(*last_ms);
            } else if latest > MediaTime::default() {
                track.last_ms = Some(latest.millis());
            }
        }
        self.begin_again(gap);
    }

    /// Where the next publisher's first frame goes.
    pub fn start(&self) -> MediaTime {
        MediaTime::from_millis(self.start_ms)
    }

    fn latest_ms(&self) -> Option<i64> {
        self.tracks.iter().filter_map(|track| track.last_ms).max()
    }

    fn locate(&mut self, own: Track, other: Option<Place>, dts_ms: u32) -> Place {
        // It goes on in its own span.
        if let Some(place) = own.place
            && (-MAX_STEP_BACK_MS..=MAX_STEP_MS).contains(&place.distance_to(dts_ms))
        {
            return place.moved_to(dts_ms);
        }
        // It joins the other track: after a jump that the other one made first, or after a silence of its own. To go
        // far back is right only into a newer span; in the same one it is this track that jumps.
        if let Some(place) = other
            && place.distance_to(dts_ms).abs() <= MAX_STEP_MS
        {
            let joined = place.moved_to(dts_ms);
            let is_newer = own.place.is_none_or(|own| place.span > own.span);
            let runs_on = own.last_ms.is_none_or(|last| joined.position_ms >= last - MAX_STEP_BACK_MS);
            if is_newer || runs_on {
                return joined;
            }
        }
        self.open_span(own, other, dts_ms)
    }

    fn open_span(&mut self, own: Track, other: Option<Place>, dts_ms: u32) -> Place {
        self.spans += 1;
        let latest = self.latest_ms();
        let position_ms = match (own.place.and(own.last_ms), latest) {
            // A track that was silent for long would pull the other one back with it.
            (Some(last), Some(latest)) if latest - last <= MAX_STEP_MS => last + own.interval_ms,
            (Some(_), Some(latest)) => latest,
            // The second track of a source whose clocks have nothing in common: level with the first.
            (None, Some(latest)) if other.is_some() => latest,
            _ => self.start_ms,
        };
        Place { source_ms: dts_ms, position_ms, span: self.spans }
    }
}

#[cfg(test)]
#[path = "timeline_tests.rs"]
mod tests;
