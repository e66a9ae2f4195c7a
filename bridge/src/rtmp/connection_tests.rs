use super::*;
use crate::flv::amf0::{self, object};
use crate::rtmp::chunk::ChunkReader;
use crate::rtmp::{OUT_CHUNK_SIZE, Request};

/// A connection after the handshake, and what came out of it.
struct Server {
    connection: RtmpConnection,
    written: Vec<u8>,
    outputs: Vec<RtmpOutput>,
}

impl Server {
    fn new() -> Server {
        Server::with_limits(RtmpLimits::default())
    }

    fn with_limits(limits: RtmpLimits) -> Server {
        let connection = RtmpConnection::new(limits);
        let mut server = Server { connection, written: Vec::new(), outputs: Vec::new() };
        let mut hello = vec![3];
        hello.resize(1 + 2 * 1536, 0);
        server.feed(&hello).unwrap();
        assert_eq!(server.written.len(), 1 + 2 * 1536);
        server.written.clear();
        server
    }

    fn feed(&mut self, bytes: &[u8]) -> Result<(), RtmpError> {
        let result = self.connection.handle_bytes(bytes);
        self.drain();
        result
    }

    fn drain(&mut self) {
        while let Some(output) = self.connection.poll_output() {
            match output {
                RtmpOutput::Write(bytes) => self.written.extend_from_slice(&bytes),
                other => self.outputs.push(other),
            }
        }
    }

    /// Sends a command and gives back the names and values of the messages that answer it.
    fn command(&mut self, name: &str, transaction: f64, values: &[Value]) -> Vec<Vec<Value>> {
        self.written.clear();
        self.feed(&command(name, transaction, values)).unwrap();
        self.answers()
    }

    /// What was written since the last look: commands and data.
    fn answers(&mut self) -> Vec<Vec<Value>> {
        let answers = messages(&self.written)
            .into_iter()
            .filter(|message| [message_type::AMF0_COMMAND, message_type::AMF0_DATA].contains(&message.message_type))
            .map(|message| Reader::new(&message.body).values_leniently())
            .collect();
        self.written.clear();
        answers
    }

    fn connect(&mut self) {
        self.command("connect", 1.0, &[object([("app", "live".into()), ("tcUrl", "rtmp://h/live".into())])]);
    }

    fn request(&mut self) -> Request {
        let Some(RtmpOutput::Request(request)) = self.outputs.pop() else { panic!("no request") };
        request
    }

    fn accept(&mut self) {
        let request = self.request();
        self.connection.accept(request.id).unwrap();
        self.drain();
    }

    fn publishing() -> Server {
        let mut server = Server::new();
        server.connect();
        server.command("publish", 5.0, &[Value::Null, "cam".into(), "live".into()]);
        server.accept();
        server.written.clear();
        server
    }
}

fn messages(bytes: &[u8]) -> Vec<Message> {
    let mut reader = ChunkReader::new(RtmpLimits::default());
    reader.set_chunk_size(OUT_CHUNK_SIZE);
    let mut rest = bytes;
    let mut messages = Vec::new();
    while let Some(message) = reader.next_message(&mut rest, Interest::Media).unwrap() {
        messages.push(message);
    }
    messages
}

/// One chunk of type 0, as long as the body is no longer than the peer's chunk size.
fn message(message_type: u8, at_ms: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![4];
    bytes.extend(&at_ms.to_be_bytes()[1..]);
    bytes.extend(&(body.len() as u32).to_be_bytes()[1..]);
    bytes.extend([message_type, 1, 0, 0, 0]);
    for (n, piece) in body.chunks(128).enumerate() {
        if n > 0 {
            bytes.push(3 << 6 | 4);
        }
        bytes.extend(piece);
    }
    bytes
}

fn type_3_without_message() -> [u8; 1] {
    [3 << 6 | 9]
}

fn command(name: &str, transaction: f64, values: &[Value]) -> Vec<u8> {
    message(message_type::AMF0_COMMAND, 0, &amf([&[name.into(), transaction.into()], values].concat()))
}

fn amf(values: Vec<Value>) -> Vec<u8> {
    let mut body = Vec::new();
    values.iter().for_each(|value| amf0::write(&mut body, value));
    body
}

fn code(answer: &[Value]) -> Option<&str> {
    answer.last().and_then(|value| value.property("code")).and_then(Value::as_str)
}

