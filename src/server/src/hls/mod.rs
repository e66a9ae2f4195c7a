//! HLS: which streams are cut into segments, for how long, and what of them can be asked for.
//!
//! There are two kinds: MPEG-TS segments, which every player takes, and fragmented MP4 in parts for low latency. A stream
//! is cut into a kind while it is asked for in that kind, from the first request on (or, with `hls.always`, while it is
//! published). To the rest of the server that is one player, whose session begins with the first request and ends after
//! two windows without any. Segments are numbered from the seconds of the wall clock on, so that no name is ever used
//! twice, and caches may keep segments for as long as they like.

mod disk;
mod file_names;
mod files;
mod low_latency;
mod mpeg_ts;
mod pump;
mod stream;
mod text;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ahash::AHashMap;
use bytes::Bytes;
use freshet_bridge::hls::{HlsOptions, Key, LowLatencySegmenter, Segmenter};
use freshet_media::StreamKey;
use tokio::sync::{Semaphore, SemaphorePermit};

use self::disk::Disk;
use self::pump::Pump;
use self::stream::{Cut, HlsStream};
use crate::engine::{LiveRequest, Protocol, Refusal};
use crate::http::Sessions;
use crate::srs_code as code;

pub(crate) use self::disk::{DiskSettings, DiskStatus};
pub(crate) use self::file_names::FileName;
pub(crate) use self::low_latency::{MediaAnswer, MediaRequest};
pub(crate) use self::text::PlaylistText;

/// How long a request waits at most, as for the first segment. Encoders' longest usual distance of keyframes is 10 s; a
/// request that takes 15 s is given up by the HTTP side.
const MAX_WAIT: Duration = Duration::from_secs(12);

/// Requests that wait at a time. Each has a few kilobytes, and is woken with every part of its stream.
const MAX_WAITING: usize = 20_000;

/// How often it is looked for streams that are to be cut without a request. What they send in the meantime is cached.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);

/// How HLS is made.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct HlsSettings {
    /// How streams are cut.
    pub(crate) options: HlsOptions,
    /// Streams are cut without being asked for.
    pub(crate) always: bool,
    /// So long after its publisher has gone a stream is over.
    pub(crate) dispose: Duration,
    /// Segments are encrypted, with another key after so many.
    pub(crate) segments_per_key: Option<u32>,
    /// Streams are written to a folder too.
    pub(crate) disk: Option<DiskSettings>,
    /// How long parts should be. [`None`]: no low latency.
    pub(crate) part: Option<Duration>,
}

impl HlsSettings {
    /// Whether streams are cut without being asked for.
    pub(crate) fn is_cut_unasked(&self) -> bool {
        <Segmenter as Cut>::is_cut_unasked(self)
    }
}

/// How a request wants a playlist.
#[derive(Debug, Clone)]
pub(crate) struct PlaylistView {
    /// The stream's name, fit for a URI.
    pub(crate) name: String,
    /// Hung on the segments' names, with its question mark.
    pub(crate) query: String,
    /// A playlist of a stream that goes on is answered from so many segments on.
    pub(crate) min_segments: usize,
}

/// The streams that are being cut into one kind of segments.
type Table<C> = Mutex<AHashMap<StreamKey, Arc<HlsStream<C>>>>;

/// All streams that are being cut. One for each name and kind.
pub(crate) struct HlsServer {
    sessions: Arc<dyn Sessions>,
    settings: HlsSettings,
    disk: Option<Arc<Disk>>,
    mpeg_ts: Table<Segmenter>,
    low_latency: Table<LowLatencySegmenter>,
    waiting: Semaphore,
    /// Above the numbers of all segments of streams that are over. Segments of less than a second run ahead of the clock.
    used_sequences: AtomicU64,
}

/// Which table a kind has.
trait Kind: Cut {
    fn table(server: &HlsServer) -> &Table<Self>;
}

impl Kind for Segmenter {
    fn table(server: &HlsServer) -> &Table<Segmenter> {
        &server.mpeg_ts
    }
}

impl Kind for LowLatencySegmenter {
    fn table(server: &HlsServer) -> &Table<LowLatencySegmenter> {
        &server.low_latency
    }
}

impl HlsServer {
    /// Cuts nothing yet.
    pub(crate) fn new(sessions: Arc<dyn Sessions>, settings: HlsSettings) -> Arc<HlsServer> {
        let disk = settings.disk.clone().map(Disk::start);
        let disk = disk.and_then(|disk| {
            disk.inspect_err(|error| tracing::error!(%error, "HLS is not written to disk: no thread for it")).ok()
        });
        Arc::new(HlsServer {
            sessions,
            settings,
            disk: disk.map(Arc::new),
            mpeg_ts: Mutex::default(),
            low_latency: Mutex::default(),
            waiting: Semaphore::new(MAX_WAITING),
            used_sequences: AtomicU64::new(0),
        })
    }

