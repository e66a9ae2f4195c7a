//! A thread's whole world: its sessions, its part of every stream, and the way of a packet through them.
//!
//! # Use
//! ```text
//! loop {
//!     for each datagram of a received batch   shard.handle_input(now, Input::Datagram { .. })
//!     for each message of the rings           shard.handle_input(now, Input::Relay(..))
//!     for each command of the mailbox         shard.handle_input(now, Input::Command(..))
//!     when the deadline has passed            shard.handle_input(now, Input::Timeout)
//!     while let Some(batch) = shard.poll_transmit()   { send it; batch.clear() }
//!     while let Some((to, message)) = shard.poll_relay() { push it into the ring }
//!     while let Some((of, tapped)) = shard.poll_tap()    { give it to whoever wants it }
//!     while let Some(event) = shard.poll_event()         { tell the server }
//!     sleep until shard.poll_timeout() or something arrives
//! }
//! ```
//! Packets that arrive together are forwarded together: fan-out happens in [`Shard::poll_transmit`], viewer by
//! viewer, all packets of the batch next to each other. Nothing waits for more to come.

mod commands;
mod fan_out;
mod fed;
mod pictures;
mod relayed;
mod tapped;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ahash::AHashMap;

pub use self::commands::Command;
use self::fan_out::FanOut;
use crate::batch::{Path, SendBatch};
use crate::clock::Epoch;
use crate::feed::Feeders;
use crate::history::Depth;
use crate::lobby::{Claim, Lobby};
use crate::relay::{RelayMessage, SessionId, ShardId};
use crate::router::{Feed, Origin, Router, StreamIndex};
use crate::session::{AddressKey, CloseReason, Desk, Outcome, Session};
use crate::status::ShardStatus;
use crate::transport::{Admission, BindingRequest};

/// Foreign addresses that are remembered; beyond that they are learnt anew from their checks.
const MAX_STEERED: usize = 4096;
/// Requests of viewers here to a publisher elsewhere are bundled for this long.
const REMOTE_REQUEST_INTERVAL: Duration = Duration::from_millis(50);
/// The lobby is looked through, and silent streams' histories are emptied, this often.
const HOUSEKEEPING: Duration = Duration::from_secs(1);

/// A session on its shard; a stale one finds nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SessionIndex {
    slot: u32,
    generation: u32,
}

/// What a shard is given.
#[derive(Debug)]
pub enum Input<'a> {
    /// A datagram, or a frame of an ICE-TCP connection.
    Datagram {
        /// Where it came from, and to which address of ours.
        path: Path,
        /// Its bytes.
        payload: &'a [u8],
    },
    /// A datagram for this path did not leave: the socket or the connection is full.
    Undelivered(Path),
    /// From another shard.
    Relay(RelayMessage),
    /// From the server.
    Command(Command),
    /// The deadline of [`Shard::poll_timeout`] has passed.
    Timeout,
}

/// What the server is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShardEvent {
    /// ICE and DTLS are up.
    Connected(SessionId),
    /// A session or a feed has ended; nothing of it is left.
    Closed(SessionId, CloseReason),
    /// Viewers of a feed need a keyframe: one event for all of them, at most two a second.
    KeyframeWanted(SessionId),
}

/// What a shard is made from.
#[derive(Debug)]
pub struct ShardConfig {
    /// Its own id.
    pub id: ShardId,
    /// Number of shards.
    pub shards: u16,
    /// Ties `Instant` to the wall clock, the same for all shards.
    pub epoch: Epoch,
    /// Shared by all shards.
    pub lobby: Arc<Lobby>,
    /// Shared with whoever watches.
    pub status: Arc<ShardStatus>,
}

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    session: Option<Box<Session>>,
    /// The earliest entry in the timer queue.
    timer: Option<Instant>,
}

/// One thread's sessions and streams.
#[derive(Debug)]
pub struct Shard {
    config: ShardConfig,
    slots: Vec<Slot>,
    free: Vec<u32>,
    by_id: AHashMap<SessionId, SessionIndex>,
    by_address: AHashMap<AddressKey, SessionIndex>,
    steered: AHashMap<AddressKey, ShardId>,
    timers: BinaryHeap<Reverse<(Instant, SessionIndex)>>,
    router: Router,
    feeders: Feeders,
    fan_out: FanOut,
    remote_requests: AHashMap<SessionId, Instant>,
    batch: SendBatch,
    outbox: VecDeque<(ShardId, RelayMessage)>,
    events: VecDeque<ShardEvent>,
    housekeeping: Instant,
}

