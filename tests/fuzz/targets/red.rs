//! The primary block of a RED payload.
#![no_main]

use freshet_sfu::fuzzing::red_primary_block;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|payload: &[u8]| {
    if let Some(primary) = red_primary_block(payload) {
        assert!(primary.len() < payload.len() && payload.ends_with(primary));
    }
});
