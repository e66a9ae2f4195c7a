//! What a validator checks of low-latency playlists, over the whole life of a stream: the texts that a player gets one
//! after the other, and the media behind them. Written from the draft, apart from the writer.

use std::collections::BTreeMap;

use super::*;
use crate::fmp4::testing::{ReadFragment, read_fragments, read_init};

#[derive(Debug, Clone, PartialEq)]
pub(super) struct SeenPart {
    pub(super) number: u64,
    pub(super) seconds: f64,
    pub(super) is_independent: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct SeenSegment {
    pub(super) sequence: u64,
    /// None while it is open.
    pub(super) seconds: Option<f64>,
    pub(super) is_discontinuous: bool,
    pub(super) date_ms: i64,
    pub(super) init: u64,
    pub(super) parts: Vec<SeenPart>,
}

/// A playlist as a player understands it.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    pub(super) target: f64,
    pub(super) part_target: Option<f64>,
    pub(super) sequence: u64,
    pub(super) discontinuities: u64,
    pub(super) is_independent: bool,
    pub(super) skipped: u64,
    pub(super) segments: Vec<SeenSegment>,
    pub(super) hint: Option<u64>,
    pub(super) has_ended: bool,
}

fn attribute<'a>(list: &'a str, name: &str) -> Option<&'a str> {
    let at = list.split(',').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?;
    Some(at.trim_matches('"'))
}

fn number_of(uri: &str, prefix: &str, ending: &str) -> u64 {
    uri.strip_suffix("?t=1").unwrap().strip_prefix(prefix).unwrap().strip_suffix(ending).unwrap().parse().unwrap()
}

fn seconds_of(text: &str) -> f64 {
    text.parse().unwrap()
}

/// Milliseconds within its day, for the dates of tests begin with one.
fn date_ms(text: &str) -> i64 {
    let time = text.split_once('T').unwrap().1.strip_suffix('Z').unwrap();
    let fields: Vec<f64> = time.split(':').map(seconds_of).collect();
    ((fields[0] * 3600.0 + fields[1] * 60.0 + fields[2]) * 1000.0).round() as i64
}

pub(super) fn parse(text: &str) -> Seen {
    let mut seen = Seen::default();
    let mut open =
        SeenSegment { sequence: 0, seconds: None, is_discontinuous: false, date_ms: -1, init: 0, parts: Vec::new() };
    let fresh = open.clone();
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("#EXTM3U"));
    while let Some(line) = lines.next() {
        let (tag, value) = line.split_once(':').unwrap_or((line, ""));
        assert!(!seen.has_ended, "nothing follows the end");
        match tag {
            "#EXT-X-VERSION" => assert_eq!(value, "9"),
            "#EXT-X-TARGETDURATION" => seen.target = seconds_of(value),
            "#EXT-X-SERVER-CONTROL" => {
                assert_eq!(attribute(value, "CAN-BLOCK-RELOAD"), Some("YES"));
                assert!(seconds_of(attribute(value, "CAN-SKIP-UNTIL").unwrap()) >= 6.0 * seen.target);
                seen.part_target = attribute(value, "PART-HOLD-BACK").map(|hold_back| seconds_of(hold_back) / 3.0);
            }
            "#EXT-X-PART-INF" => {
                let part_target = seconds_of(attribute(value, "PART-TARGET").unwrap());
                assert!(seen.part_target.unwrap() >= part_target - 0.0004, "at least three parts are held back");
                seen.part_target = Some(part_target);
            }
            "#EXT-X-MEDIA-SEQUENCE" => seen.sequence = value.parse().unwrap(),
            "#EXT-X-DISCONTINUITY-SEQUENCE" => seen.discontinuities = value.parse().unwrap(),
            "#EXT-X-INDEPENDENT-SEGMENTS" => seen.is_independent = true,
            "#EXT-X-SKIP" => {
                assert!(seen.segments.is_empty() && seen.skipped == 0);
                seen.skipped = attribute(value, "SKIPPED-SEGMENTS").unwrap().parse().unwrap();
            }
            "#EXT-X-DISCONTINUITY" => open.is_discontinuous = true,
            "#EXT-X-MAP" => open.init = number_of(attribute(value, "URI").unwrap(), "init-", ".mp4"),
            "#EXT-X-PROGRAM-DATE-TIME" => open.date_ms = date_ms(value),
            "#EXT-X-PART" => {
                assert!(open.date_ms >= 0, "a segment's tags stand before its parts");
                open.parts.push(SeenPart {
                    number: number_of(attribute(value, "URI").unwrap(), "part-", ".m4s"),
                    seconds: seconds_of(attribute(value, "DURATION").unwrap()),
                    is_independent: attribute(value, "INDEPENDENT") == Some("YES"),
                });
            }
            "#EXTINF" => {
                open.seconds = Some(seconds_of(value.strip_suffix(',').unwrap()));
                let sequence = number_of(lines.next().unwrap(), "seg-", ".m4s");
                assert_eq!(sequence, seen.sequence + seen.skipped + seen.segments.len() as u64);
                let init = open.init;
                seen.segments.push(SeenSegment { sequence, ..std::mem::replace(&mut open, fresh.clone()) });
                open.init = init;
            }
            "#EXT-X-PRELOAD-HINT" => {
                assert_eq!(attribute(value, "TYPE"), Some("PART"));
                seen.hint = Some(number_of(attribute(value, "URI").unwrap(), "part-", ".m4s"));
            }
            "#EXT-X-ENDLIST" => seen.has_ended = true,
            other => panic!("{other}"),
        }
    }
    if !open.parts.is_empty() {
        let sequence = seen.sequence + seen.skipped + seen.segments.len() as u64;
        seen.segments.push(SeenSegment { sequence, ..open });
    }
    seen
}

