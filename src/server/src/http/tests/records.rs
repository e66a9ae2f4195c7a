//! The rules of `/api/v1/records/`. The media side here has no stream to read.

use std::time::Duration;

use freshet_bridge::record::{PathTemplate, RecordFormat, RecordPlan};
use serde_json::json;

use super::Server;
use crate::access::Access;
use crate::http::HttpSettings;
use crate::record::RecordSettings;

fn settings() -> RecordSettings {
    RecordSettings {
        folder: "never-made".into(),
        streams: Vec::new(),
        format: RecordFormat::Flv,
        path: PathTemplate::parse("[stream]").unwrap(),
        plan: RecordPlan::Session,
        min_free_bytes: 0,
        republish_within: Duration::ZERO,
    }
}

#[tokio::test]
async fn nothing_is_recorded_where_that_is_off() {
    let server = Server::new();
    for (method, uri) in [
        ("GET", "/api/v1/records"),
        ("POST", "/api/v1/records/"),
        ("GET", "/api/v1/records/x"),
        ("DELETE", "/api/v1/records/x"),
    ] {
        server.ask(method, uri, &[], "{\"stream\":\"live/cam\"}").await.is_problem(404, "record-disabled");
    }
}

#[tokio::test]
async fn requests_are_checked_before_anything_begins() {
    let server = Server::with(HttpSettings { record: Some(settings()), ..HttpSettings::default() });
    let list = server.get("/api/v1/records/").await.json();
    assert_eq!((&list["code"], &list["records"], &list["total"]), (&json!(0), &json!([]), &json!(0)));
    for (body, status, kind) in [
        ("", 400, "bad-record"),
        ("[]", 400, "bad-record"),
        ("{}", 400, "bad-record"),
        (r#"{"stream":"cam"}"#, 400, "bad-record"),
        (r#"{"stream":"live/.."}"#, 400, "bad-stream-name"),
        (r#"{"stream":"live/cam","path":"/etc/passwd"}"#, 400, "bad-record"),
        (r#"{"stream":"live/cam","format":"avi"}"#, 400, "bad-record"),
        (r#"{"stream":"live/cam","plan":"sometimes"}"#, 400, "bad-record"),
        (r#"{"stream":"live/cam","plan":"segment"}"#, 400, "bad-record"),
        (r#"{"stream":"live/cam","segment_seconds":0}"#, 400, "bad-record"),
        // What is right up to here is refused by the media side.
        (r#"{"stream":"live/cam"}"#, 404, "stream-absent"),
        (
            r#"{"stream":"live/cam","vhost":"v.example","format":"TS","plan":"segment","segment_seconds":5}"#,
            404,
            "stream-absent",
        ),
    ] {
        server.ask("POST", "/api/v1/records", &[], body).await.is_problem(status, kind);
    }
    server.get("/api/v1/records/nope").await.is_problem(404, "no-record");
    server.ask("DELETE", "/api/v1/records/nope/", &[], "").await.is_problem(404, "no-record");
}

#[tokio::test]
async fn who_may_not_publish_may_not_record() {
    let access = Access { publish: vec!["one".into()], play: Vec::new() };
    let server = Server::with(HttpSettings { record: Some(settings()), access, ..HttpSettings::default() });
    for (method, uri) in [("POST", "/api/v1/records/"), ("DELETE", "/api/v1/records/x")] {
        let reply = server.ask(method, uri, &[], "{\"stream\":\"live/cam\"}").await;
        assert!(reply.header("www-authenticate").starts_with("Bearer"));
        reply.is_problem(401, "unauthorized");
        let reply = server.ask(method, uri, &[("authorization", "Bearer one")], "{\"stream\":\"live/cam\"}").await;
        assert_eq!(reply.status, 404, "{}", reply.body);
    }
}
