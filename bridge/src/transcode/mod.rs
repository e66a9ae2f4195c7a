//! Decoding and encoding: what a browser cannot take is turned into what it can.
//!
//! - [`AudioToOpus`]: AAC (LC, HE, HE v2) and MP3 become Opus; Opus passes through untouched.
//! - [`OpusToAac`]: the other way round, for players that know AAC only.
//! - [`BFrameRemover`]: H.264 with B-frames becomes H.264 without them, since WebRTC receivers show pictures in the
//!   order in which they come (RFC 7742 asks for Constrained Baseline, which has none).
//! - [`Still`]: a keyframe of H.264 becomes a JPEG.
//!
//! Like the rest of the bridge nothing in here reads a clock or starts a thread: the caller decides where the work
//! runs and measures what it costs. All are CPU-bound and take milliseconds per call, so they belong on a worker
//! thread and not on one that carries packets.
//!
//! Licences and patents, which are two different things:
//! - OpenH264 is BSD-2-Clause and built from source; Cisco's patent licence covers only the binaries Cisco
//!   distributes, so whoever ships this build answers for H.264 patents (pool: Via LA) where they apply.
//! - libopus is BSD-3-Clause, its patents are licensed royalty-free to everybody (RFC 6716).
//! - The AAC codec (`syom`, MIT) grants no patent rights; AAC-LC's patents have largely run out, HE-AAC's pool
//!   (Via LA) has not everywhere. MP3 (`nanomp3`, MIT/Apache-2.0) is free of patents since 2017.

mod audio;
mod error;
mod opus_to_aac;
#[cfg(test)]
mod testing;
mod video;

pub use audio::{AudioToOpus, OpusOptions, OpusPacket};
pub use error::TranscodeError;
pub use opus_to_aac::{AacOptions, OpusIn, OpusToAac};
pub use video::{BFrameRemover, Encoding, Still, VideoOptions};

/// Whether the H.264 codec was built with its hand-written assembly, without which it runs at half the speed. On
/// x86 that takes `nasm` on the machine that builds; say so in the log at start if this is false.
pub const H264_HAS_ASSEMBLY: bool = cfg!(freshet_h264_assembly);
