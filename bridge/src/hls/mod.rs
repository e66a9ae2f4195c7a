//! HLS: frames in, segments and playlists out. [`Segmenter`] makes MPEG-TS (RFC 8216, protocol version 3),
//! [`LowLatencySegmenter`] fragmented MP4 in parts (draft-pantos-hls-rfc8216bis).
//!
//! Both cut one stream by SRS's rules: a picture opens a new segment once the open one is long enough and, with
//! `wait_keyframe`, the picture is a keyframe; sound alone is cut at a length of its own. What they add to them: the
//! target duration is kept (§4.3.3.1), a discontinuity is told only where there is one, numbers and counters run on
//! over a republish, every segment carries its date, a stream that has ended says so.
//!
//! Everything stays in memory: the playlists hold the window and a few segments that have just left it. With an
//! [`Encryption`] segments of MPEG-TS leave it encrypted. Not here: files.

mod cutter;
mod date;
mod encryption;
mod low_latency;
mod playlist;
mod segmenter;
mod window;

use std::time::Duration;

pub use date::Iso8601;
pub(crate) use date::civil;
pub use encryption::{Encryption, Key};
pub use low_latency::{
    FRAGMENT_ENDING, INIT_ENDING, INIT_PREFIX, LOW_LATENCY_SEGMENT_PREFIX, LowLatencyPlaylist, LowLatencySegmenter,
    MEDIA_PLAYLIST, MULTIVARIANT_PLAYLIST, MediaView, PART_PREFIX, PartAnswer, Readiness,
};
pub use playlist::{Playlist, Segment};
pub use segmenter::Segmenter;

/// How the names of segments end.
pub const SEGMENT_ENDING: &str = ".ts";
/// How the names of keys end.
pub const KEY_ENDING: &str = ".key";

/// How a stream is cut, in SRS's terms.
#[derive(Debug, Clone, PartialEq)]
pub struct HlsOptions {
    /// `hls_fragment`: how long segments should be.
    pub fragment: Duration,
    /// `hls_td_ratio`: segments with picture are closed from this many fragments on.
    pub td_ratio: f64,
    /// `hls_aof_ratio`: segments of sound alone are closed at this many fragments.
    pub aof_ratio: f64,
    /// `hls_wait_keyframe`: segments begin with keyframes only.
    pub wait_keyframe: bool,
    /// `hls_window`: how much the playlist holds. It always holds three segments and three target durations.
    pub window: Duration,
}

impl Default for HlsOptions {
    fn default() -> HlsOptions {
        HlsOptions {
            fragment: Duration::from_secs(2),
            td_ratio: 1.0,
            aof_ratio: 2.1,
            wait_keyframe: true,
            window: Duration::from_secs(20),
        }
    }
}

/// Ratios beyond these are slips; the configuration refuses them, here they are only kept from doing harm.
const RATIOS: std::ops::RangeInclusive<f64> = 0.5..=10.0;

impl HlsOptions {
    /// When a picture may open the next segment.
    fn reap_after(&self) -> Duration {
        self.fragment.mul_f64(self.td_ratio.clamp(*RATIOS.start(), *RATIOS.end()))
    }

    /// When sound may, where there is no picture.
    fn reap_sound_after(&self) -> Duration {
        self.fragment.mul_f64(self.aof_ratio.clamp(*RATIOS.start(), *RATIOS.end()))
    }
}

fn whole_seconds_above(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}
