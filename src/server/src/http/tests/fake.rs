//! A media side of a few lines: one session at most, refusals by stream name.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use freshet_bridge::fanout::Wire;
use freshet_media::{Codec, Frame, MediaKind, StreamKey};

use crate::engine::{
    ClientSnapshot, LiveRequest, MetricsSnapshot, OpenRequest, Opened, OutputSnapshot, Patched, Protocol, Published,
    Refusal, Role, SessionToken, StreamSnapshot, TrackSnapshot,
};
use crate::http::sessions::Sessions;
use crate::live::{LivePlayer, LiveReader};

pub(super) const TOKEN: &str = "abcdefghijklmnopqrstuv";
pub(super) const ETAG: &str = "\"e1\"";

#[derive(Default)]
pub(super) struct FakeSessions {
    live: Mutex<Option<OpenRequest>>,
    /// Streams whose publisher was to be ended.
    pub(super) ended: Mutex<Vec<String>>,
}

impl FakeSessions {
    pub(super) fn opened(&self) -> Option<OpenRequest> {
        self.live.lock().unwrap().clone()
    }
}

impl Sessions for FakeSessions {
    fn open(&self, request: OpenRequest) -> Result<Opened, Refusal> {
        match request.key.stream() {
            "busy" => return Err(Refusal::new(409, 5020, "stream-busy", "taken", "wait").retry_after(2)),
            "full" => return Err(Refusal::new(503, 5022, "draining", "going down", "elsewhere").retry_after(5)),
            "panic" => panic!("asked to"),
            _ => {}
        }
        if !request.offer.starts_with("v=0") {
            return Err(Refusal::new(400, 5012, "bad-offer", "no SDP", "send SDP"));
        }
        *self.live.lock().unwrap() = Some(request);
        Ok(Opened {
            token: SessionToken::from_url(TOKEN),
            answer: "v=0\r\nanswer\r\n".into(),
            etag: ETAG.into(),
            ice_session: "us:them".into(),
        })
    }

    fn has_session(&self, token: &SessionToken) -> bool {
        self.opened().is_some() && token.as_str() == TOKEN
    }

    fn patch(&self, _token: &SessionToken, if_match: Option<&str>, fragment: &str) -> Result<Patched, Refusal> {
        if fragment.contains("a=candidate") {
            return Ok(Patched::Trickled);
        }
        match if_match {
            None => Err(Refusal::new(428, 5022, "no-etag", "If-Match is missing", "send it")),
            Some(ETAG | "*") => {
                Ok(Patched::Restarted { fragment: "a=ice-ufrag:new\r\n".into(), etag: "\"e2\"".into() })
            }
            Some(_) => Err(Refusal::new(412, 5022, "stale-etag", "another", "use the newest")),
        }
    }

    fn close(&self, token: &SessionToken) -> Option<Role> {
        if !self.has_session(token) {
            return None;
        }
        self.live.lock().unwrap().take().map(|request| request.role)
    }

    fn kick(&self, client_id: &str) -> bool {
        client_id == "c1"
    }

    fn end_publisher(&self, key: &StreamKey) -> bool {
        self.ended.lock().unwrap().push(key.to_string());
        true
    }

    fn streams(&self) -> Vec<StreamSnapshot> {
        (0..25).map(|number| stream(&format!("cam{number:02}"))).collect()
    }

    fn clients(&self) -> Vec<ClientSnapshot> {
        vec![ClientSnapshot {
            id: "c1".into(),
            role: Role::Publish,
            protocol: Protocol::WebRtc,
            key: StreamKey::new("", "live", "cam00").unwrap(),
            stream_id: "vid-cam00".into(),
            ip: "198.51.100.7".parse().unwrap(),
            user_agent: "test".into(),
            alive: Duration::from_millis(1500),
            connected: true,
            path: Some(("udp", "198.51.100.7:4000".parse().unwrap())),
            recv_bytes: 10,
            send_bytes: 20,
            recv_bps: 1_000_000,
            send_bps: 0,
            rtt: Some(Duration::from_millis(20)),
            loss_permille: 3,
            nacks: 1,
            plis: 2,
            budgets: 0,
        }]
    }

    fn publisher(&self, key: &StreamKey) -> Option<ClientSnapshot> {
        self.clients().into_iter().find(|client| client.key == *key && client.role == Role::Publish)
    }

    fn metrics(&self) -> MetricsSnapshot {
        MetricsSnapshot { streams: 25, publishers: 1, ..MetricsSnapshot::default() }
    }

    fn published(&self) -> Vec<Published> {
        let of = |stream: StreamSnapshot| Published { key: stream.key, publisher: "c1".into() };
        self.streams().into_iter().map(of).collect()
    }

    fn last_keyframe(&self, _key: &StreamKey) -> Option<Frame> {
        None
    }

    fn play_live(self: Arc<Self>, request: &LiveRequest, _wire: Wire) -> Result<LivePlayer, Refusal> {
        Err(Refusal::new(409, 5028, "stream-absent", request.key.to_string(), "publish it"))
    }

    fn read_live(self: Arc<Self>, request: &LiveRequest) -> Result<LiveReader, Refusal> {
        Err(Refusal::new(404, 5028, "stream-absent", request.key.to_string(), "publish it"))
    }

    fn is_draining(&self) -> bool {
        self.opened().is_some_and(|request| request.key.stream() == "drain")
    }
}

fn stream(name: &str) -> StreamSnapshot {
    StreamSnapshot {
        id: format!("vid-{name}"),
        key: StreamKey::new("", "live", name).unwrap(),
        publisher: Some("c1".into()),
        protocol: Some(Protocol::WebRtc),
        crossing: None,
        live_for: Some(Duration::from_secs(9)),
        viewers: 2,
        tracks: vec![TrackSnapshot {
            kind: MediaKind::Video,
            codec: Codec::H264,
            clock_hz: 90_000,
            fmtp: "profile-level-id=42e01f".into(),
            channels: 0,
            size: Some((640, 480)),
            layers: 1,
        }],
        frames: 270,
        recv_bytes: 100,
        send_bytes: 200,
        recv_bps: 8000,
        send_bps: 16000,
        outputs: vec![OutputSnapshot { name: "hls", obstacle: Some("no way".into()), lacks: None }],
    }
}
