//! The whole state: sockets, rooms, and what is due when.

mod deeds;
mod join;
mod timers;

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use rand::SeedableRng as _;
use rand::rngs::StdRng;

use crate::error::Refusal;
use crate::limits::{JOIN_WITHIN, PING_INTERVAL, SEAT_GRACE, Settings};
use crate::message::{self, Action, Misunderstood};
use crate::notice::{self, NoticeWriter};
use crate::rate::{Rate, Verdict};
use crate::room::{Presence, Room};
use crate::snapshot::{Counters, PersonSnapshot, RoomSnapshot};
use timers::Timers;

/// One socket, for as long as it is open. Numbers are not used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(u64);

/// How a socket ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Departure {
    /// With a code of the client's: it meant to go.
    Closed,
    /// Without a word, or because the server gave it up: it may come back.
    Lost,
}

/// Why the server closes a socket (RFC 6455 §7.4, protocol.md "Close codes").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseCode {
    /// A binary message.
    Unsupported,
    /// Too many messages.
    Policy,
    /// A message that is larger than the server takes at all.
    TooBig,
    /// The server ends or restarts.
    Restart,
    /// It answered no ping.
    Lost,
    /// Another socket took its seat.
    Replaced,
    /// It took nothing of what was sent.
    Slow,
    /// It joined no room.
    Idle,
}

impl CloseCode {
    /// The number on the wire.
    pub fn number(self) -> u16 {
        match self {
            CloseCode::Unsupported => 1003,
            CloseCode::Policy => 1008,
            CloseCode::TooBig => 1009,
            CloseCode::Restart => 1012,
            CloseCode::Lost => 4000,
            CloseCode::Replaced => 4001,
            CloseCode::Slow => 4002,
            CloseCode::Idle => 4003,
        }
    }

    /// The reason that goes with it.
    pub fn reason(self) -> &'static str {
        match self {
            CloseCode::Unsupported => "only text messages are understood",
            CloseCode::Policy => "too many messages",
            CloseCode::TooBig => "the message is too big",
            CloseCode::Restart => "the server ends or restarts, join again",
            CloseCode::Lost => "no answer to two pings",
            CloseCode::Replaced => "another socket took this seat",
            CloseCode::Slow => "too much is waiting to be sent, join again",
            CloseCode::Idle => "no room was joined",
        }
    }
}

/// What the server has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send a text message.
    Send {
        /// To whom.
        peer: PeerId,
        /// The message.
        text: String,
    },
    /// Send a ping (RFC 6455 §5.5.2).
    Ping {
        /// To whom.
        peer: PeerId,
    },
    /// Close the socket. The lobby has forgotten it.
    Close {
        /// Whose.
        peer: PeerId,
        /// With which code.
        code: CloseCode,
    },
    /// A person whose stream's name the server made up has left for good; whoever publishes there is a left-over.
    Ended {
        /// `app/stream`.
        stream: String,
    },
}

/// What is known of a socket.
#[derive(Debug)]
struct Peer {
    /// The token of its address.
    token: Option<String>,
    rate: Rate,
    missed_pings: u32,
    next_ping: Instant,
    /// The name of the room that it is in, or until when it has to be in one.
    place: Place,
}

#[derive(Debug)]
enum Place {
    Nowhere { until: Instant },
    Room(String),
}

/// Rooms and those who are in them.
#[derive(Debug)]
pub struct Lobby {
    settings: Settings,
    random: StdRng,
    peers: BTreeMap<PeerId, Peer>,
    rooms: BTreeMap<String, Room>,
    timers: Timers,
    /// Taken after each call, which adds one for each person of a room at most.
    outputs: VecDeque<Output>,
    next_peer: u64,
    is_draining: bool,
    counters: Counters,
}

impl Lobby {
    /// An empty lobby. Ids, seats and stream names follow from the seed, which has to be a secret.
    pub fn new(settings: Settings, seed: [u8; 32]) -> Lobby {
        Lobby {
            settings,
            random: StdRng::from_seed(seed),
            peers: BTreeMap::new(),
            rooms: BTreeMap::new(),
            timers: Timers::default(),
            outputs: VecDeque::new(),
            next_peer: 0,
            is_draining: false,
            counters: Counters::default(),
        }
    }

    /// A socket has opened. `token` is that of its address.
    pub fn connect(&mut self, now: Instant, token: Option<String>) -> PeerId {
        let id = PeerId(self.next_peer);
        self.next_peer += 1;
        let place = Place::Nowhere { until: now + JOIN_WITHIN };
        let peer = Peer { token, rate: Rate::new(now), missed_pings: 0, next_ping: now + PING_INTERVAL, place };
        self.timers.set_peer(id, peer.due());
        self.peers.insert(id, peer);
        id
    }

