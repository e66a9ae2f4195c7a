use super::*;
use crate::packetize::{Packetizer, PacketizerOptions, RtpPayload};
use crate::testing::{Random, hex};
use crate::{Frame, MediaTime};

/// x264's parameter sets (320×180), and others.
const RECORD: &str = "014d400dffe10019674d400dd901419f9f0110000003001000000303c0f142a48001000568ebc3cb20";
const OTHER_RECORD: &str = "0142c01effe1000567 42c01e01 010003 680203";
/// What it is about, the payloads, the picture's data.
type Case<'a> = (&'static str, Vec<Vec<u8>>, &'a [u8]);

const IDR: u8 = 0x65;
const SLICE: u8 = 0x41;

fn config(codec: Codec) -> Arc<TrackConfig> {
    let hevc = include_str!("../../tests/data/hvcc.hex").lines().next().unwrap();
    let av1 = include_str!("../../tests/data/av1c.hex").lines().next().unwrap();
    let record = match codec {
        Codec::H264 => hex(RECORD),
        Codec::H265 => hex(hevc),
        _ => hex(av1),
    };
    Arc::new(TrackConfig { codec, record: record.into() })
}

/// A unit whose body begins as the first slice of a picture.
fn unit(header: &[u8], length: usize, seed: u64) -> Vec<u8> {
    let mut body = Random::new(seed).bytes(length - header.len());
    body.insert(0, 0x88);
    body.pop();
    [header, &body].concat()
}

fn framed(units: &[&[u8]]) -> Vec<u8> {
    let mut data = Vec::new();
    units.iter().for_each(|unit| nal::append_unit(&mut data, unit));
    data
}

/// A frame of the codec in the form that [`Frame`] wants.
fn frame(config: &Arc<TrackConfig>, is_keyframe: bool, length: usize, seed: u64) -> Frame {
    let length = length.max(8);
    let data = match (config.codec, is_keyframe) {
        (Codec::H264, true) => framed(&[&unit(&[IDR], length, seed), &unit(&[IDR], 50, seed)]),
        (Codec::H264, false) => framed(&[&unit(&[SLICE], length, seed)]),
        (Codec::H265, true) => framed(&[&unit(&[0x26, 1], length, seed)]),
        (Codec::H265, false) => framed(&[&unit(&[2, 1], length, seed), &unit(&[2, 1], 50, seed)]),
        (_, is_keyframe) => {
            let mut payload = Random::new(seed).bytes(length);
            payload[0] = if is_keyframe { 0x10 } else { 0x30 };
            let sequence = if is_keyframe { &config.record[4..] } else { &[] };
            let mut data = sequence.to_vec();
            av1::append_unit(&mut data, &crate::av1::obus(&[&[0x30][..], &payload].concat()).next().unwrap());
            data
        }
    };
    let at = MediaTime::default();
    Frame { config: Arc::clone(config), dts: at, pts: at, is_keyframe, data: data.into() }
}

/// Feeds packets of one picture.
fn feed(depacketizer: &mut Depacketizer, timestamp: u32, packets: &[RtpPayload]) -> Vec<Picture> {
    let mut out = Vec::new();
    for packet in packets {
        let piece = Piece { timestamp, marker: packet.marker, payload: &packet.payload };
        depacketizer.push(piece, &mut out).unwrap();
    }
    out
}

fn cut(packetizer: &mut Packetizer, frame: &Frame) -> Vec<RtpPayload> {
    let mut packets = Vec::new();
    packetizer.packetize(frame, &mut packets).unwrap();
    packets
}

/// Packets as somebody else cuts them; the last one has the marker.
fn packets(payloads: &[&[u8]]) -> Vec<RtpPayload> {
    let last = payloads.len() - 1;
    let packet = |(i, payload): (usize, &&[u8])| RtpPayload {
        payload: (*payload).into(),
        marker: i == last,
        opens_keyframe: false,
    };
    payloads.iter().enumerate().map(packet).collect()
}

