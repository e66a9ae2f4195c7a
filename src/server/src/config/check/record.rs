//! Checks of `[record]`.

use std::path::PathBuf;

use freshet_bridge::record::{PathTemplate, RecordFormat, RecordPlan};

use super::{Findings, MAX_WAIT_SECONDS};
use crate::config::raw::RawRecord;
use crate::record::RecordSettings;
use crate::stream_pattern::StreamPattern;

/// [`None`] when recording is off.
pub(super) fn check(f: &mut Findings<'_>, raw: &RawRecord) -> Option<RecordSettings> {
    let formats = RecordFormat::ALL.map(|format| (format.name(), format));
    let segment = f.seconds("record", "segment_seconds", raw.segment_seconds, 1..=MAX_WAIT_SECONDS);
    let plans = [("session", RecordPlan::Session), ("segment", RecordPlan::Segment(segment))];
    if raw.folder.trim().is_empty() {
        f.add("record", "folder", "record.folder is empty: write a folder such as \"recordings\"".to_owned());
    }
    let mut streams = Vec::with_capacity(raw.streams.len());
    for text in &raw.streams {
        match StreamPattern::parse(text) {
            Some(pattern) => streams.push(pattern),
            None => f.add(
                "record",
                "streams",
                format!(
                    "bad value {text:?} in record.streams: write app/stream, with * for any letters, as \"live/*\""
                ),
            ),
        }
    }
    let path = PathTemplate::parse(&raw.path).unwrap_or_else(|error| {
        f.add("record", "path", format!("bad value {:?} for record.path: {error}", raw.path));
        PathTemplate::default()
    });
    let settings = RecordSettings {
        folder: PathBuf::from(raw.folder.trim()),
        streams,
        format: f.choice("record", "format", &raw.format, &formats),
        path,
        plan: f.choice("record", "plan", &raw.plan, &plans),
        min_free_bytes: f.number("record", "min_free_mb", raw.min_free_mb, 0..=1_000_000_000).unsigned_abs()
            * 1_000_000,
        republish_within: f.seconds("record", "republish_seconds", raw.republish_seconds, 0..=MAX_WAIT_SECONDS),
    };
    raw.enabled.then_some(settings)
}