impl Shard {
    /// An empty shard.
    pub fn new(config: ShardConfig, now: Instant) -> Shard {
        Shard {
            config,
            slots: Vec::new(),
            free: Vec::new(),
            by_id: AHashMap::new(),
            by_address: AHashMap::new(),
            steered: AHashMap::new(),
            timers: BinaryHeap::new(),
            router: Router::default(),
            feeders: Feeders::default(),
            fan_out: FanOut::default(),
            remote_requests: AHashMap::new(),
            batch: SendBatch::default(),
            outbox: VecDeque::new(),
            events: VecDeque::new(),
            housekeeping: now + HOUSEKEEPING,
        }
    }

    /// Takes one input. `now` never runs backwards.
    pub fn handle_input(&mut self, now: Instant, input: Input<'_>) {
        match input {
            Input::Datagram { path, payload } => {
                self.config.status.recv_packets.add(1);
                self.config.status.recv_bytes.add(payload.len() as u64);
                self.handle_datagram(now, path, payload, None);
            }
            Input::Undelivered(path) => {
                let index = self.by_address.get(&(path.protocol, path.remote)).copied();
                let desk = index.and_then(|index| self.desk(now, index));
                if let Some((subscriber, ..)) = desk.and_then(|(session, _)| session.subscriber()) {
                    subscriber.pause_picture();
                }
            }
            Input::Relay(message) => self.handle_relay(now, message),
            Input::Command(command) => self.handle_command(now, command),
            Input::Timeout => self.handle_timeout(now),
        }
    }

    /// The next batch to send, [`None`] when everything is out. The caller sends and clears it.
    pub fn poll_transmit(&mut self) -> Option<&mut SendBatch> {
        while !self.batch.is_full() && self.fan_out_step() {}
        Some(&mut self.batch).filter(|b| !b.is_empty())
    }

    /// The next message for another shard.
    pub fn poll_relay(&mut self) -> Option<(ShardId, RelayMessage)> {
        self.outbox.pop_front()
    }

    /// The next event for the server.
    pub fn poll_event(&mut self) -> Option<ShardEvent> {
        self.events.pop_front()
    }

    /// When [`Input::Timeout`] is due.
    pub fn poll_timeout(&self) -> Instant {
        let at = self.timers.peek().map_or(self.housekeeping, |Reverse((at, _))| self.housekeeping.min(*at));
        self.feeders.due.map_or(at, |due| at.min(due))
    }

    /// Number of sessions at home here.
    pub fn sessions(&self) -> usize {
        self.by_id.len()
    }

    /// Number of streams that have a publisher or a viewer, here or announced by another shard.
    pub fn streams(&self) -> usize {
        self.router.len()
    }

    fn handle_datagram(&mut self, now: Instant, path: Path, payload: &[u8], came_from: Option<ShardId>) {
        let address = (path.protocol, path.remote);
        if let Some(index) = self.by_address.get(&address).copied() {
            // A client may use its port for another session; then only the user name tells.
            if self.deliver(now, index, path, payload) != Admission::Unauthentic {
                return;
            }
        }
        let Some(request) = BindingRequest::parse(payload) else {
            match self.steered.get(&address) {
                Some(home) if came_from.is_none() => self.hand_over(*home, path, payload),
                _ => self.config.status.drop_stranger.add(1),
            }
            return;
        };
        let claim = self.config.lobby.claim(request.ufrag, self.config.id, |s| s.admits(now, path, payload));
        match claim {
            Claim::Yours(session) => {
                let index = self.seat(now, session);
                self.deliver(now, index, path, payload);
            }
            Claim::Seated(home, id) if home == self.config.id => self.deliver_check(now, id, path, payload, came_from),
            Claim::Seated(home, _) if came_from.is_none() => self.hand_over(home, path, payload),
            Claim::Seated(..) | Claim::Nobody => self.config.status.drop_stun.add(1),
        }
    }

