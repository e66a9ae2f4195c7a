//! Turns what the sessions saw into one report, as JSON and as a table.

use std::collections::BTreeMap;
use std::fmt::{self, Display};

use serde::Serialize;

use crate::cli::Options;
use crate::publisher::PublisherReport;
use crate::run::{ThreadSums, WorkerOutput};
use crate::tally::Histogram;
use crate::usage::ProcessUse;
use crate::viewer::{TrackReport, ViewerReport};

/// Different failures in the table; the JSON report has all.
const SHOWN_FAILURES: usize = 8;

/// Figures of the orchestrator that no session knows.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Surroundings {
    /// From the first to the last join.
    pub(crate) join_seconds: f64,
    pub(crate) server: Option<ServerFigures>,
    /// This tool, in the measured span.
    pub(crate) client: Option<ProcessUse>,
    /// Busy share of each core of the machine in the measured span, all processes.
    pub(crate) core_busy_percent: Vec<f64>,
    /// Datagrams dropped by the kernel before a full socket in the measured span, all processes.
    pub(crate) udp_receive_drops: u64,
}

/// The server process.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ServerFigures {
    /// While viewers joined.
    pub(crate) joining: ProcessUse,
    /// In the measured span.
    pub(crate) measured: ProcessUse,
    pub(crate) rss_before_viewers_kb: u64,
    pub(crate) rss_with_viewers_kb: u64,
    pub(crate) rss_after_leaving_kb: u64,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Report {
    options: Options,
    viewers: ViewerFigures,
    join: JoinFigures,
    received: ReceivedFigures,
    /// Milliseconds from the publisher's stamp to arrival at the viewer.
    delay_packet_ms: Spread,
    delay_frame_ms: Spread,
    published: PublishedFigures,
    #[serde(flatten)]
    surroundings: Surroundings,
    derived: Derived,
    /// How late timers of this tool's viewer threads fired.
    client_lag_ms: Spread,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    per_viewer: Vec<ViewerReport>,
}

/// Quantiles of some values.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Spread {
    count: u64,
    p50: f64,
    p95: f64,
    p99: f64,
    max: f64,
}

#[derive(Debug, Clone, Default, Serialize)]
struct ViewerFigures {
    asked: u64,
    joined: u64,
    failed: u64,
    ended_early: u64,
    /// Checked media during the whole measured span.
    checked: u64,
    failures: BTreeMap<String, u64>,
}

/// Milliseconds from posting the offer.
#[derive(Debug, Clone, Default, Serialize)]
struct JoinFigures {
    answer_ms: Spread,
    connected_ms: Spread,
    first_media_ms: Spread,
    first_keyframe_ms: Spread,
}

#[derive(Debug, Clone, Default, Serialize)]
struct ReceivedFigures {
    packets_per_s: f64,
    payload_mbit_per_s: f64,
    video: TrackReport,
    audio: TrackReport,
    /// Sent by the publisher, never seen by a viewer who watched during the whole span.
    missing_video: u64,
    missing_audio: u64,
    /// The viewer with most missing packets.
    missing_worst_viewer: u64,
    viewers_with_missing: u64,
    frames_complete: u64,
    frames_incomplete: u64,
    nacks_sent: u64,
    dropped_on_request: u64,
    foreign: u64,
    unstamped: u64,
    marker_errors: u64,
}

#[derive(Debug, Clone, Default, Serialize)]
struct PublishedFigures {
    asked: u64,
    failed: u64,
    failures: BTreeMap<String, u64>,
    connected_ms: Spread,
    video_packets: u64,
    audio_packets: u64,
    keyframes: u64,
    keyframes_total: u64,
    keyframe_requests: u64,
    keyframe_requests_total: u64,
    nacks_received_total: u64,
    skipped: u64,
    send_drops: u64,
    lag_ms: Spread,
}

/// Ratios that people ask for.
#[derive(Debug, Clone, Default, Serialize)]
struct Derived {
    server_cpu_percent: Option<f64>,
    /// Server CPU in the measured span by RTP packets that reached viewers, ingest included.
    server_ns_per_packet: Option<f64>,
    /// Server CPU while viewers joined by viewers that joined; with media running it holds the media too.
    server_ms_per_join: Option<f64>,
    server_rss_kb_per_viewer: Option<f64>,
    client_cpu_percent: Option<f64>,
}

