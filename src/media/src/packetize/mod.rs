//! From frames to the payloads of RTP packets.
//!
//! A frame is cut into pieces of equal size, the shorter one last: the kernel sends a run of datagrams at a fraction of
//! the price if all but the last of it are equally long (`UDP_SEGMENT`). Every payload is one allocation, shared by all
//! viewers. Decoders get parameter sets before each keyframe, whether the encoder repeats them or not, and nothing that
//! only costs bandwidth: delimiters, filler and, unless wanted, supplemental information.
//!
//! Sequence numbers and times are the caller's; [`rtp_timestamp`] makes the latter. VP8 and VP9 reach viewers only as
//! RTP packets that have been RTP packets before, so they have no packetizer.

mod av1;
mod h264;
mod h265;
mod sink;

use std::fmt;
use std::sync::Arc;

use crate::h264::H264Error;
use crate::h265::H265Error;
use crate::{Codec, Frame, MediaKind, MediaTime, opens_keyframe};

use sink::Sink;

/// UDP payload that gets through everywhere, tunnels included; what browsers keep to as well.
const MAX_DATAGRAM_BYTES: usize = 1200;
/// Fixed RTP header, RFC 3550 §5.1.
const RTP_HEADER_BYTES: usize = 12;
/// Header extensions of a packet to a viewer: four bytes of profile and length, and up to 16 of elements.
const EXTENSION_BYTES: usize = 4 + 16;
/// Original sequence number of a retransmission, RFC 4588 §4.
const RTX_BYTES: usize = 2;
/// Authentication tag of AES-GCM, RFC 7714; longer than that of HMAC-SHA1.
const TAG_BYTES: usize = 16;

/// Largest payload by default: what a datagram of 1200 bytes has left for it in the worst case.
pub const DEFAULT_MAX_PAYLOAD_BYTES: usize =
    MAX_DATAGRAM_BYTES - RTP_HEADER_BYTES - EXTENSION_BYTES - RTX_BYTES - TAG_BYTES;

/// Smallest limit that is kept to. All headers of a payload come to no more than 7 bytes.
const MIN_MAX_PAYLOAD_BYTES: usize = 32;

/// Largest packet of sound, which cannot be cut: the largest Opus frame has 1275 bytes (RFC 6716 §3.2.1).
const MAX_SOUND_BYTES: usize = 1400;

/// Most payloads of one frame: 16 MiB, the largest message that RTMP is let in with, in pieces of full size. Only
/// frames of countless tiny units come to more.
const MAX_PAYLOADS: usize = 16_384;

/// Most parameter sets of a kind that are taken from a frame. Encoders write one or two.
const MAX_PARAMETER_SETS: usize = 64;

/// The payload of one RTP packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RtpPayload {
    /// The bytes.
    pub payload: Arc<[u8]>,
    /// The RTP marker: the last packet of a picture. Never set for sound.
    pub marker: bool,
    /// The first packet of a keyframe: a viewer that starts with it can decode. What [`crate::opens_keyframe`] finds
    /// in further packets of the same keyframe, such as an IDR slice behind its parameter sets, is not marked.
    pub opens_keyframe: bool,
}

/// How a [`Packetizer`] cuts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PacketizerOptions {
    /// No payload is larger. At least 32.
    pub max_payload_bytes: usize,
    /// Keep supplemental enhancement information of H.264 and H.265, as for captions.
    pub keep_sei: bool,
}

impl Default for PacketizerOptions {
    fn default() -> Self {
        PacketizerOptions { max_payload_bytes: DEFAULT_MAX_PAYLOAD_BYTES, keep_sei: false }
    }
}

/// Why a frame was not packetized. The next one may be fine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PacketizeError {
    /// There is no packetizer for the codec.
    Unsupported(Codec),
    /// The frame is of another codec than the packetizer.
    OtherCodec(Codec),
    /// The configuration record of an H.264 track is broken.
    H264Record(H264Error),
    /// The configuration record of an H.265 track is broken.
    H265Record(H265Error),
    /// The lengths within the frame are wrong from the start.
    Malformed(Codec),
    /// A packet of sound is too large for a datagram.
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The frame consists of too many units.
    TooManyPackets,
}

