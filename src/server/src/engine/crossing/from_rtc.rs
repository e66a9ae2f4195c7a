//! Crossings from the packet plane to the frame plane (`rtc2rtmp`), and the threads that run them.
//!
//! A WebRTC publisher's stream crosses while it has players of frames, and for `rtc2rtmp.linger_seconds` after the last. Its
//! thread taps the publisher on its shard and feeds the stream's cache in a publisher's stead. Meanwhile the publisher is
//! asked for keyframes at a steady pace: browsers make none by themselves, and players start with one.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use ahash::AHashMap;
use freshet_bridge::crossing::{FromRtpOptions, RtpIn, RtpToFrames, RtpTrack, SoundOut};
use freshet_bridge::transcode::AacOptions;
use freshet_media::depacketize::red_primary;
use freshet_media::{Codec, MediaKind, MediaTime, StreamKey};
use freshet_sfu::{Command, RtpPacket, SessionId, ShardId, Tapped, TrackInfo};
use tracing::{info, warn};

use crate::config::{CrossedAudio, Rtc2Rtmp};
use crate::engine::Engine;
use crate::engine::mailbox::Mail;
use crate::engine::registry::{Record, Registry};
use crate::live::{LiveStream, Source, Turn};

/// Longest sleep of a crossing's thread: how late it notices that the last player has left.
const MAX_SLEEP: Duration = Duration::from_millis(100);
/// Batches that wait for the thread: some seconds of a busy stream.
const TAP_BATCHES: usize = 2048;

/// All that run.
#[derive(Debug)]
pub(in crate::engine) struct FromRtc {
    settings: Rtc2Rtmp,
    running: Mutex<AHashMap<StreamKey, Arc<Control>>>,
}

/// What a crossing's thread and the rest of the engine share.
#[derive(Debug)]
struct Control {
    publisher: SessionId,
    stream: Arc<LiveStream>,
    players: AtomicUsize,
    /// The publisher has gone or another one has come.
    over: AtomicBool,
}

impl FromRtc {
    pub(in crate::engine) fn new(settings: Rtc2Rtmp) -> FromRtc {
        FromRtc { settings, running: Mutex::default() }
    }

    pub(in crate::engine) fn is_enabled(&self) -> bool {
        self.settings.enabled
    }

    pub(in crate::engine) fn passes_opus(&self) -> bool {
        self.settings.audio == CrossedAudio::Opus
    }

