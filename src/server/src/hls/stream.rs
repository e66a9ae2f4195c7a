//! One stream that is being cut: what requests see of it, and the task that feeds it.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use freshet_bridge::hls::{Encryption, Key, Playlist, Segmenter};
use freshet_media::{Frame, StreamKey};
use freshet_sfu::{CloseReason, SessionStatus};
use tokio::sync::Notify;
use tracing::{info, warn};

use super::disk::Disk;
use super::{HlsSettings, PlaylistView};
use crate::engine::Refusal;
use crate::live::{LiveReader, News};
use crate::srs_code as code;

/// A stream is asked for again within two windows, or nobody watches it (SRS's rule).
const IDLE_WINDOWS: u32 = 2;
/// How often a stream without news is looked after.
const TICK: Duration = Duration::from_secs(1);
/// Bad frames are logged for the first ones of a stream only.
const MAX_COMPLAINTS: u32 = 8;

/// One stream.
pub(super) struct HlsStream {
    key: StreamKey,
    inner: Mutex<Inner>,
    news: Notify,
    status: Arc<SessionStatus>,
}

struct Inner {
    segmenter: Segmenter,
    asked_at: Instant,
    /// Nothing more will come, and the stream is no longer in the table, or soon will not be.
    is_closed: bool,
}

impl HlsStream {
    pub(super) fn new(
        key: StreamKey,
        settings: &HlsSettings,
        first_sequence: u64,
        status: &Arc<SessionStatus>,
    ) -> Arc<HlsStream> {
        let segmenter = Segmenter::new(settings.options.clone(), first_sequence);
        let segmenter = match settings.segments_per_key {
            Some(segments) => segmenter.with_encryption(Encryption::new(&rand::random(), segments)),
            None => segmenter,
        };
        Arc::new(HlsStream {
            key,
            inner: Mutex::new(Inner { segmenter, asked_at: Instant::now(), is_closed: false }),
            news: Notify::new(),
            status: Arc::clone(status),
        })
    }

    pub(super) fn key(&self) -> &StreamKey {
        &self.key
    }

    /// Notes that somebody asks. False: too late, the stream is closed.
    pub(super) fn touch(&self) -> bool {
        let mut inner = self.lock();
        inner.asked_at = Instant::now();
        !inner.is_closed
    }

    /// Waits for the first segments.
    pub(super) async fn playlist(&self, view: &PlaylistView) -> Result<String, Refusal> {
        loop {
            let mut told = pin!(self.news.notified());
            // From here on nothing that happens is missed.
            told.as_mut().enable();
            if let Some(answer) = self.look(view) {
                return answer;
            }
            told.await;
        }
    }

    fn look(&self, view: &PlaylistView) -> Option<Result<String, Refusal>> {
        let inner = self.lock();
        let playlist = inner.segmenter.playlist();
        let is_enough = playlist.len() >= view.min_segments || playlist.has_ended();
        if is_enough && !playlist.is_empty() {
            let text = playlist.render(&view.name, &view.query);
            self.status.sent_bytes.add(text.len() as u64);
            return Some(Ok(text));
        }
        if let Some(error) = inner.segmenter.unplayable() {
            let detail = format!("{} cannot be played as HLS: {error}", self.key);
            let hint = "publish with H.264 and AAC, or play it over WebRTC or HTTP-FLV";
            return Some(Err(Refusal::new(406, code::CODEC, "no-crossing", detail, hint)));
        }
        let detail = || format!("{} ended before there was a segment of it", self.key);
        let refusal = || Refusal::new(404, code::NO_PUBLISHER, "stream-absent", detail(), "ask again");
        inner.is_closed.then(|| Err(refusal().retry_after(1)))
    }

    pub(super) fn segment(&self, sequence: u64) -> Option<Bytes> {
        let mut inner = self.lock();
        inner.asked_at = Instant::now();
        let data = inner.segmenter.playlist().segment(sequence)?.data.clone();
        self.status.sent_bytes.add(data.len() as u64);
        Some(data)
    }

    /// A key by its name.
    pub(super) fn encryption_key(&self, name: u64) -> Option<Key> {
        self.lock().segmenter.playlist().key(name)
    }

