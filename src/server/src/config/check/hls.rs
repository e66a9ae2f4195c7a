//! Checks of `[hls]`.

use std::path::PathBuf;
use std::time::Duration;

use freshet_bridge::hls::HlsOptions;

use super::{Findings, MAX_WAIT_SECONDS};
use crate::config::raw::RawHls;
use crate::hls::{DiskSettings, FileName, HlsSettings};

/// [`None`] when HLS is off.
pub(super) fn check(f: &mut Findings<'_>, raw: &RawHls) -> Option<HlsSettings> {
    let fragment = f.fraction("hls", "fragment_seconds", raw.fragment_seconds, 0.5..=60.0);
    let options = HlsOptions {
        fragment: Duration::from_secs_f64(fragment),
        td_ratio: f.fraction("hls", "td_ratio", raw.td_ratio, 0.5..=10.0),
        aof_ratio: f.fraction("hls", "aof_ratio", raw.aof_ratio, 0.5..=10.0),
        wait_keyframe: raw.wait_keyframe,
        window: f.seconds("hls", "window_seconds", raw.window_seconds, 3..=3_600),
    };
    let dispose = f.seconds("hls", "dispose_seconds", raw.dispose_seconds, 1..=MAX_WAIT_SECONDS);
    let segments_per_key = f.number("hls", "segments_per_key", raw.segments_per_key, 1..=1_000);
    let disk = check_disk(f, raw);
    let part =
        if raw.part_seconds == 0.0 { 0.0 } else { f.fraction("hls", "part_seconds", raw.part_seconds, 0.05..=2.0) };
    raw.enabled.then_some(HlsSettings {
        options,
        always: raw.always,
        dispose,
        segments_per_key: raw.encrypt.then_some(segments_per_key as u32),
        disk,
        // Players know no encrypted parts.
        part: (part > 0.0 && !raw.encrypt).then(|| Duration::from_secs_f64(part)),
    })
}

fn check_disk(f: &mut Findings<'_>, raw: &RawHls) -> Option<DiskSettings> {
    let mut name = |key, typed: &str, read: Result<FileName, String>| {
        read.map_err(|why| f.add("hls", key, format!("bad value {typed:?} for hls.{key}: {why}"))).ok()
    };
    let playlist = name("playlist_file", &raw.playlist_file, FileName::of_playlists(&raw.playlist_file));
    let segment = name("segment_file", &raw.segment_file, FileName::of_segments(&raw.segment_file));
    let key_url = raw.key_url.trim();
    let is_start = key_url.ends_with('/') && key_url.bytes().all(|b| b.is_ascii_graphic() && b != b'"');
    if !key_url.is_empty() && !is_start {
        let said = "write the start of an address, with a slash at its end: \"https://media.example.org/\"";
        f.add("hls", "key_url", format!("bad value {key_url:?} for hls.key_url: {said}"));
    }
    if raw.folder.contains('\0') {
        f.add("hls", "folder", "hls.folder holds a zero byte".to_owned());
    }
    (!raw.folder.is_empty()).then_some(DiskSettings {
        folder: PathBuf::from(&raw.folder),
        playlist: playlist?,
        segment: segment?,
        cleanup: raw.cleanup,
        key_url: (!key_url.is_empty()).then(|| key_url.to_owned()),
    })
}
