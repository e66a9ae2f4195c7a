//! From what was typed to what is used: every value is checked, and all findings are gathered.

mod forward;
mod hls;
mod hooks;
mod record;
mod signaling;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use freshet_bridge::crossing::BFrames;
use freshet_media::{Codec, GopLimits};

use super::error::{ConfigError, Place, nearest};
use super::net::{IpBlock, parse_listen};
use super::raw::{Raw, RawGopCache, RawHttp, RawHttps, RawIceServer, RawRtc, RawRtc2Rtmp, RawRtmp, RawRtmp2Rtc};
use super::{
    CertificateFiles, Config, CrossedAudio, Http, HttpFlv, Https, IceServer, Log, LogFormat, LogLevel, Play, Publish,
    Rtc, Rtc2Rtmp, Rtmp, Rtmp2Rtc, Shutdown, Takeover, WhenAbsent,
};
use crate::candidates::CandidateAddr;

/// A day: longer waits are slips of unit.
const MAX_WAIT_SECONDS: i64 = 86_400;

const TAKEOVERS: [(&str, Takeover); 3] =
    [("reject", Takeover::Reject), ("replace", Takeover::Replace), ("replace-if-silent", Takeover::ReplaceIfSilent)];
const ABSENCES: [(&str, WhenAbsent); 2] = [("wait", WhenAbsent::Wait), ("refuse", WhenAbsent::Refuse)];
const BFRAMES: [(&str, BFrames); 3] =
    [("transcode", BFrames::Transcode), ("drop", BFrames::Drop), ("pass", BFrames::Pass)];
const CROSSED_AUDIO: [(&str, CrossedAudio); 2] = [("aac", CrossedAudio::Aac), ("opus", CrossedAudio::Opus)];
const CODECS: [(&str, Option<Codec>); 6] = [
    ("h264", Some(Codec::H264)),
    ("h265", Some(Codec::H265)),
    ("vp8", Some(Codec::Vp8)),
    ("vp9", Some(Codec::Vp9)),
    ("av1", Some(Codec::Av1)),
    ("offer", None),
];
const LEVELS: [(&str, LogLevel); 6] = [
    ("off", LogLevel::Off),
    ("error", LogLevel::Error),
    ("warn", LogLevel::Warn),
    ("info", LogLevel::Info),
    ("debug", LogLevel::Debug),
    ("trace", LogLevel::Trace),
];
const FORMATS: [(&str, LogFormat); 2] = [("text", LogFormat::Text), ("json", LogFormat::Json)];

/// Where each key that was given stands, by section and key.
pub(super) type Places = HashMap<(String, String), Place>;

pub(super) fn defaults() -> Config {
    check(&Raw::default(), &Places::new()).expect("the defaults are valid: a test loads them")
}

pub(super) fn check(raw: &Raw, places: &Places) -> Result<Config, Vec<ConfigError>> {
    let mut findings = Findings { places, errors: Vec::new() };
    let f = &mut findings;
    let config = Config {
        http: check_http(f, &raw.http),
        https: check_https(f, &raw.https),
        rtc: check_rtc(f, &raw.rtc),
        rtmp: check_rtmp(f, &raw.rtmp),
        http_flv: HttpFlv { enabled: raw.http_flv.enabled },
        hls: hls::check(f, &raw.hls),
        record: record::check(f, &raw.record),
        hooks: hooks::check(f, &raw.hooks),
        rtmp2rtc: check_rtmp2rtc(f, &raw.rtmp2rtc),
        rtc2rtmp: check_rtc2rtmp(f, &raw.rtc2rtmp),
        signaling: signaling::check(f, &raw.signaling),
        forward: forward::check(f, &raw.forward),
        gop_cache: check_gop_cache(f, &raw.gop_cache),
        publish: Publish {
            takeover: f.choice("publish", "takeover", &raw.publish.takeover, &TAKEOVERS),
            silent_after: f.seconds("publish", "silent_after_seconds", raw.publish.silent_after_seconds, 1..=3_600),
            tokens: f.tokens("publish", &raw.publish.tokens),
        },
        play: Play {
            when_absent: f.choice("play", "when_absent", &raw.play.when_absent, &ABSENCES),
            retry_after_seconds: f.number("play", "retry_after_seconds", raw.play.retry_after_seconds, 1..=3_600)
                as u32,
            tokens: f.tokens("play", &raw.play.tokens),
        },
        log: Log {
            level: f.choice("log", "level", &raw.log.level, &LEVELS),
            format: f.choice("log", "format", &raw.log.format, &FORMATS),
        },
        shutdown: Shutdown {
            drain: f.seconds("shutdown", "drain_seconds", raw.shutdown.drain_seconds, 0..=MAX_WAIT_SECONDS),
        },
    };
    if findings.errors.is_empty() { Ok(config) } else { Err(findings.errors) }
}