#[test]
fn what_was_packetized_comes_back_bit_by_bit() {
    for codec in [Codec::H264, Codec::H265, Codec::Av1] {
        for max_payload_bytes in [32, 200, 1140] {
            let config = config(codec);
            let options = PacketizerOptions { max_payload_bytes, keep_sei: true };
            let mut packetizer = Packetizer::new(codec, options).unwrap();
            let mut depacketizer = Depacketizer::new(codec).unwrap();
            let mut configs = Vec::new();
            for i in 0..60_u32 {
                let frame = frame(&config, i % 20 == 0, [9, 300, 5000, 70_000][i as usize % 4], i.into());
                let pictures = feed(&mut depacketizer, i * 3000, &cut(&mut packetizer, &frame));
                let [picture] = &pictures[..] else { panic!("{codec} {i}: {} pictures", pictures.len()) };
                assert_eq!((picture.timestamp, picture.is_keyframe), (i * 3000, frame.is_keyframe), "{codec} {i}");
                assert_eq!(picture.data, frame.data, "{codec} {i}, {max_payload_bytes}");
                assert_eq!(picture.config.record, config.record, "{codec}");
                configs.push(Arc::clone(&picture.config));
            }
            assert!(configs.iter().all(|config| Arc::ptr_eq(config, &configs[0])), "{codec}");
        }
    }
}

#[test]
fn other_senders_forms_are_read() {
    let record = crate::h264::AvcConfig::parse(&hex(RECORD)).unwrap();
    let (sps, pps) = (&record.sps[0][..], &record.pps[0][..]);
    let (idr, aud, sei, filler) = (unit(&[IDR], 40, 1), [9, 0xf0], [6, 5, 1, 7, 0x80], [12, 0xff]);
    let aggregate = |units: &[&[u8]]| {
        let mut payload = vec![0x78];
        for unit in units {
            payload.extend((unit.len() as u16).to_be_bytes());
            payload.extend_from_slice(unit);
        }
        payload
    };
    let whole = framed(&[&idr]);
    let with_sei = framed(&[&sei, &idr]);
    let cases: [Case<'_>; 6] = [
        ("OBS: each unit on its own", vec![sps.into(), pps.into(), idr.clone()], &whole),
        ("a delimiter first", vec![aud.into(), sps.into(), pps.into(), sei.into(), idr.clone()], &with_sei),
        ("all in one", vec![aggregate(&[&aud, sps, pps, &sei, &idr])], &with_sei),
        ("empty units and payloads", vec![vec![], aggregate(&[sps, &[], pps]), vec![], idr.clone(), vec![]], &whole),
        ("filler, sets behind the picture", vec![idr.clone(), filler.into(), sps.into(), pps.into()], &whole),
        (
            "fragments",
            vec![
                aggregate(&[sps, pps]),
                [&[0x7c, 0x85], &idr[1..9]].concat(),
                [&[0x7c, 0x05], &idr[9..20]].concat(),
                vec![],
                [&[0x7c, 0x45], &idr[20..]].concat(),
            ],
            &whole,
        ),
    ];
    for (what, payloads, expected) in cases {
        let payloads: Vec<&[u8]> = payloads.iter().map(Vec::as_slice).collect();
        let pictures = feed(&mut Depacketizer::new(Codec::H264).unwrap(), 7, &packets(&payloads));
        let [picture] = &pictures[..] else { panic!("{what}: {} pictures", pictures.len()) };
        assert_eq!((&picture.data[..], picture.is_keyframe), (expected, true), "{what}");
        assert_eq!(picture.config.record, hex(RECORD), "{what}");
    }
}

