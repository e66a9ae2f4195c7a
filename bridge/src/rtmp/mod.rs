//! RTMP: one connection of a publisher or player at the server's side, or of a publisher at the client's side
//! ([`RtmpPublisher`]), as state machines.
//!
//! [`RtmpConnection`] takes bytes and gives [`RtmpOutput`]s: bytes to write, requests to answer, media. It never sends
//! media to players: an RTMP message made by [`rtmp_message`] is the same for all of them (absolute times, message
//! stream 1, chunks of [`OUT_CHUNK_SIZE`]), so it is made once per frame and written by whoever holds the socket.
//!
//! Adobe's RTMP specification 1.0 (§5 handshake and chunks, §6 and §7 messages), AMF0, and the habits of encoders that
//! no specification tells: FMLE's `releaseStream`, `FCPublish`, `FCUnpublish`, extended timestamps that are not
//! repeated, Enhanced RTMP's `fourCcList`. Not done: RTMPE and RTMPT, AMF3 objects, seeking, several streams on one
//! connection (message stream 1 is the only one). RTMPS is TLS outside of this.
//!
//! Of `rml_rtmp` 0.8 only the handshake serves here, plain and with digests (it draws the random bytes of S1 and S2
//! itself). Its chunk reader has one message for all chunk streams, so that interleaved ones mix and a subtraction
//! underflows; it believes the lengths that headers claim, bounds nothing, and takes the extended timestamp of
//! continuing chunks for granted. Its AMF0 reader recurses without end. In their places stand `chunk`, `commands` and
//! [`crate::flv::amf0`].

mod chunk;
mod commands;
mod connection;
mod handshake;
mod link;
mod message;
#[cfg(test)]
mod peer_tests;
mod publisher;
#[cfg(test)]
mod recorded_tests;

use bytes::Bytes;
use thiserror::Error;

use crate::flv::Tag;

pub use connection::RtmpConnection;
pub use message::{OUT_CHUNK_SIZE, PLAYER_STREAM_ID, rtmp_message};
pub use publisher::{Acceptance, PeerCodecs, PublishError, PublishOutput, PublishTo, RtmpPublisher};

/// What one connection may cost.
#[derive(Debug, Clone)]
pub struct RtmpLimits {
    /// A sound or picture message. A keyframe of 4K at a very high bitrate stays below 4 MiB.
    pub max_media_bytes: usize,
    /// Any other message: commands and metadata. Tokens and cue points need some KiB.
    pub max_other_bytes: usize,
    /// Messages of which a part has come, all chunk streams together.
    pub max_partial_bytes: usize,
    /// Chunk streams that may be in use. Encoders use two to five.
    pub max_chunk_streams: usize,
    /// Bytes that come while a request waits for its answer. The reader should pause then
    /// ([`RtmpConnection::wants_input`]), so this is one read's worth and some.
    pub max_waiting_bytes: usize,
}

impl Default for RtmpLimits {
    fn default() -> RtmpLimits {
        RtmpLimits {
            max_media_bytes: 16 << 20,
            max_other_bytes: 256 << 10,
            max_partial_bytes: 20 << 20,
            max_chunk_streams: 64,
            max_waiting_bytes: 1 << 20,
        }
    }
}

/// What a connection wants done, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum RtmpOutput {
    /// Write these bytes to the peer.
    Write(Bytes),
    /// Ask whether this may be, then call [`RtmpConnection::accept`] or [`RtmpConnection::reject`]. Nothing that the
    /// peer sends is looked at until then.
    Request(Request),
    /// Sound or picture of a publisher.
    Media(Tag),
    /// A publisher's metadata, as FLV script data: the name `onMetaData` and its value, byte for byte.
    Metadata(Bytes),
    /// The publisher has stopped; it may publish again on the same connection.
    PublishFinished,
    /// The player has stopped; it may play again on the same connection.
    PlayFinished,
    /// The player wants no media for now, or again. It has been answered.
    Paused(bool),
}

/// Names a request of one connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct RequestId(pub(super) u32);

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RequestKind {
    /// To send a stream.
    Publish,
    /// To get one.
    Play,
}

/// A publisher or player asks to start. All names are as sent, not decoded: `stream` may have a query, and so may
/// `app`. Clients cut an address at one slash or another (FFmpeg's last one may stand in a token), so take it apart
/// only when app and stream are put together again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// To answer it with.
    pub id: RequestId,
    /// Publish or play.
    pub kind: RequestKind,
    /// `app` of the `connect` command.
    pub app: String,
    /// The stream's name of the `publish` or `play` command, query included.
    pub stream: String,
    /// `tcUrl` of the `connect` command, the address as the client knows it. May be empty.
    pub tc_url: String,
    /// `pageUrl` of the `connect` command. Mostly empty.
    pub page_url: String,
    /// `flashVer` of the `connect` command: the encoder or player.
    pub flash_ver: String,
}

/// Why a connection cannot go on. Write what is queued, then close it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RtmpError {
    /// The peer does not speak RTMP, or encrypts (RTMPE).
    #[error("RTMP handshake failed: {0}")]
    Handshake(String),
    /// A chunk that continues what never began.
    #[error("RTMP chunk of type {format} on chunk stream {chunk_stream} that has no message to continue")]
    NothingToContinue {
        /// Header type, 2 or 3.
        format: u8,
        /// Chunk stream id.
        chunk_stream: u32,
    },
    /// A message beyond the limit.
    #[error("RTMP message of type {message_type} claims {length} bytes, more than {limit}")]
    MessageTooLong {
        /// Message type id.
        message_type: u8,
        /// Length in its header.
        length: usize,
        /// The limit.
        limit: usize,
    },
    /// Unfinished messages beyond the limit.
    #[error("RTMP messages in parts hold more than {0} bytes")]
    TooMuchInParts(usize),
    /// Chunk streams beyond the limit.
    #[error("more than {0} RTMP chunk streams")]
    TooManyChunkStreams(usize),
    /// A protocol control message that makes no sense.
    #[error("RTMP control message of type {message_type} is wrong: {what}")]
    BadControl {
        /// Message type id.
        message_type: u8,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A command that cannot be read or is out of place.
    #[error("RTMP command \"{command}\" is wrong: {what}")]
    BadCommand {
        /// Its name, if that could be read.
        command: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// An aggregate message whose parts do not add up.
    #[error("RTMP aggregate message is wrong: {0}")]
    BadAggregate(&'static str),
    /// The peer does not wait for the answer to its request.
    #[error("RTMP peer sent more than {0} bytes while its request waited")]
    TooMuchWhileWaiting(usize),
    /// An answer to a request that is not waiting. The caller's mistake, or the peer has gone on.
    #[error("no such RTMP request is waiting")]
    NoSuchRequest,
}