/// Follows one stream.
#[derive(Debug, Default)]
pub(super) struct Checker {
    last: Option<Seen>,
    /// The largest difference between a segment's length and that of its parts, in seconds.
    pub(super) worst_sum: f64,
    pub(super) parts: usize,
    pub(super) segments: usize,
    /// Where each track's next sample is expected, by initialization segment.
    newest: BTreeMap<u32, i64>,
    first_sequence: Option<u64>,
    /// Other publishers come: they may bring other target durations, and short breaks.
    pub(super) is_lenient: bool,
}

impl Checker {
    /// The part that was hinted at last.
    pub(super) fn looked_at(&self) -> Option<u64> {
        self.last.as_ref().and_then(|last| last.hint)
    }

    pub(super) fn look(&mut self, playlist: &LowLatencyPlaylist) -> Seen {
        let text = playlist.render(&MediaView { query: "?t=1", skip: false });
        let seen = parse(&text);
        self.check_alone(&seen, &text);
        let last = self.last.take();
        if let Some(last) = &last {
            check_follows(last, &seen);
            if !self.is_lenient {
                assert_eq!(last.target, seen.target, "the target duration stays");
                assert!(last.part_target.is_none() || last.part_target == seen.part_target, "the part target stays");
            }
            check_delta(last, &seen, &parse(&playlist.render(&MediaView { query: "?t=1", skip: true })));
        }
        self.check_media(&seen, last.as_ref(), playlist);
        self.last = Some(seen.clone());
        seen
    }

    fn check_alone(&mut self, seen: &Seen, text: &str) {
        let mut next_part = None;
        let mut end_ms: Option<i64> = None;
        for segment in &seen.segments {
            let is_open = segment.seconds.is_none();
            assert!(segment.init > 0 && segment.date_ms >= 0, "{text}");
            if let Some(seconds) = segment.seconds {
                assert!(seconds.round() <= seen.target, "§4.4.3.1: {seconds} of {}", seen.target);
            }
            if let Some(end_ms) = end_ms.filter(|_| !segment.is_discontinuous) {
                let error = segment.date_ms - end_ms;
                let allowed = if self.is_lenient { -40..=540 } else { -2..=2 };
                assert!(allowed.contains(&error), "dates go on, {error} ms: {text}");
            }
            end_ms = segment.seconds.map(|seconds| segment.date_ms + (seconds * 1000.0).round() as i64);
            if segment.parts.is_empty() {
                next_part = None;
            }
            for (i, part) in segment.parts.iter().enumerate() {
                assert!(next_part.is_none_or(|next| next == part.number), "part {} of {text}", part.number);
                next_part = Some(part.number + 1);
                let target = seen.part_target.unwrap();
                assert!(part.seconds > 0.0 && part.seconds <= target + 1e-5, "§4.4.4.9: {} of {target}", part.seconds);
                // Stricter than the draft, which exempts independent parts as well.
                let is_final = !is_open && i + 1 == segment.parts.len();
                assert!(is_final || part.seconds >= target * 0.85 - 1e-5, "§4.4.4.9: {} of {target}", part.seconds);
            }
            if let Some(seconds) = segment.seconds.filter(|_| !segment.parts.is_empty()) {
                let sum: f64 = segment.parts.iter().map(|part| part.seconds).sum();
                self.worst_sum = self.worst_sum.max((sum - seconds).abs());
            }
        }
        if let (Some(hint), Some(next)) = (seen.hint, next_part) {
            assert_eq!(hint, next, "{text}");
        }
        assert!(!(seen.has_ended && seen.hint.is_some()), "§4.4.5.3");
        assert_eq!(seen.part_target.is_some() && !seen.has_ended, seen.hint.is_some());
        let listed: f64 = seen.segments.iter().filter_map(|segment| segment.seconds).sum();
        let has_lost = *self.first_sequence.get_or_insert(seen.sequence) < seen.sequence;
        assert!(!has_lost || listed >= 3.0 * seen.target - 1e-3, "§6.2.2: {listed} s of {text}");
        // §4.4.4.9: parts are listed for the last three target durations only, but for the segment that begins there.
        let mut to_end: f64 = seen.segments.iter().map(length).sum();
        for segment in &seen.segments {
            to_end -= length(segment);
            assert!(segment.parts.is_empty() || to_end < 3.0 * seen.target + 0.5, "{text}");
        }
    }

