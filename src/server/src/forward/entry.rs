//! One forward as it is listed: what it carries where, how it goes, and how it is stopped.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use freshet_media::StreamKey;
use tokio::sync::watch;
use tokio::time::Instant;

use super::target::Target;

/// Why a forward exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Origin {
    /// Somebody asked for it by API. It stays until it is deleted.
    Api,
    /// A rule of the configuration: which one, and which of its addresses. It ends with its stream.
    Rule(usize, usize),
}

/// How a forward goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Nobody publishes the stream.
    Waiting,
    /// The other server is being asked.
    Connecting,
    /// The other server takes the stream.
    Live,
    /// It did not, or no longer does; it is asked again at that time.
    Retrying(Instant),
}

impl State {
    /// As listings name it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            State::Waiting => "waiting",
            State::Connecting => "connecting",
            State::Live => "live",
            State::Retrying(_) => "retrying",
        }
    }
}

/// One stream to one address.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) id: String,
    pub(super) key: StreamKey,
    pub(super) target: Target,
    pub(super) verify_certificate: bool,
    pub(super) origin: Origin,
    status: Mutex<Status>,
    bytes: AtomicU64,
    skipped_frames: AtomicU64,
    stop: watch::Sender<bool>,
}

#[derive(Debug)]
struct Status {
    state: State,
    since: SystemTime,
    attempts: u64,
    last_error: Option<String>,
    note: Option<String>,
}

/// A forward, for listings.
#[derive(Debug, Clone)]
pub(crate) struct ForwardSnapshot {
    /// Names it in the API.
    pub(crate) id: String,
    /// The stream.
    pub(crate) key: StreamKey,
    /// The address, its secrets taken out.
    pub(crate) url: String,
    /// Why it exists.
    pub(crate) origin: Origin,
    /// How it goes.
    pub(crate) state: State,
    /// Since when it goes like that.
    pub(crate) since: SystemTime,
    /// Connections that were tried.
    pub(crate) attempts: u64,
    /// Why the last one failed or ended.
    pub(crate) last_error: Option<String>,
    /// What the operator should know although it goes well.
    pub(crate) note: Option<String>,
    /// Bytes that the other server has taken, all connections together.
    pub(crate) bytes: u64,
    /// Frames left out because the other server was too slow.
    pub(crate) skipped_frames: u64,
}

impl Entry {
    pub(super) fn new(id: String, key: StreamKey, target: Target, verify_certificate: bool, origin: Origin) -> Entry {
        let status =
            Status { state: State::Waiting, since: SystemTime::now(), attempts: 0, last_error: None, note: None };
        Entry {
            id,
            key,
            target,
            verify_certificate,
            origin,
            status: Mutex::new(status),
            bytes: AtomicU64::new(0),
            skipped_frames: AtomicU64::new(0),
            stop: watch::Sender::new(false),
        }
    }

    pub(super) fn set_state(&self, state: State) {
        let mut status = self.lock();
        if status.state.as_str() != state.as_str() {
            status.since = SystemTime::now();
        }
        if state == State::Connecting {
            status.attempts += 1;
            status.note = None;
        }
        status.state = state;
    }

    /// Notes why it did not go. True: it is another reason than the last time.
    pub(super) fn set_error(&self, error: String) -> bool {
        let mut status = self.lock();
        let is_new = status.last_error.as_ref() != Some(&error);
        status.last_error = Some(error);
        is_new
    }

    pub(super) fn set_note(&self, note: String) {
        self.lock().note = Some(note);
    }

    pub(super) fn add_bytes(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn add_skipped(&self, frames: u64) {
        self.skipped_frames.fetch_add(frames, Ordering::Relaxed);
    }

    /// Ends it, whatever it does.
    pub(super) fn stop(&self) {
        self.stop.send_replace(true);
    }

    pub(super) fn stopped(&self) -> watch::Receiver<bool> {
        self.stop.subscribe()
    }

    pub(super) fn snapshot(&self) -> ForwardSnapshot {
        let status = self.lock();
        ForwardSnapshot {
            id: self.id.clone(),
            key: self.key.clone(),
            url: self.target.shown.clone(),
            origin: self.origin,
            state: status.state,
            since: status.since,
            attempts: status.attempts,
            last_error: status.last_error.clone(),
            note: status.note.clone(),
            bytes: self.bytes.load(Ordering::Relaxed),
            skipped_frames: self.skipped_frames.load(Ordering::Relaxed),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Status> {
        // Every method leaves it whole, whoever panics.
        self.status.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl ForwardSnapshot {
    /// How long until the next attempt, where one is due.
    pub(crate) fn retry_in(&self) -> Option<Duration> {
        match self.state {
            State::Retrying(at) => Some(at.saturating_duration_since(Instant::now())),
            State::Waiting | State::Connecting | State::Live => None,
        }
    }
}
