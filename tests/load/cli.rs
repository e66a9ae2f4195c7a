//! The command line.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Parser;
use clap::builder::RangedU64ValueParser;
use serde::Serialize;

use crate::http::Url;
use crate::live::LiveOptions;
use crate::peer::Template;
use crate::synthetic::VideoCodec;

/// NACK counts of viewers are as fresh as this.
const STATS_INTERVAL: Duration = Duration::from_secs(2);

/// Runs WHIP publishers and WHEP viewers against a server, checks the media that arrives and reports what it cost.
///
/// Every session is a WebRTC client of its own, with its own UDP port, full ICE, DTLS and SRTP. The media is synthetic
/// and carries a clock and numbers, so that loss, duplicates and delay are measured from end to end. `{n}` in a URL
/// stands for the number of the publisher, from 0.
#[derive(Debug, Clone, Parser)]
#[command(name = "freshet-load", version, args_override_self = true, args_conflicts_with_subcommands = true)]
pub(crate) struct CommandLine {
    #[command(flatten)]
    pub(crate) webrtc: Options,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// What is loaded other than WebRTC.
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum Command {
    Live(LiveOptions),
}

/// A run of WebRTC sessions.
#[derive(Debug, Clone, clap::Args, Serialize)]
pub(crate) struct Options {
    /// The server; `--whip` and `--whep` default to its /whip/live/load-{n} and /whep/live/load-{n}
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    pub(crate) server: String,
    /// Where publishers post their offers
    #[arg(long)]
    pub(crate) whip: Option<String>,
    /// Where viewers post their offers
    #[arg(long)]
    pub(crate) whep: Option<String>,
    /// Bearer token for all requests
    #[arg(long)]
    #[serde(skip)]
    pub(crate) bearer: Option<String>,
    /// Publishers; with 0, viewers watch one stream (n = 0) that somebody else publishes
    #[arg(long, default_value_t = 1)]
    pub(crate) publishers: u32,
    /// Viewers of each stream
    #[arg(long, default_value_t = 10)]
    pub(crate) viewers: u32,
    /// Viewers of each stream whose media is decrypted and checked; the others only count the sequence numbers in the
    /// clear RTP headers and send no feedback on media, which costs this tool about half. Default: all
    #[arg(long)]
    pub(crate) checked: Option<u32>,
    /// Viewers that join per second; 0: all at once
    #[arg(long, default_value_t = 0.0)]
    pub(crate) join_rate: f64,
    /// Seconds until a session must have connected and a viewer must have its first keyframe
    #[arg(long, default_value_t = 20.0)]
    pub(crate) join_timeout: f64,
    /// Seconds between the last join and the measured span
    #[arg(long, default_value_t = 2.0)]
    pub(crate) warmup: f64,
    /// Seconds that are measured
    #[arg(long, default_value_t = 10.0)]
    pub(crate) duration: f64,
    /// Local address of the sessions' sockets
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    pub(crate) local: IpAddr,
    /// Threads that carry viewers; publishers have their own
    #[arg(long, default_value_t = 2)]
    pub(crate) threads: u32,
    /// Shape of the video
    #[arg(long, value_enum, default_value_t = VideoCodec::H264)]
    pub(crate) codec: VideoCodec,
    /// Video kbit/s of each publisher
    #[arg(long, default_value_t = 1000)]
    pub(crate) bitrate_kbps: u64,
    /// Frames per second
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=240))]
    pub(crate) fps: u32,
    /// Seconds between keyframes; 0: only on request, as browsers do
    #[arg(long, default_value_t = 0.0)]
    pub(crate) keyframe_interval: f64,
    /// Largest video payload in bytes; frames are cut into equal pieces
    #[arg(long, default_value_t = 1200, value_parser = payload_bytes(100))]
    pub(crate) packet_size: usize,
    /// Audio payload in bytes, 50 per second
    #[arg(long, default_value_t = 100, value_parser = payload_bytes(40))]
    pub(crate) audio_packet_size: usize,
    /// Share (0 to 1) of RTP packets that viewers drop on arrival, to make them ask for retransmissions
    #[arg(long, default_value_t = 0.0)]
    pub(crate) rtp_loss: f64,
    /// Share (0 to 1) of RTP packets that publishers drop instead of sending
    #[arg(long, default_value_t = 0.0)]
    pub(crate) publish_loss: f64,
    /// Connect, but send no media: what sessions cost on their own
    #[arg(long)]
    pub(crate) silent: bool,
    /// End without DELETE, as clients that crash
    #[arg(long)]
    pub(crate) no_leave: bool,
    /// Process id of the server, if it runs here: its CPU time and memory are reported
    #[arg(long)]
    pub(crate) server_pid: Option<u32>,
    /// Write the report as JSON to this file
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
    /// Include each viewer in the JSON report
    #[arg(long)]
    pub(crate) per_viewer: bool,
    /// Exit with status 1 if a viewer failed or a packet of the measured span is missing
    #[arg(long)]
    pub(crate) strict: bool,
}

