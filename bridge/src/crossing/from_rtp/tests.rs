//! Frames, packetised, over a network in virtual time and back.

use freshet_media::packetize::{Packetizer, PacketizerOptions};
use freshet_media::{MediaTime, Patience, TrackConfig};

use super::clock::START_MICROS;
use super::*;

/// Nothing waits at the start, so that each step shows its effect.
const AT_ONCE: FromRtpOptions =
    FromRtpOptions { sound: SoundOut::Opus, sound_jitter: UNSETTLED, picture_jitter: UNSETTLED };
const UNSETTLED: JitterBufferOptions =
    JitterBufferOptions { patience: Patience::fixed(Duration::from_millis(200)), settle: Duration::ZERO };

const SOUND: usize = 0;
const PICTURE: usize = 1;
/// x264's parameter sets, and those of another size.
const RECORD: [u8; 42] = [
    0x01, 0x4d, 0x40, 0x0d, 0xff, 0xe1, 0x00, 0x19, 0x67, 0x4d, 0x40, 0x0d, 0xd9, 0x01, 0x41, 0x9f, 0x9f, 0x01, 0x10,
    0x00, 0x00, 0x03, 0x00, 0x10, 0x00, 0x00, 0x03, 0x03, 0xc0, 0xf1, 0x42, 0xa4, 0x80, 0x01, 0x00, 0x05, 0x68, 0xeb,
    0xc3, 0xcb, 0x20, 0x00,
];
const OTHER_RECORD: [u8; 19] = [1, 66, 0xc0, 30, 0xff, 0xe1, 0, 5, 0x67, 66, 0xc0, 30, 1, 1, 0, 3, 0x68, 0xce, 3];

/// A seeded source of numbers (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }
}

/// A publisher: 30 pictures a second, sound in packets of 20 ms, both captured from time 0 on.
struct Publisher {
    config: Arc<TrackConfig>,
    packetizer: Packetizer,
    opus: opus::Encoder,
    random: Random,
    /// RTP times of the capture's beginning, sound and picture.
    bases: [u32; 2],
    seq: [u64; 2],
    pictures: u64,
    sounds: u64,
    wants_keyframe: bool,
    sent: Vec<Frame>,
}

impl Publisher {
    fn new(seed: u64) -> Publisher {
        Publisher {
            config: config(&RECORD[..41]),
            packetizer: Packetizer::new(Codec::H264, PacketizerOptions::default()).unwrap(),
            opus: opus::Encoder::new(48_000, opus::Channels::Stereo, opus::Application::Voip).unwrap(),
            random: Random(seed),
            // Soon to wrap, as are the sequence numbers' lower halves.
            bases: [u32::MAX - 20_000, u32::MAX - 100_000],
            seq: [65_500, 65_400],
            pictures: 0,
            sounds: 0,
            wants_keyframe: true,
            sent: Vec::new(),
        }
    }

    /// Captures what comes next. Its time in microseconds, and its packets.
    fn capture(&mut self) -> (u64, Vec<RtpIn>) {
        let (seen_at, heard_at) = (self.pictures * 100_000 / 3, self.sounds * 20_000);
        if heard_at <= seen_at { (heard_at, vec![self.sound()]) } else { (seen_at, self.picture()) }
    }

    fn sound(&mut self) -> RtpIn {
        let at = |sample: u64| ((self.sounds * 960 + sample) as f32 * 0.13).sin() * 0.3;
        let pcm: Vec<f32> = (0..960).flat_map(|sample| [at(sample); 2]).collect();
        let payload = self.opus.encode_vec_float(&pcm, 1500).unwrap().into();
        let timestamp = self.bases[SOUND].wrapping_add((self.sounds * 960) as u32);
        self.sounds += 1;
        self.packet(SOUND, timestamp, false, payload)
    }

    fn picture(&mut self) -> Vec<RtpIn> {
        let is_keyframe = std::mem::take(&mut self.wants_keyframe);
        let length = if is_keyframe { 20_000 } else { 2_000 + self.random.below(8_000) };
        let mut unit = vec![if is_keyframe { 0x65 } else { 0x41 }, 0x88];
        unit.extend((0..length).map(|_| self.random.below(256) as u8));
        let data = [&(unit.len() as u32).to_be_bytes()[..], &unit].concat();
        let at = MediaTime::from_micros((self.pictures * 100_000 / 3) as i64);
        let frame = Frame { config: Arc::clone(&self.config), dts: at, pts: at, is_keyframe, data: data.into() };
        let timestamp = self.bases[PICTURE].wrapping_add((self.pictures * 3000) as u32);
        let mut payloads = Vec::new();
        self.packetizer.packetize(&frame, &mut payloads).unwrap();
        self.pictures += 1;
        self.sent.push(frame);
        payloads.into_iter().map(|p| self.packet(PICTURE, timestamp, p.marker, p.payload)).collect()
    }

