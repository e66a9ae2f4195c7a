use super::*;

fn tag(kind: MediaKind, timestamp_ms: u32, body: &[u8]) -> Tag {
    Tag { kind, timestamp_ms, body: Bytes::copy_from_slice(body) }
}

fn video(body: &[u8]) -> Tag {
    tag(MediaKind::Video, 0, body)
}

fn audio(body: &[u8]) -> Tag {
    tag(MediaKind::Audio, 0, body)
}

const AVCC: [u8; 9] = [1, 0x42, 0xc0, 0x1e, 0xff, 0xe0, 0, 0, 0];

fn avc_header(record: &[u8]) -> Tag {
    video(&[&[0x17, 0, 0, 0, 0], record].concat())
}

#[test]
fn the_forms_of_bodies() {
    let frame = |codec, is_keyframe, composition_ms, data: &[u8]| {
        Some(Body::Frame { codec, is_keyframe, composition_ms, data: Bytes::copy_from_slice(data) })
    };
    let header = |codec, record: &[u8]| Some(Body::SequenceHeader { codec, record: Bytes::copy_from_slice(record) });
    let nothing = Some(Body::Nothing);
    #[rustfmt::skip]
    let cases: Vec<(Tag, Option<Body>)> = vec![
        // Legacy: sequence header, key, inter with a negative composition time, end of sequence, command.
        (video(&[0x17, 0, 0, 0, 0, 1, 2]), header(Codec::H264, &[1, 2])),
        (video(&[0x17, 1, 0, 0, 40, 9]), frame(Codec::H264, true, 40, &[9])),
        (video(&[0x27, 1, 0xff, 0xff, 0xff, 9]), frame(Codec::H264, false, -1, &[9])),
        (video(&[0x17, 2, 0, 0, 0]), nothing),
        (video(&[0x57, 0]), Some(Body::Nothing)),
        (video(&[0x1c, 1, 0, 0, 1, 9]), frame(Codec::H265, true, 1, &[9])),
        (video(&[0x17, 1, 0, 0]), None),
        (video(&[0x17]), None),
        (video(&[]), Some(Body::Nothing)),
        (video(&[0x12, 1]), Some(Body::Unsupported("Sorenson H.263".into()))),
        // Enhanced, v1: with and without composition time.
        (video(b"\x90hvc1\x01\x02"), header(Codec::H265, &[1, 2])),
        (video(b"\x91hvc1\x00\x00\x21x"), frame(Codec::H265, true, 33, b"x")),
        (video(b"\xa3hvc1x"), frame(Codec::H265, false, 0, b"x")),
        (video(b"\xa1avc1\x00\x00\x01x"), frame(Codec::H264, false, 1, b"x")),
        (video(b"\x91av01x"), frame(Codec::Av1, true, 0, b"x")),
        (video(b"\x91vp09x"), frame(Codec::Vp9, true, 0, b"x")),
        (video(b"\x94hvc1x"), Some(Body::Nothing)),
        (video(b"\x92hvc1"), Some(Body::Nothing)),
        (video(b"\x91vvc1x"), Some(Body::Unsupported("\"vvc1\"".into()))),
        (video(b"\x91Opusx"), Some(Body::Unsupported("\"Opus\"".into()))),
        (video(b"\x91hvc"), None),
        (video(b"\xd1\x00"), Some(Body::Nothing)),
        // v2: a nanosecond offset, then one of more than 256 bytes, before the frame.
        (video(b"\x97\x02\0\0\x05\x01av01x"), frame(Codec::Av1, true, 0, b"x")),
        (video(&[&[0x97, 0xff, 0x01, 0x00][..], &[0; 257], b"\x01av01x"].concat()), frame(Codec::Av1, true, 0, b"x")),
        (video(b"\x97\x02\0\0\x05\x07\x00\x00\x01av01x"), frame(Codec::Av1, true, 0, b"x")),
        (video(b"\x97\x20\0"), None),
        // One track, many, many with codecs of their own: track 0 counts.
        (video(b"\x96\x01av01\x00x"), frame(Codec::Av1, true, 0, b"x")),
        (video(b"\x96\x01av01\x01x"), Some(Body::Nothing)),
        (video(b"\x96\x11av01\x01\0\0\x01y\x00\0\0\x02xx"), frame(Codec::Av1, true, 0, b"xx")),
        (video(b"\x96\x21av01\x01\0\0\x01yvp09\x00\0\0\x01x"), frame(Codec::Vp9, true, 0, b"x")),
        (video(b"\x96\x11av01\x01\0\0\x01y"), Some(Body::Nothing)),
        (video(b"\x96\x11av01\x00\0\0\x09y"), None),
        (video(b"\x96\x11av01\x01\0\0\x09y"), None),
        (video(b"\x96\x31av01"), Some(Body::Nothing)),
        // Sound.
        (audio(&[0xaf, 0, 0x12, 0x10]), header(Codec::Aac, &[0x12, 0x10])),
        (audio(&[0xaf, 1, 9]), frame(Codec::Aac, true, 0, &[9])),
        (audio(&[0xaf, 1]), Some(Body::Nothing)),
        (audio(&[0xaf]), None),
        (audio(&[0x2f, 9]), frame(Codec::Mp3, true, 0, &[9])),
        (audio(&[0xef, 9]), frame(Codec::Mp3, true, 0, &[9])),
        (audio(&[0x7f, 9]), Some(Body::Unsupported("G.711 A-law".into()))),
        (audio(&[0xb2, 9]), Some(Body::Unsupported("Speex".into()))),
        (audio(b"\x90OpusOpusHead"), header(Codec::Opus, b"OpusHead")),
        (audio(b"\x91Opusx"), frame(Codec::Opus, true, 0, b"x")),
        (audio(b"\x91mp4ax"), frame(Codec::Aac, true, 0, b"x")),
        (audio(b"\x91.mp3x"), frame(Codec::Mp3, true, 0, b"x")),
        (audio(b"\x91ac-3x"), Some(Body::Unsupported("\"ac-3\"".into()))),
        (audio(b"\x94Opus\0\x02"), Some(Body::Nothing)),
        (audio(b"\x95\x01Opus\x00x"), frame(Codec::Opus, true, 0, b"x")),
        (audio(b"\x97\x00\x00\x01Opusx"), frame(Codec::Opus, true, 0, b"x")),
    ];
    for (tag, expected) in cases {
        let body = if tag.kind == MediaKind::Audio { audio_body(&tag.body) } else { video_body(&tag.body) };
        assert_eq!(body, expected, "{:?} {}", tag.kind, tag.body.escape_ascii());
    }
}

