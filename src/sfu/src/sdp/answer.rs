//! Writing the answer.

use std::fmt::Write;
use std::net::SocketAddr;

use freshet_media::{Codec, MediaKind};

use crate::transport::Credentials;

use super::negotiate::{Negotiated, NegotiatedMedia};
use super::offer::{Offer, OfferedMedia, Setup};

/// SSRCs of a track that we send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SenderSsrcs {
    /// Of the media.
    pub media: u32,
    /// Of its retransmissions, where RTX is negotiated.
    pub rtx: Option<u32>,
}

/// Our side of the answer.
#[derive(Debug, Clone)]
pub struct AnswerParams<'a> {
    /// ICE user name fragment.
    pub ufrag: &'a str,
    /// ICE password.
    pub pwd: &'a str,
    /// SHA-256 of our certificate.
    pub fingerprint: &'a [u8],
    /// Addresses for media over UDP, most useful first.
    pub udp: &'a [SocketAddr],
    /// Addresses for media over TCP (RFC 6544, passive).
    pub tcp: &'a [SocketAddr],
    /// Media stream id: audio and video of one id are played in sync.
    pub stream_id: &'a str,
    /// RTCP canonical name of what we send.
    pub cname: &'a str,
    /// SSRCs of what we send, by kind.
    pub ssrcs: &'a [(MediaKind, SenderSsrcs)],
    /// A number for the `o=` line.
    pub origin: u64,
}

/// Writes the answer to `offer`. Lines that were not accepted come back with port 0 at their place.
pub fn answer(offer: &Offer, negotiated: &Negotiated, params: &AnswerParams<'_>) -> String {
    let mut out = String::with_capacity(4096);
    let mids: Vec<&str> = negotiated.media.iter().map(|m| m.mid.as_str()).collect();
    let _ = write!(out, "v=0\r\no=- {} 2 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=ice-lite\r\n", params.origin);
    if !offer.bundle.is_empty() {
        let _ = write!(out, "a=group:BUNDLE {}\r\n", mids.join(" "));
    }
    if offer.extmap_allow_mixed {
        out.push_str("a=extmap-allow-mixed\r\n");
    }
    let _ = write!(out, "a=msid-semantic: WMS {}\r\n", if negotiated.publishing { "*" } else { params.stream_id });
    for (index, line) in offer.media.iter().enumerate() {
        match negotiated.media.iter().find(|m| m.index == index) {
            Some(media) => accepted(&mut out, offer, negotiated.publishing, media, params),
            None => rejected(&mut out, line),
        }
    }
    out
}

/// The fragment that answers an ICE restart (RFC 9725 §4.3.3): our new credentials, and the candidates once more, since
/// the client forgets the former ones.
pub fn restart_fragment(
    local: &Credentials,
    media: &[(&str, MediaKind)],
    udp: &[SocketAddr],
    tcp: &[SocketAddr],
) -> String {
    let mids: Vec<&str> = media.iter().map(|(mid, _)| *mid).collect();
    let mut out = String::with_capacity(512);
    let _ = write!(
        out,
        "a=ice-lite\r\na=group:BUNDLE {}\r\na=ice-options:trickle\r\na=ice-ufrag:{}\r\na=ice-pwd:{}\r\n",
        mids.join(" "),
        local.ufrag,
        local.pwd
    );
    if let Some((mid, kind)) = media.first() {
        let _ = write!(out, "m={kind} 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:{mid}\r\n");
        candidates(&mut out, udp, tcp);
    }
    out
}

fn rejected(out: &mut String, line: &OfferedMedia) {
    let _ = write!(
        out,
        "m={} 0 {}\r\nc=IN IP4 0.0.0.0\r\na=mid:{}\r\na=inactive\r\n",
        line.words[0],
        line.words[2..].join(" "),
        line.mid
    );
}

