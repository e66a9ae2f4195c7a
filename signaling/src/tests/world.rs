//! A lobby with named sockets, in virtual time.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{CloseCode, Departure, Lobby, Output, PeerId, Settings};

/// A lobby and what its sockets have been sent.
pub(super) struct World {
    pub(super) lobby: Lobby,
    pub(super) now: Instant,
    pub(super) ids: BTreeMap<String, PeerId>,
    names: BTreeMap<PeerId, String>,
    inbox: BTreeMap<String, VecDeque<Value>>,
    pub(super) closed: Vec<(String, CloseCode)>,
    pub(super) pings: Vec<String>,
    pub(super) ended: Vec<String>,
    /// Sockets that answer no ping.
    pub(super) mute: Vec<String>,
}

impl World {
    pub(super) fn new(settings: Settings) -> World {
        World {
            lobby: Lobby::new(settings, [7; 32]),
            now: Instant::now(),
            ids: BTreeMap::new(),
            names: BTreeMap::new(),
            inbox: BTreeMap::new(),
            closed: Vec::new(),
            pings: Vec::new(),
            ended: Vec::new(),
            mute: Vec::new(),
        }
    }

    pub(super) fn connect(&mut self, name: &str, token: Option<&str>) -> PeerId {
        let id = self.lobby.connect(self.now, token.map(str::to_owned));
        self.ids.insert(name.to_owned(), id);
        self.names.insert(id, name.to_owned());
        id
    }

    /// Sends a message, over a new socket if there is none.
    pub(super) fn send(&mut self, name: &str, message: &Value) {
        self.send_text(name, &message.to_string());
    }

    pub(super) fn send_text(&mut self, name: &str, text: &str) {
        let id = match self.ids.get(name) {
            Some(id) => *id,
            None => self.connect(name, None),
        };
        self.lobby.receive(self.now, id, text);
        self.collect();
    }

    pub(super) fn disconnect(&mut self, name: &str, departure: Departure) {
        let id = self.ids.remove(name).unwrap_or_else(|| panic!("{name} has no socket"));
        self.lobby.disconnect(self.now, id, departure);
        self.collect();
    }

    /// Lets time pass, with everything that is due in it.
    pub(super) fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(due) = self.lobby.poll_timeout().filter(|due| *due <= until) {
            self.now = self.now.max(due);
            self.lobby.handle_timeout(self.now);
            self.collect();
            assert!(self.lobby.poll_timeout().is_none_or(|next| next > self.now), "a timer that does not move");
        }
        self.now = until;
    }

    pub(super) fn collect(&mut self) {
        while let Some(output) = self.lobby.poll_output() {
            match output {
                Output::Send { peer, text } => {
                    let name = self.names[&peer].clone();
                    assert_eq!(self.ids.get(&name), Some(&peer), "{name}'s old socket is sent {text}");
                    self.inbox.entry(name).or_default().push_back(serde_json::from_str(&text).unwrap());
                }
                Output::Ping { peer } => {
                    let name = self.names[&peer].clone();
                    if !self.mute.contains(&name) {
                        self.lobby.pong(peer);
                    }
                    self.pings.push(name);
                }
                Output::Close { peer, code } => {
                    let name = self.names[&peer].clone();
                    if self.ids.get(&name) == Some(&peer) {
                        self.ids.remove(&name);
                    }
                    self.closed.push((name, code));
                }
                Output::Ended { stream } => self.ended.push(stream),
            }
        }
    }

    /// The next message that a socket was sent.
    pub(super) fn next(&mut self, name: &str) -> Option<Value> {
        self.inbox.get_mut(name)?.pop_front()
    }

    /// Everything that a socket was sent and nobody has looked at.
    pub(super) fn rest(&mut self, name: &str) -> Vec<Value> {
        self.inbox.get_mut(name).map(|inbox| inbox.drain(..).collect()).unwrap_or_default()
    }

    /// What nobody has looked at, of any socket.
    pub(super) fn unread(&self) -> Vec<(&String, &Value)> {
        self.inbox.iter().flat_map(|(name, inbox)| inbox.iter().map(move |message| (name, message))).collect()
    }

    /// Sends a request and gives the answer, which has to be the next message.
    pub(super) fn ask(&mut self, name: &str, mut msg: Value) -> Value {
        self.rest(name);
        let msg = msg.take();
        self.send(name, &json!({ "tid": "t", "msg": msg }));
        let answer = self.next(name).unwrap_or_else(|| panic!("{name} got no answer to {msg}"));
        assert_eq!(answer["tid"], "t", "{answer}");
        answer
    }

    /// Joins and gives the answer's `msg`.
    pub(super) fn join(&mut self, name: &str, room: &str, more: Value) -> Value {
        let mut msg = json!({ "action": "join", "room": room, "display": name });
        msg.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let answer = self.ask(name, msg);
        assert!(answer.get("error").is_none(), "{answer}");
        answer["msg"].clone()
    }

    /// The code of the refusal of a request, or "ok".
    pub(super) fn code(&mut self, name: &str, msg: Value) -> String {
        let answer = self.ask(name, msg);
        answer["error"]["code"].as_str().unwrap_or("ok").to_owned()
    }
}
