//! Pictures of streams for lists: the last keyframe as a JPEG, made on demand.
//!
//! A picture is decoded once for all who ask within a second, and not again while the keyframe is the same one. Where a
//! stream's frames are cached (an RTMP publisher, or a WebRTC publisher with players of frames), that costs the decoding
//! alone; else the crossing from WebRTC runs until it gives a keyframe, and lingers as after any player.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use ahash::AHashMap;
use bytes::Bytes;
use freshet_bridge::transcode::{Still, TranscodeError};
use freshet_media::{Codec, Frame, MediaKind, MediaTime, StreamKey};
use freshet_sfu::CloseReason;
use tokio::sync::Semaphore;
use tracing::debug;

use crate::engine::{LiveRequest, Protocol, Refusal, StreamSnapshot};
use crate::http::Sessions;
use crate::srs_code as code;

/// The widest picture that is given out. A page's list needs 320 pixels, a poster 1280.
pub(crate) const MAX_WIDTH: usize = 1280;
/// The narrowest.
pub(crate) const MIN_WIDTH: usize = 16;

/// So long a picture is given out without a look whether there is a newer one.
const FRESH_FOR: Duration = Duration::from_secs(1);
/// How long a stream's next keyframe is waited for. Browsers make one when they are asked; the HTTP side gives up a request
/// after 15 s.
const KEYFRAME_WAIT: Duration = Duration::from_secs(8);
/// Streams whose pictures are kept: 32 times 2.8 MB at the most.
const MAX_KEPT: usize = 32;
/// Pictures that nobody has asked for so long are dropped with the next new one.
const KEEP_FOR: Duration = Duration::from_secs(60);
/// JPEGs of different widths that are kept of one picture.
const MAX_WIDTHS: usize = 4;
/// Pictures that are decoded at a time: more would take the processor from media.
const MAX_DECODING: usize = 2;

/// Makes and keeps pictures.
pub(crate) struct Snapshots {
    sessions: Arc<dyn Sessions>,
    kept: Mutex<AHashMap<StreamKey, Arc<Kept>>>,
    decoding: Semaphore,
}

/// What is kept of one stream. Who holds the lock makes the picture, all others wait for it.
struct Kept {
    last: tokio::sync::Mutex<Option<Look>>,
    asked_at: Mutex<Instant>,
}

/// What the last look at a stream came to; a refusal is remembered as well.
struct Look {
    at: Instant,
    publisher: Option<String>,
    found: Result<Picture, Refusal>,
}

struct Picture {
    /// Which keyframe it is.
    keyframe_at: MediaTime,
    still: Arc<Still>,
    jpegs: Vec<(usize, Bytes)>,
}

impl Snapshots {
    /// Has no pictures yet.
    pub(crate) fn new(sessions: Arc<dyn Sessions>) -> Arc<Snapshots> {
        Arc::new(Snapshots { sessions, kept: Mutex::default(), decoding: Semaphore::new(MAX_DECODING) })
    }

    /// The picture of a stream, no wider than that.
    ///
    /// # Errors
    /// Nobody publishes it, it has no picture, or none that can be decoded here; no keyframe came in time.
    pub(crate) async fn jpeg(self: &Arc<Self>, stream: StreamSnapshot, max_width: usize) -> Result<Bytes, Refusal> {
        check_codec(&stream)?;
        let (snapshots, key) = (Arc::clone(self), stream.key.clone());
        // What has been begun is finished and kept for others, although who asked may have gone.
        let made = tokio::spawn(async move { snapshots.make(&stream, max_width).await }).await;
        made.unwrap_or_else(|_| Err(failed(&key, "it panicked")))
    }

    async fn make(&self, stream: &StreamSnapshot, max_width: usize) -> Result<Bytes, Refusal> {
        let kept = self.kept(&stream.key);
        let mut last = kept.last.lock().await;
        let is_same = |look: &Look| look.publisher == stream.publisher;
        let mut look = match last.take().filter(is_same) {
            Some(look) if look.at.elapsed() < FRESH_FOR => look,
            before => {
                let found = self.look(&stream.key, before.and_then(|look| look.found.ok())).await;
                Look { at: Instant::now(), publisher: stream.publisher.clone(), found }
            }
        };
        let jpeg = match &mut look.found {
            Ok(picture) => self.encode(&stream.key, picture, max_width).await,
            Err(refusal) => Err(refusal.clone()),
        };
        *last = Some(look);
        jpeg
    }

    /// Decodes the present keyframe, unless that is the one of the picture before.
    async fn look(&self, key: &StreamKey, before: Option<Picture>) -> Result<Picture, Refusal> {
        let keyframe = self.keyframe(key).await?;
        let keyframe_at = keyframe.dts;
        match before.filter(|before| before.keyframe_at == keyframe_at) {
            Some(same) => Ok(same),
            None => Ok(Picture { keyframe_at, still: self.decode(key, keyframe).await?, jpegs: Vec::new() }),
        }
    }

