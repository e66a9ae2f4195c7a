//! One peer, from the answer to the goodbye.

mod receiving;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use freshet_media::{MediaKind, StreamKey};

use crate::batch::{Path, Protocol, SendBatch};
use crate::clock::Epoch;
use crate::publisher::Publisher;
use crate::relay::SessionId;
use crate::router::{Router, StreamIndex, StreamState};
use crate::sdp::{AnswerParams, Negotiated, Offer, SenderSsrcs, answer};
use crate::status::{SessionStatus, ShardStatus};
use crate::subscriber::{Outlet, Subscriber, Wishes};
use crate::transport::{
    Admission, BindingRequest, Credentials, Identity, Transport, TransportError, TransportOutput, is_rtcp,
    is_rtp_or_rtcp,
};

/// Addresses that a peer may talk from at once: its interfaces, over UDP and TCP.
const MAX_ADDRESSES: usize = 12;
/// Reports, rates and checks of silence.
const TICK: Duration = Duration::from_secs(1);
/// A player can align sound and picture only after the first sender reports: these come early.
const FIRST_TICK: Duration = Duration::from_millis(200);

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CloseReason {
    /// The client deleted it.
    Deleted,
    /// An operator ended it.
    Kicked,
    /// Another publisher took the stream over.
    Replaced,
    /// The peer said goodbye.
    PeerClosed,
    /// Nothing was heard for the session timeout.
    Silent,
    /// No connection came about in time.
    NeverConnected,
    /// The peer broke a protocol.
    Failed,
    /// The server stops.
    Shutdown,
}

impl CloseReason {
    /// A label for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            CloseReason::Deleted => "deleted",
            CloseReason::Kicked => "kicked",
            CloseReason::Replaced => "replaced",
            CloseReason::PeerClosed => "peer-closed",
            CloseReason::Silent => "silent",
            CloseReason::NeverConnected => "never-connected",
            CloseReason::Failed => "failed",
            CloseReason::Shutdown => "shutdown",
        }
    }
}

/// How long a session may wait.
#[derive(Debug, Clone, Copy)]
pub struct SessionLimits {
    /// For ICE and DTLS, from the answer on.
    pub connect: Duration,
    /// For the next authentic packet.
    pub silence: Duration,
}

/// What a session is made from.
pub struct SessionParams<'a> {
    /// Its name, never used before.
    pub id: SessionId,
    /// Its stream.
    pub key: StreamKey,
    /// The peer's offer.
    pub offer: &'a Offer,
    /// What of it is accepted.
    pub negotiated: &'a Negotiated,
    /// Certificate and DTLS configuration.
    pub identity: &'a Identity,
    /// ICE credentials of our side.
    pub credentials: Credentials,
    /// Addresses for the answer, UDP.
    pub udp: &'a [SocketAddr],
    /// Addresses for the answer, TCP.
    pub tcp: &'a [SocketAddr],
    /// Deadlines.
    pub limits: SessionLimits,
    /// Shared with whoever watches.
    pub status: Arc<SessionStatus>,
    /// Unpredictable numbers: SSRCs, first sequence numbers, names.
    pub random: &'a mut dyn FnMut() -> u64,
}

#[derive(Debug)]
enum Side {
    Publisher(Box<Publisher>),
    Subscriber(Box<Subscriber>),
}

/// One peer.
#[derive(Debug)]
pub struct Session {
    pub(crate) id: SessionId,
    pub(crate) key: StreamKey,
    pub(crate) ufrags: Vec<String>,
    /// Addresses from which authentic checks came.
    pub(crate) addresses: Vec<Path>,
    /// The shard's index of the stream, once seated.
    pub(crate) stream: Option<StreamIndex>,
    pub(crate) status: Arc<SessionStatus>,
    transport: Transport,
    side: Side,
    path: Option<Path>,
    ready: bool,
    times: Times,
    limits: SessionLimits,
    rates: (u64, u64),
}

#[derive(Debug)]
struct Times {
    created: Instant,
    heard: Instant,
    ticked: Instant,
    next_tick: Instant,
    transport: Instant,
}

