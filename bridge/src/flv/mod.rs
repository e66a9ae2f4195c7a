//! FLV: the tag bodies that RTMP messages and FLV files share, in the legacy form and that of Enhanced RTMP.
//!
//! A publisher's tags become [`Frame`](freshet_media::Frame)s ([`Demuxer`]); frames become tag bodies and these FLV
//! bytes or RTMP messages, made once per frame for all players ([`tag_body`], [`sequence_header`], [`flv_tag`],
//! [`rtmp_message`](crate::rtmp::rtmp_message)). A frame's bytes are never changed in either direction.
//!
//! Adobe FLV file format 10.1, annex E; Enhanced RTMP v1 and v2 (Veovera). Codec id 12 for H.265 is the extension that
//! older encoders share. Of a body with several tracks the one with id 0 counts. Not handled: encryption, sound other
//! than AAC, MP3 and Opus, HDR metadata packets (they pass unread).

pub mod amf0;
mod body;
mod demux;
mod file;
mod metadata;
mod mux;

use bytes::Bytes;
use freshet_media::{Codec, MediaKind};

pub(crate) use body::four_cc;
pub use demux::{Demuxer, FlvError};
pub(crate) use file::TAG_HEADER_BYTES;
pub use file::{FileError, FileItem, FileReader, flv_header, flv_tag};
pub use metadata::{Metadata, describe};
pub(crate) use metadata::{describe_file, set_data_frame};
pub use mux::{TagBody, sequence_header, tag_body};

/// Whether FLV has a place for a codec.
pub fn can_carry(codec: Codec) -> bool {
    four_cc(codec).is_some()
}

/// A sound or picture tag, or RTMP message, as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag {
    /// Sound or picture.
    pub kind: MediaKind,
    /// The sender's decoding time in milliseconds, modulo 2^32.
    pub timestamp_ms: u32,
    /// What stands behind the tag's or message's header.
    pub body: Bytes,
}

/// What a tag, or an RTMP message, carries; the value is the type on the wire of both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum TagType {
    /// Sound.
    Audio = 8,
    /// Picture.
    Video = 9,
    /// AMF0, as `onMetaData`.
    Script = 18,
}

impl From<MediaKind> for TagType {
    fn from(kind: MediaKind) -> TagType {
        match kind {
            MediaKind::Audio => TagType::Audio,
            MediaKind::Video => TagType::Video,
        }
    }
}