fn accepted(out: &mut String, offer: &Offer, publishing: bool, media: &NegotiatedMedia, params: &AnswerParams<'_>) {
    let pts: Vec<String> =
        media.codecs.iter().flat_map(|c| [Some(c.pt), c.rtx]).flatten().map(|pt| pt.to_string()).collect();
    let hex: Vec<String> = params.fingerprint.iter().map(|b| format!("{b:02X}")).collect();
    // RFC 8842 §5.3: passive unless the offerer is.
    let setup = if offer.setup == Setup::Passive { "active" } else { "passive" };
    let _ = write!(
        out,
        "m={} 9 {} {}\r\nc=IN IP4 0.0.0.0\r\na=mid:{}\r\na=ice-ufrag:{}\r\na=ice-pwd:{}\r\na=ice-options:trickle\r\n\
         a=fingerprint:sha-256 {}\r\na=setup:{setup}\r\na={}\r\na=rtcp-mux\r\na=rtcp-rsize\r\n",
        media.kind,
        offer.media[media.index].words[2],
        pts.join(" "),
        media.mid,
        params.ufrag,
        params.pwd,
        hex.join(":"),
        if publishing { "recvonly" } else { "sendonly" },
    );
    candidates(out, params.udp, params.tcp);
    for (id, uri) in &media.extensions {
        let _ = write!(out, "a=extmap:{id} {uri}\r\n");
    }
    for codec in &media.codecs {
        let _ = write!(out, "a=rtpmap:{} {}\r\n", codec.pt, codec.rtpmap);
        let mut fmtp = codec.fmtp.clone();
        // RFC 7587 §7.1: without stereo=1 from the receiver browsers publish mono.
        if publishing && codec.codec == Codec::Opus && !fmtp.contains("stereo=") {
            fmtp.push_str(if fmtp.is_empty() { "stereo=1" } else { ";stereo=1" });
        }
        if !fmtp.is_empty() {
            let _ = write!(out, "a=fmtp:{} {fmtp}\r\n", codec.pt);
        }
        for feedback in &codec.feedback {
            let _ = write!(out, "a=rtcp-fb:{} {feedback}\r\n", codec.pt);
        }
        if let Some(rtx) = codec.rtx {
            let _ = write!(out, "a=rtpmap:{rtx} rtx/{}\r\na=fmtp:{rtx} apt={}\r\n", codec.clock_hz, codec.pt);
        }
    }
    for rid in &media.rids {
        let _ = write!(out, "a=rid:{rid} recv\r\n");
    }
    if !media.rids.is_empty() {
        let _ = write!(out, "a=simulcast:recv {}\r\n", media.rids.join(";"));
    }
    let ssrcs = params.ssrcs.iter().find(|(kind, _)| *kind == media.kind);
    if let (false, Some((kind, ssrcs))) = (publishing, ssrcs) {
        sender(out, *kind, *ssrcs, params);
    }
}

fn sender(out: &mut String, kind: MediaKind, ssrcs: SenderSsrcs, params: &AnswerParams<'_>) {
    let _ = write!(out, "a=msid:{} {kind}\r\n", params.stream_id);
    if let Some(rtx) = ssrcs.rtx {
        let _ = write!(out, "a=ssrc-group:FID {} {rtx}\r\n", ssrcs.media);
    }
    for ssrc in [Some(ssrcs.media), ssrcs.rtx].into_iter().flatten() {
        let _ =
            write!(out, "a=ssrc:{ssrc} cname:{}\r\na=ssrc:{ssrc} msid:{} {kind}\r\n", params.cname, params.stream_id);
    }
}

/// Candidate lines with falling priorities: UDP before TCP, each list in its own order (RFC 8445 §5.1.2, RFC 6544 §4.2).
fn candidates(out: &mut String, udp: &[SocketAddr], tcp: &[SocketAddr]) {
    for (i, address) in udp.iter().enumerate() {
        let priority = priority(126, i);
        let _ = write!(out, "a=candidate:{} 1 udp {priority} {} {} typ host\r\n", i + 1, address.ip(), address.port());
    }
    for (i, address) in tcp.iter().enumerate() {
        let (foundation, priority) = (udp.len() + i + 1, priority(90, i));
        let _ = write!(
            out,
            "a=candidate:{foundation} 1 tcp {priority} {} {} typ host tcptype passive\r\n",
            address.ip(),
            address.port()
        );
    }
    out.push_str("a=end-of-candidates\r\n");
}

fn priority(type_preference: u32, index: usize) -> u32 {
    let local_preference = 65_535 - u32::try_from(index).unwrap_or(u32::MAX).min(65_535);
    type_preference << 24 | local_preference << 8 | 255
}
