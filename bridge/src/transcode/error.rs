//! What can go wrong between two codecs, sorted by what the caller can do about it.

use freshet_media::{Codec, MediaTime};

/// Why a frame did not make it through a transcoder.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TranscodeError {
    /// No decoder here takes this codec.
    #[error("{codec} cannot be transcoded")]
    UnsupportedCodec {
        /// The codec that came.
        codec: Codec,
    },
    /// The codec is known, this flavour of it is not. Lasts until the track's parameters change.
    #[error("{codec} of this kind cannot be transcoded: {reason}")]
    UnsupportedFormat {
        /// The codec that came.
        codec: Codec,
        /// What about it is not supported, for the log and the stream's page.
        reason: String,
    },
    /// One frame could not be decoded; what it should have carried was concealed. The next one may be fine.
    #[error("broken {codec} frame at {} ms: {reason}", at.millis())]
    BrokenFrame {
        /// The codec that came.
        codec: Codec,
        /// The frame's place on the stream's timeline.
        at: MediaTime,
        /// What the decoder says.
        reason: String,
    },
    /// The encoder refused what the decoder made; not the publisher's fault.
    #[error("encoding {codec} failed: {reason}")]
    Encoder {
        /// The codec that was to go out.
        codec: Codec,
        /// What the encoder says.
        reason: String,
    },
}

impl TranscodeError {
    /// Whether the frames that follow will fail the same way until the track's parameters change, so that the caller
    /// should fall back now.
    pub fn is_lasting(&self) -> bool {
        matches!(self, TranscodeError::UnsupportedCodec { .. } | TranscodeError::UnsupportedFormat { .. })
    }
}
