//! Refusals of requests: a code for programs, a text for people, a hint for whoever can mend it.

use serde::Serialize;

/// Why a request is refused. The text is the error's own; [`Refusal::code`] and [`Refusal::hint`] go with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("the message is not a JSON object: {0}")]
    BadJson(String),
    #[error("{0}")]
    BadMessage(String),
    #[error("there is no action {0:?}")]
    UnknownAction(String),
    #[error("the message has {0} bytes, at most {max} are read", max = crate::limits::MAX_MESSAGE_BYTES)]
    TooLarge(usize),
    #[error("more than {rate} messages a second", rate = crate::limits::RATE_PER_SECOND)]
    TooFast,
    #[error("the room's name {0}")]
    BadRoom(&'static str),
    #[error("the display name {0}")]
    BadDisplay(&'static str),
    #[error("{display:?} is already in {room:?}")]
    DisplayTaken { display: String, room: String },
    #[error("{people} of {max} people are in {room:?}")]
    RoomFull { people: usize, max: usize, room: String },
    #[error("{room:?} is a {is}, not a {asked}")]
    OtherKind { room: String, is: &'static str, asked: &'static str },
    #[error("there are {0} rooms already")]
    TooManyRooms(usize),
    #[error("joining needs a token")]
    TokenMissing,
    #[error("the token is not one that this server knows")]
    TokenWrong,
    #[error("the server is about to end")]
    Draining,
    #[error("{0} needs a room")]
    NotJoined(&'static str),
    #[error("this socket joined {0:?}")]
    OtherRoom(String),
    #[error("this socket joined as {0:?}")]
    OtherPerson(String),
    #[error("this socket is in {0:?} already")]
    AlreadyJoined(String),
    #[error("nobody in {0:?} has this id")]
    NoSuchPerson(String),
}

/// A refusal as it is sent.
#[derive(Debug, Serialize)]
pub(crate) struct WireError {
    code: &'static str,
    text: String,
    hint: &'static str,
}

impl Refusal {
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Refusal::BadJson(_) => "bad-json",
            Refusal::BadMessage(_) => "bad-message",
            Refusal::UnknownAction(_) => "unknown-action",
            Refusal::TooLarge(_) => "too-large",
            Refusal::TooFast => "too-fast",
            Refusal::BadRoom(_) => "bad-room",
            Refusal::BadDisplay(_) => "bad-display",
            Refusal::DisplayTaken { .. } => "display-taken",
            Refusal::RoomFull { .. } => "room-full",
            Refusal::OtherKind { .. } => "other-kind",
            Refusal::TooManyRooms(_) => "too-many-rooms",
            Refusal::TokenMissing | Refusal::TokenWrong => "unauthorized",
            Refusal::Draining => "draining",
            Refusal::NotJoined(_) | Refusal::OtherRoom(_) | Refusal::OtherPerson(_) => "not-joined",
            Refusal::AlreadyJoined(_) => "already-joined",
            Refusal::NoSuchPerson(_) => "no-such-person",
        }
    }

    fn hint(&self) -> &'static str {
        match self {
            Refusal::BadJson(_) | Refusal::BadMessage(_) => "send {\"tid\":\"…\",\"msg\":{\"action\":\"…\",…}}",
            Refusal::UnknownAction(_) => "send one of join, publish, unpublish, state, control, leave, ping",
            Refusal::TooLarge(_) => "send large things over HTTP and their address here",
            Refusal::TooFast => "send less often; states can be gathered",
            Refusal::BadRoom(_) => "take letters, digits, - and _; at most 64 bytes",
            Refusal::BadDisplay(_) => "take another name; at most 64 bytes",
            Refusal::DisplayTaken { .. } => "take another name, or join with \"stream\":\"assign\"",
            Refusal::RoomFull { .. } => "wait until somebody leaves, or open another room",
            Refusal::OtherKind { .. } => "open the room's own link, or take another name",
            Refusal::TooManyRooms(_) => "try again later; signaling.max_rooms of the configuration sets the limit",
            Refusal::TokenMissing => "open the link with ?token=…; whoever runs the server has it",
            Refusal::TokenWrong => "check the token of the link; whoever runs the server has it",
            Refusal::Draining => "try again in a minute",
            Refusal::NotJoined(_) => "send join first",
            Refusal::OtherRoom(_) | Refusal::OtherPerson(_) => "leave room and display out, or open a second socket",
            Refusal::AlreadyJoined(_) => "send leave first",
            Refusal::NoSuchPerson(_) => "the person has left; take ids from participants",
        }
    }

    pub(crate) fn on_wire(&self) -> WireError {
        WireError { code: self.code(), text: self.to_string(), hint: self.hint() }
    }
}
