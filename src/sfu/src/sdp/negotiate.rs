//! Choosing what of an offer is accepted.

use std::fmt::Write;

use freshet_media::{Codec, MediaKind};

use super::extension;
use super::offer::{Direction, Offer, OfferedCodec, OfferedMedia};

/// Which video codec a publisher that offers several is steered to. Browsers send the first one of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum VideoPreference {
    /// The offerer's own order.
    #[default]
    Offered,
    /// This codec first, if it is offered.
    First(Codec),
}

/// Why an offer that can be read is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NegotiateError {
    /// No m-line has a direction that fits.
    #[error("no m-line of the offer {}", if *.sending { "sends media (a=sendonly or a=sendrecv)" } else { "receives media (a=recvonly or a=sendrecv)" })]
    NoDirection {
        /// True for a publisher's offer.
        sending: bool,
    },
    /// A second m-line of a kind.
    #[error("the offer has more than one {0} m-line")]
    TooMany(MediaKind),
    /// None of the codecs is known.
    #[error("none of the offered {kind} codecs is supported: {offered}")]
    NoCodec {
        /// Of which kind.
        kind: MediaKind,
        /// Names, comma separated.
        offered: String,
    },
    /// An m-line stands outside the BUNDLE group.
    #[error("m-line {0} is not in the BUNDLE group: all media have to share one transport")]
    NotBundled(String),
}

/// An accepted m-line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NegotiatedMedia {
    /// Its index among the m-lines of the offer.
    pub index: usize,
    /// Audio or video.
    pub kind: MediaKind,
    /// `a=mid`.
    pub mid: String,
    /// Codecs in the order of the answer, feedback cut down to what is used.
    pub codecs: Vec<OfferedCodec>,
    /// Header extensions that are used.
    pub extensions: Vec<(u8, String)>,
    /// Simulcast layers to receive.
    pub rids: Vec<String>,
}

impl NegotiatedMedia {
    /// The id of a header extension.
    pub fn extension_id(&self, uri: &str) -> Option<u8> {
        self.extensions.iter().find(|(_, u)| u == uri).map(|(id, _)| *id)
    }
}

/// The accepted part of an offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Negotiated {
    /// True when the offerer sends and we receive.
    pub publishing: bool,
    /// Accepted m-lines in order: at most one per kind.
    pub media: Vec<NegotiatedMedia>,
}

impl Negotiated {
    /// The accepted m-line of a kind.
    pub fn of_kind(&self, kind: MediaKind) -> Option<&NegotiatedMedia> {
        self.media.iter().find(|m| m.kind == kind)
    }
}

const PUBLISHER_EXTENSIONS: [&str; 7] = [
    extension::AUDIO_LEVEL,
    extension::ABS_SEND_TIME,
    extension::TRANSPORT_CC,
    extension::MID,
    extension::RID,
    extension::REPAIRED_RID,
    extension::VIDEO_ORIENTATION,
];
const VIEWER_EXTENSIONS: [&str; 4] =
    [extension::AUDIO_LEVEL, extension::MID, extension::VIDEO_ORIENTATION, extension::PLAYOUT_DELAY];

const PUBLISHER_FEEDBACK: [&str; 5] = ["nack", "nack pli", "ccm fir", "transport-cc", "goog-remb"];
/// Without a sender-side estimate nothing would read transport-cc or REMB of a viewer: leaving them out saves a
/// viewer's upstream and our parsing.
const VIEWER_FEEDBACK: [&str; 3] = ["nack", "nack pli", "ccm fir"];

/// Decides which m-lines, codecs and extensions are used.
///
/// # Errors
/// Nothing usable is offered, or more than WHIP and WHEP allow (RFC 9725 §4.4.2: one track of a kind).
pub fn negotiate(offer: &Offer, publishing: bool, preference: VideoPreference) -> Result<Negotiated, NegotiateError> {
    let fits = |d: Direction| if publishing { d.sends() } else { d.receives() };
    let mut media: Vec<NegotiatedMedia> = Vec::new();
    for (index, line) in offer.media.iter().enumerate() {
        let Some(kind) = line.media_kind() else { continue };
        if line.disabled || !fits(line.direction) {
            continue;
        }
        if !offer.bundle.is_empty() && !offer.bundle.contains(&line.mid) {
            return Err(NegotiateError::NotBundled(line.mid.clone()));
        }
        if media.iter().any(|m| m.kind == kind) {
            return Err(NegotiateError::TooMany(kind));
        }
        media.push(accept(index, kind, line, publishing, preference)?);
    }
    if media.is_empty() {
        return Err(NegotiateError::NoDirection { sending: publishing });
    }
    Ok(Negotiated { publishing, media })
}

