//! H.264 through [`BFrameRemover`]: the configuration record behind its length, then access units behind theirs.
//!
//! The highest bits of a length move the picture in the order of display.
#![no_main]

use std::sync::Arc;

use bytes::Bytes;
use freshet_bridge::transcode::{BFrameRemover, VideoOptions};
use freshet_media::{Codec, Frame, MediaTime, TrackConfig};
use libfuzzer_sys::fuzz_target;

const MAX_FRAMES: usize = 24;

fuzz_target!(|data: &[u8]| {
    let Some((length, data)) = data.split_first() else { return };
    let Some((record, mut rest)) = data.split_at_checked(usize::from(*length)) else { return };
    let config = Arc::new(TrackConfig { codec: Codec::H264, record: Bytes::copy_from_slice(record) });
    let mut remover = BFrameRemover::new(VideoOptions::default());
    let mut last: Option<MediaTime> = None;
    let mut pictures = 0;
    let mut emit = |frame: Frame| {
        assert!(last.is_none_or(|last| last < frame.pts) && frame.dts == frame.pts);
        last = Some(frame.pts);
        pictures += 1;
    };
    let mut frames = 0;
    while let Some((length, tail)) = rest.split_first_chunk::<2>()
        && frames < MAX_FRAMES
    {
        let length = u16::from_be_bytes(*length);
        let dts = MediaTime::from_millis(frames as i64 * 33);
        let pts = MediaTime::from_millis((frames as i64 + i64::from(length >> 13)) * 33);
        let (unit, tail) = tail.split_at(usize::from(length & 0x1fff).min(tail.len()));
        rest = tail;
        let data = Bytes::copy_from_slice(unit);
        let frame = Frame { config: Arc::clone(&config), dts, pts, is_keyframe: frames % 8 == 0, data };
        let _ = remover.push(&frame, &mut emit);
        frames += 1;
    }
    remover.flush(&mut emit);
    assert!(pictures <= frames);
});
