//! Reading chunks, §5.3: bytes in any pieces in, whole messages out. Payload is copied once, into its message.

use bytes::Bytes;

use super::message::{EXTENDED, message_type};
use super::{RtmpError, RtmpLimits};

/// A chunk's size before the peer says otherwise (§5.4.1).
const DEFAULT_CHUNK_SIZE: usize = 128;

/// No message is longer, so no larger chunk makes a difference (§5.4.1).
const MAX_CHUNK_SIZE: usize = 0x00ff_ffff;

/// Basic header, message header of type 0, extended timestamp.
const MAX_HEADER_BYTES: usize = 3 + 11 + 4;

/// Room that a message gets at once, whatever length it claims. More comes with its bytes.
const FIRST_ROOM_BYTES: usize = 64 << 10;

/// A whole message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) message_type: u8,
    pub(super) timestamp_ms: u32,
    pub(super) body: Bytes,
}

/// What to do with messages whose headers come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Interest {
    /// Read everything.
    Media,
    /// Let sound and picture pass by, without keeping them: nobody has been allowed to send any.
    NoMedia,
}

/// One chunk stream: the header of its last message, and that message as far as it has come.
#[derive(Debug)]
struct ChunkStream {
    id: u32,
    /// Of the last message.
    timestamp_ms: u32,
    /// What the time field said last: absolute after type 0, else a distance. Type 3 means it again.
    time_field: u32,
    /// The time field of the last header stood behind it.
    is_extended: bool,
    length: usize,
    message_type: u8,
    /// Bytes of the current message that have come, kept or not.
    received: usize,
    is_kept: bool,
    body: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// Collecting a header; these many bytes decide what comes next.
    Header,
    /// In the payload of a chunk of the stream with this index.
    Payload { stream: usize, left: usize },
}

impl ChunkStream {
    /// Room grows with what has come, and never beyond the message: frames stay in caches for long.
    fn make_room(&mut self, more: usize) {
        let needed = self.body.len() + more;
        if needed > self.body.capacity() {
            let room = needed.max(self.body.capacity() * 2).max(FIRST_ROOM_BYTES).min(self.length);
            self.body.reserve_exact(room.max(needed) - self.body.len());
        }
    }
}

/// The reading half of a connection.
#[derive(Debug)]
pub(super) struct ChunkReader {
    limits: RtmpLimits,
    chunk_size: usize,
    state: State,
    header: [u8; MAX_HEADER_BYTES],
    header_length: usize,
    /// Payload that was taken for an extended timestamp, to be read first.
    spill: Option<Vec<u8>>,
    streams: Vec<ChunkStream>,
    partial_bytes: usize,
}

/// A header, as far as its bytes go.
enum Parsed {
    /// So many bytes in all are needed to know more.
    Needs(usize),
    Whole(Header),
}

struct Header {
    format: u8,
    chunk_stream: u32,
    /// Bytes before the message header.
    basic_length: usize,
    /// Bytes of the whole, extended timestamp included.
    length: usize,
}

impl ChunkReader {
    pub(super) fn new(limits: RtmpLimits) -> ChunkReader {
        ChunkReader {
            limits,
            chunk_size: DEFAULT_CHUNK_SIZE,
            state: State::Header,
            header: [0; MAX_HEADER_BYTES],
            header_length: 0,
            spill: None,
            streams: Vec::new(),
            partial_bytes: 0,
        }
    }

    /// The peer's chunks have another size from the next one on.
    pub(super) fn set_chunk_size(&mut self, chunk_size: usize) {
        self.chunk_size = chunk_size.clamp(1, MAX_CHUNK_SIZE);
    }

    /// The peer will not finish the message on a chunk stream (§5.4.2).
    pub(super) fn abort(&mut self, chunk_stream: u32) {
        if let Some(index) = self.streams.iter().position(|stream| stream.id == chunk_stream) {
            self.drop_partial(index);
        }
    }

    /// Takes bytes up to the end of a message at most, and removes them from `bytes`.
    pub(super) fn next_message(&mut self, bytes: &mut &[u8], interest: Interest) -> Result<Option<Message>, RtmpError> {
        loop {
            if let Some(spilled) = self.spill.take() {
                let mut rest = &spilled[..];
                let message = self.advance(&mut rest, interest)?;
                // What these bytes hold is too short for a header that spills again.
                self.spill = (!rest.is_empty()).then(|| rest.to_vec());
                if message.is_some() {
                    return Ok(message);
                }
            }
            let message = self.advance(bytes, interest)?;
            if message.is_some() || self.spill.is_none() {
                return Ok(message);
            }
        }
    }

