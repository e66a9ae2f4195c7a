//! Which sessions and streams there are, as the outside sees them.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use ahash::AHashMap;
use freshet_media::StreamKey;
use freshet_sfu::sdp::{Negotiated, OfferedCodec};
use freshet_sfu::{CloseReason, Credentials, Format, SessionId, SessionStatus, best_match};

use super::types::{Role, SessionToken};

/// One session.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) id: SessionId,
    pub(super) token: SessionToken,
    pub(super) client_id: String,
    pub(super) role: Role,
    pub(super) key: StreamKey,
    pub(super) opened: Instant,
    pub(super) client: Client,
    pub(super) negotiated: Negotiated,
    pub(super) status: Arc<SessionStatus>,
    pub(super) ice: Ice,
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

impl Record {
    /// The entity tag names the ICE session by our user name fragment, which is drawn anew at every restart.
    pub(super) fn etag(&self) -> String {
        format!("\"{}\"", self.ice.local.ufrag)
    }

    /// Formats that a publisher may send, by kind: the one that arrives, or all that were negotiated.
    fn formats(&self) -> impl Iterator<Item = (freshet_media::MediaKind, Vec<Format>)> {
        self.negotiated.media.iter().map(|media| {
            let arriving = self.status.tracks[usize::from(media.kind == freshet_media::MediaKind::Video)].format();
            let formats = media.codecs.iter().map(Format::new).enumerate();
            (media.kind, formats.filter(|(i, _)| arriving.is_none_or(|a| a == *i)).map(|(_, f)| f).collect())
        })
    }
}

/// One stream.
#[derive(Debug)]
pub(super) struct StreamRecord {
    pub(super) id: String,
    pub(super) publisher: Option<SessionId>,
    pub(super) live_since: Option<Instant>,
    pub(super) viewers: usize,
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
    pub(super) closed: AHashMap<CloseReason, u64>,
    pub(super) refused: AHashMap<&'static str, u64>,
}

/// A publisher's codecs and a viewer's, where they have nothing in common.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mismatch {
    pub(super) kind: freshet_media::MediaKind,
    pub(super) published: String,
    pub(super) offered: String,
}

impl Registry {
    pub(super) fn by_token(&self, token: &SessionToken) -> Option<&Record> {
        self.sessions.get(self.by_token.get(token)?)
    }

    pub(super) fn by_token_mut(&mut self, token: &SessionToken) -> Option<&mut Record> {
        self.sessions.get_mut(self.by_token.get(token)?)
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
            past_sent_bytes: 0,
        });
        match record.role {
            Role::Publish => (stream.publisher, stream.live_since) = (Some(record.id), Some(record.opened)),
            Role::Play => stream.viewers += 1,
        }
        self.opened += 1;
        self.by_token.insert(record.token.clone(), record.id);
        self.by_client.insert(record.client_id.clone(), record.id);
        self.sessions.insert(record.id, record);
    }

    /// Removes a session, and its stream with the last one.
    pub(super) fn remove(&mut self, id: SessionId, reason: CloseReason) -> Option<Record> {
        let record = self.sessions.remove(&id)?;
        *self.closed.entry(reason).or_default() += 1;
        self.by_token.remove(&record.token);
        self.by_client.remove(&record.client_id);
        if let Some(stream) = self.streams.get_mut(&record.key) {
            match record.role {
                Role::Publish if stream.publisher == Some(id) => (stream.publisher, stream.live_since) = (None, None),
                Role::Publish => {}
                Role::Play => {
                    stream.viewers = stream.viewers.saturating_sub(1);
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
        publisher.formats().find_map(|(kind, formats)| {
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
