//! One connection: handshake, control messages, media; commands are in `commands`.

use std::collections::VecDeque;

use bytes::{Buf, Bytes};
use freshet_media::MediaKind;

use super::chunk::{Interest, Message};
use super::commands::Client;
use super::handshake::Handshake;
use super::link::{Link, event, without_amf3_marker};
use super::message::{message_type, rtmp_message};
use super::{RequestId, RequestKind, RtmpError, RtmpLimits, RtmpOutput};
use crate::flv::amf0::{Reader, Value};
use crate::flv::{Tag, TagType};

/// Tags in one aggregate message. Flash servers put about a second of sound into one.
const MAX_AGGREGATED: usize = 4096;

/// What the peer does on the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Idle,
    /// Has asked and waits.
    Waiting {
        request: RequestId,
        kind: RequestKind,
    },
    Publishing,
    Playing,
}

/// The server's side of an RTMP connection.
///
/// Feed it what the peer sends, then take outputs until there are none. A connection in error stays in it.
pub struct RtmpConnection {
    limits: RtmpLimits,
    /// `None` once it is done.
    handshake: Option<Handshake>,
    pub(super) link: Link,
    pub(super) outputs: VecDeque<RtmpOutput>,
    pub(super) client: Client,
    pub(super) role: Role,
    pub(super) next_request: u32,
    /// What came after a request that waits.
    held: Vec<u8>,
    /// Why nothing more is read.
    broken: Option<RtmpError>,
}

impl RtmpConnection {
    /// A connection that has just been made.
    pub fn new(limits: RtmpLimits) -> RtmpConnection {
        RtmpConnection {
            handshake: Some(Handshake::server()),
            link: Link::new(limits.clone()),
            limits,
            outputs: VecDeque::new(),
            client: Client::default(),
            role: Role::Idle,
            next_request: 0,
            held: Vec::new(),
            broken: None,
        }
    }

    /// Bytes from the peer. On error write what is queued, then close the connection.
    pub fn handle_bytes(&mut self, bytes: &[u8]) -> Result<(), RtmpError> {
        self.link.count(bytes.len());
        self.read(bytes)?;
        if self.handshake.is_none() {
            self.link.acknowledge();
        }
        Ok(())
    }

    /// What is to be done next, `None` if nothing is until more bytes or an answer come.
    pub fn poll_output(&mut self) -> Option<RtmpOutput> {
        if !self.link.writes.is_empty() {
            return Some(RtmpOutput::Write(self.link.writes.split().freeze()));
        }
        self.outputs.pop_front()
    }

    /// False while a request waits for its answer: reading should pause.
    pub fn wants_input(&self) -> bool {
        !matches!(self.role, Role::Waiting { .. })
    }

    /// Lets the request have its way, tells the peer, and looks at what the peer sent meanwhile.
    pub fn accept(&mut self, request: RequestId) -> Result<(), RtmpError> {
        match self.waiting(request)? {
            RequestKind::Publish => {
                self.role = Role::Publishing;
                self.publish_started();
            }
            RequestKind::Play => {
                self.role = Role::Playing;
                self.play_started();
            }
        }
        self.read_held()
    }

    /// Refuses the request with a code such as `NetStream.Publish.BadName`, and looks at what the peer sent meanwhile.
    /// Most servers close the connection then; the peer may also ask again.
    pub fn reject(&mut self, request: RequestId, code: &str, description: &str) -> Result<(), RtmpError> {
        self.waiting(request)?;
        self.role = Role::Idle;
        self.send_status("error", code, description);
        self.read_held()
    }

    /// Tells a player the stream's metadata: FLV script data, as [`RtmpOutput::Metadata`] or
    /// [`describe`](crate::flv::describe) give it.
    pub fn send_metadata(&mut self, script: &[u8]) {
        self.link.writes.extend_from_slice(&rtmp_message(TagType::Script, 0, &[], script));
    }

    /// Tells a player that the stream has begun (again).
    pub fn send_stream_begin(&mut self) {
        self.link.put_event(event::STREAM_BEGIN, super::PLAYER_STREAM_ID);
    }

    /// Tells a player that the stream is over.
    pub fn send_stream_eof(&mut self) {
        self.link.put_event(event::STREAM_EOF, super::PLAYER_STREAM_ID);
        self.send_status("status", "NetStream.Play.UnpublishNotify", "the stream has ended");
    }

    /// Tells a publisher or player why it is being thrown out.
    pub fn send_error(&mut self, code: &str, description: &str) {
        self.send_status("error", code, description);
    }

    /// `app` of the `connect` command as sent; empty before it.
    pub fn app(&self) -> &str {
        &self.client.app
    }

    /// `tcUrl` of the `connect` command as sent; empty before it.
    pub fn tc_url(&self) -> &str {
        &self.client.tc_url
    }

