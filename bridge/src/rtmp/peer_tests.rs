//! `rml_rtmp`'s client, which we did not write, against our connection.

use bytes::Bytes;
use rml_rtmp::handshake::{Handshake, HandshakeProcessResult, PeerType};
use rml_rtmp::sessions::{
    ClientSession, ClientSessionConfig, ClientSessionEvent, ClientSessionResult, PublishRequestType,
};
use rml_rtmp::time::RtmpTimestamp;

use super::*;
use crate::flv::Tag;

/// Its handshake is the one with digests.
#[test]
fn a_client_we_did_not_write_publishes_and_plays() {
    let mut publisher = Peer::new();
    publisher.client(|session| session.request_connection("live".into()).unwrap());
    publisher.client(|session| session.request_publishing("cam".into(), PublishRequestType::Live).unwrap());
    publisher.accept();
    assert_eq!(publisher.event(), ClientSessionEvent::PublishRequestAccepted);
    let body = Bytes::from(vec![0x17; 10_000]);
    for at_ms in [0, 40, 0x0100_0000, 0x0100_0028] {
        let body = body.clone();
        publisher.client(|session| session.publish_video_data(body, RtmpTimestamp::new(at_ms), false).unwrap());
    }
    let tags: Vec<Tag> = publisher
        .outputs
        .drain(..)
        .filter_map(|output| match output {
            RtmpOutput::Media(tag) => Some(tag),
            _ => None,
        })
        .collect();
    let times: Vec<u32> = tags.iter().map(|tag| tag.timestamp_ms).collect();
    assert_eq!(times, [0, 40, 0x0100_0000, 0x0100_0028]);
    assert!(tags.iter().all(|tag| tag.body == body));

    let mut player = Peer::new();
    player.client(|session| session.request_connection("live".into()).unwrap());
    player.client(|session| session.request_playback("cam".into()).unwrap());
    player.accept();
    assert_eq!(player.event(), ClientSessionEvent::PlaybackRequestAccepted);
    for tag in &tags {
        let bytes = rtmp_message(tag.kind.into(), tag.timestamp_ms, &[], &tag.body);
        player.feed_client(&bytes);
        let expected = RtmpTimestamp::new(tag.timestamp_ms);
        assert_eq!(player.event(), ClientSessionEvent::VideoDataReceived { timestamp: expected, data: body.clone() });
    }
}

/// A connection and `rml_rtmp`'s client of it.
struct Peer {
    connection: RtmpConnection,
    session: ClientSession,
    outputs: Vec<RtmpOutput>,
    events: Vec<ClientSessionEvent>,
}

impl Peer {
    fn new() -> Peer {
        let mut connection = RtmpConnection::new(RtmpLimits::default());
        let mut handshake = Handshake::new(PeerType::Client);
        connection.handle_bytes(&handshake.generate_outbound_p0_and_p1().unwrap()).unwrap();
        let Some(RtmpOutput::Write(hello)) = connection.poll_output() else { panic!("no S0, S1, S2") };
        let HandshakeProcessResult::Completed { response_bytes, .. } = handshake.process_bytes(&hello).unwrap() else {
            panic!("it goes on");
        };
        connection.handle_bytes(&response_bytes).unwrap();
        let (session, first) = ClientSession::new(ClientSessionConfig::new()).unwrap();
        let mut peer = Peer { connection, session, outputs: Vec::new(), events: Vec::new() };
        peer.take(first);
        peer
    }

    fn client(&mut self, act: impl FnOnce(&mut ClientSession) -> ClientSessionResult) {
        let result = act(&mut self.session);
        self.take(vec![result]);
    }

    fn accept(&mut self) {
        let request = self.outputs.iter().find_map(|output| match output {
            RtmpOutput::Request(request) => Some(request.id),
            _ => None,
        });
        self.connection.accept(request.expect("a request")).unwrap();
        self.pump();
    }

    fn event(&mut self) -> ClientSessionEvent {
        let told = |event: &ClientSessionEvent| {
            !matches!(
                event,
                ClientSessionEvent::ConnectionRequestAccepted
                    | ClientSessionEvent::UnhandleableAmf0Command { .. }
                    | ClientSessionEvent::UnhandleableOnStatusCode { .. }
            )
        };
        self.events.retain(told);
        self.events.remove(0)
    }

    fn feed_client(&mut self, bytes: &[u8]) {
        let results = self.session.handle_input(bytes).unwrap();
        self.take(results);
    }

    fn take(&mut self, results: Vec<ClientSessionResult>) {
        for result in results {
            match result {
                ClientSessionResult::OutboundResponse(packet) => self.connection.handle_bytes(&packet.bytes).unwrap(),
                ClientSessionResult::RaisedEvent(event) => self.events.push(event),
                ClientSessionResult::UnhandleableMessageReceived(_) => {}
            }
        }
        self.pump();
    }

    fn pump(&mut self) {
        while let Some(output) = self.connection.poll_output() {
            match output {
                RtmpOutput::Write(bytes) => self.feed_client(&bytes),
                other => self.outputs.push(other),
            }
        }
    }
}
