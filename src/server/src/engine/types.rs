//! What the HTTP side and the media side say to each other.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use freshet_media::{Codec, MediaKind, StreamKey};

/// What a WebRTC session does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Role {
    /// Sends media to us (WHIP).
    Publish,
    /// Receives media from us (WHEP).
    Play,
}

/// What a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Protocol {
    /// WHIP and WHEP, or SRS's calls.
    WebRtc,
    /// RTMP or RTMPS.
    Rtmp,
    /// FLV over HTTP.
    HttpFlv,
    /// FLV over a WebSocket.
    WsFlv,
    /// HLS. All its viewers of a stream are one client.
    Hls,
    /// A recording.
    Record,
    /// RTMP to another server, to which we publish.
    Forward,
    /// One picture, for whoever asks over HTTP.
    Snapshot,
}

impl Protocol {
    /// A label for logs, listings and metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Protocol::WebRtc => "webrtc",
            Protocol::Rtmp => "rtmp",
            Protocol::HttpFlv => "http-flv",
            Protocol::WsFlv => "ws-flv",
            Protocol::Hls => "hls",
            Protocol::Record => "record",
            Protocol::Forward => "forward",
            Protocol::Snapshot => "snapshot",
        }
    }

    /// Scheme of the addresses that SRS's `tcUrl` names.
    pub(crate) fn scheme(self) -> &'static str {
        match self {
            Protocol::WebRtc => "webrtc",
            Protocol::Rtmp | Protocol::Forward => "rtmp",
            Protocol::HttpFlv | Protocol::WsFlv | Protocol::Hls | Protocol::Snapshot => "http",
            Protocol::Record => "file",
        }
    }
}

/// A client of the frame plane that asks to publish or play. It has passed the authorisation checks.
#[derive(Debug, Clone)]
pub(crate) struct LiveRequest {
    /// Which stream.
    pub(crate) key: StreamKey,
    /// How it speaks.
    pub(crate) protocol: Protocol,
    /// The other end of its connection.
    pub(crate) peer: SocketAddr,
    /// Where the request came from (after trusted proxies).
    pub(crate) client_ip: IpAddr,
    /// `User-Agent`, or `flashVer`.
    pub(crate) user_agent: String,
}

/// The secret name of a session: who knows it may change or end it. 22 characters of `A-Za-z0-9_-`, 128 random bits.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct SessionToken(pub(super) String);

impl SessionToken {
    /// Takes a token out of a URL. Any text is accepted; an unknown one finds nothing.
    pub(crate) fn from_url(text: &str) -> SessionToken {
        SessionToken(text.to_owned())
    }

    /// For the session's own URL only; never for logs or listings.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SessionToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionToken(…)")
    }
}

/// A client that asks to publish or play. It has passed the authorisation checks.
#[derive(Debug, Clone)]
pub(crate) struct OpenRequest {
    /// Publish or play.
    pub(crate) role: Role,
    /// Which stream.
    pub(crate) key: StreamKey,
    /// The SDP offer, as received.
    pub(crate) offer: String,
    /// Where the request came from (after trusted proxies).
    pub(crate) client_ip: IpAddr,
    /// `User-Agent`, for logs and listings.
    pub(crate) user_agent: String,
    /// The local address on which the HTTP request arrived: the likeliest candidate of all.
    pub(crate) local_ip: IpAddr,
    /// Host part of the URL that the client used, without port (a name or an address).
    pub(crate) host: Option<String>,
    /// `?eip=` / `?candidate=`: further addresses (`ip` or `ip:port`) for the answer.
    pub(crate) extra_candidates: Vec<String>,
    /// `?codec=`: the video codec that a publisher should be steered to.
    pub(crate) prefer_codec: Option<Codec>,
    /// `?ice-ufrag=&ice-pwd=`: server credentials chosen by a proxy (SRS).
    pub(crate) ice_credentials: Option<(String, String)>,
}

/// A session that has been accepted.
#[derive(Debug, Clone)]
pub(crate) struct Opened {
    /// Names the session in its URL.
    pub(crate) token: SessionToken,
    /// The SDP answer.
    pub(crate) answer: String,
    /// Entity tag of the ICE session, quoted, ready for the `ETag` header.
    pub(crate) etag: String,
    /// `server-ufrag:client-ufrag`, SRS's session id.
    pub(crate) ice_session: String,
}

