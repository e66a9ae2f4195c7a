//! Load tool: thousands of WHEP viewers and WHIP publishers in one process, against any server, with the received media
//! checked. `live` does the same for RTMP and HTTP-FLV.
//!
//! Publishers connect first; then viewers join, all at once or at a given rate; after a warm-up a span is measured;
//! then everything leaves. The clock in the payload decides what belongs to the span, so loss at its edges is seen.

mod cli;
mod http;
mod live;
mod peer;
mod publisher;
mod report;
mod run;
mod stamp;
mod synthetic;
mod tally;
mod usage;
mod viewer;

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use clap::Parser;
use tokio::sync::mpsc;

use crate::cli::{Command, CommandLine, Options};
use crate::report::{Report, ServerFigures, Surroundings};
use crate::run::{Job, Run, WorkerOutput, spawn_worker};
use crate::usage::{CoreSample, ProcessSample};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// For retransmissions of the measured span's last packets.
const SETTLE: Duration = Duration::from_millis(800);
/// For the server to free what viewers held.
const AFTER_LEAVING: Duration = Duration::from_millis(1500);
/// Beyond the sessions' own deadline.
const JOIN_GRACE: Duration = Duration::from_secs(3);
const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// Publishers that one thread can pace well.
const PUBLISHERS_PER_THREAD: u32 = 50;

fn main() -> ExitCode {
    let line = CommandLine::parse();
    let done = match line.command {
        Some(Command::Live(options)) => live::drive(options),
        None => drive(line.webrtc),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            note(format_args!("error: {error:#}"));
            ExitCode::from(2)
        }
    }
}