#[test]
fn a_repeated_sequence_header_is_no_change() {
    let mut demuxer = Demuxer::new();
    let frame = |demuxer: &mut Demuxer| demuxer.tag(&video(&[0x17, 1, 0, 0, 0, 1])).unwrap().unwrap();
    demuxer.tag(&avc_header(&AVCC)).unwrap();
    let first = frame(&mut demuxer);
    demuxer.tag(&avc_header(&AVCC)).unwrap();
    assert!(Arc::ptr_eq(&first.config, &frame(&mut demuxer).config));
    // Nor is it one over a republish.
    demuxer.begin_again(Duration::from_secs(1));
    demuxer.tag(&avc_header(&AVCC)).unwrap();
    assert!(Arc::ptr_eq(&first.config, &frame(&mut demuxer).config));

    let mut other = AVCC;
    other[3] = 0x1f;
    demuxer.tag(&avc_header(&other)).unwrap();
    let changed = frame(&mut demuxer);
    assert!(!Arc::ptr_eq(&first.config, &changed.config));
    assert_eq!(changed.config.record[..], other);
    assert_eq!(demuxer.config(MediaKind::Video), Some(&changed.config));
    assert_eq!(demuxer.config(MediaKind::Audio), None);
}

#[test]
fn a_broken_sequence_header_leaves_the_old_one() {
    let mut demuxer = Demuxer::new();
    demuxer.tag(&avc_header(&AVCC)).unwrap();
    for record in [&[][..], &[0; 9], &AVCC[..6], &[1; 100_000]] {
        let expected = FlvError::BadSequenceHeader { codec: Codec::H264, length: record.len() };
        assert_eq!(demuxer.tag(&avc_header(record)).unwrap_err(), expected);
    }
    assert_eq!(demuxer.config(MediaKind::Video).unwrap().record[..], AVCC);
}

#[test]
fn frames_without_a_header_are_told_once() {
    let mut demuxer = Demuxer::new();
    let frame = video(&[0x27, 1, 0, 0, 0, 1]);
    assert_eq!(demuxer.tag(&frame).unwrap_err(), FlvError::NoSequenceHeader { codec: Codec::H264 });
    assert!(demuxer.tag(&frame).unwrap().is_none());
    demuxer.tag(&avc_header(&AVCC)).unwrap();
    assert!(demuxer.tag(&frame).unwrap().is_some());
    // What needs no header gets along without one.
    for (tag, codec) in [(audio(&[0x2f, 1]), Codec::Mp3), (audio(b"\x91Opusx"), Codec::Opus)] {
        assert_eq!(demuxer.tag(&tag).unwrap().unwrap().config.codec, codec);
    }
    assert!(demuxer.config(MediaKind::Audio).unwrap().record.starts_with(b"OpusHead"));
}

#[test]
fn an_unsupported_track_is_told_once_and_the_other_goes_on() {
    let mut demuxer = Demuxer::new();
    let speex = audio(&[0xb2, 1]);
    let error = demuxer.tag(&speex).unwrap_err();
    assert_eq!(error.to_string(), "unsupported codec Speex in an RTMP audio tag: the stream goes on without it");
    assert!(demuxer.tag(&speex).unwrap().is_none());
    demuxer.tag(&avc_header(&AVCC)).unwrap();
    assert!(demuxer.tag(&video(&[0x17, 1, 0, 0, 0, 1])).unwrap().is_some());
    assert!(demuxer.tag(&speex).unwrap().is_none());
}

#[test]
fn composition_times_make_presentation_times() {
    let mut demuxer = Demuxer::new();
    demuxer.tag(&avc_header(&AVCC)).unwrap();
    let mut times = |at_ms, composition: [u8; 3]| {
        let [c0, c1, c2] = composition;
        let frame = demuxer.tag(&tag(MediaKind::Video, at_ms, &[0x27, 1, c0, c1, c2, 1])).unwrap().unwrap();
        (frame.dts.millis(), frame.pts.millis())
    };
    assert_eq!(times(10_000, [0, 0, 80]), (0, 80));
    assert_eq!(times(10_040, [0xff, 0xff, 0xd8]), (40, 0));
    // More than any reordering needs.
    assert_eq!(times(10_080, [0x7f, 0xff, 0xff]), (80, 80));
}
