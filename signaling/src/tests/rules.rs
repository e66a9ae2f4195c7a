//! Rules one by one: who may join, who is told, who is dropped and when.

use std::time::Duration;

use serde_json::json;

use super::world::World;
use crate::{CloseCode, Departure, Kind, Settings};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn joining_is_refused_with_the_reason() {
    let settings = Settings { max_rooms: 2, max_people: 3, ..Settings::default() };
    let mut world = World::new(settings);
    world.join("amy", "a", json!({}));
    world.join("bob", "a", json!({ "stream": "assign", "display": "Bob" }));
    world.join("dan", "c", json!({ "kind": "call" }));
    let long = "x".repeat(65);
    for (room, display, more, code) in [
        ("a", "amy", json!({}), "display-taken"),
        ("a", "amy", json!({ "stream": "assign" }), "display-taken"),
        ("a", "Bob", json!({}), "display-taken"),
        ("", "x", json!({}), "bad-room"),
        ("a/b", "x", json!({}), "bad-room"),
        (&long, "x", json!({}), "bad-room"),
        ("a", "", json!({}), "bad-display"),
        ("a", "x/y", json!({}), "bad-display"),
        ("a", &long, json!({ "stream": "assign" }), "bad-display"),
        ("b", "x", json!({}), "too-many-rooms"),
        ("c", "x", json!({ "kind": "room" }), "other-kind"),
        ("c", "x", json!({ "kind": "party" }), "bad-message"),
        ("c", "x", json!({ "stream": "live/cam" }), "bad-message"),
    ] {
        let mut msg = json!({ "action": "join", "room": room, "display": display });
        msg.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        assert_eq!(world.code("eve", msg.clone()), code, "{msg}");
    }
    // The same name again is fine where the server tells the streams apart.
    world.join("eve", "a", json!({ "stream": "assign", "display": "Bob" }));
    assert_eq!(world.code("fay", json!({ "action": "join", "room": "a", "display": "fay" })), "room-full");
    assert_eq!(world.code("eve", json!({ "action": "join", "room": "a", "display": "eve" })), "already-joined");
}

#[test]
fn requests_in_a_room_need_ones_own_room_and_name() {
    let mut world = World::new(Settings::default());
    for action in ["publish", "unpublish", "leave"] {
        assert_eq!(world.code("amy", json!({ "action": action })), "not-joined", "{action}");
    }
    world.join("amy", "a", json!({}));
    for (room, display, code) in
        [("a", "amy", "ok"), ("b", "amy", "not-joined"), ("a", "bob", "not-joined"), ("a", "amy", "ok")]
    {
        let msg = json!({ "action": "publish", "room": room, "display": display });
        assert_eq!(world.code("amy", msg), code, "{room} {display}");
    }
}

#[test]
fn a_room_without_a_kind_becomes_what_the_next_one_says() {
    let mut world = World::new(Settings::default());
    world.join("amy", "a", json!({}));
    let answer = world.join("bob", "a", json!({ "kind": "call" }));
    assert_eq!((&answer["kind"], &answer["max_people"]), (&json!("call"), &json!(2)));
    assert_eq!(world.code("cat", json!({ "action": "join", "room": "a", "display": "cat" })), "room-full");
    assert_eq!(world.lobby.rooms(world.now)[0].kind, Some(Kind::Call));

    // Three are no call.
    for name in ["dan", "eve", "fay"] {
        world.join(name, "b", json!({}));
    }
    let call = json!({ "action": "join", "room": "b", "display": "gus", "kind": "call" });
    assert_eq!(world.code("gus", call), "room-full");
}

#[test]
fn a_seat_is_kept_until_somebody_else_wants_it() {
    let mut world = World::new(Settings::default());
    for name in ["amy", "bob"] {
        world.join(name, "a", json!({ "kind": "call", "capabilities": ["resume"] }));
    }
    let cat = json!({ "action": "join", "room": "a", "display": "cat", "kind": "call" });
    assert_eq!(world.code("cat", cat.clone()), "room-full");
    world.disconnect("amy", Departure::Lost);
    assert_eq!(world.code("cat", cat), "ok");
    let people = || world.lobby.rooms(world.now)[0].people.iter().map(|p| p.display.clone()).collect::<Vec<_>>();
    assert_eq!(people(), ["bob", "cat"]);
}

