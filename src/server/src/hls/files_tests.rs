//! Files of one stream in a folder of the system's temporary one.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use freshet_bridge::hls::{Encryption, HlsOptions, Segmenter};
use freshet_media::{Codec, Frame, MediaTime, TrackConfig};

use super::*;
use crate::hls::FileName;

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("freshet-hls-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn settings(&self) -> DiskSettings {
        DiskSettings {
            folder: self.0.clone(),
            playlist: FileName::of_playlists("[app]/[stream].m3u8").unwrap(),
            segment: FileName::of_segments("[app]/[stream]-[seq].ts").unwrap(),
            cleanup: true,
            key_url: None,
        }
    }

    /// All files below the folder, sorted.
    fn files(&self) -> Vec<String> {
        fn walk(folder: &Path, root: &Path, found: &mut Vec<String>) {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => walk(&path, root, found),
                    false => found.push(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned()),
                }
            }
        }
        let mut found = Vec::new();
        walk(&self.0, &self.0, &mut found);
        found.sort();
        found
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A stream of sound, in segments of about a second.
struct Source {
    segmenter: Segmenter,
    config: Arc<TrackConfig>,
    at_ms: i64,
}

impl Source {
    fn new(first: u64, encryption: Option<Encryption>) -> Source {
        let options = HlsOptions {
            fragment: Duration::from_millis(500),
            window: Duration::from_secs(3),
            ..HlsOptions::default()
        };
        let segmenter = Segmenter::new(options, first);
        let segmenter = encryption.into_iter().fold(segmenter, Segmenter::with_encryption);
        let config = TrackConfig { codec: Codec::Aac, record: Bytes::from_static(&[0x11, 0x90]) };
        Source { segmenter, config: Arc::new(config), at_ms: 0 }
    }

    /// Goes on until so many segments more are done.
    fn run(&mut self, segments: u64) -> &Playlist {
        let newest =
            |segmenter: &Segmenter| segmenter.playlist().segments().last().map_or(0, |segment| segment.sequence + 1);
        let first = self.segmenter.playlist().segments().next().map_or(100, |_| newest(&self.segmenter));
        while newest(&self.segmenter) < first + segments {
            let at = MediaTime::from_millis(self.at_ms);
            let data = Bytes::from_static(&[7; 50]);
            let frame = Frame { config: Arc::clone(&self.config), dts: at, pts: at, is_keyframe: true, data };
            self.segmenter.push(frame, SystemTime::UNIX_EPOCH).unwrap();
            self.at_ms += 20;
        }
        self.segmenter.playlist()
    }
}

fn key(name: &str) -> StreamKey {
    StreamKey::new("", "live", name).unwrap()
}

/// The playlist on disk, and whether all that it lists is there.
fn listed(folder: &Folder, playlist: &str) -> Vec<String> {
    let path = folder.0.join(playlist);
    let text = fs::read_to_string(&path).unwrap();
    let key_uri =
        |line: &str| Some(line.strip_prefix("#EXT-X-KEY:METHOD=AES-128,URI=\"")?.strip_suffix('"')?.to_owned());
    let files =
        text.lines().filter_map(|line| if line.starts_with('#') { key_uri(line) } else { Some(line.to_owned()) });
    let files: Vec<String> = files.collect();
    for file in &files {
        assert!(path.parent().unwrap().join(percent_decode(file)).is_file(), "{file} of\n{text}");
    }
    files
}

