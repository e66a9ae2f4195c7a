//! From an HTTP request with an SDP offer to an open session: what WHIP, WHEP and SRS's interface have in common.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{FromRequest, Request};
use axum::http::header::{CONTENT_TYPE, ETAG, HOST, LINK, LOCATION, USER_AGENT};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use freshet_media::{Codec, MediaKind, StreamKey};
use tracing::info;

use super::{AppState, Connection, HttpSettings, auth, problem};
use crate::config::IceServer;
use crate::engine::{OpenRequest, Opened, Refusal, Role};
use crate::srs_code as code;
use crate::url::query::Query;
use crate::url::stream_url::host_of;

/// Media type of an offer and an answer (RFC 8866).
pub(super) const SDP: &str = "application/sdp";
/// Media type of trickled candidates (RFC 8840).
pub(super) const SDP_FRAGMENT: &str = "application/trickle-ice-sdpfrag";

/// RFC 5789 §3.1.
pub(super) const ACCEPT_PATCH: HeaderName = HeaderName::from_static("accept-patch");
/// The WHIP specification requires it on `OPTIONS` (RFC 9725 §4.2).
pub(super) const ACCEPT_POST: HeaderName = HeaderName::from_static("accept-post");

/// `?eip=` may be repeated; more addresses than this help nobody.
const MAX_EXTRA_CANDIDATES: usize = 8;

/// Longest `User-Agent` that is kept, in characters.
const MAX_USER_AGENT_CHARS: usize = 256;

/// A request to open or change a session.
pub(super) struct Call {
    pub(super) caller: Caller,
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Call {
    /// The query of the request's own URL.
    pub(super) fn query(&self) -> Query<'_> {
        Query::new(self.uri.query().unwrap_or_default())
    }

    /// The media type of the body, without parameters. [`None`] when the client does not say.
    pub(super) fn media_type(&self) -> Option<&str> {
        let value = text(&self.headers, CONTENT_TYPE.as_str())?;
        Some(value.split(';').next().unwrap_or_default().trim()).filter(|media_type| !media_type.is_empty())
    }
}

impl FromRequest<Arc<AppState>> for Call {
    type Rejection = Response;

    async fn from_request(request: Request, state: &Arc<AppState>) -> Result<Call, Response> {
        let (parts, body) = request.into_parts();
        let Some(connection) = parts.extensions.get::<Connection>() else {
            return Err(StatusCode::INTERNAL_SERVER_ERROR.into_response());
        };
        let caller = Caller::new(&state.settings, connection, &parts.headers, &parts.uri);
        // The outer layer has read and bounded the body, so this neither waits nor fails.
        let body = axum::body::to_bytes(body, state.settings.max_body_bytes).await.unwrap_or_default();
        Ok(Call { caller, uri: parts.uri, headers: parts.headers, body })
    }
}

/// Who asks, and by what name they reached us.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub(super) client_ip: IpAddr,
    local_ip: IpAddr,
    pub(super) user_agent: String,
    /// Host of the URL, without port.
    pub(super) host: Option<String>,
}

impl Caller {
    pub(super) fn new(settings: &HttpSettings, connection: &Connection, headers: &HeaderMap, uri: &Uri) -> Caller {
        let peer = connection.peer.ip();
        let through_proxy = settings.trusts(peer);
        let forwarded_host = if through_proxy {
            text(headers, "x-forwarded-host").and_then(|hosts| hosts.split(',').next())
        } else {
            None
        };
        let authority = forwarded_host.or_else(|| text(headers, HOST.as_str())).or_else(|| uri.host());
        let user_agent = text(headers, USER_AGENT.as_str()).unwrap_or_default();
        let user_agent = user_agent.chars().take(MAX_USER_AGENT_CHARS).collect();
        Caller {
            client_ip: if through_proxy { settings.forwarded_for(headers).unwrap_or(peer) } else { peer },
            local_ip: connection.local.ip(),
            user_agent,
            host: authority
                .map(|authority| host_of(authority.trim()))
                .filter(|host| !host.is_empty())
                .map(str::to_owned),
        }
    }

    /// The same caller, who names the server differently in the address of a stream.
    pub(super) fn looking_for(mut self, host: &str) -> Caller {
        if !host.is_empty() {
            self.host = Some(host.to_owned());
        }
        self
    }
}