impl Report {
    pub(crate) fn new(options: &Options, outputs: Vec<WorkerOutput>, surroundings: Surroundings) -> Report {
        let mut sums = ThreadSums::new();
        let (mut publishers, mut viewers) = (Vec::new(), Vec::new());
        for output in outputs {
            sums.merge(&output.sums);
            publishers.extend(output.publishers);
            viewers.extend(output.viewers);
        }
        let figures = viewer_figures(&viewers);
        let mut received = received_figures(&viewers, &publishers);
        let seconds = options.duration.max(0.001);
        received.packets_per_s = sums.rtp_datagrams as f64 / seconds;
        received.payload_mbit_per_s = (received.video.bytes + received.audio.bytes) as f64 * 8.0 / seconds / 1e6;
        let derived = derive(&surroundings, sums.rtp_datagrams, figures.joined);
        Report {
            options: options.clone(),
            join: JoinFigures {
                answer_ms: spread(viewers.iter().filter_map(|v| v.answer_ms)),
                connected_ms: spread(viewers.iter().filter_map(|v| v.connected_ms)),
                first_media_ms: spread(viewers.iter().filter_map(|v| v.first_media_ms)),
                first_keyframe_ms: spread(viewers.iter().filter_map(|v| v.first_keyframe_ms)),
            },
            viewers: figures,
            received,
            delay_packet_ms: Spread::from(&sums.packet_delay),
            delay_frame_ms: Spread::from(&sums.frame_delay),
            published: published_figures(&publishers, &sums),
            derived,
            client_lag_ms: Spread::from(&sums.thread_lag),
            surroundings,
            per_viewer: if options.per_viewer { viewers } else { Vec::new() },
        }
    }

    /// Whether anything was measured at all.
    pub(crate) fn is_useful(&self) -> bool {
        (self.viewers.joined > 0 || self.viewers.asked == 0)
            && (self.published.failed == 0 || self.published.failed < self.published.asked)
    }

    /// Whether everything that was asked for arrived.
    pub(crate) fn is_clean(&self) -> bool {
        let received = &self.received;
        self.viewers.failed + self.viewers.ended_early + self.published.failed == 0
            && received.missing_video + received.missing_audio == 0
            && received.foreign + received.marker_errors == 0
    }
}

fn viewer_figures(viewers: &[ViewerReport]) -> ViewerFigures {
    let mut figures = ViewerFigures { asked: viewers.len() as u64, ..ViewerFigures::default() };
    for viewer in viewers {
        figures.checked += u64::from(viewer.measured_fully);
        figures.ended_early += u64::from(viewer.ended_early);
        let failed = viewer.failure.is_some() && !viewer.ended_early;
        figures.failed += u64::from(failed);
        figures.joined += u64::from(!failed);
        if let Some(failure) = &viewer.failure {
            *figures.failures.entry(failure.clone()).or_default() += 1;
        }
    }
    figures
}

fn received_figures(viewers: &[ViewerReport], publishers: &[PublisherReport]) -> ReceivedFigures {
    let mut figures = ReceivedFigures::default();
    for viewer in viewers {
        add(&mut figures.video, &viewer.video);
        add(&mut figures.audio, &viewer.audio);
        figures.frames_complete += viewer.frames_complete;
        figures.frames_incomplete += viewer.frames_incomplete;
        figures.nacks_sent += viewer.nacks_sent;
        figures.dropped_on_request += viewer.dropped;
        figures.foreign += viewer.foreign;
        figures.unstamped += viewer.unstamped;
        figures.marker_errors += viewer.marker_errors;
        let publisher = publishers.iter().find(|publisher| publisher.stream == viewer.stream);
        let Some(publisher) = publisher.filter(|_| viewer.measured_fully) else { continue };
        let video = publisher.video_packets.saturating_sub(viewer.video.unique);
        let audio = publisher.audio_packets.saturating_sub(viewer.audio.unique);
        figures.missing_video += video;
        figures.missing_audio += audio;
        figures.missing_worst_viewer = figures.missing_worst_viewer.max(video + audio);
        figures.viewers_with_missing += u64::from(video + audio > 0);
    }
    figures
}

fn published_figures(publishers: &[PublisherReport], sums: &ThreadSums) -> PublishedFigures {
    let mut figures = PublishedFigures {
        asked: publishers.len() as u64,
        connected_ms: spread(publishers.iter().filter_map(|publisher| publisher.connected_ms)),
        lag_ms: Spread::from(&sums.send_lag),
        ..PublishedFigures::default()
    };
    for publisher in publishers {
        figures.video_packets += publisher.video_packets;
        figures.audio_packets += publisher.audio_packets;
        figures.keyframes += publisher.keyframes;
        figures.keyframes_total += publisher.keyframes_total;
        figures.keyframe_requests += publisher.keyframe_requests;
        figures.keyframe_requests_total += publisher.keyframe_requests_total;
        figures.nacks_received_total += publisher.nacks_received_total;
        figures.skipped += publisher.skipped;
        figures.send_drops += publisher.send_drops;
        if let Some(failure) = &publisher.failure {
            figures.failed += 1;
            *figures.failures.entry(failure.clone()).or_default() += 1;
        }
    }
    figures
}

