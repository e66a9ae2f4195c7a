//! `/api/v1/snapshot.jpg`: what is refused before any picture is made.

use super::Server;
use crate::access::Access;
use crate::http::HttpSettings;

#[tokio::test]
async fn refusals_say_why() {
    let server = Server::new();
    server.get("/api/v1/snapshot.jpg").await.is_problem(404, "stream-absent");
    server.get("/api/v1/snapshot.jpg?stream=live/nobody").await.is_problem(404, "stream-absent");
    server.get("/api/v1/streams/vid-nobody/snapshot.jpg").await.is_problem(404, "stream-absent");
    for width in ["0", "15", "1281", "-1", "wide", "99999999999999999999"] {
        let uri = format!("/api/v1/snapshot.jpg?stream=live/cam00&width={width}");
        server.get(&uri).await.is_problem(400, "bad-width");
    }
    // Both names of one stream get as far as the media side, which has no frames of it.
    for uri in ["/api/v1/snapshot.jpg?stream=live%2Fcam00&width=320", "/api/v1/streams/vid-cam00/snapshot.jpg"] {
        let reply = server.get(uri).await;
        reply.is_problem(404, "stream-absent");
        assert!(reply.body.contains("publish it"), "{}", reply.body);
    }
}

#[tokio::test]
async fn who_may_not_play_may_not_look() {
    let access = Access { publish: Vec::new(), play: vec!["look".into()] };
    let server = Server::with(HttpSettings { access, ..HttpSettings::default() });
    let uri = "/api/v1/snapshot.jpg?stream=live/nobody";
    server.get(uri).await.is_problem(401, "unauthorized");
    server.get(&format!("{uri}&token=wrong")).await.is_problem(401, "unauthorized");
    server.get(&format!("{uri}&token=look")).await.is_problem(404, "stream-absent");
}
