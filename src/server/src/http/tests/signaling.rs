use std::net::IpAddr;
use std::time::Duration;

use freshet_signaling::CloseCode;
use tokio::time::timeout;

use super::*;
use crate::signaling::{Full, Item, Signaling, SignalingSettings, Socket};

fn settings() -> SignalingSettings {
    SignalingSettings { lobby: freshet_signaling::Settings::default(), max_sockets: 3, max_sockets_per_ip: 2 }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// What waits for a socket, which has to be there already.
async fn waiting(socket: &Socket) -> Vec<Item> {
    timeout(Duration::from_secs(5), socket.outgoing()).await.expect("something waits to be sent")
}

fn texts(items: &[Item]) -> Vec<Value> {
    let text = |item: &Item| match item {
        Item::Text(text) => serde_json::from_str(text).unwrap(),
        other => panic!("{other:?} is no text"),
    };
    items.iter().map(text).collect()
}

#[tokio::test]
async fn without_signaling_its_addresses_are_not_found() {
    let server = Server::new();
    for path in ["/sig/v1/rtc", "/sig/v1/versions", "/api/v1/rooms/"] {
        server.get(path).await.is_problem(404, "not-found");
    }
}

#[tokio::test]
async fn a_request_that_is_no_websocket_is_told_so() {
    let server = Server::with(HttpSettings { signaling: Some(settings()), ..HttpSettings::default() });
    server.get("/sig/v1/rtc?room=live&display=amy").await.is_problem(400, "no-websocket");
    assert_eq!(server.get("/sig/v1/versions").await.body, "1.0");
    assert_eq!(server.get("/api/v1/rooms/").await.json()["rooms"], serde_json::json!([]));
    assert!(server.get("/metrics").await.body.contains("\nfreshet_rooms 0\n"));
}

#[tokio::test]
async fn rooms_are_listed_for_those_who_may_join() {
    let mut signaling = settings();
    signaling.lobby.tokens = vec!["sesame".to_owned()];
    let state = AppState::new(
        Arc::<FakeSessions>::default(),
        HttpSettings { signaling: Some(signaling), ..HttpSettings::default() },
    );
    let hub = Arc::clone(state.signaling().unwrap());
    let server = Server { router: router(state), sessions: Arc::default() };
    let amy = hub.admit(ip("192.0.2.1")).unwrap().open(Some("sesame".to_owned()));
    amy.receive(r#"{"tid":"1","msg":{"action":"join","room":"den","display":"amy","kind":"call"}}"#);
    server.get("/api/v1/rooms/").await.is_problem(401, "unauthorized");
    let rooms = server.get("/api/v1/rooms/?token=sesame").await.json();
    let room = &rooms["rooms"][0];
    assert_eq!((&room["name"], &room["kind"], &rooms["total"]), (&"den".into(), &"call".into(), &1.into()));
    assert_eq!((&room["people"][0]["display"], &room["people"][0]["stream"]), (&"amy".into(), &"den/amy".into()));
}

#[test]
fn places_are_counted_by_address_and_given_back() {
    let hub = Signaling::new(settings(), Arc::new(FakeSessions::default()));
    let (first, second) = (hub.admit(ip("192.0.2.1")).ok().unwrap(), hub.admit(ip("192.0.2.1")).ok().unwrap());
    assert_eq!(hub.admit(ip("::ffff:192.0.2.1")).err(), Some(Full::Address));
    let third = hub.admit(ip("2001:db8::1")).ok().unwrap();
    assert_eq!(hub.admit(ip("192.0.2.9")).err(), Some(Full::Server));
    drop(first);
    let fourth = hub.admit(ip("2001:db8::2")).ok().unwrap();
    drop(second);
    assert_eq!(hub.admit(ip("2001:db8::ffff:0:0:3")).err(), Some(Full::Address), "a /64 is one address");
    // An open socket holds its place.
    let socket = third.open(None);
    assert_eq!(hub.admit(ip("2001:db8::3")).err(), Some(Full::Address));
    drop((socket, fourth));
    assert!(hub.admit(ip("2001:db8::3")).is_ok());
}

#[tokio::test]
async fn people_hear_of_each_other_and_a_left_over_stream_is_ended() {
    let sessions = Arc::new(FakeSessions::default());
    let hub = Signaling::new(settings(), sessions.clone());
    let (amy, bob) =
        (hub.admit(ip("192.0.2.1")).ok().unwrap().open(None), hub.admit(ip("192.0.2.2")).ok().unwrap().open(None));
    amy.receive(r#"{"tid":"1","msg":{"action":"join","room":"den","display":"amy","stream":"assign"}}"#);
    bob.receive(r#"{"tid":"1","msg":{"action":"join","room":"den","display":"bob"}}"#);
    let told = texts(&waiting(&amy).await);
    assert_eq!((&told[0]["msg"]["action"], &told[1]["msg"]["event"]), (&"join".into(), &"join".into()));
    let stream = told[0]["msg"]["self"]["stream"].as_str().unwrap().to_owned();
    assert_eq!(texts(&waiting(&bob).await).len(), 1);
    drop(amy);
    assert_eq!(texts(&waiting(&bob).await)[0]["msg"]["event"], "leave");
    assert_eq!(*sessions.ended.lock().unwrap(), [stream]);
    // The name of bob's stream is his choice, so somebody else's may be under it.
    bob.closed();
    assert_eq!(sessions.ended.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn the_end_is_told_and_waited_for() {
    let hub = Signaling::new(settings(), Arc::new(FakeSessions::default()));
    let amy = hub.admit(ip("192.0.2.1")).ok().unwrap().open(None);
    let ending = tokio::spawn({
        let hub = Arc::clone(&hub);
        async move { hub.end().await }
    });
    assert_eq!(waiting(&amy).await, [Item::Close(CloseCode::Restart)]);
    assert!(!ending.is_finished(), "amy's socket is still open");
    assert_eq!(hub.admit(ip("192.0.2.1")).err(), Some(Full::Server));
    drop(amy);
    timeout(Duration::from_secs(5), ending).await.expect("it ends with the last socket").unwrap();
}
