//! `/sig/v1/rtc`, the WebSocket of rooms and calls (`signaling/protocol.md`), and `/sig/v1/versions`.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{Request, State};
use axum::http::header::{HOST, ORIGIN};
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use bytes::Bytes;
use freshet_signaling::{CloseCode, MAX_MESSAGE_BYTES};
use tokio::time::timeout;

use super::offer::Caller;
use super::{AppState, Connection, HttpSettings, Routes, problem};
use crate::access::token_of;
use crate::engine::Refusal;
use crate::signaling::{Full, Item, Socket};
use crate::srs_code as code;
use crate::url::query::Query;

/// The version of SRS's signaling that is spoken.
const VERSION: &str = "1.0";

/// Larger messages are not even read: beyond what the lobby answers with `too-large`, a client has to be broken.
const MAX_READ_BYTES: usize = 4 * MAX_MESSAGE_BYTES;

/// Sockets are many and mostly silent. The library's own 128 KiB for each would be their largest part by far.
const READ_BUFFER_BYTES: usize = 2 * 1024;

/// What a client does not take within this, it will not take.
const SEND_WITHIN: Duration = Duration::from_secs(10);

/// For the client's half of a close, after which the connection is cut.
const CLOSE_WITHIN: Duration = Duration::from_millis(500);

pub(super) fn routes() -> Routes {
    Router::new()
        .route("/sig/v1/rtc", get(open))
        .route("/sig/v1/rtc/", get(open))
        .route("/sig/v1/versions", get(versions))
        .route("/sig/v1/versions/", get(versions))
}

async fn versions(State(state): State<Arc<AppState>>, uri: Uri) -> Response {
    if state.signaling.is_none() {
        return problem::not_found(&uri);
    }
    VERSION.into_response()
}

async fn open(
    State(state): State<Arc<AppState>>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
    request: Request,
) -> Response {
    let Some(signaling) = &state.signaling else { return problem::not_found(request.uri()) };
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(rejection) => return problem::response(&no_websocket(&rejection)),
    };
    let Some(connection) = request.extensions().get::<Connection>() else {
        let refusal = Refusal::new(500, code::HTTP_REQUEST, "no-connection", "no connection", "report it");
        return problem::response(&refusal);
    };
    if !may_connect(&state.settings, request.headers()) {
        return problem::response(&foreign_page(request.headers()));
    }
    let caller = Caller::new(&state.settings, connection, request.headers(), request.uri());
    let place = match signaling.admit(caller.client_ip) {
        Ok(place) => place,
        Err(full) => return problem::response(&no_room(full)),
    };
    let token = token_of(Query::new(request.uri().query().unwrap_or_default()));
    upgrade
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_message_size(MAX_READ_BYTES)
        .max_frame_size(MAX_READ_BYTES)
        .on_upgrade(move |websocket| serve(websocket, place.open(token)))
}

/// Passes messages in both directions until one side ends.
async fn serve(mut websocket: WebSocket, socket: Socket) {
    loop {
        tokio::select! {
            items = socket.outgoing() => {
                for item in items {
                    if !send(&mut websocket, item).await {
                        return;
                    }
                }
            }
            received = websocket.recv() => match received {
                Some(Ok(Message::Text(text))) => socket.receive(&text),
                Some(Ok(Message::Binary(_))) => socket.expel(CloseCode::Unsupported),
                Some(Ok(Message::Pong(_))) => socket.pong(),
                // The library answers.
                Some(Ok(Message::Ping(_))) => {}
                Some(Ok(Message::Close(frame))) => {
                    if is_farewell(frame.as_ref()) {
                        socket.closed();
                    }
                    return;
                }
                Some(Err(error)) if is_too_big(&error) => {
                    socket.expel(CloseCode::TooBig);
                    send(&mut websocket, Item::Close(CloseCode::TooBig)).await;
                    return;
                }
                Some(Err(_)) | None => return,
            }
        }
    }
}

/// Sends one thing; false when that was the last.
async fn send(websocket: &mut WebSocket, item: Item) -> bool {
    let (message, is_last) = match item {
        Item::Text(text) => (Message::Text(text.into()), false),
        Item::Ping => (Message::Ping(Bytes::new()), false),
        Item::Close(code) => {
            let frame = CloseFrame { code: code.number(), reason: code.reason().into() };
            (Message::Close(Some(frame)), true)
        }
    };
    let sent = timeout(SEND_WITHIN, websocket.send(message)).await.is_ok_and(|sent| sent.is_ok());
    if is_last && sent {
        // A connection that is cut with bytes unread is reset, and the client may never see the code.
        let _ = timeout(CLOSE_WITHIN, async { while let Some(Ok(_)) = websocket.recv().await {} }).await;
    }
    sent && !is_last
}

/// Whether a client closes because it is done. A page that gives a connection up can only do so with a code of its own.
fn is_farewell(frame: Option<&CloseFrame>) -> bool {
    frame.is_none_or(|frame| matches!(frame.code, close_code::NORMAL | close_code::AWAY | close_code::STATUS))
}

/// Whether reading failed for the size of a message.
fn is_too_big(error: &axum::Error) -> bool {
    let source = std::error::Error::source(error);
    let error = source.and_then(|source| source.downcast_ref::<tungstenite::Error>());
    matches!(error, Some(tungstenite::Error::Capacity(_)))
}

/// A browser tells which page connects (RFC 6455 §10.2), and CORS does not cover WebSockets. Who is no browser is no page.
fn may_connect(settings: &HttpSettings, headers: &HeaderMap) -> bool {
    let allowed = settings.allow_origin.as_str();
    let Some(origin) = headers.get(ORIGIN) else { return true };
    let Ok(origin) = origin.to_str() else { return false };
    let is_own = || {
        let host = headers.get(HOST).and_then(|host| host.to_str().ok());
        let authority = origin.split_once("://").map(|(_, authority)| authority);
        host.is_some_and(|host| authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host)))
    };
    allowed == "*" || origin == allowed || is_own()
}

fn no_websocket(rejection: &WebSocketUpgradeRejection) -> Refusal {
    let detail = format!("this is a WebSocket, and the request is none: {rejection}");
    Refusal::new(
        400,
        code::HTTP_REQUEST,
        "no-websocket",
        detail,
        "connect with ws://, and let proxies pass the upgrade",
    )
}

fn foreign_page(headers: &HeaderMap) -> Refusal {
    let origin = headers.get(ORIGIN).and_then(|origin| origin.to_str().ok()).unwrap_or_default();
    let detail = format!("pages of {origin:?} may not connect here");
    let hint = "open the page from this server, or set http.allow_origin of its configuration";
    Refusal::new(403, code::SECURITY_DENY, "foreign-page", detail, hint)
}

/// `Retry-After` where there is no room: people come and go by the minute.
const RETRY_SECONDS: u32 = 10;

fn no_room(full: Full) -> Refusal {
    let refusal = match full {
        Full::Server => {
            let hint = "try again later; signaling.max_sockets of the configuration sets the limit";
            Refusal::new(503, code::HTTP_REQUEST, "too-many-sockets", "the server has no room for another socket", hint)
        }
        Full::Address => {
            let detail = "your address has as many sockets as one may have";
            let hint = "close some; signaling.max_sockets_per_ip of the configuration sets the limit";
            Refusal::new(429, code::HTTP_REQUEST, "too-many-sockets", detail, hint)
        }
    };
    refusal.retry_after(RETRY_SECONDS)
}
