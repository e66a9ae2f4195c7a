//! The task that reads a stream and gives its files to the disk.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use freshet_bridge::record::{FileFacts, Output, Recorder};
use freshet_media::{Frame, MediaTime};
use freshet_sfu::CloseReason;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::disk::{Disk, Job, NewFile};
use super::recording::{Recording, State};
use super::{RecordServer, live_request};
use crate::live::{LiveReader, News};

/// How often a stream without news is looked after.
const TICK: Duration = Duration::from_secs(1);
/// The same while no frames come: has the publisher gone, or does it only begin?
const QUIET_TICK: Duration = Duration::from_millis(100);
/// How often it is looked for a publisher that may come back. What it sends in the meantime is cached.
const WAIT_INTERVAL: Duration = Duration::from_millis(250);
/// The same after the stream was refused to us, which changes only with its publisher.
const REFUSED_INTERVAL: Duration = Duration::from_secs(2);
/// After trouble with the disk another file is tried so much later.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// Why a stream is no longer read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    /// The publisher has gone.
    PublisherGone,
    /// Somebody wants the recording to end.
    Stopped,
}

pub(super) struct Pump {
    server: Arc<RecordServer>,
    recording: Arc<Recording>,
    recorder: Recorder,
    disk: Disk,
    disk_ended: oneshot::Receiver<()>,
    stopped: watch::Receiver<bool>,
    /// The stream's newest frame, and when that was looked at: what dates files.
    live_edge: (MediaTime, SystemTime),
}

impl Pump {
    pub(super) fn new(
        server: Arc<RecordServer>,
        recording: Arc<Recording>,
        disk: Disk,
        disk_ended: oneshot::Receiver<()>,
    ) -> Pump {
        let request = recording.request();
        let recorder = Recorder::new(request.format, request.plan);
        let stopped = recording.stopped();
        let live_edge = (MediaTime::default(), SystemTime::now());
        Pump { server, recording, recorder, disk, disk_ended, stopped, live_edge }
    }

    /// Goes on until the recording is stopped or its publisher stays away. `reader` is [`None`] where the stream cannot
    /// be read yet.
    pub(super) async fn run(mut self, reader: Option<LiveReader>) {
        let mut next = reader;
        loop {
            let Some(reader) = next.take() else {
                self.recording.set_state(State::Waiting);
                next = self.wait_for_publisher().await;
                if next.is_none() {
                    break;
                }
                continue;
            };
            self.recording.set_state(State::Recording);
            let left = self.follow(reader).await;
            self.recorder.finish();
            self.carry_out().await;
            if left == Left::Stopped {
                break;
            }
        }
        let Pump { disk, disk_ended, .. } = self;
        drop(disk);
        // The thread's end, however it came.
        let _ = disk_ended.await;
    }

    /// Records one publisher, or several that take over from each other.
    async fn follow(&mut self, mut reader: LiveReader) -> Left {
        let mut frames = Vec::new();
        let mut tick = TICK;
        loop {
            let news = tokio::select! {
                news = reader.next(tick, &mut frames) => news,
                _ = self.stopped.wait_for(|stopped| *stopped) => {
                    reader.leave_for(CloseReason::Deleted);
                    return Left::Stopped;
                }
            };
            let Ok(news) = news else { return Left::Stopped };
            tick = if news.is_live { TICK } else { QUIET_TICK };
            let has_frames = !frames.is_empty();
            reader.status().sent_bytes.add(frames.iter().map(|frame| frame.data.len() as u64).sum());
            self.take(&news, &mut frames).await;
            // A WebRTC publisher's frames begin a moment after it is asked for them.
            if !news.is_live && !has_frames && !self.server.has_publisher(&self.recording.request().key) {
                return Left::PublisherGone;
            }
        }
    }

    async fn take(&mut self, news: &News, frames: &mut Vec<Frame>) {
        self.live_edge = (news.newest, SystemTime::now());
        if news.is_other_publisher {
            self.recorder.finish();
        }
        if news.lost_frames > 0 {
            self.recording.note_lost(news.lost_frames);
        }
        if self.recording.failed_for().is_some_and(|failed| failed >= RETRY_AFTER) {
            self.recorder.cut();
        }
        for frame in frames.drain(..) {
            self.recorder.push(frame);
        }
        self.carry_out().await;
    }

    async fn carry_out(&mut self) {
        while let Some(output) = self.recorder.poll_output() {
            let job = match output {
                Output::Open { start } => Job::Open(Box::new(self.new_file(start))),
                Output::Write { data, duration } => Job::Write(data, duration),
                Output::WriteAt { offset, data } => Job::WriteAt(offset, data),
                Output::Close => Job::Close,
                Output::LeftOut(error) => {
                    self.recording.note_left_out(error.to_string());
                    continue;
                }
            };
            // Without its thread the recording goes on with nothing; the end will say so.
            self.disk.send(job).await;
        }
    }

    fn new_file(&self, start: MediaTime) -> NewFile {
        let key = &self.recording.request().key;
        let (newest, at) = self.live_edge;
        let started_at = at.checked_sub(newest.since(start)).unwrap_or(at);
        let facts =
            FileFacts { key, at: started_at, session: self.recording.id(), number: self.recording.next_number() };
        NewFile { stem: self.server.settings().path.render(&facts), started_at, publisher: self.server.publisher(key) }
    }

    /// [`None`]: nobody comes back in time, or the recording is stopped.
    async fn wait_for_publisher(&mut self) -> Option<LiveReader> {
        let deadline = Instant::now() + self.server.settings().republish_within;
        let request = live_request(&self.recording.request().key);
        loop {
            let pause = match self.server.read(&request) {
                Ok(reader) => {
                    self.recording.set_refusal(None);
                    return Some(reader);
                }
                // Nobody publishes: that is what is waited for.
                Err(refusal) if refusal.status == 404 => WAIT_INTERVAL,
                Err(refusal) => {
                    self.recording.set_refusal(Some(refusal.detail));
                    REFUSED_INTERVAL
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = self.stopped.wait_for(|stopped| *stopped) => return None,
            }
            if Instant::now() >= deadline {
                return None;
            }
        }
    }
}
