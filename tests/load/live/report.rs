//! One report of what all players saw, as JSON and as a table.

use std::collections::BTreeMap;
use std::fmt::{self, Display};

use serde::Serialize;

use super::publisher::PublisherReport;
use super::{LiveOptions, Output, Run, Seen};
use crate::report::{Spread, spread};
use crate::tally::Histogram;
use crate::usage::ProcessUse;

/// Figures that no player knows.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Surroundings {
    /// Each server process in the measured span.
    pub(super) server: Vec<ProcessUse>,
    pub(super) rss_before_kb: u64,
    pub(super) rss_with_players_kb: u64,
    /// This tool in the measured span.
    pub(super) client: ProcessUse,
    pub(super) core_busy_percent: Vec<f64>,
}

#[derive(Debug, Clone, Serialize)]
pub(super) struct LiveReport {
    options: LiveOptions,
    players: Players,
    received: Received,
    /// From connecting to the last byte of the first keyframe.
    first_keyframe_ms: Spread,
    /// The longest silence of each player.
    longest_gap_ms: Spread,
    /// From the stamp of a picture to its last byte, at players that share threads.
    delay_ms: Spread,
    /// The same at the players that have a thread of their own.
    delay_probes_ms: Spread,
    published: Option<PublisherReport>,
    publisher_lag_ms: Spread,
    #[serde(flatten)]
    surroundings: Surroundings,
    derived: Derived,
}

#[derive(Debug, Clone, Default, Serialize)]
struct Players {
    asked: u64,
    /// Got media in the measured span.
    fed: u64,
    failed: u64,
    ended_early: u64,
    failures: BTreeMap<String, u64>,
}

#[derive(Debug, Clone, Default, Serialize)]
struct Received {
    mbit_per_s: f64,
    messages_per_s: f64,
    /// System calls that brought something.
    reads_per_s: f64,
    /// Of one player.
    messages_min: u64,
    messages_max: u64,
    /// Sent in the span, never seen by a player; known of our own publisher only.
    missing: u64,
    duplicates: u64,
    players_with_missing: u64,
    /// Steps of the pictures' time above 100 ms.
    jumps: u64,
}

#[derive(Debug, Clone, Default, Serialize)]
struct Derived {
    server_cpu_percent: f64,
    server_cpu_percent_per_100_players: f64,
    server_us_per_message: f64,
    server_rss_kb_per_player: f64,
    client_cpu_percent: f64,
}

impl LiveReport {
    pub(super) fn new(
        run: &Run,
        probes: Output,
        crowd: Vec<Output>,
        published: Option<PublisherReport>,
        surroundings: Surroundings,
    ) -> LiveReport {
        let mut delay = Histogram::new();
        crowd.iter().for_each(|output| delay.merge(&output.delay));
        let all: Vec<&Seen> = crowd.iter().chain([&probes]).flat_map(|output| &output.seen).collect();
        let players = players(&all);
        let received = received(&all, published.as_ref(), run.options.duration.max(0.001));
        LiveReport {
            options: run.options.clone(),
            first_keyframe_ms: spread(all.iter().filter_map(|seen| Some(seen.first_keyframe?.as_secs_f64() * 1e3))),
            longest_gap_ms: spread(all.iter().map(|seen| seen.longest_gap_ns as f64 / 1e6)),
            delay_ms: Spread::from(&delay),
            delay_probes_ms: Spread::from(&probes.delay),
            publisher_lag_ms: published.as_ref().map(|report| Spread::from(&report.lag)).unwrap_or_default(),
            derived: derive(&surroundings, &players, &received),
            players,
            received,
            published,
            surroundings,
        }
    }

    /// Whether anything was measured at all.
    pub(super) fn is_useful(&self) -> bool {
        self.players.fed > 0 || self.players.asked == 0
    }

    /// Whether everybody got everything.
    pub(super) fn is_clean(&self) -> bool {
        self.players.fed == self.players.asked
            && self.players.failed + self.players.ended_early == 0
            && self.received.missing + self.received.duplicates + self.received.jumps == 0
    }
}