    /// [`ChunkReader::next_message`] without what was spilled; stops where something is.
    fn advance(&mut self, bytes: &mut &[u8], interest: Interest) -> Result<Option<Message>, RtmpError> {
        loop {
            match self.state {
                State::Header => {
                    let needed = match self.parse_header() {
                        Parsed::Needs(needed) => needed,
                        Parsed::Whole(header) => {
                            if let Some(message) = self.begin_chunk(&header, interest)? {
                                return Ok(Some(message));
                            }
                            if self.spill.is_some() {
                                return Ok(None);
                            }
                            continue;
                        }
                    };
                    let missing = needed - self.header_length;
                    let (now, later) = bytes.split_at(missing.min(bytes.len()));
                    self.header[self.header_length..self.header_length + now.len()].copy_from_slice(now);
                    self.header_length += now.len();
                    *bytes = later;
                    if now.len() < missing {
                        return Ok(None);
                    }
                }
                State::Payload { stream, left } => {
                    let (now, later) = bytes.split_at(left.min(bytes.len()));
                    *bytes = later;
                    let message = self.take_payload(stream, now)?;
                    let left = left - now.len();
                    self.state = if left == 0 { State::Header } else { State::Payload { stream, left } };
                    if message.is_some() || left > 0 {
                        return Ok(message);
                    }
                }
            }
        }
    }

    fn parse_header(&self) -> Parsed {
        let header = &self.header[..self.header_length];
        let Some(&first) = header.first() else { return Parsed::Needs(1) };
        // §5.3.1.1
        let basic_length = match first & 0x3f {
            0 => 2,
            1 => 3,
            _ => 1,
        };
        if header.len() < basic_length {
            return Parsed::Needs(basic_length);
        }
        let chunk_stream = match first & 0x3f {
            0 => 64 + u32::from(header[1]),
            1 => 64 + u32::from(header[1]) + 256 * u32::from(header[2]),
            id => u32::from(id),
        };
        let format = first >> 6;
        let message_length = match format {
            0 => 11,
            1 => 7,
            2 => 3,
            _ => 0,
        };
        let mut length = basic_length + message_length;
        if header.len() < length {
            return Parsed::Needs(length);
        }
        let is_extended = if format == 3 {
            self.stream(chunk_stream).is_some_and(|stream| stream.is_extended)
        } else {
            u24(&header[basic_length..]) == EXTENDED
        };
        if is_extended {
            length += 4;
        }
        if header.len() < length {
            return Parsed::Needs(length);
        }
        Parsed::Whole(Header { format, chunk_stream, basic_length, length })
    }

    /// Acts on a whole header. A message without payload is complete at once.
    fn begin_chunk(&mut self, header: &Header, interest: Interest) -> Result<Option<Message>, RtmpError> {
        let index = self.stream_index(header)?;
        let bytes = self.header;
        let fields = &bytes[header.basic_length..header.length];
        self.header_length = 0;
        let mut spilled = false;
        if header.format == 3 {
            if self.streams[index].received > 0 {
                // §5.3.1.3 wants the extended timestamp here again, some encoders leave it out. A payload that
                // begins with these very bytes is improbable enough; SRS tells the two apart in the same way.
                let stream = &self.streams[index];
                spilled = stream.is_extended && fields != stream.time_field.to_be_bytes();
            } else {
                self.repeat_header(index, fields);
            }
        } else {
            // A new message in the middle of another: the rest of that one will not come.
            self.drop_partial(index);
            self.read_header(index, header.format, fields);
        }
        if self.streams[index].received == 0 {
            self.begin_message(index, interest)?;
        }
        let stream = &self.streams[index];
        let left = self.chunk_size.min(stream.length - stream.received);
        self.state = State::Payload { stream: index, left };
        if stream.length == 0 {
            self.state = State::Header;
            return Ok(Some(self.finish_message(index)));
        }
        if spilled {
            self.spill = Some(fields.to_vec());
        }
        Ok(None)
    }

    fn stream(&self, id: u32) -> Option<&ChunkStream> {
        self.streams.iter().find(|stream| stream.id == id)
    }

