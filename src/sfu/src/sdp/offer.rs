//! Reading an offer.

use freshet_media::{Codec, MediaKind};

/// More m-lines than any WHIP or WHEP client has a use for.
const MAX_MEDIA: usize = 16;
/// Browsers' longest lines (candidates, fmtp) stay under 1 KiB.
const MAX_LINE_BYTES: usize = 8 * 1024;
/// A browser's largest offer, two m-lines with every codec and gathered candidates, has about 400 lines. What is looked
/// up line by line stays cheap this way.
const MAX_LINES: usize = 4096;
/// Simulcast layers of a track; browsers offer three.
const MAX_LAYERS: usize = 8;
/// Kinds of feedback that are kept of a payload type; a dozen exist.
const MAX_FEEDBACK: usize = 32;
/// Header extension ids above 14 would need the two-byte form (RFC 8285 §4.3).
const MAX_EXTENSION_ID: u8 = 14;

/// Why an offer cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct OfferError(pub(super) String);

fn error<T>(text: impl Into<String>) -> Result<T, OfferError> {
    Err(OfferError(text.into()))
}

/// What an m-line is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LineKind {
    /// `m=audio` or `m=video`.
    Media(MediaKind),
    /// `m=application` and whatever else there may be.
    Other,
}

/// Direction as seen by the offerer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Direction {
    SendRecv,
    SendOnly,
    RecvOnly,
    Inactive,
}

impl Direction {
    fn parse(name: &str) -> Option<Direction> {
        Some(match name {
            "sendrecv" => Direction::SendRecv,
            "sendonly" => Direction::SendOnly,
            "recvonly" => Direction::RecvOnly,
            "inactive" => Direction::Inactive,
            _ => return None,
        })
    }

    /// Whether the offerer wants to send.
    pub fn sends(self) -> bool {
        matches!(self, Direction::SendRecv | Direction::SendOnly)
    }

    /// Whether the offerer wants to receive.
    pub fn receives(self) -> bool {
        matches!(self, Direction::SendRecv | Direction::RecvOnly)
    }
}

/// DTLS role that the offerer proposes (RFC 8842 §5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Setup {
    ActPass,
    Active,
    Passive,
}

impl Setup {
    /// The text of the `a=setup` value.
    pub fn as_str(self) -> &'static str {
        match self {
            Setup::ActPass => "actpass",
            Setup::Active => "active",
            Setup::Passive => "passive",
        }
    }
}

/// One payload type of an m-line whose codec is known, its retransmission type folded in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfferedCodec {
    /// Payload type.
    pub pt: u8,
    /// The codec.
    pub codec: Codec,
    /// `H264/90000`, as offered.
    pub rtpmap: String,
    /// RTP clock in Hz.
    pub clock_hz: u32,
    /// Channels of an audio codec.
    pub channels: Option<u8>,
    /// Format parameters as offered, may be empty.
    pub fmtp: String,
    /// Payload type of its RTX stream (RFC 4588).
    pub rtx: Option<u8>,
    /// `nack`, `nack pli`, `ccm fir`, `transport-cc`, …
    pub feedback: Vec<String>,
}

/// One m-line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfferedMedia {
    /// Audio, video or something else.
    pub kind: LineKind,
    /// The words of the m-line behind `m=`: media, port, protocol, formats.
    pub words: Vec<String>,
    /// `a=mid`.
    pub mid: String,
    /// Direction, the session's or `sendrecv` where the line has none.
    pub direction: Direction,
    /// Known codecs in offered order.
    pub codecs: Vec<OfferedCodec>,
    /// Names of unknown ones, for messages.
    pub unknown_codecs: Vec<String>,
    /// Header extensions with an id that fits the one-byte form.
    pub extensions: Vec<(u8, String)>,
    /// Layers of a simulcast offer, `a=rid:… send`, in the order of `a=simulcast:send`.
    pub send_rids: Vec<String>,
    /// `a=ssrc` and `a=ssrc-group` lines without `a=`.
    pub ssrc_lines: Vec<String>,
    /// `a=msid`, as offered.
    pub msid: Option<String>,
    /// Port 0 without `a=bundle-only`: the offerer has switched the line off.
    pub disabled: bool,
}

impl OfferedMedia {
    /// Audio or video, [`None`] for anything else.
    pub fn media_kind(&self) -> Option<MediaKind> {
        match self.kind {
            LineKind::Media(kind) => Some(kind),
            LineKind::Other => None,
        }
    }

    /// The id offered for a header extension.
    pub fn extension_id(&self, uri: &str) -> Option<u8> {
        self.extensions.iter().find(|(_, u)| u == uri).map(|(id, _)| *id)
    }
}

