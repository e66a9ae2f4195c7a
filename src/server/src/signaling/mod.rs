//! Signaling in the server: the lobby of `freshet-signaling` with sockets, a clock and limits.
//!
//! All sockets share one lobby behind a lock that is held for one message at a time: a message costs microseconds, and
//! there is no media here. What is to be sent to a socket waits in its [`Outbox`], which its own task empties, so a slow
//! socket holds up nobody. The task of a socket lives in `http/signaling.rs`, where the library of the WebSocket is.

mod outbox;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use freshet_media::StreamKey;
use freshet_signaling::{CloseCode, Counters, Departure, Lobby, Output, PeerId, RoomSnapshot};
use tokio::sync::Notify;
use tracing::debug;

use crate::http::Sessions;
use outbox::Outbox;

pub(crate) use outbox::Item;

/// The clock of the lobby ticks no faster: pings need no precision, and thousands of them are done at once.
const MIN_TICK: Duration = Duration::from_millis(100);

/// Nor slower, since a message may have made something due sooner.
const MAX_TICK: Duration = Duration::from_secs(1);

/// `[signaling]` of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SignalingSettings {
    /// Rooms, people and tokens.
    pub(crate) lobby: freshet_signaling::Settings,
    /// Sockets at a time.
    pub(crate) max_sockets: usize,
    /// Sockets at a time of one address.
    pub(crate) max_sockets_per_ip: usize,
}

/// Why there is no room for another socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    /// For anybody.
    Server,
    /// For this address.
    Address,
}

/// The lobby and its sockets.
pub(crate) struct Signaling {
    settings: SignalingSettings,
    state: Mutex<State>,
    sessions: Arc<dyn Sessions>,
    /// Something may be due where nothing was.
    changed: Notify,
    /// A socket has gone.
    gone: Notify,
}

struct State {
    lobby: Lobby,
    outboxes: BTreeMap<PeerId, Outbox>,
    /// Sockets and requests for one that have been let in, by address.
    places: HashMap<IpAddr, usize>,
    places_taken: usize,
    /// Streams of people who have left, whose publishers are to be ended outside of the lock.
    ended: Vec<String>,
    is_over: bool,
}

impl Signaling {
    /// An empty lobby. The caller lets [`Signaling::run`] run.
    pub(crate) fn new(settings: SignalingSettings, sessions: Arc<dyn Sessions>) -> Arc<Signaling> {
        let state = State {
            lobby: Lobby::new(settings.lobby.clone(), rand::random()),
            outboxes: BTreeMap::new(),
            places: HashMap::new(),
            places_taken: 0,
            ended: Vec::new(),
            is_over: false,
        };
        let (changed, gone) = (Notify::new(), Notify::new());
        Arc::new(Signaling { settings, state: Mutex::new(state), sessions, changed, gone })
    }

    /// Lets a client of this address have a socket, if there is room for one.
    ///
    /// # Errors
    /// Whose limit is reached.
    pub(crate) fn admit(self: &Arc<Self>, ip: IpAddr) -> Result<Place, Full> {
        let ip = network_of(ip);
        let mut state = self.state();
        if state.places_taken >= self.settings.max_sockets || state.is_over {
            return Err(Full::Server);
        }
        let of_ip = state.places.entry(ip).or_default();
        if *of_ip >= self.settings.max_sockets_per_ip {
            return Err(Full::Address);
        }
        *of_ip += 1;
        state.places_taken += 1;
        Ok(Place { signaling: Arc::clone(self), ip })
    }

    /// Does what is due, for as long as the server runs.
    pub(crate) async fn run(self: Arc<Self>) {
        loop {
            let due = self.state().lobby.poll_timeout();
            let Some(due) = due else {
                self.changed.notified().await;
                continue;
            };
            let wait = due.saturating_duration_since(Instant::now()).clamp(MIN_TICK, MAX_TICK);
            tokio::time::sleep(wait).await;
            self.with_lobby(|lobby, now| {
                if lobby.poll_timeout().is_some_and(|due| due <= now) {
                    lobby.handle_timeout(now);
                }
            });
        }
    }

    /// Nobody new may join from now on.
    pub(crate) fn drain(&self) {
        self.state().lobby.drain();
    }

    /// Closes every socket with the code that asks to join again, and waits until they are closed.
    pub(crate) async fn end(&self) {
        self.state().is_over = true;
        self.with_lobby(|lobby, _| lobby.end());
        loop {
            let gone = self.gone.notified();
            if self.state().outboxes.is_empty() {
                return;
            }
            gone.await;
        }
    }

