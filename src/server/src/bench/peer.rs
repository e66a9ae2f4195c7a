//! The far end of a session, in memory: a complete str0m peer connection with full ICE, as a browser has it.
//!
//! It makes a real offer, runs real ICE and DTLS, and as a publisher protects real packets. It owns no socket: what it
//! would send lies in its outbox, and what arrives is handed in. Nothing of it is counted as the server's.

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use anyhow::{Context as _, anyhow};
use str0m::change::{SdpAnswer, SdpOffer, SdpPendingOffer};
use str0m::config::{CryptoProvider, DtlsCert};
use str0m::format::FormatParams;
use str0m::media::{Direction, Frequency, MediaKind, Mid};
use str0m::net::{Protocol, Receive};
use str0m::rtp::RtpWrite;
use str0m::{Candidate, Event, Input, Output, Rtc, RtcConfig};

const H264: u8 = 102;
const H264_RTX: u8 = 103;
const OPUS: u8 = 111;

/// Making one takes longer than a handshake; all peers may have the same.
static CRYPTO: LazyLock<(Arc<CryptoProvider>, Option<DtlsCert>)> = LazyLock::new(|| {
    let provider = str0m::crypto::from_feature_flags();
    let certificate = provider.dtls_provider.generate_certificate();
    (Arc::new(provider), certificate)
});

/// One RTP packet of a publisher.
#[derive(Debug, Clone)]
pub(crate) struct Media {
    /// Video or audio.
    pub(crate) is_video: bool,
    /// RTP time.
    pub(crate) timestamp: u32,
    /// Last packet of a frame.
    pub(crate) marker: bool,
    /// What it carries.
    pub(crate) payload: Arc<[u8]>,
}

/// A publisher or a viewer.
pub(crate) struct Peer {
    rtc: Box<Rtc>,
    local: SocketAddr,
    pending: Option<SdpPendingOffer>,
    video: Mid,
    audio: Mid,
    next_seq: [u64; 2],
    /// Datagrams for the server.
    pub(crate) outbox: Vec<Vec<u8>>,
    /// Payload lengths of the RTP packets that it has decrypted.
    pub(crate) received: Vec<usize>,
    /// ICE and DTLS are up.
    pub(crate) is_connected: bool,
    /// When [`tick`](Self::tick) is due.
    pub(crate) deadline: Instant,
}

impl Peer {
    /// A peer at `local` and its offer: H.264 with RTX, and Opus.
    pub(crate) fn offer(publishes: bool, local: SocketAddr, now: Instant) -> anyhow::Result<(Peer, String)> {
        let mut rtc = Box::new(config().build(now));
        rtc.add_local_candidate(Candidate::host(local, "udp").context("a peer's address is no candidate")?);
        let direction = if publishes { Direction::SendOnly } else { Direction::RecvOnly };
        let mut changes = rtc.sdp_api();
        let audio = changes.add_media(MediaKind::Audio, direction, Some("bench".to_owned()), None, None);
        let video = changes.add_media(MediaKind::Video, direction, Some("bench".to_owned()), None, None);
        let (offer, pending): (SdpOffer, _) = changes.apply().context("a peer has nothing to offer")?;
        let peer = Peer {
            rtc,
            local,
            pending: Some(pending),
            video,
            audio,
            next_seq: [1000; 2],
            outbox: Vec::new(),
            received: Vec::new(),
            is_connected: false,
            deadline: now,
        };
        Ok((peer, offer.to_sdp_string()))
    }

    /// Takes the server's answer and makes the first check.
    pub(crate) fn accept(&mut self, now: Instant, answer: &str) -> anyhow::Result<()> {
        let pending = self.pending.take().ok_or_else(|| anyhow!("a peer was answered twice"))?;
        let answer = SdpAnswer::from_sdp_string(answer).context("a peer cannot read the answer")?;
        self.rtc.sdp_api().accept_answer(pending, answer).context("a peer refuses the answer")?;
        self.tick(now)
    }

    /// A datagram from the server.
    pub(crate) fn receive(&mut self, now: Instant, server: SocketAddr, datagram: &[u8]) -> anyhow::Result<()> {
        let receive = Receive::new(Protocol::Udp, server, self.local, datagram).context("not a datagram of WebRTC")?;
        self.rtc.handle_input(Input::Receive(now, receive)).context("a peer failed")?;
        self.drain()
    }

    /// Lets time pass.
    pub(crate) fn tick(&mut self, now: Instant) -> anyhow::Result<()> {
        self.rtc.handle_input(Input::Timeout(now)).context("a peer failed")?;
        self.drain()
    }

    /// Protects packets and puts them into the outbox.
    pub(crate) fn publish(&mut self, now: Instant, packets: &[Media]) -> anyhow::Result<()> {
        for packet in packets {
            let (mid, pt) = if packet.is_video { (self.video, H264) } else { (self.audio, OPUS) };
            let seq = &mut self.next_seq[usize::from(packet.is_video)];
            let write = RtpWrite::new(pt.into(), (*seq).into(), packet.timestamp, now, Arc::clone(&packet.payload));
            *seq += 1;
            let mut api = self.rtc.direct_api();
            let stream = api.stream_tx_by_mid(mid, None).ok_or_else(|| anyhow!("a publisher has no such track"))?;
            stream.write_rtp(write.marker(packet.marker).nackable(false));
        }
        self.tick(now)
    }

    fn drain(&mut self) -> anyhow::Result<()> {
        loop {
            match self.rtc.poll_output().context("a peer failed")? {
                Output::Timeout(at) => {
                    self.deadline = at;
                    return Ok(());
                }
                Output::Transmit(transmit) => self.outbox.push(transmit.contents.to_vec()),
                Output::Event(Event::Connected) => self.is_connected = true,
                Output::Event(Event::RtpPacket(packet)) => self.received.push(packet.payload.len()),
                Output::Event(_) => {}
            }
        }
    }
}

fn config() -> RtcConfig {
    let (provider, certificate) = &*CRYPTO;
    let mut config = RtcConfig::new().set_rtp_mode(true).set_crypto_provider(Arc::clone(provider)).clear_codecs();
    if let Some(certificate) = certificate {
        config = config.set_dtls_cert(certificate.clone());
    }
    let codecs = config.codec_config();
    codecs.add_h264(H264.into(), Some(H264_RTX.into()), true, 0x42_e0_1f);
    let opus = FormatParams::parse_line("minptime=10;useinbandfec=1");
    codecs.add_config(OPUS.into(), None, str0m::format::Codec::Opus, Frequency::FORTY_EIGHT_KHZ, Some(2), opus);
    config
}
