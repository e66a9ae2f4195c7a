//! The configuration as it is typed: one struct per section, plain types, defaults in code.
//!
//! Nothing is checked here beyond types; `check` turns these into the values that the rest of the program uses. The structs
//! are also the schema: the loader takes the names and types of all keys from their serialised default, so a key is
//! declared once.

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Raw {
    pub(super) http: RawHttp,
    pub(super) https: RawHttps,
    pub(super) rtc: RawRtc,
    pub(super) rtmp: RawRtmp,
    pub(super) http_flv: RawHttpFlv,
    pub(super) hls: RawHls,
    pub(super) record: RawRecord,
    pub(super) hooks: RawHooks,
    pub(super) rtmp2rtc: RawRtmp2Rtc,
    pub(super) rtc2rtmp: RawRtc2Rtmp,
    pub(super) signaling: RawSignaling,
    pub(super) forward: RawForward,
    pub(super) gop_cache: RawGopCache,
    pub(super) publish: RawPublish,
    pub(super) play: RawPlay,
    pub(super) log: RawLog,
    pub(super) shutdown: RawShutdown,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawHttp {
    pub(super) listen: Vec<String>,
    pub(super) allow_origin: String,
    pub(super) trusted_proxies: Vec<String>,
    pub(super) max_body_kb: i64,
    pub(super) max_connections: i64,
}

impl Default for RawHttp {
    fn default() -> RawHttp {
        RawHttp {
            // Players and tools written for SRS ask 1985, people with a browser 8080.
            listen: vec!["[::]:8080".to_owned(), "[::]:1985".to_owned()],
            allow_origin: "*".to_owned(),
            trusted_proxies: Vec::new(),
            max_body_kb: 256,
            max_connections: 10_000,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawHttps {
    pub(super) enabled: bool,
    pub(super) listen: Vec<String>,
    pub(super) certificate: String,
    pub(super) key: String,
    pub(super) names: Vec<String>,
}

impl Default for RawHttps {
    fn default() -> RawHttps {
        RawHttps {
            enabled: true,
            listen: vec!["[::]:8443".to_owned()],
            certificate: String::new(),
            key: String::new(),
            names: Vec::new(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawRtc {
    pub(super) listen: String,
    pub(super) tcp: bool,
    pub(super) shards: i64,
    pub(super) candidates: Vec<String>,
    pub(super) interfaces: bool,
    pub(super) session_timeout_seconds: i64,
    pub(super) connect_timeout_seconds: i64,
    pub(super) max_sessions: i64,
    pub(super) prefer_codec: String,
    pub(super) ice_servers: Vec<RawIceServer>,
}

impl Default for RawRtc {
    fn default() -> RawRtc {
        RawRtc {
            listen: "[::]:8000".to_owned(),
            tcp: true,
            shards: 0,
            candidates: Vec::new(),
            interfaces: true,
            session_timeout_seconds: 10,
            connect_timeout_seconds: 15,
            max_sessions: 20_000,
            prefer_codec: "h264".to_owned(),
            ice_servers: Vec::new(),
        }
    }
}

/// The short form is a URL alone, the long one is that of the browsers' `RTCIceServer`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "an ICE server is a text like \"stun:stun.example.org:3478\" or a table { urls = [\"turn:…\"], username = \"…\", credential = \"…\" }"
)]
pub(super) enum RawIceServer {
    Url(String),
    Full(RawFullIceServer),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawFullIceServer {
    pub(super) urls: Vec<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) username: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) credential: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawRtmp {
    pub(super) enabled: bool,
    pub(super) listen: Vec<String>,
    pub(super) max_connections: i64,
    pub(super) publish_timeout_seconds: i64,
}

impl Default for RawRtmp {
    fn default() -> RawRtmp {
        RawRtmp {
            enabled: true,
            listen: vec!["[::]:1935".to_owned()],
            max_connections: 10_000,
            publish_timeout_seconds: 15,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawHttpFlv {
    pub(super) enabled: bool,
}

impl Default for RawHttpFlv {
    fn default() -> RawHttpFlv {
        RawHttpFlv { enabled: true }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawHls {
    pub(super) enabled: bool,
    pub(super) always: bool,
    pub(super) fragment_seconds: f64,
    pub(super) td_ratio: f64,
    pub(super) aof_ratio: f64,
    pub(super) wait_keyframe: bool,
    pub(super) window_seconds: i64,
    pub(super) dispose_seconds: i64,
    pub(super) part_seconds: f64,
    pub(super) encrypt: bool,
    pub(super) segments_per_key: i64,
    pub(super) folder: String,
    pub(super) playlist_file: String,
    pub(super) segment_file: String,
    pub(super) key_url: String,
    pub(super) cleanup: bool,
}

impl Default for RawHls {
    fn default() -> RawHls {
        RawHls {
            enabled: true,
            always: false,
            fragment_seconds: 2.0,
            td_ratio: 1.0,
            aof_ratio: 2.1,
            wait_keyframe: true,
            window_seconds: 20,
            dispose_seconds: 30,
            part_seconds: 0.2,
            encrypt: false,
            // SRS's hls_fragments_per_key.
            segments_per_key: 5,
            folder: String::new(),
            playlist_file: "[app]/[stream].m3u8".to_owned(),
            segment_file: "[app]/[stream]-[seq].ts".to_owned(),
            key_url: String::new(),
            cleanup: true,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawRecord {
    pub(super) enabled: bool,
    pub(super) folder: String,
    pub(super) streams: Vec<String>,
    pub(super) format: String,
    pub(super) path: String,
    pub(super) plan: String,
    pub(super) segment_seconds: i64,
    pub(super) min_free_mb: i64,
    pub(super) republish_seconds: i64,
}

impl Default for RawRecord {
    fn default() -> RawRecord {
        RawRecord {
            enabled: false,
            folder: "recordings".to_owned(),
            streams: Vec::new(),
            format: "mp4".to_owned(),
            path: "[app]/[stream]/[2006]-[01]-[02]_[15]-[04]-[05]".to_owned(),
            plan: "session".to_owned(),
            segment_seconds: 600,
            min_free_mb: 500,
            republish_seconds: 30,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawHooks {
    pub(super) on_record: Vec<String>,
    pub(super) on_dvr: Vec<String>,
    pub(super) timeout_seconds: i64,
}

impl Default for RawHooks {
    fn default() -> RawHooks {
        RawHooks { on_record: Vec::new(), on_dvr: Vec::new(), timeout_seconds: 5 }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawRtmp2Rtc {
    pub(super) enabled: bool,
    pub(super) bframes: String,
    pub(super) opus_bitrate_kbps: i64,
    pub(super) linger_seconds: i64,
}

impl Default for RawRtmp2Rtc {
    fn default() -> RawRtmp2Rtc {
        RawRtmp2Rtc { enabled: true, bframes: "transcode".to_owned(), opus_bitrate_kbps: 96, linger_seconds: 10 }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawRtc2Rtmp {
    pub(super) enabled: bool,
    pub(super) audio: String,
    pub(super) aac_bitrate_kbps: i64,
    pub(super) keyframe_seconds: i64,
    pub(super) linger_seconds: i64,
}

impl Default for RawRtc2Rtmp {
    fn default() -> RawRtc2Rtmp {
        RawRtc2Rtmp {
            enabled: true,
            audio: "aac".to_owned(),
            aac_bitrate_kbps: 128,
            keyframe_seconds: 2,
            linger_seconds: 10,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawSignaling {
    pub(super) enabled: bool,
    pub(super) max_rooms: i64,
    pub(super) max_people: i64,
    pub(super) max_sockets: i64,
    pub(super) max_sockets_per_ip: i64,
    pub(super) tokens: Vec<String>,
}

impl Default for RawSignaling {
    fn default() -> RawSignaling {
        let lobby = freshet_signaling::Settings::default();
        RawSignaling {
            enabled: true,
            max_rooms: lobby.max_rooms as i64,
            max_people: lobby.max_people as i64,
            max_sockets: 10_000,
            // An office behind one address.
            max_sockets_per_ip: 200,
            tokens: lobby.tokens,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawForward {
    pub(super) rules: Vec<RawForwardRule>,
    pub(super) max: i64,
    pub(super) stall_seconds: i64,
    pub(super) open_api: bool,
}

impl Default for RawForward {
    fn default() -> RawForward {
        RawForward { rules: Vec::new(), max: 100, stall_seconds: 10, open_api: false }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawForwardRule {
    pub(super) streams: Vec<String>,
    pub(super) to: Vec<String>,
    #[serde(default = "yes", skip_serializing_if = "Clone::clone")]
    pub(super) verify_certificate: bool,
}

fn yes() -> bool {
    true
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawGopCache {
    pub(super) max_seconds: i64,
    pub(super) max_mb: i64,
    pub(super) max_lag_seconds: i64,
}

impl Default for RawGopCache {
    fn default() -> RawGopCache {
        // x264's default distance of keyframes is 10 s at 25 pictures a second; 32 MB are 16 s of 16 Mbit/s.
        RawGopCache { max_seconds: 16, max_mb: 32, max_lag_seconds: 6 }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawPublish {
    pub(super) takeover: String,
    pub(super) silent_after_seconds: i64,
    pub(super) tokens: Vec<String>,
}

impl Default for RawPublish {
    fn default() -> RawPublish {
        RawPublish { takeover: "reject".to_owned(), silent_after_seconds: 2, tokens: Vec::new() }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawPlay {
    pub(super) when_absent: String,
    pub(super) retry_after_seconds: i64,
    pub(super) tokens: Vec<String>,
}

impl Default for RawPlay {
    fn default() -> RawPlay {
        RawPlay { when_absent: "wait".to_owned(), retry_after_seconds: 2, tokens: Vec::new() }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawLog {
    pub(super) level: String,
    pub(super) format: String,
}

impl Default for RawLog {
    fn default() -> RawLog {
        RawLog { level: "info".to_owned(), format: "text".to_owned() }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawShutdown {
    pub(super) drain_seconds: i64,
}

impl Default for RawShutdown {
    fn default() -> RawShutdown {
        RawShutdown { drain_seconds: 300 }
    }
}
