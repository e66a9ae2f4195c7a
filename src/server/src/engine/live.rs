//! Sessions of the frame plane: RTMP publishers, RTMP and FLV players. They are entered, limited and ended by the same
//! rules as WebRTC sessions; their media goes through [`LiveStream`](crate::live::LiveStream)s, not through shards.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use freshet_bridge::fanout::{Tracks, Wire};
use freshet_media::TrackConfig;
use freshet_sfu::{CloseReason, SessionId, SessionStatus};
use tokio::sync::watch;
use tracing::info;

use super::registry::{Client, Link, LiveLink, Record, Registry};
use super::types::{LiveRequest, Refusal, Role, TrackSnapshot};
use super::{Engine, random_text};
use crate::live::{LivePlayer, LivePublisher, LiveStream, Seat};
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

    /// A player of frames needs a publisher of frames.
    pub(super) fn check_frame_source(&self, registry: &Registry, new: &Record) -> Result<(), Refusal> {
        let Some(publisher) = registry.publisher(&new.key).filter(|p| p.rtc().is_some()) else { return Ok(()) };
        let (key, client) = (&new.key, &publisher.client_id);
        let protocol = new.protocol().as_str();
        let detail =
            format!("{key} is published over WebRTC (client {client}) and is not converted for {protocol} players");
        Err(Refusal::new(406, code::CODEC, "no-crossing", detail, "play it over WebRTC"))
    }

    /// A WebRTC viewer of frames needs the crossing.
    pub(super) fn check_crossing(&self, registry: &Registry, new: &Record) -> Result<(), Refusal> {
        let live = registry.publisher(&new.key).filter(|p| p.live().is_some());
        let Some(publisher) = live.filter(|_| !self.crossings.are_enabled()) else { return Ok(()) };
        let detail = format!("{} is published over {} and rtmp2rtc is off", new.key, publisher.protocol().as_str());
        let hint = "set rtmp2rtc.enabled = true, or play it over RTMP or HTTP-FLV";
        Err(Refusal::new(409, code::NO_RTC, "no-crossing", detail, hint))
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
