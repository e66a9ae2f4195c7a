//! What the tests of both halves share: recorded streams.

use std::sync::Arc;

use bytes::Bytes;
use freshet_media::{Codec, Frame, MediaTime, TrackConfig};

/// The frames of a recording with one track of H.264, AAC or MP3. Knows just what ffmpeg writes of FLV, so that these
/// tests do not depend on the real demuxer.
pub(super) fn frames_of_flv(flv: &[u8]) -> Vec<Frame> {
    let mut frames = Vec::new();
    let mut config = Arc::new(TrackConfig { codec: Codec::Mp3, record: Bytes::new() });
    let mut rest = &flv[13..];
    while rest.len() > 11 {
        let length = usize::from(rest[1]) << 16 | usize::from(rest[2]) << 8 | usize::from(rest[3]);
        let millis = i64::from(rest[4]) << 16 | i64::from(rest[5]) << 8 | i64::from(rest[6]);
        let (kind, body) = (rest[0], Bytes::copy_from_slice(&rest[11..11 + length]));
        rest = &rest[11 + length + 4..];
        let (header, composition) = match (kind, body[0] >> 4, body[0] & 0x0f) {
            (9, _, 7) => (5, i64::from(body[2]) << 16 | i64::from(body[3]) << 8 | i64::from(body[4])),
            (8, 10, _) => (2, 0),
            (8, 2, _) => (1, 0),
            _ => continue,
        };
        let codec = [Codec::Mp3, Codec::Mp3, Codec::Aac, Codec::Mp3, Codec::Mp3, Codec::H264][header];
        match (header, body[1]) {
            (2 | 5, 0) => config = Arc::new(TrackConfig { codec, record: body.slice(header..) }),
            (5, 2) => {}
            _ => frames.push(Frame {
                config: Arc::clone(&config),
                dts: MediaTime::from_millis(millis),
                pts: MediaTime::from_millis(millis + composition),
                is_keyframe: kind == 8 || body[0] >> 4 == 1,
                data: body.slice(header..),
            }),
        }
    }
    frames
}
