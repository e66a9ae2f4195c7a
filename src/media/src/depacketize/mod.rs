//! From the payloads of RTP packets to pictures: the way back of [`crate::packetize`].
//!
//! Payloads come in the order of their sequence numbers, with a word wherever some are missing ([`crate::JitterBuffer`]
//! sees to both). What comes out can be decoded: each picture is whole, and after a loss none is handed out before the
//! next keyframe, because those between refer to what nobody has. Parameter sets become the track's configuration
//! record, which changes only with a keyframe and only if what it says is different.
//!
//! Formats: H.264 RFC 6184 (packetization modes 0 and 1), H.265 RFC 7798 (without DONL), AV1 the AOMedia specification,
//! VP8 RFC 7741, VP9 RFC 9628. Sound needs no depacketizer, but for [`red_primary`].
//!
//! What it does not do: put packets in order, make times of timestamps, decode.

mod av1;
mod av1_record;
mod h264;
mod h265;
mod h265_record;
mod nal;
mod red;
mod size;
mod vp8;
mod vp9;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::{Codec, TrackConfig, opens_keyframe};

pub use red::red_primary;
pub use size::picture_size;

/// Largest picture that is put together. An intra picture of 8K at low compression stays below; what is larger comes
/// from somebody who never ends a picture.
const MAX_PICTURE_BYTES: usize = 8 << 20;

/// What a payload counts on top of its bytes, since a unit of one byte is kept behind a length of four.
const PAYLOAD_OVERHEAD_BYTES: usize = 8;

/// A picture that can be decoded, given the ones before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// RTP time of its packets.
    pub timestamp: u32,
    /// It can be decoded on its own.
    pub is_keyframe: bool,
    /// The parameters that it is decoded with. The same allocation until they change.
    pub config: Arc<TrackConfig>,
    /// The bytes as [`crate::Frame`] holds them; units of H.264 and H.265 behind lengths of four bytes.
    pub data: Bytes,
}

/// What a [`Depacketizer`] needs of a packet.
#[derive(Debug, Clone, Copy)]
pub struct Piece<'a> {
    /// RTP time.
    pub timestamp: u32,
    /// RTP marker: the last packet of a picture.
    pub marker: bool,
    /// Payload without padding. May be empty.
    pub payload: &'a [u8],
}

/// Why a picture is not handed out. The next keyframe may be fine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DepacketizeError {
    /// Nothing here takes the codec apart.
    Unsupported(Codec),
    /// A payload ends within the named part.
    Truncated(&'static str),
    /// A payload is of a kind that WebRTC does not use: the type of the NAL unit.
    PayloadType(u8),
    /// The parts of a unit do not follow on each other, though no packet is missing.
    Interrupted,
    /// The first part of the picture is missing, though no packet is.
    NoStart,
    /// A keyframe came without the parameters that it is decoded with, and none are known.
    NoParameters,
    /// The parameters cannot be read.
    BadParameters(&'static str),
    /// The picture is larger than 8 MiB.
    TooLarge,
}

impl fmt::Display for DepacketizeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DepacketizeError::Unsupported(codec) => write!(f, "{codec} has no depacketizer"),
            DepacketizeError::Truncated(part) => write!(f, "an RTP payload ends within {part}"),
            DepacketizeError::PayloadType(kind) => {
                write!(f, "an RTP payload of type {kind}, which WebRTC does not use")
            }
            DepacketizeError::Interrupted => f.write_str("the fragments of a unit do not follow on each other"),
            DepacketizeError::NoStart => f.write_str("a picture does not begin with its first part"),
            DepacketizeError::NoParameters => f.write_str("a keyframe without parameter sets"),
            DepacketizeError::BadParameters(what) => write!(f, "{what} cannot be read"),
            DepacketizeError::TooLarge => write!(f, "a picture of more than {MAX_PICTURE_BYTES} bytes"),
        }
    }
}

impl std::error::Error for DepacketizeError {}

/// What the payloads of one picture come to.
#[derive(Debug)]
struct Assembled {
    is_keyframe: bool,
    config: Arc<TrackConfig>,
    data: Vec<u8>,
}

/// A payload format. After an error it has to be cleared.
trait PayloadFormat: fmt::Debug + Send {
    /// Takes the next payload of the picture, which is not empty.
    fn push(&mut self, payload: &[u8]) -> Result<(), DepacketizeError>;

    /// Ends the picture. `None` if there is nothing to decode in it. `is_after_loss`: packets that are missing may have
    /// belonged to it.
    fn finish(&mut self, is_after_loss: bool) -> Result<Option<Assembled>, DepacketizeError>;

    /// Forgets the picture, not the configuration.
    fn clear(&mut self);
}

/// Puts together the pictures of one track.
#[derive(Debug)]
pub struct Depacketizer {
    codec: Codec,
    format: Box<dyn PayloadFormat>,
    current: Option<Current>,
    /// Packets are missing before the next one.
    is_after_loss: bool,
    awaits_keyframe: bool,
    /// Time of the last picture that had something to decode in it.
    last_timestamp: Option<u32>,
    /// The sender sets the marker in the middle of pictures, so they end where the next one begins.
    has_false_markers: bool,
}

