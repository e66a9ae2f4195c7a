//! H.264 headers: the first byte cuts the input into a configuration record and a frame, whose units are also read as
//! parameter sets and slices.
#![no_main]

use std::sync::Arc;

use bytes::Bytes;
use freshet_media::h264::{AvcConfig, BFrameDetector, Sps, is_b_slice, units};
use freshet_media::{Codec, Frame, MediaTime, TrackConfig};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((cut, data)) = data.split_first() else { return };
    let (record, frame) = data.split_at(usize::from(*cut).min(data.len()));
    let mut length_bytes = 4;
    if let Ok(config) = AvcConfig::parse(record) {
        length_bytes = config.nal_length_bytes;
        assert_eq!(config.profile_level_id().len(), 6);
        let again = AvcConfig::parse(&config.to_record()).expect("our own record can be parsed");
        assert_eq!(again, config);
        config.sps.iter().for_each(|unit| check_sps(unit));
    }
    let mut found = units(frame, length_bytes);
    let mut bytes = 0;
    for unit in found.by_ref() {
        assert!(!unit.is_empty());
        bytes += unit.len();
        check_sps(unit);
        let _ = is_b_slice(unit);
    }
    assert!(bytes <= frame.len());
    check_sps(frame);
    detect(record, frame);
});

fn check_sps(unit: &[u8]) {
    let Ok(sps) = Sps::parse(unit) else { return };
    assert!((1..=16_880).contains(&sps.width) && (1..=33_760).contains(&sps.height));
    assert!((8..=14).contains(&sps.bit_depth_luma) && (8..=14).contains(&sps.bit_depth_chroma));
    assert!(sps.frames_per_second.is_none_or(|rate| rate > 0.0));
}

fn detect(record: &[u8], data: &[u8]) {
    let config = Arc::new(TrackConfig { codec: Codec::H264, record: Bytes::copy_from_slice(record) });
    let at = MediaTime::default();
    let data = Bytes::copy_from_slice(data);
    let mut detector = BFrameDetector::new();
    for is_keyframe in [true, false] {
        detector.push(&Frame { config: Arc::clone(&config), dts: at, pts: at, is_keyframe, data: data.clone() });
    }
}
