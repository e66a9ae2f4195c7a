//! Where files go: a template with SRS's variables, and what keeps a name inside its folder.
//!
//! A stream's name comes from whoever publishes it. Every part of a path is therefore made harmless after the variables
//! have been put in: letters, digits, `.`, `_` and `-` stay, everything else becomes `_`, and no part is `.`, `..`,
//! hidden or longer than a file system takes. What `%2f` or `..` would become elsewhere does not matter then.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use freshet_media::StreamKey;
use thiserror::Error;

use crate::hls::civil;

/// Longest part of a path. File systems take 255 bytes; the ending and a number against collisions need room.
const MAX_PART_BYTES: usize = 200;
/// Longest template: with all variables at their longest the path stays below the 4096 bytes that systems take.
const MAX_TEMPLATE_BYTES: usize = 512;
/// Most parts of a template.
const MAX_PARTS: usize = 16;
/// SRS's name of the default vhost.
const DEFAULT_VHOST: &str = "__defaultVhost__";

const SECONDS_PER_DAY: u64 = 86_400;

/// What stands for something else in a template. The dates are those of Go's reference time, as in SRS, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Variable {
    Vhost,
    App,
    Stream,
    Session,
    Number,
    Year,
    Month,
    Day,
    Hour,
    Minute,
    Second,
    Millisecond,
    Timestamp,
}

const VARIABLES: [(&str, Variable); 13] = [
    ("vhost", Variable::Vhost),
    ("app", Variable::App),
    ("stream", Variable::Stream),
    ("session", Variable::Session),
    ("number", Variable::Number),
    ("2006", Variable::Year),
    ("01", Variable::Month),
    ("02", Variable::Day),
    ("15", Variable::Hour),
    ("04", Variable::Minute),
    ("05", Variable::Second),
    ("999", Variable::Millisecond),
    ("timestamp", Variable::Timestamp),
];

/// Why a text is no template.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PathError {
    /// It leaves the folder, or would.
    #[error("a path is relative and without \"..\" and empty parts")]
    Outside,
    /// No such variable.
    #[error(
        "[{0}] is not known; there are [vhost] [app] [stream] [session] [number] [2006] [01] [02] [15] [04] [05] [999] [timestamp]"
    )]
    Variable(String),
    /// A bracket without its other one.
    #[error("a bracket is not closed")]
    Bracket,
    /// The format tells the ending.
    #[error("it ends with {0}: leave the ending away, the format decides it")]
    Ending(String),
    /// Empty or too long.
    #[error("a path has 1 to {MAX_TEMPLATE_BYTES} bytes and at most {MAX_PARTS} parts")]
    Length,
    /// What no file name should hold.
    #[error("a path holds no control characters and backslashes")]
    Character,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Variable(Variable),
}

/// A path relative to the folder of recordings, without the ending that tells the format.
/// The default one has no part: all files have one name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PathTemplate {
    pieces: Vec<Piece>,
}

/// What the variables stand for.
#[derive(Debug, Clone, Copy)]
pub struct FileFacts<'a> {
    /// The stream.
    pub key: &'a StreamKey,
    /// When the file's first frame was live.
    pub at: SystemTime,
    /// Names the recording that the file belongs to.
    pub session: &'a str,
    /// Counts the recording's files, from 1.
    pub number: u32,
}

impl PathTemplate {
    /// Reads a template.
    ///
    /// # Errors
    /// It is none; the error says why.
    pub fn parse(text: &str) -> Result<PathTemplate, PathError> {
        if text.is_empty() || text.len() > MAX_TEMPLATE_BYTES || text.split('/').count() > MAX_PARTS {
            return Err(PathError::Length);
        }
        if text.chars().any(|c| c.is_control() || c == '\\') {
            return Err(PathError::Character);
        }
        if text.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
            return Err(PathError::Outside);
        }
        let ending = [".mp4", ".flv", ".ts"].into_iter().find(|ending| text.ends_with(ending));
        if let Some(ending) = ending {
            return Err(PathError::Ending(ending.to_owned()));
        }
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('[') {
            let (name, after) = after.split_once(']').ok_or(PathError::Bracket)?;
            let found = VARIABLES.iter().find(|(known, _)| *known == name);
            let (_, variable) = found.ok_or_else(|| PathError::Variable(name.to_owned()))?;
            pieces.extend([Piece::Text(before.to_owned()), Piece::Variable(*variable)]);
            rest = after;
        }
        if rest.contains(']') || pieces.iter().any(|piece| matches!(piece, Piece::Text(text) if text.contains(']'))) {
            return Err(PathError::Bracket);
        }
        pieces.push(Piece::Text(rest.to_owned()));
        Ok(PathTemplate { pieces })
    }

    /// The path of a file: relative, with `/` between its parts, none of which leads out of the folder.
    pub fn render(&self, facts: &FileFacts<'_>) -> String {
        let mut path = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => path.push_str(text),
                Piece::Variable(variable) => variable.write(facts, &mut path),
            }
        }
        let parts: Vec<String> = path.split('/').map(harmless).collect();
        parts.join("/")
    }
}