fn check_http(f: &mut Findings<'_>, raw: &RawHttp) -> Http {
    let origin = raw.allow_origin.trim();
    if !origin.is_empty() && !is_origin(origin) {
        f.add(
            "http",
            "allow_origin",
            format!("bad value {origin:?} for http.allow_origin: write \"*\" or one origin such as \"https://app.example.org\", without a path"),
        );
    }
    let mut trusted_proxies = Vec::with_capacity(raw.trusted_proxies.len());
    for text in &raw.trusted_proxies {
        match IpBlock::parse(text) {
            Some(block) => trusted_proxies.push(block),
            None => f.add(
                "http",
                "trusted_proxies",
                format!("bad value {text:?} in http.trusted_proxies: write an address (\"127.0.0.1\") or a block (\"10.0.0.0/8\")"),
            ),
        }
    }
    Http {
        listen: f.listen_list("http", &raw.listen),
        allow_origin: origin.to_owned(),
        trusted_proxies,
        max_body_bytes: f.number("http", "max_body_kb", raw.max_body_kb, 4..=16_384) as usize * 1024,
        max_connections: f.number("http", "max_connections", raw.max_connections, 1..=1_000_000) as usize,
    }
}

/// RFC 6454 §6.2: scheme, host and port, nothing more; a browser compares the whole text.
fn is_origin(text: &str) -> bool {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or("");
    text == "*" || (!host.is_empty() && host.bytes().all(|b| b.is_ascii_graphic() && !b"/,".contains(&b)))
}

fn check_https(f: &mut Findings<'_>, raw: &RawHttps) -> Https {
    let listen = f.listen_list("https", &raw.listen);
    if raw.enabled && raw.listen.is_empty() {
        f.add("https", "listen", "https.listen is empty: give an address or set https.enabled = false".to_owned());
    }
    let files = match (raw.certificate.as_str(), raw.key.as_str()) {
        ("", "") => None,
        (certificate, "") => {
            f.add(
                "https",
                "certificate",
                format!("https.certificate is {certificate:?} but https.key is not set: give both"),
            );
            None
        }
        ("", key) => {
            f.add("https", "key", format!("https.key is {key:?} but https.certificate is not set: give both"));
            None
        }
        (certificate, key) => {
            Some(CertificateFiles { certificate: PathBuf::from(certificate), key: PathBuf::from(key) })
        }
    };
    for name in &raw.names {
        if !is_certificate_name(name) {
            f.add(
                "https",
                "names",
                format!(
                    "bad value {name:?} in https.names: write a host name or an address, without scheme, port and path"
                ),
            );
        }
    }
    Https { enabled: raw.enabled, listen, files, names: raw.names.clone() }
}

fn is_certificate_name(name: &str) -> bool {
    let host = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    if name.parse::<std::net::IpAddr>().is_ok() {
        return true;
    }
    name.len() <= 253 && name.strip_prefix("*.").unwrap_or(name).split('.').all(host)
}

