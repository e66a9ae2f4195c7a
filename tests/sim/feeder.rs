//! The server as a publisher: what a crossing does with a stream of another protocol. The encoder makes a keyframe
//! when its group of pictures is over and cannot be asked for one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use freshet_media::MediaKind;
use freshet_sfu::{
    ClockReference, Command, FeedPacket, FeedParams, Format, SessionId, SessionStatus, ShardEvent, TrackInfo,
};

use crate::media::{Look, Shape, Stamp, micros_since, payload};
use crate::publisher::Frame;
use crate::world::{Happening, World};

/// Index of a feed in its world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FeedId(pub(crate) usize);

/// One track as it is made.
#[derive(Debug)]
pub(crate) struct Track {
    pub(crate) look: Look,
    next_at: Instant,
    next_seq: u64,
    rtp_base: u32,
    frame: u32,
    pub(crate) log: Vec<Frame>,
}

/// One feed.
#[derive(Debug)]
pub(crate) struct Feed {
    pub(crate) id: SessionId,
    pub(crate) shard: usize,
    pub(crate) status: Arc<SessionStatus>,
    /// Number in the stamps.
    pub(crate) source: u16,
    /// Video, then audio.
    pub(crate) tracks: [Track; 2],
    /// Frames between two keyframes.
    pub(crate) gop: u32,
    pub(crate) is_open: bool,
    /// Packets of the present group of pictures, as a cache of frames would make them again.
    pub(crate) group: Vec<FeedPacket>,
    /// Answers requests with a keyframe, as a transcoder can.
    pub(crate) obliging: bool,
    start: Instant,
    wants_keyframe: bool,
    answered: usize,
}

/// 2 Mbit/s: 30 frames a second of seven packets, keyframes of 120.
pub(crate) const BROADCAST: Look =
    Look { delta_packets: 7, key_packets: 120, packet_bytes: 1180, ..Look::video(Shape::H264) };

impl Feed {
    fn params(&self, world: &World) -> FeedParams {
        let formats =
            [Format::h264([0x42, 0xe0, 0x1f]), Format::unnegotiated(freshet_media::Codec::Opus, "useinbandfec=1")];
        let tracks = [MediaKind::Video, MediaKind::Audio].into_iter().zip(formats);
        let tracks = tracks.map(|(kind, format)| TrackInfo { kind, formats: vec![format] }).collect();
        let wall = 1_800_000_000_000_000;
        let clocks = self.tracks.iter().map(|t| ClockReference { rtp: t.rtp_base, wall }).collect();
        FeedParams { id: self.id, key: world.key.clone(), tracks, clocks, status: Arc::clone(&self.status) }
    }

    /// The packets of the frames that are due.
    fn make(&mut self, now: Instant) -> Vec<FeedPacket> {
        let mut packets = Vec::new();
        for (index, track) in self.tracks.iter_mut().enumerate() {
            while track.next_at <= now {
                let keyframe = index == 0 && (track.frame.is_multiple_of(self.gop) || self.wants_keyframe);
                if keyframe {
                    self.wants_keyframe = false;
                    self.group.clear();
                }
                let made = track.make(index as u8, self.source, keyframe, self.start);
                if index == 0 {
                    self.group.extend_from_slice(&made);
                }
                packets.extend(made);
            }
        }
        packets
    }

    fn next_at(&self) -> Instant {
        self.tracks[0].next_at.min(self.tracks[1].next_at)
    }

    /// The group of pictures up to now under new numbers, as a cache brings it.
    fn cached_group(&mut self, now: Instant) -> Vec<FeedPacket> {
        let newest = self.group.last().map_or(0, |p| p.timestamp);
        let track = &mut self.tracks[0];
        let late = now.saturating_duration_since(track.log.last().map_or(now, |f| f.at));
        let again = self.group.iter_mut().map(|packet| {
            packet.seq = track.next_seq;
            track.next_seq += 1;
            let ticks = u64::from(newest.wrapping_sub(packet.timestamp));
            let age = Duration::from_micros(ticks * 1_000_000 / 90_000) + late;
            FeedPacket { age, cached: true, ..packet.clone() }
        });
        again.collect()
    }
}

