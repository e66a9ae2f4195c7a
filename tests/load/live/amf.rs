//! As much AMF0 as a client's commands need (Action Message Format 0, §2). It shares nothing with the server's, so that a
//! mistake there is not repeated here.

const NUMBER: u8 = 0;
const BOOLEAN: u8 = 1;
const STRING: u8 = 2;
const OBJECT: u8 = 3;
const NULL: u8 = 5;
const UNDEFINED: u8 = 6;
const ECMA_ARRAY: u8 = 8;
const OBJECT_END: u8 = 9;

/// A value of a command that is sent.
#[derive(Debug, Clone, Copy)]
pub(super) enum Value<'a> {
    Number(f64),
    Text(&'a str),
    Null,
    /// Properties whose values are text.
    Object(&'a [(&'a str, &'a str)]),
}

/// A command's body.
pub(super) fn encode(values: &[Value<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    for value in values {
        match value {
            Value::Number(number) => {
                out.push(NUMBER);
                out.extend_from_slice(&number.to_be_bytes());
            }
            Value::Text(text) => {
                out.push(STRING);
                put_text(&mut out, text);
            }
            Value::Null => out.push(NULL),
            Value::Object(properties) => {
                out.push(OBJECT);
                for (name, text) in *properties {
                    put_text(&mut out, name);
                    out.push(STRING);
                    put_text(&mut out, text);
                }
                out.extend_from_slice(&[0, 0, OBJECT_END]);
            }
        }
    }
    out
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    let text = &text.as_bytes()[..text.len().min(usize::from(u16::MAX))];
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text);
}

/// What stands in an answer, flat: objects are their keys and values in a row.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Item {
    Number(f64),
    Text(String),
    Key(String),
}

/// Reads up to the end, or to the first thing that no answer needs.
pub(super) fn items(mut rest: &[u8]) -> Vec<Item> {
    let mut found = Vec::new();
    let mut depth = 0;
    while next_item(&mut rest, &mut depth, &mut found).is_some() {}
    found
}

fn next_item(rest: &mut &[u8], depth: &mut u32, found: &mut Vec<Item>) -> Option<()> {
    if *depth > 0 {
        let key = take_text(rest)?;
        if key.is_empty() {
            *depth -= 1;
            return (take::<1>(rest)? == [OBJECT_END]).then_some(());
        }
        found.push(Item::Key(key));
    }
    match take::<1>(rest)?[0] {
        NUMBER => found.push(Item::Number(f64::from_be_bytes(take(rest)?))),
        BOOLEAN => _ = take::<1>(rest)?,
        STRING => found.push(Item::Text(take_text(rest)?)),
        OBJECT => *depth += 1,
        ECMA_ARRAY => {
            take::<4>(rest)?;
            *depth += 1;
        }
        NULL | UNDEFINED => {}
        _ => return None,
    }
    Some(())
}

/// The text of a property, at whatever depth.
pub(super) fn property<'a>(items: &'a [Item], name: &str) -> Option<&'a str> {
    items.windows(2).find_map(|pair| match pair {
        [Item::Key(key), Item::Text(text)] if key == name => Some(text.as_str()),
        _ => None,
    })
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk()?;
    *rest = tail;
    Some(*head)
}

fn take_text(rest: &mut &[u8]) -> Option<String> {
    let length = usize::from(u16::from_be_bytes(take(rest)?));
    let (text, tail) = rest.split_at_checked(length)?;
    *rest = tail;
    Some(String::from_utf8_lossy(text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read_back() {
        let status = encode(&[
            Value::Text("onStatus"),
            Value::Number(0.0),
            Value::Null,
            Value::Object(&[("level", "error"), ("code", "NetStream.Play.StreamNotFound")]),
        ]);
        let items = items(&status);
        assert_eq!(items[..2], [Item::Text("onStatus".into()), Item::Number(0.0)]);
        assert_eq!(property(&items, "code"), Some("NetStream.Play.StreamNotFound"));
        assert_eq!(property(&items, "description"), None);
    }

    #[test]
    fn what_is_cut_off_ends_the_reading() {
        let whole = encode(&[Value::Number(1.0), Value::Object(&[("a", "b")])]);
        for length in 0..whole.len() {
            assert!(items(&whole[..length]).len() <= 3);
        }
        assert_eq!(items(&[0xff, 0, 0]), []);
    }
}
