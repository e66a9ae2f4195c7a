//! The sending half of a viewer's session: from a publisher's packets to protected datagrams.
//!
//! For every track a small record: numbers, payload types, counters, and where the track stands in its rewriting. The
//! packets themselves are the stream's; they are copied once, into the datagram.

use std::time::{Duration, Instant};

use freshet_media::{Codec, MediaKind};

use crate::batch::{Path, SendBatch};
use crate::clock::ntp;
use crate::format::best_match;
use crate::history::History;
use crate::packet::{ExtensionIds, Header, RtpPacket, red_primary, write_header};
use crate::patience::Patience;
use crate::relay::TrackInfo;
use crate::rewrite::{Rewriter, Rewritten, Source};
use crate::router::{Feed, TrackState};
use crate::rtcp::{self, Feedback, ReportBlock};
use crate::sdp::{Negotiated, NegotiatedMedia, OfferedCodec, SenderSsrcs, extension};
use crate::srtp::{MasterKeys, RtcpOpener, Sealer};
use crate::status::{SessionStatus, ShardStatus};

/// Formats of a publisher's track that can be told apart; browsers offer about fifteen.
const MAX_FORMATS: usize = 32;
/// The P bit of a header (RFC 3550 §5.1).
const PADDED: u8 = 0x20;
/// Bytes that may be sent again at once: a second of 2 Mbit/s. A viewer earns half of what it is sent.
const RESEND_BURST_BYTES: u64 = 256 * 1024;

/// What one track of the stream becomes for this viewer.
#[derive(Debug)]
struct Sender {
    kind: MediaKind,
    ssrcs: SenderSsrcs,
    codecs: Vec<OfferedCodec>,
    mid: Vec<u8>,
    ids: ExtensionIds,
    rewriter: Rewriter,
    next_rtx_seq: u64,
    /// Publisher for which `outgoing` holds.
    generation: Option<u32>,
    outgoing: [Option<Outgoing>; MAX_FORMATS],
    waits_for_keyframe: bool,
    packets: u32,
    octets: u32,
    /// Middle 32 bits of the NTP time of the last sender report, and when it was sent.
    last_report: Option<(u32, Instant)>,
    patience: Patience,
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
    fn new(media: &NegotiatedMedia, ssrcs: SenderSsrcs, random: u64) -> Sender {
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
            packets: 0,
            octets: 0,
            last_report: None,
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
        self.waits_for_keyframe = self.kind == MediaKind::Video;
    }
}

/// Where datagrams go and what they are counted in.
pub(crate) struct Outlet<'a> {
    pub(crate) batch: &'a mut SendBatch,
    pub(crate) path: Path,
    pub(crate) status: &'a SessionStatus,
    pub(crate) shard: &'a ShardStatus,
}

impl Outlet<'_> {
    fn commit(&mut self) {
        let bytes = self.batch.commit(self.path) as u64;
        self.status.sent_bytes.add(bytes);
        self.shard.sent_bytes.add(bytes);
        self.shard.sent_packets.add(1);
    }
}

/// A viewer's sending half.
#[derive(Debug)]
pub(crate) struct Subscriber {
    senders: Vec<Sender>,
    cname: String,
    sealer: Option<Sealer>,
    opener: Option<RtcpOpener>,
    resend_budget_bytes: u64,
    scratch: Vec<u8>,
}

/// What became of a NACK that could be looked into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Resent {
    Sent,
    /// The packet is no longer there.
    TooLate,
}

/// What a viewer's feedback asks of the router.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Wishes {
    pub(crate) keyframe: bool,
}