    fn lock(&self) -> MutexGuard<'_, AHashMap<StreamKey, Arc<Control>>> {
        // A panic while the lock is held leaves a table that is whole.
        self.running.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl Engine {
    /// Starts a stream's crossing if it has players of frames and none, and tells a running one how many there are.
    pub(super) fn sync_from_rtc(&self, registry: &Registry, key: &StreamKey) {
        let publisher = registry.publisher(key).filter(|p| p.rtc().is_some());
        let players = registry.streams.get(key).map_or(0, |s| s.viewers - s.rtc_viewers);
        let mut running = self.from_rtc.lock();
        if let Some(control) = running.get(key) {
            if publisher.is_some_and(|p| p.id == control.publisher) {
                control.players.store(players, Ordering::Relaxed);
                return;
            }
            control.over.store(true, Ordering::Relaxed);
            running.remove(key);
        }
        let Some(publisher) = publisher.filter(|_| players > 0 && self.from_rtc.settings.enabled) else { return };
        let control = Arc::new(Control {
            publisher: publisher.id,
            stream: self.live.entry(key),
            players: AtomicUsize::new(players),
            over: AtomicBool::new(false),
        });
        let runner = Runner {
            engine: Weak::clone(&self.this),
            control: Arc::clone(&control),
            settings: self.from_rtc.settings.clone(),
            idle_since: None,
        };
        match std::thread::Builder::new().name("freshet-cross".to_owned()).spawn(move || runner.run()) {
            Ok(_) => {
                running.insert(key.clone(), control);
            }
            Err(error) => warn!(stream = %key, %error, "players of frames get nothing: no thread for the crossing"),
        }
    }
}

/// Why nothing of a WebRTC publisher's picture can reach players of frames, if so. Its sound does.
pub(in crate::engine) fn no_way(publisher: &Record) -> Option<Codec> {
    let link = publisher.rtc()?;
    let video = link.negotiated.media.iter().find(|m| m.kind == MediaKind::Video)?;
    let arriving = publisher.status.tracks[1].format().unwrap_or(0);
    let codec = video.codecs.get(arriving)?.codec;
    (codec == Codec::Vp8).then_some(codec)
}

/// Redundant sound and plain sound take turns on one track; what crosses is the same.
fn carried(codec: Codec) -> Codec {
    if codec == Codec::Red { Codec::Opus } else { codec }
}

/// The thread's own state.
struct Runner {
    engine: Weak<Engine>,
    control: Arc<Control>,
    settings: Rtc2Rtmp,
    idle_since: Option<Instant>,
}

/// What a publisher's packets become.
struct Passage {
    tracks: Arc<[TrackInfo]>,
    /// The format that arrives, for each track.
    formats: Vec<u8>,
    crossing: RtpToFrames,
    /// From the crossing's time to the stream's.
    turn: Turn,
    keyframe_at: Instant,
}

impl Passage {
    fn new(control: &Control, settings: &Rtc2Rtmp, tracks: Arc<[TrackInfo]>, formats: Vec<u8>) -> Passage {
        let of = |(track, format): (&TrackInfo, &u8)| {
            let format = track.formats.get(usize::from(*format)).or(track.formats.first());
            let (codec, clock_hz) = format.map_or((Codec::Opus, 48_000), |f| (carried(f.codec), f.clock_hz));
            RtpTrack { codec, clock_hz }
        };
        let rtp_tracks: Vec<RtpTrack> = tracks.iter().zip(&formats).map(of).collect();
        let sound = match settings.audio {
            CrossedAudio::Aac => SoundOut::Aac(AacOptions { bitrate_bps: settings.aac_bitrate_bps }),
            CrossedAudio::Opus => SoundOut::Opus,
        };
        let options = FromRtpOptions { sound, ..FromRtpOptions::default() };
        let codecs: Vec<String> = rtp_tracks.iter().map(|t| t.codec.to_string()).collect();
        info!(stream = %control.stream.key(), codecs = codecs.join(", "), "crossing from WebRTC starts");
        Passage {
            tracks,
            formats,
            crossing: RtpToFrames::new(&rtp_tracks, options),
            turn: Turn::begin(Arc::clone(&control.stream), Source::Crossing),
            keyframe_at: Instant::now() + settings.keyframe_interval,
        }
    }

    fn codec(&self, track: usize, format: u8) -> Option<Codec> {
        Some(self.tracks.get(track)?.formats.get(usize::from(format))?.codec)
    }

    /// Whether a packet is of another codec than those before it.
    fn switches(&self, packet: &RtpPacket) -> bool {
        let track = usize::from(packet.track);
        let Some(format) = self.formats.get(track) else { return false };
        let (old, new) = (self.codec(track, *format), self.codec(track, packet.format));
        old.map(carried) != new.map(carried)
    }

    /// Gives on what is ready. Returns whether the publisher has to be asked for a keyframe.
    fn deliver(&mut self, settings: &Rtc2Rtmp) -> bool {
        let start = self.turn.start().micros();
        let shift = |at: MediaTime| MediaTime::from_micros(at.micros().saturating_add(start));
        let mut has_keyframe = false;
        while let Some(mut frame) = self.crossing.poll_frame() {
            (frame.dts, frame.pts) = (shift(frame.dts), shift(frame.pts));
            has_keyframe |= frame.is_keyframe && frame.kind() == MediaKind::Video;
            self.turn.push(frame);
        }
        let now = Instant::now();
        if has_keyframe {
            self.keyframe_at = now + settings.keyframe_interval;
        }
        // A wish that a keyframe has overtaken is granted.
        let is_wished = self.turn.take_keyframe_wish() && !has_keyframe;
        let is_due = now >= self.keyframe_at || is_wished;
        if is_due {
            self.keyframe_at = now + settings.keyframe_interval;
        }
        self.crossing.wants_keyframe() || is_due
    }
}

impl Runner {
    fn run(mut self) {
        let Some(shard) = self.find_publisher() else { return };
        let (sender, tap) = sync_channel(TAP_BATCHES);
        let publisher = self.control.publisher;
        let Some(engine) = self.engine.upgrade() else { return };
        if !engine.post(shard, Mail::TapOpen(publisher, sender)) {
            warn!(stream = %self.control.stream.key(), "a media thread takes no commands: players of frames get nothing");
        }
        drop(engine);
        // Dropping the receiver afterwards closes the tap.
        self.cross(shard, &tap);
        info!(stream = %self.control.stream.key(), "crossing from WebRTC ends");
    }

