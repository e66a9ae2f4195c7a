//! The management API `/api/v1/` in SRS's shape, so that its consoles and scripts work: an envelope of `code`, `server`,
//! `service` and `pid` around one payload, and status 200 even where `code` tells of an unknown id.
//!
//! It fills what SRS leaves empty for WebRTC (codecs, frames) and adds per-session statistics under keys of its own.
//! `/api/v1/freshet/server` is not SRS's: the start page reads it.

mod forwards;
mod objects;
mod records;
mod rooms;
mod summaries;

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use freshet_media::{Codec, StreamKey};
use serde_json::{Value, json};

use super::{AppState, Resource, Routes, VERSION, auth, problem, qr};
use crate::access::Access;
use crate::config::IceServer;
use crate::engine::{Role, StreamSnapshot};
use crate::hls::DiskStatus;
use crate::url::query::Query;

/// SRS's `NoVhost`.
const NO_VHOST: u32 = 2014;
/// SRS's `StreamNotFound`.
const STREAM_NOT_FOUND: u32 = 2048;
/// SRS's `ClientNotFound`.
const CLIENT_NOT_FOUND: u32 = 2049;

/// Items of a list when the client does not say, as in SRS.
const DEFAULT_COUNT: usize = 10;
/// Most items of one list.
const MAX_COUNT: usize = 10_000;

pub(super) fn routes() -> Routes {
    let resources: [(&str, Resource); 17] = [
        ("/api", get(index)),
        ("/api/v1", get(index_v1)),
        ("/api/v1/versions", get(versions)),
        ("/api/v1/features", get(features)),
        ("/api/v1/summaries", get(summaries)),
        ("/api/v1/vhosts", get(vhosts)),
        ("/api/v1/vhosts/{id}", get(vhost)),
        ("/api/v1/streams", get(streams)),
        ("/api/v1/streams/{id}", get(stream)),
        ("/api/v1/clients", get(clients)),
        ("/api/v1/clients/{id}", get(client).delete(kick)),
        ("/api/v1/records", get(records::list).post(records::start)),
        ("/api/v1/records/{id}", get(records::one).delete(records::stop)),
        ("/api/v1/rooms", get(rooms)),
        ("/api/v1/forwards", get(forwards::list).post(forwards::add)),
        ("/api/v1/forwards/{id}", get(forwards::one).delete(forwards::remove)),
        ("/api/v1/freshet/server", get(server)),
    ];
    resources.into_iter().fold(Router::new(), |routes, (path, resource)| {
        routes.route(path, resource.clone()).route(&format!("{path}/"), resource)
    })
}

impl AppState {
    fn envelope(&self, code: u32, payload: &[(&str, Value)]) -> Response {
        let identity = &self.settings.identity;
        let mut body = json!({
            "code": code,
            "server": identity.server,
            "service": identity.service,
            "pid": identity.pid,
        });
        for (name, value) in payload {
            body[name] = value.clone();
        }
        Json(body).into_response()
    }

    /// An id that names nothing: SRS's code, and a text that SRS lacks.
    fn unknown(&self, code: u32, what: &str, id: &str) -> Response {
        self.envelope(code, &[("msg", json!(format!("there is no {what} \"{id}\"")))])
    }
}

async fn index(State(state): State<Arc<AppState>>) -> Response {
    state.envelope(0, &[("urls", json!({ "v1": "the API" }))])
}

async fn index_v1(State(state): State<Arc<AppState>>) -> Response {
    let urls = json!({
        "versions": "the version of the server",
        "features": "what the server is built with",
        "summaries": "load of the process and the host",
        "vhosts": "virtual hosts with a stream",
        "streams": "streams, or one as streams/ID; its last keyframe as streams/ID/snapshot.jpg",
        "snapshot.jpg": "a stream's last keyframe by its name, ?stream=live/cam",
        "clients": "publishers and players, or one as clients/ID; DELETE ends it",
        "records": "recordings, or one as records/ID; POST begins one, DELETE ends it",
        "rooms": "rooms and calls, and who is in them",
        "forwards": "streams sent on to other servers, or one as forwards/ID; POST starts one, DELETE ends it",
        "freshet/server": "addresses, ports and codecs of the server",
        "freshet/qr.svg": "QR code of an address of the server: ?url=",
    });
    state.envelope(0, &[("urls", urls)])
}

