//! From frames to tag bodies: legacy FLV where the codec has a number there, else Enhanced RTMP.

use bytes::{BufMut, Bytes, BytesMut};
use freshet_media::{Codec, Frame, TrackConfig};

use super::body::{codec_id, four_cc, frame_type, packet_type, sound_format};

/// The longest header in front of a frame's data: flags, FourCC, composition time.
const MAX_HEADER_BYTES: usize = 8;

/// Composition times have 24 bits with sign.
const MAX_COMPOSITION_MS: i64 = (1 << 23) - 1;

/// Sample rate 44 kHz, 16 bits, stereo: what the flags always say for AAC (E.4.2.1), whatever the sound is.
const SOUND_FLAGS: u8 = 0x0f;

/// A frame's tag body in two parts, so that the data need not be copied to get a header.
#[derive(Debug, Clone)]
pub struct TagBody {
    header: [u8; MAX_HEADER_BYTES],
    header_length: u8,
    /// The frame's bytes as they are.
    pub data: Bytes,
}

impl TagBody {
    /// What stands before the data.
    pub fn header(&self) -> &[u8] {
        &self.header[..usize::from(self.header_length)]
    }

    /// Both parts in one piece.
    pub fn to_bytes(&self) -> Bytes {
        let mut body = BytesMut::with_capacity(self.header().len() + self.data.len());
        body.put_slice(self.header());
        body.put_slice(&self.data);
        body.freeze()
    }
}

/// The tag body that tells players how to decode a track. `None` if the codec needs none (MP3) or FLV cannot carry it.
pub fn sequence_header(config: &TrackConfig) -> Option<Bytes> {
    if config.record.is_empty() {
        return None;
    }
    let mut body = BytesMut::with_capacity(MAX_HEADER_BYTES + config.record.len());
    match config.codec {
        Codec::H264 => {
            body.put_slice(&[frame_type::KEY << 4 | codec_id::AVC, packet_type::SEQUENCE_START, 0, 0, 0]);
        }
        Codec::Aac => body.put_slice(&[sound_format::AAC << 4 | SOUND_FLAGS, packet_type::SEQUENCE_START]),
        Codec::Mp3 => return None,
        other => {
            body.put_u8(enhanced_flags(other, frame_type::KEY, packet_type::SEQUENCE_START));
            body.put_slice(&four_cc(other)?);
        }
    }
    body.put_slice(&config.record);
    Some(body.freeze())
}

/// A frame's tag body. `None` if FLV cannot carry its codec.
pub fn tag_body(frame: &Frame) -> Option<TagBody> {
    let codec = frame.config.codec;
    let kind = if frame.is_keyframe { frame_type::KEY } else { frame_type::INTER };
    // From the milliseconds that the tags carry, so that a player's sum is the presentation time in milliseconds.
    let composition_ms = (frame.pts.millis() - frame.dts.millis()).clamp(-MAX_COMPOSITION_MS, MAX_COMPOSITION_MS);
    let mut body = TagBody { header: [0; MAX_HEADER_BYTES], header_length: 0, data: frame.data.clone() };
    match codec {
        Codec::H264 => {
            body.push(&[kind << 4 | codec_id::AVC, packet_type::CODED_FRAMES]);
            body.push_composition_time(composition_ms);
        }
        Codec::Aac => body.push(&[sound_format::AAC << 4 | SOUND_FLAGS, packet_type::CODED_FRAMES]),
        Codec::Mp3 => body.push(&[mp3_flags(&frame.data)]),
        Codec::H265 if composition_ms != 0 => {
            body.push(&[enhanced_flags(codec, kind, packet_type::CODED_FRAMES)]);
            body.push(&four_cc(codec)?);
            body.push_composition_time(composition_ms);
        }
        other => {
            // Coded frames without composition time: for H.265 that is a packet type of its own, the others have none.
            let packet = if other == Codec::H265 { packet_type::CODED_FRAMES_X } else { packet_type::CODED_FRAMES };
            body.push(&[enhanced_flags(other, kind, packet)]);
            body.push(&four_cc(other)?);
        }
    }
    Some(body)
}

impl TagBody {
    fn push(&mut self, bytes: &[u8]) {
        let start = usize::from(self.header_length);
        self.header[start..start + bytes.len()].copy_from_slice(bytes);
        self.header_length += bytes.len() as u8;
    }

    fn push_composition_time(&mut self, composition_ms: i64) {
        let [_, bytes @ ..] = (composition_ms as i32).to_be_bytes();
        self.push(&bytes);
    }
}

/// What legacy flags say of MP3 (E.4.2.1), from the header of its frame (ISO/IEC 11172-3 §2.4.1.3).
fn mp3_flags(data: &[u8]) -> u8 {
    let &[0xff, version, rate, mode, ..] = data else { return sound_format::MP3 << 4 | SOUND_FLAGS };
    // Rates of MPEG-1 are 44, 48 and 32 kHz, those of MPEG-2 and 2.5 half and a quarter of them.
    let flv_rate = match version >> 3 & 3 {
        3 => 3,
        2 => 2,
        _ => 1,
    };
    // 8 kHz has a format number of its own.
    let is_8_khz = version >> 3 & 3 == 0 && rate >> 2 & 3 == 2;
    let format = if is_8_khz { sound_format::MP3_8_KHZ } else { sound_format::MP3 };
    format << 4 | flv_rate << 2 | 2 | u8::from(mode >> 6 != 3)
}

fn enhanced_flags(codec: Codec, frame_type: u8, packet: u8) -> u8 {
    match codec.kind() {
        freshet_media::MediaKind::Video => 0x80 | frame_type << 4 | packet,
        freshet_media::MediaKind::Audio => sound_format::EX_HEADER << 4 | packet,
    }
}

#[cfg(test)]
#[path = "mux_tests.rs"]
mod tests;
