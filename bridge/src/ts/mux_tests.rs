use bytes::Bytes;
use freshet_media::MediaTime;

use super::packet::PACKET_BYTES;
use super::*;

const AVC: [u8; 19] = [1, 0x42, 0xc0, 0x1e, 0xff, 0xe1, 0, 5, 0x67, 0x42, 0xc0, 0x1e, 1, 1, 0, 3, 0x68, 2, 3];
/// AAC-LC, 48 kHz, two channels.
const AAC: [u8; 2] = [0x11, 0x90];

fn config(codec: Codec, record: &[u8]) -> Arc<TrackConfig> {
    Arc::new(TrackConfig { codec, record: Bytes::copy_from_slice(record) })
}

fn frame(config: &Arc<TrackConfig>, at: MediaTime, is_keyframe: bool, data: &[u8]) -> Frame {
    Frame { config: Arc::clone(config), dts: at, pts: at, is_keyframe, data: Bytes::copy_from_slice(data) }
}

/// A NAL unit of that type and length behind its length.
fn avc_unit(header: u8, bytes: usize) -> Vec<u8> {
    let mut unit = (bytes as u32).to_be_bytes().to_vec();
    unit.push(header);
    unit.extend((1..bytes).map(|i| i as u8 | 1));
    unit
}

/// A PES packet as a receiver puts it together.
#[derive(Debug, Default, Clone)]
struct Pes {
    pid: u16,
    pts: u64,
    dts: u64,
    is_entry: bool,
    payload: Vec<u8>,
}

/// A receiver: checks what every packet must obey.
#[derive(Debug, Default)]
struct Receiver {
    counters: std::collections::HashMap<u16, u8>,
    clocks: Vec<u64>,
    clock_pid: Option<u16>,
    streams: Vec<(u8, u16)>,
    version: u8,
    pes: Vec<Pes>,
}

fn bits33(field: &[u8]) -> u64 {
    let byte = |i: usize| u64::from(field[i]);
    assert!(field[0] & field[2] & field[4] & 1 == 1, "marker bits");
    (byte(0) >> 1 & 7) << 30 | byte(1) << 22 | (byte(2) >> 1) << 15 | byte(3) << 7 | byte(4) >> 1
}

impl Receiver {
    fn feed(&mut self, data: &[u8]) {
        assert_eq!(data.len() % PACKET_BYTES, 0);
        for packet in data.chunks(PACKET_BYTES) {
            self.packet(packet);
        }
    }

    fn packet(&mut self, packet: &[u8]) {
        assert_eq!(packet[0], 0x47);
        let pid = u16::from_be_bytes([packet[1] & 0x1f, packet[2]]);
        let (has_field, has_payload) = (packet[3] & 0x20 != 0, packet[3] & 0x10 != 0);
        let counter = packet[3] & 0x0f;
        if let Some(last) = self.counters.insert(pid, counter) {
            let expected = if has_payload { (last + 1) & 15 } else { last };
            assert_eq!(counter, expected, "continuity of {pid:#x}");
        }
        let mut rest = &packet[4..];
        let mut is_entry = false;
        if has_field {
            let (field, tail) = rest[1..].split_at(usize::from(rest[0]));
            rest = tail;
            if let [flags, field @ ..] = field {
                is_entry = flags & 0x40 != 0;
                if flags & 0x10 != 0 {
                    assert_eq!(Some(pid), self.clock_pid, "the clock's place");
                    let base = field[..6].iter().fold(0, |all, byte| all << 8 | u64::from(*byte));
                    self.clocks.push(base >> 15);
                }
            }
        }
        assert_eq!(has_payload, !rest.is_empty());
        if !has_payload {
            return;
        }
        let starts = packet[1] & 0x40 != 0;
        match pid {
            0 => assert_eq!(rest[1..14][8..], [0, 1, 0xf0, 0, 0x2a], "{rest:02x?}"),
            PMT_PID => self.pmt(&rest[1..]),
            _ if starts => self.start(pid, is_entry, rest),
            _ => {
                let pes = self.pes.iter_mut().rfind(|pes| pes.pid == pid).expect("a start before");
                pes.payload.extend_from_slice(rest);
            }
        }
    }

