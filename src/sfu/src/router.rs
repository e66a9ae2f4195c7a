//! Who gets what: the streams of one shard, their publisher, their viewers, and the state that viewers share.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ahash::AHashMap;
use freshet_media::StreamKey;

use crate::clock::{ClockReference, Epoch, UnixMicros};
use crate::history::{Depth, History};
use crate::packet::{RtpPacket, TrackIndex};
use crate::patience::Lateness;
use crate::relay::{RelayMessage, SessionId, ShardId, TrackInfo};
use crate::sender::Supply;
use crate::shard::SessionIndex;
use crate::tap::TapQueue;

/// A reference that is further from a packet's arrival is about another encoder's RTP times.
const MAX_CLOCK_ERROR_MICROS: UnixMicros = 5_000_000;
/// A publisher's clock is carried on for that long when nothing arrives.
const MAX_EXTRAPOLATION: Duration = Duration::from_secs(10);

/// Index of a stream in its router; valid while the stream has a publisher or a viewer there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct StreamIndex(usize);

/// What the viewers of a track share.
#[derive(Debug)]
pub(crate) struct TrackState {
    pub(crate) history: History,
    pub(crate) reference: Option<ClockReference>,
    /// What repairs on the publisher's leg have lately taken.
    pub(crate) lateness: Lateness,
    /// Packets, from the first to the last number, that were kept but not forwarded to viewers that played already.
    pub(crate) left_out: Option<(u64, u64)>,
    newest: Option<(u32, Instant)>,
    layer: u8,
    clock_hz: u32,
}

impl TrackState {
    fn new(depth: Depth) -> TrackState {
        let (lateness, history) = (Lateness::default(), History::new(depth));
        TrackState { history, reference: None, lateness, left_out: None, newest: None, layer: 0, clock_hz: 0 }
    }

    fn note(&mut self, packet: &RtpPacket, clock_hz: u32, epoch: &Epoch) {
        self.clock_hz = clock_hz;
        let wall = epoch.wall(packet.arrival);
        let error = |r: &ClockReference| (r.wall_of(packet.timestamp, clock_hz) - wall).abs();
        let reference = self.reference.filter(|r| error(r) <= MAX_CLOCK_ERROR_MICROS);
        // Layers, and an encoder that takes another's place, count RTP time from starts of their own.
        let starts_anew = reference.is_none() || self.layer != packet.layer;
        self.layer = packet.layer;
        // Until the publisher's first sender report, arrival stands in.
        self.reference = reference.or(Some(ClockReference { rtp: packet.timestamp, wall }));
        if starts_anew || self.newest.is_none_or(|(rtp, _)| packet.timestamp.wrapping_sub(rtp) as i32 > 0) {
            self.newest = Some((packet.timestamp, packet.arrival));
        }
        if let Some(late_by) = self.history.lateness(packet) {
            self.lateness.note(late_by, packet.arrival);
        }
        self.history.insert(packet);
    }

    /// RTP time and wall time of this moment.
    pub(crate) fn now(&self, now: Instant) -> Option<(u32, UnixMicros)> {
        let (rtp, arrival) = self.newest?;
        let elapsed = now.saturating_duration_since(arrival).min(MAX_EXTRAPOLATION);
        let ticks = elapsed.as_micros() * u128::from(self.clock_hz) / 1_000_000;
        let rtp = rtp.wrapping_add(ticks as u32);
        Some((rtp, self.reference?.wall_of(rtp, self.clock_hz)))
    }
}

/// Who hands a stream's packets to this shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The publisher's session, at home here.
    Session(SessionIndex),
    /// The server itself, see `feed`.
    Server,
    /// The publisher's shard.
    Shard(ShardId),
}

/// Where a stream's packets come from.
#[derive(Debug)]
pub(crate) struct Feed {
    pub(crate) publisher: SessionId,
    pub(crate) origin: Origin,
    /// Counts the publishers that the stream has had here.
    pub(crate) generation: u32,
    pub(crate) depth: Depth,
    pub(crate) tracks: Arc<[TrackInfo]>,
    pub(crate) states: Vec<TrackState>,
    /// Other shards that want the packets.
    pub(crate) wanted_by: Vec<ShardId>,
    /// The server wants them as well.
    pub(crate) tapped: bool,
}

