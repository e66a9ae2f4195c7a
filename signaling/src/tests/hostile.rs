//! Broken and random messages: each is answered once, and what is kept stays within its bounds.

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};

use super::examples::sent_messages;
use super::world::World;
use crate::{Departure, Settings};

const SEEDS: u64 = 40;
const STEPS: usize = 400;
const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// Pieces that matter to a parser of this protocol.
const PIECES: [&str; 12] = [
    "\"action\"",
    "\"join\"",
    "null",
    "{}",
    "[[[[",
    "\"$\"",
    "\\u0000",
    "\\ud800",
    "1e999",
    "\"capabilities\":[",
    "\"state\":{\"camera\":",
    "\u{feff}",
];

#[test]
fn every_message_is_answered_once_or_ends_the_socket() {
    let corpus: Vec<String> = sent_messages().iter().map(Value::to_string).collect();
    for seed in 0..SEEDS {
        let mut random = StdRng::seed_from_u64(seed);
        let mut world = World::new(Settings { max_rooms: 3, max_people: 3, tokens: Vec::new() });
        for step in 0..STEPS {
            let name = NAMES[random.random_range(0..NAMES.len())];
            if random.random_range(0..40) == 0 && world.ids.contains_key(name) {
                let departure = if random.random() { Departure::Closed } else { Departure::Lost };
                world.disconnect(name, departure);
            } else {
                let text = mutated(&mut random, &corpus);
                world.send_text(name, &text);
                let answers = world.rest(name).iter().filter(|message| !is_notice(message)).count();
                let expected = usize::from(world.ids.contains_key(name));
                assert_eq!(answers, expected, "seed {seed}, step {step}: {text:?}");
            }
            world.pass(std::time::Duration::from_millis(random.random_range(0..400)));
            check(&world, seed, step);
        }
    }
}

/// Something that others did; a notice of an error is an answer.
fn is_notice(message: &Value) -> bool {
    message["msg"]["action"] == "notify" && message["msg"]["event"] != "error"
}

fn check(world: &World, seed: u64, step: usize) {
    let rooms = world.lobby.rooms(world.now);
    assert!(rooms.len() <= 3, "seed {seed}, step {step}: {rooms:?}");
    for room in &rooms {
        assert!(!room.people.is_empty() && room.people.len() <= 3, "seed {seed}, step {step}: {room:?}");
        for person in &room.people {
            assert!(person.display.len() <= 64 && person.stream.len() <= 129, "seed {seed}, step {step}: {person:?}");
        }
    }
    let here = rooms.iter().flat_map(|room| &room.people).filter(|person| !person.away).count();
    let counters = world.lobby.counters();
    assert!(here <= counters.sockets && counters.sockets == world.ids.len(), "seed {seed}, step {step}");
}

fn mutated(random: &mut StdRng, corpus: &[String]) -> String {
    let mut text = corpus[random.random_range(0..corpus.len())].clone();
    for _ in 0..random.random_range(0..4) {
        let at = boundary(&text, random.random_range(0..=text.len()));
        match random.random_range(0..5) {
            0 => text.truncate(at),
            1 => text.insert_str(at, PIECES[random.random_range(0..PIECES.len())]),
            2 => {
                let end = boundary(&text, (at + random.random_range(0..20)).min(text.len()));
                text.replace_range(at..end, "");
            }
            3 => text.insert(at, random.random::<char>()),
            _ => {
                let other = &corpus[random.random_range(0..corpus.len())];
                let from = boundary(other, random.random_range(0..=other.len()));
                text.replace_range(at.., &other[from..]);
            }
        }
    }
    text
}

fn boundary(text: &str, at: usize) -> usize {
    (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

#[test]
fn deep_and_wide_messages_are_nothing_special() {
    let mut world = World::new(Settings::default());
    for text in [
        "[".repeat(16_384),
        format!("{{\"msg\":{}}}", "[".repeat(16_000)),
        format!(
            "{{\"tid\":\"a\",\"msg\":{{\"action\":\"control\",\"call\":\"c\",\"data\":[{}0]}}}}",
            "0,".repeat(8_000)
        ),
        format!("{{{}\"tid\":\"a\",\"msg\":{{}}}}", "\"x\":0,".repeat(2_500)),
    ] {
        world.send_text("amy", &text);
        let answer = world.next("amy").unwrap();
        assert!(answer["error"]["text"].as_str().unwrap().len() < 200, "{answer}");
    }
    world.join("amy", "a", json!({}));
    world.join("bob", "a", json!({}));
    let data = json!([[{ "x": [1, null, "…"] }], 2.5]);
    assert_eq!(world.code("amy", json!({ "action": "control", "call": "any", "data": data })), "ok");
    assert_eq!(world.rest("bob")[0]["msg"]["data"], data);
}
