//! Forwarding: streams that are published here, over whatever protocol, are published on to other servers by RTMP.
//!
//! To the rest of this server each forward is one player of its stream, which sends what it reads to somebody else. What
//! a rule of the configuration starts begins and ends with the stream; what the API starts stays until it is deleted and
//! waits while nobody publishes. A server that refuses, hangs up or takes nothing is asked again, later and later; one
//! that is too slow gets whole pictures up to a keyframe less, as every slow player.

mod backoff;
mod entry;
mod own;
mod push;
mod target;
mod task;

use std::collections::hash_map::Entry as Slot;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use ahash::AHashMap;
use freshet_media::StreamKey;
use rand::Rng as _;
use tokio::sync::watch;
use tracing::{info, warn};

pub(crate) use entry::{ForwardSnapshot, Origin};
pub(crate) use own::OwnAddresses;
pub(crate) use target::Template;

use self::entry::Entry;
use self::task::Task;
use crate::engine::{Published, Refusal};
use crate::http::Sessions;
use crate::srs_code as code;
use crate::stream_pattern::StreamPattern;

/// How often it is looked which streams are published. What they send in the meantime is cached.
const WATCH_INTERVAL: Duration = Duration::from_millis(250);

/// What is forwarded, and how.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ForwardSettings {
    /// What goes where without being asked for.
    pub(crate) rules: Vec<ForwardRule>,
    /// Forwards at a time.
    pub(crate) max: usize,
    /// A server that takes nothing for so long is given up for now.
    pub(crate) stall: Duration,
    /// Anybody may start forwards by API where publishing takes no token. Else only this machine may.
    pub(crate) open_api: bool,
    /// Where we are ourselves.
    pub(crate) own: OwnAddresses,
}

/// Some streams to some addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ForwardRule {
    /// Which streams: those that match any.
    pub(crate) streams: Vec<StreamPattern>,
    /// Where to: all of them.
    pub(crate) to: Vec<Template>,
    /// Whether certificates of RTMPS servers are checked.
    pub(crate) verify_certificate: bool,
}

/// The publishers' client ids by stream.
type Publishers = Arc<AHashMap<StreamKey, String>>;

/// All forwards.
pub(crate) struct Forwards {
    sessions: Arc<dyn Sessions>,
    settings: ForwardSettings,
    publishers: watch::Sender<Publishers>,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    /// In the order of their beginning.
    entries: Vec<Arc<Entry>>,
    /// Forwards by rule that an operator has ended, or for which there was no room, with the publisher of that time:
    /// they are not begun again for the same one.
    dismissed: AHashMap<(StreamKey, Origin), String>,
}

impl Forwards {
    /// Forwards nothing until [`Forwards::watch`] runs.
    pub(crate) fn new(sessions: Arc<dyn Sessions>, settings: ForwardSettings) -> Arc<Forwards> {
        let publishers = watch::Sender::new(Publishers::default());
        Arc::new(Forwards { sessions, settings, publishers, table: Mutex::default() })
    }

    /// Looks which streams are published, begins what the rules say, and wakes those that wait. Never ends.
    pub(crate) async fn watch(self: Arc<Forwards>) {
        loop {
            tokio::time::sleep(WATCH_INTERVAL).await;
            let is_idle = self.settings.rules.is_empty() && self.lock().entries.is_empty();
            let published = if is_idle { Vec::new() } else { self.sessions.published() };
            let publishers: AHashMap<StreamKey, String> =
                published.iter().map(|p| (p.key.clone(), p.publisher.clone())).collect();
            self.publishers.send_if_modified(|known| {
                let is_new = **known != publishers;
                if is_new {
                    *known = Arc::new(publishers);
                }
                is_new
            });
            self.begin_by_rule(&published);
        }
    }

    fn begin_by_rule(self: &Arc<Forwards>, published: &[Published]) {
        let mut table = self.lock();
        table
            .dismissed
            .retain(|(key, _), publisher| published.iter().any(|now| now.key == *key && now.publisher == *publisher));
        for stream in published {
            for (r, rule) in self.settings.rules.iter().enumerate() {
                if !rule.streams.iter().any(|pattern| pattern.matches(stream.key.as_str())) {
                    continue;
                }
                for (t, template) in rule.to.iter().enumerate() {
                    self.begin(&mut table, stream, template, rule.verify_certificate, Origin::Rule(r, t));
                }
            }
        }
    }

