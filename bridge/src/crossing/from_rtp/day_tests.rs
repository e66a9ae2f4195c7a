//! More than a day of a publisher, from RTP to the times that players read: 32 bits of RTP time wrap once on each track,
//! 33 bits of MPEG-TS wrap as well.

use bytes::Bytes;
use freshet_media::packetize::{Packetizer, PacketizerOptions};
use freshet_media::{GopLimits, MediaTime, TrackConfig};

use super::*;
use crate::fanout::{Fanout, Player, Wire};
use crate::flv::{FileItem, FileReader};
use crate::ts::TsMuxer;

const SOUND: usize = 0;
const PICTURE: usize = 1;
const HOURS: i64 = 27;
const DAY: Duration = Duration::from_secs(86_400);
const SECOND: i64 = 1_000_000;
/// Lips are seen to be wrong from about 45 ms on.
const LIPS_MICROS: i64 = 40_000;

/// x264's parameter sets.
const RECORD: [u8; 41] = [
    0x01, 0x4d, 0x40, 0x0d, 0xff, 0xe1, 0x00, 0x19, 0x67, 0x4d, 0x40, 0x0d, 0xd9, 0x01, 0x41, 0x9f, 0x9f, 0x01, 0x10,
    0x00, 0x00, 0x03, 0x00, 0x10, 0x00, 0x00, 0x03, 0x03, 0xc0, 0xf1, 0x42, 0xa4, 0x80, 0x01, 0x00, 0x05, 0x68, 0xeb,
    0xc3, 0xcb, 0x20,
];

/// The packets of a keyframe.
fn keyframe() -> Vec<Arc<[u8]>> {
    let config = Arc::new(TrackConfig { codec: Codec::H264, record: RECORD.to_vec().into() });
    let (at, data) = (MediaTime::default(), Bytes::from_static(&[0, 0, 0, 3, 0x65, 0x88, 0x84]));
    let frame = Frame { config, dts: at, pts: at, is_keyframe: true, data };
    let mut packets = Vec::new();
    let mut packetizer = Packetizer::new(Codec::H264, PacketizerOptions::default()).unwrap();
    packetizer.packetize(&frame, &mut packets).unwrap();
    packets.into_iter().map(|packet| packet.payload).collect()
}

/// A player of FLV that reads all there is: times by whether they are a picture's.
struct FlvPlayer {
    fanout: Fanout,
    player: Player,
    reader: FileReader,
}

impl FlvPlayer {
    fn new() -> FlvPlayer {
        let fanout = Fanout::new(GopLimits { max_bytes: 1 << 20, max_age: DAY, max_lag: DAY });
        let mut reader = FileReader::new();
        reader.push(&crate::flv::flv_header(true, true));
        FlvPlayer { player: fanout.join(Wire::Flv), fanout, reader }
    }

    fn take(&mut self, frame: Frame) -> Vec<(bool, i64)> {
        self.fanout.push(frame);
        let mut pieces = Vec::new();
        self.fanout.read(&mut self.player, usize::MAX, &mut pieces);
        pieces.iter().for_each(|piece| self.reader.push(piece));
        let mut times = Vec::new();
        while let Some(item) = self.reader.next_item().unwrap() {
            if let FileItem::Media(tag) = item {
                times.push((tag.kind == MediaKind::Video, i64::from(tag.timestamp_ms)));
            }
        }
        times
    }
}

/// Presentation times in an MPEG-TS stream of frames that fit into a packet or two, by whether they are a picture's.
fn ts_times(stream: &[u8]) -> Vec<(bool, i64)> {
    let start = |packet: &&[u8]| packet[1] & 0x40 != 0 && u16::from_be_bytes([packet[1] & 0x1f, packet[2]]) >= 0x100;
    let time = |packet: &[u8]| {
        let field = if packet[3] & 0x20 != 0 { 1 + usize::from(packet[4]) } else { 0 };
        let pes = &packet[4 + field..];
        if pes[..3] != [0, 0, 1] {
            return None;
        }
        let byte = |i: usize| i64::from(pes[9 + i]);
        let time = (byte(0) >> 1 & 7) << 30 | byte(1) << 22 | (byte(2) >> 1) << 15 | byte(3) << 7 | byte(4) >> 1;
        Some((pes[3] == 0xe0, time))
    };
    stream.chunks(188).filter(start).filter_map(time).collect()
}

/// Unwraps times of so many bits.
fn unwrapped(last: Option<i64>, time: i64, bits: u32) -> i64 {
    let Some(last) = last else { return time };
    let half = 1 << (bits - 1);
    let step = (time - last + half).rem_euclid(1 << bits) - half;
    last + step
}

/// A frame that a muxer of AAC takes in place of one of Opus: what matters here are its times.
fn as_aac(frame: Frame, config: &Arc<TrackConfig>) -> Frame {
    if frame.kind() == MediaKind::Audio { Frame { config: Arc::clone(config), ..frame } } else { frame }
}