    fn packet(&mut self, track: usize, timestamp: u32, marker: bool, payload: Arc<[u8]>) -> RtpIn {
        self.seq[track] += 1;
        RtpIn { track, seq: self.seq[track], timestamp, marker, arrival: Instant::now(), payload }
    }
}

fn config(record: &[u8]) -> Arc<TrackConfig> {
    Arc::new(TrackConfig { codec: Codec::H264, record: record.to_vec().into() })
}

fn tracks() -> [RtpTrack; 2] {
    [RtpTrack { codec: Codec::Opus, clock_hz: 48_000 }, RtpTrack { codec: Codec::H264, clock_hz: 90_000 }]
}

/// What the network does.
#[derive(Clone, Copy)]
struct Network {
    loss_percent: u64,
    /// Packets take up to so much longer than 20 ms.
    jitter_ms: u64,
    /// Of those lost so many come after 90 ms.
    repaired_percent: u64,
}

const CLEAN: Network = Network { loss_percent: 0, jitter_ms: 0, repaired_percent: 0 };

/// What comes out, with the moment in milliseconds.
struct Run {
    publisher: Publisher,
    crossing: RtpToFrames,
    frames: Vec<(u64, Frame)>,
    asked: Vec<u64>,
}

impl Run {
    /// Sends so many seconds. `each` is called before each capture.
    fn over(network: Network, seconds: u64, mut each: impl FnMut(&mut Publisher, &mut RtpToFrames, u64)) -> Run {
        let start = Instant::now();
        let mut run = Run {
            publisher: Publisher::new(77),
            crossing: RtpToFrames::new(&tracks(), FromRtpOptions::default()),
            frames: Vec::new(),
            asked: Vec::new(),
        };
        let mut random = Random(network.loss_percent + 99);
        // On their way: arrival in microseconds, and a number that keeps equal ones in order.
        let mut flying: std::collections::BTreeMap<(u64, u64), RtpIn> = std::collections::BTreeMap::new();
        let (mut number, mut now, mut keyframe_at) = (0, 0, None);
        while now < seconds * 1_000_000 {
            let captured_at = (run.publisher.pictures * 100_000 / 3).min(run.publisher.sounds * 20_000);
            let arrives_at = flying.first_key_value().map_or(u64::MAX, |((at, _), _)| *at);
            let since = |at: Instant| at.saturating_duration_since(start).as_micros() as u64;
            let timeout_at = run.crossing.poll_timeout().map_or(u64::MAX, since);
            now = captured_at.min(arrives_at).min(timeout_at).max(now);
            let instant = start + Duration::from_micros(now);
            if now == captured_at {
                if keyframe_at.is_some_and(|at| now >= at) {
                    (run.publisher.wants_keyframe, keyframe_at) = (true, None);
                }
                each(&mut run.publisher, &mut run.crossing, now);
                for packet in run.publisher.capture().1 {
                    number += 1;
                    let mut at = now + 20_000 + random.below(network.jitter_ms * 1000 + 1);
                    if random.below(100) < network.loss_percent {
                        if random.below(100) >= network.repaired_percent {
                            continue;
                        }
                        at += 90_000;
                    }
                    flying.insert((at, number), packet);
                }
            } else if now == arrives_at {
                let (_, packet) = flying.pop_first().unwrap();
                run.crossing.push(instant, RtpIn { arrival: instant, ..packet });
            } else {
                run.crossing.handle_timeout(instant);
            }
            if run.crossing.wants_keyframe() {
                run.asked.push(now / 1000);
                // It reaches the publisher after half a round trip.
                keyframe_at = Some(now + 20_000);
            }
            while let Some(frame) = run.crossing.poll_frame() {
                run.frames.push((now / 1000, frame));
            }
        }
        run
    }

    fn pictures(&self) -> Vec<&(u64, Frame)> {
        self.frames.iter().filter(|(_, frame)| frame.kind() == MediaKind::Video).collect()
    }

    fn sounds(&self) -> Vec<&(u64, Frame)> {
        self.frames.iter().filter(|(_, frame)| frame.kind() == MediaKind::Audio).collect()
    }

