//! Rooms and one-to-one calls: a state machine that knows who is there, passes their messages on, and speaks the
//! messages of SRS's signaling server.
//!
//! [`Lobby`] is the whole of it. It has no socket and no clock: the server tells it of sockets that open and close
//! ([`Lobby::connect`], [`Lobby::disconnect`]), of messages and pongs ([`Lobby::receive`], [`Lobby::pong`]) and of time
//! that has passed ([`Lobby::handle_timeout`], due at [`Lobby::poll_timeout`]), and after each call takes what is to be
//! done from [`Lobby::poll_output`] until there is nothing left.
//!
//! `protocol.md` beside this crate is the contract; its examples are tests here. Media, SDP and ICE are not signaled:
//! people publish and play over WHIP and WHEP under the stream names that they learn here.

#![forbid(unsafe_code)]

mod error;
mod limits;
mod lobby;
mod message;
mod names;
mod notice;
mod rate;
mod room;
mod snapshot;
mod state;

pub use limits::{MAX_MESSAGE_BYTES, SEAT_GRACE, Settings};
pub use lobby::{CloseCode, Departure, Lobby, Output, PeerId};
pub use message::Kind;
pub use snapshot::{Counters, PersonSnapshot, RoomSnapshot};
pub use state::State;

#[cfg(test)]
mod tests;
