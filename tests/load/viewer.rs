//! A WHEP viewer that counts: nothing is decoded or kept.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use serde::Serialize;
use str0m::media::{Direction, Mid};
use str0m::rtp::{RtpPacket, Ssrc};
use str0m::{Event, IceConnectionState, Rtc};

use crate::http;
use crate::peer::{self, Handler, Peer};
use crate::run::{Run, ThreadSums};
use crate::stamp::{Stamp, clock_ns_at};
use crate::tally::{Arrival, FrameTracker, SeqWindow};

/// What became of a viewer. Times count from the moment the offer is posted; counts are those of the measured span.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct ViewerReport {
    pub(crate) stream: u32,
    /// Media was decrypted; otherwise only sequence numbers were looked at, by time of arrival.
    pub(crate) checked: bool,
    pub(crate) failure: Option<String>,
    /// Failed only after media had arrived.
    pub(crate) ended_early: bool,
    /// Checked media from before the measured span on.
    pub(crate) measured_fully: bool,
    pub(crate) answer_ms: Option<f64>,
    pub(crate) connected_ms: Option<f64>,
    pub(crate) first_media_ms: Option<f64>,
    pub(crate) first_keyframe_ms: Option<f64>,
    pub(crate) video: TrackReport,
    pub(crate) audio: TrackReport,
    pub(crate) frames_complete: u64,
    pub(crate) frames_incomplete: u64,
    pub(crate) nacks_sent: u64,
    /// Received packets that were thrown away on request (`--rtp-loss`).
    pub(crate) dropped: u64,
    /// Packets of another stream than the one asked for.
    pub(crate) foreign: u64,
    /// Packets without a stamp: another publisher.
    pub(crate) unstamped: u64,
    /// Packets whose marker bit does not agree with their place in the frame.
    pub(crate) marker_errors: u64,
}

/// Counts of one track.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct TrackReport {
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
    /// Holes in the RTP sequence numbers that were not filled.
    pub(crate) lost: u64,
    /// Packets that filled a hole: reordered or retransmitted.
    pub(crate) late: u64,
    /// The publisher's packet came twice, under whatever sequence number.
    pub(crate) duplicates: u64,
    /// Came more than a thousand packets late.
    pub(crate) too_old: u64,
    /// Different packets of the publisher that came.
    pub(crate) unique: u64,
    pub(crate) ssrc_changes: u64,
}

/// Joins, watches until the run stops, leaves.
pub(crate) async fn view(run: Arc<Run>, sums: Rc<RefCell<ThreadSums>>, stream: u32, checked: bool) -> ViewerReport {
    let mut watch = Watch::new(run.clone(), sums, stream, checked);
    if let Err(error) = join_and_watch(&run, &mut watch).await {
        watch.report.failure = Some(format!("{error:#}"));
        watch.report.ended_early = watch.joined;
        if !watch.joined {
            run.viewers_failed.fetch_add(1, Relaxed);
        }
    }
    watch.finish()
}

async fn join_and_watch(run: &Run, watch: &mut Watch) -> Result<()> {
    let options = &run.options;
    let template = &run.viewer_template;
    let mut peer = Peer::new(template)?;
    let (offer, pending, video, audio) = peer.offer(Direction::RecvOnly)?;
    watch.video_mid = Some(video);
    watch.posted = Instant::now();
    let url = options.whep_url(watch.report.stream)?;
    let (answer, session) = peer::exchange(&url, options.bearer.as_deref(), &offer).await?;
    watch.report.answer_ms = Some(watch.since_posted_ms(Instant::now()));

    let outcome = match peer.accept(pending, &answer) {
        Ok(()) => {
            watch.payload_types = [video, audio].map(|mid| payload_types(&peer, mid));
            run_session(run, watch, &mut peer).await
        }
        Err(error) => Err(error),
    };
    if let Some(session) = session.filter(|_| !options.no_leave) {
        let left = http::request("DELETE", &session, options.bearer.as_deref(), None).await;
        // A session that the server has ended itself may be unknown by now.
        outcome?;
        let left = left?;
        if !(200..300).contains(&left.status) {
            return Err(anyhow!("DELETE was answered {}", left.status));
        }
        return Ok(());
    }
    outcome
}

async fn run_session(run: &Run, watch: &mut Watch, peer: &mut Peer) -> Result<()> {
    let give_up = watch.posted + run.options.join_timeout();
    peer.handle_timeout(Instant::now(), watch)?;
    while !run.stop_viewers.load(Relaxed) {
        peer.wait(if watch.joined { Instant::now() + Duration::from_secs(1) } else { give_up }).await?;
        peer.turn(watch)?;
        if let Some(ended) = watch.ended {
            return Err(anyhow!(ended));
        }
        if !watch.joined && Instant::now() >= give_up {
            return Err(anyhow!("{} within {} s", watch.missing(), run.options.join_timeout().as_secs_f32()));
        }
    }
    Ok(())
}

