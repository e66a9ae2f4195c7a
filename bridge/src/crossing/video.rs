//! The picture's half of the crossing: passed on, re-encoded without B-frames, or thinned.

use std::sync::Arc;
use std::time::Duration;

use freshet_media::h264::{AvcConfig, BFrameDetector, Verdict, is_b_slice, units};
use freshet_media::packetize::{Packetizer, PacketizerOptions, RtpPayload};
use freshet_media::{Codec, Frame, MediaTime, TrackConfig};

use super::CrossingError;
use crate::transcode::{BFrameRemover, Encoding, VideoOptions};

/// Pictures this near to the live edge are live: B-frames and encoders' bursts come to less.
const LIVE_WITHIN: Duration = Duration::from_millis(400);
/// Behind by so much, every second or fourth picture is encoded.
const THIN_FROM: [(Duration, u32); 2] = [(Duration::from_millis(2000), 4), (Duration::from_millis(800), 2)];
/// Behind by more than the first of those for so long in spite of it, the machine is too slow for the stream.
const GIVE_UP_AFTER: Duration = Duration::from_secs(10);
/// What starved it may have ended by then.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(60);

/// What becomes of pictures that are shown in another order than they are decoded in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BFrames {
    /// The whole picture is decoded and encoded again without them.
    Transcode,
    /// They are left out: fewer pictures a second, and errors where others refer to them.
    Drop,
    /// They are sent as they are: browsers show them in the wrong order.
    Pass,
}

/// What is done to the picture at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VideoMode {
    /// Sent as it is.
    Pass,
    /// Encoded again.
    Transcode,
    /// Without B-frames.
    Drop,
}

impl VideoMode {
    /// A label for listings and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            VideoMode::Pass => "pass",
            VideoMode::Transcode => "transcode",
            VideoMode::Drop => "drop",
        }
    }
}

/// The B-frame remover and how it keeps up.
struct Transcoder {
    remover: BFrameRemover,
    /// It starts with what is cached and has not reached the live edge yet.
    is_catching_up: bool,
    /// Position of the live edge when it fell behind.
    behind_since: Option<MediaTime>,
    last_pts: Option<MediaTime>,
}

impl Transcoder {
    fn new() -> Transcoder {
        let mut remover = BFrameRemover::new(VideoOptions::default());
        remover.set_encoding(Encoding::FirstOnly);
        Transcoder { remover, is_catching_up: true, behind_since: None, last_pts: None }
    }

    /// Encodes fewer pictures the further it is behind. False: that has not helped for too long.
    fn pace(&mut self, behind: Duration, live_edge: MediaTime) -> bool {
        self.is_catching_up &= behind > LIVE_WITHIN;
        if !self.is_catching_up {
            let thinning = THIN_FROM.iter().find(|(from, _)| behind > *from).map_or(1, |(_, n)| *n);
            self.remover.set_encoding(Encoding::Every(thinning));
        }
        if behind <= THIN_FROM[0].0 {
            self.behind_since = None;
            return true;
        }
        let since = *self.behind_since.get_or_insert(live_edge);
        live_edge.since(since) < GIVE_UP_AFTER
    }

    /// The picture that opens a viewer's screen is an old one; it is shown as if it were new, so that the player does
    /// not stay behind by its age. Pictures older than that are over.
    fn retime(&mut self, mut picture: Frame, live_edge: MediaTime) -> Option<Frame> {
        if self.is_catching_up {
            picture.pts = live_edge;
        }
        if self.last_pts.is_some_and(|last| picture.pts <= last) {
            return None;
        }
        self.last_pts = Some(picture.pts);
        Some(picture)
    }
}

pub(super) struct VideoLeg {
    policy: BFrames,
    config: Option<Arc<TrackConfig>>,
    detector: BFrameDetector,
    mode: VideoMode,
    /// Why the mode is not [`VideoMode::Pass`], or why it should be another one.
    note: Option<String>,
    /// When a machine that was too slow is tried again.
    retry_at: Option<MediaTime>,
    packetizer: Option<(Codec, Packetizer)>,
    transcoder: Option<Transcoder>,
    scratch: Vec<RtpPayload>,
    encoded: Vec<Frame>,
}

impl VideoLeg {
    pub(super) fn new(policy: BFrames) -> VideoLeg {
        VideoLeg {
            policy,
            config: None,
            detector: BFrameDetector::new(),
            mode: VideoMode::Pass,
            note: None,
            retry_at: None,
            packetizer: None,
            transcoder: None,
            scratch: Vec::new(),
            encoded: Vec::new(),
        }
    }

    pub(super) fn mode(&self) -> (VideoMode, Option<&str>) {
        (self.mode, self.note.as_deref())
    }