    /// Every picture is one that was sent, in order. Gives their indices.
    fn match_pictures(&self) -> Vec<usize> {
        let mut next = 0;
        let found = self.pictures().into_iter().map(|(_, frame)| {
            let ahead = self.publisher.sent[next..].iter().position(|sent| sent.data == frame.data);
            let index = next + ahead.expect("a picture that nobody sent");
            next = index + 1;
            assert_eq!(self.publisher.sent[index].is_keyframe, frame.is_keyframe);
            index
        });
        found.collect()
    }

    /// Sound has no holes in its times, and both tracks never run backwards.
    fn check_times(&self) {
        for pair in self.sounds().windows(2) {
            let step = pair[1].1.dts.micros() - pair[0].1.dts.micros();
            assert!((21_333..=21_334).contains(&step), "sound steps by {step} at {:?}", pair[0].1.dts);
        }
        for pair in self.pictures().windows(2) {
            assert!(pair[1].1.dts > pair[0].1.dts);
        }
        assert!(self.frames.iter().all(|(_, frame)| frame.dts == frame.pts && frame.dts.micros() >= 0));
    }

    /// Time of a picture minus the time at which it was captured, in microseconds.
    fn lateness(&self) -> Vec<i64> {
        let pictures = self.pictures();
        let indices = self.match_pictures();
        pictures.iter().zip(indices).map(|((_, frame), i)| frame.dts.micros() - i as i64 * 100_000 / 3).collect()
    }
}

#[test]
fn nothing_is_changed_on_a_good_network() {
    for (jitter_ms, repaired) in [(0, 0), (30, 0), (30, 5)] {
        let network = Network { loss_percent: repaired, jitter_ms, repaired_percent: 100 };
        let run = Run::over(network, 20, |_, _, _| {});
        run.check_times();
        let indices = run.match_pictures();
        // A start that waits for repairs goes on with the keyframe that was asked for, if that one is here first.
        let first = indices[0];
        assert!(first == 0 || first < 4 && repaired > 0, "{first}");
        assert_eq!(indices, (first..first + indices.len()).collect::<Vec<_>>());
        assert!(indices.len() >= 595, "{}", indices.len());
        // The first sound is there, from the first packet on.
        let sounds = run.sounds();
        assert!(sounds[0].1.dts.micros() < START_MICROS + 3_000 && sounds.len() >= 932, "{}", sounds.len());
        let stats = run.crossing.stats();
        assert!(stats.lost_packets == 0 || stats.lost_packets < 5 && first > 0, "{stats:?}");
        assert_eq!((stats.broken, stats.concealed_samples), (0, 0), "{stats:?}");
        assert_eq!(run.asked.len(), 1, "only at the start");
        assert!(run.pictures().iter().all(|(_, frame)| Arc::ptr_eq(&frame.config, &run.pictures()[0].1.config)));
        assert_eq!(run.pictures()[0].1.config.record, RECORD[..41]);
        // On a path without jitter they come out as they come in: 20 ms, and 28 to 49 ms in AAC.
        if jitter_ms == 0 {
            let late = |(at, frame): &(u64, Frame)| *at as i64 - frame.dts.millis() + START_MICROS / 1000;
            // The first ones have waited for what might have come before them.
            let (pictures, sounds) = (&run.pictures()[2..], &run.sounds()[4..]);
            assert!(pictures.iter().all(|f| (19..=21).contains(&late(f))), "{:?}", pictures[0]);
            assert!(sounds.iter().all(|f| (40..=90).contains(&late(f))), "{}", late(sounds[0]));
        }
    }
}

#[test]
fn losses_cost_little_and_never_stop_the_stream() {
    for loss_percent in [5, 10] {
        let network = Network { loss_percent, jitter_ms: 20, repaired_percent: 0 };
        let run = Run::over(network, 60, |_, _, _| {});
        run.check_times();
        let (pictures, indices) = (run.pictures(), run.match_pictures());
        // After a hole comes a keyframe, and nothing else.
        for (pair, frames) in indices.windows(2).zip(pictures.windows(2)) {
            assert!(pair[1] == pair[0] + 1 || frames[1].1.is_keyframe, "{pair:?}");
        }
        // Nothing is repaired, so a loss is given up after 120 ms, and a keyframe comes 40 ms after it was asked for. It
        // has 18 packets, so at 10 % six of seven are lost as well; then it is asked for twice a second.
        let longest = pictures.windows(2).map(|pair| pair[1].0 - pair[0].0).max().unwrap();
        let bound = if loss_percent == 5 { 4_000 } else { 12_000 };
        assert!(longest < bound, "{loss_percent} %: {longest} ms");
        assert!(run.asked.windows(2).all(|pair| pair[1] - pair[0] >= 500), "{:?}", run.asked);
        assert!(run.sounds().len() > 2790, "{}", run.sounds().len());
        let concealed = run.crossing.stats().concealed_samples / 960;
        let expected = 3000 * loss_percent / 100;
        assert!((expected / 2..expected * 2).contains(&concealed), "{concealed} of {expected}");
    }
}

