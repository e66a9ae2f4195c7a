//! The configuration: a TOML file, environment variables over it, and defaults under it.
//!
//! Loading is pure (text and variables in, checked values or all errors out) and goes in two steps: `raw` holds what was
//! typed, `check` makes the values the program uses. `conf/freshet.toml` is the manual: it shows every key at its default,
//! and a test holds it to that.

mod check;
mod error;
mod load;
mod net;
mod raw;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use freshet_bridge::crossing::BFrames;
use freshet_media::{Codec, GopLimits};

use crate::candidates::CandidateAddr;
use crate::forward::ForwardSettings;
use crate::hls::HlsSettings;
use crate::hooks::HookSettings;
use crate::record::RecordSettings;
use crate::signaling::SignalingSettings;

pub(crate) use load::{Loaded, load};
pub(crate) use net::IpBlock;

/// Everything that can be set, checked.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Config {
    /// `[http]`
    pub(crate) http: Http,
    /// `[https]`
    pub(crate) https: Https,
    /// `[rtc]`
    pub(crate) rtc: Rtc,
    /// `[rtmp]`
    pub(crate) rtmp: Rtmp,
    /// `[http_flv]`
    pub(crate) http_flv: HttpFlv,
    /// `[hls]`; [`None`] when it is off.
    pub(crate) hls: Option<HlsSettings>,
    /// `[record]`; [`None`] when it is off.
    pub(crate) record: Option<RecordSettings>,
    /// `[hooks]`
    pub(crate) hooks: HookSettings,
    /// `[rtmp2rtc]`
    pub(crate) rtmp2rtc: Rtmp2Rtc,
    /// `[rtc2rtmp]`
    pub(crate) rtc2rtmp: Rtc2Rtmp,
    /// `[signaling]`; [`None`] when it is off.
    pub(crate) signaling: Option<SignalingSettings>,
    /// `[forward]`
    pub(crate) forward: ForwardSettings,
    /// `[gop_cache]`
    pub(crate) gop_cache: GopLimits,
    /// `[publish]`
    pub(crate) publish: Publish,
    /// `[play]`
    pub(crate) play: Play,
    /// `[log]`
    pub(crate) log: Log,
    /// `[shutdown]`
    pub(crate) shutdown: Shutdown,
}

/// Pages, WHIP, WHEP and the API in the clear.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Http {
    /// Where to listen. `[::]` stands for all addresses of both families; the listener falls back to `0.0.0.0` on a host
    /// without IPv6.
    pub(crate) listen: Vec<SocketAddr>,
    /// The origin whose pages may call us from a browser; `*` for every one, empty for none but our own.
    pub(crate) allow_origin: String,
    /// Whose `X-Forwarded-For` is believed.
    pub(crate) trusted_proxies: Vec<IpBlock>,
    /// Longest request body.
    pub(crate) max_body_bytes: usize,
    /// Connections at a time, over all TCP listeners.
    pub(crate) max_connections: usize,
}

/// The same over TLS.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Https {
    /// Whether to listen for it.
    pub(crate) enabled: bool,
    /// Where to listen; `[::]` as for HTTP.
    pub(crate) listen: Vec<SocketAddr>,
    /// PEM files; [`None`] for the self-signed certificate.
    pub(crate) files: Option<CertificateFiles>,
    /// Further names for the self-signed certificate.
    pub(crate) names: Vec<String>,
}

/// A certificate of the operator's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CertificateFiles {
    /// PEM chain, the server's own certificate first.
    pub(crate) certificate: PathBuf,
    /// PEM private key.
    pub(crate) key: PathBuf,
}

/// Media.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rtc {
    /// UDP, and TCP when [`Rtc::tcp`]; `[::]` as for HTTP.
    pub(crate) listen: SocketAddr,
    /// ICE over TCP as well.
    pub(crate) tcp: bool,
    /// Media threads; 0 is one per core.
    pub(crate) shards: usize,
    /// Addresses that viewers and publishers reach us at, in the order of preference.
    pub(crate) candidates: Vec<CandidateAddr>,
    /// Whether to offer the addresses of the local interfaces.
    pub(crate) interfaces: bool,
    /// A session without packets for so long is over.
    pub(crate) session_timeout: Duration,
    /// A session that has not connected within this is over.
    pub(crate) connect_timeout: Duration,
    /// Sessions at a time.
    pub(crate) max_sessions: usize,
    /// Video codec that publishers are steered to; [`None`] follows their own order.
    pub(crate) prefer_codec: Option<Codec>,
    /// Told to clients in `Link` headers.
    pub(crate) ice_servers: Vec<IceServer>,
}

