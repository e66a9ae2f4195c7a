//! One stream's frames to many players: a cache of the newest frames, from which every player reads at its own pace.
//!
//! A frame is put into a container's form once, by the first player that needs it, and the bytes are shared by all
//! others of that container. A player is a cursor and what it has been told so far (decoder configurations, metadata);
//! one that is too slow loses whole pictures up to a keyframe and never holds up anybody else.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use freshet_media::{Cursor, Frame, GopCache, GopLimits, MediaKind, MediaTime, Next, TrackConfig};

use crate::flv::{self, TagType, flv_tag};
use crate::rtmp::rtmp_message;

/// A publisher that has sent for that long has shown all its tracks. Encoders start sound and picture within a few
/// hundred milliseconds of media time of each other.
const TRACKS_SETTLE_WITHIN: Duration = Duration::from_millis(500);

/// The form that a player takes frames in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// Tags of an FLV file, as HTTP-FLV and WebSocket-FLV carry them.
    Flv,
    /// Messages on the RTMP connection of a player.
    Rtmp,
    /// Messages on an RTMP connection on which we publish: metadata are wrapped as publishers wrap them.
    RtmpPublish,
}

impl Wire {
    /// A tag, or a message, of a body in two parts.
    fn wrap(self, kind: TagType, at: MediaTime, header: &[u8], data: &[u8]) -> Bytes {
        // Both count milliseconds modulo 2^32.
        let timestamp_ms = at.millis() as u32;
        match self {
            Wire::Flv => flv_tag(kind, timestamp_ms, header, data),
            Wire::RtmpPublish if kind == TagType::Script => {
                rtmp_message(kind, timestamp_ms, &flv::set_data_frame(), data)
            }
            Wire::Rtmp | Wire::RtmpPublish => rtmp_message(kind, timestamp_ms, header, data),
        }
    }

    /// Script data, `onMetaData` and its value, in this form. FFmpeg takes metadata of any other time for subtitles.
    pub fn metadata(self, script: &[u8]) -> Bytes {
        self.wrap(TagType::Script, MediaTime::default(), &[], script)
    }
}

/// A frame with the forms of it that have been made. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SharedFrame(Arc<Forms>);

#[derive(Debug)]
struct Forms {
    frame: Frame,
    flv: OnceLock<Bytes>,
    rtmp: OnceLock<Bytes>,
}

impl SharedFrame {
    fn new(frame: Frame) -> SharedFrame {
        SharedFrame(Arc::new(Forms { frame, flv: OnceLock::new(), rtmp: OnceLock::new() }))
    }

    /// Empty for a codec that FLV cannot carry.
    fn bytes(&self, wire: Wire) -> Bytes {
        let form = match wire {
            Wire::Flv => &self.0.flv,
            Wire::Rtmp | Wire::RtmpPublish => &self.0.rtmp,
        };
        let frame = &self.0.frame;
        let make = || {
            let body = flv::tag_body(frame)?;
            Some(wire.wrap(frame.kind().into(), frame.dts, body.header(), &body.data))
        };
        form.get_or_init(|| make().unwrap_or_default()).clone()
    }
}

impl AsRef<Frame> for SharedFrame {
    fn as_ref(&self) -> &Frame {
        &self.0.frame
    }
}

/// What one player has been told so far.
#[derive(Debug)]
pub struct Player {
    wire: Wire,
    cursor: Cursor,
    audio: Option<Arc<TrackConfig>>,
    video: Option<Arc<TrackConfig>>,
    /// Counts metadata; what the player has.
    metadata: u64,
}

/// The tracks of a stream.
#[derive(Debug, Clone, Default)]
pub struct Tracks {
    /// Sound.
    pub audio: Option<Arc<TrackConfig>>,
    /// Picture.
    pub video: Option<Arc<TrackConfig>>,
}

impl Tracks {
    fn slot(&mut self, kind: MediaKind) -> &mut Option<Arc<TrackConfig>> {
        match kind {
            MediaKind::Audio => &mut self.audio,
            MediaKind::Video => &mut self.video,
        }
    }
}

/// One stream.
#[derive(Debug)]
pub struct Fanout {
    cache: GopCache<SharedFrame>,
    tracks: Tracks,
    /// Script data as the publisher sent it: `onMetaData` and its value, AMF0.
    metadata: Option<Bytes>,
    metadata_count: u64,
    started_at: Option<MediaTime>,
    newest: MediaTime,
}

impl Fanout {
    /// A stream without frames.
    pub fn new(limits: GopLimits) -> Fanout {
        Fanout {
            cache: GopCache::new(limits),
            tracks: Tracks::default(),
            metadata: None,
            metadata_count: 0,
            started_at: None,
            newest: MediaTime::default(),
        }
    }