    /// Whether streams are cut into parts for low latency.
    pub(crate) fn has_low_latency(&self) -> bool {
        self.settings.part.is_some()
    }

    /// How the files are, if any are written.
    pub(crate) fn disk_status(&self) -> Option<DiskStatus> {
        self.disk.as_ref().map(|disk| disk.status())
    }

    /// Removes all files, so far as that is done `within` that time, and writes none any more. Blocks.
    pub(crate) fn end(&self, within: Duration) {
        if let Some(disk) = &self.disk {
            disk.end(within);
        }
    }

    /// The playlist of a stream, as soon as there is enough in it.
    ///
    /// # Errors
    /// Nobody publishes the stream, it cannot be carried, no segment came in time.
    pub(crate) async fn playlist(
        self: &Arc<HlsServer>,
        request: &LiveRequest,
        view: &PlaylistView,
    ) -> Result<Arc<PlaylistText>, Refusal> {
        let stream = self.open::<Segmenter>(request)?;
        self.patiently(request, stream.playlist(view)).await
    }

    /// A segment of a stream that is being cut.
    pub(crate) fn segment(&self, key: &StreamKey, sequence: u64) -> Option<Bytes> {
        self.find::<Segmenter>(key)?.segment(sequence)
    }

    /// A key of a stream that is being cut.
    pub(crate) fn encryption_key(&self, key: &StreamKey, name: u64) -> Option<Key> {
        self.find::<Segmenter>(key)?.encryption_key(name)
    }

    /// The multivariant playlist for low latency.
    ///
    /// # Errors
    /// Those of [`HlsServer::playlist`]; low latency is off.
    pub(crate) async fn multivariant(
        self: &Arc<HlsServer>,
        request: &LiveRequest,
        query: &str,
        min_segments: usize,
    ) -> Result<Arc<PlaylistText>, Refusal> {
        let stream = self.open_low_latency(request)?;
        self.patiently(request, stream.multivariant(query, min_segments)).await
    }

    /// The media playlist for low latency, as soon as that is in it which is asked for.
    ///
    /// # Errors
    /// Those of [`HlsServer::multivariant`]; it is too far ahead, or too much waits.
    pub(crate) async fn media(
        self: &Arc<HlsServer>,
        request: &LiveRequest,
        media: &MediaRequest,
    ) -> Result<MediaAnswer, Refusal> {
        let stream = self.open_low_latency(request)?;
        self.patiently(request, stream.media(media)).await
    }

    /// A part of a segment for low latency. It is waited for if it is the next one.
    ///
    /// # Errors
    /// It does not come.
    pub(crate) async fn part(&self, key: &StreamKey, number: u64) -> Result<Option<Bytes>, Refusal> {
        let Some(stream) = self.find::<LowLatencySegmenter>(key) else { return Ok(None) };
        let _place = self.place_to_wait()?;
        stream.part(number).await
    }

    /// A segment for low latency.
    pub(crate) fn fragmented_segment(&self, key: &StreamKey, sequence: u64) -> Option<Bytes> {
        self.find::<LowLatencySegmenter>(key)?.segment(sequence)
    }

    /// An initialization segment for low latency.
    pub(crate) fn init(&self, key: &StreamKey, number: u64) -> Option<Bytes> {
        self.find::<LowLatencySegmenter>(key)?.init(number)
    }

    /// With `hls.always` or `hls.folder`: cuts every stream from its start. Never ends.
    pub(crate) async fn watch(self: Arc<HlsServer>) {
        // Streams that cannot be cut are not asked for again and again: the publishers that they have.
        let mut refused: AHashMap<StreamKey, Option<String>> = AHashMap::new();
        let with_low_latency = self.settings.part.is_some() && LowLatencySegmenter::is_cut_unasked(&self.settings);
        loop {
            tokio::time::sleep(WATCH_INTERVAL).await;
            let streams = self.sessions.streams();
            refused.retain(|key, publisher| streams.iter().any(|s| s.key == *key && s.publisher == *publisher));
            for stream in streams.into_iter().filter(|stream| stream.publisher.is_some()) {
                if refused.contains_key(&stream.key) {
                    continue;
                }
                let request = request_of_our_own(&stream.key);
                let mut is_cut = self.open::<Segmenter>(&request).is_ok();
                if with_low_latency {
                    is_cut &= self.open::<LowLatencySegmenter>(&request).is_ok();
                }
                if !is_cut {
                    refused.insert(stream.key, stream.publisher);
                }
            }
        }
    }

