//! The playlist and the segments that it lists (RFC 8216 §4.3, §6.2).

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::date::Iso8601;
use super::encryption::{Encryption, Key};
use super::window::{Listed, Window};
use super::{KEY_ENDING, SEGMENT_ENDING};

/// One finished segment.
#[derive(Debug, Clone)]
pub struct Segment {
    /// Its number, which is part of its name.
    pub sequence: u64,
    /// How long it is.
    pub duration: Duration,
    /// When it began.
    pub starts_at: SystemTime,
    /// Its parameters or its times do not follow those of the one before.
    pub is_discontinuous: bool,
    /// It can be decoded without the one before.
    pub is_independent: bool,
    /// The name of the key that it is encrypted with, if it is.
    pub key: Option<u64>,
    /// MPEG-TS, or what encryption makes of it.
    pub data: Bytes,
}

impl Listed for Segment {
    fn sequence(&self) -> u64 {
        self.sequence
    }

    fn duration(&self) -> Duration {
        self.duration
    }

    fn bytes(&self) -> usize {
        self.data.len()
    }

    fn is_discontinuous(&self) -> bool {
        self.is_discontinuous
    }
}

/// What players see of a stream. A copy shares the segments' bytes.
#[derive(Debug, Clone)]
pub struct Playlist {
    window: Window<Segment>,
    first_sequence: u64,
    next_sequence: u64,
    encryption: Option<Encryption>,
    target_seconds: u64,
    has_ended: bool,
}

impl Playlist {
    pub(super) fn new(window: Duration, first_sequence: u64, target_seconds: u64) -> Playlist {
        Playlist {
            window: Window::new(window),
            first_sequence,
            next_sequence: first_sequence,
            encryption: None,
            target_seconds,
            has_ended: false,
        }
    }

    /// No segment can be played yet.
    pub fn is_empty(&self) -> bool {
        self.window.listed().is_empty()
    }

    /// How many segments the playlist lists.
    pub fn len(&self) -> usize {
        self.window.listed().len()
    }

    /// The segments that the playlist lists, oldest first.
    pub fn segments(&self) -> impl Iterator<Item = &Segment> {
        self.window.listed().iter()
    }

    /// A segment by its number, also one that has just left the playlist.
    pub fn segment(&self, sequence: u64) -> Option<&Segment> {
        self.window.segment(sequence)
    }

    /// The segments that have left the playlist and can still be asked for.
    pub fn former(&self) -> impl Iterator<Item = &Segment> {
        self.window.former().iter()
    }

    /// A key by its name, while a segment needs it.
    pub fn key(&self, name: u64) -> Option<Key> {
        let is_needed = self.window.kept().any(|segment| segment.key == Some(name));
        self.encryption.as_ref().filter(|_| is_needed).map(|encryption| encryption.key(name))
    }

    /// Whether the stream is over.
    pub fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Bytes of all segments that are kept.
    pub fn bytes(&self) -> usize {
        self.window.bytes()
    }

    /// The text. Segments are called `{name}-{sequence}.ts{query}`, beside the playlist; both parts must be fit for a
    /// URI, `query` is empty or begins with a question mark. Keys are called so too.
    pub fn render(&self, name: &str, query: &str) -> String {
        self.render_with(
            |segment| format!("{name}-{}{SEGMENT_ENDING}{query}", segment.sequence),
            |key| format!("{name}-{key}{KEY_ENDING}{query}"),
        )
    }

    /// The text, with addresses of the caller's choice for segments and for keys by their names.
    pub fn render_with(&self, segment_uri: impl Fn(&Segment) -> String, key_uri: impl Fn(u64) -> String) -> String {
        let mut text = String::with_capacity(256 + self.window.listed().len() * 128);
        let first = self.window.listed().front().map_or(self.next_sequence, |segment| segment.sequence);
        let target = self.target_seconds;
        // Writing to a string cannot fail.
        let _ =
            write!(text, "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:{target}\n#EXT-X-MEDIA-SEQUENCE:{first}\n");
        if self.window.past_discontinuities() > 0 {
            let _ = writeln!(text, "#EXT-X-DISCONTINUITY-SEQUENCE:{}", self.window.past_discontinuities());
        }
        if self.window.listed().iter().all(|segment| segment.is_independent) {
            text.push_str("#EXT-X-INDEPENDENT-SEGMENTS\n");
        }
        let mut key = None;
        for segment in self.window.listed() {
            if segment.is_discontinuous {
                text.push_str("#EXT-X-DISCONTINUITY\n");
            }
            if let Some(name) = segment.key.filter(|_| segment.key != key) {
                let _ = writeln!(text, "#EXT-X-KEY:METHOD=AES-128,URI=\"{}\"", key_uri(name));
                key = segment.key;
            }
            let (date, seconds) = (Iso8601(segment.starts_at), segment.duration.as_secs_f64());
            let uri = segment_uri(segment);
            let _ = write!(text, "#EXT-X-PROGRAM-DATE-TIME:{date}\n#EXTINF:{seconds:.3},\n{uri}\n");
        }
        if self.has_ended {
            text.push_str("#EXT-X-ENDLIST\n");
        }
        text
    }

    pub(super) fn encrypt(&mut self, encryption: Encryption) {
        self.encryption = Some(encryption);
    }

    pub(super) fn target_seconds(&self) -> u64 {
        self.target_seconds
    }

    pub(super) fn raise_target(&mut self, seconds: u64) {
        self.target_seconds = self.target_seconds.max(seconds);
    }

    pub(super) fn end(&mut self) {
        self.has_ended = true;
    }

    /// Lists a segment; the number is given here.
    pub(super) fn push(&mut self, mut segment: Segment) {
        self.has_ended = false;
        segment.sequence = self.next_sequence;
        self.next_sequence += 1;
        if let Some(encryption) = &self.encryption {
            let key = encryption.key_name(segment.sequence, self.first_sequence);
            segment.key = Some(key);
            // Better a hole than a segment that anybody can read.
            segment.data = encryption.seal(segment.data, key, segment.sequence).unwrap_or_default();
        }
        self.window.push(segment, Duration::from_secs(self.target_seconds));
    }
}