impl Subscriber {
    /// `random` yields the first sequence numbers and timestamps.
    pub(crate) fn new(
        negotiated: &Negotiated,
        ssrcs: &[(MediaKind, SenderSsrcs)],
        cname: String,
        mut random: impl FnMut() -> u64,
    ) -> Subscriber {
        let senders = negotiated.media.iter().filter_map(|media| {
            let (_, ssrcs) = ssrcs.iter().find(|(kind, _)| *kind == media.kind)?;
            Some(Sender::new(media, *ssrcs, random()))
        });
        Subscriber {
            senders: senders.collect(),
            cname,
            sealer: None,
            opener: None,
            resend_budget_bytes: RESEND_BURST_BYTES,
            scratch: Vec::new(),
        }
    }

    /// From here on it can send. False: the keys are unusable.
    pub(crate) fn set_keys(&mut self, keys: &MasterKeys) -> bool {
        self.sealer = keys.sealer().ok();
        self.opener = keys.rtcp_opener().ok();
        self.is_ready()
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.sealer.is_some() && self.opener.is_some()
    }

    /// Whether its picture cannot begin before the next keyframe.
    pub(crate) fn waits_for_keyframe(&self) -> bool {
        self.is_ready() && self.senders.iter().any(|s| s.waits_for_keyframe)
    }

    /// Sends one packet of the publisher called `generation`, in order or late, made longer by `padding` if possible.
    pub(crate) fn forward(
        &mut self,
        packet: &RtpPacket,
        padding: u8,
        generation: u32,
        tracks: &[TrackInfo],
        outlet: &mut Outlet<'_>,
    ) {
        let (Some(sealer), Some(track)) = (&mut self.sealer, tracks.get(usize::from(packet.track))) else { return };
        let Some(sender) = self.senders.iter_mut().find(|s| s.kind == track.kind) else { return };
        if sender.generation != Some(generation) {
            sender.attach(generation, track);
        }
        let Some(outgoing) = sender.outgoing.get(usize::from(packet.format)).copied().flatten() else {
            outlet.shard.drop_codec.add(1);
            return;
        };
        let source = Source { generation, layer: packet.layer };
        if packet.payload.is_empty() {
            sender.rewriter.skip(source, packet);
            return;
        }
        if !sender.rewriter.follows(source) || sender.waits_for_keyframe {
            if sender.kind == MediaKind::Video && !packet.opens_keyframe {
                return;
            }
            sender.rewriter.begin(source, packet, outgoing.clock_hz, outgoing.is_vp8);
            sender.waits_for_keyframe = false;
        }
        let bytes = sender.send(packet, padding, source, outgoing, sealer, outlet).unwrap_or(0) as u64;
        self.resend_budget_bytes = (self.resend_budget_bytes + bytes / 2).min(RESEND_BURST_BYTES);
    }

    /// Starts a picture that waits for a keyframe with what was sent since the last one, if that is not long ago.
    /// `inbox` holds what will be forwarded anyway. False: it has to go on waiting.
    pub(crate) fn start_from_backlog(
        &mut self,
        now: Instant,
        feed: &Feed,
        inbox: &[RtpPacket],
        outlet: &mut Outlet<'_>,
    ) -> bool {
        let Some(sealer) = &mut self.sealer else { return false };
        let mut started = true;
        for sender in self.senders.iter_mut().filter(|s| s.waits_for_keyframe) {
            started &= sender.start_from_backlog(now, feed, inbox, sealer, outlet).is_some();
        }
        started
    }