fn accept(
    index: usize,
    kind: MediaKind,
    line: &OfferedMedia,
    publishing: bool,
    preference: VideoPreference,
) -> Result<NegotiatedMedia, NegotiateError> {
    let feedback: &[&str] = if publishing { &PUBLISHER_FEEDBACK } else { &VIEWER_FEEDBACK };
    let extensions: &[&str] = if publishing { &PUBLISHER_EXTENSIONS } else { &VIEWER_EXTENSIONS };
    let mut codecs = line.codecs.clone();
    // RED wraps another codec; alone it carries nothing.
    if codecs.iter().all(|c| c.codec == Codec::Red) {
        let mut offered: Vec<String> = line.unknown_codecs.clone();
        offered.extend(codecs.iter().map(|c| c.rtpmap.clone()));
        return Err(NegotiateError::NoCodec { kind, offered: offered.join(", ") });
    }
    if let (true, VideoPreference::First(first)) = (publishing, preference) {
        codecs.sort_by_key(|c| c.codec != first);
    }
    for codec in &mut codecs {
        codec.feedback.retain(|f| feedback.contains(&f.as_str()));
    }
    Ok(NegotiatedMedia {
        index,
        kind,
        mid: line.mid.clone(),
        codecs,
        extensions: line.extensions.iter().filter(|(_, uri)| extensions.contains(&uri.as_str())).cloned().collect(),
        rids: if publishing { line.send_rids.clone() } else { Vec::new() },
    })
}

/// Re-states the accepted part of a publisher's offer for the peer connection, without anything it could stumble over.
pub fn publisher_offer(offer: &Offer, negotiated: &Negotiated) -> String {
    let mut out = String::with_capacity(4096);
    let mids: Vec<&str> = negotiated.media.iter().map(|m| m.mid.as_str()).collect();
    let hex: Vec<String> = offer.fingerprint.1.iter().map(|b| format!("{b:02X}")).collect();
    let _ = write!(
        out,
        "v=0\r\no=- 1 2 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=group:BUNDLE {}\r\na=fingerprint:{} {}\r\n\
         a=ice-ufrag:{}\r\na=ice-pwd:{}\r\na=setup:{}\r\n",
        mids.join(" "),
        offer.fingerprint.0,
        hex.join(":"),
        offer.ufrag,
        offer.pwd,
        offer.setup.as_str(),
    );
    for media in &negotiated.media {
        let line = &offer.media[media.index];
        let pts: Vec<String> =
            media.codecs.iter().flat_map(|c| [Some(c.pt), c.rtx]).flatten().map(|pt| pt.to_string()).collect();
        let _ = write!(
            out,
            "m={} 9 UDP/TLS/RTP/SAVPF {}\r\nc=IN IP4 0.0.0.0\r\na=mid:{}\r\na=sendonly\r\na=rtcp-mux\r\n",
            media.kind,
            pts.join(" "),
            media.mid
        );
        for (id, uri) in &media.extensions {
            let _ = write!(out, "a=extmap:{id} {uri}\r\n");
        }
        for codec in &media.codecs {
            // RED is forwarded untouched: to the peer connection it is one more Opus payload type.
            let rtpmap = if codec.codec == Codec::Red { "opus/48000/2" } else { codec.rtpmap.as_str() };
            let _ = write!(out, "a=rtpmap:{} {rtpmap}\r\n", codec.pt);
            if !codec.fmtp.is_empty() && codec.codec != Codec::Red {
                let _ = write!(out, "a=fmtp:{} {}\r\n", codec.pt, codec.fmtp);
            }
            for feedback in &codec.feedback {
                let _ = write!(out, "a=rtcp-fb:{} {feedback}\r\n", codec.pt);
            }
            if let Some(rtx) = codec.rtx {
                let _ = write!(out, "a=rtpmap:{rtx} rtx/{}\r\na=fmtp:{rtx} apt={}\r\n", codec.clock_hz, codec.pt);
            }
        }
        for rid in &media.rids {
            let _ = write!(out, "a=rid:{rid} send\r\n");
        }
        if !media.rids.is_empty() {
            let _ = write!(out, "a=simulcast:send {}\r\n", media.rids.join(";"));
        }
        for ssrc in &line.ssrc_lines {
            let _ = write!(out, "a={ssrc}\r\n");
        }
    }
    out
}
