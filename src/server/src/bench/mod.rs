//! `freshet bench`: how many viewers this machine carries, measured before it goes live.
//!
//! One shard on one thread, with sessions that were set up by real offers, ICE and DTLS, forwards a publisher's packets
//! and sends them with the server's own socket code. What differs from going live: packets go to the loopback
//! interface instead of a network card, and viewers are silent. Both are said in the output.

pub(crate) mod peer;
mod report;
mod sink;
mod stage;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;

use self::peer::Media;
use self::report::Row;
use self::sink::Sink;
use self::stage::{Addresses, Stage, Usage, h264, resident_bytes};
use crate::udp::{self, SendBuffers};

/// Viewers' addresses lie in 127.0.0.0/8 behind this one.
const FIRST_ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 1, 0, 0);
/// A session takes about 50 KB, and the answer does not change any more.
const MAX_VIEWERS: u32 = 50_000;
/// What libwebrtc leaves for a payload in a 1200-byte packet, roughly.
const MAX_PAYLOAD_BYTES: usize = 1150;
const FRAMES_PER_SECOND: u32 = 30;
const OPUS_BYTES: usize = 100;
/// Least common step of frames (33⅓ ms) and Opus packets (20 ms).
const STEP: Duration = Duration::from_nanos(6_666_667);
const STEPS_PER_FRAME: u32 = 5;
const STEPS_PER_OPUS: u32 = 3;
const STEPS_PER_SECOND: u32 = STEPS_PER_FRAME * FRAMES_PER_SECOND;

/// What to measure.
#[derive(Debug, Clone, PartialEq, Args)]
pub(crate) struct BenchArgs {
    /// Numbers of viewers, one line each
    #[arg(long, value_delimiter = ',', default_values_t = [100, 500, 1000], value_parser = clap::value_parser!(u32).range(1..=MAX_VIEWERS as i64))]
    viewers: Vec<u32>,
    /// Video bit rate of the stream
    #[arg(long, default_value_t = 1.0, value_parser = bitrate)]
    bitrate_mbps: f64,
    /// How long to measure each number of viewers
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
}

fn bitrate(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.05..=100.0).contains(&value) { Ok(value) } else { Err("has to be from 0.05 to 100".to_owned()) }
}

/// Measures and prints.
///
/// # Errors
/// The loopback interface cannot be used, or a session does not come about.
pub(crate) fn run(args: &BenchArgs, mut print: impl FnMut(&str) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let mut counts = args.viewers.clone();
    counts.sort_unstable();
    counts.dedup();
    let sink = Sink::open()?;
    let sockets = udp::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), 1).context("cannot open a media socket")?;
    let socket = sockets.first().context("no media socket")?;
    let addresses = Addresses { server: socket.local_addr()?, viewers: (FIRST_ADDRESS, sink.port) };
    let mut buffers = SendBuffers::new();
    let mut stage = Stage::new(addresses)?;
    let mut stream = Stream::new(args.bitrate_mbps);
    print(&report::head(args.bitrate_mbps, stream.packets_per_second(), socket.has_offload()))?;
    // Buffers and the track's history are there before memory is counted.
    stage.join()?;
    for _ in 0..3 * STEPS_PER_SECOND {
        stream.play(&mut stage, &mut Usage::default(), |batch| socket.send(batch, &mut buffers).calls)?;
    }
    let empty = resident_bytes()?;
    let (mut viewers, mut joins) = (1, Vec::new());
    for count in counts {
        while viewers < count {
            joins.push(stage.join()?);
            viewers += 1;
        }
        stream.keyframe_due = true;
        let (mut usage, mut steps) = (Usage::default(), 0u32);
        let (mut calls, mut dropped) = (0, 0);
        let start = Instant::now();
        // Whole seconds of the stream, so that what happens once a second is counted as often as it happens.
        while start.elapsed() < Duration::from_secs(args.seconds) || !steps.is_multiple_of(STEPS_PER_SECOND) {
            stream.play(&mut stage, &mut usage, |batch| {
                let report = socket.send(batch, &mut buffers);
                (calls, dropped) = (calls + report.calls, dropped + report.dropped);
                report.calls
            })?;
            steps += 1;
        }
        let bytes = resident_bytes()?.saturating_sub(empty);
        let played = f64::from(steps) / f64::from(STEPS_PER_SECOND);
        print(&Row { viewers, usage: &usage, played, dropped, bytes, joins: &joins }.to_string())?;
    }
    print(report::FOOT)
}

