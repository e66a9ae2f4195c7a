//! The most recent part of a stream, shared by all its players.
//!
//! A player is no more than a [`Cursor`]: it starts at the last video keyframe, so that its picture comes at once
//! whatever the encoder's distance of keyframes, and reads on at its own pace. One that is too slow loses whole
//! pictures up to a keyframe instead of delaying anybody or growing a queue of its own.
//!
//! What is cached need not be a [`Frame`]: a muxer keeps its ready-made bytes beside the frame and shares them too.
//! The cache reads no clock; ages and lags are distances in media time, by decoding times.

use std::collections::VecDeque;
use std::time::Duration;

use crate::{Frame, MediaKind, MediaTime};

/// How far before the live edge a player of a stream without picture starts: enough to fill a player's buffer at
/// once, too little to be heard as delay.
const AUDIO_BACKLOG: Duration = Duration::from_millis(200);

/// Most frames that are kept, whatever their size: a bound for streams of tiny or timeless frames. Sixty seconds of
/// picture at 120/s with sound in packets of 5 ms come to 19,200.
const MAX_FRAMES: usize = 32_768;

/// What a [`GopCache`] keeps at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GopLimits {
    /// Bytes of frame data. The newest frame stays even if it is larger.
    pub max_bytes: usize,
    /// Age of the oldest frame. Groups of pictures that last longer cannot be started from their keyframe.
    pub max_age: Duration,
    /// How far behind the live edge a player may fall before it loses pictures.
    pub max_lag: Duration,
}

/// A player's place in a [`GopCache`]. Stays valid over [`GopCache::clear`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// Sequence number of the frame that is read next.
    next: u64,
    /// Frames before this one lay between a keyframe and the live edge when the player was put there: they are its
    /// backlog, and being behind by them is no slowness.
    backlog_end: u64,
    /// Pictures are passed over until a keyframe comes.
    awaits_keyframe: bool,
}

/// What a player reads.
#[derive(Debug)]
pub enum Next<'a, T> {
    /// The next frame.
    Item(&'a T),
    /// The live edge is reached.
    Empty,
    /// The player was too slow: so many frames were passed over for it. Reading goes on, pictures with a keyframe.
    Skipped {
        /// How many frames.
        frames: u64,
    },
}

/// A ring of the newest frames of one stream, in the order in which they came.
#[derive(Debug)]
pub struct GopCache<T> {
    limits: GopLimits,
    ring: VecDeque<T>,
    bytes: usize,
    /// Sequence number of the ring's first frame, or of the next one if the ring is empty.
    first: u64,
    /// Sequence number of the newest video keyframe. Below `first` once that has gone.
    keyframe: Option<u64>,
    /// Sequence number at the last [`GopCache::clear`]. What was read before it does not help to decode what follows.
    cleared_at: u64,
    has_video: bool,
}

impl<T: AsRef<Frame>> GopCache<T> {
    /// An empty cache.
    pub fn new(limits: GopLimits) -> GopCache<T> {
        GopCache { limits, ring: VecDeque::new(), bytes: 0, first: 0, keyframe: None, cleared_at: 0, has_video: false }
    }

    /// Adds the newest frame and drops what nobody may need after it.
    pub fn push(&mut self, item: T) {
        let frame = item.as_ref();
        if frame.kind() == MediaKind::Video {
            self.has_video = true;
            if frame.is_keyframe {
                self.keyframe = Some(self.end());
            }
        }
        self.bytes += frame.data.len();
        self.ring.push_back(item);
        self.evict();
    }

    /// Where a new player starts: at the last video keyframe if that is still there, a little before the live edge in
    /// a stream without picture, otherwise at the live edge.
    pub fn start(&self) -> Cursor {
        let at = match self.startable() {
            Some(keyframe) => keyframe,
            None if self.has_video => self.end(),
            None => {
                let recent = self.ring.iter().rev().take_while(|item| self.age(item) <= AUDIO_BACKLOG).count();
                self.end() - recent as u64
            }
        };
        self.cursor(at)
    }

    /// The place of the frame that comes next. Pictures begin with the next keyframe there.
    pub fn live_edge(&self) -> Cursor {
        self.cursor(self.end())
    }

