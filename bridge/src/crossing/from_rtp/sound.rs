//! The sound's half: Opus out of its wrapping, made AAC or passed on.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use freshet_media::depacketize::red_primary;
use freshet_media::{Codec, Frame, MediaTime, OpusHead, TrackConfig};

use crate::transcode::{AacOptions, OpusIn, OpusToAac, TranscodeError};

/// What Opus decodes to is stereo unless it says otherwise, and decoders take either.
const OPUS_CHANNELS: u8 = 2;

/// What becomes of Opus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SoundOut {
    /// It is made AAC, which every player knows.
    Aac(AacOptions),
    /// It stays as it is, for containers that carry it. Holes stay holes.
    Opus,
}

impl Default for SoundOut {
    fn default() -> SoundOut {
        SoundOut::Aac(AacOptions::default())
    }
}

pub(super) struct SoundLeg {
    is_red: bool,
    way: Way,
}

enum Way {
    Transcode(Box<OpusToAac>),
    Pass(Arc<TrackConfig>),
}

impl SoundLeg {
    pub(super) fn new(codec: Codec, out: SoundOut) -> Result<SoundLeg, TranscodeError> {
        let way = match out {
            SoundOut::Aac(options) => Way::Transcode(Box::new(OpusToAac::new(options)?)),
            SoundOut::Opus => {
                let record = OpusHead::new(OPUS_CHANNELS).to_record();
                Way::Pass(Arc::new(TrackConfig { codec: Codec::Opus, record }))
            }
        };
        Ok(SoundLeg { is_red: codec == Codec::Red, way })
    }

    pub(super) fn take(&mut self, time: MediaTime, payload: &[u8], ready: &mut VecDeque<Frame>) -> Result<(), String> {
        let data = if self.is_red { red_primary(payload).ok_or("broken RED headers")? } else { payload };
        if data.is_empty() {
            return Ok(());
        }
        match &mut self.way {
            Way::Transcode(transcoder) => transcoder
                .push(OpusIn { pts: time, data }, &mut |frame| ready.push_back(frame))
                .map_err(|error| error.to_string()),
            Way::Pass(config) => {
                let (config, data) = (Arc::clone(config), Bytes::copy_from_slice(data));
                ready.push_back(Frame { config, dts: time, pts: time, is_keyframe: true, data });
                Ok(())
            }
        }
    }

    pub(super) fn finish(&mut self, ready: &mut VecDeque<Frame>) -> Result<(), String> {
        match &mut self.way {
            Way::Transcode(transcoder) => {
                transcoder.finish(&mut |frame| ready.push_back(frame)).map_err(|error| error.to_string())
            }
            Way::Pass(_) => Ok(()),
        }
    }

    pub(super) fn concealed_samples(&self) -> u64 {
        match &self.way {
            Way::Transcode(transcoder) => transcoder.concealed_samples(),
            Way::Pass(_) => 0,
        }
    }
}
