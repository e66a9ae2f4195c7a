//! Publishers and players of the frame plane, as their connections hold them. Dropping one ends its session.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use freshet_bridge::fanout::Player;
use freshet_bridge::flv::{FlvError, Tag};
use freshet_media::MediaKind;
use freshet_sfu::{CloseReason, SessionId, SessionStatus};
use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::{LiveStream, Source, Turn};
use crate::engine::Engine;

/// How often bit rates are worked out.
const METER_INTERVAL: Duration = Duration::from_secs(1);

/// Bytes that a player is given at once: enough for one system call to be worth it, not so much that a slow player
/// holds seconds of the stream.
const READ_BYTES: usize = 256 * 1024;

/// A session's entry in the engine's tables.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) engine: Arc<Engine>,
    pub(crate) id: SessionId,
    pub(crate) status: Arc<SessionStatus>,
    pub(crate) end: watch::Receiver<Option<CloseReason>>,
    /// Why the client leaves, for the log.
    pub(crate) reason: CloseReason,
}

impl Seat {
    /// Waits for the server to end the session.
    pub(crate) async fn ended(&mut self) -> CloseReason {
        let ended = self.end.wait_for(Option::is_some).await.map(|reason| *reason);
        // The sender goes with the session's entry, after it has told why.
        ended.ok().flatten().unwrap_or(CloseReason::Deleted)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.engine.leave(self.id, self.reason);
    }
}

/// Bits per second of a session, worked out once a second.
#[derive(Debug)]
pub(super) struct Meter {
    at: Instant,
    received: u64,
    sent: u64,
}

impl Meter {
    pub(super) fn new() -> Meter {
        Meter { at: Instant::now(), received: 0, sent: 0 }
    }

    pub(super) fn update(&mut self, status: &SessionStatus) {
        let elapsed = self.at.elapsed();
        if elapsed < METER_INTERVAL {
            return;
        }
        let (received, sent) = (status.recv_bytes.value(), status.sent_bytes.value());
        let bps = |bytes: u64| (bytes as f64 * 8.0 / elapsed.as_secs_f64()) as u64;
        status.recv_bps.set(bps(received - self.received));
        status.sent_bps.set(bps(sent - self.sent));
        *self = Meter { at: Instant::now(), received, sent };
    }
}

/// A publisher's hold on its stream.
#[derive(Debug)]
pub(crate) struct LivePublisher {
    seat: Seat,
    turn: Turn,
    meter: Meter,
}

impl LivePublisher {
    /// Takes the stream: what was there before is over.
    pub(crate) fn new(seat: Seat, stream: Arc<LiveStream>) -> LivePublisher {
        LivePublisher { seat, turn: Turn::begin(stream, Source::Publisher), meter: Meter::new() }
    }

    /// Gives the frame in a tag to everybody.
    ///
    /// # Errors
    /// The tag, or its track, is left out.
    pub(crate) fn push(&self, tag: &Tag) -> Result<(), FlvError> {
        let now = Instant::now();
        let status = &self.seat.status;
        status.last_media_millis.set(self.seat.engine.millis(now));
        let pushed = self.turn.with_stream(|inner| {
            let Some(frame) = inner.demuxer.tag(tag)? else { return Ok(()) };
            status.tracks[usize::from(frame.kind() == MediaKind::Video)].frames.add(1);
            inner.fed_at = Some(now);
            inner.fanout.push(frame);
            Ok(())
        });
        self.turn.stream.tell();
        pushed.unwrap_or(Ok(()))
    }

    /// Describes the stream to its players: script data as it came.
    pub(crate) fn set_metadata(&self, script: Bytes) {
        self.turn.with_stream(|inner| inner.fanout.set_metadata(script));
    }

    /// Counts what has come over the network.
    pub(crate) fn received(&mut self, bytes: usize) {
        self.seat.status.recv_bytes.add(bytes as u64);
        self.meter.update(&self.seat.status);
    }

    /// Waits for the server to end the session.
    pub(crate) async fn ended(&mut self) -> CloseReason {
        self.seat.ended().await
    }

    /// Tells why it will be dropped.
    pub(crate) fn leave_for(&mut self, reason: CloseReason) {
        self.seat.reason = reason;
    }
}

/// What [`LivePlayer::read`] came back with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reading {
    /// There is something to send.
    Media,
    /// The session is over.
    Ended(CloseReason),
}

/// A player's hold on its stream.
#[derive(Debug)]
pub(crate) struct LivePlayer {
    seat: Seat,
    stream: Arc<LiveStream>,
    player: Player,
    meter: Meter,
    /// Brings the meter up to date when nothing comes. One timer for the player's life: frames come too often to set one
    /// for each.
    tick: Interval,
    lost_frames: u64,
}

impl LivePlayer {
    /// Starts at the last keyframe, or waits for the stream to begin.
    pub(crate) fn new(seat: Seat, stream: Arc<LiveStream>, player: Player) -> LivePlayer {
        let mut tick = interval(METER_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        LivePlayer { seat, stream, player, meter: Meter::new(), tick, lost_frames: 0 }
    }

    /// Waits for frames and appends their bytes in the player's form.
    pub(crate) async fn read(&mut self, out: &mut Vec<Bytes>) -> Reading {
        let stream = Arc::clone(&self.stream);
        loop {
            let mut news = pin!(stream.news());
            // From here on nothing that happens is missed.
            news.as_mut().enable();
            let lost = stream.lock().fanout.read(&mut self.player, READ_BYTES, out);
            self.note_loss(lost);
            self.meter.update(&self.seat.status);
            if let Some(reason) = *self.seat.end.borrow() {
                return Reading::Ended(reason);
            }
            if !out.is_empty() {
                self.seat.status.sent_bytes.add(out.iter().map(|b| b.len() as u64).sum());
                return Reading::Media;
            }
            tokio::select! {
                () = news => {}
                reason = self.seat.ended() => return Reading::Ended(reason),
                _ = self.tick.tick() => {}
            }
        }
    }

    /// Waits until it is clear which tracks the stream has, and tells whether it has sound and picture.
    pub(crate) async fn tracks(&mut self) -> Result<(bool, bool), CloseReason> {
        loop {
            let mut news = pin!(self.stream.news());
            news.as_mut().enable();
            let known = {
                let inner = self.stream.lock();
                let tracks = inner.fanout.tracks();
                inner.fanout.is_settled().then(|| (tracks.audio.is_some(), tracks.video.is_some()))
            };
            if let Some(known) = known {
                return Ok(known);
            }
            tokio::select! {
                () = news => {}
                reason = self.seat.ended() => return Err(reason),
            }
        }
    }

    /// The stream that is played.
    pub(crate) fn stream(&self) -> &Arc<LiveStream> {
        &self.stream
    }

    /// Frames that were left out because the player was too slow.
    pub(crate) fn lost_frames(&self) -> u64 {
        self.lost_frames
    }

    /// Waits for the server to end the session, and for nothing else.
    pub(crate) async fn ended(&mut self) -> CloseReason {
        self.seat.ended().await
    }

    /// Tells why it will be dropped.
    pub(crate) fn leave_for(&mut self, reason: CloseReason) {
        self.seat.reason = reason;
    }

    fn note_loss(&mut self, frames: u64) {
        if frames > 0 && self.lost_frames == 0 {
            tracing::info!(stream = %self.stream.key(), "a player is too slow for the stream: it skips to the next keyframe");
        }
        self.lost_frames += frames;
    }
}
