//! The pages of `web/`, embedded in the binary; a debug build reads them from disk, so that a reload shows a change.

use std::fmt::Write as _;

use axum::Router;
use axum::extract::Path;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use rust_embed::{EmbeddedFile, RustEmbed};

use super::{Routes, problem};

#[derive(RustEmbed)]
#[folder = "../../web"]
struct Web;

/// Scripts and styles are ours alone; a page may talk to other servers, since it can play from any WHEP URL.
const CONTENT_POLICY: &str = "default-src 'self'; connect-src * ws: wss:; img-src 'self' data: blob:; \
    media-src 'self' blob: mediastream:; worker-src 'self' blob:; object-src 'none'; base-uri 'none'; form-action 'self'";

pub(super) fn routes() -> Routes {
    let index = get(async |headers: HeaderMap, uri: Uri| page("index.html", &headers, &uri));
    let publish = get(async |headers: HeaderMap, uri: Uri| page("publish.html", &headers, &uri));
    let play = get(async |headers: HeaderMap, uri: Uri| page("play.html", &headers, &uri));
    let sdk = get(async |headers: HeaderMap, uri: Uri| page("srs.sdk.js", &headers, &uri));
    let call = get(async |headers: HeaderMap, uri: Uri| page("call.html", &headers, &uri));
    Router::new()
        .route("/", index)
        .route("/publish", publish.clone())
        .route("/publish/", publish.clone())
        .route("/publish/{*stream}", publish)
        .route("/play", play.clone())
        .route("/play/", play.clone())
        .route("/play/{*stream}", play)
        .route("/call", call.clone())
        .route("/call/", call.clone())
        .route("/call/{room}", call.clone())
        .route("/room", call.clone())
        .route("/room/", call.clone())
        .route("/room/{room}", call.clone())
        // Where SRS has its demonstrations of calls and rooms.
        .route("/demos/one2one.html", call.clone())
        .route("/demos/room.html", call)
        .route("/web/{*path}", get(asset))
        // Where pages written for SRS look for its SDK.
        .route("/players/js/srs.sdk.js", sdk.clone())
        .route("/demos/js/srs.sdk.js", sdk)
        .route("/favicon.ico", get(async |headers: HeaderMap, uri: Uri| page("favicon.svg", &headers, &uri)))
}

async fn asset(Path(path): Path<String>, headers: HeaderMap, uri: Uri) -> Response {
    page(&path, &headers, &uri)
}

fn page(path: &str, headers: &HeaderMap, uri: &Uri) -> Response {
    // Names are looked up in a list; the check keeps a debug build, which has the file system, to the same.
    let is_plain = path.split('/').all(|part| !part.is_empty() && !part.starts_with('.')) && !path.contains('\\');
    match (content_type(path), Web::get(path).filter(|_| is_plain)) {
        (Some(content_type), Some(file)) => serve(file, content_type, headers),
        _ => problem::not_found(uri),
    }
}

fn serve(file: EmbeddedFile, content_type: &'static str, headers: &HeaderMap) -> Response {
    let etag = etag(&file);
    let common: [(HeaderName, &str); 5] = [
        (ETAG, &etag),
        // Pages, scripts and server change together: ask each time, and mostly hear 304.
        (CACHE_CONTROL, "no-cache"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (CONTENT_SECURITY_POLICY, CONTENT_POLICY),
        // Stream URLs may hold a token.
        (REFERRER_POLICY, "no-referrer"),
    ];
    if is_known(headers, &etag) {
        return (StatusCode::NOT_MODIFIED, common).into_response();
    }
    let body = match file.data {
        std::borrow::Cow::Borrowed(embedded) => embedded.into_response(),
        std::borrow::Cow::Owned(read) => read.into_response(),
    };
    let mut response = (common, body).into_response();
    response.headers_mut().insert(CONTENT_TYPE, axum::http::HeaderValue::from_static(content_type));
    response
}

fn etag(file: &EmbeddedFile) -> String {
    let mut etag = String::with_capacity(34);
    etag.push('"');
    for byte in &file.metadata.sha256_hash()[..16] {
        let _ = write!(etag, "{byte:02x}");
    }
    etag.push('"');
    etag
}

/// RFC 9110 §13.1.2, weak comparison.
fn is_known(headers: &HeaderMap, etag: &str) -> bool {
    headers
        .get_all(IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|known| known.trim().trim_start_matches("W/"))
        .any(|known| known == "*" || known == etag)
}

/// Files of other kinds are not served, whatever lies in the folder.
fn content_type(path: &str) -> Option<&'static str> {
    Some(match path.rsplit_once('.')?.1 {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" => "application/json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "webp" => "image/webp",
        "ico" => "image/x-icon",
        "woff2" => "font/woff2",
        "webmanifest" => "application/manifest+json",
        _ => return None,
    })
}
