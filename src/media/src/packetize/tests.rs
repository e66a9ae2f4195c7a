use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::TrackConfig;
use crate::testing::{Random, hex};

const SPS: &[u8] = &[0x67, 0x42, 0xc0, 0x1e, 0xd9, 1];
const PPS: &[u8] = &[0x68, 0xce, 0x3c, 0x80];
const OTHER_SPS: &[u8] = &[0x67, 0x4d, 0x40, 0x1e, 0xd9, 1];
const VPS_265: &[u8] = &[0x40, 1, 12, 1, 0xff];
const SPS_265: &[u8] = &[0x42, 1, 1, 1, 0x60];
const PPS_265: &[u8] = &[0x44, 1, 0xc1, 0x72];
/// A sequence header behind header and size.
const SEQUENCE: &[u8] = &[0x0a, 3, 0, 0, 5];

/// What it is about, whether it is a keyframe, the units of the frame, those of the packets.
type Case<'a> = (&'static str, bool, Vec<&'a [u8]>, Vec<&'a [u8]>);

fn record(codec: Codec) -> Vec<u8> {
    let unit = |unit: &[u8]| [&(unit.len() as u16).to_be_bytes(), unit].concat();
    match codec {
        Codec::H264 => [&[1, 0x42, 0xc0, 0x1e, 0xff, 0xe1][..], &unit(SPS), &[1], &unit(PPS)].concat(),
        Codec::H265 => {
            let mut record = vec![1; 23];
            (record[21], record[22]) = (0xf3, 3);
            for (kind, set) in [(32, VPS_265), (33, SPS_265), (34, PPS_265)] {
                record.extend([kind, 0, 1]);
                record.extend(unit(set));
            }
            record
        }
        Codec::Av1 => [&[0x81, 0, 0, 0], SEQUENCE].concat(),
        _ => Vec::new(),
    }
}

fn config(codec: Codec) -> Arc<TrackConfig> {
    Arc::new(TrackConfig { codec, record: record(codec).into() })
}

fn frame(config: &Arc<TrackConfig>, is_keyframe: bool, data: Vec<u8>) -> Frame {
    let at = MediaTime::default();
    Frame { config: Arc::clone(config), dts: at, pts: at, is_keyframe, data: data.into() }
}

fn packetizer(codec: Codec) -> Packetizer {
    Packetizer::new(codec, PacketizerOptions::default()).unwrap()
}

/// What becomes of a frame, checked for what holds for any.
fn cut(packetizer: &mut Packetizer, frame: &Frame) -> Result<Vec<RtpPayload>, PacketizeError> {
    let mut out = vec![RtpPayload { payload: [9][..].into(), marker: true, opens_keyframe: true }];
    let result = packetizer.packetize(frame, &mut out);
    assert_eq!(out.remove(0).payload[..], [9]);
    if result.is_err() {
        assert!(out.is_empty());
    }
    let is_video = frame.kind() == MediaKind::Video;
    for (i, payload) in out.iter().enumerate() {
        assert!(!payload.payload.is_empty());
        assert!(!is_video || payload.payload.len() <= packetizer.max_payload_bytes);
        assert_eq!(payload.marker, is_video && i + 1 == out.len());
        assert!(!payload.opens_keyframe || i == 0 && opens_keyframe(packetizer.codec, &payload.payload));
    }
    result.map(|()| out)
}

fn slices(payloads: &[RtpPayload]) -> Vec<&[u8]> {
    payloads.iter().map(|p| &p.payload[..]).collect()
}

fn framed(units: &[&[u8]]) -> Vec<u8> {
    units.iter().flat_map(|unit| [&(unit.len() as u32).to_be_bytes(), *unit].concat()).collect()
}

/// A unit with a header and a body that tells places apart.
fn unit(header: &[u8], length: usize) -> Vec<u8> {
    let body = (0..length - header.len()).map(|i| (i % 251) as u8 + 1);
    header.iter().copied().chain(body).collect()
}

