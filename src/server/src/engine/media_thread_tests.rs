//! Taps through the thread: what its channels are given, and when they end.

use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, sync_channel};
use std::time::SystemTime;

use freshet_media::StreamKey;
use freshet_sfu::sdp::{Offer, VideoPreference, negotiate};
use freshet_sfu::{
    CloseReason, Credentials, Epoch, Identity, Lobby, Session, SessionLimits, SessionParams, SessionStatus,
    ShardConfig, ShardId, ShardStatus,
};

use super::super::mailbox::{self, Postbox};
use super::*;
use crate::bench::peer::{Media, Peer};
use crate::udp;

const PUBLISHER: SessionId = SessionId(1);
const SERVER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9);

/// A thread that does not run, and a publisher that is connected to its shard.
struct Stage {
    thread: MediaThread,
    postbox: Postbox,
    events: Receiver<ShardEvent>,
    publisher: Peer,
    path: Path,
    now: Instant,
    timestamp: u32,
}

impl Stage {
    fn new() -> Stage {
        // The publisher lives in the past: mail is read at the real time. So no tap begins with what is kept.
        let now = Instant::now().checked_sub(Duration::from_secs(60)).unwrap();
        let lobby = Arc::new(Lobby::default());
        let config = ShardConfig {
            id: ShardId(0),
            shards: 1,
            epoch: Epoch::new(now, SystemTime::now()),
            lobby: Arc::clone(&lobby),
            status: Arc::new(ShardStatus::default()),
        };
        let path = Path { protocol: Protocol::Udp, remote: SocketAddr::from(([127, 1, 0, 1], 9)), local: SERVER.ip() };
        let (publisher, offer) = Peer::offer(true, path.remote, now).unwrap();
        let (session, answer) = open(&offer, now);
        lobby.admit(session);
        let (mut postboxes, mut queues) = mailbox::connect(1).unwrap();
        let (events, received) = sync_channel(64);
        let thread = MediaThread {
            shard: Shard::new(config, now),
            socket: udp::bind(SocketAddr::from(([127, 0, 0, 1], 0)), 1).unwrap().remove(0),
            queues: queues.remove(0),
            events,
            status: Arc::default(),
            tcp: AHashMap::new(),
            held: vec![VecDeque::new()],
            taps: AHashMap::new(),
        };
        let postbox = postboxes.remove(0);
        let mut stage = Stage { thread, postbox, events: received, publisher, path, now, timestamp: 0 };
        stage.publisher.accept(now, &answer).unwrap();
        stage.connect();
        stage
    }

    fn connect(&mut self) {
        for _ in 0..200 {
            self.arrive();
            while let Some(batch) = self.thread.shard.poll_transmit() {
                for message in batch.messages() {
                    batch.datagrams(message).for_each(|d| self.publisher.receive(self.now, SERVER, d).unwrap());
                }
                batch.clear();
            }
            if self.thread.shard.poll_event().is_some() {
                return;
            }
            if self.publisher.outbox.is_empty() {
                self.now = self.now.max(self.publisher.deadline);
                self.publisher.tick(self.now).unwrap();
            }
        }
        panic!("the publisher does not connect");
    }

    fn arrive(&mut self) {
        for payload in self.publisher.outbox.drain(..) {
            self.thread.shard.handle_input(self.now, Input::Datagram { path: self.path, payload: &payload });
        }
    }

    /// The publisher sends a frame of one packet.
    fn send(&mut self) {
        self.now += Duration::from_millis(33);
        self.timestamp += 2970;
        let payload = [0x65, 0, 0].as_slice().into();
        let packet = Media { is_video: true, timestamp: self.timestamp, marker: true, payload };
        self.publisher.publish(self.now, &[packet]).unwrap();
        self.arrive();
        self.turn();
    }

    /// What the thread does after it has been woken.
    fn turn(&mut self) {
        assert!(self.thread.take_mail());
        self.thread.flush(&mut SendBuffers::new());
    }

