//! Whole chains in virtual time: synthetic sound through an AAC encoder, [`AudioToOpus`] and an Opus decoder.

use std::f64::consts::TAU;
use std::time::Duration;

use super::*;
use crate::transcode::testing::frames_of_flv;

/// A seam's mirrored sound flips the slope of the sine (0.065 a sample) at worst.
const ROUGHEST_SEAM: f32 = 0.14;

/// A flavour of AAC and what it is like.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Aac {
    Lc,
    He,
    HeV2,
}

/// Sound by time in seconds and side.
type Sound = fn(f64, usize) -> f64;

fn tone(time: f64, _side: usize) -> f64 {
    0.5 * (TAU * 1000.0 * time).sin()
}

/// A click of 1 ms at 1.5 s: broad enough for every codec here to keep it.
fn click(time: f64, _side: usize) -> f64 {
    let away = (time - 1.5) / 0.0005;
    0.8 * (-away * away).exp()
}

/// Coded frames whose time stamps are those of a muxer that honours the encoder's delay, from `start` on.
fn aac(kind: Aac, hz: u32, channels: usize, seconds: f64, start: Duration, sound: Sound) -> Vec<Frame> {
    let options = match kind {
        Aac::Lc => syom::EncodeOptions::raw().with_bitrate_bps(64_000 * channels as u32),
        Aac::He => syom::EncodeOptions::raw().with_he(true).with_bitrate_bps(64_000),
        Aac::HeV2 => syom::EncodeOptions::raw().with_he_v2(true).with_bitrate_bps(32_000),
    };
    let mut encoder = syom::Encoder::new(hz, channels, &options).unwrap();
    let record = Bytes::copy_from_slice(encoder.asc());
    let config = Arc::new(TrackConfig { codec: Codec::Aac, record });
    let samples = (seconds * f64::from(hz)) as usize;
    let planes: Vec<Vec<f32>> = (0..channels)
        .map(|side| (0..samples).map(|i| sound(i as f64 / f64::from(hz), side) as f32).collect())
        .collect();
    let planes: Vec<&[f32]> = planes.iter().map(Vec::as_slice).collect();
    let mut units = Vec::new();
    let mut keep = |unit: syom::EncodedFrame<'_>| {
        units.push(Bytes::copy_from_slice(unit.payload));
        Ok(())
    };
    encoder.feed(&planes, &mut keep).unwrap();
    let info = encoder.finish(&mut keep).unwrap();
    let frame_samples = if kind == Aac::Lc { 1024 } else { 2048 };
    let place = |i: usize| MediaTime::from_ticks(i as i64 * frame_samples - info.priming as i64, hz) + start;
    units.into_iter().enumerate().map(|(i, data)| frame(&config, place(i), data)).collect()
}

fn frame(config: &Arc<TrackConfig>, pts: MediaTime, data: Bytes) -> Frame {
    Frame { config: Arc::clone(config), dts: pts, pts, is_keyframe: true, data }
}

/// Moves frames to whole milliseconds, as FLV does.
fn in_milliseconds(mut frames: Vec<Frame>) -> Vec<Frame> {
    for frame in &mut frames {
        frame.pts = MediaTime::from_millis(frame.pts.millis());
    }
    frames
}

fn transcode(transcoder: &mut AudioToOpus, frames: &[Frame]) -> Vec<OpusPacket> {
    let mut packets = Vec::new();
    for frame in frames {
        transcoder.push(frame, &mut |packet| packets.push(packet)).unwrap();
    }
    packets
}

/// What a listener hears: samples from the first packet's time stamp on.
struct Heard {
    start: i64,
    sides: [Vec<f32>; 2],
}

impl Heard {
    /// Plays packets that have no gap between them.
    fn of(packets: &[OpusPacket]) -> Heard {
        assert_steps(packets);
        let mut decoder = opus::Decoder::new(OUT_HZ, opus::Channels::Stereo).unwrap();
        let mut heard = Heard { start: packets[0].samples48, sides: Default::default() };
        let mut pcm = [0.0f32; 2 * 960];
        for packet in packets {
            assert_eq!(decoder.decode_float(&packet.data, &mut pcm, false).unwrap(), 960);
            for (i, sample) in pcm.iter().enumerate() {
                heard.sides[i % 2].push(*sample);
            }
        }
        heard
    }

    fn at(&self, seconds: f64) -> usize {
        ((seconds * f64::from(OUT_HZ)) as i64 - self.start) as usize
    }