    /// All rooms, by name.
    pub(crate) fn rooms(&self) -> Vec<RoomSnapshot> {
        self.state().lobby.rooms(Instant::now())
    }

    /// Counts for the metrics.
    pub(crate) fn counters(&self) -> Counters {
        self.state().lobby.counters()
    }

    /// Whether joining takes one of these tokens.
    pub(crate) fn tokens(&self) -> &[String] {
        &self.settings.lobby.tokens
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Lets the lobby do something and puts what comes of it where it belongs.
    fn with_lobby<R>(&self, act: impl FnOnce(&mut Lobby, Instant) -> R) -> R {
        let (result, ended, was_idle) = {
            let mut state = self.state();
            let was_idle = state.lobby.poll_timeout().is_none();
            let result = act(&mut state.lobby, Instant::now());
            state.deliver();
            (result, std::mem::take(&mut state.ended), was_idle)
        };
        if was_idle {
            self.changed.notify_one();
        }
        for stream in ended {
            self.end_publisher(&stream);
        }
        result
    }

    /// Whoever still publishes for a person who has left has lost the network, or forgot to stop.
    fn end_publisher(&self, stream: &str) {
        let key = stream.split_once('/').and_then(|(app, name)| StreamKey::new("", app, name).ok());
        if let Some(key) = key
            && self.sessions.end_publisher(&key)
        {
            debug!(stream = %key, "publisher ended, its person has left the room");
        }
    }
}

impl State {
    /// Puts outputs into outboxes; who does not empty his own is expelled, which makes more outputs.
    fn deliver(&mut self) {
        while let Some(output) = self.lobby.poll_output() {
            let (peer, item) = match output {
                Output::Send { peer, text } => (peer, Item::Text(text)),
                Output::Ping { peer } => (peer, Item::Ping),
                Output::Close { peer, code } => (peer, Item::Close(code)),
                Output::Ended { stream } => {
                    self.ended.push(stream);
                    continue;
                }
            };
            let Some(outbox) = self.outboxes.get_mut(&peer) else { continue };
            if !outbox.push(item) {
                self.lobby.expel(Instant::now(), peer, CloseCode::Slow);
            }
        }
    }
}

/// IPv6 customers have a /64 each (RFC 6177), so that is what counts as one address.
fn network_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.into(),
        IpAddr::V6(ip) => std::net::Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

/// The right to have a socket; given back when dropped.
pub(crate) struct Place {
    signaling: Arc<Signaling>,
    ip: IpAddr,
}

impl Place {
    /// The socket has opened. `token` is that of its address.
    pub(crate) fn open(self, token: Option<String>) -> Socket {
        let outbox = Outbox::default();
        let wake = outbox.wake();
        let peer = {
            let mut state = self.signaling.state();
            let peer = state.lobby.connect(Instant::now(), token);
            state.outboxes.insert(peer, outbox);
            peer
        };
        self.signaling.changed.notify_one();
        Socket { place: self, peer, wake }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.signaling.state();
        state.places_taken = state.places_taken.saturating_sub(1);
        if let Some(count) = state.places.get_mut(&self.ip) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                state.places.remove(&self.ip);
            }
        }
    }
}

/// An open socket. One that is dropped without [`Socket::closed`] is lost.
pub(crate) struct Socket {
    place: Place,
    peer: PeerId,
    wake: Arc<Notify>,
}

impl Socket {
    /// A text message has come.
    pub(crate) fn receive(&self, text: &str) {
        self.signaling().with_lobby(|lobby, now| lobby.receive(now, self.peer, text));
    }

    /// A pong has come.
    pub(crate) fn pong(&self) {
        self.signaling().state().lobby.pong(self.peer);
    }

    /// The client has closed it.
    pub(crate) fn closed(&self) {
        self.signaling().with_lobby(|lobby, now| lobby.disconnect(now, self.peer, Departure::Closed));
    }

    /// The client broke a rule.
    pub(crate) fn expel(&self, code: CloseCode) {
        self.signaling().with_lobby(|lobby, now| lobby.expel(now, self.peer, code));
    }

    /// The next things to send; waits until there are any.
    pub(crate) async fn outgoing(&self) -> Vec<Item> {
        loop {
            let items = self.signaling().state().outboxes.get_mut(&self.peer).map(Outbox::take).unwrap_or_default();
            if !items.is_empty() {
                return items;
            }
            self.wake.notified().await;
        }
    }

    fn signaling(&self) -> &Signaling {
        &self.place.signaling
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let signaling = self.signaling();
        signaling.with_lobby(|lobby, now| lobby.disconnect(now, self.peer, Departure::Lost));
        signaling.state().outboxes.remove(&self.peer);
        signaling.gone.notify_waiters();
    }
}
