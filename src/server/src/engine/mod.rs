//! The door between the asynchronous side (HTTP, TCP, signals) and the shards that carry media.
//!
//! [`Engine::open`] runs on the caller's thread: it reads the offer, checks it against the stream, reserves, and sets
//! up the session, which then waits in the lobby for its first check. Everything later reaches the session through
//! its shard's mailbox.

mod crossing;
mod ice_tcp;
mod listings;
mod live;
mod mailbox;
mod media_thread;
mod open;
mod outputs;
mod registry;
mod types;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::thread::JoinHandle;
use std::time::{Instant, SystemTime};

use ahash::AHashMap;
use anyhow::Context as _;
use bytes::Bytes;
use freshet_media::{MediaKind, StreamKey};
use freshet_sfu::sdp::Fragment;
use freshet_sfu::{
    CloseReason, Command, Credentials, Epoch, Identity, Lobby, SessionId, Shard, ShardConfig, ShardEvent, ShardId,
    ShardStatus, Whereabouts,
};
use rand::Rng as _;
use tokio::net::TcpStream;
use tracing::{info, warn};

use self::crossing::{FromRtc, ToRtc};
use self::mailbox::{Mail, Postbox};
use self::media_thread::{MediaThread, ThreadStatus};
use self::open::Rules;
use self::registry::{Link, Registry, RtcSession};
use crate::candidates::{CandidateSources, Interface};
use crate::config::Config;
use crate::live::LiveStreams;
use crate::srs_code as code;
use crate::udp;

pub(crate) use types::*;

/// Events that wait to be entered into the registry. A shard that fills it waits.
const EVENT_QUEUE: usize = 65_536;
#[derive(Debug)]
struct ShardHandle {
    postbox: Postbox,
    status: Arc<ShardStatus>,
    thread: Arc<ThreadStatus>,
}

