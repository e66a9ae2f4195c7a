//! The crossing from the packet plane to the frame plane (`rtc2rtmp`): RTP packets in, frames out.
//!
//! ```text
//! RtpIn ─► JitterBuffer ─┬─► Depacketizer ────────────► Frame   (picture)
//!                        └─► RED? ─► OpusToAac or as is ─► Frame   (sound)
//! ```
//!
//! Pictures pass as they are, from the first keyframe on and after a loss that is not repaired in time from the next one:
//! the one that is here already, or one that is asked for at once. Sound becomes AAC, or stays
//! Opus where the far side takes it; what is lost of it is concealed. Times are microseconds from near 0 on, from the
//! first packet on. A frame goes out when it is complete: nothing is held back but what stands behind a
//! missing packet, and that no longer than the jitter buffer's deadline.
//!
//! It has no clock, no socket and no session. Whoever runs it feeds it with one layer of each track, asks the publisher
//! for keyframes when it says so, and does the retransmission requests. It does not reorder B-frames, which WebRTC does
//! not have: pictures are shown when they are decoded.

mod clock;
mod picture;
mod sound;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use freshet_media::depacketize::Depacketizer;
use freshet_media::{
    Codec, Frame, JitterBuffer, JitterBufferOptions, JitterOutput, JitterPacket, MediaKind, opens_keyframe,
};

use clock::Clocks;
use picture::PictureLeg;
use sound::SoundLeg;
pub use sound::SoundOut;

/// A keyframe is asked for again after this time if none has begun to come: a long round trip and a few pictures, which is
/// what encoders need to answer. More often would only make the stream larger.
const KEYFRAME_INTERVAL: Duration = Duration::from_millis(500);

/// Most frames that wait for [`RtpToFrames::poll_frame`]: what a jitter buffer can let go at once.
const MAX_READY_FRAMES: usize = 4096;

/// One track of the publisher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RtpTrack {
    /// What its packets carry.
    pub codec: Codec,
    /// Rate of its RTP times as SDP says it.
    pub clock_hz: u32,
}

/// How the crossing works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FromRtpOptions {
    /// What becomes of Opus.
    pub sound: SoundOut,
    /// How long to wait for missing packets of sound.
    pub sound_jitter: JitterBufferOptions,
    /// How long to wait for missing packets of pictures.
    pub picture_jitter: JitterBufferOptions,
}

impl Default for FromRtpOptions {
    fn default() -> FromRtpOptions {
        FromRtpOptions {
            sound: SoundOut::default(),
            sound_jitter: JitterBufferOptions::for_sound(),
            picture_jitter: JitterBufferOptions::for_pictures(),
        }
    }
}

/// A packet of the publisher, decrypted.
#[derive(Debug, Clone)]
pub struct RtpIn {
    /// Index among the tracks that [`RtpToFrames::new`] was given.
    pub track: usize,
    /// Sequence number, roll-overs counted.
    pub seq: u64,
    /// RTP time.
    pub timestamp: u32,
    /// RTP marker.
    pub marker: bool,
    /// When it arrived.
    pub arrival: Instant,
    /// Payload without padding.
    pub payload: Arc<[u8]>,
}

/// A track that does not cross.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// Its index.
    pub track: usize,
    /// Its codec.
    pub codec: Codec,
    /// Why not, for the log and the stream's page.
    pub reason: &'static str,
}

/// What has happened so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FromRtpStats {
    /// Packets that did not come in time.
    pub lost_packets: u64,
    /// Packets that came after they had been given up, or twice.
    pub late_packets: u64,
    /// Pictures and packets of sound that were complete and yet made no sense.
    pub broken: u64,
    /// Samples of sound that were made up for lost ones.
    pub concealed_samples: u64,
}

/// One publisher's way to frames.
pub struct RtpToFrames {
    tracks: Vec<Track>,
    clocks: Clocks,
    refusals: Vec<Refusal>,
    /// Sound, pictures. Each in order of its times.
    ready: [VecDeque<Frame>; 2],
    /// The latest moment that is known.
    now: Option<Instant>,
    keyframe_asked_at: Option<Instant>,
    stats: FromRtpStats,
    /// Why the last thing broke.
    last_error: Option<String>,
}

