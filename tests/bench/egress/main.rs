//! `cargo bench -p freshet-tests --bench egress-bench`: the sending half of the server against str0m's own and against
//! the floor, in one run, on one thread, in processor time.
//!
//! `StreamTx` sends twice: every datagram as a message of its own, as a server on it would without this one's batches, and
//! in this one's batches.
//!
//! Where packets go: into memory only (`--sink memory`), to loopback addresses that nobody reads (`--sink loopback`), or
//! to a network that only takes (`--sink 10.99.0.0 --source 10.99.0.1` in a name space with an `ifb` device, see
//! `docs/limits.md`). The shard, its sessions and the socket are the server's; nothing here is part of the product.

#![deny(unsafe_code)]
#![allow(missing_docs, clippy::print_stdout, reason = "a bench prints")]

#[path = "../../../src/server/src/bench/peer.rs"]
mod peer;
#[path = "../../../src/server/src/bench/sink.rs"]
mod sink;
#[path = "../../../src/server/src/bench/stage.rs"]
#[allow(unused_imports, reason = "its tests run in the server's package")]
mod stage;
#[path = "../../../src/server/src/udp.rs"]
#[allow(dead_code, reason = "the bench only sends")]
mod udp;

mod floor;
mod stream_tx;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Parser;
use freshet_sfu::{Path, Protocol, SendBatch};

use crate::floor::FloorViewer;
use crate::peer::Media;
use crate::sink::Sink;
use crate::stage::{Addresses, Stage, Usage, h264, resident_bytes};
use crate::stream_tx::StreamTxViewer;
use crate::udp::{MediaSocket, SendBuffers, thread_cpu_time};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PAYLOAD_BYTES: usize = 1200;
/// More than str0m's resend cache holds.
const WARM_UP_PACKETS: u64 = 1200;
/// 250 packets a second.
const PACKET_INTERVAL: Duration = Duration::from_millis(4);

#[derive(Parser)]
struct Args {
    #[arg(long, value_delimiter = ',', default_values_t = [100, 1000, 2000])]
    viewers: Vec<u32>,
    /// Packets that arrive together
    #[arg(long, value_delimiter = ',', default_values_t = [8, 4])]
    batch: Vec<usize>,
    #[arg(long, default_value_t = 7)]
    repetitions: usize,
    /// Packets of one repetition, for all viewers together
    #[arg(long, default_value_t = 200_000)]
    packets: u64,
    /// memory, loopback, or the IPv4 network that viewers are in
    #[arg(long, default_value = "loopback")]
    sink: String,
    /// Our address, for a network
    #[arg(long, default_value = "127.0.0.1")]
    source: Ipv4Addr,
    /// Give `StreamTx` fewer extensions and a shorter resend cache
    #[arg(long)]
    tuned: bool,
    /// Only our own path, for a profiler
    #[arg(long)]
    ours_only: bool,
    /// Cargo passes it
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let memory_only = args.sink == "memory";
    let source = if let Ok(IpAddr::V4(_)) = args.sink.parse() { args.source } else { Ipv4Addr::LOCALHOST };
    let sink = Sink::open()?;
    let (base, port) = match args.sink.parse::<Ipv4Addr>() {
        Ok(network) => (Ipv4Addr::from(u32::from(network) + 256), 9),
        Err(_) => (Ipv4Addr::new(127, 1, 0, 0), sink.port),
    };
    let socket = udp::bind(SocketAddr::from((source, 0)), 1)?.remove(0);
    let plain = udp::bind(SocketAddr::from((source, 0)), 1)?.remove(0);
    plain.give_up_offload();
    let addresses = Addresses { server: socket.local_addr()?, viewers: (base, port) };
    let outlet = |socket: MediaSocket| Outlet { socket: (!memory_only).then_some(socket), buffers: SendBuffers::new() };
    let mut out = Outlets { segmented: outlet(socket), plain: outlet(plain) };
    println!(
        "sink {}, {PAYLOAD_BYTES} B payload, median of {} [least..most], ns of thread CPU per packet",
        args.sink, args.repetitions
    );
    println!(
        "{:>7} {:>5}  {:>22} {:>22} {:>22} {:>22} {:>8} {:>10} {:>8} {:>7}",
        "viewers",
        "batch",
        "shard",
        "StreamTx",
        "StreamTx segmented",
        "floor",
        "/plain",
        "/segmented",
        "floor/",
        "p99 ms"
    );
    for viewers in &args.viewers {
        measure(&args, *viewers, addresses, &mut out)?;
    }
    Ok(())
}