impl Variable {
    fn write(self, facts: &FileFacts<'_>, out: &mut String) {
        let since = facts.at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let (year, month, day) = civil(since.as_secs() / SECONDS_PER_DAY);
        let second = since.as_secs() % SECONDS_PER_DAY;
        // Writing to a String does not fail.
        let _ = match self {
            Variable::Vhost => write!(out, "{}", one_part(facts.key.vhost().unwrap_or(DEFAULT_VHOST))),
            // An app may be several folders deep.
            Variable::App => write!(out, "{}", facts.key.app()),
            Variable::Stream => write!(out, "{}", one_part(facts.key.stream())),
            Variable::Session => write!(out, "{}", one_part(facts.session)),
            Variable::Number => write!(out, "{}", facts.number),
            Variable::Year => write!(out, "{year:04}"),
            Variable::Month => write!(out, "{month:02}"),
            Variable::Day => write!(out, "{day:02}"),
            Variable::Hour => write!(out, "{:02}", second / 3600),
            Variable::Minute => write!(out, "{:02}", second / 60 % 60),
            Variable::Second => write!(out, "{:02}", second % 60),
            Variable::Millisecond => write!(out, "{:03}", since.subsec_millis()),
            Variable::Timestamp => write!(out, "{}", since.as_millis()),
        };
    }
}

fn one_part(text: &str) -> String {
    text.replace('/', "_")
}

/// One part of a path that no file system, shell or web server takes for something else.
fn harmless(part: &str) -> String {
    let mut name: String =
        part.chars().map(|c| if c.is_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '_' }).collect();
    let mut end = name.len().min(MAX_PART_BYTES);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name.truncate(end);
    // Hidden files, "." and "..", and what a shell's command takes for an option.
    if name.is_empty() || name.starts_with(['.', '-']) {
        name.insert(0, '_');
    }
    name
}

#[cfg(test)]
mod tests {
    use std::path::{Component, Path};
    use std::time::Duration;

    use super::*;

    fn render(template: &str, key: &StreamKey) -> String {
        let at = UNIX_EPOCH + Duration::from_millis(1_790_000_000_123);
        PathTemplate::parse(template).unwrap().render(&FileFacts { key, at, session: "k3Xw", number: 7 })
    }

    #[test]
    fn variables_are_those_of_srs() {
        let key = StreamKey::new("v.example", "a/b", "cam").unwrap();
        for (template, path) in [
            ("[app]/[stream]/[2006]-[01]-[02]_[15]-[04]-[05].[999]", "a/b/cam/2026-09-21_14-13-20.123"),
            ("[vhost]/[stream].[timestamp]", "v.example/cam.1790000000123"),
            ("all/[session]-[number]", "all/k3Xw-7"),
            ("fixed", "fixed"),
        ] {
            assert_eq!(render(template, &key), path);
        }
        assert_eq!(render("[vhost]", &StreamKey::new("", "live", "cam").unwrap()), "__defaultVhost__");
    }

    #[test]
    fn mistakes_in_templates_are_named() {
        for (template, error) in [
            ("", PathError::Length),
            ("/var/[stream]", PathError::Outside),
            ("../[stream]", PathError::Outside),
            ("a//b", PathError::Outside),
            ("a/./b", PathError::Outside),
            ("[strem]", PathError::Variable("strem".into())),
            ("[stream", PathError::Bracket),
            ("stream]", PathError::Bracket),
            ("a]b[stream]", PathError::Bracket),
            ("[stream].mp4", PathError::Ending(".mp4".into())),
            ("a\0b", PathError::Character),
            ("a\\b", PathError::Character),
        ] {
            assert_eq!(PathTemplate::parse(template), Err(error), "{template:?}");
        }
        assert_eq!(PathTemplate::parse(&"a/".repeat(300)), Err(PathError::Length));
    }

    #[test]
    fn no_name_leaves_the_folder() {
        let long = "x".repeat(250);
        let names = [
            "..%2f..%2fetc%2fpasswd",
            "%2e%2e",
            "...",
            "....",
            ".hidden",
            "-rf",
            "a b",
            "a:b",
            "ä日本",
            "~",
            "$(id)",
            "a;b|c&d",
            "*?",
            "[app]",
            "con",
            "a\u{202e}b",
            "'\"`",
            &long,
        ];
        for name in names {
            for (vhost, app, stream) in
                [("", "live", name), ("", name, "cam"), (name, "live", "cam"), ("", &*format!("a/{name}/b"), "cam")]
            {
                let Ok(key) = StreamKey::new(vhost, app, stream) else { continue };
                for template in [
                    "[app]/[stream]",
                    "[vhost]/[app]/[stream]",
                    "[stream][stream]",
                    ".[stream]",
                    "..[stream]/[app]..",
                    "[app]",
                ] {
                    let path = render(template, &key);
                    let parts: Vec<_> = Path::new(&path).components().collect();
                    assert!(parts.iter().all(|part| matches!(part, Component::Normal(_))), "{path}");
                    assert!(path.split('/').all(|part| (1..=MAX_PART_BYTES + 1).contains(&part.len())), "{path}");
                    assert!(path.chars().all(|c| c.is_alphanumeric() || "._-/".contains(c)), "{path}");
                    assert!(!path.split('/').any(|part| part.starts_with(['.', '-'])), "{path}");
                }
            }
        }
        assert_eq!(
            render("[stream]", &StreamKey::new("", "live", "..%2fx").unwrap()),
            "_..__2fx".replace("__2f", "_2f")
        );
    }
}
