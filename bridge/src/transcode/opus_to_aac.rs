//! Opus as WebRTC sends it to AAC-LC at 48 kHz stereo, for everything that cannot carry Opus.
//!
//! ```text
//! OpusIn ─► Opus decoder (with concealment) ─► line of samples ─► AAC encoder ─► Frame
//! ```
//!
//! Time stamps come from counting samples: frames are exactly 1024 samples apart. What is missing is concealed by the
//! decoder, from the redundancy in the packet behind the hole where there is some (RFC 6716 §2.1.7), so that the count
//! goes on; only a hole too long for that becomes a jump of the time stamps. The delays on the way are taken off:
//! - Opus' look-ahead: what a packet decodes to is older than its time stamp by 6.5 ms (RFC 7845 §4.2);
//! - AAC's: a frame's time stamp is that of the first sample that decoding it brings out, priming included, as in
//!   [`super::AudioToOpus`], so it lies one frame before the samples that went in.
//!
//! Nothing is resampled: Opus always decodes to 48 kHz, and the source's own clock is the clock of its time stamps.

use std::sync::Arc;

use bytes::Bytes;
use freshet_media::{Codec, Frame, MediaTime, TrackConfig};

use super::TranscodeError;

/// The rate of both codecs.
const HZ: u32 = 48_000;
/// Samples per channel of an AAC frame.
const FRAME_SAMPLES: i64 = 1024;
/// By how much what a packet decodes to trails its time stamp: libopus' look-ahead at 48 kHz in its usual modes.
const OPUS_DELAY_SAMPLES: i64 = 312;
/// Time stamps this near to the count are rounded, not wrong: the shortest Opus frame, 2.5 ms.
const SLACK_SAMPLES: i64 = 120;
/// Decoders conceal in steps of the shortest frame.
const CONCEAL_STEP_SAMPLES: i64 = 120;
/// A hole up to this long is concealed; players without an idea of holes stay in step. Longer ones are pauses.
const MAX_CONCEAL_SAMPLES: i64 = 2 * HZ as i64;
/// Sound that comes twice, up to this much, is dropped. Beyond, the source counts anew and is taken to go on.
const MAX_OVERLAP_SAMPLES: i64 = HZ as i64 / 5;
/// The longest packet: 120 ms (RFC 6716 §2.1.4).
const MAX_PACKET_SAMPLES: usize = 5760;
/// What the encoder takes for stereo at 48 kHz.
const BITRATES_BPS: std::ops::RangeInclusive<u32> = 16_000..=512_000;

/// How sound is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AacOptions {
    /// The average bit rate.
    pub bitrate_bps: u32,
}

impl Default for AacOptions {
    fn default() -> AacOptions {
        AacOptions { bitrate_bps: 128_000 }
    }
}

/// A packet of Opus.
#[derive(Debug, Clone, Copy)]
pub struct OpusIn<'a> {
    /// Its time stamp.
    pub pts: MediaTime,
    /// The payload.
    pub data: &'a [u8],
}

/// One Opus track on its way to AAC.
pub struct OpusToAac {
    decoder: opus::Decoder,
    writer: AacWriter,
    has_started: bool,
    /// Is added to time stamps in samples: what the source has set its count back by.
    shift: i64,
    concealed: u64,
    /// Interleaved.
    pcm: Vec<f32>,
}

impl OpusToAac {
    /// For a track whose first packet has yet to come.
    ///
    /// # Errors
    /// A codec cannot be opened: out of memory.
    pub fn new(options: AacOptions) -> Result<OpusToAac, TranscodeError> {
        let decoder = opus::Decoder::new(HZ, opus::Channels::Stereo)
            .map_err(|error| TranscodeError::UnsupportedFormat { codec: Codec::Opus, reason: error.to_string() })?;
        Ok(OpusToAac {
            decoder,
            writer: AacWriter::new(options.bitrate_bps)?,
            has_started: false,
            shift: 0,
            concealed: 0,
            pcm: vec![0.0; 2 * MAX_PACKET_SAMPLES],
        })
    }

    /// What frames are decoded with.
    pub fn config(&self) -> &Arc<TrackConfig> {
        &self.writer.config
    }

