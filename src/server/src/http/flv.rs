//! HTTP-FLV and WebSocket-FLV: `GET /{app}/{stream}.flv`, the same address with an upgrade.
//!
//! An endless FLV file (Adobe FLV 10.1, annex E) that starts at the last keyframe. A player of a stream that is not
//! there waits for it, unless `play.when_absent` says otherwise; so does one whose publisher has left.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{FromRequestParts as _, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, UPGRADE};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use freshet_bridge::flv::flv_header;
use freshet_sfu::CloseReason;
use futures_util::stream;

use super::offer::{self, Caller};
use super::{AppState, Connection, auth, problem};
use crate::engine::{LiveRequest, Protocol, Refusal, Role};
use crate::live::{LivePlayer, Reading};
use crate::url::query::{Query, percent_decode};
use crate::url::stream_url;

/// How the path of a stream ends.
const ENDING: &str = ".flv";

/// Answers paths that nothing else answers: streams, or nothing.
pub(super) async fn stream_or_nothing(State(state): State<Arc<AppState>>, request: Request) -> Response {
    let (mut parts, _) = request.into_parts();
    let path = parts.uri.path();
    let is_stream = path.len() > ENDING.len() && path.to_ascii_lowercase().ends_with(ENDING);
    if !is_stream || !state.settings.http_flv {
        return problem::not_found(parts.uri).await;
    }
    if parts.method != Method::GET && parts.method != Method::HEAD {
        return problem::method_not_allowed(parts.method, parts.uri).await;
    }
    let upgrade = match parts.headers.contains_key(UPGRADE) {
        true => match WebSocketUpgrade::from_request_parts(&mut parts, &state).await {
            Ok(upgrade) => Some(upgrade),
            Err(rejection) => return rejection.into_response(),
        },
        false => None,
    };
    let protocol = if upgrade.is_some() { Protocol::WsFlv } else { Protocol::HttpFlv };
    let player = match play(&state, &parts, protocol) {
        Ok(player) => player,
        Err(refusal) => return offer::refused(&refusal),
    };
    if let Some(upgrade) = upgrade {
        return upgrade.on_upgrade(move |socket| send_over_websocket(socket, player));
    }
    // A CDN or proxy must neither keep an endless file nor wait for its end.
    let headers = [(CONTENT_TYPE, "video/x-flv"), (CACHE_CONTROL, "no-store")];
    if parts.method == Method::HEAD {
        return (StatusCode::OK, headers).into_response();
    }
    let pieces = stream::unfold(FlvReader::new(player), async |mut reader| {
        let piece = reader.next().await?;
        Some((Ok::<Bytes, std::convert::Infallible>(piece), reader))
    });
    (StatusCode::OK, headers, Body::from_stream(pieces)).into_response()
}

fn play(state: &AppState, parts: &Parts, protocol: Protocol) -> Result<LivePlayer, Refusal> {
    let Some(connection) = parts.extensions.get::<Connection>() else {
        return Err(Refusal::new(500, crate::srs_code::HTTP_REQUEST, "no-connection", "no connection", "report it"));
    };
    let caller = Caller::new(&state.settings, connection, &parts.headers, &parts.uri);
    let query = Query::new(parts.uri.query().unwrap_or_default());
    let opened = open(state, parts, &caller, query, connection, protocol);
    opened.inspect_err(|refusal| offer::log_refusal(&caller, Role::Play, parts.uri.path(), refusal))
}

fn open(
    state: &AppState,
    parts: &Parts,
    caller: &Caller,
    query: Query<'_>,
    connection: &Connection,
    protocol: Protocol,
) -> Result<LivePlayer, Refusal> {
    auth::authorise(&state.settings, Role::Play, &parts.headers, &[query])?;
    let path = parts.uri.path().trim_start_matches('/');
    let (app, stream) = path.rsplit_once('/').unwrap_or(("", path));
    let own_host = caller.host.as_deref().unwrap_or_default();
    let vhost = stream_url::vhost_of(query);
    let key = stream_url::stream_key(vhost.as_deref(), &[own_host], &percent_decode(app), &percent_decode(stream))?;
    let request = LiveRequest {
        key,
        protocol,
        peer: connection.peer,
        client_ip: caller.client_ip,
        user_agent: caller.user_agent.clone(),
    };
    Arc::clone(&state.sessions).play_live(&request)
}

/// A player's bytes, one piece after the other.
struct FlvReader {
    player: LivePlayer,
    pieces: VecDeque<Bytes>,
    batch: Vec<Bytes>,
    has_begun: bool,
}

impl FlvReader {
    fn new(player: LivePlayer) -> FlvReader {
        FlvReader { player, pieces: VecDeque::new(), batch: Vec::new(), has_begun: false }
    }

    /// [`None`]: the session is over.
    async fn next(&mut self) -> Option<Bytes> {
        if !self.has_begun {
            self.has_begun = true;
            // The header promises tracks, and players wait for what it promises.
            let (has_audio, has_video) = self.player.tracks().await.ok()?;
            return Some(flv_header(has_audio, has_video));
        }
        loop {
            if let Some(piece) = self.pieces.pop_front() {
                return Some(piece);
            }
            if let Reading::Ended(_) = self.player.read(&mut self.batch).await {
                return None;
            }
            self.pieces.extend(self.batch.drain(..).filter(|piece| !piece.is_empty()));
        }
    }
}

/// One message for each piece, as players of FLV over WebSocket expect; what they send is not looked at.
async fn send_over_websocket(mut socket: WebSocket, player: LivePlayer) {
    let mut reader = FlvReader::new(player);
    loop {
        tokio::select! {
            piece = reader.next() => {
                let Some(piece) = piece else { break };
                if socket.send(Message::Binary(piece)).await.is_err() {
                    reader.player.leave_for(CloseReason::PeerClosed);
                    return;
                }
            }
            received = socket.recv() => match received {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => {}
            }
        }
    }
    // The peer may be gone already.
    let _ = socket.send(Message::Close(None)).await;
}
