//! RTMP and HTTP-FLV players in numbers, against any server, with an RTMP publisher if one is wanted.
//!
//! The publisher starts; players join at a given rate; after a warm-up a span is measured; then everything leaves. Players
//! take messages apart as far as their ends, and keep nothing of them, so that hundreds cost a fraction of a core. What a
//! player loses is told by the numbers in the publisher's messages, or by steps of time in those of anybody else.

mod address;
mod amf;
mod chunk;
mod client;
mod flv;
mod mark;
mod options;
mod player;
mod publisher;
mod report;
mod source;

use std::cell::RefCell;
use std::future::Future;
use std::io::Write as _;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use tokio::sync::watch;
use tokio::task::LocalSet;

use self::address::Address;
pub(crate) use self::options::LiveOptions;
use self::player::Seen;
use self::publisher::PublisherReport;
use self::report::{LiveReport, Surroundings};
use crate::stamp;
use crate::tally::Histogram;
use crate::usage::{CoreSample, ProcessSample};

/// For what was sent last in the measured span.
const SETTLE: Duration = Duration::from_millis(800);
/// From the publisher's start to the first join: a keyframe and some frames are there.
const HEAD_START: Duration = Duration::from_millis(1500);
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(20);

/// What all threads share. The atomics stand for themselves: nothing is ordered by them.
#[derive(Debug)]
struct Run {
    options: LiveOptions,
    window_start_ns: AtomicU64,
    window_end_ns: AtomicU64,
    published: watch::Sender<bool>,
    stop: watch::Sender<bool>,
}

impl Run {
    fn window_start_ns(&self) -> u64 {
        self.window_start_ns.load(Relaxed)
    }

    fn window_end_ns(&self) -> u64 {
        self.window_end_ns.load(Relaxed)
    }

    fn is_measured(&self, clock_ns: u64) -> bool {
        clock_ns >= self.window_start_ns() && clock_ns < self.window_end_ns()
    }
}

/// Runs all phases, prints the report and tells whether it is good.
pub(crate) fn drive(options: LiveOptions) -> Result<bool> {
    let (strict, json) = (options.strict, options.json.clone());
    let report = measure(options)?;
    write!(std::io::stdout().lock(), "{report}")?;
    if let Some(path) = json {
        let text = serde_json::to_string_pretty(&report)?;
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(report.is_useful() && (!strict || report.is_clean()))
}

fn measure(options: LiveOptions) -> Result<LiveReport> {
    let (play, publish) = options.addresses()?;
    let run = Arc::new(Run {
        options,
        window_start_ns: AtomicU64::new(u64::MAX),
        window_end_ns: AtomicU64::new(u64::MAX),
        published: watch::Sender::new(false),
        stop: watch::Sender::new(false),
    });
    let options = &run.options;
    let publisher = publish.map(|address| start_publisher(&run, address)).transpose()?;
    let servers = || options.server_pid.iter().map(|pid| ProcessSample::take(*pid)).collect::<Result<Vec<_>>>();
    let before = servers()?;

    let (probes, crowd): (Vec<u32>, Vec<u32>) = (0..options.players).partition(|number| options.is_probe(*number));
    let first_join = Instant::now();
    let mut threads = vec![start_players(&run, &play, probes, first_join)?];
    for thread in 0..options.threads {
        let share = crowd.iter().copied().filter(|number| number % options.threads == thread).collect();
        threads.push(start_players(&run, &play, share, first_join)?);
    }
    std::thread::sleep(Duration::from_secs_f64(options.join_seconds() + options.warmup));

    let at_begin = (servers()?, ProcessSample::take(std::process::id())?, CoreSample::take()?);
    let start_ns = stamp::clock_ns();
    let duration = Duration::from_secs_f64(options.duration);
    run.window_end_ns.store(start_ns + duration.as_nanos() as u64, Relaxed);
    run.window_start_ns.store(start_ns, Relaxed);
    std::thread::sleep(duration);
    let at_end = (servers()?, ProcessSample::take(std::process::id())?, CoreSample::take()?);
    std::thread::sleep(SETTLE);

    run.stop.send_replace(true);
    let mut outputs = threads.into_iter().map(finish).collect::<Result<Vec<_>>>()?;
    let published = publisher.map(|thread| finish(thread)?).transpose()?;
    let probes = outputs.remove(0);
    let surroundings = Surroundings {
        server: at_begin.0.iter().zip(&at_end.0).map(|(begin, end)| begin.until(end)).collect(),
        rss_before_kb: before.iter().map(|sample| sample.rss_kb).sum(),
        rss_with_players_kb: at_end.0.iter().map(|sample| sample.rss_kb).sum(),
        client: at_begin.1.until(&at_end.1),
        core_busy_percent: at_begin.2.busy_percent_until(&at_end.2),
    };
    Ok(LiveReport::new(&run, probes, outputs, published, surroundings))
}

/// What a thread of players brings home.
struct Output {
    seen: Vec<Seen>,
    /// From the stamp of a picture to its last byte.
    delay: Histogram,
}

fn start_players(
    run: &Arc<Run>,
    play: &Address,
    numbers: Vec<u32>,
    first_join: Instant,
) -> Result<JoinHandle<Result<Output>>> {
    let (run, play) = (run.clone(), play.clone());
    start_thread("players", move || async move {
        let (play, delay) = (Rc::new(play), Rc::new(RefCell::new(Histogram::new())));
        let mut all = Vec::new();
        for number in numbers {
            let seen = Rc::new(RefCell::new(Seen::default()));
            all.push(seen.clone());
            let at = if run.options.join_rate > 0.0 { f64::from(number) / run.options.join_rate } else { 0.0 };
            let player = player::play(run.clone(), play.clone(), seen, delay.clone());
            tokio::task::spawn_local(async move {
                tokio::time::sleep_until((first_join + Duration::from_secs_f64(at)).into()).await;
                player.await;
            });
        }
        // An error would mean that the run has ended.
        let _ = run.stop.subscribe().wait_for(|stop| *stop).await;
        let mut finished = |seen: Rc<RefCell<Seen>>| {
            let mut seen = seen.take();
            seen.finish(&run);
            seen
        };
        let seen = all.into_iter().map(&mut finished).collect();
        Output { seen, delay: delay.take() }
    })
}

fn start_publisher(run: &Arc<Run>, address: Address) -> Result<JoinHandle<Result<Result<PublisherReport>>>> {
    let for_thread = run.clone();
    let thread = start_thread("publisher", move || publisher::publish(for_thread, address))?;
    let give_up = Instant::now() + PUBLISH_TIMEOUT;
    while !*run.published.borrow() {
        if thread.is_finished() {
            finish(thread)??;
            bail!("the publisher ended before its time");
        }
        if Instant::now() > give_up {
            bail!("the publisher could not start");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(HEAD_START);
    Ok(thread)
}

/// Runs a future on a thread of its own.
fn start_thread<F, T>(name: &str, work: impl FnOnce() -> F + Send + 'static) -> Result<JoinHandle<Result<T>>>
where
    F: Future<Output = T>,
    T: Send + 'static,
{
    let body = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(LocalSet::new().block_on(&runtime, work()))
    };
    std::thread::Builder::new().name(name.to_owned()).spawn(body).context("cannot start a thread")
}

fn finish<T>(thread: JoinHandle<Result<T>>) -> Result<T> {
    thread.join().map_err(|_| anyhow!("a thread panicked"))?
}
