//! Segments, parts and initialization segments as players ask for them.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};

use crate::hls::window::{Listed, Window};

/// A request may be for a segment this much after the last one (§6.2.5.2).
const MAX_SEGMENTS_AHEAD: u64 = 2;
/// And for a part of the open segment that will be there in this time.
const MAX_PARTS_AHEAD: Duration = Duration::from_secs(3);
/// At least so many parts ahead (§6.2.5.2: three where parts have a second or more).
const MIN_PARTS_AHEAD: u128 = 3;

/// A part of a segment.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) number: u64,
    pub(super) duration: Duration,
    /// A keyframe is in it.
    pub(super) is_independent: bool,
    pub(super) data: Bytes,
}

/// A segment, finished or not.
#[derive(Debug, Clone)]
pub(super) struct Segment {
    pub(super) sequence: u64,
    pub(super) duration: Duration,
    pub(super) starts_at: SystemTime,
    pub(super) is_discontinuous: bool,
    pub(super) is_independent: bool,
    /// The number of its initialization segment.
    pub(super) init: u64,
    /// The target that its parts keep to; none in a segment without parts.
    pub(super) part_target: Option<Duration>,
    pub(super) parts: Vec<Part>,
    /// All of it, once it is finished.
    pub(super) data: Bytes,
}

impl Segment {
    pub(super) fn new(starts_at: SystemTime, is_discontinuous: bool) -> Segment {
        Segment {
            sequence: 0,
            duration: Duration::ZERO,
            starts_at,
            is_discontinuous,
            is_independent: true,
            init: 0,
            part_target: None,
            parts: Vec::new(),
            data: Bytes::new(),
        }
    }

    /// Puts the parts together; they share its bytes from then on.
    fn finish(&mut self) {
        let mut whole = BytesMut::with_capacity(self.parts.iter().map(|part| part.data.len()).sum());
        let mut ends = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            whole.extend_from_slice(&part.data);
            ends.push(whole.len());
        }
        self.data = whole.freeze();
        let mut start = 0;
        for (part, end) in self.parts.iter_mut().zip(ends) {
            part.data = self.data.slice(start..end);
            start = end;
        }
    }
}

impl Listed for Segment {
    fn sequence(&self) -> u64 {
        self.sequence
    }

    fn duration(&self) -> Duration {
        self.duration
    }

    fn bytes(&self) -> usize {
        self.data.len()
    }

    fn is_discontinuous(&self) -> bool {
        self.is_discontinuous
    }
}

/// What the tracks of an initialization segment are.
#[derive(Debug, Clone, Default)]
pub(super) struct Rendition {
    pub(super) codecs: Vec<String>,
    pub(super) size: Option<(u16, u16)>,
    /// The distance of pictures.
    pub(super) interval: Option<Duration>,
}

#[derive(Debug)]
struct Init {
    number: u64,
    data: Bytes,
}

/// Whether a playlist that a request asks for is there (§6.2.5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// It is.
    Ready,
    /// Not yet.
    Wait,
    /// It asks for what nobody can know of yet: 400.
    TooFar,
}

/// A part that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PartAnswer {
    /// Its bytes.
    Ready(Bytes),
    /// It is the one that the playlist hints at.
    Wait,
    /// There is none, or none any more.
    Absent,
}

/// What players see of a stream.
#[derive(Debug)]
pub struct LowLatencyPlaylist {
    pub(super) window: Window<Segment>,
    pub(super) open: Option<Segment>,
    inits: VecDeque<Init>,
    pub(super) rendition: Rendition,
    pub(super) next_sequence: u64,
    pub(super) next_part: u64,
    target_seconds: u64,
    part_target: Option<Duration>,
    has_ended: bool,
}

