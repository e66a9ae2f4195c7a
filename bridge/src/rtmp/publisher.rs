//! One connection on which we publish a stream to somebody else's server, as a state machine: the client's side of
//! [`RtmpConnection`](super::RtmpConnection).
//!
//! The order of commands is that of FMLE, FFmpeg and OBS, which every server knows: `connect`, then `releaseStream`,
//! `FCPublish`, `createStream`, `publish`; `FCUnpublish` and `deleteStream` at the end. After `connect` it waits for
//! [`RtmpPublisher::publish`], so that the caller can first compare its codecs with those that the server has announced
//! ([`PeerCodecs`]). Media are the shared messages of [`rtmp_message`](super::rtmp_message), written by whoever holds the
//! socket.
//!
//! Enhanced RTMP v1 and v2 (`fourCcList`, `videoFourCcInfoMap`). Not done: the authentication of Adobe's and Limelight's
//! servers (`authmod`), and following a redirect; what the server says of either is passed on as it stands.

use std::collections::VecDeque;

use bytes::{BufMut as _, Bytes, BytesMut};
use freshet_media::Codec;
use thiserror::Error;

use super::chunk::{Interest, Message};
use super::commands::FOUR_CCS;
use super::handshake::Handshake;
use super::link::{Link, WINDOW_BYTES, without_amf3_marker};
use super::message::{OUT_CHUNK_SIZE, PLAYER_STREAM_ID, message_type, put_control};
use super::{RtmpError, RtmpLimits};
use crate::flv::amf0::{Reader, Value, object};
use crate::flv::four_cc;

/// Transactions of the commands that we need an answer to, and of the two that are said for form's sake.
mod transaction {
    pub(super) const CONNECT: f64 = 1.0;
    pub(super) const RELEASE_STREAM: f64 = 2.0;
    pub(super) const FC_PUBLISH: f64 = 3.0;
    pub(super) const CREATE_STREAM: f64 = 4.0;
    pub(super) const PUBLISH: f64 = 5.0;
    pub(super) const FC_UNPUBLISH: f64 = 6.0;
    pub(super) const DELETE_STREAM: f64 = 7.0;
}

/// What a server says goes into logs and listings: a sentence, no page.
const MAX_REASON_CHARS: usize = 300;

/// Codecs that are noted of a server's list. Enhanced RTMP has about ten.
const MAX_PEER_CODECS: usize = 64;

/// Where the message stream id stands in a message of [`rtmp_message`](super::rtmp_message): behind a basic header of one
/// byte, time, length and type (§5.3.1.2.1).
const STREAM_ID_AT: usize = 8;

/// Whom to tell what. All names are sent as they stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishTo {
    /// `app` of the `connect` command.
    pub app: String,
    /// The stream's name, query included.
    pub stream: String,
    /// The address without the stream, `rtmp://host/app`.
    pub tc_url: String,
    /// Who we are.
    pub flash_ver: String,
}

/// What a publisher wants done, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublishOutput {
    /// Write these bytes to the server.
    Write(Bytes),
    /// The server has let us in: compare codecs, then call [`RtmpPublisher::publish`].
    Connected(PeerCodecs),
    /// The server takes media from now on.
    Started,
}

/// The codecs that a server has announced, if it has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerCodecs(Option<Vec<String>>);

/// Whether a server takes a codec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acceptance {
    /// It does.
    Yes,
    /// It has announced others.
    No,
    /// It has announced none: many that take Enhanced RTMP don't say so.
    Unknown,
    /// RTMP has no place for it at all.
    Uncarried,
}

impl PeerCodecs {
    /// What is known of a codec.
    pub fn accept(&self, codec: Codec) -> Acceptance {
        // Older than Enhanced RTMP: no server announces them.
        if [Codec::H264, Codec::Aac, Codec::Mp3].contains(&codec) {
            return Acceptance::Yes;
        }
        let Some(code) = four_cc(codec) else { return Acceptance::Uncarried };
        let Some(announced) = &self.0 else { return Acceptance::Unknown };
        let found = announced.iter().any(|name| name == "*" || name.as_bytes() == code);
        if found { Acceptance::Yes } else { Acceptance::No }
    }

