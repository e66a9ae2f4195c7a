//! What happens to every request and every response: the body is read within bounds, a panic or an overlong handler
//! becomes a problem document, and CORS headers (Fetch §3.2) are on everything, because a page cannot even tell why it
//! was refused without them.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ALLOW, ORIGIN, SERVER, VARY,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use tokio::time::timeout;
use tracing::{debug, error};

use super::{AppState, Connection, HttpSettings, Routes, problem};
use crate::engine::Refusal;
use crate::srs_code as code;

/// A handler that takes longer is stuck. SRS's clients give up after the same time.
const HANDLER_TIMEOUT: Duration = Duration::from_secs(15);

/// A body that takes longer to arrive is refused.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Of a body that is too large, this much more is read and thrown away: a client that is still writing when the
/// connection closes gets a reset and never reads the 413.
const MAX_DISCARDED_BYTES: usize = 8 * 1024 * 1024;

/// `Retry-After` of a request that timed out here.
const RETRY_SECONDS: u32 = 2;

const EXPOSED_HEADERS: HeaderValue = HeaderValue::from_static("Location, ETag, Link, Accept-Patch, Retry-After");
/// The asterisk does not cover `Authorization` (Fetch §4.9), and old Safari does not know it.
const ALLOWED_HEADERS: HeaderValue =
    HeaderValue::from_static("Authorization, Content-Type, If-Match, If-None-Match, *");
const ANY_METHOD: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PATCH, DELETE, OPTIONS");
/// How long a browser may remember a preflight, in seconds. Chromium's own bound is two hours.
const PREFLIGHT_SECONDS: HeaderValue = HeaderValue::from_static("7200");
const SERVER_NAME: HeaderValue = HeaderValue::from_static(concat!("Freshet/", env!("CARGO_PKG_VERSION")));

const REQUEST_PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-request-private-network");
const ALLOW_PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-allow-private-network");

/// Responses by class of status, 1xx first.
#[derive(Debug, Default)]
pub(super) struct ResponseCounts([AtomicU64; 5]);