    /// Takes an SRTCP datagram: serves NACKs from the histories, keeps the reports, returns what is left to ask for.
    /// [`None`]: it was not authentic.
    pub(crate) fn handle_rtcp(
        &mut self,
        now: Instant,
        datagram: &[u8],
        feed: Option<(u32, &[TrackInfo], &[TrackState])>,
        outlet: &mut Outlet<'_>,
    ) -> Option<Wishes> {
        let mut wishes = Wishes::default();
        let mut plain = std::mem::take(&mut self.scratch);
        let opened = self.opener.as_mut().is_some_and(|o| o.open(datagram, &mut plain));
        if opened {
            rtcp::parse(&plain, |feedback| match feedback {
                Feedback::Nack { ssrc, seq } => {
                    outlet.status.nacks.add(1);
                    outlet.shard.nacks.add(1);
                    if let Some((generation, tracks, states)) = feed {
                        let outcome = self.resend(now, ssrc, seq, generation, tracks, states, outlet);
                        wishes.keyframe |= outcome == Some(Resent::TooLate);
                    }
                }
                Feedback::KeyframeRequest { .. } => {
                    outlet.status.keyframe_requests.add(1);
                    outlet.shard.keyframe_requests.add(1);
                    wishes.keyframe = true;
                }
                Feedback::Report(block) => self.report(now, &block, outlet.status),
                // A receiver's BYE says nothing of the session; DTLS and ICE do.
                Feedback::Bye => {}
            });
        } else {
            outlet.shard.drop_malformed.add(1);
        }
        self.scratch = plain;
        opened.then_some(wishes)
    }

    /// RFC 3550 §6.4.1: round trip = now − last report sent − delay since it arrived.
    fn report(&self, now: Instant, block: &ReportBlock, status: &SessionStatus) {
        status.set_loss(u32::from(block.fraction_lost) * 1000 / 256);
        let Some(sender) = self.senders.iter().find(|s| s.ssrcs.media == block.ssrc) else { return };
        let Some((_, sent)) = sender.last_report.filter(|(ntp, _)| *ntp == block.last_sr) else { return };
        let held = Duration::from_micros(u64::from(block.delay_since_last_sr) * 1_000_000 / 65_536);
        status.set_rtt(now.saturating_duration_since(sent).saturating_sub(held));
    }

    #[allow(clippy::too_many_arguments)]
    fn resend(
        &mut self,
        now: Instant,
        ssrc: u32,
        seq: u16,
        generation: u32,
        tracks: &[TrackInfo],
        states: &[TrackState],
        outlet: &mut Outlet<'_>,
    ) -> Option<Resent> {
        let sealer = self.sealer.as_mut()?;
        let sender = self.senders.iter_mut().find(|s| s.ssrcs.media == ssrc)?;
        let (source, seq_in) = sender.rewriter.origin(seq)?;
        let track = tracks.iter().position(|t| t.kind == sender.kind)?;
        let history: &History = &states.get(track)?.history;
        if source.generation != generation {
            return None;
        }
        let Some(packet) = history.get(now, source.layer, seq_in) else {
            let lost = sender.kind == MediaKind::Video && history.has_forgotten(now, source.layer, seq_in);
            return lost.then_some(Resent::TooLate);
        };
        let bytes = packet.payload.len() as u64;
        if bytes == 0 || bytes > self.resend_budget_bytes {
            return None;
        }
        let outgoing = sender.outgoing.get(usize::from(packet.format)).copied().flatten()?;
        let rewritten = sender.rewriter.rewrite(source, packet, outgoing.is_vp8)?;
        if outgoing.rtx_pt.is_some() && sender.ssrcs.rtx.is_some() {
            sender.write_rtx(packet, outgoing, rewritten, sealer, outlet.batch)?;
        } else {
            sender.write(packet, 0, outgoing, rewritten, sealer, outlet.batch)?;
        }
        outlet.commit();
        outlet.shard.retransmitted_packets.add(1);
        sender.patience.resent();
        self.resend_budget_bytes -= bytes;
        Some(Resent::Sent)
    }

    /// Its link does not take what it is sent: the picture goes on with the next keyframe, sound goes on as it is.
    pub(crate) fn pause_picture(&mut self) {
        for sender in self.senders.iter_mut().filter(|s| s.kind == MediaKind::Video) {
            sender.waits_for_keyframe = true;
        }
    }

