//! Sound to Opus at 48 kHz, on a line of samples that follows the source's time stamps.
//!
//! ```text
//! Frame ─► Decoder ─► down-mix ─► Resampler (bent by Drift) ─► OpusWriter ─► OpusPacket
//! ```
//!
//! Time stamps come from counting samples: packets are exactly 960 samples apart, whatever the source's time stamps do
//! within [`drift`]'s limits. Only a gap too long to be filled breaks the count. The delays on the way are taken off:
//! - the decoder's: by the convention of MP4, FLV and MPEG-TS a frame's time stamp is that of the first sample that
//!   decoding it brings out, priming included, so there is nothing to take off;
//! - the resampler's filter is centred on the sample it makes;
//! - Opus' look-ahead (what RFC 7845 §4.2 calls pre-skip): WebRTC receivers play what a packet decodes to at its time stamp and
//!   skip nothing, so packets are stamped that much earlier.

mod decode;
mod downmix;
mod drift;
mod encode;
mod resample;

use std::sync::Arc;

use bytes::Bytes;
use freshet_media::{Codec, Frame, MediaTime, TrackConfig};

use super::TranscodeError;
use decode::{Decoder, Pcm};
use drift::{Drift, Verdict};
use encode::OpusWriter;
use resample::{OUT_HZ, Resampler};

/// A hole in the source up to this long is filled with silence; a longer one becomes a jump of the time stamps, which
/// receivers bridge better than we could.
const MAX_FILL_SAMPLES: i64 = OUT_HZ as i64 / 5;
/// Sound that overlaps what was already sent up to this much is dropped; beyond, the source has gone back in time.
const MAX_OVERLAP_SAMPLES: i64 = OUT_HZ as i64 / 5;
/// What a lost frame is taken to have been long before any was decoded: one of AAC at 48 kHz.
const ASSUMED_FRAME_SAMPLES: usize = 1024;
/// How far the time stamps of Opus that passes through may be off the count before the count follows: the length of
/// a packet, since less is rounding or a single late frame.
const PASS_THROUGH_SLACK_SAMPLES: i64 = OUT_HZ as i64 / 50;

/// How sound is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpusOptions {
    /// The average bit rate. 96 kbit/s stereo is transparent to most ears.
    pub bitrate_bps: u32,
}

impl Default for OpusOptions {
    fn default() -> OpusOptions {
        OpusOptions { bitrate_bps: 96_000 }
    }
}

/// A packet of Opus and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpusPacket {
    /// When its first sample is heard. `samples48` in other units, rounded.
    pub pts: MediaTime,
    /// The same in samples at 48 kHz, which is what RTP counts (RFC 7587 §4.1): steps by exactly 960 but for jumps of
    /// the source. May be slightly negative at a stream's start.
    pub samples48: i64,
    /// The payload.
    pub data: Bytes,
}

/// One audio track on its way to Opus.
pub struct AudioToOpus {
    options: OpusOptions,
    source: Option<Source>,
    /// Where the next packet that passes through is expected.
    pass_through_at: Option<i64>,
    encoding: Option<Encoding>,
    pcm: Pcm,
    resampled: [Vec<f32>; 2],
}

/// What the frames that come are.
struct Source {
    config: Arc<TrackConfig>,
    kind: SourceKind,
}

enum SourceKind {
    PassThrough,
    Decoded(Decoder),
    /// Every frame is answered with this until the parameters change.
    Refused(TranscodeError),
}

/// What exists from the first decoded frame on, and outlives changes of the source's parameters.
struct Encoding {
    writer: OpusWriter,
    resampler: Resampler,
    drift: Drift,
    /// Output samples of the last frame: what a lost one is taken to have been long.
    frame_samples: usize,
    /// Output samples to drop, since they overlap what was sent.
    overlap: usize,
}

impl AudioToOpus {
    /// For a track whose first frame has yet to come. Costs nothing until then.
    pub fn new(options: OpusOptions) -> AudioToOpus {
        AudioToOpus {
            options,
            source: None,
            pass_through_at: None,
            encoding: None,
            pcm: Pcm::default(),
            resampled: Default::default(),
        }
    }

    /// Takes the next frame and hands out the packets that it completes, in order.
    ///
    /// An error concerns this frame: its time is filled (with a fade into silence) and the next frame is welcome,
    /// unless [`TranscodeError::is_lasting`].
    pub fn push(&mut self, frame: &Frame, emit: &mut impl FnMut(OpusPacket)) -> Result<(), TranscodeError> {
        if !self.source.as_ref().is_some_and(|s| Arc::ptr_eq(&s.config, &frame.config)) {
            self.take_config(&frame.config);
        }
        let decoder = match self.source.as_mut().map(|s| &mut s.kind) {
            Some(SourceKind::Decoded(decoder)) => decoder,
            Some(SourceKind::Refused(error)) => return Err(error.clone()),
            Some(SourceKind::PassThrough) | None => return self.pass_through(frame, emit),
        };
        let decoded = decoder.decode(frame, &mut self.pcm);
        let encoding = match &mut self.encoding {
            Some(encoding) => encoding,
            None => {
                // Nothing was heard yet, so there is nothing to conceal either.
                decoded.clone()?;
                self.encoding.insert(Encoding::new(self.options, self.pcm.hz, frame.pts)?)
            }
        };
        match decoded {
            Ok(()) => encoding.append(frame.pts, &self.pcm, &mut self.resampled, emit),
            Err(error) => encoding.conceal(&mut self.resampled, emit).and(Err(error)),
        }
    }

