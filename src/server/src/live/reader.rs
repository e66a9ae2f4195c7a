//! A reader of whole frames, for protocols that make something of their own of them.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use freshet_media::{Cursor, Frame, MediaTime};
use freshet_sfu::{CloseReason, SessionStatus};

use super::client::Meter;
use super::{LiveStream, Seat};

/// Frames that are read at once, while the stream's lock is held.
const MAX_FRAMES: usize = 256;

/// What has happened on a stream.
#[derive(Debug)]
pub(crate) struct News {
    /// The frames that were read belong to another publisher than those before.
    pub(crate) is_other_publisher: bool,
    /// Somebody feeds the stream.
    pub(crate) is_live: bool,
    /// Decoding time of the stream's newest frame.
    pub(crate) newest: MediaTime,
    /// Frames were passed over, because they were read too slowly.
    pub(crate) lost_frames: u64,
}

/// A player's hold on its stream, which reads frames.
#[derive(Debug)]
pub(crate) struct LiveReader {
    seat: Seat,
    stream: Arc<LiveStream>,
    cursor: Cursor,
    /// The publisher's number.
    publisher: u64,
    was_live: bool,
    meter: Meter,
}

impl LiveReader {
    /// Starts at the last keyframe.
    pub(crate) fn new(seat: Seat, stream: Arc<LiveStream>) -> LiveReader {
        let (cursor, publisher) = {
            let inner = stream.lock();
            (inner.fanout.start(), inner.publishers)
        };
        LiveReader { seat, stream, cursor, publisher, was_live: true, meter: Meter::new() }
    }

    /// The counters of its session.
    pub(crate) fn status(&self) -> &Arc<SessionStatus> {
        &self.seat.status
    }

    /// Tells why it will be dropped.
    pub(crate) fn leave_for(&mut self, reason: CloseReason) {
        self.seat.reason = reason;
    }

    /// A keyframe is of use now. Where the stream crosses from WebRTC, its publisher is asked for one.
    pub(crate) fn ask_for_keyframe(&self) {
        self.stream.ask_for_keyframe();
    }

    /// Waits until something happens, `within` at most, and appends the frames that have come.
    ///
    /// # Errors
    /// The session is over.
    pub(crate) async fn next(&mut self, within: Duration, frames: &mut Vec<Frame>) -> Result<News, CloseReason> {
        let stream = Arc::clone(&self.stream);
        let mut timeout = pin!(tokio::time::sleep(within));
        let mut is_late = false;
        loop {
            let mut told = pin!(stream.news());
            // From here on nothing that happens is missed.
            told.as_mut().enable();
            if let Some(reason) = *self.seat.end.borrow() {
                return Err(reason);
            }
            let news = self.read(frames);
            self.meter.update(&self.seat.status);
            let is_something = !frames.is_empty() || news.is_other_publisher || news.is_live != self.was_live;
            if is_something || is_late {
                self.was_live = news.is_live;
                return Ok(news);
            }
            tokio::select! {
                () = told => {}
                () = &mut timeout => is_late = true,
                reason = self.seat.ended() => return Err(reason),
            }
        }
    }

    fn read(&mut self, frames: &mut Vec<Frame>) -> News {
        let inner = self.stream.lock();
        let is_other_publisher = inner.publishers != self.publisher;
        self.publisher = inner.publishers;
        let lost_frames = inner.fanout.read_frames(&mut self.cursor, None, MAX_FRAMES, frames);
        News { is_other_publisher, is_live: inner.source.is_some(), newest: inner.fanout.newest(), lost_frames }
    }
}
