//! The frame plane of the server: streams that RTMP publishers feed and RTMP and FLV players read.
//!
//! A [`LiveStream`] is a cache of frames behind a lock that is held for microseconds, and two ways to wait for news: one
//! for tasks, one for threads. It exists while somebody holds it, publisher, player or crossing, and goes with the last.

mod client;
mod pending;
mod reader;
mod rtmp;

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use ahash::AHashMap;
use freshet_bridge::fanout::{Fanout, Tracks};
use freshet_bridge::flv::Demuxer;
use freshet_media::{Frame, GopLimits, MediaTime, StreamKey};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

pub(crate) use client::{LivePlayer, LivePublisher, Reading, Seat};
pub(crate) use pending::Pending;
pub(crate) use reader::{LiveReader, News};
pub(crate) use rtmp::{RtmpServer, RtmpSettings};

/// All streams of the frame plane.
#[derive(Debug)]
pub(crate) struct LiveStreams {
    streams: Mutex<AHashMap<StreamKey, Weak<LiveStream>>>,
    limits: GopLimits,
}

impl LiveStreams {
    /// No streams yet. Each will keep no more than `limits` tell.
    pub(crate) fn new(limits: GopLimits) -> Arc<LiveStreams> {
        Arc::new(LiveStreams { streams: Mutex::default(), limits })
    }

    /// The stream of that name, made if nobody holds it.
    pub(crate) fn entry(self: &Arc<LiveStreams>, key: &StreamKey) -> Arc<LiveStream> {
        let mut streams = self.lock();
        if let Some(stream) = streams.get(key).and_then(Weak::upgrade) {
            return stream;
        }
        let stream = Arc::new(LiveStream {
            key: key.clone(),
            all: Arc::downgrade(self),
            inner: Mutex::new(Inner {
                fanout: Fanout::new(self.limits),
                demuxer: Demuxer::new(),
                fed_at: None,
                publishers: 0,
                source: None,
            }),
            news: Notify::new(),
            news_for_threads: Condvar::new(),
            wants_keyframe: AtomicBool::new(false),
        });
        streams.insert(key.clone(), Arc::downgrade(&stream));
        stream
    }

    /// The stream of that name, if somebody holds it.
    pub(crate) fn find(&self, key: &StreamKey) -> Option<Arc<LiveStream>> {
        self.lock().get(key).and_then(Weak::upgrade)
    }

    fn lock(&self) -> MutexGuard<'_, AHashMap<StreamKey, Weak<LiveStream>>> {
        // A panic while the lock is held leaves a table that is whole.
        self.streams.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// One stream of frames.
#[derive(Debug)]
pub(crate) struct LiveStream {
    key: StreamKey,
    all: Weak<LiveStreams>,
    inner: Mutex<Inner>,
    news: Notify,
    news_for_threads: Condvar,
    /// A player has a use for a keyframe.
    wants_keyframe: AtomicBool,
}

/// What the lock of a stream guards.
#[derive(Debug)]
pub(crate) struct Inner {
    /// The frames.
    pub(crate) fanout: Fanout,
    /// Makes frames of the publisher's tags, on the stream's own timeline: it outlives publishers, so that players see
    /// one continuous stream.
    demuxer: Demuxer,
    /// When the last frame came.
    fed_at: Option<Instant>,
    /// Counts the publishers that the stream has had.
    pub(crate) publishers: u64,
    /// Who feeds the stream at the moment.
    pub(crate) source: Option<Source>,
}

/// Where a stream's frames come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// A publisher of frames.
    Publisher,
    /// The crossing from a WebRTC publisher.
    Crossing,
}

/// One publisher's time on a stream. Whoever comes later ends it; so does dropping it.
#[derive(Debug)]
pub(crate) struct Turn {
    stream: Arc<LiveStream>,
    number: u64,
    /// What follows the frames of those who came before.
    start: MediaTime,
}

impl Turn {
    /// Takes the stream: the frames of whoever had it are no longer needed.
    pub(crate) fn begin(stream: Arc<LiveStream>, source: Source) -> Turn {
        let (number, start) = {
            let mut inner = stream.lock();
            let gap = inner.fed_at.map_or(Duration::ZERO, |at| at.elapsed());
            let mut timeline = std::mem::take(&mut inner.demuxer).into_timeline();
            timeline.begin_again_after(inner.fanout.newest(), gap);
            let start = timeline.start();
            inner.demuxer = Demuxer::with_timeline(timeline);
            inner.fanout.start_over();
            inner.source = Some(source);
            inner.publishers += 1;
            (inner.publishers, start)
        };
        stream.tell();
        Turn { stream, number, start }
    }

    /// Where on the stream's timeline it begins.
    pub(crate) fn start(&self) -> MediaTime {
        self.start
    }

    /// Whether a player has asked for a keyframe since the last call.
    pub(crate) fn take_keyframe_wish(&self) -> bool {
        self.stream.take_keyframe_wish()
    }

    /// Gives a frame to everybody.
    pub(crate) fn push(&self, frame: Frame) {
        self.with_stream(|inner| {
            inner.fed_at = Some(Instant::now());
            inner.fanout.push(frame);
        });
        self.stream.tell();
    }

    /// Works on the stream's state, unless the turn is over.
    fn with_stream<T>(&self, work: impl FnOnce(&mut Inner) -> T) -> Option<T> {
        let mut inner = self.stream.lock();
        (inner.publishers == self.number).then(|| work(&mut inner))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.with_stream(|inner| inner.source = None);
        self.stream.tell();
    }
}

impl LiveStream {
    /// The stream's name.
    pub(crate) fn key(&self) -> &StreamKey {
        &self.key
    }

    /// For a look, or to read frames.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every method leaves the cache whole, whoever panics.
        self.inner.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Waits until nobody feeds the stream.
    pub(crate) async fn silence(&self) {
        loop {
            let mut news = pin!(self.news());
            // From here on nothing that happens is missed.
            news.as_mut().enable();
            if self.lock().source.is_none() {
                return;
            }
            news.await;
        }
    }

    /// The tracks that the present publisher has shown.
    pub(crate) fn tracks(&self) -> Tracks {
        self.lock().fanout.tracks().clone()
    }

    /// Asks whoever feeds the stream for a keyframe, if that can be asked for one.
    pub(crate) fn ask_for_keyframe(&self) {
        self.wants_keyframe.store(true, Ordering::Relaxed);
    }

    /// Whether a keyframe was asked for since the last call.
    pub(crate) fn take_keyframe_wish(&self) -> bool {
        self.wants_keyframe.swap(false, Ordering::Relaxed)
    }

    /// Wakes a task when there is something new. To be made before the look that finds nothing.
    pub(crate) fn news(&self) -> Notified<'_> {
        self.news.notified()
    }

    /// Sleeps until there is something new, `within` at most. For threads.
    pub(crate) fn wait<'a>(&'a self, inner: MutexGuard<'a, Inner>, within: Duration) -> MutexGuard<'a, Inner> {
        self.news_for_threads.wait_timeout(inner, within).map_or_else(|e| e.into_inner().0, |(inner, _)| inner)
    }

    /// Wakes everybody who waits.
    pub(crate) fn tell(&self) {
        self.news.notify_waiters();
        self.news_for_threads.notify_all();
    }
}

impl Drop for LiveStream {
    fn drop(&mut self) {
        let Some(all) = self.all.upgrade() else { return };
        let mut streams = all.lock();
        // Somebody may have made it anew in the meantime.
        if streams.get(&self.key).is_some_and(|stream| stream.strong_count() == 0) {
            streams.remove(&self.key);
        }
    }
}
