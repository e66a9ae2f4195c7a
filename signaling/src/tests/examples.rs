//! Every example of protocol.md, played against the lobby.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value};

use super::world::World;
use crate::{Departure, Settings};

const PROTOCOL: &str = include_str!("../../protocol.md");

/// Values of the texts that begin with a dollar.
type Bindings = BTreeMap<String, Value>;

/// One thing that happens.
type Step = Map<String, Value>;

#[test]
fn every_example_of_the_protocol_is_true() {
    let examples = examples();
    assert!(examples.len() >= 6, "protocol.md has lost its examples");
    for (number, steps) in examples.iter().enumerate() {
        play(number, steps);
    }
}

/// Every message that somebody sends in an example.
pub(super) fn sent_messages() -> Vec<Value> {
    let steps = examples().into_iter().flatten().flatten();
    steps.filter(|(verb, _)| verb.ends_with(" sends")).map(|(_, message)| message).collect()
}

fn examples() -> Vec<Vec<Step>> {
    let blocks = PROTOCOL.split("```json\n").skip(1).map(|rest| rest.split("\n```").next().unwrap());
    blocks.map(|block| serde_json::from_str(block).unwrap_or_else(|error| panic!("{error}\n{block}"))).collect()
}

fn play(number: usize, steps: &[Step]) {
    let mut world = World::new(Settings::default());
    let mut bindings = Bindings::new();
    for (at, step) in steps.iter().enumerate() {
        let (verb, value) = step.iter().next().unwrap();
        let place = format!("example {number}, step {at} ({verb})");
        match verb.split_once(' ') {
            None if verb == "settings" => world = World::new(settings(value)),
            Some(("seconds", "pass")) => world.pass(Duration::from_secs(value.as_u64().unwrap())),
            Some((name, "sends")) => world.send(name, &fill_in(value, &bindings)),
            Some((name, "receives")) => {
                let received = world.next(name).unwrap_or_else(|| panic!("{place}: nothing came"));
                compare(value, &received, &mut bindings).unwrap_or_else(|why| panic!("{place}: {why}\n{received}"));
            }
            Some((name, "closes")) => world.disconnect(name, Departure::Closed),
            Some((name, "is lost")) => world.disconnect(name, Departure::Lost),
            _ => panic!("{place}: no such step"),
        }
    }
    assert!(world.unread().is_empty(), "example {number}: not told: {:?}", world.unread());
}

fn settings(value: &Value) -> Settings {
    let tokens = value["tokens"].as_array().unwrap().iter().map(|token| token.as_str().unwrap().to_owned());
    Settings { tokens: tokens.collect(), ..Settings::default() }
}

fn fill_in(value: &Value, bindings: &Bindings) -> Value {
    match value {
        Value::String(text) if text.starts_with('$') => bindings[text].clone(),
        Value::Array(list) => list.iter().map(|value| fill_in(value, bindings)).collect(),
        Value::Object(members) => {
            Value::Object(members.iter().map(|(name, value)| (name.clone(), fill_in(value, bindings))).collect())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

fn compare(expected: &Value, received: &Value, bindings: &mut Bindings) -> Result<(), String> {
    match (expected, received) {
        (Value::String(text), _) if text.starts_with('$') => {
            let bound = bindings.entry(text.clone()).or_insert_with(|| received.clone());
            if bound == received { Ok(()) } else { Err(format!("{text} was {bound}, now it is {received}")) }
        }
        (Value::Array(expected), Value::Array(received)) if expected.len() == received.len() => {
            expected.iter().zip(received).try_for_each(|(expected, received)| compare(expected, received, bindings))
        }
        (Value::Object(expected), Value::Object(received)) => {
            if let Some(more) = received.keys().find(|name| !expected.contains_key(*name)) {
                return Err(format!("{more} is more than expected"));
            }
            expected.iter().try_for_each(|(name, expected)| {
                let received = received.get(name).ok_or_else(|| format!("{name} is missing"))?;
                compare(expected, received, bindings).map_err(|why| format!("{name}: {why}"))
            })
        }
        _ if expected == received => Ok(()),
        _ => Err(format!("expected {expected}, got {received}")),
    }
}