impl fmt::Display for PacketizeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PacketizeError::Unsupported(codec) => write!(f, "{codec} frames cannot be sent as RTP"),
            PacketizeError::OtherCodec(codec) => write!(f, "a frame of {codec} in a track of another codec"),
            PacketizeError::H264Record(error) => error.fmt(f),
            PacketizeError::H265Record(error) => error.fmt(f),
            PacketizeError::Malformed(codec) => write!(f, "a {codec} frame whose units do not fit its size"),
            PacketizeError::TooLarge { bytes } => write!(f, "a packet of sound of {bytes} bytes is too large for RTP"),
            PacketizeError::TooManyPackets => write!(f, "a frame would need more than {MAX_PAYLOADS} packets"),
        }
    }
}

impl std::error::Error for PacketizeError {}

/// Cuts the frames of one track.
#[derive(Debug)]
pub struct Packetizer {
    codec: Codec,
    format: Format,
    max_payload_bytes: usize,
    /// Payloads are put together here, so that each is one allocation.
    scratch: Vec<u8>,
}

#[derive(Debug)]
enum Format {
    H264(h264::Packetizer),
    H265(h265::Packetizer),
    Av1,
    /// One packet per frame, as it is.
    Sound,
}

impl Packetizer {
    /// For a track of `codec`.
    ///
    /// # Errors
    /// [`PacketizeError::Unsupported`] for codecs that never come as frames or that RTP does not carry here.
    pub fn new(codec: Codec, options: PacketizerOptions) -> Result<Packetizer, PacketizeError> {
        let format = match codec {
            Codec::H264 => Format::H264(h264::Packetizer::new(options.keep_sei)),
            Codec::H265 => Format::H265(h265::Packetizer::new(options.keep_sei)),
            Codec::Av1 => Format::Av1,
            Codec::Opus | Codec::Pcmu | Codec::Pcma => Format::Sound,
            Codec::Vp8 | Codec::Vp9 | Codec::Red | Codec::Aac | Codec::Mp3 => {
                return Err(PacketizeError::Unsupported(codec));
            }
        };
        let max_payload_bytes = options.max_payload_bytes.max(MIN_MAX_PAYLOAD_BYTES);
        Ok(Packetizer { codec, format, max_payload_bytes, scratch: Vec::with_capacity(max_payload_bytes) })
    }

    /// Appends the payloads of a frame. A frame without anything to decode gives none; of one whose end is broken the
    /// units before are sent.
    ///
    /// # Errors
    /// The frame cannot be sent; `out` is as before.
    pub fn packetize(&mut self, frame: &Frame, out: &mut Vec<RtpPayload>) -> Result<(), PacketizeError> {
        if frame.config.codec != self.codec {
            return Err(PacketizeError::OtherCodec(frame.config.codec));
        }
        let start = out.len();
        let mut sink = Sink::new(&mut *out, &mut self.scratch, self.max_payload_bytes);
        let written = match &mut self.format {
            Format::H264(packetizer) => packetizer.packetize(frame, &mut sink),
            Format::H265(packetizer) => packetizer.packetize(frame, &mut sink),
            Format::Av1 => av1::packetize(frame, &mut sink),
            Format::Sound if frame.data.is_empty() => Ok(false),
            Format::Sound if frame.data.len() > MAX_SOUND_BYTES => {
                Err(PacketizeError::TooLarge { bytes: frame.data.len() })
            }
            Format::Sound => sink.push(&[&frame.data]).map(|()| false),
        };
        match written {
            Ok(is_keyframe) if self.codec.kind() == MediaKind::Video => {
                if let Some(first) = out.get_mut(start) {
                    // Not if parameter sets are nowhere to be found and slices of other kinds stand before the IDR's.
                    first.opens_keyframe = is_keyframe && opens_keyframe(self.codec, &first.payload);
                }
                if let Some(last) = out[start..].last_mut() {
                    last.marker = true;
                }
                Ok(())
            }
            Ok(_) => Ok(()),
            Err(error) => {
                out.truncate(start);
                Err(error)
            }
        }
    }
}

/// The RTP time of a frame: its presentation time on the clock of the codec, from a base that should be random
/// (RFC 3550 §5.1). Wraps around as RTP times do. Rounded to the nearest tick, so that a time that was made of ticks
/// gives the same ones again.
pub fn rtp_timestamp(pts: MediaTime, clock_hz: u32, base: u32) -> u32 {
    let ticks = (i128::from(pts.micros()) * i128::from(clock_hz) + 500_000).div_euclid(1_000_000);
    base.wrapping_add(ticks as u32)
}

#[cfg(test)]
mod depacketize;
#[cfg(test)]
mod tests;
