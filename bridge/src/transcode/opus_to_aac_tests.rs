//! Synthetic sound through libopus, [`OpusToAac`] and an AAC decoder, in virtual time.

use std::f64::consts::TAU;

use super::*;

const PACKET: usize = 960;

/// Sound by time in seconds.
type Sound = fn(f64) -> f64;

fn tone(time: f64) -> f64 {
    0.5 * (TAU * 1000.0 * time).sin()
}

/// A click of 1 ms at 0.7 s.
fn click(time: f64) -> f64 {
    let away = (time - 0.7) / 0.0005;
    0.8 * (-away * away).exp()
}

/// Packets of 20 ms with time stamps from `start` on, as browsers make them, with redundancy if asked for.
fn opus(seconds: f64, start: MediaTime, sound: Sound, with_fec: bool) -> Vec<(MediaTime, Vec<u8>)> {
    let application = if with_fec { opus::Application::Voip } else { opus::Application::Audio };
    let mut encoder = opus::Encoder::new(HZ, opus::Channels::Stereo, application).unwrap();
    encoder.set_bitrate(opus::Bitrate::Bits(if with_fec { 24_000 } else { 128_000 })).unwrap();
    encoder.set_inband_fec(with_fec).unwrap();
    encoder.set_packet_loss_perc(if with_fec { 20 } else { 0 }).unwrap();
    let packet = |i: usize| {
        let at = |sample: usize| sound((i * PACKET + sample) as f64 / f64::from(HZ)) as f32;
        let pcm: Vec<f32> = (0..PACKET).flat_map(|sample| [at(sample); 2]).collect();
        let pts = start + MediaTime::from_ticks((i * PACKET) as i64, HZ).since(MediaTime::default());
        (pts, encoder.encode_vec_float(&pcm, 1500).unwrap())
    };
    (0..(seconds * 50.0) as usize).map(packet).collect()
}

fn push(transcoder: &mut OpusToAac, packets: &[(MediaTime, Vec<u8>)]) -> Vec<Frame> {
    let mut frames = Vec::new();
    for (pts, data) in packets {
        transcoder.push(OpusIn { pts: *pts, data }, &mut |frame| frames.push(frame)).unwrap();
    }
    frames
}

/// What a listener hears: samples from the first frame's time on. Frames have to follow on each other.
fn heard(frames: &[Frame]) -> (i64, Vec<f32>) {
    let mut decoder = syom::Decoder::from_asc(&frames[0].config.record, syom::DecodeOptions::unbounded()).unwrap();
    let mut samples = Vec::new();
    for (i, frame) in frames.iter().enumerate() {
        let from_start = frame.pts.micros() - frames[0].pts.micros();
        assert!((from_start - MediaTime::from_ticks(i as i64 * 1024, HZ).micros()).abs() <= 1, "frame {i}");
        decoder
            .decode_au(&frame.data, |decoded| {
                samples.extend_from_slice(decoded.planar[0]);
                Ok(())
            })
            .unwrap();
    }
    (frames[0].pts.micros(), samples)
}

/// Level of 1 kHz in 20 ms from a sample on.
fn level(samples: &[f32]) -> f64 {
    let (mut re, mut im) = (0.0, 0.0);
    for (i, sample) in samples[..PACKET].iter().enumerate() {
        let angle = TAU * 1000.0 * i as f64 / f64::from(HZ);
        re += f64::from(*sample) * angle.sin();
        im += f64::from(*sample) * angle.cos();
    }
    (re * re + im * im).sqrt() / 480.0
}

#[test]
fn a_tone_keeps_its_level_from_the_first_packet_on() {
    let mut transcoder = OpusToAac::new(AacOptions::default()).unwrap();
    let frames = push(&mut transcoder, &opus(1.0, MediaTime::from_millis(30), tone, false));
    let (start, samples) = heard(&frames);
    // 30 ms less the delays of both codecs.
    assert!((start - (30_000 - 6_500 - 21_333)).abs() <= 21, "{start}");
    // All but what is still in the codecs: a frame that is not full and the one behind it.
    assert!(frames.len() >= 45, "{}", frames.len());
    for at in (2600..samples.len() - 1024).step_by(PACKET) {
        assert!((level(&samples[at..]) - 0.5).abs() < 0.03, "{at}: {}", level(&samples[at..]));
    }
    assert_eq!(frames[0].config.record[..], [0x11, 0x90]);
    assert!(frames.iter().all(|frame| frame.is_keyframe && Arc::ptr_eq(&frame.config, &frames[0].config)));
    let bits: usize = frames.iter().map(|frame| frame.data.len() * 8).sum();
    assert!((100_000..150_000).contains(&bits), "{bits} bits in a second");
}

#[test]
fn a_click_comes_out_when_it_went_in() {
    for start in [MediaTime::from_millis(30), MediaTime::from_micros(7_321_017)] {
        let mut transcoder = OpusToAac::new(AacOptions::default()).unwrap();
        let (from, samples) = heard(&push(&mut transcoder, &opus(1.0, start, click, false)));
        let loudest = (0..samples.len()).max_by(|a, b| samples[*a].total_cmp(&samples[*b])).unwrap();
        let at = (from - start.micros()) as f64 / 1e6 + loudest as f64 / f64::from(HZ);
        assert!((at - 0.7).abs() < 0.001, "{at}");
        assert!(samples[loudest] > 0.5, "{}", samples[loudest]);
    }
}

