//! FLV files and streams: a header, then tags with their length behind them (E.2, E.3, E.4.1).

use bytes::{Buf, BufMut, Bytes, BytesMut};
use freshet_media::MediaKind;
use thiserror::Error;

use super::{Tag, TagType};

/// Signature, version, flags and header length, then the length 0 of the tag before the first.
const FILE_HEADER_BYTES: usize = 13;

/// What stands before a tag's body.
pub(crate) const TAG_HEADER_BYTES: usize = 11;

/// The length of a tag, behind it.
const TRAILER_BYTES: usize = 4;

/// Lengths have 24 bits.
const MAX_BODY_BYTES: usize = (1 << 24) - 1;

/// The beginning of an FLV file or stream. Players of Flash's age wait for every track that the flags promise.
pub fn flv_header(has_audio: bool, has_video: bool) -> Bytes {
    let flags = u8::from(has_audio) << 2 | u8::from(has_video);
    Bytes::copy_from_slice(&[b'F', b'L', b'V', 1, flags, 0, 0, 0, 9, 0, 0, 0, 0])
}

/// A tag with its length behind it. The body is given in two parts ([`super::TagBody`]); either may be empty.
///
/// Bodies beyond 24 bits of length, that FLV cannot carry, are cut; no message that comes in is that long.
pub fn flv_tag(tag_type: TagType, timestamp_ms: u32, header: &[u8], data: &[u8]) -> Bytes {
    let data = &data[..data.len().min(MAX_BODY_BYTES.saturating_sub(header.len()))];
    let length = header.len() + data.len();
    let mut tag = BytesMut::with_capacity(TAG_HEADER_BYTES + length + TRAILER_BYTES);
    tag.put_u8(tag_type as u8);
    tag.put_uint(length as u64, 3);
    // The upper eight bits stand behind the lower ones.
    tag.put_uint(u64::from(timestamp_ms & 0x00ff_ffff), 3);
    tag.put_u8((timestamp_ms >> 24) as u8);
    tag.put_uint(0, 3);
    tag.put_slice(header);
    tag.put_slice(data);
    tag.put_u32((TAG_HEADER_BYTES + length) as u32);
    tag.freeze()
}

/// One thing in an FLV file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileItem {
    /// Sound or picture.
    Media(Tag),
    /// Script data, as `onMetaData`.
    Script {
        /// Its time in milliseconds.
        timestamp_ms: u32,
        /// AMF0.
        body: Bytes,
    },
}

/// Why bytes are no FLV.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FileError {
    /// No signature.
    #[error("not an FLV file")]
    NotFlv,
}

/// Reads a file or stream as its bytes come. Holds back at most one tag (16 MiB).
#[derive(Debug, Default)]
pub struct FileReader {
    buffer: BytesMut,
    past_header: bool,
}

impl FileReader {
    /// At the first byte of a file.
    pub fn new() -> FileReader {
        FileReader::default()
    }

    /// More bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole tag. `Ok(None)`: more bytes are needed. Tags of unknown type are skipped.
    pub fn next_item(&mut self) -> Result<Option<FileItem>, FileError> {
        if !self.past_header {
            if self.buffer.len() < FILE_HEADER_BYTES {
                return Ok(None);
            }
            if !self.buffer.starts_with(b"FLV") {
                return Err(FileError::NotFlv);
            }
            self.buffer.advance(FILE_HEADER_BYTES);
            self.past_header = true;
        }
        loop {
            let Some((tag_type, timestamp_ms, body)) = self.next_tag() else { return Ok(None) };
            let kind = match tag_type {
                t if t == TagType::Audio as u8 => MediaKind::Audio,
                t if t == TagType::Video as u8 => MediaKind::Video,
                t if t == TagType::Script as u8 => return Ok(Some(FileItem::Script { timestamp_ms, body })),
                _ => continue,
            };
            return Ok(Some(FileItem::Media(Tag { kind, timestamp_ms, body })));
        }
    }

    fn next_tag(&mut self) -> Option<(u8, u32, Bytes)> {
        let header = self.buffer.first_chunk::<TAG_HEADER_BYTES>()?;
        let &[tag_type, l2, l1, l0, t2, t1, t0, t3, ..] = header;
        let length = u32::from_be_bytes([0, l2, l1, l0]) as usize;
        let whole = TAG_HEADER_BYTES + length + TRAILER_BYTES;
        if self.buffer.len() < whole {
            return None;
        }
        let mut tag = self.buffer.split_to(whole).freeze();
        tag.advance(TAG_HEADER_BYTES);
        tag.truncate(length);
        // The two bits above the type tell of a filter (encryption), which is unknown here as well.
        Some((tag_type, u32::from_be_bytes([t3, t2, t1, t0]), tag))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_at_any_cut() {
        let long = vec![7; 70_000];
        let mut file = flv_header(true, true).to_vec();
        file.extend_from_slice(&flv_tag(TagType::Script, 0, &[], &[2, 0, 1, b'x']));
        file.extend_from_slice(&flv_tag(TagType::Video, 0x0102_0304, &[0x17, 1, 0, 0, 0], &long));
        file.extend_from_slice(&flv_tag(TagType::Audio, u32::MAX, &[], &[]));
        for cut in [1, 10, 16, 4096, file.len()] {
            let mut reader = FileReader::new();
            let mut items = Vec::new();
            for piece in file.chunks(cut) {
                reader.push(piece);
                while let Some(item) = reader.next_item().unwrap() {
                    items.push(item);
                }
            }
            let [FileItem::Script { body, .. }, FileItem::Media(video), FileItem::Media(audio)] = &items[..] else {
                panic!("{items:?}");
            };
            assert_eq!(body.len(), 4);
            assert_eq!((video.kind, video.timestamp_ms, video.body.len()), (MediaKind::Video, 0x0102_0304, 70_005));
            assert_eq!((audio.kind, audio.timestamp_ms, audio.body.len()), (MediaKind::Audio, u32::MAX, 0));
        }
    }

    #[test]
    fn other_files_are_refused() {
        let mut reader = FileReader::new();
        reader.push(b"\x00\x00\x00\x18ftypmp42....");
        assert_eq!(reader.next_item(), Err(FileError::NotFlv));
    }
}