    /// What players see now, and whether nothing more will come.
    pub(super) fn snapshot(&self) -> (Playlist, bool) {
        let inner = self.lock();
        (inner.segmenter.playlist().clone(), inner.is_closed)
    }

    /// Nothing more will come.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.news.notify_waiters();
    }

    /// Closes a stream that nobody has asked for.
    fn close_if_idle(&self, for_at_least: Duration) -> bool {
        let mut inner = self.lock();
        // Under the same lock as `touch`: nobody is told that a stream goes on which then does not.
        inner.is_closed |= inner.asked_at.elapsed() >= for_at_least;
        inner.is_closed
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic within leaves at worst a segment with a frame too few.
        self.inner.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// The task that reads a stream's frames.
pub(super) struct Pump {
    stream: Arc<HlsStream>,
    reader: LiveReader,
    settings: HlsSettings,
    /// Since when there has been no publisher.
    gone_at: Option<Instant>,
    has_ended: bool,
    complaints: u32,
    /// Told of every change of the playlist.
    disk: Option<Arc<Disk>>,
    /// What the disk was told of: the number of the newest segment, and whether the stream is over.
    told: (u64, bool),
}

impl Pump {
    pub(super) fn new(stream: Arc<HlsStream>, reader: LiveReader, settings: HlsSettings) -> Pump {
        Pump { stream, reader, settings, gone_at: None, has_ended: false, complaints: 0, disk: None, told: (0, false) }
    }

    /// Keeps files of the stream too.
    pub(super) fn with_disk(self, disk: Option<Arc<Disk>>) -> Pump {
        Pump { disk, ..self }
    }

    /// Goes on until nobody asks any more, the stream is over, or the server ends the session.
    pub(super) async fn run(mut self) {
        let mut frames = Vec::new();
        loop {
            let Ok(news) = self.reader.next(TICK, &mut frames).await else { break };
            self.take(&news, &mut frames);
            let is_over = self.is_over(&news);
            self.tell_disk();
            if is_over {
                self.reader.leave_for(CloseReason::PeerClosed);
                break;
            }
        }
    }

    fn take(&mut self, news: &News, frames: &mut Vec<Frame>) {
        let now = SystemTime::now();
        let mut complaints = Vec::new();
        {
            let mut inner = self.stream.lock();
            let segmenter = &mut inner.segmenter;
            if news.is_other_publisher {
                segmenter.start_over();
            }
            for frame in frames.drain(..) {
                let live_at = now.checked_sub(news.newest.since(frame.dts)).unwrap_or(now);
                complaints.extend(segmenter.push(frame, live_at).err());
            }
            if !news.is_live && self.gone_at.is_none() {
                segmenter.finish();
            }
        }
        self.stream.news.notify_waiters();
        if news.lost_frames > 0 {
            warn!(stream = %self.stream.key, frames = news.lost_frames, "HLS is made too slowly: frames are left out");
        }
        for error in complaints {
            self.complaints += 1;
            if self.complaints <= MAX_COMPLAINTS {
                info!(stream = %self.stream.key, "left out of HLS: {error}");
            }
        }
    }

    fn tell_disk(&mut self) {
        let Some(disk) = &self.disk else { return };
        let present = {
            let inner = self.stream.lock();
            let playlist = inner.segmenter.playlist();
            (playlist.segments().last().map_or(0, |segment| segment.sequence), playlist.has_ended())
        };
        if present != self.told {
            self.told = present;
            disk.tell(&self.stream);
        }
    }

    fn is_over(&mut self, news: &News) -> bool {
        if news.is_live {
            (self.gone_at, self.has_ended) = (None, false);
        }
        let gone_for = (!news.is_live).then(|| self.gone_at.get_or_insert_with(Instant::now).elapsed());
        let (dispose, window) = (self.settings.dispose, self.settings.options.window);
        if !self.has_ended && gone_for.is_some_and(|gone| gone >= dispose) {
            self.has_ended = true;
            self.stream.lock().segmenter.end();
        }
        // Who is in the middle of it may see it to its end.
        if gone_for.is_some_and(|gone| gone >= dispose + window) {
            return true;
        }
        !self.settings.is_cut_unasked() && self.stream.close_if_idle(window * IDLE_WINDOWS)
    }
}
