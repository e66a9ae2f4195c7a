//! Messages as RTMP chunks (RTMP 1.0, §5.3), both ways.

use anyhow::{Result, bail};

use super::mark::{AUDIO, Arrived, Mark, VIDEO};

pub(super) const SET_CHUNK_SIZE: u8 = 1;
pub(super) const ACKNOWLEDGEMENT: u8 = 3;
pub(super) const WINDOW_ACK_SIZE: u8 = 5;
pub(super) const COMMAND: u8 = 20;

/// Until a peer announces another (§5.4.1).
pub(super) const DEFAULT_CHUNK_SIZE: usize = 128;
/// No server's commands or metadata are near this size.
const MAX_BODY_BYTES: usize = 64 * 1024;
/// Times from here on stand in a field of their own (§5.3.1.3).
const EXTENDED: u32 = 0x00ff_ffff;

#[derive(Debug, Default)]
struct Stream {
    id: u32,
    timestamp_ms: u32,
    time_field: u32,
    is_extended: bool,
    length: usize,
    kind: u8,
    mark: Mark,
    body: Vec<u8>,
}

/// Takes a connection's bytes apart.
#[derive(Debug)]
pub(super) struct ChunkReader {
    chunk_size: usize,
    streams: Vec<Stream>,
    header: Vec<u8>,
    current: usize,
    /// Payload bytes of the present chunk that have not come.
    left: usize,
}

impl ChunkReader {
    pub(super) fn new() -> ChunkReader {
        let header = Vec::with_capacity(18);
        ChunkReader { chunk_size: DEFAULT_CHUNK_SIZE, streams: Vec::new(), header, current: 0, left: 0 }
    }

    /// Takes bytes and hands on what they complete.
    pub(super) fn feed(&mut self, mut bytes: &[u8], sink: &mut dyn FnMut(Arrived<'_>)) -> Result<()> {
        while let Some((&first, rest)) = bytes.split_first() {
            if self.left == 0 {
                self.header.push(first);
                bytes = rest;
                if self.begin_chunk()? {
                    self.header.clear();
                    self.finish_message(sink)?;
                }
                continue;
            }
            let (now, later) = bytes.split_at(self.left.min(bytes.len()));
            bytes = later;
            self.left -= now.len();
            let stream = &mut self.streams[self.current];
            stream.mark.put(now);
            if stream.kind != AUDIO && stream.kind != VIDEO {
                stream.body.extend_from_slice(now);
            }
            self.finish_message(sink)?;
        }
        Ok(())
    }

    /// Whether the header is whole; acts on it then.
    fn begin_chunk(&mut self) -> Result<bool> {
        let first = self.header[0];
        let basic = match first & 0x3f {
            0 => 2,
            1 => 3,
            _ => 1,
        };
        let fields = [11, 7, 3, 0][usize::from(first >> 6)];
        let mut length = basic + fields;
        if self.header.len() < length {
            return Ok(false);
        }
        let id = match first & 0x3f {
            0 => 64 + u32::from(self.header[1]),
            1 => 64 + u32::from(self.header[1]) + 256 * u32::from(self.header[2]),
            id => id.into(),
        };
        let known = self.streams.iter().position(|stream| stream.id == id);
        let is_extended = match known {
            _ if fields > 0 => u24(&self.header[basic..]) == EXTENDED,
            Some(index) => self.streams[index].is_extended,
            None => bail!("a chunk continues nothing"),
        };
        length += if is_extended { 4 } else { 0 };
        if self.header.len() < length {
            return Ok(false);
        }
        let index = known.unwrap_or_else(|| {
            self.streams.push(Stream { id, ..Stream::default() });
            self.streams.len() - 1
        });
        let stream = &mut self.streams[index];
        stream.is_extended = is_extended;
        let header = &self.header[basic..];
        let begins = stream.mark.length == 0;
        if fields > 0 {
            stream.time_field = if is_extended { last_u32(header) } else { u24(header) };
        }
        if fields >= 7 {
            stream.length = u24(&header[3..]) as usize;
            stream.kind = header[6];
        }
        if fields == 11 {
            stream.timestamp_ms = stream.time_field;
        } else if begins {
            stream.timestamp_ms = stream.timestamp_ms.wrapping_add(stream.time_field);
        }
        if stream.length > MAX_BODY_BYTES && stream.kind != AUDIO && stream.kind != VIDEO {
            bail!("a message of type {} claims {} bytes", stream.kind, stream.length);
        }
        self.left = self.chunk_size.min(stream.length.saturating_sub(stream.mark.length));
        self.current = index;
        Ok(true)
    }

    fn finish_message(&mut self, sink: &mut dyn FnMut(Arrived<'_>)) -> Result<()> {
        let stream = &mut self.streams[self.current];
        if stream.mark.length < stream.length {
            return Ok(());
        }
        if let (SET_CHUNK_SIZE, Some(size)) = (stream.kind, stream.body.first_chunk()) {
            self.chunk_size = u32::from_be_bytes(*size) as usize;
            if self.chunk_size == 0 {
                bail!("the server announced chunks of 0 bytes");
            }
        }
        let (kind, timestamp_ms) = (stream.kind, stream.timestamp_ms);
        sink(Arrived { kind, timestamp_ms, mark: &stream.mark, body: &stream.body });
        stream.mark = Mark::default();
        stream.body.clear();
        Ok(())
    }
}

/// The header of a message that is sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    pub(super) chunk_stream: u8,
    pub(super) kind: u8,
    pub(super) stream_id: u32,
    pub(super) timestamp_ms: u32,
}

impl Head {
    /// A protocol control message.
    pub(super) fn control(kind: u8) -> Head {
        Head { chunk_stream: 2, kind, stream_id: 0, timestamp_ms: 0 }
    }

