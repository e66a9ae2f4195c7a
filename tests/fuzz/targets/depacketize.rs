//! Depacketizers: a byte for the codec, then payloads behind a byte of flags and two of length.
//!
//! Flags: the marker, a new RTP time, and packets that are missing before this one.
#![no_main]

use freshet_media::depacketize::{Depacketizer, Piece, red_primary};
use freshet_media::h264::{AvcConfig, units};
use freshet_media::h265::HevcConfig;
use freshet_media::{Codec, av1};
use libfuzzer_sys::fuzz_target;

const CODECS: [Codec; 5] = [Codec::H264, Codec::H265, Codec::Av1, Codec::Vp8, Codec::Vp9];

fuzz_target!(|data: &[u8]| {
    let Some((pick, mut rest)) = data.split_first() else { return };
    let codec = CODECS[usize::from(*pick) % CODECS.len()];
    let mut depacketizer = Depacketizer::new(codec).expect("a depacketizer");
    let (mut timestamp, mut pictures) = (0u32, Vec::new());
    while let Some(([flags, length @ ..], tail)) = rest.split_first_chunk::<3>() {
        let length = usize::from(u16::from_be_bytes(*length)) % 1500;
        let (payload, tail) = tail.split_at(length.min(tail.len()));
        rest = tail;
        if flags & 4 != 0 {
            depacketizer.lost();
        }
        timestamp = timestamp.wrapping_add(u32::from(flags & 2 != 0));
        let _ = depacketizer.push(Piece { timestamp, marker: flags & 1 != 0, payload }, &mut pictures);
        let _ = red_primary(payload);
    }
    assert!(pictures.first().is_none_or(|picture| picture.is_keyframe));
    let bytes: usize = pictures.iter().map(|picture| picture.data.len()).sum();
    assert!(bytes <= data.len() * 8);
    for picture in &pictures {
        assert!(!picture.data.is_empty());
        match codec {
            Codec::H264 | Codec::H265 => {
                let mut found = units(&picture.data, 4);
                assert!(found.by_ref().count() > 0 && !found.is_malformed());
                let record = &picture.config.record;
                assert!(if codec == Codec::H264 { AvcConfig::parse(record).is_ok() } else { HevcConfig::parse(record).is_ok() });
            }
            Codec::Av1 => {
                let mut found = av1::obus(&picture.data);
                assert!(found.by_ref().count() > 0 && !found.is_malformed());
                assert!(av1::config_obus(&picture.config.record).next().is_some());
            }
            _ => {}
        }
    }
});
