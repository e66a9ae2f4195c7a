//! Shards and clients in virtual time: the earliest event first, no sleep, one real instant as the origin.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, UNIX_EPOCH};

use freshet_media::StreamKey;
use freshet_sfu::sdp::{Negotiated, Offer, VideoPreference, negotiate};
use freshet_sfu::{
    BindingRequest, Command, Credentials, Epoch, Identity, Input, Lobby, Path, Protocol, RelayMessage, Session,
    SessionId, SessionLimits, SessionParams, SessionStatus, Shard, ShardConfig, ShardEvent, ShardId, ShardStatus,
    Tapped, Whereabouts,
};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use str0m::ice::{StunMessage, TransId};
use str0m::media::Direction;

use crate::client::{Client, ClientId};
use crate::feeder::{Feed, FeedId};
use crate::net::Profile;
use crate::peer::{Offered, Offering, sha1_hmac};

/// The one real instant that a test process reads.
static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// One certificate for all worlds: each leaks a provider.
static IDENTITY: LazyLock<Identity> = LazyLock::new(|| Identity::generate().expect("an identity"));

pub(crate) const SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 1)), 8000);

/// Something that happens at a time.
pub(crate) enum Happening {
    AtServer { remote: SocketAddr, payload: Vec<u8> },
    AtClient { address: SocketAddr, payload: Vec<u8> },
    Relay { to: usize, message: RelayMessage },
    ShardTimer(usize),
    ClientTimer(ClientId),
    Media(ClientId),
    Patience(ClientId),
    Feed(FeedId),
}

struct Scheduled {
    at: Instant,
    order: u64,
    what: Happening,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Scheduled) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}
impl Eq for Scheduled {}
impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Scheduled) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Scheduled {
    fn cmp(&self, other: &Scheduled) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// A shard and its timer.
pub(crate) struct Seat {
    pub(crate) shard: Shard,
    pub(crate) status: Arc<ShardStatus>,
    armed: Option<Instant>,
}

/// A STUN request as it reached the server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Check {
    pub(crate) at: Instant,
    pub(crate) remote: SocketAddr,
    pub(crate) nominates: bool,
}

/// What [`World::measure`] has counted.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Allocations {
    pub(crate) in_input: u64,
    pub(crate) in_transmit: u64,
    pub(crate) batches: u64,
}

/// Decides whether a message between shards is dropped.
pub(crate) type RelayFilter = Box<dyn FnMut(usize, &RelayMessage) -> bool>;

/// A server, its clients and the network between them.
pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) start: Instant,
    pub(crate) seats: Vec<Seat>,
    pub(crate) lobby: Arc<Lobby>,
    pub(crate) clients: Vec<Client>,
    pub(crate) events: Vec<(Instant, ShardEvent)>,
    /// What taps have yielded.
    pub(crate) tapped: Vec<(Instant, SessionId, Tapped)>,
    pub(crate) checks: Vec<Check>,
    /// Media datagrams from the server to these addresses are noted.
    pub(crate) watched: HashMap<SocketAddr, Vec<Instant>>,
    /// Datagrams of these addresses go to a shard of choice instead of the one that the address hashes to.
    pub(crate) steering: HashMap<SocketAddr, usize>,
    pub(crate) limits: SessionLimits,
    pub(crate) drop_relay: Option<RelayFilter>,
    /// Messages between shards, by whether they are media.
    pub(crate) relayed: [u64; 2],
    pub(crate) handed_over: u64,
    pub(crate) allocations: Option<Allocations>,
    /// Most bytes that were handed over for sending at once.
    pub(crate) largest_batch: usize,
    pub(crate) feeds: Vec<Feed>,
    pub(crate) key: StreamKey,
    queue: BinaryHeap<Reverse<Scheduled>>,
    by_address: HashMap<SocketAddr, ClientId>,
    random: StdRng,
    order: u64,
}

impl World {
    pub(crate) fn new(shards: u16, seed: u64) -> World {
        let start = *ORIGIN;
        let lobby = Arc::new(Lobby::default());
        let epoch = Epoch::new(start, UNIX_EPOCH + Duration::from_secs(1_800_000_000));
        let seat = |id| {
            let status = Arc::new(ShardStatus::default());
            let (lobby, shared) = (Arc::clone(&lobby), Arc::clone(&status));
            let config = ShardConfig { id: ShardId(id), shards, epoch, lobby, status: shared };
            Seat { shard: Shard::new(config, start), status, armed: None }
        };
        let seats = (0..shards).map(seat).collect();
        let mut world = World {
            now: start,
            start,
            seats,
            lobby,
            clients: Vec::new(),
            events: Vec::new(),
            tapped: Vec::new(),
            checks: Vec::new(),
            watched: HashMap::new(),
            steering: HashMap::new(),
            limits: SessionLimits { connect: Duration::from_secs(20), silence: Duration::from_secs(10) },
            drop_relay: None,
            relayed: [0; 2],
            handed_over: 0,
            allocations: None,
            largest_batch: 0,
            feeds: Vec::new(),
            key: StreamKey::new("", "live", "cam").expect("a key"),
            queue: BinaryHeap::new(),
            by_address: HashMap::new(),
            random: StdRng::seed_from_u64(seed),
            order: 0,
        };
        for i in 0..world.seats.len() {
            world.flush(i);
        }
        world
    }

