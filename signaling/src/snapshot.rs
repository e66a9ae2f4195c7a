//! What the management API and the metrics show.

use std::time::Duration;

use crate::message::Kind;
use crate::state::State;

/// A room.
#[derive(Debug, Clone, PartialEq)]
pub struct RoomSnapshot {
    /// Its name.
    pub name: String,
    /// What it is meant to be, if anybody has said.
    pub kind: Option<Kind>,
    /// How many it holds.
    pub max_people: usize,
    /// Who is in it, in order of arrival.
    pub people: Vec<PersonSnapshot>,
}

/// A person in a room.
#[derive(Debug, Clone, PartialEq)]
pub struct PersonSnapshot {
    /// What the protocol calls the person.
    pub id: String,
    /// What people call it.
    pub display: String,
    /// Its media can be played.
    pub publishing: bool,
    /// Where its media is, `app/stream`.
    pub stream: String,
    /// What is on, as far as it has told.
    pub state: Option<State>,
    /// Its socket is lost and its seat kept.
    pub away: bool,
    /// How long it has been in the room.
    pub alive: Duration,
}

/// Counts since the start, and what is there now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Sockets.
    pub sockets: usize,
    /// Rooms.
    pub rooms: usize,
    /// People in rooms, those who are away too.
    pub people: usize,
    /// Messages received.
    pub received: u64,
    /// Messages sent.
    pub sent: u64,
    /// Requests that were refused.
    pub refused: u64,
    /// Seats that were taken again.
    pub resumed: u64,
    /// Sockets that missed their pings.
    pub lost: u64,
}