    async fn encode(&self, key: &StreamKey, picture: &mut Picture, max_width: usize) -> Result<Bytes, Refusal> {
        let width = picture.still.size().0.min(max_width.clamp(MIN_WIDTH, MAX_WIDTH));
        if let Some((_, jpeg)) = picture.jpegs.iter().find(|(known, _)| *known == width) {
            return Ok(jpeg.clone());
        }
        let still = Arc::clone(&picture.still);
        let jpeg = Bytes::from(self.work(move || still.to_jpeg(width)).await.map_err(|reason| failed(key, &reason))?);
        if picture.jpegs.len() >= MAX_WIDTHS {
            picture.jpegs.remove(0);
        }
        picture.jpegs.push((width, jpeg.clone()));
        Ok(jpeg)
    }

    async fn decode(&self, key: &StreamKey, keyframe: Frame) -> Result<Arc<Still>, Refusal> {
        let began = Instant::now();
        let still =
            self.work(move || Still::decode(&keyframe, MAX_WIDTH)).await.map_err(|reason| failed(key, &reason))?;
        debug!(stream = %key, "snapshot decoded in {} ms", began.elapsed().as_millis());
        Ok(Arc::new(still))
    }

    /// Does what takes processor time on a thread that may.
    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, TranscodeError> + Send + 'static,
    ) -> Result<T, String> {
        // It is never closed.
        let _turn = self.decoding.acquire().await.map_err(|error| error.to_string())?;
        let done = tokio::task::spawn_blocking(work).await;
        done.map_err(|_| "it broke the decoder".to_owned())?.map_err(|error| error.to_string())
    }

    /// The last keyframe, or the next one where none is cached.
    async fn keyframe(&self, key: &StreamKey) -> Result<Frame, Refusal> {
        if let Some(frame) = self.sessions.last_keyframe(key) {
            return Ok(frame);
        }
        let nobody = IpAddr::from(Ipv4Addr::LOCALHOST);
        let request = LiveRequest {
            key: key.clone(),
            protocol: Protocol::Snapshot,
            peer: SocketAddr::new(nobody, 0),
            client_ip: nobody,
            user_agent: "snapshot".to_owned(),
        };
        let mut reader = Arc::clone(&self.sessions).read_live(&request)?;
        let deadline = Instant::now() + KEYFRAME_WAIT;
        let mut frames = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let ended = reader.next(left, &mut frames).await.is_err();
            let is_keyframe = |frame: &Frame| frame.kind() == MediaKind::Video && frame.is_keyframe;
            if let Some(frame) = frames.drain(..).find(is_keyframe) {
                reader.leave_for(CloseReason::PeerClosed);
                return Ok(frame);
            }
            if ended || Instant::now() >= deadline {
                let detail = format!("no keyframe of {key} came within {} s", KEYFRAME_WAIT.as_secs());
                let hint = "ask again; set the encoder's keyframe interval to 2 s";
                return Err(Refusal::new(503, code::NO_PUBLISHER, "no-keyframe", detail, hint).retry_after(2));
            }
        }
    }

    fn kept(&self, key: &StreamKey) -> Arc<Kept> {
        let mut all = self.lock();
        if let Some(kept) = all.get(key) {
            *kept.lock() = Instant::now();
            return Arc::clone(kept);
        }
        all.retain(|_, kept| kept.lock().elapsed() < KEEP_FOR);
        if all.len() >= MAX_KEPT
            && let Some(oldest) = all.iter().min_by_key(|(_, kept)| *kept.lock()).map(|(key, _)| key.clone())
        {
            all.remove(&oldest);
        }
        let kept = Arc::new(Kept { last: tokio::sync::Mutex::new(None), asked_at: Mutex::new(Instant::now()) });
        all.insert(key.clone(), Arc::clone(&kept));
        kept
    }

    fn lock(&self) -> MutexGuard<'_, AHashMap<StreamKey, Arc<Kept>>> {
        // A panic while the lock is held leaves a table that is whole.
        self.kept.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl Kept {
    fn lock(&self) -> MutexGuard<'_, Instant> {
        self.asked_at.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// Refuses what cannot be decoded before anything is started for it.
fn check_codec(stream: &StreamSnapshot) -> Result<(), Refusal> {
    let key = &stream.key;
    if stream.publisher.is_none() {
        let detail = format!("nobody publishes {key}");
        return Err(
            Refusal::new(404, code::NO_PUBLISHER, "stream-absent", detail, "start the publisher").retry_after(2)
        );
    }
    let video = stream.tracks.iter().find(|track| track.kind == MediaKind::Video);
    match video.map(|track| track.codec) {
        Some(Codec::H264) => Ok(()),
        Some(codec) => {
            let detail = format!("{key} is published with {codec}, and snapshots are made of H.264 only");
            Err(Refusal::new(406, code::CODEC, "no-snapshot", detail, "publish with H.264"))
        }
        None => {
            let detail = format!("{key} has no picture, or has not shown one yet");
            Err(Refusal::new(406, code::CODEC, "no-snapshot", detail, "publish a picture, or ask again"))
        }
    }
}

fn failed(key: &StreamKey, reason: &str) -> Refusal {
    let detail = format!("no snapshot of {key}: {reason}");
    Refusal::new(
        406,
        code::CODEC,
        "no-snapshot",
        detail,
        "ask again, or publish H.264 of 8 bits, 4:2:0, not interlaced",
    )
}
