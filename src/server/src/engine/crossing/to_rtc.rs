//! Crossings from the frame plane to the packet plane (`rtmp2rtc`), and the threads that run them.
//!
//! A stream of frames crosses while it has WebRTC viewers, and for `rtmp2rtc.linger_seconds` after the last.
//! Its thread reads the stream's cache like any player, from the last keyframe on, and posts packets to the shard that
//! the stream's feed is on. Nothing of it exists before the first viewer and after the last.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use ahash::AHashMap;
use freshet_bridge::crossing::{Crossing, CrossingOptions, Packet, VideoMode};
use freshet_bridge::fanout::Tracks;
use freshet_media::{Codec, Cursor, Frame, MediaKind, MediaTime, StreamKey};
use freshet_sfu::{
    ClockReference, Command, FeedPacket, FeedParams, Format, SessionId, SessionStatus, ShardId, TrackInfo,
};
use tracing::{info, warn};

use crate::config::Rtmp2Rtc;
use crate::engine::Engine;
use crate::engine::mailbox::Mail;
use crate::engine::registry::Registry;
use crate::engine::types::CrossingSnapshot;
use crate::live::{LiveStream, Source};
use crate::udp::thread_cpu_time;

/// Longest sleep of a crossing's thread: how late it notices that the last viewer has left.
const MAX_SLEEP: Duration = Duration::from_millis(200);
/// Where sequence numbers begin: room for packets before the first one, as for reordered ones.
const FIRST_SEQ: u64 = 1 << 32;
/// Frames that are read at once.
const READ_FRAMES: usize = 256;
/// Pictures that are encoded again before sound is looked for: some tens of milliseconds of work.
const SLOW_FRAMES: usize = 4;
/// Packets that are posted at once: a keyframe's.
const POST_PACKETS: usize = 128;
/// How often load is worked out and looked at.
const LOAD_INTERVAL: Duration = Duration::from_secs(2);

/// All that run.
#[derive(Debug)]
pub(in crate::engine) struct ToRtc {
    settings: Rtmp2Rtc,
    running: Mutex<AHashMap<StreamKey, Arc<Control>>>,
}

/// What a crossing's thread and the rest of the engine share.
#[derive(Debug)]
struct Control {
    stream: Arc<LiveStream>,
    viewers: AtomicUsize,
    keyframe_wanted: AtomicBool,
    /// Id of the present feed, 0 for none.
    feed: AtomicU64,
    snapshot: Mutex<CrossingSnapshot>,
}