    /// Adds the newest frame.
    pub fn push(&mut self, frame: Frame) {
        let slot = self.tracks.slot(frame.kind());
        if slot.as_ref().is_none_or(|config| !Arc::ptr_eq(config, &frame.config)) {
            *slot = Some(Arc::clone(&frame.config));
        }
        self.newest = self.newest.max(frame.dts);
        self.started_at.get_or_insert(frame.dts);
        self.cache.push(SharedFrame::new(frame));
    }

    /// Takes the publisher's description of the stream, for all players.
    pub fn set_metadata(&mut self, script: Bytes) {
        self.metadata = Some(script);
        self.metadata_count += 1;
    }

    /// Another publisher starts. Players stay and go on with its first keyframe.
    pub fn start_over(&mut self) {
        self.cache.clear();
        self.tracks = Tracks::default();
        self.metadata = None;
        self.started_at = None;
    }

    /// What the publisher says about the stream, as it came: script data.
    pub fn metadata(&self) -> Option<&Bytes> {
        self.metadata.as_ref()
    }

    /// The tracks that have been seen.
    pub fn tracks(&self) -> &Tracks {
        &self.tracks
    }

    /// Whether a track that has not been seen will hardly come any more.
    pub fn is_settled(&self) -> bool {
        let both = self.tracks.audio.is_some() && self.tracks.video.is_some();
        both || self.started_at.is_some_and(|start| self.newest.since(start) >= TRACKS_SETTLE_WITHIN)
    }

    /// Decoding time of the newest frame.
    pub fn newest(&self) -> MediaTime {
        self.newest
    }

    /// A new player, at the last keyframe.
    pub fn join(&self, wire: Wire) -> Player {
        Player { wire, cursor: self.cache.start(), audio: None, video: None, metadata: 0 }
    }

    /// Where a reader of frames starts.
    pub fn start(&self) -> Cursor {
        self.cache.start()
    }

    /// The picture at which new players start, if there is one.
    pub fn last_keyframe(&self) -> Option<Frame> {
        let (mut cursor, mut frames) = (self.cache.start(), Vec::new());
        self.read_frames(&mut cursor, Some(MediaKind::Video), 1, &mut frames);
        frames.pop().filter(|frame| frame.is_keyframe)
    }

    /// Whether there is something that the reader has not seen.
    pub fn has_more(&self, cursor: &Cursor) -> bool {
        self.cache.has_more(cursor)
    }

    /// Reads frames as they are, at most `max_frames`, those of one kind if told so. Returns how many were lost to
    /// slowness.
    pub fn read_frames(
        &self,
        cursor: &mut Cursor,
        kind: Option<MediaKind>,
        max_frames: usize,
        out: &mut Vec<Frame>,
    ) -> u64 {
        let (mut lost, end) = (0, out.len().saturating_add(max_frames));
        while out.len() < end {
            match self.cache.next(cursor) {
                Next::Item(item) if kind.is_none_or(|kind| kind == item.as_ref().kind()) => {
                    out.push(item.as_ref().clone());
                }
                Next::Item(_) => {}
                Next::Skipped { frames } => lost += frames,
                Next::Empty => break,
            }
        }
        lost
    }

    /// Appends what a player is to be sent next, about `max_bytes` of it. Returns how many frames it has lost.
    pub fn read(&self, player: &mut Player, max_bytes: usize, out: &mut Vec<Bytes>) -> u64 {
        let (mut bytes, mut lost) = (0, 0);
        while bytes < max_bytes {
            match self.cache.next(&mut player.cursor) {
                Next::Item(item) => {
                    let before = out.len();
                    self.introduce(player, item.as_ref(), out);
                    out.push(item.bytes(player.wire));
                    bytes += out[before..].iter().map(Bytes::len).sum::<usize>();
                }
                Next::Skipped { frames } => lost += frames,
                Next::Empty => break,
            }
        }
        lost
    }

    /// Tells a player what it must know before a frame.
    fn introduce(&self, player: &mut Player, frame: &Frame, out: &mut Vec<Bytes>) {
        if let Some(script) = self.metadata.as_ref().filter(|_| player.metadata != self.metadata_count) {
            out.push(player.wire.metadata(script));
        }
        player.metadata = self.metadata_count;
        let known = match frame.kind() {
            MediaKind::Audio => &mut player.audio,
            MediaKind::Video => &mut player.video,
        };
        if known.as_ref().is_none_or(|config| !Arc::ptr_eq(config, &frame.config)) {
            *known = Some(Arc::clone(&frame.config));
            if let Some(body) = flv::sequence_header(&frame.config) {
                out.push(player.wire.wrap(frame.kind().into(), frame.dts, &[], &body));
            }
        }
    }
}
