//! The sending half of a viewer's session: its tracks, their keys, its feedback.
//!
//! The packets themselves are the stream's; they are copied once, into the datagram.

use std::time::{Duration, Instant};

use freshet_media::MediaKind;

use crate::batch::{Path, SendBatch};
use crate::catch_up::POLL_INTERVAL;
use crate::clock::ntp;
use crate::history::{Depth, History};
use crate::link::Link;
use crate::packet::RtpPacket;
use crate::router::Feed;
use crate::rtcp::{self, Feedback, ReportBlock};
use crate::sdp::{Negotiated, SenderSsrcs};
use crate::sender::{Sender, Supply};
use crate::srtp::{MasterKeys, RtcpOpener, Sealer};
use crate::status::{SessionStatus, ShardStatus};

/// Bytes that may be sent again at once: a second of 2 Mbit/s. A viewer earns half of what it is sent.
const RESEND_BURST_BYTES: u64 = 256 * 1024;

/// Where datagrams go and what they are counted in.
pub(crate) struct Outlet<'a> {
    pub(crate) batch: &'a mut SendBatch,
    pub(crate) path: Path,
    pub(crate) status: &'a SessionStatus,
    pub(crate) shard: &'a ShardStatus,
}

impl Outlet<'_> {
    pub(crate) fn commit(&mut self) {
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
    link: Link,
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
            link: Link::default(),
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

    /// Whether its picture waits for a keyframe that may be asked for.
    pub(crate) fn wants_keyframe(&self, now: Instant) -> bool {
        self.is_ready() && self.senders.iter().any(|s| s.waits_for_keyframe) && self.link.may_ask(now)
    }

    /// Sends one packet of the feed, in order or late, made longer by `padding` if possible.
    pub(crate) fn forward(&mut self, packet: &RtpPacket, padding: u8, feed: &Feed, outlet: &mut Outlet<'_>) {
        let (Some(sealer), Some(track)) = (&mut self.sealer, feed.tracks.get(usize::from(packet.track))) else {
            return;
        };
        let Some(sender) = self.senders.iter_mut().find(|s| s.kind == track.kind) else { return };
        let bytes = sender.forward(packet, padding, feed, self.link.is_limited(), sealer, outlet) as u64;
        self.resend_budget_bytes = (self.resend_budget_bytes + bytes / 2).min(RESEND_BURST_BYTES);
    }

    /// Starts a picture that waits for a keyframe with what was sent since the last one, if that is kept. False: it
    /// has to go on waiting.
    pub(crate) fn start(&mut self, now: Instant, supply: Supply<'_>) -> bool {
        if self.sealer.is_none() || self.link.is_limited() {
            return false;
        }
        let mut started = true;
        for sender in self.senders.iter_mut().filter(|s| s.waits_for_keyframe) {
            let starts = sender.start(now, supply).is_some();
            if starts {
                sender.count_start(now);
            }
            started &= starts;
        }
        started
    }

    /// Its picture needs a keyframe. Where everything since the last one is kept, it starts again from there.
    pub(crate) fn restart(&mut self, now: Instant, supply: Supply<'_>) {
        if supply.feed.depth == Depth::Deep && self.sealer.is_some() && !self.link.is_limited() {
            self.senders.iter_mut().filter(|s| s.kind == MediaKind::Video).for_each(|s| s.restart(now, supply));
        }
    }

    /// Sends what is due of a picture that is not on the live edge.
    pub(crate) fn advance(&mut self, now: Instant, supply: Option<Supply<'_>>, outlet: &mut Outlet<'_>) {
        let (Some(sealer), Some(supply)) = (&mut self.sealer, supply) else {
            // Nothing is due before there is a feed again.
            self.senders.iter_mut().filter(|s| s.wake.is_some()).for_each(Sender::leave_picture);
            return;
        };
        let before = outlet.status.sent_bytes.value();
        for sender in self.senders.iter_mut().filter(|s| s.wake.is_some()) {
            sender.advance(now, supply, &mut self.link, sealer, outlet);
        }
        let earned = outlet.status.sent_bytes.value().wrapping_sub(before) / 2;
        self.resend_budget_bytes = (self.resend_budget_bytes + earned).min(RESEND_BURST_BYTES);
    }

    /// When [`advance`](Self::advance) has something to do.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        self.senders.iter().filter_map(|s| s.wake).min()
    }

    /// Takes an SRTCP datagram: serves NACKs from the histories, keeps the reports, returns what is left to ask for.
    /// [`None`]: it was not authentic.
    pub(crate) fn handle_rtcp(
        &mut self,
        now: Instant,
        datagram: &[u8],
        feed: Option<&Feed>,
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
                    if let Some(feed) = feed {
                        let outcome = self.resend(now, ssrc, seq, feed, outlet);
                        wishes.keyframe |= outcome == Some(Resent::TooLate);
                    }
                }
                Feedback::KeyframeRequest { .. } => {
                    outlet.status.keyframe_requests.add(1);
                    outlet.shard.keyframe_requests.add(1);
                    wishes.keyframe = true;
                }
                Feedback::Report(block) => self.report(now, &block, outlet),
                // A receiver's BYE says nothing of the session; DTLS and ICE do.
                Feedback::Bye => {}
            });
        } else {
            outlet.shard.drop_malformed.add(1);
        }
        self.scratch = plain;
        // Under a budget frames are left out on purpose.
        wishes.keyframe &= self.link.may_ask(now);
        opened.then_some(wishes)
    }

    /// RFC 3550 §6.4.1: round trip = now − last report sent − delay since it arrived.
    fn report(&mut self, now: Instant, block: &ReportBlock, outlet: &Outlet<'_>) {
        let status = outlet.status;
        status.set_loss(u32::from(block.fraction_lost) * 1000 / 256);
        let Some(sender) = self.senders.iter_mut().find(|s| s.ssrcs.media == block.ssrc) else { return };
        let sent = sender.counts.last_report.filter(|(ntp, _)| *ntp == block.last_sr).map(|(_, sent)| sent);
        let held = Duration::from_micros(u64::from(block.delay_since_last_sr) * 1_000_000 / 65_536);
        let rtt = sent.map(|sent| now.saturating_duration_since(sent).saturating_sub(held));
        if let Some(rtt) = rtt {
            status.set_rtt(rtt);
        }
        if sender.kind == MediaKind::Audio {
            self.link.report_sound(now, block.fraction_lost);
        } else if self.link.report(now, block.fraction_lost, rtt, status.sent_bytes.value()) {
            sender.leave_picture();
            sender.wake = Some(now + POLL_INTERVAL);
            status.budgets.add(1);
            outlet.shard.budgets.add(1);
        }
    }

    fn resend(&mut self, now: Instant, ssrc: u32, seq: u16, feed: &Feed, outlet: &mut Outlet<'_>) -> Option<Resent> {
        let sealer = self.sealer.as_mut()?;
        let sender = self.senders.iter_mut().find(|s| s.ssrcs.media == ssrc)?;
        let original = sender.rewriter.original(seq)?;
        let track = feed.tracks.iter().position(|t| t.kind == sender.kind)?;
        let history: &History = &feed.states.get(track)?.history;
        if original.source.generation != feed.generation {
            return None;
        }
        let layer = original.source.layer;
        let Some(packet) = history.get(now, layer, original.seq) else {
            let lost = sender.kind == MediaKind::Video && history.has_forgotten(now, layer, original.seq);
            return lost.then_some(Resent::TooLate);
        };
        let bytes = packet.payload.len() as u64;
        if bytes == 0 || bytes > self.resend_budget_bytes {
            return None;
        }
        sender.resend(packet, &original, sealer, outlet)?;
        self.resend_budget_bytes -= bytes;
        Some(Resent::Sent)
    }

    /// Its link does not take what it is sent: the picture goes on with the next keyframe, sound goes on as it is.
    pub(crate) fn pause_picture(&mut self) {
        self.senders.iter_mut().for_each(Sender::leave_picture);
    }

    /// Sends a sender report for every track that flows.
    pub(crate) fn send_reports(&mut self, now: Instant, feed: &Feed, outlet: &mut Outlet<'_>) {
        let Some(sealer) = &mut self.sealer else { return };
        for sender in &mut self.senders {
            let Some(track) = feed.tracks.iter().position(|t| t.kind == sender.kind) else { continue };
            if sender.generation != Some(feed.generation) || sender.counts.packets == 0 {
                continue;
            }
            let Some((rtp, wall)) = feed.states.get(track).and_then(|s| s.now(now)) else { continue };
            let Some(rtp) = sender.rewriter.timestamp(rtp) else { continue };
            let (packets, octets) = (sender.counts.packets, sender.counts.octets);
            let report = rtcp::SenderReport { ssrc: sender.ssrcs.media, ntp: ntp(wall), rtp, packets, octets };
            let start = outlet.batch.written();
            rtcp::write_sender_report(outlet.batch.arena(), &report, &self.cname);
            if sealer.seal_rtcp(outlet.batch.arena(), start).is_ok() {
                outlet.commit();
                sender.counts.last_report = Some(((report.ntp >> 16) as u32, now));
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
    pub(crate) fn update_patience(&mut self, now: Instant, feed: &Feed, rtt: Option<Duration>) {
        for sender in self.senders.iter_mut().filter(|s| s.kind == MediaKind::Video) {
            let Some(track) = feed.tracks.iter().position(|t| t.kind == sender.kind) else { continue };
            let upstream = feed.states.get(track).map(|s| s.lateness.value(now)).unwrap_or_default();
            sender.patience.update(upstream, rtt);
        }
    }

    /// Called about once a second: a picture under a budget is looked after, also after a pause of the stream.
    pub(crate) fn look_after(&mut self, now: Instant) {
        if self.link.is_limited() {
            let waiting = self.senders.iter_mut().filter(|s| s.waits_for_keyframe);
            waiting.for_each(|s| s.wake = s.wake.or(Some(now)));
        }
    }

    /// Called about once a second: a viewer of a nearly silent stream must be able to have a packet again.
    pub(crate) fn refill_budget(&mut self, elapsed: Duration) {
        const BYTES_PER_SECOND: u64 = 16 * 1024;
        let earned = BYTES_PER_SECOND * elapsed.as_millis() as u64 / 1000;
        self.resend_budget_bytes = (self.resend_budget_bytes + earned).min(RESEND_BURST_BYTES);
    }
}