fn check_rtc(f: &mut Findings<'_>, raw: &RawRtc) -> Rtc {
    let listen = f.listen("rtc", &raw.listen);
    let mut candidates = Vec::with_capacity(raw.candidates.len());
    for text in raw.candidates.iter().map(|text| text.trim()) {
        // SRS writes "*" where the addresses are to be found out.
        if text.is_empty() || text == "*" || text == "0.0.0.0" {
            continue;
        }
        match text.parse::<CandidateAddr>() {
            Ok(candidate) => candidates.push(candidate),
            Err(error) => f.add("rtc", "candidates", format!("bad value {text:?} in rtc.candidates: {error}")),
        }
    }
    let mut ice_servers = Vec::with_capacity(raw.ice_servers.len());
    for server in &raw.ice_servers {
        match check_ice_server(server) {
            Ok(server) => ice_servers.push(server),
            Err(message) => f.add("rtc", "ice_servers", message),
        }
    }
    Rtc {
        listen,
        tcp: raw.tcp,
        shards: f.number("rtc", "shards", raw.shards, 0..=256) as usize,
        candidates,
        interfaces: raw.interfaces,
        session_timeout: f.seconds("rtc", "session_timeout_seconds", raw.session_timeout_seconds, 2..=3_600),
        connect_timeout: f.seconds("rtc", "connect_timeout_seconds", raw.connect_timeout_seconds, 2..=3_600),
        max_sessions: f.number("rtc", "max_sessions", raw.max_sessions, 1..=1_000_000) as usize,
        prefer_codec: f.choice("rtc", "prefer_codec", &raw.prefer_codec, &CODECS),
        ice_servers,
    }
}

fn check_rtmp(f: &mut Findings<'_>, raw: &RawRtmp) -> Rtmp {
    let publish_timeout = raw.publish_timeout_seconds;
    Rtmp {
        enabled: raw.enabled,
        listen: f.listen_list("rtmp", &raw.listen),
        max_connections: f.number("rtmp", "max_connections", raw.max_connections, 1..=1_000_000) as usize,
        publish_timeout: f.seconds("rtmp", "publish_timeout_seconds", publish_timeout, 2..=3_600),
    }
}

fn check_rtmp2rtc(f: &mut Findings<'_>, raw: &RawRtmp2Rtc) -> Rtmp2Rtc {
    // RFC 6716 §2.1.1: Opus works from 6 to 510 kbit/s.
    let kbps = f.number("rtmp2rtc", "opus_bitrate_kbps", raw.opus_bitrate_kbps, 8..=510);
    Rtmp2Rtc {
        enabled: raw.enabled,
        bframes: f.choice("rtmp2rtc", "bframes", &raw.bframes, &BFRAMES),
        opus_bitrate_bps: kbps as u32 * 1000,
        linger: f.seconds("rtmp2rtc", "linger_seconds", raw.linger_seconds, 0..=3_600),
    }
}

fn check_rtc2rtmp(f: &mut Findings<'_>, raw: &RawRtc2Rtmp) -> Rtc2Rtmp {
    Rtc2Rtmp {
        enabled: raw.enabled,
        audio: f.choice("rtc2rtmp", "audio", &raw.audio, &CROSSED_AUDIO),
        aac_bitrate_bps: f.number("rtc2rtmp", "aac_bitrate_kbps", raw.aac_bitrate_kbps, 16..=320) as u32 * 1000,
        keyframe_interval: f.seconds("rtc2rtmp", "keyframe_seconds", raw.keyframe_seconds, 1..=60),
        linger: f.seconds("rtc2rtmp", "linger_seconds", raw.linger_seconds, 0..=3_600),
    }
}

fn check_gop_cache(f: &mut Findings<'_>, raw: &RawGopCache) -> GopLimits {
    GopLimits {
        max_bytes: f.number("gop_cache", "max_mb", raw.max_mb, 1..=4_096) as usize * 1_000_000,
        max_age: f.seconds("gop_cache", "max_seconds", raw.max_seconds, 1..=600),
        max_lag: f.seconds("gop_cache", "max_lag_seconds", raw.max_lag_seconds, 1..=60),
    }
}

