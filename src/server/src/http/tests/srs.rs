//! SRS's interface.

use serde_json::{Value, json};

use super::fake::TOKEN;
use super::{OFFER, SDP, Server};
use crate::access::Access;
use crate::engine::Role;
use crate::http::HttpSettings;

#[tokio::test]
async fn the_query_names_role_and_stream() {
    let server = Server::new();
    for (uri, role, key) in [
        ("/rtc/v1/whip/?app=live&stream=cam", Role::Publish, "live/cam"),
        ("/rtc/v1/whip?app=a/b&stream=cam.flv", Role::Publish, "a/b/cam"),
        ("/rtc/v1/whip/", Role::Publish, "live/livestream"),
        ("/rtc/v1/whip/?action=play&stream=cam", Role::Play, "live/cam"),
        ("/rtc/v1/whep/?stream=my%20cam", Role::Play, "live/my cam"),
        ("/rtc/v1/whip-play/?stream=cam&vhost=v.example", Role::Play, "v.example/live/cam"),
        ("/rtc/v1/whep?stream=cam&vhost=media.example", Role::Play, "live/cam"),
        ("/rtc/v1/whep?stream=cam&domain=192.0.2.1", Role::Play, "live/cam"),
    ] {
        let reply = server.ask("POST", uri, &[], OFFER).await;
        assert_eq!(reply.status, 201, "{uri}: {}", reply.body);
        let request = server.sessions.opened().unwrap();
        assert_eq!((request.role, request.key.as_str()), (role, key), "{uri}");
    }
}

#[tokio::test]
async fn the_location_has_its_shape_and_works() {
    let server = Server::new();
    let reply = server.ask("POST", "/rtc/v1/whep/?app=live&stream=my%20cam", &[SDP], OFFER).await;
    let location = reply.header("location");
    assert_eq!(location, format!("/rtc/v1/whip/?action=delete&token={TOKEN}&app=live&stream=my%20cam&session=us:them"));
    let fragment = ("content-type", "application/trickle-ice-sdpfrag");
    assert_eq!(server.ask("PATCH", location, &[fragment], "a=candidate:1").await.status, 204);
    server.ask("DELETE", "/rtc/v1/whip/?action=delete", &[], "").await.is_problem(403, "no-session-token");
    assert_eq!(server.ask("DELETE", location, &[], "").await.status, 200);
    server.ask("DELETE", location, &[], "").await.is_problem(404, "no-session");
}

#[tokio::test]
async fn only_json_is_refused_as_a_type() {
    let server = Server::new();
    let with_type =
        async |media_type| server.ask("POST", "/rtc/v1/whip/?stream=cam", &[("content-type", media_type)], OFFER).await;
    assert_eq!(with_type("text/plain").await.status, 201);
    assert_eq!(with_type("application/x-www-form-urlencoded").await.status, 201);
    with_type("application/json; charset=utf-8").await.is_problem(415, "unsupported-media-type");
    let short_password = "/rtc/v1/whip/?stream=cam&ice-ufrag=abcd&ice-pwd=short";
    server.ask("POST", short_password, &[SDP], OFFER).await.is_problem(400, "bad-ice-credentials");
}

#[tokio::test]
async fn json_calls_answer_200_with_a_code() {
    let server = Server::new();
    let call = async |path: &str, body: Value| server.ask("POST", path, &[], &body.to_string()).await;
    for path in ["/rtc/v1/publish/", "/rtc/v1/publish", "/rtc/v1/play/?eip=192.0.2.9"] {
        let body = json!({
            "api": "x", "tid": "t", "clientip": null, "sdp": OFFER,
            "streamurl": "webrtc://edge.example:1985/live/cam?token=aa/bb",
        });
        let reply = call(path, body).await;
        assert_eq!(reply.status, 200);
        let answer = reply.json();
        assert_eq!((&answer["code"], &answer["sessionid"]), (&json!(0), &json!("us:them")));
        assert!(answer["sdp"].as_str().unwrap().starts_with("v=0"));
        assert!(answer["pid"].is_string() && answer["server"].is_string() && answer["service"].is_string());
        let request = server.sessions.opened().unwrap();
        assert_eq!(request.key.as_str(), "live/cam");
        assert_eq!(request.host.as_deref(), Some("edge.example"));
        assert_eq!(request.role, if path.contains("play") { Role::Play } else { Role::Publish });
    }
    for (body, code) in [
        (json!({ "sdp": OFFER }), 5019),
        (json!("text"), 5019),
        (json!({ "sdp": OFFER, "streamurl": "nonsense" }), 5023),
        (json!({ "sdp": "", "streamurl": "webrtc://h/live/cam" }), 5012),
        (json!({ "sdp": OFFER, "streamurl": "webrtc://h/live/busy" }), 5020),
    ] {
        let reply = call("/rtc/v1/publish/", body.clone()).await;
        assert_eq!((reply.status.as_u16(), &reply.json()["code"]), (200, &json!(code)), "{body}");
        assert!(reply.json()["msg"].is_string() && reply.json()["hint"].is_string());
    }
}

#[tokio::test]
async fn json_calls_take_the_token_of_the_stream_url() {
    let server = Server::with(HttpSettings {
        access: Access { play: vec!["a/b+c".into()], ..Access::default() },
        ..HttpSettings::default()
    });
    let play = async |url: &str| {
        let body = json!({ "sdp": OFFER, "streamurl": url }).to_string();
        server.ask("POST", "/rtc/v1/play/", &[], &body).await.json()["code"].clone()
    };
    assert_eq!(play("webrtc://h/live/cam").await, json!(1053));
    assert_eq!(play("webrtc://h/live/cam?token=a/b+c").await, json!(0));
}
