//! The receiving half of a publisher: configuration of the peer connection, and its packets in our own types.

use std::sync::Arc;
use std::time::Instant;

use freshet_media::Codec;
use str0m::RtcConfig;
use str0m::format::{Codec as Str0mCodec, FormatParams};
use str0m::media::{KeyframeRequestKind, Mid, Pt};
use str0m::rtp::{Extension, Ssrc};

use super::Transport;
use crate::clock::{UnixMicros, unix_micros};
use crate::packet::Extensions;
use crate::sdp::{Negotiated, OfferedCodec, extension};

/// A packet of the publisher, decrypted.
pub(crate) struct Received {
    pub(crate) ssrc: u32,
    pub(crate) pt: u8,
    /// Sequence number, roll-overs counted.
    pub(crate) seq: u64,
    pub(crate) timestamp: u32,
    pub(crate) marker: bool,
    pub(crate) arrival: Instant,
    pub(crate) extensions: Extensions,
    pub(crate) payload: Arc<[u8]>,
}

impl Received {
    /// As str0m delivers it.
    pub(super) fn new(packet: str0m::rtp::RtpPacket) -> Received {
        let values = &packet.header.ext_vals;
        // str0m gives the level as negative decibels; on the wire it is their magnitude (RFC 6464 §3).
        let level = values.audio_level.map(|l| l.unsigned_abs().min(127));
        let voice = u8::from(values.voice_activity.unwrap_or(false)) << 7;
        Received {
            ssrc: *packet.header.ssrc,
            pt: *packet.header.payload_type,
            seq: *packet.seq_no,
            timestamp: packet.header.timestamp,
            marker: packet.header.marker,
            arrival: packet.timestamp,
            extensions: Extensions {
                audio_level: level.map(|l| voice | l),
                video_orientation: values.video_orientation.map(|o| o as u8),
            },
            payload: packet.payload,
        }
    }
}

/// A sender report: "`rtp` was at `ntp`".
pub(crate) struct SenderReportReceived {
    pub(crate) ssrc: u32,
    pub(crate) rtp: u32,
    pub(crate) ntp: UnixMicros,
    pub(crate) arrival: Instant,
}

impl SenderReportReceived {
    pub(super) fn new(feedback: &str0m::media::SenderFeedback) -> SenderReportReceived {
        let info = &feedback.sender_info;
        SenderReportReceived {
            ssrc: *info.ssrc,
            rtp: info.rtp_time.numer() as u32,
            ntp: unix_micros(info.ntp_time),
            arrival: feedback.received_at,
        }
    }
}

/// Mirrors what was negotiated into the configuration, so that the peer connection has nothing left to choose.
pub(super) fn configure(config: RtcConfig, negotiated: &Negotiated) -> RtcConfig {
    let mut config = config.clear_codecs().clear_extension_map();
    for media in &negotiated.media {
        for codec in &media.codecs {
            add_codec(&mut config, codec);
        }
    }
    for (id, uri) in negotiated.media.iter().flat_map(|m| &m.extensions) {
        if let Some(known) = known_extension(uri) {
            config = config.set_extension(*id, known);
        }
    }
    config
}

fn add_codec(config: &mut RtcConfig, offered: &OfferedCodec) {
    let codec = match offered.codec {
        Codec::H264 => Str0mCodec::H264,
        Codec::H265 => Str0mCodec::H265,
        Codec::Vp8 => Str0mCodec::Vp8,
        Codec::Vp9 => Str0mCodec::Vp9,
        Codec::Av1 => Str0mCodec::Av1,
        Codec::Pcmu => Str0mCodec::PCMU,
        Codec::Pcma => Str0mCodec::PCMA,
        // In RTP mode nothing is unpacked; RED is one more payload type with Opus' clock.
        Codec::Opus | Codec::Red => Str0mCodec::Opus,
        Codec::Aac | Codec::Mp3 => return,
    };
    let Some(clock) = str0m::media::Frequency::new(offered.clock_hz) else { return };
    let fmtp = if offered.codec == Codec::Red { "" } else { offered.fmtp.as_str() };
    let resend = offered.rtx.map(Pt::from);
    let channels = match offered.codec {
        Codec::Opus | Codec::Red => Some(2),
        _ => offered.channels,
    };
    config.codec_config().add_config(
        Pt::from(offered.pt),
        resend,
        codec,
        clock,
        channels,
        FormatParams::parse_line(fmtp),
    );
}

fn known_extension(uri: &str) -> Option<Extension> {
    Some(match uri {
        extension::AUDIO_LEVEL => Extension::AudioLevel,
        extension::ABS_SEND_TIME => Extension::AbsoluteSendTime,
        extension::TRANSPORT_CC => Extension::TransportSequenceNumber,
        extension::MID => Extension::RtpMid,
        extension::RID => Extension::RtpStreamId,
        extension::REPAIRED_RID => Extension::RepairedRtpStreamId,
        extension::VIDEO_ORIENTATION => Extension::VideoOrientation,
        _ => return None,
    })
}

impl Transport {
    /// The m-line and simulcast layer that an SSRC belongs to.
    pub(crate) fn stream_of(&mut self, ssrc: u32) -> Option<(String, Option<String>)> {
        let mut api = self.rtc.direct_api();
        let stream = api.stream_rx(&Ssrc::from(ssrc))?;
        Some((stream.mid().to_string(), stream.rid().map(|rid| rid.to_string())))
    }

    /// Lost packets of an SSRC are asked for by us ([`crate::repair`]).
    pub(crate) fn leave_repairs(&mut self, ssrc: u32) {
        if let Some(stream) = self.rtc.direct_api().stream_rx(&Ssrc::from(ssrc)) {
            stream.suppress_nack(true);
        }
    }

    /// The SSRC under which packets of an SSRC are sent again, where it is known.
    pub(crate) fn rtx_of(&mut self, ssrc: u32) -> Option<u32> {
        self.rtc.direct_api().stream_rx(&Ssrc::from(ssrc))?.rtx().map(|rtx| *rtx)
    }

    /// Binds an SSRC to an m-line, for publishers that announce no SSRC and send no MID.
    pub(crate) fn expect(&mut self, ssrc: u32, mid: &str) {
        self.rtc.direct_api().expect_stream_rx(Ssrc::from(ssrc), None, Mid::from(mid), None);
    }

    /// Asks the publisher for a keyframe on an SSRC.
    pub(crate) fn request_keyframe(&mut self, ssrc: u32, fir: bool) {
        let kind = if fir { KeyframeRequestKind::Fir } else { KeyframeRequestKind::Pli };
        if let Some(stream) = self.rtc.direct_api().stream_rx(&Ssrc::from(ssrc)) {
            stream.request_keyframe(kind);
        }
    }
}
