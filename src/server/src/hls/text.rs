//! Playlists as they are sent: written and compressed once for all who ask for the same.

use std::io::Write as _;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;

/// Texts that are kept for one state of a stream: one for each token that viewers come with, of the last ones.
const MAX_TEXTS: usize = 8;

/// One text.
#[derive(Debug)]
pub(crate) struct PlaylistText {
    plain: Bytes,
    zipped: OnceLock<Option<Bytes>>,
}

impl PlaylistText {
    pub(crate) fn new(text: String) -> PlaylistText {
        PlaylistText { plain: Bytes::from(text), zipped: OnceLock::new() }
    }

    /// As it is.
    pub(crate) fn plain(&self) -> Bytes {
        self.plain.clone()
    }

    /// Compressed (RFC 1952); the first who asks makes it.
    pub(crate) fn gzip(&self) -> Option<Bytes> {
        self.zipped.get_or_init(|| gzip(&self.plain)).clone()
    }

    /// Its length before compression.
    pub(super) fn len(&self) -> usize {
        self.plain.len()
    }
}

/// The fastest level: a playlist repeats itself so much that more work gains nothing.
fn gzip(text: &[u8]) -> Option<Bytes> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(text.len() / 4), Compression::fast());
    encoder.write_all(text).ok()?;
    encoder.finish().ok().map(Bytes::from)
}

/// The texts of a stream's present state.
#[derive(Debug, Default)]
pub(super) struct Texts(Vec<(TextName, Arc<PlaylistText>)>);

/// What a text depends on besides the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TextName {
    pub(super) kind: TextKind,
    /// Hung on the names in it.
    pub(super) query: String,
}

/// The playlists that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TextKind {
    /// Of a rendition.
    Media,
    /// The same without what players know already.
    Delta,
    /// Of all renditions.
    Multivariant,
}

impl Texts {
    /// The stream has changed.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// The text of that name, written if it is not there.
    pub(super) fn get(&mut self, name: &TextName, write: impl FnOnce() -> String) -> Arc<PlaylistText> {
        if let Some((_, text)) = self.0.iter().find(|(known, _)| known == name) {
            return Arc::clone(text);
        }
        if self.0.len() >= MAX_TEXTS {
            self.0.remove(0);
        }
        let text = Arc::new(PlaylistText::new(write()));
        self.0.push((name.clone(), Arc::clone(&text)));
        text
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use flate2::read::GzDecoder;

    use super::*;

    #[test]
    fn what_is_compressed_reads_the_same() {
        let playlist = "#EXTINF:2.000,\n".repeat(100);
        let text = PlaylistText::new(playlist.clone());
        let zipped = text.gzip().unwrap();
        let mut read = String::new();
        GzDecoder::new(&zipped[..]).read_to_string(&mut read).unwrap();
        assert_eq!((read, text.plain()), (playlist.clone(), Bytes::from(playlist)));
        assert!(zipped.len() < text.len() / 5);
    }

    #[test]
    fn texts_are_written_once_and_bounded() {
        let mut texts = Texts::default();
        let name = |query: usize| TextName { kind: TextKind::Media, query: query.to_string() };
        let mut written = 0;
        for round in 0..3 {
            for query in 0..MAX_TEXTS {
                let text = texts.get(&name(query), || {
                    written += 1;
                    query.to_string()
                });
                assert_eq!(text.plain(), query.to_string(), "round {round}");
            }
        }
        assert_eq!(written, MAX_TEXTS);
        for query in 0..1_000 {
            texts.get(&name(query), String::new);
        }
        assert_eq!(texts.0.len(), MAX_TEXTS);
        texts.clear();
        assert!(texts.0.is_empty());
    }
}
