//! What files of HLS are called: SRS's templates, `[app]/[stream]-[seq].ts`, with its variables.
//!
//! A name never leads out of the folder: templates are relative and without `..`, and so is every stream's key
//! ([`StreamKey::new`]); what comes out is looked at once more all the same.

use std::path::{Component, Path, PathBuf};
use std::time::UNIX_EPOCH;

use freshet_bridge::hls::{Iso8601, Segment};
use freshet_media::StreamKey;

use crate::url::query::percent_encode;

/// SRS's name of the default vhost.
const DEFAULT_VHOST: &str = "__defaultVhost__";

/// A template that has been read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct FileName(Vec<Piece>);

#[derive(Debug, Clone, PartialEq)]
enum Piece {
    Text(String),
    Vhost,
    App,
    Stream,
    Sequence,
    /// When the segment began, in milliseconds since 1970.
    Timestamp,
    /// In milliseconds.
    Duration,
    /// A part of the date in UTC: where it stands in [`Iso8601`].
    Date(usize, usize),
}

/// Variables of every name.
const OF_STREAMS: [(&str, Piece); 3] = [("vhost", Piece::Vhost), ("app", Piece::App), ("stream", Piece::Stream)];

/// Variables that a segment has as well. Dates are written as SRS's users know them, by Go's model day.
const OF_SEGMENTS: [(&str, Piece); 10] = [
    ("seq", Piece::Sequence),
    ("timestamp", Piece::Timestamp),
    ("duration", Piece::Duration),
    ("2006", Piece::Date(0, 4)),
    ("01", Piece::Date(5, 7)),
    ("02", Piece::Date(8, 10)),
    ("15", Piece::Date(11, 13)),
    ("04", Piece::Date(14, 16)),
    ("05", Piece::Date(17, 19)),
    ("999", Piece::Date(20, 23)),
];

impl FileName {
    /// Reads the name of playlists.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn of_playlists(template: &str) -> Result<FileName, String> {
        FileName::read(template, ".m3u8", &[&OF_STREAMS], &["app", "stream"])
    }

    /// Reads the name of segments.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn of_segments(template: &str) -> Result<FileName, String> {
        FileName::read(template, ".ts", &[&OF_STREAMS, &OF_SEGMENTS], &["app", "stream", "seq"])
    }

    fn read(
        template: &str,
        ending: &str,
        variables: &[&[(&str, Piece)]],
        required: &[&str],
    ) -> Result<FileName, String> {
        if !template.ends_with(ending) {
            return Err(format!("it must end with {ending}"));
        }
        let is_plain = |part: Component<'_>| matches!(part, Component::Normal(_));
        if !Path::new(template).components().all(is_plain) || template.chars().any(|c| c.is_control() || c == '\\') {
            return Err("write a path below the folder, without a slash at its start and without \"..\"".to_owned());
        }
        if let Some(missing) = required.iter().find(|name| !template.contains(&format!("[{name}]"))) {
            return Err(format!("it must hold [{missing}], or files would overwrite each other"));
        }
        let mut pieces = Vec::new();
        let mut rest = template;
        while let Some((before, after)) = rest.split_once('[') {
            let (name, after) = after.split_once(']').ok_or("a bracket is not closed")?;
            let known = variables.iter().flat_map(|some| some.iter());
            let Some((_, piece)) = known.clone().find(|(known, _)| *known == name) else {
                let names: Vec<String> = known.map(|(known, _)| format!("[{known}]")).collect();
                return Err(format!("there is no variable [{name}]: there are {}", names.join(", ")));
            };
            pieces.extend([Piece::Text(before.to_owned()), piece.clone()]);
            rest = after;
        }
        pieces.push(Piece::Text(rest.to_owned()));
        Ok(FileName(pieces))
    }

    /// The file's path below the folder. [`None`]: it would not be below it.
    pub(super) fn path(&self, key: &StreamKey, segment: Option<&Segment>) -> Option<PathBuf> {
        let mut name = String::new();
        for piece in &self.0 {
            match (piece, segment) {
                (Piece::Text(text), _) => name.push_str(text),
                (Piece::Vhost, _) => name.push_str(key.vhost().unwrap_or(DEFAULT_VHOST)),
                (Piece::App, _) => name.push_str(key.app()),
                (Piece::Stream, _) => name.push_str(key.stream()),
                (Piece::Sequence, Some(segment)) => name.push_str(&segment.sequence.to_string()),
                (Piece::Timestamp, Some(segment)) => {
                    let since = segment.starts_at.duration_since(UNIX_EPOCH).unwrap_or_default();
                    name.push_str(&since.as_millis().to_string());
                }
                (Piece::Duration, Some(segment)) => name.push_str(&segment.duration.as_millis().to_string()),
                (Piece::Date(from, to), Some(segment)) => {
                    let date = Iso8601(segment.starts_at).to_string();
                    name.push_str(date.get(*from..*to)?);
                }
                (Piece::Sequence | Piece::Timestamp | Piece::Duration | Piece::Date(..), None) => return None,
            }
        }
        let path = PathBuf::from(name);
        path.components().all(|part| matches!(part, Component::Normal(_))).then_some(path)
    }
}