impl Track {
    fn make(&mut self, track: u8, source: u16, keyframe: bool, start: Instant) -> Vec<FeedPacket> {
        let (look, at) = (self.look, self.next_at);
        let count = if keyframe { look.key_packets } else { look.delta_packets };
        let micros = micros_since(start, at);
        let ticks = u128::from(micros) * u128::from(look.shape.clock_hz()) / 1_000_000;
        let timestamp = self.rtp_base.wrapping_add(ticks as u32);
        let packets = (0..count).map(|index| {
            let stamp = Stamp { source, layer: 0, keyframe, frame: self.frame, index, count, micros };
            FeedPacket {
                track,
                seq: self.next_seq + u64::from(index),
                timestamp,
                marker: look.shape.is_video() && index + 1 == count,
                opens_keyframe: keyframe && index == 0,
                age: Duration::ZERO,
                payload: payload(look.shape, &stamp, look.packet_bytes).into(),
                cached: false,
            }
        });
        let packets = packets.collect();
        self.log.push(Frame { frame: self.frame, at, keyframe });
        self.next_seq += u64::from(count);
        self.frame += 1;
        self.next_at += look.interval;
        packets
    }
}

impl World {
    /// A feed that is not on the air yet.
    pub(crate) fn make_feed(&mut self, shard: usize, look: Look, gop: Duration) -> FeedId {
        let index = self.feeds.len();
        let track =
            |look, rtp_base| Track { look, next_at: self.now, next_seq: 1 << 32, rtp_base, frame: 0, log: Vec::new() };
        self.feeds.push(Feed {
            id: SessionId(1_000_000 + index as u64),
            shard,
            status: Arc::default(),
            source: 60_000 + index as u16,
            tracks: [track(look, u32::MAX - 500_000), track(Look::audio(), 77_000 * index as u32)],
            gop: (gop.as_micros() / look.interval.as_micros()) as u32,
            is_open: false,
            group: Vec::new(),
            obliging: false,
            start: self.start,
            wants_keyframe: false,
            answered: 0,
        });
        FeedId(index)
    }

    /// Goes on the air and sends from now on.
    pub(crate) fn open_feed(&mut self, shard: usize, look: Look, gop: Duration) -> FeedId {
        let id = self.make_feed(shard, look, gop);
        self.put_on_air(id);
        self.schedule(self.now, Happening::Feed(id));
        id
    }

    pub(crate) fn put_on_air(&mut self, id: FeedId) {
        let feed = &mut self.feeds[id.0];
        feed.is_open = true;
        let shard = feed.shard;
        let params = self.feeds[id.0].params(self);
        self.command(shard, Command::OpenFeed(Box::new(params)));
    }

    pub(crate) fn close_feed(&mut self, id: FeedId) {
        let feed = &mut self.feeds[id.0];
        feed.is_open = false;
        let (shard, id) = (feed.shard, feed.id);
        self.command(shard, Command::CloseFeed { id });
    }

    /// Makes what is due, and sends it if the feed is on the air.
    pub(crate) fn feed_due(&mut self, id: FeedId) {
        let feed = &mut self.feeds[id.0];
        let wanted = self.events.iter().filter(|(_, e)| *e == ShardEvent::KeyframeWanted(feed.id)).count();
        feed.wants_keyframe |= feed.obliging && wanted > feed.answered;
        feed.answered = wanted;
        let packets = feed.make(self.now);
        let (shard, next_at, is_open) = (feed.shard, feed.next_at(), feed.is_open);
        let command = Command::Feed { id: feed.id, packets };
        self.schedule(next_at, Happening::Feed(id));
        if is_open {
            self.command(shard, command);
        }
    }

    /// Sends the present group of pictures for those who join.
    pub(crate) fn feed_cached(&mut self, id: FeedId) {
        let feed = &mut self.feeds[id.0];
        let packets = feed.cached_group(self.now);
        let (shard, id) = (feed.shard, feed.id);
        self.command(shard, Command::Feed { id, packets });
    }

    pub(crate) fn feed(&self, id: FeedId) -> &Feed {
        &self.feeds[id.0]
    }

    /// Keyframes that were asked for.
    pub(crate) fn keyframes_wanted(&self, id: FeedId) -> Vec<Instant> {
        let wanted = ShardEvent::KeyframeWanted(self.feed(id).id);
        self.events.iter().filter(|(_, e)| *e == wanted).map(|(at, _)| *at).collect()
    }
}
