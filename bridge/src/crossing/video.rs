//! The picture's half of the crossing: passed on, re-encoded without B-frames, or thinned.

use freshet_media::h264::{AvcConfig, BFrameDetector, Verdict, is_b_slice, units};
use freshet_media::packetize::{Packetizer, PacketizerOptions, RtpPayload};
use freshet_media::{Codec, Frame, MediaTime};

use super::CrossingError;
use crate::transcode::{BFrameRemover, VideoOptions};

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

pub(super) struct VideoLeg {
    policy: BFrames,
    detector: BFrameDetector,
    mode: VideoMode,
    /// Why the mode is not [`VideoMode::Pass`], or why it should be another one.
    note: Option<String>,
    packetizer: Option<(Codec, Packetizer)>,
    remover: Option<BFrameRemover>,
    scratch: Vec<RtpPayload>,
    encoded: Vec<Frame>,
}

impl VideoLeg {
    pub(super) fn new(policy: BFrames) -> VideoLeg {
        VideoLeg {
            policy,
            detector: BFrameDetector::new(),
            mode: VideoMode::Pass,
            note: None,
            packetizer: None,
            remover: None,
            scratch: Vec::new(),
            encoded: Vec::new(),
        }
    }

    pub(super) fn mode(&self) -> (VideoMode, Option<&str>) {
        (self.mode, self.note.as_deref())
    }

    /// Learns whether there are B-frames.
    pub(super) fn inspect(&mut self, frame: &Frame) {
        if frame.config.codec == Codec::H264 && self.detector.push(frame) == Verdict::Present && self.note.is_none() {
            self.note = Some("the publisher's encoder makes B-frames, which browsers cannot show in order".to_owned());
            self.mode = match self.policy {
                BFrames::Transcode => VideoMode::Transcode,
                BFrames::Drop => VideoMode::Drop,
                BFrames::Pass => VideoMode::Pass,
            };
        }
    }

    pub(super) fn push(&mut self, frame: &Frame, out: &mut Vec<(MediaTime, RtpPayload)>) -> Result<(), CrossingError> {
        self.inspect(frame);
        match self.mode {
            VideoMode::Transcode => self.transcode(frame, out),
            VideoMode::Drop if has_b_slices(frame) => Ok(()),
            VideoMode::Pass | VideoMode::Drop => self.packetize(frame, out),
        }
    }

    fn transcode(&mut self, frame: &Frame, out: &mut Vec<(MediaTime, RtpPayload)>) -> Result<(), CrossingError> {
        let remover = self.remover.get_or_insert_with(|| BFrameRemover::new(VideoOptions::default()));
        let mut encoded = std::mem::take(&mut self.encoded);
        let outcome = remover.push(frame, &mut |picture| encoded.push(picture));
        let mut packetized = Ok(());
        for picture in encoded.drain(..) {
            packetized = packetized.and(self.packetize(&picture, out));
        }
        self.encoded = encoded;
        match outcome {
            Ok(()) => packetized,
            Err(error) if error.is_lasting() => {
                let why = format!("it cannot be re-encoded ({error}), so B-frames are dropped");
                self.stop_transcoding(why);
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
        if let Some(remover) = &mut self.remover {
            remover.request_keyframe();
        }
    }

    pub(super) fn stop_transcoding(&mut self, why: String) {
        if self.mode == VideoMode::Transcode {
            self.mode = VideoMode::Drop;
            self.note = Some(why);
            self.remover = None;
        }
    }
}

fn has_b_slices(frame: &Frame) -> bool {
    if frame.config.codec != Codec::H264 || frame.is_keyframe {
        return false;
    }
    let Ok(avc) = AvcConfig::parse(&frame.config.record) else { return false };
    units(&frame.data, avc.nal_length_bytes).any(is_b_slice)
}