#[test]
fn connect_is_answered_in_full() {
    let mut server = Server::new();
    let properties = object([
        ("app", "live?x=1".into()),
        ("tcUrl", "rtmp://h/live?x=1".into()),
        ("flashVer", "FMLE/3.0".into()),
        ("pageUrl", "http://p/".into()),
        ("objectEncoding", 3.0.into()),
        ("fourCcList", Value::StrictArray(vec!["hvc1".into()])),
    ]);
    server.feed(&command("connect", 1.0, &[properties])).unwrap();
    let types: Vec<u8> = messages(&server.written).iter().map(|message| message.message_type).collect();
    assert_eq!(types, [5, 6, 1, 20, 20]);
    let answers = server.answers();
    assert_eq!(answers[0][..2], ["_result".into(), 1.0.into()]);
    assert_eq!(code(&answers[0]), Some("NetConnection.Connect.Success"));
    assert_eq!(answers[0][3].property("objectEncoding"), Some(&0.0.into()));
    let Some(Value::StrictArray(list)) = answers[0][3].property("fourCcList") else { panic!("no fourCcList") };
    assert!(list.contains(&"hvc1".into()) && list.contains(&"Opus".into()));
    assert_eq!((server.connection.app(), server.connection.tc_url()), ("live?x=1", "rtmp://h/live?x=1"));
    // A client that does not ask for Enhanced RTMP is told nothing of it.
    let mut plain = Server::new();
    let answers = plain.command("connect", 1.0, &[object([("app", "live".into())])]);
    assert_eq!(answers[0][3].property("fourCcList"), None);
}

#[test]
fn fmle_publishes() {
    let mut server = Server::new();
    server.connect();
    for (name, transaction) in [("releaseStream", 2.0), ("FCPublish", 3.0)] {
        let answers = server.command(name, transaction, &[Value::Null, "cam?token=1".into()]);
        assert_eq!(answers, [["_result".into(), transaction.into(), Value::Null, Value::Undefined]], "{name}");
    }
    let answers = server.command("createStream", 4.0, &[Value::Null]);
    assert_eq!(answers, [["_result".into(), 4.0.into(), Value::Null, 1.0.into()]]);
    let answers = server.command("publish", 5.0, &[Value::Null, "cam?token=1".into(), "live".into()]);
    assert!(answers.is_empty() && !server.connection.wants_input());
    let request = server.request();
    assert_eq!((request.kind, &*request.stream, &*request.app), (RequestKind::Publish, "cam?token=1", "live"));
    server.connection.accept(request.id).unwrap();
    server.drain();
    let answers = server.answers();
    let names: Vec<_> = answers.iter().map(|answer| (answer[0].as_str().unwrap(), code(answer).unwrap())).collect();
    assert_eq!(names, [("onFCPublish", "NetStream.Publish.Start"), ("onStatus", "NetStream.Publish.Start")]);
    assert_eq!(server.connection.accept(request.id), Err(RtmpError::NoSuchRequest));

    let answers = server.command("FCUnpublish", 6.0, &[Value::Null, "cam?token=1".into()]);
    assert_eq!(answers.len(), 3);
    assert_eq!(code(&answers[2]), Some("NetStream.Unpublish.Success"));
    assert_eq!(server.outputs, [RtmpOutput::PublishFinished]);
    // It has ended once, whatever else says so; and may begin again.
    server.command("deleteStream", 7.0, &[Value::Null, 1.0.into()]);
    assert_eq!(server.outputs.len(), 1);
    server.command("publish", 8.0, &[Value::Null, "cam".into()]);
    assert_ne!(server.request().id, request.id);
}

#[test]
fn a_refused_request_tells_why_and_may_come_again() {
    let mut server = Server::new();
    server.connect();
    server.command("publish", 5.0, &[Value::Null, "cam".into()]);
    let request = server.request();
    server.connection.reject(request.id, "NetStream.Publish.BadName", "live/cam is published already").unwrap();
    server.drain();
    let answers = server.answers();
    assert_eq!(code(&answers[0]), Some("NetStream.Publish.BadName"));
    assert_eq!(answers[0][3].property("level"), Some(&"error".into()));
    server.command("play", 6.0, &[Value::Null, "cam".into(), (-2000.0).into()]);
    assert_eq!(server.request().kind, RequestKind::Play);
}

#[test]
fn players_are_told_what_they_wait_for() {
    let mut server = Server::new();
    server.connect();
    let answers = server.command("getStreamLength", 3.0, &[Value::Null, "cam".into()]);
    assert_eq!(answers, [["_result".into(), 3.0.into(), Value::Null, 0.0.into()]]);
    server.command("play", 4.0, &[Value::Null, "cam".into()]);
    server.accept();
    let first = messages(&server.written)[0].body.clone();
    assert_eq!(first[..], [0, 0, 0, 0, 0, 1], "stream begin");
    let answers = server.answers();
    let codes: Vec<_> = answers.iter().filter_map(|answer| code(answer)).collect();
    assert_eq!(codes, ["NetStream.Play.Reset", "NetStream.Play.Start"]);

    let answers = server.command("pause", 5.0, &[Value::Null, Value::Boolean(true), 0.0.into()]);
    assert_eq!(code(&answers[0]), Some("NetStream.Pause.Notify"));
    assert_eq!(server.outputs.pop(), Some(RtmpOutput::Paused(true)));
    // A second stream on the same connection is refused.
    let answers = server.command("play", 4.0, &[Value::Null, "other".into()]);
    assert_eq!(code(&answers[0]), Some("NetStream.Play.BadConnection"));
    server.command("closeStream", 0.0, &[Value::Null]);
    assert_eq!(server.outputs, [RtmpOutput::PlayFinished]);
}