/// Why a request is not granted. Becomes an RFC 9457 problem document, or an SRS code, and one line of log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// HTTP status.
    pub(crate) status: u16,
    /// The error code that SRS uses for the case.
    pub(crate) code: u32,
    /// Short name of the case, stable: `stream-busy`, `codec-mismatch`.
    pub(crate) kind: &'static str,
    /// What went wrong, with the values that matter.
    pub(crate) detail: String,
    /// What to do about it.
    pub(crate) hint: String,
    /// Seconds for `Retry-After`.
    pub(crate) retry_after_seconds: Option<u32>,
}

impl Refusal {
    /// A refusal without `Retry-After`.
    pub(crate) fn new(
        status: u16,
        code: u32,
        kind: &'static str,
        detail: impl Into<String>,
        hint: impl Into<String>,
    ) -> Refusal {
        Refusal { status, code, kind, detail: detail.into(), hint: hint.into(), retry_after_seconds: None }
    }

    /// Adds `Retry-After`.
    pub(crate) fn retry_after(mut self, seconds: u32) -> Refusal {
        self.retry_after_seconds = Some(seconds);
        self
    }
}

/// What a `PATCH` with an SDP fragment did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Patched {
    /// Candidates were taken note of: 204.
    Trickled,
    /// ICE was restarted: 200 with this fragment and this new entity tag.
    Restarted {
        /// `application/trickle-ice-sdpfrag` body.
        fragment: String,
        /// New quoted entity tag.
        etag: String,
    },
}

/// A stream that has a publisher.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Published {
    /// Its name.
    pub(crate) key: StreamKey,
    /// The publisher's client id: another one is another publication.
    pub(crate) publisher: String,
}

/// One stream, for listings.
#[derive(Debug, Clone)]
pub(crate) struct StreamSnapshot {
    /// Stable short id while the stream lives.
    pub(crate) id: String,
    /// Its name.
    pub(crate) key: StreamKey,
    /// The publisher's client id, while one is there.
    pub(crate) publisher: Option<String>,
    /// Since when the present publisher is there.
    pub(crate) live_for: Option<Duration>,
    /// Number of viewers, connected or connecting.
    pub(crate) viewers: usize,
    /// What the publisher speaks.
    pub(crate) protocol: Option<Protocol>,
    /// The crossing from frames to RTP, while it runs.
    pub(crate) crossing: Option<CrossingSnapshot>,
    /// Tracks of the publisher.
    pub(crate) tracks: Vec<TrackSnapshot>,
    /// Video frames received.
    pub(crate) frames: u64,
    /// Bytes received from the publisher.
    pub(crate) recv_bytes: u64,
    /// Bytes sent to all viewers, past and present.
    pub(crate) send_bytes: u64,
    /// Mean received bit rate over the last seconds.
    pub(crate) recv_bps: u64,
    /// Mean sent bit rate over the last seconds.
    pub(crate) send_bps: u64,
    /// Ways to play it, and what stands against them. None without a publisher.
    pub(crate) outputs: Vec<OutputSnapshot>,
}

/// A way to play a stream, for listings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OutputSnapshot {
    /// `webrtc`, `rtmp`, `flv`, `hls` or `ll-hls`.
    pub(crate) name: &'static str,
    /// Why it does not exist, if so.
    pub(crate) obstacle: Option<String>,
    /// What is missing of it, if anything.
    pub(crate) lacks: Option<String>,
}

/// A running crossing, for listings.
#[derive(Debug, Clone)]
pub(crate) struct CrossingSnapshot {
    /// What is done to the picture: `pass`, `transcode`, `drop`.
    pub(crate) video: &'static str,
    /// Why, when it is not passed on as it is, or when it cannot be.
    pub(crate) note: Option<String>,
    /// Share of one core that it takes, in per cent.
    pub(crate) cpu_percent: f32,
}

/// One track of a stream.
#[derive(Debug, Clone)]
pub(crate) struct TrackSnapshot {
    /// Audio or video.
    pub(crate) kind: MediaKind,
    /// Its codec, once the first packet has told it.
    pub(crate) codec: Codec,
    /// RTP clock in Hz.
    pub(crate) clock_hz: u32,
    /// Format parameters as negotiated (`profile-level-id=…`), may be empty.
    pub(crate) fmtp: String,
    /// Channels, for audio.
    pub(crate) channels: u8,
    /// Width and height of the picture where the bit stream tells.
    pub(crate) size: Option<(u32, u32)>,
    /// Simulcast layers that arrive, 1 without simulcast.
    pub(crate) layers: usize,
}