    /// Level and phase (as a time in seconds) of 1 kHz in 20 ms from `seconds` on.
    fn kilohertz(&self, side: usize, seconds: f64) -> (f64, f64) {
        let from = self.at(seconds);
        let (mut re, mut im) = (0.0, 0.0);
        for (i, sample) in self.sides[side][from..from + 960].iter().enumerate() {
            let angle = TAU * 1000.0 * (self.start + (from + i) as i64) as f64 / f64::from(OUT_HZ);
            re += f64::from(*sample) * angle.sin();
            im += f64::from(*sample) * angle.cos();
        }
        ((re * re + im * im).sqrt() / 480.0, im.atan2(re) / (TAU * 1000.0))
    }

    /// The strongest bend between samples: 0.0086 in a sine of 1 kHz at 0.5. A cut makes up to 1.0.
    fn roughest(&self, from: f64, to: f64) -> f32 {
        let side = &self.sides[0][self.at(from)..self.at(to)];
        side.windows(3).map(|w| (w[0] - 2.0 * w[1] + w[2]).abs()).fold(0.0, f32::max)
    }

    fn level(&self, from: f64, to: f64) -> f32 {
        let side = &self.sides[0][self.at(from)..self.at(to)];
        (side.iter().map(|s| s * s).sum::<f32>() / side.len() as f32).sqrt()
    }
}

fn assert_steps(packets: &[OpusPacket]) {
    for pair in packets.windows(2) {
        assert_eq!(pair[1].samples48 - pair[0].samples48, 960, "at {:?}", pair[0].pts);
        assert_eq!(pair[1].pts, MediaTime::from_ticks(pair[1].samples48, OUT_HZ));
    }
}

#[test]
fn a_tone_keeps_its_level_and_its_place() {
    for (kind, hz, channels) in [
        (Aac::Lc, 44_100, 2),
        (Aac::Lc, 48_000, 2),
        (Aac::Lc, 48_000, 1),
        (Aac::Lc, 22_050, 2),
        (Aac::Lc, 32_000, 1),
        (Aac::Lc, 16_000, 1),
        (Aac::Lc, 96_000, 2),
        (Aac::He, 44_100, 2),
        (Aac::He, 48_000, 1),
        (Aac::HeV2, 48_000, 2),
    ] {
        let case = format!("{kind:?} {hz} Hz {channels} channels");
        let frames = aac(kind, hz, channels, 1.5, Duration::ZERO, tone);
        let packets = transcode(&mut AudioToOpus::new(OpusOptions::default()), &frames);
        let heard = Heard::of(&packets);
        assert!(packets.len() >= 73, "{case}: {} packets for 1.5 s", packets.len());
        for side in 0..2 {
            for i in 10..70 {
                let (level, late) = heard.kilohertz(side, f64::from(i) * 0.02);
                assert!((level - 0.5).abs() < 0.04, "{case}: level {level} in packet {i}");
                assert!(late.abs() < 0.0003, "{case}: {late} s off in packet {i}");
            }
        }
        assert!(heard.roughest(0.2, 1.4) < 0.03, "{case}: {}", heard.roughest(0.2, 1.4));
    }
}

#[test]
fn a_click_comes_out_when_it_went_in() {
    for (kind, hz) in [(Aac::Lc, 44_100), (Aac::Lc, 48_000), (Aac::He, 48_000), (Aac::He, 44_100), (Aac::HeV2, 48_000)]
    {
        // A stream that has been running: the place of the click must follow the time stamps.
        let start = Duration::from_millis(7_321);
        let frames = in_milliseconds(aac(kind, hz, 2, 2.5, start, click));
        let heard = Heard::of(&transcode(&mut AudioToOpus::new(OpusOptions::default()), &frames));
        let loudest = (0..heard.sides[0].len()).max_by(|a, b| heard.sides[0][*a].total_cmp(&heard.sides[0][*b]));
        let at = (heard.start + loudest.unwrap() as i64) as f64 / f64::from(OUT_HZ) - start.as_secs_f64();
        assert!((at - 1.5).abs() < 0.003, "{kind:?} {hz} Hz: {at}");
    }
}

