//! The receiving half of a publisher's session: from what str0m delivers to packets of tracks and layers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use freshet_media::depacketize::picture_size;
use freshet_media::{MediaKind, opens_keyframe};

use crate::clock::{ClockReference, Epoch, PublisherClock};
use crate::format::Format;
use crate::nack::Nacks;
use crate::packet::{Extensions, RtpPacket, TrackIndex};
use crate::relay::TrackInfo;
use crate::repair::{Header, Repairs};
use crate::sdp::{Negotiated, Offer, extension};
use crate::status::SessionStatus;
use crate::throttle::KeyframeThrottle;
use crate::transport::{Received, SenderReportReceived, Transport};

/// SSRCs that a publisher may use in its life: layers, retransmissions, changes of device.
const MAX_SSRCS: usize = 32;
/// Layers of one track.
const MAX_LAYERS: usize = 8;
/// Layers' rates are compared over this time.
const RATE_INTERVAL: Duration = Duration::from_millis(500);
/// A layer has to be this much larger to be worth a switch (and its keyframe), in percent.
const BETTER_PERCENT: u64 = 120;
/// A layer that has been silent for so long is not worth waiting for.
const SILENT: Duration = Duration::from_millis(1500);

/// One simulcast layer as it arrives.
#[derive(Debug, Default)]
struct Layer {
    ssrc: u32,
    rid: Option<String>,
    throttle: KeyframeThrottle,
    interval_bytes: u64,
    rate_bps: u64,
    newest: Option<Instant>,
    /// From its last sender report.
    clock: Option<ClockReference>,
    /// What of it is missing.
    nacks: Nacks,
}

/// One track as it arrives.
#[derive(Debug)]
struct Track {
    mid: String,
    layers: Vec<Layer>,
    /// The layer that is forwarded.
    current: usize,
    rates_since: Option<Instant>,
    last_timestamp: Option<u32>,
    has_fir: bool,
}

#[derive(Debug, Clone, Copy)]
struct Binding {
    ssrc: u32,
    track: TrackIndex,
    layer: u8,
}

/// What a payload type is.
#[derive(Debug, Clone, Copy)]
struct PayloadType {
    track: TrackIndex,
    format: u8,
    /// Lost packets may be asked for.
    has_nack: bool,
}

/// A publisher's receiving half.
#[derive(Debug)]
pub(crate) struct Publisher {
    pub(crate) info: Arc<[TrackInfo]>,
    /// The server wants the packets as well (`tap`).
    pub(crate) tapped: bool,
    tracks: Vec<Track>,
    payload_types: Box<[Option<PayloadType>; 128]>,
    bindings: Vec<Binding>,
    /// SSRCs seen by [`bind_by_payload_type`](Self::bind_by_payload_type), where packets do not say where they belong.
    unannounced: Option<Vec<u32>>,
    clock: PublisherClock,
    repairs: Repairs,
    /// Scratch.
    missing: Vec<u16>,
    /// The clock of a layer that has just become the forwarded one.
    switched: Option<(TrackIndex, ClockReference)>,
}

impl Publisher {
    /// `ssrc`: under which lost packets are asked for.
    pub(crate) fn new(offer: &Offer, negotiated: &Negotiated, ssrc: u32) -> Publisher {
        let mut payload_types = Box::new([None; 128]);
        let mut tracks = Vec::new();
        let mut info = Vec::new();
        for (track, media) in negotiated.media.iter().enumerate() {
            for (format, codec) in media.codecs.iter().enumerate() {
                payload_types[usize::from(codec.pt & 0x7f)] = Some(PayloadType {
                    track: track as TrackIndex,
                    format: format as u8,
                    has_nack: codec.rtx.is_some() || codec.feedback.iter().any(|f| f == "nack"),
                });
            }
            info.push(TrackInfo { kind: media.kind, formats: media.codecs.iter().map(Format::new).collect() });
            let feedback = |name: &str| media.codecs.iter().any(|c| c.feedback.iter().any(|f| f == name));
            tracks.push(Track {
                mid: media.mid.clone(),
                layers: Vec::new(),
                current: 0,
                rates_since: None,
                last_timestamp: None,
                has_fir: feedback("ccm fir") && !feedback("nack pli"),
            });
        }
        let announced = negotiated
            .media
            .iter()
            .all(|m| !offer.media[m.index].ssrc_lines.is_empty() || m.extension_id(extension::MID).is_some());
        let codecs = negotiated.media.iter().flat_map(|m| &m.codecs);
        let rtx = codecs.filter_map(|codec| Some((codec.rtx?, codec.pt))).collect();
        Publisher {
            info: info.into(),
            tapped: false,
            tracks,
            payload_types,
            bindings: Vec::new(),
            unannounced: (!announced).then(Vec::new),
            clock: PublisherClock::default(),
            repairs: Repairs::new(ssrc, rtx),
            missing: Vec::new(),
            switched: None,
        }
    }