/// A parsed offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// The m-lines in order.
    pub media: Vec<OfferedMedia>,
    /// Mids of the BUNDLE group, in order.
    pub bundle: Vec<String>,
    /// ICE user name fragment.
    pub ufrag: String,
    /// ICE password.
    pub pwd: String,
    /// `sha-256` or another name, and the digest.
    pub fingerprint: (String, Vec<u8>),
    /// DTLS role.
    pub setup: Setup,
    /// Whether `a=extmap-allow-mixed` was offered.
    pub extmap_allow_mixed: bool,
}

/// Attributes of the session or of one m-line, before they are given meaning.
#[derive(Default)]
struct Section<'a> {
    m_line: &'a str,
    attributes: Vec<&'a str>,
}

impl<'a> Section<'a> {
    fn values(&self, name: &'static str) -> impl Iterator<Item = &'a str> {
        self.attributes.iter().filter_map(move |a| a.strip_prefix(name)?.strip_prefix(':'))
    }

    fn value(&self, name: &'static str) -> Option<&'a str> {
        self.values(name).next().map(str::trim)
    }

    fn has(&self, name: &str) -> bool {
        self.attributes.contains(&name)
    }

    fn direction(&self) -> Result<Option<Direction>, OfferError> {
        let mut all = self.attributes.iter().filter_map(|a| Direction::parse(a));
        match (all.next(), all.next()) {
            (first, None) => Ok(first),
            _ => error(format!("\"m={}\" has more than one direction", self.m_line)),
        }
    }
}

impl Offer {
    /// Parses an SDP offer.
    ///
    /// # Errors
    /// What is missing or malformed, in words for the person who runs the client.
    pub fn parse(text: &str) -> Result<Offer, OfferError> {
        let (session, sections) = split(text)?;
        if sections.is_empty() {
            return error("the offer has no m-line");
        }
        if sections.len() > MAX_MEDIA {
            return error(format!("the offer has {} m-lines, {MAX_MEDIA} are allowed", sections.len()));
        }
        let bundle: Vec<String> = session
            .values("group")
            .find_map(|g| g.trim().strip_prefix("BUNDLE"))
            .map(|mids| mids.split_whitespace().map(str::to_owned).collect())
            .unwrap_or_default();
        if bundle.is_empty() && sections.len() > 1 {
            return error("a=group:BUNDLE is missing: all m-lines have to share one transport");
        }
        let session_direction = session.direction()?;
        let mut media = Vec::with_capacity(sections.len());
        for section in &sections {
            let line = parse_media(section, session_direction)?;
            if media.iter().any(|m: &OfferedMedia| m.mid == line.mid) {
                return error(format!("a=mid:{} stands on two m-lines", line.mid));
            }
            media.push(line);
        }
        let (ufrag, pwd) = ice_credentials(&session, &sections)?;
        let value = |name| session.value(name).or_else(|| sections.iter().find_map(|s| s.value(name)));
        let setup = match value("setup") {
            None | Some("actpass") => Setup::ActPass,
            Some("active") => Setup::Active,
            Some("passive") => Setup::Passive,
            Some(other) => return error(format!("a=setup:{other} is not an offer's role")),
        };
        if session.has("ice-lite") {
            return error("both sides are ICE-lite: nobody would start the connectivity checks");
        }
        Ok(Offer {
            media,
            bundle,
            ufrag,
            pwd,
            fingerprint: fingerprint(&session, &sections)?,
            setup,
            extmap_allow_mixed: session.has("extmap-allow-mixed")
                || sections.iter().any(|s| s.has("extmap-allow-mixed")),
        })
    }
}

fn split(text: &str) -> Result<(Section<'_>, Vec<Section<'_>>), OfferError> {
    if text.trim().is_empty() {
        return error("the offer is empty");
    }
    if text.contains('\0') {
        return error("the offer holds a NUL byte");
    }
    let mut session = Section::default();
    let mut sections: Vec<Section<'_>> = Vec::new();
    let mut lines = text.lines().map(str::trim_end).filter(|l| !l.is_empty());
    if lines.next().map(str::trim_start) != Some("v=0") {
        return error("the offer does not begin with \"v=0\"");
    }
    for (number, line) in lines.enumerate() {
        if number >= MAX_LINES {
            return error(format!("the offer has more than {MAX_LINES} lines"));
        }
        if line.len() > MAX_LINE_BYTES {
            return error(format!("a line of the offer is longer than {MAX_LINE_BYTES} bytes"));
        }
        let Some((name, value)) = line.split_once('=') else {
            return error(format!("not an SDP line: \"{}\"", line.chars().take(40).collect::<String>()));
        };
        match name {
            "m" => sections.push(Section { m_line: value, attributes: Vec::new() }),
            "a" => sections.last_mut().unwrap_or(&mut session).attributes.push(value),
            _ => {}
        }
    }
    Ok((session, sections))
}

fn ice_credentials(session: &Section<'_>, sections: &[Section<'_>]) -> Result<(String, String), OfferError> {
    let value = |name| session.value(name).or_else(|| sections.iter().find_map(|s| s.value(name)));
    let (Some(ufrag), Some(pwd)) = (value("ice-ufrag"), value("ice-pwd")) else {
        return error("a=ice-ufrag and a=ice-pwd are missing");
    };
    check_ice_credentials(ufrag, pwd)?;
    Ok((ufrag.to_owned(), pwd.to_owned()))
}

/// RFC 8839 §5.4: 4 to 256 and 22 to 256 `ice-char`s. `-` and `_` come from encoders that use URL-safe base64.
pub(super) fn check_ice_credentials(ufrag: &str, pwd: &str) -> Result<(), OfferError> {
    let ice_chars = |s: &str| s.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/-_=".contains(&b));
    if !(4..=256).contains(&ufrag.len()) || !ice_chars(ufrag) {
        return error("a=ice-ufrag has to be 4 to 256 letters, digits, + or /");
    }
    if !(22..=256).contains(&pwd.len()) || !ice_chars(pwd) {
        return error("a=ice-pwd has to be 22 to 256 letters, digits, + or /");
    }
    Ok(())
}

fn fingerprint(session: &Section<'_>, sections: &[Section<'_>]) -> Result<(String, Vec<u8>), OfferError> {
    let all: Vec<&str> =
        session.values("fingerprint").chain(sections.iter().flat_map(|s| s.values("fingerprint"))).collect();
    // RFC 8122 §5: several hash functions may be offered, SHA-256 has to be understood.
    let Some(text) = all.iter().find(|f| f.to_ascii_lowercase().starts_with("sha-256 ")).or(all.first()) else {
        return error("a=fingerprint is missing");
    };
    let parsed = text.trim().split_once(' ').and_then(|(hash, hex)| {
        let bytes: Option<Vec<u8>> = hex.trim().split(':').map(|b| u8::from_str_radix(b, 16).ok()).collect();
        Some((hash.to_ascii_lowercase(), bytes?))
    });
    match parsed {
        Some((hash, bytes)) if hash == "sha-256" && bytes.len() == 32 => Ok((hash, bytes)),
        Some((hash, bytes)) if hash == "sha-1" && bytes.len() == 20 => Ok((hash, bytes)),
        _ => error(format!("a=fingerprint:{} is not a sha-256 fingerprint", text.chars().take(40).collect::<String>())),
    }
}

