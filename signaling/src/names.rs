//! Names: what rooms and people may be called, and the names and secrets that the server makes up.

use rand::Rng as _;
use rand::rngs::StdRng;

use crate::error::Refusal;
use crate::limits::MAX_NAME_BYTES;

/// App of the stream names that the server assigns.
const ASSIGNED_APP: &str = "rooms";

/// Letters of ids and secrets: none needs an escape in a URL.
const LETTERS: &[u8; 62] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

/// 22 of 62 letters are 131 bits, more than anybody can try.
const SECRET_LETTERS: usize = 22;

/// An id tells the people of one room apart and is no secret.
const ID_LETTERS: usize = 8;

pub(crate) fn check_room(name: &str) -> Result<(), Refusal> {
    stream_part(name).map_err(Refusal::BadRoom)
}

/// A display name that is part of a stream's name has to be fit for that; another is text for people.
pub(crate) fn check_display(name: &str, is_assigned: bool) -> Result<(), Refusal> {
    if is_assigned { text(name) } else { stream_part(name) }.map_err(Refusal::BadDisplay)
}

fn stream_part(name: &str) -> Result<(), &'static str> {
    text(name)?;
    if name.contains(['/', '\\']) {
        return Err("holds a slash");
    }
    if name == "." || name == ".." {
        return Err("is \".\" or \"..\"");
    }
    Ok(())
}

fn text(name: &str) -> Result<(), &'static str> {
    if name.trim().is_empty() {
        return Err("is empty");
    }
    if name.len() > MAX_NAME_BYTES {
        return Err("is longer than 64 bytes");
    }
    if name.chars().any(char::is_control) {
        return Err("holds a control character");
    }
    Ok(())
}

pub(crate) fn new_id(random: &mut StdRng) -> String {
    letters(random, ID_LETTERS)
}

pub(crate) fn new_seat(random: &mut StdRng) -> String {
    letters(random, SECRET_LETTERS)
}

pub(crate) fn new_stream(random: &mut StdRng) -> String {
    format!("{ASSIGNED_APP}/{}", letters(random, SECRET_LETTERS))
}

fn letters(random: &mut StdRng, count: usize) -> String {
    (0..count).map(|_| char::from(LETTERS[random.random_range(0..LETTERS.len())])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_fit_for_streams_where_they_become_streams() {
        for (name, as_stream, as_text) in [
            ("bob", true, true),
            ("Amélie 2", true, true),
            ("a.b", true, true),
            ("..", false, true),
            (".", false, true),
            ("a/b", false, true),
            ("a\\b", false, true),
            ("", false, false),
            ("  ", false, false),
            ("a\nb", false, false),
            ("a\u{0}", false, false),
        ] {
            assert_eq!(check_display(name, false).is_ok(), as_stream, "{name:?}");
            assert_eq!(check_room(name).is_ok(), as_stream, "{name:?}");
            assert_eq!(check_display(name, true).is_ok(), as_text, "{name:?}");
        }
        assert!(check_room(&"x".repeat(64)).is_ok());
        assert_eq!(check_room(&"é".repeat(33)), Err(Refusal::BadRoom("is longer than 64 bytes")));
    }
}
