//! The publisher against our own server's side, and against answers that others give.

use freshet_media::MediaKind;

use super::*;
use crate::flv::amf0;
use crate::flv::{TagType, set_data_frame};
use crate::rtmp::{Request, RequestKind, RtmpConnection, RtmpOutput, rtmp_message};

fn to() -> PublishTo {
    PublishTo {
        app: "live".into(),
        stream: "cam?key=1".into(),
        tc_url: "rtmp://other/live".into(),
        flash_ver: "FMLE/3.0".into(),
    }
}

fn publisher() -> RtmpPublisher {
    RtmpPublisher::new(RtmpLimits::default(), to()).unwrap()
}

/// A publisher and a server of ours, with what came out of both.
struct Pair {
    publisher: RtmpPublisher,
    server: RtmpConnection,
    told: Vec<PublishOutput>,
    seen: Vec<RtmpOutput>,
}

impl Pair {
    fn new() -> Pair {
        let server = RtmpConnection::new(RtmpLimits::default());
        Pair { publisher: publisher(), server, told: Vec::new(), seen: Vec::new() }
    }

    /// Carries bytes both ways until there are no more.
    fn pump(&mut self) -> Result<(), PublishError> {
        loop {
            let mut is_quiet = true;
            while let Some(output) = self.publisher.poll_output() {
                is_quiet = false;
                match output {
                    PublishOutput::Write(bytes) => self.server.handle_bytes(&bytes).unwrap(),
                    other => self.told.push(other),
                }
            }
            while let Some(output) = self.server.poll_output() {
                is_quiet = false;
                match output {
                    RtmpOutput::Write(bytes) => self.publisher.handle_bytes(&bytes)?,
                    other => self.seen.push(other),
                }
            }
            if is_quiet {
                return Ok(());
            }
        }
    }

    fn request(&mut self) -> Request {
        let Some(RtmpOutput::Request(request)) = self.seen.pop() else { panic!("no request") };
        request
    }

    fn publishing() -> Pair {
        let mut pair = Pair::new();
        pair.pump().unwrap();
        pair.publisher.publish().unwrap();
        pair.pump().unwrap();
        let request = pair.request();
        pair.server.accept(request.id).unwrap();
        pair.pump().unwrap();
        assert_eq!(pair.told.last(), Some(&PublishOutput::Started));
        pair
    }
}

#[test]
fn a_stream_is_published_and_ended() {
    let mut pair = Pair::new();
    pair.pump().unwrap();
    let [PublishOutput::Connected(codecs)] = &pair.told[..] else { panic!("{:?}", pair.told) };
    assert_eq!(codecs.accept(Codec::H265), Acceptance::Yes);
    pair.publisher.publish().unwrap();
    assert_eq!(pair.publisher.publish(), Err(PublishError::OutOfPlace));
    pair.pump().unwrap();
    let request = pair.request();
    assert_eq!((request.kind, &*request.app, &*request.stream), (RequestKind::Publish, "live", "cam?key=1"));
    assert_eq!(&*request.tc_url, "rtmp://other/live");
    pair.server.accept(request.id).unwrap();
    pair.pump().unwrap();

    let mut metadata = set_data_frame();
    amf0::write(&mut metadata, &"onMetaData".into());
    amf0::write(&mut metadata, &object([("width", 96.0.into())]));
    let picture = [&[0x17, 1, 0, 0, 0][..], &[9; 70_000]].concat();
    for message in
        [rtmp_message(TagType::Script, 0, &[], &metadata), rtmp_message(TagType::Video, 0x0100_0000, &[], &picture)]
    {
        let mut pieces = VecDeque::new();
        pair.publisher.readdress(message, &mut pieces);
        pieces.iter().for_each(|piece| pair.server.handle_bytes(piece).unwrap());
    }
    pair.pump().unwrap();
    let [RtmpOutput::Metadata(script), RtmpOutput::Media(tag)] = &pair.seen[..] else { panic!("{:?}", pair.seen) };
    assert_eq!(script[..], metadata[set_data_frame().len()..]);
    assert_eq!((tag.kind, tag.timestamp_ms, &tag.body[..]), (MediaKind::Video, 0x0100_0000, &picture[..]));

    pair.publisher.finish();
    pair.pump().unwrap();
    assert_eq!(pair.seen.last(), Some(&RtmpOutput::PublishFinished));
}

