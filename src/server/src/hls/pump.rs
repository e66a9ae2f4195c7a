//! The task that reads a stream's frames and has them cut.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use freshet_media::Frame;
use freshet_sfu::CloseReason;
use tracing::{info, warn};

use super::HlsSettings;
use super::disk::Disk;
use super::stream::{Cut, HlsStream};
use crate::live::{LiveReader, News};

/// A stream is asked for again within two windows, or nobody watches it (SRS's rule).
const IDLE_WINDOWS: u32 = 2;
/// How often a stream without news is looked after.
const TICK: Duration = Duration::from_secs(1);
/// Bad frames are logged for the first ones of a stream only.
const MAX_COMPLAINTS: u32 = 8;
/// A keyframe that was asked for comes within this time, or is asked for again: several round trips of a bad network.
const KEYFRAME_PATIENCE: Duration = Duration::from_millis(700);

/// One stream's task.
pub(super) struct Pump<C> {
    stream: Arc<HlsStream<C>>,
    reader: LiveReader,
    settings: HlsSettings,
    disk: Option<Arc<Disk>>,
    /// Since when there has been no publisher.
    gone_at: Option<Instant>,
    has_ended: bool,
    keyframe_asked_at: Option<Instant>,
    complaints: u32,
}

impl<C: Cut> Pump<C> {
    /// `disk`: keeps files, and is told of every change.
    pub(super) fn new(
        stream: Arc<HlsStream<C>>,
        reader: LiveReader,
        settings: HlsSettings,
        disk: Option<Arc<Disk>>,
    ) -> Pump<C> {
        Pump { stream, reader, settings, disk, gone_at: None, has_ended: false, keyframe_asked_at: None, complaints: 0 }
    }

    /// Goes on until nobody asks any more, the stream is over, or the server ends the session.
    pub(super) async fn run(mut self) {
        let mut frames = Vec::new();
        loop {
            let Ok(news) = self.reader.next(TICK, &mut frames).await else { break };
            self.take(&news, &mut frames);
            if self.is_over(&news) {
                self.reader.leave_for(CloseReason::PeerClosed);
                break;
            }
        }
    }

    fn take(&mut self, news: &News, frames: &mut Vec<Frame>) {
        let now = SystemTime::now();
        let mut complaints = Vec::new();
        let mut wants_keyframe = false;
        let is_gone_first = !news.is_live && self.gone_at.is_none();
        self.change(|cut| {
            if news.is_other_publisher {
                cut.start_over();
            }
            for frame in frames.drain(..) {
                let live_at = now.checked_sub(news.newest.since(frame.dts)).unwrap_or(now);
                complaints.extend(cut.push(frame, live_at).err());
            }
            if is_gone_first {
                cut.finish();
            }
            wants_keyframe = news.is_live && cut.wants_keyframe();
        });
        if wants_keyframe && self.keyframe_asked_at.is_none_or(|at| at.elapsed() >= KEYFRAME_PATIENCE) {
            self.keyframe_asked_at = Some(Instant::now());
            self.reader.ask_for_keyframe();
        }
        if news.lost_frames > 0 {
            warn!(stream = %self.stream.key(), frames = news.lost_frames, "HLS is made too slowly: frames are left out");
        }
        for error in complaints {
            self.complaints += 1;
            if self.complaints <= MAX_COMPLAINTS {
                info!(stream = %self.stream.key(), "left out of HLS: {error}");
            }
        }
    }

    fn change(&self, change: impl FnOnce(&mut C)) {
        let is_news = self.stream.change(change);
        if let Some(disk) = self.disk.as_ref().filter(|_| is_news) {
            C::tell_disk(&self.stream, disk);
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
            self.change(C::end);
        }
        // Who is in the middle of it may see it to its end.
        if gone_for.is_some_and(|gone| gone >= dispose + window) {
            return true;
        }
        !C::is_cut_unasked(&self.settings) && self.stream.close_if_idle(window * IDLE_WINDOWS)
    }
}
