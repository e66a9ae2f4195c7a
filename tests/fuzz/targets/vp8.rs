//! VP8 payload descriptors: the first byte cuts the input into the last payload of one source and the first of the next.
#![no_main]

use freshet_sfu::fuzzing::vp8_continue;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((cut, data)) = data.split_first() else { return };
    let (last, next) = data.split_at(usize::from(*cut).min(data.len()));
    let mut patched = next.to_vec();
    let Some([(id, idx), (id_after, idx_after)]) = vp8_continue(last, &mut patched) else { return };
    if let (Some(id), Some(after)) = (id, id_after) {
        assert_eq!(after, (id + 1) & 0x7fff);
    }
    if let (Some(idx), Some(after)) = (idx, idx_after) {
        assert_eq!(after, idx.wrapping_add(1));
    }
    // At most the three bytes of the two numbers change.
    assert!(next.iter().zip(&patched).filter(|(a, b)| a != b).count() <= 3);
});