/// A publisher whose microphone runs so much faster than its computer, in parts per million.
fn a_day(ppm: i64) {
    let start = Instant::now();
    let tracks = [RtpTrack { codec: Codec::Opus, clock_hz: 48_000 }, RtpTrack { codec: Codec::H264, clock_hz: 90_000 }];
    let mut crossing = RtpToFrames::new(&tracks, FromRtpOptions { sound: SoundOut::Opus, ..Default::default() });
    let aac = Arc::new(TrackConfig { codec: Codec::Aac, record: [0x11, 0x90].to_vec().into() });
    let (mut ts, mut flv, mut has_tables) = (TsMuxer::new(), FlvPlayer::new(), false);
    let keyframe = keyframe();
    let (mut seqs, mut last) = ([0_u64; 2], [None; 2]);
    let (mut ts_last, mut flv_last) = ([None; 2], [None; 2]);
    let mut wraps = [0; 2];
    let mut bytes = Vec::new();
    for second in 0..HOURS * 3600 {
        let (wall, now) = (second * SECOND, start + Duration::from_secs(second as u64));
        // Sample counts: a microphone that is fast has more of them.
        let heard = wall + wall / SECOND * ppm;
        let rtp = [
            (u32::MAX - 50_000).wrapping_add((i128::from(heard) * 48_000 / 1_000_000) as u32),
            (u32::MAX - 70_000).wrapping_add((i128::from(wall) * 90_000 / 1_000_000) as u32),
        ];
        let sound = std::iter::once((SOUND, Arc::from([0xfc, 1, 2]), true));
        let picture = keyframe.iter().enumerate().map(|(i, p)| (PICTURE, Arc::clone(p), i + 1 == keyframe.len()));
        for (track, payload, marker) in sound.chain(picture) {
            seqs[track] += 1;
            let (seq, timestamp) = (seqs[track], rtp[track]);
            crossing.push(now, RtpIn { track, seq, timestamp, marker, arrival: now, payload });
        }
        if second % 5 == 0 {
            (0..2).for_each(|track| crossing.set_clock(track, rtp[track], 1_700_000_000 * SECOND + wall));
        }
        crossing.handle_timeout(now + Duration::from_millis(100));
        let mut times = [None; 2];
        while let Some(frame) = crossing.poll_frame() {
            let frame = as_aac(frame, &aac);
            let kind = usize::from(frame.kind() == MediaKind::Video);
            let at = frame.dts.micros();
            assert!(last[kind].replace(at).is_none_or(|last| at > last), "track {kind} runs backwards at {second} s");
            times[kind] = Some(at);
            if kind == PICTURE && !has_tables {
                ts.set_tracks(Some(&aac), Some(&frame.config)).unwrap();
                ts.write_tables(&mut bytes);
                has_tables = true;
            }
            if has_tables {
                bytes.clear();
                ts.write_frame(&frame, &mut bytes).unwrap();
                for (is_picture, time) in ts_times(&bytes) {
                    let track = usize::from(is_picture);
                    let unwrapped = unwrapped(ts_last[track], time, 33);
                    wraps[track] += i32::from(ts_last[track].is_some_and(|last| (last ^ unwrapped) >> 33 != 0));
                    assert!(ts_last[track].replace(unwrapped).is_none_or(|last| unwrapped > last));
                }
            }
            for (is_picture, time) in flv.take(frame) {
                let last = flv_last[usize::from(is_picture)].replace(time);
                assert!(last.is_none_or(|last: i64| time >= last), "FLV at {second} s");
                // A configuration has the time of its frame.
                assert_eq!(time, at / 1000, "FLV at {second} s");
            }
        }
        // The clocks may need a minute to find together.
        if let (Some(sound), Some(picture), true) = (times[SOUND], times[PICTURE], second > 60) {
            assert!((sound - picture).abs() < LIPS_MICROS, "{} µs apart at {second} s", sound - picture);
        }
    }
    assert_eq!(wraps, [1, 1], "the times of MPEG-TS wrap once");
    // 27 hours by the microphone's clock, which is the timeline's.
    let expected = HOURS * 3600 * (SECOND + ppm);
    for (kind, last) in last.into_iter().enumerate() {
        let off = last.unwrap() - expected;
        assert!(off.abs() < 2 * SECOND, "track {kind} ends {off} µs off");
    }
    assert_eq!(crossing.stats().lost_packets, 0);
}

#[test]
fn a_day_and_more_with_a_clock_that_is_right() {
    a_day(0);
}

#[test]
fn a_day_and_more_with_a_microphone_that_is_fast() {
    a_day(100);
}

#[test]
fn a_day_and_more_with_a_microphone_that_is_slow() {
    a_day(-100);
}
