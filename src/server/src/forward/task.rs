//! The life of one forward: waiting for the stream, sending it, trying again.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use freshet_sfu::CloseReason;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, info, warn};

use super::backoff::Backoff;
use super::entry::{Entry, Origin, State};
use super::own::OwnAddresses;
use super::push::{End, Push, PushError};
use super::{Publishers, WATCH_INTERVAL};
use crate::http::Sessions;

/// After a stream has ended, so long passes until it is certain that its publisher is known to be gone.
const SETTLE: Duration = WATCH_INTERVAL.saturating_mul(2);

/// What carries one forward.
pub(super) struct Task {
    pub(super) sessions: Arc<dyn Sessions>,
    pub(super) entry: Arc<Entry>,
    pub(super) own: OwnAddresses,
    pub(super) stall: Duration,
    pub(super) publishers: watch::Receiver<Publishers>,
}

impl Task {
    /// Goes on until the forward is stopped, or its stream has ended and a rule will begin it again. True: somebody wants
    /// no more of it.
    pub(super) async fn run(self) -> bool {
        let mut backoff = Backoff::default();
        let is_dismissed = loop {
            if !self.is_published() {
                if matches!(self.entry.origin, Origin::Rule(..)) {
                    break false;
                }
                self.entry.set_state(State::Waiting);
                if self.unless_stopped(self.publication()).await.is_none() {
                    break true;
                }
            }
            self.entry.set_state(State::Connecting);
            let mut push = Push::new(&self.entry, Arc::clone(&self.sessions), &self.own, self.stall);
            let ended = push.run(self.entry.stopped()).await;
            let live_for = push.live_for();
            let wait = match ended {
                Ok(End::Stopped | End::Session(CloseReason::Kicked)) => break true,
                Ok(End::Session(CloseReason::Shutdown)) => break false,
                Ok(End::SourceGone | End::Session(_)) => self.unless_stopped(sleep(SETTLE)).await,
                Err(error) => {
                    let at = Instant::now() + backoff.after(live_for, rand::random());
                    self.entry.set_state(State::Retrying(at));
                    self.tell(&error, at);
                    self.unless_stopped(self.retry_at(at)).await
                }
            };
            if wait.is_none() {
                break true;
            }
        };
        info!(stream = %self.entry.key, to = self.entry.target.shown, "forward ended");
        is_dismissed
    }

    fn is_published(&self) -> bool {
        self.publishers.borrow().contains_key(&self.entry.key)
    }

    /// Waits until somebody publishes the stream.
    async fn publication(&self) {
        let mut publishers = self.publishers.clone();
        // It ends with an error when the server does; then nothing is left to wait for.
        let _ = publishers.wait_for(|now| now.contains_key(&self.entry.key)).await;
    }

    /// Waits for the next attempt, or for the end of the stream, which needs none.
    async fn retry_at(&self, at: Instant) {
        let mut publishers = self.publishers.clone();
        tokio::select! {
            () = sleep_until(at) => {}
            _ = publishers.wait_for(|now| !now.contains_key(&self.entry.key)) => {}
        }
    }

    /// [`None`]: the forward was stopped first.
    async fn unless_stopped<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let mut stopped = self.entry.stopped();
        tokio::select! {
            done = work => Some(done),
            _ = stopped.wait_for(|stop| *stop) => None,
        }
    }

    /// Says why the stream does not go out; the same reason again and again is said once.
    fn tell(&self, error: &PushError, at: Instant) {
        let (stream, to) = (&self.entry.key, &self.entry.target.shown);
        let text = self.entry.target.redacted(&error.to_string());
        let seconds = at.saturating_duration_since(Instant::now()).as_secs_f32();
        if self.entry.set_error(text.clone()) {
            warn!(%stream, to, "not forwarded: {text}; next attempt in {seconds:.0} s");
        } else {
            debug!(%stream, to, "still not forwarded: {text}; next attempt in {seconds:.0} s");
        }
    }
}