/// One stream.
#[derive(Debug)]
pub(crate) struct StreamState {
    pub(crate) key: StreamKey,
    /// Sessions of this shard that name the stream, connected or not: they hold its index.
    pub(crate) sessions: usize,
    pub(crate) subscribers: Vec<SessionIndex>,
    pub(crate) feed: Option<Feed>,
    generations: u32,
    /// Packets that came in since the last fan-out.
    pub(crate) inbox: Vec<RtpPacket>,
    /// How many of these the tap has had.
    pub(crate) inbox_tapped: usize,
}

/// The streams of a shard.
#[derive(Debug, Default)]
pub(crate) struct Router {
    streams: Vec<Option<StreamState>>,
    free: Vec<usize>,
    by_key: AHashMap<StreamKey, StreamIndex>,
    /// Streams with packets in their inbox, in order of arrival.
    pub(crate) dirty: VecDeque<StreamIndex>,
    /// Messages for other shards.
    pub(crate) outbox: Vec<(ShardId, RelayMessage)>,
    /// What taps have yielded.
    pub(crate) tapped: TapQueue,
}

impl Router {
    pub(crate) fn stream(&self, index: StreamIndex) -> Option<&StreamState> {
        self.streams.get(index.0)?.as_ref()
    }

    pub(crate) fn stream_mut(&mut self, index: StreamIndex) -> Option<&mut StreamState> {
        self.streams.get_mut(index.0)?.as_mut()
    }

    /// A stream and where its tap leads.
    pub(crate) fn tapping(&mut self, index: StreamIndex) -> Option<(&mut StreamState, &mut TapQueue)> {
        Some((self.streams.get_mut(index.0)?.as_mut()?, &mut self.tapped))
    }

    pub(crate) fn find(&self, key: &StreamKey) -> Option<StreamIndex> {
        self.by_key.get(key).copied()
    }

    /// The stream of that name, made if need be.
    pub(crate) fn entry(&mut self, key: &StreamKey) -> StreamIndex {
        if let Some(index) = self.find(key) {
            return index;
        }
        let state = StreamState {
            key: key.clone(),
            sessions: 0,
            subscribers: Vec::new(),
            feed: None,
            generations: 0,
            inbox: Vec::new(),
            inbox_tapped: 0,
        };
        let index = match self.free.pop() {
            Some(index) => {
                self.streams[index] = Some(state);
                StreamIndex(index)
            }
            None => {
                self.streams.push(Some(state));
                StreamIndex(self.streams.len() - 1)
            }
        };
        self.by_key.insert(key.clone(), index);
        index
    }

    /// Forgets a stream that has neither a publisher nor sessions here, connected or not.
    pub(crate) fn release(&mut self, index: StreamIndex) {
        let Some(slot) = self.streams.get_mut(index.0) else { return };
        if let Some(state) = slot.take_if(|s| s.feed.is_none() && s.sessions == 0) {
            self.by_key.remove(&state.key);
            self.dirty.retain(|i| *i != index);
            self.free.push(index.0);
        }
    }

    /// Number of streams.
    pub(crate) fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Every stream.
    pub(crate) fn indices(&self) -> impl Iterator<Item = StreamIndex> + use<> {
        let used: Vec<usize> = (0..self.streams.len()).filter(|i| self.streams[*i].is_some()).collect();
        used.into_iter().map(StreamIndex)
    }

    /// Takes a packet of the stream's present publisher for the next fan-out.
    pub(crate) fn accept(&mut self, index: StreamIndex, publisher: SessionId, packet: RtpPacket, epoch: &Epoch) {
        let Some(stream) = self.streams.get_mut(index.0).and_then(Option::as_mut) else { return };
        let Some(feed) = stream.feed.as_mut().filter(|f| f.publisher == publisher) else { return };
        let track = usize::from(packet.track);
        let format = feed.tracks.get(track).and_then(|t| t.formats.get(usize::from(packet.format)));
        let (Some(state), Some(format)) = (feed.states.get_mut(track), format) else { return };
        let known = state.reference;
        state.note(&packet, format.clock_hz, epoch);
        if let Some(reference) = state.reference.filter(|r| feed.tapped && known != Some(*r)) {
            stream.tap_clock(packet.track, reference, &mut self.tapped);
        }
        stream.inbox.push(packet);
        if stream.inbox.len() == 1 {
            self.dirty.push_back(index);
        }
    }

