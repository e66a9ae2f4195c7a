//! One stream that is being cut, as requests see it: they wait here for what is not there yet.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use freshet_media::{Frame, StreamKey};
use freshet_sfu::SessionStatus;
use tokio::sync::Notify;

use super::HlsSettings;
use super::disk::Disk;
use super::text::{PlaylistText, TextName, Texts};
use crate::engine::Refusal;
use crate::srs_code as code;

/// What makes segments of frames.
pub(super) trait Cut: Sized + Send + 'static {
    /// Of a stream whose first segment will have that number.
    fn new(settings: &HlsSettings, first_sequence: u64) -> Self;
    /// Takes a frame, which was live at that time. The error says why it is left out.
    fn push(&mut self, frame: Frame, live_at: SystemTime) -> Result<(), String>;
    /// Another publisher comes.
    fn start_over(&mut self);
    /// The publisher has gone.
    fn finish(&mut self);
    /// The publisher will not come back.
    fn end(&mut self);
    /// Why nothing of the stream can be played, once that is sure.
    fn unplayable(&self) -> Option<String>;
    /// A segment waits for nothing but a keyframe.
    fn wants_keyframe(&self) -> bool;
    /// Differs whenever there is something new for players.
    fn progress(&self) -> Progress;
    /// Streams are cut so without being asked for.
    fn is_cut_unasked(settings: &HlsSettings) -> bool;
    /// There is something new for files, if any are kept of such segments.
    fn tell_disk(stream: &Arc<HlsStream<Self>>, disk: &Disk);
}

/// How far a stream has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// The number that the next segment will have; 0 where there has been none.
    pub(super) segment: u64,
    /// The number that the next part will have.
    pub(super) part: u64,
    pub(super) has_ended: bool,
    pub(super) is_unplayable: bool,
}

/// One stream.
pub(super) struct HlsStream<C> {
    key: StreamKey,
    inner: Mutex<Inner<C>>,
    news: Notify,
    status: Arc<SessionStatus>,
}

/// What the lock of a stream guards.
pub(super) struct Inner<C> {
    pub(super) cut: C,
    texts: Texts,
    progress: Progress,
    asked_at: Instant,
    /// Nothing more will come, and the stream is no longer in the table, or soon will not be.
    pub(super) is_closed: bool,
}

impl<C: Cut> Inner<C> {
    /// A text of the present state.
    pub(super) fn text(&mut self, name: &TextName, write: impl FnOnce(&C) -> String) -> Arc<PlaylistText> {
        let cut = &self.cut;
        self.texts.get(name, || write(cut))
    }

    /// Why nothing will come that is worth waiting for, if so.
    pub(super) fn refusal(&self, key: &StreamKey) -> Option<Refusal> {
        if let Some(error) = self.cut.unplayable() {
            let detail = format!("{key} cannot be played as HLS: {error}");
            let hint = "publish with H.264 and AAC, or play it over WebRTC or HTTP-FLV";
            return Some(Refusal::new(406, code::CODEC, "no-crossing", detail, hint));
        }
        let detail = || format!("{key} ended before there was a segment of it");
        let refusal = || Refusal::new(404, code::NO_PUBLISHER, "stream-absent", detail(), "ask again");
        self.is_closed.then(|| refusal().retry_after(1))
    }
}

impl<C: Cut> HlsStream<C> {
    pub(super) fn new(key: StreamKey, cut: C, status: &Arc<SessionStatus>) -> Arc<HlsStream<C>> {
        let inner = Inner {
            cut,
            texts: Texts::default(),
            progress: Progress::default(),
            asked_at: Instant::now(),
            is_closed: false,
        };
        Arc::new(HlsStream { key, inner: Mutex::new(inner), news: Notify::new(), status: Arc::clone(status) })
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

    /// Looks at every change until there is an answer.
    pub(super) async fn wait_for<T>(&self, mut look: impl FnMut(&mut Inner<C>) -> Option<T>) -> T {
        loop {
            let mut told = pin!(self.news.notified());
            // From here on nothing that happens is missed.
            told.as_mut().enable();
            if let Some(answer) = look(&mut self.lock()) {
                return answer;
            }
            told.await;
        }
    }

    /// Counts what is sent.
    pub(super) fn sending(&self, data: Bytes) -> Bytes {
        self.status.sent_bytes.add(data.len() as u64);
        data
    }

    /// Counts a text that is sent.
    pub(super) fn sending_text(&self, text: Arc<PlaylistText>) -> Arc<PlaylistText> {
        self.status.sent_bytes.add(text.len() as u64);
        text
    }

    /// Lets a change happen, and tells those who wait if it is one that they see. Returns whether it is.
    pub(super) fn change(&self, change: impl FnOnce(&mut C)) -> bool {
        let is_news = {
            let mut inner = self.lock();
            change(&mut inner.cut);
            let progress = inner.cut.progress();
            let is_news = std::mem::replace(&mut inner.progress, progress) != progress;
            if is_news {
                inner.texts.clear();
            }
            is_news
        };
        if is_news {
            self.news.notify_waiters();
        }
        is_news
    }

    /// Nothing more will come. Returns the number that the next segment would have had.
    pub(super) fn close(&self) -> u64 {
        let next = {
            let mut inner = self.lock();
            inner.is_closed = true;
            inner.cut.progress().segment
        };
        self.news.notify_waiters();
        next
    }

    /// Closes a stream that nobody has asked for.
    pub(super) fn close_if_idle(&self, for_at_least: Duration) -> bool {
        let mut inner = self.lock();
        // Under the same lock as `touch`: nobody is told that a stream goes on which then does not.
        inner.is_closed |= inner.asked_at.elapsed() >= for_at_least;
        inner.is_closed
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner<C>> {
        // A panic within leaves at worst a segment with a frame too few.
        self.inner.lock().unwrap_or_else(|e| e.into_inner())
    }
}
