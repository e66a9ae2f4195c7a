//! Recording: one stream's frames in, the bytes of files out.
//!
//! A [`Recorder`] decides where files begin and end, and puts frames into a container ([`RecordFormat`]). Every file
//! starts with a keyframe at time 0 and holds sound and picture of the same moments: frames of both tracks are put in
//! order of decoding time first, so that a cut loses nothing of either. Names come from a [`PathTemplate`].
//!
//! A file is whole at any time up to what has been written last, so that a process that is killed leaves files that
//! play. Not here: opening, writing and naming them on a disk, which is the server's part.

mod format;
mod interleave;
mod path;
mod recorder;

use std::time::Duration;

use freshet_media::Codec;
use thiserror::Error;

pub use crate::hls::Iso8601;
pub use format::RecordFormat;
pub use path::{FileFacts, PathError, PathTemplate};
pub use recorder::{Output, Recorder};

/// When a recording goes on in another file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordPlan {
    /// One file for each publisher's time on the stream.
    Session,
    /// A new file at the first keyframe after so long.
    Segment(Duration),
}

/// Why a track or a frame is left out of a recording.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RecordError {
    /// There is no place for the codec.
    #[error("{codec} cannot be recorded as {format}")]
    Codec {
        /// The codec.
        codec: Codec,
        /// The container.
        format: RecordFormat,
    },
    /// The muxer refuses the track or the frame.
    #[error("{codec} cannot be recorded as {format}: {reason}")]
    Refused {
        /// The codec.
        codec: Codec,
        /// The container.
        format: RecordFormat,
        /// What it says.
        reason: String,
    },
}

impl RecordError {
    fn codec(&self) -> Codec {
        match self {
            RecordError::Codec { codec, .. } | RecordError::Refused { codec, .. } => *codec,
        }
    }
}