fn players(all: &[&Seen]) -> Players {
    let mut players = Players { asked: all.len() as u64, ..Players::default() };
    for seen in all {
        players.fed += u64::from(seen.video_messages + seen.audio_messages > 0);
        if let Some(failure) = &seen.failure {
            *players.failures.entry(failure.clone()).or_default() += 1;
            *(if seen.connected { &mut players.ended_early } else { &mut players.failed }) += 1;
        }
    }
    players
}

fn received(all: &[&Seen], published: Option<&PublisherReport>, seconds: f64) -> Received {
    let messages = |seen: &Seen| seen.video_messages + seen.audio_messages;
    let sum = |value: fn(&Seen) -> u64| all.iter().map(|seen| value(seen)).sum::<u64>() as f64;
    let mut received = Received {
        mbit_per_s: sum(|seen| seen.bytes) * 8.0 / seconds / 1e6,
        messages_per_s: sum(|seen| seen.video_messages + seen.audio_messages) / seconds,
        reads_per_s: sum(|seen| seen.reads) / seconds,
        messages_min: all.iter().map(|seen| messages(seen)).min().unwrap_or(0),
        messages_max: all.iter().map(|seen| messages(seen)).max().unwrap_or(0),
        ..Received::default()
    };
    for seen in all {
        received.jumps += seen.jumps;
        received.duplicates += seen.video.duplicates + seen.audio.duplicates;
        let Some(published) = published else { continue };
        let video = published.video.saturating_sub(seen.video.unique);
        let missing = video + published.audio.saturating_sub(seen.audio.unique);
        received.missing += missing;
        received.players_with_missing += u64::from(missing > 0);
    }
    received
}

fn derive(surroundings: &Surroundings, players: &Players, received: &Received) -> Derived {
    let percent = |usage: &ProcessUse| 100.0 * usage.cpu_s / usage.seconds.max(0.001);
    let server: f64 = surroundings.server.iter().map(percent).sum();
    let fed = players.fed.max(1) as f64;
    Derived {
        server_cpu_percent: server,
        server_cpu_percent_per_100_players: server * 100.0 / fed,
        server_us_per_message: server * 1e4 / received.messages_per_s.max(1.0),
        server_rss_kb_per_player: (surroundings.rss_with_players_kb as f64 - surroundings.rss_before_kb as f64) / fed,
        client_cpu_percent: percent(&surroundings.client),
    }
}

impl Display for LiveReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut row = |name: &str, value: fmt::Arguments<'_>| writeln!(f, "{name:<24}{value}");
        let (players, received, derived) = (&self.players, &self.received, &self.derived);
        row(
            "players",
            format_args!(
                "{} fed of {}, {} failed, {} ended early",
                players.fed, players.asked, players.failed, players.ended_early
            ),
        )?;
        for (failure, count) in players.failures.iter().take(8) {
            row("", format_args!("{count} x {failure}"))?;
        }
        row("connect to keyframe", format_args!("{}", self.first_keyframe_ms))?;
        row(
            "received",
            format_args!(
                "{:.0} messages/s in {:.0} reads/s, {:.1} Mbit/s; {} to {} messages each",
                received.messages_per_s,
                received.reads_per_s,
                received.mbit_per_s,
                received.messages_min,
                received.messages_max
            ),
        )?;
        row(
            "missing",
            format_args!(
                "{} messages at {} players, {} duplicates, {} steps in time",
                received.missing, received.players_with_missing, received.duplicates, received.jumps
            ),
        )?;
        row("longest gap", format_args!("{}", self.longest_gap_ms))?;
        row("delay", format_args!("{}", self.delay_ms))?;
        row("delay at probes", format_args!("{}", self.delay_probes_ms))?;
        row("publisher late by", format_args!("{}", self.publisher_lag_ms))?;
        row(
            "server",
            format_args!(
                "{:.1} % CPU, {:.2} % per 100 players, {:.2} us per message, {:.0} KB per player",
                derived.server_cpu_percent,
                derived.server_cpu_percent_per_100_players,
                derived.server_us_per_message,
                derived.server_rss_kb_per_player
            ),
        )?;
        row("this tool", format_args!("{:.1} % CPU", derived.client_cpu_percent))?;
        let busy: Vec<String> = self.surroundings.core_busy_percent.iter().map(|busy| format!("{busy:.0} %")).collect();
        row("cores busy", format_args!("{}", busy.join(", ")))
    }
}
