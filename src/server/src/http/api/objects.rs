//! Streams, clients and vhosts as JSON objects: SRS's fields first, ours after them.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use freshet_media::{Codec, MediaKind, StreamKey};
use serde_json::{Map, Value, json};

use super::short_url;
use crate::engine::{ClientSnapshot, OutputSnapshot, Protocol, Role, StreamSnapshot, TrackSnapshot};

/// SRS's name of the default vhost.
const DEFAULT_VHOST: &str = "__defaultVhost__";

fn vhost_name(key: &StreamKey) -> &str {
    key.vhost().unwrap_or(DEFAULT_VHOST)
}

/// The id depends on the name alone, so it is the same after a restart.
fn vhost_id(name: &str) -> String {
    // FNV-1a, 64 bits: short, stable, and collisions would only confuse a listing.
    let hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("vid-{:07x}", hash & 0x0fff_ffff)
}

/// SRS calls the rate over 30 s; ours is over the last seconds.
fn kbps(recv_bps: u64, send_bps: u64) -> Value {
    json!({ "recv_30s": recv_bps / 1000, "send_30s": send_bps / 1000 })
}

pub(super) fn stream(stream: &StreamSnapshot) -> Value {
    let first = |kind| stream.tracks.iter().find(|track| track.kind == kind);
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
    let publishers = usize::from(stream.publisher.is_some());
    json!({
        "id": stream.id,
        "name": stream.key.stream(),
        "vhost": vhost_id(vhost_name(&stream.key)),
        "app": stream.key.app(),
        "tcUrl": tc_url(stream.protocol.unwrap_or(Protocol::WebRtc), &stream.key),
        "url": short_url(&stream.key),
        "live_ms": now_ms,
        "clients": stream.viewers + publishers,
        "frames": stream.frames,
        "send_bytes": stream.send_bytes,
        "recv_bytes": stream.recv_bytes,
        "kbps": kbps(stream.recv_bps, stream.send_bps),
        "publish": { "active": stream.publisher.is_some(), "cid": stream.publisher.as_deref().unwrap_or_default() },
        "video": first(MediaKind::Video).map(video),
        "audio": first(MediaKind::Audio).map(audio),
        "key": stream.key.as_str(),
        "viewers": stream.viewers,
        "protocol": stream.protocol.map(Protocol::as_str),
        "rtmp2rtc": stream.crossing.as_ref().map(|crossing| json!({
            "video": crossing.video,
            "note": crossing.note,
            "cpu_percent": crossing.cpu_percent,
        })),
        "live_seconds": stream.live_for.map(|live| live.as_secs_f64()),
        "tracks": stream.tracks.iter().map(track).collect::<Vec<_>>(),
        "outputs": stream.outputs.iter().map(output).collect::<Map<_, _>>(),
    })
}

/// SRS's spelling.
fn codec_name(codec: Codec) -> &'static str {
    match codec {
        Codec::H265 => "HEVC",
        Codec::Opus => "Opus",
        Codec::Aac => "AAC",
        Codec::Mp3 => "MP3",
        other => other.rtp_name(),
    }
}

fn video(track: &TrackSnapshot) -> Value {
    let (width, height) = track.size.unwrap_or_default();
    let (profile, level) = match track.codec {
        Codec::H264 => h264_profile_and_level(&track.fmtp).unwrap_or_default(),
        _ => Default::default(),
    };
    json!({ "codec": codec_name(track.codec), "profile": profile, "level": level, "width": width, "height": height })
}

fn audio(track: &TrackSnapshot) -> Value {
    json!({
        "codec": codec_name(track.codec),
        "sample_rate": track.clock_hz,
        "channel": track.channels,
        "profile": "",
    })
}

fn track(track: &TrackSnapshot) -> Value {
    json!({
        "kind": track.kind.to_string(),
        "codec": codec_name(track.codec),
        "clock_hz": track.clock_hz,
        "fmtp": track.fmtp,
        "channels": track.channels,
        "width": track.size.map(|size| size.0),
        "height": track.size.map(|size| size.1),
        "layers": track.layers,
    })
}

/// By name: whether it can be played so, and if not, or not in full, why.
fn output(output: &OutputSnapshot) -> (String, Value) {
    let why = output.obstacle.as_ref().or(output.lacks.as_ref());
    (output.name.to_owned(), json!({ "available": output.obstacle.is_none(), "note": why }))
}

