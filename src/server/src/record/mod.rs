//! Recording: which streams are written to disk, by whose wish, and what has become of them.
//!
//! A recording reads its stream like a player, from the last keyframe on, and shows as a client of type `record`. It
//! begins when somebody publishes a stream of `record.streams`, or by request. When the publisher comes back soon, it
//! goes on in another file. The stream never waits for the disk: what cannot be written is missing from the recording.

mod disk;
mod pump;
mod recording;

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use ahash::AHashMap;
use freshet_bridge::record::{PathTemplate, RecordFormat, RecordPlan};
use freshet_media::StreamKey;
use rand::distr::{Alphanumeric, SampleString as _};
use tokio::sync::watch;
use tracing::{error, info, warn};

use self::disk::{Disk, Place};
use self::pump::Pump;
use self::recording::Recording;
use crate::engine::{ClientSnapshot, LiveRequest, Protocol, Refusal};
use crate::hooks::Hooks;
use crate::http::Sessions;
use crate::live::LiveReader;
use crate::srs_code as code;
use crate::stream_pattern::StreamPattern;

pub(crate) use recording::{FailureKind, FileRecord, Origin, RecordRequest, RecordSnapshot, State};

/// Recordings at a time: each has a thread and an open file.
const MAX_RUNNING: usize = 1_024;
/// Recordings that are over and still listed.
const MAX_PAST: usize = 200;
/// How often it is looked for streams that are to be recorded without a request. What they send meanwhile is cached.
const WATCH_INTERVAL: Duration = Duration::from_millis(250);
/// Letters of a recording's name.
const ID_LETTERS: usize = 8;

/// How recordings are made.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RecordSettings {
    /// Where files go.
    pub(crate) folder: PathBuf,
    /// Streams that are recorded without a request.
    pub(crate) streams: Vec<StreamPattern>,
    /// Their container, and that of requests that name none.
    pub(crate) format: RecordFormat,
    /// Names of files.
    pub(crate) path: PathTemplate,
    /// When files change.
    pub(crate) plan: RecordPlan,
    /// Nothing is written where less is left.
    pub(crate) min_free_bytes: u64,
    /// A publisher that comes back within this goes on in the same recording.
    pub(crate) republish_within: Duration,
}

/// Counters since the start.
#[derive(Debug, Default)]
struct Totals {
    files: AtomicU64,
    bytes: AtomicU64,
    failures: [AtomicU64; FailureKind::ALL.len()],
}

/// What all recordings share.
#[derive(Debug)]
struct Shared {
    totals: Totals,
    hooks: Hooks,
}

/// What `/metrics` shows.
#[derive(Debug, Clone)]
pub(crate) struct RecordMetrics {
    /// Recordings by where they stand.
    pub(crate) running: [(State, usize); 2],
    /// Files that are closed.
    pub(crate) files: u64,
    /// Bytes written.
    pub(crate) bytes: u64,
    /// Trouble with the disk.
    pub(crate) failures: Vec<(FailureKind, u64)>,
}

#[derive(Default)]
struct Table {
    running: AHashMap<String, Arc<Recording>>,
    /// The newest last.
    past: VecDeque<Arc<Recording>>,
    /// The server stops: nothing begins any more.
    is_ending: bool,
}

/// All recordings.
pub(crate) struct RecordServer {
    sessions: Arc<dyn Sessions>,
    settings: RecordSettings,
    shared: Arc<Shared>,
    table: Mutex<Table>,
    running: watch::Sender<usize>,
}

impl RecordServer {
    /// Records nothing yet.
    pub(crate) fn new(sessions: Arc<dyn Sessions>, settings: RecordSettings, hooks: Hooks) -> Arc<RecordServer> {
        let shared = Arc::new(Shared { totals: Totals::default(), hooks });
        let (table, running) = (Mutex::default(), watch::Sender::new(0));
        Arc::new(RecordServer { sessions, settings, shared, table, running })
    }

    /// How recordings are made.
    pub(crate) fn settings(&self) -> &RecordSettings {
        &self.settings
    }

    /// Begins a recording of a stream that is live.
    ///
    /// # Errors
    /// Nobody publishes the stream, its media does not come as frames, too many recordings, the server stops.
    pub(crate) fn start(self: &Arc<RecordServer>, request: RecordRequest) -> Result<RecordSnapshot, Refusal> {
        let reader = self.read(&live_request(&request.key))?;
        self.begin(request, Some(reader), None)
    }

    /// Ends a recording. False: there is none of that name, or it is over.
    pub(crate) fn stop(&self, id: &str) -> bool {
        let recording = self.lock().running.get(id).map(Arc::clone);
        recording.inspect(|recording| recording.stop()).is_some()
    }

    /// All recordings, the oldest first.
    pub(crate) fn list(&self) -> Vec<RecordSnapshot> {
        let all: Vec<Arc<Recording>> = {
            let table = self.lock();
            table.past.iter().chain(table.running.values()).map(Arc::clone).collect()
        };
        let mut all: Vec<RecordSnapshot> = all.iter().map(|recording| recording.snapshot()).collect();
        all.sort_by(|a, b| (a.started_at, &a.id).cmp(&(b.started_at, &b.id)));
        all
    }

    /// One of them.
    pub(crate) fn get(&self, id: &str) -> Option<RecordSnapshot> {
        let table = self.lock();
        let past = || table.past.iter().find(|recording| recording.id() == id);
        Some(table.running.get(id).or_else(past)?.snapshot())
    }

