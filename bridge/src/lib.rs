//! Freshet's bridges: other protocols and containers than WebRTC, as plain state machines over [`freshet_media::Frame`].
//!
//! Bytes in, frames out, and the other way round. Nothing here opens a socket, starts a thread or reads a clock, and
//! nothing knows a WebRTC session: what goes to WebRTC leaves as payloads of RTP packets ([`crossing`]).

#![forbid(unsafe_code)]

pub mod crossing;
pub mod fanout;
pub mod flv;
pub mod fmp4;
pub mod hls;
pub mod record;
pub mod rtmp;
pub mod timeline;
pub mod transcode;
pub mod ts;