async fn versions(State(state): State<Arc<AppState>>) -> Response {
    let mut parts = VERSION.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or_default());
    let mut next = || parts.next().unwrap_or_default();
    let data = json!({ "major": next(), "minor": next(), "revision": next(), "version": VERSION });
    state.envelope(0, &[("data", data)])
}

async fn features(State(state): State<Arc<AppState>>) -> Response {
    let dvr = state.records().is_some();
    let data = json!({ "features": { "rtc": true, "whip": true, "whep": true, "https": true, "dvr": dvr, "callback": false } });
    state.envelope(0, &[("data", data)])
}

async fn summaries(State(state): State<Arc<AppState>>) -> Response {
    state.envelope(0, &[("data", summaries::data(&state))])
}

async fn vhosts(State(state): State<Arc<AppState>>, uri: Uri) -> Response {
    let vhosts = objects::vhosts(&state.sessions.streams());
    list(&state, "vhosts", &vhosts, &uri, Value::clone)
}

async fn vhost(State(state): State<Arc<AppState>>, Path(id): Path<String>) -> Response {
    let vhosts = objects::vhosts(&state.sessions.streams());
    match vhosts.into_iter().find(|vhost| vhost["id"] == id || vhost["name"] == id) {
        Some(vhost) => state.envelope(0, &[("vhost", vhost)]),
        None => state.unknown(NO_VHOST, "vhost", &id),
    }
}

async fn streams(State(state): State<Arc<AppState>>, uri: Uri) -> Response {
    let mut streams = state.sessions.streams();
    // A page wants to know of its own stream alone.
    if let Some(key) = Query::new(uri.query().unwrap_or_default()).get("key") {
        streams.retain(|stream| stream.key.as_str() == key);
    }
    streams.sort_by(|a, b| a.key.cmp(&b.key));
    let disk = state.hls().and_then(|hls| hls.disk_status()).unwrap_or_default();
    list(&state, "streams", &streams, &uri, |stream| shown(&state, stream, &disk))
}

/// A stream with what only this side knows: why its files are not up to date, if so, and what is switched off.
fn shown(state: &AppState, stream: &StreamSnapshot, disk: &DiskStatus) -> Value {
    let mut object = objects::stream(stream);
    let failing = disk.failing.iter().find(|(failing, _)| *failing == stream.key);
    object["hls_disk_error"] = json!(failing.map(|(_, why)| why));
    let has_low_latency = state.hls().is_some_and(|hls| hls.has_low_latency());
    let switches = [("flv", state.settings.http_flv), ("hls", state.hls().is_some()), ("ll-hls", has_low_latency)];
    for (name, is_on) in switches {
        if let Some(output) = object["outputs"].get_mut(name).filter(|_| !is_on) {
            *output = json!({ "available": false, "note": "switched off" });
        }
    }
    object
}

async fn stream(State(state): State<Arc<AppState>>, Path(id): Path<String>) -> Response {
    match state.sessions.streams().iter().find(|stream| stream.id == id) {
        Some(stream) => {
            let disk = state.hls().and_then(|hls| hls.disk_status()).unwrap_or_default();
            state.envelope(0, &[("stream", shown(&state, stream, &disk))])
        }
        None => state.unknown(STREAM_NOT_FOUND, "stream", &id),
    }
}

async fn clients(State(state): State<Arc<AppState>>, uri: Uri) -> Response {
    let mut clients = state.sessions.clients();
    clients.sort_by(|a, b| a.id.cmp(&b.id));
    list(&state, "clients", &clients, &uri, objects::client)
}

async fn client(State(state): State<Arc<AppState>>, Path(id): Path<String>) -> Response {
    match state.sessions.clients().iter().find(|client| client.id == id) {
        Some(client) => state.envelope(0, &[("client", objects::client(client))]),
        None => state.unknown(CLIENT_NOT_FOUND, "client", &id),
    }
}

