//! Patterns of stream names in the configuration: `live/*`, `*/cam`, `*`.

/// A stream's name with `*` for any number of letters, slashes included. The name is that of the stream's key,
/// `[vhost/]app/stream`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StreamPattern(String);

impl StreamPattern {
    /// Takes a pattern. [`None`]: no stream has such a name.
    pub(crate) fn parse(text: &str) -> Option<StreamPattern> {
        let is_name = !text.is_empty() && !text.chars().any(|c| c.is_control() || c.is_whitespace() || c == '\\');
        let may_be_whole = text.contains('*') || text.contains('/');
        let has_empty_part = text.starts_with('/') || text.ends_with('/') || text.contains("//");
        (is_name && may_be_whole && !has_empty_part).then(|| StreamPattern(text.to_owned()))
    }

    /// Whether a stream is meant.
    pub(crate) fn matches(&self, key: &str) -> bool {
        let mut pieces = self.0.split('*');
        // The piece in front of the first asterisk stands at the beginning.
        let Some(mut rest) = pieces.next().and_then(|first| key.strip_prefix(first)) else { return false };
        let Some(last) = pieces.next_back() else { return rest.is_empty() };
        for piece in pieces {
            // The earliest place leaves the most for the pieces behind it.
            let Some(at) = rest.find(piece) else { return false };
            rest = &rest[at + piece.len()..];
        }
        rest.ends_with(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asterisks_stand_for_anything() {
        for (pattern, key, matches) in [
            ("live/cam", "live/cam", true),
            ("live/cam", "live/cam2", false),
            ("live/*", "live/cam", true),
            ("live/*", "lives/cam", false),
            ("live/*", "v.example/live/cam", false),
            ("*/live/*", "v.example/live/cam", true),
            ("*", "a/b/c", true),
            ("*/cam", "live/cam", true),
            ("*/cam", "live/webcam", false),
            ("live/*-rec", "live/a-rec", true),
            ("live/*-rec", "live/a-rec-b", false),
            ("live/a*a", "live/a", false),
            ("live/a*b*c", "live/aXbXbYc", true),
            ("live/a*b*c", "live/acb", false),
            ("live/**", "live/x", true),
        ] {
            assert_eq!(StreamPattern::parse(pattern).unwrap().matches(key), matches, "{pattern} {key}");
        }
        for text in ["", "cam", "/live/cam", "live/", "live//cam", "live/c m", "live\\cam"] {
            assert_eq!(StreamPattern::parse(text), None, "{text:?}");
        }
    }
}
