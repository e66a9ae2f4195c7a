//! Calls to the operator's HTTP servers when something has happened, in the shape of SRS's `http_hooks`.
//!
//! An [`Action`] is a line of [`Action::ALL`]: its name is the key in `[hooks]`, the `action` of the body and the label in
//! metrics. Every URL has a queue and a task of its own, so that one that does not answer delays no other, and events
//! reach each URL in order. What cannot be delivered is tried again, then logged, counted and forgotten: nothing waits
//! for a hook, and no publisher or player depends on one.

mod call;
mod url;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use freshet_media::StreamKey;
use serde_json::{Map, Value, json};
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsConnector;
use tracing::{info, warn};

use crate::engine::ClientSnapshot;
use crate::identity::Identity;
use crate::tls_client;

pub(crate) use url::HookUrl;

/// Events that wait for one URL. More are dropped: it has not answered for a long time.
const QUEUED_EVENTS: usize = 256;
/// After a failure it is tried again so many times, so much later each time.
pub(crate) const RETRY_AFTER: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)];
/// SRS's name of the default vhost.
const DEFAULT_VHOST: &str = "__defaultVhost__";

/// What hooks are called for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// A file of a recording is closed.
    OnRecord,
    /// The same, with the name and the fields that SRS has for it.
    OnDvr,
}

impl Action {
    /// All of them.
    pub(crate) const ALL: [Action; 2] = [Action::OnRecord, Action::OnDvr];

    /// Key of the configuration, `action` of the body.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Action::OnRecord => "on_record",
            Action::OnDvr => "on_dvr",
        }
    }
}

/// Who is called for what.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct HookSettings {
    /// The URLs of each action.
    pub(crate) urls: Vec<(Action, Vec<HookUrl>)>,
    /// How long calls take.
    pub(crate) timing: Timing,
}

/// When calls have failed, and what happens then.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Timing {
    /// A call that takes longer has failed.
    pub(crate) timeout: Duration,
    /// A call that has failed is made again so much later, and again.
    pub(crate) retry_after: [Duration; 3],
}

/// Counters of one action.
#[derive(Debug, Default)]
struct Counts {
    delivered: AtomicU64,
    failed: AtomicU64,
    dropped: AtomicU64,
}

/// The way to one URL.
#[derive(Debug)]
struct Outlet {
    action: Action,
    url: HookUrl,
    queue: mpsc::Sender<Bytes>,
}

#[derive(Debug)]
struct Inner {
    identity: Identity,
    outlets: Vec<Outlet>,
    counts: [Counts; Action::ALL.len()],
    /// Events that are not delivered or given up yet.
    pending: watch::Sender<usize>,
}

/// All hooks. Cheap to clone; the default one calls nobody.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hooks(Option<Arc<Inner>>);

impl Hooks {
    /// Starts a task for each URL, on the present runtime.
    pub(crate) fn start(settings: &HookSettings, identity: &Identity) -> Hooks {
        let mut outlets = Vec::new();
        let mut queues = Vec::new();
        for (action, urls) in &settings.urls {
            for url in urls {
                let (queue, events) = mpsc::channel(QUEUED_EVENTS);
                queues.push((*action, url.clone(), events));
                outlets.push(Outlet { action: *action, url: url.clone(), queue });
            }
        }
        if outlets.is_empty() {
            return Hooks::default();
        }
        let (identity, pending) = (identity.clone(), watch::Sender::new(0));
        let inner = Arc::new(Inner { identity, outlets, counts: Default::default(), pending });
        let tls = Arc::new(OnceLock::new());
        for (action, url, events) in queues {
            let caller =
                Caller { action, url, timing: settings.timing, tls: Arc::clone(&tls), inner: Arc::clone(&inner) };
            tokio::spawn(caller.run(events));
        }
        Hooks(Some(inner))
    }

    /// Whether anybody is called for an action.
    pub(crate) fn wants(&self, action: Action) -> bool {
        self.0.as_ref().is_some_and(|inner| inner.outlets.iter().any(|outlet| outlet.action == action))
    }

    /// Calls for something that has happened on a stream. Returns at once, on any thread. `client`: who publishes;
    /// `more`: the action's own fields.
    pub(crate) fn notify(&self, action: Action, key: &StreamKey, client: Option<&ClientSnapshot>, more: Value) {
        let Some(inner) = self.0.as_ref().filter(|_| self.wants(action)) else { return };
        let mut body = inner.common(action, key, client);
        if let Value::Object(more) = more {
            body.extend(more);
        }
        // Maps of strings and numbers become JSON without fail.
        let body = Bytes::from(serde_json::to_vec(&body).unwrap_or_default());
        for outlet in inner.outlets.iter().filter(|outlet| outlet.action == action) {
            inner.pending.send_modify(|pending| *pending += 1);
            if outlet.queue.try_send(body.clone()).is_err() {
                inner.pending.send_modify(|pending| *pending -= 1);
                if inner.counts[action as usize].dropped.fetch_add(1, Ordering::Relaxed) == 0 {
                    warn!(hook = action.name(), url = %outlet.url, "more than {QUEUED_EVENTS} events wait: some are dropped");
                }
            }
        }
    }

