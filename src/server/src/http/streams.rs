//! Streams at addresses of their own, `/{app}/{stream}.{format}`: which format answers, and what they have in common.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::Method;
use axum::http::request::Parts;
use axum::response::Response;

use super::offer::{self, Caller};
use super::{AppState, Connection, auth, flv, hls, low_latency, problem};
use crate::engine::{LiveRequest, Protocol, Refusal, Role};
use crate::srs_code as code;
use crate::url::query::{Query, percent_decode};
use crate::url::stream_url;

/// Answers paths that nothing else answers: streams, or nothing.
pub(super) async fn stream_or_nothing(State(state): State<Arc<AppState>>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    if let (Some(address), Some(hls)) = (low_latency::Address::of(parts.uri.path()), &state.hls)
        && is_read(&parts.method)
    {
        return low_latency::answer(&state, hls, &parts, &address).await;
    }
    let file = parts.uri.path().rsplit('/').next().unwrap_or_default();
    let (name, format) = file.rsplit_once('.').unwrap_or((file, ""));
    let format = format.to_ascii_lowercase();
    let (has_flv, hls) = (state.settings.http_flv, state.hls.clone());
    if name.is_empty()
        || !matches!((format.as_str(), has_flv, &hls), ("flv", true, _) | ("m3u8" | "ts" | "key", _, Some(_)))
    {
        return problem::not_found(&parts.uri);
    }
    if !is_read(&parts.method) {
        return problem::method_not_allowed(parts.method, parts.uri).await;
    }
    match (format.as_str(), hls) {
        ("m3u8", Some(hls)) => hls::playlist(&state, &hls, &parts).await,
        ("ts", Some(hls)) => hls::segment(&state, &hls, &parts),
        ("key", Some(hls)) => hls::encryption_key(&state, &hls, &parts),
        _ => flv::stream(&state, parts).await,
    }
}

fn is_read(method: &Method) -> bool {
    *method == Method::GET || *method == Method::HEAD
}

/// Which stream a path means, undecoded.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) app: &'a str,
    /// With its format's ending or without.
    pub(super) stream: &'a str,
}

impl Place<'_> {
    /// That of `/{app}/{stream}`.
    pub(super) fn of_path(path: &str) -> Place<'_> {
        let path = path.trim_start_matches('/');
        let (app, stream) = path.rsplit_once('/').unwrap_or(("", path));
        Place { app, stream }
    }
}

/// Who asks to play what, once that is allowed.
pub(super) fn play_request(
    state: &AppState,
    parts: &Parts,
    protocol: Protocol,
    place: &Place<'_>,
) -> Result<LiveRequest, Refusal> {
    let Some(connection) = parts.extensions.get::<Connection>() else {
        return Err(Refusal::new(500, code::HTTP_REQUEST, "no-connection", "no connection", "report it"));
    };
    let caller = Caller::new(&state.settings, connection, &parts.headers, &parts.uri);
    let query = Query::new(parts.uri.query().unwrap_or_default());
    auth::authorise(&state.settings, Role::Play, &parts.headers, &[query])?;
    let Place { app, stream } = *place;
    let own_host = caller.host.as_deref().unwrap_or_default();
    let vhost = stream_url::vhost_of(query);
    let key = stream_url::stream_key(vhost.as_deref(), &[own_host], &percent_decode(app), &percent_decode(stream))?;
    Ok(LiveRequest { key, protocol, peer: connection.peer, client_ip: caller.client_ip, user_agent: caller.user_agent })
}

/// Logs a refusal.
pub(super) fn log_refusal(state: &AppState, parts: &Parts, refusal: &Refusal) {
    if let Some(connection) = parts.extensions.get::<Connection>() {
        let caller = Caller::new(&state.settings, connection, &parts.headers, &parts.uri);
        offer::log_refusal(&caller, Role::Play, parts.uri.path(), refusal);
    }
}
