//! Message types, and messages as chunks: §5.3.1 and §7.1.

use bytes::{BufMut, Bytes, BytesMut};

use crate::flv::TagType;

/// The size of chunks that we send, announced to each peer. SRS's default: below 64 KiB, and so large that nearly every
/// frame is one chunk, whose bytes then lie as they are.
pub const OUT_CHUNK_SIZE: usize = 60_000;

/// The only message stream. Every client is given this one.
pub const PLAYER_STREAM_ID: u32 = 1;

/// Message type ids of §5.4, §6.2 and §7.1.
pub(super) mod message_type {
    pub(crate) const SET_CHUNK_SIZE: u8 = 1;
    pub(crate) const ABORT: u8 = 2;
    pub(crate) const ACKNOWLEDGEMENT: u8 = 3;
    pub(crate) const USER_CONTROL: u8 = 4;
    pub(crate) const WINDOW_ACK_SIZE: u8 = 5;
    pub(crate) const SET_PEER_BANDWIDTH: u8 = 6;
    pub(crate) const AUDIO: u8 = 8;
    pub(crate) const VIDEO: u8 = 9;
    pub(crate) const AMF3_DATA: u8 = 15;
    pub(crate) const AMF3_COMMAND: u8 = 17;
    pub(crate) const AMF0_DATA: u8 = 18;
    pub(crate) const AMF0_COMMAND: u8 = 20;
    pub(crate) const AGGREGATE: u8 = 22;
}

/// Chunk stream ids that we send on. 2 is the specification's for control; sound and picture have one each, since a
/// message must be finished before the next one begins on its chunk stream.
mod chunk_stream {
    pub(super) const CONTROL: u8 = 2;
    pub(super) const COMMAND: u8 = 3;
    pub(super) const DATA: u8 = 5;
    pub(super) const AUDIO: u8 = 6;
    pub(super) const VIDEO: u8 = 7;
}

/// Times from here on stand in a field of their own (§5.3.1.3).
pub(super) const EXTENDED: u32 = 0x00ff_ffff;

/// Lengths have 24 bits.
const MAX_BODY_BYTES: usize = (1 << 24) - 1;

/// Basic header, message header of type 0, extended timestamp.
const MAX_CHUNK_HEADER_BYTES: usize = 1 + 11 + 4;

/// Sound, picture or script data for players, as RTMP chunks. The body is given in two parts
/// ([`TagBody`](crate::flv::TagBody)); either may be empty. Bodies beyond 24 bits of length are cut.
pub fn rtmp_message(tag_type: TagType, timestamp_ms: u32, header: &[u8], data: &[u8]) -> Bytes {
    let chunk_stream = match tag_type {
        TagType::Audio => chunk_stream::AUDIO,
        TagType::Video => chunk_stream::VIDEO,
        TagType::Script => chunk_stream::DATA,
    };
    let data = &data[..data.len().min(MAX_BODY_BYTES.saturating_sub(header.len()))];
    let length = header.len() + data.len();
    let chunks = length / OUT_CHUNK_SIZE + 1;
    let mut out = BytesMut::with_capacity(length + MAX_CHUNK_HEADER_BYTES + chunks * (1 + 4));
    let mut chunks = ChunkWriter::begin(&mut out, chunk_stream, tag_type as u8, timestamp_ms, length);
    chunks.put(header);
    chunks.put(data);
    out.freeze()
}

/// Appends a protocol control or user control message.
pub(super) fn put_control(out: &mut BytesMut, message_type: u8, body: &[u8]) {
    put(out, chunk_stream::CONTROL, message_type, 0, body);
}

/// Appends an AMF0 command that belongs to the connection or to the stream.
pub(super) fn put_command(out: &mut BytesMut, stream_id: u32, body: &[u8]) {
    put(out, chunk_stream::COMMAND, message_type::AMF0_COMMAND, stream_id, body);
}

fn put(out: &mut BytesMut, chunk_stream: u8, message_type: u8, stream_id: u32, body: &[u8]) {
    ChunkWriter::begin_on(out, chunk_stream, message_type, stream_id, 0, body.len()).put(body);
}

/// Writes one message's body in chunks.
struct ChunkWriter<'a> {
    out: &'a mut BytesMut,
    chunk_stream: u8,
    extended: Option<u32>,
    room: usize,
}

impl<'a> ChunkWriter<'a> {
    fn begin(out: &'a mut BytesMut, chunk_stream: u8, message_type: u8, at_ms: u32, length: usize) -> Self {
        Self::begin_on(out, chunk_stream, message_type, PLAYER_STREAM_ID, at_ms, length)
    }

    /// Type 0: nothing depends on the message before, so the bytes suit a player that has just come.
    fn begin_on(
        out: &'a mut BytesMut,
        chunk_stream: u8,
        message_type: u8,
        stream_id: u32,
        at_ms: u32,
        length: usize,
    ) -> Self {
        out.put_u8(chunk_stream);
        out.put_uint(u64::from(at_ms.min(EXTENDED)), 3);
        out.put_uint(length as u64, 3);
        out.put_u8(message_type);
        out.put_u32_le(stream_id);
        let extended = (at_ms >= EXTENDED).then_some(at_ms);
        if let Some(at_ms) = extended {
            out.put_u32(at_ms);
        }
        ChunkWriter { out, chunk_stream, extended, room: OUT_CHUNK_SIZE }
    }

    fn put(&mut self, mut body: &[u8]) {
        while !body.is_empty() {
            if self.room == 0 {
                // Type 3, with the extended timestamp again (§5.3.1.3).
                self.out.put_u8(3 << 6 | self.chunk_stream);
                if let Some(at_ms) = self.extended {
                    self.out.put_u32(at_ms);
                }
                self.room = OUT_CHUNK_SIZE;
            }
            let (now, later) = body.split_at(body.len().min(self.room));
            self.out.put_slice(now);
            self.room -= now.len();
            body = later;
        }
    }
}
