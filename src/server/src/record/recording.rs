//! One recording as the API sees it, while it runs and for a while after.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};

use freshet_bridge::record::{Iso8601, RecordFormat, RecordPlan};
use freshet_media::StreamKey;
use serde_json::json;
use tokio::sync::watch;
use tracing::{info, warn};

use super::Shared;
use crate::engine::ClientSnapshot;
use crate::hooks::Action;

/// Files of a recording that are listed, the newest; older ones are on the disk.
const MAX_LISTED_FILES: usize = 100;
/// Complaints about tracks and frames that are kept and logged.
const MAX_LEFT_OUT: usize = 8;

/// Where a recording stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// It reads the stream.
    Recording,
    /// Its publisher has gone and may come back.
    Waiting,
    /// It is over.
    Ended,
}

impl State {
    /// As the API and metrics write it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            State::Recording => "recording",
            State::Waiting => "waiting",
            State::Ended => "ended",
        }
    }
}

/// Who wanted a recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// `record.streams`.
    Pattern,
    /// A request.
    Api,
}

/// What a recording is asked to be.
#[derive(Debug, Clone)]
pub(crate) struct RecordRequest {
    /// The stream.
    pub(crate) key: StreamKey,
    /// The container.
    pub(crate) format: RecordFormat,
    /// When files change.
    pub(crate) plan: RecordPlan,
    /// Who wants it.
    pub(crate) origin: Origin,
}

/// One file.
#[derive(Debug, Clone)]
pub(crate) struct FileRecord {
    /// Relative to the folder.
    pub(crate) path: String,
    /// When its first frame was live.
    pub(crate) started_at: SystemTime,
    /// Bytes in it so far.
    pub(crate) bytes: u64,
    /// How much of the stream it holds.
    pub(crate) duration: Duration,
    /// It is being written.
    pub(crate) is_open: bool,
    /// It ended as planned.
    pub(crate) is_complete: bool,
}

impl FileRecord {
    pub(super) fn new(path: String, started_at: SystemTime) -> FileRecord {
        FileRecord { path, started_at, bytes: 0, duration: Duration::ZERO, is_open: true, is_complete: false }
    }
}

/// What kind of trouble the disk makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FailureKind {
    /// A file or folder cannot be made.
    Open,
    /// A file cannot be written.
    Write,
    /// The disk is full, or nearly.
    Space,
    /// Somebody removed the file.
    Removed,
}

impl FailureKind {
    /// All of them, for metrics.
    pub(crate) const ALL: [FailureKind; 4] =
        [FailureKind::Open, FailureKind::Write, FailureKind::Space, FailureKind::Removed];

    /// As metrics write it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            FailureKind::Open => "open",
            FailureKind::Write => "write",
            FailureKind::Space => "space",
            FailureKind::Removed => "removed",
        }
    }
}

/// Trouble with the disk.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    kind: FailureKind,
    message: String,
}

impl Failure {
    pub(super) fn new(kind: FailureKind, message: String) -> Failure {
        Failure { kind, message }
    }

    pub(super) fn io(kind: FailureKind, path: &str, error: &io::Error) -> Failure {
        let is_full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        Failure::new(if is_full { FailureKind::Space } else { kind }, format!("{path}: {error}"))
    }
}

/// A recording, for listings.
#[derive(Debug, Clone)]
pub(crate) struct RecordSnapshot {
    /// Its name.
    pub(crate) id: String,
    /// What it was asked to be.
    pub(crate) request: RecordRequest,
    /// Where it stands.
    pub(crate) state: State,
    /// When it began.
    pub(crate) started_at: SystemTime,
    /// Its files, the oldest first; only the last ones of very many.
    pub(crate) files: Vec<FileRecord>,
    /// How many there were in all.
    pub(crate) file_count: u64,
    /// Bytes and time in all files.
    pub(crate) bytes: u64,
    /// See `bytes`.
    pub(crate) duration: Duration,
    /// What is wrong at the moment.
    pub(crate) error: Option<String>,
    /// Frames that were lost because the disk was too slow.
    pub(crate) lost_frames: u64,
    /// Why tracks or frames are not in it.
    pub(crate) left_out: Vec<String>,
}

#[derive(Debug)]
struct Inner {
    state: State,
    files: VecDeque<FileRecord>,
    file_count: u64,
    /// Of the files that are closed.
    past_bytes: u64,
    past_duration: Duration,
    failure: Option<(Instant, Failure)>,
    /// Why there is nothing to record, apart from the disk.
    refusal: Option<String>,
    lost_frames: u64,
    left_out: Vec<String>,
}

/// A recording.
#[derive(Debug)]
pub(super) struct Recording {
    id: String,
    request: RecordRequest,
    started_at: SystemTime,
    shared: Arc<Shared>,
    inner: Mutex<Inner>,
    stop: watch::Sender<bool>,
}

