//! Accepting an offer: checks, reservation, answer.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use freshet_sfu::sdp::{NegotiateError, Offer, VideoPreference, negotiate};
use freshet_sfu::{CloseReason, Credentials, Session, SessionId, SessionLimits, SessionParams, SessionStatus};
use rand::Rng as _;

use super::registry::{Client, Ice, Link, Mismatch, Record, Registry, RtcLink};
use super::types::{OpenRequest, Opened, Refusal, Role, SessionToken};
use super::{Engine, random_text};
use crate::config::{Config, Takeover, WhenAbsent};
use crate::srs_code as code;

/// Rules that requests are measured by.
#[derive(Debug)]
pub(super) struct Rules {
    limits: SessionLimits,
    max_sessions: usize,
    preference: VideoPreference,
    takeover: Takeover,
    silent_after_millis: u64,
    when_absent: WhenAbsent,
    retry_after_seconds: u32,
    tcp: bool,
}

impl Rules {
    pub(super) fn new(config: &Config) -> Rules {
        Rules {
            limits: SessionLimits { connect: config.rtc.connect_timeout, silence: config.rtc.session_timeout },
            max_sessions: config.rtc.max_sessions,
            preference: config.rtc.prefer_codec.map_or(VideoPreference::Offered, VideoPreference::First),
            takeover: config.publish.takeover,
            silent_after_millis: config.publish.silent_after.as_millis() as u64,
            when_absent: config.play.when_absent,
            retry_after_seconds: config.play.retry_after_seconds,
            tcp: config.rtc.tcp,
        }
    }
}

impl Engine {
    pub(super) fn try_open(&self, request: &OpenRequest) -> Result<Opened, Refusal> {
        self.check_draining()?;
        let offer = Offer::parse(&request.offer).map_err(|e| {
            Refusal::new(
                400,
                code::SDP_DECODE,
                "bad-offer",
                e.to_string(),
                "send the SDP offer that the WebRTC stack made, unchanged",
            )
        })?;
        let preference = request.prefer_codec.map_or(self.rules.preference, VideoPreference::First);
        let negotiated =
            negotiate(&offer, request.role == Role::Publish, preference).map_err(|e| not_negotiable(&e))?;
        let chosen = request.ice_credentials.clone();
        let (ufrag, pwd) = chosen.unwrap_or_else(|| (random_text(8), random_text(32)));
        if self.lobby.whereabouts(&ufrag).is_some() {
            let detail = "the chosen ice-ufrag belongs to another session";
            return Err(Refusal::new(
                400,
                code::INVALID_ICE,
                "bad-ice-credentials",
                detail,
                "choose another, at random",
            ));
        }
        let credentials = Credentials { ufrag, pwd };
        let mut rng = rand::rng();
        let id = SessionId(self.next_id.fetch_add(1, Ordering::Relaxed));
        let status = Arc::new(SessionStatus::default());
        let extra = &request.extra_candidates;
        let udp = self.candidates.for_texts(request.local_ip, request.host.as_deref(), extra);
        let tcp = if self.rules.tcp { udp.clone() } else { Vec::new() };
        let ice =
            Ice { remote_ufrag: offer.ufrag.clone(), local: credentials.clone(), udp: udp.clone(), tcp: tcp.clone() };
        let link = RtcLink { token: SessionToken(random_text(22)), negotiated: negotiated.clone(), ice };
        let opened = Opened {
            token: link.token.clone(),
            answer: String::new(),
            etag: link.etag(),
            ice_session: format!("{}:{}", credentials.ufrag, offer.ufrag),
        };
        let record = Record {
            id,
            client_id: random_text(8),
            role: request.role,
            key: request.key.clone(),
            opened: Instant::now(),
            client: Client { ip: request.client_ip, user_agent: request.user_agent.clone() },
            status: Arc::clone(&status),
            link: Link::Rtc(Box::new(link)),
        };
        let replaced = self.reserve(record)?;
        let params = SessionParams {
            id,
            key: request.key.clone(),
            offer: &offer,
            negotiated: &negotiated,
            identity: &self.identity,
            credentials,
            udp: &udp,
            tcp: &tcp,
            limits: self.rules.limits,
            status,
            random: &mut || rng.random(),
        };
        match Session::open(params, Instant::now()) {
            Ok((session, answer)) => {
                if let Some(replaced) = replaced {
                    self.end(replaced, CloseReason::Replaced);
                }
                self.lobby.admit(session);
                Ok(Opened { answer, ..opened })
            }
            Err(e) => {
                self.registry().remove(id, CloseReason::Failed);
                let hint = "report the offer: it should have been understood";
                Err(Refusal::new(400, code::SDP_NEGOTIATE, "bad-offer", e.to_string(), hint))
            }
        }
    }

