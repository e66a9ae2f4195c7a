//! HLS: which streams are cut into segments, for how long, and what of them can be asked for.
//!
//! A stream is cut while its playlist is asked for, from the first request on (or, with `hls.always` or `hls.folder`,
//! while it is published). To the rest of the server that is one player, whose session begins with the first request and ends after
//! two windows without any. Segments are numbered from the seconds of the wall clock on, so that no name is ever used
//! twice, and caches may keep segments for as long as they like.

mod disk;
mod file_names;
mod files;
mod stream;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ahash::AHashMap;
use bytes::Bytes;
use freshet_bridge::hls::{HlsOptions, Key};
use freshet_media::StreamKey;

use self::disk::Disk;
use self::stream::{HlsStream, Pump};
use crate::engine::{LiveRequest, Protocol, Refusal};
use crate::http::Sessions;
use crate::srs_code as code;

pub(crate) use self::disk::{DiskSettings, DiskStatus};
pub(crate) use self::file_names::FileName;

/// How long a request waits for the first segment. Encoders' longest usual distance of keyframes is 10 s; a request
/// that takes 15 s is given up by the HTTP side.
const FIRST_SEGMENT_WAIT: Duration = Duration::from_secs(12);

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
}

impl HlsSettings {
    /// Whether streams are cut without being asked for: files must be complete.
    pub(crate) fn is_cut_unasked(&self) -> bool {
        self.always || self.disk.is_some()
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

/// All streams that are being cut. One for each name.
pub(crate) struct HlsServer {
    sessions: Arc<dyn Sessions>,
    settings: HlsSettings,
    disk: Option<Arc<Disk>>,
    streams: Mutex<AHashMap<StreamKey, Arc<HlsStream>>>,
}

impl HlsServer {
    /// Cuts nothing yet.
    pub(crate) fn new(sessions: Arc<dyn Sessions>, settings: HlsSettings) -> Arc<HlsServer> {
        let disk = settings.disk.clone().map(Disk::start);
        let disk = disk.and_then(|disk| {
            disk.inspect_err(|error| tracing::error!(%error, "HLS is not written to disk: no thread for it")).ok()
        });
        Arc::new(HlsServer { sessions, settings, disk: disk.map(Arc::new), streams: Mutex::default() })
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
    ) -> Result<String, Refusal> {
        let stream = self.open(request)?;
        let waited = tokio::time::timeout(FIRST_SEGMENT_WAIT, stream.playlist(view)).await;
        waited.unwrap_or_else(|_| {
            let detail = format!("no segment of {} was complete within {FIRST_SEGMENT_WAIT:?}", request.key);
            let hint = "set the encoder's keyframe interval to 2 s, or ask again";
            Err(Refusal::new(503, code::NO_PUBLISHER, "no-segment", detail, hint).retry_after(1))
        })
    }

    /// A segment of a stream that is being cut.
    pub(crate) fn segment(&self, key: &StreamKey, sequence: u64) -> Option<Bytes> {
        let stream = self.lock().get(key).map(Arc::clone)?;
        stream.segment(sequence)
    }

    /// A key of a stream that is being cut.
    pub(crate) fn encryption_key(&self, key: &StreamKey, name: u64) -> Option<Key> {
        let stream = self.lock().get(key).map(Arc::clone)?;
        stream.encryption_key(name)
    }

    /// With `hls.always` or `hls.folder`: cuts every stream from its start. Never ends.
    pub(crate) async fn watch(self: Arc<HlsServer>) {
        // Streams that cannot be cut are not asked for again and again: the publishers that they have.
        let mut refused: AHashMap<StreamKey, Option<String>> = AHashMap::new();
        loop {
            tokio::time::sleep(WATCH_INTERVAL).await;
            let streams = self.sessions.streams();
            refused.retain(|key, publisher| streams.iter().any(|s| s.key == *key && s.publisher == *publisher));
            for stream in streams.into_iter().filter(|stream| stream.publisher.is_some()) {
                if !refused.contains_key(&stream.key) && self.open(&request_of_our_own(&stream.key)).is_err() {
                    refused.insert(stream.key, stream.publisher);
                }
            }
        }
    }

    /// The stream, which begins to be cut if it is not yet.
    fn open(self: &Arc<HlsServer>, request: &LiveRequest) -> Result<Arc<HlsStream>, Refusal> {
        let mut streams = self.lock();
        if let Some(stream) = streams.get(&request.key).filter(|stream| stream.touch()) {
            return Ok(Arc::clone(stream));
        }
        let reader = Arc::clone(&self.sessions).read_live(request)?;
        let first_sequence = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let stream = HlsStream::new(request.key.clone(), &self.settings, first_sequence, reader.status());
        streams.insert(request.key.clone(), Arc::clone(&stream));
        let server = Arc::clone(self);
        let pump = Pump::new(Arc::clone(&stream), reader, self.settings.clone()).with_disk(self.disk.clone());
        tokio::spawn(async move {
            // Whatever happens to the pump, its stream does not stay.
            let ended = tokio::spawn(pump.run()).await;
            if ended.is_err() {
                tracing::error!(stream = %stream.key(), "making HLS panicked");
            }
            stream.close();
            if let Some(disk) = &server.disk {
                disk.tell(&stream);
            }
            server.remove(&stream);
        });
        Ok(Arc::clone(&streams[&request.key]))
    }

    fn remove(&self, stream: &Arc<HlsStream>) {
        let mut streams = self.lock();
        if streams.get(stream.key()).is_some_and(|present| Arc::ptr_eq(present, stream)) {
            streams.remove(stream.key());
        }
        if streams.capacity() > 64 && streams.len() < streams.capacity() / 4 {
            streams.shrink_to_fit();
        }
    }

    fn lock(&self) -> MutexGuard<'_, AHashMap<StreamKey, Arc<HlsStream>>> {
        // A panic while the lock is held leaves a table that is whole.
        self.streams.lock().unwrap_or_else(|e| e.into_inner())
    }
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