fn parse_media(section: &Section<'_>, session_direction: Option<Direction>) -> Result<OfferedMedia, OfferError> {
    let words: Vec<String> = section.m_line.split_whitespace().map(str::to_owned).collect();
    let [name, port, protocol, ..] = words.as_slice() else {
        return error(format!("\"m={}\" is cut short", section.m_line));
    };
    let Ok(port) = port.split('/').next().unwrap_or_default().parse::<u16>() else {
        return error(format!("\"m={}\" has no port", section.m_line));
    };
    let mid = match section.value("mid") {
        Some(mid) if !mid.is_empty() && mid.len() <= 64 && !mid.contains(char::is_whitespace) => mid.to_owned(),
        Some(mid) => return error(format!("a=mid:{mid} is not a token of at most 64 characters")),
        None => return error(format!("\"m={}\" has no a=mid", section.m_line)),
    };
    // UDP/TLS/RTP/SAVPF and its relatives (RFC 8835 §5.1 asks to accept them all), never plain RTP/AVP.
    let secure_rtp = protocol.contains("RTP/SAVP");
    let kind = match name.as_str() {
        "audio" if secure_rtp => LineKind::Media(MediaKind::Audio),
        "video" if secure_rtp => LineKind::Media(MediaKind::Video),
        _ => LineKind::Other,
    };
    let mut media = OfferedMedia {
        direction: section.direction()?.or(session_direction).unwrap_or(Direction::SendRecv),
        disabled: port == 0 && !section.has("bundle-only"),
        mid,
        kind,
        codecs: Vec::new(),
        unknown_codecs: Vec::new(),
        extensions: Vec::new(),
        send_rids: Vec::new(),
        ssrc_lines: Vec::new(),
        msid: section.value("msid").map(str::to_owned),
        words,
    };
    if media.media_kind().is_some() && !media.disabled {
        parse_codecs(section, &mut media)?;
        parse_extensions(section, &mut media);
        media.send_rids = send_rids(section);
        let is_ssrc = |a: &&&str| a.starts_with("ssrc:") || a.starts_with("ssrc-group:");
        media.ssrc_lines = section.attributes.iter().filter(is_ssrc).take(64).map(|a| (*a).to_owned()).collect();
    }
    Ok(media)
}

