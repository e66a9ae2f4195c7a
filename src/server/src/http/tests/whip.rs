//! WHIP and WHEP: RFC 9725 and draft-ietf-wish-whep-03.

use super::fake::{ETAG, TOKEN};
use super::{OFFER, SDP, Server};
use crate::access::Access;
use crate::config::IceServer;
use crate::engine::Role;
use crate::http::HttpSettings;

#[tokio::test]
async fn an_offer_creates_a_session() {
    let server = Server::new();
    for (path, role) in [
        ("/whip/live/cam", Role::Publish),
        ("/whep/live/cam", Role::Play),
        ("/whip/live/cam/", Role::Publish),
        ("/whep/live/cam.flv", Role::Play),
    ] {
        let reply = server.ask("POST", path, &[SDP, ("user-agent", "OBS")], OFFER).await;
        assert_eq!(reply.status, 201, "{path}");
        assert_eq!(reply.header("content-type"), "application/sdp");
        assert_eq!(reply.header("location"), format!("/session/{TOKEN}"));
        assert_eq!(reply.header("etag"), ETAG);
        assert_eq!(reply.header("accept-patch"), "application/trickle-ice-sdpfrag");
        assert_eq!(reply.header("access-control-allow-origin"), "*");
        assert!(reply.header("server").starts_with("Freshet/"));
        assert!(reply.body.starts_with("v=0"));
        let request = server.sessions.opened().unwrap();
        assert_eq!((request.role, request.key.as_str()), (role, "live/cam"));
        assert_eq!((request.offer.as_str(), request.user_agent.as_str()), (OFFER, "OBS"));
        assert_eq!(request.host.as_deref(), Some("media.example"));
        assert_eq!(request.local_ip.to_string(), "192.0.2.1");
    }
}

#[tokio::test]
async fn app_may_have_several_segments_and_escapes() {
    let server = Server::new();
    server.ask("POST", "/whip/a/b/my%20cam?eip=192.0.2.9:8000&codec=av1", &[SDP], OFFER).await;
    let request = server.sessions.opened().unwrap();
    assert_eq!(request.key.as_str(), "a/b/my cam");
    assert_eq!(request.extra_candidates, ["192.0.2.9:8000"]);
    assert_eq!(request.prefer_codec.map(|codec| codec.rtp_name()), Some("AV1"));
    for path in ["/whip/live/a%2Fb", "/whip/live/%2E%2E", "/whip/live/a%00b"] {
        server.ask("POST", path, &[SDP], OFFER).await.is_problem(400, "bad-stream-name");
    }
    server.ask("POST", "/whip/cam", &[SDP], OFFER).await.is_problem(404, "bad-stream-name");
    server.ask("POST", "/whip/", &[SDP], OFFER).await.is_problem(404, "not-found");
}

#[tokio::test]
async fn bodies_that_are_no_offer_are_refused() {
    let server = Server::with(HttpSettings { max_body_bytes: 1000, ..HttpSettings::default() });
    let post = async |headers: &[(&str, &str)], body: &str| server.ask("POST", "/whip/live/cam", headers, body).await;
    post(&[("content-type", "application/json")], OFFER).await.is_problem(415, "unsupported-media-type");
    let reply = post(&[("content-type", "text/plain")], OFFER).await;
    reply.is_problem(415, "unsupported-media-type");
    assert_eq!(reply.header("accept-post"), "application/sdp");
    post(&[SDP], "").await.is_problem(400, "bad-offer");
    post(&[SDP], "\r\n").await.is_problem(400, "bad-offer");
    post(&[SDP], "hello").await.is_problem(400, "bad-offer");
    post(&[SDP], &"v=0".repeat(400)).await.is_problem(413, "too-large");
    assert!(server.sessions.opened().is_none());
    assert_eq!(post(&[], OFFER).await.status, 201);
    assert_eq!(post(&[("content-type", "Application/SDP; charset=utf-8")], OFFER).await.status, 201);
}

#[tokio::test]
async fn refusals_of_the_media_side_come_through() {
    let server = Server::new();
    let reply = server.ask("POST", "/whip/live/busy", &[SDP], OFFER).await;
    reply.is_problem(409, "stream-busy");
    assert_eq!((reply.header("retry-after"), &reply.json()["code"]), ("2", &5020.into()));
    let reply = server.ask("POST", "/whep/live/full", &[SDP], OFFER).await;
    reply.is_problem(503, "draining");
    assert_eq!(reply.header("retry-after"), "5");
}

#[tokio::test]
async fn a_panic_is_answered() {
    let server = Server::new();
    server.ask("POST", "/whip/live/panic", &[SDP], OFFER).await.is_problem(500, "internal-error");
    assert_eq!(server.ask("POST", "/whip/live/cam", &[SDP], OFFER).await.status, 201);
}

#[tokio::test]
async fn ice_servers_become_links() {
    let ice_servers = vec![
        IceServer { urls: vec!["stun:s.example".into()], username: String::new(), credential: String::new() },
        IceServer { urls: vec!["turn:t.example".into()], username: "u".into(), credential: "p".into() },
    ];
    let server = Server::with(HttpSettings { ice_servers, ..HttpSettings::default() });
    let reply = server.ask("POST", "/whep/live/cam", &[SDP], OFFER).await;
    let links: Vec<_> = reply.headers.get_all("link").iter().map(|link| link.to_str().unwrap()).collect();
    assert_eq!(links[0], "<stun:s.example>; rel=\"ice-server\"");
    assert!(links[1].contains("username=\"u\"; credential=\"p\""));
}