fn check_ice_server(raw: &RawIceServer) -> Result<IceServer, String> {
    let server = match raw {
        RawIceServer::Url(url) => {
            IceServer { urls: vec![url.clone()], username: String::new(), credential: String::new() }
        }
        RawIceServer::Full(full) => {
            IceServer { urls: full.urls.clone(), username: full.username.clone(), credential: full.credential.clone() }
        }
    };
    if server.urls.is_empty() {
        return Err("an entry of rtc.ice_servers has no urls: write urls = [\"stun:stun.example.org:3478\"]".to_owned());
    }
    for url in &server.urls {
        let scheme = url.split_once(':').map_or("", |(scheme, _)| scheme);
        if !["stun", "stuns", "turn", "turns"].contains(&scheme)
            || !url.bytes().all(|b| b.is_ascii_graphic() && !b"<>\"".contains(&b))
        {
            return Err(format!("bad URL {url:?} in rtc.ice_servers: write stun:HOST:PORT or turn:HOST:PORT"));
        }
        // RFC 8656 §5: TURN always authenticates; browsers throw on a server without both.
        if scheme.starts_with("turn") && (server.username.is_empty() || server.credential.is_empty()) {
            return Err(format!("{url:?} in rtc.ice_servers needs username and credential"));
        }
    }
    if [&server.username, &server.credential].into_iter().any(|text| text.chars().any(char::is_control)) {
        return Err("a username or credential in rtc.ice_servers holds a control character".to_owned());
    }
    Ok(server)
}

/// Gathers errors; each check gives back a usable value even so, so that one run reports everything.
struct Findings<'p> {
    places: &'p Places,
    errors: Vec<ConfigError>,
}

impl Findings<'_> {
    fn add(&mut self, section: &str, key: &str, message: String) {
        let place = self.places.get(&(section.to_owned(), key.to_owned())).cloned().unwrap_or(Place::Default);
        self.errors.push(ConfigError::new(place, message));
    }

    fn choice<T: Copy>(&mut self, section: &str, key: &str, typed: &str, allowed: &[(&str, T)]) -> T {
        let names = || allowed.iter().map(|(name, _)| *name);
        if let Some((_, value)) = allowed.iter().find(|(name, _)| name.eq_ignore_ascii_case(typed.trim())) {
            return *value;
        }
        let guess = nearest(typed, names()).map(|name| format!("; did you mean {name:?}?")).unwrap_or_default();
        let list = names().collect::<Vec<_>>().join(", ");
        self.add(section, key, format!("bad value {typed:?} for {section}.{key}: allowed: {list}{guess}"));
        allowed[0].1
    }

    fn number(&mut self, section: &str, key: &str, typed: i64, allowed: RangeInclusive<i64>) -> i64 {
        if !allowed.contains(&typed) {
            let (low, high) = allowed.clone().into_inner();
            self.add(section, key, format!("bad value {typed} for {section}.{key}: allowed: {low} to {high}"));
        }
        typed.clamp(*allowed.start(), *allowed.end())
    }

    fn fraction(&mut self, section: &str, key: &str, typed: f64, allowed: RangeInclusive<f64>) -> f64 {
        let (low, high) = allowed.into_inner();
        if (low..=high).contains(&typed) {
            return typed;
        }
        self.add(section, key, format!("bad value {typed} for {section}.{key}: allowed: {low} to {high}"));
        low
    }

    fn seconds(&mut self, section: &str, key: &str, typed: i64, allowed: RangeInclusive<i64>) -> Duration {
        Duration::from_secs(self.number(section, key, typed, allowed).unsigned_abs())
    }

    fn listen(&mut self, section: &str, typed: &str) -> SocketAddr {
        parse_listen(typed).unwrap_or_else(|| {
            self.add(
                section,
                "listen",
                format!("bad value {typed:?} for {section}.listen: write ADDRESS:PORT, for example \"[::]:8000\" (all addresses) or \"127.0.0.1:8000\""),
            );
            SocketAddr::from(([0, 0, 0, 0], 0))
        })
    }

    fn listen_list(&mut self, section: &str, typed: &[String]) -> Vec<SocketAddr> {
        let mut addresses: Vec<SocketAddr> = Vec::with_capacity(typed.len());
        for text in typed {
            let address = self.listen(section, text);
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        addresses
    }

    fn tokens(&mut self, section: &str, typed: &[String]) -> Vec<String> {
        // A token travels in a header and in a query string (RFC 6750 §2.1 allows less still).
        if typed.iter().any(|token| token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic())) {
            self.add(
                section,
                "tokens",
                format!("a token in {section}.tokens is empty or holds spaces or non-ASCII letters"),
            );
        }
        typed.to_vec()
    }
}
