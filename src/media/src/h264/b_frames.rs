//! Finding out whether a stream shows pictures in another order than it sends them.
//!
//! WebRTC has no decoding time: pictures are decoded and shown in the order in which they come, so a stream with
//! B-frames plays in the wrong order there and has to be encoded anew without them. That is dear, so it must not happen
//! to a stream without B-frames; and it must be known soon, because everything that is sent before is wrong.
//!
//! What counts, strongest first:
//! 1. **Order.** A picture whose presentation time is before that of one decoded earlier, in the same coded sequence.
//!    This is the very thing that does harm, whatever the headers say. Presentation times that merely differ from
//!    decoding times by a fixed amount prove nothing: some encoders add an offset without having B-frames.
//! 2. **The SPS.** If it rules reordering out ([`Sps::never_reorders`]), there is none from the first frame on.
//! 3. **B slices.** The first one decides, unless 2 holds: then they are predicted from earlier pictures only.
//! 4. **Two hints together.** An SPS that announces reordering and a keyframe that is shown later than it is decoded:
//!    the encoder has made room for B-frames, and they come at the next change of the picture at the latest.
//! 5. **Silence.** After [`UNDECIDED_FRAMES`] frames with none of this there are none; a later B slice still decides.
//!
//! H.265 is judged by 1 and 5 alone. AV1, VP8 and VP9 show frames in decoding order as far as a transport can see.

use std::sync::Arc;

use super::{AvcConfig, Sps, is_b_slice, nal, nal_type, units};
use crate::{Codec, Frame, MediaKind, MediaTime, TrackConfig};

/// How many frames without a sign make it certain enough that no B-frames come: twice the longest run of B-frames that
/// a decoder can hold (16), about a second of a usual stream.
const UNDECIDED_FRAMES: u32 = 32;

/// What is known of a stream's B-frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Verdict {
    /// Too few frames have been seen.
    #[default]
    Unknown,
    /// There are none; may still turn into [`Verdict::Present`] if the encoder gave no promise.
    None,
    /// There are. Stays until the parameters change.
    Present,
}

/// What the parameters say beforehand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Promise {
    #[default]
    Nothing,
    Never,
    Announced,
}

/// Watches one stream, frame by frame.
#[derive(Debug, Default)]
pub struct BFrameDetector {
    config: Option<Arc<TrackConfig>>,
    nal_length_bytes: u8,
    promise: Promise,
    verdict: Verdict,
    seen: u32,
    /// The latest presentation time since the last keyframe.
    latest: Option<MediaTime>,
}

impl BFrameDetector {
    /// One that has seen nothing.
    pub fn new() -> BFrameDetector {
        BFrameDetector::default()
    }

    /// What is known so far.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// Looks at the next frame in decoding order. Sound changes nothing, changed parameters start anew.
    pub fn push(&mut self, frame: &Frame) -> Verdict {
        if frame.kind() == MediaKind::Audio {
            return self.verdict;
        }
        self.follow(&frame.config);
        if self.verdict != Verdict::Present {
            self.verdict = self.judge(frame);
        }
        self.verdict
    }

    fn follow(&mut self, config: &Arc<TrackConfig>) {
        if self.config.as_ref().is_some_and(|known| Arc::ptr_eq(known, config) || known == config) {
            return;
        }
        *self = BFrameDetector { config: Some(Arc::clone(config)), nal_length_bytes: 4, ..BFrameDetector::default() };
        match config.codec {
            Codec::H264 => {
                let Ok(record) = AvcConfig::parse(&config.record) else { return };
                self.nal_length_bytes = record.nal_length_bytes;
                if let Some(sps) = record.sps.first() {
                    self.promise = promise_of(sps);
                }
            }
            Codec::H265 => {}
            _ => self.promise = Promise::Never,
        }
    }

    fn judge(&mut self, frame: &Frame) -> Verdict {
        if frame.is_keyframe {
            self.latest = None;
        }
        if self.latest.is_some_and(|latest| frame.pts < latest) {
            return Verdict::Present;
        }
        self.latest = Some(frame.pts);
        if frame.config.codec == Codec::H264 && self.promise != Promise::Never && self.has_b_slices(frame) {
            return Verdict::Present;
        }
        if self.promise == Promise::Announced && frame.is_keyframe && frame.pts > frame.dts {
            return Verdict::Present;
        }
        self.seen = self.seen.saturating_add(1);
        match self.promise {
            Promise::Never => Verdict::None,
            Promise::Nothing | Promise::Announced if self.seen >= UNDECIDED_FRAMES => Verdict::None,
            Promise::Nothing | Promise::Announced => self.verdict,
        }
    }

    /// Also takes the promise from an SPS in the stream, for encoders that leave it out of the record.
    fn has_b_slices(&mut self, frame: &Frame) -> bool {
        for unit in units(&frame.data, self.nal_length_bytes) {
            if nal_type(unit) == nal::SPS && self.promise == Promise::Nothing {
                self.promise = promise_of(unit);
            }
            if is_b_slice(unit) {
                return self.promise != Promise::Never;
            }
        }
        false
    }
}

fn promise_of(sps: &[u8]) -> Promise {
    match Sps::parse(sps) {
        Ok(sps) if sps.never_reorders() => Promise::Never,
        Ok(sps) if sps.max_num_reorder_frames.is_some() => Promise::Announced,
        Ok(_) | Err(_) => Promise::Nothing,
    }
}

#[cfg(test)]
#[path = "b_frames_tests.rs"]
mod tests;