    /// Opens a session as the HTTP side does; signalling takes no time and is never lost.
    pub(crate) fn join(&mut self, offering: &Offering, profile: Profile) -> ClientId {
        let id = ClientId(self.clients.len());
        let address = client_address(id.0, 0);
        let offered = Offered::new(offering, address, self.now);
        let offer = Offer::parse(&offered.offer).expect("the offer can be parsed");
        let publishing = offering.direction == Direction::SendOnly;
        let negotiated = negotiate(&offer, publishing, VideoPreference::Offered).expect("the offer is acceptable");
        let (credentials, answer, status) = self.open(SessionId(id.0 as u64 + 1), &offer, &negotiated);
        let seeds = [self.random.random(), self.random.random()];
        let username = format!("{}:{}", credentials.ufrag, offer.ufrag);
        let client = Client::new(id, offering, offered, &answer, address, profile, seeds, self.now, self.start)
            .with_server(status, credentials, username);
        self.by_address.insert(address, id);
        self.clients.push(client);
        self.tend(id);
        id
    }

    fn open(
        &mut self,
        id: SessionId,
        offer: &Offer,
        negotiated: &Negotiated,
    ) -> (Credentials, String, Arc<SessionStatus>) {
        let random = &mut self.random;
        let mut text = |n: usize| -> String { (0..n).map(|_| random.random_range('a'..='z')).collect() };
        let credentials = Credentials { ufrag: text(8), pwd: text(32) };
        let status = Arc::new(SessionStatus::default());
        let params = SessionParams {
            id,
            key: self.key.clone(),
            offer,
            negotiated,
            identity: &IDENTITY,
            credentials: credentials.clone(),
            udp: &[SERVER],
            tcp: &[],
            limits: self.limits,
            status: Arc::clone(&status),
            random: &mut || self.random.random(),
        };
        let (session, answer) = Session::open(params, self.now).expect("a session");
        self.lobby.admit(session);
        (credentials, answer, status)
    }

    pub(crate) fn publish(&mut self, offering: &Offering, profile: Profile) -> ClientId {
        let id = self.join(offering, profile);
        self.until(Duration::from_secs(10), |w| w.client(id).connected.is_some());
        assert!(self.client(id).connected.is_some(), "the publisher connects");
        id
    }

    pub(crate) fn watch(&mut self, offering: &Offering, profile: Profile) -> ClientId {
        let id = self.join(offering, profile);
        self.until(Duration::from_secs(10), |w| w.client(id).connected.is_some());
        assert!(self.client(id).connected.is_some(), "the viewer connects");
        id
    }

    pub(crate) fn client(&self, id: ClientId) -> &Client {
        &self.clients[id.0]
    }

    pub(crate) fn client_mut(&mut self, id: ClientId) -> &mut Client {
        &mut self.clients[id.0]
    }

    pub(crate) fn session(&self, id: ClientId) -> SessionId {
        SessionId(id.0 as u64 + 1)
    }

    /// The client's address as the server sees it changes, as when a NAT forgets its binding.
    pub(crate) fn rebind(&mut self, id: ClientId, step: u8) -> SocketAddr {
        let address = client_address(id.0, step);
        let client = &mut self.clients[id.0];
        self.by_address.remove(&client.public);
        client.public = address;
        self.by_address.insert(address, id);
        address
    }

    /// Nothing of the client gets through any more, in either direction.
    pub(crate) fn vanish(&mut self, id: ClientId) {
        self.clients[id.0].gone = true;
    }

    /// The client says goodbye (DTLS close_notify).
    pub(crate) fn close(&mut self, id: ClientId) {
        let client = &mut self.clients[id.0];
        client.rtc.close().expect("it is open");
        client.tick(self.now);
        self.tend(id);
    }

    /// Whatever was done to a client's peer connection from outside goes out.
    pub(crate) fn nudge(&mut self, id: ClientId) {
        self.clients[id.0].tick(self.now);
        self.tend(id);
    }

    pub(crate) fn command(&mut self, shard: usize, command: Command) {
        self.seats[shard].shard.handle_input(self.now, Input::Command(command));
        self.flush(shard);
    }