    fn waiting(&self, request: RequestId) -> Result<RequestKind, RtmpError> {
        match self.role {
            Role::Waiting { request: waiting, kind } if waiting == request => Ok(kind),
            _ => Err(RtmpError::NoSuchRequest),
        }
    }

    fn read_held(&mut self) -> Result<(), RtmpError> {
        let held = std::mem::take(&mut self.held);
        self.read(&held)
    }

    fn read(&mut self, bytes: &[u8]) -> Result<(), RtmpError> {
        let result = match self.broken.take() {
            Some(error) => Err(error),
            None => self.read_on(bytes),
        };
        self.broken = result.clone().err();
        result
    }

    fn read_on(&mut self, mut bytes: &[u8]) -> Result<(), RtmpError> {
        if let Some(handshake) = &mut self.handshake {
            let mut answer = Vec::new();
            let (taken, is_done) = handshake.take(bytes, &mut answer)?;
            self.link.writes.extend_from_slice(&answer);
            bytes = &bytes[taken..];
            if !is_done {
                return Ok(());
            }
            self.handshake = None;
        }
        while self.wants_input() {
            let interest = if self.role == Role::Publishing { Interest::Media } else { Interest::NoMedia };
            let Some(message) = self.link.next_message(&mut bytes, interest)? else { return Ok(()) };
            self.handle_message(message)?;
        }
        if self.held.len() + bytes.len() > self.limits.max_waiting_bytes {
            return Err(RtmpError::TooMuchWhileWaiting(self.limits.max_waiting_bytes));
        }
        self.held.extend_from_slice(bytes);
        Ok(())
    }

    fn handle_message(&mut self, message: Message) -> Result<(), RtmpError> {
        match message.message_type {
            message_type::AUDIO => self.handle_media(MediaKind::Audio, message.timestamp_ms, message.body),
            message_type::VIDEO => self.handle_media(MediaKind::Video, message.timestamp_ms, message.body),
            message_type::AGGREGATE => self.handle_aggregate(&message)?,
            message_type::AMF0_DATA => self.handle_data(message.body),
            message_type::AMF3_DATA => self.handle_data(without_amf3_marker(message.body)),
            message_type::AMF0_COMMAND => self.handle_command(&message.body)?,
            message_type::AMF3_COMMAND => self.handle_command(&without_amf3_marker(message.body))?,
            _ => self.link.handle_control(&message)?,
        }
        Ok(())
    }

    fn handle_media(&mut self, kind: MediaKind, timestamp_ms: u32, body: Bytes) {
        // Without a body it is a keep-alive of some encoders.
        if self.role == Role::Publishing && !body.is_empty() {
            self.outputs.push_back(RtmpOutput::Media(Tag { kind, timestamp_ms, body }));
        }
    }

    /// §7.1.6: FLV tags in one message, whose times count from the message's own.
    fn handle_aggregate(&mut self, message: &Message) -> Result<(), RtmpError> {
        let cut_off = |_| RtmpError::BadAggregate("a tag is cut off");
        let mut rest = message.body.clone();
        let mut first_ms = None;
        for _ in 0..MAX_AGGREGATED {
            if rest.is_empty() {
                return Ok(());
            }
            let tag_type = rest.try_get_u8().map_err(cut_off)?;
            let length = rest.try_get_uint(3).map_err(cut_off)? as usize;
            let low = rest.try_get_uint(3).map_err(cut_off)? as u32;
            let high = rest.try_get_u8().map_err(cut_off)?;
            rest.try_get_uint(3).map_err(cut_off)?;
            if length > rest.len() {
                return Err(RtmpError::BadAggregate("a tag is cut off"));
            }
            let body = rest.split_to(length);
            // The length behind the last tag is left out by some.
            rest.advance(rest.len().min(4));
            let at_ms = u32::from(high) << 24 | low;
            let since_first = at_ms.wrapping_sub(*first_ms.get_or_insert(at_ms));
            let at_ms = message.timestamp_ms.wrapping_add(since_first);
            match tag_type {
                message_type::AUDIO => self.handle_media(MediaKind::Audio, at_ms, body),
                message_type::VIDEO => self.handle_media(MediaKind::Video, at_ms, body),
                message_type::AMF0_DATA => self.handle_data(body),
                _ => {}
            }
        }
        if rest.is_empty() { Ok(()) } else { Err(RtmpError::BadAggregate("too many tags")) }
    }

    fn handle_data(&mut self, body: Bytes) {
        if self.role != Role::Publishing {
            return;
        }
        let mut script = body;
        let mut reader = Reader::new(&script);
        let Ok(Some(Value::String(mut name))) = reader.value() else { return };
        if name == "@setDataFrame" {
            let wrapper = reader.position();
            let Ok(Some(Value::String(inner))) = reader.value() else { return };
            name = inner;
            script.advance(wrapper);
        }
        if name == "onMetaData" {
            self.outputs.push_back(RtmpOutput::Metadata(script));
        }
    }
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