/// With and without segmentation offload.
struct Outlets {
    segmented: Outlet,
    plain: Outlet,
}

/// Sends a batch, unless it is to stay in memory.
struct Outlet {
    socket: Option<MediaSocket>,
    buffers: SendBuffers,
}

impl Outlet {
    fn send(&mut self, batch: &SendBatch) -> u64 {
        self.socket.as_ref().map_or(0, |s| s.send(batch, &mut self.buffers).calls)
    }
}

fn measure(args: &Args, viewers: u32, addresses: Addresses, outlets: &mut Outlets) -> anyhow::Result<()> {
    let Outlets { segmented: out, plain } = outlets;
    let mut stage = Stage::new(addresses)?;
    let mut ours = Source::default();
    stage.join()?;
    for _ in 0..500 {
        ours.forward(&mut stage, 8, &mut Usage::default(), out)?;
    }
    let empty = resident_bytes()?;
    let mut joins = Vec::new();
    for _ in 1..viewers {
        joins.push(stage.join()?);
    }
    ours.keyframe_due = true;
    for _ in 0..20 {
        ours.forward(&mut stage, 8, &mut Usage::default(), out)?;
    }
    let kilobytes = resident_bytes()?.saturating_sub(empty) / 1024 / u64::from(viewers - 1).max(1);
    joins.sort_unstable();
    let micros = |percent: usize| joins.get(joins.len() * percent / 100).map_or(0, Duration::as_micros);
    println!(
        "{viewers:>7}        {kilobytes} KB resident a viewer; set-up {} µs of CPU, p99 {} µs",
        micros(50),
        micros(99)
    );
    let mut others = if args.ours_only { None } else { Some(Others::new(viewers, args.tuned, addresses)?) };
    for batch in &args.batch {
        let rounds = (args.packets / u64::from(viewers) / *batch as u64).max(4);
        let mut figures: [Vec<f64>; 4] = Default::default();
        let mut delays = Vec::new();
        for _ in 0..args.repetitions {
            let mut usage = Usage::default();
            for _ in 0..rounds {
                ours.forward(&mut stage, *batch, &mut usage, out)?;
            }
            figures[0].push((usage.shard + usage.send).as_nanos() as f64 / usage.packets as f64);
            delays.push(usage.p99_delay().as_secs_f64() * 1e3);
            if let Some(others) = &mut others {
                figures[1].push(others.stream_tx(rounds / 2, *batch, plain)?);
                figures[2].push(others.stream_tx(rounds / 2, *batch, out)?);
                figures[3].push(others.floor(rounds, *batch, out)?);
            }
        }
        let [shard, plain_tx, stream_tx, floor] = figures.map(Spread::new);
        let (to_plain, to_segmented) = (shard.median / plain_tx.median, shard.median / stream_tx.median);
        let of_floor = floor.median / shard.median;
        println!(
            "{viewers:>7} {batch:>5}  {shard} {plain_tx} {stream_tx} {floor} {to_plain:>8.2} {to_segmented:>10.2} {of_floor:>8.2} {:>7.2}",
            Spread::new(delays).median
        );
    }
    Ok(())
}

/// The publisher's side of our path.
#[derive(Default)]
struct Source {
    burst: Vec<Media>,
    count: u32,
    keyframe_due: bool,
}

impl Source {
    fn forward(&mut self, stage: &mut Stage, batch: usize, usage: &mut Usage, out: &mut Outlet) -> anyhow::Result<()> {
        let keyframe = std::mem::take(&mut self.keyframe_due) || self.count == 0;
        self.count += 1;
        self.burst = burst(batch, self.count, keyframe);
        stage.play(PACKET_INTERVAL * batch as u32, &self.burst, usage, |b| out.send(b))
    }
}

