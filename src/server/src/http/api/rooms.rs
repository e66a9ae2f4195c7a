//! Rooms as the API shows them.

use freshet_signaling::{PersonSnapshot, RoomSnapshot};
use serde_json::{Value, json};

/// One room.
pub(super) fn room(room: &RoomSnapshot) -> Value {
    json!({
        "name": room.name,
        "kind": room.kind.map(|kind| kind.name()),
        "max_people": room.max_people,
        "people": room.people.iter().map(person).collect::<Vec<_>>(),
    })
}

fn person(person: &PersonSnapshot) -> Value {
    json!({
        "id": person.id,
        "display": person.display,
        "publishing": person.publishing,
        "stream": person.stream,
        "state": person.state,
        "away": person.away,
        "alive": person.alive.as_secs_f64(),
    })
}
