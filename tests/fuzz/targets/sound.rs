//! What describes a track of sound: `AudioSpecificConfig` and `OpusHead`.
#![no_main]

use freshet_media::{AacConfig, OpusHead};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(config) = AacConfig::parse(data) {
        assert!(config.channels > 0 && config.sample_rate > 0 && config.output_sample_rate > 0);
        if let Some(header) = config.adts_header(data.len()) {
            assert_eq!(header[..2], [0xff, 0xf1]);
        }
    }
    if let Ok(head) = OpusHead::parse(data) {
        assert_eq!(OpusHead::parse(&head.to_record()), Ok(head));
    }
});
