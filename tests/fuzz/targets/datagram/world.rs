//! One shard, two connected peers and a session that nobody has claimed, in virtual time.

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, UNIX_EPOCH};

use freshet_media::StreamKey;
use freshet_sfu::sdp::{Offer, VideoPreference, negotiate};
use freshet_sfu::{
    CloseReason, Credentials, Epoch, Identity, Input, Lobby, Path, Protocol, Session, SessionId, SessionLimits,
    SessionParams, SessionStatus, Shard, ShardConfig, ShardEvent, ShardId, ShardStatus,
};
use str0m::change::SdpAnswer;
use str0m::media::{Direction, MediaKind, Mid};
use str0m::net::{Protocol as PeerProtocol, Receive};
use str0m::rtp::RtpWrite;
use str0m::{Candidate, Output, Rtc};

pub const PUBLISHER: SocketAddr = address(1);
pub const VIEWER: SocketAddr = address(2);
pub const STRANGER: SocketAddr = address(3);
const SERVER: SocketAddr = address(100);

/// Payload types of str0m's own offers: VP8, VP9, AV1, H.265, H.264, Opus, RED.
const VIDEO: [u8; 5] = [96, 98, 45, 102, 108];
const AUDIO: [u8; 2] = [111, 63];
/// Rounds in which both sides may still have something to say without time passing.
const MAX_ROUNDS: usize = 64;

static IDENTITY: LazyLock<Identity> = LazyLock::new(|| Identity::generate().expect("an identity"));
static CRYPTO: LazyLock<str0m::config::CryptoProvider> = LazyLock::new(str0m::crypto::from_feature_flags);

const fn address(last: u8) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, last)), 8000)
}

struct Peer {
    rtc: Rtc,
    address: SocketAddr,
    credentials: Credentials,
    username: String,
    video: Mid,
    audio: Mid,
    /// What it sent last, for replays.
    sent: Vec<u8>,
    connected: bool,
}

pub struct World {
    now: Instant,
    shard: Shard,
    lobby: Arc<Lobby>,
    peers: Vec<Peer>,
    ended: Vec<CloseReason>,
    losses: u8,
    seq: u64,
    random: u64,
}

impl World {
    /// Publisher and viewer are connected, a third session waits.
    pub fn connected() -> World {
        let now = Instant::now();
        let lobby = Arc::new(Lobby::default());
        let config = ShardConfig {
            id: ShardId(0),
            shards: 1,
            epoch: Epoch::new(now, UNIX_EPOCH + Duration::from_secs(1_800_000_000)),
            lobby: Arc::clone(&lobby),
            status: Arc::new(ShardStatus::default()),
        };
        let shard = Shard::new(config, now);
        let mut world =
            World { now, shard, lobby, peers: Vec::new(), ended: Vec::new(), losses: 0, seq: 100, random: 7 };
        for (address, direction) in
            [(PUBLISHER, Direction::SendOnly), (VIEWER, Direction::RecvOnly), (STRANGER, Direction::RecvOnly)]
        {
            let peer = world.join(address, direction);
            world.peers.push(peer);
        }
        for _ in 0..200 {
            world.advance(Duration::from_millis(10));
            if world.peers[..2].iter().all(|p| p.connected) {
                return world;
            }
        }
        panic!("the peers do not connect");
    }