/// What the shard has to see to after a session was given something.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// ICE, DTLS and keys have come up just now.
    pub(crate) ready: bool,
    /// An address that is new for the session.
    pub(crate) address: Option<Path>,
    /// One that had to make room for it.
    pub(crate) forgotten: Option<Path>,
    /// A keyframe is wanted from the stream's publisher.
    pub(crate) wants_keyframe: bool,
    /// Keyframe requests that went out to this publisher.
    pub(crate) keyframe_requests: u64,
    /// It is over.
    pub(crate) ended: Option<CloseReason>,
}

/// What a session works with; all of it belongs to the shard.
pub(crate) struct Desk<'a> {
    pub(crate) now: Instant,
    pub(crate) epoch: &'a Epoch,
    pub(crate) batch: &'a mut SendBatch,
    pub(crate) router: &'a mut Router,
    pub(crate) shard: &'a ShardStatus,
}

impl Session {
    /// Sets up a session and writes its answer.
    ///
    /// # Errors
    /// The peer connection does not take the offer.
    pub fn open(params: SessionParams<'_>, now: Instant) -> Result<(Session, String), TransportError> {
        let SessionParams { id, key, offer, negotiated, identity, credentials, limits, status, random, .. } = params;
        let (stream_id, cname) = (format!("freshet-{:016x}", random()), format!("{:016x}", random()));
        let ssrcs = if negotiated.publishing { Vec::new() } else { draw_ssrcs(negotiated, random) };
        let text = answer(
            offer,
            negotiated,
            &AnswerParams {
                ufrag: &credentials.ufrag,
                pwd: &credentials.pwd,
                fingerprint: identity.fingerprint(),
                udp: params.udp,
                tcp: params.tcp,
                stream_id: &stream_id,
                cname: &cname,
                ssrcs: &ssrcs,
                origin: random() >> 2,
            },
        );
        let (transport, side) = if negotiated.publishing {
            let transport = Transport::publisher(identity, &credentials, offer, negotiated, now)?;
            // 0 is libwebrtc's probing SSRC.
            let ssrc = (random() as u32).max(1);
            (transport, Side::Publisher(Box::new(Publisher::new(offer, negotiated, ssrc))))
        } else {
            let transport = Transport::subscriber(identity, &credentials, offer, now)?;
            (transport, Side::Subscriber(Box::new(Subscriber::new(negotiated, &ssrcs, cname, random))))
        };
        let times = Times { created: now, heard: now, ticked: now, next_tick: now + TICK, transport: now };
        let session = Session {
            id,
            key,
            ufrags: vec![credentials.ufrag],
            addresses: Vec::new(),
            stream: None,
            status,
            transport,
            side,
            path: None,
            ready: false,
            times,
            limits,
            rates: (0, 0),
        };
        Ok((session, text))
    }

    /// The moment at which it is given up unless it has connected.
    pub(crate) fn connect_deadline(&self) -> Instant {
        self.times.created + self.limits.connect
    }

    /// Whether a STUN request carries our credentials. Changes nothing.
    pub(crate) fn admits(&self, now: Instant, path: Path, datagram: &[u8]) -> bool {
        self.transport.admits(now, path, datagram)
    }

    pub(crate) fn publisher(&self) -> Option<&Publisher> {
        match &self.side {
            Side::Publisher(p) => Some(p),
            Side::Subscriber(_) => None,
        }
    }

    pub(crate) fn publisher_mut(&mut self) -> Option<&mut Publisher> {
        match &mut self.side {
            Side::Publisher(p) => Some(p),
            Side::Subscriber(_) => None,
        }
    }

    /// The sending half and where it sends, if it can.
    pub(crate) fn subscriber(&mut self) -> Option<(&mut Subscriber, Path, &SessionStatus)> {
        match &mut self.side {
            Side::Subscriber(s) if self.ready => Some((s, self.path?, &self.status)),
            _ => None,
        }
    }

