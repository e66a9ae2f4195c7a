//! The status rules of the HTTP surface, driven through the router with a media side of a few lines.

mod fake;
mod forwards;
mod pages_and_api;
mod records;
mod signaling;
mod snapshot;
mod srs;
mod whip;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use serde_json::Value;
use tower::ServiceExt;

use super::{AppState, Connection, HttpSettings, router};
use fake::FakeSessions;

const OFFER: &str = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\n";
const SDP: (&str, &str) = ("content-type", "application/sdp");

/// A router with its media side.
struct Server {
    router: Router,
    sessions: Arc<FakeSessions>,
}

/// A response with its whole body.
struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Server {
    fn new() -> Server {
        Server::with(HttpSettings::default())
    }

    fn with(settings: HttpSettings) -> Server {
        let sessions = Arc::new(FakeSessions::default());
        Server { router: router(AppState::new(sessions.clone(), settings)), sessions }
    }

    async fn ask(&self, method: &str, uri: &str, headers: &[(&str, &str)], body: &str) -> Reply {
        let mut request = Request::builder().method(method).uri(uri).header("host", "media.example:8080");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(Body::from(body.to_owned())).unwrap();
        request.extensions_mut().insert(Connection {
            peer: "198.51.100.7:4000".parse().unwrap(),
            local: "192.0.2.1:8080".parse().unwrap(),
            tls: false,
        });
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
        Reply { status: parts.status, headers: parts.headers, body: String::from_utf8(body.to_vec()).unwrap() }
    }

    async fn get(&self, uri: &str) -> Reply {
        self.ask("GET", uri, &[], "").await
    }
}

impl Reply {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// Checks status and kind of a refusal, and that a page of another origin may read it.
    #[track_caller]
    fn is_problem(&self, status: u16, kind: &str) {
        assert_eq!(self.status, status, "{}", self.body);
        assert_eq!(self.header("content-type"), "application/problem+json");
        let problem = self.json();
        assert_eq!(problem["type"], format!("urn:freshet:problem:{kind}"));
        assert_eq!(problem["status"], status);
        assert!(!problem["detail"].as_str().unwrap().is_empty() && !problem["hint"].as_str().unwrap().is_empty());
        assert_eq!(self.header("access-control-allow-origin"), "*");
        assert!(self.header("access-control-expose-headers").contains("Location"));
    }
}
