//! What the packet plane and the frame plane share: codecs, stream names, frames and what is made of them.
//!
//! Nothing in here does I/O, reads a clock or knows a protocol.

#![forbid(unsafe_code)]

mod aac;
pub mod av1;
mod bits;
mod codec;
pub mod depacketize;
mod facts;
mod frame;
mod gop_cache;
pub mod h264;
pub mod h265;
mod jitter_buffer;
mod keyframe;
mod mp3;
mod opus;
pub mod packetize;
mod repair_time;
mod stream_key;
#[cfg(test)]
mod testing;
mod vpx;

pub use aac::{AacConfig, AacError};
pub use codec::{Codec, MediaKind};
pub use facts::{Facts, facts};
pub use frame::{Frame, MediaTime, TrackConfig};
pub use gop_cache::{Cursor, GopCache, GopLimits, Next};
pub use jitter_buffer::{JitterBuffer, JitterBufferOptions, JitterOutput, JitterPacket};
pub use keyframe::opens_keyframe;
pub use mp3::Mp3Header;
pub use opus::{ChannelMapping, OpusHead, OpusHeadError, packet_samples};
pub use repair_time::Patience;
pub use stream_key::{InvalidStreamKey, StreamKey};
pub use vpx::VpxHeader;