    /// Appends the message, chunks of type 0 and 3.
    pub(super) fn put(&self, out: &mut Vec<u8>, body: &[u8], chunk_size: usize) {
        out.push(self.chunk_stream);
        out.extend_from_slice(&self.timestamp_ms.min(EXTENDED).to_be_bytes()[1..]);
        out.extend_from_slice(&(body.len() as u32).to_be_bytes()[1..]);
        out.push(self.kind);
        out.extend_from_slice(&self.stream_id.to_le_bytes());
        let extended = (self.timestamp_ms >= EXTENDED).then(|| self.timestamp_ms.to_be_bytes());
        out.extend(extended.iter().flatten());
        for (number, piece) in body.chunks(chunk_size).enumerate() {
            if number > 0 {
                out.push(0xc0 | self.chunk_stream);
                out.extend(extended.iter().flatten());
            }
            out.extend_from_slice(piece);
        }
    }
}

fn u24(bytes: &[u8]) -> u32 {
    u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]])
}

fn last_u32(bytes: &[u8]) -> u32 {
    bytes.last_chunk().map_or(0, |last| u32::from_be_bytes(*last))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8], at_once: usize) -> Vec<(u8, u32, usize, Vec<u8>)> {
        let mut reader = ChunkReader::new();
        let mut seen = Vec::new();
        for piece in bytes.chunks(at_once) {
            let mut sink = |m: Arrived<'_>| seen.push((m.kind, m.timestamp_ms, m.mark.length, m.body.to_vec()));
            reader.feed(piece, &mut sink).unwrap();
        }
        seen
    }

    #[test]
    fn messages_come_back_however_the_bytes_are_cut() {
        let mut bytes = Vec::new();
        let video = Head { chunk_stream: 6, kind: VIDEO, stream_id: 1, timestamp_ms: 0x0100_0000 };
        Head::control(WINDOW_ACK_SIZE).put(&mut bytes, &[0, 0, 1, 0], 128);
        video.put(&mut bytes, &[7; 300], 128);
        Head::control(SET_CHUNK_SIZE).put(&mut bytes, &[0, 0, 0, 200], 128);
        video.put(&mut bytes, &[7; 300], 200);
        // Type 1: 40 ms later, 2 bytes of sound.
        Head { chunk_stream: 4, kind: AUDIO, stream_id: 1, timestamp_ms: 10 }.put(&mut bytes, &[1, 2, 3], 200);
        bytes.extend([0x44, 0, 0, 40, 0, 0, 2, AUDIO, 0xaf, 1]);
        // Type 3 begins a message: the same distance on.
        bytes.extend([0xc4, 0xaf, 1]);
        let expected = vec![
            (WINDOW_ACK_SIZE, 0, 4, vec![0, 0, 1, 0]),
            (VIDEO, 0x0100_0000, 300, vec![]),
            (SET_CHUNK_SIZE, 0, 4, vec![0, 0, 0, 200]),
            (VIDEO, 0x0100_0000, 300, vec![]),
            (AUDIO, 10, 3, vec![]),
            (AUDIO, 50, 2, vec![]),
            (AUDIO, 90, 2, vec![]),
        ];
        for at_once in [1, 2, 5, 127, 4096] {
            assert_eq!(read(&bytes, at_once), expected, "{at_once} bytes at once");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for bytes in [
            &[0xc3][..],
            &[3, 0, 0, 0, 0xff, 0xff, 0xff, COMMAND, 0, 0, 0, 0],
            &[2, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0, 0, 0, 0, 0],
        ] {
            assert!(ChunkReader::new().feed(bytes, &mut |_| {}).is_err());
        }
    }
}
