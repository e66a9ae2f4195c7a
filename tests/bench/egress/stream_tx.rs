//! The path that ours is compared with: a whole str0m peer connection for each viewer and its `StreamTx`, one
//! certificate, all packets of a batch in one visit and next to each other in the batch. In its usual form it has str0m's
//! default extensions and resend cache; tuned, it has MID alone and a short cache.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use freshet_sfu::{Path, Protocol, SendBatch};
use str0m::change::SdpOffer;
use str0m::format::{Codec, FormatParams};
use str0m::media::{Frequency, MediaKind, Mid, Pt};
use str0m::net::{self, Receive};
use str0m::rtp::{Extension, RtpWrite};
use str0m::{Candidate, Event, Input, Output, Rtc, RtcConfig};

use crate::peer::{Media, Peer};

const MAX_EXCHANGES: usize = 200;
/// Far more than a viewer asks for again.
const RESEND_PACKETS: usize = 256;

pub(crate) struct StreamTxViewer {
    rtc: Box<Rtc>,
    mid: Mid,
    pt: Pt,
    next_seq: u64,
    path: Path,
}

impl StreamTxViewer {
    pub(crate) fn connect(
        config: &RtcConfig,
        tuned: bool,
        server: SocketAddr,
        remote: SocketAddr,
        now: Instant,
    ) -> anyhow::Result<StreamTxViewer> {
        let (mut peer, offer) = Peer::offer(false, remote, now)?;
        let mut rtc = Box::new(config.clone().build(now));
        rtc.add_local_candidate(Candidate::host(server, "udp")?);
        let answer = rtc.sdp_api().accept_offer(SdpOffer::from_sdp_string(&offer)?)?;
        peer.accept(now, &answer.to_sdp_string())?;
        let mut at = now;
        let (mut connected, mut video) = (false, None);
        for _ in 0..MAX_EXCHANGES {
            for datagram in std::mem::take(&mut peer.outbox) {
                let receive = Receive::new(net::Protocol::Udp, remote, server, &datagram)?;
                rtc.handle_input(Input::Receive(at, receive))?;
                loop {
                    match rtc.poll_output()? {
                        Output::Timeout(_) => break,
                        Output::Transmit(t) => peer.receive(at, server, &t.contents)?,
                        Output::Event(Event::Connected) => connected = true,
                        Output::Event(Event::MediaAdded(m)) if m.kind == MediaKind::Video => video = Some(m.mid),
                        Output::Event(_) => {}
                    }
                }
            }
            if connected && peer.is_connected && peer.outbox.is_empty() {
                break;
            }
            if peer.outbox.is_empty() {
                at = at.max(peer.deadline);
                peer.tick(at)?;
            }
        }
        let mid = video.filter(|_| connected).context("a viewer of StreamTx does not connect")?;
        let pt = *rtc.media(mid).and_then(|m| m.remote_pts().first()).context("no payload type")?;
        let mut api = rtc.direct_api();
        let tx = api.stream_tx_by_mid(mid, None).context("no stream")?;
        if tuned {
            tx.set_rtx_cache(RESEND_PACKETS, Duration::from_secs(1), None);
        }
        let path = Path { protocol: Protocol::Udp, remote, local: server.ip() };
        Ok(StreamTxViewer { rtc, mid, pt, next_seq: 1000, path })
    }

    /// All packets of a batch in one visit; they end up next to each other and so in one message.
    pub(crate) fn forward(&mut self, now: Instant, packets: &[Media], batch: &mut SendBatch) -> anyhow::Result<u64> {
        let mut api = self.rtc.direct_api();
        let tx = api.stream_tx_by_mid(self.mid, None).context("no stream")?;
        for p in packets {
            let write = RtpWrite::new(self.pt, self.next_seq.into(), p.timestamp, now, Arc::clone(&p.payload));
            tx.write_rtp(write.marker(p.marker).nackable(true));
            self.next_seq += 1;
        }
        self.rtc.handle_input(Input::Timeout(now))?;
        let mut sent = 0;
        loop {
            match self.rtc.poll_output()? {
                Output::Timeout(_) => break,
                Output::Transmit(t) => {
                    sent += u64::from(t.contents.len() > packets[0].payload.len());
                    batch.push(self.path, &t.contents);
                }
                Output::Event(_) => {}
            }
        }
        if sent != packets.len() as u64 {
            bail!("StreamTx sent {sent} packets of {}", packets.len());
        }
        Ok(sent)
    }
}

pub(crate) fn config(tuned: bool) -> anyhow::Result<RtcConfig> {
    let provider = str0m::crypto::from_feature_flags();
    let certificate = provider.dtls_provider.generate_certificate().context("no certificate")?;
    let mut config = RtcConfig::new()
        .set_rtp_mode(true)
        .set_ice_lite(true)
        .set_crypto_provider(Arc::new(provider))
        .set_dtls_cert(certificate)
        .clear_codecs();
    if tuned {
        config = config.clear_extension_map().set_extension(4, Extension::RtpMid);
    }
    let codecs = config.codec_config();
    codecs.add_h264(102.into(), Some(103.into()), true, 0x42_e0_1f);
    let opus = FormatParams::parse_line("minptime=10;useinbandfec=1");
    codecs.add_config(111.into(), None, Codec::Opus, Frequency::FORTY_EIGHT_KHZ, Some(2), opus);
    Ok(config)
}
