//! One room: who is in it, in order of arrival.

use std::time::Instant;

use crate::limits::{CALL_PEOPLE, Settings};
use crate::lobby::PeerId;
use crate::message::Kind;
use crate::state::State;

/// The capability of clients that come back after a loss.
const RESUME: &str = "resume";

/// A person in a room.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) id: String,
    pub(crate) display: String,
    pub(crate) publishing: bool,
    /// Where the person's media is, `app/stream`.
    pub(crate) stream: String,
    /// The server made the stream's name up, so nobody else publishes there.
    pub(crate) is_assigned: bool,
    pub(crate) state: Option<State>,
    pub(crate) capabilities: Vec<String>,
    /// The secret that takes this seat again.
    pub(crate) seat: String,
    pub(crate) presence: Presence,
    pub(crate) since: Instant,
}

/// Whether a member has a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presence {
    Here(PeerId),
    /// The seat is kept until then.
    Away(Instant),
}

impl Member {
    pub(crate) fn peer(&self) -> Option<PeerId> {
        match self.presence {
            Presence::Here(peer) => Some(peer),
            Presence::Away(_) => None,
        }
    }

    pub(crate) fn is_away(&self) -> bool {
        self.peer().is_none()
    }

    pub(crate) fn can_resume(&self) -> bool {
        self.capabilities.iter().any(|capability| capability == RESUME)
    }
}

/// The people of a room. A room without people does not exist.
#[derive(Debug, Default)]
pub(crate) struct Room {
    pub(crate) kind: Option<Kind>,
    pub(crate) members: Vec<Member>,
}

impl Room {
    pub(crate) fn max_people(&self, settings: &Settings) -> usize {
        max_people(self.kind, settings)
    }

    pub(crate) fn position(&self, id: &str) -> Option<usize> {
        self.members.iter().position(|member| member.id == id)
    }

    pub(crate) fn position_of(&self, peer: PeerId) -> Option<usize> {
        self.members.iter().position(|member| member.peer() == Some(peer))
    }

    pub(crate) fn position_of_seat(&self, seat: &str) -> Option<usize> {
        self.members.iter().position(|member| member.seat == seat)
    }

    /// Who has been away for longest.
    pub(crate) fn longest_away(&self) -> Option<usize> {
        let until = |member: &Member| match member.presence {
            Presence::Here(_) => None,
            Presence::Away(until) => Some(until),
        };
        let away = self.members.iter().enumerate().filter_map(|(position, member)| Some((until(member)?, position)));
        away.min().map(|(_, position)| position)
    }

    /// Whether a person of this name can be told from those who are here: SRS's pages go by the name.
    pub(crate) fn is_taken(&self, display: &str, is_assigned: bool) -> bool {
        self.members.iter().any(|member| member.display == display && !(member.is_assigned && is_assigned))
    }

    /// Everybody who has a socket, except one.
    pub(crate) fn others<'a>(&'a self, id: &'a str) -> impl Iterator<Item = (PeerId, &'a Member)> {
        self.members.iter().filter(move |member| member.id != id).filter_map(|member| Some((member.peer()?, member)))
    }
}

/// How many a room of this kind holds.
pub(crate) fn max_people(kind: Option<Kind>, settings: &Settings) -> usize {
    match kind {
        Some(Kind::Call) => CALL_PEOPLE.min(settings.max_people),
        Some(Kind::Room) | None => settings.max_people,
    }
}