#[test]
fn a_room_is_gone_with_its_last_person() {
    let mut world = World::new(Settings::default());
    world.join("amy", "a", json!({ "kind": "call" }));
    world.join("bob", "a", json!({}));
    assert_eq!(world.code("amy", json!({ "action": "leave" })), "ok");
    assert_eq!(world.lobby.counters().rooms, 1);
    world.disconnect("bob", Departure::Closed);
    let counters = world.lobby.counters();
    assert_eq!((counters.rooms, counters.people, counters.sockets), (0, 0, 1));
    // Nothing of the kind is left.
    world.join("amy", "a", json!({ "kind": "room" }));
}

#[test]
fn a_seat_is_kept_ten_seconds_for_those_who_can_resume() {
    let mut world = World::new(Settings::default());
    let amy = world.join("amy", "a", json!({ "stream": "assign", "capabilities": ["resume"] }));
    world.join("bob", "a", json!({ "stream": "assign" }));
    world.disconnect("bob", Departure::Lost);
    assert_eq!(world.lobby.counters().people, 1, "bob cannot come back");
    assert_eq!(world.ended.len(), 1);

    world.disconnect("amy", Departure::Lost);
    world.pass(SECOND * 10 - Duration::from_millis(1));
    assert!(world.lobby.rooms(world.now)[0].people[0].away);
    let back = world.join("amy", "a", json!({ "resume": amy["seat"], "capabilities": ["resume"] }));
    assert_eq!((&back["resumed"], &back["self"]), (&json!(true), &amy["self"]));
    assert_ne!(back["seat"], amy["seat"]);

    world.disconnect("amy", Departure::Lost);
    world.pass(SECOND * 10);
    assert_eq!(world.lobby.counters().rooms, 0);
    assert_eq!(world.ended[1], amy["self"]["stream"]);
    let late = world.join("amy", "a", json!({ "resume": back["seat"], "stream": "assign" }));
    assert_eq!(late["resumed"], json!(false));
    assert_ne!(late["self"]["stream"], amy["self"]["stream"]);
}

#[test]
fn a_seat_is_nothing_in_another_room_and_nothing_twice() {
    let mut world = World::new(Settings::default());
    let amy = world.join("amy", "a", json!({ "capabilities": ["resume"] }));
    let elsewhere = world.join("bob", "b", json!({ "resume": amy["seat"] }));
    assert_eq!(elsewhere["resumed"], json!(false));
    // The old socket is still there: the new one takes over, and the secret is spent.
    let eve = world.join("eve", "a", json!({ "resume": amy["seat"] }));
    assert_eq!((&eve["resumed"], &eve["self"]["display"]), (&json!(true), &json!("amy")));
    assert_eq!(world.closed, [("amy".to_owned(), CloseCode::Replaced)]);
    let again = json!({ "action": "join", "room": "a", "display": "amy", "resume": amy["seat"] });
    assert_eq!(world.code("amy", again), "display-taken");
}

#[test]
fn the_silent_are_pinged_and_given_up() {
    let mut world = World::new(Settings::default());
    world.join("amy", "a", json!({ "capabilities": ["resume"] }));
    world.join("bob", "a", json!({}));
    world.pass(SECOND * 60);
    assert_eq!(world.pings.iter().filter(|name| *name == "amy").count(), 4);
    assert!(world.closed.is_empty(), "those who answer stay: {:?}", world.closed);

    world.mute.push("bob".to_owned());
    world.pass(SECOND * 44);
    assert!(world.closed.is_empty());
    world.pass(SECOND);
    assert_eq!(world.closed, [("bob".to_owned(), CloseCode::Lost)]);
    assert_eq!(world.lobby.counters().people, 1);

    // Others wait for a publisher's picture, so its silence is noticed within nine seconds.
    world.ask("amy", json!({ "action": "publish" }));
    world.pass(SECOND * 30);
    world.mute.push("amy".to_owned());
    world.pass(SECOND * 9);
    assert_eq!(world.closed[1], ("amy".to_owned(), CloseCode::Lost));
    assert!(world.lobby.rooms(world.now)[0].people[0].away);
    assert_eq!(world.lobby.counters().lost, 2);
}