    /// Keeps packets for viewers that are about to start, without forwarding them.
    pub(crate) fn accept_backlog(&mut self, index: StreamIndex, publisher: SessionId, packets: &[RtpPacket]) {
        let Some(feed) = self.stream_mut(index).and_then(|s| s.feed.as_mut()) else { return };
        if feed.publisher == publisher {
            for packet in packets {
                if let Some(state) = feed.states.get_mut(usize::from(packet.track)) {
                    state.history.insert(packet);
                    let start =
                        state.left_out.filter(|(_, last)| last + 1 == packet.seq).map_or(packet.seq, |(s, _)| s);
                    state.left_out = Some((start, packet.seq));
                }
            }
        }
    }

    /// Takes a better tie between a track's RTP time and the wall clock.
    pub(crate) fn set_clock(&mut self, index: StreamIndex, publisher: SessionId, track: TrackIndex, r: ClockReference) {
        let Some(stream) = self.streams.get_mut(index.0).and_then(Option::as_mut) else { return };
        let Some(feed) = stream.feed.as_mut().filter(|f| f.publisher == publisher) else { return };
        let Some(state) = feed.states.get_mut(usize::from(track)) else { return };
        state.reference = Some(r);
        for shard in &feed.wanted_by {
            let key = stream.key.clone();
            self.outbox.push((*shard, RelayMessage::Clock { key, publisher, track, reference: r }));
        }
        stream.tap_clock(track, r, &mut self.tapped);
    }

    /// Hands what came in since the last fan-out to other shards and to the server, as far as they want it.
    pub(crate) fn share(&mut self, index: StreamIndex, outbox: &mut VecDeque<(ShardId, RelayMessage)>) {
        let Some(stream) = self.streams.get_mut(index.0).and_then(Option::as_mut) else { return };
        let Some(feed) = &stream.feed else { return };
        let batch: Option<Arc<[RtpPacket]>> = (!feed.wanted_by.is_empty()).then(|| stream.inbox.as_slice().into());
        if let Some(batch) = &batch {
            for shard in &feed.wanted_by {
                let (key, publisher, packets) = (stream.key.clone(), feed.publisher, Arc::clone(batch));
                outbox.push_back((*shard, RelayMessage::Media { key, publisher, packets }));
            }
        }
        stream.tap_inbox(batch.as_ref(), &mut self.tapped);
    }
}

impl Feed {
    /// The publisher's shard and the publisher, if that is another shard.
    pub(crate) fn elsewhere(&self) -> Option<(ShardId, SessionId)> {
        match self.origin {
            Origin::Shard(home) => Some((home, self.publisher)),
            Origin::Session(_) | Origin::Server => None,
        }
    }

    /// Empties the histories.
    pub(crate) fn forget_packets(&mut self) {
        self.states.iter_mut().for_each(|s| s.history.clear());
    }

    /// What was sent since the last keyframes of all tracks, without what is still in the inbox.
    pub(crate) fn backlog(&self, now: Instant, inbox: &[RtpPacket]) -> impl Iterator<Item = &RtpPacket> {
        self.states.iter().enumerate().flat_map(move |(track, state)| {
            let end = inbox.iter().filter(|p| usize::from(p.track) == track).map(|p| p.seq).min();
            state.history.backlog(now, end).into_iter().flatten()
        })
    }
}

impl StreamState {
    /// What the stream has for its viewers, while there is somebody who feeds it.
    pub(crate) fn supply(&self) -> Option<Supply<'_>> {
        Some(Supply { feed: self.feed.as_ref()?, inbox: &self.inbox })
    }

    /// A publisher goes on the air; whoever was there before is replaced.
    pub(crate) fn set_feed(&mut self, publisher: SessionId, origin: Origin, depth: Depth, tracks: Arc<[TrackInfo]>) {
        self.generations += 1;
        self.clear_inbox();
        let states = tracks.iter().map(|_| TrackState::new(depth)).collect();
        let generation = self.generations;
        let wanted_by = Vec::new();
        self.feed = Some(Feed { publisher, origin, generation, depth, tracks, states, wanted_by, tapped: false });
    }

    /// The publisher goes off the air. False: it was another one's turn already.
    pub(crate) fn clear_feed(&mut self, publisher: SessionId) -> bool {
        let is_its = self.feed.as_ref().is_some_and(|f| f.publisher == publisher);
        if is_its {
            self.feed = None;
            self.clear_inbox();
        }
        is_its
    }

    /// Everything has been forwarded, or there is nobody who sends it any more.
    pub(crate) fn clear_inbox(&mut self) {
        self.inbox.clear();
        self.inbox_tapped = 0;
    }
}
