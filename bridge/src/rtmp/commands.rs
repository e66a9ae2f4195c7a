//! Commands, §7.2, and what encoders and players expect as answers to them.

use super::connection::{Role, RtmpConnection};
use super::link::WINDOW_BYTES;
use super::message::{OUT_CHUNK_SIZE, PLAYER_STREAM_ID, message_type, put_control};
use super::{Request, RequestId, RequestKind, RtmpError, RtmpOutput};
use crate::flv::TagType;
use crate::flv::amf0::{self, Reader, Value, object};
use crate::rtmp::rtmp_message;

/// A name, with its query: room for several tokens. What is longer is refused, since names are kept, logged and sent to
/// hooks.
const MAX_NAME_BYTES: usize = 8 * 1024;

/// FMLE takes no server for one that is older than 3.5; the number is SRS's.
const SERVER_VERSION: &str = "FMS/3,5,3,888";

/// What Enhanced RTMP publishers and players may send and get.
pub(super) const FOUR_CCS: [&str; 8] = ["av01", "hvc1", "vp09", "vp08", "avc1", "Opus", "mp4a", ".mp3"];

/// What the `connect` command told.
#[derive(Debug, Default)]
pub(super) struct Client {
    is_connected: bool,
    pub(super) app: String,
    pub(super) tc_url: String,
    page_url: String,
    flash_ver: String,
    /// It announced its stream by `FCPublish` and waits for `onFCPublish`.
    wants_fc_publish: bool,
}

/// A command taken apart: name, transaction, command object, arguments.
struct Command {
    name: String,
    transaction: f64,
    values: Vec<Value>,
}

impl Command {
    /// The n-th argument behind the command object.
    fn argument(&self, n: usize) -> Option<&Value> {
        self.values.get(1 + n)
    }

    fn wrong(&self, what: &'static str) -> RtmpError {
        RtmpError::BadCommand { command: self.name.clone(), what }
    }

    /// A text argument that must not be longer than a name.
    fn name_of(&self, value: Option<&Value>) -> Result<String, RtmpError> {
        match value.and_then(Value::as_str) {
            Some(text) if text.len() > MAX_NAME_BYTES => Err(self.wrong("a name is too long")),
            Some(text) => Ok(text.to_owned()),
            None => Ok(String::new()),
        }
    }
}

impl RtmpConnection {
    pub(super) fn handle_command(&mut self, body: &[u8]) -> Result<(), RtmpError> {
        let mut values = Reader::new(body).values_leniently().into_iter();
        let Some(Value::String(name)) = values.next() else {
            return Err(RtmpError::BadCommand { command: String::new(), what: "it has no name" });
        };
        let transaction = values.next().as_ref().and_then(Value::as_f64).unwrap_or(0.0);
        let command = Command { name, transaction, values: values.collect() };
        if command.name != "connect" && !self.client.is_connected {
            return Err(command.wrong("it came before \"connect\""));
        }
        match command.name.as_str() {
            "connect" => self.connect(&command)?,
            "createStream" => {
                self.reply(&command, "_result", &[Value::Null, f64::from(PLAYER_STREAM_ID).into()]);
            }
            "publish" => self.publish(&command)?,
            "play" => self.request(&command, RequestKind::Play)?,
            "FCPublish" => {
                self.client.wants_fc_publish = true;
                self.reply(&command, "_result", &[Value::Null, Value::Undefined]);
            }
            "FCUnpublish" => {
                self.reply(&command, "_result", &[Value::Null, Value::Undefined]);
                self.send_notice("onFCUnpublish", "NetStream.Unpublish.Success", "the stream has ended");
                self.finish();
            }
            "FCSubscribe" => self.send_notice("onFCSubscribe", "NetStream.Play.Start", "subscribed"),
            "deleteStream" => self.finish(),
            "closeStream" => {
                self.finish();
                self.reply(&command, "_result", &[Value::Null, Value::Undefined]);
            }
            // A live stream has no length.
            "getStreamLength" => self.reply(&command, "_result", &[Value::Null, 0.0.into()]),
            "pause" => self.pause(&command),
            // Answers to what we sent, and a bandwidth check that no encoder depends on.
            "_result" | "_error" | "onStatus" | "_checkbw" | "checkBandwidth" => {}
            // `releaseStream` and all calls that are not known: done, if an answer is wanted.
            _ => self.reply(&command, "_result", &[Value::Null, Value::Undefined]),
        }
        Ok(())
    }

