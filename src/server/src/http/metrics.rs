//! `/metrics` in Prometheus' text format 0.0.4, and `/healthz`.
//!
//! Names are `freshet_*`; four of SRS's names are kept for dashboards that exist. No label holds a stream's name, so the
//! number of series does not grow with the streams.

use std::fmt::{Display, Write};
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use freshet_signaling::Counters;

use super::{AppState, Routes, VERSION, system};
use crate::engine::{MetricsSnapshot, Role, ShardSnapshot};
use crate::record::RecordMetrics;

pub(super) fn routes() -> Routes {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/metrics/", get(metrics))
        .route("/healthz", get(health))
        .route("/healthz/", get(health))
}

async fn health(State(state): State<Arc<AppState>>) -> Response {
    if state.sessions.is_draining() {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining\n").into_response();
    }
    "ok\n".into_response()
}

async fn metrics(State(state): State<Arc<AppState>>) -> Response {
    let mut page = Page::default();
    media(&mut page, &state.sessions.metrics());
    if let Some(disk) = state.hls.as_ref().and_then(|hls| hls.disk_status()) {
        page.family("freshet_hls_disk_errors_total", Kind::Counter, "Files of HLS that could not be written.");
        page.sample(&[], disk.errors);
        page.family("freshet_hls_disk_failing_streams", Kind::Gauge, "Streams whose files are not up to date.");
        page.sample(&[], disk.failing.len());
    }
    if let Some(records) = state.records() {
        recordings(&mut page, &records.metrics());
    }
    if let Some(signaling) = &state.signaling {
        rooms(&mut page, signaling.counters());
    }
    let hooks = state.settings.hooks.metrics();
    if !hooks.is_empty() {
        page.family("freshet_hook_events_total", Kind::Counter, "Events for hooks, by what became of them.");
        for (action, outcome, count) in hooks {
            page.sample(&[("action", &action.name()), ("outcome", &outcome)], count);
        }
    }
    page.family("freshet_forwards", Kind::Gauge, "Streams sent on to other servers, by how it goes.");
    let forwards = state.forwards.list();
    for wanted in ["waiting", "connecting", "live", "retrying"] {
        page.sample(&[("state", &wanted)], forwards.iter().filter(|f| f.state.as_str() == wanted).count());
    }
    page.family("freshet_http_responses_total", Kind::Counter, "HTTP responses by class of status.");
    for (class, count) in state.responses.classes() {
        page.sample(&[("class", &class)], count);
    }
    page.family("freshet_cpu_cores", Kind::Gauge, "Processor cores in use by the process, 1 is one core.");
    page.sample(&[], state.cpu.share(state.settings.identity.started));
    page.family("freshet_resident_memory_bytes", Kind::Gauge, "Resident memory of the process.");
    page.sample(&[], system::own_memory_kib() * 1024);
    page.family("freshet_uptime_seconds", Kind::Gauge, "Time since the start of the process.");
    page.sample(&[], state.settings.identity.started.elapsed().as_secs());
    page.family("freshet_build_info", Kind::Gauge, "Always 1; the label tells the version.");
    page.sample(&[("version", &VERSION)], 1);
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], page.text).into_response()
}

/// Name, help text and value of a counter that every shard keeps.
type ShardCounter = (&'static str, &'static str, fn(&ShardSnapshot) -> u64);

const SHARD_COUNTERS: [ShardCounter; 12] = [
    ("freshet_recv_packets_total", "Datagrams received.", |shard| shard.recv_packets),
    ("freshet_recv_bytes_total", "Bytes received.", |shard| shard.recv_bytes),
    ("freshet_sent_packets_total", "Datagrams sent.", |shard| shard.sent_packets),
    ("freshet_sent_bytes_total", "Bytes sent.", |shard| shard.sent_bytes),
    ("freshet_send_calls_total", "System calls that sent.", |shard| shard.send_calls),
    ("freshet_published_packets_total", "RTP packets of publishers.", |shard| shard.published_packets),
    ("freshet_forwarded_packets_total", "RTP packets written for viewers.", |shard| shard.forwarded_packets),
    ("freshet_retransmitted_packets_total", "RTP packets sent again.", |shard| shard.retransmitted_packets),
    ("freshet_nacked_packets_total", "Packets that viewers reported lost.", |shard| shard.nacks),
    ("freshet_keyframe_requests_total", "Keyframe requests of viewers.", |shard| shard.keyframe_requests),
    ("freshet_thinned_viewers_total", "Viewers whose picture was thinned to what their link carries.", |s| s.budgets),
    ("freshet_keyframe_requests_sent_total", "Keyframe requests to publishers.", |shard| shard.keyframe_requests_sent),
];

