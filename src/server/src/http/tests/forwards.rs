//! `/api/v1/forwards/`: who may, what is refused, what is shown.

use serde_json::json;

use super::Server;
use crate::access::Access;
use crate::config::IpBlock;
use crate::http::HttpSettings;

const WANTED: &str =
    r#"{"stream": "live/cam00", "url": "rtmp://other.example/live/s3cret-key-of-many-letters?sig=s3cret"}"#;
const TOKEN: (&str, &str) = ("authorization", "Bearer one");

fn guarded() -> Server {
    let access = Access { publish: vec!["one".into()], play: Vec::new() };
    Server::with(HttpSettings { access, ..HttpSettings::default() })
}

#[tokio::test]
async fn without_tokens_only_this_machine_may() {
    let server = Server::new();
    let from = |address: &'static str| ("x-forwarded-for", address);
    server.ask("POST", "/api/v1/forwards/", &[from("127.0.0.1")], WANTED).await.is_problem(403, "forbidden");
    server.ask("DELETE", "/api/v1/forwards/fwd-1", &[], "").await.is_problem(403, "forbidden");

    let mut settings =
        HttpSettings { trusted_proxies: vec![IpBlock::parse("198.51.100.7").unwrap()], ..HttpSettings::default() };
    let server = Server::with(settings.clone());
    let reply = server.ask("POST", "/api/v1/forwards/", &[from("127.0.0.1")], WANTED).await;
    assert_eq!(reply.status, 201, "{}", reply.body);
    let foreign = ("origin", "https://evil.example");
    let reply = server.ask("POST", "/api/v1/forwards", &[from("127.0.0.1"), foreign], WANTED).await;
    reply.is_problem(403, "forbidden");
    let own = ("origin", "http://media.example:8080");
    let reply = server.ask("POST", "/api/v1/forwards", &[from("127.0.0.1"), own], WANTED).await;
    reply.is_problem(409, "forward-exists");

    settings.forward.open_api = true;
    let server = Server::with(settings);
    assert_eq!(server.ask("POST", "/api/v1/forwards/", &[], WANTED).await.status, 201);
}

#[tokio::test]
async fn forwards_are_added_shown_and_ended() {
    let server = guarded();
    server.ask("POST", "/api/v1/forwards/", &[], WANTED).await.is_problem(401, "unauthorized");
    let reply = server.ask("POST", "/api/v1/forwards/", &[TOKEN], WANTED).await;
    assert_eq!((reply.status.as_u16(), &reply.json()["code"]), (201, &json!(0)));
    let location = reply.header("location").to_owned();
    let forward = server.get(&location).await.json()["forward"].clone();
    assert_eq!(forward["id"], location.rsplit('/').next().unwrap());
    assert_eq!((&forward["stream"], &forward["from"]), (&json!("live/cam00"), &json!("api")));
    assert_eq!(forward["url"], "rtmp://other.example/live/s3cr***?***");
    let list = server.get("/api/v1/forwards/").await;
    assert_eq!(list.json()["total"], 1);
    assert!(!list.body.contains("s3cret"), "{}", list.body);
    server.ask("POST", "/api/v1/forwards/", &[TOKEN], WANTED).await.is_problem(409, "forward-exists");

    server.ask("DELETE", &location, &[], "").await.is_problem(401, "unauthorized");
    assert_eq!(server.ask("DELETE", &location, &[TOKEN], "").await.status, 200);
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    server.get(&location).await.is_problem(404, "no-forward");
    server.ask("DELETE", &location, &[TOKEN], "").await.is_problem(404, "no-forward");
}

#[tokio::test]
async fn bad_wishes_are_refused_without_their_secrets() {
    let server = guarded();
    for (body, kind, said) in [
        ("", "bad-json", "the body is not what is wanted"),
        (r#"{"stream": "live/cam"}"#, "bad-json", "missing field `url`"),
        (r#"{"stream": "live/cam", "url": 7}"#, "bad-json", "expected a string"),
        (r#"{"stream": "live/cam", "url": "rtmp://h/l/s3cret", "key": 1}"#, "bad-json", "unknown field `key`"),
        (r#"{"stream": "live/cam", "url": "http://h/l/s3cret"}"#, "bad-forward-url", "write rtmp://HOST"),
        (r#"{"stream": "live/cam", "url": "rtmp://u:s3cret@h/l/x"}"#, "bad-forward-url", "user and password"),
        (r#"{"stream": "cam", "url": "rtmp://h/l/s3cret"}"#, "bad-stream-name", "the app is empty"),
    ] {
        let reply = server.ask("POST", "/api/v1/forwards/", &[TOKEN], body).await;
        reply.is_problem(400, kind);
        assert!(reply.body.contains(said) && !reply.body.contains("s3cret"), "{}", reply.body);
    }
}

#[tokio::test]
async fn their_number_is_bounded() {
    let mut settings = HttpSettings::default();
    (settings.forward.max, settings.forward.open_api) = (2, true);
    let server = Server::with(settings);
    let add = async |n: u32| {
        let body = format!(r#"{{"stream": "live/cam", "url": "rtmp://other.example/live/{n}"}}"#);
        server.ask("POST", "/api/v1/forwards/", &[], &body).await
    };
    assert_eq!((add(1).await.status.as_u16(), add(2).await.status.as_u16()), (201, 201));
    add(3).await.is_problem(503, "too-many-forwards");
}