    fn pmt(&mut self, section: &[u8]) {
        let length = usize::from(section[1] & 0x0f) << 8 | usize::from(section[2]);
        let section = &section[..3 + length];
        assert_eq!(tables::crc32(section), 0, "the checksum over all and itself");
        self.version = section[5] >> 1 & 0x1f;
        self.clock_pid = Some(u16::from_be_bytes([section[8] & 0x1f, section[9]]));
        let mut rest = &section[12..section.len() - 4];
        self.streams.clear();
        while let [number, high, low, _, descriptors, ..] = *rest {
            self.streams.push((number, u16::from_be_bytes([high & 0x1f, low])));
            rest = &rest[5 + usize::from(descriptors)..];
        }
    }

    fn start(&mut self, pid: u16, is_entry: bool, rest: &[u8]) {
        assert_eq!(rest[..3], [0, 0, 1]);
        let header = 9 + usize::from(rest[8]);
        let pts = bits33(&rest[9..14]);
        let dts = if rest[7] >> 6 == 3 { bits33(&rest[14..19]) } else { pts };
        self.pes.push(Pes { pid, pts, dts, is_entry, payload: rest[header..].to_vec() });
    }

    fn of(&self, pid: u16) -> Vec<&Pes> {
        self.pes.iter().filter(|pes| pes.pid == pid).collect()
    }
}

fn muxer(audio: Option<&Arc<TrackConfig>>, video: Option<&Arc<TrackConfig>>) -> (TsMuxer, Vec<u8>) {
    let (mut muxer, mut out) = (TsMuxer::new(), Vec::new());
    muxer.set_tracks(audio, video).unwrap();
    muxer.write_tables(&mut out);
    (muxer, out)
}

#[test]
fn every_length_of_a_unit_comes_through() {
    let video = config(Codec::H264, &AVC);
    let (mut muxer, mut out) = muxer(None, Some(&video));
    let mut sent = Vec::new();
    for (i, bytes) in (1..=600).chain([65_000, 65_519, 65_520, 65_536, 300_000]).enumerate() {
        let at = MediaTime::from_millis(i as i64 * 40);
        let picture = Frame {
            pts: at + std::time::Duration::from_millis(80),
            ..frame(&video, at, false, &avc_unit(0x41, bytes))
        };
        muxer.write_frame(&picture, &mut out).unwrap();
        sent.push((at, [&[0, 0, 0, 1, 9, 0xf0, 0, 0, 0, 1][..], &picture.data[4..]].concat()));
    }
    let mut receiver = Receiver::default();
    receiver.feed(&out);
    let received = receiver.of(VIDEO_PID);
    assert_eq!(received.len(), sent.len());
    for (pes, (at, unit)) in received.into_iter().zip(sent) {
        assert!(pes.payload == unit, "{} bytes came as {}", unit.len(), pes.payload.len());
        let dts = (at.ticks(90_000) + TIME_OFFSET) as u64;
        assert_eq!((pes.dts, pes.pts, pes.is_entry), (dts, dts + 7200, false));
    }
}

#[test]
fn keyframes_bring_delimiter_and_parameter_sets_once() {
    let video = config(Codec::H264, &AVC);
    let own: Vec<u8> = [avc_unit(0x09, 2), avc_unit(0x67, 6), avc_unit(0x68, 3), avc_unit(0x65, 9)].concat();
    let cases = [
        (true, avc_unit(0x65, 9), vec![9, 7, 8, 5]),
        (true, own, vec![9, 7, 8, 5]),
        (true, [avc_unit(0x67, 6), avc_unit(0x65, 9)].concat(), vec![9, 7, 8, 7, 5]),
        (false, [avc_unit(0x06, 4), avc_unit(0x41, 9)].concat(), vec![9, 6, 1]),
    ];
    for (is_keyframe, data, kinds) in cases {
        let (mut muxer, mut out) = muxer(None, Some(&video));
        muxer.write_frame(&frame(&video, MediaTime::default(), is_keyframe, &data), &mut out).unwrap();
        let mut receiver = Receiver::default();
        receiver.feed(&out);
        let pes = receiver.of(VIDEO_PID)[0];
        assert_eq!(pes.is_entry, is_keyframe);
        let found: Vec<u8> = freshet_media::h264::units(&pes.payload, 4).map(freshet_media::h264::nal_type).collect();
        assert_eq!(found, kinds);
    }
}