impl ResponseCounts {
    fn count(&self, status: StatusCode) {
        if let Some(class) = self.0.get(usize::from(status.as_u16() / 100).wrapping_sub(1)) {
            class.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// `("2xx", 17)` and so on.
    pub(super) fn classes(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.0.iter().map(|count| count.load(Ordering::Relaxed));
        ["1xx", "2xx", "3xx", "4xx", "5xx"].into_iter().zip(counts)
    }
}

/// Lays all of it around the routes.
pub(super) fn wrap(routes: Routes, state: &Arc<AppState>) -> Routes {
    routes.layer(DefaultBodyLimit::disable()).layer(axum::middleware::from_fn_with_state(state.clone(), around))
}

async fn around(State(state): State<Arc<AppState>>, request: Request, next: Next) -> Response {
    let asked = request.method().clone();
    let headers = request.headers().clone();
    let connection = request.extensions().get::<Connection>().copied();
    let path = loggable(request.uri().path()).to_owned();
    let mut response = match read_body(request, state.settings.max_body_bytes).await {
        Ok(request) => run(request, next, &path).await,
        Err(refusal) => {
            let mut response = problem::response(&refusal);
            // What is left of the body cannot be told from a next request.
            response.headers_mut().insert("connection", HeaderValue::from_static("close"));
            response
        }
    };
    if asked == Method::OPTIONS {
        response = preflight(response, &headers);
    }
    add_cors(&state.settings, &headers, response.headers_mut());
    response.headers_mut().insert(SERVER, SERVER_NAME);
    state.responses.count(response.status());
    if let Some(Connection { peer, tls, .. }) = connection {
        debug!(%peer, tls, method = %asked, %path, status = response.status().as_u16(), "request");
    }
    response
}

/// A session's URL is a secret, so it is cut off.
fn loggable(path: &str) -> &str {
    if path.starts_with("/session/") { "/session/…" } else { path }
}

async fn run(request: Request, next: Next, path: &str) -> Response {
    let mut handler = Box::pin(next.run(request));
    let guarded = std::future::poll_fn(move |context| {
        match std::panic::catch_unwind(AssertUnwindSafe(|| handler.as_mut().poll(context))) {
            Ok(polled) => polled.map(Ok),
            Err(_) => Poll::Ready(Err(())),
        }
    });
    match timeout(HANDLER_TIMEOUT, guarded).await {
        Ok(Ok(response)) => response,
        Ok(Err(())) => {
            error!(%path, "the handler of a request panicked");
            problem::response(&Refusal::new(
                500,
                code::HTTP_REQUEST,
                "internal-error",
                "the server made a mistake with this request",
                "please report it with the server's log",
            ))
        }
        Err(_) => {
            error!(%path, "the handler of a request took too long");
            let refusal = Refusal::new(
                503,
                code::HTTP_REQUEST,
                "timeout",
                "the server did not finish this request in time",
                "it is overloaded; try again",
            );
            problem::response(&refusal.retry_after(RETRY_SECONDS))
        }
    }
}

/// Replaces the body by its bytes, so that no handler waits for the network and every response leaves the connection
/// well-formed, refusals too.
async fn read_body(request: Request, limit: usize) -> Result<Request, Refusal> {
    if request.body().is_end_stream() {
        return Ok(request);
    }
    let (parts, body) = request.into_parts();
    match timeout(BODY_TIMEOUT, collect(body, limit)).await {
        Ok(Ok(bytes)) => Ok(Request::from_parts(parts, Body::from(bytes))),
        Ok(Err(BodyError::TooLarge)) => Err(Refusal::new(
            413,
            code::HTTP_REQUEST,
            "too-large",
            format!("the body is larger than {limit} bytes"),
            "an SDP offer has a few kilobytes; http.max_body_bytes of the configuration sets the limit",
        )),
        Ok(Err(BodyError::Broken)) => Err(Refusal::new(
            400,
            code::HTTP_REQUEST,
            "broken-body",
            "the body of the request did not arrive whole",
            "check the connection and what lies between client and server",
        )),
        Err(_) => Err(Refusal::new(
            408,
            code::HTTP_REQUEST,
            "slow-body",
            format!("the body did not arrive within {} s", BODY_TIMEOUT.as_secs()),
            "check Content-Length and the connection",
        )),
    }
}

enum BodyError {
    TooLarge,
    Broken,
}

async fn collect(mut body: Body, limit: usize) -> Result<Bytes, BodyError> {
    let announced = body.size_hint().lower();
    let mut collected = BytesMut::new();
    let mut seen: usize = 0;
    while let Some(frame) = std::future::poll_fn(|context| std::pin::Pin::new(&mut body).poll_frame(context)).await {
        let Ok(data) = frame.map_err(|_| BodyError::Broken)?.into_data() else { continue };
        seen = seen.saturating_add(data.len());
        if seen > limit.saturating_add(MAX_DISCARDED_BYTES) || announced > (limit + MAX_DISCARDED_BYTES) as u64 {
            return Err(BodyError::TooLarge);
        }
        if seen <= limit {
            collected.extend_from_slice(&data);
        } else {
            collected = BytesMut::new();
        }
    }
    if seen > limit { Err(BodyError::TooLarge) } else { Ok(collected.freeze()) }
}

/// `OPTIONS` succeeds everywhere: on a path that has no handler for it, it lists the methods; on an unknown path it lets
/// the browser ask, so that the page can read the 404.
fn preflight(response: Response, request: &HeaderMap) -> Response {
    let mut response = match response.status() {
        StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_FOUND => {
            let allow = response.headers().get(ALLOW).cloned();
            let mut preflight = StatusCode::NO_CONTENT.into_response();
            if let Some(allow) = allow {
                preflight.headers_mut().insert(ALLOW, allow);
            }
            preflight
        }
        _ => response,
    };
    let headers = response.headers_mut();
    let methods = headers.get(ALLOW).cloned().unwrap_or(ANY_METHOD);
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED_HEADERS);
    headers.insert(ACCESS_CONTROL_MAX_AGE, PREFLIGHT_SECONDS);
    if request.contains_key(REQUEST_PRIVATE_NETWORK) {
        headers.insert(ALLOW_PRIVATE_NETWORK, HeaderValue::from_static("true"));
    }
    response
}

fn add_cors(settings: &HttpSettings, request: &HeaderMap, response: &mut HeaderMap) {
    let allowed = settings.allow_origin.as_str();
    if allowed != "*" {
        response.append(VARY, HeaderValue::from_static("Origin"));
        if request.get(ORIGIN).is_none_or(|origin| origin != allowed) {
            return;
        }
    }
    if let Ok(value) = HeaderValue::from_str(allowed) {
        response.insert(ACCESS_CONTROL_ALLOW_ORIGIN, value);
        response.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED_HEADERS);
    }
}