    /// Sends a sender report for every track that flows.
    pub(crate) fn send_reports(
        &mut self,
        now: Instant,
        generation: u32,
        tracks: &[TrackInfo],
        states: &[TrackState],
        outlet: &mut Outlet<'_>,
    ) {
        let Some(sealer) = &mut self.sealer else { return };
        for sender in &mut self.senders {
            let Some(track) = tracks.iter().position(|t| t.kind == sender.kind) else { continue };
            if sender.generation != Some(generation) || sender.packets == 0 {
                continue;
            }
            let Some((rtp, wall)) = states.get(track).and_then(|s| s.now(now)) else { continue };
            let Some(rtp) = sender.rewriter.timestamp(rtp) else { continue };
            let (packets, octets) = (sender.packets, sender.octets);
            let report = rtcp::SenderReport { ssrc: sender.ssrcs.media, ntp: ntp(wall), rtp, packets, octets };
            let start = outlet.batch.written();
            rtcp::write_sender_report(outlet.batch.arena(), &report, &self.cname);
            if sealer.seal_rtcp(outlet.batch.arena(), start).is_ok() {
                outlet.commit();
                sender.last_report = Some(((report.ntp >> 16) as u32, now));
            } else {
                outlet.batch.abandon();
            }
        }
    }

    /// Tells the viewer that its tracks end.
    pub(crate) fn send_bye(&mut self, outlet: &mut Outlet<'_>) {
        let Some(sealer) = &mut self.sealer else { return };
        let ssrcs: Vec<u32> = self.senders.iter().map(|s| s.ssrcs.media).collect();
        let start = outlet.batch.written();
        rtcp::write_bye(outlet.batch.arena(), &ssrcs);
        if !ssrcs.is_empty() && sealer.seal_rtcp(outlet.batch.arena(), start).is_ok() {
            outlet.commit();
        } else {
            outlet.batch.abandon();
        }
    }

    /// Called about once a second: adjusts how long the player should wait for repairs.
    pub(crate) fn update_patience(
        &mut self,
        now: Instant,
        tracks: &[TrackInfo],
        states: &[TrackState],
        rtt: Option<Duration>,
    ) {
        for sender in self.senders.iter_mut().filter(|s| s.kind == MediaKind::Video) {
            let Some(track) = tracks.iter().position(|t| t.kind == sender.kind) else { continue };
            let upstream = states.get(track).map(|s| s.lateness.value(now)).unwrap_or_default();
            sender.patience.update(upstream, rtt);
        }
    }

    /// Called about once a second: a viewer of a nearly silent stream must be able to have a packet again.
    pub(crate) fn refill_budget(&mut self, elapsed: Duration) {
        const BYTES_PER_SECOND: u64 = 16 * 1024;
        let earned = BYTES_PER_SECOND * elapsed.as_millis() as u64 / 1000;
        self.resend_budget_bytes = (self.resend_budget_bytes + earned).min(RESEND_BURST_BYTES);
    }
}

impl Sender {
    fn start_from_backlog(
        &mut self,
        now: Instant,
        feed: &Feed,
        inbox: &[RtpPacket],
        sealer: &mut Sealer,
        outlet: &mut Outlet<'_>,
    ) -> Option<()> {
        let track = feed.tracks.iter().position(|t| t.kind == self.kind)?;
        if self.generation != Some(feed.generation) {
            self.attach(feed.generation, &feed.tracks[track]);
        }
        let end = inbox.iter().filter(|p| usize::from(p.track) == track).map(|p| p.seq).min();
        let history = &feed.states.get(track)?.history;
        let first = history.backlog(now, end)?.next()?;
        let live = history.backlog(now, end)?.last()?;
        let source = Source { generation: feed.generation, layer: first.layer };
        let outgoing = self.outgoing.get(usize::from(first.format)).copied().flatten()?;
        self.rewriter.begin_backlog(source, first, live, outgoing.clock_hz, outgoing.is_vp8);
        self.waits_for_keyframe = false;
        for packet in history.backlog(now, end)? {
            self.send(packet, 0, source, outgoing, sealer, outlet);
        }
        Some(())
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
        self.packets = self.packets.wrapping_add(1);
        self.patience.sent();
        self.octets = self.octets.wrapping_add(bytes as u32);
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