    /// Learns whether there are B-frames.
    pub(super) fn inspect(&mut self, frame: &Frame) {
        if self.config.as_ref().is_none_or(|config| !Arc::ptr_eq(config, &frame.config)) {
            // Another encoder, or the same one with other settings: what was learnt or decided is about the former.
            self.config = Some(Arc::clone(&frame.config));
            self.detector = BFrameDetector::new();
            (self.mode, self.note, self.retry_at) = (VideoMode::Pass, None, None);
        }
        if self.note.is_some() || self.detector.push(frame) != Verdict::Present {
            return;
        }
        let mut note = "the publisher's encoder makes B-frames, which browsers cannot show in order".to_owned();
        self.mode = match self.policy {
            BFrames::Pass => VideoMode::Pass,
            _ if frame.config.codec != Codec::H264 => {
                note += &format!("; of {} they are passed on all the same", frame.config.codec);
                VideoMode::Pass
            }
            BFrames::Transcode => VideoMode::Transcode,
            BFrames::Drop => VideoMode::Drop,
        };
        self.note = Some(note);
    }

    pub(super) fn push(
        &mut self,
        frame: &Frame,
        live_edge: MediaTime,
        out: &mut Vec<(MediaTime, RtpPayload)>,
    ) -> Result<(), CrossingError> {
        self.inspect(frame);
        if frame.is_keyframe && self.retry_at.is_some_and(|at| live_edge >= at) {
            (self.mode, self.retry_at) = (VideoMode::Transcode, None);
        }
        match self.mode {
            VideoMode::Transcode => self.transcode(frame, live_edge, out),
            VideoMode::Drop if has_b_slices(frame) => Ok(()),
            VideoMode::Pass | VideoMode::Drop => self.packetize(frame, out),
        }
    }

    fn transcode(
        &mut self,
        frame: &Frame,
        live_edge: MediaTime,
        out: &mut Vec<(MediaTime, RtpPayload)>,
    ) -> Result<(), CrossingError> {
        let transcoder = self.transcoder.get_or_insert_with(Transcoder::new);
        if !transcoder.pace(live_edge.since(frame.dts), live_edge) {
            self.stop_transcoding("re-encoding it is slower than real time on this machine, so B-frames are dropped");
            self.retry_at = Some(live_edge + TRY_AGAIN_AFTER);
            return Ok(());
        }
        let mut encoded = std::mem::take(&mut self.encoded);
        let outcome = transcoder.remover.push(frame, &mut |picture| encoded.push(picture));
        let mut packetized = Ok(());
        for picture in encoded.drain(..) {
            let picture = self.transcoder.as_mut().and_then(|t| t.retime(picture, live_edge));
            packetized = packetized.and(picture.map_or(Ok(()), |picture| self.packetize(&picture, out)));
        }
        self.encoded = encoded;
        match outcome {
            Ok(()) => packetized,
            Err(error) if error.is_lasting() => {
                self.stop_transcoding(&format!("it cannot be re-encoded ({error}), so B-frames are dropped"));
                Ok(())
            }
            Err(error) => Err(CrossingError::Video(error.to_string())),
        }
    }

    fn packetize(&mut self, frame: &Frame, out: &mut Vec<(MediaTime, RtpPayload)>) -> Result<(), CrossingError> {
        let codec = frame.config.codec;
        if self.packetizer.as_ref().is_none_or(|(known, _)| *known != codec) {
            let packetizer = Packetizer::new(codec, PacketizerOptions::default());
            self.packetizer = Some((codec, packetizer.map_err(|_| CrossingError::NoWay(codec))?));
        }
        let Some((_, packetizer)) = &mut self.packetizer else { return Ok(()) };
        self.scratch.clear();
        let outcome = packetizer.packetize(frame, &mut self.scratch);
        out.extend(self.scratch.drain(..).map(|payload| (frame.pts, payload)));
        outcome.map_err(|e| CrossingError::Video(e.to_string()))
    }

    pub(super) fn request_keyframe(&mut self) {
        if let Some(transcoder) = &mut self.transcoder {
            transcoder.remover.request_keyframe();
        }
    }

    fn stop_transcoding(&mut self, why: &str) {
        self.mode = VideoMode::Drop;
        self.note = Some(format!("the publisher's encoder makes B-frames; {why}"));
        self.transcoder = None;
    }
}

fn has_b_slices(frame: &Frame) -> bool {
    if frame.config.codec != Codec::H264 || frame.is_keyframe {
        return false;
    }
    let Ok(avc) = AvcConfig::parse(&frame.config.record) else { return false };
    units(&frame.data, avc.nal_length_bytes).any(is_b_slice)
}