#[test]
fn h264_frames_come_back() {
    let (idr, slice, big) = (unit(&[0x65], 5000), unit(&[0x41], 80), unit(&[0x41], 3000));
    let (aud, sei, filler, end) = (&[9, 0xf0][..], &[6, 5, 1, 7, 0x80][..], &[12, 0xff][..], &[10][..]);
    let cases: [Case<'_>; 9] = [
        ("parameter sets from the record", true, vec![&idr], vec![SPS, PPS, &idr]),
        ("those of the frame win", true, vec![aud, OTHER_SPS, sei, &idr], vec![OTHER_SPS, PPS, &idr]),
        ("behind the picture too", true, vec![&idr, PPS, SPS], vec![SPS, PPS, &idr]),
        ("a keyframe without IDR", true, vec![&slice], vec![SPS, PPS, &slice]),
        ("an IDR that was not said to be one", false, vec![&idr], vec![SPS, PPS, &idr]),
        ("several slices", false, vec![aud, &slice, &big, &slice], vec![&slice, &big, &slice]),
        ("what decoders do without", false, vec![aud, sei, filler, &slice, end], vec![&slice]),
        ("a PPS between keyframes", false, vec![PPS, &slice], vec![PPS, &slice]),
        ("numbers that RTP uses itself", false, vec![&[24, 1], &[0, 1], &[28, 1], &slice, &[31, 1]], vec![&slice]),
    ];
    let config = config(Codec::H264);
    for (what, is_keyframe, units, expected) in cases {
        let payloads = cut(&mut packetizer(Codec::H264), &frame(&config, is_keyframe, framed(&units))).unwrap();
        assert_eq!(depacketize::h264(&slices(&payloads)), expected, "{what}");
        assert_eq!(payloads[0].opens_keyframe, is_keyframe || units.contains(&&idr[..]), "{what}");
    }
    // STAP-A first, then the picture.
    let payloads = cut(&mut packetizer(Codec::H264), &frame(&config, true, framed(&[&idr]))).unwrap();
    assert_eq!(payloads[0].payload[..], [&[0x78, 0, 6], SPS, &[0, 4], PPS].concat());
    let lengths: Vec<usize> = payloads[1..].iter().map(|p| p.payload.len()).collect();
    assert_eq!(lengths, [1002, 1002, 1002, 1002, 1001]);
}

#[test]
fn sei_is_kept_on_request() {
    let options = PacketizerOptions { keep_sei: true, ..PacketizerOptions::default() };
    let (sei, slice) = (&[6, 5, 1, 7, 0x80][..], unit(&[0x41], 80));
    let mut packetizer = Packetizer::new(Codec::H264, options).unwrap();
    let payloads = cut(&mut packetizer, &frame(&config(Codec::H264), false, framed(&[sei, &slice]))).unwrap();
    assert_eq!(depacketize::h264(&slices(&payloads)), [sei, &slice]);
}

