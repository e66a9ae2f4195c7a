//! Entering a room, and taking one's seat again.

use std::time::Instant;

use super::{CloseCode, Lobby, Output, PeerId, Place};
use crate::error::Refusal;
use crate::limits::MAX_SECRET_BYTES;
use crate::message::{Join, Kind};
use crate::names;
use crate::notice::{self, Joined};
use crate::room::{self, Member, Presence, Room};

impl Lobby {
    pub(super) fn join(&mut self, now: Instant, id: PeerId, tid: Option<&str>, join: Join) -> Result<(), Refusal> {
        match self.peers.get(&id).map(|peer| &peer.place) {
            Some(Place::Room(room)) => return Err(Refusal::AlreadyJoined(room.clone())),
            Some(Place::Nowhere { .. }) => {}
            None => return Ok(()),
        }
        let seat = join.resume.as_deref().and_then(|seat| self.rooms.get(&join.room)?.position_of_seat(seat));
        if let Some(position) = seat {
            self.resume(now, id, tid, join, position);
            return Ok(());
        }
        self.check_join(id, &join)?;
        self.make_room(&join);
        let position = self.enter(now, id, &join);
        self.settle(id, &join.room);
        self.answer_join(id, tid, &join.room, position, false);
        self.announce("join", &join.room, position);
        Ok(())
    }

    fn check_join(&self, id: PeerId, join: &Join) -> Result<(), Refusal> {
        if self.is_draining {
            return Err(Refusal::Draining);
        }
        let shown = join.token.as_deref().or_else(|| self.peers.get(&id)?.token.as_deref());
        self.check_token(shown)?;
        names::check_room(&join.room)?;
        names::check_display(&join.display, join.is_assigned)?;
        let Some(room) = self.rooms.get(&join.room) else {
            let is_full = self.rooms.len() >= self.settings.max_rooms;
            return if is_full { Err(Refusal::TooManyRooms(self.rooms.len())) } else { Ok(()) };
        };
        let kind = agreed_kind(&join.room, room, join.kind)?;
        let (people, max) = (room.members.len(), room::max_people(kind, &self.settings));
        if room.members.iter().filter(|member| !member.is_away()).count() >= max {
            return Err(Refusal::RoomFull { people, max, room: join.room.clone() });
        }
        if room.is_taken(&join.display, join.is_assigned) {
            return Err(Refusal::DisplayTaken { display: join.display.clone(), room: join.room.clone() });
        }
        Ok(())
    }

    /// Seats of those whose network is gone are kept only while nobody else wants them.
    fn make_room(&mut self, join: &Join) {
        while let Some(room) = self.rooms.get(&join.room) {
            let is_full = room.members.len() >= room::max_people(room.kind.or(join.kind), &self.settings);
            let Some(position) = room.longest_away().filter(|_| is_full) else { return };
            self.remove_member(&join.room, position);
        }
    }

    /// Compares with all tokens, each in full, so that the time tells nothing.
    fn check_token(&self, shown: Option<&str>) -> Result<(), Refusal> {
        if self.settings.tokens.is_empty() {
            return Ok(());
        }
        let shown = shown.filter(|shown| shown.len() <= MAX_SECRET_BYTES).ok_or(Refusal::TokenMissing)?;
        let is_known = self.settings.tokens.iter().fold(false, |found, token| found | same(token, shown));
        if is_known { Ok(()) } else { Err(Refusal::TokenWrong) }
    }

    /// Sits down; gives the place in the room.
    fn enter(&mut self, now: Instant, id: PeerId, join: &Join) -> usize {
        let stream = match join.is_assigned {
            true => names::new_stream(&mut self.random),
            false => format!("{}/{}", join.room, join.display),
        };
        let member = Member {
            id: names::new_id(&mut self.random),
            display: join.display.clone(),
            publishing: false,
            stream,
            is_assigned: join.is_assigned,
            state: join.state,
            capabilities: join.capabilities.clone(),
            seat: names::new_seat(&mut self.random),
            presence: Presence::Here(id),
            since: now,
        };
        let room = self.rooms.entry(join.room.clone()).or_default();
        room.kind = room.kind.or(join.kind);
        room.members.push(member);
        room.members.len() - 1
    }

    /// Takes a seat again, from a socket that may not know yet that it is dead.
    fn resume(&mut self, now: Instant, id: PeerId, tid: Option<&str>, join: Join, position: usize) {
        let seat = names::new_seat(&mut self.random);
        let Some(member) = self.rooms.get_mut(&join.room).and_then(|room| room.members.get_mut(position)) else {
            return;
        };
        let before = std::mem::replace(&mut member.presence, Presence::Here(id));
        member.seat = seat;
        member.state = join.state.map(|change| member.state.unwrap_or_default().with(change)).or(member.state);
        match before {
            Presence::Away(until) => self.timers.remove_seat(&join.room, &member.id, until),
            Presence::Here(old) => {
                self.peers.remove(&old);
                self.timers.remove_peer(old);
                self.outputs.push_back(Output::Close { peer: old, code: CloseCode::Replaced });
            }
        }
        self.counters.resumed += 1;
        self.settle(id, &join.room);
        self.reschedule_ping(now, id);
        self.answer_join(id, tid, &join.room, position, true);
        if matches!(before, Presence::Away(_)) {
            self.announce("back", &join.room, position);
        }
    }

    fn settle(&mut self, id: PeerId, room: &str) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.place = Place::Room(room.to_owned());
            let due = peer.due();
            self.timers.set_peer(id, due);
        }
    }

    fn answer_join(&mut self, id: PeerId, tid: Option<&str>, room_name: &str, position: usize, is_resumed: bool) {
        let Some(room) = self.rooms.get(room_name) else { return };
        let Some(member) = room.members.get(position) else { return };
        let max_people = room.max_people(&self.settings);
        let answer = Joined::new(room_name, room.kind, member, &room.members, max_people, is_resumed);
        let text = notice::joined(tid, answer);
        self.send(id, text);
    }
}

/// What a room is once somebody who asks for `asked` is in it.
fn agreed_kind(name: &str, room: &Room, asked: Option<Kind>) -> Result<Option<Kind>, Refusal> {
    match (room.kind, asked) {
        (Some(is), Some(asked)) if is != asked => {
            Err(Refusal::OtherKind { room: name.to_owned(), is: is.name(), asked: asked.name() })
        }
        (is, asked) => Ok(is.or(asked)),
    }
}

/// Equality in a time that depends on the lengths alone.
fn same(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}
