//! `/api/v1/forwards/`: streams that are sent on to other servers. Not SRS's, so refusals are problem documents here.
//!
//! To start one makes this server connect to wherever the caller says. So it takes a publisher's token, and where there
//! are none, the caller must be on this machine, or `forward.open_api` on.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use axum::extract::{Path, State as Shared};
use axum::http::header::{HOST, LOCATION, ORIGIN};
use axum::http::{HeaderValue, StatusCode, Uri};
use axum::response::Response;
use freshet_media::StreamKey;
use serde::Deserialize;
use serde_json::{Value, json};
use tracing::info;

use crate::engine::{Refusal, Role};
use crate::forward::{ForwardSnapshot, Origin, Template};
use crate::http::offer::{self, Call};
use crate::http::{AppState, auth};
use crate::srs_code as code;
use crate::url::stream_url;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    /// `live/cam`.
    stream: String,
    #[serde(default)]
    vhost: Option<String>,
    /// `rtmp://other/live/[stream]`.
    url: String,
    #[serde(default = "yes")]
    verify_certificate: bool,
}

fn yes() -> bool {
    true
}

pub(super) async fn list(Shared(state): Shared<Arc<AppState>>, uri: Uri) -> Response {
    super::list(&state, "forwards", &state.forwards.list(), &uri, object)
}

pub(super) async fn one(Shared(state): Shared<Arc<AppState>>, Path(id): Path<String>) -> Response {
    match state.forwards.list().iter().find(|forward| forward.id == id) {
        Some(forward) => state.envelope(0, &[("forward", object(forward))]),
        None => offer::refused(&unknown(&id)),
    }
}

pub(super) async fn add(Shared(state): Shared<Arc<AppState>>, call: Call) -> Response {
    let added = async {
        authorise(&state, &call)?;
        let wanted: Wanted = serde_json::from_slice(&call.body).map_err(|error| {
            // The error names fields and places, not values.
            let detail = format!("the body is not what is wanted: {error}");
            let hint = "send {\"stream\": \"live/cam\", \"url\": \"rtmp://other.example/live/[stream]\"}";
            Refusal::new(400, code::API_JSON, "bad-json", detail, hint)
        })?;
        let template = Template::parse(&wanted.url).map_err(|error| {
            let hint = "write it like rtmp://other.example/live/[stream]";
            Refusal::new(400, code::INVALID_PARAMS, "bad-forward-url", format!("bad url: {error}"), hint)
        })?;
        let key = key_of(&state, &wanted)?;
        state.forwards.add(key, &template, wanted.verify_certificate).await
    };
    match added.await {
        Ok(forward) => {
            let mut response = state.envelope(0, &[("forward", object(&forward))]);
            *response.status_mut() = StatusCode::CREATED;
            if let Ok(location) = HeaderValue::from_str(&format!("/api/v1/forwards/{}", forward.id)) {
                response.headers_mut().insert(LOCATION, location);
            }
            response
        }
        Err(refusal) => refused(&call, &refusal),
    }
}

pub(super) async fn remove(Shared(state): Shared<Arc<AppState>>, Path(id): Path<String>, call: Call) -> Response {
    if let Err(refusal) = authorise(&state, &call) {
        return refused(&call, &refusal);
    }
    if state.forwards.remove(&id) { state.envelope(0, &[]) } else { offer::refused(&unknown(&id)) }
}

fn authorise(state: &AppState, call: &Call) -> Result<(), Refusal> {
    let has_tokens = !state.settings.access.publish.is_empty();
    if !has_tokens && !state.forwards.is_open() && !call.caller.client_ip.to_canonical().is_loopback() {
        let detail = "without publish.tokens, forwards are started and ended from the server's own machine only";
        let hint = "set publish.tokens and show one, ask from the machine itself, or set forward.open_api = true";
        return Err(Refusal::new(403, code::SECURITY_DENY, "forbidden", detail, hint));
    }
    if !has_tokens && is_foreign_page(call) {
        let detail = "without publish.tokens, pages of other origins start and end no forwards";
        return Err(Refusal::new(403, code::SECURITY_DENY, "forbidden", detail, "set publish.tokens and show one"));
    }
    auth::authorise(&state.settings, Role::Publish, &call.headers, &[call.query()])
}

/// Any page that somebody opens on this machine could ask here, and CORS lets those of `http.allow_origin` do so.
fn is_foreign_page(call: &Call) -> bool {
    let Some(origin) = call.headers.get(ORIGIN) else { return false };
    let host = call.headers.get(HOST).map(HeaderValue::as_bytes).unwrap_or_default();
    let origin = origin.as_bytes();
    let authority = origin.strip_prefix(b"https://").or_else(|| origin.strip_prefix(b"http://"));
    authority.is_none_or(|authority| authority != host)
}

/// A stream that is there by its whole name, else app and stream.
fn key_of(state: &AppState, wanted: &Wanted) -> Result<StreamKey, Refusal> {
    let name = wanted.stream.trim_matches('/');
    if wanted.vhost.is_none()
        && let Some(stream) = state.sessions.published().into_iter().find(|stream| stream.key.as_str() == name)
    {
        return Ok(stream.key);
    }
    let (app, stream) = name.rsplit_once('/').unwrap_or(("", name));
    stream_url::stream_key(wanted.vhost.as_deref(), &[], app, stream)
}

fn refused(call: &Call, refusal: &Refusal) -> Response {
    info!(ip = %call.caller.client_ip, kind = refusal.kind, "forward refused: {} ({})", refusal.detail, refusal.hint);
    offer::refused(refusal)
}

fn unknown(id: &str) -> Refusal {
    let detail = format!("there is no forward \"{id}\"");
    Refusal::new(404, code::NO_SESSION, "no-forward", detail, "GET /api/v1/forwards/ lists them")
}

fn object(forward: &ForwardSnapshot) -> Value {
    let since_ms = forward.since.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
    json!({
        "id": forward.id,
        "stream": forward.key.as_str(),
        "url": forward.url,
        "from": match forward.origin {
            Origin::Api => "api",
            Origin::Rule(..) => "config",
        },
        "state": forward.state.as_str(),
        "since_ms": since_ms,
        "retry_in_seconds": forward.retry_in().map(|wait| wait.as_secs_f64()),
        "attempts": forward.attempts,
        "last_error": forward.last_error,
        "note": forward.note,
        "send_bytes": forward.bytes,
        "skipped_frames": forward.skipped_frames,
    })
}
