//! Requests as they come, taken apart and checked (protocol.md, "Messages").
//!
//! The JSON is read into a tree first and its members are picked one by one, so that a refusal names the member that
//! is wrong. Members that are not known are passed over, and `null` is the same as leaving a member out.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::error::Refusal;
use crate::limits::{
    MAX_CAPABILITIES, MAX_CAPABILITY_BYTES, MAX_MESSAGE_BYTES, MAX_NAME_BYTES, MAX_SECRET_BYTES, MAX_TID_BYTES,
};
use crate::state::State;

/// What a room is meant to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Two people.
    Call,
    /// As many as the server allows.
    Room,
}

impl Kind {
    /// The word of the protocol.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Call => "call",
            Kind::Room => "room",
        }
    }
}

/// One request.
#[derive(Debug, PartialEq)]
pub(crate) struct Request {
    pub(crate) tid: Option<String>,
    pub(crate) action: Action,
}

/// What is asked for.
#[derive(Debug, PartialEq)]
pub(crate) enum Action {
    Join(Box<Join>),
    InRoom(Names, Deed),
    Ping,
}

/// The room and the person that a request in a room names, if it does.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Names {
    pub(crate) room: Option<String>,
    pub(crate) display: Option<String>,
}

/// What somebody does who is in a room.
#[derive(Debug, PartialEq)]
pub(crate) enum Deed {
    Publish,
    Unpublish,
    State(State),
    Control(Control),
    Leave,
}

impl Deed {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Deed::Publish => "publish",
            Deed::Unpublish => "unpublish",
            Deed::State(_) => "state",
            Deed::Control(_) => "control",
            Deed::Leave => "leave",
        }
    }
}

#[derive(Debug, PartialEq)]
pub(crate) struct Join {
    pub(crate) room: String,
    pub(crate) display: String,
    pub(crate) kind: Option<Kind>,
    pub(crate) is_assigned: bool,
    pub(crate) state: Option<State>,
    pub(crate) capabilities: Vec<String>,
    pub(crate) token: Option<String>,
    pub(crate) resume: Option<String>,
}

#[derive(Debug, PartialEq)]
pub(crate) struct Control {
    pub(crate) call: String,
    pub(crate) data: Value,
    pub(crate) to: Option<String>,
}

/// A request that cannot be understood, with its `tid` if that could be read.
#[derive(Debug, PartialEq)]
pub(crate) struct Misunderstood {
    pub(crate) tid: Option<String>,
    pub(crate) refusal: Refusal,
}

/// Takes a message apart.
pub(crate) fn parse(text: &str) -> Result<Request, Misunderstood> {
    let mut tid = None;
    read(text, &mut tid)
        .map_err(|refusal| Misunderstood { tid: tid.clone(), refusal })
        .map(|action| Request { tid, action })
}

fn read(text: &str, tid: &mut Option<String>) -> Result<Action, Refusal> {
    if text.len() > MAX_MESSAGE_BYTES {
        return Err(Refusal::TooLarge(text.len()));
    }
    let root: Value = serde_json::from_str(text).map_err(|error| Refusal::BadJson(error.to_string()))?;
    let Value::Object(mut root) = root else { return Err(Refusal::BadJson("it is another JSON value".to_owned())) };
    *tid = Members(&mut root, "").text("tid", MAX_TID_BYTES)?;
    let Some(Value::Object(mut msg)) = root.remove("msg") else { return Err(bad("msg is not an object")) };
    let mut msg = Members(&mut msg, "msg.");
    let action = msg.needed_text("action", usize::MAX)?;
    let deed = match action.as_str() {
        "join" => return Ok(Action::Join(Box::new(join(&mut msg)?))),
        "ping" => return Ok(Action::Ping),
        "publish" => Deed::Publish,
        "unpublish" => Deed::Unpublish,
        "state" => Deed::State(msg.state()?.ok_or_else(|| bad("msg.state is missing"))?),
        "control" => Deed::Control(control(&mut msg)?),
        "leave" => Deed::Leave,
        _ => return Err(Refusal::UnknownAction(shortened(action))),
    };
    let names = Names { room: msg.text("room", MAX_NAME_BYTES)?, display: msg.text("display", MAX_NAME_BYTES)? };
    Ok(Action::InRoom(names, deed))
}

