//! Stream addresses of SRS clients: `webrtc://host[:port]/app/stream?params`, and the rules that make a
//! [`StreamKey`] of vhost, app and stream.

use freshet_media::StreamKey;

use super::query::{Query, percent_decode};
use crate::engine::Refusal;
use crate::srs_code as code;

/// App of an address that names only a stream (SRS's rule).
const DEFAULT_APP: &str = "__defaultApp__";

/// SRS's name for "no vhost".
const DEFAULT_VHOST: &str = "__defaultVhost__";

/// Separates app and vhost where a player could not send a query.
const INLINE_VHOST: &str = "...vhost...";

/// Endings that players append to ask for a format; `live/cam.flv` and `live/cam` are one stream. Other endings
/// belong to the name: `room.1` and `room.2` are two streams.
const FORMAT_ENDINGS: [&str; 8] = ["flv", "m3u8", "ts", "mp4", "mp3", "aac", "mpd", "sdp"];

/// A stream address, taken apart and decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StreamUrl {
    /// Host without port, empty if the address has none.
    pub(crate) host: String,
    /// A vhost that the address names explicitly.
    pub(crate) vhost: Option<String>,
    pub(crate) app: String,
    pub(crate) stream: String,
    /// The raw query, without `?`.
    pub(crate) query: String,
}

