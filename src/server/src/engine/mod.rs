//! The door between the asynchronous side (HTTP, TCP, signals) and the shards that carry media.
//!
//! [`Engine::open`] runs on the caller's thread: it reads the offer, checks it against the stream, reserves, and sets
//! up the session, which then waits in the lobby for its first check. Everything later reaches the session through
//! its shard's mailbox.

mod ice_tcp;
mod mailbox;
mod media_thread;
mod registry;
mod types;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Instant, SystemTime};

use ahash::AHashMap;
use anyhow::Context as _;
use bytes::Bytes;
use freshet_media::MediaKind;
use freshet_sfu::sdp::{Fragment, NegotiateError, Offer, VideoPreference, negotiate};
use freshet_sfu::{
    CloseReason, Command, Credentials, Epoch, Format, Identity, Lobby, Session, SessionId, SessionLimits,
    SessionParams, SessionStatus, Shard, ShardConfig, ShardEvent, ShardId, ShardStatus, Whereabouts,
};
use rand::Rng as _;
use tokio::net::TcpStream;
use tracing::{info, warn};

use self::mailbox::{Mail, Postbox};
use self::media_thread::{MediaThread, ThreadStatus};
use self::registry::{Client, Ice, Record, Registry};
use crate::candidates::{CandidateSources, Interface};
use crate::config::{Config, Takeover, WhenAbsent};
use crate::udp;

pub(crate) use types::*;

/// Events that wait to be entered into the registry. A shard that fills it waits.
const EVENT_QUEUE: usize = 65_536;
/// SRS's error numbers for the cases that have one.
mod code {
    pub(super) const SDP_DECODE: u32 = 5012;
    pub(super) const SDP_NEGOTIATE: u32 = 5018;
    pub(super) const STREAM_BUSY: u32 = 5020;
    pub(super) const NO_SESSION: u32 = 5022;
    pub(super) const NO_PUBLISHER: u32 = 5028;
    pub(super) const CODEC: u32 = 5026;
    pub(super) const INVALID_ICE: u32 = 5037;
    pub(super) const CONNECTIONS_EXCEED: u32 = 1074;
}

/// Rules that requests are measured by.
#[derive(Debug)]
struct Rules {
    limits: SessionLimits,
    max_sessions: usize,
    preference: VideoPreference,
    takeover: Takeover,
    silent_after_millis: u64,
    when_absent: WhenAbsent,
    retry_after_seconds: u32,
    tcp: bool,
}

#[derive(Debug)]
struct ShardHandle {
    postbox: Postbox,
    status: Arc<ShardStatus>,
    thread: Arc<ThreadStatus>,
}

