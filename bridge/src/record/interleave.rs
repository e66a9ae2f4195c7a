//! Frames of two tracks in order of decoding time.
//!
//! Publishers send sound and picture of one moment up to some hundred milliseconds apart. A frame waits until the other
//! track has come as far, but no longer than [`HOLD`]; a track that is silent is not waited for.

use std::collections::VecDeque;
use std::time::Duration;

use freshet_media::{Frame, MediaKind, MediaTime};

/// Longest wait for the other track, in media time. Encoders interleave within half a second.
const HOLD: Duration = Duration::from_secs(1);
/// Most frames that wait: a bound for streams of tiny frames without times.
const MAX_WAITING: usize = 2_048;
/// Most bytes that do: a second of 130 Mbit/s, or one of the largest frames.
const MAX_WAITING_BYTES: usize = 16 * 1024 * 1024;

/// Frames on their way into a file.
#[derive(Debug, Default)]
pub(super) struct Interleaver {
    audio: VecDeque<Frame>,
    video: VecDeque<Frame>,
    /// Decoding times of each track's newest frame.
    newest_audio: Option<MediaTime>,
    newest_video: Option<MediaTime>,
    first: Option<MediaTime>,
    /// Of both queues.
    bytes: usize,
}

impl Interleaver {
    pub(super) fn push(&mut self, frame: Frame) {
        self.first.get_or_insert(frame.dts);
        let (queue, newest) = match frame.kind() {
            MediaKind::Audio => (&mut self.audio, &mut self.newest_audio),
            MediaKind::Video => (&mut self.video, &mut self.newest_video),
        };
        *newest = Some(newest.map_or(frame.dts, |at| at.max(frame.dts)));
        self.bytes += frame.data.len();
        queue.push_back(frame);
    }

    /// The next frame that need not wait any longer.
    pub(super) fn pop(&mut self) -> Option<Frame> {
        let newest = self.newest_audio.max(self.newest_video)?;
        let (audio, video) = (self.audio.front().map(|f| f.dts), self.video.front().map(|f| f.dts));
        match (audio, video) {
            (Some(_), Some(_)) => self.pop_any(),
            (Some(dts), None) => self.pop_lone(dts, newest, self.newest_video),
            (None, Some(dts)) => self.pop_lone(dts, newest, self.newest_audio),
            (None, None) => None,
        }
    }

    /// The next frame, whoever it waits for.
    pub(super) fn pop_any(&mut self) -> Option<Frame> {
        let (audio, video) = (self.audio.front().map(|f| f.dts), self.video.front().map(|f| f.dts));
        // A keyframe that begins a file goes before the sound of the same time.
        let is_video = video.is_some_and(|video| audio.is_none_or(|audio| video <= audio));
        let frame = if is_video { self.video.pop_front() } else { self.audio.pop_front() }?;
        self.bytes -= frame.data.len();
        Some(frame)
    }

    /// The next frame of that kind, if one waits.
    pub(super) fn front(&self, kind: MediaKind) -> Option<&Frame> {
        match kind {
            MediaKind::Audio => self.audio.front(),
            MediaKind::Video => self.video.front(),
        }
    }

    /// Another publisher comes.
    pub(super) fn clear(&mut self) {
        *self = Interleaver::default();
    }

    /// `other`: how far the track has come that has no frame waiting.
    fn pop_lone(&mut self, dts: MediaTime, newest: MediaTime, other: Option<MediaTime>) -> Option<Frame> {
        let is_new = self.first.is_some_and(|first| newest.since(first) < HOLD);
        let other_runs = other.is_some_and(|at| newest.since(at) < HOLD);
        let may_come = other.map_or(is_new, |at| other_runs && at < dts);
        let is_full = self.audio.len() + self.video.len() >= MAX_WAITING || self.bytes >= MAX_WAITING_BYTES;
        let is_patient = newest.since(dts) < HOLD && !is_full;
        if may_come && is_patient { None } else { self.pop_any() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::recorder::testing::{picture, sound};

    /// Pushes frames by kind and time and tells what comes out after each one.
    fn run(frames: &[(char, i64)]) -> String {
        let mut queue = Interleaver::default();
        let mut said = String::new();
        for (kind, ms) in frames {
            queue.push(if *kind == 'v' { picture(*ms, *ms == 0) } else { sound(*ms) });
            while let Some(frame) = queue.pop() {
                let kind = if frame.kind() == MediaKind::Video { 'v' } else { 'a' };
                said.push_str(&format!("{kind}{} ", frame.dts.millis()));
            }
            said.push('|');
        }
        while let Some(frame) = queue.pop_any() {
            said.push_str(&format!("({}) ", frame.dts.millis()));
        }
        said
    }

    #[test]
    fn frames_come_in_order_and_wait_no_longer_than_they_must() {
        for (frames, said) in [
            (&[('v', 0), ('a', 0), ('v', 40), ('a', 20), ('a', 40)][..], "|v0 a0 ||a20 |v40 a40 |"),
            // Sound that comes 300 ms before the picture of the same time.
            (&[('a', 0), ('a', 300), ('v', 0), ('v', 40)], "||v0 a0 |v40 |(300) "),
            // A picture that goes first is not held back by sound that has come as far.
            (&[('v', 0), ('a', 100), ('v', 50)], "|v0 |v50 |(100) "),
            // Only one track: waited for the other one once.
            (&[('v', 0), ('v', 500), ('v', 1000), ('v', 1040)], "||v0 v500 v1000 |v1040 |"),
            // Sound that falls silent.
            (&[('v', 0), ('a', 0), ('v', 900), ('v', 2000), ('v', 2040)], "|v0 a0 ||v900 v2000 |v2040 |"),
        ] {
            assert_eq!(run(frames), said, "{frames:?}");
        }
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut queue = Interleaver::default();
        for _ in 0..10_000 {
            queue.push(sound(0));
            while queue.pop().is_some() {}
            assert!(queue.audio.len() <= MAX_WAITING);
        }
        let mut queue = Interleaver::default();
        for _ in 0..100 {
            queue.push(Frame { data: vec![0; 1 << 20].into(), ..picture(0, true) });
            while queue.pop().is_some() {}
            let bytes: usize = queue.video.iter().map(|frame| frame.data.len()).sum();
            assert!(bytes == queue.bytes && bytes <= MAX_WAITING_BYTES);
        }
    }
}