#[test]
fn what_comes_while_a_request_waits_is_read_after_its_answer() {
    let mut server = Server::new();
    server.connect();
    let mut bytes = command("publish", 5.0, &[Value::Null, "cam".into()]);
    bytes.extend(message(9, 40, &[0x17, 0, 0, 0, 0]));
    server.feed(&bytes).unwrap();
    server.feed(&message(8, 41, &[0xaf, 0])).unwrap();
    assert_eq!(server.outputs.len(), 1, "only the request");
    server.accept();
    let times = server.outputs.iter().map(|output| match output {
        RtmpOutput::Media(tag) => (tag.kind, tag.timestamp_ms),
        other => panic!("{other:?}"),
    });
    assert_eq!(times.collect::<Vec<_>>(), [(MediaKind::Video, 40), (MediaKind::Audio, 41)]);

    let mut impatient = Server::with_limits(RtmpLimits { max_waiting_bytes: 100, ..RtmpLimits::default() });
    impatient.connect();
    impatient.feed(&command("publish", 5.0, &[Value::Null, "cam".into()])).unwrap();
    assert_eq!(impatient.feed(&[0; 60]), Ok(()));
    assert_eq!(impatient.feed(&[0; 60]), Err(RtmpError::TooMuchWhileWaiting(100)));
}

#[test]
fn media_without_permission_is_dropped() {
    let mut server = Server::new();
    server.connect();
    server.feed(&message(9, 0, &[0x17, 1, 0, 0, 0, 9])).unwrap();
    server.feed(&message(18, 0, &amf(vec!["onMetaData".into(), object([])]))).unwrap();
    assert!(server.outputs.is_empty());
}

#[test]
fn metadata_passes_unchanged() {
    let inner = amf(vec!["onMetaData".into(), Value::EcmaArray(vec![("width".into(), 96.0.into())])]);
    let wrapped = [amf(vec!["@setDataFrame".into()]), inner.clone()].concat();
    let cases = [
        (message_type::AMF0_DATA, wrapped.clone(), true),
        (message_type::AMF0_DATA, inner.clone(), true),
        (message_type::AMF3_DATA, [vec![0], wrapped].concat(), true),
        (message_type::AMF0_DATA, amf(vec!["onTextData".into(), object([])]), false),
        (message_type::AMF0_DATA, vec![2, 0, 99, b'x'], false),
        (message_type::AMF0_DATA, vec![], false),
    ];
    for (message_type, body, is_metadata) in cases {
        let mut server = Server::publishing();
        server.feed(&message(message_type, 0, &body)).unwrap();
        let expected = if is_metadata { vec![RtmpOutput::Metadata(inner.clone().into())] } else { vec![] };
        assert_eq!(server.outputs, expected);
    }
}

#[test]
fn aggregates_come_apart() {
    let tag = |tag_type: u8, at_ms: u32, body: &[u8]| {
        let mut tag = crate::flv::flv_tag(TagType::Audio, at_ms, &[], body).to_vec();
        tag[0] = tag_type;
        tag
    };
    let mut body = tag(8, 0x0100_0000, &[0xaf, 1, 1]);
    body.extend(tag(9, 0x0100_0014, &[0x27, 1, 0, 0, 0, 2]));
    body.extend(tag(99, 0, &[1]));
    body.extend(tag(8, 0x0100_0028, &[0xaf, 1, 3]));
    // The last length is missing.
    body.truncate(body.len() - 4);
    let mut server = Server::publishing();
    server.feed(&message(message_type::AGGREGATE, 5000, &body)).unwrap();
    let tags = server.outputs.iter().map(|output| match output {
        RtmpOutput::Media(tag) => (tag.kind, tag.timestamp_ms, tag.body.len()),
        other => panic!("{other:?}"),
    });
    let expected = [(MediaKind::Audio, 5000, 3), (MediaKind::Video, 5020, 6), (MediaKind::Audio, 5040, 3)];
    assert_eq!(tags.collect::<Vec<_>>(), expected);

    for cut in [1, 5, 12] {
        let cut_off = Server::publishing().feed(&message(message_type::AGGREGATE, 0, &body[..cut]));
        assert_eq!(cut_off, Err(RtmpError::BadAggregate("a tag is cut off")));
    }
    let many = tag(8, 0, &[]).repeat(MAX_AGGREGATED + 1);
    let too_many = Server::publishing().feed(&message(message_type::AGGREGATE, 0, &many));
    assert_eq!(too_many, Err(RtmpError::BadAggregate("too many tags")));
}