    /// Counters.
    pub(crate) fn metrics(&self) -> RecordMetrics {
        let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let states: Vec<State> = self.lock().running.values().map(|recording| recording.state()).collect();
        let count = |state| (state, states.iter().filter(|one| **one == state).count());
        RecordMetrics {
            running: [count(State::Recording), count(State::Waiting)],
            files: value(&self.shared.totals.files),
            bytes: value(&self.shared.totals.bytes),
            failures: FailureKind::ALL
                .into_iter()
                .map(|kind| (kind, value(&self.shared.totals.failures[kind as usize])))
                .collect(),
        }
    }

    /// Records the streams of `record.streams` from their start. Never ends.
    pub(crate) async fn watch(self: Arc<RecordServer>) {
        // What has been begun for a publisher is not begun again: it may have been stopped by hand.
        let mut begun: AHashMap<StreamKey, Option<String>> = AHashMap::new();
        loop {
            tokio::time::sleep(WATCH_INTERVAL).await;
            let streams = self.sessions.streams();
            begun.retain(|key, publisher| streams.iter().any(|s| s.key == *key && s.publisher == *publisher));
            for stream in streams.into_iter().filter(|stream| stream.publisher.is_some()) {
                let is_wanted = self.settings.streams.iter().any(|pattern| pattern.matches(stream.key.as_str()));
                if is_wanted && !begun.contains_key(&stream.key) && self.begin_by_pattern(&stream.key) {
                    begun.insert(stream.key, stream.publisher);
                }
            }
        }
    }

    /// Ends all recordings and waits until their files are closed.
    pub(crate) async fn end(&self) {
        {
            let mut table = self.lock();
            table.is_ending = true;
            table.running.values().for_each(|recording| recording.stop());
        }
        // The sender is our own.
        let _ = self.running.subscribe().wait_for(|running| *running == 0).await;
    }

    /// False: this must be looked at again.
    fn begin_by_pattern(self: &Arc<RecordServer>, key: &StreamKey) -> bool {
        let is_ours = |one: &&Arc<Recording>| one.request().key == *key && one.request().origin == Origin::Pattern;
        let present = self.lock().running.values().find(is_ours).map(|recording| recording.state());
        if let Some(state) = present {
            // One that waits for its publisher goes on by itself, or ends just now.
            return state == State::Recording;
        }
        let RecordSettings { format, plan, .. } = self.settings;
        let request = RecordRequest { key: key.clone(), format, plan, origin: Origin::Pattern };
        let (reader, refusal) = match self.read(&live_request(key)) {
            Ok(reader) => (Some(reader), None),
            Err(refusal) => (None, Some(refusal.detail)),
        };
        if let Err(refusal) = self.begin(request, reader, refusal) {
            warn!(stream = %key, "not recorded: {}", refusal.detail);
        }
        true
    }

    fn begin(
        self: &Arc<RecordServer>,
        request: RecordRequest,
        reader: Option<LiveReader>,
        refusal: Option<String>,
    ) -> Result<RecordSnapshot, Refusal> {
        let id = Alphanumeric.sample_string(&mut rand::rng(), ID_LETTERS);
        let recording = Recording::new(id.clone(), request, Arc::clone(&self.shared));
        let busy =
            |detail: String| Refusal::new(503, code::CONNECTIONS_EXCEED, "record-busy", detail, "stop others first");
        let place = Place { folder: self.settings.folder.clone(), min_free_bytes: self.settings.min_free_bytes };
        let (disk, disk_ended) = {
            let mut table = self.lock();
            if table.is_ending {
                return Err(busy("the server is about to stop".to_owned()));
            }
            if table.running.len() >= MAX_RUNNING {
                return Err(busy(format!("{MAX_RUNNING} recordings run, which is the limit")));
            }
            let started = Disk::start(Arc::clone(&recording), place)
                .map_err(|error| busy(format!("the system has no thread for another recording: {error}")))?;
            table.running.insert(id, Arc::clone(&recording));
            self.running.send_modify(|running| *running += 1);
            started
        };
        recording.set_refusal(refusal);
        let snapshot = recording.snapshot();
        let (server, pump) = (Arc::clone(self), Pump::new(Arc::clone(self), Arc::clone(&recording), disk, disk_ended));
        tokio::spawn(async move {
            // Whatever happens to the pump, its recording does not stay.
            if tokio::spawn(pump.run(reader)).await.is_err() {
                error!(recording = recording.id(), "recording panicked");
            }
            server.forget(&recording);
        });
        Ok(snapshot)
    }

    fn forget(&self, recording: &Arc<Recording>) {
        recording.set_state(State::Ended);
        info!(stream = %recording.request().key, recording = recording.id(), "recording has ended");
        {
            let mut table = self.lock();
            table.running.remove(recording.id());
            if table.past.len() >= MAX_PAST {
                table.past.pop_front();
            }
            table.past.push_back(Arc::clone(recording));
        }
        self.running.send_modify(|running| *running -= 1);
    }

    fn read(&self, request: &LiveRequest) -> Result<LiveReader, Refusal> {
        Arc::clone(&self.sessions).read_live(request)
    }

    fn publisher(&self, key: &StreamKey) -> Option<ClientSnapshot> {
        self.sessions.publisher(key)
    }

    fn has_publisher(&self, key: &StreamKey) -> bool {
        self.sessions.publisher(key).is_some()
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // A panic while the lock is held leaves a table that is whole.
        self.table.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// A recording's reader, as a client.
fn live_request(key: &StreamKey) -> LiveRequest {
    let nobody = IpAddr::from(Ipv4Addr::LOCALHOST);
    LiveRequest {
        key: key.clone(),
        protocol: Protocol::Record,
        peer: SocketAddr::new(nobody, 0),
        client_ip: nobody,
        user_agent: String::new(),
    }
}
