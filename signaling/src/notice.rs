//! Messages as they are sent: answers and notices (protocol.md, "Messages").

use serde::Serialize;
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

use crate::error::{Refusal, WireError};
use crate::message::{Control, Kind};
use crate::room::Member;
use crate::state::State;

/// What the server knows beyond SRS.
const CAPABILITIES: [&str; 8] = ["assign", "kind", "leave", "ping", "resume", "state", "to", "unpublish"];

/// A person as the others see it.
#[derive(Debug, Serialize)]
pub(crate) struct Participant<'a> {
    id: &'a str,
    display: &'a str,
    publishing: bool,
    stream: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<State>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    capabilities: &'a [String],
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    away: bool,
}

impl<'a> From<&'a Member> for Participant<'a> {
    fn from(member: &'a Member) -> Participant<'a> {
        Participant {
            id: &member.id,
            display: &member.display,
            publishing: member.publishing,
            stream: &member.stream,
            state: member.state,
            capabilities: &member.capabilities,
            away: member.is_away(),
        }
    }
}

#[derive(Serialize)]
struct Answer<'a, M> {
    #[serde(skip_serializing_if = "Option::is_none")]
    tid: Option<&'a str>,
    msg: M,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<WireError>,
}

/// The answer to a join.
#[derive(Serialize)]
pub(crate) struct Joined<'a> {
    action: &'static str,
    room: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<Kind>,
    #[serde(rename = "self")]
    own: Participant<'a>,
    participants: Vec<Participant<'a>>,
    seat: &'a str,
    resumed: bool,
    max_people: usize,
    capabilities: [&'static str; 8],
}

impl<'a> Joined<'a> {
    pub(crate) fn new(
        room: &'a str,
        kind: Option<Kind>,
        own: &'a Member,
        members: &'a [Member],
        max_people: usize,
        resumed: bool,
    ) -> Joined<'a> {
        Joined {
            action: "join",
            room,
            kind,
            own: own.into(),
            participants: members.iter().map(Participant::from).collect(),
            seat: &own.seat,
            resumed,
            max_people,
            capabilities: CAPABILITIES,
        }
    }
}

/// The answer to a request that was done.
pub(crate) fn done(tid: Option<&str>) -> String {
    text(&Answer { tid, msg: (), error: None })
}

/// The answer to a join that was done.
pub(crate) fn joined(tid: Option<&str>, msg: Joined<'_>) -> String {
    text(&Answer { tid, msg, error: None })
}

/// The answer to a request that was refused; a notice if the request could not even be told.
pub(crate) fn refused(tid: Option<&str>, refusal: &Refusal) -> String {
    let error = Some(refusal.on_wire());
    match tid {
        Some(_) => text(&Answer { tid, msg: (), error }),
        None => text(&Answer { tid, msg: Bare { action: "notify", event: "error" }, error }),
    }
}

#[derive(Serialize)]
struct Bare {
    action: &'static str,
    event: &'static str,
}

#[derive(Serialize)]
struct Notice<'a> {
    action: &'static str,
    event: &'static str,
    room: &'a str,
    #[serde(rename = "self")]
    receiver: Participant<'a>,
    peer: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    participants: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    param: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<&'a str>,
}

/// A notice for several receivers: what is the same for all of them is written once.
pub(crate) struct NoticeWriter<'a> {
    event: &'static str,
    room: &'a str,
    peer: Box<RawValue>,
    participants: Option<Box<RawValue>>,
    control: Option<&'a Control>,
}

impl<'a> NoticeWriter<'a> {
    pub(crate) fn new(event: &'static str, room: &'a str, peer: &Member) -> NoticeWriter<'a> {
        NoticeWriter { event, room, peer: raw(&Participant::from(peer)), participants: None, control: None }
    }

    pub(crate) fn with_participants(mut self, members: &[Member]) -> NoticeWriter<'a> {
        self.participants = Some(raw(&members.iter().map(Participant::from).collect::<Vec<_>>()));
        self
    }

    pub(crate) fn with_control(mut self, control: &'a Control) -> NoticeWriter<'a> {
        self.control = Some(control);
        self
    }

    pub(crate) fn text_for(&self, receiver: &Member) -> String {
        let msg = Notice {
            action: "notify",
            event: self.event,
            room: self.room,
            receiver: receiver.into(),
            peer: &self.peer,
            participants: self.participants.as_deref(),
            param: self.control.map(|control| control.call.as_str()),
            data: self.control.map(|control| &control.data),
            to: self.control.and_then(|control| control.to.as_deref()),
        };
        text(&Answer { tid: None, msg, error: None })
    }
}

/// Texts, numbers and lists of them always have a JSON form, so the fallback is never taken.
fn text(message: &impl Serialize) -> String {
    serde_json::to_string(message).unwrap_or_default()
}

fn raw(value: &impl Serialize) -> Box<RawValue> {
    to_raw_value(value).unwrap_or_else(|_| RawValue::NULL.to_owned())
}