#[test]
fn a_refusal_comes_with_the_servers_words() {
    let mut pair = Pair::new();
    pair.pump().unwrap();
    pair.publisher.publish().unwrap();
    pair.pump().unwrap();
    let request = pair.request();
    pair.server.reject(request.id, "NetStream.Publish.Denied", "the token\nis wrong").unwrap();
    let error = pair.pump().unwrap_err();
    assert_eq!(error.to_string(), "the server refused \"publish\": the token is wrong (NetStream.Publish.Denied)");
    assert_eq!(pair.publisher.handle_bytes(&[1, 2, 3]), Err(error), "it stays in error");
}

#[test]
fn the_server_may_end_what_it_had_begun() {
    let mut pair = Pair::publishing();
    pair.server.send_error("NetStream.Publish.BadName", "an operator ended the session");
    let error = pair.pump().unwrap_err();
    let text = "the server ended the stream: an operator ended the session (NetStream.Publish.BadName)";
    assert_eq!(error.to_string(), text);
}

/// A publisher after the handshake with a server whose messages the test writes.
struct Told {
    publisher: RtmpPublisher,
    written: Vec<u8>,
    outputs: Vec<PublishOutput>,
    answers: Link,
}

impl Told {
    fn new() -> Told {
        let mut hello = vec![3];
        hello.resize(1 + 2 * 1536, 0);
        let mut told = Told {
            publisher: publisher(),
            written: Vec::new(),
            outputs: Vec::new(),
            answers: Link::new(RtmpLimits::default()),
        };
        told.feed(&hello).unwrap();
        told.written.drain(..1 + 2 * 1536);
        // The chunks that our writer makes are longer than those of a connection that has just been made.
        let size = (OUT_CHUNK_SIZE as u32).to_be_bytes();
        put_control(&mut told.answers.writes, message_type::SET_CHUNK_SIZE, &size);
        told
    }

    fn feed(&mut self, bytes: &[u8]) -> Result<(), PublishError> {
        let result = self.publisher.handle_bytes(bytes);
        while let Some(output) = self.publisher.poll_output() {
            match output {
                PublishOutput::Write(bytes) => self.written.extend_from_slice(&bytes),
                other => self.outputs.push(other),
            }
        }
        result
    }

    fn command(&mut self, stream_id: u32, name: &str, transaction: f64, values: &[Value]) -> Result<(), PublishError> {
        self.answers.put_command(stream_id, name, transaction, values);
        let bytes = self.answers.writes.split();
        self.feed(&bytes)
    }

    /// Connected, with that information in the answer.
    fn connected(information: Value) -> Told {
        let mut told = Told::new();
        told.command(0, "_result", 1.0, &[Value::Null, information]).unwrap();
        told
    }

    fn asking(stream_id: u32) -> Told {
        let mut told = Told::connected(Value::Null);
        told.publisher.publish().unwrap();
        told.command(0, "_result", 4.0, &[Value::Null, f64::from(stream_id).into()]).unwrap();
        told
    }

    /// The names of the commands that were written since the last look, with their message's bytes.
    fn commands(&mut self) -> Vec<String> {
        let mut reader = super::super::chunk::ChunkReader::new(RtmpLimits::default());
        let mut rest = &self.written[..];
        let mut names = Vec::new();
        reader.set_chunk_size(OUT_CHUNK_SIZE);
        while let Some(message) = reader.next_message(&mut rest, Interest::Media).unwrap() {
            match message.message_type {
                message_type::AMF0_COMMAND => {
                    let values = Reader::new(&message.body).values_leniently();
                    names.extend(values.first().and_then(Value::as_str).map(str::to_owned));
                }
                other => names.push(format!("control {other}")),
            }
        }
        self.written.clear();
        names
    }
}

