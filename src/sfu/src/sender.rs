//! One track of a viewer: from the packets of a publisher's track to protected datagrams.
//!
//! A small record: numbers, payload types, counters, and where the track stands. Mostly that is the live edge, where
//! every packet is forwarded as it comes. A picture that starts, or whose link has a budget, stands at a [`Cursor`] in
//! the shared history instead, and is given the next packets when they are due.

use std::time::Instant;

use freshet_media::depacketize::red_primary;
use freshet_media::{Codec, MediaKind};

use crate::batch::SendBatch;
use crate::catch_up::{
    Cursor, MAX_FRAME_TIME, MAX_LAG, MAX_PIECE_PACKETS, PIECE_INTERVAL, POLL_INTERVAL, Pace, Plan, Restarts, media_time,
};
use crate::format::best_match;
use crate::history::History;
use crate::link::Link;
use crate::packet::{ExtensionIds, Header, RtpPacket, write_header};
use crate::patience::Patience;
use crate::relay::TrackInfo;
use crate::rewrite::{BacklogSpan, Original, Rewriter, Rewritten, Source};
use crate::router::Feed;
use crate::sdp::{NegotiatedMedia, OfferedCodec, SenderSsrcs, extension};
use crate::srtp::Sealer;
use crate::subscriber::Outlet;

/// Formats of a publisher's track that can be told apart; browsers offer about fifteen.
const MAX_FORMATS: usize = 32;
/// The P bit of a header (RFC 3550 §5.1).
const PADDED: u8 = 0x20;

/// What a feed has for a viewer: the packets that are kept, and those that will be forwarded anyway.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Supply<'a> {
    pub(crate) feed: &'a Feed,
    pub(crate) inbox: &'a [RtpPacket],
}

impl<'a> Supply<'a> {
    /// The track of a kind, its history, and where the packets begin that are still to be forwarded.
    fn track(&self, kind: MediaKind) -> Option<(usize, &'a History, Option<u64>)> {
        let track = self.feed.tracks.iter().position(|t| t.kind == kind)?;
        let end = self.inbox.iter().filter(|p| usize::from(p.track) == track).map(|p| p.seq).min();
        Some((track, &self.feed.states.get(track)?.history, end))
    }
}

/// What one track of the stream becomes for this viewer.
#[derive(Debug)]
pub(crate) struct Sender {
    pub(crate) kind: MediaKind,
    pub(crate) ssrcs: SenderSsrcs,
    codecs: Vec<OfferedCodec>,
    mid: Vec<u8>,
    ids: ExtensionIds,
    pub(crate) rewriter: Rewriter,
    next_rtx_seq: u64,
    /// Publisher for which `outgoing` holds.
    pub(crate) generation: Option<u32>,
    outgoing: [Option<Outgoing>; MAX_FORMATS],
    /// The picture can go on with a keyframe only.
    pub(crate) waits_for_keyframe: bool,
    /// Where it stands, if not on the live edge.
    cursor: Option<Cursor>,
    /// When [`advance`](Self::advance) has something to do.
    pub(crate) wake: Option<Instant>,
    restarts: Restarts,
    pub(crate) counts: Counts,
    pub(crate) patience: Patience,
}

/// What a sender report tells of a track, and what is remembered of it.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) packets: u32,
    pub(crate) octets: u32,
    /// Middle 32 bits of the NTP time of the last sender report, and when it was sent.
    pub(crate) last_report: Option<(u32, Instant)>,
}

/// What has become of the next packet at a cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Sent,
    /// Not sent, and the cursor has moved.
    Passed,
    /// Its time comes later.
    Due(Instant),
    /// There is none: what comes is forwarded as it comes.
    Live,
    /// The picture cannot go on before the next keyframe.
    Left,
}

/// How a format of the publisher is sent.
#[derive(Debug, Clone, Copy)]
struct Outgoing {
    pt: u8,
    rtx_pt: Option<u8>,
    clock_hz: u32,
    is_vp8: bool,
    unwrap_red: bool,
}