struct Track {
    codec: Codec,
    jitter: JitterBuffer,
    leg: Leg,
}

enum Leg {
    Picture(PictureLeg),
    Sound(SoundLeg),
    Refused,
}

impl RtpToFrames {
    /// For the tracks of one publisher. Of each kind the first one that can cross does.
    pub fn new(tracks: &[RtpTrack], options: FromRtpOptions) -> RtpToFrames {
        let mut refusals = Vec::new();
        let mut taken: Vec<MediaKind> = Vec::new();
        let mut master = None;
        let mut legs = Vec::new();
        for (index, track) in tracks.iter().enumerate() {
            let kind = track.codec.kind();
            let leg = if taken.contains(&kind) {
                Err("a stream of frames has one track of a kind")
            } else {
                open(track.codec, options)
            };
            let leg = leg.unwrap_or_else(|reason| {
                refusals.push(Refusal { track: index, codec: track.codec, reason });
                Leg::Refused
            });
            if !matches!(leg, Leg::Refused) {
                taken.push(kind);
                if kind == MediaKind::Audio {
                    master = Some(index);
                }
            }
            let jitter = if kind == MediaKind::Audio { options.sound_jitter } else { options.picture_jitter };
            legs.push(Track { codec: track.codec, jitter: JitterBuffer::new(jitter), leg });
        }
        let first_picture = || legs.iter().position(|track| matches!(track.leg, Leg::Picture(_)));
        let master = master.or_else(first_picture).unwrap_or(0);
        RtpToFrames {
            clocks: Clocks::new(tracks.iter().map(|track| track.clock_hz), master),
            tracks: legs,
            refusals,
            ready: Default::default(),
            now: None,
            keyframe_asked_at: None,
            stats: FromRtpStats::default(),
            last_error: None,
        }
    }

    /// The tracks that do not cross.
    pub fn refusals(&self) -> &[Refusal] {
        &self.refusals
    }

    /// Takes a packet. Frames may be ready afterwards.
    pub fn push(&mut self, now: Instant, packet: RtpIn) {
        let RtpIn { track, seq, timestamp, marker, arrival, payload } = packet;
        self.advance(now);
        let Some(to) = self.tracks.get_mut(track).filter(|track| !matches!(track.leg, Leg::Refused)) else { return };
        let opens = opens_keyframe(to.codec, &payload);
        to.jitter.push(JitterPacket { seq, timestamp, marker, opens, arrival, payload });
        self.drain(track, Some(now));
    }

    /// A sender report's word, or whatever else is known: the packet of this RTP time was at this wall time. Times of
    /// frames follow slowly.
    pub fn set_clock(&mut self, track: usize, rtp: u32, wall_micros: i64) {
        self.clocks.refer(track, rtp, wall_micros);
    }