/// Opens, changes and ends WebRTC sessions. One per process, shared as `Arc<Engine>`.
#[derive(Debug)]
pub(crate) struct Engine {
    rules: Rules,
    identity: Identity,
    candidates: CandidateSources,
    epoch: Epoch,
    lobby: Arc<Lobby>,
    shards: Vec<ShardHandle>,
    registry: Mutex<Registry>,
    next_id: AtomicU64,
    draining: AtomicBool,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Engine {
    /// Opens the media port and starts the media threads.
    ///
    /// # Errors
    /// The port is taken or not ours, or threads cannot be started.
    pub(crate) fn start(config: &Config, interfaces: &[Interface]) -> anyhow::Result<Arc<Engine>> {
        udp::raise_open_file_limit();
        let count = match config.rtc.shards {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            count => count,
        };
        let sockets = udp::bind(config.rtc.listen, count).with_context(|| {
            format!("cannot open UDP {} for media; another server may have it: change rtc.listen", config.rtc.listen)
        })?;
        let bound = sockets[0].local_addr().context("the media socket has no address")?;
        let epoch = Epoch::new(Instant::now(), SystemTime::now());
        let lobby = Arc::new(Lobby::default());
        let (events, received) = sync_channel(EVENT_QUEUE);
        let (postboxes, queues) = mailbox::connect(count).context("cannot connect the media threads")?;
        let mut shards = Vec::new();
        let mut media_threads = Vec::new();
        for (i, ((socket, queues), postbox)) in sockets.into_iter().zip(queues).zip(postboxes).enumerate() {
            let status = Arc::new(ShardStatus::default());
            let thread = Arc::new(ThreadStatus::default());
            let shard = ShardConfig {
                id: ShardId(i as u16),
                shards: count as u16,
                epoch,
                lobby: Arc::clone(&lobby),
                status: Arc::clone(&status),
            };
            media_threads.push(MediaThread {
                shard: Shard::new(shard, Instant::now()),
                socket,
                queues,
                events: events.clone(),
                status: Arc::clone(&thread),
                tcp: AHashMap::new(),
                held: (0..count).map(|_| VecDeque::new()).collect(),
            });
            shards.push(ShardHandle { postbox, status, thread });
        }
        let engine = Arc::new(Engine {
            rules: Rules::new(config),
            identity: Identity::generate()?,
            candidates: CandidateSources::new(bound, &config.rtc.candidates, interfaces),
            epoch,
            lobby,
            shards,
            registry: Mutex::default(),
            next_id: AtomicU64::new(rand::rng().random::<u64>() >> 1),
            draining: AtomicBool::new(false),
            threads: Mutex::default(),
        });
        engine.spawn(media_threads, received)?;
        Ok(engine)
    }

    fn spawn(self: &Arc<Engine>, media: Vec<MediaThread>, events: Receiver<ShardEvent>) -> anyhow::Result<()> {
        let mut threads = self.threads.lock().unwrap_or_else(|e| e.into_inner());
        for (i, thread) in media.into_iter().enumerate() {
            let builder = std::thread::Builder::new().name(format!("freshet-media{i}"));
            threads.push(builder.spawn(move || thread.run()).context("cannot start a media thread")?);
        }
        let engine = Arc::downgrade(self);
        std::thread::Builder::new()
            .name("freshet-events".to_owned())
            .spawn(move || {
                while let (Ok(event), Some(engine)) = (events.recv(), engine.upgrade()) {
                    engine.take_event(event);
                }
            })
            .context("cannot start the event thread")?;
        Ok(())
    }

    /// What the answers offer, for the start page and the log.
    pub(crate) fn candidates(&self) -> &CandidateSources {
        &self.candidates
    }

    /// Number of media threads.
    pub(crate) fn shard_count(&self) -> usize {
        self.shards.len()
    }

    /// Checks the offer, reserves the stream and answers. About a millisecond of CPU, never blocks.
    pub(crate) fn open(&self, request: OpenRequest) -> Result<Opened, Refusal> {
        self.try_open(&request).inspect_err(|refusal| {
            let role = if request.role == Role::Publish { "publish" } else { "play" };
            info!(stream = %request.key, ip = %request.client_ip, kind = refusal.kind, "{role} refused: {}", refusal.detail);
            *self.registry().refused.entry(refusal.kind).or_default() += 1;
        })
    }

    fn try_open(&self, request: &OpenRequest) -> Result<Opened, Refusal> {
        if self.is_draining() {
            let detail = "the server is about to stop and takes no new sessions";
            return Err(
                Refusal::new(503, code::CONNECTIONS_EXCEED, "draining", detail, "try another server").retry_after(5)
            );
        }
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
        let credentials = self.credentials(request)?;
        let mut rng = rand::rng();
        let id = SessionId(self.next_id.fetch_add(1, Ordering::Relaxed));
        let status = Arc::new(SessionStatus::default());
        let extra = &request.extra_candidates;
        let udp = self.candidates.for_texts(request.local_ip, request.host.as_deref(), extra);
        let tcp = if self.rules.tcp { udp.clone() } else { Vec::new() };
        let record = Record {
            id,
            token: SessionToken(random_text(22)),
            client_id: random_text(8),
            role: request.role,
            key: request.key.clone(),
            opened: Instant::now(),
            client: Client {
                ip: request.client_ip,
                user_agent: request.user_agent.clone(),
                query: request.query.clone(),
            },
            negotiated: negotiated.clone(),
            status: Arc::clone(&status),
            ice: Ice { remote_ufrag: offer.ufrag.clone(), local: credentials.clone(), udp, tcp },
        };
        let opened = Opened {
            token: record.token.clone(),
            client_id: record.client_id.clone(),
            answer: String::new(),
            etag: record.etag(),
            ice_session: format!("{}:{}", credentials.ufrag, offer.ufrag),
        };
        let (udp, tcp) = (record.ice.udp.clone(), record.ice.tcp.clone());
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

    fn credentials(&self, request: &OpenRequest) -> Result<Credentials, Refusal> {
        let Some((ufrag, pwd)) = &request.ice_credentials else {
            return Ok(Credentials { ufrag: random_text(8), pwd: random_text(32) });
        };
        let ice_chars = |s: &str| s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'+' || b == b'/');
        if (4..=32).contains(&ufrag.len()) && (22..=32).contains(&pwd.len()) && ice_chars(ufrag) && ice_chars(pwd) {
            return Ok(Credentials { ufrag: ufrag.clone(), pwd: pwd.clone() });
        }
        let detail = "ice-ufrag has to be 4 to 32 and ice-pwd 22 to 32 letters, digits, + or /";
        Err(Refusal::new(
            400,
            code::INVALID_ICE,
            "bad-ice-credentials",
            detail,
            "leave both out: the server draws its own",
        ))
    }

    /// Enters the session, if the stream takes it. Returns the publisher whose place it takes.
    fn reserve(&self, record: Record) -> Result<Option<SessionId>, Refusal> {
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
        registry.insert(record, || format!("vid-{}", random_text(7).to_lowercase()));
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
        let Some(mismatch) = registry.mismatch(&new.key, &new.negotiated) else { return Ok(()) };
        let registry::Mismatch { kind, published, offered } = mismatch;
        let detail = format!("{} is published with {kind} codec {published}; the player offers {offered}", new.key);
        let hint = "publish with a codec that the player has, H.264 for most, or play with another client";
        Err(Refusal::new(406, code::CODEC, "codec-mismatch", detail, hint))
    }

    /// The live session of that token.
    pub(crate) fn session(&self, token: &SessionToken) -> Option<SessionView> {
        let registry = self.registry();
        let record = registry.by_token(token)?;
        Some(SessionView { role: record.role, key: record.key.clone(), etag: record.etag() })
    }

    /// Trickle or ICE restart (RFC 9725 §4.3).
    pub(crate) fn patch(
        &self,
        token: &SessionToken,
        if_match: Option<&str>,
        fragment: &str,
    ) -> Result<Patched, Refusal> {
        let mut registry = self.registry();
        let Some(record) = registry.by_token_mut(token) else {
            let detail = "there is no session of that name; it may have ended";
            return Err(Refusal::new(404, code::NO_SESSION, "no-session", detail, "open a new session"));
        };
        let Some(if_match) = if_match else {
            let hint = "send the ETag of the session in If-Match, or If-Match: * for an ICE restart";
            return Err(Refusal::new(428, code::NO_SESSION, "if-match-missing", "PATCH needs If-Match", hint));
        };
        let any = if_match.trim().trim_matches('"') == "*";
        if !any && !if_match.split(',').any(|tag| tag.trim() == record.etag()) {
            let detail = format!("If-Match {if_match} is not the present ICE session");
            return Err(Refusal::new(412, code::NO_SESSION, "stale-etag", detail, "use the ETag of the last answer"));
        }
        let parsed = Fragment::parse(fragment).map_err(|e| {
            Refusal::new(
                400,
                code::SDP_DECODE,
                "bad-fragment",
                e.to_string(),
                "send application/trickle-ice-sdpfrag of RFC 8840",
            )
        })?;
        match parsed.credentials {
            Some((ufrag, pwd)) if ufrag != record.ice.remote_ufrag => {
                self.restart_ice(record, Credentials { ufrag, pwd })
            }
            _ => Ok(Patched::Trickled),
        }
    }

    fn restart_ice(&self, record: &mut Record, remote: Credentials) -> Result<Patched, Refusal> {
        let local = Credentials { ufrag: random_text(8), pwd: random_text(32) };
        let posted = match self.lobby.restart_ice(record.id, &local, &remote) {
            Whereabouts::Done => true,
            Whereabouts::Gone => false,
            Whereabouts::At(shard) => {
                let (id, local, remote) = (record.id, local.clone(), remote.clone());
                self.post(shard, Mail::Command(Command::RestartIce { id, local, remote }))
            }
        };
        if !posted {
            let detail = "the session cannot be reached at the moment";
            return Err(Refusal::new(503, code::NO_SESSION, "busy", detail, "try the restart again").retry_after(1));
        }
        record.ice.remote_ufrag = remote.ufrag;
        record.ice.local = local;
        info!(stream = %record.key, client = record.client_id, "ICE restarted");
        let mids: Vec<(&str, MediaKind)> = record.negotiated.media.iter().map(|m| (m.mid.as_str(), m.kind)).collect();
        let fragment = freshet_sfu::sdp::restart_fragment(&record.ice.local, &mids, &record.ice.udp, &record.ice.tcp);
        Ok(Patched::Restarted { fragment, etag: record.etag() })
    }

    /// Ends a session. [`None`] when there is none of that token.
    pub(crate) fn close(&self, token: &SessionToken) -> Option<Role> {
        let (id, role) = self.registry().by_token(token).map(|r| (r.id, r.role))?;
        self.end(id, CloseReason::Deleted);
        Some(role)
    }

    /// Ends a session by its public id.
    pub(crate) fn kick(&self, client_id: &str) -> bool {
        let id = self.registry().by_client(client_id).map(|r| r.id);
        id.inspect(|id| self.end(*id, CloseReason::Kicked)).is_some()
    }

    /// Ends all sessions and then the media threads. Blocks until the goodbyes are sent.
    pub(crate) fn stop(&self) {
        self.drain();
        for shard in &self.shards {
            // A mailbox that is full now is served in a moment.
            while !shard.postbox.post(Mail::Command(Command::CloseAll { reason: CloseReason::Shutdown })) {
                std::thread::yield_now();
            }
            while !shard.postbox.post(Mail::Stop) {
                std::thread::yield_now();
            }
        }
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(|e| e.into_inner()));
        for thread in threads {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
    }

    /// Takes a session out of the registry at once and tells its shard.
    fn end(&self, id: SessionId, reason: CloseReason) {
        if let Whereabouts::At(shard) = self.lobby.withdraw(id) {
            if !self.post(shard, Mail::Command(Command::Close { id, reason })) {
                warn!(shard = shard.0, "a media thread does not take commands; the session will end by silence");
            }
        }
        self.forget(id, reason);
    }

    fn forget(&self, id: SessionId, reason: CloseReason) {
        let Some(record) = self.registry().remove(id, reason) else { return };
        let role = if record.role == Role::Publish { "publisher" } else { "viewer" };
        let seconds = record.opened.elapsed().as_secs_f32();
        let (key, client) = (&record.key, &record.client_id);
        if reason == CloseReason::NeverConnected {
            let offered: Vec<String> = record.ice.udp.iter().map(|a| format!("udp {a}")).collect();
            warn!(stream = %key, client, ip = %record.client.ip,
                "{role} was answered but never connected: no usable packet came to {} (nor over TCP). \
                 A firewall may block the port, or the address is not reachable from the client: set rtc.candidates or CANDIDATE",
                offered.join(", "));
        } else {
            info!(stream = %key, client, reason = reason.as_str(), "{role} gone after {seconds:.1} s");
        }
    }

    fn take_event(&self, event: ShardEvent) {
        match event {
            ShardEvent::Closed(id, reason) => self.forget(id, reason),
            ShardEvent::Connected(id) => {
                let registry = self.registry();
                let Some(record) = registry.sessions.get(&id) else { return };
                let role = if record.role == Role::Publish { "publisher" } else { "viewer" };
                let (protocol, remote) = record.status.path().map_or(("?", None), |(p, a)| (p.as_str(), Some(a)));
                let millis = record.opened.elapsed().as_millis();
                info!(stream = %record.key, client = record.client_id, protocol, ?remote, "{role} connected after {millis} ms");
            }
        }
    }

    fn post(&self, shard: ShardId, mail: Mail) -> bool {
        self.shards.get(usize::from(shard.0)).is_some_and(|s| s.postbox.post(mail))
    }

    /// All streams that have a publisher or a viewer, by name.
    pub(crate) fn streams(&self) -> Vec<StreamSnapshot> {
        let registry = self.registry();
        let mut all: AHashMap<_, StreamSnapshot> = registry
            .streams
            .iter()
            .map(|(key, stream)| {
                let publisher = stream.publisher.and_then(|id| registry.sessions.get(&id));
                let snapshot = StreamSnapshot {
                    id: stream.id.clone(),
                    key: key.clone(),
                    publisher: publisher.map(|p| p.client_id.clone()),
                    live_for: stream.live_since.map(|at| at.elapsed()),
                    viewers: stream.viewers,
                    tracks: publisher.map(tracks).unwrap_or_default(),
                    frames: publisher.map_or(0, |p| p.status.tracks[1].frames.value()),
                    recv_bytes: publisher.map_or(0, |p| p.status.recv_bytes.value()),
                    send_bytes: stream.past_sent_bytes,
                    recv_bps: publisher.map_or(0, |p| p.status.recv_bps.value()),
                    send_bps: 0,
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

    /// All sessions, the oldest first.
    pub(crate) fn clients(&self) -> Vec<ClientSnapshot> {
        let registry = self.registry();
        let mut records: Vec<&Record> = registry.sessions.values().collect();
        records.sort_by_key(|r| r.id);
        let stream_id = |r: &Record| registry.streams.get(&r.key).map(|s| s.id.clone()).unwrap_or_default();
        records
            .into_iter()
            .map(|r| ClientSnapshot {
                id: r.client_id.clone(),
                role: r.role,
                key: r.key.clone(),
                stream_id: stream_id(r),
                ip: r.client.ip,
                user_agent: r.client.user_agent.clone(),
                query: r.client.query.clone(),
                alive: r.opened.elapsed(),
                connected: r.status.is_connected(),
                path: r.status.path().map(|(protocol, remote)| (protocol.as_str(), remote)),
                recv_bytes: r.status.recv_bytes.value(),
                send_bytes: r.status.sent_bytes.value(),
                recv_bps: r.status.recv_bps.value(),
                send_bps: r.status.sent_bps.value(),
                rtt: r.status.rtt(),
                loss_permille: r.status.loss_permille(),
                nacks: r.status.nacks.value(),
                plis: r.status.keyframe_requests.value(),
            })
            .collect()
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
            sessions_opened: registry.opened,
            refused,
            closed,
        }
    }

    /// From now on `open` answers 503.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether [`Engine::drain`] was called.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Number of live sessions.
    pub(crate) fn session_count(&self) -> usize {
        self.registry().sessions.len()
    }

    /// Carries an ICE-TCP connection (RFC 6544, RFC 4571 framing) until it ends. `read_ahead` is what has been read
    /// from it already.
    pub(crate) async fn serve_ice_tcp(&self, stream: TcpStream, peer: SocketAddr, read_ahead: Bytes) {
        ice_tcp::serve(stream, peer, read_ahead, self).await;
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        // A panic while the lock is held leaves tables that are consistent enough to go on with.
        self.registry.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl ice_tcp::FindShard for Engine {
    fn shard_for(&self, ufrag: &str, peer: SocketAddr) -> Option<&Postbox> {
        let home = self.lobby.whereabouts(ufrag)?;
        // A session that has no shard yet is seated where its first check goes: spread them by the peer's port.
        let shard = home.map_or(usize::from(peer.port()) % self.shards.len(), |s| usize::from(s.0));
        Some(&self.shards.get(shard)?.postbox)
    }
}

impl Rules {
    fn new(config: &Config) -> Rules {
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

fn tracks(publisher: &Record) -> Vec<TrackSnapshot> {
    let track = |m: &freshet_sfu::sdp::NegotiatedMedia| {
        let status = &publisher.status.tracks[usize::from(m.kind == MediaKind::Video)];
        // Before the first packet: what browsers send first is what stands first.
        let format = Format::new(m.codecs.get(status.format().unwrap_or(0))?);
        Some(TrackSnapshot {
            kind: m.kind,
            codec: format.codec,
            clock_hz: format.clock_hz,
            fmtp: format.fmtp,
            channels: format.channels,
            size: None,
            layers: status.layers(),
        })
    };
    publisher.negotiated.media.iter().filter_map(track).collect()
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
        drop_stranger: s.drop_stranger.value(),
        drop_stun: s.drop_stun.value(),
        drop_malformed: s.drop_malformed.value(),
        drop_send: shard.thread.drop_send.value(),
        drop_relay: shard.thread.drop_relay.value(),
        drop_codec: s.drop_codec.value(),
    }
}

/// Letters and digits from the process's secure generator: six bits each.
fn random_text(length: usize) -> String {
    use rand::distr::{Alphanumeric, SampleString as _};
    Alphanumeric.sample_string(&mut rand::rng(), length)
}