fn status(level: &str, code: &str, description: &str) -> Value {
    object([("level", level.into()), ("code", code.into()), ("description", description.into())])
}

#[test]
fn commands_come_in_the_order_of_encoders() {
    let mut told = Told::new();
    assert_eq!(told.commands(), ["control 1", "control 5", "connect"]);
    told.command(0, "onBWDone", 0.0, &[Value::Null]).unwrap();
    told.command(0, "_result", 1.0, &[Value::Null, status("status", "NetConnection.Connect.Success", "")]).unwrap();
    assert_eq!(told.outputs, [PublishOutput::Connected(PeerCodecs(None))]);
    told.publisher.publish().unwrap();
    // Said for form's sake: not every server knows them.
    for transaction in [2.0, 3.0] {
        told.command(0, "_error", transaction, &[Value::Null, status("error", "NetConnection.Call.Failed", "")])
            .unwrap();
    }
    assert_eq!(told.commands(), ["releaseStream", "FCPublish", "createStream"]);
    told.command(0, "_result", 4.0, &[Value::Null, 1.0.into()]).unwrap();
    assert_eq!(told.commands(), ["publish"]);
    told.command(1, "onStatus", 0.0, &[Value::Null, status("status", "NetStream.Publish.Start", "")]).unwrap();
    assert_eq!(told.outputs.last(), Some(&PublishOutput::Started));
    told.publisher.finish();
    told.feed(&[]).unwrap();
    assert_eq!(told.commands(), ["FCUnpublish", "deleteStream"]);
    // The server's answer to that is no error.
    told.command(1, "onStatus", 0.0, &[Value::Null, status("status", "NetStream.Unpublish.Success", "")]).unwrap();
}

#[test]
fn media_go_to_the_message_stream_that_the_server_gave() {
    for (stream_id, pieces) in [(1, 1), (7, 2), (0x0102_0304, 2)] {
        let mut told = Told::asking(stream_id);
        told.command(stream_id, "onStatus", 0.0, &[Value::Null, status("status", "NetStream.Publish.Start", "")])
            .unwrap();
        let message = rtmp_message(TagType::Audio, 0x0100_0000, &[0xaf, 1], &[5; 70_000]);
        let mut out = VecDeque::new();
        told.publisher.readdress(message.clone(), &mut out);
        assert_eq!(out.len(), pieces, "{stream_id}");
        let sent: Vec<u8> = out.iter().flatten().copied().collect();
        assert_eq!(sent[STREAM_ID_AT..STREAM_ID_AT + 4], stream_id.to_le_bytes());
        assert_eq!((&sent[..STREAM_ID_AT], &sent[STREAM_ID_AT + 4..]), (&message[..8], &message[12..]));
    }
    // Before the server takes media, nothing goes out.
    let mut out = VecDeque::new();
    Told::asking(1).publisher.readdress(rtmp_message(TagType::Audio, 0, &[], &[1]), &mut out);
    assert!(out.is_empty());
}

