//! A client: a complete str0m peer connection (full ICE, RTP mode) and what is needed to set one up.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use str0m::change::{SdpAnswer, SdpOffer, SdpPendingOffer};
use str0m::config::{CryptoProvider, DtlsCert};
use str0m::format::{Codec, FormatParams};
use str0m::media::{Direction, Frequency, MediaKind, Mid, Simulcast, SimulcastLayer};
use str0m::{Rtc, RtcConfig};

/// One video format of a client: which, and its payload types.
#[derive(Debug, Clone, Copy)]
pub(crate) struct VideoFormat {
    pub(crate) codec: Codec,
    pub(crate) pt: u8,
    pub(crate) rtx: Option<u8>,
}

impl VideoFormat {
    pub(crate) const H264: VideoFormat = VideoFormat { codec: Codec::H264, pt: 102, rtx: Some(103) };
    pub(crate) const VP8: VideoFormat = VideoFormat { codec: Codec::Vp8, pt: 96, rtx: Some(97) };

    pub(crate) const fn without_rtx(self) -> VideoFormat {
        VideoFormat { rtx: None, ..self }
    }

    pub(crate) const fn at(self, pt: u8, rtx: u8) -> VideoFormat {
        VideoFormat { pt, rtx: Some(rtx), ..self }
    }
}

/// How a client offers itself.
#[derive(Debug, Clone)]
pub(crate) struct Offering {
    pub(crate) direction: Direction,
    pub(crate) video: Vec<VideoFormat>,
    pub(crate) audio: Option<u8>,
    pub(crate) audio_first: bool,
    pub(crate) layers: Vec<&'static str>,
    pub(crate) raw_packets: bool,
    /// Changes to the text of the offer, as other clients would write it.
    pub(crate) edit: fn(String) -> String,
}

impl Offering {
    pub(crate) fn publisher() -> Offering {
        Offering {
            direction: Direction::SendOnly,
            video: vec![VideoFormat::H264],
            audio: Some(111),
            audio_first: true,
            layers: Vec::new(),
            raw_packets: false,
            edit: |text| text,
        }
    }

    pub(crate) fn viewer() -> Offering {
        let video = vec![VideoFormat::VP8, VideoFormat::H264];
        Offering { direction: Direction::RecvOnly, video, ..Offering::publisher() }
    }

    pub(crate) fn with_video(self, video: &[VideoFormat]) -> Offering {
        Offering { video: video.to_vec(), ..self }
    }

    pub(crate) fn without_audio(self) -> Offering {
        Offering { audio: None, ..self }
    }
}

/// A peer connection that has made its offer.
pub(crate) struct Offered {
    pub(crate) rtc: Box<Rtc>,
    pub(crate) offer: String,
    pub(crate) video: Option<Mid>,
    pub(crate) audio: Option<Mid>,
    pending: SdpPendingOffer,
}

impl Offered {
    pub(crate) fn new(offering: &Offering, candidate: std::net::SocketAddr, now: Instant) -> Offered {
        let mut rtc = Box::new(config(offering).build(now));
        rtc.add_local_candidate(str0m::Candidate::host(candidate, "udp").expect("a host candidate"));
        let (mut video, mut audio) = (None, None);
        let mut changes = rtc.sdp_api();
        let order = if offering.audio_first { [false, true] } else { [true, false] };
        for is_video in order {
            let stream = Some("sim".to_owned());
            if is_video && !offering.video.is_empty() {
                let layer = |rid: &&str| SimulcastLayer { rid: (*rid).into(), attributes: None };
                let send: Vec<SimulcastLayer> = offering.layers.iter().map(layer).collect();
                let simulcast = (!send.is_empty()).then(|| Simulcast { send, recv: Vec::new() });
                video = Some(changes.add_media(MediaKind::Video, offering.direction, stream, None, simulcast));
            } else if !is_video && offering.audio.is_some() {
                audio = Some(changes.add_media(MediaKind::Audio, offering.direction, stream, None, None));
            }
        }
        let (offer, pending): (SdpOffer, _) = changes.apply().expect("something is offered");
        Offered { rtc, offer: (offering.edit)(offer.to_sdp_string()), video, audio, pending }
    }

    /// The answer has to be acceptable as it is.
    pub(crate) fn accept(mut self, answer: &str) -> Box<Rtc> {
        let parsed = SdpAnswer::from_sdp_string(answer).expect("the answer can be parsed");
        self.rtc.sdp_api().accept_answer(self.pending, parsed).expect("the answer fits the offer");
        self.rtc
    }
}

fn config(offering: &Offering) -> RtcConfig {
    let mut config = RtcConfig::new()
        .set_rtp_mode(true)
        .set_crypto_provider(Arc::clone(&SHARED.0))
        .set_dtls_cert(SHARED.1.clone())
        .set_rtcp_report_interval_audio(Duration::from_secs(1))
        .set_rtcp_report_interval_video(Duration::from_secs(1))
        .enable_raw_packets(offering.raw_packets)
        .clear_codecs();
    let codecs = config.codec_config();
    for format in &offering.video {
        let (pt, rtx) = (format.pt.into(), format.rtx.map(Into::into));
        match format.codec {
            Codec::H264 => codecs.add_h264(pt, rtx, true, 0x42_e0_1f),
            codec => codecs.add_config(pt, rtx, codec, Frequency::NINETY_KHZ, None, FormatParams::default()),
        }
    }
    if let Some(pt) = offering.audio {
        let fmtp = FormatParams::parse_line("minptime=10;useinbandfec=1");
        codecs.add_config(pt.into(), None, Codec::Opus, Frequency::FORTY_EIGHT_KHZ, Some(2), fmtp);
    }
    config
}

/// One certificate and one DTLS configuration for all clients: str0m's own provider makes one per session, slowly.
static SHARED: LazyLock<(Arc<CryptoProvider>, DtlsCert)> =
    LazyLock::new(|| freshet_tests::dtls::shared_provider().expect("working cryptography"));

/// HMAC-SHA1, for checks that are made by hand.
pub(crate) fn sha1_hmac(key: &[u8], payloads: &[&[u8]]) -> [u8; 20] {
    SHARED.0.sha1_hmac_provider.sha1_hmac(key, payloads)
}