fn derive(surroundings: &Surroundings, packets: u64, joined: u64) -> Derived {
    let percent = |usage: &ProcessUse| 100.0 * usage.cpu_s / usage.seconds.max(0.001);
    let server = surroundings.server.as_ref();
    Derived {
        server_cpu_percent: server.map(|server| percent(&server.measured)),
        server_ns_per_packet: server.filter(|_| packets > 0).map(|s| s.measured.cpu_s * 1e9 / packets as f64),
        server_ms_per_join: server.filter(|_| joined > 0).map(|s| s.joining.cpu_s * 1e3 / joined as f64),
        server_rss_kb_per_viewer: server
            .filter(|_| joined > 0)
            .map(|server| (server.rss_with_viewers_kb as f64 - server.rss_before_viewers_kb as f64) / joined as f64),
        client_cpu_percent: surroundings.client.as_ref().map(percent),
    }
}

fn add(sum: &mut TrackReport, track: &TrackReport) {
    sum.packets += track.packets;
    sum.bytes += track.bytes;
    sum.lost += track.lost;
    sum.late += track.late;
    sum.duplicates += track.duplicates;
    sum.too_old += track.too_old;
    sum.unique += track.unique;
    sum.ssrc_changes += track.ssrc_changes;
}

pub(crate) fn spread(values: impl Iterator<Item = f64>) -> Spread {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let rank = (values.len() as f64 * share).ceil() as usize;
        values.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
    };
    Spread { count: values.len() as u64, p50: at(0.5), p95: at(0.95), p99: at(0.99), max: at(1.0) }
}

impl From<&Histogram> for Spread {
    fn from(histogram: &Histogram) -> Spread {
        Spread {
            count: histogram.total(),
            p50: histogram.quantile_ms(0.5),
            p95: histogram.quantile_ms(0.95),
            p99: histogram.quantile_ms(0.99),
            max: histogram.max_ms(),
        }
    }
}

impl Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.count == 0 {
            return f.write_str("-");
        }
        write!(f, "p50 {:.1}  p95 {:.1}  p99 {:.1}  max {:.1} ms", self.p50, self.p95, self.p99, self.max)
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut row = |name: &str, value: fmt::Arguments<'_>| writeln!(f, "{name:<24}{value}");
        let (viewers, join, received) = (&self.viewers, &self.join, &self.received);
        row(
            "viewers",
            format_args!(
                "{} joined of {}, {} failed, {} ended early, {} fully checked; joins took {:.1} s",
                viewers.joined,
                viewers.asked,
                viewers.failed,
                viewers.ended_early,
                viewers.checked,
                self.surroundings.join_seconds
            ),
        )?;
        for (failure, count) in viewers.failures.iter().take(SHOWN_FAILURES) {
            row("", format_args!("{count} x {failure}"))?;
        }
        row("offer to answer", format_args!("{}", join.answer_ms))?;
        row("offer to connected", format_args!("{}", join.connected_ms))?;
        row("offer to first packet", format_args!("{}", join.first_media_ms))?;
        row("offer to keyframe", format_args!("{}", join.first_keyframe_ms))?;
        row(
            "received",
            format_args!(
                "{:.0} packets/s, {:.1} Mbit/s of payload",
                received.packets_per_s, received.payload_mbit_per_s
            ),
        )?;
        row(
            "missing end to end",
            format_args!(
                "{} video, {} audio, at {} viewers; worst viewer {}",
                received.missing_video,
                received.missing_audio,
                received.viewers_with_missing,
                received.missing_worst_viewer
            ),
        )?;
        for (name, track) in [("video sequence", &received.video), ("audio sequence", &received.audio)] {
            row(
                name,
                format_args!(
                    "{} packets, {} lost, {} late, {} duplicate, {} SSRC changes",
                    track.packets, track.lost, track.late, track.duplicates, track.ssrc_changes
                ),
            )?;
        }
        row(
            "frames",
            format_args!("{} complete, {} incomplete", received.frames_complete, received.frames_incomplete),
        )?;
        let wrong = received.foreign + received.unstamped + received.marker_errors;
        if wrong > 0 {
            row(
                "wrong packets",
                format_args!(
                    "{} of another stream, {} without stamp, {} with a wrong marker",
                    received.foreign, received.unstamped, received.marker_errors
                ),
            )?;
        }
        row(
            "NACKs",
            format_args!(
                "{} sent by viewers ({} packets dropped on request)",
                received.nacks_sent, received.dropped_on_request
            ),
        )?;
        row("packet delay", format_args!("{}", self.delay_packet_ms))?;
        row("frame delay", format_args!("{}", self.delay_frame_ms))?;
        self.fmt_publishers(f)?;
        self.fmt_usage(f)
    }
}