    /// The list as it was announced, empty if none was.
    pub fn names(&self) -> &[String] {
        self.0.as_deref().unwrap_or_default()
    }

    /// Out of the two objects that answer `connect`; servers put it into either.
    fn of_answer(values: &[Value]) -> PeerCodecs {
        let mut names: Option<Vec<String>> = None;
        for value in values {
            if let Some(Value::StrictArray(list)) = value.property("fourCcList") {
                names.get_or_insert_default().extend(list.iter().filter_map(Value::as_str).map(str::to_owned));
            }
            for map in ["videoFourCcInfoMap", "audioFourCcInfoMap"] {
                if let Some(Value::Object(entries) | Value::EcmaArray(entries)) = value.property(map) {
                    names.get_or_insert_default().extend(entries.iter().map(|(name, _)| name.clone()));
                }
            }
        }
        if let Some(names) = &mut names {
            names.retain(|name| name.len() <= 4);
            names.truncate(MAX_PEER_CODECS);
        }
        PeerCodecs(names)
    }
}

/// Why nothing is published, or no longer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PublishError {
    /// The server breaks the protocol, or speaks another one.
    #[error(transparent)]
    Protocol(#[from] RtmpError),
    /// The server said no, in its own words.
    #[error("the server refused \"{command}\": {reason}")]
    Refused {
        /// Which command.
        command: &'static str,
        /// What it said.
        reason: String,
    },
    /// The server has ended what it had begun.
    #[error("the server ended the stream: {0}")]
    Ended(String),
    /// The server hung up.
    #[error("the server closed the connection {0}")]
    Closed(&'static str),
    /// The caller's mistake: nothing of the kind is due.
    #[error("the server has not let us in yet, or has already been asked")]
    OutOfPlace,
}

/// How far it has got.
enum State {
    Handshake(Box<Handshake>),
    Connecting,
    Connected,
    Creating,
    Asking { stream_id: u32 },
    Publishing { stream_id: u32 },
    Over,
}

/// The publisher's side of an RTMP connection.
///
/// Feed it what the server sends, then take outputs until there are none. A connection in error stays in it.
pub struct RtmpPublisher {
    to: PublishTo,
    state: State,
    link: Link,
    outputs: VecDeque<PublishOutput>,
    broken: Option<PublishError>,
}

impl RtmpPublisher {
    /// A connection that has just been made: the first thing it gives is its half of the handshake.
    ///
    /// # Errors
    /// The handshake cannot be made.
    pub fn new(limits: RtmpLimits, to: PublishTo) -> Result<RtmpPublisher, PublishError> {
        let mut hello = Vec::new();
        let handshake = Handshake::client(&mut hello)?;
        let mut link = Link::new(limits);
        link.writes.extend_from_slice(&hello);
        Ok(RtmpPublisher {
            to,
            state: State::Handshake(Box::new(handshake)),
            link,
            outputs: VecDeque::new(),
            broken: None,
        })
    }

    /// Bytes from the server.
    ///
    /// # Errors
    /// Write what is queued, then close the connection.
    pub fn handle_bytes(&mut self, bytes: &[u8]) -> Result<(), PublishError> {
        let read = match self.broken.take() {
            Some(error) => Err(error),
            None => self.read(bytes),
        };
        self.broken = read.clone().err();
        read
    }

    /// What is to be done next, `None` if nothing is until more bytes come.
    pub fn poll_output(&mut self) -> Option<PublishOutput> {
        if !self.link.writes.is_empty() {
            return Some(PublishOutput::Write(self.link.writes.split().freeze()));
        }
        self.outputs.pop_front()
    }

    /// Asks to publish, after [`PublishOutput::Connected`].
    ///
    /// # Errors
    /// It is not the time.
    pub fn publish(&mut self) -> Result<(), PublishError> {
        let State::Connected = self.state else { return Err(PublishError::OutOfPlace) };
        self.state = State::Creating;
        let name = Value::from(self.to.stream.as_str());
        self.link.put_command(0, "releaseStream", transaction::RELEASE_STREAM, &[Value::Null, name.clone()]);
        self.link.put_command(0, "FCPublish", transaction::FC_PUBLISH, &[Value::Null, name]);
        self.link.put_command(0, "createStream", transaction::CREATE_STREAM, &[Value::Null]);
        Ok(())
    }

    /// Appends a message of [`rtmp_message`](super::rtmp_message) as this server wants it: on the message stream that it
    /// has given us. Its bytes are not copied, but for the header of a server that gives another than 1.
    pub fn readdress(&self, message: Bytes, out: &mut impl Extend<Bytes>) {
        let State::Publishing { stream_id } = self.state else { return };
        let mut rest = message;
        if stream_id != PLAYER_STREAM_ID && rest.len() >= STREAM_ID_AT + 4 {
            let mut header = BytesMut::from(&rest[..STREAM_ID_AT]);
            header.put_u32_le(stream_id);
            out.extend([header.freeze()]);
            rest = rest.slice(STREAM_ID_AT + 4..);
        }
        if !rest.is_empty() {
            out.extend([rest]);
        }
    }

    /// Ends the stream. What it gives then are the last words.
    pub fn finish(&mut self) {
        let stream_id = match std::mem::replace(&mut self.state, State::Over) {
            State::Asking { stream_id } | State::Publishing { stream_id } => stream_id,
            State::Handshake(_) | State::Connecting | State::Connected | State::Creating | State::Over => return,
        };
        let name = Value::from(self.to.stream.as_str());
        self.link.put_command(0, "FCUnpublish", transaction::FC_UNPUBLISH, &[Value::Null, name]);
        let stream_id = [Value::Null, f64::from(stream_id).into()];
        self.link.put_command(0, "deleteStream", transaction::DELETE_STREAM, &stream_id);
    }

    /// What it means that the server hangs up now. Many do so instead of saying no.
    pub fn closed(&self) -> PublishError {
        PublishError::Closed(match self.state {
            State::Handshake(_) => "during the handshake: it may not speak RTMP, or not on this port",
            State::Connecting => "instead of answering \"connect\": the app may be unknown to it",
            State::Connected => "before anything was published",
            State::Creating | State::Asking { .. } => {
                "instead of answering \"publish\": the stream key may be wrong, or the stream may be taken"
            }
            State::Publishing { .. } => "while the stream was running",
            State::Over => "at the end",
        })
    }

    fn read(&mut self, mut bytes: &[u8]) -> Result<(), PublishError> {
        self.link.count(bytes.len());
        if let State::Handshake(handshake) = &mut self.state {
            let mut answer = Vec::new();
            let (taken, is_done) = handshake.take(bytes, &mut answer)?;
            self.link.writes.extend_from_slice(&answer);
            bytes = &bytes[taken..];
            if !is_done {
                return Ok(());
            }
            self.connect();
        }
        while let Some(message) = self.link.next_message(&mut bytes, Interest::NoMedia)? {
            self.handle_message(&message)?;
        }
        self.link.acknowledge();
        Ok(())
    }

    fn connect(&mut self) {
        self.state = State::Connecting;
        // Before the first command: that is longer than the chunks of a connection that has just been made.
        put_control(&mut self.link.writes, message_type::SET_CHUNK_SIZE, &(OUT_CHUNK_SIZE as u32).to_be_bytes());
        put_control(&mut self.link.writes, message_type::WINDOW_ACK_SIZE, &WINDOW_BYTES.to_be_bytes());
        let properties = object([
            ("app", self.to.app.as_str().into()),
            ("type", "nonprivate".into()),
            ("flashVer", self.to.flash_ver.as_str().into()),
            ("tcUrl", self.to.tc_url.as_str().into()),
            ("fourCcList", Value::StrictArray(FOUR_CCS.map(Value::from).into())),
        ]);
        self.link.put_command(0, "connect", transaction::CONNECT, &[properties]);
    }

    fn handle_message(&mut self, message: &Message) -> Result<(), PublishError> {
        match message.message_type {
            message_type::AMF0_COMMAND => self.handle_command(&message.body),
            message_type::AMF3_COMMAND => self.handle_command(&without_amf3_marker(message.body.clone())),
            _ => Ok(self.link.handle_control(message)?),
        }
    }

    fn handle_command(&mut self, body: &[u8]) -> Result<(), PublishError> {
        let mut values = Reader::new(body).values_leniently();
        let [Value::String(name), Value::Number(transaction), ..] = &values[..] else { return Ok(()) };
        let (name, transaction) = (name.clone(), *transaction);
        let values: Vec<Value> = values.drain(2..).collect();
        match name.as_str() {
            "_result" => self.handle_result(transaction, &values),
            "_error" => self.handle_error(transaction, &values),
            "onStatus" => self.handle_status(&values),
            // Some servers say so before they hang up.
            "close" => Err(PublishError::Ended(reason_of(&values))),
            // `onBWDone`, `onFCPublish` and whatever else is told without being asked.
            _ => Ok(()),
        }
    }

    fn handle_result(&mut self, transaction: f64, values: &[Value]) -> Result<(), PublishError> {
        match &self.state {
            State::Connecting if transaction == transaction::CONNECT => {
                self.state = State::Connected;
                self.outputs.push_back(PublishOutput::Connected(PeerCodecs::of_answer(values)));
            }
            State::Creating if transaction == transaction::CREATE_STREAM => {
                let stream_id = values.iter().find_map(Value::as_f64).unwrap_or(f64::from(PLAYER_STREAM_ID));
                // Saturates: a server that names a stream so is not ours to mend.
                let stream_id = stream_id as u32;
                self.state = State::Asking { stream_id };
                let arguments = [Value::Null, self.to.stream.as_str().into(), "live".into()];
                self.link.put_command(stream_id, "publish", transaction::PUBLISH, &arguments);
            }
            _ => {}
        }
        Ok(())
    }

    fn handle_error(&self, transaction: f64, values: &[Value]) -> Result<(), PublishError> {
        let command = match (&self.state, transaction) {
            (State::Connecting, transaction::CONNECT) => "connect",
            (State::Creating, transaction::CREATE_STREAM) => "createStream",
            (State::Asking { .. }, transaction::PUBLISH) => "publish",
            // Servers that do not know `releaseStream` and `FCPublish` may say so.
            _ => return Ok(()),
        };
        Err(PublishError::Refused { command, reason: reason_of(values) })
    }

    fn handle_status(&mut self, values: &[Value]) -> Result<(), PublishError> {
        let told = |name| values.iter().find_map(|value| value.property(name)).and_then(Value::as_str);
        let code = told("code").unwrap_or_default();
        let is_error = told("level") == Some("error");
        let is_end = ["NetStream.Unpublish.Success", "NetConnection.Connect.Closed"].contains(&code);
        match self.state {
            State::Asking { stream_id } if code == "NetStream.Publish.Start" => {
                self.state = State::Publishing { stream_id };
                self.outputs.push_back(PublishOutput::Started);
                Ok(())
            }
            State::Publishing { .. } if is_error || is_end => Err(PublishError::Ended(reason_of(values))),
            State::Connecting if is_error => {
                Err(PublishError::Refused { command: "connect", reason: reason_of(values) })
            }
            State::Creating | State::Asking { .. } if is_error || is_end => {
                Err(PublishError::Refused { command: "publish", reason: reason_of(values) })
            }
            _ => Ok(()),
        }
    }
}

/// Code and text of a status, fit for a log.
fn reason_of(values: &[Value]) -> String {
    let told = |name| values.iter().find_map(|value| value.property(name)).and_then(Value::as_str).unwrap_or_default();
    let (code, description) = (told("code"), told("description"));
    let text = match (code, description) {
        ("", "") => values.iter().find_map(Value::as_str).unwrap_or("it gave no reason").to_owned(),
        (code, "") => code.to_owned(),
        ("", description) => description.to_owned(),
        (code, description) => format!("{description} ({code})"),
    };
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_REASON_CHARS).collect()
}

#[cfg(test)]
#[path = "publisher_tests.rs"]
mod tests;
