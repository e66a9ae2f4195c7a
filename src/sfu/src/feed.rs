//! A stream that the server itself feeds: media of another protocol, made RTP packets before it comes here.
//!
//! A feed is on the air like a publisher's session, without a transport: its packets come in order and without loss,
//! its clocks are known from the start, and keyframe requests go to whoever feeds it, who may be unable to answer.
//! So a feed keeps everything since its last keyframe (`history`), and viewers start from there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ahash::AHashMap;
use freshet_media::{MediaKind, StreamKey};

use crate::clock::{ClockReference, Epoch};
use crate::packet::{Extensions, RtpPacket, TrackIndex};
use crate::relay::{SessionId, TrackInfo};
use crate::router::StreamIndex;
use crate::status::SessionStatus;
use crate::throttle::KeyframeThrottle;

/// An index of SRTP has 48 bits (RFC 3711 §3.3.1).
const MAX_SEQ: u64 = (1 << 48) - 1;
/// Far beyond any path's MTU, and well below what a datagram holds.
const MAX_PAYLOAD_BYTES: usize = 16 * 1024;

/// What a feed is made from.
#[derive(Debug, Clone)]
pub struct FeedParams {
    /// Its name, from the same numbers as sessions' and never used before.
    pub id: SessionId,
    /// Its stream.
    pub key: StreamKey,
    /// Its tracks, at most one of each kind. Packets are of the first format of their track.
    pub tracks: Arc<[TrackInfo]>,
    /// For each track an RTP time and its wall time, all from one timeline. A track without one takes its first
    /// packet's arrival.
    pub clocks: Vec<ClockReference>,
    /// Shared with whoever watches.
    pub status: Arc<SessionStatus>,
}

/// One packet of a feed.
#[derive(Debug, Clone)]
pub struct FeedPacket {
    /// Which track.
    pub track: TrackIndex,
    /// Sequence number of the track, roll-overs counted, one more for each packet. 2³² is a good one to start with.
    pub seq: u64,
    /// RTP time.
    pub timestamp: u32,
    /// The last packet of a frame (video), the first of a talk spurt (audio).
    pub marker: bool,
    /// A picture that can be decoded on its own begins here.
    pub opens_keyframe: bool,
    /// How far its media time is behind the live edge: a cached picture is older than its arrival.
    pub age: Duration,
    /// Payload without header.
    pub payload: Arc<[u8]>,
    /// Only kept for viewers that join, not forwarded to those that already play.
    pub cached: bool,
}

impl FeedPacket {
    fn into_rtp(self, now: Instant) -> RtpPacket {
        RtpPacket {
            track: self.track,
            layer: 0,
            format: 0,
            marker: self.marker,
            opens_keyframe: self.opens_keyframe,
            seq: self.seq,
            timestamp: self.timestamp,
            arrival: now.checked_sub(self.age).unwrap_or(now),
            extensions: Extensions::default(),
            payload: self.payload,
        }
    }
}

/// The shard's side of a feed that is fed here.
#[derive(Debug)]
pub(crate) struct Feeder {
    pub(crate) key: StreamKey,
    pub(crate) stream: StreamIndex,
    pub(crate) status: Arc<SessionStatus>,
    pub(crate) throttle: KeyframeThrottle,
    tracks: Arc<[TrackInfo]>,
    /// RTP time of each track's newest packet.
    newest: Vec<Option<u32>>,
    rates: (u64, Instant),
}

impl Feeder {
    pub(crate) fn new(params: FeedParams, stream: StreamIndex, now: Instant) -> Feeder {
        let FeedParams { key, tracks, status, .. } = params;
        status.set_connected();
        let (newest, received) = (vec![None; tracks.len()], status.recv_bytes.value());
        Feeder { key, stream, status, throttle: KeyframeThrottle::default(), tracks, newest, rates: (received, now) }
    }

    /// Counts a packet and makes it one that can be forwarded. [`None`]: the feed has no such track, or nobody could be
    /// sent such a packet.
    pub(crate) fn accept(&mut self, packet: FeedPacket, now: Instant, epoch: &Epoch) -> Option<RtpPacket> {
        if packet.seq > MAX_SEQ || packet.payload.len() > MAX_PAYLOAD_BYTES {
            return None;
        }
        let newest = self.newest.get_mut(usize::from(packet.track))?;
        let is_video = self.tracks.get(usize::from(packet.track))?.kind == MediaKind::Video;
        let track = &self.status.tracks[usize::from(is_video)];
        if !packet.cached {
            self.status.recv_bytes.add(packet.payload.len() as u64);
            self.status.last_media_millis.set(epoch.millis(now));
            track.set(0, 1);
            if newest.replace(packet.timestamp) != Some(packet.timestamp) {
                track.frames.add(1);
            }
        }
        if packet.opens_keyframe {
            self.throttle.keyframe();
        }
        Some(packet.into_rtp(now))
    }

    /// Called about once a second.
    pub(crate) fn tick(&mut self, now: Instant) {
        let received = self.status.recv_bytes.value();
        let millis = now.saturating_duration_since(self.rates.1).as_millis().max(1) as u64;
        self.status.recv_bps.set(received.saturating_sub(self.rates.0).saturating_mul(8000) / millis);
        self.rates = (received, now);
    }
}

/// The feeds of a shard.
#[derive(Debug, Default)]
pub(crate) struct Feeders {
    pub(crate) by_id: AHashMap<SessionId, Feeder>,
    /// When a keyframe request is due that had to wait.
    pub(crate) due: Option<Instant>,
}

impl Feeders {
    /// Calls `each` for every feed that a keyframe is to be asked of now.
    pub(crate) fn poll(&mut self, now: Instant, mut each: impl FnMut(SessionId)) {
        self.due = None;
        for (id, feeder) in &mut self.by_id {
            if feeder.throttle.poll(now) {
                feeder.status.keyframe_requests.add(1);
                each(*id);
            }
            self.due = [self.due, feeder.throttle.deadline()].into_iter().flatten().min();
        }
    }
}