    /// How many samples have been made up for missing ones.
    pub fn concealed_samples(&self) -> u64 {
        self.concealed
    }

    /// Takes the next packet, conceals what is missing before it, and hands out the frames that are full.
    ///
    /// # Errors
    /// The packet is broken, which the next one makes up for, or the encoder failed. Later packets are welcome.
    pub fn push(&mut self, packet: OpusIn<'_>, emit: &mut impl FnMut(Frame)) -> Result<(), TranscodeError> {
        let broken = |error| failed_decoder(packet.pts, error);
        let length = opus::packet::get_nb_samples(packet.data, HZ).map_err(broken)?;
        let overlap = self.approach(packet, length as i64, emit)?;
        let samples = self.decoder.decode_float(packet.data, &mut self.pcm, false).map_err(broken)?;
        let dropped = usize::try_from(overlap).unwrap_or(0).min(samples);
        self.writer.append(&self.pcm[2 * dropped..2 * samples], emit)
    }

    /// Hands out what is left, filled up with silence. Nothing more will come.
    ///
    /// # Errors
    /// The encoder failed.
    pub fn finish(&mut self, emit: &mut impl FnMut(Frame)) -> Result<(), TranscodeError> {
        if self.has_started { self.writer.flush(emit) } else { Ok(()) }
    }

    /// Makes the line of samples reach up to the packet. Tells how many of the packet's samples are there already.
    fn approach(
        &mut self,
        packet: OpusIn<'_>,
        length: i64,
        emit: &mut impl FnMut(Frame),
    ) -> Result<i64, TranscodeError> {
        let stamped = packet.pts.ticks(HZ).saturating_sub(OPUS_DELAY_SAMPLES).saturating_add(self.shift);
        if !self.has_started {
            self.has_started = true;
            self.writer.start_at(stamped);
        }
        let missing = stamped.saturating_sub(self.writer.end);
        if missing < -MAX_OVERLAP_SAMPLES {
            self.shift = self.shift.saturating_sub(missing);
            Ok(0)
        } else if missing < -SLACK_SAMPLES {
            Ok(-missing)
        } else if missing <= SLACK_SAMPLES {
            Ok(0)
        } else if missing <= MAX_CONCEAL_SAMPLES {
            self.conceal(packet.data, length, missing, emit).map(|()| 0)
        } else {
            // What came last has nothing to do with what comes now.
            self.decoder.reset_state().map_err(|error| failed_decoder(packet.pts, error))?;
            self.writer.jump_to(stamped, emit).map(|()| 0)
        }
    }

    /// Fills a hole of `missing` samples before a packet of `length`.
    fn conceal(
        &mut self,
        next: &[u8],
        length: i64,
        missing: i64,
        emit: &mut impl FnMut(Frame),
    ) -> Result<(), TranscodeError> {
        let missing = missing - missing % CONCEAL_STEP_SAMPLES;
        // The packet repeats at most the one before it, which is as long as itself.
        let repeated = missing.min(length - length % CONCEAL_STEP_SAMPLES);
        let mut rest = missing - repeated;
        while rest > 0 {
            // As long as the packets are, since that is what was lost.
            let step = rest.min(length.max(CONCEAL_STEP_SAMPLES));
            self.make_up(&[], step, emit)?;
            rest -= step;
        }
        if repeated > 0 { self.make_up(next, repeated, emit) } else { Ok(()) }
    }

    /// Decodes `samples` of the redundancy in `data`, or from what came last if there is none.
    fn make_up(&mut self, data: &[u8], samples: i64, emit: &mut impl FnMut(Frame)) -> Result<(), TranscodeError> {
        let values = (2 * usize::try_from(samples).unwrap_or(0)).min(self.pcm.len());
        let pcm = &mut self.pcm[..values];
        if self.decoder.decode_float(data, pcm, true).is_err() {
            pcm.fill(0.0);
        }
        self.concealed += samples.unsigned_abs();
        self.writer.append(&self.pcm[..values], emit)
    }
}

