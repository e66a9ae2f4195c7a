//! Streams, sessions and counters as the API and `/metrics` show them.

use ahash::AHashMap;
use freshet_media::{MediaKind, StreamKey};
use freshet_sfu::sdp::NegotiatedMedia;
use freshet_sfu::{Format, SessionStatus};
use tracing::info;

use super::live;
use super::outputs::{self, Switches};
use super::registry::{Link, Record, Registry};
use super::types::{
    ClientSnapshot, MetricsSnapshot, Protocol, Published, Role, ShardSnapshot, StreamSnapshot, TrackSnapshot,
};
use super::{Engine, ShardHandle};

impl Engine {
    /// All streams that have a publisher or a viewer, by name.
    pub(crate) fn streams(&self) -> Vec<StreamSnapshot> {
        let registry = self.registry();
        let mut all: AHashMap<_, StreamSnapshot> = registry
            .streams
            .iter()
            .map(|(key, stream)| {
                let publisher = stream.publisher.and_then(|id| registry.sessions.get(&id));
                let tracks = publisher.map(tracks).unwrap_or_default();
                let outputs = publisher.map(|p| outputs::of(p.protocol(), &tracks, &self.switches()));
                let snapshot = StreamSnapshot {
                    id: stream.id.clone(),
                    key: key.clone(),
                    publisher: publisher.map(|p| p.client_id.clone()),
                    live_for: stream.live_since.map(|at| at.elapsed()),
                    viewers: stream.viewers,
                    protocol: publisher.map(Record::protocol),
                    crossing: self.to_rtc.snapshot(key),
                    tracks,
                    frames: publisher.map_or(0, |p| p.status.tracks[1].frames.value()),
                    recv_bytes: publisher.map_or(0, |p| p.status.recv_bytes.value()),
                    send_bytes: stream.past_sent_bytes,
                    recv_bps: publisher.map_or(0, |p| p.status.recv_bps.value()),
                    send_bps: 0,
                    outputs: outputs.unwrap_or_default(),
                };
                (key, snapshot)
            })
            .collect();
        for viewer in registry.sessions.values().filter(|r| r.role == Role::Play) {
            if let Some(stream) = all.get_mut(&viewer.key) {
                stream.send_bytes += viewer.status.sent_bytes.value();
                stream.send_bps += viewer.status.sent_bps.value();
            }
        }
        let mut sorted: Vec<StreamSnapshot> = all.into_values().collect();
        sorted.sort_by(|a, b| a.key.cmp(&b.key));
        sorted
    }

    /// The streams that have a publisher, in no order. Cheaper than [`Engine::streams`].
    pub(crate) fn published(&self) -> Vec<Published> {
        let registry = self.registry();
        let publishers = registry.sessions.values().filter(|record| record.role == Role::Publish);
        let of = |record: &Record| Published { key: record.key.clone(), publisher: record.client_id.clone() };
        publishers.map(of).collect()
    }

    /// All sessions, the oldest first.
    pub(crate) fn clients(&self) -> Vec<ClientSnapshot> {
        let registry = self.registry();
        let mut records: Vec<&Record> = registry.sessions.values().collect();
        records.sort_by_key(|r| r.id);
        records.into_iter().map(|record| client(&registry, record)).collect()
    }

    /// The publisher of a stream.
    pub(crate) fn publisher(&self, key: &StreamKey) -> Option<ClientSnapshot> {
        let registry = self.registry();
        registry.publisher(key).map(|record| client(&registry, record))
    }

    /// Tells once per publisher in which ways it cannot be played.
    pub(super) fn log_outputs(&self, publisher: &Record) {
        for output in outputs::of(publisher.protocol(), &tracks(publisher), &self.switches()) {
            if let Some(why) = output.obstacle.or(output.lacks) {
                info!(stream = %publisher.key, output = output.name, "{why}");
            }
        }
    }

    fn switches(&self) -> Switches {
        Switches {
            rtmp2rtc: self.to_rtc.is_enabled(),
            rtc2rtmp: self.from_rtc.is_enabled(),
            passes_opus: self.from_rtc.passes_opus(),
        }
    }

