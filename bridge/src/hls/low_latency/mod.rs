//! Low-latency HLS (draft-pantos-hls-rfc8216bis, protocol version 9): fragmented MP4 in parts of a fraction of a second,
//! each of which can be asked for as soon as it is there, and before.
//!
//! A [`LowLatencySegmenter`] cuts segments by the same rules as for MPEG-TS, and segments into parts (§4.4.4.9). The
//! [`LowLatencyPlaylist`] answers what a server is asked: the playlists, delta updates included (§6.2.5.1), whether a
//! request must wait (§6.2.5.2), segments, parts and initialization segments. Parts are numbered through the whole
//! stream, not within their segment, so that the name that a preload hint promises is right wherever the segment ends.
//!
//! What keeps the rules for parts whatever the frame rate: the part target is made of whole frames, once the first
//! segment has shown how far apart they are. That segment is cut into parts when it is whole.
//!
//! Not here: several renditions and their reports, encryption, byte ranges, date ranges, VP8 and MP3.

mod multivariant;
mod playlist;
mod render;
mod writer;

use std::time::Duration;

use super::cutter::Cutter;
use super::{HlsOptions, whole_seconds_above};
use writer::LowLatencyWriter;

pub use playlist::{LowLatencyPlaylist, PartAnswer, Readiness};
pub use render::MediaView;

/// How the names of initialization segments begin, before their number.
pub const INIT_PREFIX: &str = "init-";
/// How they end.
pub const INIT_ENDING: &str = ".mp4";
/// How the names of segments begin, before their number.
pub const LOW_LATENCY_SEGMENT_PREFIX: &str = "seg-";
/// How the names of parts begin, before their number.
pub const PART_PREFIX: &str = "part-";
/// How the names of segments and parts end.
pub const FRAGMENT_ENDING: &str = ".m4s";
/// The media playlist, beside which all of them are.
pub const MEDIA_PLAYLIST: &str = "media.m3u8";
/// The multivariant playlist.
pub const MULTIVARIANT_PLAYLIST: &str = "index.m3u8";

/// Parts shorter than a few frames are more headers than media; longer ones are segments.
const PART_DURATIONS: std::ops::RangeInclusive<Duration> = Duration::from_millis(50)..=Duration::from_secs(2);

/// Numbers of parts run on from a multiple of the first segment's, so that none is used twice as long as segments
/// are numbered by seconds: a second has fewer parts.
const PARTS_PER_NUMBER: u64 = 1_000;

/// Cuts one stream into segments and parts.
pub type LowLatencySegmenter = Cutter<LowLatencyWriter>;

impl LowLatencySegmenter {
    /// Of a stream whose first segment will have that number, in parts of about that length. A number that no earlier
    /// segment of the same name has had keeps caches from mixing them up; it may be the time in seconds.
    pub fn new(options: HlsOptions, part: Duration, first_sequence: u64) -> LowLatencySegmenter {
        let part = part.clamp(*PART_DURATIONS.start(), *PART_DURATIONS.end());
        let target_seconds = whole_seconds_above(options.reap_after());
        let first_part = first_sequence.saturating_mul(PARTS_PER_NUMBER);
        let playlist = LowLatencyPlaylist::new(options.window, first_sequence, first_part, target_seconds);
        Cutter::with_writer(options, LowLatencyWriter::new(part, playlist))
    }
}

#[cfg(test)]
mod checker;
#[cfg(test)]
mod tests;
