//! Addresses that streams are forwarded to: `rtmp://host/app/stream`, with places for the stream's own names.
//!
//! The last part of such an address is often a stream key that nobody but the operator may know, so what is shown of one
//! ([`Target::shown`], and `Debug`) has its secrets taken out.

use std::fmt;

use freshet_media::StreamKey;
use thiserror::Error;

use crate::url::query::Query;
use crate::url::stream_url;

/// Longest address. RTMP servers take names of some hundred bytes; stream keys with signatures have about 400.
const MAX_BYTES: usize = 2048;

/// The names that stand for parts of the stream's own name.
const VARIABLES: [&str; 3] = ["[vhost]", "[app]", "[stream]"];

/// SRS's name for "no vhost".
const DEFAULT_VHOST: &str = "__defaultVhost__";

/// Shorter values of a query are words and numbers, which may stand anywhere in a text.
const MIN_SECRET_BYTES: usize = 4;

/// Stream keys of services have 20 letters and more: the first ones tell two of them apart and give nothing away.
const MIN_TELLING_BYTES: usize = 16;
const TELLING_CHARS: usize = 4;

/// Why a text is no address to forward to.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum BadTarget {
    /// Another scheme, or none.
    #[error("write rtmp://HOST/APP/STREAM or rtmps://HOST/APP/STREAM")]
    Scheme,
    /// No host, or what stands there is none.
    #[error("the host is missing or wrong")]
    Host,
    /// Not 1 to 65535.
    #[error("the port must be 1 to 65535")]
    Port,
    /// `rtmp://user:password@host`.
    #[error("user and password in the address are not supported; services give a stream key instead")]
    Login,
    /// No app, or no stream.
    #[error("app and stream are needed, as in rtmp://HOST/live/[stream]")]
    Path,
    /// A name in brackets that means nothing.
    #[error("{0} is not known; there are [app], [stream] and [vhost]")]
    Variable(String),
    /// Blanks, control characters, a fragment.
    #[error("it holds a blank, a control character or a #")]
    Character,
    /// Too long.
    #[error("it is longer than {MAX_BYTES} bytes")]
    TooLong,
}

/// An address with places for names, checked.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Template(String);

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Template({})", self.shown())
    }
}

impl Template {
    /// Checks an address.
    ///
    /// # Errors
    /// It is none.
    pub(crate) fn parse(text: &str) -> Result<Template, BadTarget> {
        let text = text.trim();
        for (at, _) in text.match_indices('[') {
            let name = text[at..].find(']').map(|end| &text[at..=at + end]);
            let is_address = name.is_some_and(|name| name.contains(':'));
            if let Some(name) = name.filter(|name| !is_address && !VARIABLES.contains(name)) {
                return Err(BadTarget::Variable(name.to_owned()));
            }
        }
        let template = Template(text.to_owned());
        // Names differ in letters only, so what holds for these holds for all.
        template.expand_names("v", "a", "s")?;
        Ok(template)
    }

    /// The address for one stream.
    ///
    /// # Errors
    /// The stream's vhost cannot stand where a host must.
    pub(crate) fn expand(&self, key: &StreamKey) -> Result<Target, BadTarget> {
        self.expand_names(key.vhost().unwrap_or(DEFAULT_VHOST), key.app(), key.stream())
    }

    fn expand_names(&self, vhost: &str, app: &str, stream: &str) -> Result<Target, BadTarget> {
        let escaped = [vhost, app, stream].map(escape);
        let mut text = self.0.clone();
        for (variable, value) in VARIABLES.iter().zip(&escaped) {
            text = text.replace(variable, value);
        }
        Target::parse(&text, &escaped[2])
    }

    /// As it may be shown.
    pub(crate) fn shown(&self) -> String {
        let (base, query) = self.0.split_once('?').map_or((self.0.as_str(), ""), |(base, _)| (base, "?***"));
        match base.rsplit_once('/') {
            Some((before, "[stream]")) => format!("{before}/[stream]{query}"),
            Some((before, name)) => format!("{before}/{}{query}", masked(name)),
            None => "***".to_owned(),
        }
    }
}