/// Ends somebody's session. Where publishing takes a token, so does this: it would be the easier way to disturb.
async fn kick(State(state): State<Arc<AppState>>, Path(id): Path<String>, uri: Uri, headers: HeaderMap) -> Response {
    let query = Query::new(uri.query().unwrap_or_default());
    if let Err(refusal) = auth::authorise(&state.settings, Role::Publish, &headers, &[query]) {
        return auth::challenge(problem::response(&refusal));
    }
    if state.sessions.kick(&id) {
        return state.envelope(0, &[]);
    }
    state.unknown(CLIENT_NOT_FOUND, "client", &id)
}

/// A page of a list: `?start=` and `?count=`, with the number of all items as `total`.
fn list<T>(state: &AppState, name: &str, items: &[T], uri: &Uri, object: impl Fn(&T) -> Value) -> Response {
    let query = Query::new(uri.query().unwrap_or_default());
    let number = |name| query.get(name).and_then(|value| value.parse::<usize>().ok());
    let start = number("start").unwrap_or(0);
    let count = number("count").unwrap_or(DEFAULT_COUNT).clamp(1, MAX_COUNT);
    let page: Vec<Value> = items.iter().skip(start).take(count).map(object).collect();
    state.envelope(0, &[(name, Value::Array(page)), ("total", json!(items.len()))])
}

/// Who talks with whom. Where joining takes a token, so does this.
async fn rooms(State(state): State<Arc<AppState>>, uri: Uri, headers: HeaderMap) -> Response {
    let Some(signaling) = &state.signaling else { return problem::not_found(&uri) };
    let query = Query::new(uri.query().unwrap_or_default());
    let known = Access { publish: signaling.tokens().to_vec(), play: Vec::new() };
    if let Err(refusal) = known.check(Role::Publish, auth::shown(&headers, &[query]).as_deref()) {
        return auth::challenge(problem::response(&refusal));
    }
    list(&state, "rooms", &signaling.rooms(), &uri, rooms::room)
}

async fn server(State(state): State<Arc<AppState>>) -> Response {
    let settings = &state.settings;
    let info = &settings.server;
    let guarded = !settings.access.publish.is_empty() || !settings.access.play.is_empty();
    let codecs: Vec<&str> = Codec::RTP.into_iter().map(Codec::rtp_name).collect();
    // A TURN password is for those who may use this server; behind tokens they get it with the answer.
    let ice_servers: Vec<Value> = settings
        .ice_servers
        .iter()
        .filter(|server| !guarded || server.credential.is_empty())
        .map(rtc_ice_server)
        .collect();
    Json(json!({
        "version": VERSION,
        "candidates": info.candidates,
        "http_port": info.http_port,
        "https_port": info.https_port,
        "rtmp_port": info.rtmp_port,
        "pages": qr::page_origins(info),
        "http_flv": settings.http_flv,
        "hls": settings.hls.is_some(),
        "rooms": settings.signaling.is_some(),
        "ll_hls": settings.hls.as_ref().is_some_and(|hls| hls.part.is_some()),
        "codecs": codecs,
        "prefer_codec": info.prefer_codec.map(Codec::rtp_name),
        "ice_servers": ice_servers,
        "publish_needs_token": !settings.access.publish.is_empty(),
        "play_needs_token": !settings.access.play.is_empty(),
        "draining": state.sessions.is_draining(),
    }))
    .into_response()
}

/// `RTCIceServer` of the WebRTC API, so that a page can pass it on.
fn rtc_ice_server(server: &IceServer) -> Value {
    let mut object = json!({ "urls": server.urls });
    if !server.username.is_empty() {
        object["username"] = json!(server.username);
        object["credential"] = json!(server.credential);
    }
    object
}

/// `/app/stream`, SRS's short name of a stream.
fn short_url(key: &StreamKey) -> String {
    format!("/{}/{}", key.app(), key.stream())
}