    fn open_low_latency(
        self: &Arc<HlsServer>,
        request: &LiveRequest,
    ) -> Result<Arc<HlsStream<LowLatencySegmenter>>, Refusal> {
        if self.settings.part.is_none() {
            let detail = "low-latency HLS is off";
            let hint = "set hls.part_seconds, and hls.encrypt = false; or play /app/stream.m3u8";
            return Err(Refusal::new(404, code::NO_PUBLISHER, "no-low-latency", detail, hint));
        }
        self.open::<LowLatencySegmenter>(request)
    }

    /// The stream, which begins to be cut if it is not yet.
    fn open<C: Kind>(self: &Arc<HlsServer>, request: &LiveRequest) -> Result<Arc<HlsStream<C>>, Refusal> {
        let mut streams = lock(C::table(self));
        if let Some(stream) = streams.get(&request.key).filter(|stream| stream.touch()) {
            return Ok(Arc::clone(stream));
        }
        let reader = Arc::clone(&self.sessions).read_live(request)?;
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let first_sequence = seconds.max(self.used_sequences.load(Ordering::Relaxed));
        let cut = C::new(&self.settings, first_sequence);
        let stream = HlsStream::new(request.key.clone(), cut, reader.status());
        streams.insert(request.key.clone(), Arc::clone(&stream));
        let (server, pumped) = (Arc::clone(self), Arc::clone(&stream));
        let pump = Pump::new(Arc::clone(&stream), reader, self.settings.clone(), self.disk.clone());
        tokio::spawn(async move {
            // Whatever happens to the pump, its stream does not stay.
            let ended = tokio::spawn(pump.run()).await;
            if ended.is_err() {
                tracing::error!(stream = %pumped.key(), "making HLS panicked");
            }
            server.used_sequences.fetch_max(pumped.close(), Ordering::Relaxed);
            if let Some(disk) = &server.disk {
                C::tell_disk(&pumped, disk);
            }
            server.remove(&pumped);
        });
        Ok(stream)
    }

    fn find<C: Kind>(&self, key: &StreamKey) -> Option<Arc<HlsStream<C>>> {
        lock(C::table(self)).get(key).map(Arc::clone)
    }

    fn remove<C: Kind>(&self, stream: &Arc<HlsStream<C>>) {
        let mut streams = lock(C::table(self));
        if streams.get(stream.key()).is_some_and(|present| Arc::ptr_eq(present, stream)) {
            streams.remove(stream.key());
        }
        if streams.capacity() > 64 && streams.len() < streams.capacity() / 4 {
            streams.shrink_to_fit();
        }
    }

    /// Waits for an answer that the stream will give when it has got so far.
    async fn patiently<T>(
        &self,
        request: &LiveRequest,
        answer: impl Future<Output = Result<T, Refusal>>,
    ) -> Result<T, Refusal> {
        let _place = self.place_to_wait()?;
        tokio::time::timeout(MAX_WAIT, answer).await.unwrap_or_else(|_| {
            let detail = format!("no segment of {} was complete within {MAX_WAIT:?}", request.key);
            let hint = "set the encoder's keyframe interval to 2 s, or ask again";
            Err(Refusal::new(503, code::NO_PUBLISHER, "no-segment", detail, hint).retry_after(1))
        })
    }

    fn place_to_wait(&self) -> Result<SemaphorePermit<'_>, Refusal> {
        self.waiting.try_acquire().map_err(|_| {
            let detail = format!("{MAX_WAITING} requests of HLS players wait already");
            Refusal::new(503, code::HTTP_REQUEST, "too-many-waiting", detail, "ask again").retry_after(1)
        })
    }
}

fn lock<C>(table: &Table<C>) -> MutexGuard<'_, AHashMap<StreamKey, Arc<HlsStream<C>>>> {
    // A panic while the lock is held leaves a table that is whole.
    table.lock().unwrap_or_else(|e| e.into_inner())
}

fn request_of_our_own(key: &StreamKey) -> LiveRequest {
    let nobody = IpAddr::from(Ipv4Addr::LOCALHOST);
    LiveRequest {
        key: key.clone(),
        protocol: Protocol::Hls,
        peer: SocketAddr::new(nobody, 0),
        client_ip: nobody,
        user_agent: "hls.always".to_owned(),
    }
}
