use std::sync::Arc;

use freshet_media::{MediaKind, MediaTime};

use super::*;
use crate::flv::{Demuxer, Tag};

fn record(codec: Codec) -> Vec<u8> {
    match codec {
        Codec::H264 => vec![1, 0x42, 0xc0, 0x1e, 0xff, 0xe0, 0, 7],
        Codec::H265 => vec![1; 23],
        Codec::Av1 => vec![0x81, 0, 0x0c, 0],
        Codec::Vp9 => vec![1, 0, 0, 0, 0, 10, 0x82, 2, 2, 2, 0, 0],
        Codec::Aac => vec![0x12, 0x10],
        Codec::Opus => b"OpusHead\x01\x02\x38\x01\x80\xbb\0\0\0\0\0".to_vec(),
        _ => vec![],
    }
}

fn frame(codec: Codec, dts_ms: i64, pts_ms: i64, is_keyframe: bool) -> Frame {
    Frame {
        config: Arc::new(TrackConfig { codec, record: record(codec).into() }),
        dts: MediaTime::from_millis(dts_ms),
        pts: MediaTime::from_millis(pts_ms),
        is_keyframe,
        data: Bytes::from(vec![codec as u8; 100]),
    }
}

const CARRIED: [Codec; 8] =
    [Codec::H264, Codec::H265, Codec::Vp8, Codec::Vp9, Codec::Av1, Codec::Aac, Codec::Mp3, Codec::Opus];

#[test]
fn every_codec_survives_the_way_there_and_back() {
    for codec in CARRIED {
        let mut demuxer = Demuxer::new();
        let kind = codec.kind();
        // Only these two have composition times in FLV, below zero as well.
        let reorders = matches!(codec, Codec::H264 | Codec::H265);
        let config = frame(codec, 0, 0, true).config;
        if let Some(body) = sequence_header(&config) {
            assert!(demuxer.tag(&Tag { kind, timestamp_ms: 0, body }).unwrap().is_none());
        }
        for (n, composition_ms) in [0, 80, -40, 0].into_iter().enumerate() {
            let dts_ms = n as i64 * 40;
            let composition_ms = if reorders { composition_ms } else { 0 };
            let sent = frame(codec, dts_ms, dts_ms + composition_ms, kind == MediaKind::Audio || n == 0);
            let body = tag_body(&sent).unwrap();
            assert_eq!(body.data.as_ptr(), sent.data.as_ptr(), "shared, not copied");
            let tag = Tag { kind, timestamp_ms: dts_ms as u32, body: body.to_bytes() };
            let got = demuxer.tag(&tag).unwrap().unwrap();
            assert_eq!(got.config, config, "{codec}");
            assert_eq!((got.dts, got.pts, got.is_keyframe), (sent.dts, sent.pts, sent.is_keyframe), "{codec} {n}");
            assert_eq!(got.data, sent.data, "{codec}");
        }
    }
}

#[test]
fn legacy_bytes_where_there_are_some() {
    let header = |codec, composition_ms: i64, is_keyframe| {
        tag_body(&frame(codec, 1000, 1000 + composition_ms, is_keyframe)).unwrap().header().to_vec()
    };
    assert_eq!(header(Codec::H264, 40, true), [0x17, 1, 0, 0, 40]);
    assert_eq!(header(Codec::H264, -1, false), [0x27, 1, 0xff, 0xff, 0xff]);
    assert_eq!(header(Codec::Aac, 0, true), [0xaf, 1]);
    assert_eq!(header(Codec::Mp3, 0, true), [0x2f]);
    assert_eq!(header(Codec::H265, 0, true), *b"\x93hvc1");
    assert_eq!(header(Codec::H265, 40, false), *b"\xa1hvc1\0\0\x28");
    assert_eq!(header(Codec::Av1, 0, true), *b"\x91av01");
    assert_eq!(header(Codec::Opus, 0, true), *b"\x91Opus");
    assert_eq!(sequence_header(&frame(Codec::Aac, 0, 0, true).config).unwrap()[..], [0xaf, 0, 0x12, 0x10]);
    assert_eq!(sequence_header(&frame(Codec::H264, 0, 0, true).config).unwrap()[..6], [0x17, 0, 0, 0, 0, 1]);
    assert_eq!(sequence_header(&frame(Codec::Mp3, 0, 0, true).config), None);
}

#[test]
fn microseconds_round_so_that_the_sum_is_right() {
    let mut picture = frame(Codec::H264, 0, 0, false);
    picture.dts = MediaTime::from_micros(33_366);
    picture.pts = MediaTime::from_micros(100_100);
    // 33 + 67 = 100
    assert_eq!(tag_body(&picture).unwrap().header()[4], 67);
}

#[test]
fn what_flv_has_no_name_for_is_refused() {
    for codec in [Codec::Pcmu, Codec::Pcma, Codec::Red] {
        let mut sound = frame(codec, 0, 0, true);
        assert!(tag_body(&sound).is_none(), "{codec}");
        sound.config = Arc::new(TrackConfig { codec, record: Bytes::from_static(b"x") });
        assert!(sequence_header(&sound.config).is_none(), "{codec}");
    }
}

#[test]
fn mp3_flags_say_what_the_frames_header_says() {
    // Header after the sync byte: MPEG version and layer, bit rate and sample rate, mode.
    for (header, flags) in [
        ([0xff, 0xfb, 0x90, 0x00], 0x2f), // MPEG-1, 44.1 kHz, stereo
        ([0xff, 0xfb, 0x90, 0xc0], 0x2e), // the same, mono
        ([0xff, 0xf3, 0x80, 0x40], 0x2b), // MPEG-2, 22.05 kHz, joint stereo
        ([0xff, 0xe3, 0x40, 0xc0], 0x26), // MPEG-2.5, 11.025 kHz, mono
        ([0xff, 0xe3, 0x48, 0xc0], 0xe6), // MPEG-2.5, 8 kHz, mono
        ([0, 0, 0, 0], 0x2f),             // no header
    ] {
        let mut frame = frame(Codec::Mp3, 0, 0, true);
        frame.data = Bytes::copy_from_slice(&header);
        assert_eq!(tag_body(&frame).unwrap().header(), [flags], "{header:02x?}");
    }
}