    /// Before a packet of a publisher without SSRC lines and MID extension is handed to the transport: tells it from
    /// the clear header where the SSRC belongs. Such packets would be dropped in silence.
    pub(crate) fn bind_by_payload_type(&mut self, transport: &mut Transport, datagram: &[u8]) {
        let (Some(seen), Some(header)) = (&mut self.unannounced, datagram.first_chunk::<12>()) else { return };
        let ssrc = u32::from_be_bytes([header[8], header[9], header[10], header[11]]);
        if seen.contains(&ssrc) || seen.len() >= MAX_SSRCS {
            return;
        }
        if let Some(pt) = self.payload_types[usize::from(header[1] & 0x7f)] {
            seen.push(ssrc);
            transport.expect(ssrc, &self.tracks[usize::from(pt.track)].mid);
        }
    }

    /// Turns a received packet into one that can be forwarded. [`None`]: not of the layer that is forwarded.
    pub(crate) fn accept(
        &mut self,
        received: &Received,
        transport: &mut Transport,
        status: &SessionStatus,
    ) -> Option<RtpPacket> {
        let pt = self.payload_types[usize::from(received.pt & 0x7f)]?;
        let binding = self.binding(received.ssrc, pt, transport)?;
        let track = self.tracks.get_mut(usize::from(binding.track))?;
        let format = self.info[usize::from(binding.track)].formats.get(usize::from(pt.format))?;
        let payload = &received.payload;
        let opens = format.codec.kind() == MediaKind::Video && opens_keyframe(format.codec, payload);
        let layer = &mut track.layers[usize::from(binding.layer)];
        layer.newest = Some(received.arrival);
        if pt.has_nack {
            layer.nacks.received(received.arrival, received.seq);
        }
        layer.interval_bytes += payload.len() as u64;
        if opens {
            layer.throttle.keyframe();
        }
        let before = track.current;
        track.consider_layers(received.arrival, usize::from(binding.layer), opens);
        if track.current != before {
            self.switched = track.layers[track.current].clock.map(|clock| (binding.track, clock));
        }
        if usize::from(binding.layer) != track.current {
            return None;
        }
        let slot = &status.tracks[usize::from(format.codec.kind() == MediaKind::Video)];
        slot.set(pt.format, track.layers.len() as u8);
        if opens && let Some(size) = picture_size(format.codec, payload) {
            slot.set_size(size);
        }
        if track.last_timestamp.replace(received.timestamp) != Some(received.timestamp) {
            slot.frames.add(1);
        }
        Some(RtpPacket {
            track: binding.track,
            layer: binding.layer,
            format: pt.format,
            marker: received.marker,
            opens_keyframe: opens,
            seq: received.seq,
            timestamp: received.timestamp,
            arrival: received.arrival,
            extensions: received.extensions,
            payload: Arc::clone(payload),
        })
    }

    fn binding(&mut self, ssrc: u32, pt: PayloadType, transport: &mut Transport) -> Option<Binding> {
        if let Some(known) = self.bindings.iter().find(|b| b.ssrc == ssrc) {
            return Some(*known);
        }
        let (mid, rid) = transport.stream_of(ssrc)?;
        let track = self.tracks.iter().position(|t| t.mid == mid).unwrap_or(usize::from(pt.track));
        let layers = &mut self.tracks.get_mut(track)?.layers;
        let layer = match layers.iter().position(|l| l.rid == rid) {
            Some(layer) => {
                // The encoder was replaced; its requests go to the new SSRC.
                layers[layer].ssrc = ssrc;
                layers[layer].nacks = Nacks::default();
                layer
            }
            None if layers.len() < MAX_LAYERS => {
                layers.push(Layer { ssrc, rid, ..Layer::default() });
                layers.len() - 1
            }
            None => return None,
        };
        if pt.has_nack {
            transport.leave_repairs(ssrc);
        }
        if self.bindings.len() >= MAX_SSRCS {
            self.bindings.remove(0);
        }
        let binding = Binding { ssrc, track: track as TrackIndex, layer: layer as u8 };
        self.bindings.push(binding);
        Some(binding)
    }

    /// A datagram that the transport has been given: the packet in it, if it answers a request and the transport has
    /// dropped it as too old.
    pub(crate) fn recover(&mut self, now: Instant, transport: &mut Transport, datagram: &[u8]) -> Option<Received> {
        let header = Header::parse(datagram)?;
        let repaired = self.repairs.repaired_pt(header.pt);
        let pt = repaired.unwrap_or(header.pt);
        let known = self.payload_types[usize::from(pt & 0x7f)].filter(|known| known.has_nack)?;
        let layers = &self.tracks.get(usize::from(known.track))?.layers;
        let (seq, ssrc, payload): (u64, u32, Arc<[u8]>) = if repaired.is_some() {
            let of = |layer: &&Layer| layers.len() == 1 || transport.rtx_of(layer.ssrc) == Some(header.ssrc);
            let layer = layers.iter().find(of)?;
            let (low, payload) = self.repairs.open_rtx(transport.keys()?, &header, datagram)?;
            (layer.nacks.missing(low)?, layer.ssrc, payload.into())
        } else {
            let layer = layers.iter().find(|layer| layer.ssrc == header.ssrc && !layer.nacks.is_empty())?;
            let seq = layer.nacks.missing(header.seq)?;
            (seq, layer.ssrc, self.repairs.open_again(transport.keys()?, &header, seq, datagram)?.into())
        };
        let Header { timestamp, marker, .. } = header;
        let extensions = Extensions::default();
        Some(Received { ssrc, pt, seq, timestamp, marker, arrival: now, extensions, payload })
    }

