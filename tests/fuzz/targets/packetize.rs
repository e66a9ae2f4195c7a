//! Packetizers: codec and keyframe flag, largest payload, and the cut between configuration record and frame come first.
#![no_main]

use std::sync::Arc;

use bytes::Bytes;
use freshet_media::packetize::{Packetizer, PacketizerOptions};
use freshet_media::{Codec, Frame, MediaTime, TrackConfig, opens_keyframe};
use libfuzzer_sys::fuzz_target;

const CODECS: [Codec; 4] = [Codec::H264, Codec::H265, Codec::Av1, Codec::Opus];

fuzz_target!(|data: &[u8]| {
    let [pick, max, cut, data @ ..] = data else { return };
    let (record, data) = data.split_at(usize::from(*cut).min(data.len()));
    let codec = CODECS[usize::from(*pick) % CODECS.len()];
    let options = PacketizerOptions { max_payload_bytes: usize::from(*max) * 5, keep_sei: pick & 0x40 != 0 };
    let mut packetizer = Packetizer::new(codec, options).expect("a packetizer");
    let config = Arc::new(TrackConfig { codec, record: Bytes::copy_from_slice(record) });
    let (at, data) = (MediaTime::default(), Bytes::copy_from_slice(data));
    let frame = Frame { config, dts: at, pts: at, is_keyframe: pick & 0x80 != 0, data };
    let mut payloads = Vec::new();
    if packetizer.packetize(&frame, &mut payloads).is_err() {
        assert!(payloads.is_empty());
        return;
    }
    for (i, payload) in payloads.iter().enumerate() {
        assert!(!payload.payload.is_empty());
        assert!(codec == Codec::Opus || payload.payload.len() <= options.max_payload_bytes.max(32));
        assert_eq!(payload.marker, codec != Codec::Opus && i + 1 == payloads.len());
        assert!(!payload.opens_keyframe || i == 0 && opens_keyframe(codec, &payload.payload));
    }
    // Parameter sets of the record come on top of what the frame holds, and a header of up to 7 bytes for each payload.
    let bytes: usize = payloads.iter().map(|payload| payload.payload.len()).sum();
    assert!(bytes <= frame.data.len() + record.len() + payloads.len() * 7);
});