    /// New ICE credentials on both sides, as a WHIP PATCH brings them (RFC 9725 §4.3.3).
    pub(crate) fn restart_ice(&mut self, id: ClientId, ours: Credentials, theirs: Credentials) {
        let session = self.session(id);
        let creds = |c: &Credentials| str0m::IceCreds { ufrag: c.ufrag.clone(), pass: c.pwd.clone() };
        let mut api = self.clients[id.0].rtc.direct_api();
        api.set_local_ice_credentials(creds(&theirs));
        api.set_remote_ice_credentials(creds(&ours));
        if let Whereabouts::At(shard) = self.lobby.restart_ice(session, &ours, &theirs) {
            self.command(usize::from(shard.0), Command::RestartIce { id: session, local: ours, remote: theirs });
        }
        self.nudge(id);
    }

    /// A connectivity check made by hand.
    pub(crate) fn check(&self, id: ClientId, nominates: bool, password: &str) -> Vec<u8> {
        let client = self.client(id);
        let message = StunMessage::binding_request(&client.username, TransId::new(), true, 77, 1_000_000, nominates);
        let mut bytes = vec![0; 512];
        let length = message.to_bytes(Some(password.as_bytes()), &mut bytes, sha1_hmac).expect("a check");
        bytes.truncate(length);
        bytes
    }

    /// A datagram arrives at the server at once.
    pub(crate) fn inject(&mut self, remote: SocketAddr, payload: Vec<u8>) {
        self.schedule(self.now, Happening::AtServer { remote, payload });
    }

    pub(crate) fn run(&mut self, time: Duration) {
        self.until(time, |_| false);
    }