impl Sender {
    pub(crate) fn new(media: &NegotiatedMedia, ssrcs: SenderSsrcs, random: u64) -> Sender {
        let id = |uri| media.extension_id(uri).unwrap_or(0);
        // Without RTX a packet is sent again as it was; its header must not have changed by then (see `srtp`).
        let has_rtx = ssrcs.rtx.is_some() && media.codecs.iter().all(|c| c.rtx.is_some());
        // The one-byte form holds 16 bytes (RFC 8285 §4.2).
        let mid = Some(media.mid.as_bytes()).filter(|m| m.len() <= 16).unwrap_or_default().to_vec();
        Sender {
            kind: media.kind,
            ssrcs,
            codecs: media.codecs.clone(),
            ids: ExtensionIds {
                mid: if mid.is_empty() { 0 } else { id(extension::MID) },
                audio_level: id(extension::AUDIO_LEVEL),
                video_orientation: id(extension::VIDEO_ORIENTATION),
                playout_delay: if has_rtx { id(extension::PLAYOUT_DELAY) } else { 0 },
            },
            mid,
            rewriter: Rewriter::new(random),
            next_rtx_seq: random >> 16 & 0x7fff,
            generation: None,
            outgoing: [None; MAX_FORMATS],
            waits_for_keyframe: media.kind == MediaKind::Video,
            cursor: None,
            wake: None,
            restarts: Restarts::default(),
            counts: Counts::default(),
            patience: Patience::default(),
        }
    }

    /// Looks up how each format of a new publisher is sent.
    fn attach(&mut self, generation: u32, track: &TrackInfo) {
        self.generation = Some(generation);
        self.outgoing = [None; MAX_FORMATS];
        for (format, outgoing) in track.formats.iter().zip(&mut self.outgoing) {
            let plain = best_match(format, &self.codecs).map(|i| (&self.codecs[i], false));
            // A viewer without RED is sent the primary block.
            let opus = || Some((self.codecs.iter().find(|c| c.codec == Codec::Opus)?, true));
            let found = plain.or_else(|| if format.codec == Codec::Red { opus() } else { None });
            *outgoing = found.map(|(codec, unwrap_red)| Outgoing {
                pt: codec.pt,
                rtx_pt: codec.rtx,
                clock_hz: format.clock_hz,
                is_vp8: format.codec == Codec::Vp8,
                unwrap_red,
            });
        }
        self.leave_picture();
    }

    fn outgoing(&self, packet: &RtpPacket) -> Option<Outgoing> {
        self.outgoing.get(usize::from(packet.format)).copied().flatten()
    }

    /// The picture goes on with a keyframe; sound is not concerned.
    pub(crate) fn leave_picture(&mut self) {
        self.waits_for_keyframe = self.kind == MediaKind::Video;
        (self.cursor, self.wake) = (None, None);
    }

    /// Sends one packet of the live edge, in order or late. Returns its payload's length, 0 if it was not sent.
    pub(crate) fn forward(
        &mut self,
        packet: &RtpPacket,
        padding: u8,
        feed: &Feed,
        is_limited: bool,
        sealer: &mut Sealer,
        outlet: &mut Outlet<'_>,
    ) -> usize {
        let track = usize::from(packet.track);
        if self.generation != Some(feed.generation)
            && let Some(info) = feed.tracks.get(track)
        {
            self.attach(feed.generation, info);
        }
        let Some(outgoing) = self.outgoing(packet) else {
            outlet.shard.drop_codec.add(1);
            return 0;
        };
        let source = Source { generation: feed.generation, layer: packet.layer };
        match &self.cursor {
            // It is kept and will be sent when its turn comes; a late one fills its gap.
            Some(cursor) if cursor.source == source && packet.seq >= cursor.next => return 0,
            Some(cursor) if cursor.source != source && !is_limited => (self.cursor, self.wake) = (None, None),
            Some(cursor) if cursor.source != source => return 0,
            None if is_limited && self.kind == MediaKind::Video => return 0,
            Some(_) | None => {}
        }
        if packet.payload.is_empty() {
            self.rewriter.skip(source, packet);
            return 0;
        }
        if !self.rewriter.follows(source) || self.waits_for_keyframe {
            if self.kind == MediaKind::Video && !packet.opens_keyframe {
                return 0;
            }
            self.rewriter.begin(source, packet, outgoing.clock_hz, outgoing.is_vp8);
            self.waits_for_keyframe = false;
        } else if let Some(left_out) = feed.states.get(track).and_then(|s| s.left_out) {
            self.rewriter.close_gap(source, packet, left_out);
        }
        self.send(packet, padding, source, outgoing, sealer, outlet).unwrap_or(0)
    }