    /// New ICE credentials. The former user name stays valid for finding the session.
    pub(crate) fn restart_ice(&mut self, local: &Credentials, remote: &Credentials) {
        self.transport.restart_ice(local, remote);
        self.ufrags.insert(0, local.ufrag.clone());
        self.ufrags.truncate(2);
    }

    /// Takes a datagram from the network.
    pub(crate) fn handle_datagram(&mut self, path: Path, datagram: &[u8], desk: &mut Desk<'_>) -> (Admission, Outcome) {
        let mut outcome = Outcome::default();
        if is_rtp_or_rtcp(datagram) && !self.ready {
            desk.shard.drop_malformed.add(1);
            return (Admission::Taken, outcome);
        }
        match &mut self.side {
            Side::Subscriber(subscriber) if is_rtp_or_rtcp(datagram) => {
                if is_rtcp(datagram) {
                    let (Some(out), Some(stream)) = (self.path, self.stream) else {
                        return (Admission::Taken, outcome);
                    };
                    let outlet = &mut Outlet { batch: desk.batch, path: out, status: &self.status, shard: desk.shard };
                    let feed = desk.router.stream(stream).and_then(|s| s.feed.as_ref());
                    let wishes: Option<Wishes> = subscriber.handle_rtcp(desk.now, datagram, feed, outlet);
                    if let Some(wishes) = wishes {
                        self.times.heard = desk.now;
                        outcome.wants_keyframe = wishes.keyframe;
                    }
                }
                self.status.recv_bytes.add(datagram.len() as u64);
                return (Admission::Taken, outcome);
            }
            Side::Publisher(publisher) => {
                if is_rtp_or_rtcp(datagram) && !is_rtcp(datagram) {
                    publisher.bind_by_payload_type(&mut self.transport, datagram);
                }
            }
            Side::Subscriber(_) => {}
        }
        let Ok(admission) = self.transport.handle_datagram(desk.now, path, datagram) else {
            outcome.ended = Some(CloseReason::Failed);
            return (Admission::Taken, outcome);
        };
        if admission == Admission::Taken {
            self.status.recv_bytes.add(datagram.len() as u64);
            self.note_check(path, datagram, desk.now, &mut outcome);
            self.drain(Some(path), desk, &mut outcome);
            if is_rtp_or_rtcp(datagram) && !is_rtcp(datagram) {
                self.recover(datagram, desk);
            }
        }
        (admission, outcome)
    }

    /// After an authentic check: remembers where it came from, and lets media follow if it nominates (RFC 8445 §8.1.1).
    fn note_check(&mut self, path: Path, datagram: &[u8], now: Instant, outcome: &mut Outcome) {
        let Some(request) = BindingRequest::parse(datagram) else { return };
        self.times.heard = now;
        if !self.addresses.contains(&path) {
            self.addresses.retain(|p| (p.protocol, p.remote) != (path.protocol, path.remote));
            if self.addresses.len() >= MAX_ADDRESSES {
                // Keep the one in use; the oldest of the others goes.
                let oldest = usize::from(self.path == self.addresses.first().copied());
                outcome.forgotten = Some(self.addresses.remove(oldest));
            }
            self.addresses.push(path);
            outcome.address = Some(path);
        }
        if request.nominates && self.path != Some(path) {
            self.path = Some(path);
            self.status.set_path(path.protocol, path.remote);
        }
    }

    /// Lets time pass.
    pub(crate) fn handle_timeout(&mut self, desk: &mut Desk<'_>) -> Outcome {
        let mut outcome = Outcome::default();
        self.advance(desk);
        if desk.now < self.wake_at_rest() {
            return outcome;
        }
        if desk.now >= self.times.transport && self.transport.handle_timeout(desk.now).is_err() {
            outcome.ended = Some(CloseReason::Failed);
            return outcome;
        }
        self.drain(None, desk, &mut outcome);
        if desk.now >= self.times.next_tick {
            self.tick(desk, &mut outcome);
        }
        if !self.ready && desk.now >= self.connect_deadline() {
            outcome.ended.get_or_insert(CloseReason::NeverConnected);
        }
        if desk.now.saturating_duration_since(self.times.heard) >= self.limits.silence && self.ready {
            outcome.ended.get_or_insert(CloseReason::Silent);
        }
        outcome
    }