fn drive(options: Options) -> Result<bool> {
    options.check()?;
    let strict = options.strict;
    let json = options.json.clone();
    let report = measure(options)?;
    let mut out = std::io::stdout().lock();
    write!(out, "{report}")?;
    if let Some(path) = json {
        let text = serde_json::to_string_pretty(&report)?;
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(report.is_useful() && (!strict || report.is_clean()))
}

/// Runs all phases.
fn measure(options: Options) -> Result<Report> {
    let run = Arc::new(Run::new(options.clone())?);
    let sample_server = || options.server_pid.map(ProcessSample::take).transpose();

    let mut publishers = Crew::new(&run, options.publishers.div_ceil(PUBLISHERS_PER_THREAD).min(options.threads))?;
    for stream in 0..options.publishers {
        publishers.send(Job::Publish { stream })?;
    }
    publishers.jobs.clear();
    let patience = options.join_timeout() + JOIN_GRACE;
    let all = options.publishers as usize;
    wait_for(&run.publishers_ready, &run.publishers_failed, all, patience);
    if run.publishers_failed.load(Relaxed) > 0 {
        note(format_args!("publishers failed; going on with the rest"));
    }
    thread::sleep(Duration::from_millis(500));

    let at_start = sample_server()?;
    let mut viewers = Crew::new(&run, options.threads)?;
    let first_join = Instant::now();
    join_viewers(&options, &mut viewers)?;
    wait_for(&run.viewers_ready, &run.viewers_failed, options.all_viewers() as usize, patience);
    let join_seconds = first_join.elapsed().as_secs_f64();
    let joined = sample_server()?;
    note(format_args!(
        "{} viewers joined, {} failed",
        run.viewers_ready.load(Relaxed),
        run.viewers_failed.load(Relaxed)
    ));
    thread::sleep(Duration::from_secs_f64(options.warmup));

    let span = measure_span(&run, &options)?;
    run.stop_viewers.store(true, Relaxed);
    let mut outputs = viewers.finish()?;
    thread::sleep(AFTER_LEAVING);
    let left = sample_server()?;
    run.stop_publishers.store(true, Relaxed);
    outputs.extend(publishers.finish()?);

    let server = match (at_start, joined, span.server, left) {
        (Some(at_start), Some(joined), Some((begin, end)), Some(left)) => Some(ServerFigures {
            joining: at_start.until(&joined),
            measured: begin.until(&end),
            rss_before_viewers_kb: at_start.rss_kb,
            rss_with_viewers_kb: end.rss_kb,
            rss_after_leaving_kb: left.rss_kb,
        }),
        _ => None,
    };
    let surroundings = Surroundings {
        join_seconds,
        server,
        client: Some(span.client.0.until(&span.client.1)),
        core_busy_percent: span.cores.0.busy_percent_until(&span.cores.1),
        udp_receive_drops: span.udp_receive_drops,
    };
    Ok(Report::new(&options, outputs, surroundings))
}

/// What the machine looked like at both ends of the measured span.
struct Span {
    server: Option<(ProcessSample, ProcessSample)>,
    client: (ProcessSample, ProcessSample),
    cores: (CoreSample, CoreSample),
    udp_receive_drops: u64,
}

fn measure_span(run: &Run, options: &Options) -> Result<Span> {
    let sample = || -> Result<_> {
        let server = options.server_pid.map(ProcessSample::take).transpose()?;
        Ok((server, ProcessSample::take(std::process::id())?, CoreSample::take()?, usage::udp_receive_drops()))
    };
    let duration = Duration::from_secs_f64(options.duration);
    let begin = sample()?;
    let start_ns = stamp::clock_ns();
    run.set_window(start_ns, start_ns + duration.as_nanos() as u64);
    thread::sleep(duration);
    let end = sample()?;
    thread::sleep(SETTLE);
    Ok(Span {
        server: begin.0.zip(end.0),
        client: (begin.1, end.1),
        cores: (begin.2, end.2),
        udp_receive_drops: end.3.saturating_sub(begin.3),
    })
}

fn join_viewers(options: &Options, viewers: &mut Crew) -> Result<()> {
    let interval = (options.join_rate > 0.0).then(|| Duration::from_secs_f64(1.0 / options.join_rate));
    let mut due = Instant::now();
    for number in 0..options.all_viewers() {
        let stream = (number % u64::from(options.streams())) as u32;
        let checked = options.checked.is_none_or(|checked| number / u64::from(options.streams()) < checked.into());
        viewers.send(Job::View { stream, checked })?;
        if let Some(interval) = interval {
            due += interval;
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
    }
    viewers.jobs.clear();
    Ok(())
}

/// Waits until `all` sessions are ready or have failed, but not beyond `patience`.
fn wait_for(ready: &AtomicUsize, failed: &AtomicUsize, all: usize, patience: Duration) {
    let give_up = Instant::now() + patience;
    while ready.load(Relaxed) + failed.load(Relaxed) < all && Instant::now() < give_up {
        thread::sleep(POLL_INTERVAL);
    }
}

/// Threads that take jobs in turn.
struct Crew {
    jobs: Vec<mpsc::Sender<Job>>,
    threads: Vec<JoinHandle<Result<WorkerOutput>>>,
    next: usize,
}

impl Crew {
    fn new(run: &Arc<Run>, threads: u32) -> Result<Crew> {
        let capacity = run.options.all_viewers() as usize + run.options.publishers as usize + 1;
        let mut crew = Crew { jobs: Vec::new(), threads: Vec::new(), next: 0 };
        for _ in 0..threads {
            let (sender, receiver) = mpsc::channel(capacity);
            crew.jobs.push(sender);
            crew.threads.push(spawn_worker(run.clone(), receiver)?);
        }
        Ok(crew)
    }

    fn send(&mut self, job: Job) -> Result<()> {
        let Some(jobs) = self.jobs.get(self.next % self.jobs.len().max(1)) else {
            bail!("no thread to run a session");
        };
        self.next += 1;
        jobs.try_send(job).map_err(|_| anyhow!("a thread has ended before its time"))
    }

    fn finish(self) -> Result<Vec<WorkerOutput>> {
        drop(self.jobs);
        let join = |thread: JoinHandle<_>| thread.join().map_err(|_| anyhow!("a thread panicked"))?;
        self.threads.into_iter().map(join).collect()
    }
}

/// Progress and errors, apart from the report on standard output.
fn note(text: std::fmt::Arguments<'_>) {
    // Nothing is left to tell an error to.
    let _ = writeln!(std::io::stderr(), "{text}");
}