#[test]
fn who_joins_nothing_has_to_go() {
    let mut world = World::new(Settings::default());
    world.connect("amy", None);
    world.join("bob", "b", json!({}));
    world.pass(SECOND * 59);
    assert!(world.closed.is_empty());
    world.pass(SECOND);
    assert_eq!(world.closed, [("amy".to_owned(), CloseCode::Idle)]);
    world.ask("bob", json!({ "action": "leave" }));
    world.pass(SECOND * 60);
    assert_eq!(world.closed[1], ("bob".to_owned(), CloseCode::Idle));
    assert_eq!(world.lobby.poll_timeout(), None);
}

#[test]
fn a_flood_is_refused_and_then_cut_off() {
    let mut world = World::new(Settings::default());
    world.join("amy", "a", json!({}));
    world.join("bob", "a", json!({ "capabilities": ["resume"] }));
    let ping = json!({ "action": "ping" });
    let codes: Vec<String> = (0..60).map(|_| world.code("bob", ping.clone())).collect();
    assert_eq!(codes.iter().filter(|code| *code == "ok").count(), 59);
    assert_eq!(codes[59], "too-fast");
    world.pass(SECOND);
    assert_eq!(world.code("bob", ping.clone()), "ok");
    for _ in 0..200 {
        world.send("bob", &json!({ "tid": "t", "msg": ping }));
        if !world.closed.is_empty() {
            break;
        }
    }
    assert_eq!(world.closed, [("bob".to_owned(), CloseCode::Policy)]);
    assert_eq!(world.lobby.counters().people, 1, "no seat is kept for a flood");
}

#[test]
fn who_drains_takes_nobody_new_and_ends_with_a_code() {
    let mut world = World::new(Settings::default());
    let amy = world.join("amy", "a", json!({ "capabilities": ["resume"] }));
    world.lobby.drain();
    assert_eq!(world.code("bob", json!({ "action": "join", "room": "a", "display": "bob" })), "draining");
    world.disconnect("amy", Departure::Lost);
    let back = world.join("amy", "a", json!({ "resume": amy["seat"] }));
    assert_eq!(back["resumed"], json!(true), "whoever is here may come back");
    world.lobby.end();
    world.collect();
    let codes: Vec<CloseCode> = world.closed.iter().map(|(_, code)| *code).collect();
    assert_eq!(codes, [CloseCode::Restart; 2]);
    assert_eq!(world.lobby.counters().sockets + world.lobby.counters().rooms, 0);
    assert_eq!(world.lobby.poll_timeout(), None);
}

#[test]
fn tokens_are_taken_from_the_address_or_the_message() {
    let settings = Settings { tokens: vec!["one".to_owned(), "two".to_owned()], ..Settings::default() };
    let mut world = World::new(settings);
    for (name, address, message, code) in [
        ("a", None, None, "unauthorized"),
        ("b", Some("two"), None, "ok"),
        ("c", None, Some("one"), "ok"),
        ("d", Some("on"), None, "unauthorized"),
        ("e", Some("one"), Some("three"), "unauthorized"),
    ] {
        world.connect(name, address);
        let msg = json!({ "action": "join", "room": "a", "display": name, "token": message });
        assert_eq!(world.code(name, msg), code, "{name}");
    }
}

#[test]
fn the_slow_are_lost_and_the_rude_are_out() {
    let mut world = World::new(Settings::default());
    for (name, code, people) in [("amy", CloseCode::Slow, 1), ("bob", CloseCode::TooBig, 1)] {
        world.join(name, "a", json!({ "capabilities": ["resume"] }));
        let id = world.ids[name];
        world.lobby.expel(world.now, id, code);
        world.collect();
        assert_eq!(world.closed.last(), Some(&(name.to_owned(), code)));
        assert_eq!(world.lobby.counters().people, people, "{name}");
    }
}