#[tokio::test]
async fn endpoints_and_sessions_answer_other_methods() {
    let server = Server::new();
    server.ask("POST", "/whip/live/cam", &[SDP], OFFER).await;
    let session = format!("/session/{TOKEN}");
    for path in ["/whip/live/cam", "/whep/live/cam/", "/rtc/v1/whip/?app=live", "/rtc/v1/whep", &session] {
        for method in ["GET", "HEAD"] {
            let reply = server.ask(method, path, &[], "").await;
            assert_eq!((reply.status.as_u16(), reply.body.as_str()), (204, ""), "{method} {path}");
        }
        let reply = server.ask("OPTIONS", path, &[], "").await;
        assert_eq!(reply.status, 200, "{path}");
        let expected = if path == session { ("accept-patch", "trickle-ice-sdpfrag") } else { ("accept-post", "sdp") };
        assert!(reply.header(expected.0).ends_with(expected.1), "{path}");
        let reply = server.ask("PUT", path, &[SDP], OFFER).await;
        reply.is_problem(405, "method-not-allowed");
        assert!(reply.header("allow").contains("OPTIONS"), "{path}: {}", reply.header("allow"));
    }
    let reply = server.ask("POST", &session, &[SDP], OFFER).await;
    reply.is_problem(405, "method-not-allowed");
    for method in ["PATCH", "DELETE"] {
        assert!(reply.header("allow").contains(method), "{}", reply.header("allow"));
    }
    server.ask("DELETE", "/whip/live/cam", &[], "").await.is_problem(405, "method-not-allowed");
    server.get("/session/unknown").await.is_problem(404, "no-session");
}

#[tokio::test]
async fn sessions_are_patched_and_deleted() {
    let server = Server::new();
    server.ask("POST", "/whip/live/cam", &[SDP], OFFER).await;
    let session = format!("/session/{TOKEN}");
    let fragment = ("content-type", "application/trickle-ice-sdpfrag");
    let patch = async |headers: &[(&str, &str)], body: &str| server.ask("PATCH", &session, headers, body).await;

    let reply = patch(&[fragment, ("if-match", ETAG)], "a=candidate:1 …").await;
    assert_eq!((reply.status.as_u16(), reply.body.as_str()), (204, ""));
    let reply = patch(&[fragment, ("if-match", "*")], "a=ice-ufrag:x").await;
    assert_eq!((reply.status.as_u16(), reply.header("etag")), (200, "\"e2\""));
    assert_eq!(reply.header("content-type"), "application/trickle-ice-sdpfrag");
    patch(&[fragment], "a=ice-ufrag:x").await.is_problem(428, "no-etag");
    patch(&[fragment, ("if-match", "\"old\"")], "a=ice-ufrag:x").await.is_problem(412, "stale-etag");
    patch(&[fragment], "").await.is_problem(400, "bad-fragment");
    for headers in [&[SDP][..], &[("content-type", "application/json")], &[]] {
        let reply = patch(headers, "a=ice-ufrag:x").await;
        reply.is_problem(415, "unsupported-media-type");
        assert_eq!(reply.header("accept-patch"), "application/trickle-ice-sdpfrag");
    }
    server.ask("PATCH", "/session/unknown", &[fragment], "a=ice-ufrag:x").await.is_problem(404, "no-session");

    let reply = server.ask("DELETE", &format!("{session}/"), &[], "").await;
    assert_eq!((reply.status.as_u16(), reply.body.as_str()), (200, ""));
    server.ask("DELETE", &session, &[], "").await.is_problem(404, "no-session");
}

#[tokio::test]
async fn tokens_are_asked_for_before_anything_is_reserved() {
    let settings = HttpSettings {
        access: Access { publish: vec!["sesame".into()], ..Access::default() },
        ..HttpSettings::default()
    };
    let server = Server::with(settings);
    for (uri, headers) in [
        ("/whip/live/cam", vec![SDP]),
        ("/whip/live/cam", vec![SDP, ("authorization", "Bearer wrong")]),
        ("/whip/live/cam?token=wrong", vec![SDP]),
        ("/rtc/v1/whip/?app=live&stream=cam", vec![SDP]),
    ] {
        let reply = server.ask("POST", uri, &headers, OFFER).await;
        reply.is_problem(401, "unauthorized");
        assert!(reply.header("www-authenticate").starts_with("Bearer"));
    }
    assert!(server.sessions.opened().is_none());
    let bearer = ("authorization", "Bearer sesame");
    assert_eq!(server.ask("POST", "/whip/live/cam", &[SDP, bearer], OFFER).await.status, 201);
    assert_eq!(server.ask("POST", "/whip/live/cam?secret=sesame", &[SDP], OFFER).await.status, 201);
    assert_eq!(server.ask("POST", "/whep/live/cam", &[SDP], OFFER).await.status, 201);
    server.ask("DELETE", "/api/v1/clients/c1", &[], "").await.is_problem(401, "unauthorized");
}
