//! A WHIP publisher of synthetic video and audio.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use serde::Serialize;
use str0m::media::{Direction, Mid, Pt};
use str0m::rtp::RtpWrite;
use str0m::{Event, IceConnectionState, Rtc};

use crate::http;
use crate::peer::{self, Handler, Peer};
use crate::run::{Run, ThreadSums};
use crate::stamp::{clock_ns, clock_ns_at};
use crate::synthetic::{AudioSource, VideoSource};

const AUDIO_INTERVAL: Duration = Duration::from_millis(20);
const VIDEO_CLOCK_HZ: u64 = 90_000;
const AUDIO_CLOCK_HZ: u64 = 48_000;
/// A publisher that is this late skips, as an encoder would.
const MAX_LATENESS: Duration = Duration::from_millis(250);

/// What became of a publisher; counts are those of the measured span unless they say otherwise.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct PublisherReport {
    pub(crate) stream: u32,
    pub(crate) failure: Option<String>,
    pub(crate) connected_ms: Option<f64>,
    pub(crate) video_packets: u64,
    pub(crate) audio_packets: u64,
    pub(crate) frames: u64,
    pub(crate) keyframes: u64,
    /// Over the whole run.
    pub(crate) keyframes_total: u64,
    pub(crate) keyframe_requests: u64,
    /// Over the whole run.
    pub(crate) keyframe_requests_total: u64,
    /// Over the whole run.
    pub(crate) nacks_received_total: u64,
    /// Video frames and audio packets that were skipped because this tool was late.
    pub(crate) skipped: u64,
    /// Sent packets that were thrown away on request (`--publish-loss`).
    pub(crate) dropped: u64,
    /// Packets that the kernel did not take.
    pub(crate) send_drops: u64,
}

/// Connects, sends until the run stops, leaves.
pub(crate) async fn publish(run: Arc<Run>, sums: Rc<RefCell<ThreadSums>>, stream: u32) -> PublisherReport {
    let mut control = Control {
        run: run.clone(),
        report: PublisherReport { stream, ..PublisherReport::default() },
        video_mid: None,
        connected: false,
        keyframe_wanted: true,
        ended: None,
    };
    if let Err(error) = connect_and_send(&run, &sums, &mut control).await {
        control.report.failure = Some(format!("{error:#}"));
        run.publishers_failed.fetch_add(1, Relaxed);
    }
    control.report
}

async fn connect_and_send(run: &Run, sums: &RefCell<ThreadSums>, control: &mut Control) -> Result<()> {
    let options = &run.options;
    let stream = control.report.stream;
    let mut peer = Peer::new(&run.publisher_template)?;
    let (offer, pending, video, audio) = peer.offer(Direction::SendOnly)?;
    control.video_mid = Some(video);
    let posted = Instant::now();
    let url = options.whip_url(stream)?;
    let (answer, session) = peer::exchange(&url, options.bearer.as_deref(), &offer).await?;

    let outcome = async {
        peer.accept(pending, &answer)?;
        let connected = connect(&mut peer, control);
        peer::within(options.join_timeout(), "no ICE and DTLS connection", connected).await?;
        control.report.connected_ms = Some(posted.elapsed().as_secs_f64() * 1000.0);
        run.publishers_ready.fetch_add(1, Relaxed);
        let mut tracks = Tracks::new(run, stream, &peer.rtc, video, audio)?;
        while !run.stop_publishers.load(Relaxed) {
            peer.wait(tracks.next_due()).await?;
            peer.turn(control)?;
            if let Some(ended) = control.ended {
                bail!(ended);
            }
            let now = Instant::now();
            if tracks.write_due(now, &mut peer.rtc, control, &mut sums.borrow_mut())? {
                peer.handle_timeout(now, control)?;
            }
        }
        Ok(())
    };
    let outcome = outcome.await;
    control.report.send_drops = peer.send_drops;
    if let Some(session) = session.filter(|_| !options.no_leave) {
        http::request("DELETE", &session, options.bearer.as_deref(), None).await?;
    }
    outcome
}

async fn connect(peer: &mut Peer, control: &mut Control) -> Result<()> {
    peer.handle_timeout(Instant::now(), control)?;
    while !control.connected {
        peer.wait(Instant::now() + Duration::from_secs(1)).await?;
        peer.turn(control)?;
        if let Some(ended) = control.ended {
            bail!(ended);
        }
    }
    Ok(())
}

/// A track's place in the session and in time.
struct Clocked {
    mid: Mid,
    pt: Pt,
    next_seq: u64,
    first_time: u32,
    next_due: Instant,
    interval: Duration,
}

impl Clocked {
    fn new(rtc: &Rtc, mid: Mid, start: Instant, interval: Duration) -> Result<Clocked> {
        let media = rtc.media(mid).ok_or_else(|| anyhow!("the server refused a media section"))?;
        let pt = media.remote_pts().first().copied();
        let pt = pt.with_context(|| format!("the server accepted no codec for {}", media.kind()))?;
        Ok(Clocked {
            mid,
            pt,
            // Below 2^15, so that the receiver's roll-over counter starts where ours does (RFC 3711 §3.3.1).
            next_seq: u64::from(rand::random::<u16>() >> 1),
            first_time: rand::random(),
            next_due: start,
            interval,
        })
    }

    /// When the next unit was due, if it is; steps on.
    fn take_due(&mut self, now: Instant, skipped: &mut u64) -> Option<Instant> {
        while now.saturating_duration_since(self.next_due) > MAX_LATENESS {
            self.next_due += self.interval;
            *skipped += 1;
        }
        let due = self.next_due;
        (due <= now).then(|| {
            self.next_due += self.interval;
            due
        })
    }