#[test]
fn h265_frames_come_back() {
    let (idr, slice, big) = (unit(&[0x26, 1], 5000), unit(&[2, 1], 80), unit(&[3, 0x0a], 3000));
    let (aud, sei, end) = (&[70, 1, 0x50][..], &[78, 1, 5, 0x80][..], &[72, 1][..]);
    let sets = [VPS_265, SPS_265, PPS_265];
    let with_sets = |rest: &[&'static [u8]]| [&sets[..], rest].concat();
    let idr: &'static [u8] = Box::leak(idr.into_boxed_slice());
    let cases: [Case<'_>; 4] = [
        ("parameter sets from the record", true, vec![aud, idr], with_sets(&[idr])),
        ("those of the frame win", true, vec![VPS_265, SPS_265, PPS_265, sei, idr, end], with_sets(&[idr])),
        ("several slices", false, vec![aud, &slice, &big, &slice], vec![&slice, &big, &slice]),
        ("numbers that RTP uses itself", false, vec![&[96, 1, 2], &[98, 1, 2], &slice, &[7]], vec![&slice]),
    ];
    let config = config(Codec::H265);
    for (what, is_keyframe, units, expected) in cases {
        let payloads = cut(&mut packetizer(Codec::H265), &frame(&config, is_keyframe, framed(&units))).unwrap();
        assert_eq!(depacketize::h265(&slices(&payloads)), expected, "{what}");
        assert_eq!(payloads[0].opens_keyframe, is_keyframe, "{what}");
    }
    let payloads = cut(&mut packetizer(Codec::H265), &frame(&config, true, framed(&[idr]))).unwrap();
    assert_eq!(payloads[0].payload[..2], [0x60, 1]);
}

#[test]
fn av1_temporal_units_come_back() {
    let sized = |header: u8, length: usize| {
        let mut data = vec![header | 2];
        let mut size = length;
        while size >= 0x80 {
            data.push(size as u8 | 0x80);
            size >>= 7;
        }
        data.push(size as u8);
        data.extend((0..length).map(|i| i as u8));
        data
    };
    let element = |header: u8, length: usize| -> Vec<u8> {
        std::iter::once(header).chain((0..length).map(|i| i as u8)).collect()
    };
    let sequence = vec![8, 0, 0, 5];
    let config = config(Codec::Av1);
    let (delimiter, padding, tiles) = (vec![0x12, 0], sized(0x78, 50), sized(0x40, 50));
    let many: Vec<Vec<u8>> = (1..40).map(|i| element(0x20, i * 37)).collect();
    let cases = [
        ("sequence header from the record", true, sized(0x30, 5000), vec![sequence.clone(), element(0x30, 5000)]),
        ("that of the frame", true, [SEQUENCE, &sized(0x30, 9)].concat(), vec![sequence, element(0x30, 9)]),
        ("in between", false, [&delimiter[..], &sized(0x30, 2500)].concat(), vec![element(0x30, 2500)]),
        ("what decoders do without", false, [padding, sized(0x30, 9), tiles].concat(), vec![element(0x30, 9)]),
        ("many units", false, (1..40).flat_map(|i| sized(0x20, i * 37)).collect(), many),
        ("an empty one, and no size", false, vec![0x32, 0, 0x34, 8, 1, 2], vec![vec![0x30], vec![0x34, 8, 1, 2]]),
    ];
    for (what, is_keyframe, data, expected) in cases {
        let payloads = cut(&mut packetizer(Codec::Av1), &frame(&config, is_keyframe, data)).unwrap();
        assert_eq!(depacketize::av1(&slices(&payloads)), expected, "{what}");
        assert_eq!(payloads[0].opens_keyframe, is_keyframe, "{what}");
        assert_eq!(payloads.iter().filter(|p| opens_keyframe(Codec::Av1, &p.payload)).count(), is_keyframe.into());
    }
}

#[test]
fn pieces_are_equal_and_no_more_than_needed() {
    let mut random = Random::new(5);
    for _ in 0..2000 {
        let max = MIN_MAX_PAYLOAD_BYTES + random.below(1200);
        let length = 10 + random.below(20 * max);
        for (codec, header, prefix) in [(Codec::H264, &[0x41][..], 1), (Codec::H265, &[2, 1], 1), (Codec::Av1, &[], 1)]
        {
            let options = PacketizerOptions { max_payload_bytes: max, ..PacketizerOptions::default() };
            let data = match codec {
                Codec::Av1 => unit(&[0x30], length),
                _ => framed(&[&unit(header, length)]),
            };
            let mut packetizer = Packetizer::new(codec, options).unwrap();
            let payloads = cut(&mut packetizer, &frame(&config(codec), false, data)).unwrap();
            let lengths: Vec<usize> = payloads.iter().map(|p| p.payload.len()).collect();
            let (last, others) = lengths.split_last().unwrap();
            let first = lengths[0];
            assert!(others.iter().all(|l| *l == first) && *last <= first, "{codec} {lengths:?}");
            // Rounding up costs the last piece less than a byte for each other one.
            assert!(first - last < lengths.len(), "{codec} {lengths:?}");
            let overhead = header.len() + prefix;
            let body = if codec == Codec::Av1 { length } else { length - header.len() };
            if lengths.len() > 1 {
                assert_eq!(lengths.len(), body.div_ceil(max - overhead), "{codec} {length} in {max}: {lengths:?}");
            }
        }
    }
}

#[test]
fn both_framings_and_short_lengths_are_cut() {
    let slice = unit(&[0x41], 80);
    let annex_b = [&[0, 0, 0, 1, 9, 0xf0, 0, 0, 1], &slice[..]].concat();
    let mut two = record(Codec::H264);
    two[4] = 0xfd;
    let two = Arc::new(TrackConfig { codec: Codec::H264, record: two.into() });
    let none = Arc::new(TrackConfig { codec: Codec::H264, record: Bytes::new() });
    let short = [&[0, 80], &slice[..]].concat();
    let mut packetizer = packetizer(Codec::H264);
    for frame in
        [frame(&none, false, annex_b.clone()), frame(&config(Codec::H264), false, annex_b), frame(&two, false, short)]
    {
        assert_eq!(cut(&mut packetizer, &frame).unwrap()[0].payload[..], slice);
    }
    let idr = framed(&[&[0x65, 0x88]]);
    let payloads = cut(&mut packetizer, &frame(&none, true, idr)).unwrap();
    assert_eq!((slices(&payloads), payloads[0].opens_keyframe), (vec![&[0x65, 0x88][..]], true));
    // Nothing that a viewer could start with.
    let payloads = cut(&mut packetizer, &frame(&none, true, framed(&[&slice]))).unwrap();
    assert!(!payloads[0].opens_keyframe);
}

#[test]
fn sound_goes_as_it_is() {
    let config = config(Codec::Opus);
    let mut packetizer = packetizer(Codec::Opus);
    let payloads = cut(&mut packetizer, &frame(&config, true, vec![0xfc, 1, 2])).unwrap();
    assert_eq!(slices(&payloads), [[0xfc, 1, 2]]);
    assert_eq!(cut(&mut packetizer, &frame(&config, true, vec![])), Ok(vec![]));
    assert_eq!(
        cut(&mut packetizer, &frame(&config, true, vec![0; 1401])),
        Err(PacketizeError::TooLarge { bytes: 1401 })
    );
}

#[test]
fn what_cannot_be_sent_says_why() {
    for codec in [Codec::Vp8, Codec::Vp9, Codec::Red, Codec::Aac, Codec::Mp3] {
        let refused = Packetizer::new(codec, PacketizerOptions::default()).err();
        assert_eq!(refused, Some(PacketizeError::Unsupported(codec)));
    }
    let bad = |codec, record: &'static [u8]| Arc::new(TrackConfig { codec, record: Bytes::from_static(record) });
    let tiny = framed(&vec![&[0x41][..]; MAX_PAYLOADS + 1]);
    for (config, data, error) in [
        (config(Codec::H264), vec![0, 0, 0, 9, 1], PacketizeError::Malformed(Codec::H264)),
        (config(Codec::H265), vec![0, 0, 0, 9, 1], PacketizeError::Malformed(Codec::H265)),
        (config(Codec::Av1), vec![0x32, 9, 1], PacketizeError::Malformed(Codec::Av1)),
        (
            bad(Codec::H264, &[1, 2]),
            vec![],
            PacketizeError::H264Record(H264Error::Truncated("the configuration record")),
        ),
        (
            bad(Codec::H265, &[1, 2]),
            vec![],
            PacketizeError::H265Record(H265Error::Truncated("the configuration record")),
        ),
        (config(Codec::H264), tiny, PacketizeError::TooManyPackets),
        (config(Codec::Av1), [0x32, 0].repeat(MAX_PAYLOADS + 1), PacketizeError::TooManyPackets),
    ] {
        assert_eq!(cut(&mut packetizer(config.codec), &frame(&config, true, data)), Err(error));
    }
    let wrong = frame(&config(Codec::H265), true, vec![]);
    assert_eq!(cut(&mut packetizer(Codec::H264), &wrong), Err(PacketizeError::OtherCodec(Codec::H265)));
    // Nothing to decode is no error, and a broken end does not take the rest along.
    let nothing = frame(&config(Codec::H264), true, framed(&[&[9, 0xf0]]));
    assert_eq!(cut(&mut packetizer(Codec::H264), &nothing), Ok(vec![]));
    let broken = frame(&config(Codec::H264), false, [&framed(&[&[0x41, 2]])[..], &[0, 0, 9]].concat());
    assert_eq!(slices(&cut(&mut packetizer(Codec::H264), &broken).unwrap()), [[0x41, 2]]);
}

#[test]
fn mutants_are_survived() {
    let mut random = Random::new(11);
    let idr = framed(&[&[9, 0xf0], SPS, PPS, &unit(&[0x65], 1500), &unit(&[0x65], 30)]);
    let irap = framed(&[VPS_265, SPS_265, PPS_265, &unit(&[0x26, 1], 1500), &unit(&[0x26, 1], 30)]);
    let temporal = [SEQUENCE, &[0x32, 40], &[7; 40], &[0x30], &[5; 1500]].concat();
    for round in 0..20_000 {
        let (codec, data) = [(Codec::H264, &idr), (Codec::H265, &irap), (Codec::Av1, &temporal)][round % 3];
        let (mut data, mut record) = (data.clone(), record(codec));
        random.mutate(&mut data);
        if round % 5 == 0 {
            random.mutate(&mut record);
        }
        let config = Arc::new(TrackConfig { codec, record: record.into() });
        let options = PacketizerOptions { max_payload_bytes: random.below(1200), keep_sei: round % 2 == 0 };
        let mut packetizer = Packetizer::new(codec, options).unwrap();
        let Ok(payloads) = cut(&mut packetizer, &frame(&config, round % 4 > 0, data)) else { continue };
        match codec {
            Codec::H264 => depacketize::h264(&slices(&payloads)),
            Codec::H265 => depacketize::h265(&slices(&payloads)),
            _ => depacketize::av1(&slices(&payloads)),
        };
    }
}

#[test]
fn rtp_times_wrap() {
    assert_eq!(rtp_timestamp(MediaTime::from_millis(40), 90_000, 100), 3700);
    assert_eq!(rtp_timestamp(MediaTime::from_millis(-1), 48_000, 0), u32::MAX - 47);
    for ticks in [0, 1, 3003, 1 << 32, 12_345_678_901] {
        assert_eq!(rtp_timestamp(MediaTime::from_ticks(ticks, 90_000), 90_000, 5), ticks as u32 + 5);
    }
}

#[test]
fn a_real_keyframe_is_cut() {
    // x264's record, as in the tests of the H.264 module.
    let record = hex("014d400dffe10019674d400dd901419f9f0110000003001000000303c0f142a48001000568ebc3cb20");
    let config = Arc::new(TrackConfig { codec: Codec::H264, record: record.into() });
    let payloads = cut(&mut packetizer(Codec::H264), &frame(&config, true, framed(&[&[0x65, 0x88]]))).unwrap();
    let units = depacketize::h264(&slices(&payloads));
    assert_eq!(units.iter().map(|u| u[0]).collect::<Vec<_>>(), [0x67, 0x68, 0x65]);
}
