//! WHIP (RFC 9725) and WHEP (draft-ietf-wish-whep-03): `POST /whip/{app}/{stream}`, `POST /whep/{app}/{stream}` and the
//! session that they create, `/session/{token}`.
//!
//! The two differ in the direction of the media alone, so they share every handler. WHEP's counter-offer (406 with an
//! offer of the server's) is not made: an offer that cannot be answered is refused with both sides' codecs.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::header::{ALLOW, CONTENT_TYPE, ETAG, IF_MATCH};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing;
use freshet_media::StreamKey;

use super::offer::{self, ACCEPT_PATCH, ACCEPT_POST, Call, Offer, SDP, SDP_FRAGMENT};
use super::{AppState, Resource, Routes, auth, problem};
use crate::engine::{Opened, Patched, Refusal, Role, SessionToken};
use crate::srs_code as code;
use crate::url::query::percent_decode;
use crate::url::stream_url;

/// Methods of an endpoint.
const ENDPOINT_METHODS: &str = "POST, GET, HEAD, OPTIONS";
/// Methods of a session.
const SESSION_METHODS: &str = "PATCH, DELETE, GET, HEAD, OPTIONS";

pub(super) fn routes() -> Routes {
    Router::new()
        .route("/whip/{*path}", endpoint(routing::post(publish)).options(endpoint_options))
        .route("/whep/{*path}", endpoint(routing::post(play)).options(endpoint_options))
        .route("/session/{token}", session())
        .route("/session/{token}/", session())
}

/// Adds what every endpoint answers beside `POST` and `OPTIONS`. `GET` and `HEAD` get 204, since an endpoint has no representation
/// (RFC 9725 §4.2).
pub(super) fn endpoint(post: Resource) -> Resource {
    post.get(async || StatusCode::NO_CONTENT)
}

fn session() -> Resource {
    routing::patch(patch).delete(delete).get(represent).options(session_options)
}

async fn publish(State(state): State<Arc<AppState>>, call: Call) -> Response {
    answer(&state, Role::Publish, &call).await
}

async fn play(State(state): State<Arc<AppState>>, call: Call) -> Response {
    answer(&state, Role::Play, &call).await
}

async fn answer(state: &AppState, role: Role, call: &Call) -> Response {
    match open(state, role, call).await {
        Ok(opened) => {
            let location = format!("/session/{}", opened.token.as_str());
            offer::created(&state.settings, opened, &location)
        }
        Err(refusal) => {
            offer::log_refusal(&call.caller, role, call.uri.path(), &refusal);
            offer::refused(&refusal)
        }
    }
}

async fn open(state: &AppState, role: Role, call: &Call) -> Result<Opened, Refusal> {
    let query = call.query();
    auth::authorise(&state.settings, role, &call.headers, &[query])?;
    // A client that names no type is taken at its word: what else would it send here?
    if let Some(other) = call.media_type().filter(|media_type| !media_type.eq_ignore_ascii_case(SDP)) {
        return Err(wrong_type(other, SDP));
    }
    let key = key_from_path(call.uri.path())?;
    let sdp = offer::offer_text(&call.body)?;
    let offer = Offer { role, key, sdp, options: query };
    offer::open(state, call.caller.clone(), offer).await
}

/// `/whip/{app}/{stream}`: the last segment is the stream, what stands between is the app.
fn key_from_path(path: &str) -> Result<StreamKey, Refusal> {
    let path = path.trim_end_matches('/');
    let mut segments = path.splitn(3, '/').skip(2);
    let name = segments.next().unwrap_or_default();
    let Some((app, stream)) = name.rsplit_once('/') else {
        return Err(Refusal::new(
            404,
            code::INVALID_PARAMS,
            "bad-stream-name",
            format!("{path} names an app or a stream, but not both"),
            "use two parts, such as /whip/live/cam and /whep/live/cam",
        ));
    };
    stream_url::stream_key(None, &[], &percent_decode(app), &percent_decode(stream))
}

pub(super) fn wrong_type(given: &str, wanted: &str) -> Refusal {
    Refusal::new(
        415,
        code::HTTP_REQUEST,
        "unsupported-media-type",
        format!("the body is {given}, {wanted} is needed"),
        format!("send the body as it is with Content-Type: {wanted}"),
    )
}

async fn endpoint_options() -> Response {
    (StatusCode::OK, [(ALLOW, ENDPOINT_METHODS), (ACCEPT_POST, SDP)]).into_response()
}

async fn session_options() -> Response {
    (StatusCode::OK, [(ALLOW, SESSION_METHODS), (ACCEPT_PATCH, SDP_FRAGMENT)]).into_response()
}

async fn represent(State(state): State<Arc<AppState>>, Path(token): Path<String>) -> Response {
    if state.sessions.has_session(&SessionToken::from_url(&token)) {
        StatusCode::NO_CONTENT.into_response()
    } else {
        problem::response(&problem::no_session())
    }
}

async fn patch(State(state): State<Arc<AppState>>, Path(token): Path<String>, call: Call) -> Response {
    patch_session(&state, &token, &call)
}

async fn delete(State(state): State<Arc<AppState>>, Path(token): Path<String>) -> Response {
    delete_session(&state, &token)
}

/// Trickles candidates or restarts ICE (RFC 9725 §4.3).
pub(super) fn patch_session(state: &AppState, token: &str, call: &Call) -> Response {
    match try_patch(state, &SessionToken::from_url(token), call) {
        Ok(Patched::Trickled) => StatusCode::NO_CONTENT.into_response(),
        Ok(Patched::Restarted { fragment, etag }) => {
            ([(CONTENT_TYPE, SDP_FRAGMENT), (ETAG, etag.as_str())], fragment).into_response()
        }
        Err(refusal) => {
            let mut response = problem::response(&refusal);
            if refusal.status == 415 {
                response.headers_mut().insert(ACCEPT_PATCH, HeaderValue::from_static(SDP_FRAGMENT));
            }
            response
        }
    }
}

fn try_patch(state: &AppState, token: &SessionToken, call: &Call) -> Result<Patched, Refusal> {
    if !state.sessions.has_session(token) {
        return Err(problem::no_session());
    }
    let media_type = call.media_type().unwrap_or("of no stated type");
    if !media_type.eq_ignore_ascii_case(SDP_FRAGMENT) {
        return Err(wrong_type(media_type, SDP_FRAGMENT));
    }
    let fragment =
        std::str::from_utf8(&call.body).ok().filter(|fragment| !fragment.trim().is_empty()).ok_or_else(|| {
            Refusal::new(
                400,
                code::SDP_DECODE,
                "bad-fragment",
                "the body is no SDP fragment",
                "send a=ice-ufrag, a=ice-pwd, and a=candidate lines under their m-line (RFC 8840)",
            )
        })?;
    let if_match = call.headers.get(IF_MATCH).and_then(|value| value.to_str().ok());
    state.sessions.patch(token, if_match, fragment)
}

/// Ends a session.
pub(super) fn delete_session(state: &AppState, token: &str) -> Response {
    match state.sessions.close(&SessionToken::from_url(token)) {
        Some(_) => StatusCode::OK.into_response(),
        None => problem::response(&problem::no_session()),
    }
}
