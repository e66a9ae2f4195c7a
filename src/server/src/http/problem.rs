//! Refusals as problem documents (RFC 9457). A problem names its cause and the remedy, and carries SRS's number of the
//! case, so that a person, a page and an SRS client can each make sense of it.

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::engine::Refusal;
use crate::srs_code as code;

#[derive(Serialize)]
struct Problem<'a> {
    r#type: String,
    title: String,
    status: u16,
    detail: &'a str,
    hint: &'a str,
    code: u32,
}

/// The answer to a refused request.
pub(super) fn response(refusal: &Refusal) -> Response {
    let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let problem = Problem {
        r#type: format!("urn:freshet:problem:{}", refusal.kind),
        title: title(refusal.kind),
        status: status.as_u16(),
        detail: &refusal.detail,
        hint: &refusal.hint,
        code: refusal.code,
    };
    // Serialising strings and numbers cannot fail; an empty body would still carry the status.
    let body = serde_json::to_vec(&problem).unwrap_or_default();
    let mut response = (status, [(CONTENT_TYPE, "application/problem+json")], body).into_response();
    if let Some(seconds) = refusal.retry_after_seconds {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// `stream-busy` → `Stream busy`: RFC 9457 wants the same title for the same type.
fn title(kind: &str) -> String {
    let mut title = kind.replace('-', " ");
    if let Some(first) = title.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    title
}

/// A session URL that names no live session.
pub(super) fn no_session() -> Refusal {
    Refusal::new(
        404,
        code::NO_SESSION,
        "no-session",
        "there is no session under this URL",
        "the session has ended or the URL is incomplete; open a new session",
    )
}

/// A path that is nothing here.
pub(super) fn not_found(uri: &Uri) -> Response {
    response(&Refusal::new(
        404,
        code::HTTP_REQUEST,
        "not-found",
        format!("there is nothing at {}", uri.path()),
        "publish to /whip/{app}/{stream}, play from /whep/{app}/{stream}; / is the start page",
    ))
}

/// A path that exists, asked with a method that it has not. The router adds `Allow`.
pub(super) async fn method_not_allowed(method: Method, uri: Uri) -> Response {
    response(&Refusal::new(
        405,
        code::HTTP_REQUEST,
        "method-not-allowed",
        format!("{} does not answer {method}", uri.path()),
        "the Allow header lists the methods that it answers",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_refusal_becomes_a_problem_document() {
        let refusal =
            Refusal::new(409, 5020, "stream-busy", "live/cam has a publisher", "stop it first").retry_after(3);
        let response = response(&refusal);
        assert_eq!(response.status(), 409);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
        assert_eq!(response.headers()[RETRY_AFTER], "3");
        let body = axum::body::to_bytes(response.into_body(), 4096).await.unwrap();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let expected = serde_json::json!({
            "type": "urn:freshet:problem:stream-busy", "title": "Stream busy", "status": 409,
            "detail": "live/cam has a publisher", "hint": "stop it first", "code": 5020,
        });
        assert_eq!(body, expected);
    }
}