impl StreamUrl {
    /// Takes an address apart.
    ///
    /// The query is split off first, so that a slash in a token is no path. Only when the path names no stream is one
    /// looked for behind the query: Flash encoders write `rtmp://host/app?token=x/stream`.
    pub(crate) fn parse(url: &str) -> Result<StreamUrl, Refusal> {
        let invalid = |what: &str| {
            // What follows may hold a token, and this text goes to the log.
            let url = url.split('?').next().unwrap_or_default();
            Refusal::new(
                400,
                code::INVALID_PARAMS,
                "bad-stream-url",
                format!("the stream URL \"{url}\" {what}"),
                "write it like webrtc://host/live/cam",
            )
        };
        let (_, rest) = url.split_once("://").ok_or_else(|| invalid("has no scheme"))?;
        let (base, mut query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = base.split_once('/').unwrap_or((base, ""));
        let mut segments: Vec<&str> =
            path.split('/').filter(|segment| !segment.is_empty() && *segment != "_definst_").collect();
        if segments.len() == 1
            && let Some((before, stream)) = query.rsplit_once('/')
            && !stream.is_empty()
        {
            query = before;
            segments.push(stream);
        }
        let stream = segments.pop().ok_or_else(|| invalid("names no stream"))?;
        let app = if segments.is_empty() { DEFAULT_APP.to_owned() } else { segments.join("/") };
        let (app, inline_vhost) = match app.split_once(INLINE_VHOST) {
            Some((app, vhost)) => (app, Some(percent_decode(vhost))),
            None => (app.as_str(), None),
        };
        Ok(StreamUrl {
            host: host_of(authority).to_owned(),
            vhost: vhost_of(Query::new(query)).or(inline_vhost),
            app: percent_decode(app),
            stream: percent_decode(stream),
            query: query.to_owned(),
        })
    }
}

/// The vhost that a query names.
pub(crate) fn vhost_of(query: Query<'_>) -> Option<String> {
    query.get_any(&["vhost", "domain"])
}

/// `host` of `user@host:port`; an IPv6 address loses its brackets.
pub(crate) fn host_of(authority: &str) -> &str {
    let host_port = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    if let Some(bracketed) = host_port.strip_prefix('[') {
        return bracketed.split_once(']').map_or(bracketed, |(address, _)| address);
    }
    host_port.split_once(':').map_or(host_port, |(host, _)| host)
}

/// The key of a stream. `own_hosts` are the names by which the client reached this server: saying one of them again as
/// vhost means nothing. Nor does an address, nor SRS's default name.
pub(crate) fn stream_key(
    vhost: Option<&str>,
    own_hosts: &[&str],
    app: &str,
    stream: &str,
) -> Result<StreamKey, Refusal> {
    let vhost = vhost.map(host_of).unwrap_or_default();
    let is_default = vhost == DEFAULT_VHOST
        || vhost.parse::<std::net::IpAddr>().is_ok()
        || own_hosts.iter().any(|own| own.eq_ignore_ascii_case(vhost));
    let vhost = if is_default { "" } else { vhost };
    StreamKey::new(vhost, app, without_format(stream)).map_err(|reason| {
        Refusal::new(
            400,
            code::INVALID_PARAMS,
            "bad-stream-name",
            format!("\"{app}/{stream}\" cannot name a stream: {reason}"),
            "use an app and a stream name such as live/cam",
        )
    })
}

fn without_format(stream: &str) -> &str {
    match stream.rsplit_once('.') {
        Some((name, ending))
            if !name.is_empty() && FORMAT_ENDINGS.iter().any(|format| format.eq_ignore_ascii_case(ending)) =>
        {
            name
        }
        _ => stream,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_apart() {
        // URL, host, vhost, app, stream, query
        let cases = [
            ("webrtc://h/live/cam", "h", None, "live", "cam", ""),
            ("webrtc://h/live/cam?token=1", "h", None, "live", "cam", "token=1"),
            ("webrtc://h:1985/live/cam", "h", None, "live", "cam", ""),
            ("webrtc://[2001:db8::1]:1985/live/cam", "2001:db8::1", None, "live", "cam", ""),
            ("webrtc://h/a/b/cam", "h", None, "a/b", "cam", ""),
            ("webrtc://h/only", "h", None, "__defaultApp__", "only", ""),
            ("webrtc://h/live/cam?vhost=x", "h", Some("x"), "live", "cam", "vhost=x"),
            ("webrtc://h/live/cam?domain=x", "h", Some("x"), "live", "cam", "domain=x"),
            ("webrtc://h/live...vhost...x/cam", "h", Some("x"), "live", "cam", ""),
            ("rtmp://h/live?k=v/cam", "h", None, "live", "cam", "k=v"),
            ("rtmp://h/live/_definst_/cam", "h", None, "live", "cam", ""),
            ("webrtc://h/live/cam1?token=aa/bb", "h", None, "live", "cam1", "token=aa/bb"),
            ("webrtc://h/live/my%20cam", "h", None, "live", "my cam", ""),
            ("webrtc://h//live//cam/", "h", None, "live", "cam", ""),
        ];
        for (url, host, vhost, app, stream, query) in cases {
            let parsed = StreamUrl::parse(url).unwrap_or_else(|refusal| panic!("{url}: {}", refusal.detail));
            let expected = StreamUrl {
                host: host.into(),
                vhost: vhost.map(str::to_owned),
                app: app.into(),
                stream: stream.into(),
                query: query.into(),
            };
            assert_eq!(parsed, expected, "{url}");
        }
        for url in ["", "live/cam", "webrtc://", "webrtc://h", "webrtc://h/", "webrtc://h/?a=b"] {
            assert!(StreamUrl::parse(url).is_err(), "{url:?}");
        }
    }

    #[test]
    fn only_a_foreign_name_is_a_vhost() {
        let key = |vhost| stream_key(vhost, &["media.example", "edge"], "live", "cam").unwrap().to_string();
        assert_eq!(key(None), "live/cam");
        assert_eq!(key(Some("__defaultVhost__")), "live/cam");
        assert_eq!(key(Some("Media.Example")), "live/cam");
        assert_eq!(key(Some("media.example:8080")), "live/cam");
        assert_eq!(key(Some("192.0.2.1")), "live/cam");
        assert_eq!(key(Some("[2001:db8::1]:80")), "live/cam");
        assert_eq!(key(Some("customer.example")), "customer.example/live/cam");
    }

    #[test]
    fn format_endings_are_no_part_of_the_name() {
        for (stream, key) in [
            ("cam.flv", "live/cam"),
            ("cam.M3U8", "live/cam"),
            ("room.1", "live/room.1"),
            (".flv", "live/.flv"),
            ("a.b.ts", "live/a.b"),
        ] {
            assert_eq!(stream_key(None, &[], "live", stream).unwrap().as_str(), key);
        }
        assert_eq!(stream_key(None, &[], "live", "..").unwrap_err().kind, "bad-stream-name");
    }
}
