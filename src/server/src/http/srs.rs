//! SRS's WebRTC interface, so that its clients need no change: `/rtc/v1/whip/`, `/rtc/v1/whep/`, `/rtc/v1/whip-play/`
//! with the stream in the query, and the older JSON calls `/rtc/v1/publish/` and `/rtc/v1/play/`.
//!
//! Where it differs from SRS, SRS's clients gain: errors are told instead of closing the connection, the query is
//! percent-decoded, the missing slash needs no redirect, and the caller cannot choose the address it is logged with.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::ALLOW;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing;
use axum::{Json, Router};
use freshet_media::StreamKey;
use serde::Deserialize;
use serde_json::json;

use super::offer::{self, Call, Offer, SDP, SDP_FRAGMENT};
use super::{AppState, Resource, Routes, auth, problem, whip};
use crate::engine::{Opened, Refusal, Role};
use crate::srs_code as code;
use crate::url::query::{Query, percent_encode};
use crate::url::stream_url::{self, StreamUrl};

/// SRS's defaults for a query that names no stream.
const DEFAULT_APP: &str = "live";
const DEFAULT_STREAM: &str = "livestream";

/// Endpoint and session share a path here.
const METHODS: &str = "POST, PATCH, DELETE, GET, HEAD, OPTIONS";

pub(super) fn routes() -> Routes {
    let calls: [(&str, Resource); 5] = [
        ("/rtc/v1/whip", sdp_call(routing::post(publish_or_play))),
        ("/rtc/v1/whep", sdp_call(routing::post(play))),
        ("/rtc/v1/whip-play", sdp_call(routing::post(play))),
        ("/rtc/v1/publish", routing::post(json_publish)),
        ("/rtc/v1/play", routing::post(json_play)),
    ];
    calls
        .into_iter()
        .fold(Router::new(), |routes, (path, call)| routes.route(path, call.clone()).route(&format!("{path}/"), call))
}

fn sdp_call(post: Resource) -> Resource {
    whip::endpoint(post).patch(on_session).delete(on_session).options(options)
}

async fn options() -> Response {
    let headers = [(ALLOW, METHODS), (offer::ACCEPT_POST, SDP), (offer::ACCEPT_PATCH, SDP_FRAGMENT)];
    (StatusCode::OK, headers).into_response()
}

async fn publish_or_play(State(state): State<Arc<AppState>>, call: Call) -> Response {
    let role = if call.query().get("action").as_deref() == Some("play") { Role::Play } else { Role::Publish };
    sdp_answer(&state, role, &call).await
}

async fn play(State(state): State<Arc<AppState>>, call: Call) -> Response {
    sdp_answer(&state, Role::Play, &call).await
}

async fn sdp_answer(state: &AppState, role: Role, call: &Call) -> Response {
    match sdp_open(state, role, call).await {
        Ok((opened, key)) => {
            let location = location(&opened, &key);
            offer::created(&state.settings, opened, &location)
        }
        Err(refusal) => {
            // Not the query as a whole: it may hold a token.
            let stream = format!("{}/{}", app(call.query()), stream(call.query()));
            offer::log_refusal(&call.caller, role, &stream, &refusal);
            offer::refused(&refusal)
        }
    }
}

async fn sdp_open(state: &AppState, role: Role, call: &Call) -> Result<(Opened, StreamKey), Refusal> {
    let query = call.query();
    auth::authorise(&state.settings, role, &call.headers, &[query])?;
    // SRS never looks at the type, and its users send what their tool defaults to. JSON alone is surely a mistake: it is
    // meant for /rtc/v1/publish/ or /rtc/v1/play/.
    if let Some(json) = call.media_type().filter(|media_type| media_type.ends_with("json")) {
        return Err(whip::wrong_type(json, SDP));
    }
    let own_host = call.caller.host.as_deref().unwrap_or_default();
    let vhost = stream_url::vhost_of(query);
    let key = stream_url::stream_key(vhost.as_deref(), &[own_host], &app(query), &stream(query))?;
    let sdp = offer::offer_text(&call.body)?;
    let offer = Offer { role, key: key.clone(), sdp, options: query };
    Ok((offer::open(state, call.caller.clone(), offer).await?, key))
}