    /// Runs until something holds, but no longer than `limit`.
    pub(crate) fn until(&mut self, limit: Duration, mut done: impl FnMut(&World) -> bool) -> bool {
        let end = self.now + limit;
        loop {
            if done(self) {
                return true;
            }
            let Some(Reverse(next)) = self.queue.peek() else { break };
            if next.at > end {
                break;
            }
            let Some(Reverse(next)) = self.queue.pop() else { break };
            self.now = self.now.max(next.at);
            self.happen(next.what);
        }
        self.now = end;
        false
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::AtServer { remote, payload } => self.arrive_at_server(remote, &payload),
            Happening::AtClient { address, payload } => {
                let Some(id) = self.by_address.get(&address).copied() else { return };
                self.clients[id.0].receive(self.now, SERVER, &payload);
                self.tend(id);
            }
            Happening::Relay { to, message } => {
                self.seats[to].shard.handle_input(self.now, Input::Relay(message));
                self.flush(to);
            }
            Happening::ShardTimer(i) => {
                self.seats[i].armed = None;
                if self.now >= self.seats[i].shard.poll_timeout() {
                    self.seats[i].shard.handle_input(self.now, Input::Timeout);
                }
                self.flush(i);
            }
            Happening::ClientTimer(id) => {
                let client = &mut self.clients[id.0];
                client.armed = None;
                if self.now >= client.deadline {
                    client.tick(self.now);
                }
                self.tend(id);
            }
            Happening::Media(id) => {
                self.clients[id.0].media_armed = None;
                self.clients[id.0].write_due(self.now);
                self.tend(id);
            }
            Happening::Feed(id) => self.feed_due(id),
            Happening::Patience(id) => {
                self.clients[id.0].lose_patience(self.now);
                self.tend(id);
                self.schedule(self.now + PATIENCE, Happening::Patience(id));
            }
        }
    }

    /// The viewer asks for keyframes as players do.
    pub(crate) fn make_impatient(&mut self, id: ClientId, after: Duration) {
        self.clients[id.0].viewer_mut().gives_up_after = Some(after);
        self.schedule(self.now + PATIENCE, Happening::Patience(id));
    }

    fn arrive_at_server(&mut self, remote: SocketAddr, payload: &[u8]) {
        if let Some(request) = BindingRequest::parse(payload) {
            self.checks.push(Check { at: self.now, remote, nominates: request.nominates });
        }
        let shard = self.shard_of(remote);
        let path = Path { protocol: Protocol::Udp, remote, local: SERVER.ip() };
        let before = crate::allocations::count();
        self.seats[shard].shard.handle_input(self.now, Input::Datagram { path, payload });
        if let Some(a) = &mut self.allocations {
            a.in_input += crate::allocations::count() - before;
        }
        self.flush(shard);
    }

    /// Where the kernel delivers datagrams of this address.
    pub(crate) fn shard_of(&self, remote: SocketAddr) -> usize {
        let hash = usize::from(remote.port()) + 7 * usize::from(remote.ip().to_canonical().is_ipv4());
        self.steering.get(&remote).copied().unwrap_or(hash % self.seats.len())
    }

    /// Takes out of a shard what it has to say, as the media thread does.
    fn flush(&mut self, i: usize) {
        let now = self.now;
        loop {
            let before = crate::allocations::count();
            let batch = self.seats[i].shard.poll_transmit();
            if let (Some(a), true) = (&mut self.allocations, batch.is_some()) {
                a.in_transmit += crate::allocations::count() - before;
                a.batches += 1;
            }
            let Some(batch) = batch else { break };
            self.largest_batch = self.largest_batch.max(batch.messages().iter().map(|m| m.bytes).sum());
            let mut arrivals = Vec::new();
            for message in batch.messages() {
                assert_eq!(message.path.local, SERVER.ip());
                let to = message.path.remote;
                for datagram in batch.datagrams(message) {
                    if let (Some(times), true) = (self.watched.get_mut(&to), is_rtp(datagram)) {
                        times.push(now);
                    }
                    let Some(id) = self.by_address.get(&to) else { continue };
                    let client = &mut self.clients[id.0];
                    if client.gone {
                        continue;
                    }
                    for at in client.down.carry(now, datagram).into_iter().flatten() {
                        arrivals.push((at, Happening::AtClient { address: to, payload: datagram.to_vec() }));
                    }
                }
            }
            batch.clear();
            for (at, what) in arrivals {
                self.schedule(at, what);
            }
        }
        while let Some((to, message)) = self.seats[i].shard.poll_relay() {
            let to = usize::from(to.0);
            self.relayed[usize::from(message.is_media())] += 1;
            self.handed_over += u64::from(matches!(message, RelayMessage::Datagram { .. }));
            let dropped = message.is_media() && self.drop_relay.as_mut().is_some_and(|drops| drops(to, &message));
            if !dropped {
                self.schedule(now, Happening::Relay { to, message });
            }
        }
        while let Some((of, tapped)) = self.seats[i].shard.poll_tap() {
            self.tapped.push((now, of, tapped));
        }
        while let Some(event) = self.seats[i].shard.poll_event() {
            self.events.push((now, event));
        }
        let seat = &mut self.seats[i];
        let at = seat.shard.poll_timeout().max(now + MIN_STEP);
        if seat.armed.is_none_or(|armed| at < armed) {
            seat.armed = Some(at);
            self.schedule(at, Happening::ShardTimer(i));
        }
    }

    /// Sends what a client has written and sets its timers.
    fn tend(&mut self, id: ClientId) {
        let now = self.now;
        let client = &mut self.clients[id.0];
        let remote = client.public;
        let mut arrivals = Vec::new();
        for mut datagram in client.outbox.drain(..) {
            if !client.gone {
                client.up.damage(&mut datagram);
                let times = client.up.carry(now, &datagram);
                arrivals.extend(times.into_iter().flatten().map(|at| (at, datagram.clone())));
            }
        }
        let mut timers = Vec::new();
        let at = client.deadline.max(now + MIN_STEP);
        if client.armed.is_none_or(|armed| at < armed) {
            client.armed = Some(at);
            timers.push((at, Happening::ClientTimer(id)));
        }
        if let Some(at) = client.media_at().map(|at| at.max(now))
            && client.media_armed.is_none_or(|armed| at < armed)
        {
            client.media_armed = Some(at);
            timers.push((at, Happening::Media(id)));
        }
        for (at, payload) in arrivals {
            self.schedule(at, Happening::AtServer { remote, payload });
        }
        for (at, what) in timers {
            self.schedule(at, what);
        }
    }

    pub(crate) fn schedule(&mut self, at: Instant, what: Happening) {
        self.order += 1;
        self.queue.push(Reverse(Scheduled { at, order: self.order, what }));
    }

    pub(crate) fn sessions(&self) -> usize {
        self.seats.iter().map(|s| s.shard.sessions()).sum()
    }

    pub(crate) fn total(&self, count: impl Fn(&ShardStatus) -> u64) -> u64 {
        self.seats.iter().map(|s| count(&s.status)).sum()
    }
}

/// A timer that is due at once comes a little later, or a busy loop would stop time.
const MIN_STEP: Duration = Duration::from_micros(1);
/// How often an impatient viewer looks.
const PATIENCE: Duration = Duration::from_millis(200);

/// Ports differ by one from client to client, so that clients spread over shards.
pub(crate) fn client_address(index: usize, step: u8) -> SocketAddr {
    SocketAddr::from((
        [10, step, (index / 250) as u8, (index % 250) as u8 + 1],
        20_000 + index as u16 + u16::from(step),
    ))
}

pub(crate) fn is_rtp(datagram: &[u8]) -> bool {
    matches!(datagram, [128..=191, second, ..] if !(192..=223).contains(second))
}