impl HttpSettings {
    fn trusts(&self, address: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|block| block.contains(address))
    }

    /// The last address of `X-Forwarded-For` that no trusted proxy has: what stands further left was written by the
    /// client itself.
    fn forwarded_for(&self, headers: &HeaderMap) -> Option<IpAddr> {
        let mut nearest = None;
        let values = headers.get_all("x-forwarded-for").iter().rev();
        for hop in values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.rsplit(',')) {
            let address: IpAddr = hop.trim().parse().ok()?;
            if !self.trusts(address) {
                return Some(address);
            }
            nearest = Some(address);
        }
        nearest
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Reads an offer out of a body.
pub(super) fn offer_text(body: &[u8]) -> Result<String, Refusal> {
    let refuse = |detail: &str| {
        Refusal::new(400, code::SDP_DECODE, "bad-offer", detail, "send the SDP offer as the body of the request")
    };
    let offer = std::str::from_utf8(body).map_err(|_| refuse("the body is no UTF-8 text, so it is no SDP"))?;
    if offer.trim().is_empty() {
        return Err(refuse("the body is empty, an SDP offer is needed"));
    }
    Ok(offer.to_owned())
}

/// An offer whose sender may make it.
pub(super) struct Offer<'a> {
    pub(super) role: Role,
    pub(super) key: StreamKey,
    pub(super) sdp: String,
    /// Holds `eip`, `candidate`, `codec` and ICE credentials.
    pub(super) options: Query<'a>,
}

/// Asks the media side to open a session.
pub(super) async fn open(state: &AppState, caller: Caller, offer: Offer<'_>) -> Result<Opened, Refusal> {
    let request = OpenRequest {
        role: offer.role,
        key: offer.key,
        offer: offer.sdp,
        client_ip: caller.client_ip,
        user_agent: caller.user_agent,
        local_ip: caller.local_ip,
        host: state.host_names.resolved(caller.host).await,
        extra_candidates: offer.options.get_all(&["eip", "candidate"]).take(MAX_EXTRA_CANDIDATES).collect(),
        prefer_codec: preferred_codec(offer.options),
        ice_credentials: ice_credentials(offer.options)?,
    };
    state.sessions.open(request)
}

/// One line of log for a request to publish or play that is refused.
pub(super) fn log_refusal(caller: &Caller, role: Role, stream: &str, refusal: &Refusal) {
    info!(
        ?role,
        %stream,
        ip = %caller.client_ip,
        status = refusal.status,
        code = refusal.code,
        kind = refusal.kind,
        detail = %refusal.detail,
        hint = %refusal.hint,
        "request refused"
    );
}

/// The answer of an SDP endpoint to an offer that is refused.
pub(super) fn refused(refusal: &Refusal) -> Response {
    let mut response = auth::challenge(problem::response(refusal));
    if refusal.status == 415 {
        response.headers_mut().insert(ACCEPT_POST, HeaderValue::from_static(SDP));
    }
    response
}

fn preferred_codec(options: Query<'_>) -> Option<Codec> {
    let name = options.get("codec")?;
    Codec::from_rtp_name(&name).filter(|codec| codec.kind() == MediaKind::Video)
}

fn ice_credentials(options: Query<'_>) -> Result<Option<(String, String)>, Refusal> {
    let (ufrag, password) = (options.get_verbatim("ice-ufrag"), options.get_verbatim("ice-pwd"));
    let (ufrag, password) = match (ufrag, password) {
        (None, None) => return Ok(None),
        (ufrag, password) => (ufrag.unwrap_or_default(), password.unwrap_or_default()),
    };
    // RFC 8839 §5.4 allows up to 256; 32 is SRS's bound and plenty.
    let fits = |value: &str, least: usize| {
        (least..=32).contains(&value.len()) && value.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/".contains(&b))
    };
    if fits(&ufrag, 4) && fits(&password, 22) {
        return Ok(Some((ufrag, password)));
    }
    Err(Refusal::new(
        400,
        code::INVALID_ICE,
        "bad-ice-credentials",
        "ice-ufrag must have 4 to 32 letters of A-Z a-z 0-9 + /, ice-pwd 22 to 32, and both must be given",
        "leave both out to have the server choose",
    ))
}

/// The 201 of WHIP and WHEP.
pub(super) fn created(settings: &HttpSettings, opened: Opened, location: &str) -> Response {
    let mut response = (StatusCode::CREATED, [(CONTENT_TYPE, SDP)], opened.answer).into_response();
    let headers = response.headers_mut();
    headers.insert(ACCEPT_PATCH, HeaderValue::from_static(SDP_FRAGMENT));
    for (name, value) in [(LOCATION, location), (ETAG, opened.etag.as_str())] {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    }
    for link in settings.ice_servers.iter().flat_map(links) {
        headers.append(LINK, link);
    }
    response
}

