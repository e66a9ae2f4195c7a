//! Coded sound to stereo PCM at the source's own rate.

use std::sync::Arc;

use freshet_media::{Codec, Frame, TrackConfig};

use super::downmix;
use super::resample::IN_HZ;
use crate::transcode::TranscodeError;

/// A frame decodes to this much at most: 8192 samples of AAC-ELD-sized surprises and several MP3 frames in one packet
/// stay below; a packet that claims more is cut.
const MAX_SAMPLES_PER_FRAME: usize = 16_384;

/// What one frame decoded to.
#[derive(Default)]
pub(super) struct Pcm {
    pub(super) hz: u32,
    pub(super) left: Vec<f32>,
    pub(super) right: Vec<f32>,
}

impl Pcm {
    fn clear(&mut self) {
        self.hz = 0;
        self.left.clear();
        self.right.clear();
    }

    /// The rate may not change inside a frame, and must be one that can be resampled.
    fn accepts(&mut self, hz: u32) -> Result<(), String> {
        if !IN_HZ.contains(&hz) {
            return Err(format!("sample rate of {hz} Hz"));
        }
        if self.hz != 0 && self.hz != hz {
            return Err(format!("rate changes from {} to {hz} Hz inside a frame", self.hz));
        }
        self.hz = hz;
        Ok(())
    }
}

/// A decoder for one set of parameters.
pub(super) struct Decoder {
    config: Arc<TrackConfig>,
    inner: Inner,
}

enum Inner {
    Aac(Box<syom::Decoder>),
    Mp3(Box<nanomp3::Decoder>),
}

impl Decoder {
    /// Fails if the parameters name something that cannot be decoded.
    pub(super) fn new(config: Arc<TrackConfig>) -> Result<Decoder, TranscodeError> {
        let inner = match config.codec {
            Codec::Aac => Inner::Aac(Box::new(open_aac(&config)?)),
            Codec::Mp3 => Inner::Mp3(Box::new(nanomp3::Decoder::new())),
            codec => return Err(TranscodeError::UnsupportedCodec { codec }),
        };
        Ok(Decoder { config, inner })
    }

    /// Decodes one frame into `pcm`, which is overwritten. After an error the decoder has been set up anew.
    pub(super) fn decode(&mut self, frame: &Frame, pcm: &mut Pcm) -> Result<(), TranscodeError> {
        pcm.clear();
        let outcome = match &mut self.inner {
            Inner::Aac(decoder) => decode_aac(decoder, &frame.data, pcm),
            Inner::Mp3(decoder) => decode_mp3(decoder, &frame.data, pcm),
        };
        outcome.map_err(|reason| {
            if let Inner::Aac(decoder) = &mut self.inner {
                // An AAC decoder that failed stays failed. The record was good when this one was opened.
                decoder.reset();
                if let Err(error) = decoder.set_asc(&self.config.record) {
                    tracing::debug!(%error, "AAC decoder could not be set up again");
                }
            }
            TranscodeError::BrokenFrame { codec: self.config.codec, at: frame.pts, reason }
        })
    }
}

fn open_aac(config: &TrackConfig) -> Result<syom::Decoder, TranscodeError> {
    syom::Decoder::from_asc(&config.record, syom::DecodeOptions::unbounded())
        .map_err(|error| TranscodeError::UnsupportedFormat { codec: Codec::Aac, reason: error.to_string() })
}

fn decode_aac(decoder: &mut syom::Decoder, data: &[u8], pcm: &mut Pcm) -> Result<(), String> {
    let mut refused = None;
    let outcome = decoder.decode_au(data, |frame| {
        if let Err(reason) = pcm.accepts(frame.sample_rate) {
            refused = Some(reason);
            return Ok(());
        }
        if pcm.left.len() + frame.samples <= MAX_SAMPLES_PER_FRAME {
            let mut labels = [syom::Channel::Other; syom::MAX_PLANES];
            for (slot, label) in labels.iter_mut().zip(frame.meta.labels()) {
                *slot = label;
            }
            downmix::to_stereo(frame.planar, &labels, &mut pcm.left, &mut pcm.right);
        }
        Ok(())
    });
    outcome.map_err(|error| error.to_string())?;
    match refused {
        Some(reason) => Err(reason),
        None if pcm.left.is_empty() => Err("no sound in it".to_owned()),
        None => Ok(()),
    }
}

fn decode_mp3(decoder: &mut nanomp3::Decoder, data: &[u8], pcm: &mut Pcm) -> Result<(), String> {
    let mut buffer = [0.0f32; nanomp3::MAX_SAMPLES_PER_FRAME];
    let mut rest = data;
    while !rest.is_empty() && pcm.left.len() < MAX_SAMPLES_PER_FRAME {
        let (used, outcome) = decoder.decode(rest, &mut buffer);
        rest = rest.get(used.max(1)..).unwrap_or_default();
        let info = match outcome {
            Ok(info) => info,
            // Tags and padding behind a frame are no reason to lose it.
            Err(nanomp3::DecodeError::NoFrame) if pcm.hz != 0 => break,
            Err(error) => return Err(error.to_string()),
        };
        pcm.accepts(info.sample_rate)?;
        let samples = &buffer[..(info.samples_produced * usize::from(info.channels.num())).min(buffer.len())];
        match info.channels {
            nanomp3::Channels::Mono => downmix::to_stereo(&[samples], &[], &mut pcm.left, &mut pcm.right),
            nanomp3::Channels::Stereo => {
                pcm.left.extend(samples.iter().step_by(2).map(|s| downmix::sane(*s)));
                pcm.right.extend(samples.iter().skip(1).step_by(2).map(|s| downmix::sane(*s)));
            }
        }
    }
    if pcm.left.is_empty() { Err("no sound in it".to_owned()) } else { Ok(()) }
}
