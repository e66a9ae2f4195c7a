//! Management API, metrics, CORS and pages.

use serde_json::json;

use super::{OFFER, SDP, Server};
use crate::http::HttpSettings;

#[tokio::test]
async fn lists_are_paged_and_tell_their_length() {
    let server = Server::new();
    let list = server.get("/api/v1/streams").await.json();
    assert_eq!((&list["code"], list["streams"].as_array().unwrap().len()), (&json!(0), 10));
    assert_eq!(list["total"], 25);
    let list = server.get("/api/v1/streams/?start=23&count=5").await.json();
    let names: Vec<_> = list["streams"].as_array().unwrap().iter().map(|stream| stream["name"].clone()).collect();
    assert_eq!(names, ["cam23", "cam24"]);
    let list = server.get("/api/v1/streams/?start=0&count=2").await.json();
    assert_eq!(list["streams"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn objects_have_the_fields_of_srs_and_ours() {
    let server = Server::new();
    let stream = server.get("/api/v1/streams/vid-cam03").await.json()["stream"].clone();
    assert_eq!(stream["url"], "/live/cam03");
    assert_eq!(
        stream["video"],
        json!({ "codec": "H264", "profile": "Baseline", "level": "3.1", "width": 640, "height": 480 })
    );
    assert_eq!((&stream["audio"], &stream["clients"], &stream["frames"]), (&json!(null), &json!(3), &json!(270)));
    assert_eq!(stream["publish"], json!({ "active": true, "cid": "c1" }));
    assert_eq!(stream["outputs"], json!({ "hls": { "available": false, "note": "switched off" } }));
    let reply = server.get("/api/v1/clients/").await;
    assert!(!reply.body.contains("secret"), "queries hold tokens and must not be listed");
    let client = reply.json()["clients"][0].clone();
    assert_eq!(
        (&client["type"], &client["publish"], &client["alive"]),
        (&json!("rtc-publish"), &json!(true), &json!(1.5))
    );
    assert_eq!((&client["rtt_ms"], &client["transport"]), (&json!(20.0), &json!("udp")));
    let vhost = server.get("/api/v1/vhosts/").await.json()["vhosts"][0].clone();
    assert_eq!((&vhost["name"], &vhost["streams"]), (&json!("__defaultVhost__"), &json!(25)));
    assert_eq!(client["vhost"], vhost["id"]);
    let found = server.get(&format!("/api/v1/vhosts/{}", vhost["id"].as_str().unwrap())).await.json();
    assert_eq!(found["vhost"]["name"], "__defaultVhost__");
}

#[tokio::test]
async fn unknown_ids_get_srs_codes_with_200() {
    let server = Server::new();
    for (uri, code) in [("/api/v1/streams/nope", 2048), ("/api/v1/clients/nope", 2049), ("/api/v1/vhosts/nope", 2014)] {
        let reply = server.get(uri).await;
        assert_eq!((reply.status.as_u16(), &reply.json()["code"]), (200, &json!(code)), "{uri}");
    }
    let kick =
        async |id: &str| server.ask("DELETE", &format!("/api/v1/clients/{id}"), &[], "").await.json()["code"].clone();
    assert_eq!((kick("c1").await, kick("nope").await), (json!(0), json!(2049)));
    server.get("/api/v1/nope").await.is_problem(404, "not-found");
    server.ask("POST", "/api/v1/streams/", &[], "").await.is_problem(405, "method-not-allowed");
}

#[tokio::test]
async fn the_envelope_is_everywhere() {
    let server = Server::new();
    for uri in ["/api", "/api/", "/api/v1", "/api/v1/", "/api/v1/versions", "/api/v1/summaries/", "/api/v1/features"] {
        let body = server.get(uri).await.json();
        assert_eq!(body["code"], 0, "{uri}");
        assert!(body["server"].as_str().unwrap().starts_with("vid-") && body["pid"].is_string(), "{uri}");
    }
    let version = server.get("/api/v1/versions").await.json()["data"].clone();
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    let summaries = server.get("/api/v1/summaries").await.json()["data"].clone();
    assert!(summaries["self"]["mem_kbyte"].as_u64().unwrap() > 0);
    assert!(summaries["system"]["ilde_time"].is_number());
    assert!(server.get("/api/v1/freshet/server").await.json()["codecs"].as_array().unwrap().len() > 4);
}

#[tokio::test]
async fn health_follows_draining() {
    let server = Server::new();
    assert_eq!(server.get("/healthz").await.body, "ok\n");
    server.ask("POST", "/whip/live/drain", &[SDP], OFFER).await;
    let reply = server.get("/healthz").await;
    assert_eq!((reply.status.as_u16(), reply.body.as_str()), (503, "draining\n"));
}

#[tokio::test]
async fn metrics_count_what_happened() {
    let server = Server::new();
    server.get("/nowhere").await;
    let reply = server.get("/metrics").await;
    assert!(reply.header("content-type").starts_with("text/plain; version=0.0.4"));
    for line in ["freshet_streams 25", "srs_clients 1", "freshet_http_responses_total{class=\"4xx\"} 1"] {
        assert!(reply.body.lines().any(|found| found == line), "missing {line}");
    }
}

#[tokio::test]
async fn preflights_succeed_everywhere() {
    let server = Server::new();
    let asks = [("origin", "https://page.example"), ("access-control-request-method", "DELETE")];
    for uri in ["/whip/live/cam", "/session/x", "/api/v1/clients/c1", "/", "/nowhere", "/rtc/v1/publish/"] {
        let reply = server.ask("OPTIONS", uri, &asks, "").await;
        assert!(reply.status.is_success(), "{uri}: {}", reply.status);
        assert_eq!(reply.header("access-control-allow-origin"), "*", "{uri}");
        assert!(reply.header("access-control-allow-headers").contains("Authorization"), "{uri}");
        assert!(!reply.header("access-control-allow-methods").is_empty(), "{uri}");
    }
    // Browsers check the method of the call to come against this list.
    for uri in ["/session/x", "/api/v1/clients/c1", "/rtc/v1/whip/?action=delete&token=x", "/rtc/v1/whep"] {
        let reply = server.ask("OPTIONS", uri, &asks, "").await;
        assert!(reply.header("access-control-allow-methods").contains("DELETE"), "{uri}");
    }
}

#[tokio::test]
async fn one_origin_can_be_allowed() {
    let server = Server::with(HttpSettings { allow_origin: "https://page.example".into(), ..HttpSettings::default() });
    let allowed = async |origin| {
        let reply = server.ask("GET", "/nowhere", &[("origin", origin)], "").await;
        assert_eq!(reply.header("vary"), "Origin");
        reply.header("access-control-allow-origin").to_owned()
    };
    assert_eq!(allowed("https://page.example").await, "https://page.example");
    assert_eq!(allowed("https://evil.example").await, "");
}

#[tokio::test]
async fn pages_are_found_under_their_paths() {
    let server = Server::new();
    for uri in ["/", "/publish", "/publish/", "/publish/live/cam", "/play?stream=live/cam", "/play/live/cam"] {
        let reply = server.get(uri).await;
        assert_eq!(reply.status, 200, "{uri}");
        assert!(reply.header("content-type").starts_with("text/html"), "{uri}");
        assert_eq!(reply.header("x-content-type-options"), "nosniff");
        assert!(reply.header("content-security-policy").contains("default-src 'self'"));
        let again = server.ask("GET", uri, &[("if-none-match", reply.header("etag"))], "").await;
        assert_eq!((again.status.as_u16(), again.body.as_str()), (304, ""), "{uri}");
    }
    for uri in ["/web/lib/whip.js", "/web/srs.sdk.js", "/players/js/srs.sdk.js", "/demos/js/srs.sdk.js"] {
        assert!(server.get(uri).await.header("content-type").starts_with("text/javascript"), "{uri}");
    }
}

#[tokio::test]
async fn nothing_outside_the_web_folder_is_served() {
    let server = Server::new();
    for uri in [
        "/web/../Cargo.toml",
        "/web/..%2FCargo.toml",
        "/web/%2e%2e/Cargo.toml",
        "/web/lib/../../conf/freshet.toml",
        "/web//etc/passwd",
        "/web/%2Fetc%2Fpasswd.json",
        "/web/.git.json",
        "/web/",
        "/web/nothing.js",
    ] {
        server.get(uri).await.is_problem(404, "not-found");
    }
}