#[test]
fn times_wrap_at_33_bits_and_never_jump() {
    let (audio, video) = (config(Codec::Aac, &AAC), config(Codec::H264, &AVC));
    let (mut muxer, mut out) = muxer(Some(&audio), Some(&video));
    // 26.5 hours less two seconds.
    let start = MediaTime::from_ticks((1 << 33) - 3 * CLOCK_HZ, 90_000);
    for i in 0..120u64 {
        let at = start + std::time::Duration::from_millis(i * 33);
        muxer.write_frame(&frame(&video, at, i % 30 == 0, &avc_unit(0x65, 50)), &mut out).unwrap();
        muxer.write_frame(&frame(&audio, at, true, &[7; 100]), &mut out).unwrap();
    }
    let mut receiver = Receiver::default();
    receiver.feed(&out);
    let step = |a: u64, b: u64| (b.wrapping_sub(a) & ((1 << 33) - 1)) as i64;
    for pid in [VIDEO_PID, AUDIO_PID] {
        let times: Vec<u64> = receiver.of(pid).iter().map(|pes| pes.dts).collect();
        assert!(times.windows(2).all(|w| (2969..=2971).contains(&step(w[0], w[1]))), "{times:?}");
        assert!(times.iter().any(|time| *time < 3000) && times.iter().any(|time| *time > 1 << 32));
    }
    assert!(receiver.clocks.windows(2).all(|w| (1..=CLOCK_HZ / 10).contains(&step(w[0], w[1]))));
    assert!(receiver.clocks.iter().zip(receiver.of(VIDEO_PID)).all(|(clock, pes)| step(*clock, pes.dts) == CLOCK_LEAD));
}

#[test]
fn the_clock_never_pauses_runs_back_or_overtakes() {
    // Pictures five times a second, late behind sound; then none for three seconds, then no sound either.
    let (audio, video) = (config(Codec::Aac, &AAC), config(Codec::H264, &AVC));
    let (mut muxer, mut out) = muxer(Some(&audio), Some(&video));
    let mut receiver = Receiver::default();
    for i in 0..400i64 {
        let at = i * 20;
        if i % 10 == 0 && at >= 200 && !(3_000..6_000).contains(&at) {
            let at = MediaTime::from_millis(at - 200);
            muxer.write_frame(&frame(&video, at, true, &avc_unit(0x65, 500)), &mut out).unwrap();
        }
        if at < 7_000 {
            muxer.write_frame(&frame(&audio, MediaTime::from_millis(at), true, &[7; 100]), &mut out).unwrap();
        }
        receiver.feed(&out);
        out.clear();
        let (clock, newest) = (receiver.clocks.last().copied(), receiver.pes.last().map(|pes| pes.dts));
        assert!(clock <= newest, "{clock:?} {newest:?}");
    }
    assert!(receiver.clocks.windows(2).all(|w| w[0] <= w[1] && w[1] - w[0] <= 9_000), "{:?}", receiver.clocks);
    assert!(receiver.clocks.len() > 70);
}

#[test]
fn tables_announce_what_is_there_and_counters_run_on() {
    let (audio, video) = (config(Codec::Aac, &AAC), config(Codec::H264, &AVC));
    let mp3 = config(Codec::Mp3, &[]);
    let mut muxer = TsMuxer::new();
    let mut receiver = Receiver::default();
    let mut versions = Vec::new();
    let cases: [(_, _, &[(u8, u16)], u16); 5] = [
        (Some(&audio), Some(&video), &[(0x1b, 0x100), (0x0f, 0x101)], 0x100),
        (Some(&audio), Some(&video), &[(0x1b, 0x100), (0x0f, 0x101)], 0x100),
        (Some(&audio), None, &[(0x0f, 0x101)], 0x101),
        (Some(&mp3), None, &[(0x03, 0x101)], 0x101),
        (None, Some(&video), &[(0x1b, 0x100)], 0x100),
    ];
    for (audio, video, streams, clock_pid) in cases {
        let mut out = Vec::new();
        muxer.set_tracks(audio, video).unwrap();
        muxer.write_tables(&mut out);
        for config in [audio, video].into_iter().flatten() {
            muxer.write_frame(&frame(config, MediaTime::default(), true, &avc_unit(0x65, 200)), &mut out).unwrap();
        }
        receiver.feed(&out);
        assert_eq!((&receiver.streams[..], receiver.clock_pid), (streams, Some(clock_pid)));
        versions.push(receiver.version);
    }
    assert_eq!(versions, [1, 1, 2, 3, 4]);
}