fn burst(batch: usize, count: u32, keyframe: bool) -> Vec<Media> {
    let packet = |i| Media {
        is_video: true,
        timestamp: count.wrapping_mul(3000),
        marker: i + 1 == batch,
        payload: h264(PAYLOAD_BYTES, keyframe, i == 0, i + 1 == batch),
    };
    (0..batch).map(packet).collect()
}

/// What ours is compared with.
struct Others {
    stream_tx: Vec<StreamTxViewer>,
    floor: Vec<FloorViewer>,
    scratch: Vec<u8>,
    batch: SendBatch,
    now: Instant,
    count: u32,
}

impl Others {
    fn new(viewers: u32, tuned: bool, addresses: Addresses) -> anyhow::Result<Others> {
        let now = Instant::now();
        let config = stream_tx::config(tuned)?;
        let remotes = (1..=viewers).map(|i| addresses.peer(i));
        let path = |remote| Path { protocol: Protocol::Udp, remote, local: addresses.server.ip() };
        let stream_tx = remotes.clone().map(|r| StreamTxViewer::connect(&config, tuned, addresses.server, r, now));
        let floor = remotes.zip(0..).map(|(r, i)| FloorViewer::new(i, path(r)));
        let mut others = Others {
            stream_tx: stream_tx.collect::<anyhow::Result<_>>().context("StreamTx")?,
            floor: floor.collect::<anyhow::Result<_>>()?,
            scratch: FloorViewer::scratch(PAYLOAD_BYTES),
            batch: SendBatch::default(),
            now: now + Duration::from_secs(10),
            count: 0,
        };
        // Resend caches fill, and their memory is not paid for while measuring.
        let mut nowhere = Outlet { socket: None, buffers: SendBuffers::new() };
        others.stream_tx(WARM_UP_PACKETS / 8, 8, &mut nowhere)?;
        Ok(others)
    }

    fn stream_tx(&mut self, rounds: u64, batch: usize, out: &mut Outlet) -> anyhow::Result<f64> {
        let (mut spent, mut packets) = (Duration::ZERO, 0);
        for _ in 0..rounds.max(4) {
            self.now += PACKET_INTERVAL * batch as u32;
            self.count += 1;
            let burst = burst(batch, self.count, false);
            let start = thread_cpu_time();
            for viewer in &mut self.stream_tx {
                packets += viewer.forward(self.now, &burst, &mut self.batch)?;
                flush(&mut self.batch, out, false);
            }
            flush(&mut self.batch, out, true);
            spent += thread_cpu_time() - start;
        }
        Ok(spent.as_nanos() as f64 / packets as f64)
    }

    fn floor(&mut self, rounds: u64, batch: usize, out: &mut Outlet) -> anyhow::Result<f64> {
        let (mut spent, mut packets) = (Duration::ZERO, 0);
        for _ in 0..rounds {
            let start = thread_cpu_time();
            for viewer in &mut self.floor {
                packets += viewer.forward(batch, &mut self.scratch, &mut self.batch)?;
                flush(&mut self.batch, out, false);
            }
            flush(&mut self.batch, out, true);
            spent += thread_cpu_time() - start;
        }
        Ok(spent.as_nanos() as f64 / packets as f64)
    }
}

fn flush(batch: &mut SendBatch, out: &mut Outlet, always: bool) {
    if batch.is_full() || (always && !batch.is_empty()) {
        out.send(batch);
        batch.clear();
    }
}

/// Median, least and most.
struct Spread {
    median: f64,
    least: f64,
    most: f64,
}

impl Spread {
    fn new(mut values: Vec<f64>) -> Spread {
        values.sort_unstable_by(f64::total_cmp);
        let at = |i: usize| values.get(i).copied().unwrap_or(f64::NAN);
        Spread { median: at(values.len() / 2), least: at(0), most: at(values.len().saturating_sub(1)) }
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:>7.0} [{:>5.0}..{:>5.0}]", self.median, self.least, self.most)
    }
}