    fn stream_index(&mut self, header: &Header) -> Result<usize, RtmpError> {
        let id = header.chunk_stream;
        if let Some(index) = self.streams.iter().position(|stream| stream.id == id) {
            return Ok(index);
        }
        // Type 1 may come first: librtmp begins its pings like that. It lacks only the message stream.
        if header.format >= 2 {
            return Err(RtmpError::NothingToContinue { format: header.format, chunk_stream: id });
        }
        if self.streams.len() >= self.limits.max_chunk_streams {
            return Err(RtmpError::TooManyChunkStreams(self.limits.max_chunk_streams));
        }
        self.streams.push(ChunkStream {
            id,
            timestamp_ms: 0,
            time_field: 0,
            is_extended: false,
            length: 0,
            message_type: 0,
            received: 0,
            is_kept: false,
            body: Vec::new(),
        });
        Ok(self.streams.len() - 1)
    }

    /// Types 0 to 2, §5.3.1.2.
    fn read_header(&mut self, index: usize, format: u8, fields: &[u8]) {
        let stream = &mut self.streams[index];
        let short = u24(fields);
        stream.is_extended = short == EXTENDED;
        stream.time_field = if stream.is_extended { last_u32(fields) } else { short };
        stream.timestamp_ms =
            if format == 0 { stream.time_field } else { stream.timestamp_ms.wrapping_add(stream.time_field) };
        if format < 2 {
            stream.length = u24(&fields[3..]) as usize;
            stream.message_type = fields[6];
        }
    }

    /// Type 3 at the beginning of a message: all as before, and the same distance on. After type 0 the distance is its
    /// absolute time (§5.3.1.2.4), odd as that is; FFmpeg, librtmp and SRS all read it so.
    fn repeat_header(&mut self, index: usize, fields: &[u8]) {
        let stream = &mut self.streams[index];
        if stream.is_extended {
            stream.time_field = last_u32(fields);
        }
        stream.timestamp_ms = stream.timestamp_ms.wrapping_add(stream.time_field);
    }

    fn begin_message(&mut self, index: usize, interest: Interest) -> Result<(), RtmpError> {
        let stream = &mut self.streams[index];
        let limit = match stream.message_type {
            message_type::AUDIO | message_type::VIDEO | message_type::AGGREGATE => {
                stream.is_kept = interest == Interest::Media;
                self.limits.max_media_bytes
            }
            message_type::SET_CHUNK_SIZE..=message_type::SET_PEER_BANDWIDTH
            | message_type::AMF3_DATA
            | message_type::AMF3_COMMAND
            | message_type::AMF0_DATA
            | message_type::AMF0_COMMAND => {
                stream.is_kept = true;
                self.limits.max_other_bytes
            }
            // Unknown ones pass by whatever their length.
            _ => {
                stream.is_kept = false;
                usize::MAX
            }
        };
        if stream.length > limit {
            let (message_type, length) = (stream.message_type, stream.length);
            return Err(RtmpError::MessageTooLong { message_type, length, limit });
        }
        Ok(())
    }

    fn take_payload(&mut self, index: usize, payload: &[u8]) -> Result<Option<Message>, RtmpError> {
        let stream = &mut self.streams[index];
        stream.received += payload.len();
        if stream.is_kept {
            if self.partial_bytes + payload.len() > self.limits.max_partial_bytes {
                return Err(RtmpError::TooMuchInParts(self.limits.max_partial_bytes));
            }
            self.partial_bytes += payload.len();
            stream.make_room(payload.len());
            stream.body.extend_from_slice(payload);
        }
        if stream.received < stream.length {
            return Ok(None);
        }
        let is_kept = stream.is_kept;
        let message = self.finish_message(index);
        Ok(is_kept.then_some(message))
    }

    fn finish_message(&mut self, index: usize) -> Message {
        let stream = &mut self.streams[index];
        self.partial_bytes -= stream.body.len();
        stream.received = 0;
        let body = std::mem::take(&mut stream.body).into();
        Message { message_type: stream.message_type, timestamp_ms: stream.timestamp_ms, body }
    }

    fn drop_partial(&mut self, index: usize) {
        let stream = &mut self.streams[index];
        self.partial_bytes -= stream.body.len();
        stream.body = Vec::new();
        stream.received = 0;
    }
}

/// The first three bytes; the caller has seen to it that they are there.
fn u24(bytes: &[u8]) -> u32 {
    u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]])
}

/// The last four bytes, where an extended timestamp stands.
fn last_u32(bytes: &[u8]) -> u32 {
    bytes.last_chunk().map_or(0, |last| u32::from_be_bytes(*last))
}

#[cfg(test)]
#[path = "chunk_tests.rs"]
mod tests;
