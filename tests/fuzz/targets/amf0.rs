//! AMF0 of commands and metadata: read, written, read again.
#![no_main]

use freshet_bridge::flv::Metadata;
use freshet_bridge::flv::amf0::{Reader, write};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = Metadata::parse(bytes);
    let rewrite = |bytes: &[u8]| {
        let mut out = Vec::new();
        Reader::new(bytes).values_leniently().iter().for_each(|value| write(&mut out, value));
        out
    };
    let once = rewrite(bytes);
    // A replaced character has three bytes, a missing end marker too, a count four.
    assert!(once.len() <= 4 * bytes.len() + 16);
    assert_eq!(rewrite(&once), once);
});