    /// Gives up packets whose time is over.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.advance(now);
        for track in 0..self.tracks.len() {
            self.drain(track, Some(now));
        }
    }

    /// When [`RtpToFrames::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.tracks.iter().filter_map(|track| track.jitter.poll_timeout()).min()
    }

    /// The next frame: of those that are ready the one that is due first.
    pub fn poll_frame(&mut self) -> Option<Frame> {
        let [sound, pictures] = &mut self.ready;
        match (sound.front(), pictures.front()) {
            (Some(heard), Some(seen)) if seen.dts < heard.dts => pictures.pop_front(),
            (Some(_), _) => sound.pop_front(),
            (None, _) => pictures.pop_front(),
        }
    }

    /// Whether the publisher should be asked for a keyframe now. Counts as asked.
    pub fn wants_keyframe(&mut self) -> bool {
        // One that has begun to come may still be repaired.
        let awaits = |track: &Track| {
            matches!(&track.leg, Leg::Picture(leg) if leg.awaits_keyframe()) && !track.jitter.holds_opening()
        };
        if !self.tracks.iter().any(awaits) {
            return false;
        }
        let Some(now) = self.now else { return false };
        let is_due = |asked: Instant| now.saturating_duration_since(asked) >= KEYFRAME_INTERVAL;
        if !self.keyframe_asked_at.is_none_or(is_due) {
            return false;
        }
        self.keyframe_asked_at = Some(now);
        true
    }

    /// Nothing more will come: what waits for missing packets comes out, and the end of the sound.
    pub fn finish(&mut self) {
        for track in 0..self.tracks.len() {
            self.drain(track, None);
            if let Leg::Sound(leg) = &mut self.tracks[track].leg {
                let finished = leg.finish(&mut self.ready[0]);
                self.note(finished);
            }
        }
    }

    /// Counters.
    pub fn stats(&self) -> FromRtpStats {
        let mut stats = self.stats;
        for track in &self.tracks {
            stats.late_packets += track.jitter.late();
            if let Leg::Sound(leg) = &track.leg {
                stats.concealed_samples += leg.concealed_samples();
            }
        }
        stats
    }

    /// Why the last broken picture or packet was broken.
    pub fn last_error(&self) -> Option<&str> {
        self.last_error.as_deref()
    }

    fn advance(&mut self, now: Instant) {
        self.now = Some(self.now.map_or(now, |latest| latest.max(now)));
    }

    /// Takes what the jitter buffer has; without a time all of it.
    fn drain(&mut self, index: usize, now: Option<Instant>) {
        while let Some(track) = self.tracks.get_mut(index) {
            if let Leg::Picture(leg) = &track.leg
                && leg.awaits_keyframe()
            {
                track.jitter.skip_to_opening();
            }
            let output = match now {
                Some(now) => track.jitter.poll(now),
                None => track.jitter.flush(),
            };
            match output {
                Some(JitterOutput::Packet(packet)) => self.take(index, &packet),
                Some(JitterOutput::Lost { count }) => {
                    self.stats.lost_packets = self.stats.lost_packets.saturating_add(count);
                    if let Leg::Picture(leg) = &mut track.leg {
                        leg.lost();
                    }
                }
                None => return,
            }
        }
    }

    fn take(&mut self, index: usize, packet: &JitterPacket) {
        let time = self.clocks.place(index, packet.timestamp, packet.arrival);
        let [sound, pictures] = &mut self.ready;
        let taken = match &mut self.tracks[index].leg {
            Leg::Picture(leg) => leg.take(time, packet, pictures),
            Leg::Sound(leg) => leg.take(time, &packet.payload, sound),
            Leg::Refused => Ok(()),
        };
        self.note(taken);
        self.limit();
    }

    fn note(&mut self, outcome: Result<(), String>) {
        if let Err(error) = outcome {
            self.stats.broken += 1;
            self.last_error = Some(error);
        }
    }

    /// Nobody polls: the newest frames are dropped, and pictures up to a keyframe.
    fn limit(&mut self) {
        for (kind, ready) in self.ready.iter_mut().enumerate() {
            if ready.len() <= MAX_READY_FRAMES {
                continue;
            }
            ready.truncate(MAX_READY_FRAMES);
            if kind == 1 {
                for track in &mut self.tracks {
                    if let Leg::Picture(leg) = &mut track.leg {
                        leg.lost();
                    }
                }
            }
        }
    }
}

fn open(codec: Codec, options: FromRtpOptions) -> Result<Leg, &'static str> {
    match codec {
        Codec::Opus | Codec::Red => match SoundLeg::new(codec, options.sound) {
            Ok(leg) => Ok(Leg::Sound(leg)),
            Err(_) => Err("the codecs of sound cannot be opened"),
        },
        Codec::Pcmu | Codec::Pcma => Err("G.711 has no way to frames"),
        _ => match Depacketizer::new(codec) {
            Ok(depacketizer) => Ok(Leg::Picture(PictureLeg::new(depacketizer))),
            Err(_) => Err("the codec does not come over WebRTC"),
        },
    }
}

#[cfg(test)]
mod day_tests;
#[cfg(test)]
mod tests;