#[test]
fn parameter_sets_may_be_pictures_of_their_own() {
    let record = crate::h264::AvcConfig::parse(&hex(RECORD)).unwrap();
    let mut depacketizer = Depacketizer::new(Codec::H264).unwrap();
    for set in [&record.sps[0], &record.pps[0]] {
        assert!(feed(&mut depacketizer, 1, &packets(&[set])).is_empty());
    }
    assert_eq!(feed(&mut depacketizer, 2, &packets(&[&unit(&[IDR], 40, 1)])).len(), 1);
    // Between keyframes they stay in the data unless they are known, and say nothing of the configuration.
    let (slice, other) = (unit(&[SLICE], 40, 2), [0x68, 0x92]);
    let pictures = feed(&mut depacketizer, 3, &packets(&[&record.pps[0], &other, &slice]));
    assert_eq!((&pictures[0].data[..], pictures[0].is_keyframe), (&framed(&[&other, &slice])[..], false));
    assert_eq!(pictures[0].config.record, hex(RECORD));
}

#[test]
fn a_picture_without_marker_ends_with_the_next() {
    let config = config(Codec::H264);
    let mut packetizer = Packetizer::new(Codec::H264, PacketizerOptions::default()).unwrap();
    let mut depacketizer = Depacketizer::new(Codec::H264).unwrap();
    let mut out = Vec::new();
    for i in 0..3 {
        for packet in cut(&mut packetizer, &frame(&config, i == 0, 3000, i)) {
            let piece = Piece { timestamp: i as u32, marker: false, payload: &packet.payload };
            depacketizer.push(piece, &mut out).unwrap();
        }
        assert_eq!(out.len(), i as usize);
    }
}

#[test]
fn markers_on_each_slice_are_seen_through() {
    let record = crate::h264::AvcConfig::parse(&hex(RECORD)).unwrap();
    let second = [SLICE, 0x28, 7];
    let mut depacketizer = Depacketizer::new(Codec::H264).unwrap();
    let mut pictures = Vec::new();
    for i in 0..10 {
        let first = unit(&[if i % 4 == 0 { IDR } else { SLICE }], 40, i);
        for payload in
            [&record.sps[0][..], &record.pps[0], &first, &second].into_iter().skip(if i % 4 == 0 { 0 } else { 2 })
        {
            let _ = depacketizer.push(Piece { timestamp: i as u32, marker: true, payload }, &mut pictures);
        }
    }
    // The first one is torn; from the next keyframe on all are whole.
    let found: Vec<_> = pictures[1..].iter().map(|picture| picture.timestamp).collect();
    assert_eq!(found, [4, 5, 6, 7, 8]);
    assert!(pictures[1..].iter().all(|picture| picture.data.ends_with(&second)));
}

#[test]
fn after_a_loss_only_a_keyframe_helps() {
    for codec in [Codec::H264, Codec::H265, Codec::Av1] {
        let config = config(codec);
        for lost_packet in 0..12 {
            let mut packetizer = Packetizer::new(codec, PacketizerOptions::default()).unwrap();
            let mut depacketizer = Depacketizer::new(codec).unwrap();
            let (mut at, mut found) = (0, Vec::new());
            for i in 0..9_u32 {
                let frame = frame(&config, i % 3 == 0, 2500, i.into());
                for packet in cut(&mut packetizer, &frame) {
                    at += 1;
                    // The count begins with the second picture, and reaches into the second keyframe.
                    if at == lost_packet + 6 {
                        depacketizer.lost();
                        continue;
                    }
                    let piece = Piece { timestamp: i, marker: packet.marker, payload: &packet.payload };
                    let before = found.len();
                    let _ = depacketizer.push(piece, &mut found);
                    assert!(found[before..].iter().all(|picture| picture.data == frame.data || picture.timestamp < i));
                }
            }
            let found: Vec<_> = found.iter().map(|picture| picture.timestamp).collect();
            // What stands before the loss is without holes, and so is what follows from a keyframe on.
            let (before, resumed) = found.iter().enumerate().find(|(i, timestamp)| *i as u32 != **timestamp).unwrap();
            let expected: Vec<u32> = (*resumed..9).collect();
            assert!(before >= 1 && resumed % 3 == 0, "{codec}, {lost_packet}: {found:?}");
            assert_eq!(found[before..], expected, "{codec}, {lost_packet}");
            assert!(!depacketizer.awaits_keyframe());
        }
    }
}