fn payload_types(peer: &Peer, mid: Mid) -> Vec<u8> {
    peer.rtc.media(mid).map(|media| media.remote_pts().iter().map(|pt| **pt).collect()).unwrap_or_default()
}

/// One track as it is received.
#[derive(Debug, Default)]
struct Track {
    ssrc: Option<Ssrc>,
    ssrc_changes: u64,
    bytes: u64,
    packets: u64,
    lost_before: u64,
    /// By the RTP sequence numbers of the server.
    received: SeqWindow,
    /// By the packet numbers of the publisher.
    published: SeqWindow,
}

impl Track {
    fn report(&self) -> TrackReport {
        TrackReport {
            packets: self.packets,
            bytes: self.bytes,
            lost: self.lost_before + self.received.lost(),
            late: self.received.late,
            duplicates: self.published.duplicates,
            too_old: self.published.too_old,
            unique: self.published.unique,
            ssrc_changes: self.ssrc_changes,
        }
    }

    fn set_ssrc(&mut self, ssrc: Ssrc) {
        if self.ssrc.replace(ssrc).is_some() {
            self.ssrc_changes += 1;
            let before = std::mem::take(&mut self.received);
            self.lost_before += before.lost();
            self.received.late = before.late;
        }
    }
}

struct Watch {
    run: Arc<Run>,
    sums: Rc<RefCell<ThreadSums>>,
    report: ViewerReport,
    posted: Instant,
    video_mid: Option<Mid>,
    /// Of video and audio, without those of retransmissions.
    payload_types: [Vec<u8>; 2],
    video: Track,
    audio: Track,
    frames: FrameTracker,
    /// Number and received packets of the keyframe that is expected to be the first complete one.
    first_keyframe: Option<(u64, u32)>,
    joined: bool,
    ended: Option<&'static str>,
}

impl Watch {
    fn new(run: Arc<Run>, sums: Rc<RefCell<ThreadSums>>, stream: u32, checked: bool) -> Watch {
        Watch {
            run,
            sums,
            report: ViewerReport { stream, checked, ..ViewerReport::default() },
            posted: Instant::now(),
            video_mid: None,
            payload_types: Default::default(),
            video: Track::default(),
            audio: Track::default(),
            frames: FrameTracker::new(),
            first_keyframe: None,
            joined: false,
            ended: None,
        }
    }

    fn finish(mut self) -> ViewerReport {
        self.frames.finish();
        self.report.frames_complete = self.frames.complete;
        self.report.frames_incomplete = self.frames.incomplete;
        self.report.video = self.video.report();
        self.report.audio = self.audio.report();
        self.report
    }

    fn since_posted_ms(&self, now: Instant) -> f64 {
        now.saturating_duration_since(self.posted).as_secs_f64() * 1000.0
    }

