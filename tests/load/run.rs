//! What all sessions of a run share, and the threads that carry them.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::sync::mpsc;
use tokio::task::{JoinSet, LocalSet};

use crate::cli::Options;
use crate::peer::Template;
use crate::publisher::{self, PublisherReport};
use crate::tally::Histogram;
use crate::viewer::{self, ViewerReport};

/// How often a thread looks whether it comes to its turn in time.
const LAG_PROBE_INTERVAL: Duration = Duration::from_millis(10);

/// Settings, phase and progress of the run. The atomics stand for themselves: nothing is ordered by them.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) options: Options,
    pub(crate) publisher_template: Template,
    pub(crate) viewer_template: Template,
    window_start_ns: AtomicU64,
    window_end_ns: AtomicU64,
    pub(crate) stop_viewers: AtomicBool,
    pub(crate) stop_publishers: AtomicBool,
    pub(crate) publishers_ready: AtomicUsize,
    pub(crate) publishers_failed: AtomicUsize,
    pub(crate) viewers_ready: AtomicUsize,
    pub(crate) viewers_failed: AtomicUsize,
}

impl Run {
    pub(crate) fn new(options: Options) -> Result<Run> {
        let (publisher_template, viewer_template) = options.templates()?;
        Ok(Run {
            options,
            publisher_template,
            viewer_template,
            window_start_ns: AtomicU64::new(u64::MAX),
            window_end_ns: AtomicU64::new(u64::MAX),
            stop_viewers: AtomicBool::new(false),
            stop_publishers: AtomicBool::new(false),
            publishers_ready: AtomicUsize::new(0),
            publishers_failed: AtomicUsize::new(0),
            viewers_ready: AtomicUsize::new(0),
            viewers_failed: AtomicUsize::new(0),
        })
    }

    /// Sets the span that is measured. Only media stamped within it counts.
    pub(crate) fn set_window(&self, start_ns: u64, end_ns: u64) {
        self.window_end_ns.store(end_ns, Relaxed);
        self.window_start_ns.store(start_ns, Relaxed);
    }

    pub(crate) fn window_start_ns(&self) -> u64 {
        self.window_start_ns.load(Relaxed)
    }

    pub(crate) fn is_measured(&self, clock_ns: u64) -> bool {
        clock_ns >= self.window_start_ns.load(Relaxed) && clock_ns < self.window_end_ns.load(Relaxed)
    }
}

/// A session to start.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Job {
    Publish { stream: u32 },
    View { stream: u32, checked: bool },
}

/// Sums over the sessions of a thread.
#[derive(Debug, Clone)]
pub(crate) struct ThreadSums {
    /// From the stamp of a packet to its arrival, video and audio.
    pub(crate) packet_delay: Histogram,
    /// From the stamp of a frame to the arrival of its last packet.
    pub(crate) frame_delay: Histogram,
    /// How late the publishers' frames left.
    pub(crate) send_lag: Histogram,
    /// How late a timer of the thread fired: a bound on what the delays owe to this tool.
    pub(crate) thread_lag: Histogram,
    /// RTP datagrams that viewers received, retransmissions and dropped ones included.
    pub(crate) rtp_datagrams: u64,
    pub(crate) rtp_bytes: u64,
}

impl ThreadSums {
    pub(crate) fn new() -> ThreadSums {
        ThreadSums {
            packet_delay: Histogram::new(),
            frame_delay: Histogram::new(),
            send_lag: Histogram::new(),
            thread_lag: Histogram::new(),
            rtp_datagrams: 0,
            rtp_bytes: 0,
        }
    }

    pub(crate) fn merge(&mut self, other: &ThreadSums) {
        self.packet_delay.merge(&other.packet_delay);
        self.frame_delay.merge(&other.frame_delay);
        self.send_lag.merge(&other.send_lag);
        self.thread_lag.merge(&other.thread_lag);
        self.rtp_datagrams += other.rtp_datagrams;
        self.rtp_bytes += other.rtp_bytes;
    }
}

/// What a thread brings home.
#[derive(Debug)]
pub(crate) struct WorkerOutput {
    pub(crate) publishers: Vec<PublisherReport>,
    pub(crate) viewers: Vec<ViewerReport>,
    pub(crate) sums: ThreadSums,
}

enum Done {
    Published(PublisherReport),
    Viewed(Box<ViewerReport>),
}

/// Starts a thread that runs the jobs it is sent until the channel closes and all of them have ended.
pub(crate) fn spawn_worker(run: Arc<Run>, jobs: mpsc::Receiver<Job>) -> Result<JoinHandle<Result<WorkerOutput>>> {
    std::thread::Builder::new()
        .name("load".to_owned())
        .spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            LocalSet::new().block_on(&runtime, work(run, jobs))
        })
        .context("cannot start a thread")
}

async fn work(run: Arc<Run>, mut jobs: mpsc::Receiver<Job>) -> Result<WorkerOutput> {
    let sums = Rc::new(RefCell::new(ThreadSums::new()));
    let probe = tokio::task::spawn_local(probe_lag(run.clone(), sums.clone()));
    let mut sessions = JoinSet::new();
    while let Some(job) = jobs.recv().await {
        let (run, sums) = (run.clone(), sums.clone());
        match job {
            Job::Publish { stream } => {
                sessions.spawn_local(async move { Done::Published(publisher::publish(run, sums, stream).await) });
            }
            Job::View { stream, checked } => {
                sessions
                    .spawn_local(async move { Done::Viewed(Box::new(viewer::view(run, sums, stream, checked).await)) });
            }
        }
    }
    let (mut publishers, mut viewers) = (Vec::new(), Vec::new());
    while let Some(done) = sessions.join_next().await {
        match done.context("a session panicked")? {
            Done::Published(report) => publishers.push(report),
            Done::Viewed(report) => viewers.push(*report),
        }
    }
    probe.abort();
    let sums = sums.borrow().clone();
    Ok(WorkerOutput { publishers, viewers, sums })
}

async fn probe_lag(run: Arc<Run>, sums: Rc<RefCell<ThreadSums>>) {
    loop {
        let due = Instant::now() + LAG_PROBE_INTERVAL;
        tokio::time::sleep_until(due.into()).await;
        let now = Instant::now();
        if run.is_measured(crate::stamp::clock_ns_at(now)) {
            sums.borrow_mut().thread_lag.record(now - due);
        }
    }
}
