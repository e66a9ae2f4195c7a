//! The tags of an FLV stream (FLV 10.1, annex E), and the chunked coding of HTTP (RFC 9112 §7.1) that it may come in.

use anyhow::{Result, bail};

use super::mark::{Arrived, Mark};

/// Header and the length 0 of the tag before the first.
const FILE_HEADER_BYTES: usize = 13;
const TAG_HEADER_BYTES: usize = 11;
/// The length of a tag, behind it.
const TRAILER_BYTES: usize = 4;
/// A size line of HTTP with extensions.
const MAX_SIZE_LINE_BYTES: usize = 256;

#[derive(Debug, Clone, Copy)]
enum Place {
    FileHeader,
    TagHeader,
    Body { left: usize },
    Trailer,
}

/// Finds the tags of a stream.
#[derive(Debug)]
pub(super) struct TagReader {
    place: Place,
    header: Vec<u8>,
    kind: u8,
    timestamp_ms: u32,
    mark: Mark,
}

impl TagReader {
    pub(super) fn new() -> TagReader {
        let header = Vec::with_capacity(FILE_HEADER_BYTES);
        TagReader { place: Place::FileHeader, header, kind: 0, timestamp_ms: 0, mark: Mark::default() }
    }

    /// Takes bytes and hands on what they complete.
    pub(super) fn feed(&mut self, mut bytes: &[u8], sink: &mut dyn FnMut(Arrived<'_>)) -> Result<()> {
        while !bytes.is_empty() {
            let wanted = match self.place {
                Place::FileHeader => FILE_HEADER_BYTES - self.header.len(),
                Place::TagHeader => TAG_HEADER_BYTES - self.header.len(),
                Place::Body { left } => left,
                Place::Trailer => TRAILER_BYTES - self.header.len(),
            };
            let (now, later) = bytes.split_at(wanted.min(bytes.len()));
            bytes = later;
            let is_whole = now.len() == wanted;
            match self.place {
                Place::Body { left } => {
                    self.mark.put(now);
                    self.place = Place::Body { left: left - now.len() };
                }
                Place::FileHeader | Place::TagHeader | Place::Trailer => self.header.extend_from_slice(now),
            }
            if is_whole {
                self.step(sink)?;
            }
        }
        Ok(())
    }

    /// What was wanted has come.
    fn step(&mut self, sink: &mut dyn FnMut(Arrived<'_>)) -> Result<()> {
        match self.place {
            Place::FileHeader => {
                if !self.header.starts_with(b"FLV\x01") {
                    bail!("the answer is no FLV");
                }
                self.place = Place::TagHeader;
            }
            Place::TagHeader => {
                let field =
                    |at: usize| u32::from_be_bytes([0, self.header[at], self.header[at + 1], self.header[at + 2]]);
                self.kind = self.header[0];
                self.timestamp_ms = field(4) | u32::from(self.header[7]) << 24;
                let left = field(1) as usize;
                self.place = if left == 0 { Place::Trailer } else { Place::Body { left } };
            }
            Place::Body { .. } => self.place = Place::Trailer,
            Place::Trailer => {
                let told = self.header.first_chunk().map_or(0, |length| u32::from_be_bytes(*length) as usize);
                if told != TAG_HEADER_BYTES + self.mark.length {
                    bail!("a tag of {} bytes says that it has {told}", TAG_HEADER_BYTES + self.mark.length);
                }
                sink(Arrived { kind: self.kind, timestamp_ms: self.timestamp_ms, mark: &self.mark, body: &[] });
                self.mark = Mark::default();
                self.place = Place::TagHeader;
            }
        }
        self.header.clear();
        Ok(())
    }
}

/// Takes HTTP chunks apart.
#[derive(Debug, Default)]
pub(super) struct Dechunker {
    line: Vec<u8>,
    left: usize,
    has_ended: bool,
}

impl Dechunker {
    /// Takes bytes and hands on what is in the chunks.
    pub(super) fn feed(&mut self, mut bytes: &[u8], sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        while let Some((&first, rest)) = bytes.split_first() {
            if self.left > 0 {
                let (now, later) = bytes.split_at(self.left.min(bytes.len()));
                bytes = later;
                self.left -= now.len();
                sink(now)?;
                continue;
            }
            bytes = rest;
            if first != b'\n' {
                self.line.push(first);
                if self.line.len() > MAX_SIZE_LINE_BYTES {
                    bail!("an HTTP chunk has no size");
                }
                continue;
            }
            let line = String::from_utf8_lossy(&self.line).into_owned();
            self.line.clear();
            let size = line.split(';').next().unwrap_or_default().trim();
            // The end of the chunk before.
            if size.is_empty() {
                continue;
            }
            let Ok(size) = usize::from_str_radix(size, 16) else { bail!("\"{size}\" is no size of an HTTP chunk") };
            self.left = size;
            self.has_ended |= size == 0;
        }
        Ok(())
    }

    /// Whether the last chunk has come.
    pub(super) fn has_ended(&self) -> bool {
        self.has_ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_found_in_http_chunks_of_any_size() {
        let mut stream = b"FLV\x01\x05\0\0\0\x09\0\0\0\0".to_vec();
        for at_ms in [0u32, 0x0100_0028] {
            stream.extend([9, 0, 0, 60]);
            stream.extend(&at_ms.to_be_bytes()[1..]);
            stream.extend([at_ms.to_be_bytes()[0], 0, 0, 0]);
            stream.extend([0x17; 60]);
            stream.extend([0, 0, 0, 71]);
        }
        for size in [1, 7, 500] {
            let mut coded = Vec::new();
            for piece in stream.chunks(size) {
                coded.extend(format!("{:x}\r\n", piece.len()).bytes());
                coded.extend(piece);
                coded.extend(b"\r\n");
            }
            coded.extend(b"0\r\n\r\n");
            let (mut dechunker, mut reader, mut seen) = (Dechunker::default(), TagReader::new(), Vec::new());
            for piece in coded.chunks(11) {
                let mut tag = |tag: Arrived<'_>| seen.push((tag.kind, tag.timestamp_ms, tag.mark.length));
                dechunker.feed(piece, &mut |bytes| reader.feed(bytes, &mut tag)).unwrap();
            }
            assert!(dechunker.has_ended());
            assert_eq!(seen, [(9, 0, 60), (9, 0x0100_0028, 60)]);
        }
    }

    #[test]
    fn what_is_no_flv_is_refused() {
        assert!(TagReader::new().feed(b"<html><body></body>", &mut |_| {}).is_err());
        assert!(Dechunker::default().feed(b"zz\r\n", &mut |_| Ok(())).is_err());
    }
}
