//! The command line of `freshet-load live`.

use std::path::PathBuf;

use anyhow::{Result, bail};
use serde::Serialize;

use super::address::{Address, Protocol};

/// Plays a stream over RTMP or HTTP-FLV many times over, and reports what arrived and what it cost.
///
/// With `--publish` the tool publishes the stream itself, with a clock and numbers in every message, so that delay and
/// loss are measured from end to end. Without, somebody else does, and loss shows as steps of the pictures' time.
#[derive(Debug, Clone, clap::Args, Serialize)]
pub(crate) struct LiveOptions {
    /// What to play: rtmp://HOST:PORT/APP/STREAM or http://HOST:PORT/APP/STREAM.flv
    #[arg(long)]
    pub(super) play: String,
    /// Publish there first: rtmp://HOST:PORT/APP/STREAM
    #[arg(long)]
    pub(super) publish: Option<String>,
    /// Players
    #[arg(long, default_value_t = 10)]
    pub(super) players: u32,
    /// Players among them, evenly spread, that run on a thread of their own: their delay holds no turns of the others
    #[arg(long, default_value_t = 0)]
    pub(super) probes: u32,
    /// Players that join per second; 0: all at once
    #[arg(long, default_value_t = 200.0)]
    pub(super) join_rate: f64,
    /// Seconds between the last join and the measured span
    #[arg(long, default_value_t = 3.0)]
    pub(super) warmup: f64,
    /// Seconds that are measured
    #[arg(long, default_value_t = 10.0)]
    pub(super) duration: f64,
    /// Threads that carry players
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(super) threads: u32,
    /// Published video, kbit/s
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(super) video_kbps: u32,
    /// Published sound, kbit/s
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(16..=1000))]
    pub(super) audio_kbps: u32,
    /// Published pictures per second
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=240))]
    pub(super) fps: u32,
    /// Seconds between published keyframes
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=60))]
    pub(super) keyframe_seconds: u32,
    /// Process ids of the server, comma-separated: their CPU time and memory are reported
    #[arg(long, value_delimiter = ',')]
    pub(super) server_pid: Vec<u32>,
    /// Write the report as JSON to this file
    #[arg(long)]
    pub(super) json: Option<PathBuf>,
    /// Exit with status 1 if a player failed or lost something
    #[arg(long)]
    pub(super) strict: bool,
}

impl LiveOptions {
    /// Where to play and where to publish; refuses what cannot work.
    pub(super) fn addresses(&self) -> Result<(Address, Option<Address>)> {
        let play = Address::parse(&self.play)?;
        let publish = self.publish.as_deref().map(Address::parse).transpose()?;
        if publish.as_ref().is_some_and(|address| !matches!(address.protocol, Protocol::Rtmp { .. })) {
            bail!("--publish takes an rtmp:// address");
        }
        if [self.join_rate, self.warmup, self.duration].iter().any(|span| !(0.0..=1e6).contains(span)) {
            bail!("times and rates must not be negative or above a million");
        }
        Ok((play, publish))
    }

    /// Seconds from the first to the last join.
    pub(super) fn join_seconds(&self) -> f64 {
        if self.join_rate > 0.0 { f64::from(self.players) / self.join_rate } else { 0.0 }
    }

    /// Whether the player of that number has a thread that the crowd does not use.
    pub(super) fn is_probe(&self, number: u32) -> bool {
        let (probes, players) = (u64::from(self.probes.min(self.players)), u64::from(self.players));
        // The middle one of each of as many equal parts.
        (0..probes).any(|probe| (2 * probe + 1) * players / (2 * probes) == u64::from(number))
    }
}