#[test]
fn with_retransmissions_losses_cost_nothing() {
    let network = Network { loss_percent: 10, jitter_ms: 20, repaired_percent: 100 };
    let run = Run::over(network, 30, |_, _, _| {});
    run.check_times();
    assert_eq!(run.match_pictures().len(), run.pictures().len());
    let longest = run.pictures().windows(2).map(|pair| pair[1].0 - pair[0].0).max().unwrap();
    assert!(longest < 200, "{longest} ms");
    // Of the first keyframe, which was not waited for since the next one was here.
    assert!(run.crossing.stats().lost_packets < 5, "{:?}", run.crossing.stats());
}

#[test]
fn lips_and_sound_stay_together_with_and_without_reports() {
    // Without reports, with reports of both from the start, and from the tenth second on.
    for reports_from in [u64::MAX, 0, 10_000_000] {
        let mut next_report = reports_from;
        let run = Run::over(CLEAN, 30, |publisher, crossing, now| {
            if now >= next_report {
                next_report += 2_000_000;
                let rtp = |track: usize, khz: u64| publisher.bases[track].wrapping_add((now * khz / 1000) as u32);
                crossing.set_clock(SOUND, rtp(SOUND, 48), 1_700_000_000_000_000 + now as i64);
                crossing.set_clock(PICTURE, rtp(PICTURE, 90), 1_700_000_000_000_000 + now as i64);
            }
        });
        run.check_times();
        // The sound of a moment lies at that moment plus as much, see `opus_to_aac`.
        let late = run.lateness();
        assert!(late.iter().all(|late| (late - START_MICROS).abs() < 1000), "{:?}", late.iter().max());
    }
}

#[test]
fn a_late_report_moves_pictures_without_a_jump() {
    // The picture's clock is said to be 60 ms behind the sound's.
    let run = Run::over(CLEAN, 30, |publisher, crossing, now| {
        if now > 10_000_000 && now % 2_000_000 == 0 {
            let rtp = |track: usize, khz: u64| publisher.bases[track].wrapping_add((now * khz / 1000) as u32);
            crossing.set_clock(SOUND, rtp(SOUND, 48), now as i64);
            crossing.set_clock(PICTURE, rtp(PICTURE, 90), now as i64 + 60_000);
        }
    });
    run.check_times();
    let late = run.lateness();
    assert!(
        (late[100] - START_MICROS).abs() < 1000 && (late[late.len() - 1] - START_MICROS - 60_000).abs() < 1000,
        "{:?}",
        late.last()
    );
    assert!(late.windows(2).all(|pair| (0..=334).contains(&(pair[1] - pair[0]))));
}

#[test]
fn another_resolution_crosses() {
    let run = Run::over(CLEAN, 6, |publisher, _, now| {
        if now == 3_000_000 {
            publisher.config = config(&OTHER_RECORD);
            publisher.wants_keyframe = true;
        }
    });
    run.check_times();
    assert_eq!(run.match_pictures().len(), run.pictures().len());
    let pictures = run.pictures();
    let changes: Vec<_> =
        pictures.windows(2).filter(|pair| !Arc::ptr_eq(&pair[0].1.config, &pair[1].1.config)).collect();
    let [change] = &changes[..] else { panic!("{} changes", changes.len()) };
    assert!(change[1].1.is_keyframe);
    assert_eq!(change[1].1.config.record, OTHER_RECORD[..]);
}

#[test]
fn a_day_passes() {
    // A picture every ten seconds, all keyframes.
    let start = Instant::now();
    let mut publisher = Publisher::new(5);
    let mut crossing = RtpToFrames::new(&tracks(), AT_ONCE);
    for i in 0..8640_u64 {
        publisher.wants_keyframe = true;
        publisher.pictures = i * 300;
        let now = start + Duration::from_secs(i * 10);
        for packet in publisher.picture() {
            crossing.push(now, RtpIn { arrival: now, ..packet });
        }
        let frame = crossing.poll_frame().unwrap();
        assert_eq!(frame.dts.micros(), START_MICROS + i as i64 * 10_000_000);
        assert!(crossing.poll_frame().is_none());
    }
}

