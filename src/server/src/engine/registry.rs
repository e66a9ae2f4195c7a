//! Which sessions and streams there are, as the outside sees them.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use ahash::AHashMap;
use freshet_media::{MediaKind, StreamKey};
use freshet_sfu::sdp::{Negotiated, OfferedCodec};
use freshet_sfu::{CloseReason, Credentials, Format, SessionId, SessionStatus, best_match};
use tokio::sync::watch;

use super::crossing::crossing_formats;
use super::types::{Protocol, Role, SessionToken};
use crate::live::LiveStream;

/// One session.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) id: SessionId,
    pub(super) client_id: String,
    pub(super) role: Role,
    pub(super) key: StreamKey,
    pub(super) opened: Instant,
    pub(super) client: Client,
    pub(super) status: Arc<SessionStatus>,
    pub(super) link: Link,
}

/// What ties a session to its client.
#[derive(Debug)]
pub(super) enum Link {
    /// A peer connection, on a shard.
    Rtc(Box<RtcLink>),
    /// A TCP connection of the frame plane.
    Live(LiveLink),
}

/// A WebRTC session.
#[derive(Debug)]
pub(super) struct RtcLink {
    pub(super) token: SessionToken,
    pub(super) negotiated: Negotiated,
    pub(super) ice: Ice,
}

/// A publisher or player of the frame plane.
#[derive(Debug)]
pub(super) struct LiveLink {
    pub(super) protocol: Protocol,
    pub(super) peer: SocketAddr,
    pub(super) stream: Arc<LiveStream>,
    /// Ends the connection.
    pub(super) end: watch::Sender<Option<CloseReason>>,
}

/// Who asked.
#[derive(Debug, Clone)]
pub(super) struct Client {
    pub(super) ip: IpAddr,
    pub(super) user_agent: String,
}

/// The ICE session of a record.
#[derive(Debug)]
pub(super) struct Ice {
    pub(super) remote_ufrag: String,
    pub(super) local: Credentials,
    pub(super) udp: Vec<SocketAddr>,
    pub(super) tcp: Vec<SocketAddr>,
}

impl RtcLink {
    /// The entity tag names the ICE session by our user name fragment, which is drawn anew at every restart.
    pub(super) fn etag(&self) -> String {
        format!("\"{}\"", self.ice.local.ufrag)
    }
}

impl Record {
    /// Its peer connection, if it has one.
    pub(super) fn rtc(&self) -> Option<&RtcLink> {
        match &self.link {
            Link::Rtc(link) => Some(link),
            Link::Live(_) => None,
        }
    }

    /// Its place in the frame plane, if it is there.
    pub(super) fn live(&self) -> Option<&LiveLink> {
        match &self.link {
            Link::Live(link) => Some(link),
            Link::Rtc(_) => None,
        }
    }

    /// What the client speaks.
    pub(super) fn protocol(&self) -> Protocol {
        self.live().map_or(Protocol::WebRtc, |link| link.protocol)
    }

    /// Formats in which a publisher's media reaches WebRTC viewers, by kind: the one that arrives, or all that were
    /// negotiated.
    fn formats(&self) -> Vec<(MediaKind, Vec<Format>)> {
        match &self.link {
            Link::Rtc(link) => link
                .negotiated
                .media
                .iter()
                .map(|media| {
                    let arriving = self.status.tracks[usize::from(media.kind == MediaKind::Video)].format();
                    let formats = media.codecs.iter().map(Format::new).enumerate();
                    (media.kind, formats.filter(|(i, _)| arriving.is_none_or(|a| a == *i)).map(|(_, f)| f).collect())
                })
                .collect(),
            Link::Live(link) => crossing_formats(&link.stream.tracks()),
        }
    }
}

/// A WebRTC session whose ICE is about to change.
pub(super) struct RtcSession<'a> {
    pub(super) id: SessionId,
    pub(super) key: &'a StreamKey,
    pub(super) client_id: &'a str,
    pub(super) link: &'a mut RtcLink,
}

/// One stream.
#[derive(Debug)]
pub(super) struct StreamRecord {
    pub(super) id: String,
    pub(super) publisher: Option<SessionId>,
    pub(super) live_since: Option<Instant>,
    pub(super) viewers: usize,
    /// Those of them that are WebRTC sessions.
    pub(super) rtc_viewers: usize,
    /// Bytes sent to viewers that have left.
    pub(super) past_sent_bytes: u64,
}

/// All of them. Streams without publisher and viewers are forgotten.
#[derive(Debug, Default)]
pub(super) struct Registry {
    pub(super) sessions: AHashMap<SessionId, Record>,
    by_token: AHashMap<SessionToken, SessionId>,
    by_client: AHashMap<String, SessionId>,
    pub(super) streams: AHashMap<StreamKey, StreamRecord>,
    pub(super) opened: u64,
    /// Bytes of sessions of the frame plane that have ended: received, sent.
    pub(super) past_live_bytes: (u64, u64),
    pub(super) closed: AHashMap<CloseReason, u64>,
    pub(super) refused: AHashMap<&'static str, u64>,
}