fn app(query: Query<'_>) -> String {
    query.get("app").unwrap_or_else(|| DEFAULT_APP.to_owned())
}

fn stream(query: Query<'_>) -> String {
    query.get("stream").unwrap_or_else(|| DEFAULT_STREAM.to_owned())
}

/// SRS uses the WHIP path for players, too.
fn location(opened: &Opened, key: &StreamKey) -> String {
    format!(
        "/rtc/v1/whip/?action=delete&token={}&app={}&stream={}&session={}",
        opened.token.as_str(),
        percent_encode(key.app()),
        percent_encode(key.stream()),
        opened.ice_session
    )
}

async fn on_session(State(state): State<Arc<AppState>>, method: Method, call: Call) -> Response {
    let Some(token) = call.query().get("token") else {
        return problem::response(&Refusal::new(
            403,
            code::INVALID_SESSION,
            "no-session-token",
            "the URL has no token, so it names no session",
            "use the Location of the 201 response unchanged",
        ));
    };
    if method == Method::DELETE {
        return whip::delete_session(&state, &token);
    }
    whip::patch_session(&state, &token, &call)
}

/// The fields of a JSON call that count. `api` and `tid` are for SRS's log, `clientip` would let the caller choose the
/// address it is known by.
#[derive(Deserialize)]
struct JsonCall {
    sdp: String,
    streamurl: String,
}

async fn json_publish(State(state): State<Arc<AppState>>, call: Call) -> Response {
    json_answer(&state, Role::Publish, &call).await
}

async fn json_play(State(state): State<Arc<AppState>>, call: Call) -> Response {
    json_answer(&state, Role::Play, &call).await
}

/// Always 200, as these clients look at `code` alone.
async fn json_answer(state: &AppState, role: Role, call: &Call) -> Response {
    let identity = &state.settings.identity;
    let (server, service, pid) = (&identity.server, &identity.service, &identity.pid);
    let answer = match json_open(state, role, call).await {
        Ok(opened) => json!({
            "code": 0,
            "server": server,
            "service": service,
            "pid": pid,
            "sdp": opened.answer,
            "sessionid": opened.ice_session,
        }),
        Err(refusal) => {
            offer::log_refusal(&call.caller, role, call.uri.path(), &refusal);
            json!({
                "code": refusal.code,
                "server": server,
                "service": service,
                "pid": pid,
                "msg": refusal.detail,
                "hint": refusal.hint,
            })
        }
    };
    Json(answer).into_response()
}

async fn json_open(state: &AppState, role: Role, call: &Call) -> Result<Opened, Refusal> {
    let options = call.query();
    let JsonCall { sdp, streamurl } = serde_json::from_slice(&call.body).map_err(|error| {
        Refusal::new(
            400,
            code::API_JSON,
            "bad-json",
            format!("the body is not the JSON that is needed: {error}"),
            "send {\"sdp\": …, \"streamurl\": \"webrtc://host/live/cam\"}",
        )
    })?;
    let url = StreamUrl::parse(&streamurl)?;
    auth::authorise(&state.settings, role, &call.headers, &[Query::new(&url.query), options])?;
    let own_hosts = [call.caller.host.as_deref().unwrap_or_default(), &url.host];
    let key = stream_url::stream_key(url.vhost.as_deref(), &own_hosts, &url.app, &url.stream)?;
    let sdp = offer::offer_text(sdp.as_bytes())?;
    // The client will look for media where it believes the stream to be.
    let caller = call.caller.clone().looking_for(&url.host);
    offer::open(state, caller, Offer { role, key, sdp, options }).await
}
