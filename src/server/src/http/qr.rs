//! QR codes of this server's own addresses, for the phone that should open what a screen shows: `GET
//! /api/v1/freshet/qr.svg?url=…`. Made here, so that no page asks another site for a picture of an address that may hold
//! a token. Addresses of others get none: this is no service for the world.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HOST};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use qrcodegen::{QrCode, QrCodeEcc};

use super::{AppState, Routes, ServerInfo, problem};
use crate::engine::Refusal;
use crate::srs_code as code;
use crate::url::query::Query;

/// Longer ones make a code that phones cannot read off a screen.
const MAX_URL_BYTES: usize = 400;
/// Light modules around the code (ISO/IEC 18004 §9.1).
const QUIET_ZONE: i32 = 4;

pub(super) fn routes() -> Routes {
    Router::new().route("/api/v1/freshet/qr.svg", get(qr))
}

/// Where the pages are for other machines, `https://address:port`, most useful first. Without TLS they have no camera,
/// but they play.
pub(super) fn page_origins(server: &ServerInfo) -> Vec<String> {
    let (scheme, port, default_port) = match (server.https_port, server.http_port) {
        (Some(port), _) => ("https", port, 443),
        (None, Some(port)) => ("http", port, 80),
        (None, None) => return Vec::new(),
    };
    let mut origins: Vec<String> = Vec::new();
    let addresses = server.candidates.iter().filter_map(|candidate| candidate.parse::<SocketAddr>().ok());
    for ip in addresses.map(|address| address.ip()).filter(|ip| !ip.is_loopback()) {
        let host = match ip {
            IpAddr::V4(v4) => v4.to_string(),
            IpAddr::V6(v6) => format!("[{v6}]"),
        };
        let origin =
            if port == default_port { format!("{scheme}://{host}") } else { format!("{scheme}://{host}:{port}") };
        if !origins.contains(&origin) {
            origins.push(origin);
        }
    }
    origins
}

async fn qr(State(state): State<Arc<AppState>>, headers: HeaderMap, uri: Uri) -> Response {
    let url = Query::new(uri.query().unwrap_or_default()).get("url").unwrap_or_default();
    let asked_at =
        headers.get(HOST).and_then(|host| host.to_str().ok()).or_else(|| uri.authority().map(|a| a.as_str()));
    if url.len() > MAX_URL_BYTES || !is_own(&url, asked_at, &page_origins(&state.settings.server)) {
        return problem::response(&Refusal::new(
            400,
            code::HTTP_REQUEST,
            "not-own-address",
            format!("codes are made of this server's own http:// and https:// addresses, up to {MAX_URL_BYTES} bytes"),
            "pass ?url= with an address of this server, percent-encoded",
        ));
    }
    // No longer than what every version above 10 holds, so this does not fail.
    let Ok(code) = QrCode::encode_text(&url, QrCodeEcc::Medium) else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let headers = [(CONTENT_TYPE, "image/svg+xml"), (CACHE_CONTROL, "private, no-cache")];
    (headers, svg(&code)).into_response()
}

/// Whether an address leads here: to the authority that the request itself was sent to, or to one of ours.
fn is_own(url: &str, asked_at: Option<&str>, origins: &[String]) -> bool {
    // Browsers take a backslash for a slash, and a person what stands before an @ for the host.
    if url.contains(['\\', '@']) || url.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return false;
    }
    let Some((scheme, rest)) = url.split_once("://").filter(|(scheme, _)| matches!(*scheme, "http" | "https")) else {
        return false;
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let is_asked = asked_at.is_some_and(|asked| !asked.is_empty() && asked.eq_ignore_ascii_case(authority));
    is_asked || origins.iter().any(|origin| *origin == format!("{scheme}://{authority}"))
}

/// One path of unit squares on white.
fn svg(code: &QrCode) -> String {
    let side = code.size() + 2 * QUIET_ZONE;
    let mut path = String::new();
    for y in 0..code.size() {
        for x in (0..code.size()).filter(|x| code.get_module(*x, y)) {
            let _ = write!(path, "M{},{}h1v1h-1z", x + QUIET_ZONE, y + QUIET_ZONE);
        }
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {side} {side}\" shape-rendering=\"crispEdges\">\
         <rect width=\"{side}\" height=\"{side}\" fill=\"#fff\"/><path d=\"{path}\" fill=\"#000\"/></svg>"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_told_for_every_address_that_others_can_reach() {
        let server = |candidates: &[&str], https_port, http_port| ServerInfo {
            candidates: candidates.iter().map(|&c| c.to_owned()).collect(),
            https_port,
            http_port,
            ..ServerInfo::default()
        };
        for (candidates, https, http, expected) in [
            (
                &["192.0.2.1:8000", "[2001:db8::1]:8000", "192.0.2.1:8001", "127.0.0.1:8000"][..],
                Some(8443),
                Some(8080),
                &["https://192.0.2.1:8443", "https://[2001:db8::1]:8443"][..],
            ),
            (&["192.0.2.1:8000"], Some(443), None, &["https://192.0.2.1"]),
            (&["192.0.2.1:8000"], None, Some(8080), &["http://192.0.2.1:8080"]),
            (&["192.0.2.1:8000"], None, None, &[]),
            (&["media.example:8000"], Some(8443), None, &[]),
        ] {
            assert_eq!(page_origins(&server(candidates, https, http)), expected, "{candidates:?}");
        }
    }

    #[test]
    fn only_own_addresses_get_a_code() {
        let origins = ["https://192.0.2.1:8443".to_owned()];
        for (url, own) in [
            ("https://192.0.2.1:8443/", true),
            ("https://192.0.2.1:8443/call/x?token=t", true),
            ("https://192.0.2.1:8443", true),
            ("http://media.example:8080/play/live/cam", true),
            ("https://MEDIA.example:8080#x", true),
            ("http://192.0.2.1:8443/", false),
            ("https://192.0.2.1:8443.evil.example/", false),
            ("https://192.0.2.1:8443@evil.example/", false),
            ("https://evil.example/https://192.0.2.1:8443/", false),
            ("https://evil.example\\@192.0.2.1:8443/", false),
            ("https://media.example/", false),
            ("ftp://192.0.2.1:8443/", false),
            ("javascript://192.0.2.1:8443/%0aalert(1)", false),
            ("https://192.0.2.1:8443/ x", false),
            ("", false),
        ] {
            assert_eq!(is_own(url, Some("media.example:8080"), &origins), own, "{url}");
        }
        assert!(!is_own("https://", Some(""), &origins));
    }

    #[test]
    fn the_picture_is_the_code_with_its_quiet_zone() {
        let code = QrCode::encode_text("https://192.0.2.1:8443/", QrCodeEcc::Medium).unwrap();
        let svg = svg(&code);
        let side = code.size() + 8;
        assert!(svg.contains(&format!("viewBox=\"0 0 {side} {side}\"")));
        let dark = (0..code.size()).flat_map(|y| (0..code.size()).map(move |x| (x, y)));
        assert_eq!(svg.matches("h1v1h-1z").count(), dark.filter(|&(x, y)| code.get_module(x, y)).count());
        assert!(svg.contains("M4,4h"), "the corner of the first finder pattern is dark");
    }
}