#[test]
fn a_keyframe_right_after_a_loss_is_taken_if_it_is_whole() {
    let config = config(Codec::H264);
    let mut packetizer = Packetizer::new(Codec::H264, PacketizerOptions::default()).unwrap();
    let keyframe = cut(&mut packetizer, &frame(&config, true, 2500, 1));
    // How many of its packets are missing: none, the parameter sets, the first fragment.
    for (missing, is_taken) in [(0, true), (1, false), (2, false)] {
        let mut depacketizer = Depacketizer::new(Codec::H264).unwrap();
        assert_eq!(feed(&mut depacketizer, 1, &keyframe).len(), 1);
        depacketizer.lost();
        let mut out = Vec::new();
        for packet in &keyframe[missing..] {
            let piece = Piece { timestamp: 2, marker: packet.marker, payload: &packet.payload };
            let _ = depacketizer.push(piece, &mut out);
        }
        assert_eq!((out.len() == 1, !depacketizer.awaits_keyframe()), (is_taken, is_taken), "{missing}");
    }
}

#[test]
fn another_resolution_is_another_configuration() {
    let other = hex(&OTHER_RECORD.replace(' ', ""));
    let configs = [config(Codec::H264), Arc::new(TrackConfig { codec: Codec::H264, record: other.clone().into() })];
    let mut packetizer = Packetizer::new(Codec::H264, PacketizerOptions::default()).unwrap();
    let mut depacketizer = Depacketizer::new(Codec::H264).unwrap();
    let mut found = Vec::new();
    for i in 0..8_u32 {
        let frame = frame(&configs[i as usize / 4], i % 2 == 0, 100, 1);
        found.extend(feed(&mut depacketizer, i, &cut(&mut packetizer, &frame)));
    }
    let changes: Vec<bool> = found.windows(2).map(|pair| !Arc::ptr_eq(&pair[0].config, &pair[1].config)).collect();
    assert_eq!(changes, [false, false, false, true, false, false, false]);
    assert_eq!((&found[3].config.record[..], &found[4].config.record[..]), (&hex(RECORD)[..], &other[..]));
}

#[test]
fn the_size_is_that_of_the_set_in_use() {
    // Two SPS with the numbers 0 and 1, a PPS for each, and a slice that uses the second.
    let sets: [&[u8]; 4] =
        [&[0x67, 66, 0, 30, 0x80], &[0x67, 77, 0, 31, 0x40], &[0x68, 0b1100_0000], &[0x68, 0b0100_1010]];
    // Macroblock 0, type 7, set 1.
    let idr = [IDR, 0b1000_1000, 0b0100_0000, 1];
    let payloads: Vec<&[u8]> = sets.into_iter().chain([&idr[..]]).collect();
    let pictures = feed(&mut Depacketizer::new(Codec::H264).unwrap(), 0, &packets(&payloads));
    let record = crate::h264::AvcConfig::parse(&pictures[0].config.record).unwrap();
    assert_eq!((record.profile, record.sps.len(), record.pps.len()), (77, 2, 2));
}