/// The packets of a stream: video in bursts of a frame, and Opus between them.
struct Stream {
    step: u32,
    frame_bytes: usize,
    keyframe_due: bool,
    burst: Vec<Media>,
}

impl Stream {
    fn new(bitrate_mbps: f64) -> Stream {
        let frame_bytes = (bitrate_mbps * 1e6 / 8.0 / f64::from(FRAMES_PER_SECOND)) as usize;
        Stream { step: 0, frame_bytes, keyframe_due: true, burst: Vec::new() }
    }

    fn packets_per_second(&self) -> u32 {
        let frame = self.frame_bytes.div_ceil(MAX_PAYLOAD_BYTES) as u32;
        FRAMES_PER_SECOND * frame + STEPS_PER_SECOND / STEPS_PER_OPUS
    }

    fn play(
        &mut self,
        stage: &mut Stage,
        usage: &mut Usage,
        send: impl FnMut(&freshet_sfu::SendBatch) -> u64,
    ) -> anyhow::Result<()> {
        self.burst.clear();
        if self.step.is_multiple_of(STEPS_PER_FRAME) {
            self.frame();
        }
        if self.step.is_multiple_of(STEPS_PER_OPUS) {
            let timestamp = (self.step / STEPS_PER_OPUS).wrapping_mul(960);
            let payload: Arc<[u8]> = [0xfc; OPUS_BYTES].into();
            self.burst.push(Media { is_video: false, timestamp, marker: false, payload });
        }
        self.step = self.step.wrapping_add(1);
        stage.play(STEP, &self.burst, usage, send)
    }

    /// Pieces as libwebrtc cuts them: about equal, the first ones a byte shorter.
    fn frame(&mut self) {
        let keyframe = std::mem::take(&mut self.keyframe_due);
        let count = self.frame_bytes.div_ceil(MAX_PAYLOAD_BYTES);
        let (bytes, longer) = (self.frame_bytes / count, self.frame_bytes % count);
        for i in 0..count {
            let last = i + 1 == count;
            let payload = h264(bytes + usize::from(i >= count - longer), keyframe, i == 0, last);
            let timestamp = (self.step / STEPS_PER_FRAME).wrapping_mul(90_000 / FRAMES_PER_SECOND);
            self.burst.push(Media { is_video: true, timestamp, marker: last, payload });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_has_its_bit_rate_and_packet_rate() {
        let mut stream = Stream::new(1.0);
        let (mut bytes, mut packets) = (0, 0);
        for step in 0..STEPS_PER_SECOND {
            stream.burst.clear();
            stream.step = step;
            if step.is_multiple_of(STEPS_PER_FRAME) {
                stream.frame();
            }
            bytes += stream.burst.iter().map(|p| p.payload.len()).sum::<usize>();
            packets += stream.burst.len() as u32;
        }
        assert!((124_000..=125_000).contains(&bytes), "{bytes}");
        assert_eq!(packets + 50, stream.packets_per_second());
    }

    #[test]
    fn a_small_measurement_runs_to_its_end() {
        let args = BenchArgs { viewers: vec![3, 2], bitrate_mbps: 0.5, seconds: 1 };
        let mut text = String::new();
        run(&args, |t| {
            text.push_str(t);
            Ok(())
        })
        .unwrap();
        assert_eq!(text.lines().filter(|l| l.trim_start().starts_with(['2', '3'])).count(), 2, "{text}");
    }
}