    /// Hands over the requests for lost packets that are due, as datagrams. Returns how many packets they name.
    pub(crate) fn poll_nacks(&mut self, now: Instant, transport: &Transport, mut send: impl FnMut(&[u8])) -> usize {
        let Some(keys) = transport.keys() else { return 0 };
        let mut named = 0;
        for layer in self.tracks.iter_mut().flat_map(|track| &mut track.layers) {
            self.missing.clear();
            layer.nacks.poll(now, &mut self.missing);
            if !self.missing.is_empty() {
                self.repairs.write_requests(keys, layer.ssrc, &self.missing, &mut send);
                named += self.missing.len();
            }
        }
        named
    }

    /// Ties a track's RTP time to the wall clock.
    pub(crate) fn sender_report(
        &mut self,
        report: &SenderReportReceived,
        epoch: &Epoch,
    ) -> Option<(TrackIndex, ClockReference)> {
        let binding = *self.bindings.iter().find(|b| b.ssrc == report.ssrc)?;
        let reference = self.clock.sender_report(report.rtp, report.ntp, epoch.wall(report.arrival));
        let track = self.tracks.get_mut(usize::from(binding.track))?;
        track.layers.get_mut(usize::from(binding.layer))?.clock = Some(reference);
        (track.current == usize::from(binding.layer)).then_some((binding.track, reference))
    }

    /// What the clock of a track is from here on, after a change of layer.
    pub(crate) fn take_switched_clock(&mut self) -> Option<(TrackIndex, ClockReference)> {
        self.switched.take()
    }

    /// A viewer needs a keyframe. Returns how many requests went out.
    pub(crate) fn request_keyframe(&mut self, now: Instant, transport: &mut Transport) -> u64 {
        let mut sent = 0;
        for (track, info) in self.tracks.iter_mut().zip(self.info.iter()) {
            let (current, has_fir) = (track.current, track.has_fir);
            let Some(layer) = track.layers.get_mut(current).filter(|_| info.kind == MediaKind::Video) else { continue };
            if layer.throttle.request(now) {
                transport.request_keyframe(layer.ssrc, has_fir);
                sent += 1;
            }
        }
        sent
    }

    /// Sends requests that had to wait. Returns how many.
    pub(crate) fn poll_keyframe_requests(&mut self, now: Instant, transport: &mut Transport) -> u64 {
        let mut sent = 0;
        for track in &mut self.tracks {
            let has_fir = track.has_fir;
            for layer in &mut track.layers {
                if layer.throttle.poll(now) {
                    transport.request_keyframe(layer.ssrc, has_fir);
                    sent += 1;
                }
            }
        }
        sent
    }

    /// When [`poll_keyframe_requests`](Self::poll_keyframe_requests) or [`poll_nacks`](Self::poll_nacks) has something to
    /// do.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let layers = self.tracks.iter().flat_map(|t| &t.layers);
        layers.flat_map(|l| [l.throttle.deadline(), l.nacks.deadline()]).flatten().min()
    }
}

impl Track {
    /// Chooses the layer with the highest rate. The switch happens at a keyframe of the new one, unless the old one
    /// has fallen silent.
    fn consider_layers(&mut self, now: Instant, arrived: usize, opens_keyframe: bool) {
        if self.layers.len() < 2 {
            return;
        }
        let since = *self.rates_since.get_or_insert(now);
        let elapsed = now.saturating_duration_since(since);
        if elapsed >= RATE_INTERVAL {
            for layer in &mut self.layers {
                let bytes = std::mem::take(&mut layer.interval_bytes);
                layer.rate_bps = bytes * 8 * 1000 / elapsed.as_millis().max(1) as u64;
            }
            self.rates_since = Some(now);
            if let Some(best) = self.best(now) {
                // Asked for through the throttle; `poll_keyframe_requests` sends it.
                self.layers[best].throttle.wish();
            }
        }
        if arrived != self.current && opens_keyframe && self.best(now) == Some(arrived) {
            self.current = arrived;
        }
    }

    /// A layer that deserves to take the place of the present one.
    fn best(&self, now: Instant) -> Option<usize> {
        let silent = |l: &Layer| l.newest.is_none_or(|at| now.saturating_duration_since(at) > SILENT);
        let current = &self.layers[self.current];
        let floor = if silent(current) { 0 } else { current.rate_bps * BETTER_PERCENT / 100 };
        let alive = self.layers.iter().enumerate().filter(|(_, l)| !silent(l));
        let (best, layer) = alive.max_by_key(|(_, l)| l.rate_bps)?;
        (best != self.current && layer.rate_bps > floor).then_some(best)
    }
}