    fn tap(&self, publisher: SessionId, room: usize) -> Receiver<Tapped> {
        let (sender, receiver) = sync_channel(room);
        assert!(self.postbox.post(Mail::TapOpen(publisher, sender)));
        receiver
    }
}

fn open(offer: &str, now: Instant) -> (Session, String) {
    let offer = Offer::parse(offer).unwrap();
    let negotiated = negotiate(&offer, true, VideoPreference::Offered).unwrap();
    let patience = Duration::from_secs(1000);
    let params = SessionParams {
        id: PUBLISHER,
        key: StreamKey::new("", "live", "cam").unwrap(),
        offer: &offer,
        negotiated: &negotiated,
        identity: &Identity::generate().unwrap(),
        credentials: Credentials { ufrag: "abcdefgh".to_owned(), pwd: "a".repeat(32) },
        udp: &[SERVER],
        tcp: &[],
        limits: SessionLimits { connect: patience, silence: patience },
        status: Arc::new(SessionStatus::default()),
        random: &mut rand::random,
    };
    Session::open(params, now).unwrap()
}

fn packets(tapped: &Receiver<Tapped>) -> usize {
    let count = |tapped| if let Tapped::Packets(packets) = tapped { packets.len() } else { 0 };
    tapped.try_iter().map(count).sum()
}

fn is_closed(tapped: &Receiver<Tapped>) -> bool {
    tapped.recv_timeout(Duration::ZERO).is_err_and(|e| e == RecvTimeoutError::Disconnected)
}

#[test]
fn a_tap_ends_with_its_publisher_and_never_blocks() {
    let mut stage = Stage::new();
    let nobody = stage.tap(SessionId(2), 8);
    stage.turn();
    assert!(is_closed(&nobody), "no such publisher");
    // A channel without room loses what comes next, and that is counted.
    let narrow = stage.tap(PUBLISHER, 3);
    stage.turn();
    (0..5).for_each(|_| stage.send());
    assert!(matches!(narrow.try_recv(), Ok(Tapped::Tracks(_))));
    assert!(matches!(narrow.try_recv(), Ok(Tapped::Clock { .. })));
    assert_eq!((packets(&narrow), stage.thread.status.drop_tap.value()), (1, 4));
    stage.send();
    assert_eq!(packets(&narrow), 1, "there is room again");
    // Another channel takes its place; twice in one turn, and each begins with the tracks.
    let (second, third) = (stage.tap(PUBLISHER, 64), stage.tap(PUBLISHER, 64));
    stage.turn();
    stage.send();
    assert!(is_closed(&narrow) && matches!(second.try_recv(), Ok(Tapped::Tracks(_))));
    assert!(matches!(third.try_recv(), Ok(Tapped::Tracks(_))));
    assert_eq!(third.try_iter().filter(|t| matches!(t, Tapped::Tracks(_))).count(), 0);
    assert_eq!(packets(&second), 0, "what came next was for the third");
    assert!(is_closed(&second));
    // Nobody reads any more: the next packet finds out.
    drop(third);
    assert!(stage.thread.shard.is_tapped(PUBLISHER));
    stage.send();
    assert!(!stage.thread.shard.is_tapped(PUBLISHER) && stage.thread.taps.is_empty());
    // Opened again until the publisher goes.
    let fourth = stage.tap(PUBLISHER, 64);
    drop(fourth);
    let fifth = stage.tap(PUBLISHER, 64);
    stage.turn();
    stage.send();
    assert_eq!(packets(&fifth), 1);
    stage.send();
    let close = Command::Close { id: PUBLISHER, reason: CloseReason::Kicked };
    assert!(stage.postbox.post(Mail::Command(close)));
    stage.turn();
    assert_eq!(packets(&fifth), 1, "what came last is not lost");
    assert_eq!(fifth.try_recv().err(), Some(TryRecvError::Disconnected));
    assert!(stage.thread.taps.is_empty());
    assert!(stage.events.try_iter().any(|e| e == ShardEvent::Closed(PUBLISHER, CloseReason::Kicked)));
    assert_eq!(stage.thread.status.drop_tap.value(), 4);
}