fn parse_codecs(section: &Section<'_>, media: &mut OfferedMedia) -> Result<(), OfferError> {
    let mut rtx: Vec<(u8, u8)> = Vec::new();
    let mut seen = [false; 128];
    for word in media.words[3..].iter().take(128) {
        let Some(pt) = word.parse::<u8>().ok().filter(|pt| *pt < 128) else {
            return error(format!("payload type {word} of \"m={}\" is not in 0..=127", media.words[0]));
        };
        if std::mem::replace(&mut seen[usize::from(pt)], true) {
            continue;
        }
        let by_pt = |name| {
            section.values(name).find_map(|v| {
                let (number, rest) = v.trim().split_once(' ')?;
                (number.parse() == Ok(pt)).then(|| rest.trim())
            })
        };
        let Some(rtpmap) = by_pt("rtpmap").or_else(|| static_rtpmap(pt)) else {
            return error(format!("a=rtpmap of payload type {pt} is missing"));
        };
        let fmtp = by_pt("fmtp").unwrap_or_default();
        let mut parts = rtpmap.split('/');
        let name = parts.next().unwrap_or_default();
        let Some(clock_hz) = parts.next().and_then(|c| c.trim().parse::<u32>().ok()).filter(|c| *c > 0) else {
            return error(format!("a=rtpmap:{pt} {rtpmap} has no clock rate"));
        };
        if name.eq_ignore_ascii_case("rtx") {
            rtx.extend(parameter(fmtp, "apt").and_then(|apt| apt.parse().ok()).map(|apt: u8| (apt, pt)));
            continue;
        }
        let known = Codec::from_rtp_name(name).filter(|c| Some(c.kind()) == media.media_kind());
        let Some(codec) = known else {
            media.unknown_codecs.push(name.to_owned());
            continue;
        };
        let feedback = section.values("rtcp-fb").filter_map(|v| {
            let (number, rest) = v.trim().split_once(' ')?;
            (number == "*" || number.parse() == Ok(pt)).then(|| rest.trim().to_owned())
        });
        media.codecs.push(OfferedCodec {
            pt,
            codec,
            rtpmap: rtpmap.to_owned(),
            clock_hz,
            channels: parts.next().and_then(|c| c.trim().parse().ok()),
            fmtp: fmtp.to_owned(),
            rtx: None,
            feedback: feedback.take(MAX_FEEDBACK).collect(),
        });
    }
    for (apt, pt) in rtx {
        if let Some(codec) = media.codecs.iter_mut().find(|c| c.pt == apt && c.rtx.is_none()) {
            codec.rtx = Some(pt);
        }
    }
    Ok(())
}

/// RFC 3551 §6: types that need no `a=rtpmap`.
fn static_rtpmap(pt: u8) -> Option<&'static str> {
    Some(match pt {
        0 => "PCMU/8000",
        8 => "PCMA/8000",
        9 => "G722/8000",
        13 => "CN/8000",
        _ => return None,
    })
}

fn parse_extensions(section: &Section<'_>, media: &mut OfferedMedia) {
    for value in section.values("extmap") {
        let mut words = value.split_whitespace();
        let (Some(id), Some(uri)) = (words.next(), words.next()) else { continue };
        let id = id.split('/').next().unwrap_or_default().parse::<u8>().unwrap_or(0);
        let free = !media.extensions.iter().any(|(i, u)| *i == id || u == uri);
        if (1..=MAX_EXTENSION_ID).contains(&id) && free {
            media.extensions.push((id, uri.to_owned()));
        }
    }
}

/// RFC 8853 §5.1: `a=simulcast:send q;h;f`, alternatives separated by commas, `~` marks a paused layer.
fn send_rids(section: &Section<'_>) -> Vec<String> {
    let declared = |rid: &str| {
        section.values("rid").any(|v| {
            let mut words = v.split_whitespace();
            words.next() == Some(rid) && words.next() == Some("send")
        })
    };
    let Some(simulcast) = section.value("simulcast") else { return Vec::new() };
    let words: Vec<&str> = simulcast.split_whitespace().collect();
    let Some(list) = words.iter().position(|w| *w == "send").and_then(|i| words.get(i + 1)) else {
        return Vec::new();
    };
    let firsts = list.split(';').take(MAX_LAYERS).filter_map(|alternatives| alternatives.split(',').next());
    firsts.map(|rid| rid.trim_start_matches('~')).filter(|rid| declared(rid)).map(str::to_owned).collect()
}

/// The value of a format parameter, names compared without case.
pub(crate) fn parameter<'a>(fmtp: &'a str, name: &str) -> Option<&'a str> {
    fmtp.split(';').find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim())
    })
}