/// RFC 9725 §4.6.
fn links(server: &IceServer) -> impl Iterator<Item = HeaderValue> {
    let mut parameters = String::from("; rel=\"ice-server\"");
    if !server.username.is_empty() {
        let (username, credential) = (quoted(&server.username), quoted(&server.credential));
        parameters.push_str(&format!("; username={username}; credential={credential}; credential-type=\"password\""));
    }
    server.urls.iter().filter_map(move |url| HeaderValue::from_str(&format!("<{url}>{parameters}")).ok())
}

/// A quoted-string of RFC 9110 §5.6.4.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(proxies: &[&str], peer: &str, headers: &[(&'static str, &'static str)]) -> Caller {
        let settings = HttpSettings {
            trusted_proxies: proxies.iter().map(|block| crate::config::IpBlock::parse(block).unwrap()).collect(),
            ..HttpSettings::default()
        };
        let connection = Connection { peer: peer.parse().unwrap(), local: "192.0.2.1:80".parse().unwrap(), tls: false };
        let headers = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        Caller::new(&settings, &connection, &headers, &Uri::from_static("/whip/live/cam"))
    }

    #[test]
    fn forwarded_addresses_count_only_from_trusted_proxies() {
        let cases: [(&[&str], &str, &str); 6] = [
            (&[], "198.51.100.7, 203.0.113.9", "10.0.0.1"),
            (&["10.0.0.0/8"], "198.51.100.7, 203.0.113.9", "203.0.113.9"),
            (&["10.0.0.0/8"], "198.51.100.7, 10.0.0.2", "198.51.100.7"),
            (&["10.0.0.0/8"], "10.0.0.3", "10.0.0.3"),
            (&["10.0.0.0/8"], "unknown", "10.0.0.1"),
            (&["192.168.0.0/16"], "203.0.113.9", "10.0.0.1"),
        ];
        for (proxies, forwarded, expected) in cases {
            let caller = caller(proxies, "10.0.0.1:4000", &[("x-forwarded-for", forwarded)]);
            assert_eq!(caller.client_ip.to_string(), expected, "{proxies:?} {forwarded}");
        }
    }

    #[test]
    fn the_host_loses_its_port() {
        let host = |value| caller(&[], "10.0.0.1:4000", &[("host", value)]).host;
        assert_eq!(host("media.example:8080").as_deref(), Some("media.example"));
        assert_eq!(host("[2001:db8::1]:8080").as_deref(), Some("2001:db8::1"));
        assert_eq!(host(""), None);
        let headers = [("host", "inner:80"), ("x-forwarded-host", "outer.example")];
        assert_eq!(caller(&[], "10.0.0.1:4000", &headers).host.as_deref(), Some("inner"));
        assert_eq!(caller(&["10.0.0.1"], "10.0.0.1:4000", &headers).host.as_deref(), Some("outer.example"));
    }

    #[test]
    fn ice_credentials_come_in_pairs_of_the_right_length() {
        let outcome = |query| ice_credentials(Query::new(query));
        assert_eq!(outcome("app=live"), Ok(None));
        let pair = outcome("ice-ufrag=ab+c&ice-pwd=abcdefghijklmnopqrstuv").unwrap().unwrap();
        assert_eq!(pair.0, "ab+c");
        for query in ["ice-ufrag=abcd", "ice-ufrag=abc&ice-pwd=abcdefghijklmnopqrstuv", "ice-ufrag=abcd&ice-pwd=short"]
        {
            assert_eq!(outcome(query).unwrap_err().kind, "bad-ice-credentials", "{query}");
        }
    }

    #[test]
    fn turn_servers_become_links() {
        let server = IceServer {
            urls: vec!["stun:s.example".into(), "turn:t.example?transport=udp".into()],
            username: "u\"x".into(),
            credential: "p".into(),
        };
        let links: Vec<_> = links(&server).map(|link| link.to_str().unwrap().to_owned()).collect();
        assert_eq!(links.len(), 2);
        assert!(links[1].starts_with("<turn:t.example?transport=udp>; rel=\"ice-server\"; username=\"u\\\"x\""));
        assert!(links[1].ends_with("credential=\"p\"; credential-type=\"password\""));
    }
}