    /// Starts a picture from the last keyframe, if that is kept: the next [`advance`](Self::advance) sends it.
    pub(crate) fn start(&mut self, now: Instant, supply: Supply<'_>) -> Option<()> {
        let (track, history, end) = supply.track(self.kind)?;
        let generation = supply.feed.generation;
        if self.generation != Some(generation) {
            self.attach(generation, &supply.feed.tracks[track]);
        }
        let (first, live) = history.backlog_ends(now, end)?;
        let source = Source { generation, layer: first.layer };
        let outgoing = self.outgoing(first)?;
        let plan = Plan::new(now, first, live, outgoing.clock_hz, self.restarts.attempts());
        let span = BacklogSpan { live, takes: plan.takes };
        self.rewriter.begin_backlog(source, first, span, outgoing.clock_hz, outgoing.is_vp8);
        self.waits_for_keyframe = false;
        self.cursor = Some(Cursor { source, next: first.seq, frame: None, pace: Pace::Plan(plan) });
        self.wake = Some(now);
        Some(())
    }

    /// The viewer asks for a keyframe where nobody may make one: starts again from the last one, now and then.
    pub(crate) fn restart(&mut self, now: Instant, supply: Supply<'_>) {
        if self.restarts.admit(now) {
            self.start(now, supply);
        }
    }

    /// A first start counts as one that was asked for: players ask on the off chance.
    pub(crate) fn count_start(&mut self, now: Instant) {
        let _ = self.restarts.admit(now);
    }

    /// Starts a picture under a budget: from a keyframe that is young enough, once the budget allows.
    fn start_limited(&mut self, now: Instant, supply: Supply<'_>, link: &mut Link, sent_bytes: u64) -> Option<()> {
        let (track, history, end) = supply.track(self.kind)?;
        if self.generation != Some(supply.feed.generation) {
            self.attach(supply.feed.generation, &supply.feed.tracks[track]);
        }
        let (first, live) = history.backlog_ends(now, end)?;
        let outgoing = self.outgoing(first)?;
        let lag = media_time(first.timestamp, live.timestamp, outgoing.clock_hz);
        if lag > MAX_LAG || link.next_send(now, sent_bytes).is_some() {
            return None;
        }
        let source = Source { generation: supply.feed.generation, layer: first.layer };
        self.rewriter.begin(source, first, outgoing.clock_hz, outgoing.is_vp8);
        self.waits_for_keyframe = false;
        self.cursor = Some(Cursor { source, next: first.seq, frame: None, pace: Pace::Budget });
        link.picture_begins(now);
        Some(())
    }

    /// Sends what is due of a picture that is not on the live edge.
    pub(crate) fn advance(
        &mut self,
        now: Instant,
        supply: Supply<'_>,
        link: &mut Link,
        sealer: &mut Sealer,
        outlet: &mut Outlet<'_>,
    ) {
        if self.wake.is_none_or(|at| at > now) {
            return;
        }
        self.wake = None;
        if link.is_limited() && self.waits_for_keyframe {
            self.start_limited(now, supply, link, outlet.status.sent_bytes.value());
        }
        let mut sent = 0;
        while self.cursor.is_some() {
            if sent >= MAX_PIECE_PACKETS || outlet.batch.is_full() {
                self.wake = Some(if sent >= MAX_PIECE_PACKETS { now + PIECE_INTERVAL } else { now });
                return;
            }
            match self.step(now, supply, link, sealer, outlet) {
                Step::Sent => sent += 1,
                Step::Passed => {}
                Step::Due(at) => {
                    self.wake = Some(at.max(now + PIECE_INTERVAL));
                    return;
                }
                Step::Live => self.cursor = None,
                Step::Left => {
                    self.leave_picture();
                    link.picture_left(now);
                }
            }
        }
        self.wake = (link.is_limited() && self.waits_for_keyframe).then(|| now + POLL_INTERVAL);
    }