#[test]
fn what_the_playlist_lists_is_there_and_the_rest_goes() {
    let folder = Folder::new("window");
    let settings = folder.settings();
    let mut files = StreamFiles::new(&settings, &key("c m")).unwrap();
    let mut source = Source::new(100, None);
    files.sync(&settings, &Playlist::clone(source.segmenter.playlist())).unwrap();
    assert!(folder.files().is_empty());
    for round in 1..20 {
        files.sync(&settings, source.run(1)).unwrap();
        let listed = listed(&folder, "live/c m.m3u8");
        assert!(!listed.is_empty() && listed[0].starts_with("c%20m-"), "{listed:?}");
        // Listed, just left, and the playlist.
        assert!(folder.files().len() <= listed.len() + 5 + 1, "round {round}: {:?}", folder.files());
    }
    let last = source.segmenter.playlist().segments().last().unwrap();
    let written = fs::read(folder.0.join(format!("live/c m-{}.ts", last.sequence))).unwrap();
    assert_eq!(written, last.data);
    files.remove_all(&folder.0);
    assert!(folder.files().is_empty() && !folder.0.join("live").exists());
}

#[test]
fn keys_lie_beside_segments_or_with_the_server() {
    let folder = Folder::new("keys");
    let mut settings = folder.settings();
    let encryption = || Some(Encryption::new(&[5; 32], 2));
    let mut files = StreamFiles::new(&settings, &key("cam")).unwrap();
    let mut source = Source::new(100, encryption());
    for _ in 0..12 {
        files.sync(&settings, source.run(1)).unwrap();
        listed(&folder, "live/cam.m3u8");
    }
    let keys = || folder.files().into_iter().filter(|file| file.ends_with(".key")).count();
    assert!((2..=6).contains(&keys()), "{:?}", folder.files());
    files.remove_all(&folder.0);
    assert!(folder.files().is_empty());

    settings.key_url = Some("https://keys.example/".to_owned());
    let vhosted = StreamKey::new("media.example", "live", "c m").unwrap();
    let mut files = StreamFiles::new(&settings, &vhosted).unwrap();
    files.sync(&settings, Source::new(100, encryption()).run(1)).unwrap();
    let text = fs::read_to_string(folder.0.join("live/c m.m3u8")).unwrap();
    assert!(text.contains("URI=\"https://keys.example/live/c%20m-100.key?vhost=media.example\""), "{text}");
    assert_eq!(keys(), 0);
}

#[test]
fn files_of_a_server_that_was_killed_are_removed_and_nothing_else() {
    let folder = Folder::new("leftovers");
    let settings = folder.settings();
    let mut killed = StreamFiles::new(&settings, &key("cam")).unwrap();
    killed.sync(&settings, Source::new(100, None).run(2)).unwrap();
    let outside = folder.0.with_extension("ts");
    fs::write(&outside, "not ours").unwrap();
    fs::write(folder.0.join("live/notes.txt"), "not ours").unwrap();
    let outside_name = outside.file_name().unwrap().to_str().unwrap();
    let mut text = fs::read_to_string(folder.0.join("live/cam.m3u8")).unwrap();
    text.push_str(&format!("notes.txt\n../../{outside_name}\n%2e%2e/%2e%2e/{outside_name}\n{}\n", outside.display()));
    fs::write(folder.0.join("live/cam.m3u8"), text).unwrap();
    let mut files = StreamFiles::new(&settings, &key("cam")).unwrap();
    files.sync(&settings, Source::new(500, None).run(1)).unwrap();
    assert_eq!(folder.files(), ["live/cam-500.ts", "live/cam.m3u8", "live/notes.txt"]);
    assert!(outside.exists());
    fs::remove_file(&outside).unwrap();
}

#[test]
fn a_disk_that_fails_is_told_of_and_tried_again() {
    let folder = Folder::new("failing");
    let settings = folder.settings();
    let mut files = StreamFiles::new(&settings, &key("cam")).unwrap();
    let mut source = Source::new(100, None);
    // A file where the folder should be: it stops root too.
    fs::write(folder.0.join("live"), "in the way").unwrap();
    let error = files.sync(&settings, source.run(1)).unwrap_err().to_string();
    assert!(error.contains("cannot write") && error.contains("live"), "{error}");
    fs::remove_file(folder.0.join("live")).unwrap();
    files.sync(&settings, source.run(1)).unwrap();
    assert_eq!(listed(&folder, "live/cam.m3u8").len(), 2);
}