impl Control {
    fn snapshot(&self) -> MutexGuard<'_, CrossingSnapshot> {
        // Every field is written whole.
        self.snapshot.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl ToRtc {
    pub(in crate::engine) fn new(settings: Rtmp2Rtc) -> ToRtc {
        ToRtc { settings, running: Mutex::default() }
    }

    pub(in crate::engine) fn is_enabled(&self) -> bool {
        self.settings.enabled
    }

    /// Viewers of a feed need a keyframe.
    pub(in crate::engine) fn want_keyframe(&self, feed: SessionId) {
        if let Some(control) = self.lock().values().find(|c| c.feed.load(Ordering::Relaxed) == feed.0) {
            control.keyframe_wanted.store(true, Ordering::Relaxed);
            control.stream.tell();
        }
    }

    /// What a stream's crossing does.
    pub(in crate::engine) fn snapshot(&self, key: &StreamKey) -> Option<CrossingSnapshot> {
        let control = self.lock().get(key).cloned()?;
        let is_open = control.feed.load(Ordering::Relaxed) != 0;
        is_open.then(|| control.snapshot().clone())
    }

    /// How many run, by what they do to the picture.
    pub(in crate::engine) fn by_mode(&self) -> Vec<(&'static str, usize)> {
        let modes: Vec<&str> = self.lock().values().map(|c| c.snapshot().video).collect();
        let count = |mode: VideoMode| modes.iter().filter(|m| **m == mode.as_str()).count();
        [VideoMode::Pass, VideoMode::Transcode, VideoMode::Drop].map(|mode| (mode.as_str(), count(mode))).to_vec()
    }

    fn lock(&self) -> MutexGuard<'_, AHashMap<StreamKey, Arc<Control>>> {
        // A panic while the lock is held leaves a table that is whole.
        self.running.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl Engine {
    /// Starts a stream's crossing if it has viewers and none, and tells a running one how many there are. To be called
    /// after every change of a stream's publisher or viewers, while the registry is locked.
    pub(super) fn sync_to_rtc(&self, registry: &Registry, key: &StreamKey) {
        let viewers = registry.streams.get(key).map_or(0, |s| s.rtc_viewers);
        let mut running = self.to_rtc.lock();
        if let Some(control) = running.get(key) {
            control.viewers.store(viewers, Ordering::Relaxed);
            control.stream.tell();
            return;
        }
        let Some(link) = registry.publisher(key).and_then(|p| p.live()) else { return };
        if viewers == 0 || !self.to_rtc.settings.enabled {
            return;
        }
        let control = Arc::new(Control {
            stream: Arc::clone(&link.stream),
            viewers: AtomicUsize::new(viewers),
            keyframe_wanted: AtomicBool::new(false),
            feed: AtomicU64::new(0),
            snapshot: Mutex::new(CrossingSnapshot { video: VideoMode::Pass.as_str(), note: None, cpu_percent: 0.0 }),
        });
        let runner = Runner::new(self.this.clone(), Arc::clone(&control), self.to_rtc.settings.clone());
        let spawned = std::thread::Builder::new().name("freshet-cross".to_owned()).spawn(move || runner.run());
        match spawned {
            Ok(_) => {
                running.insert(key.clone(), control);
            }
            Err(error) => warn!(stream = %key, %error, "WebRTC viewers get nothing: no thread for the crossing"),
        }
    }
}

/// In which formats a stream of frames reaches WebRTC viewers.
pub(in crate::engine) fn crossing_formats(tracks: &Tracks) -> Vec<(MediaKind, Vec<Format>)> {
    let video = tracks.video.as_ref().map(|config| {
        let facts = freshet_media::facts(config);
        (MediaKind::Video, vec![Format::unnegotiated(config.codec, facts.fmtp)])
    });
    let audio = tracks
        .audio
        .as_ref()
        .map(|_| (MediaKind::Audio, vec![Format::unnegotiated(Codec::Opus, "minptime=10;useinbandfec=1;stereo=1")]));
    video.into_iter().chain(audio).collect()
}

/// The thread's own state.
struct Runner {
    engine: Weak<Engine>,
    control: Arc<Control>,
    settings: Rtmp2Rtc,
    /// Since when nobody watches.
    idle_since: Option<Instant>,
    refused_frames: u64,
    load: Load,
}

/// What a publisher's frames become while it is there.
struct Passage {
    /// The publisher's number.
    turn: u64,
    /// Sound has a place of its own: it must not wait while pictures that are encoded again catch up.
    sound: Cursor,
    pictures: Cursor,
    crossing: Crossing,
    feed: Feed,
    /// What was in the cache at the start has not all been read yet.
    in_backlog: bool,
}

/// An open feed on a shard.
struct Feed {
    id: SessionId,
    shard: ShardId,
    tracks: Vec<FeedTrack>,
}

/// One of its tracks.
struct FeedTrack {
    kind: MediaKind,
    next_seq: u64,
}

/// Processor time of the thread.
struct Load {
    at: Instant,
    spent: Duration,
}

impl Runner {
    fn new(engine: Weak<Engine>, control: Arc<Control>, settings: Rtmp2Rtc) -> Runner {
        let load = Load { at: Instant::now(), spent: Duration::ZERO };
        Runner { engine, control, settings, idle_since: None, refused_frames: 0, load }
    }

    fn run(mut self) {
        let stream = Arc::clone(&self.control.stream);
        let mut passage: Option<Passage> = None;
        let (mut frames, mut packets) = (Vec::new(), Vec::new());
        loop {
            let Some(engine) = self.engine.upgrade() else { return };
            if self.is_over(&engine) {
                break;
            }
            frames.clear();
            let mut lost = 0;
            let (turn, is_live, settled, newest) = {
                let mut inner = stream.lock();
                if !has_news(&inner, passage.as_ref()) && !self.control.keyframe_wanted.load(Ordering::Relaxed) {
                    inner = stream.wait(inner, MAX_SLEEP);
                }
                if let Some(passage) = passage.as_mut().filter(|p| p.turn == inner.publishers) {
                    let Passage { sound, pictures, .. } = passage;
                    inner.fanout.read_frames(sound, Some(MediaKind::Audio), READ_FRAMES, &mut frames);
                    let max =
                        if passage.crossing.video_mode().0 == VideoMode::Transcode { SLOW_FRAMES } else { READ_FRAMES };
                    lost = inner.fanout.read_frames(pictures, Some(MediaKind::Video), max, &mut frames);
                }
                (
                    inner.publishers,
                    inner.source == Some(Source::Publisher),
                    inner.fanout.is_settled(),
                    inner.fanout.newest(),
                )
            };
            if let Some(old) = passage.take_if(|p| p.turn != turn || !is_live) {
                self.close(&engine, &old.feed);
            }
            match &mut passage {
                Some(passage) => {
                    self.cross(&engine, passage, &frames, lost, newest, &mut packets);
                }
                None if settled && is_live => {
                    passage = self.open(&engine, turn);
                }
                None => {}
            }
        }
        if let (Some(engine), Some(passage)) = (self.engine.upgrade(), passage) {
            self.close(&engine, &passage.feed);
        }
    }

    /// Whether nobody has watched for long enough, or the server ends. Then the crossing is out of the table.
    fn is_over(&mut self, engine: &Engine) -> bool {
        if self.control.viewers.load(Ordering::Relaxed) > 0 {
            self.idle_since = None;
            return false;
        }
        let since = *self.idle_since.get_or_insert_with(Instant::now);
        if since.elapsed() < self.settings.linger {
            return false;
        }
        let mut running = engine.to_rtc.lock();
        // Viewers are counted under this lock: none can come unnoticed.
        let over = self.control.viewers.load(Ordering::Relaxed) == 0;
        if over {
            running.remove(self.control.stream.key());
        }
        over
    }

    /// Opens a feed for the publisher that is there.
    fn open(&self, engine: &Engine, turn: u64) -> Option<Passage> {
        let stream = &self.control.stream;
        let (tracks, cursor, newest, backlog) = {
            let inner = stream.lock();
            let cursor = inner.fanout.start();
            let mut backlog = Vec::new();
            let mut ahead = cursor;
            inner.fanout.read_frames(&mut ahead, None, usize::MAX, &mut backlog);
            (inner.fanout.tracks().clone(), cursor, inner.fanout.newest(), backlog)
        };
        let options =
            CrossingOptions { bframes: self.settings.bframes, opus_bitrate_bps: self.settings.opus_bitrate_bps };
        let bases: [u32; 2] = [rand::random(), rand::random()];
        let mut crossing = Crossing::new(options, bases);
        crossing.inspect(&backlog);
        let formats = crossing_formats(&tracks);
        let tracks = formats.iter().map(|(kind, _)| FeedTrack { kind: *kind, next_seq: FIRST_SEQ }).collect();
        let zero = engine.epoch.wall(Instant::now()) - newest.micros();
        let clock =
            |track: &FeedTrack| ClockReference { rtp: bases[usize::from(track.kind == MediaKind::Video)], wall: zero };
        let feed = Feed {
            id: SessionId(engine.next_id.fetch_add(1, Ordering::Relaxed)),
            shard: engine.shard_of(stream.key()),
            tracks,
        };
        let params = FeedParams {
            id: feed.id,
            key: stream.key().clone(),
            tracks: formats.into_iter().map(|(kind, formats)| TrackInfo { kind, formats }).collect(),
            clocks: feed.tracks.iter().map(clock).collect(),
            status: Arc::new(SessionStatus::default()),
        };
        if !engine.post(feed.shard, Mail::Command(Command::OpenFeed(Box::new(params)))) {
            return None;
        }
        self.control.feed.store(feed.id.0, Ordering::Relaxed);
        let (mode, why) = crossing.video_mode();
        info!(stream = %stream.key(), video = mode.as_str(), cached_frames = backlog.len(),
            "crossing to WebRTC starts{}", why.map(|w| format!(": {w}")).unwrap_or_default());
        Some(Passage { turn, sound: cursor, pictures: cursor, crossing, feed, in_backlog: !backlog.is_empty() })
    }

    fn close(&self, engine: &Engine, feed: &Feed) {
        self.control.feed.store(0, Ordering::Relaxed);
        // A shard that takes no mail has ended, and the feed with it.
        let _ = engine.post(feed.shard, Mail::Command(Command::CloseFeed { id: feed.id }));
        info!(stream = %self.control.stream.key(), "crossing to WebRTC ends");
    }

    fn cross(
        &mut self,
        engine: &Engine,
        passage: &mut Passage,
        frames: &[Frame],
        lost: u64,
        newest: MediaTime,
        packets: &mut Vec<Packet>,
    ) {
        if self.control.keyframe_wanted.swap(false, Ordering::Relaxed) {
            passage.crossing.request_keyframe();
        }
        if lost > 0 {
            warn!(stream = %self.control.stream.key(), lost, "the crossing to WebRTC is too slow and leaves out frames");
        }
        packets.clear();
        for frame in frames {
            if let Err(error) = passage.crossing.push(frame, newest, packets) {
                self.refused_frames += 1;
                if self.refused_frames.is_power_of_two() {
                    warn!(stream = %self.control.stream.key(), refused = self.refused_frames, "a frame does not cross to WebRTC: {error}");
                }
            }
            // What takes long to make is not held back until the rest is made.
            let is_slow = passage.crossing.video_mode().0 == VideoMode::Transcode;
            if is_slow || packets.len() >= POST_PACKETS {
                self.post(engine, passage, newest, packets);
            }
        }
        self.post(engine, passage, newest, packets);
        let pictures = frames.iter().filter(|f| f.kind() == MediaKind::Video).count();
        let is_slow = passage.crossing.video_mode().0 == VideoMode::Transcode;
        if pictures < if is_slow { SLOW_FRAMES } else { READ_FRAMES } {
            passage.in_backlog = false;
        }
        self.note_load(&passage.crossing);
    }

    fn post(&self, engine: &Engine, passage: &mut Passage, newest: MediaTime, packets: &mut Vec<Packet>) {
        // Re-encoded pictures are live ones, even if they are made of cached ones.
        let is_cached = passage.in_backlog && passage.crossing.video_mode().0 != VideoMode::Transcode;
        let feed = &mut passage.feed;
        let before: Vec<u64> = feed.tracks.iter().map(|t| t.next_seq).collect();
        let mut fed = Vec::with_capacity(packets.len());
        for p in packets.drain(..) {
            let Some(track) = feed.tracks.iter().position(|t| t.kind == p.kind) else { continue };
            let seq = feed.tracks[track].next_seq;
            feed.tracks[track].next_seq += 1;
            fed.push(FeedPacket {
                track: track as u8,
                seq,
                timestamp: p.timestamp,
                marker: p.marker,
                opens_keyframe: p.opens_keyframe,
                age: newest.since(p.pts),
                payload: p.payload,
                cached: is_cached && p.kind == MediaKind::Video,
            });
        }
        if !fed.is_empty() && !engine.post(feed.shard, Mail::Command(Command::Feed { id: feed.id, packets: fed })) {
            // Their numbers are given again: a hole would be asked for in vain.
            for (track, seq) in feed.tracks.iter_mut().zip(before) {
                track.next_seq = seq;
            }
            warn!(stream = %self.control.stream.key(), "a media thread does not keep up: packets for WebRTC viewers are lost");
        }
    }

    fn note_load(&mut self, crossing: &Crossing) {
        let elapsed = self.load.at.elapsed();
        let (mode, note) = crossing.video_mode();
        let mut snapshot = self.control.snapshot();
        if snapshot.video != mode.as_str() {
            let why = note.map(|n| format!(": {n}")).unwrap_or_default();
            warn!(stream = %self.control.stream.key(), "picture for WebRTC viewers: {}{why}", mode.as_str());
            snapshot.video = mode.as_str();
        }
        if elapsed >= LOAD_INTERVAL {
            let spent = thread_cpu_time();
            let share = spent.saturating_sub(self.load.spent).as_secs_f32() / elapsed.as_secs_f32();
            snapshot.cpu_percent = share * 100.0;
            snapshot.note = note.map(str::to_owned);
            self.load = Load { at: Instant::now(), spent };
        }
    }
}

fn has_news(inner: &crate::live::Inner, passage: Option<&Passage>) -> bool {
    match passage {
        Some(passage) => {
            passage.turn != inner.publishers
                || inner.source != Some(Source::Publisher)
                || inner.fanout.has_more(&passage.pictures)
                || inner.fanout.has_more(&passage.sound)
        }
        // It can be opened.
        None => inner.source == Some(Source::Publisher) && inner.fanout.is_settled(),
    }
}