#[test]
fn broken_pictures_are_told_and_survived() {
    let cases: [(Codec, &[&[u8]], DepacketizeError); 12] = [
        (Codec::H264, &[&[0x78, 0, 9, 1]], DepacketizeError::Truncated("an aggregate of units")),
        (Codec::H264, &[&[0x7c]], DepacketizeError::Truncated("a fragment's header")),
        (Codec::H264, &[&[0x7c, 0x05, 1]], DepacketizeError::Interrupted),
        (Codec::H264, &[&[0x7c, 0x85, 0x88], &[SLICE, 0x88]], DepacketizeError::Interrupted),
        (Codec::H264, &[&[0x79, 1, 2]], DepacketizeError::PayloadType(25)),
        (Codec::H264, &[&[IDR, 0x88, 1]], DepacketizeError::NoParameters),
        (Codec::H264, &[&[SLICE, 0x28, 1]], DepacketizeError::NoStart),
        (Codec::H265, &[&[0x26]], DepacketizeError::Truncated("a unit's header")),
        (Codec::H265, &[&[0x26, 1, 0x80]], DepacketizeError::NoParameters),
        (Codec::Av1, &[&[0x10, 0x80]], DepacketizeError::Truncated("an OBU element")),
        (Codec::Vp8, &[&[0x80, 0x80]], DepacketizeError::Truncated("the VP8 descriptor")),
        (Codec::Vp9, &[&[0x80]], DepacketizeError::Truncated("the VP9 descriptor")),
    ];
    for (codec, payloads, expected) in cases {
        let mut depacketizer = Depacketizer::new(codec).unwrap();
        let mut out = Vec::new();
        let outcomes = packets(payloads).into_iter().map(|packet| {
            depacketizer.push(Piece { timestamp: 1, marker: packet.marker, payload: &packet.payload }, &mut out)
        });
        let error = outcomes.filter_map(Result::err).next();
        assert_eq!((error, out.len()), (Some(expected), 0), "{codec} {payloads:02x?}");
    }
    assert_eq!(Depacketizer::new(Codec::Opus).err(), Some(DepacketizeError::Unsupported(Codec::Opus)));
}

#[test]
fn a_picture_that_never_ends_is_bounded() {
    let mut depacketizer = Depacketizer::new(Codec::H264).unwrap();
    let payload = vec![0x41; 60_000];
    let mut errors = 0;
    for _ in 0..1000 {
        let piece = Piece { timestamp: 1, marker: false, payload: &payload };
        errors += i32::from(depacketizer.push(piece, &mut Vec::new()).is_err());
    }
    assert_eq!(errors, 1);
}

#[test]
fn av1_units_get_their_sizes_and_lose_what_nobody_needs() {
    let header = config(Codec::Av1).record.slice(4..);
    let sequence = [&[header[0] & !2], &header[2..]].concat();
    let length = sequence.len() as u8;
    // A delimiter and padding among them; no count, so each element has its length.
    let first = [&[0x48, 2, 0x12, 0, length][..], &sequence, &[2, 0x78, 0, 3, 0x30, 0x10, 9]].concat();
    let mut depacketizer = Depacketizer::new(Codec::Av1).unwrap();
    let payloads: [&[u8]; 2] = [&first, &[0x90, 8, 7]];
    let pictures = feed(&mut depacketizer, 0, &packets(&payloads));
    assert_eq!(pictures[0].data, [&header[..], &[0x32, 4, 0x10, 9, 8, 7]].concat());
    assert!(pictures[0].is_keyframe);
    let next = feed(&mut depacketizer, 1, &packets(&[&[0x10, 0x30, 0x30, 5]]));
    assert_eq!((&next[0].data[..], next[0].is_keyframe), (&[0x32, 2, 0x30, 5][..], false));
}

#[test]
fn av1_packets_of_countless_elements_are_read() {
    let config = config(Codec::Av1);
    let mut packetizer = Packetizer::new(Codec::Av1, PacketizerOptions::default()).unwrap();
    let mut depacketizer = Depacketizer::new(Codec::Av1).unwrap();
    feed(&mut depacketizer, 0, &cut(&mut packetizer, &frame(&config, true, 50, 1)));
    // Without a count each element has its length, and a byte would not hold their number.
    let payload = [&[0x00][..], &[2, 0x30, 0x30].repeat(600)].concat();
    let pictures = feed(&mut depacketizer, 1, &packets(&[&payload]));
    assert_eq!(pictures[0].data[..], [0x32, 1, 0x30].repeat(600));
}

