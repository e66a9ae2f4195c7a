//! Query strings: pairs split at `&`, percent-decoding, `+` as a space where a form would write one.

/// A query string, decoded on demand.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Query<'a> {
    raw: &'a str,
}

impl<'a> Query<'a> {
    pub(crate) fn new(raw: &'a str) -> Query<'a> {
        Query { raw }
    }

    /// The first value of that name, [`None`] when it is absent or empty.
    pub(crate) fn get(self, name: &str) -> Option<String> {
        self.value(name).map(|value| percent_decode(&value.replace('+', " ")))
    }

    /// Like [`Query::get`], but `+` stays: for tokens and ICE credentials, where it is a base64 letter that people
    /// paste as it is.
    pub(crate) fn get_verbatim(self, name: &str) -> Option<String> {
        self.value(name).map(percent_decode)
    }

    /// The first of several names that has a value.
    pub(crate) fn get_any(self, names: &[&str]) -> Option<String> {
        names.iter().find_map(|name| self.get(name))
    }

    /// Every value of those names, in the order of the query.
    pub(crate) fn get_all(self, names: &[&str]) -> impl Iterator<Item = String> {
        self.pairs()
            .filter(move |(key, value)| names.contains(key) && !value.is_empty())
            .map(|(_, value)| percent_decode(value))
    }

    fn value(self, name: &str) -> Option<&'a str> {
        self.pairs().find(|(key, value)| *key == name && !value.is_empty()).map(|(_, value)| value)
    }

    fn pairs(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.raw.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")))
    }
}

/// Undoes `%41`. A percent sign that starts no escape stays; bytes that are no UTF-8 become U+FFFD.
pub(crate) fn percent_decode(text: &str) -> String {
    if !text.contains('%') {
        return text.to_owned();
    }
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped = match bytes[at..] {
            [b'%', high, low, ..] => hex(high).zip(hex(low)),
            _ => None,
        };
        if let Some((high, low)) = escaped {
            decoded.push(high << 4 | low);
            at += 3;
        } else {
            decoded.push(bytes[at]);
            at += 1;
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|digit| digit as u8)
}

/// Escapes everything but the unreserved characters of RFC 3986 §2.3 and `/`, which is harmless in a query.
pub(crate) fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_and_decoded() {
        let query = Query::new("app=live&stream=my%20cam+2&empty=&flag&token=a+b%2Fc==&stream=second");
        assert_eq!(query.get("app").as_deref(), Some("live"));
        assert_eq!(query.get("stream").as_deref(), Some("my cam 2"));
        assert_eq!(query.get("empty"), None);
        assert_eq!(query.get("flag"), None);
        assert_eq!(query.get("absent"), None);
        assert_eq!(query.get_verbatim("token").as_deref(), Some("a+b/c=="));
        assert_eq!(query.get_any(&["vhost", "app"]).as_deref(), Some("live"));
    }

    #[test]
    fn broken_escapes_stay() {
        for (raw, decoded) in [("100%", "100%"), ("%4", "%4"), ("%zz", "%zz"), ("%+1", "%+1"), ("%41%", "A%")] {
            assert_eq!(percent_decode(raw), decoded);
        }
        assert_eq!(percent_decode("%ff"), "\u{fffd}");
    }

    #[test]
    fn encoding_survives_decoding() {
        let name = "a b/ü&c=d%+\"";
        assert_eq!(percent_decode(&percent_encode(name)), name);
        assert!(!percent_encode(name).contains(['&', '=', ' ', '+', '"']));
    }
}