impl Recording {
    pub(super) fn new(id: String, request: RecordRequest, shared: Arc<Shared>) -> Arc<Recording> {
        Arc::new(Recording {
            id,
            request,
            started_at: SystemTime::now(),
            shared,
            inner: Mutex::new(Inner {
                state: State::Recording,
                files: VecDeque::new(),
                file_count: 0,
                past_bytes: 0,
                past_duration: Duration::ZERO,
                failure: None,
                refusal: None,
                lost_frames: 0,
                left_out: Vec::new(),
            }),
            stop: watch::Sender::new(false),
        })
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn request(&self) -> &RecordRequest {
        &self.request
    }

    pub(super) fn format(&self) -> RecordFormat {
        self.request.format
    }

    pub(super) fn state(&self) -> State {
        self.lock().state
    }

    pub(super) fn set_state(&self, state: State) {
        self.lock().state = state;
    }

    /// Asks it to end.
    pub(super) fn stop(&self) {
        self.stop.send_replace(true);
    }

    pub(super) fn stopped(&self) -> watch::Receiver<bool> {
        self.stop.subscribe()
    }

    /// The number of the file that comes next.
    pub(super) fn next_number(&self) -> u32 {
        u32::try_from(self.lock().file_count + 1).unwrap_or(u32::MAX)
    }

    /// How long ago the disk failed, if it has not recovered.
    pub(super) fn failed_for(&self) -> Option<Duration> {
        self.lock().failure.as_ref().map(|(at, _)| at.elapsed())
    }

    pub(super) fn note_file(&self, file: FileRecord) {
        let mut inner = self.lock();
        info!(stream = %self.request.key, recording = self.id, file = file.path, "recording");
        if inner.files.len() >= MAX_LISTED_FILES {
            inner.files.pop_front();
        }
        inner.files.push_back(file);
        inner.file_count += 1;
    }

    pub(super) fn note_progress(&self, file: &FileRecord) {
        let mut inner = self.lock();
        let before = inner.files.back().map_or(0, |last| last.bytes);
        self.shared.totals.bytes.fetch_add(file.bytes.saturating_sub(before), Ordering::Relaxed);
        if let Some(last) = inner.files.back_mut() {
            last.clone_from(file);
        }
        if inner.failure.take().is_some() {
            info!(stream = %self.request.key, recording = self.id, "recording goes on");
        }
    }

    pub(super) fn note_end(&self, file: &FileRecord, publisher: Option<&ClientSnapshot>, folder: &Path) {
        {
            let mut inner = self.lock();
            inner.past_bytes += file.bytes;
            inner.past_duration += file.duration;
            if file.bytes == 0 {
                inner.files.pop_back();
            } else if let Some(last) = inner.files.back_mut() {
                last.clone_from(file);
            }
        }
        if file.bytes > 0 {
            self.shared.totals.files.fetch_add(1, Ordering::Relaxed);
            let (bytes, seconds) = (file.bytes, file.duration.as_secs_f64());
            info!(stream = %self.request.key, recording = self.id, file = file.path, bytes, seconds, "recorded");
            self.call_hooks(file, publisher, folder);
        }
    }

    fn call_hooks(&self, file: &FileRecord, publisher: Option<&ClientSnapshot>, folder: &Path) {
        let hooks = &self.shared.hooks;
        let cwd = std::env::current_dir().unwrap_or_default();
        let path = folder.join(&file.path);
        let (cwd, path) = (cwd.display().to_string(), path.display().to_string());
        hooks.notify(Action::OnDvr, &self.request.key, publisher, json!({ "cwd": cwd, "file": path }));
        let facts = json!({
            "cwd": cwd,
            "file": path,
            "size": file.bytes,
            "duration": file.duration.as_secs_f64(),
            "format": self.request.format.name(),
            "started_at": Iso8601(file.started_at).to_string(),
            "record_id": self.id,
            "complete": file.is_complete,
        });
        hooks.notify(Action::OnRecord, &self.request.key, publisher, facts);
    }

    /// Logged once until the disk works again, counted always.
    pub(super) fn note_failure(&self, failure: Failure) {
        self.shared.totals.failures[failure.kind as usize].fetch_add(1, Ordering::Relaxed);
        let mut inner = self.lock();
        let is_known = inner.failure.as_ref().is_some_and(|(_, known)| known.kind == failure.kind);
        if !is_known {
            warn!(stream = %self.request.key, recording = self.id, "cannot record: {}", failure.message);
        }
        inner.failure = Some((Instant::now(), failure));
    }

    /// Why the stream gives nothing to record, or that it does again.
    pub(super) fn set_refusal(&self, refusal: Option<String>) {
        let mut inner = self.lock();
        if let Some(text) = refusal.as_ref().filter(|_| inner.refusal != refusal) {
            warn!(stream = %self.request.key, recording = self.id, "nothing to record: {text}");
        }
        inner.refusal = refusal;
    }

    pub(super) fn note_left_out(&self, what: String) {
        let mut inner = self.lock();
        if inner.left_out.len() < MAX_LEFT_OUT && !inner.left_out.contains(&what) {
            warn!(stream = %self.request.key, recording = self.id, "left out of the recording: {what}");
            inner.left_out.push(what);
        }
    }

    pub(super) fn note_lost(&self, frames: u64) {
        let mut inner = self.lock();
        if inner.lost_frames == 0 {
            warn!(stream = %self.request.key, recording = self.id, frames, "the disk is too slow: frames are left out");
        }
        inner.lost_frames += frames;
    }

    pub(super) fn snapshot(&self) -> RecordSnapshot {
        let inner = self.lock();
        let open = inner.files.back().filter(|file| file.is_open);
        let failure = inner.failure.as_ref().map(|(_, failure)| failure.message.clone());
        RecordSnapshot {
            id: self.id.clone(),
            request: self.request.clone(),
            state: inner.state,
            started_at: self.started_at,
            files: inner.files.iter().cloned().collect(),
            file_count: inner.file_count,
            bytes: inner.past_bytes + open.map_or(0, |file| file.bytes),
            duration: inner.past_duration + open.map_or(Duration::ZERO, |file| file.duration),
            error: failure.or_else(|| inner.refusal.clone()),
            lost_frames: inner.lost_frames,
            left_out: inner.left_out.clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic while the lock is held leaves at worst a number too small.
        self.inner.lock().unwrap_or_else(|e| e.into_inner())
    }
}