impl LowLatencyPlaylist {
    pub(super) fn new(window: Duration, first_sequence: u64, first_part: u64, target_seconds: u64) -> Self {
        LowLatencyPlaylist {
            window: Window::new(window),
            open: None,
            inits: VecDeque::new(),
            rendition: Rendition::default(),
            next_sequence: first_sequence,
            next_part: first_part,
            target_seconds,
            part_target: None,
            has_ended: false,
        }
    }

    /// No segment can be played yet.
    pub fn is_empty(&self) -> bool {
        self.window.listed().is_empty()
    }

    /// How many whole segments the playlist lists.
    pub fn len(&self) -> usize {
        self.window.listed().len()
    }

    /// Whether the stream is over.
    pub fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// `EXT-X-TARGETDURATION`.
    pub fn target_duration(&self) -> Duration {
        Duration::from_secs(self.target_seconds)
    }

    /// `PART-TARGET`, once it is known.
    pub fn part_target(&self) -> Option<Duration> {
        self.part_target
    }

    /// Whether players will see parts, or have none to wait for: those that see none at first ask for whole segments.
    pub fn lists_parts(&self) -> bool {
        let has_parts = |segment: &Segment| {
            segment.part_target.is_some() && segment.part_target == self.part_target && !segment.parts.is_empty()
        };
        self.has_ended || self.open.as_ref().is_none_or(has_parts) || self.window.listed().iter().any(has_parts)
    }

    /// The number that the next segment will have.
    pub fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// The number that the next part will have.
    pub fn next_part(&self) -> u64 {
        self.next_part
    }

    /// Bytes of all that is kept.
    pub fn bytes(&self) -> usize {
        self.window.bytes() + self.open_bytes() + self.inits.iter().map(|init| init.data.len()).sum::<usize>()
    }

    /// Whether the playlist has that segment, or that part of it (`_HLS_msn`, `_HLS_part`), or something later.
    pub fn readiness(&self, sequence: u64, part: Option<u64>) -> Readiness {
        if self.has_ended {
            return Readiness::Ready;
        }
        let Some(part) = part else { return self.segment_readiness(sequence) };
        if sequence < self.next_sequence {
            let count =
                self.window.listed().iter().rev().find(|s| s.sequence == sequence).map_or(0, |s| s.parts.len() as u64);
            // A part behind the last one of a segment is the first one of the next (§6.2.5.2).
            let is_there = part < count || sequence + 1 < self.next_sequence || self.open_parts() > 0;
            return if is_there { Readiness::Ready } else { Readiness::Wait };
        }
        let is_open = sequence == self.next_sequence;
        let there = if is_open { self.open_parts() } else { 0 };
        if part < there {
            return Readiness::Ready;
        }
        if part >= there.saturating_add(self.parts_ahead()) {
            return Readiness::TooFar;
        }
        self.segment_readiness(sequence)
    }

    fn segment_readiness(&self, sequence: u64) -> Readiness {
        if sequence < self.next_sequence {
            Readiness::Ready
        } else if sequence < self.next_sequence.saturating_add(MAX_SEGMENTS_AHEAD) {
            Readiness::Wait
        } else {
            Readiness::TooFar
        }
    }

    fn open_parts(&self) -> u64 {
        self.open.as_ref().map_or(0, |open| open.parts.len() as u64)
    }

    /// The Advance Part Limit.
    fn parts_ahead(&self) -> u64 {
        let target = self.part_target.unwrap_or(Duration::from_secs(1)).as_nanos().max(1);
        (MAX_PARTS_AHEAD.as_nanos() / target).max(MIN_PARTS_AHEAD) as u64
    }

    /// A whole segment by its number, also one that has just left the playlist.
    pub fn segment(&self, sequence: u64) -> Option<Bytes> {
        self.window.segment(sequence).map(|segment| segment.data.clone())
    }

