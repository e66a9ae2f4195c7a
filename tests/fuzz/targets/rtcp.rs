//! A viewer's feedback, decrypted.
#![no_main]

use freshet_sfu::fuzzing::rtcp_feedback;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|datagram: &[u8]| {
    let (nacks, others) = rtcp_feedback(datagram);
    // Work and answers stay in proportion to what came in.
    assert!(nacks <= 512 && others <= datagram.len() / 4);
});
