//! AAC and MP3 through [`AudioToOpus`]: a byte for the codec, the decoder's record behind its length, then frames behind
//! their lengths.
//!
//! The highest bits of a length move the frame in time, so that gaps, overlaps and jumps are met too.
#![no_main]

use std::sync::Arc;

use bytes::Bytes;
use freshet_bridge::transcode::{AudioToOpus, OpusOptions};
use freshet_media::{Codec, Frame, MediaTime, TrackConfig};
use libfuzzer_sys::fuzz_target;

/// So that an input of nothing but empty frames does not take seconds.
const MAX_FRAMES: usize = 48;

fuzz_target!(|data: &[u8]| {
    let Some((codec, data)) = data.split_first() else { return };
    let codec = [Codec::Aac, Codec::Aac, Codec::Mp3, Codec::Opus][usize::from(*codec) % 4];
    let Some((length, data)) = data.split_first() else { return };
    let Some((record, mut rest)) = data.split_at_checked(usize::from(*length)) else { return };
    let config = Arc::new(TrackConfig { codec, record: Bytes::copy_from_slice(record) });
    let mut transcoder = AudioToOpus::new(OpusOptions::default());
    let mut millis = 0i64;
    let mut packets = 0usize;
    for _ in 0..MAX_FRAMES {
        let Some((length, tail)) = rest.split_first_chunk::<2>() else { break };
        let length = u16::from_be_bytes(*length);
        millis += 21 + [0, 0, 0, 0, 30, 120, 5000, -60][usize::from(length >> 13)];
        let (frame, tail) = tail.split_at(usize::from(length & 0x1fff).min(tail.len()));
        rest = tail;
        let pts = MediaTime::from_millis(millis);
        let data = Bytes::copy_from_slice(frame);
        let frame = Frame { config: Arc::clone(&config), dts: pts, pts, is_keyframe: true, data };
        let _ = transcoder.push(&frame, &mut |packet| {
            assert!(packet.data.len() <= 1277 || codec == Codec::Opus);
            packets += 1;
        });
    }
    // A frame is at most 8192 samples at 7350 Hz: 56 packets, and what is filled in front of it.
    assert!(packets <= MAX_FRAMES * 70);
});
