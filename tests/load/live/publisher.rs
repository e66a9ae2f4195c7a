//! An RTMP publisher whose media says when it was sent.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::Run;
use super::address::{Address, Protocol};
use super::chunk::Head;
use super::client::{self, Aim, Connection, PUBLISHER_CHUNK_SIZE};
use super::mark::{AUDIO, VIDEO};
use super::source::Source;
use crate::stamp::clock_ns;
use crate::tally::Histogram;

/// What was sent in the measured span.
#[derive(Debug, Clone, Serialize)]
pub(super) struct PublisherReport {
    pub(super) video: u64,
    pub(super) audio: u64,
    /// How late messages left.
    #[serde(skip)]
    pub(super) lag: Histogram,
}

/// Publishes until the run ends. `started` is told when the server has agreed.
pub(super) async fn publish(run: Arc<Run>, address: Address) -> Result<PublisherReport> {
    let Protocol::Rtmp { app, stream } = &address.protocol else { bail!("publishing is by RTMP only") };
    let connection = client::connect(&address.authority, app, stream, Aim::Publish).await.context("publisher")?;
    let Connection { socket, stream_id, .. } = connection;
    let (mut reader, mut writer) = socket.into_split();
    let mut stop = run.stop.subscribe();
    run.published.send_replace(true);
    let listen = async {
        let mut bytes = [0; 4096];
        while reader.read(&mut bytes).await? > 0 {}
        bail!("the server closed the publisher's connection")
    };
    let mut report = PublisherReport { video: 0, audio: 0, lag: Histogram::new() };
    let speak = async {
        let mut wire = Wire { stream_id, out: Vec::new() };
        let options = &run.options;
        let mut source = Source::new(options.video_kbps, options.audio_kbps, options.fps, options.keyframe_seconds);
        let (video, audio) = Source::configs();
        wire.put(VIDEO, 0, &video);
        wire.put(AUDIO, 0, &audio);
        let start = Instant::now();
        loop {
            writer.write_all(&wire.out).await?;
            wire.out.clear();
            let (video_us, audio_us) = source.due_us();
            let due_us = video_us.min(audio_us);
            let due = start + Duration::from_micros(due_us);
            tokio::time::sleep_until(due.into()).await;
            let clock = clock_ns();
            let is_video = video_us <= audio_us;
            let (kind, body) =
                if is_video { (VIDEO, source.next_video(clock)) } else { (AUDIO, source.next_audio(clock)) };
            wire.put(kind, (due_us / 1000) as u32, &body);
            if run.is_measured(clock) {
                *(if is_video { &mut report.video } else { &mut report.audio }) += 1;
                report.lag.record(due.elapsed());
            }
        }
    };
    tokio::select! {
        ended = listen => return ended,
        ended = speak => return ended,
        _ = stop.wait_for(|stop| *stop) => {}
    }
    Ok(report)
}

struct Wire {
    stream_id: u32,
    out: Vec<u8>,
}

impl Wire {
    fn put(&mut self, kind: u8, timestamp_ms: u32, body: &[u8]) {
        let head = Head { chunk_stream: 4 + (kind == VIDEO) as u8 * 2, kind, stream_id: self.stream_id, timestamp_ms };
        head.put(&mut self.out, body, PUBLISHER_CHUNK_SIZE);
    }
}