    /// Counters for `/metrics`.
    pub(crate) fn metrics(&self) -> MetricsSnapshot {
        let registry = self.registry();
        let publishers = registry.sessions.values().filter(|r| r.role == Role::Publish).count();
        let mut refused: Vec<(&'static str, u64)> = registry.refused.iter().map(|(k, n)| (*k, *n)).collect();
        let mut closed: Vec<(&'static str, u64)> = registry.closed.iter().map(|(k, n)| (k.as_str(), *n)).collect();
        refused.sort_unstable();
        closed.sort_unstable();
        MetricsSnapshot {
            shards: self.shards.iter().map(shard_snapshot).collect(),
            streams: registry.streams.values().filter(|s| s.publisher.is_some()).count(),
            publishers,
            viewers: registry.sessions.len() - publishers,
            by_protocol: by_protocol(&registry),
            live_recv_bytes: registry.past_live_bytes.0 + live_bytes(&registry, |s| s.recv_bytes.value()),
            live_sent_bytes: registry.past_live_bytes.1 + live_bytes(&registry, |s| s.sent_bytes.value()),
            crossings: self.to_rtc.by_mode(),
            sessions_opened: registry.opened,
            refused,
            closed,
        }
    }
}

fn client(registry: &Registry, r: &Record) -> ClientSnapshot {
    ClientSnapshot {
        id: r.client_id.clone(),
        role: r.role,
        protocol: r.protocol(),
        key: r.key.clone(),
        stream_id: registry.streams.get(&r.key).map(|s| s.id.clone()).unwrap_or_default(),
        ip: r.client.ip,
        user_agent: r.client.user_agent.clone(),
        alive: r.opened.elapsed(),
        connected: r.status.is_connected(),
        path: match r.live() {
            Some(link) => Some(("tcp", link.peer)),
            None => r.status.path().map(|(protocol, remote)| (protocol.as_str(), remote)),
        },
        recv_bytes: r.status.recv_bytes.value(),
        send_bytes: r.status.sent_bytes.value(),
        recv_bps: r.status.recv_bps.value(),
        send_bps: r.status.sent_bps.value(),
        rtt: r.status.rtt(),
        loss_permille: r.status.loss_permille(),
        nacks: r.status.nacks.value(),
        plis: r.status.keyframe_requests.value(),
        budgets: r.status.budgets.value(),
    }
}

fn by_protocol(registry: &Registry) -> Vec<(Protocol, Role, usize)> {
    let mut counts: AHashMap<(Protocol, Role), usize> = AHashMap::new();
    for record in registry.sessions.values() {
        *counts.entry((record.protocol(), record.role)).or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().map(|((protocol, role), count)| (protocol, role, count)).collect();
    counts.sort_unstable_by_key(|(protocol, role, _)| (protocol.as_str(), *role == Role::Play));
    counts
}

fn live_bytes(registry: &Registry, bytes: impl Fn(&SessionStatus) -> u64) -> u64 {
    registry.sessions.values().filter(|r| r.live().is_some()).map(|r| bytes(&r.status)).sum()
}

fn tracks(publisher: &Record) -> Vec<TrackSnapshot> {
    let link = match &publisher.link {
        Link::Live(link) => return live::tracks(&link.stream.tracks()),
        Link::Rtc(link) => link,
    };
    let track = |m: &NegotiatedMedia| {
        let status = &publisher.status.tracks[usize::from(m.kind == MediaKind::Video)];
        // Before the first packet: what browsers send first is what stands first.
        let format = Format::new(m.codecs.get(status.format().unwrap_or(0))?);
        Some(TrackSnapshot {
            kind: m.kind,
            codec: format.codec,
            clock_hz: format.clock_hz,
            fmtp: format.fmtp,
            channels: format.channels,
            size: status.size(),
            layers: status.layers(),
        })
    };
    link.negotiated.media.iter().filter_map(track).collect()
}

fn shard_snapshot(shard: &ShardHandle) -> ShardSnapshot {
    let s = &shard.status;
    ShardSnapshot {
        sessions: s.sessions.value(),
        recv_packets: s.recv_packets.value(),
        recv_bytes: s.recv_bytes.value(),
        sent_packets: s.sent_packets.value(),
        sent_bytes: s.sent_bytes.value(),
        send_calls: shard.thread.send_calls.value(),
        published_packets: s.published_packets.value(),
        forwarded_packets: s.forwarded_packets.value(),
        retransmitted_packets: s.retransmitted_packets.value(),
        nacks: s.nacks.value(),
        keyframe_requests: s.keyframe_requests.value(),
        keyframe_requests_sent: s.keyframe_requests_sent.value(),
        budgets: s.budgets.value(),
        drop_stranger: s.drop_stranger.value(),
        drop_stun: s.drop_stun.value(),
        drop_malformed: s.drop_malformed.value(),
        drop_send: shard.thread.drop_send.value(),
        drop_relay: shard.thread.drop_relay.value(),
        drop_codec: s.drop_codec.value(),
        drop_tap: shard.thread.drop_tap.value(),
    }
}