fn join(msg: &mut Members<'_>) -> Result<Join, Refusal> {
    let kind = match msg.text("kind", MAX_NAME_BYTES)?.as_deref() {
        None => None,
        Some("call") => Some(Kind::Call),
        Some("room") => Some(Kind::Room),
        Some(_) => return Err(bad("msg.kind is neither \"call\" nor \"room\"")),
    };
    let is_assigned = match msg.text("stream", MAX_NAME_BYTES)?.as_deref() {
        None => false,
        Some("assign") => true,
        Some(_) => return Err(bad("msg.stream can only be \"assign\"")),
    };
    Ok(Join {
        // Their length is judged with the rest of the name.
        room: msg.needed_text("room", usize::MAX)?,
        display: msg.needed_text("display", usize::MAX)?,
        kind,
        is_assigned,
        state: msg.state()?,
        capabilities: msg.capabilities()?,
        token: msg.text("token", MAX_SECRET_BYTES)?,
        resume: msg.text("resume", MAX_SECRET_BYTES)?,
    })
}

fn control(msg: &mut Members<'_>) -> Result<Control, Refusal> {
    Ok(Control {
        call: msg.needed_text("call", MAX_NAME_BYTES)?,
        data: msg.0.remove("data").unwrap_or(Value::Null),
        to: msg.text("to", MAX_NAME_BYTES)?,
    })
}

/// The members of an object and how texts name it.
struct Members<'a>(&'a mut Map<String, Value>, &'static str);

impl Members<'_> {
    fn take(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name).filter(|value| !value.is_null())
    }

    fn text(&mut self, name: &str, max_bytes: usize) -> Result<Option<String>, Refusal> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) if text.len() <= max_bytes => Ok(Some(text)),
            Some(Value::String(_)) => Err(bad(format!("{}{name} is longer than {max_bytes} bytes", self.1))),
            Some(_) => Err(bad(format!("{}{name} is not a text", self.1))),
        }
    }

    fn needed_text(&mut self, name: &str, max_bytes: usize) -> Result<String, Refusal> {
        self.text(name, max_bytes)?.ok_or_else(|| bad(format!("{}{name} is missing", self.1)))
    }

    fn state(&mut self) -> Result<Option<State>, Refusal> {
        let mut state = match self.take("state") {
            None => return Ok(None),
            Some(Value::Object(state)) => state,
            Some(_) => return Err(bad("msg.state is not an object")),
        };
        let mut switch = |name: &str| match state.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(on)) => Ok(Some(on)),
            Some(_) => Err(bad(format!("msg.state.{name} is neither true nor false"))),
        };
        Ok(Some(State {
            camera: switch("camera")?,
            microphone: switch("microphone")?,
            screen: switch("screen")?,
            speaking: switch("speaking")?,
            hand: switch("hand")?,
        }))
    }

    fn capabilities(&mut self) -> Result<Vec<String>, Refusal> {
        let wrong = || bad("msg.capabilities is not a list of at most 16 texts of at most 32 bytes");
        let list = match self.take("capabilities") {
            None => return Ok(Vec::new()),
            Some(Value::Array(list)) if list.len() <= MAX_CAPABILITIES => list,
            Some(_) => return Err(wrong()),
        };
        let texts = list.into_iter().map(|value| match value {
            Value::String(text) if text.len() <= MAX_CAPABILITY_BYTES => Ok(text),
            _ => Err(wrong()),
        });
        texts.collect()
    }
}

fn bad(text: impl Into<String>) -> Refusal {
    Refusal::BadMessage(text.into())
}