    /// When something else than media is due.
    fn wake_at_rest(&self) -> Instant {
        let at = self.times.next_tick.min(self.times.transport);
        let at = at.min(if self.ready { self.times.heard + self.limits.silence } else { self.connect_deadline() });
        match &self.side {
            Side::Publisher(p) => p.deadline().map_or(at, |d| at.min(d)),
            Side::Subscriber(_) => at,
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) at the latest.
    pub(crate) fn wake_at(&self) -> Instant {
        let at = self.wake_at_rest();
        match &self.side {
            Side::Publisher(_) => at,
            Side::Subscriber(s) => s.wake_at().map_or(at, |d| at.min(d)),
        }
    }

    /// Sends what is due of a viewer's picture that is not on the live edge.
    pub(crate) fn advance(&mut self, desk: &mut Desk<'_>) {
        let (Side::Subscriber(subscriber), Some(path)) = (&mut self.side, self.path) else { return };
        if subscriber.wake_at().is_some_and(|at| at <= desk.now) {
            let supply = self.stream.and_then(|s| desk.router.stream(s)).and_then(StreamState::supply);
            let outlet = &mut Outlet { batch: desk.batch, path, status: &self.status, shard: desk.shard };
            subscriber.advance(desk.now, supply, outlet);
        }
    }

    fn tick(&mut self, desk: &mut Desk<'_>, outcome: &mut Outcome) {
        let elapsed = desk.now.saturating_duration_since(self.times.ticked).max(Duration::from_millis(1));
        self.times.ticked = desk.now;
        self.times.next_tick = desk.now + TICK;
        let (received, sent) = (self.status.recv_bytes.value(), self.status.sent_bytes.value());
        let bps = |bytes: u64| bytes * 8 * 1000 / elapsed.as_millis() as u64;
        self.status.recv_bps.set(bps(received - self.rates.0));
        self.status.sent_bps.set(bps(sent - self.rates.1));
        self.rates = (received, sent);
        let (Side::Subscriber(subscriber), Some(path)) = (&mut self.side, self.path) else { return };
        subscriber.refill_budget(elapsed);
        subscriber.look_after(desk.now);
        outcome.wants_keyframe |= subscriber.wants_keyframe(desk.now);
        let feed = self.stream.and_then(|s| desk.router.stream(s)).and_then(|s| s.feed.as_ref());
        if let (true, Some(feed)) = (self.ready, feed) {
            let outlet = &mut Outlet { batch: desk.batch, path, status: &self.status, shard: desk.shard };
            subscriber.update_patience(desk.now, feed, self.status.rtt());
            subscriber.send_reports(desk.now, feed, outlet);
        }
    }

    /// Empties the transport. `came_by` is the path of the datagram that it was given.
    fn drain(&mut self, came_by: Option<Path>, desk: &mut Desk<'_>, outcome: &mut Outcome) {
        loop {
            if let Side::Publisher(publisher) = &mut self.side {
                outcome.keyframe_requests += publisher.poll_keyframe_requests(desk.now, &mut self.transport);
            }
            match self.transport.poll_output() {
                Err(_) => outcome.ended = Some(CloseReason::Failed),
                Ok(TransportOutput::Timeout(at)) => {
                    self.times.transport = at;
                    break;
                }
                Ok(TransportOutput::Closed) => outcome.ended = Some(CloseReason::PeerClosed),
                Ok(TransportOutput::Stun(bytes, to)) => {
                    let path = came_by.filter(|p| p.remote == to).or_else(|| self.known_path(to));
                    self.send(&bytes, path, desk);
                }
                Ok(TransportOutput::Record(bytes, to)) => {
                    let path = self.path.or_else(|| self.known_path(to)).or(came_by);
                    self.send(&bytes, path, desk);
                }
                Ok(TransportOutput::Connected) => self.connected(desk.now, outcome),
                Ok(TransportOutput::Rtp(received)) => {
                    self.times.heard = desk.now;
                    desk.shard.published_packets.add(1);
                    let millis = desk.epoch.millis(desk.now);
                    self.status.last_media_millis.set(millis);
                    self.take(&received, desk);
                }
                Ok(TransportOutput::SenderReport(report)) => {
                    let Side::Publisher(publisher) = &mut self.side else { continue };
                    let clock = publisher.sender_report(&report, desk.epoch);
                    if let (Some((track, reference)), Some(stream)) = (clock, self.stream) {
                        desk.router.set_clock(stream, self.id, track, reference);
                    }
                }
            }
            if outcome.ended.is_some() {
                break;
            }
        }
        self.ask_for_lost(desk);
        self.status.keyframe_requests.add(outcome.keyframe_requests);
        if !self.transport.is_alive() {
            outcome.ended.get_or_insert(CloseReason::PeerClosed);
        }
    }

    fn connected(&mut self, now: Instant, outcome: &mut Outcome) {
        let usable = match &mut self.side {
            Side::Publisher(_) => true,
            Side::Subscriber(s) => self.transport.keys().is_some_and(|keys| s.set_keys(keys)),
        };
        if !usable {
            outcome.ended = Some(CloseReason::Failed);
        } else if !self.ready {
            self.ready = true;
            self.times.heard = now;
            self.times.next_tick = now + FIRST_TICK;
            self.status.set_connected();
            outcome.ready = true;
        }
    }

    /// Asks this publisher for a keyframe. Returns how many requests go out.
    pub(crate) fn request_keyframe(&mut self, desk: &mut Desk<'_>) -> Outcome {
        let mut outcome = Outcome::default();
        if let (Side::Publisher(publisher), true) = (&mut self.side, self.ready) {
            outcome.keyframe_requests = publisher.request_keyframe(desk.now, &mut self.transport);
            if outcome.keyframe_requests > 0 && self.transport.handle_timeout(desk.now).is_err() {
                outcome.ended = Some(CloseReason::Failed);
                return outcome;
            }
            self.drain(None, desk, &mut outcome);
        }
        outcome
    }

    /// Says goodbye to the peer.
    pub(crate) fn say_goodbye(&mut self, desk: &mut Desk<'_>) {
        if let (Side::Subscriber(subscriber), Some(path)) = (&mut self.side, self.path) {
            subscriber.send_bye(&mut Outlet { batch: desk.batch, path, status: &self.status, shard: desk.shard });
        }
        if self.ready {
            self.transport.close();
            self.drain(None, desk, &mut Outcome { ended: None, ..Outcome::default() });
        }
    }

    fn known_path(&self, to: SocketAddr) -> Option<Path> {
        self.addresses.iter().rev().find(|p| p.remote == to).copied()
    }

    fn send(&self, bytes: &[u8], path: Option<Path>, desk: &mut Desk<'_>) {
        let Some(path) = path else { return };
        desk.batch.arena().extend_from_slice(bytes);
        let sent = desk.batch.commit(path) as u64;
        self.status.sent_bytes.add(sent);
        desk.shard.sent_bytes.add(sent);
        desk.shard.sent_packets.add(1);
    }
}

fn draw_ssrcs(negotiated: &Negotiated, random: &mut dyn FnMut() -> u64) -> Vec<(MediaKind, SenderSsrcs)> {
    let mut taken: Vec<u32> = Vec::new();
    let mut draw = || loop {
        let ssrc = random() as u32;
        // 0 is libwebrtc's probing SSRC.
        if ssrc != 0 && !taken.contains(&ssrc) {
            taken.push(ssrc);
            return ssrc;
        }
    };
    let with_rtx = |m: &crate::sdp::NegotiatedMedia| m.codecs.iter().any(|c| c.rtx.is_some());
    negotiated.media.iter().map(|m| (m.kind, SenderSsrcs { media: draw(), rtx: with_rtx(m).then(&mut draw) })).collect()
}

/// Names an address in the demultiplexer.
pub(crate) type AddressKey = (Protocol, SocketAddr);
