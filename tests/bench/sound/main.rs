//! `cargo bench -p freshet-tests --bench sound-bench`: how many WebRTC publishers' sound one core makes AAC, in processor
//! time of one thread. For a tone, and for something with the spectrum of music.

#![deny(unsafe_code)]
#![allow(missing_docs, clippy::print_stdout, reason = "a bench prints")]

use std::f64::consts::TAU;

use anyhow::Context as _;
use freshet_bridge::transcode::{AacOptions, OpusIn, OpusToAac};
use freshet_media::MediaTime;

const SECONDS: u64 = 30;
const HZ: u64 = 48_000;
/// Packets of 20 ms.
const PACKET_SAMPLES: u64 = 960;

type Sound = fn(f64) -> f64;

fn tone(time: f64) -> f64 {
    0.5 * (TAU * 440.0 * time).sin()
}

fn music(time: f64) -> f64 {
    let mut state = (time * HZ as f64) as u64;
    state = (state ^ state << 13).wrapping_mul(0x2545_f491_4f6c_dd1d);
    let noise = (state >> 40) as f64 / f64::from(1 << 24) - 0.5;
    0.2 * (TAU * 220.0 * time).sin() + 0.15 * (TAU * 1760.0 * time).sin() * (TAU * 2.0 * time).sin() + 0.1 * noise
}

fn opus_of(sound: Sound) -> anyhow::Result<Vec<Vec<u8>>> {
    let mut encoder = opus::Encoder::new(HZ as u32, opus::Channels::Stereo, opus::Application::Audio)?;
    let packet = |index: u64| {
        let samples = (0..PACKET_SAMPLES).map(|i| sound((index * PACKET_SAMPLES + i) as f64 / HZ as f64) as f32);
        let pcm: Vec<f32> = samples.flat_map(|sample| [sample; 2]).collect();
        Ok(encoder.encode_vec_float(&pcm, 1500)?)
    };
    (0..SECONDS * HZ / PACKET_SAMPLES).map(packet).collect()
}

/// What this thread has used, which neighbours on the machine change less than the time that passes.
fn cpu_seconds() -> anyhow::Result<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").context("no /proc/thread-self/schedstat")?;
    let nanoseconds: f64 = text.split(' ').next().unwrap_or_default().parse()?;
    Ok(nanoseconds / 1e9)
}

fn main() -> anyhow::Result<()> {
    for (name, sound) in [("tone", tone as Sound), ("music-like", music)] {
        let packets = opus_of(sound)?;
        let mut transcoder = OpusToAac::new(AacOptions::default())?;
        let (mut frames, begun) = (0, cpu_seconds()?);
        for (index, data) in packets.iter().enumerate() {
            let pts = MediaTime::from_millis(40 + index as i64 * 20);
            transcoder.push(OpusIn { pts, data }, &mut |_| frames += 1)?;
        }
        let took = cpu_seconds()? - begun;
        println!("{name}: {frames} frames in {took:.3} s: {:.0} streams a core", SECONDS as f64 / took);
    }
    Ok(())
}