#[test]
fn holes_are_concealed_and_the_count_goes_on() {
    for (with_fec, missing) in [(false, 1), (true, 1), (true, 3), (false, 50)] {
        let mut packets = opus(3.0, MediaTime::from_millis(40), tone, with_fec);
        packets.drain(60..60 + missing);
        let mut transcoder = OpusToAac::new(AacOptions::default()).unwrap();
        let (_, samples) = heard(&push(&mut transcoder, &packets));
        assert_eq!(transcoder.concealed_samples(), missing as u64 * 960);
        assert!(samples.len() > 140_000, "{}", samples.len());
        // A single packet is hardly missed, and the tone is back after any hole, if it was long after some packets.
        let hole = 1024 + 312 + 60 * PACKET;
        let after = hole + (missing + if missing > 3 { 15 } else { 2 }) * PACKET;
        assert!(missing > 1 || level(&samples[hole..]) > 0.3, "{}", level(&samples[hole..]));
        assert!((level(&samples[after..]) - 0.5).abs() < 0.1, "{with_fec} {missing}: {}", level(&samples[after..]));
    }
}

#[test]
fn a_pause_becomes_a_jump() {
    let first = opus(0.5, MediaTime::from_millis(40), click, false);
    let second = opus(1.0, MediaTime::from_millis(9_000), click, false);
    let mut transcoder = OpusToAac::new(AacOptions::default()).unwrap();
    let before = push(&mut transcoder, &first);
    let after = push(&mut transcoder, &second);
    // What was begun before the pause comes out, in its place.
    let flushed = after.iter().position(|frame| frame.pts.millis() > 8_000).unwrap();
    assert_eq!(flushed, 2);
    heard(&[&before[..], &after[..flushed]].concat());
    let (start, samples) = heard(&after[flushed..]);
    assert!((start - (9_000_000 - 6_500 - 21_333)).abs() <= 21, "{start}");
    let loudest = (0..samples.len()).max_by(|a, b| samples[*a].total_cmp(&samples[*b])).unwrap();
    let at = (start - 9_000_000) as f64 / 1e6 + loudest as f64 / f64::from(HZ);
    assert!((at - 0.7).abs() < 0.001, "{at}");
    assert_eq!(transcoder.concealed_samples(), 0);
}

#[test]
fn sound_that_comes_twice_or_counts_anew_goes_on() {
    // Time stamps that go back by so much after a second.
    for (back_ms, expected_seconds) in [(1, 2.0), (100, 1.9), (5_000, 2.0)] {
        let mut packets = opus(2.0, MediaTime::from_millis(10_000), tone, false);
        for (pts, _) in &mut packets[50..] {
            *pts = MediaTime::from_micros(pts.micros() - back_ms * 1000);
        }
        let mut transcoder = OpusToAac::new(AacOptions::default()).unwrap();
        let (_, samples) = heard(&push(&mut transcoder, &packets));
        let seconds = samples.len() as f64 / f64::from(HZ);
        assert!((expected_seconds - seconds).abs() < 0.05, "{back_ms}: {seconds}");
    }
}

#[test]
fn packets_of_all_lengths_are_taken() {
    for millis in [5, 10, 20, 40, 60] {
        let length = HZ as usize * millis / 1000;
        let mut encoder = opus::Encoder::new(HZ, opus::Channels::Mono, opus::Application::Audio).unwrap();
        let mut transcoder = OpusToAac::new(AacOptions::default()).unwrap();
        let packets: Vec<_> = (0..1200 / millis)
            .map(|i| {
                let pcm: Vec<f32> =
                    (0..length).map(|sample| tone((i * length + sample) as f64 / f64::from(HZ)) as f32).collect();
                (MediaTime::from_millis((40 + i * millis) as i64), encoder.encode_vec_float(&pcm, 1500).unwrap())
            })
            .collect();
        let (_, samples) = heard(&push(&mut transcoder, &packets));
        assert!((level(&samples[30_000..]) - 0.5).abs() < 0.03, "{millis} ms");
        assert_eq!(transcoder.concealed_samples(), 0, "{millis} ms");
    }
}

#[test]
fn broken_packets_are_concealed_when_the_next_one_comes() {
    let mut packets = opus(1.0, MediaTime::from_millis(40), tone, false);
    // A code 3 packet of too many frames.
    packets[20].1 = vec![0xff, 0xff, 0, 0];
    packets[21].1.clear();
    let mut transcoder = OpusToAac::new(AacOptions::default()).unwrap();
    let (mut frames, mut errors) = (Vec::new(), 0);
    for (pts, data) in &packets {
        errors += usize::from(transcoder.push(OpusIn { pts: *pts, data }, &mut |frame| frames.push(frame)).is_err());
    }
    transcoder.finish(&mut |frame| frames.push(frame)).unwrap();
    assert_eq!((errors, transcoder.concealed_samples()), (2, 1920));
    let (_, samples) = heard(&frames);
    assert!(samples.len() >= 48_000 + 1024, "{}", samples.len());
}