/// The encoder and its place on the line of samples.
struct AacWriter {
    encoder: syom::Encoder,
    config: Arc<TrackConfig>,
    /// Where the next sample goes that is appended.
    end: i64,
    /// Where the next frame's first decoded sample lies.
    next_frame: i64,
    planes: [Vec<f32>; 2],
}

impl AacWriter {
    fn new(bitrate_bps: u32) -> Result<AacWriter, TranscodeError> {
        let bitrate_bps = bitrate_bps.clamp(*BITRATES_BPS.start(), *BITRATES_BPS.end());
        let encoder = syom::Encoder::new(HZ, 2, &syom::EncodeOptions::raw().with_bitrate_bps(bitrate_bps));
        let encoder = encoder.map_err(failed)?;
        let config = Arc::new(TrackConfig { codec: Codec::Aac, record: Bytes::copy_from_slice(encoder.asc()) });
        Ok(AacWriter { encoder, config, end: 0, next_frame: 0, planes: Default::default() })
    }

    fn start_at(&mut self, at: i64) {
        self.end = at;
        self.next_frame = at.saturating_sub(FRAME_SAMPLES);
    }

    /// Appends interleaved samples.
    fn append(&mut self, pcm: &[f32], emit: &mut impl FnMut(Frame)) -> Result<(), TranscodeError> {
        let [left, right] = &mut self.planes;
        left.clear();
        right.clear();
        for sides in pcm.chunks_exact(2) {
            left.push(sane(sides[0]));
            right.push(sane(sides[1]));
        }
        self.encode(emit)
    }

    fn append_silence(&mut self, samples: i64, emit: &mut impl FnMut(Frame)) -> Result<(), TranscodeError> {
        for plane in &mut self.planes {
            plane.clear();
            plane.resize(usize::try_from(samples).unwrap_or(0), 0.0);
        }
        self.encode(emit)
    }

    /// Brings out all that was appended: the frame that is not full, and the one that its second half is in.
    fn flush(&mut self, emit: &mut impl FnMut(Frame)) -> Result<(), TranscodeError> {
        let begun = self.end.saturating_sub(self.next_frame) % FRAME_SAMPLES;
        self.append_silence(FRAME_SAMPLES + (FRAME_SAMPLES - begun) % FRAME_SAMPLES, emit)
    }

    fn jump_to(&mut self, at: i64, emit: &mut impl FnMut(Frame)) -> Result<(), TranscodeError> {
        let flushed = self.flush(emit);
        self.start_at(at);
        flushed
    }

    fn encode(&mut self, emit: &mut impl FnMut(Frame)) -> Result<(), TranscodeError> {
        let samples = self.planes[0].len() as i64;
        let (config, next_frame) = (&self.config, &mut self.next_frame);
        let fed = self.encoder.feed(&[&self.planes[0], &self.planes[1]], |unit| {
            let at = MediaTime::from_ticks(*next_frame, HZ);
            *next_frame = next_frame.saturating_add(FRAME_SAMPLES);
            let data = Bytes::copy_from_slice(unit.payload);
            emit(Frame { config: Arc::clone(config), dts: at, pts: at, is_keyframe: true, data });
            Ok(())
        });
        self.end = self.end.saturating_add(samples);
        if let Err(error) = fed {
            // An encoder that failed stays failed. What it had begun is lost.
            self.encoder.reset().map_err(failed)?;
            self.next_frame = self.next_frame.max(self.end.saturating_sub(FRAME_SAMPLES));
            return Err(failed(error));
        }
        Ok(())
    }
}

/// The encoder takes finite samples within full scale only; decoders overshoot.
fn sane(sample: f32) -> f32 {
    if sample.is_finite() { sample.clamp(-1.0, 1.0) } else { 0.0 }
}

fn failed_decoder(at: MediaTime, error: opus::Error) -> TranscodeError {
    TranscodeError::BrokenFrame { codec: Codec::Opus, at, reason: error.to_string() }
}

fn failed(error: syom::AacError) -> TranscodeError {
    TranscodeError::Encoder { codec: Codec::Aac, reason: error.to_string() }
}

#[cfg(test)]
#[path = "opus_to_aac_tests.rs"]
mod tests;