/// Label and value of a reason for which a shard drops packets.
type DropCounter = (&'static str, fn(&ShardSnapshot) -> u64);

const DROPS: [DropCounter; 7] = [
    ("stranger", |shard| shard.drop_stranger),
    ("stun", |shard| shard.drop_stun),
    ("malformed", |shard| shard.drop_malformed),
    ("send", |shard| shard.drop_send),
    ("relay", |shard| shard.drop_relay),
    ("codec", |shard| shard.drop_codec),
    // Batches of a publisher that crosses to RTMP, FLV or HLS too slowly.
    ("tap", |shard| shard.drop_tap),
];

fn rooms(page: &mut Page, counters: Counters) {
    let gauges = [
        ("freshet_signaling_sockets", "WebSockets of rooms and calls.", counters.sockets),
        ("freshet_rooms", "Rooms and calls.", counters.rooms),
        ("freshet_people", "People in rooms and calls.", counters.people),
    ];
    for (name, help, value) in gauges {
        page.family(name, Kind::Gauge, help);
        page.sample(&[], value);
    }
    let totals = [
        ("freshet_signaling_received_total", "Signaling messages received.", counters.received),
        ("freshet_signaling_sent_total", "Signaling messages sent.", counters.sent),
        ("freshet_signaling_refused_total", "Signaling requests refused.", counters.refused),
        ("freshet_signaling_resumed_total", "Seats taken again after a loss.", counters.resumed),
        ("freshet_signaling_lost_total", "Sockets that answered no ping.", counters.lost),
    ];
    for (name, help, value) in totals {
        page.family(name, Kind::Counter, help);
        page.sample(&[], value);
    }
}

fn media(page: &mut Page, metrics: &MetricsSnapshot) {
    page.family("freshet_streams", Kind::Gauge, "Streams that have a publisher.");
    page.sample(&[], metrics.streams);
    page.family("freshet_sessions", Kind::Gauge, "Publishers and players of all protocols.");
    page.sample(&[("role", &"publish")], metrics.publishers);
    page.sample(&[("role", &"play")], metrics.viewers);
    page.family("freshet_clients", Kind::Gauge, "Publishers and players, by protocol.");
    for (protocol, role, count) in &metrics.by_protocol {
        let role = if *role == Role::Publish { "publish" } else { "play" };
        page.sample(&[("protocol", &protocol.as_str()), ("role", &role)], count);
    }
    page.family("freshet_live_recv_bytes_total", Kind::Counter, "Bytes received from RTMP publishers.");
    page.sample(&[], metrics.live_recv_bytes);
    page.family("freshet_live_sent_bytes_total", Kind::Counter, "Bytes sent to RTMP and FLV players.");
    page.sample(&[], metrics.live_sent_bytes);
    page.family(
        "freshet_rtmp2rtc",
        Kind::Gauge,
        "Streams that cross from RTMP to WebRTC, by what is done to the picture.",
    );
    for (mode, count) in &metrics.crossings {
        page.sample(&[("video", mode)], count);
    }
    page.family("freshet_sessions_opened_total", Kind::Counter, "Sessions opened since the start.");
    page.sample(&[], metrics.sessions_opened);
    page.family("freshet_sessions_closed_total", Kind::Counter, "Sessions ended, by reason.");
    for (reason, count) in &metrics.closed {
        page.sample(&[("reason", reason)], count);
    }
    page.family(
        "freshet_offers_refused_total",
        Kind::Counter,
        "Requests to publish or play that were refused, whatever their protocol, by kind of problem.",
    );
    for (kind, count) in &metrics.refused {
        page.sample(&[("kind", kind)], count);
    }

    page.family("freshet_shard_sessions", Kind::Gauge, "Sessions at home on a shard.");
    for (shard, counters) in metrics.shards.iter().enumerate() {
        page.sample(&[("shard", &shard)], counters.sessions);
    }
    for (name, help, value) in SHARD_COUNTERS {
        page.family(name, Kind::Counter, help);
        for (shard, counters) in metrics.shards.iter().enumerate() {
            page.sample(&[("shard", &shard)], value(counters));
        }
    }
    page.family("freshet_dropped_packets_total", Kind::Counter, "Packets dropped, by reason.");
    for (shard, counters) in metrics.shards.iter().enumerate() {
        for (reason, value) in DROPS {
            page.sample(&[("shard", &shard), ("reason", &reason)], value(counters));
        }
    }

    page.family("srs_streams", Kind::Gauge, "As freshet_streams, under the name of SRS.");
    page.sample(&[], metrics.streams);
    page.family("srs_clients", Kind::Gauge, "All sessions, under the name of SRS.");
    page.sample(&[], metrics.publishers + metrics.viewers);
    page.family("srs_receive_bytes_total", Kind::Counter, "Bytes received, under the name of SRS.");
    page.sample(&[], metrics.shards.iter().map(|shard| shard.recv_bytes).sum::<u64>() + metrics.live_recv_bytes);
    page.family("srs_send_bytes_total", Kind::Counter, "Bytes sent, under the name of SRS.");
    page.sample(&[], metrics.shards.iter().map(|shard| shard.sent_bytes).sum::<u64>() + metrics.live_sent_bytes);
}

fn recordings(page: &mut Page, metrics: &RecordMetrics) {
    page.family("freshet_recordings", Kind::Gauge, "Recordings that run, or wait for their publisher.");
    for (state, count) in metrics.running {
        page.sample(&[("state", &state.as_str())], count);
    }
    page.family("freshet_record_files_total", Kind::Counter, "Files that were recorded.");
    page.sample(&[], metrics.files);
    page.family("freshet_record_bytes_total", Kind::Counter, "Bytes written to recordings.");
    page.sample(&[], metrics.bytes);
    page.family("freshet_record_errors_total", Kind::Counter, "Trouble with the disk of recordings, by cause.");
    for (kind, count) in &metrics.failures {
        page.sample(&[("cause", &kind.as_str())], count);
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
}

/// The text under construction.
#[derive(Default)]
struct Page {
    text: String,
    name: &'static str,
}

impl Page {
    /// Starts a family; its samples must follow.
    fn family(&mut self, name: &'static str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        self.name = name;
        // Writing to a String does not fail.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, labels: &[(&str, &dyn Display)], value: impl Display) {
        self.text.push_str(self.name);
        for (at, (label, content)) in labels.iter().enumerate() {
            let open = if at == 0 { '{' } else { ',' };
            let content = content.to_string().replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.text, "{open}{label}=\"{content}\"");
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_carry_their_labels() {
        let shards = vec![
            ShardSnapshot { recv_bytes: 10, drop_stun: 3, ..ShardSnapshot::default() },
            ShardSnapshot { recv_bytes: 7, drop_tap: 2, ..ShardSnapshot::default() },
        ];
        let snapshot = MetricsSnapshot { shards, viewers: 2, closed: vec![("a\"b", 4)], ..MetricsSnapshot::default() };
        let mut page = Page::default();
        media(&mut page, &snapshot);
        for line in [
            "# TYPE freshet_recv_bytes_total counter",
            "freshet_recv_bytes_total{shard=\"0\"} 10",
            "freshet_recv_bytes_total{shard=\"1\"} 7",
            "freshet_dropped_packets_total{shard=\"0\",reason=\"stun\"} 3",
            "freshet_dropped_packets_total{shard=\"1\",reason=\"tap\"} 2",
            "freshet_sessions{role=\"play\"} 2",
            "freshet_sessions_closed_total{reason=\"a\\\"b\"} 4",
            "srs_receive_bytes_total 17",
            "srs_streams 0",
        ] {
            assert!(page.text.lines().any(|found| found == line), "missing: {line}\n{}", page.text);
        }
    }
}