/// A STUN or TURN server for the clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IceServer {
    /// `stun:`, `stuns:`, `turn:` or `turns:` URLs.
    pub(crate) urls: Vec<String>,
    /// For TURN, else empty.
    pub(crate) username: String,
    /// For TURN, else empty.
    pub(crate) credential: String,
}

/// RTMP, and RTMPS on every port that speaks TLS.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rtmp {
    /// Whether RTMP is spoken, on whatever port.
    pub(crate) enabled: bool,
    /// Where to listen for it; `[::]` as for HTTP.
    pub(crate) listen: Vec<SocketAddr>,
    /// Connections at a time.
    pub(crate) max_connections: usize,
    /// A publisher that has sent nothing for so long is over.
    pub(crate) publish_timeout: Duration,
}

/// FLV over HTTP and WebSocket.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct HttpFlv {
    /// Whether `/app/stream.flv` is answered.
    pub(crate) enabled: bool,
}

/// RTMP publishers to WebRTC viewers.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rtmp2Rtc {
    /// Whether WebRTC viewers may watch streams that are published over RTMP.
    pub(crate) enabled: bool,
    /// What becomes of B-frames.
    pub(crate) bframes: BFrames,
    /// Bit rate of the Opus that AAC and MP3 become.
    pub(crate) opus_bitrate_bps: u32,
    /// How long a crossing goes on after its last viewer.
    pub(crate) linger: Duration,
}

/// WebRTC publishers to everybody else.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rtc2Rtmp {
    /// Whether players of frames may play streams that are published over WebRTC.
    pub(crate) enabled: bool,
    /// What Opus becomes.
    pub(crate) audio: CrossedAudio,
    /// Bit rate of the AAC that Opus becomes.
    pub(crate) aac_bitrate_bps: u32,
    /// How often the publisher is asked for a keyframe, at which players start and segments begin.
    pub(crate) keyframe_interval: Duration,
    /// How long a crossing goes on after its last player.
    pub(crate) linger: Duration,
}

/// What becomes of a WebRTC publisher's Opus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CrossedAudio {
    /// AAC, which everybody plays.
    Aac,
    /// It stays what it is, for players of Enhanced RTMP.
    Opus,
}

/// Rules for publishers.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Publish {
    /// What happens when a second one comes.
    pub(crate) takeover: Takeover,
    /// When a publisher counts as silent.
    pub(crate) silent_after: Duration,
    /// When not empty, one of these must be shown.
    pub(crate) tokens: Vec<String>,
}

/// What happens when a second publisher comes for a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Takeover {
    /// The second gets 409.
    Reject,
    /// The second takes the stream over.
    Replace,
    /// The second takes the stream over when no packet came from the first for [`Publish::silent_after`].
    ReplaceIfSilent,
}

/// Rules for viewers.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Play {
    /// What happens when nobody publishes the stream.
    pub(crate) when_absent: WhenAbsent,
    /// `Retry-After` of the refusal, in whole seconds.
    pub(crate) retry_after_seconds: u32,
    /// When not empty, one of these must be shown.
    pub(crate) tokens: Vec<String>,
}

/// What happens to a viewer of a stream that nobody publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WhenAbsent {
    /// It is connected and waits.
    Wait,
    /// It gets 409.
    Refuse,
}

/// Logging.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Log {
    /// Of our own crates; libraries speak from `warn` on.
    pub(crate) level: LogLevel,
    /// Text or JSON lines.
    pub(crate) format: LogFormat,
}

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogLevel {
    /// Nothing.
    Off,
    /// What is broken.
    Error,
    /// What somebody should look at.
    Warn,
    /// Sessions and streams that come and go.
    Info,
    /// Conditional detail.
    Debug,
    /// Every packet.
    Trace,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Ending.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Shutdown {
    /// How long SIGQUIT waits for running sessions.
    pub(crate) drain: Duration,
}

impl Default for Config {
    fn default() -> Config {
        check::defaults()
    }
}