    /// A part by its number.
    pub fn part(&self, number: u64) -> PartAnswer {
        if number == self.next_part && !self.has_ended {
            return PartAnswer::Wait;
        }
        let holds = |segment: &&Segment| {
            segment.parts.first().is_some_and(|first| first.number <= number)
                && segment.parts.last().is_some_and(|last| number <= last.number)
        };
        let segment = self.open.iter().chain(self.window.kept().rev()).find(holds);
        let part = segment.and_then(|segment| segment.parts.iter().find(|part| part.number == number));
        part.map_or(PartAnswer::Absent, |part| PartAnswer::Ready(part.data.clone()))
    }

    /// An initialization segment by its number.
    pub fn init(&self, number: u64) -> Option<Bytes> {
        self.inits.iter().find(|init| init.number == number).map(|init| init.data.clone())
    }

    pub(super) fn target_seconds(&self) -> u64 {
        self.target_seconds
    }

    pub(super) fn raise_target(&mut self, seconds: u64) {
        self.target_seconds = self.target_seconds.max(seconds);
    }

    pub(super) fn set_part_target(&mut self, target: Duration) {
        // As it is written, in whole milliseconds.
        let above = u64::from(!target.subsec_nanos().is_multiple_of(1_000_000));
        self.part_target = Some(Duration::from_millis(target.as_millis() as u64 + above));
    }

    pub(super) fn end(&mut self) {
        self.has_ended = true;
    }

    pub(super) fn has_init(&self) -> bool {
        !self.inits.is_empty()
    }

    /// The initialization segment of the segments that follow.
    pub(super) fn push_init(&mut self, data: Bytes, rendition: Rendition) {
        // Names are kept for long, so each has a number of its own: that of its first segment.
        self.inits.retain(|init| init.number != self.next_sequence);
        self.inits.push_back(Init { number: self.next_sequence, data });
        self.rendition = rendition;
    }

    pub(super) fn note_interval(&mut self, interval: Duration) {
        self.rendition.interval = Some(interval);
    }

    /// Begins a segment; its numbers are given here.
    pub(super) fn open(&mut self, mut segment: Segment) {
        self.has_ended = false;
        segment.sequence = self.next_sequence;
        segment.init = self.inits.back().map_or(0, |init| init.number);
        segment.part_target = self.part_target;
        self.open = Some(segment);
    }

    /// The target of the open segment's parts.
    pub(super) fn open_part_target(&self) -> Option<Duration> {
        self.open.as_ref().and_then(|open| open.part_target)
    }

    /// Lets the open segment have parts, now that it is known how long they are to be.
    pub(super) fn set_open_part_target(&mut self) {
        if let Some(open) = &mut self.open {
            open.part_target = self.part_target;
        }
    }

    pub(super) fn open_bytes(&self) -> usize {
        self.open.iter().flat_map(|open| &open.parts).map(|part| part.data.len()).sum()
    }

    pub(super) fn push_part(&mut self, duration: Duration, is_independent: bool, data: Bytes) {
        let Some(open) = &mut self.open else { return };
        open.parts.push(Part { number: self.next_part, duration, is_independent, data });
        self.next_part += 1;
    }

    /// The open segment cannot be decoded without the one before.
    pub(super) fn note_dependent(&mut self) {
        if let Some(open) = &mut self.open {
            open.is_independent = false;
        }
    }

    /// Forgets the open segment, unless a part of it has been seen.
    pub(super) fn discard_open(&mut self) -> bool {
        let is_new = self.open_parts() == 0;
        if is_new {
            self.open = None;
        }
        is_new
    }

    /// Lists the open segment.
    pub(super) fn close(&mut self, duration: Duration) {
        let Some(mut segment) = self.open.take() else { return };
        if segment.parts.is_empty() {
            return;
        }
        segment.duration = duration;
        segment.finish();
        self.next_sequence += 1;
        self.window.push(segment, self.target_duration());
        let oldest = self.window.kept().next().map_or(u64::MAX, |segment| segment.init);
        self.inits.retain(|init| init.number >= oldest);
    }
}
