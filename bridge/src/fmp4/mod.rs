//! Fragmented MP4: one picture and one sound track at most, as HLS segments, DASH and recordings hold them.
//!
//! ISO/IEC 14496-12 for boxes and fragments, 14496-15 for H.264 and H.265, 14496-14 for AAC and MP3, the bindings of
//! AV1, VP8/VP9 and Opus to ISOBMFF for those. One [`Fmp4Muxer`] makes the initialization segment and then one fragment
//! (`moof` and `mdat`) after the other; each says where on the timeline it is, so that any of them can be played after
//! the initialization segment, and nothing drifts. [`Fmp4Track`] knows what players ask before they download: the codec
//! in the words of RFC 6381 and the size of the picture.
//!
//! Frames are written as they are. Not done: edit lists, encryption, indexes (`sidx`, `mfra`), several tracks of a kind.

mod boxes;
mod codec_string;
mod entry;
mod fragment;
mod init;
mod muxer;
mod sound_clock;
mod track;

use std::time::Duration;

use freshet_media::{Codec, MediaKind, MediaTime};
use thiserror::Error;

pub use muxer::Fmp4Muxer;
pub use track::{Fmp4Track, check_track};

/// Why a track or a frame cannot be carried.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Fmp4Error {
    /// There is no place for the codec.
    #[error("{0} cannot be carried in MP4; H.264, H.265, AV1, VP8, VP9, AAC, Opus and MP3 can")]
    Codec(Codec),
    /// There is a place for it, but no player that matters to whoever asks.
    #[error("no browser plays {0} in fragmented MP4")]
    NotPlayed(Codec),
    /// Its decoder configuration is not understood.
    #[error("the decoder configuration of {codec} cannot be used: {reason}")]
    Config {
        /// The codec.
        codec: Codec,
        /// What is wrong.
        reason: String,
    },
    /// The parameters of the track stand in some of its frames only, and not in this one.
    #[error("what MP4 must say of {0} stands in another frame: a keyframe, or one with a whole header")]
    NotInThisFrame(Codec),
    /// The frame's track has not been announced.
    #[error("a frame of {0} came that the initialization segment does not announce")]
    NoTrack(MediaKind),
    /// The frame needs other parameters than those announced.
    #[error("the {0} parameters have changed: another initialization segment is needed")]
    OtherConfig(MediaKind),
    /// Lengths within the frame go beyond its end, or nothing is in it.
    #[error("a frame of {0} is malformed")]
    Malformed(Codec),
    /// More frames wait for the end of their fragment than a fragment may hold.
    #[error("a fragment of {frames} frames and {bytes} bytes is full")]
    Full {
        /// Frames that wait.
        frames: usize,
        /// Their bytes.
        bytes: usize,
    },
}

/// What a fragment holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FragmentInfo {
    /// When its first picture is decoded; its first sound where there is no picture.
    pub start: MediaTime,
    /// From there to the end of its last picture, or sound.
    pub duration: Duration,
    /// Its first picture is a keyframe, or the stream has no pictures.
    pub is_independent: bool,
    /// One of its pictures is a keyframe, or the stream has none.
    pub has_keyframe: bool,
}

/// Pictures are timed in these units per second: milliseconds, RTP's and MPEG-TS's times all fit them.
const PICTURE_CLOCK_HZ: u32 = 90_000;

/// Tracks are numbered by kind, so that a track that comes or goes does not rename the other one.
fn track_id(kind: MediaKind) -> u32 {
    match kind {
        MediaKind::Video => 1,
        MediaKind::Audio => 2,
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
