//! One call: a POST of JSON over HTTP/1.1, and whether its answer counts as yes.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use super::HookUrl;

/// Longest answer that is read: it says yes or no.
const MAX_ANSWER_BYTES: usize = 64 * 1024;
/// Of an answer that says no, this much is shown.
const SHOWN_BYTES: usize = 120;

const AGENT: &str = concat!("Freshet/", env!("CARGO_PKG_VERSION"));

/// Calls, and waits for a yes.
///
/// # Errors
/// Why there was none.
pub(super) async fn post(url: &HookUrl, tls: Option<&TlsConnector>, body: Bytes) -> Result<(), String> {
    let stream =
        TcpStream::connect((url.host(), url.port())).await.map_err(|error| format!("cannot connect: {error}"))?;
    let Some(tls) = tls else { return exchange(url, stream, body).await };
    let name = ServerName::try_from(url.host().to_owned()).map_err(|error| error.to_string())?;
    let stream = tls.connect(name, stream).await.map_err(|error| format!("TLS failed: {error}"))?;
    exchange(url, stream, body).await
}

async fn exchange<S>(url: &HookUrl, stream: S, body: Bytes) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let failed = |error: hyper::Error| format!("the connection failed: {error}");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    // The set ends the connection's task with this call, however it ends.
    let mut tasks = JoinSet::new();
    tasks.spawn(connection);
    let request = Request::builder()
        .method(Method::POST)
        .uri(url.path())
        .header(HOST, url.authority())
        .header(CONTENT_TYPE, "application/json")
        .header(USER_AGENT, AGENT)
        .header(CONNECTION, "close")
        .body(Full::new(body))
        .map_err(|error| error.to_string())?;
    let response = sender.send_request(request).await.map_err(failed)?;
    let status = response.status();
    let answer = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
    let answer = answer.map_err(|error| format!("the answer cannot be read: {error}"))?.to_bytes();
    is_yes(status, &answer)
}

/// SRS's rule: status 200 or 201, and `0` or an object whose `code` is 0.
fn is_yes(status: StatusCode, body: &[u8]) -> Result<(), String> {
    if status != StatusCode::OK && status != StatusCode::CREATED {
        return Err(format!("status {status}; 200 or 201 is wanted"));
    }
    if body.trim_ascii() == b"0" {
        return Ok(());
    }
    let code = serde_json::from_slice::<Value>(body).ok().and_then(|value| value.get("code")?.as_i64());
    if code == Some(0) {
        return Ok(());
    }
    let shown = String::from_utf8_lossy(&body[..body.len().min(SHOWN_BYTES)]);
    Err(format!("the answer {shown:?} is neither 0 nor {{\"code\": 0}}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yes_is_what_srs_takes_for_it() {
        for (status, body, yes) in [
            (200, "0", true),
            (201, "0\n", true),
            (200, r#"{"code":0}"#, true),
            (200, r#"{"code": 0, "data": null}"#, true),
            (204, "", false),
            (200, "", false),
            (200, "1", false),
            (200, "ok", false),
            (200, r#"{"code":"0"}"#, false),
            (200, r#"{"code":1}"#, false),
            (200, r#"[0]"#, false),
            (302, "0", false),
            (500, "0", false),
        ] {
            assert_eq!(is_yes(StatusCode::from_u16(status).unwrap(), body.as_bytes()).is_ok(), yes, "{status} {body}");
        }
    }
}