    /// Waits until everything is delivered or given up.
    pub(crate) async fn drain(&self) {
        let Some(inner) = &self.0 else { return };
        // The sender is in there.
        let _ = inner.pending.subscribe().wait_for(|pending| *pending == 0).await;
    }

    /// Events by action and what became of them.
    pub(crate) fn metrics(&self) -> Vec<(Action, &'static str, u64)> {
        let Some(inner) = &self.0 else { return Vec::new() };
        let of = |action: Action| {
            let counts = &inner.counts[action as usize];
            [("delivered", &counts.delivered), ("failed", &counts.failed), ("dropped", &counts.dropped)]
                .map(|(outcome, count)| (action, outcome, count.load(Ordering::Relaxed)))
        };
        Action::ALL.into_iter().flat_map(of).collect()
    }
}

impl Inner {
    /// The fields of every event, SRS's.
    fn common(&self, action: Action, key: &StreamKey, client: Option<&ClientSnapshot>) -> Map<String, Value> {
        let vhost = key.vhost().unwrap_or(DEFAULT_VHOST);
        let fields = json!({
            "server_id": self.identity.server,
            "service_id": self.identity.service,
            "action": action.name(),
            "client_id": client.map(|client| client.id.as_str()).unwrap_or_default(),
            "ip": client.map(|client| client.ip.to_string()).unwrap_or_default(),
            "vhost": vhost,
            "app": key.app(),
            "tcUrl": client.map(|client| format!("{}://{vhost}/{}", client.protocol.scheme(), key.app())).unwrap_or_default(),
            "stream": key.stream(),
            // Queries hold tokens, and are not kept.
            "param": "",
            "stream_url": format!("/{}/{}", key.app(), key.stream()),
            "stream_id": client.map(|client| client.stream_id.as_str()).unwrap_or_default(),
        });
        match fields {
            Value::Object(map) => map,
            _ => Map::new(),
        }
    }
}

/// The task of one URL.
struct Caller {
    action: Action,
    url: HookUrl,
    timing: Timing,
    /// Made with the first `https:` call: it reads files.
    tls: Arc<OnceLock<Result<TlsConnector, String>>>,
    inner: Arc<Inner>,
}

impl Caller {
    async fn run(self, mut events: mpsc::Receiver<Bytes>) {
        while let Some(body) = events.recv().await {
            let counts = &self.inner.counts[self.action as usize];
            match self.deliver(body).await {
                Ok(()) => counts.delivered.fetch_add(1, Ordering::Relaxed),
                Err(reason) => {
                    warn!(hook = self.action.name(), url = %self.url, "hook failed, given up: {reason}");
                    counts.failed.fetch_add(1, Ordering::Relaxed)
                }
            };
            self.inner.pending.send_modify(|pending| *pending -= 1);
        }
    }

    async fn deliver(&self, body: Bytes) -> Result<(), String> {
        let mut outcome = self.call(body.clone()).await;
        for delay in self.timing.retry_after {
            let Err(reason) = &outcome else { return outcome };
            info!(hook = self.action.name(), url = %self.url, "hook failed, tried again in {} s: {reason}", delay.as_secs());
            tokio::time::sleep(delay).await;
            outcome = self.call(body.clone()).await;
        }
        outcome
    }

    async fn call(&self, body: Bytes) -> Result<(), String> {
        let tls = match self.url.is_https() {
            true => Some(self.connector().await?),
            false => None,
        };
        let called = tokio::time::timeout(self.timing.timeout, call::post(&self.url, tls, body)).await;
        called.unwrap_or_else(|_| Err(format!("no answer within {} s", self.timing.timeout.as_secs())))
    }

    async fn connector(&self) -> Result<&TlsConnector, String> {
        if self.tls.get().is_none() {
            let made = tokio::task::spawn_blocking(tls_client::checking).await;
            // Another task may have been faster.
            let _ = self.tls.set(made.unwrap_or_else(|error| Err(error.to_string())));
        }
        self.tls.get().map_or_else(|| Err("TLS is not ready".to_owned()), |tls| tls.as_ref().map_err(Clone::clone))
    }
}

#[cfg(test)]
mod tests;