    fn rtp_time(&self, elapsed: Duration, clock_hz: u64) -> u32 {
        let ticks = elapsed.as_micros() as u64 * clock_hz / 1_000_000;
        self.first_time.wrapping_add(ticks as u32)
    }

    fn write(
        &mut self,
        rtc: &mut Rtc,
        time: u32,
        now: Instant,
        marker: bool,
        nackable: bool,
        payload: Vec<u8>,
    ) -> Result<()> {
        let mut api = rtc.direct_api();
        let stream = api.stream_tx_by_mid(self.mid, None).context("the session has no stream to send on")?;
        let packet = RtpWrite::new(self.pt, self.next_seq.into(), time, now, payload);
        stream.write_rtp(packet.marker(marker).nackable(nackable));
        self.next_seq += 1;
        Ok(())
    }
}

struct Tracks {
    start: Instant,
    keyframe_interval: Option<Duration>,
    last_keyframe: Instant,
    silent: bool,
    video: Clocked,
    audio: Clocked,
    video_source: VideoSource,
    audio_source: AudioSource,
}

impl Tracks {
    fn new(run: &Run, stream: u32, rtc: &Rtc, video: Mid, audio: Mid) -> Result<Tracks> {
        let options = &run.options;
        let frame_interval = Duration::from_secs(1) / options.fps;
        // Many publishers don't send in step.
        let start = Instant::now() + frame_interval * stream / options.publishers.max(1);
        let bitrate_bps = options.bitrate_kbps * 1000;
        Ok(Tracks {
            start,
            keyframe_interval: options.keyframe_interval(),
            last_keyframe: start,
            silent: options.silent,
            video: Clocked::new(rtc, video, start, frame_interval)?,
            audio: Clocked::new(rtc, audio, start, AUDIO_INTERVAL)?,
            video_source: VideoSource::new(options.codec, stream, bitrate_bps, options.fps, options.packet_size),
            audio_source: AudioSource::new(stream, options.audio_packet_size),
        })
    }

    fn next_due(&self) -> Instant {
        if self.silent {
            return Instant::now() + Duration::from_secs(1);
        }
        self.video.next_due.min(self.audio.next_due)
    }

    /// Hands everything due to the session; whether there was anything.
    fn write_due(&mut self, now: Instant, rtc: &mut Rtc, control: &mut Control, sums: &mut ThreadSums) -> Result<bool> {
        if self.silent {
            return Ok(false);
        }
        let clock = clock_ns_at(now);
        let measured = control.run.is_measured(clock);
        let mut wrote = false;
        if let Some(due) = self.audio.take_due(now, &mut control.report.skipped) {
            let time = self.audio.rtp_time(due.saturating_duration_since(self.start), AUDIO_CLOCK_HZ);
            let payload = self.audio_source.next_packet(clock);
            self.audio.write(rtc, time, now, false, false, payload)?;
            control.report.audio_packets += u64::from(measured);
            wrote = true;
        }
        if let Some(due) = self.video.take_due(now, &mut control.report.skipped) {
            if self.keyframe_interval.is_some_and(|interval| now.duration_since(self.last_keyframe) >= interval) {
                control.keyframe_wanted = true;
            }
            let keyframe = std::mem::take(&mut control.keyframe_wanted);
            let time = self.video.rtp_time(due.saturating_duration_since(self.start), VIDEO_CLOCK_HZ);
            let payloads = self.video_source.next_frame(clock, keyframe);
            let last = payloads.len() - 1;
            if measured {
                control.report.frames += 1;
                control.report.keyframes += u64::from(keyframe);
                control.report.video_packets += payloads.len() as u64;
                sums.send_lag.record(now - due);
            }
            if keyframe {
                self.last_keyframe = now;
                control.report.keyframes_total += 1;
            }
            for (index, payload) in payloads.into_iter().enumerate() {
                self.video.write(rtc, time, now, index == last, true, payload)?;
            }
            wrote = true;
        }
        Ok(wrote)
    }
}

struct Control {
    run: Arc<Run>,
    report: PublisherReport,
    video_mid: Option<Mid>,
    connected: bool,
    keyframe_wanted: bool,
    ended: Option<&'static str>,
}

impl Handler for Control {
    fn on_event(&mut self, _rtc: &mut Rtc, event: Event) {
        match event {
            Event::Connected => self.connected = true,
            Event::KeyframeRequest(_) => {
                self.keyframe_wanted = true;
                self.report.keyframe_requests_total += 1;
                self.report.keyframe_requests += u64::from(self.run.is_measured(clock_ns()));
            }
            Event::MediaEgressStats(stats) if Some(stats.mid) == self.video_mid => {
                self.report.nacks_received_total = stats.nacks;
            }
            Event::Closed => self.ended = Some("the server closed the DTLS connection"),
            Event::IceConnectionStateChange(IceConnectionState::Disconnected) => {
                self.ended = Some("ICE got no answers any more");
            }
            _ => {}
        }
    }

    fn wants_datagram(&mut self, _now: Instant, _datagram: &[u8]) -> bool {
        true
    }

    fn wants_transmit(&mut self, datagram: &[u8]) -> bool {
        let loss = self.run.options.publish_loss;
        let dropped = loss > 0.0 && peer::is_rtp(datagram) && rand::random::<f64>() < loss;
        self.report.dropped += u64::from(dropped);
        !dropped
    }
}