#[test]
fn vp8_and_vp9_frames_come_back() {
    let key = [0x10, 0, 0, 0x9d, 1, 0x2a, 0x40, 1, 0xb4, 0, 7, 7];
    let mut vp8 = Depacketizer::new(Codec::Vp8).unwrap();
    let first = [&[0x90, 0xe0, 0x80, 1, 5, 0x20][..], &key[..9]].concat();
    let pictures = feed(&mut vp8, 0, &packets(&[&first, &[&[0x80, 0x80, 5][..], &key[9..]].concat()]));
    assert_eq!((&pictures[0].data[..], pictures[0].is_keyframe), (&key[..], true));
    assert_eq!(pictures[0].config.record[..], [0, 11, 0x82, 2, 2, 2, 0, 0]);
    let inter = feed(&mut vp8, 1, &packets(&[&[0x10, 0x31, 9]]));
    assert_eq!((&inter[0].data[..], inter[0].is_keyframe), (&[0x31, 9][..], false));
    // Another size, the same record.
    let mut larger = key;
    larger[6] = 0x42;
    let pictures = feed(&mut vp8, 2, &packets(&[&[&[0x10][..], &larger].concat()]));
    assert!(!Arc::ptr_eq(&pictures[0].config, &inter[0].config) && pictures[0].config == inter[0].config);

    // As libvpx begins a keyframe of 320×180.
    let key = [0x82, 0x49, 0x83, 0x42, 0x00, 0x13, 0xf0, 0x0b, 0x36, 0x00];
    let mut vp9 = Depacketizer::new(Codec::Vp9).unwrap();
    let with_structure = [0x8a, 0x85, 0x39, 0x18, 1, 64, 0, 180, 1, 0x04, 1];
    let pictures = feed(
        &mut vp9,
        0,
        &packets(&[&[&with_structure[..], &key[..4]].concat(), &[&[0x84, 5][..], &key[4..]].concat()]),
    );
    assert_eq!((&pictures[0].data[..], pictures[0].is_keyframe), (&key[..], true));
    // What ffmpeg writes behind version and flags of the box.
    assert_eq!(pictures[0].config.record[..], [0, 11, 0x82, 2, 2, 2, 0, 0]);
    // Two layers make a superframe.
    let layers = feed(&mut vp9, 1, &packets(&[&[0xec, 7, 0, 0, 0x86, 1], &[0xec, 7, 2, 0, 0x86, 2, 3]]));
    let index = [0xd9, 2, 0, 0, 0, 3, 0, 0, 0, 0xd9];
    assert_eq!(layers[0].data[..], [&[0x86, 1, 0x86, 2, 3][..], &index].concat());
    assert!(!layers[0].is_keyframe);
}

#[test]
fn mutants_are_survived() {
    let mut random = Random::new(13);
    for round in 0..6_000_u32 {
        let codec = [Codec::H264, Codec::H265, Codec::Av1, Codec::Vp8, Codec::Vp9][round as usize % 5];
        let mut depacketizer = Depacketizer::new(codec).unwrap();
        let mut out = Vec::new();
        for i in 0..3 {
            let payloads: Vec<Vec<u8>> = match codec {
                Codec::Vp8 | Codec::Vp9 => (0..3).map(|_| random.bytes(20)).collect(),
                _ => {
                    let mut packetizer = Packetizer::new(codec, PacketizerOptions::default()).unwrap();
                    cut(&mut packetizer, &frame(&config(codec), i != 1, 1500, round.into()))
                        .iter()
                        .map(|packet| packet.payload.to_vec())
                        .collect()
                }
            };
            for mut payload in payloads {
                if random.below(2) == 0 {
                    random.mutate(&mut payload);
                }
                if random.below(9) == 0 {
                    depacketizer.lost();
                }
                let piece = Piece { timestamp: i, marker: random.below(3) == 0, payload: &payload };
                let _ = depacketizer.push(piece, &mut out);
            }
        }
        assert!(out.iter().all(|picture| picture.data.len() < 8000 && !picture.data.is_empty()));
        assert!(out.first().is_none_or(|picture| picture.is_keyframe));
    }
}
