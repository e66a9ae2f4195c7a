//! Random actions against a small model of who is where. After each one the lobby, the model, and what every person in a
//! room has put together from messages alone have to agree. A failure prints its seed, which replays it.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};

use super::world::World;
use crate::{Departure, Kind, Settings};

const SEEDS: u64 = 60;
const STEPS: usize = 300;
const MAX_PEOPLE: usize = 4;
const MAX_ROOMS: usize = 2;
const SOCKETS: [&str; 6] = ["s0", "s1", "s2", "s3", "s4", "s5"];
const ROOMS: [&str; 3] = ["red", "green", "blue"];
const DISPLAYS: [&str; 3] = ["amy", "bob", "cat"];

#[derive(Debug, Clone, PartialEq)]
struct Person {
    /// Tells apart who came over one socket one after the other.
    serial: u32,
    socket: &'static str,
    display: &'static str,
    is_assigned: bool,
    publishing: bool,
    camera: Option<bool>,
    can_resume: bool,
    away_until: Option<Duration>,
}

#[derive(Debug, Default)]
struct Room {
    kind: Option<Kind>,
    people: Vec<Person>,
}

/// What a socket has been told.
#[derive(Debug, Default)]
struct View {
    participants: Vec<Value>,
    /// Room, serial number of the person, secret.
    seat: Option<(&'static str, u32, String)>,
}

struct Run {
    random: StdRng,
    world: World,
    elapsed: Duration,
    rooms: BTreeMap<&'static str, Room>,
    views: BTreeMap<&'static str, View>,
    people_so_far: u32,
}

#[test]
fn lobby_model_and_views_agree() {
    for seed in 0..SEEDS {
        let mut run = Run {
            random: StdRng::seed_from_u64(seed),
            world: World::new(Settings { max_rooms: MAX_ROOMS, max_people: MAX_PEOPLE, tokens: Vec::new() }),
            elapsed: Duration::ZERO,
            rooms: BTreeMap::new(),
            views: BTreeMap::new(),
            people_so_far: 0,
        };
        for step in 0..STEPS {
            let action = run.act();
            run.check(&format!("seed {seed}, step {step}: {action}"));
        }
    }
}

impl Run {
    fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.random.random_range(0..list.len())]
    }

    fn act(&mut self) -> String {
        let socket = self.pick(&SOCKETS);
        match self.random.random_range(0..100) {
            0..30 => self.join(socket),
            30..40 => self.resume(socket),
            40..55 => self.change(socket, "publish", |person| person.publishing = true),
            55..60 => self.change(socket, "unpublish", |person| person.publishing = false),
            60..68 => {
                let on = self.random.random();
                let msg = json!({ "action": "state", "state": { "camera": on } });
                self.ask(socket, msg, |person| person.camera = Some(on))
            }
            68..74 => self.change(socket, "control", |_| {}),
            74..80 => self.leave(socket),
            80..86 => self.end(socket, Departure::Closed),
            86..92 => self.end(socket, Departure::Lost),
            _ => self.wait(),
        }
    }

    fn join(&mut self, socket: &'static str) -> String {
        let (name, display) = (self.pick(&ROOMS), self.pick(&DISPLAYS));
        let kind = self.pick(&[None, None, None, Some(Kind::Call), Some(Kind::Room)]);
        let (is_assigned, can_resume) = (self.random.random(), self.random.random());
        let expected = self.verdict(socket, name, display, kind, is_assigned);
        let msg = json!({
            "action": "join", "room": name, "display": display, "kind": kind.map(Kind::name),
            "stream": if is_assigned { Value::from("assign") } else { Value::Null },
            "capabilities": if can_resume { json!(["resume"]) } else { Value::Null },
        });
        let action = format!("{socket} sends {msg}, expecting {expected}");
        if self.world.ids.contains_key(socket) {
            self.drain();
        }
        let answer = self.world.ask(socket, msg);
        assert_eq!(answer["error"]["code"].as_str().unwrap_or("ok"), expected, "{action}");
        if expected == "ok" {
            assert_eq!(answer["msg"]["resumed"], false, "{action}");
            self.people_so_far += 1;
            let serial = self.people_so_far;
            self.seated(socket, name, serial, &answer);
            let room = self.rooms.entry(name).or_default();
            room.kind = room.kind.or(kind);
            let max = if room.kind == Some(Kind::Call) { 2 } else { MAX_PEOPLE };
            while room.people.len() >= max {
                // Whose seat is taken: who has been away for longest.
                let away = room.people.iter().enumerate().filter_map(|(at, p)| Some((p.away_until?, at)));
                let (_, at) = away.min().expect("the verdict was ok");
                room.people.remove(at);
            }
            let (publishing, camera, away_until) = (false, None, None);
            room.people.push(Person {
                serial,
                socket,
                display,
                is_assigned,
                publishing,
                camera,
                can_resume,
                away_until,
            });
        }
        action
    }

    /// What the protocol says to a join.
    fn verdict(&self, socket: &str, name: &str, display: &str, kind: Option<Kind>, is_assigned: bool) -> &'static str {
        if self.room_of(socket).is_some() {
            return "already-joined";
        }
        let Some(room) = self.rooms.get(name) else {
            return if self.rooms.len() >= MAX_ROOMS { "too-many-rooms" } else { "ok" };
        };
        if room.kind.is_some() && kind.is_some() && room.kind != kind {
            return "other-kind";
        }
        let max = if room.kind.or(kind) == Some(Kind::Call) { 2 } else { MAX_PEOPLE };
        if room.people.iter().filter(|p| p.away_until.is_none()).count() >= max {
            return "room-full";
        }
        let is_taken = room.people.iter().any(|p| p.display == display && !(p.is_assigned && is_assigned));
        if is_taken { "display-taken" } else { "ok" }
    }

    fn resume(&mut self, socket: &'static str) -> String {
        let seat = self.views.get(socket).and_then(|view| view.seat.clone());
        let Some((name, serial, seat)) = seat else { return "no seat to resume".to_owned() };
        if self.room_of(socket).is_some() {
            return "nothing to resume".to_owned();
        }
        let action = format!("{socket} resumes in {name}");
        let place =
            |run: &Run| run.rooms.get(name)?.people.iter().position(|p| p.serial == serial && p.away_until.is_some());
        let Some(at) = place(self) else { return "the seat is gone".to_owned() };
        let display = self.rooms[name].people[at].display;
        let msg = json!({ "action": "join", "room": name, "display": display, "resume": seat });
        if self.world.ids.contains_key(socket) {
            self.drain();
        }
        let answer = self.world.ask(socket, msg);
        assert_eq!(answer["msg"]["resumed"], true, "{action}: {answer}");
        self.seated(socket, name, serial, &answer);
        self.rooms.get_mut(name).unwrap().people[at].away_until = None;
        action
    }

    fn seated(&mut self, socket: &'static str, room: &'static str, serial: u32, answer: &Value) {
        let participants = answer["msg"]["participants"].as_array().unwrap().clone();
        let seat = Some((room, serial, answer["msg"]["seat"].as_str().unwrap().to_owned()));
        self.views.insert(socket, View { participants, seat });
    }

    fn change(&mut self, socket: &'static str, action: &str, change: impl FnOnce(&mut Person)) -> String {
        self.ask(socket, json!({ "action": action, "call": "c" }), change)
    }

    fn ask(&mut self, socket: &'static str, msg: Value, change: impl FnOnce(&mut Person)) -> String {
        let expected = if self.room_of(socket).is_some() { "ok" } else { "not-joined" };
        let action = format!("{socket} sends {msg}, expecting {expected}");
        self.drain();
        assert_eq!(self.world.code(socket, msg), expected, "{action}");
        if let Some(person) = self.person(socket) {
            change(person);
        }
        action
    }

    fn leave(&mut self, socket: &'static str) -> String {
        let action = self.ask(socket, json!({ "action": "leave" }), |_| {});
        self.forget(socket);
        action
    }

    fn end(&mut self, socket: &'static str, departure: Departure) -> String {
        if !self.world.ids.contains_key(socket) {
            return "no socket to end".to_owned();
        }
        self.drain();
        let until = self.elapsed + Duration::from_secs(10);
        match self.person(socket) {
            Some(person) if departure == Departure::Lost && person.can_resume => person.away_until = Some(until),
            _ => self.forget(socket),
        }
        self.world.disconnect(socket, departure);
        format!("{socket} is gone: {departure:?}")
    }

    fn wait(&mut self) -> String {
        let time = Duration::from_millis(self.random.random_range(0..8_000));
        self.elapsed += time;
        self.world.pass(time);
        let now = self.elapsed;
        for room in self.rooms.values_mut() {
            room.people.retain(|person| person.away_until.is_none_or(|until| until > now));
        }
        self.rooms.retain(|_, room| !room.people.is_empty());
        format!("{time:?} pass")
    }

    fn room_of(&self, socket: &str) -> Option<&'static str> {
        let is_here = |person: &Person| person.socket == socket && person.away_until.is_none();
        self.rooms.iter().find(|(_, room)| room.people.iter().any(is_here)).map(|(name, _)| *name)
    }

    fn person(&mut self, socket: &str) -> Option<&mut Person> {
        let people = self.rooms.values_mut().flat_map(|room| &mut room.people);
        people.into_iter().find(|person| person.socket == socket && person.away_until.is_none())
    }

    /// A person who is here is gone.
    fn forget(&mut self, socket: &str) {
        for room in self.rooms.values_mut() {
            room.people.retain(|person| person.socket != socket || person.away_until.is_some());
        }
        self.rooms.retain(|_, room| !room.people.is_empty());
    }

    /// Lets everybody read what came.
    fn drain(&mut self) {
        for socket in SOCKETS {
            for message in self.world.rest(socket) {
                let view = self.views.entry(socket).or_default();
                view.read(&message["msg"]);
            }
        }
    }

    fn check(&mut self, place: &str) {
        self.drain();
        let rooms = self.world.lobby.rooms(self.world.now);
        assert_eq!(rooms.len(), self.rooms.len(), "{place}");
        for (snapshot, (name, room)) in rooms.iter().zip(&{
            let mut sorted: Vec<_> = self.rooms.iter().collect();
            sorted.sort_by_key(|(name, _)| **name);
            sorted
        }) {
            assert_eq!((snapshot.name.as_str(), snapshot.kind), (**name, room.kind), "{place}");
            let lobby: Vec<_> = snapshot
                .people
                .iter()
                .map(|p| (p.display.as_str(), p.publishing, p.away, p.state.and_then(|s| s.camera)))
                .collect();
            let model: Vec<_> =
                room.people.iter().map(|p| (p.display, p.publishing, p.away_until.is_some(), p.camera)).collect();
            assert_eq!(lobby, model, "{place}");
            let ids: Vec<_> = snapshot.people.iter().map(|p| (p.id.as_str(), p.publishing, p.away)).collect();
            for (at, person) in room.people.iter().enumerate().filter(|(_, person)| person.away_until.is_none()) {
                let view: Vec<_> = self.views[person.socket].participants.iter().map(seen).collect();
                // What one does oneself one knows without being told.
                let others = |list: &[(&str, bool, bool)]| {
                    list.iter()
                        .filter(|(id, _, _)| *id != ids[at].0)
                        .map(|(id, p, a)| ((*id).to_owned(), *p, *a))
                        .collect::<Vec<_>>()
                };
                assert_eq!(others(&view), others(&ids), "{place}: what {} knows", person.socket);
            }
        }
    }
}

fn seen(participant: &Value) -> (&str, bool, bool) {
    let id = participant["id"].as_str().unwrap();
    (id, participant["publishing"].as_bool().unwrap(), participant["away"].as_bool().unwrap_or(false))
}

impl View {
    fn read(&mut self, msg: &Value) {
        if msg["action"] != "notify" || msg["peer"].is_null() {
            return;
        }
        if let Some(participants) = msg["participants"].as_array() {
            self.participants = participants.clone();
            return;
        }
        let peer = &msg["peer"];
        let place = self.participants.iter_mut().find(|participant| participant["id"] == peer["id"]);
        *place.expect("a notice is of somebody who was announced") = peer.clone();
    }
}