    /// Waits until the publisher has connected.
    fn find_publisher(&mut self) -> Option<ShardId> {
        loop {
            let engine = self.engine.upgrade()?;
            if self.is_over(&engine) {
                return None;
            }
            if let Some(shard) = engine.lobby.home(self.control.publisher) {
                return Some(shard);
            }
            drop(engine);
            std::thread::sleep(MAX_SLEEP);
        }
    }

    fn cross(&mut self, shard: ShardId, tap: &Receiver<Tapped>) {
        let mut passage: Option<Passage> = None;
        loop {
            let Some(engine) = self.engine.upgrade() else { return };
            if self.is_over(&engine) {
                return;
            }
            drop(engine);
            let deadline = passage.as_ref().and_then(|p| p.crossing.poll_timeout());
            let sleep = deadline.map_or(MAX_SLEEP, |at| at.saturating_duration_since(Instant::now()).min(MAX_SLEEP));
            match tap.recv_timeout(sleep) {
                Ok(Tapped::Tracks(tracks)) => {
                    let formats = vec![0; tracks.len()];
                    passage = Some(Passage::new(&self.control, &self.settings, tracks, formats));
                }
                Ok(Tapped::Packets(packets)) => self.take(&mut passage, &packets),
                Ok(Tapped::Clock { track, reference }) => {
                    if let Some(passage) = &mut passage {
                        passage.crossing.set_clock(usize::from(track), reference.rtp, reference.wall);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    if let Some(passage) = &mut passage {
                        passage.crossing.finish();
                        passage.deliver(&self.settings);
                    }
                    return;
                }
            }
            let Some(passage) = &mut passage else { continue };
            passage.crossing.handle_timeout(Instant::now());
            if passage.deliver(&self.settings)
                && let Some(engine) = self.engine.upgrade()
            {
                let publisher = self.control.publisher;
                // A request that is lost is made again soon.
                let _ = engine.post(shard, Mail::Command(Command::RequestKeyframe { publisher }));
            }
        }
    }

    fn take(&self, passage: &mut Option<Passage>, packets: &[RtpPacket]) {
        for packet in packets {
            let Some(present) = passage.as_mut() else { return };
            if present.switches(packet) {
                let mut formats = present.formats.clone();
                formats[usize::from(packet.track)] = packet.format;
                let tracks = Arc::clone(&present.tracks);
                *passage = Some(Passage::new(&self.control, &self.settings, tracks, formats));
            }
            let Some(present) = passage.as_mut() else { return };
            let is_red = present.codec(usize::from(packet.track), packet.format) == Some(Codec::Red);
            let payload = if is_red { red_primary(&packet.payload).map(Arc::from) } else { None };
            present.crossing.push(
                Instant::now(),
                RtpIn {
                    track: usize::from(packet.track),
                    seq: packet.seq,
                    timestamp: packet.timestamp,
                    marker: packet.marker,
                    arrival: packet.arrival,
                    payload: payload.unwrap_or_else(|| Arc::clone(&packet.payload)),
                },
            );
        }
    }

    /// Whether the publisher has gone, or nobody has played for long enough. Then the crossing is out of the table.
    fn is_over(&mut self, engine: &Engine) -> bool {
        if self.control.over.load(Ordering::Relaxed) {
            return true;
        }
        if self.control.players.load(Ordering::Relaxed) > 0 {
            self.idle_since = None;
            return false;
        }
        let since = *self.idle_since.get_or_insert_with(Instant::now);
        if since.elapsed() < self.settings.linger {
            return false;
        }
        let mut running = engine.from_rtc.lock();
        // Players are counted under this lock: none can come unnoticed.
        let over = self.control.players.load(Ordering::Relaxed) == 0;
        if over && running.get(self.control.stream.key()).is_some_and(|c| Arc::ptr_eq(c, &self.control)) {
            running.remove(self.control.stream.key());
        }
        over
    }
}
