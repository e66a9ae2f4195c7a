//! The name under which all protocols find the same stream: `[vhost/]app/stream`.

use std::fmt;
use std::sync::Arc;

/// Longest key that is accepted, in bytes. Keys become log fields, metric labels and file names.
const MAX_BYTES: usize = 255;

/// The vhost that is left out of a key.
pub(crate) const DEFAULT_VHOST: &str = "__defaultVhost__";

/// `vhost/app/stream`, the vhost left out where it is the default one. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamKey {
    key: Arc<str>,
    app_start: usize,
    stream_start: usize,
}

/// Why a name cannot be a stream key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidStreamKey(&'static str);

impl fmt::Display for InvalidStreamKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for InvalidStreamKey {}

impl StreamKey {
    /// Builds a key. `app` may hold several path segments, `stream` is one segment; an empty vhost is the default one.
    ///
    /// # Errors
    /// An empty, overlong or unsafe part (control characters, `.` and `..` segments, backslashes).
    pub fn new(vhost: &str, app: &str, stream: &str) -> Result<StreamKey, InvalidStreamKey> {
        let app = app.trim_matches('/');
        if app.is_empty() {
            return Err(InvalidStreamKey("the app is empty"));
        }
        if stream.is_empty() {
            return Err(InvalidStreamKey("the stream name is empty"));
        }
        if stream.contains('/') {
            return Err(InvalidStreamKey("the stream name holds a slash"));
        }
        let vhost = if vhost == DEFAULT_VHOST { "" } else { vhost };
        if vhost.contains('/') {
            return Err(InvalidStreamKey("the vhost holds a slash"));
        }
        let mut key = String::with_capacity(vhost.len() + app.len() + stream.len() + 2);
        if !vhost.is_empty() {
            key.push_str(vhost);
            key.push('/');
        }
        let app_start = key.len();
        key.push_str(app);
        key.push('/');
        let stream_start = key.len();
        key.push_str(stream);
        if key.len() > MAX_BYTES {
            return Err(InvalidStreamKey("the stream's name is longer than 255 bytes"));
        }
        if key.chars().any(|c| c.is_control() || c == '\\') {
            return Err(InvalidStreamKey("the stream's name holds a control character or a backslash"));
        }
        if key.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
            return Err(InvalidStreamKey("a part of the stream's name is empty, \".\" or \"..\""));
        }
        Ok(StreamKey { key: key.into(), app_start, stream_start })
    }

    /// The whole key, as logs and the API print it.
    pub fn as_str(&self) -> &str {
        &self.key
    }

    /// The vhost, [`None`] for the default one.
    pub fn vhost(&self) -> Option<&str> {
        (self.app_start > 0).then(|| &self.key[..self.app_start - 1])
    }

    /// The app, `live` in `live/cam`.
    pub fn app(&self) -> &str {
        &self.key[self.app_start..self.stream_start - 1]
    }

    /// The stream's own name, `cam` in `live/cam`.
    pub fn stream(&self) -> &str {
        &self.key[self.stream_start..]
    }
}

impl fmt::Display for StreamKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key)
    }
}

impl fmt::Debug for StreamKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_come_back() {
        let key = StreamKey::new("v.example", "a/b", "cam").unwrap();
        assert_eq!(key.as_str(), "v.example/a/b/cam");
        assert_eq!((key.vhost(), key.app(), key.stream()), (Some("v.example"), "a/b", "cam"));
        let key = StreamKey::new("__defaultVhost__", "live", "cam").unwrap();
        assert_eq!((key.as_str(), key.vhost()), ("live/cam", None));
    }

    #[test]
    fn unsafe_names_are_refused() {
        for (app, stream) in
            [("", "x"), ("live", ""), ("live", "a/b"), ("..", "x"), ("a//b", "x"), ("live", "a\nb"), ("live", "..")]
        {
            assert!(StreamKey::new("", app, stream).is_err(), "{app:?} {stream:?}");
        }
        assert!(StreamKey::new("", "live", &"x".repeat(300)).is_err());
    }
}