impl Options {
    /// Refuses what cannot work, before anything is started.
    pub(crate) fn check(&self) -> Result<()> {
        for (name, share) in [("--rtp-loss", self.rtp_loss), ("--publish-loss", self.publish_loss)] {
            if !(0.0..=1.0).contains(&share) {
                bail!("{name} {share}: give a share between 0 and 1 (0.02 is 2 %)");
            }
        }
        let spans = [self.join_timeout, self.warmup, self.duration, self.keyframe_interval, self.join_rate];
        if spans.iter().any(|span| !(0.0..=1e6).contains(span)) {
            bail!("times and rates must not be negative or above a million");
        }
        if self.threads == 0 {
            bail!("--threads must be at least 1");
        }
        self.whip_url(0)?;
        self.whep_url(0)?;
        let files = u64::from(self.publishers) + 2 * self.all_viewers() + 100;
        if let Some(limit) = open_files_limit().filter(|limit| *limit < files) {
            bail!("{files} open files may be needed, {limit} are allowed: run `ulimit -n {files}` first");
        }
        Ok(())
    }

    pub(crate) fn whip_url(&self, stream: u32) -> Result<Url> {
        self.url(self.whip.as_deref(), "whip", stream)
    }

    pub(crate) fn whep_url(&self, stream: u32) -> Result<Url> {
        self.url(self.whep.as_deref(), "whep", stream)
    }

    fn url(&self, template: Option<&str>, kind: &str, stream: u32) -> Result<Url> {
        let default = || format!("{}/{kind}/live/load-{{n}}", self.server.trim_end_matches('/'));
        let template = template.map_or_else(default, str::to_owned);
        Url::parse(&template.replace("{n}", &stream.to_string()))
    }

    /// Streams that are watched.
    pub(crate) fn streams(&self) -> u32 {
        self.publishers.max(1)
    }

    pub(crate) fn all_viewers(&self) -> u64 {
        u64::from(self.viewers) * u64::from(self.streams())
    }

    pub(crate) fn join_timeout(&self) -> Duration {
        Duration::from_secs_f64(self.join_timeout)
    }

    pub(crate) fn keyframe_interval(&self) -> Option<Duration> {
        (self.keyframe_interval > 0.0).then(|| Duration::from_secs_f64(self.keyframe_interval))
    }

    /// What publishers and viewers are built from: a publisher has one video codec, a viewer offers all, as browsers
    /// do.
    pub(crate) fn templates(&self) -> Result<(Template, Template)> {
        let viewer = Template::new(self.local, STATS_INTERVAL)?;
        let publisher = viewer.clone().map_config(|config| {
            let mut config = config.clear_codecs().enable_opus(true, false);
            match self.codec {
                // Constrained baseline 3.1, packetization mode 1: what every browser has.
                VideoCodec::H264 => config.codec_config().add_h264(108.into(), Some(109.into()), true, 0x42e01f),
                VideoCodec::Vp8 => config.codec_config().enable_vp8(true),
            }
            config
        });
        Ok((publisher, viewer))
    }
}

/// Up to what fits a packet with all its headers on any path.
fn payload_bytes(least: u64) -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(least..=1200)
}

/// The soft limit of open files, from `/proc/self/limits`.
fn open_files_limit() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(arguments: &[&str]) -> Options {
        CommandLine::parse_from([&["load"], arguments].concat()).webrtc
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        CommandLine::command().debug_assert();
    }

    #[test]
    fn urls_take_the_number_of_the_stream() {
        let options = options(&["--whep", "http://h/rtc/v1/whep/?app=live&stream=cam{n}"]);
        assert_eq!(options.whep_url(3).ok(), Url::parse("http://h/rtc/v1/whep/?app=live&stream=cam3").ok());
        assert_eq!(options.whip_url(3).ok(), Url::parse("http://127.0.0.1:8080/whip/live/load-3").ok());
    }

    #[test]
    fn a_percentage_instead_of_a_share_is_refused() {
        assert!(options(&["--rtp-loss", "2"]).check().is_err());
    }
}