#[test]
fn control_messages() {
    let mut server = Server::publishing();
    // Ping, with its timestamp back.
    server.feed(&message(message_type::USER_CONTROL, 0, &[0, 6, 1, 2, 3, 4])).unwrap();
    assert_eq!(messages(&server.written)[0].body[..], [0, 7, 1, 2, 3, 4]);
    server.written.clear();
    server.feed(&message(message_type::SET_PEER_BANDWIDTH, 0, &[0, 0, 4, 0, 2])).unwrap();
    assert_eq!(messages(&server.written)[0].message_type, message_type::WINDOW_ACK_SIZE);
    // Larger chunks from here on.
    server.feed(&message(message_type::SET_CHUNK_SIZE, 0, &[0, 1, 0, 0])).unwrap();
    let mut large = message(9, 0, &[])[..12].to_vec();
    large[4..7].copy_from_slice(&[0, 0x10, 0]);
    large.extend([0x27; 0x1000]);
    server.feed(&large).unwrap();
    assert!(matches!(&server.outputs[..], [RtmpOutput::Media(tag)] if tag.body.len() == 0x1000));
    for (message_type, body) in [(1, &[0, 0, 0, 0][..]), (1, &[1]), (5, &[]), (2, &[9, 9])] {
        let result = Server::publishing().feed(&message(message_type, 0, body));
        assert!(matches!(result, Err(RtmpError::BadControl { .. })), "{message_type} {body:?}");
    }
}

#[test]
fn bytes_are_acknowledged_by_the_peers_window() {
    let mut server = Server::publishing();
    server.feed(&message(message_type::WINDOW_ACK_SIZE, 0, &10_000u32.to_be_bytes())).unwrap();
    let before = server.connection.link.received.total;
    let mut acknowledged = Vec::new();
    for _ in 0..100 {
        server.feed(&message(8, 0, &[0xaf; 400])).unwrap();
        for message in messages(&std::mem::take(&mut server.written)) {
            assert_eq!(message.message_type, message_type::ACKNOWLEDGEMENT);
            acknowledged.push(u32::from_be_bytes(*message.body.first_chunk().unwrap()));
        }
    }
    let total = server.connection.link.received.total;
    assert!(total > before + 40_000);
    assert_eq!(acknowledged.len(), total as usize / 10_000, "{acknowledged:?}");
    assert!(acknowledged.is_sorted());
}

#[test]
fn commands_out_of_place_close() {
    let first = Server::new().feed(&command("publish", 1.0, &[]));
    assert!(matches!(first, Err(RtmpError::BadCommand { .. })));
    let mut broken = Server::new();
    let error = broken.feed(&type_3_without_message()).unwrap_err();
    assert_eq!(broken.feed(&command("connect", 1.0, &[object([])])), Err(error), "it stays broken");
    let nameless = Server::new().feed(&message(message_type::AMF0_COMMAND, 0, &[5]));
    assert!(matches!(nameless, Err(RtmpError::BadCommand { .. })));
    let mut twice = Server::new();
    twice.connect();
    let app = object([("app", "live".into())]);
    assert!(matches!(twice.feed(&command("connect", 1.0, &[app])), Err(RtmpError::BadCommand { .. })));
    let mut long = Server::new();
    long.connect();
    let name = "x".repeat(9000);
    assert!(matches!(
        long.feed(&command("publish", 1.0, &[Value::Null, name.as_str().into()])),
        Err(RtmpError::BadCommand { what: "a name is too long", .. })
    ));
    // Unknown calls are answered, if they ask for it; AMF3 wrappers are taken off.
    let mut server = Server::new();
    server.connect();
    assert_eq!(server.command("setPeerInfo", 9.0, &[Value::Null]).len(), 1);
    assert_eq!(server.command("setPeerInfo", 0.0, &[Value::Null]).len(), 0);
    let body = [vec![0], amf(vec!["createStream".into(), 7.0.into(), Value::Null])].concat();
    server.feed(&message(message_type::AMF3_COMMAND, 0, &body)).unwrap();
    assert_eq!(server.answers()[0][1], 7.0.into());
}

#[test]
fn other_protocols_are_told_from_rtmp_at_the_first_byte() {
    for hello in [&b"GET / HTTP/1.1\r\n"[..], &[0x16, 3, 1], &[6]] {
        let mut connection = RtmpConnection::new(RtmpLimits::default());
        assert!(matches!(connection.handle_bytes(hello), Err(RtmpError::Handshake(_))));
    }
}