/// The picture that is being put together.
#[derive(Debug)]
struct Current {
    timestamp: u32,
    is_broken: bool,
    is_after_loss: bool,
    bytes: usize,
}

impl Depacketizer {
    /// For a track of `codec`. The first picture that it hands out is a keyframe.
    ///
    /// # Errors
    /// [`DepacketizeError::Unsupported`] for sound.
    pub fn new(codec: Codec) -> Result<Depacketizer, DepacketizeError> {
        let format: Box<dyn PayloadFormat> = match codec {
            Codec::H264 => Box::<h264::H264>::default(),
            Codec::H265 => Box::<h265::H265>::default(),
            Codec::Av1 => Box::<av1::Av1>::default(),
            Codec::Vp8 => Box::<vp8::Vp8>::default(),
            Codec::Vp9 => Box::<vp9::Vp9>::default(),
            Codec::Opus | Codec::Pcmu | Codec::Pcma | Codec::Red | Codec::Aac | Codec::Mp3 => {
                return Err(DepacketizeError::Unsupported(codec));
            }
        };
        Ok(Depacketizer {
            codec,
            format,
            current: None,
            is_after_loss: false,
            awaits_keyframe: true,
            last_timestamp: None,
            has_false_markers: false,
        })
    }

    /// Takes the next packet and appends the pictures that it completes: its own, and the one before if that one had
    /// no marker.
    ///
    /// # Errors
    /// A picture is dropped, and those after it up to a keyframe. `out` may have got another one all the same.
    pub fn push(&mut self, piece: Piece<'_>, out: &mut Vec<Picture>) -> Result<(), DepacketizeError> {
        let mut outcome = Ok(());
        if self.current.as_ref().is_some_and(|current| current.timestamp != piece.timestamp) {
            outcome = self.finish(out);
        }
        // Padding has no payload: what Chrome probes the bandwidth with, and what comes between pictures of a shared
        // screen.
        if !piece.payload.is_empty() {
            outcome = self.append(piece).and(outcome);
        }
        if piece.marker && !self.has_false_markers {
            outcome = self.finish(out).and(outcome);
        }
        outcome
    }

    /// Packets are missing between the last one and the next.
    pub fn lost(&mut self) {
        if let Some(current) = &mut self.current {
            current.is_broken = true;
        }
        self.is_after_loss = true;
        self.awaits_keyframe = true;
    }

    /// Nothing is handed out until a keyframe comes.
    pub fn awaits_keyframe(&self) -> bool {
        self.awaits_keyframe
    }

    fn append(&mut self, piece: Piece<'_>) -> Result<(), DepacketizeError> {
        let is_after_loss = std::mem::take(&mut self.is_after_loss);
        let codec = self.codec;
        let current = self.current.get_or_insert_with(|| Current {
            timestamp: piece.timestamp,
            // The missing packets may have been the beginning of this one, unless it evidently begins here.
            is_broken: is_after_loss && !opens_keyframe(codec, piece.payload),
            is_after_loss,
            bytes: 0,
        });
        if current.is_broken {
            return Ok(());
        }
        current.bytes += piece.payload.len() + PAYLOAD_OVERHEAD_BYTES;
        let pushed = if current.bytes > MAX_PICTURE_BYTES {
            Err(DepacketizeError::TooLarge)
        } else {
            self.format.push(piece.payload)
        };
        if pushed.is_err() {
            current.is_broken = true;
            self.awaits_keyframe = true;
        }
        pushed
    }

    fn finish(&mut self, out: &mut Vec<Picture>) -> Result<(), DepacketizeError> {
        let Some(current) = self.current.take() else { return Ok(()) };
        if current.is_broken {
            self.format.clear();
            return Ok(());
        }
        let assembled = match self.format.finish(current.is_after_loss) {
            Ok(Some(assembled)) => Ok(assembled),
            Ok(None) => return Ok(()),
            Err(error) => {
                self.format.clear();
                Err(error)
            }
        };
        let is_torn = self.last_timestamp.replace(current.timestamp) == Some(current.timestamp);
        if is_torn {
            // The rest of a picture that has been handed out as a whole.
            self.has_false_markers = true;
            self.awaits_keyframe = true;
            return Err(DepacketizeError::Interrupted);
        }
        let Assembled { is_keyframe, config, data } = assembled.inspect_err(|_| self.awaits_keyframe = true)?;
        self.awaits_keyframe &= !is_keyframe;
        if !self.awaits_keyframe {
            out.push(Picture { timestamp: current.timestamp, is_keyframe, config, data: data.into() });
        }
        Ok(())
    }
}

/// The configuration that `record` makes: the known one unless it says something else.
fn updated(known: &mut Option<Arc<TrackConfig>>, codec: Codec, record: Bytes) -> Arc<TrackConfig> {
    match known {
        Some(known) if known.record == record => Arc::clone(known),
        _ => Arc::clone(known.insert(Arc::new(TrackConfig { codec, record }))),
    }
}

#[cfg(test)]
mod tests;
