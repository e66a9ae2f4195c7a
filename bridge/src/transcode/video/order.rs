//! Which picture is it that the decoder brings out? It does not say, but it brings them out in the order in which they
//! are shown, so the earliest time stamp that waits is the picture's.

use freshet_media::MediaTime;

/// Most pictures that a decoder may hold back (`MaxDpbFrames`, H.264 §A.3.1), and the one that goes in.
const MAX_WAITING: usize = 17;

/// What is known of a picture that went in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Picture {
    pub(super) pts: MediaTime,
    pub(super) is_keyframe: bool,
}

/// The pictures inside the decoder, latest first, so that the earliest is taken off the end.
#[derive(Debug, Default)]
pub(super) struct DisplayOrder {
    waiting: Vec<Picture>,
}

impl DisplayOrder {
    /// A picture goes in. If there are more than a decoder can hold, one was swallowed without a word: the earliest is
    /// given up, and the order is right again.
    pub(super) fn put(&mut self, picture: Picture) {
        let at = self.waiting.partition_point(|other| other.pts > picture.pts);
        self.waiting.insert(at, picture);
        if self.waiting.len() > MAX_WAITING {
            self.waiting.pop();
        }
    }

    /// The picture that went in last was refused.
    pub(super) fn take_back(&mut self, picture: Picture) {
        if let Some(at) = self.waiting.iter().position(|other| *other == picture) {
            self.waiting.remove(at);
        }
    }

    /// A picture came out.
    pub(super) fn next(&mut self) -> Option<Picture> {
        self.waiting.pop()
    }

    /// The decoder is empty, or about to bring out no more than `left` pictures: the latest ones.
    pub(super) fn keep_latest(&mut self, left: usize) {
        self.waiting.truncate(left);
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }
}