/// Keeps a name from meaning something else in an address. Letters of other scripts stay: RTMP knows no escapes, so that
/// the fewest are the best.
fn escape(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for c in name.chars() {
        if c.is_control() || c == ' ' || "?#%[]&=".contains(c) {
            let mut bytes = [0; 4];
            c.encode_utf8(&mut bytes).bytes().for_each(|byte| out.push_str(&format!("%{byte:02X}")));
        } else {
            out.push(c);
        }
    }
    out
}

/// Where one stream is forwarded to.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// RTMPS.
    pub(crate) secure: bool,
    /// A name or an address, without brackets.
    pub(crate) host: String,
    /// Given or the scheme's own.
    pub(crate) port: u16,
    /// May hold slashes.
    pub(crate) app: String,
    /// With its query. Secret.
    pub(crate) stream: String,
    /// The address for logs and listings.
    pub(crate) shown: String,
    /// The whole address. Secret.
    full: String,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({})", self.shown)
    }
}

impl Target {
    /// Takes an address apart. `own_name` is the name of the stream that is forwarded, which is no secret.
    fn parse(text: &str, own_name: &str) -> Result<Target, BadTarget> {
        if text.len() > MAX_BYTES {
            return Err(BadTarget::TooLong);
        }
        if text.chars().any(|c| c.is_control() || c.is_whitespace() || c == '#') {
            return Err(BadTarget::Character);
        }
        let (scheme, rest) = text.split_once("://").ok_or(BadTarget::Scheme)?;
        let secure = match scheme.to_ascii_lowercase().as_str() {
            "rtmp" => false,
            "rtmps" => true,
            _ => return Err(BadTarget::Scheme),
        };
        let (base, query) = rest.split_once('?').map_or((rest, None), |(base, query)| (base, Some(query)));
        let (authority, path) = base.split_once('/').ok_or(BadTarget::Path)?;
        if authority.contains('@') {
            return Err(BadTarget::Login);
        }
        let (host, port) = host_and_port(authority)?;
        let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
        let (name, app) = segments.split_last().filter(|(_, app)| !app.is_empty()).ok_or(BadTarget::Path)?;
        let app = app.join("/");
        let scheme = if secure { "rtmps" } else { "rtmp" };
        let shown_name = if *name == own_name { (*name).to_owned() } else { masked(name) };
        let shown_query = if query.is_some() { "?***" } else { "" };
        let stream = query.map_or_else(|| (*name).to_owned(), |query| format!("{name}?{query}"));
        Ok(Target {
            secure,
            host: host.to_owned(),
            port: port.unwrap_or(if secure { 443 } else { 1935 }),
            shown: format!("{scheme}://{authority}/{app}/{shown_name}{shown_query}"),
            full: format!("{scheme}://{authority}/{app}/{stream}"),
            app,
            stream,
        })
    }

    /// `tcUrl` of the `connect` command: the address without the stream.
    pub(crate) fn tc_url(&self) -> &str {
        &self.full[..self.full.len() - self.stream.len() - 1]
    }

    /// A text of the other server without what is secret of the address: many repeat the stream's name when they refuse it.
    pub(crate) fn redacted(&self, text: &str) -> String {
        let (name, query) = self.stream.split_once('?').unwrap_or((&self.stream, ""));
        let values = query.split('&').map(|pair| pair.split_once('=').map_or(pair, |(_, value)| value));
        let mut text = text.to_owned();
        if !query.is_empty() {
            text = text.replace(query, "***");
        }
        for value in values.filter(|value| value.len() >= MIN_SECRET_BYTES) {
            text = text.replace(value, "***");
        }
        let shown_name =
            self.shown.rsplit_once('/').map_or("", |(_, shown)| shown.split('?').next().unwrap_or_default());
        if shown_name != name { text.replace(name, shown_name) } else { text }
    }

