//! HLS on disk: a thread that keeps a folder as the playlists say.
//!
//! Nothing is queued for it but the news that a stream has changed; it then takes a copy of the playlist, which shares
//! the segments' bytes, and writes what is missing. A disk that is too slow leaves out segments that have left the
//! window in the meantime, a disk that fails is told of once and tried again with the next segment; the streams
//! themselves wait for neither.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use ahash::AHashMap;
use freshet_bridge::hls::Segmenter;
use freshet_media::StreamKey;
use tracing::{info, warn};

use super::file_names::FileName;
use super::files::StreamFiles;
use super::stream::HlsStream;

/// How files are written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DiskSettings {
    /// Where everything lies.
    pub(crate) folder: PathBuf,
    /// What playlists are called.
    pub(crate) playlist: FileName,
    /// What segments are called.
    pub(crate) segment: FileName,
    /// Files go when players no longer ask for them. False: they stay, the operator removes them.
    pub(crate) cleanup: bool,
    /// Where players get keys: the start of an address. [`None`]: beside the segments, as files.
    pub(crate) key_url: Option<String>,
}

/// What the API and the metrics tell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct DiskStatus {
    /// Files that could not be written since the start.
    pub(crate) errors: u64,
    /// Streams whose files are not up to date, and why.
    pub(crate) failing: Vec<(StreamKey, String)>,
}

/// The thread, as the rest of the server knows it.
pub(crate) struct Disk {
    shared: Arc<Shared>,
}

struct Shared {
    settings: DiskSettings,
    inbox: Mutex<Inbox>,
    wake: Condvar,
    errors: AtomicU64,
    failing: Mutex<AHashMap<StreamKey, String>>,
}

#[derive(Default)]
struct Inbox {
    /// Streams that have changed, each once: no more than there are streams.
    changed: VecDeque<Arc<HlsStream<Segmenter>>>,
    /// The server ends.
    is_over: bool,
    /// The thread has ended.
    is_done: bool,
}

impl Disk {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system has no thread for it.
    pub(super) fn start(settings: DiskSettings) -> std::io::Result<Disk> {
        let shared = Arc::new(Shared {
            settings,
            inbox: Mutex::default(),
            wake: Condvar::new(),
            errors: AtomicU64::new(0),
            failing: Mutex::default(),
        });
        let writer = Writer { shared: Arc::clone(&shared), streams: AHashMap::new() };
        std::thread::Builder::new().name("freshet-hls-disk".to_owned()).spawn(move || writer.run())?;
        Ok(Disk { shared })
    }

    /// A stream has a new segment, has ended or is closed.
    pub(super) fn tell(&self, stream: &Arc<HlsStream<Segmenter>>) {
        let mut inbox = lock(&self.shared.inbox);
        if !inbox.is_over && !inbox.changed.iter().any(|waiting| Arc::ptr_eq(waiting, stream)) {
            inbox.changed.push_back(Arc::clone(stream));
            self.shared.wake.notify_all();
        }
    }

    pub(super) fn status(&self) -> DiskStatus {
        let failing = lock(&self.shared.failing).iter().map(|(key, why)| (key.clone(), why.clone())).collect();
        DiskStatus { errors: self.shared.errors.load(Ordering::Relaxed), failing }
    }

    /// Ends the thread, which removes its files first; waits for it so long at most.
    pub(super) fn end(&self, within: Duration) {
        let mut inbox = lock(&self.shared.inbox);
        inbox.is_over = true;
        self.shared.wake.notify_all();
        // How it ended is no matter: the server ends either way.
        let _ = self.shared.wake.wait_timeout_while(inbox, within, |inbox| !inbox.is_done);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Everything behind these locks is whole at any time.
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

/// The thread's own state.
struct Writer {
    shared: Arc<Shared>,
    streams: AHashMap<StreamKey, Written>,
}

struct Written {
    owner: Arc<HlsStream<Segmenter>>,
    files: StreamFiles,
}

impl Writer {
    fn run(mut self) {
        while let Some(stream) = self.next() {
            self.update(&stream);
        }
        if self.shared.settings.cleanup {
            for written in self.streams.values_mut() {
                written.files.remove_all(&self.shared.settings.folder);
            }
        }
        lock(&self.shared.inbox).is_done = true;
        self.shared.wake.notify_all();
    }

    /// Waits for a stream that has changed. [`None`]: the server ends.
    fn next(&self) -> Option<Arc<HlsStream<Segmenter>>> {
        let mut inbox = lock(&self.shared.inbox);
        loop {
            if inbox.is_over {
                return None;
            }
            if let Some(stream) = inbox.changed.pop_front() {
                return Some(stream);
            }
            inbox = self.shared.wake.wait(inbox).unwrap_or_else(|e| e.into_inner());
        }
    }

    fn update(&mut self, stream: &Arc<HlsStream<Segmenter>>) {
        let key = stream.key();
        let (playlist, is_closed) = stream.snapshot();
        let is_owner = self.streams.get(key).is_some_and(|written| Arc::ptr_eq(&written.owner, stream));
        if is_closed {
            // Its name may have a new stream by now, whose files these are not.
            if is_owner || !self.streams.contains_key(key) {
                self.forget(key);
            }
            return;
        }
        if !is_owner {
            self.forget(key);
            match self.begin(stream) {
                Ok(written) => drop(self.streams.insert(key.clone(), written)),
                Err(why) => return self.note(key, Some(why)),
            }
        }
        let Some(written) = self.streams.get_mut(key) else { return };
        let outcome = written.files.sync(&self.shared.settings, &playlist);
        self.note(key, outcome.err().map(|error| error.to_string()));
    }

    fn begin(&self, stream: &Arc<HlsStream<Segmenter>>) -> Result<Written, String> {
        let unfit = || "the stream's name is not fit for a file".to_owned();
        let files = StreamFiles::new(&self.shared.settings, stream.key()).ok_or_else(unfit)?;
        let path = files.playlist_path();
        if let Some(other) = self.streams.values().find(|written| written.files.playlist_path() == path) {
            let (path, other) = (path.display(), other.owner.key());
            return Err(format!("{path} belongs to {other}; put [vhost] into hls.playlist_file and hls.segment_file"));
        }
        Ok(Written { owner: Arc::clone(stream), files })
    }

    fn forget(&mut self, key: &StreamKey) {
        if let Some(mut written) = self.streams.remove(key)
            && self.shared.settings.cleanup
        {
            written.files.remove_all(&self.shared.settings.folder);
        }
        lock(&self.shared.failing).remove(key);
    }

    /// Says in the log when files begin to fail, and when they are written again.
    fn note(&self, key: &StreamKey, error: Option<String>) {
        let mut failing = lock(&self.shared.failing);
        match error {
            Some(error) => {
                self.shared.errors.fetch_add(1, Ordering::Relaxed);
                if failing.insert(key.clone(), error.clone()).is_none() {
                    warn!(stream = %key, "HLS on disk stands still, the stream goes on: {error}");
                }
            }
            None => {
                if failing.remove(key).is_some() {
                    info!(stream = %key, "HLS is written to disk again");
                }
            }
        }
    }
}