/// An unknown word as it can be repeated to whoever sent it.
fn shortened(word: String) -> String {
    match word.char_indices().nth(MAX_NAME_BYTES) {
        None => word,
        Some((end, _)) => format!("{}…", &word[..end]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_member_that_is_wrong() {
        let long = "x".repeat(65);
        for (text, tid, expected) in [
            ("", None, "the message is not a JSON object: EOF while parsing a value at line 1 column 0"),
            ("[1]", None, "the message is not a JSON object: it is another JSON value"),
            ("{}", None, "msg is not an object"),
            (r#"{"tid":7,"msg":{"action":"ping"}}"#, None, "tid is not a text"),
            (r#"{"tid":"a","msg":null}"#, Some("a"), "msg is not an object"),
            (r#"{"tid":"a","msg":{}}"#, Some("a"), "msg.action is missing"),
            (r#"{"tid":"a","msg":{"action":{}}}"#, Some("a"), "msg.action is not a text"),
            (r#"{"tid":"a","msg":{"action":"join"}}"#, Some("a"), "msg.room is missing"),
            (r#"{"tid":"a","msg":{"action":"join","room":"r"}}"#, Some("a"), "msg.display is missing"),
            (
                r#"{"tid":"a","msg":{"action":"join","room":"r","display":"d","kind":"party"}}"#,
                Some("a"),
                "msg.kind is neither \"call\" nor \"room\"",
            ),
            (
                r#"{"tid":"a","msg":{"action":"join","room":"r","display":"d","stream":"live/cam"}}"#,
                Some("a"),
                "msg.stream can only be \"assign\"",
            ),
            (
                r#"{"tid":"a","msg":{"action":"join","room":"r","display":"d","capabilities":["a",1]}}"#,
                Some("a"),
                "msg.capabilities is not a list of at most 16 texts of at most 32 bytes",
            ),
            (r#"{"tid":"a","msg":{"action":"state"}}"#, Some("a"), "msg.state is missing"),
            (
                r#"{"tid":"a","msg":{"action":"state","state":{"camera":1}}}"#,
                Some("a"),
                "msg.state.camera is neither true nor false",
            ),
            (r#"{"tid":"a","msg":{"action":"control"}}"#, Some("a"), "msg.call is missing"),
            (r#"{"tid":"a","msg":{"action":"control","call":"c","to":[]}}"#, Some("a"), "msg.to is not a text"),
            (r#"{"tid":"a","msg":{"action":"dance"}}"#, Some("a"), "there is no action \"dance\""),
            (
                &format!(r#"{{"tid":"a","msg":{{"action":"publish","room":"{long}"}}}}"#),
                Some("a"),
                "msg.room is longer than 64 bytes",
            ),
            (&format!(r#"{{"tid":"{long}","msg":{{}}}}"#), None, "tid is longer than 64 bytes"),
            (
                &format!(r#"{{"tid":"a","msg":"{}"}}"#, "x".repeat(MAX_MESSAGE_BYTES)),
                None,
                "the message has 16404 bytes, at most 16384 are read",
            ),
        ] {
            let Err(misunderstood) = parse(text) else { panic!("{text} was understood") };
            assert_eq!(misunderstood.refusal.to_string(), expected, "{text}");
            assert_eq!(misunderstood.tid.as_deref(), tid, "{text}");
        }
    }

    #[test]
    fn unknown_members_and_nulls_are_passed_over() {
        let text = r#"{"tid":"a","more":1,"msg":{"action":"publish","room":"r","display":null,"version":[2]}}"#;
        let names = Names { room: Some("r".to_owned()), display: None };
        let expected = Request { tid: Some("a".to_owned()), action: Action::InRoom(names, Deed::Publish) };
        assert_eq!(parse(text), Ok(expected));
    }

    #[test]
    fn an_unknown_action_is_repeated_only_in_part() {
        let text = format!(r#"{{"msg":{{"action":"{}"}}}}"#, "ö".repeat(5_000));
        let refusal = parse(&text).unwrap_err().refusal;
        assert_eq!(refusal, Refusal::UnknownAction(format!("{}…", "ö".repeat(64))));
    }
}