    fn take_config(&mut self, config: &Arc<TrackConfig>) {
        // Encoders repeat their parameters; a decoder that starts anew for the same ones would click.
        if let Some(source) = &mut self.source
            && *source.config == **config
        {
            source.config = Arc::clone(config);
            return;
        }
        let kind = match config.codec {
            Codec::Opus => match multistream(&config.record) {
                None => SourceKind::PassThrough,
                Some(family) => SourceKind::Refused(TranscodeError::UnsupportedFormat {
                    codec: Codec::Opus,
                    reason: format!("channel mapping family {family}"),
                }),
            },
            _ => match Decoder::new(Arc::clone(config)) {
                Ok(decoder) => SourceKind::Decoded(decoder),
                Err(error) => SourceKind::Refused(error),
            },
        };
        self.source = Some(Source { config: Arc::clone(config), kind });
        if let Some(encoding) = &mut self.encoding {
            encoding.writer.begin_seam();
        }
    }

    fn pass_through(&mut self, frame: &Frame, emit: &mut impl FnMut(OpusPacket)) -> Result<(), TranscodeError> {
        let broken = |reason: String| TranscodeError::BrokenFrame { codec: Codec::Opus, at: frame.pts, reason };
        let length = opus::packet::get_nb_samples(&frame.data, OUT_HZ).map_err(|error| broken(error.to_string()))?;
        let stamped = frame.pts.ticks(OUT_HZ);
        let samples48 = match self.pass_through_at {
            Some(counted) if stamped.abs_diff(counted) <= PASS_THROUGH_SLACK_SAMPLES as u64 => counted,
            _ => stamped,
        };
        self.pass_through_at = Some(samples48.saturating_add(length as i64));
        emit(OpusPacket { pts: MediaTime::from_ticks(samples48, OUT_HZ), samples48, data: frame.data.clone() });
        Ok(())
    }
}

/// The channel mapping family of an `OpusHead` (RFC 7845 §5.1.1) if it is one that RTP cannot carry as it is.
fn multistream(record: &[u8]) -> Option<u8> {
    const FAMILY_OFFSET: usize = 18;
    record.get(FAMILY_OFFSET).copied().filter(|family| *family != 0)
}

impl Encoding {
    fn new(options: OpusOptions, hz: u32, start: MediaTime) -> Result<Encoding, TranscodeError> {
        let mut writer = OpusWriter::new(options.bitrate_bps)?;
        writer.start_at(start.ticks(OUT_HZ));
        Ok(Encoding {
            writer,
            resampler: Resampler::new(hz),
            drift: Drift::default(),
            frame_samples: ASSUMED_FRAME_SAMPLES,
            overlap: 0,
        })
    }

    fn append(
        &mut self,
        pts: MediaTime,
        pcm: &Pcm,
        scratch: &mut [Vec<f32>; 2],
        emit: &mut impl FnMut(OpusPacket),
    ) -> Result<(), TranscodeError> {
        if pcm.hz != self.resampler.in_hz() {
            self.drain_resampler(scratch, emit)?;
            self.writer.begin_seam();
            self.resampler = Resampler::new(pcm.hz);
        }
        let length = pcm.left.len() as f64 * f64::from(OUT_HZ) / f64::from(pcm.hz);
        self.frame_samples = length as usize;
        let stamped = pts.ticks(OUT_HZ);
        let expected = self.writer.end() as f64 + self.resampler.pending() - self.overlap as f64;
        match self.drift.judge(stamped as f64 - expected, length) {
            Verdict::Bend(by) => self.resampler.bend(by),
            Verdict::Jump(_) => {
                self.drain_resampler(scratch, emit)?;
                self.jump(stamped, emit)?;
            }
        }
        clear(scratch);
        self.resampler.process(&pcm.left, &pcm.right, scratch);
        self.append_resampled(scratch, emit)
    }

    /// Makes up for a frame that could not be decoded.
    fn conceal(
        &mut self,
        scratch: &mut [Vec<f32>; 2],
        emit: &mut impl FnMut(OpusPacket),
    ) -> Result<(), TranscodeError> {
        self.drain_resampler(scratch, emit)?;
        self.writer.append_silence(self.frame_samples, emit)
    }

    /// Goes on at `stamped`, by silence, by dropping what overlaps or by a jump of the time stamps.
    fn jump(&mut self, stamped: i64, emit: &mut impl FnMut(OpusPacket)) -> Result<(), TranscodeError> {
        let ahead = stamped.saturating_sub(self.writer.end());
        self.overlap = 0;
        match ahead {
            0..=MAX_FILL_SAMPLES => self.writer.append_silence(ahead as usize, emit),
            _ if (-MAX_OVERLAP_SAMPLES..0).contains(&ahead) => {
                self.overlap = ahead.unsigned_abs() as usize;
                self.writer.begin_seam();
                Ok(())
            }
            _ => self.writer.jump_to(stamped, emit),
        }
    }

    fn drain_resampler(
        &mut self,
        scratch: &mut [Vec<f32>; 2],
        emit: &mut impl FnMut(OpusPacket),
    ) -> Result<(), TranscodeError> {
        clear(scratch);
        self.resampler.finish(scratch);
        self.append_resampled(scratch, emit)
    }

    fn append_resampled(
        &mut self,
        scratch: &mut [Vec<f32>; 2],
        emit: &mut impl FnMut(OpusPacket),
    ) -> Result<(), TranscodeError> {
        let dropped = self.overlap.min(scratch[0].len());
        if dropped > 0 {
            self.overlap -= dropped;
            for side in scratch.iter_mut() {
                side.drain(..dropped);
            }
        }
        self.writer.append(scratch, emit)
    }
}

fn clear(pcm: &mut [Vec<f32>; 2]) {
    for side in pcm {
        side.clear();
    }
}

#[cfg(test)]
mod tests;