    fn join(&mut self, address: SocketAddr, direction: Direction) -> Peer {
        let publishing = direction == Direction::SendOnly;
        let mut config = Rtc::builder().set_rtp_mode(true);
        config.codec_config().enable_opus(true, publishing);
        let mut rtc = config.build(self.now);
        rtc.add_local_candidate(Candidate::host(address, "udp").expect("a candidate"));
        let mut changes = rtc.sdp_api();
        let audio = changes.add_media(MediaKind::Audio, direction, None, None, None);
        let video = changes.add_media(MediaKind::Video, direction, None, None, None);
        let (offer, pending) = changes.apply().expect("an offer");
        let offer = Offer::parse(&offer.to_sdp_string()).expect("the offer can be parsed");
        let negotiated = negotiate(&offer, publishing, VideoPreference::Offered).expect("the offer is accepted");
        let id = self.peers.len() as u64 + 1;
        let credentials = Credentials { ufrag: format!("session{id}"), pwd: "0123456789".repeat(3) };
        let params = SessionParams {
            id: SessionId(id),
            key: StreamKey::new("", "live", "cam").expect("a key"),
            offer: &offer,
            negotiated: &negotiated,
            identity: &IDENTITY,
            credentials: credentials.clone(),
            udp: &[SERVER],
            tcp: &[],
            limits: SessionLimits { connect: Duration::from_secs(20), silence: Duration::from_secs(10) },
            status: Arc::new(SessionStatus::default()),
            random: &mut || {
                self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                self.random ^ self.random >> 33
            },
        };
        let (session, answer) = Session::open(params, self.now).expect("a session");
        self.lobby.admit(session);
        let answer = SdpAnswer::from_sdp_string(&answer).expect("the answer can be parsed");
        rtc.sdp_api().accept_answer(pending, answer).expect("the answer fits");
        let username = format!("{}:{}", credentials.ufrag, offer.ufrag);
        Peer { rtc, address, credentials, username, video, audio, sent: Vec::new(), connected: false }
    }

    pub fn sessions(&self) -> usize {
        self.shard.sessions()
    }

    pub fn ended(&self) -> bool {
        !self.ended.is_empty()
    }

    /// Bytes that anybody on the way could have sent. They must not end a session. Returns how many datagrams left.
    pub fn forged(&mut self, from: SocketAddr, protocol: Protocol, bytes: &[u8]) -> usize {
        let before = self.ended.len();
        self.arrive(from, protocol, bytes);
        let sent = self.settle();
        assert_eq!(self.ended.len(), before, "a forged datagram ended a session: {:?}", self.ended);
        sent
    }

    /// A STUN message with valid integrity and arbitrary attributes, as the holder of a session may send it.
    pub fn check(&mut self, session: u8, from: SocketAddr, attributes: &[u8]) {
        let peer = &self.peers[usize::from(session) % self.peers.len()];
        let kind = [0x0001_u16, 0x0011, 0x0101, 0x0111][usize::from(attributes.first().copied().unwrap_or(0) & 3)];
        let message = stun(kind, &peer.username, &peer.credentials.pwd, attributes.get(1..).unwrap_or_default());
        self.arrive(from, Protocol::Udp, &message);
        self.settle();
    }

    /// The publisher sends a payload of any codec.
    pub fn publish(&mut self, detail: u8, payload: &[u8]) {
        let peer = &mut self.peers[0];
        let video = detail & 8 == 0;
        let pick = usize::from(detail & 7);
        let (mid, pt) = if video { (peer.video, VIDEO[pick % 5]) } else { (peer.audio, AUDIO[pick % 2]) };
        self.seq += 1;
        if let Some(tx) = peer.rtc.direct_api().stream_tx_by_mid(mid, None) {
            let packet = RtpWrite::new(pt.into(), self.seq.into(), self.seq as u32 * 960, self.now, payload.to_vec());
            tx.write_rtp(packet.marker(pick & 1 == 1).nackable(video));
        }
        self.advance(Duration::from_millis(1));
    }

    /// The viewer asks for a keyframe, as a player does.
    pub fn request_keyframe(&mut self) {
        let peer = &mut self.peers[1];
        if let Some(rx) = peer.rtc.direct_api().stream_rx_by_mid(peer.video, None) {
            rx.request_keyframe(str0m::media::KeyframeRequestKind::Pli);
        }
        self.advance(Duration::from_millis(1));
    }

    /// The next datagrams to the viewer are lost, so that it asks for them again.
    pub fn lose_to_viewer(&mut self, count: u8) {
        self.losses = count & 7;
    }

    /// The last datagram of a peer again, with some of its bytes changed: pairs of place and mask.
    pub fn replay(&mut self, from: SocketAddr, changes: &[u8]) {
        let Some(peer) = self.peers.iter().find(|p| p.address == from) else { return };
        let mut bytes = peer.sent.clone();
        for [place, mask] in changes.as_chunks::<2>().0 {
            if let Some(byte) = bytes.get_mut(usize::from(*place)) {
                *byte ^= mask;
            }
        }
        self.forged(from, Protocol::Udp, &bytes);
    }

