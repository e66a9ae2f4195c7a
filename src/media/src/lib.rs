//! What the packet plane and the frame plane share: codecs, stream names, frames and what is made of them.
//!
//! Nothing in here does I/O, reads a clock or knows a protocol.

#![forbid(unsafe_code)]

mod codec;
mod frame;
mod keyframe;
mod stream_key;

pub use codec::{Codec, MediaKind};
pub use frame::{Frame, MediaTime, TrackConfig};
pub use keyframe::opens_keyframe;
pub use stream_key::{InvalidStreamKey, StreamKey};