#[test]
fn every_way_to_say_no_is_understood() {
    type Begin = fn() -> Told;
    type Say = fn(&mut Told) -> Result<(), PublishError>;
    let connect: Begin = Told::new;
    let ask: Begin = || Told::asking(1);
    let cases: [(Begin, Say, &str); 6] = [
        (
            connect,
            |told| {
                told.command(
                    0,
                    "_error",
                    1.0,
                    &[Value::Null, status("error", "NetConnection.Connect.Rejected", "no such app")],
                )
            },
            "the server refused \"connect\": no such app (NetConnection.Connect.Rejected)",
        ),
        (connect, |told| told.command(0, "_error", 1.0, &[]), "the server refused \"connect\": it gave no reason"),
        (
            ask,
            |told| told.command(1, "onStatus", 0.0, &[Value::Null, status("error", "NetStream.Publish.BadName", "")]),
            "the server refused \"publish\": NetStream.Publish.BadName",
        ),
        (
            ask,
            |told| told.command(0, "_error", 5.0, &[Value::Null, "wrong key".into()]),
            "the server refused \"publish\": wrong key",
        ),
        (
            ask,
            |told| told.command(1, "onStatus", 0.0, &[Value::Null, status("error", "x", &"y".repeat(2000))]),
            &format!("the server refused \"publish\": {}", "y".repeat(MAX_REASON_CHARS)),
        ),
        (ask, |told| told.command(0, "close", 0.0, &[Value::Null]), "the server ended the stream: it gave no reason"),
    ];
    for (begin, say, expected) in cases {
        let error = say(&mut begin()).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
    let closed = [Told::new().publisher.closed(), Told::asking(1).publisher.closed()];
    assert!(closed[0].to_string().contains("connect") && closed[1].to_string().contains("stream key"));
    assert!(matches!(publisher().handle_bytes(b"HTTP/1.1 400 Bad Request"), Err(PublishError::Protocol(_))));
}

#[test]
fn codecs_are_compared_with_what_the_server_announces() {
    let list = |names: &[&str]| Value::StrictArray(names.iter().map(|name| Value::from(*name)).collect());
    let cases = [
        (Value::Null, Codec::H264, Acceptance::Yes),
        (Value::Null, Codec::Av1, Acceptance::Unknown),
        (object([("fourCcList", list(&["hvc1", "av01"]))]), Codec::Av1, Acceptance::Yes),
        (object([("fourCcList", list(&["hvc1"]))]), Codec::Opus, Acceptance::No),
        (object([("fourCcList", list(&[]))]), Codec::H265, Acceptance::No),
        (object([("fourCcList", list(&[]))]), Codec::Aac, Acceptance::Yes),
        (object([("fourCcList", list(&["*"]))]), Codec::Opus, Acceptance::Yes),
        (object([("videoFourCcInfoMap", object([("vp09", 7.0.into())]))]), Codec::Vp9, Acceptance::Yes),
        (object([("fourCcList", list(&["*"]))]), Codec::Pcmu, Acceptance::Uncarried),
    ];
    for (information, codec, expected) in cases {
        let told = Told::connected(information.clone());
        let [PublishOutput::Connected(codecs)] = &told.outputs[..] else { panic!("{:?}", told.outputs) };
        assert_eq!(codecs.accept(codec), expected, "{codec} {information:?}");
    }
}

#[test]
fn pings_are_answered_and_bytes_acknowledged() {
    let mut told = Told::asking(1);
    told.commands();
    let mut control = BytesMut::new();
    put_control(&mut control, message_type::USER_CONTROL, &[0, 6, 1, 2, 3, 4]);
    put_control(&mut control, message_type::WINDOW_ACK_SIZE, &100u32.to_be_bytes());
    told.feed(&control).unwrap();
    assert_eq!(told.commands(), ["control 4", "control 3"]);
    let mut bad = BytesMut::new();
    put_control(&mut bad, message_type::SET_CHUNK_SIZE, &0u32.to_be_bytes());
    assert!(matches!(told.feed(&bad), Err(PublishError::Protocol(RtmpError::BadControl { .. }))));
}

#[test]
fn bytes_may_come_in_any_pieces() {
    let mut server = RtmpConnection::new(RtmpLimits::default());
    let mut publisher = publisher();
    let mut is_connected = false;
    for _ in 0..10 {
        while let Some(output) = publisher.poll_output() {
            match output {
                PublishOutput::Write(bytes) => bytes.iter().for_each(|byte| server.handle_bytes(&[*byte]).unwrap()),
                other => is_connected |= matches!(other, PublishOutput::Connected(_)),
            }
        }
        while let Some(RtmpOutput::Write(bytes)) = server.poll_output() {
            bytes.iter().for_each(|byte| publisher.handle_bytes(&[*byte]).unwrap());
        }
    }
    assert!(is_connected);
}