    /// Whether a server that is us would take this for that very stream.
    pub(crate) fn names(&self, key: &StreamKey) -> bool {
        let (name, query) = self.stream.split_once('?').unwrap_or((&self.stream, ""));
        let vhost = stream_url::vhost_of(Query::new(query));
        let decode = crate::url::query::percent_decode;
        let there = stream_url::stream_key(vhost.as_deref(), &[&self.host], &decode(&self.app), &decode(name));
        there.is_ok_and(|there| there == *key)
    }
}

fn host_and_port(authority: &str) -> Result<(&str, Option<u16>), BadTarget> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']').ok_or(BadTarget::Host)?;
            host.parse::<std::net::Ipv6Addr>().map_err(|_| BadTarget::Host)?;
            (host, after)
        }
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let is_name = |c: char| c.is_alphanumeric() || ".-_:".contains(c);
    if host.is_empty() || !host.chars().all(is_name) {
        return Err(BadTarget::Host);
    }
    let port = match port.strip_prefix(':') {
        Some(port) => Some(port.parse().ok().filter(|port| *port > 0).ok_or(BadTarget::Port)?),
        None if port.is_empty() => None,
        None => return Err(BadTarget::Host),
    };
    Ok((host, port))
}

/// A name that may be a secret.
fn masked(name: &str) -> String {
    let telling = if name.len() >= MIN_TELLING_BYTES { TELLING_CHARS } else { 0 };
    name.chars().take(telling).chain("***".chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(vhost: &str, app: &str, stream: &str) -> StreamKey {
        StreamKey::new(vhost, app, stream).unwrap()
    }

    fn target(template: &str, key: &StreamKey) -> Target {
        Template::parse(template).unwrap_or_else(|error| panic!("{template}: {error}")).expand(key).unwrap()
    }

    #[test]
    fn addresses_come_apart() {
        // Address, host, port, TLS, app, stream, tcUrl, shown
        let cases = [
            (
                "rtmp://other/live/[stream]",
                "other",
                1935,
                false,
                "live",
                "cam",
                "rtmp://other/live",
                "rtmp://other/live/cam",
            ),
            (
                "RTMP://other:19350/[app]/[stream]",
                "other",
                19350,
                false,
                "live",
                "cam",
                "rtmp://other:19350/live",
                "rtmp://other:19350/live/cam",
            ),
            (
                "rtmps://[2001:db8::1]/a/b/[stream]-2",
                "2001:db8::1",
                443,
                true,
                "a/b",
                "cam-2",
                "rtmps://[2001:db8::1]/a/b",
                "rtmps://[2001:db8::1]/a/b/***",
            ),
            (
                "rtmp://h/live2/abcd-efgh-ijkl-mnop-qrst",
                "h",
                1935,
                false,
                "live2",
                "abcd-efgh-ijkl-mnop-qrst",
                "rtmp://h/live2",
                "rtmp://h/live2/abcd***",
            ),
            (
                "rtmps://h:443/rtmp/FB-1?s_bl=1&a=b/c?d",
                "h",
                443,
                true,
                "rtmp",
                "FB-1?s_bl=1&a=b/c?d",
                "rtmps://h:443/rtmp",
                "rtmps://h:443/rtmp/***?***",
            ),
            (
                "rtmp://h//live//[stream]?vhost=[vhost]",
                "h",
                1935,
                false,
                "live",
                "cam?vhost=__defaultVhost__",
                "rtmp://h/live",
                "rtmp://h/live/cam?***",
            ),
        ];
        for (text, host, port, secure, app, stream, tc_url, shown) in cases {
            let target = target(text, &key("", "live", "cam"));
            assert_eq!((&*target.host, target.port, target.secure), (host, port, secure), "{text}");
            assert_eq!((&*target.app, &*target.stream), (app, stream), "{text}");
            assert_eq!((target.tc_url(), &*target.shown), (tc_url, shown), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, error) in [
            ("", BadTarget::Scheme),
            ("other/live/cam", BadTarget::Scheme),
            ("http://other/live/cam", BadTarget::Scheme),
            ("rtmp:///live/cam", BadTarget::Host),
            ("rtmp://a/b", BadTarget::Path),
            ("rtmp://a", BadTarget::Path),
            ("rtmp://a:0/live/cam", BadTarget::Port),
            ("rtmp://a:70000/live/cam", BadTarget::Port),
            ("rtmp://[::1/live/cam", BadTarget::Host),
            ("rtmp://[::1]x/live/cam", BadTarget::Host),
            ("rtmp://u:p@a/live/cam", BadTarget::Login),
            ("rtmp://a/live/[name]", BadTarget::Variable("[name]".into())),
            ("rtmp://a/live/c am", BadTarget::Character),
            ("rtmp://a/live/cam#1", BadTarget::Character),
        ] {
            assert_eq!(Template::parse(text), Err(error), "{text}");
        }
        assert_eq!(Template::parse(&format!("rtmp://a/live/{}", "x".repeat(MAX_BYTES))), Err(BadTarget::TooLong));
    }

    #[test]
    fn names_cannot_break_out_of_their_place() {
        let evil = key("", "live", "a?token=x&b [stream]#é");
        let escaped = target("rtmp://h/[app]/[stream]?k=1", &evil);
        assert_eq!(escaped.stream, "a%3Ftoken%3Dx%26b%20%5Bstream%5D%23é?k=1");
        assert!(escaped.names(&evil));
        let vhost = key("a b", "live", "cam");
        assert!(Template::parse("rtmp://[vhost]/live/[stream]").unwrap().expand(&vhost).is_err());
        let vhost = key("cdn.example", "live", "cam");
        assert_eq!(target("rtmp://[vhost]/live/[stream]", &vhost).host, "cdn.example");
    }

    #[test]
    fn secrets_are_not_shown() {
        let text = "rtmp://h/live/s3cret-key?token=s3cret";
        let target = target(text, &key("", "live", "cam"));
        let template = Template::parse(text).unwrap();
        for shown in [format!("{target:?}"), target.shown, format!("{template:?}"), template.shown()] {
            assert!(!shown.contains("s3cret"), "{shown}");
        }
        // What is shown instead can be read back.
        assert!(Template::parse(&template.shown()).is_ok());
    }

    #[test]
    fn what_servers_say_is_shown_without_secrets() {
        let cam = key("", "live", "cam");
        for (url, said, shown) in [
            (
                "rtmp://h/live/s3cret?sig=abcdef&a=1",
                "live/s3cret: signature abcdef is wrong",
                "live/***: signature *** is wrong",
            ),
            ("rtmp://h/live/s3cret?sig=abcdef&a=1", "s3cret?sig=abcdef&a=1 refused", "***?*** refused"),
            ("rtmp://h/live/abcd-efgh-ijkl-mnop", "abcd-efgh-ijkl-mnop is taken", "abcd*** is taken"),
            ("rtmp://h/live/[stream]", "live/cam is taken", "live/cam is taken"),
        ] {
            assert_eq!(target(url, &cam).redacted(said), shown, "{url}");
        }
    }

    #[test]
    fn a_stream_is_known_again() {
        for (text, stream, is_same) in [
            ("rtmp://h/live/[stream]", key("", "live", "cam"), true),
            ("rtmp://h/live/cam.flv", key("", "live", "cam"), true),
            ("rtmp://h/live/cam?vhost=h", key("", "live", "cam"), true),
            ("rtmp://h/live/cam?vhost=x.example", key("", "live", "cam"), false),
            ("rtmp://h/live/cam?vhost=x.example", key("x.example", "live", "cam"), true),
            ("rtmp://h/live2/[stream]", key("", "live", "cam"), false),
        ] {
            assert_eq!(target(text, &stream).names(&stream), is_same, "{text} {stream}");
        }
    }
}
