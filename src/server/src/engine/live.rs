//! Sessions of the frame plane: RTMP publishers, RTMP and FLV players. They are entered, limited and ended by the same
//! rules as WebRTC sessions; their media goes through [`LiveStream`]s, not through shards.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use freshet_bridge::fanout::{Tracks, Wire};
use freshet_media::{Frame, StreamKey, TrackConfig};
use freshet_sfu::{CloseReason, SessionId, SessionStatus};
use tokio::sync::watch;
use tracing::info;

use super::registry::{Client, Link, LiveLink, Record, Registry};
use super::types::{LiveRequest, Refusal, Role, TrackSnapshot};
use super::{Engine, crossing, random_text};
use crate::live::{LivePlayer, LivePublisher, LiveReader, LiveStream, Seat};
use crate::srs_code as code;

impl Engine {
    /// Lets a client publish frames.
    ///
    /// # Errors
    /// The stream has a publisher, the server is full or about to stop.
    pub(crate) fn publish_live(self: &Arc<Engine>, request: &LiveRequest) -> Result<LivePublisher, Refusal> {
        let (seat, stream) = self.seat(Role::Publish, request)?;
        Ok(LivePublisher::new(seat, stream))
    }

    /// Lets a client play frames, from the last keyframe on.
    ///
    /// # Errors
    /// Nobody publishes (where that is refused), the publisher's media does not come as frames, the server is full or
    /// about to stop.
    pub(crate) fn play_live(self: &Arc<Engine>, request: &LiveRequest, wire: Wire) -> Result<LivePlayer, Refusal> {
        let (seat, stream) = self.seat(Role::Play, request)?;
        let player = stream.lock().fanout.join(wire);
        Ok(LivePlayer::new(seat, stream, player))
    }

    /// Lets a client read whole frames, from the last keyframe on. It may not wait for a publisher: it has no connection
    /// whose end would tell that it no longer does.
    ///
    /// # Errors
    /// Those of [`Engine::play_live`]; nobody publishes.
    pub(crate) fn read_live(self: &Arc<Engine>, request: &LiveRequest) -> Result<LiveReader, Refusal> {
        if self.registry().publisher(&request.key).is_none() {
            let detail = format!("nobody publishes {}", request.key);
            let refusal = Refusal::new(404, code::NO_PUBLISHER, "stream-absent", detail, "start the publisher");
            return Err(refusal.retry_after(2));
        }
        let (seat, stream) = self.seat(Role::Play, request)?;
        Ok(LiveReader::new(seat, stream))
    }

    /// The last keyframe of a stream whose frames are cached, that is, of one that comes as frames or crosses at the moment.
    pub(crate) fn last_keyframe(&self, key: &StreamKey) -> Option<Frame> {
        let stream = self.live.find(key)?;
        let inner = stream.lock();
        inner.source.and_then(|_| inner.fanout.last_keyframe())
    }

    fn seat(self: &Arc<Engine>, role: Role, request: &LiveRequest) -> Result<(Seat, Arc<LiveStream>), Refusal> {
        let count_refusal = |refusal: Refusal| {
            *self.registry().refused.entry(refusal.kind).or_default() += 1;
            refusal
        };
        self.check_draining().map_err(count_refusal)?;
        let stream = self.live.entry(&request.key);
        let (end, ended) = watch::channel(None);
        let status = Arc::new(SessionStatus::default());
        status.set_connected();
        let id = SessionId(self.next_id.fetch_add(1, Ordering::Relaxed));
        let record = Record {
            id,
            client_id: random_text(8),
            role,
            key: request.key.clone(),
            opened: Instant::now(),
            client: Client { ip: request.client_ip, user_agent: request.user_agent.clone() },
            status: Arc::clone(&status),
            link: Link::Live(LiveLink {
                protocol: request.protocol,
                peer: request.peer,
                stream: Arc::clone(&stream),
                end,
            }),
        };
        let (client, protocol) = (record.client_id.clone(), request.protocol.as_str());
        if let Some(replaced) = self.reserve(record).map_err(count_refusal)? {
            self.end(replaced, CloseReason::Replaced);
        }
        let who = if role == Role::Publish { "publisher" } else { "viewer" };
        info!(stream = %request.key, client, protocol, remote = %request.peer, "{who} connected");
        Ok((Seat { engine: Arc::clone(self), id, status, end: ended, reason: CloseReason::PeerClosed }, stream))
    }

    /// A connection of the frame plane has ended.
    pub(crate) fn leave(&self, id: SessionId, reason: CloseReason) {
        self.forget(id, reason);
    }

    /// A player of frames of a WebRTC publisher needs the other crossing, and a codec that has a way.
    pub(super) fn check_frame_source(&self, registry: &Registry, new: &Record) -> Result<(), Refusal> {
        let Some(publisher) = registry.publisher(&new.key).filter(|p| p.rtc().is_some()) else { return Ok(()) };
        let (key, protocol) = (&new.key, new.protocol().as_str());
        if !self.from_rtc.is_enabled() {
            let detail = format!("{key} is published over WebRTC and rtc2rtmp is off");
            let hint = "set rtc2rtmp.enabled = true, or play it over WebRTC";
            return Err(Refusal::new(409, code::CODEC, "no-crossing", detail, hint));
        }
        let Some(codec) = crossing::no_way(publisher) else { return Ok(()) };
        let detail = format!("{key} is published with {codec}, which {protocol} cannot carry");
        let hint = "publish with H.264 (rtc.prefer_codec, ?codec=h264), or play it over WebRTC";
        Err(Refusal::new(406, code::CODEC, "no-crossing", detail, hint))
    }

    /// A WebRTC viewer of frames needs the crossing.
    pub(super) fn check_crossing(&self, registry: &Registry, new: &Record) -> Result<(), Refusal> {
        let Some(publisher) = registry.publisher(&new.key) else { return Ok(()) };
        let Some(link) = publisher.live() else { return Ok(()) };
        if !self.to_rtc.is_enabled() {
            let protocol = link.protocol.as_str();
            let detail = format!("{} is published over {protocol} and rtmp2rtc is off", new.key);
            let hint = "set rtmp2rtc.enabled = true, or play it over RTMP or HTTP-FLV";
            return Err(Refusal::new(409, code::NO_RTC, "no-crossing", detail, hint));
        }
        let video = link.stream.tracks().video.map(|config| config.codec);
        let Some(codec) = video.filter(|codec| !freshet_bridge::crossing::can_carry(*codec)) else { return Ok(()) };
        let protocol = link.protocol.as_str();
        let detail = format!("{} is published over {protocol} with {codec}, which does not cross to WebRTC", new.key);
        let hint = "publish H.264, H.265 or AV1, or play it over RTMP or HTTP-FLV";
        Err(Refusal::new(406, code::CODEC, "codec-mismatch", detail, hint))
    }
}

/// The tracks of a stream of frames, for listings.
pub(super) fn tracks(tracks: &Tracks) -> Vec<TrackSnapshot> {
    let found = [&tracks.audio, &tracks.video].into_iter().flatten();
    found.map(|config| track(config)).collect()
}

fn track(config: &TrackConfig) -> TrackSnapshot {
    let facts = freshet_media::facts(config);
    TrackSnapshot {
        kind: config.kind(),
        codec: config.codec,
        clock_hz: facts.clock_hz,
        fmtp: facts.fmtp,
        channels: facts.channels,
        size: facts.size,
        layers: 1,
    }
}
