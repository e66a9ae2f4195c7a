//! What people do in a room.

use std::time::Instant;

use super::{Lobby, Output, PeerId, Place};
use crate::error::Refusal;
use crate::limits::JOIN_WITHIN;
use crate::message::{Control, Deed, Names};
use crate::notice::{self, NoticeWriter};

impl Lobby {
    pub(super) fn deed(
        &mut self,
        now: Instant,
        id: PeerId,
        tid: Option<&str>,
        names: &Names,
        deed: &Deed,
    ) -> Result<(), Refusal> {
        let (room, position) = self.place_of(id, names, deed.name())?;
        // The answer goes first, so that whoever does something knows of it before the others' reactions.
        match deed {
            Deed::Publish | Deed::Unpublish => {
                self.send(id, notice::done(tid));
                self.set_publishing(now, id, &room, position, *deed == Deed::Publish);
            }
            Deed::State(change) => {
                self.send(id, notice::done(tid));
                if let Some(member) = self.rooms.get_mut(&room).and_then(|room| room.members.get_mut(position)) {
                    member.state = Some(member.state.unwrap_or_default().with(*change));
                }
                self.announce("state", &room, position);
            }
            Deed::Control(control) => self.control(id, tid, &room, position, control)?,
            Deed::Leave => {
                self.send(id, notice::done(tid));
                if let Some(peer) = self.peers.get_mut(&id) {
                    peer.place = Place::Nowhere { until: now + JOIN_WITHIN };
                }
                self.remove_member(&room, position);
                self.reschedule_ping(now, id);
            }
        }
        Ok(())
    }

    /// The room of a socket and the place in it, once the names in the request have been found to be its own.
    fn place_of(&self, id: PeerId, names: &Names, action: &'static str) -> Result<(String, usize), Refusal> {
        let Some(Place::Room(name)) = self.peers.get(&id).map(|peer| &peer.place) else {
            return Err(Refusal::NotJoined(action));
        };
        let found = self.rooms.get(name).and_then(|room| {
            let position = room.position_of(id)?;
            Some((&room.members[position], position))
        });
        let Some((member, position)) = found else { return Err(Refusal::NotJoined(action)) };
        if names.room.as_ref().is_some_and(|room| room != name) {
            return Err(Refusal::OtherRoom(name.clone()));
        }
        if names.display.as_ref().is_some_and(|display| *display != member.display) {
            return Err(Refusal::OtherPerson(member.display.clone()));
        }
        Ok((name.clone(), position))
    }

    fn set_publishing(&mut self, now: Instant, id: PeerId, room: &str, position: usize, publishing: bool) {
        if let Some(member) = self.rooms.get_mut(room).and_then(|room| room.members.get_mut(position)) {
            member.publishing = publishing;
        }
        self.reschedule_ping(now, id);
        self.announce(if publishing { "publish" } else { "unpublish" }, room, position);
    }

    fn control(
        &mut self,
        id: PeerId,
        tid: Option<&str>,
        room_name: &str,
        position: usize,
        control: &Control,
    ) -> Result<(), Refusal> {
        let Some(room) = self.rooms.get(room_name) else { return Ok(()) };
        let Some(member) = room.members.get(position) else { return Ok(()) };
        let writer = NoticeWriter::new("control", room_name, member).with_control(control);
        let mut notices = Vec::new();
        match &control.to {
            Some(to) => {
                let to = room.position(to).ok_or_else(|| Refusal::NoSuchPerson(room_name.to_owned()))?;
                // Who is away misses it, as everybody misses what is said while away.
                let receiver = &room.members[to];
                notices.extend(receiver.peer().map(|peer| (peer, writer.text_for(receiver))));
            }
            None => {
                let writer = writer.with_participants(&room.members);
                notices.extend(room.others(&member.id).map(|(peer, other)| (peer, writer.text_for(other))));
            }
        }
        self.send(id, notice::done(tid));
        self.counters.sent += notices.len() as u64;
        self.outputs.extend(notices.into_iter().map(|(peer, text)| Output::Send { peer, text }));
        Ok(())
    }
}
