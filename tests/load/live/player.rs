//! One player: connects, then counts and measures what comes.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::ready;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncRead as _, AsyncReadExt as _, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;

use super::Run;
use super::address::{Address, Protocol};
use super::amf;
use super::chunk::{ACKNOWLEDGEMENT, COMMAND, ChunkReader, DEFAULT_CHUNK_SIZE, Head, WINDOW_ACK_SIZE};
use super::client::{self, Aim, Connection};
use super::flv::{Dechunker, TagReader};
use super::mark::{Arrived, VIDEO};
use crate::stamp::clock_ns_at;
use crate::tally::{Histogram, SeqWindow};

/// A step of the pictures' time that no frame rate of use makes.
const JUMP_MS: u32 = 100;
const READ_BYTES: usize = 256 * 1024;
const MAX_HTTP_HEAD_BYTES: usize = 16 * 1024;
const HTTP_TIMEOUT: Duration = Duration::from_secs(15);

thread_local! {
    /// One for all players of a thread: nothing is kept between two reads.
    static READ_BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

/// What a player saw; counts are of the measured span.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) failure: Option<String>,
    pub(super) connected: bool,
    /// From the beginning of the connection.
    pub(super) first_keyframe: Option<Duration>,
    pub(super) bytes: u64,
    pub(super) reads: u64,
    pub(super) video_messages: u64,
    pub(super) audio_messages: u64,
    pub(super) video: SeqWindow,
    pub(super) audio: SeqWindow,
    /// Steps of the pictures' time that are too long.
    pub(super) jumps: u64,
    pub(super) longest_gap_ns: u64,
    last_read_ns: u64,
    last_video_ms: Option<u32>,
}

impl Seen {
    fn note_read(&mut self, run: &Run, now_ns: u64, bytes: usize) {
        if run.is_measured(now_ns) {
            self.bytes += bytes as u64;
            self.reads += 1;
            let before = self.last_read_ns.max(run.window_start_ns());
            self.longest_gap_ns = self.longest_gap_ns.max(now_ns - before);
        }
        self.last_read_ns = now_ns;
    }

    /// The silence up to the end counts too.
    pub(super) fn finish(&mut self, run: &Run) {
        let before = self.last_read_ns.max(run.window_start_ns());
        self.longest_gap_ns = self.longest_gap_ns.max(run.window_end_ns().saturating_sub(before));
    }

    fn note_media(&mut self, run: &Run, now_ns: u64, message: &Arrived<'_>, delay: &mut Histogram) {
        let is_video = message.kind == VIDEO;
        let is_measured = run.is_measured(now_ns);
        if is_measured {
            *(if is_video { &mut self.video_messages } else { &mut self.audio_messages }) += 1;
        }
        if is_video {
            let step = self.last_video_ms.map(|last| message.timestamp_ms.wrapping_sub(last));
            self.jumps += u64::from(is_measured && step.is_some_and(|step| step > JUMP_MS));
            self.last_video_ms = Some(message.timestamp_ms);
        }
        let Some(stamp) = message.mark.stamp().filter(|stamp| run.is_measured(stamp.clock_ns)) else { return };
        (if stamp.video { &mut self.video } else { &mut self.audio }).record(stamp.packet);
        if stamp.video {
            delay.record(Duration::from_nanos(now_ns.saturating_sub(stamp.clock_ns)));
        }
    }
}

/// Plays until the task is dropped, or until it cannot go on.
pub(super) async fn play(run: Arc<Run>, address: Rc<Address>, seen: Rc<RefCell<Seen>>, delay: Rc<RefCell<Histogram>>) {
    let player =
        Player { run, seen: seen.clone(), delay, start: Instant::now(), window: 0, unacknowledged: 0, total: 0 };
    if let Err(error) = player.play(&address).await {
        let mut seen = seen.borrow_mut();
        seen.failure = Some(format!("{error:#}"));
    }
}

/// How media comes.
enum Wire {
    Rtmp(ChunkReader),
    Flv { dechunker: Option<Dechunker>, tags: TagReader },
}

struct Player {
    run: Arc<Run>,
    seen: Rc<RefCell<Seen>>,
    delay: Rc<RefCell<Histogram>>,
    start: Instant,
    /// Bytes after which the server wants to hear from us (§5.4.3); 0: never.
    window: u32,
    unacknowledged: u32,
    total: u32,
}