    /// The next packet at the cursor.
    fn step(
        &mut self,
        now: Instant,
        supply: Supply<'_>,
        link: &mut Link,
        sealer: &mut Sealer,
        outlet: &mut Outlet<'_>,
    ) -> Step {
        let (Some(cursor), Some((_, history, end))) = (&mut self.cursor, supply.track(self.kind)) else {
            return Step::Left;
        };
        let (source, is_limited) = (cursor.source, link.is_limited());
        let Some((layer, newest)) = history.newest() else { return Step::Left };
        if source.generation != supply.feed.generation || layer != source.layer {
            return Step::Left;
        }
        let end = end.unwrap_or(newest + 1);
        let Some(packet) = history.next_from(now, layer, cursor.next, end) else {
            cursor.next = cursor.next.max(end);
            link.picture_is_live(now);
            return if is_limited { Step::Due(now + POLL_INTERVAL) } else { Step::Live };
        };
        if is_limited && packet.seq > cursor.next && history.has_forgotten(now, layer, cursor.next) {
            return Step::Left;
        }
        cursor.next = packet.seq;
        let Some(outgoing) = self.outgoing.get(usize::from(packet.format)).copied().flatten() else {
            cursor.next += 1;
            return Step::Passed;
        };
        if cursor.frame != Some(packet.timestamp) {
            // Between two frames: a newer keyframe is a shorter way to the live edge.
            let keyframe = history.backlog_ends(now, Some(end)).filter(|(first, _)| first.seq > packet.seq);
            if keyframe.is_some() {
                self.leave_picture();
                let sent_bytes = outlet.status.sent_bytes.value();
                let goes_on = match is_limited {
                    true => self.start_limited(now, supply, link, sent_bytes),
                    false => self.start(now, supply),
                };
                return goes_on.map_or(Step::Left, |()| Step::Passed);
            }
        }
        if is_limited {
            let live = history.get(now, layer, newest).map_or(packet.timestamp, |p| p.timestamp);
            let lag = media_time(packet.timestamp, live, outgoing.clock_hz);
            let is_amid = cursor.frame == Some(packet.timestamp);
            if lag > if is_amid { MAX_FRAME_TIME } else { MAX_LAG } {
                return Step::Left;
            }
        }
        let due = match &cursor.pace {
            Pace::Plan(plan) => Some(plan.due(packet.timestamp)).filter(|at| *at > now),
            Pace::Budget => link.next_send(now, outlet.status.sent_bytes.value()),
        };
        if let Some(at) = due {
            return Step::Due(at);
        }
        cursor.frame = Some(packet.timestamp);
        cursor.next += 1;
        if packet.payload.is_empty() {
            self.rewriter.skip(source, packet);
            return Step::Passed;
        }
        self.send(packet, 0, source, outgoing, sealer, outlet);
        Step::Sent
    }

    /// Sends a packet again under the numbers that it was sent with. Returns its payload's length.
    pub(crate) fn resend(
        &mut self,
        packet: &RtpPacket,
        original: &Original,
        sealer: &mut Sealer,
        outlet: &mut Outlet<'_>,
    ) -> Option<usize> {
        let outgoing = self.outgoing(packet)?;
        let rewritten = original.rewrite(packet);
        let bytes = if outgoing.rtx_pt.is_some() && self.ssrcs.rtx.is_some() {
            self.write_rtx(packet, outgoing, rewritten, sealer, outlet.batch)?
        } else {
            self.write(packet, 0, outgoing, rewritten, sealer, outlet.batch)?
        };
        outlet.commit();
        outlet.shard.retransmitted_packets.add(1);
        self.patience.resent();
        Some(bytes)
    }

