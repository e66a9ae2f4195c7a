//! What an RTMP peer sends after its handshake, at once and in pieces.
#![no_main]

use freshet_bridge::flv::{Demuxer, tag_body};
use freshet_bridge::rtmp::{RtmpConnection, RtmpError, RtmpLimits, RtmpOutput};
use libfuzzer_sys::fuzz_target;

/// All outputs but what is written, and how it ended.
fn outputs(bytes: &[u8], cut: usize, refuse: bool) -> (Vec<RtmpOutput>, Option<RtmpError>) {
    let mut connection = RtmpConnection::new(RtmpLimits::default());
    let mut hello = [0; 1 + 2 * 1536];
    hello[0] = 3;
    connection.handle_bytes(&hello).expect("a plain handshake");
    let mut outputs = Vec::new();
    for piece in bytes.chunks(cut) {
        let mut result = connection.handle_bytes(piece);
        while let Some(output) = connection.poll_output() {
            match output {
                RtmpOutput::Write(_) => {}
                RtmpOutput::Request(request) => {
                    let answer = if refuse {
                        connection.reject(request.id, "NetStream.Publish.BadName", "")
                    } else {
                        connection.accept(request.id)
                    };
                    result = result.and(answer);
                    outputs.push(RtmpOutput::Request(request));
                }
                other => outputs.push(other),
            }
        }
        if let Err(error) = result {
            return (outputs, Some(error));
        }
    }
    (outputs, None)
}

fuzz_target!(|input: &[u8]| {
    // The first byte says how the others are cut, and whether requests are refused.
    let Some((&how, bytes)) = input.split_first() else { return };
    let refuse = how & 0x80 != 0;
    let whole = outputs(bytes, bytes.len().max(1), refuse);
    let cut = outputs(bytes, usize::from(how & 0x7f) + 1, refuse);
    assert_eq!(whole, cut);

    let (mut demuxer, mut media) = (Demuxer::new(), 0);
    for output in &whole.0 {
        if let RtmpOutput::Media(tag) = output {
            media += tag.body.len();
            if let Ok(Some(frame)) = demuxer.tag(tag) {
                assert!(tag_body(&frame).is_some());
            }
        }
    }
    assert!(media <= bytes.len() && whole.0.len() <= bytes.len());
});