    /// Reads the next frame and moves on.
    ///
    /// Never hands out a picture that cannot be decoded: after a start or a skip the first one is a keyframe and no
    /// picture after it is left out. Sound is left out only where the player jumps.
    pub fn next<'a>(&'a self, cursor: &mut Cursor) -> Next<'a, T> {
        if cursor.next < self.first || cursor.next > self.end() {
            return self.return_to_ring(cursor);
        }
        if cursor.next <= self.cleared_at {
            cursor.awaits_keyframe = true;
        }
        while let Some(item) = self.get(cursor.next) {
            if let Some(frames) = self.hurry(cursor, item) {
                return Next::Skipped { frames };
            }
            cursor.next += 1;
            let frame = item.as_ref();
            if frame.kind() == MediaKind::Audio {
                return Next::Item(item);
            }
            cursor.awaits_keyframe &= !frame.is_keyframe;
            if !cursor.awaits_keyframe {
                return Next::Item(item);
            }
        }
        Next::Empty
    }

    /// Whether there is anything between the reader and the live edge.
    pub fn has_more(&self, cursor: &Cursor) -> bool {
        cursor.next < self.end()
    }

    /// Whether no frame is kept.
    pub fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }

    /// How many frames are kept.
    pub fn len(&self) -> usize {
        self.ring.len()
    }

    /// How many bytes of frame data are kept.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Forgets everything, for a new publisher. Players stay where they are and wait for its first keyframe.
    pub fn clear(&mut self) {
        self.first = self.end();
        self.cleared_at = self.first;
        self.ring = VecDeque::new();
        self.bytes = 0;
        self.keyframe = None;
        self.has_video = false;
    }

    /// Puts a cursor that points nowhere at the newest keyframe, or else at the oldest frame.
    fn return_to_ring(&self, cursor: &mut Cursor) -> Next<'_, T> {
        let from = cursor.next;
        // Beyond the end is only a cursor of another cache.
        let to = if from > self.end() { self.end() } else { self.startable().unwrap_or(self.first) };
        *cursor = self.cursor(to);
        Next::Skipped { frames: to.saturating_sub(from) + self.undecodable_from(cursor) }
    }

    /// Makes a player that is too far behind leave something out, and tells how many frames.
    fn hurry(&self, cursor: &mut Cursor, item: &T) -> Option<u64> {
        if self.age(item) <= self.limits.max_lag {
            return None;
        }
        if let Some(keyframe) = self.startable().filter(|keyframe| *keyframe > cursor.next) {
            let frames = keyframe - cursor.next;
            *cursor = self.cursor(keyframe);
            return Some(frames);
        }
        if cursor.next < cursor.backlog_end || cursor.awaits_keyframe {
            return None;
        }
        let frames = self.undecodable_from(cursor);
        cursor.awaits_keyframe = frames > 0;
        cursor.awaits_keyframe.then_some(frames)
    }

    /// How many of the pictures that are here already a player will not see that waits for a keyframe.
    fn undecodable_from(&self, cursor: &Cursor) -> u64 {
        let passed = usize::try_from(cursor.next - self.first).unwrap_or(usize::MAX);
        let rest = self.ring.iter().skip(passed).map(AsRef::as_ref).filter(|f| f.kind() == MediaKind::Video);
        rest.take_while(|frame| !frame.is_keyframe).count() as u64
    }

    fn evict(&mut self) {
        while self.ring.len() > 1 {
            let Some(oldest) = self.ring.front() else { return };
            let age = self.age(oldest);
            // What stands before the last keyframe, or follows one that has gone, serves only players that are late.
            let opens = self.startable() == Some(self.first);
            let max_age = if opens { self.limits.max_age } else { self.limits.max_age.min(self.limits.max_lag) };
            if age <= max_age && self.bytes <= self.limits.max_bytes && self.ring.len() <= MAX_FRAMES {
                return;
            }
            self.bytes -= oldest.as_ref().data.len();
            self.ring.pop_front();
            self.first += 1;
        }
    }

    /// The newest keyframe, if it is still in the ring.
    fn startable(&self) -> Option<u64> {
        self.keyframe.filter(|keyframe| *keyframe >= self.first)
    }

    fn cursor(&self, next: u64) -> Cursor {
        Cursor { next, backlog_end: self.end(), awaits_keyframe: true }
    }

    /// Sequence number of the frame that comes next.
    fn end(&self) -> u64 {
        self.first + self.ring.len() as u64
    }

    fn get(&self, seq: u64) -> Option<&T> {
        self.ring.get(usize::try_from(seq.checked_sub(self.first)?).ok()?)
    }

    /// How far a frame lies behind the newest one.
    fn age(&self, item: &T) -> Duration {
        let newest = self.ring.back().map_or(MediaTime::default(), |newest| newest.as_ref().dts);
        newest.since(item.as_ref().dts)
    }
}

#[cfg(test)]
#[path = "gop_cache_tests.rs"]
mod tests;