#[test]
fn aac_gets_its_header() {
    let audio = config(Codec::Aac, &AAC);
    let (mut muxer, mut out) = muxer(Some(&audio), None);
    muxer.write_frame(&frame(&audio, MediaTime::default(), true, &[0x21; 93]), &mut out).unwrap();
    let mut receiver = Receiver::default();
    receiver.feed(&out);
    let pes = receiver.of(AUDIO_PID)[0];
    assert_eq!(pes.payload[..7], [0xff, 0xf1, 0x4c, 0x80, 0x0c, 0x9f, 0xfc]);
    assert_eq!((pes.payload.len(), pes.is_entry, receiver.clocks.len()), (100, true, 1));
}

#[test]
fn what_cannot_be_carried_is_refused_and_leaves_nothing_behind() {
    let video = config(Codec::H264, &AVC);
    assert_eq!(check_track(&config(Codec::Vp9, &[])), Err(TsError::Codec(Codec::Vp9)));
    assert_eq!(check_track(&config(Codec::Opus, &[])), Err(TsError::Codec(Codec::Opus)));
    assert!(matches!(check_track(&config(Codec::H264, &[1, 2])), Err(TsError::Config { .. })));
    assert!(matches!(check_track(&config(Codec::Aac, &[])), Err(TsError::Config { .. })));
    let (mut muxer, mut out) = muxer(None, Some(&video));
    let before = out.clone();
    let broken: [(&Arc<TrackConfig>, Vec<u8>); 4] = [
        (&video, vec![]),
        (&video, vec![0, 0, 0, 9, 0x65]),
        (&video, [avc_unit(0x65, 4), vec![0xff, 0xff, 0xff, 0xff]].concat()),
        (&config(Codec::Aac, &AAC), vec![1]),
    ];
    for (config, data) in broken {
        assert!(muxer.write_frame(&frame(config, MediaTime::default(), true, &data), &mut out).is_err(), "{data:?}");
        assert_eq!(out, before);
    }
    let mut sound = TsMuxer::new();
    let (aac, mp3) = (config(Codec::Aac, &AAC), config(Codec::Mp3, &[]));
    for (config, most) in [(aac, 8184), (mp3, 65_522)] {
        sound.set_tracks(Some(&config), None).unwrap();
        let write = |sound: &mut TsMuxer, bytes| {
            sound.write_frame(&frame(&config, MediaTime::default(), true, &vec![1; bytes]), &mut Vec::new())
        };
        assert_eq!(write(&mut sound, most), Ok(()));
        assert_eq!(write(&mut sound, most + 1), Err(TsError::TooLarge(most + 1)));
    }
}

#[test]
fn any_times_and_bytes_are_survived() {
    let (audio, video) = (config(Codec::Aac, &AAC), config(Codec::H264, &AVC));
    let (mut muxer, mut out) = muxer(Some(&audio), Some(&video));
    let times = [i64::MIN, -1, 0, 1, 1 << 40, i64::MAX];
    for dts in times {
        for pts in times {
            let at = MediaTime::from_micros;
            let picture = Frame { dts: at(dts), pts: at(pts), ..frame(&video, at(0), true, &avc_unit(0x65, 30)) };
            let sound = Frame { dts: at(dts), pts: at(pts), ..frame(&audio, at(0), true, &[1; 30]) };
            muxer.write_frame(&picture, &mut out).unwrap();
            muxer.write_frame(&sound, &mut out).unwrap();
        }
    }
    assert!(out.len() < 10_000_000);
}