    /// A check from an address that its session has not used yet.
    fn deliver_check(&mut self, now: Instant, id: SessionId, path: Path, payload: &[u8], from: Option<ShardId>) {
        let Some(index) = self.by_id.get(&id).copied() else { return };
        if self.deliver(now, index, path, payload) != Admission::Taken {
            self.config.status.drop_stun.add(1);
        } else if let Some(shard) = from {
            let steer = RelayMessage::Steer { protocol: path.protocol, remote: path.remote, home: self.config.id };
            self.outbox.push_back((shard, steer));
        }
    }

    fn hand_over(&mut self, home: ShardId, path: Path, payload: &[u8]) {
        let message = RelayMessage::Datagram { from: self.config.id, path, payload: payload.into() };
        self.outbox.push_back((home, message));
    }

    fn seat(&mut self, now: Instant, mut session: Box<Session>) -> SessionIndex {
        let stream = self.router.entry(&session.key);
        session.stream = Some(stream);
        if let Some(state) = self.router.stream_mut(stream) {
            state.sessions += 1;
        }
        let id = session.id;
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() as u32 - 1
        });
        let entry = &mut self.slots[slot as usize];
        entry.session = Some(session);
        let index = SessionIndex { slot, generation: entry.generation };
        self.by_id.insert(id, index);
        self.config.status.sessions.set(self.by_id.len() as u64);
        self.arm(now, index);
        index
    }

    fn deliver(&mut self, now: Instant, index: SessionIndex, path: Path, payload: &[u8]) -> Admission {
        let Some((session, mut desk)) = self.desk(now, index) else { return Admission::Unauthentic };
        let (admission, outcome) = session.handle_datagram(path, payload, &mut desk);
        match admission {
            Admission::Malformed => self.config.status.drop_malformed.add(1),
            Admission::Taken | Admission::Unauthentic => {}
        }
        self.settle(now, index, outcome);
        admission
    }

    /// A session and everything that it works with.
    fn desk(&mut self, now: Instant, index: SessionIndex) -> Option<(&mut Session, Desk<'_>)> {
        let slot = self.slots.get_mut(index.slot as usize).filter(|s| s.generation == index.generation)?;
        let desk = Desk {
            now,
            epoch: &self.config.epoch,
            batch: &mut self.batch,
            router: &mut self.router,
            shard: &self.config.status,
        };
        Some((slot.session.as_deref_mut()?, desk))
    }

    /// Draws the consequences of what a session did.
    fn settle(&mut self, now: Instant, index: SessionIndex, outcome: Outcome) {
        self.config.status.keyframe_requests_sent.add(outcome.keyframe_requests);
        self.outbox.extend(self.router.outbox.drain(..));
        if let Some(path) = outcome.forgotten {
            self.forget_address(path, index);
        }
        if let Some(path) = outcome.address {
            self.by_address.insert((path.protocol, path.remote), index);
        }
        if let Some(reason) = outcome.ended {
            self.end(now, index, reason);
            return;
        }
        if outcome.ready {
            self.become_ready(now, index);
        }
        if outcome.wants_keyframe {
            self.refresh_picture(now, index);
        }
        self.arm(now, index);
    }

    fn become_ready(&mut self, now: Instant, index: SessionIndex) {
        let id = self.config.id;
        let Some((session, desk)) = self.desk(now, index) else { return };
        let (session_id, key, Some(stream)) = (session.id, session.key.clone(), session.stream) else { return };
        let info = session.publisher().map(|p| (Arc::clone(&p.info), p.tapped));
        let Some((state, taps)) = desk.router.tapping(stream) else { return };
        if let Some((tracks, is_tapped)) = info {
            let depth = Depth::Shallow;
            state.set_feed(session_id, Origin::Session(index), depth, Arc::clone(&tracks));
            if is_tapped {
                // Its first picture is on the way: nothing to ask for.
                state.open_tap(now, session_id, taps);
            }
            self.broadcast(RelayMessage::Up { key, publisher: session_id, home: id, depth, tracks });
        } else {
            state.subscribers.push(index);
            let elsewhere = state.feed.as_ref().and_then(Feed::elsewhere);
            if let (Some((home, publisher)), 1) = (elsewhere, state.subscribers.len()) {
                // Answered with a backlog, which starts the picture, or by a new keyframe.
                self.outbox.push_back((home, RelayMessage::Want { publisher, from: id, on: true }));
            } else {
                self.start_picture(now, index);
            }
        }
        self.events.push_back(ShardEvent::Connected(session_id));
    }

    fn end(&mut self, now: Instant, index: SessionIndex, reason: CloseReason) {
        let Some((session, mut desk)) = self.desk(now, index) else { return };
        session.say_goodbye(&mut desk);
        let slot = &mut self.slots[index.slot as usize];
        let Some(session) = slot.session.take() else { return };
        slot.generation = slot.generation.wrapping_add(1);
        slot.timer = None;
        self.free.push(index.slot);
        self.by_id.remove(&session.id);
        for path in &session.addresses {
            self.forget_address(*path, index);
        }
        self.config.lobby.forget(session.id);
        self.config.status.sessions.set(self.by_id.len() as u64);
        if let Some(stream) = session.stream {
            self.leave(stream, index, &session);
        }
        self.events.push_back(ShardEvent::Closed(session.id, reason));
    }

    fn forget_address(&mut self, path: Path, index: SessionIndex) {
        let key = (path.protocol, path.remote);
        if self.by_address.get(&key) == Some(&index) {
            self.by_address.remove(&key);
        }
    }

    fn leave(&mut self, stream: StreamIndex, index: SessionIndex, session: &Session) {
        let Some(state) = self.router.stream_mut(stream) else { return };
        state.sessions -= 1;
        if session.publisher().is_some() {
            if state.clear_feed(session.id) {
                let key = session.key.clone();
                self.broadcast(RelayMessage::Down { key, publisher: session.id });
            }
        } else if let Some(at) = state.subscribers.iter().position(|s| *s == index) {
            // The fan-out of a stream is over before anything else happens to it, so order does not matter.
            state.subscribers.swap_remove(at);
            let elsewhere = state.feed.as_ref().and_then(Feed::elsewhere);
            if let (Some((home, publisher)), true) = (elsewhere, state.subscribers.is_empty()) {
                self.outbox.push_back((home, RelayMessage::Want { publisher, from: self.config.id, on: false }));
                // From here on it has gaps: no start for the next viewer.
                state.feed.iter_mut().for_each(Feed::forget_packets);
            }
        }
        self.router.release(stream);
    }

    fn broadcast(&mut self, message: RelayMessage) {
        for shard in (0..self.config.shards).map(ShardId).filter(|s| *s != self.config.id) {
            self.outbox.push_back((shard, message.clone()));
        }
    }

    fn arm(&mut self, now: Instant, index: SessionIndex) {
        let Some(slot) = self.slots.get_mut(index.slot as usize) else { return };
        let Some(session) = &slot.session else { return };
        let at = session.wake_at().max(now);
        if slot.timer.is_none_or(|armed| at < armed) {
            slot.timer = Some(at);
            self.timers.push(Reverse((at, index)));
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        while let Some(Reverse((at, index))) = self.timers.peek().copied().filter(|Reverse((at, _))| *at <= now) {
            if self.batch.is_full() {
                // The rest is due again at once, when this has been sent.
                return;
            }
            self.timers.pop();
            let slot = &mut self.slots[index.slot as usize];
            if slot.generation != index.generation || slot.timer != Some(at) {
                continue;
            }
            slot.timer = None;
            let due = slot.session.as_ref().is_some_and(|s| s.wake_at() <= now);
            let Some((session, mut desk)) = self.desk(now, index) else { continue };
            let outcome = if due { session.handle_timeout(&mut desk) } else { Outcome::default() };
            self.settle(now, index, outcome);
        }
        if self.feeders.due.is_some_and(|at| at <= now) {
            self.poll_feeders(now);
        }
        if now >= self.housekeeping {
            self.housekeeping = now + HOUSEKEEPING;
            self.keep_house(now);
        }
    }

    fn keep_house(&mut self, now: Instant) {
        if self.config.id == ShardId(0) {
            for id in self.config.lobby.expire(now) {
                self.events.push_back(ShardEvent::Closed(id, CloseReason::NeverConnected));
            }
        }
        self.feeders.by_id.values_mut().for_each(|f| f.tick(now));
        self.remote_requests.retain(|_, at| now.saturating_duration_since(*at) < HOUSEKEEPING);
        for stream in self.router.indices() {
            let feed = self.router.stream_mut(stream).and_then(|s| s.feed.as_mut());
            feed.into_iter().flat_map(|f| &mut f.states).for_each(|s| s.history.expire(now));
        }
    }
}