#[test]
fn a_click_comes_out_where_ffmpeg_hears_it() {
    // The loudest sample of what ffmpeg decodes, at 44.1 kHz; tests/data/README.md.
    for (flv, codec, loudest) in [
        (&include_bytes!("../../../tests/data/click-aac.flv")[..], Codec::Aac, 23_074.0),
        (&include_bytes!("../../../tests/data/click-mp3.flv")[..], Codec::Mp3, 23_155.0),
    ] {
        let frames = frames_of_flv(flv);
        assert_eq!(frames[0].config.codec, codec);
        let heard = Heard::of(&transcode(&mut AudioToOpus::new(OpusOptions::default()), &frames));
        for side in &heard.sides {
            let at = (0..side.len()).max_by(|a, b| side[*a].total_cmp(&side[*b])).unwrap();
            let seconds = (heard.start + at as i64) as f64 / f64::from(OUT_HZ);
            assert!((seconds - loudest / 44_100.0).abs() < 0.002, "{codec}: {seconds}");
            assert!(side[at] > 0.6, "{codec}: {}", side[at]);
        }
    }
}

#[test]
fn implicit_sbr_is_heard_at_its_full_rate() {
    // FLV publishers announce plain LC at half the rate and put SBR into the frames.
    let mut frames = aac(Aac::He, 48_000, 2, 2.0, Duration::ZERO, tone);
    // LC, 24 kHz, stereo.
    let config = Arc::new(TrackConfig { codec: Codec::Aac, record: Bytes::from_static(&[0x13, 0x10]) });
    frames.iter_mut().for_each(|f| f.config = Arc::clone(&config));
    let heard = Heard::of(&transcode(&mut AudioToOpus::new(OpusOptions::default()), &frames));
    let (level, late) = heard.kilohertz(0, 1.5);
    assert!((level - 0.5).abs() < 0.04 && late.abs() < 0.0003, "{level} {late}");
}

/// Decoded sound straight into the part behind the decoder.
struct Source {
    encoding: Encoding,
    scratch: [Vec<f32>; 2],
    packets: Vec<OpusPacket>,
}

impl Source {
    fn new(hz: u32) -> Source {
        let encoding = Encoding::new(OpusOptions::default(), hz, MediaTime::default()).unwrap();
        Source { encoding, scratch: Default::default(), packets: Vec::new() }
    }

    fn push(&mut self, pts_micros: f64, hz: u32, samples: Vec<f32>) {
        let pcm = Pcm { hz, left: samples.clone(), right: samples };
        let pts = MediaTime::from_micros(pts_micros as i64);
        self.encoding.append(pts, &pcm, &mut self.scratch, &mut |p| self.packets.push(p)).unwrap();
    }

    /// How far the end of what was made is after the time of the source.
    fn off_ms(&self, source_micros: f64) -> f64 {
        let end = self.encoding.writer.end() as f64 + self.encoding.resampler.pending();
        end / 48.0 - source_micros / 1000.0
    }
}

#[test]
fn drift_is_steered_away() {
    // Ten minutes of it in `drift`; here the whole chain follows, at five times the usual drift.
    for (hz, ppm) in [(48_000, 1000.0), (44_100, -1000.0)] {
        let mut source = Source::new(hz);
        let frame_micros = 1024.0 * 1e6 / f64::from(hz) * (1.0 + ppm / 1e6);
        let mut worst = 0.0f64;
        for i in 0..(15e6 / frame_micros) as usize {
            let pts = i as f64 * frame_micros;
            // As FLV rounds.
            source.push((pts / 1000.0).floor() * 1000.0, hz, vec![0.0; 1024]);
            worst = worst.max(source.off_ms(pts + frame_micros).abs());
        }
        assert_steps(&source.packets);
        assert!(worst < 10.0, "{hz} Hz {ppm} ppm: {worst} ms off");
        assert!((source.packets.len() as i64 - 750).abs() < 3, "{hz} Hz {ppm} ppm: {}", source.packets.len());
    }
}

#[test]
fn steering_is_not_heard() {
    let mut source = Source::new(48_000);
    for i in 0..600 {
        let samples = (0..1024).map(|k| tone(f64::from(i * 1024 + k) / 48_000.0, 0) as f32).collect();
        // From 2 s on the time stamps are 30 ms later.
        let late = if i > 94 { 30_000.0 } else { 0.0 };
        source.push(f64::from(i) * 1024.0 / 0.048 + late, 48_000, samples);
    }
    assert!(source.off_ms(600.0 * 1024.0 / 0.048 + 30_000.0).abs() < 12.0);
    let heard = Heard::of(&source.packets);
    assert!(heard.roughest(0.2, 12.0) < 0.02, "{}", heard.roughest(0.2, 12.0));
    for i in 10..600 {
        let level = heard.kilohertz(0, f64::from(i) * 0.02).0;
        assert!((level - 0.5).abs() < 0.02, "{level} in packet {i}");
    }
}