    /// Gives a packet its numbers and sends it. Returns its payload's length.
    fn send(
        &mut self,
        packet: &RtpPacket,
        padding: u8,
        source: Source,
        outgoing: Outgoing,
        sealer: &mut Sealer,
        outlet: &mut Outlet<'_>,
    ) -> Option<usize> {
        let rewritten = self.rewriter.rewrite(source, packet, outgoing.is_vp8)?;
        // Without RTX a packet is sent again as it was, and nobody remembers how it was padded (see `srtp`).
        let padding = if outgoing.rtx_pt.is_some() && self.ssrcs.rtx.is_some() { padding } else { 0 };
        let bytes = self.write(packet, padding, outgoing, rewritten, sealer, outlet.batch)?;
        outlet.commit();
        outlet.shard.forwarded_packets.add(1);
        self.counts.packets = self.counts.packets.wrapping_add(1);
        self.counts.octets = self.counts.octets.wrapping_add(bytes as u32);
        self.patience.sent();
        Some(bytes)
    }

    /// Appends the protected packet to the arena and returns its payload's length.
    fn write(
        &self,
        packet: &RtpPacket,
        padding: u8,
        outgoing: Outgoing,
        rewritten: Rewritten,
        sealer: &mut Sealer,
        batch: &mut SendBatch,
    ) -> Option<usize> {
        let payload = if outgoing.unwrap_red { red_primary(&packet.payload)? } else { &packet.payload };
        let start = batch.written();
        let arena = batch.arena();
        let header = self.header(packet, outgoing.pt, self.ssrcs.media, rewritten.seq, rewritten.timestamp);
        let header_bytes = write_header(arena, &header);
        arena.extend_from_slice(payload);
        if outgoing.is_vp8 {
            rewritten.vp8.patch(&mut arena[start + header_bytes..]);
        }
        if padding > 0 {
            arena[start] |= PADDED;
            arena.resize(arena.len() + usize::from(padding) - 1, 0);
            arena.push(padding);
        }
        let sealed = sealer.seal_rtp(arena, start, header_bytes, self.ssrcs.media, rewritten.seq);
        if sealed.is_err() {
            batch.abandon();
            return None;
        }
        Some(payload.len())
    }

    /// RFC 4588 §4: another SSRC and payload type, the original sequence number in front of the payload.
    fn write_rtx(
        &mut self,
        packet: &RtpPacket,
        outgoing: Outgoing,
        rewritten: Rewritten,
        sealer: &mut Sealer,
        batch: &mut SendBatch,
    ) -> Option<usize> {
        let (pt, ssrc) = (outgoing.rtx_pt?, self.ssrcs.rtx?);
        let seq = self.next_rtx_seq;
        self.next_rtx_seq += 1;
        let start = batch.written();
        let arena = batch.arena();
        let header_bytes = write_header(arena, &self.header(packet, pt, ssrc, seq, rewritten.timestamp));
        arena.extend_from_slice(&(rewritten.seq as u16).to_be_bytes());
        arena.extend_from_slice(&packet.payload);
        if outgoing.is_vp8 {
            rewritten.vp8.patch(&mut arena[start + header_bytes + 2..]);
        }
        if sealer.seal_rtp(arena, start, header_bytes, ssrc, seq).is_err() {
            batch.abandon();
            return None;
        }
        Some(packet.payload.len())
    }

    fn header(&self, packet: &RtpPacket, pt: u8, ssrc: u32, seq: u64, timestamp: u32) -> Header<'_> {
        Header {
            marker: packet.marker,
            pt,
            seq: seq as u16,
            timestamp,
            ssrc,
            ids: self.ids,
            mid: &self.mid,
            extensions: packet.extensions,
            playout_delay: self.patience.playout_delay(),
        }
    }
}