/// A publisher's codecs and a viewer's, where they have nothing in common.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mismatch {
    pub(super) kind: MediaKind,
    pub(super) published: String,
    pub(super) offered: String,
}

impl Registry {
    pub(super) fn by_token(&self, token: &SessionToken) -> Option<&Record> {
        self.sessions.get(self.by_token.get(token)?)
    }

    /// A session and its peer connection.
    pub(super) fn rtc_by_token(&mut self, token: &SessionToken) -> Option<RtcSession<'_>> {
        let record = self.sessions.get_mut(self.by_token.get(token)?)?;
        match &mut record.link {
            Link::Rtc(link) => Some(RtcSession { id: record.id, key: &record.key, client_id: &record.client_id, link }),
            Link::Live(_) => None,
        }
    }

    pub(super) fn by_client(&self, client_id: &str) -> Option<&Record> {
        self.sessions.get(self.by_client.get(client_id)?)
    }

    /// The publisher of a stream.
    pub(super) fn publisher(&self, key: &StreamKey) -> Option<&Record> {
        self.sessions.get(&self.streams.get(key)?.publisher?)
    }

    /// Enters a session and gives it its place in the stream.
    pub(super) fn insert(&mut self, record: Record, stream_id: impl FnOnce() -> String) {
        let stream = self.streams.entry(record.key.clone()).or_insert_with(|| StreamRecord {
            id: stream_id(),
            publisher: None,
            live_since: None,
            viewers: 0,
            rtc_viewers: 0,
            past_sent_bytes: 0,
        });
        match record.role {
            Role::Publish => (stream.publisher, stream.live_since) = (Some(record.id), Some(record.opened)),
            Role::Play => {
                stream.viewers += 1;
                stream.rtc_viewers += usize::from(record.rtc().is_some());
            }
        }
        self.opened += 1;
        if let Some(link) = record.rtc() {
            self.by_token.insert(link.token.clone(), record.id);
        }
        self.by_client.insert(record.client_id.clone(), record.id);
        self.sessions.insert(record.id, record);
    }

    /// Removes a session, and its stream with the last one.
    pub(super) fn remove(&mut self, id: SessionId, reason: CloseReason) -> Option<Record> {
        let record = self.sessions.remove(&id)?;
        *self.closed.entry(reason).or_default() += 1;
        if let Some(link) = record.rtc() {
            self.by_token.remove(&link.token);
        }
        self.by_client.remove(&record.client_id);
        if record.live().is_some() {
            self.past_live_bytes.0 += record.status.recv_bytes.value();
            self.past_live_bytes.1 += record.status.sent_bytes.value();
        }
        if let Some(stream) = self.streams.get_mut(&record.key) {
            match record.role {
                Role::Publish if stream.publisher == Some(id) => (stream.publisher, stream.live_since) = (None, None),
                Role::Publish => {}
                Role::Play => {
                    stream.viewers = stream.viewers.saturating_sub(1);
                    stream.rtc_viewers = stream.rtc_viewers.saturating_sub(usize::from(record.rtc().is_some()));
                    stream.past_sent_bytes += record.status.sent_bytes.value();
                }
            }
            if stream.publisher.is_none() && stream.viewers == 0 {
                self.streams.remove(&record.key);
            }
        }
        if self.sessions.capacity() > 64 && self.sessions.len() < self.sessions.capacity() / 4 {
            self.sessions.shrink_to_fit();
            self.by_token.shrink_to_fit();
            self.by_client.shrink_to_fit();
        }
        Some(record)
    }

    /// What keeps a viewer's offer from playing the stream's publisher: a kind that both have, and no codec for it.
    pub(super) fn mismatch(&self, key: &StreamKey, viewer: &Negotiated) -> Option<Mismatch> {
        let publisher = self.publisher(key)?;
        publisher.formats().into_iter().find_map(|(kind, formats)| {
            let offered: &[OfferedCodec] = &viewer.of_kind(kind)?.codecs;
            let fits = formats.iter().any(|f| best_match(f, offered).is_some() || is_unwrappable(f, offered));
            let names = |codecs: Vec<String>| {
                let mut names = codecs;
                names.dedup();
                names.join(", ")
            };
            (!fits && !formats.is_empty()).then(|| Mismatch {
                kind,
                published: names(formats.iter().map(|f| describe(&f.codec.to_string(), &f.fmtp)).collect()),
                offered: names(offered.iter().map(|c| describe(&c.codec.to_string(), &c.fmtp)).collect()),
            })
        })
    }
}

/// RED is unwrapped for viewers that have only what is in it.
fn is_unwrappable(format: &Format, offered: &[OfferedCodec]) -> bool {
    use freshet_media::Codec::{Opus, Red};
    format.codec == Red && offered.iter().any(|c| c.codec == Opus)
}

/// A codec with the parameter that tells its variants apart.
fn describe(name: &str, fmtp: &str) -> String {
    let telling = ["profile-level-id=", "profile-id=", "profile="];
    let found = fmtp.split(';').map(str::trim).find(|p| telling.iter().any(|t| p.starts_with(t)));
    found.map_or_else(|| name.to_owned(), |p| format!("{name} ({p})"))
}