    /// Begins a forward by rule, unless it has begun or has been dismissed.
    fn begin(
        self: &Arc<Forwards>,
        table: &mut Table,
        stream: &Published,
        template: &Template,
        verify: bool,
        origin: Origin,
    ) {
        let is_begun = table.entries.iter().any(|entry| entry.origin == origin && entry.key == stream.key);
        let Slot::Vacant(slot) = table.dismissed.entry((stream.key.clone(), origin)) else { return };
        if is_begun {
            return;
        }
        let problem = match template.expand(&stream.key) {
            Err(error) => format!("{}: {error}", template.shown()),
            Ok(_) if table.entries.len() >= self.settings.max => {
                format!("{} forwards run, which is the limit: raise forward.max", table.entries.len())
            }
            Ok(target) => {
                let entry = Entry::new(random_id(), stream.key.clone(), target, verify, origin);
                table.entries.push(self.spawn(entry));
                return;
            }
        };
        warn!(stream = %stream.key, "not forwarded: {problem}");
        slot.insert(stream.publisher.clone());
    }

    fn spawn(self: &Arc<Forwards>, entry: Entry) -> Arc<Entry> {
        let entry = Arc::new(entry);
        let task = Task {
            sessions: Arc::clone(&self.sessions),
            entry: Arc::clone(&entry),
            own: self.settings.own.clone(),
            stall: self.settings.stall,
            publishers: self.publishers.subscribe(),
        };
        let forwards = Arc::clone(self);
        let spawned = Arc::clone(&entry);
        tokio::spawn(async move {
            // Whatever happens to the task, its entry does not stay.
            let ended = tokio::spawn(task.run()).await;
            let was_dismissed = ended.unwrap_or_else(|_| {
                tracing::error!(stream = %spawned.key, "a forward panicked");
                true
            });
            forwards.forget(&spawned, was_dismissed);
        });
        entry
    }

    fn forget(&self, entry: &Arc<Entry>, was_dismissed: bool) {
        let mut table = self.lock();
        table.entries.retain(|present| !Arc::ptr_eq(present, entry));
        if was_dismissed && let Some(publisher) = self.publishers.borrow().get(&entry.key) {
            table.dismissed.insert((entry.key.clone(), entry.origin), publisher.clone());
        }
    }

    /// Begins a forward that stays until it is deleted.
    ///
    /// # Errors
    /// It would go in a circle, it exists already, or there are too many.
    pub(crate) async fn add(
        self: &Arc<Forwards>,
        key: StreamKey,
        template: &Template,
        verify_certificate: bool,
    ) -> Result<ForwardSnapshot, Refusal> {
        let target = template.expand(&key).map_err(|error| {
            let hint = "write it like rtmp://other.example/live/[stream]";
            Refusal::new(400, code::INVALID_PARAMS, "bad-forward-url", error.to_string(), hint)
        })?;
        if push::leads_back(&target, &key, &self.settings.own).await {
            let detail = format!("{} is this server, and {key} has the same name there", target.shown);
            let hint = "give it another name, or another server";
            return Err(Refusal::new(409, code::INVALID_PARAMS, "forward-loop", detail, hint));
        }
        let mut table = self.lock();
        if let Some(same) = table.entries.iter().find(|entry| entry.key == key && entry.target == target) {
            let detail = format!("{key} is forwarded to {} already, as {}", target.shown, same.id);
            let hint = "DELETE that one first, or leave it as it is";
            return Err(Refusal::new(409, code::STREAM_BUSY, "forward-exists", detail, hint));
        }
        if table.entries.len() >= self.settings.max {
            let detail = format!("{} forwards run, which is the limit", table.entries.len());
            let hint = "delete one, or raise forward.max";
            return Err(Refusal::new(503, code::CONNECTIONS_EXCEED, "too-many-forwards", detail, hint));
        }
        info!(stream = %key, to = target.shown, "forward added");
        let entry = self.spawn(Entry::new(random_id(), key, target, verify_certificate, Origin::Api));
        let snapshot = entry.snapshot();
        table.entries.push(entry);
        Ok(snapshot)
    }

    /// Ends a forward. One that a rule has begun comes back with the next publisher of its stream. False: there is none
    /// of that id.
    pub(crate) fn remove(&self, id: &str) -> bool {
        let found = self.lock().entries.iter().find(|entry| entry.id == id).map(Arc::clone);
        found.inspect(|entry| entry.stop()).is_some()
    }

    /// All of them, the oldest first.
    pub(crate) fn list(&self) -> Vec<ForwardSnapshot> {
        self.lock().entries.iter().map(|entry| entry.snapshot()).collect()
    }

    /// Whether anybody may start forwards where publishing takes no token.
    pub(crate) fn is_open(&self) -> bool {
        self.settings.open_api
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // A panic while the lock is held leaves a table that is whole.
        self.table.lock().unwrap_or_else(|e| e.into_inner())
    }
}

fn random_id() -> String {
    format!("fwd-{:08x}", rand::rng().random::<u32>())
}