/// How a file is called in a playlist, both below the same folder.
pub(super) fn relative_uri(playlist: &Path, file: &Path) -> String {
    let folder: Vec<_> = playlist.parent().into_iter().flat_map(Path::components).collect();
    let parts: Vec<_> = file.components().collect();
    // The last part is the file's own name, whatever the folders are called.
    let shared = folder.iter().zip(&parts[..parts.len().saturating_sub(1)]).take_while(|(a, b)| a == b).count();
    let up = std::iter::repeat_n("..".to_owned(), folder.len() - shared);
    let down = parts[shared..].iter().map(|part| percent_encode(&part.as_os_str().to_string_lossy()));
    up.chain(down).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;

    fn segment() -> Segment {
        Segment {
            sequence: 17,
            duration: Duration::from_millis(2_040),
            starts_at: UNIX_EPOCH + Duration::from_millis(1_790_000_000_123),
            is_discontinuous: false,
            is_independent: true,
            key: None,
            data: Bytes::new(),
        }
    }

    #[test]
    fn variables_are_filled_in() {
        let key = StreamKey::new("", "live/eu", "c[seq]m ü").unwrap();
        let vhosted = StreamKey::new("media.example", "live", "cam").unwrap();
        for (template, key, path) in [
            ("[app]/[stream]-[seq].ts", &key, "live/eu/c[seq]m ü-17.ts"),
            ("[vhost]/[app]/[stream]/[seq].ts", &key, "__defaultVhost__/live/eu/c[seq]m ü/17.ts"),
            ("[vhost]/[app]/[stream]-[seq].ts", &vhosted, "media.example/live/cam-17.ts"),
            (
                "[app]/[2006]-[01]-[02]/[stream]_[15].[04].[05].[999]_[timestamp]_[duration]_[seq].ts",
                &vhosted,
                "live/2026-09-21/cam_14.13.20.123_1790000000123_2040_17.ts",
            ),
        ] {
            let name = FileName::of_segments(template).unwrap();
            assert_eq!(name.path(key, Some(&segment())), Some(PathBuf::from(path)));
        }
        let playlist = FileName::of_playlists("[app]/[stream].m3u8").unwrap();
        assert_eq!(playlist.path(&vhosted, None), Some(PathBuf::from("live/cam.m3u8")));
    }

    #[test]
    fn names_that_lead_astray_are_refused() {
        for (template, said) in [
            ("[app]/[stream]-[seq].mp4", "end with .ts"),
            ("/[app]/[stream]-[seq].ts", "without a slash at its start"),
            ("../[app]/[stream]-[seq].ts", "without \"..\""),
            ("[app]/../[stream]-[seq].ts", "without \"..\""),
            ("[app]/[stream].ts", "must hold [seq]"),
            ("[stream]-[seq].ts", "must hold [app]"),
            ("[app]/[stream]-[seq]-[2007].ts", "no variable [2007]: there are [vhost], [app]"),
            ("[app]/[stream]-[seq]-[.ts", "not closed"),
        ] {
            let error = FileName::of_segments(template).unwrap_err();
            assert!(error.contains(said), "{template}: {error}");
        }
        assert!(FileName::of_playlists("[app]/[stream]-[seq].m3u8").unwrap_err().contains("no variable [seq]"));
        // A vhost may hold dots; a template that makes a part of nothing else of it must not climb.
        let climber = StreamKey::new("a", "live", "x").unwrap();
        let name = FileName(vec![Piece::Text("../".to_owned()), Piece::Stream]);
        assert_eq!(name.path(&climber, None), None);
    }

    #[test]
    fn files_are_called_from_where_the_playlist_lies() {
        for (playlist, file, uri) in [
            ("live/cam.m3u8", "live/cam-1.ts", "cam-1.ts"),
            ("cam.m3u8", "live/a b/cam#1.ts", "live/a%20b/cam%231.ts"),
            ("live/x/cam.m3u8", "live/y/cam-1.ts", "../y/cam-1.ts"),
            ("live/x/cam.m3u8", "live/x", "../x"),
        ] {
            assert_eq!(relative_uri(Path::new(playlist), Path::new(file)), uri);
        }
    }
}