    fn missing(&self) -> &'static str {
        match (self.report.connected_ms, self.report.first_media_ms) {
            (None, _) => "no ICE and DTLS connection",
            (Some(_), None) => "connected, but no media",
            (Some(_), Some(_)) => "media, but no complete keyframe",
        }
    }

    fn set_joined(&mut self, now: Instant) {
        if !self.joined {
            self.joined = true;
            self.report.measured_fully = self.report.checked && clock_ns_at(now) < self.run.window_start_ns();
            self.run.viewers_ready.fetch_add(1, Relaxed);
        }
    }

    fn on_packet(&mut self, rtc: &mut Rtc, packet: &RtpPacket) {
        let now = packet.timestamp;
        let ssrc = packet.header.ssrc;
        let is_video = if self.video.ssrc == Some(ssrc) {
            true
        } else if self.audio.ssrc == Some(ssrc) {
            false
        } else {
            let mid = rtc.direct_api().stream_rx(&ssrc).map(|stream| stream.mid());
            let is_video = mid == self.video_mid;
            if is_video { &mut self.video } else { &mut self.audio }.set_ssrc(ssrc);
            is_video
        };
        if self.report.first_media_ms.is_none() {
            self.report.first_media_ms = Some(self.since_posted_ms(now));
        }
        let now_ns = clock_ns_at(now);
        self.record_seq(is_video, now_ns, *packet.seq_no);
        let Some(stamp) = Stamp::from_payload(&packet.payload) else {
            self.set_joined(now);
            if self.run.is_measured(now_ns) {
                self.report.unstamped += 1;
                self.record(is_video, packet.payload.len());
            }
            return;
        };
        if self.report.first_keyframe_ms.is_none() && stamp.keyframe {
            self.on_keyframe_packet(now, &stamp);
        }
        if self.run.is_measured(stamp.clock_ns) {
            self.record(is_video, packet.payload.len());
            self.record_stamp(is_video, now_ns, packet.header.marker, &stamp);
        }
    }

    fn on_keyframe_packet(&mut self, now: Instant, stamp: &Stamp) {
        let received = match self.first_keyframe {
            Some((frame, received)) if frame == stamp.frame => received + 1,
            _ => 1,
        };
        self.first_keyframe = Some((stamp.frame, received));
        if received >= stamp.count {
            self.report.first_keyframe_ms = Some(self.since_posted_ms(now));
            self.set_joined(now);
        }
    }

    fn record(&mut self, is_video: bool, payload_bytes: usize) {
        let track = if is_video { &mut self.video } else { &mut self.audio };
        track.packets += 1;
        track.bytes += payload_bytes as u64;
    }

    /// Sequence numbers go by time of arrival: a server that renumbers may put what belongs before the span behind it.
    fn record_seq(&mut self, is_video: bool, now_ns: u64, seq: u64) {
        let track = if is_video { &mut self.video } else { &mut self.audio };
        track.received.record_span(seq, self.run.is_measured(now_ns));
    }

    /// What can be counted without decrypting: the RTP header is in the clear (RFC 3711 §3.1).
    fn on_clear_header(&mut self, now: Instant, datagram: &[u8]) {
        let Some((header, rest)) = datagram.split_first_chunk::<12>() else { return };
        let payload_type = header[1] & 0x7f;
        let is_video = self.payload_types[0].contains(&payload_type);
        if !is_video && !self.payload_types[1].contains(&payload_type) {
            return;
        }
        let ssrc = Ssrc::from(u32::from_be_bytes([header[8], header[9], header[10], header[11]]));
        let track = if is_video { &mut self.video } else { &mut self.audio };
        if track.ssrc != Some(ssrc) {
            track.set_ssrc(ssrc);
        }
        let seq = track.received.extend(u16::from_be_bytes([header[2], header[3]]));
        if self.report.first_media_ms.is_none() {
            self.report.first_media_ms = Some(self.since_posted_ms(now));
            self.set_joined(now);
        }
        let now_ns = clock_ns_at(now);
        self.record_seq(is_video, now_ns, seq);
        if self.run.is_measured(now_ns) {
            self.record(is_video, rest.len());
        }
    }

    fn record_stamp(&mut self, is_video: bool, now_ns: u64, marker: bool, stamp: &Stamp) {
        if stamp.stream != self.report.stream || stamp.video != is_video {
            self.report.foreign += 1;
            return;
        }
        let track = if is_video { &mut self.video } else { &mut self.audio };
        if !matches!(track.published.record(stamp.packet), Arrival::New | Arrival::Late) {
            return;
        }
        let delay = Duration::from_nanos(now_ns.saturating_sub(stamp.clock_ns));
        let mut sums = self.sums.borrow_mut();
        sums.packet_delay.record(delay);
        if is_video {
            self.report.marker_errors += u64::from(marker != (stamp.index + 1 == stamp.count));
            if self.frames.record(stamp.frame, stamp.count) {
                sums.frame_delay.record(delay);
            }
        }
    }
}

impl Handler for Watch {
    fn on_event(&mut self, rtc: &mut Rtc, event: Event) {
        match event {
            Event::RtpPacket(packet) => self.on_packet(rtc, &packet),
            Event::Connected => {
                let now = Instant::now();
                self.report.connected_ms = Some(self.since_posted_ms(now));
                if self.run.options.silent {
                    self.set_joined(now);
                }
            }
            Event::MediaIngressStats(stats) if Some(stats.mid) == self.video_mid => {
                self.report.nacks_sent = stats.nacks
            }
            Event::Closed => self.ended = Some("the server closed the DTLS connection"),
            Event::IceConnectionStateChange(IceConnectionState::Disconnected) => {
                self.ended = Some("ICE got no answers any more");
            }
            _ => {}
        }
    }

    fn wants_datagram(&mut self, now: Instant, datagram: &[u8]) -> bool {
        if !peer::is_rtp(datagram) {
            return true;
        }
        if self.run.is_measured(clock_ns_at(now)) {
            let mut sums = self.sums.borrow_mut();
            sums.rtp_datagrams += 1;
            sums.rtp_bytes += datagram.len() as u64;
        }
        let loss = self.run.options.rtp_loss;
        let dropped = loss > 0.0 && rand::random::<f64>() < loss;
        self.report.dropped += u64::from(dropped);
        if !self.report.checked && !dropped {
            self.on_clear_header(now, datagram);
        }
        self.report.checked && !dropped
    }
}