    /// What the texts promise of the bytes, for what is new.
    fn check_media(&mut self, seen: &Seen, last: Option<&Seen>, playlist: &LowLatencyPlaylist) {
        for segment in &seen.segments {
            let known = last.and_then(|last| last.segments.iter().find(|known| known.sequence == segment.sequence));
            if known.is_some_and(|known| known.seconds.is_some()) {
                continue;
            }
            let tracks = read_init(&playlist.init(segment.init).unwrap());
            let has_pictures = tracks.contains_key(&1);
            let mut whole = Vec::new();
            for part in &segment.parts {
                let PartAnswer::Ready(data) = playlist.part(part.number) else { panic!("part {}", part.number) };
                whole.extend_from_slice(&data);
                if known.is_some_and(|known| known.parts.contains(part)) {
                    continue;
                }
                self.parts += 1;
                let fragments = read_fragments(&data, &tracks);
                assert_eq!(fragments.len(), 1);
                let has_keyframe = fragments[0].get(&1).is_some_and(|samples| samples.iter().any(|s| s.is_sync));
                assert_eq!(part.is_independent, has_keyframe || !has_pictures, "part {}", part.number);
                self.check_times(&fragments[0], segment.is_discontinuous);
            }
            if segment.seconds.is_none() {
                continue;
            }
            self.segments += 1;
            let data = playlist.segment(segment.sequence).unwrap();
            assert!(segment.parts.is_empty() || whole == data, "parts are all of their segment");
            let fragments = read_fragments(&data, &tracks);
            let first = fragments.iter().find_map(|fragment| fragment.get(&1)).map(|samples| samples[0].is_sync);
            assert!(!seen.is_independent || first.is_none_or(|is_sync| is_sync), "EXT-X-INDEPENDENT-SEGMENTS");
            if segment.parts.is_empty() && known.is_none() {
                fragments.iter().for_each(|fragment| self.check_times(fragment, segment.is_discontinuous));
            }
        }
        assert_eq!(playlist.part(u64::MAX), PartAnswer::Absent);
        if let Some(hint) = seen.hint {
            assert_eq!(playlist.part(hint), PartAnswer::Wait);
        }
    }

    fn check_times(&mut self, fragment: &ReadFragment, may_jump: bool) {
        for (id, samples) in fragment {
            for sample in samples {
                let next = self.newest.insert(*id, sample.dts + i64::from(sample.duration));
                if let Some(next) = next.filter(|_| !may_jump) {
                    assert!(sample.dts >= next - 9_000, "track {id} runs back from {next} to {}", sample.dts);
                }
            }
        }
    }
}

fn length(segment: &SeenSegment) -> f64 {
    segment.seconds.unwrap_or_else(|| segment.parts.iter().map(|part| part.seconds).sum())
}

/// §6.2.1: what a playlist may change.
fn check_follows(last: &Seen, seen: &Seen) {
    assert!(seen.sequence >= last.sequence);
    let left = last.segments.iter().filter(|segment| segment.sequence < seen.sequence);
    let left = left.filter(|segment| segment.is_discontinuous).count() as u64;
    assert_eq!(seen.discontinuities, last.discontinuities + left);
    for known in last.segments.iter().filter(|segment| segment.sequence >= seen.sequence) {
        let same = seen.segments.iter().find(|segment| segment.sequence == known.sequence).unwrap();
        assert_eq!(
            (same.is_discontinuous, same.date_ms, same.init),
            (known.is_discontinuous, known.date_ms, known.init)
        );
        assert!(known.seconds.is_none() || same.seconds == known.seconds);
        // Parts are added to the open segment, and leave a finished one all together.
        assert!(same.parts.is_empty() && same.seconds.is_some() || same.parts.starts_with(&known.parts));
    }
    assert!(seen.has_ended || seen.hint >= last.hint, "what was hinted at comes");
}

/// §6.2.5.1: a delta update says the same to who knows the last playlist.
fn check_delta(last: &Seen, seen: &Seen, delta: &Seen) {
    let skipped = delta.skipped as usize;
    assert_eq!(delta.segments[..], seen.segments[skipped..]);
    assert_eq!((delta.sequence, delta.discontinuities, delta.hint), (seen.sequence, seen.discontinuities, seen.hint));
    let boundary = 6.0 * seen.target;
    let after: f64 = seen.segments[skipped..].iter().filter_map(|segment| segment.seconds).sum();
    assert!(skipped == 0 || after > boundary, "nothing behind the Skip Boundary is left out");
    // A player that has read the playlist before knows what is left out.
    let known = |segment: &SeenSegment| last.segments.iter().any(|known| known.sequence == segment.sequence);
    assert!(seen.segments[..skipped].iter().all(known));
}
