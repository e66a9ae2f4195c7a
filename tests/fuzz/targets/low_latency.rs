//! Frames of any codec and record into low-latency HLS: what comes out are whole boxes, and parts keep to their target.
#![no_main]

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use freshet_bridge::hls::{HlsOptions, LowLatencySegmenter, MediaView, PartAnswer};
use freshet_media::{Codec, Frame, MediaTime, TrackConfig};
use libfuzzer_sys::fuzz_target;

const VIDEO: [Codec; 6] = [Codec::H264, Codec::H265, Codec::Av1, Codec::Vp8, Codec::Vp9, Codec::H264];
const AUDIO: [Codec; 4] = [Codec::Aac, Codec::Opus, Codec::Mp3, Codec::Pcma];

/// A record of H.264 that is right, so that not every input has to find one.
const AVC: [u8; 32] = [
    1, 0x42, 0xc0, 0x0a, 0xff, 0xe1, 0, 13, 0x67, 0x42, 0xc0, 0x0a, 0xda, 0x1e, 0x7e, 0x22, 0x10, 0, 0, 3, 0, 1, 0, 4,
    0x68, 0xce, 0x0f, 0xc8, 0, 0, 0, 0,
];

fuzz_target!(|data: &[u8]| {
    let [pick, video_record, audio_record, rest @ ..] = data else { return };
    let (video, rest) = rest.split_at(usize::from(*video_record).min(rest.len()));
    let (audio, mut rest) = rest.split_at(usize::from(*audio_record).min(rest.len()));
    let video_codec = VIDEO[usize::from(pick & 0x0f) % VIDEO.len()];
    let video = if video.is_empty() && video_codec == Codec::H264 { &AVC[..] } else { video };
    let config = |codec, record: &[u8]| Arc::new(TrackConfig { codec, record: Bytes::copy_from_slice(record) });
    let configs = [config(AUDIO[usize::from(pick >> 4 & 3)], audio), config(video_codec, video)];
    let options = HlsOptions { fragment: Duration::from_secs(1), ..HlsOptions::default() };
    let mut segmenter = LowLatencySegmenter::new(options, Duration::from_millis(200), 1);
    let mut at = MediaTime::default();
    while let Some(([flags, step, offset, length], tail)) = rest.split_first_chunk::<4>() {
        let (data, tail) = tail.split_at(usize::from(*length).min(tail.len()));
        rest = tail;
        let step_ms = i64::from(*step) * [1, 10, 1_000, -1_000_000][usize::from(flags >> 1 & 3)];
        at = MediaTime::from_micros(at.micros() + step_ms * 1_000);
        let frame = Frame {
            config: Arc::clone(&configs[usize::from(flags & 1)]),
            dts: at,
            pts: MediaTime::from_micros(at.micros() + i64::from(offset.cast_signed()) * 1_000),
            is_keyframe: flags & 0x18 != 0,
            data: Bytes::copy_from_slice(data),
        };
        let _ = segmenter.push(frame, UNIX_EPOCH);
        match flags >> 5 {
            6 => segmenter.start_over(),
            7 => segmenter.end(),
            _ => {}
        }
        let _ = (segmenter.wants_keyframe(), segmenter.unplayable());
    }
    check(&segmenter);
});

fn check(segmenter: &LowLatencySegmenter) {
    let playlist = segmenter.playlist();
    let text = playlist.render(&MediaView::default());
    let target = playlist.part_target().unwrap_or_default().as_secs_f64();
    for line in text.lines() {
        let Some(part) = line.strip_prefix("#EXT-X-PART:DURATION=") else { continue };
        let (seconds, name) = part.split_once(",URI=\"part-").expect("a name");
        assert!(seconds.parse::<f64>().expect("seconds") <= target + 1e-5, "{text}");
        let number = name.split_once('.').expect("an ending").0.parse().expect("a number");
        let PartAnswer::Ready(data) = playlist.part(number) else { panic!("{name} is listed") };
        assert_boxes(&data, &[*b"moof", *b"mdat"]);
    }
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("seg-") {
            let number = name.split_once('.').expect("an ending").0.parse().expect("a number");
            assert!(playlist.segment(number).is_some_and(|data| !data.is_empty()), "{name} is listed");
        }
        if let Some(name) = line.strip_prefix("#EXT-X-MAP:URI=\"init-") {
            let number = name.split_once('.').expect("an ending").0.parse().expect("a number");
            assert_boxes(&playlist.init(number).expect("what is listed"), &[*b"ftyp", *b"moov"]);
        }
    }
}

/// The data is these boxes, to its last byte.
fn assert_boxes(mut data: &[u8], kinds: &[[u8; 4]]) {
    for kind in kinds {
        let (size, rest) = data.split_first_chunk::<4>().expect("a size");
        assert!(rest.starts_with(kind));
        data = data.get(u32::from_be_bytes(*size) as usize..).expect("a whole box");
    }
    assert!(data.is_empty());
}
