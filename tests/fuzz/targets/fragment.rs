//! The body of a `PATCH`.
#![no_main]

use freshet_sfu::sdp::Fragment;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(fragment) = Fragment::parse(text) else { return };
    assert!(fragment.credentials.is_some() || fragment.candidates > 0 || fragment.end_of_candidates);
    assert!(fragment.candidates <= text.lines().count());
    if let Some((ufrag, pwd)) = fragment.credentials {
        assert!((4..=256).contains(&ufrag.len()) && (22..=256).contains(&pwd.len()));
    }
});