/// A second of tone, then a second whose time stamps are off by `jump_ms`.
fn with_jump(jump_ms: f64) -> Source {
    let mut source = Source::new(48_000);
    for i in 0..100 {
        let jump = if i >= 50 { jump_ms * 1000.0 } else { 0.0 };
        let pts = f64::from(i) * 20_000.0 + jump;
        let samples = (0..960).map(|k| tone(pts / 1e6 + f64::from(k) / 48_000.0, 0) as f32).collect();
        source.push(pts, 48_000, samples);
    }
    source
}

#[test]
fn a_short_hole_is_filled_with_silence() {
    let source = with_jump(100.0);
    let heard = Heard::of(&source.packets);
    assert!(source.off_ms(2_100_000.0).abs() < 0.1);
    assert!(heard.level(1.02, 1.08) < 0.01, "{}", heard.level(1.02, 1.08));
    assert!(heard.roughest(0.1, 1.9) < ROUGHEST_SEAM, "{}", heard.roughest(0.1, 1.9));
    for at in [0.9, 1.2, 1.9] {
        let (level, late) = heard.kilohertz(0, at);
        assert!((level - 0.5).abs() < 0.02 && late.abs() < 0.0001, "{level} {late} at {at}");
    }
}

#[test]
fn a_long_hole_becomes_a_jump() {
    for (jump_ms, seconds) in [(2_000.0, 2), (-500.0, 0), (3_600_000.0, 3_600)] {
        let source = with_jump(jump_ms);
        let after = source.packets.windows(2).position(|p| p[1].samples48 - p[0].samples48 != 960).unwrap() + 1;
        assert_eq!(source.packets[after].samples48, 48_000 + (jump_ms * 48.0) as i64 - 312, "{jump_ms}");
        let heard = Heard::of(&source.packets[after..]);
        let (level, late) = heard.kilohertz(0, f64::from(seconds) + 1.7 + jump_ms.min(0.0) / 1000.0);
        assert!((level - 0.5).abs() < 0.02 && late.abs() < 0.0001, "{jump_ms}: {level} {late}");
        Heard::of(&source.packets[..after]);
    }
}

#[test]
fn what_comes_twice_is_dropped() {
    let source = with_jump(-100.0);
    let heard = Heard::of(&source.packets);
    assert!(source.off_ms(1_900_000.0).abs() < 0.1);
    assert!(heard.roughest(0.1, 1.8) < ROUGHEST_SEAM, "{}", heard.roughest(0.1, 1.8));
    let (level, late) = heard.kilohertz(0, 1.5);
    assert!((level - 0.5).abs() < 0.02 && late.abs() < 0.0001, "{level} {late}");
}

#[test]
fn time_stamps_of_a_wall_clock_are_smoothed() {
    let mut source = Source::new(48_000);
    let mut seed = 1u32;
    for i in 0..750 {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let jitter = f64::from(seed >> 16) / 65_536.0 * 70_000.0;
        source.push(f64::from(i) * 20_000.0 + jitter, 48_000, vec![0.0; 960]);
    }
    // A few holes at the start, until the wandering is known.
    let jumps = source.packets.len() as i64 - 750;
    assert!(jumps.abs() < 8, "{} packets", source.packets.len());
    assert!((source.off_ms(750.0 * 20_000.0) - 35.0).abs() < 40.0, "{}", source.off_ms(750.0 * 20_000.0));
}

#[test]
fn a_change_of_parameters_makes_no_click_and_no_gap() {
    // (from rate, channels) to (rate, channels).
    for (before, after) in [((44_100, 2), (48_000, 2)), ((48_000, 2), (48_000, 1)), ((48_000, 1), (22_050, 2))] {
        let mut transcoder = AudioToOpus::new(OpusOptions::default());
        let first = aac(Aac::Lc, before.0, before.1, 2.0, Duration::ZERO, tone);
        let end = first[(1.0 * f64::from(before.0) / 1024.0) as usize].pts;
        let mut frames: Vec<Frame> = first.into_iter().filter(|f| f.pts < end).collect();
        let second = aac(Aac::Lc, after.0, after.1, 3.0, Duration::ZERO, tone);
        frames.extend(second.into_iter().filter(|f| f.pts >= end));
        let heard = Heard::of(&transcode(&mut transcoder, &frames));
        let roughest = heard.roughest(0.2, 2.5);
        assert!(roughest < ROUGHEST_SEAM, "{before:?} to {after:?}: {roughest}");
        let (level, late) = heard.kilohertz(0, 2.0);
        assert!((level - 0.5).abs() < 0.04 && late.abs() < 0.012, "{before:?} to {after:?}: {level} {late}");
    }
}

