//! What a publishing client does: frames on time, a keyframe when asked for one.

use std::time::{Duration, Instant};

use str0m::Rtc;
use str0m::media::{Mid, Rid};
use str0m::rtp::RtpWrite;

use crate::media::{Look, Stamp, micros_since, payload};

/// One encoding of one track.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) look: Look,
    pub(crate) mid: Mid,
    pub(crate) rid: Option<Rid>,
    pub(crate) pt: u8,
    pub(crate) layer: u8,
    pub(crate) next_at: Instant,
    pub(crate) muted: bool,
    pub(crate) next_seq: u64,
    pub(crate) rtp_base: u32,
    wants_keyframe: bool,
    frame: u32,
    /// What was sent, in order.
    pub(crate) log: Vec<Frame>,
}

/// A frame that was sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame {
    pub(crate) frame: u32,
    pub(crate) at: Instant,
    pub(crate) keyframe: bool,
}

impl Source {
    pub(crate) fn new(look: Look, mid: Mid, rid: Option<Rid>, pt: u8, layer: u8, now: Instant) -> Source {
        Source {
            look,
            mid,
            rid,
            pt,
            layer,
            next_at: now,
            muted: false,
            next_seq: 1000,
            rtp_base: 7_000_000,
            wants_keyframe: true,
            frame: 0,
            log: Vec::new(),
        }
    }
}

/// The publishing side of a client.
#[derive(Debug)]
pub(crate) struct Publisher {
    /// Number in the stamps.
    pub(crate) id: u16,
    pub(crate) sources: Vec<Source>,
    /// Keyframe requests as they arrived.
    pub(crate) requests: Vec<(Instant, Option<Rid>)>,
    pub(crate) paused: bool,
    /// Time zero of the stamps.
    pub(crate) start: Instant,
    configured: bool,
}

impl Publisher {
    pub(crate) fn new(id: u16, sources: Vec<Source>, start: Instant) -> Publisher {
        Publisher { id, sources, requests: Vec::new(), paused: false, start, configured: false }
    }

    pub(crate) fn source(&self, is_video: bool) -> &Source {
        let found = self.sources.iter().find(|s| s.look.shape.is_video() == is_video);
        found.expect("the publisher has such a track")
    }

    pub(crate) fn source_mut(&mut self, is_video: bool) -> &mut Source {
        let found = self.sources.iter_mut().find(|s| s.look.shape.is_video() == is_video);
        found.expect("the publisher has such a track")
    }

    pub(crate) fn keyframe_requested(&mut self, now: Instant, rid: Option<Rid>) {
        self.requests.push((now, rid));
        for source in self.sources.iter_mut().filter(|s| s.look.shape.is_video() && s.rid == rid) {
            source.wants_keyframe = true;
        }
    }

    /// The encoder makes a keyframe of its own accord.
    pub(crate) fn make_keyframe(&mut self) {
        self.source_mut(true).wants_keyframe = true;
    }

    pub(crate) fn next_at(&self) -> Option<Instant> {
        if self.paused { None } else { self.sources.iter().map(|s| s.next_at).min() }
    }

    /// Writes the frames that are due. True: something was written.
    pub(crate) fn write_due(&mut self, now: Instant, rtc: &mut Rtc) -> bool {
        let mut wrote = false;
        for source in &mut self.sources {
            if !self.configured && source.look.shape.is_video() {
                // A sender that repairs whatever is asked for: the server is under test, not str0m's own cap.
                if let Some(tx) = rtc.direct_api().stream_tx_by_mid(source.mid, source.rid) {
                    tx.set_rtx_cache(4096, Duration::from_secs(3), None);
                }
            }
            while source.next_at <= now {
                let at = source.next_at;
                source.next_at += source.look.interval;
                if !source.muted {
                    wrote |= source.write_frame(self.id, self.start, at, rtc);
                }
            }
        }
        self.configured = true;
        wrote
    }
}

impl Source {
    fn write_frame(&mut self, id: u16, start: Instant, at: Instant, rtc: &mut Rtc) -> bool {
        let mut api = rtc.direct_api();
        let Some(tx) = api.stream_tx_by_mid(self.mid, self.rid) else { return false };
        let shape = self.look.shape;
        let keyframe = shape.is_video() && std::mem::take(&mut self.wants_keyframe);
        let count = if keyframe { self.look.key_packets } else { self.look.delta_packets };
        let micros = micros_since(start, at);
        let ticks = u128::from(micros) * u128::from(shape.clock_hz()) / 1_000_000;
        let time = self.rtp_base.wrapping_add(ticks as u32);
        for index in 0..count {
            let stamp = Stamp { source: id, layer: self.layer, keyframe, frame: self.frame, index, count, micros };
            let body = payload(shape, &stamp, self.look.packet_bytes);
            let marker = shape.is_video() && index + 1 == count;
            let packet = RtpWrite::new(self.pt.into(), self.next_seq.into(), time, at, body).marker(marker);
            tx.write_rtp(packet.nackable(shape.is_video()));
            self.next_seq += 1;
        }
        self.log.push(Frame { frame: self.frame, at, keyframe });
        self.frame += 1;
        true
    }
}