    fn connect(&mut self, command: &Command) -> Result<(), RtmpError> {
        if self.client.is_connected {
            return Err(command.wrong("it came twice"));
        }
        let properties = command.values.first().unwrap_or(&Value::Null);
        self.client = Client {
            is_connected: true,
            app: command.name_of(properties.property("app"))?,
            tc_url: command.name_of(properties.property("tcUrl"))?,
            page_url: command.name_of(properties.property("pageUrl"))?,
            flash_ver: command.name_of(properties.property("flashVer"))?,
            wants_fc_publish: false,
        };
        put_control(&mut self.link.writes, message_type::WINDOW_ACK_SIZE, &WINDOW_BYTES.to_be_bytes());
        let [b0, b1, b2, b3] = WINDOW_BYTES.to_be_bytes();
        // The last byte is the limit type "dynamic" (§5.4.5).
        put_control(&mut self.link.writes, message_type::SET_PEER_BANDWIDTH, &[b0, b1, b2, b3, 2]);
        put_control(&mut self.link.writes, message_type::SET_CHUNK_SIZE, &(OUT_CHUNK_SIZE as u32).to_be_bytes());
        let server = object([("fmsVer", SERVER_VERSION.into()), ("capabilities", 127.0.into()), ("mode", 1.0.into())]);
        let mut status = vec![
            ("level", Value::from("status")),
            ("code", "NetConnection.Connect.Success".into()),
            ("description", "connected".into()),
            // AMF0 whatever was asked for: clients then send commands that need no AMF3.
            ("objectEncoding", 0.0.into()),
        ];
        if properties.property("fourCcList").is_some() || properties.property("videoFourCcInfoMap").is_some() {
            status.push(("fourCcList", Value::StrictArray(FOUR_CCS.map(Value::from).into())));
        }
        self.reply(command, "_result", &[server, object(status)]);
        self.put(0, "onBWDone", &[Value::Null]);
        Ok(())
    }

    fn publish(&mut self, command: &Command) -> Result<(), RtmpError> {
        // `publish(false)` of Flash means to stop.
        if command.argument(0).and_then(Value::as_bool) == Some(false) {
            self.finish();
            return Ok(());
        }
        self.request(command, RequestKind::Publish)
    }

    fn request(&mut self, command: &Command, kind: RequestKind) -> Result<(), RtmpError> {
        if self.role != Role::Idle {
            let code = match kind {
                RequestKind::Publish => "NetStream.Publish.BadConnection",
                RequestKind::Play => "NetStream.Play.BadConnection",
            };
            self.send_status("error", code, "this connection publishes or plays already");
            return Ok(());
        }
        let id = RequestId(self.next_request);
        self.next_request = self.next_request.wrapping_add(1);
        self.role = Role::Waiting { request: id, kind };
        self.outputs.push_back(RtmpOutput::Request(Request {
            id,
            kind,
            app: self.client.app.clone(),
            stream: command.name_of(command.argument(0))?,
            tc_url: self.client.tc_url.clone(),
            page_url: self.client.page_url.clone(),
            flash_ver: self.client.flash_ver.clone(),
        }));
        Ok(())
    }

    fn pause(&mut self, command: &Command) {
        let paused = command.argument(0).and_then(Value::as_bool).unwrap_or(true);
        if self.role != Role::Playing {
            return;
        }
        let code = if paused { "NetStream.Pause.Notify" } else { "NetStream.Unpause.Notify" };
        self.send_status("status", code, if paused { "paused" } else { "playing" });
        self.outputs.push_back(RtmpOutput::Paused(paused));
    }

    /// The peer stops what it does.
    fn finish(&mut self) {
        match self.role {
            Role::Publishing => {
                self.role = Role::Idle;
                self.send_status("status", "NetStream.Unpublish.Success", "the stream has ended");
                self.outputs.push_back(RtmpOutput::PublishFinished);
            }
            Role::Playing => {
                self.role = Role::Idle;
                self.outputs.push_back(RtmpOutput::PlayFinished);
            }
            Role::Idle | Role::Waiting { .. } => {}
        }
    }

    pub(super) fn publish_started(&mut self) {
        if std::mem::take(&mut self.client.wants_fc_publish) {
            self.send_notice("onFCPublish", "NetStream.Publish.Start", "publishing");
        }
        self.send_stream_begin();
        self.send_status("status", "NetStream.Publish.Start", "publishing");
    }

    /// The order is that of Flash servers, and of SRS: players of that age wait for each of these. Left out is the data
    /// message `NetStream.Data.Start`, of which FFmpeg makes a third stream.
    pub(super) fn play_started(&mut self) {
        self.send_stream_begin();
        self.send_status("status", "NetStream.Play.Reset", "playing and resetting the stream");
        self.send_status("status", "NetStream.Play.Start", "playing");
        self.put_data(&["|RtmpSampleAccess".into(), Value::Boolean(true), Value::Boolean(true)]);
    }

    /// `onStatus` on the stream.
    pub(super) fn send_status(&mut self, level: &str, code: &str, description: &str) {
        let status = object([("level", level.into()), ("code", code.into()), ("description", description.into())]);
        self.put(PLAYER_STREAM_ID, "onStatus", &[Value::Null, status]);
    }

    fn send_notice(&mut self, name: &str, code: &str, description: &str) {
        let status = object([("code", code.into()), ("description", description.into())]);
        self.put(0, name, &[Value::Null, status]);
    }

    fn reply(&mut self, command: &Command, name: &str, values: &[Value]) {
        // Transaction 0 wants no answer (§7.2.1.2).
        if command.transaction != 0.0 {
            self.link.put_command(0, name, command.transaction, values);
        }
    }

    fn put(&mut self, stream_id: u32, name: &str, values: &[Value]) {
        self.link.put_command(stream_id, name, 0.0, values);
    }

    fn put_data(&mut self, values: &[Value]) {
        let mut body = Vec::new();
        values.iter().for_each(|value| amf0::write(&mut body, value));
        self.link.writes.extend_from_slice(&rtmp_message(TagType::Script, 0, &[], &body));
    }
}
