//! The text of the media playlist (§4.4.3 to §4.4.5).

use std::fmt::Write as _;
use std::time::Duration;

use super::playlist::{LowLatencyPlaylist, Segment};
use super::{FRAGMENT_ENDING, INIT_ENDING, INIT_PREFIX, LOW_LATENCY_SEGMENT_PREFIX, PART_PREFIX};
use crate::hls::date::Iso8601;

/// `CAN-SKIP-UNTIL` in target durations, the least that is allowed (§4.4.3.8).
const SKIP_TARGETS: u32 = 6;
/// Parts are listed for so many target durations (§4.4.4.9).
const PART_TARGETS_LISTED: u32 = 3;
/// `PART-HOLD-BACK` in part targets, the least that is recommended (§4.4.3.8).
const HOLD_BACK_PARTS: u32 = 3;

/// How a request wants the media playlist.
#[derive(Debug, Clone, Copy, Default)]
pub struct MediaView<'a> {
    /// Hung on all names, with its question mark; fit for a URI.
    pub query: &'a str,
    /// `_HLS_skip=YES`: segments that the player knows are left out.
    pub skip: bool,
}

impl LowLatencyPlaylist {
    /// The text. All names are those of files beside the playlist.
    pub fn render(&self, view: &MediaView<'_>) -> String {
        let mut text = String::with_capacity(1_024 + self.window.listed().len() * (256 + 2 * view.query.len()));
        self.write_head(&mut text);
        let to_skip = if view.skip { self.skippable() } else { 0 };
        if to_skip > 0 {
            let _ = writeln!(text, "#EXT-X-SKIP:SKIPPED-SEGMENTS={to_skip}");
        }
        // Parts are of use near the end only.
        let mut to_end =
            self.window.listed().iter().map(|segment| segment.duration).sum::<Duration>() + self.open_duration();
        let with_parts = self.target_duration() * PART_TARGETS_LISTED;
        let mut init = None;
        for (i, segment) in self.window.listed().iter().enumerate() {
            to_end = to_end.saturating_sub(segment.duration);
            if i < to_skip {
                continue;
            }
            self.write_segment_head(&mut text, segment, init, view);
            init = Some(segment.init);
            if to_end < with_parts {
                self.write_parts(&mut text, segment, view);
            }
            let (seconds, number, query) = (segment.duration.as_secs_f64(), segment.sequence, view.query);
            let _ =
                write!(text, "#EXTINF:{seconds:.5},\n{LOW_LATENCY_SEGMENT_PREFIX}{number}{FRAGMENT_ENDING}{query}\n");
        }
        if let Some(open) = self.open.as_ref().filter(|open| !open.parts.is_empty()) {
            self.write_segment_head(&mut text, open, init, view);
            self.write_parts(&mut text, open, view);
        }
        if self.has_ended() {
            text.push_str("#EXT-X-ENDLIST\n");
        } else if self.part_target().is_some() {
            let (number, query) = (self.next_part, view.query);
            let _ =
                writeln!(text, "#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"{PART_PREFIX}{number}{FRAGMENT_ENDING}{query}\"");
        }
        text
    }

    // Writing to a string cannot fail, here and below.
    fn write_head(&self, text: &mut String) {
        let first = self.window.listed().front().map_or(self.next_sequence, |segment| segment.sequence);
        let target = self.target_duration();
        let seconds = target.as_secs();
        let skip = (target * SKIP_TARGETS).as_secs();
        let _ = write!(text, "#EXTM3U\n#EXT-X-VERSION:9\n#EXT-X-TARGETDURATION:{seconds}\n");
        let _ = write!(text, "#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,CAN-SKIP-UNTIL={skip}.0");
        if let Some(part) = self.part_target() {
            let (hold_back, part) = ((part * HOLD_BACK_PARTS).as_secs_f64(), part.as_secs_f64());
            let _ = write!(text, ",PART-HOLD-BACK={hold_back:.3}\n#EXT-X-PART-INF:PART-TARGET={part:.3}");
        }
        let _ = write!(text, "\n#EXT-X-MEDIA-SEQUENCE:{first}\n");
        if self.window.past_discontinuities() > 0 {
            let _ = writeln!(text, "#EXT-X-DISCONTINUITY-SEQUENCE:{}", self.window.past_discontinuities());
        }
        // Of the open segment only its beginning is known.
        let open = self.open.iter().flat_map(|open| open.parts.first());
        if self.window.listed().iter().all(|segment| segment.is_independent)
            && open.into_iter().all(|part| part.is_independent)
        {
            text.push_str("#EXT-X-INDEPENDENT-SEGMENTS\n");
        }
    }

    fn write_segment_head(&self, text: &mut String, segment: &Segment, init: Option<u64>, view: &MediaView<'_>) {
        if segment.is_discontinuous {
            text.push_str("#EXT-X-DISCONTINUITY\n");
        }
        if init != Some(segment.init) {
            let (number, query) = (segment.init, view.query);
            let _ = writeln!(text, "#EXT-X-MAP:URI=\"{INIT_PREFIX}{number}{INIT_ENDING}{query}\"");
        }
        let _ = writeln!(text, "#EXT-X-PROGRAM-DATE-TIME:{}", Iso8601(segment.starts_at));
    }

    fn write_parts(&self, text: &mut String, segment: &Segment, view: &MediaView<'_>) {
        // Parts that were made for another target would break the rules of this one.
        if segment.part_target.is_none() || segment.part_target != self.part_target() {
            return;
        }
        for part in &segment.parts {
            let (seconds, number, query) = (part.duration.as_secs_f64(), part.number, view.query);
            let _ =
                write!(text, "#EXT-X-PART:DURATION={seconds:.5},URI=\"{PART_PREFIX}{number}{FRAGMENT_ENDING}{query}\"");
            text.push_str(if part.is_independent { ",INDEPENDENT=YES\n" } else { "\n" });
        }
    }

    /// How many segments are before the Skip Boundary.
    fn skippable(&self) -> usize {
        let boundary = self.target_duration() * SKIP_TARGETS;
        let mut to_end = self.window.listed().iter().map(|segment| segment.duration).sum::<Duration>();
        let is_before = |segment: &&Segment| {
            to_end = to_end.saturating_sub(segment.duration);
            to_end > boundary
        };
        self.window.listed().iter().take_while(is_before).count()
    }

    fn open_duration(&self) -> Duration {
        self.open.iter().flat_map(|open| &open.parts).map(|part| part.duration).sum()
    }
}
