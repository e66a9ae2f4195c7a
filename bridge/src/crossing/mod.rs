//! The crossing from the frame plane to the packet plane (`rtmp2rtc`): frames in, RTP payloads out.
//!
//! Picture: repacketised, and re-encoded without B-frames where there are some, because browsers show pictures in the
//! order in which they come. Sound: made Opus where it is not. RTP times are presentation times on the stream's one
//! timeline, at 90 kHz and 48 kHz, from random bases.
//!
//! The other direction is [`RtpToFrames`] (`rtc2rtmp`).
//!
//! It knows no clock and no session. Whoever runs it feeds it while somebody watches, and tells it when it is too slow.

mod from_rtp;
mod video;

use std::sync::Arc;
use std::time::Duration;

use freshet_media::packetize::{Packetizer, PacketizerOptions, RtpPayload, rtp_timestamp};
use freshet_media::{Codec, Frame, MediaKind, MediaTime};

use crate::transcode::{AudioToOpus, OpusOptions};

pub use from_rtp::{FromRtpOptions, FromRtpStats, Refusal, RtpIn, RtpToFrames, RtpTrack, SoundOut};
use video::VideoLeg;
pub use video::{BFrames, VideoMode};

/// Clock of sound: that of Opus (RFC 7587 §4.1).
pub const AUDIO_CLOCK_HZ: u32 = 48_000;
/// Clock of pictures, whatever their codec.
pub const VIDEO_CLOCK_HZ: u32 = 90_000;

/// How far before the live edge sound begins: what decoder and encoder need to be in full swing there. What comes at
/// once fills the player's buffer, and it takes seconds to shrink again.
const SOUND_STARTS_WITHIN: Duration = Duration::from_millis(60);

/// How a crossing is to work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CrossingOptions {
    /// What becomes of B-frames.
    pub bframes: BFrames,
    /// Bit rate of Opus that is made from other codecs.
    pub opus_bitrate_bps: u32,
}

/// One packet for the SFU.
#[derive(Debug, Clone)]
pub struct Packet {
    /// Sound or picture.
    pub kind: MediaKind,
    /// RTP time.
    pub timestamp: u32,
    /// The last packet of a picture.
    pub marker: bool,
    /// A picture that can be decoded on its own begins here.
    pub opens_keyframe: bool,
    /// When it is shown or heard.
    pub pts: MediaTime,
    /// RTP payload.
    pub payload: Arc<[u8]>,
}

/// Why a track, or a part of it, does not cross.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CrossingError {
    /// Its codec has no way to WebRTC.
    #[error("{0} cannot be carried over WebRTC")]
    NoWay(Codec),
    /// Its sound cannot be decoded.
    #[error("sound: {0}")]
    Audio(String),
    /// Its picture cannot be packetised.
    #[error("picture: {0}")]
    Video(String),
}

/// Whether pictures of a codec can cross.
pub fn can_carry(codec: Codec) -> bool {
    Packetizer::new(codec, PacketizerOptions::default()).is_ok()
}

/// Gives a track's packets their RTP times.
#[derive(Debug)]
struct Track {
    kind: MediaKind,
    base: u32,
    clock_hz: u32,
}

impl Track {
    fn new(kind: MediaKind, base: u32) -> Track {
        let clock_hz = if kind == MediaKind::Video { VIDEO_CLOCK_HZ } else { AUDIO_CLOCK_HZ };
        Track { kind, base, clock_hz }
    }

    fn packet(&self, pts: MediaTime, payload: RtpPayload) -> Packet {
        Packet {
            kind: self.kind,
            timestamp: rtp_timestamp(pts, self.clock_hz, self.base),
            marker: payload.marker,
            opens_keyframe: payload.opens_keyframe,
            pts,
            payload: payload.payload,
        }
    }
}

/// One stream's way to WebRTC.
pub struct Crossing {
    options: CrossingOptions,
    video: VideoLeg,
    video_track: Track,
    /// Made with the first frame of sound.
    audio: Option<AudioToOpus>,
    audio_track: Track,
    payloads: Vec<(MediaTime, RtpPayload)>,
}

impl Crossing {
    /// `bases` are the RTP times of the timeline's zero, of sound and of picture.
    pub fn new(options: CrossingOptions, bases: [u32; 2]) -> Crossing {
        Crossing {
            options,
            video: VideoLeg::new(options.bframes),
            video_track: Track::new(MediaKind::Video, bases[1]),
            audio: None,
            audio_track: Track::new(MediaKind::Audio, bases[0]),
            payloads: Vec::new(),
        }
    }

    /// Looks at pictures that will be pushed later: whether there are B-frames among them is then known from the first.
    pub fn inspect(&mut self, frames: &[Frame]) {
        for frame in frames.iter().filter(|f| f.kind() == MediaKind::Video) {
            self.video.inspect(frame);
        }
    }

    /// Takes a frame and appends the packets that are ready. `live_edge` is the time of the stream's newest frame.
    ///
    /// # Errors
    /// The frame does not cross. Later ones may.
    pub fn push(&mut self, frame: &Frame, live_edge: MediaTime, out: &mut Vec<Packet>) -> Result<(), CrossingError> {
        match frame.kind() {
            MediaKind::Video => {
                let outcome = self.video.push(frame, live_edge, &mut self.payloads);
                let packets = self.payloads.drain(..).map(|(pts, payload)| self.video_track.packet(pts, payload));
                out.extend(packets);
                outcome
            }
            // Old sound is of no use to anybody.
            MediaKind::Audio if self.audio.is_none() && live_edge.since(frame.dts) > SOUND_STARTS_WITHIN => Ok(()),
            MediaKind::Audio => self.push_audio(frame, out),
        }
    }

    fn push_audio(&mut self, frame: &Frame, out: &mut Vec<Packet>) -> Result<(), CrossingError> {
        let options = OpusOptions { bitrate_bps: self.options.opus_bitrate_bps };
        let transcoder = self.audio.get_or_insert_with(|| AudioToOpus::new(options));
        let track = &self.audio_track;
        let pushed = transcoder.push(frame, &mut |packet| {
            let payload = RtpPayload { payload: packet.data[..].into(), marker: false, opens_keyframe: false };
            out.push(track.packet(packet.pts, payload));
        });
        pushed.map_err(|e| CrossingError::Audio(e.to_string()))
    }

    /// Viewers need a keyframe. Only an encoder of ours can make one.
    pub fn request_keyframe(&mut self) {
        self.video.request_keyframe();
    }

    /// What is done to the picture, and why if it is not passed on as it is.
    pub fn video_mode(&self) -> (VideoMode, Option<&str>) {
        self.video.mode()
    }
}
