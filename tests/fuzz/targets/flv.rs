//! Tags of an FLV file, to frames, to tags and to the same frames again.
#![no_main]

use freshet_bridge::flv::{
    Demuxer, FileItem, FileReader, Metadata, Tag, flv_header, flv_tag, sequence_header, tag_body,
};
use freshet_media::Frame;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|tags: &[u8]| {
    let mut reader = FileReader::new();
    reader.push(&flv_header(true, true));
    reader.push(tags);
    let mut demuxer = Demuxer::new();
    let mut lasts = [None; 2];
    while let Ok(Some(item)) = reader.next_item() {
        let tag = match item {
            FileItem::Media(tag) => tag,
            FileItem::Script { body, .. } => {
                let _ = Metadata::parse(&body);
                continue;
            }
        };
        let Ok(Some(frame)) = demuxer.tag(&tag) else { continue };
        assert!(!frame.data.is_empty() && frame.data.len() <= tag.body.len());
        let last = lasts[frame.kind() as usize].replace(frame.dts);
        assert!(last.is_none_or(|last| frame.dts >= last), "time runs back");
        assert_remuxes(&frame);
    }
});

fn assert_remuxes(frame: &Frame) {
    let mut file = flv_header(true, true).to_vec();
    if let Some(body) = sequence_header(&frame.config) {
        file.extend_from_slice(&flv_tag(frame.kind().into(), 0, &body, &[]));
    }
    let body = tag_body(frame).expect("what came in FLV goes out in FLV");
    file.extend_from_slice(&flv_tag(frame.kind().into(), 0, body.header(), &body.data));
    let mut reader = FileReader::new();
    reader.push(&file);
    let mut demuxer = Demuxer::new();
    let mut again = None;
    while let Ok(Some(FileItem::Media(tag))) = reader.next_item() {
        let tag: Tag = tag;
        again = demuxer.tag(&tag).expect("our own tags are right");
    }
    let again = again.expect("the same frame");
    assert_eq!((&again.data, again.is_keyframe), (&frame.data, frame.is_keyframe));
    assert_eq!(again.config.codec, frame.config.codec);
}
