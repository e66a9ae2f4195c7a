//! One connection that speaks HTTP: HTTP/1.1 (RFC 9112), or HTTP/2 (RFC 9113) where TLS has agreed on it.
//!
//! Players of low-latency HLS ask for a playlist and a part at the same time, over and over; HTTP/2 carries both on one
//! connection. WebSockets stay with HTTP/1.1: RFC 8441 is not offered, so browsers open a connection of their own for
//! them. HTTP/2 in the clear is not spoken.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::header::{CONNECTION, CONTENT_LENGTH};
use axum::http::{Request, StatusCode, Version};
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::timeout;
use tower::ServiceExt;

use super::{FIRST_BYTES_TIMEOUT, stopped};
use crate::http::Connection;

/// Largest request head, in bytes.
const MAX_HEAD_BYTES: u32 = 32 * 1024;

/// Requests at a time on one HTTP/2 connection. RFC 9113 §6.5.2 advises no less than 100; a page needs a dozen.
const MAX_STREAMS: u32 = 100;

/// Bytes of responses that wait for a slow reader of an HTTP/2 connection, for each of its requests.
const MAX_WAITING_BYTES: usize = 256 * 1024;

/// An HTTP/2 connection without a request for so long is told to end. Players ask every few seconds.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// How often the other end of an HTTP/2 connection is asked whether it is still there, and how long it may think.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves HTTP/1.1 until the connection ends, or `stop` turns true and the request at hand is answered.
pub(super) async fn serve_1<S>(
    stream: S,
    connection: Connection,
    router: Router,
    mut stop: watch::Receiver<bool>,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = hyper::service::service_fn(move |request| answer(router.clone(), connection, request));
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(FIRST_BYTES_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES as usize)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut serving = std::pin::pin!(serving);
    tokio::select! {
        ended = serving.as_mut() => return ended.map_err(io::Error::other),
        () = stopped(&mut stop) => {}
    }
    serving.as_mut().graceful_shutdown();
    serving.await.map_err(io::Error::other)
}

/// The same for HTTP/2. A connection that is not used ends too.
pub(super) async fn serve_2<S>(
    stream: S,
    connection: Connection,
    router: Router,
    mut stop: watch::Receiver<bool>,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (at_hand, mut watched) = watch::channel(Requests::default());
    let service = hyper::service::service_fn(move |request| {
        let guard = AtHand::new(&at_hand);
        let answer = answer(router.clone(), connection, request);
        async move {
            let _guard = guard;
            answer.await
        }
    });
    let serving = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEAD_BYTES)
        .max_send_buf_size(MAX_WAITING_BYTES)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    let mut serving = std::pin::pin!(serving);
    tokio::select! {
        ended = serving.as_mut() => return ended.map_err(io::Error::other),
        () = stopped(&mut stop) => {}
        () = idle(&mut watched) => {}
    }
    // Who has not asked for anything may not have spoken HTTP/2 at all, and its beginning is waited for without end.
    if !watched.borrow().were_any {
        return Ok(());
    }
    // Responses that are still being sent are sent to their end.
    serving.as_mut().graceful_shutdown();
    serving.await.map_err(io::Error::other)
}

/// The requests of a connection.
#[derive(Debug, Default)]
struct Requests {
    at_hand: usize,
    were_any: bool,
}

/// Counts a request while it is being answered.
struct AtHand(watch::Sender<Requests>);

impl AtHand {
    fn new(requests: &watch::Sender<Requests>) -> AtHand {
        requests.send_modify(|requests| *requests = Requests { at_hand: requests.at_hand + 1, were_any: true });
        AtHand(requests.clone())
    }
}

impl Drop for AtHand {
    fn drop(&mut self) {
        self.0.send_modify(|requests| requests.at_hand -= 1);
    }
}

/// Waits until there has been no request for [`IDLE_TIMEOUT`].
async fn idle(requests: &mut watch::Receiver<Requests>) {
    loop {
        if requests.wait_for(|requests| requests.at_hand == 0).await.is_err() {
            return;
        }
        // An error means that the service is gone, and the connection with it.
        match timeout(IDLE_TIMEOUT, requests.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
}

fn answer(
    router: Router,
    connection: Connection,
    request: Request<Incoming>,
) -> impl Future<Output = Result<Response, Infallible>> {
    let version = request.version();
    let mut request = request.map(Body::new);
    request.extensions_mut().insert(connection);
    let answer = router.oneshot(request);
    async move {
        let mut response = answer.await?;
        let headers = response.headers_mut();
        if version == Version::HTTP_2 {
            // RFC 9113 §8.2.2.
            headers.remove(CONNECTION);
        }
        if response.status() == StatusCode::NO_CONTENT {
            // RFC 9110 §8.6 forbids it here; axum adds it to the answers to HEAD.
            response.headers_mut().remove(CONTENT_LENGTH);
        }
        Ok(response)
    }
}