    pub fn advance(&mut self, time: Duration) {
        self.now += time;
        if self.shard.poll_timeout() <= self.now {
            self.shard.handle_input(self.now, Input::Timeout);
        }
        for peer in &mut self.peers[..2] {
            let _ = peer.rtc.handle_input(str0m::Input::Timeout(self.now));
        }
        self.settle();
    }

    fn arrive(&mut self, from: SocketAddr, protocol: Protocol, payload: &[u8]) {
        let path = Path { protocol, remote: from, local: SERVER.ip() };
        self.shard.handle_input(self.now, Input::Datagram { path, payload });
    }

    /// Carries everything to and fro until nobody has anything to say. Returns how many datagrams left the server.
    fn settle(&mut self) -> usize {
        let mut sent = 0;
        for _ in 0..MAX_ROUNDS {
            let mut quiet = true;
            let mut to_peers: Vec<(SocketAddr, Vec<u8>)> = Vec::new();
            while let Some(batch) = self.shard.poll_transmit() {
                for message in batch.messages() {
                    to_peers.extend(batch.datagrams(message).map(|d| (message.path.remote, d.to_vec())));
                }
                batch.clear();
            }
            assert!(self.shard.poll_relay().is_none(), "there is no other shard");
            while let Some(event) = self.shard.poll_event() {
                if let ShardEvent::Closed(_, reason) = event {
                    self.ended.push(reason);
                }
            }
            sent += to_peers.len();
            for (to, bytes) in to_peers {
                if to == VIEWER && self.losses > 0 {
                    self.losses -= 1;
                } else {
                    self.deliver(to, &bytes);
                }
                quiet = false;
            }
            for index in 0..2 {
                for bytes in self.peers[index].drain() {
                    self.arrive(self.peers[index].address, Protocol::Udp, &bytes);
                    quiet = false;
                }
            }
            if quiet {
                return sent;
            }
        }
        panic!("the shard and its peers never fall silent");
    }

    fn deliver(&mut self, to: SocketAddr, bytes: &[u8]) {
        let Some(peer) = self.peers[..2].iter_mut().find(|p| p.address == to) else { return };
        let Ok(receive) = Receive::new(PeerProtocol::Udp, SERVER, to, bytes) else { return };
        let _ = peer.rtc.handle_input(str0m::Input::Receive(self.now, receive));
        for bytes in peer.drain() {
            self.arrive(to, Protocol::Udp, &bytes);
        }
    }
}

impl Peer {
    fn drain(&mut self) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        loop {
            match self.rtc.poll_output() {
                Ok(Output::Transmit(t)) => {
                    self.sent = t.contents.to_vec();
                    all.push(self.sent.clone());
                }
                Ok(Output::Event(str0m::Event::Connected)) => self.connected = true,
                Ok(Output::Event(_)) => {}
                Ok(Output::Timeout(_)) | Err(_) => return all,
            }
        }
    }
}

/// A STUN message (RFC 8489 §5) with USERNAME, the given bytes as attributes, MESSAGE-INTEGRITY and FINGERPRINT.
fn stun(kind: u16, username: &str, password: &str, attributes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&[0, 0, 0x21, 0x12, 0xa4, 0x42]);
    out.extend_from_slice(&[9; 12]);
    let mut attribute = |kind: u16, value: &[u8]| {
        out.extend_from_slice(&kind.to_be_bytes());
        out.extend_from_slice(&(value.len() as u16).to_be_bytes());
        out.extend_from_slice(value);
        out.resize(out.len().next_multiple_of(4), 0);
    };
    attribute(0x0006, username.as_bytes());
    out.extend_from_slice(&attributes[..attributes.len() / 4 * 4]);
    let set_length = |out: &mut Vec<u8>, more: usize| {
        let length = (out.len() - 20 + more) as u16;
        out[2..4].copy_from_slice(&length.to_be_bytes());
    };
    set_length(&mut out, 24);
    let tag = CRYPTO.sha1_hmac_provider.sha1_hmac(password.as_bytes(), &[&out]);
    out.extend_from_slice(&[0, 8, 0, 20]);
    out.extend_from_slice(&tag);
    set_length(&mut out, 8);
    let crc = crc32(&out) ^ 0x5354_554e;
    out.extend_from_slice(&[0x80, 0x28, 0, 4]);
    out.extend_from_slice(&crc.to_be_bytes());
    out
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    })
}