    /// # Errors
    /// The server is about to stop.
    pub(super) fn check_draining(&self) -> Result<(), Refusal> {
        if !self.is_draining() {
            return Ok(());
        }
        let detail = "the server is about to stop and takes no new sessions";
        Err(Refusal::new(503, code::CONNECTIONS_EXCEED, "draining", detail, "try another server").retry_after(5))
    }

    /// Enters the session, if the stream takes it. Returns the publisher whose place it takes.
    pub(super) fn reserve(&self, record: Record) -> Result<Option<SessionId>, Refusal> {
        let mut registry = self.registry();
        if registry.sessions.len() >= self.rules.max_sessions {
            let detail = format!("{} sessions are open, which is the limit", registry.sessions.len());
            let hint = "try again later, or raise rtc.max_sessions";
            return Err(Refusal::new(503, code::CONNECTIONS_EXCEED, "too-many-sessions", detail, hint).retry_after(5));
        }
        let replaced = match record.role {
            Role::Publish => self.check_publisher(&registry, &record)?,
            Role::Play => {
                self.check_viewer(&registry, &record)?;
                None
            }
        };
        let key = record.key.clone();
        registry.insert(record, || format!("vid-{}", random_text(7).to_lowercase()));
        self.sync_crossing(&registry, &key);
        Ok(replaced)
    }

    fn check_publisher(&self, registry: &Registry, new: &Record) -> Result<Option<SessionId>, Refusal> {
        let Some(present) = registry.publisher(&new.key) else { return Ok(None) };
        let now = self.epoch.millis(Instant::now());
        let last = match present.status.last_media_millis.value() {
            // Nothing yet: it counts from its offer.
            0 => self.epoch.millis(present.opened),
            millis => millis,
        };
        let silent = now.saturating_sub(last) >= self.rules.silent_after_millis;
        let replace = match self.rules.takeover {
            Takeover::Reject => false,
            Takeover::Replace => true,
            Takeover::ReplaceIfSilent => silent,
        };
        if replace {
            return Ok(Some(present.id));
        }
        let detail = format!(
            "{} is being published by client {} since {} s",
            new.key,
            present.client_id,
            present.opened.elapsed().as_secs()
        );
        let hint = "stop that publisher, choose another stream name, or set publish.takeover";
        Err(Refusal::new(409, code::STREAM_BUSY, "stream-busy", detail, hint).retry_after(2))
    }

    fn check_viewer(&self, registry: &Registry, new: &Record) -> Result<(), Refusal> {
        if registry.publisher(&new.key).is_none() && self.rules.when_absent == WhenAbsent::Refuse {
            let detail = format!("nobody publishes {}", new.key);
            let hint = "start the publisher, or set play.when_absent to \"wait\"";
            let refusal = Refusal::new(409, code::NO_PUBLISHER, "stream-absent", detail, hint);
            return Err(refusal.retry_after(self.rules.retry_after_seconds));
        }
        let Some(link) = new.rtc() else { return self.check_frame_source(registry, new) };
        self.check_crossing(registry, new)?;
        let Some(mismatch) = registry.mismatch(&new.key, &link.negotiated) else { return Ok(()) };
        let Mismatch { kind, published, offered } = mismatch;
        let detail = format!("{} is published with {kind} codec {published}; the player offers {offered}", new.key);
        let hint = "publish with a codec that the player has, H.264 for most, or play with another client";
        Err(Refusal::new(406, code::CODEC, "codec-mismatch", detail, hint))
    }
}

fn not_negotiable(error: &NegotiateError) -> Refusal {
    let (status, hint) = match error {
        NegotiateError::NoDirection { sending: true } => {
            (400, "add the tracks to the peer connection before createOffer")
        }
        NegotiateError::NoDirection { sending: false } => (400, "add recvonly transceivers before createOffer"),
        NegotiateError::TooMany(_) => (406, "publish a second track of a kind as a stream of its own"),
        NegotiateError::NoCodec { .. } => (406, "offer H.264, H.265, VP8, VP9 or AV1 and Opus, PCMU or PCMA"),
        NegotiateError::NotBundled(_) => (400, "use bundlePolicy \"max-bundle\""),
    };
    let kind = if status == 406 { "codec-mismatch" } else { "bad-offer" };
    let kind = if matches!(error, NegotiateError::TooMany(_)) { "too-many-tracks" } else { kind };
    Refusal::new(status, code::SDP_NEGOTIATE, kind, error.to_string(), hint)
}
