//! HTTP-FLV and WebSocket-FLV: `GET /{app}/{stream}.flv`, the same address with an upgrade.
//!
//! An endless FLV file (Adobe FLV 10.1, annex E) that starts at the last keyframe. A player of a stream that is not
//! there waits for it, unless `play.when_absent` says otherwise; so does one whose publisher has left.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::FromRequestParts as _;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, UPGRADE};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use freshet_bridge::fanout::Wire;
use freshet_bridge::flv::flv_header;
use freshet_sfu::CloseReason;
use futures_util::stream;

use super::streams::{self, Place};
use super::{AppState, offer};
use crate::engine::Protocol;
use crate::live::{LivePlayer, Reading};

/// Answers `/{app}/{stream}.flv`.
pub(super) async fn stream(state: &Arc<AppState>, mut parts: Parts) -> Response {
    let upgrade = match parts.headers.contains_key(UPGRADE) {
        true => match WebSocketUpgrade::from_request_parts(&mut parts, state).await {
            Ok(upgrade) => Some(upgrade),
            Err(rejection) => return rejection.into_response(),
        },
        false => None,
    };
    let protocol = if upgrade.is_some() { Protocol::WsFlv } else { Protocol::HttpFlv };
    let opened = streams::play_request(state, &parts, protocol, &Place::of_path(parts.uri.path()))
        .and_then(|request| Arc::clone(&state.sessions).play_live(&request, Wire::Flv));
    let player = match opened {
        Ok(player) => player,
        Err(refusal) => {
            streams::log_refusal(state, &parts, &refusal);
            return offer::refused(&refusal);
        }
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
