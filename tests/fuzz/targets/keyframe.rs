//! Keyframe detection: the first byte picks the codec.
#![no_main]

use freshet_media::{Codec, MediaKind, opens_keyframe};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((pick, payload)) = data.split_first() else { return };
    let codec = Codec::RTP[usize::from(*pick) % Codec::RTP.len()];
    let opens = opens_keyframe(codec, payload);
    assert!(!opens || (codec.kind() == MediaKind::Video && !payload.is_empty()));
});