impl Player {
    async fn play(mut self, address: &Address) -> Result<()> {
        let (mut socket, mut wire) = match &address.protocol {
            Protocol::Rtmp { app, stream } => {
                let Connection { socket, reader, .. } =
                    client::connect(&address.authority, app, stream, Aim::Play).await?;
                (socket, Wire::Rtmp(reader))
            }
            Protocol::Flv { path } => {
                let asked = tokio::time::timeout(HTTP_TIMEOUT, self.get(&address.authority, path));
                asked.await.context("no answer to the HTTP request")??
            }
        };
        self.seen.borrow_mut().connected = true;
        loop {
            let length = poll_fn(|context| {
                READ_BUFFER.with_borrow_mut(|buffer| {
                    let mut buffer = ReadBuf::new(buffer);
                    ready!(Pin::new(&mut socket).poll_read(context, &mut buffer))?;
                    std::task::Poll::Ready(self.take(&mut wire, buffer.filled()))
                })
            })
            .await?;
            if length == 0 {
                bail!("the server closed the connection");
            }
            self.acknowledge(&mut socket).await?;
        }
    }

    /// §5.4.3, as players do.
    async fn acknowledge(&mut self, socket: &mut TcpStream) -> Result<()> {
        if self.window > 0 && self.unacknowledged >= self.window {
            let mut out = Vec::new();
            Head::control(ACKNOWLEDGEMENT).put(&mut out, &self.total.to_be_bytes(), DEFAULT_CHUNK_SIZE);
            socket.write_all(&out).await?;
            self.unacknowledged = 0;
        }
        Ok(())
    }

    /// Takes what one read gave and tells its length.
    fn take(&mut self, wire: &mut Wire, bytes: &[u8]) -> Result<usize> {
        let now = Instant::now();
        let now_ns = clock_ns_at(now);
        self.total = self.total.wrapping_add(bytes.len() as u32);
        self.unacknowledged = self.unacknowledged.saturating_add(bytes.len() as u32);
        let (mut seen, mut delay) = (self.seen.borrow_mut(), self.delay.borrow_mut());
        seen.note_read(&self.run, now_ns, bytes.len());
        let (window, mut refusal) = (&mut self.window, None);
        let mut sink = |message: Arrived<'_>| {
            if message.is_media() {
                if message.is_keyframe() && seen.first_keyframe.is_none() {
                    seen.first_keyframe = Some(now - self.start);
                }
                seen.note_media(&self.run, now_ns, &message, &mut delay);
            } else if message.kind == COMMAND {
                refusal = client::refusal(&amf::items(message.body)).or(refusal.take());
            } else if let (WINDOW_ACK_SIZE, Some(size)) = (message.kind, message.body.first_chunk()) {
                *window = u32::from_be_bytes(*size);
            }
        };
        match wire {
            Wire::Rtmp(reader) => reader.feed(bytes, &mut sink)?,
            Wire::Flv { dechunker: None, tags } => tags.feed(bytes, &mut sink)?,
            Wire::Flv { dechunker: Some(dechunker), tags } => {
                dechunker.feed(bytes, &mut |bytes| tags.feed(bytes, &mut sink))?;
                if dechunker.has_ended() {
                    bail!("the server ended the answer");
                }
            }
        }
        match refusal {
            Some(refusal) => bail!("playing was refused: {refusal}"),
            None => Ok(bytes.len()),
        }
    }

    /// Asks for the stream over HTTP and takes what comes with the head.
    async fn get(&mut self, authority: &str, path: &str) -> Result<(TcpStream, Wire)> {
        let mut socket =
            TcpStream::connect(authority).await.with_context(|| format!("cannot connect to {authority}"))?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {authority}\r\nAccept: */*\r\n\r\n");
        socket.write_all(request.as_bytes()).await?;
        let mut head = Vec::new();
        let end = loop {
            if socket.read_buf(&mut head).await? == 0 {
                bail!("the server closed the connection");
            }
            if let Some(at) = head.windows(4).position(|four| four == b"\r\n\r\n") {
                break at;
            }
            if head.len() > MAX_HTTP_HEAD_BYTES {
                bail!("the answer's head has no end");
            }
        };
        let text = String::from_utf8_lossy(&head[..end]).to_ascii_lowercase();
        let status = text.split_whitespace().nth(1).unwrap_or_default();
        if status != "200" {
            bail!("the server answered {status}");
        }
        let is_chunked = text.lines().any(|line| line.starts_with("transfer-encoding:") && line.contains("chunked"));
        let mut wire = Wire::Flv { dechunker: is_chunked.then(Dechunker::default), tags: TagReader::new() };
        self.take(&mut wire, &head[end + 4..])?;
        Ok((socket, wire))
    }
}