/// `profile-level-id=42e01f` → `Baseline`, `3.1` (RFC 6184 §8.1).
fn h264_profile_and_level(fmtp: &str) -> Option<(&'static str, String)> {
    let id = fmtp.split(';').find_map(|parameter| parameter.trim().strip_prefix("profile-level-id="))?;
    let id = u32::from_str_radix(id.trim(), 16).ok()?;
    let (profile, level) = (id >> 16 & 0xff, id & 0xff);
    let profile = match profile {
        66 => "Baseline",
        77 => "Main",
        88 => "Extended",
        100 => "High",
        110 => "High 10",
        122 => "High 4:2:2",
        244 => "High 4:4:4",
        _ => "Other",
    };
    Some((profile, format!("{}.{}", level / 10, level % 10)))
}

fn tc_url(protocol: Protocol, key: &StreamKey) -> String {
    let scheme = protocol.scheme();
    format!("{scheme}://{}/{}", vhost_name(key), key.app())
}

/// SRS's names.
fn client_type(protocol: Protocol, role: Role) -> &'static str {
    match (protocol, role) {
        (Protocol::WebRtc, Role::Publish) => "rtc-publish",
        (Protocol::WebRtc, Role::Play) => "rtc-play",
        (Protocol::Rtmp, Role::Publish) => "fmle-publish",
        (Protocol::Rtmp, Role::Play) => "rtmp-play",
        (Protocol::HttpFlv | Protocol::WsFlv, _) => "flv-play",
        (Protocol::Hls, _) => "hls-play",
        (Protocol::Record, _) => "record",
        // Not in SRS, whose forwards are no clients.
        (Protocol::Forward, _) => "forward",
        (Protocol::Snapshot, _) => "snapshot",
    }
}

pub(super) fn client(client: &ClientSnapshot) -> Value {
    let publishes = client.role == Role::Publish;
    json!({
        "id": client.id,
        "vhost": vhost_id(vhost_name(&client.key)),
        "stream": client.stream_id,
        "ip": client.ip,
        "pageUrl": "",
        "swfUrl": "",
        "tcUrl": tc_url(client.protocol, &client.key),
        "url": short_url(&client.key),
        "name": client.key.stream(),
        "type": client_type(client.protocol, client.role),
        "publish": publishes,
        "alive": client.alive.as_secs_f64(),
        "send_bytes": client.send_bytes,
        "recv_bytes": client.recv_bytes,
        "kbps": kbps(client.recv_bps, client.send_bps),
        "key": client.key.as_str(),
        "user_agent": client.user_agent,
        "protocol": client.protocol.as_str(),
        "connected": client.connected,
        "transport": client.path.map(|(transport, _)| transport),
        "remote": client.path.map(|(_, remote)| remote.to_string()),
        "rtt_ms": client.rtt.map(|rtt| rtt.as_secs_f64() * 1000.0),
        "loss_permille": client.loss_permille,
        "nacks": client.nacks,
        "plis": client.plis,
        "thinned": client.budgets,
    })
}

/// The default vhost and every other that has a stream, sorted by name.
pub(super) fn vhosts(streams: &[StreamSnapshot]) -> Vec<Value> {
    let mut by_name: BTreeMap<&str, Vec<&StreamSnapshot>> = BTreeMap::from([(DEFAULT_VHOST, Vec::new())]);
    for stream in streams {
        by_name.entry(vhost_name(&stream.key)).or_default().push(stream);
    }
    by_name.into_iter().map(|(name, streams)| vhost(name, &streams)).collect()
}

fn vhost(name: &str, streams: &[&StreamSnapshot]) -> Value {
    let sum = |value: fn(&StreamSnapshot) -> u64| streams.iter().map(|stream| value(stream)).sum::<u64>();
    json!({
        "id": vhost_id(name),
        "name": name,
        "enabled": true,
        "clients": sum(|stream| stream.viewers as u64 + u64::from(stream.publisher.is_some())),
        "streams": streams.len(),
        "send_bytes": sum(|stream| stream.send_bytes),
        "recv_bytes": sum(|stream| stream.recv_bytes),
        "kbps": kbps(sum(|stream| stream.recv_bps), sum(|stream| stream.send_bps)),
        "hls": { "enabled": false },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h264_parameters_become_names() {
        let of = |fmtp| h264_profile_and_level(fmtp);
        assert_eq!(of("packetization-mode=1;profile-level-id=42e01f"), Some(("Baseline", "3.1".into())));
        assert_eq!(of("profile-level-id=640028"), Some(("High", "4.0".into())));
        assert_eq!(of("packetization-mode=1"), None);
        assert_eq!(of("profile-level-id=xyz"), None);
    }

    #[test]
    fn vhost_ids_are_stable_and_differ() {
        assert_eq!(vhost_id("a"), vhost_id("a"));
        assert_ne!(vhost_id("a"), vhost_id("b"));
    }
}
