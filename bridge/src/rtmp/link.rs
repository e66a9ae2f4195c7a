//! What both ends of a connection have in common: chunks in, messages out, control messages and acknowledgements (§5.3,
//! §5.4, §7.1).

use bytes::{Buf as _, Bytes, BytesMut};

use super::chunk::{ChunkReader, Interest, Message};
use super::message::{message_type, put_command, put_control};
use super::{RtmpError, RtmpLimits};
use crate::flv::amf0::{self, Value};

/// We acknowledge after so many bytes unless the peer asks for another window, and ask the peer to do so (§5.4.4).
/// SRS's number; a smaller one costs messages, a larger one makes old Flash servers stop.
pub(super) const WINDOW_BYTES: u32 = 2_500_000;

/// User control events of §7.1.7.
pub(super) mod event {
    pub(crate) const STREAM_BEGIN: u16 = 0;
    pub(crate) const STREAM_EOF: u16 = 1;
    pub(super) const PING_REQUEST: u16 = 6;
    pub(super) const PING_RESPONSE: u16 = 7;
}

/// One end of a connection, beneath commands and media.
#[derive(Debug)]
pub(super) struct Link {
    reader: ChunkReader,
    /// What is to be written, in one piece.
    pub(super) writes: BytesMut,
    pub(super) received: Received,
}

/// Bytes that came, for acknowledgements.
#[derive(Debug)]
pub(super) struct Received {
    /// Modulo 2^32, as it is reported.
    pub(super) total: u32,
    acknowledged: u32,
    window: u32,
}

impl Link {
    pub(super) fn new(limits: RtmpLimits) -> Link {
        Link {
            reader: ChunkReader::new(limits),
            writes: BytesMut::new(),
            received: Received { total: 0, acknowledged: 0, window: WINDOW_BYTES },
        }
    }

    /// Notes that bytes came, handshake included.
    pub(super) fn count(&mut self, bytes: usize) {
        self.received.total = self.received.total.wrapping_add(bytes as u32);
    }

    /// Tells the peer how much has come, once a window of it has.
    pub(super) fn acknowledge(&mut self) {
        let Received { total, acknowledged, window } = self.received;
        if total.wrapping_sub(acknowledged) >= window {
            self.received.acknowledged = total;
            put_control(&mut self.writes, message_type::ACKNOWLEDGEMENT, &total.to_be_bytes());
        }
    }

    /// See [`ChunkReader::next_message`].
    pub(super) fn next_message(&mut self, bytes: &mut &[u8], interest: Interest) -> Result<Option<Message>, RtmpError> {
        self.reader.next_message(bytes, interest)
    }

    /// Obeys control messages. All others are left alone.
    pub(super) fn handle_control(&mut self, message: &Message) -> Result<(), RtmpError> {
        match message.message_type {
            message_type::SET_CHUNK_SIZE => {
                // The first bit is zero (§5.4.1).
                let size = control_value(message)? & 0x7fff_ffff;
                if size == 0 {
                    return Err(bad_control(message, "a chunk size of 0"));
                }
                self.reader.set_chunk_size(size as usize);
            }
            message_type::ABORT => self.reader.abort(control_value(message)?),
            message_type::WINDOW_ACK_SIZE => {
                // Zero would be an acknowledgement for nothing, all the time.
                self.received.window = control_value(message)?.max(1);
            }
            message_type::SET_PEER_BANDWIDTH => {
                let window = control_value(message)?;
                put_control(&mut self.writes, message_type::WINDOW_ACK_SIZE, &window.to_be_bytes());
            }
            message_type::USER_CONTROL => self.handle_event(&message.body),
            // What the peer has acknowledged decides nothing: TCP limits what is on its way.
            _ => {}
        }
        Ok(())
    }

    fn handle_event(&mut self, body: &[u8]) {
        let mut rest = body;
        if let (Ok(event::PING_REQUEST), Ok(timestamp)) = (rest.try_get_u16(), rest.try_get_u32()) {
            self.put_event(event::PING_RESPONSE, timestamp);
        }
    }

    pub(super) fn put_event(&mut self, event: u16, value: u32) {
        let [e0, e1] = event.to_be_bytes();
        let [v0, v1, v2, v3] = value.to_be_bytes();
        put_control(&mut self.writes, message_type::USER_CONTROL, &[e0, e1, v0, v1, v2, v3]);
    }

    /// A command: its name, its transaction, and what follows.
    pub(super) fn put_command(&mut self, stream_id: u32, name: &str, transaction: f64, values: &[Value]) {
        let mut body = Vec::new();
        amf0::write(&mut body, &name.into());
        amf0::write(&mut body, &transaction.into());
        values.iter().for_each(|value| amf0::write(&mut body, value));
        put_command(&mut self.writes, stream_id, &body);
    }
}

/// AMF3 messages say in their first byte that AMF0 follows, as long as nothing else was agreed.
pub(super) fn without_amf3_marker(mut body: Bytes) -> Bytes {
    if body.first() == Some(&0) {
        body.advance(1);
    }
    body
}

fn control_value(message: &Message) -> Result<u32, RtmpError> {
    message.body.first_chunk().map(|bytes| u32::from_be_bytes(*bytes)).ok_or_else(|| bad_control(message, "too short"))
}

fn bad_control(message: &Message, what: &'static str) -> RtmpError {
    RtmpError::BadControl { message_type: message.message_type, what }
}