impl Report {
    fn fmt_publishers(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let published = &self.published;
        writeln!(
            f,
            "{:<24}{} of {} connected; {} video and {} audio packets, {} skipped, {} not taken by the kernel",
            "publishers",
            published.asked - published.failed,
            published.asked,
            published.video_packets,
            published.audio_packets,
            published.skipped,
            published.send_drops
        )?;
        for (failure, count) in published.failures.iter().take(SHOWN_FAILURES) {
            writeln!(f, "{:<24}{count} x {failure}", "")?;
        }
        writeln!(
            f,
            "{:<24}{} keyframe requests ({} measured), {} keyframes ({} measured), {} NACKs",
            "publishers received",
            published.keyframe_requests_total,
            published.keyframe_requests,
            published.keyframes_total,
            published.keyframes,
            published.nacks_received_total
        )?;
        writeln!(f, "{:<24}{}", "publisher lag", published.lag_ms)?;
        writeln!(f, "{:<24}{}", "viewer thread lag", self.client_lag_ms)
    }

    fn fmt_usage(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let derived = &self.derived;
        if let Some(server) = &self.surroundings.server {
            let used = &server.measured;
            writeln!(
                f,
                "{:<24}{:.2} s in {:.1} s = {:.0} % of a core ({:.2} user, {:.2} system), {:.0} ns per packet",
                "server CPU",
                used.cpu_s,
                used.seconds,
                derived.server_cpu_percent.unwrap_or_default(),
                used.user_s,
                used.system_s,
                derived.server_ns_per_packet.unwrap_or_default()
            )?;
            let threads = used.threads.iter().take(6).map(|(name, seconds)| format!("{name} {seconds:.2}"));
            writeln!(f, "{:<24}{}", "server threads, s", threads.collect::<Vec<_>>().join("  "))?;
            writeln!(
                f,
                "{:<24}{:.2} s, {:.2} ms per viewer",
                "server CPU, joining",
                server.joining.cpu_s,
                derived.server_ms_per_join.unwrap_or_default()
            )?;
            writeln!(
                f,
                "{:<24}{:.1} MB before, {:.1} with viewers ({:.0} KB each), {:.1} after they left",
                "server RSS",
                server.rss_before_viewers_kb as f64 / 1024.0,
                server.rss_with_viewers_kb as f64 / 1024.0,
                derived.server_rss_kb_per_viewer.unwrap_or_default(),
                server.rss_after_leaving_kb as f64 / 1024.0
            )?;
        }
        if let Some(percent) = derived.client_cpu_percent {
            writeln!(f, "{:<24}{percent:.0} % of a core", "this tool's CPU")?;
        }
        let cores = self.surroundings.core_busy_percent.iter().map(|busy| format!("{busy:.0} %"));
        writeln!(
            f,
            "{:<24}cores {}; {} datagrams dropped before full sockets",
            "machine",
            cores.collect::<Vec<_>>().join(", "),
            self.surroundings.udp_receive_drops
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::CommandLine;
    use clap::Parser;

    fn viewer(unique: u64) -> ViewerReport {
        let video = TrackReport { unique, ..TrackReport::default() };
        ViewerReport { measured_fully: true, video, ..ViewerReport::default() }
    }

    #[test]
    fn missing_packets_are_counted_against_the_publisher() {
        let publisher = PublisherReport { video_packets: 100, ..PublisherReport::default() };
        let late = ViewerReport { measured_fully: false, ..viewer(10) };
        let figures = received_figures(&[viewer(100), viewer(97), late], &[publisher]);
        assert_eq!((figures.missing_video, figures.viewers_with_missing, figures.missing_worst_viewer), (3, 1, 3));
    }

    #[test]
    fn a_failed_viewer_makes_the_run_unclean() {
        let options = CommandLine::parse_from(["load"]).webrtc;
        let report = |failure| {
            let viewers = vec![ViewerReport { failure, ..viewer(0) }];
            let output = WorkerOutput { publishers: Vec::new(), viewers, sums: ThreadSums::new() };
            Report::new(&options, vec![output], Surroundings::default())
        };
        assert!(report(None).is_clean());
        assert!(!report(Some("x".to_owned())).is_clean());
    }

    #[test]
    fn spread_of_few_values() {
        let spread = spread([3.0, 1.0, 2.0].into_iter());
        assert_eq!((spread.count, spread.p50, spread.max), (3, 2.0, 3.0));
    }
}