#[test]
fn a_broken_frame_is_concealed() {
    let mut frames = aac(Aac::Lc, 48_000, 2, 3.0, Duration::ZERO, tone);
    frames[60].data = frames[60].data.slice(..30);
    frames[61].data = Bytes::new();
    // The end of a frame, and nothing before it.
    frames[80].data = Bytes::from_static(&[0xff; 40]);
    let mut transcoder = AudioToOpus::new(OpusOptions::default());
    let mut packets = Vec::new();
    let mut broken = 0;
    for frame in &frames {
        if let Err(error) = transcoder.push(frame, &mut |packet| packets.push(packet)) {
            assert!(!error.is_lasting() && matches!(error, TranscodeError::BrokenFrame { .. }), "{error}");
            broken += 1;
        }
    }
    assert_eq!(broken, 3);
    let heard = Heard::of(&packets);
    assert!(heard.roughest(0.1, 2.8) < ROUGHEST_SEAM, "{}", heard.roughest(0.1, 2.8));
    let (level, late) = heard.kilohertz(0, 2.0);
    assert!((level - 0.5).abs() < 0.04 && late.abs() < 0.0001, "{level} {late}");
}

#[test]
fn what_cannot_be_decoded_says_so_and_nothing_is_sent() {
    let config = |codec, record: &'static [u8]| Arc::new(TrackConfig { codec, record: Bytes::from_static(record) });
    for config in [
        config(Codec::Aac, &[]),
        config(Codec::Aac, &[0xff, 0xff, 0xff]),
        // ER AAC scalable.
        config(Codec::Aac, &[0xa2, 0x10]),
        config(Codec::H264, &[]),
        config(Codec::Pcma, &[]),
        config(Codec::Opus, b"OpusHead\x01\x06\x38\x01\x80\xbb\0\0\0\0\x01\x04\x02\0\x04\x01\x02\x03"),
    ] {
        let mut transcoder = AudioToOpus::new(OpusOptions::default());
        for _ in 0..2 {
            let frame = frame(&config, MediaTime::default(), Bytes::from_static(&[0x21, 0x10, 0x04]));
            let error = transcoder.push(&frame, &mut |p| panic!("{p:?}")).unwrap_err();
            assert!(error.is_lasting(), "{config:?}: {error}");
        }
    }
}

#[test]
fn opus_passes_through() {
    let source = with_jump(0.0);
    let config = Arc::new(TrackConfig { codec: Codec::Opus, record: Bytes::new() });
    let mut transcoder = AudioToOpus::new(OpusOptions::default());
    let mut out = Vec::new();
    for (i, packet) in source.packets.iter().enumerate() {
        // In milliseconds and a little late, and a pause in the middle.
        let pts = MediaTime::from_millis(i as i64 * 20 + i as i64 % 3 + if i >= 50 { 1000 } else { 0 });
        transcoder.push(&frame(&config, pts, packet.data.clone()), &mut |p| out.push(p)).unwrap();
    }
    assert!(out.iter().zip(&source.packets).all(|(a, b)| a.data == b.data));
    assert_steps(&out[..50]);
    assert_steps(&out[50..]);
    assert_eq!((out[0].samples48, out[50].samples48), (0, 48_000 + 48_000 + 2 * 48));
    assert!(transcoder.push(&frame(&config, MediaTime::default(), Bytes::new()), &mut |_| panic!("sent")).is_err());
}

#[test]
fn absurd_time_stamps_are_survived() {
    let mut transcoder = AudioToOpus::new(OpusOptions::default());
    let frames = aac(Aac::Lc, 48_000, 2, 0.3, Duration::ZERO, tone);
    for (frame, micros) in frames.iter().zip([0, i64::MAX, i64::MIN, -1, 1, i64::MAX / 2, i64::MIN / 2, 0].repeat(9)) {
        let mut frame = frame.clone();
        frame.pts = MediaTime::from_micros(micros);
        transcoder.push(&frame, &mut |_| ()).unwrap();
    }
}
