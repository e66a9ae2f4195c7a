//! The files of one stream: written beside their names and renamed, so that nobody reads half of one, and removed when
//! players no longer ask for them.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use freshet_bridge::hls::{KEY_ENDING, Playlist, SEGMENT_ENDING, Segment};
use freshet_media::StreamKey;

use super::DiskSettings;
use super::file_names::relative_uri;
use crate::url::query::{percent_decode, percent_encode};

/// Added to a file's name until it is whole.
const UNFINISHED: &str = ".tmp";

/// Longest playlist of an earlier run that is looked through for files to remove: thousands of segments.
const MAX_OLD_PLAYLIST_BYTES: u64 = 1024 * 1024;

/// What could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}: {source}", path.display())]
pub(super) struct WriteError {
    path: PathBuf,
    source: io::Error,
}

/// One stream's files. Paths are below the folder.
pub(super) struct StreamFiles {
    key: StreamKey,
    playlist: PathBuf,
    /// By the segments' numbers.
    segments: BTreeMap<u64, PathBuf>,
    /// By the keys' names.
    keys: BTreeMap<u64, PathBuf>,
    /// The playlist as it lies there.
    text: String,
    has_begun: bool,
}

impl StreamFiles {
    /// Writes nothing yet. [`None`]: the stream's name is not fit for a file.
    pub(super) fn new(settings: &DiskSettings, key: &StreamKey) -> Option<StreamFiles> {
        let playlist = settings.playlist.path(key, None)?;
        let (segments, keys) = (BTreeMap::new(), BTreeMap::new());
        Some(StreamFiles { key: key.clone(), playlist, segments, keys, text: String::new(), has_begun: false })
    }

    /// Where the playlist is.
    pub(super) fn playlist_path(&self) -> &Path {
        &self.playlist
    }

    /// Makes the folder hold what the playlist lists. What has failed is tried again with the next one.
    ///
    /// # Errors
    /// The first file that could not be written. The playlist of before stays as it was.
    pub(super) fn sync(&mut self, settings: &DiskSettings, playlist: &Playlist) -> Result<(), WriteError> {
        let root = settings.folder.as_path();
        if settings.cleanup {
            if !self.has_begun {
                remove_leftovers(root, &self.playlist);
            }
            // First of all: it may make room on a full disk.
            self.remove_former(root, playlist);
        }
        self.has_begun = true;
        for segment in playlist.segments() {
            if !self.segments.contains_key(&segment.sequence) {
                self.write_segment(settings, playlist, segment)?;
            }
        }
        if playlist.is_empty() {
            return Ok(());
        }
        let segment_uri = |segment: &Segment| {
            self.segments.get(&segment.sequence).map(|path| relative_uri(&self.playlist, path)).unwrap_or_default()
        };
        let key_uri = |name| match &settings.key_url {
            Some(start) => self.key_address(start, name),
            None => self.keys.get(&name).map(|path| relative_uri(&self.playlist, path)).unwrap_or_default(),
        };
        let text = playlist.render_with(segment_uri, key_uri);
        if text != self.text {
            write(root, &self.playlist, text.as_bytes())?;
            self.text = text;
        }
        Ok(())
    }

    /// Removes everything, the playlist first.
    pub(super) fn remove_all(&mut self, root: &Path) {
        if self.has_begun {
            remove(root, &self.playlist);
        }
        for path in self.segments.values().chain(self.keys.values()) {
            remove(root, path);
        }
        self.segments.clear();
        self.keys.clear();
        self.text.clear();
        remove_empty_folders(root, &self.playlist);
    }

    /// Where the server gives out a key.
    fn key_address(&self, start: &str, name: u64) -> String {
        let path = percent_encode(&format!("{}/{}", self.key.app(), self.key.stream()));
        let vhost = self.key.vhost().map(|vhost| format!("?vhost={}", percent_encode(vhost))).unwrap_or_default();
        format!("{start}{path}-{name}{KEY_ENDING}{vhost}")
    }

    fn write_segment(
        &mut self,
        settings: &DiskSettings,
        playlist: &Playlist,
        segment: &Segment,
    ) -> Result<(), WriteError> {
        let root = settings.folder.as_path();
        let unfit = || WriteError { path: self.playlist.clone(), source: io::ErrorKind::InvalidInput.into() };
        let path = settings.segment.path(&self.key, Some(segment)).ok_or_else(unfit)?;
        if let (Some(name), None) = (segment.key, &settings.key_url)
            && !self.keys.contains_key(&name)
            && let Some(key) = playlist.key(name)
        {
            let stem = path.to_string_lossy();
            let stem = stem.strip_suffix(SEGMENT_ENDING).unwrap_or(&stem);
            let key_path = PathBuf::from(format!("{stem}{KEY_ENDING}"));
            write(root, &key_path, &key)?;
            self.keys.insert(name, key_path);
        }
        write(root, &path, &segment.data)?;
        self.segments.insert(segment.sequence, path);
        Ok(())
    }

    /// Players that have read the playlist a moment ago still ask for what has just left it.
    fn remove_former(&mut self, root: &Path, playlist: &Playlist) {
        let kept = || playlist.former().chain(playlist.segments());
        let Some(oldest) = kept().map(|segment| segment.sequence).min() else { return };
        while let Some(entry) = self.segments.first_entry().filter(|entry| *entry.key() < oldest) {
            remove(root, &entry.remove());
        }
        let oldest_key = kept().filter_map(|segment| segment.key).min().unwrap_or(u64::MAX);
        while let Some(entry) = self.keys.first_entry().filter(|entry| *entry.key() < oldest_key) {
            remove(root, &entry.remove());
        }
    }
}

fn write(root: &Path, path: &Path, data: &[u8]) -> Result<(), WriteError> {
    let whole = root.join(path);
    let mut unfinished = whole.clone().into_os_string();
    unfinished.push(UNFINISHED);
    let attempt = || {
        if let Some(folder) = whole.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(&unfinished, data)?;
        fs::rename(&unfinished, &whole)
    };
    attempt().map_err(|source| {
        // What there is of it takes room. It may not be there at all.
        let _ = fs::remove_file(&unfinished);
        WriteError { path: whole.clone(), source }
    })
}

/// A file that cannot be removed, or is not there, is left alone.
fn remove(root: &Path, path: &Path) {
    if let Err(error) = fs::remove_file(root.join(path))
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::debug!(path = %path.display(), %error, "a file of HLS stays");
    }
}

/// Removes the segments that a playlist of an earlier run lists: a server that was killed has left them.
fn remove_leftovers(root: &Path, playlist: &Path) {
    let path = root.join(playlist);
    let is_readable = fs::metadata(&path).is_ok_and(|file| file.is_file() && file.len() <= MAX_OLD_PLAYLIST_BYTES);
    let Some(text) = is_readable.then(|| fs::read_to_string(&path).ok()).flatten() else { return };
    let folder = playlist.parent().unwrap_or(Path::new(""));
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let file = folder.join(percent_decode(line));
        let is_below = file.components().all(|part| matches!(part, Component::Normal(_)));
        if is_below && file.to_string_lossy().ends_with(SEGMENT_ENDING) {
            remove(root, &file);
        }
    }
}

/// The folders that were made for the stream, as far as nothing else is in them.
fn remove_empty_folders(root: &Path, playlist: &Path) {
    for folder in playlist.ancestors().skip(1).take_while(|folder| !folder.as_os_str().is_empty()) {
        if fs::remove_dir(root.join(folder)).is_err() {
            return;
        }
    }
}

#[cfg(test)]
#[path = "files_tests.rs"]
mod tests;