/// One session, for listings.
#[derive(Debug, Clone)]
pub(crate) struct ClientSnapshot {
    /// Short public id, also for kicking.
    pub(crate) id: String,
    /// Publish or play.
    pub(crate) role: Role,
    /// What it speaks.
    pub(crate) protocol: Protocol,
    /// Its stream.
    pub(crate) key: StreamKey,
    /// Its id in [`StreamSnapshot::id`].
    pub(crate) stream_id: String,
    /// Where the request came from.
    pub(crate) ip: IpAddr,
    /// `User-Agent`.
    pub(crate) user_agent: String,
    /// How long it has existed.
    pub(crate) alive: Duration,
    /// ICE and DTLS are up.
    pub(crate) connected: bool,
    /// `udp` or `tcp` and the peer's address, once nominated.
    pub(crate) path: Option<(&'static str, SocketAddr)>,
    /// Bytes received from the peer.
    pub(crate) recv_bytes: u64,
    /// Bytes sent to the peer.
    pub(crate) send_bytes: u64,
    /// Mean received bit rate over the last seconds.
    pub(crate) recv_bps: u64,
    /// Mean sent bit rate over the last seconds.
    pub(crate) send_bps: u64,
    /// Round trip, where RTCP has told it.
    pub(crate) rtt: Option<Duration>,
    /// Loss of the media in per mille: as a viewer reports it, as we see it from a publisher.
    pub(crate) loss_permille: u32,
    /// NACKed packets: received from a viewer, sent to a publisher.
    pub(crate) nacks: u64,
    /// Keyframe requests: received from a viewer, sent to a publisher.
    pub(crate) plis: u64,
    /// How often a viewer's picture had to be thinned to what its link carries.
    pub(crate) budgets: u64,
}

/// Counters of one shard since start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ShardSnapshot {
    /// Sessions at home on the shard.
    pub(crate) sessions: u64,
    /// Datagrams received.
    pub(crate) recv_packets: u64,
    /// Bytes received.
    pub(crate) recv_bytes: u64,
    /// Datagrams sent.
    pub(crate) sent_packets: u64,
    /// Bytes sent.
    pub(crate) sent_bytes: u64,
    /// System calls that sent.
    pub(crate) send_calls: u64,
    /// RTP packets of publishers.
    pub(crate) published_packets: u64,
    /// RTP packets written for viewers, retransmissions left out.
    pub(crate) forwarded_packets: u64,
    /// RTP packets sent again.
    pub(crate) retransmitted_packets: u64,
    /// Packets for which viewers sent NACK.
    pub(crate) nacks: u64,
    /// Keyframe requests of viewers.
    pub(crate) keyframe_requests: u64,
    /// Keyframe requests sent to publishers.
    pub(crate) keyframe_requests_sent: u64,
    /// Viewers' pictures that were thinned to what their link carries.
    pub(crate) budgets: u64,
    /// Dropped: datagram from an address that has no session.
    pub(crate) drop_stranger: u64,
    /// Dropped: STUN that names no session or fails its integrity check.
    pub(crate) drop_stun: u64,
    /// Dropped: malformed or unauthenticated.
    pub(crate) drop_malformed: u64,
    /// Dropped: the socket or connection could not take it.
    pub(crate) drop_send: u64,
    /// Dropped: the ring to another shard was full.
    pub(crate) drop_relay: u64,
    /// Dropped: the viewer has no payload type for the codec.
    pub(crate) drop_codec: u64,
    /// Dropped: a crossing to frames did not take its batches fast enough.
    pub(crate) drop_tap: u64,
}

/// Everything `/metrics` needs.
#[derive(Debug, Clone, Default)]
pub(crate) struct MetricsSnapshot {
    /// One per shard.
    pub(crate) shards: Vec<ShardSnapshot>,
    /// Streams with a publisher.
    pub(crate) streams: usize,
    /// Publishing sessions.
    pub(crate) publishers: usize,
    /// Playing sessions.
    pub(crate) viewers: usize,
    /// Sessions by what they speak and do.
    pub(crate) by_protocol: Vec<(Protocol, Role, usize)>,
    /// Bytes received from RTMP publishers since start.
    pub(crate) live_recv_bytes: u64,
    /// Bytes sent to RTMP and FLV players since start.
    pub(crate) live_sent_bytes: u64,
    /// Running crossings to WebRTC, by what they do to the picture.
    pub(crate) crossings: Vec<(&'static str, usize)>,
    /// Sessions since start.
    pub(crate) sessions_opened: u64,
    /// Refused requests by kind of refusal.
    pub(crate) refused: Vec<(&'static str, u64)>,
    /// Ended sessions by reason.
    pub(crate) closed: Vec<(&'static str, u64)>,
}