    /// A text message has come.
    pub fn receive(&mut self, now: Instant, id: PeerId, text: &str) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        self.counters.received += 1;
        peer.missed_pings = 0;
        let verdict = peer.rate.judge(now);
        if verdict == Verdict::HangUp {
            self.close(now, id, CloseCode::Policy, Departure::Closed);
            return;
        }
        let (tid, outcome) = match message::parse(text) {
            Err(Misunderstood { tid, refusal }) => (tid, Err(refusal)),
            Ok(request) if verdict == Verdict::Refuse => (request.tid, Err(Refusal::TooFast)),
            Ok(request) => {
                let outcome = self.act(now, id, request.tid.as_deref(), request.action);
                (request.tid, outcome)
            }
        };
        if let Err(refusal) = outcome {
            self.counters.refused += 1;
            let refusal = if verdict == Verdict::Refuse { Refusal::TooFast } else { refusal };
            self.send(id, notice::refused(tid.as_deref(), &refusal));
        }
    }

    /// A pong has come.
    pub fn pong(&mut self, id: PeerId) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.missed_pings = 0;
        }
    }

    /// A socket has ended. One that is not known (any more) is passed over.
    pub fn disconnect(&mut self, now: Instant, id: PeerId, departure: Departure) {
        let Some(peer) = self.peers.remove(&id) else { return };
        self.timers.remove_peer(id);
        if let Place::Room(room) = peer.place {
            match departure {
                Departure::Closed => self.leave(&room, id),
                Departure::Lost => self.lose(now, &room, id),
            }
        }
    }

    /// Ends a socket that broke a rule which only the server sees: a message too big, a queue that is full.
    pub fn expel(&mut self, now: Instant, id: PeerId, code: CloseCode) {
        let departure = match code {
            CloseCode::Lost | CloseCode::Slow => Departure::Lost,
            CloseCode::Unsupported
            | CloseCode::Policy
            | CloseCode::TooBig
            | CloseCode::Restart
            | CloseCode::Replaced
            | CloseCode::Idle => Departure::Closed,
        };
        self.close(now, id, code, departure);
    }

    /// Nobody new may join from now on; whoever is here may stay and come back.
    pub fn drain(&mut self) {
        self.is_draining = true;
    }

    /// Closes every socket and forgets every room: the server ends. Those who were in them join again somewhere.
    pub fn end(&mut self) {
        for id in std::mem::take(&mut self.peers).into_keys() {
            self.outputs.push_back(Output::Close { peer: id, code: CloseCode::Restart });
        }
        self.rooms.clear();
        self.timers.clear();
        self.is_draining = true;
    }

    /// The next thing to do. [`None`]: nothing until the next call.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Lobby::handle_timeout`] is due. [`None`]: never, as things are.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// All rooms, by name.
    pub fn rooms(&self, now: Instant) -> Vec<RoomSnapshot> {
        self.rooms.iter().map(|(name, room)| self.snapshot(now, name, room)).collect()
    }

    /// Counts for the metrics.
    pub fn counters(&self) -> Counters {
        let people = self.rooms.values().map(|room| room.members.len()).sum();
        Counters { sockets: self.peers.len(), rooms: self.rooms.len(), people, ..self.counters }
    }

    fn snapshot(&self, now: Instant, name: &str, room: &Room) -> RoomSnapshot {
        let people = room.members.iter().map(|member| PersonSnapshot {
            id: member.id.clone(),
            display: member.display.clone(),
            publishing: member.publishing,
            stream: member.stream.clone(),
            state: member.state,
            away: member.is_away(),
            alive: now.saturating_duration_since(member.since),
        });
        RoomSnapshot {
            name: name.to_owned(),
            kind: room.kind,
            max_people: room.max_people(&self.settings),
            people: people.collect(),
        }
    }

    fn act(&mut self, now: Instant, id: PeerId, tid: Option<&str>, action: Action) -> Result<(), Refusal> {
        match action {
            Action::Ping => self.send(id, notice::done(tid)),
            Action::Join(join) => self.join(now, id, tid, *join)?,
            Action::InRoom(names, deed) => self.deed(now, id, tid, &names, &deed)?,
        }
        Ok(())
    }

    fn send(&mut self, peer: PeerId, text: String) {
        self.counters.sent += 1;
        self.outputs.push_back(Output::Send { peer, text });
    }

    fn close(&mut self, now: Instant, id: PeerId, code: CloseCode, departure: Departure) {
        if self.peers.contains_key(&id) {
            self.outputs.push_back(Output::Close { peer: id, code });
            self.disconnect(now, id, departure);
        }
    }

    /// The person of this socket is gone from the room.
    fn leave(&mut self, room_name: &str, peer: PeerId) {
        let position = self.rooms.get(room_name).and_then(|room| room.position_of(peer));
        if let Some(position) = position {
            self.remove_member(room_name, position);
        }
    }

    /// The person of this socket is away, or gone if it does not come back.
    fn lose(&mut self, now: Instant, room_name: &str, peer: PeerId) {
        let Some(room) = self.rooms.get_mut(room_name) else { return };
        let Some(position) = room.position_of(peer) else { return };
        if !room.members[position].can_resume() {
            self.remove_member(room_name, position);
            return;
        }
        let until = now + SEAT_GRACE;
        room.members[position].presence = Presence::Away(until);
        self.timers.set_seat(room_name, &room.members[position].id, until);
        self.announce("away", room_name, position);
    }

    fn remove_member(&mut self, room_name: &str, position: usize) {
        let Some(room) = self.rooms.get_mut(room_name) else { return };
        let member = room.members.remove(position);
        if let Presence::Away(until) = member.presence {
            self.timers.remove_seat(room_name, &member.id, until);
        }
        let writer = NoticeWriter::new("leave", room_name, &member).with_participants(&room.members);
        for (peer, other) in room.others(&member.id) {
            self.counters.sent += 1;
            self.outputs.push_back(Output::Send { peer, text: writer.text_for(other) });
        }
        if room.members.is_empty() {
            self.rooms.remove(room_name);
        }
        if member.is_assigned {
            self.outputs.push_back(Output::Ended { stream: member.stream });
        }
    }

    /// Tells the others of a room that something about a member has changed.
    fn announce(&mut self, event: &'static str, room_name: &str, position: usize) {
        let Some(room) = self.rooms.get(room_name) else { return };
        let Some(member) = room.members.get(position) else { return };
        let mut writer = NoticeWriter::new(event, room_name, member);
        // SRS's clients read the list of these events.
        if matches!(event, "join" | "publish") {
            writer = writer.with_participants(&room.members);
        }
        for (peer, other) in room.others(&member.id) {
            self.counters.sent += 1;
            self.outputs.push_back(Output::Send { peer, text: writer.text_for(other) });
        }
    }
}
