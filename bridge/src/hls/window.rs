//! Which segments a playlist lists, and which have left it and can still be asked for (RFC 8216 §6.2.2).

use std::collections::VecDeque;
use std::time::Duration;

/// Segments that stay after they have left the playlist, for players that have read it a moment ago.
const KEPT_AFTERWARDS: usize = 5;

/// A playlist must not get shorter than this many target durations.
const MIN_TARGET_DURATIONS: u32 = 3;

/// Nor shorter than so many segments, however long they are: players begin three from the end.
const MIN_SEGMENTS: usize = 3;

/// Most bytes of listed segments, whatever the window: a minute of 32 Mbit/s.
const MAX_LISTED_BYTES: usize = 256 * 1024 * 1024;

/// A finished segment, as far as a playlist's length depends on it.
pub(super) trait Listed {
    fn sequence(&self) -> u64;
    fn duration(&self) -> Duration;
    fn bytes(&self) -> usize;
    fn is_discontinuous(&self) -> bool;
}

/// The newest segments of a stream, numbered without holes.
#[derive(Debug, Clone)]
pub(super) struct Window<S> {
    length: Duration,
    listed: VecDeque<S>,
    /// Have left the playlist.
    former: VecDeque<S>,
    past_discontinuities: u64,
}

impl<S: Listed> Window<S> {
    /// Of that length, or what the target duration asks for if that is more.
    pub(super) fn new(length: Duration) -> Window<S> {
        Window { length, listed: VecDeque::new(), former: VecDeque::new(), past_discontinuities: 0 }
    }

    /// What the playlist lists, oldest first.
    pub(super) fn listed(&self) -> &VecDeque<S> {
        &self.listed
    }

    /// What has left it, oldest first.
    pub(super) fn former(&self) -> &VecDeque<S> {
        &self.former
    }

    /// Both, oldest first.
    pub(super) fn kept(&self) -> impl DoubleEndedIterator<Item = &S> {
        self.former.iter().chain(&self.listed)
    }

    /// One of them by its number.
    pub(super) fn segment(&self, sequence: u64) -> Option<&S> {
        let is_former = self.listed.front().is_some_and(|first| sequence < first.sequence());
        let all = if is_former { &self.former } else { &self.listed };
        all.binary_search_by_key(&sequence, S::sequence).ok().and_then(|at| all.get(at))
    }

    /// Discontinuities that have left the playlist.
    pub(super) fn past_discontinuities(&self) -> u64 {
        self.past_discontinuities
    }

    /// Bytes of all that is kept.
    pub(super) fn bytes(&self) -> usize {
        self.kept().map(S::bytes).sum()
    }

    /// Lists the next segment; what has become too old leaves.
    pub(super) fn push(&mut self, segment: S, target: Duration) {
        self.listed.push_back(segment);
        let mut total: Duration = self.listed.iter().map(S::duration).sum();
        let mut bytes: usize = self.listed.iter().map(S::bytes).sum();
        let shortest = self.length.max(target * MIN_TARGET_DURATIONS);
        while let Some(oldest) = self.listed.front() {
            let left = total.saturating_sub(oldest.duration());
            let is_full = self.listed.len() > MIN_SEGMENTS && left >= shortest;
            if !is_full && (bytes <= MAX_LISTED_BYTES || self.listed.len() == 1) {
                break;
            }
            (total, bytes) = (left, bytes - oldest.bytes());
            self.past_discontinuities += u64::from(oldest.is_discontinuous());
            self.former.extend(self.listed.pop_front());
        }
        while self.former.len() > KEPT_AFTERWARDS {
            self.former.pop_front();
        }
    }
}
