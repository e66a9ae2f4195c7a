//! The currency of the frame plane: one coded picture or one packet of sound, with its times and its parameters.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::{Codec, MediaKind};

/// A point on a stream's timeline in microseconds. Sound and picture of a stream share one timeline, which starts
/// near 0 with the stream and never jumps; what comes in with gaps or jumps is mended at the stream's entry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MediaTime(i64);

impl MediaTime {
    /// From microseconds.
    pub const fn from_micros(micros: i64) -> MediaTime {
        MediaTime(micros)
    }

    /// From milliseconds, as FLV and RTMP count.
    pub const fn from_millis(millis: i64) -> MediaTime {
        MediaTime(millis * 1000)
    }

    /// From ticks of a clock, as RTP and MPEG-TS count.
    pub const fn from_ticks(ticks: i64, clock_hz: u32) -> MediaTime {
        MediaTime((ticks as i128 * 1_000_000 / clock_hz as i128) as i64)
    }

    /// In microseconds.
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// In milliseconds, rounded down.
    pub const fn millis(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// In ticks of a clock, rounded down.
    pub const fn ticks(self, clock_hz: u32) -> i64 {
        (self.0 as i128 * clock_hz as i128).div_euclid(1_000_000) as i64
    }

    /// How far this is after `earlier`, zero if it is not.
    pub fn since(self, earlier: MediaTime) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl std::ops::Add<Duration> for MediaTime {
    type Output = MediaTime;

    fn add(self, later: Duration) -> MediaTime {
        MediaTime(self.0.saturating_add(i64::try_from(later.as_micros()).unwrap_or(i64::MAX)))
    }
}

/// What a decoder must know before a track's first frame. Frames of a track that changes carry another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrackConfig {
    /// The codec.
    pub codec: Codec,
    /// Its decoder configuration record as FLV and MP4 carry it: `AVCDecoderConfigurationRecord`,
    /// `HEVCDecoderConfigurationRecord`, `AV1CodecConfigurationRecord`, `VPCodecConfigurationRecord`,
    /// `AudioSpecificConfig`, `OpusHead` (RFC 7845 §5.1). Empty where the codec needs none, as MP3.
    pub record: Bytes,
}

impl TrackConfig {
    /// Audio or video.
    pub fn kind(&self) -> MediaKind {
        self.codec.kind()
    }
}

/// One coded picture (access unit) or one packet of sound, in decoding order. Cheap to clone.
///
/// `data` is what FLV and MP4 hold: H.264 and H.265 as NAL units behind lengths (of the size that the record tells),
/// AV1 as a temporal unit of OBUs with sizes and without delimiter, AAC without ADTS, Opus, MP3, VP8 and VP9 as they are.
#[derive(Debug, Clone)]
pub struct Frame {
    /// The parameters that it is decoded with. Frames between two changes share one allocation, so `Arc::ptr_eq` tells a change.
    pub config: Arc<TrackConfig>,
    /// When it is decoded. Never runs backwards within a track.
    pub dts: MediaTime,
    /// When it is shown or heard.
    pub pts: MediaTime,
    /// It can be decoded on its own. True for all sound.
    pub is_keyframe: bool,
    /// The bytes.
    pub data: Bytes,
}

impl Frame {
    /// Audio or video.
    pub fn kind(&self) -> MediaKind {
        self.config.kind()
    }
}

impl AsRef<Frame> for Frame {
    fn as_ref(&self) -> &Frame {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_convert_both_ways_and_below_zero() {
        assert_eq!(MediaTime::from_millis(-1).ticks(90_000), -90);
        assert_eq!(MediaTime::from_micros(-1).millis(), -1);
        assert_eq!(MediaTime::from_ticks(3003, 90_000).micros(), 33_366);
        assert_eq!(MediaTime::from_millis(5).since(MediaTime::from_millis(7)), Duration::ZERO);
        // Years fit.
        assert_eq!(MediaTime::from_ticks(i64::from(u32::MAX) * 1000, 90_000).ticks(90_000), 4_294_967_294_999);
    }
}