#[test]
fn keyframes_are_asked_for_twice_a_second() {
    let start = Instant::now();
    let mut publisher = Publisher::new(6);
    publisher.wants_keyframe = false;
    let mut crossing = RtpToFrames::new(&tracks(), AT_ONCE);
    let mut asked = Vec::new();
    for i in 0..150_u64 {
        let now = start + Duration::from_micros(i * 100_000 / 3);
        for packet in publisher.picture() {
            crossing.push(now, RtpIn { arrival: now, ..packet });
            if crossing.wants_keyframe() {
                asked.push(i);
            }
        }
    }
    assert_eq!(asked, [0, 15, 30, 45, 60, 75, 90, 105, 120, 135]);
    assert!(crossing.poll_frame().is_none());
}

#[test]
fn what_cannot_cross_is_named() {
    let track = |codec| RtpTrack { codec, clock_hz: 48_000 };
    let tracks = [Codec::Pcmu, Codec::Red, Codec::Vp8, Codec::Opus, Codec::H264].map(track);
    let crossing = RtpToFrames::new(&tracks, FromRtpOptions::default());
    let refused: Vec<_> = crossing.refusals().iter().map(|refusal| (refusal.track, refusal.codec)).collect();
    assert_eq!(refused, [(0, Codec::Pcmu), (3, Codec::Opus), (4, Codec::H264)]);
    // Packets of tracks that are refused, or unknown, are passed over.
    let mut crossing = RtpToFrames::new(&[track(Codec::Pcma)], FromRtpOptions::default());
    let now = Instant::now();
    for track in [0, 7] {
        let payload = [1, 2, 3][..].into();
        crossing.push(now, RtpIn { track, seq: 1, timestamp: 0, marker: false, arrival: now, payload });
    }
    crossing.set_clock(7, 0, 0);
    assert!(crossing.poll_frame().is_none() && !crossing.wants_keyframe() && crossing.poll_timeout().is_none());
    assert!(RtpToFrames::new(&[], FromRtpOptions::default()).poll_timeout().is_none());
}

#[test]
fn red_and_opus_as_it_is() {
    let start = Instant::now();
    let mut publisher = Publisher::new(8);
    let track = RtpTrack { codec: Codec::Red, clock_hz: 48_000 };
    let mut crossing = RtpToFrames::new(&[track], AT_ONCE);
    for i in 0..20 {
        let now = start + Duration::from_millis(i * 20);
        let packet = publisher.sound();
        let redundant = [&[0x80 | 111, 0, 0, 3, 111, 1, 2, 3][..], &packet.payload].concat();
        crossing.push(now, RtpIn { arrival: now, payload: redundant.into(), ..packet.clone() });
        let frame = crossing.poll_frame().unwrap();
        assert_eq!((&frame.data[..], frame.config.codec), (&packet.payload[..], Codec::Opus));
        assert_eq!(frame.dts.micros(), START_MICROS + i as i64 * 20_000);
    }
}

#[test]
fn the_end_comes_out() {
    let start = Instant::now();
    let mut publisher = Publisher::new(9);
    let mut crossing = RtpToFrames::new(&tracks(), FromRtpOptions::default());
    let mut frames = 0;
    for i in 0..50 {
        let packet = publisher.sound();
        // One is missing near the end; nothing behind it has come out yet.
        if i != 45 {
            let now = start + Duration::from_millis(i * 20);
            crossing.push(now, RtpIn { arrival: now, ..packet });
        }
        frames += std::iter::from_fn(|| crossing.poll_frame()).count();
    }
    assert!(frames < 45, "{frames}");
    crossing.finish();
    frames += std::iter::from_fn(|| crossing.poll_frame()).count();
    assert!(frames >= 47, "{frames}");
}

#[test]
fn nobody_polls() {
    let start = Instant::now();
    let mut publisher = Publisher::new(10);
    let mut crossing = RtpToFrames::new(&tracks(), AT_ONCE);
    let sound = publisher.sound();
    for i in 0..6000_u64 {
        let timestamp = sound.timestamp.wrapping_add(i as u32 * 960);
        let now = start + Duration::from_millis(i * 20);
        crossing.push(now, RtpIn { seq: i, timestamp, arrival: now, ..sound.clone() });
    }
    assert_eq!(std::iter::from_fn(|| crossing.poll_frame()).count(), MAX_READY_FRAMES);
}