/// Opens, changes and ends WebRTC sessions. One per process, shared as `Arc<Engine>`.
#[derive(Debug)]
pub(crate) struct Engine {
    /// For threads that must not keep it alive.
    this: Weak<Engine>,
    rules: Rules,
    identity: Identity,
    candidates: CandidateSources,
    epoch: Epoch,
    lobby: Arc<Lobby>,
    shards: Vec<ShardHandle>,
    registry: Mutex<Registry>,
    live: Arc<LiveStreams>,
    to_rtc: ToRtc,
    from_rtc: FromRtc,
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
                taps: AHashMap::new(),
            });
            shards.push(ShardHandle { postbox, status, thread });
        }
        let identity = Identity::generate()?;
        let engine = Arc::new_cyclic(|this| Engine {
            this: Weak::clone(this),
            rules: Rules::new(config),
            identity,
            candidates: CandidateSources::new(bound, &config.rtc.candidates, interfaces),
            epoch,
            lobby,
            shards,
            registry: Mutex::default(),
            live: LiveStreams::new(config.gop_cache),
            to_rtc: ToRtc::new(config.rtmp2rtc.clone()),
            from_rtc: FromRtc::new(config.rtc2rtmp.clone()),
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
            *self.registry().refused.entry(refusal.kind).or_default() += 1;
        })
    }

    /// Whether a session of that token is live.
    pub(crate) fn has_session(&self, token: &SessionToken) -> bool {
        self.registry().by_token(token).is_some()
    }

    /// Trickle or ICE restart (RFC 9725 §4.3).
    pub(crate) fn patch(
        &self,
        token: &SessionToken,
        if_match: Option<&str>,
        fragment: &str,
    ) -> Result<Patched, Refusal> {
        let mut registry = self.registry();
        let Some(session) = registry.rtc_by_token(token) else {
            let detail = "there is no session of that name; it may have ended";
            return Err(Refusal::new(404, code::NO_SESSION, "no-session", detail, "open a new session"));
        };
        let Some(if_match) = if_match else {
            let hint = "send the ETag of the session in If-Match, or If-Match: * for an ICE restart";
            return Err(Refusal::new(428, code::NO_SESSION, "if-match-missing", "PATCH needs If-Match", hint));
        };
        let any = if_match.trim().trim_matches('"') == "*";
        if !any && !if_match.split(',').any(|tag| tag.trim() == session.link.etag()) {
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
            Some((ufrag, pwd)) if ufrag != session.link.ice.remote_ufrag => {
                self.restart_ice(session, Credentials { ufrag, pwd })
            }
            _ => Ok(Patched::Trickled),
        }
    }

    fn restart_ice(&self, session: RtcSession<'_>, remote: Credentials) -> Result<Patched, Refusal> {
        let RtcSession { id, key, client_id, link } = session;
        let local = Credentials { ufrag: random_text(8), pwd: random_text(32) };
        let posted = match self.lobby.restart_ice(id, &local, &remote) {
            Whereabouts::Done => true,
            Whereabouts::Gone => false,
            Whereabouts::At(shard) => {
                let (local, remote) = (local.clone(), remote.clone());
                self.post(shard, Mail::Command(Command::RestartIce { id, local, remote }))
            }
        };
        if !posted {
            let detail = "the session cannot be reached at the moment";
            return Err(Refusal::new(503, code::NO_SESSION, "busy", detail, "try the restart again").retry_after(1));
        }
        link.ice.remote_ufrag = remote.ufrag;
        link.ice.local = local;
        info!(stream = %key, client = client_id, "ICE restarted");
        let mids: Vec<(&str, MediaKind)> = link.negotiated.media.iter().map(|m| (m.mid.as_str(), m.kind)).collect();
        let fragment = freshet_sfu::sdp::restart_fragment(&link.ice.local, &mids, &link.ice.udp, &link.ice.tcp);
        Ok(Patched::Restarted { fragment, etag: link.etag() })
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

    /// Ends whoever publishes a stream. False when nobody does.
    pub(crate) fn end_publisher(&self, key: &StreamKey) -> bool {
        let id = self.registry().publisher(key).map(|r| r.id);
        id.inspect(|id| self.end(*id, CloseReason::Kicked)).is_some()
    }

    /// Ends all sessions and then the media threads. Blocks until the goodbyes are sent.
    pub(crate) fn stop(&self) {
        self.drain();
        for record in self.registry().sessions.values() {
            if let Link::Live(link) = &record.link {
                link.end.send_replace(Some(CloseReason::Shutdown));
            }
        }
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

    /// Takes a session out of the registry at once and tells its shard or its connection.
    fn end(&self, id: SessionId, reason: CloseReason) {
        if let Some(Link::Live(link)) = self.registry().sessions.get(&id).map(|r| &r.link) {
            link.end.send_replace(Some(reason));
        } else if let Whereabouts::At(shard) = self.lobby.withdraw(id)
            && !self.post(shard, Mail::Command(Command::Close { id, reason }))
        {
            warn!(shard = shard.0, "a media thread does not take commands; the session will end by silence");
        }
        self.forget(id, reason);
    }

    fn forget(&self, id: SessionId, reason: CloseReason) {
        let record = {
            let mut registry = self.registry();
            let Some(record) = registry.remove(id, reason) else { return };
            self.sync_crossing(&registry, &record.key);
            record
        };
        let role = if record.role == Role::Publish { "publisher" } else { "viewer" };
        let seconds = record.opened.elapsed().as_secs_f32();
        let (key, client) = (&record.key, &record.client_id);
        if let (CloseReason::NeverConnected, Some(link)) = (reason, record.rtc()) {
            let offered: Vec<String> = link.ice.udp.iter().map(|a| format!("udp {a}")).collect();
            warn!(stream = %key, client, ip = %record.client.ip,
                "{role} was answered but never connected: no usable packet came to {} (nor over TCP). \
                 A firewall may block the port, or the address is not reachable from the client: set rtc.candidates or CANDIDATE",
                offered.join(", "));
        } else {
            let protocol = record.protocol().as_str();
            info!(stream = %key, client, protocol, reason = reason.as_str(), "{role} gone after {seconds:.1} s");
        }
    }

    fn take_event(&self, event: ShardEvent) {
        match event {
            ShardEvent::Closed(id, reason) => self.forget(id, reason),
            ShardEvent::KeyframeWanted(id) => self.to_rtc.want_keyframe(id),
            ShardEvent::Connected(id) => {
                let registry = self.registry();
                let Some(record) = registry.sessions.get(&id) else { return };
                let role = if record.role == Role::Publish { "publisher" } else { "viewer" };
                let (protocol, remote) = record.status.path().map_or(("?", None), |(p, a)| (p.as_str(), Some(a)));
                let millis = record.opened.elapsed().as_millis();
                info!(stream = %record.key, client = record.client_id, protocol, ?remote, "{role} connected after {millis} ms");
                if record.role == Role::Publish {
                    self.log_outputs(record);
                }
            }
        }
    }

    /// The shard on which a stream's feed is at home: the same one every time.
    fn shard_of(&self, key: &StreamKey) -> ShardId {
        let sum = key.as_str().bytes().fold(0u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)));
        ShardId((sum % self.shards.len().max(1) as u64) as u16)
    }

    fn post(&self, shard: ShardId, mail: Mail) -> bool {
        self.shards.get(usize::from(shard.0)).is_some_and(|s| s.postbox.post(mail))
    }

    /// From now on `open` answers 503.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether [`Engine::drain`] was called.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Milliseconds of the media side's clock.
    pub(crate) fn millis(&self, at: Instant) -> u64 {
        self.epoch.millis(at)
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

/// Letters and digits from the process's secure generator: six bits each.
fn random_text(length: usize) -> String {
    use rand::distr::{Alphanumeric, SampleString as _};
    Alphanumeric.sample_string(&mut rand::rng(), length)
}
