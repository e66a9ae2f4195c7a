//! What a server that we publish to sends after its handshake, at once and in pieces.
#![no_main]

use freshet_bridge::rtmp::{PublishError, PublishOutput, PublishTo, RtmpLimits, RtmpPublisher};
use libfuzzer_sys::fuzz_target;

/// All outputs but what is written, and how it ended. `asks`: it asks to publish as soon as the server lets it in.
fn outputs(bytes: &[u8], cut: usize, asks: bool) -> (Vec<PublishOutput>, Option<PublishError>) {
    let to = PublishTo {
        app: "live".to_owned(),
        stream: "cam".to_owned(),
        tc_url: "rtmp://h/live".to_owned(),
        flash_ver: "FMLE/3.0".to_owned(),
    };
    let mut publisher = RtmpPublisher::new(RtmpLimits::default(), to).expect("a handshake");
    let mut hello = [0; 1 + 2 * 1536];
    hello[0] = 3;
    publisher.handle_bytes(&hello).expect("a plain handshake");
    let mut outputs = Vec::new();
    for piece in bytes.chunks(cut) {
        let result = publisher.handle_bytes(piece);
        while let Some(output) = publisher.poll_output() {
            if asks && matches!(output, PublishOutput::Connected(_)) {
                publisher.publish().expect("it is the time");
            }
            if !matches!(output, PublishOutput::Write(_)) {
                outputs.push(output);
            }
        }
        if let Err(error) = result {
            return (outputs, Some(error));
        }
    }
    publisher.finish();
    (outputs, None)
}

fuzz_target!(|input: &[u8]| {
    // The first byte says how the others are cut.
    let Some((&how, bytes)) = input.split_first() else { return };
    let whole = outputs(bytes, bytes.len().max(1), false);
    let cut = outputs(bytes, usize::from(how) + 1, false);
    assert_eq!(whole, cut);
    // What is asked depends on where the pieces end, and so does what comes of it.
    let (asking, _) = outputs(bytes, usize::from(how) + 1, true);
    assert!(asking.len() <= 2, "connected and started, once each");
});
