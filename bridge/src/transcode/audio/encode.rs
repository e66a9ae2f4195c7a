//! 48 kHz stereo to Opus packets of 20 ms, laid out on a line of samples.
//!
//! Seams (the start, a gap, a change of source, a lost frame) are made here: what was there before is mirrored in time
//! and faded out while what comes fades in. That needs no look-ahead, so it costs no latency, and makes no click.

use bytes::Bytes;
use freshet_media::{Codec, MediaTime};

use super::OpusPacket;
use super::resample::OUT_HZ;
use crate::transcode::TranscodeError;

/// A packet's length: 20 ms, what every WebRTC sender uses.
pub(super) const PACKET_SAMPLES: usize = OUT_HZ as usize / 50;
/// A seam's length: 5 ms.
const SEAM_SAMPLES: usize = OUT_HZ as usize / 200;
/// RFC 6716 §3.4: no frame of a packet is longer than 1275 bytes, and a 20 ms packet has one frame.
const MAX_PACKET_BYTES: usize = 1275 + 2;
/// What libopus takes for one stereo stream.
const BITRATES_BPS: std::ops::RangeInclusive<u32> = 6_000..=510_000;
/// Where quality at this bit rate stops growing and time does not.
const COMPLEXITY: i32 = 5;

/// The encoder and the samples that do not fill a packet yet.
pub(super) struct OpusWriter {
    encoder: opus::Encoder,
    /// By how many samples a decoder's output trails what went in here.
    lookahead: i64,
    /// Planar, below one packet between calls.
    waiting: [Vec<f32>; 2],
    /// Where the first waiting sample lies.
    at: i64,
    /// The last samples appended, for the next seam; a ring would save a copy of 5 ms and cost more in reading.
    recent: [Vec<f32>; 2],
    seam: Seam,
    interleaved: Vec<f32>,
    packet: [u8; MAX_PACKET_BYTES],
}

/// The fade that runs: what is faded out, and how far it has come.
struct Seam {
    old: [Vec<f32>; 2],
    done: usize,
}

impl OpusWriter {
    pub(super) fn new(bitrate_bps: u32) -> Result<OpusWriter, TranscodeError> {
        let encoder = open(bitrate_bps.clamp(*BITRATES_BPS.start(), *BITRATES_BPS.end())).map_err(failed)?;
        let mut writer = OpusWriter {
            lookahead: 0,
            encoder,
            waiting: Default::default(),
            at: 0,
            recent: [vec![0.0; SEAM_SAMPLES], vec![0.0; SEAM_SAMPLES]],
            seam: Seam { old: [vec![0.0; SEAM_SAMPLES], vec![0.0; SEAM_SAMPLES]], done: 0 },
            interleaved: Vec::with_capacity(2 * PACKET_SAMPLES),
            packet: [0; MAX_PACKET_BYTES],
        };
        writer.lookahead = i64::from(writer.encoder.get_lookahead().map_err(failed)?);
        Ok(writer)
    }

    /// Lays the first sample at `at`. Before anything is appended.
    pub(super) fn start_at(&mut self, at: i64) {
        self.at = at;
    }

    /// Where the next sample will lie.
    pub(super) fn end(&self) -> i64 {
        self.at.saturating_add(self.waiting[0].len() as i64)
    }

    /// What is appended next does not continue what was appended last.
    pub(super) fn begin_seam(&mut self) {
        for side in 0..2 {
            let (old, recent) = (&mut self.seam.old[side], &self.recent[side]);
            old.clear();
            old.extend(recent.iter().rev());
        }
        self.seam.done = 0;
    }

    /// Appends samples and sends the packets that they fill.
    pub(super) fn append(
        &mut self,
        pcm: &[Vec<f32>; 2],
        emit: &mut impl FnMut(OpusPacket),
    ) -> Result<(), TranscodeError> {
        let samples = pcm[0].len().min(pcm[1].len());
        for (side, new) in pcm.iter().enumerate() {
            let waiting = &mut self.waiting[side];
            let from = waiting.len();
            waiting.extend_from_slice(&new[..samples]);
            let fading = SEAM_SAMPLES - self.seam.done;
            for (i, sample) in waiting[from..].iter_mut().take(fading).enumerate() {
                let at = self.seam.done + i;
                // Raised cosine: both halves add up to one, and neither has a corner.
                let share = 0.5 - 0.5 * (std::f32::consts::PI * (at as f32 + 0.5) / SEAM_SAMPLES as f32).cos();
                *sample = *sample * share + self.seam.old[side][at] * (1.0 - share);
            }
            let recent = &mut self.recent[side];
            let added = &waiting[from..];
            let added = &added[added.len().saturating_sub(SEAM_SAMPLES)..];
            recent.drain(..added.len());
            recent.extend_from_slice(added);
        }
        self.seam.done = (self.seam.done + samples).min(SEAM_SAMPLES);
        while self.waiting[0].len() >= PACKET_SAMPLES {
            self.send(emit)?;
        }
        Ok(())
    }

    /// Appends silence, faded into.
    pub(super) fn append_silence(
        &mut self,
        samples: usize,
        emit: &mut impl FnMut(OpusPacket),
    ) -> Result<(), TranscodeError> {
        self.begin_seam();
        self.append(&[vec![0.0; samples], vec![0.0; samples]], emit)?;
        self.begin_seam();
        Ok(())
    }

    /// Sends what waits, filled up with silence, and goes on at `at`.
    pub(super) fn jump_to(&mut self, at: i64, emit: &mut impl FnMut(OpusPacket)) -> Result<(), TranscodeError> {
        let rest = self.waiting[0].len() % PACKET_SAMPLES;
        if rest > 0 {
            self.append_silence(PACKET_SAMPLES - rest, emit)?;
        }
        self.at = at;
        self.begin_seam();
        Ok(())
    }

    fn send(&mut self, emit: &mut impl FnMut(OpusPacket)) -> Result<(), TranscodeError> {
        self.interleaved.clear();
        let [left, right] = &self.waiting;
        for (l, r) in left.iter().zip(right).take(PACKET_SAMPLES) {
            self.interleaved.extend_from_slice(&[l.clamp(-1.0, 1.0), r.clamp(-1.0, 1.0)]);
        }
        for side in &mut self.waiting {
            side.drain(..PACKET_SAMPLES);
        }
        let samples48 = self.at.saturating_sub(self.lookahead);
        // Time goes on even if this packet fails.
        self.at = self.at.saturating_add(PACKET_SAMPLES as i64);
        let length = self.encoder.encode_float(&self.interleaved, &mut self.packet).map_err(failed)?;
        let data = Bytes::copy_from_slice(self.packet.get(..length).unwrap_or_default());
        emit(OpusPacket { pts: MediaTime::from_ticks(samples48, OUT_HZ), samples48, data });
        Ok(())
    }
}

fn open(bitrate_bps: u32) -> Result<opus::Encoder, opus::Error> {
    let mut encoder = opus::Encoder::new(OUT_HZ, opus::Channels::Stereo, opus::Application::Audio)?;
    encoder.set_bitrate(opus::Bitrate::Bits(bitrate_bps as i32))?;
    encoder.set_complexity(COMPLEXITY)?;
    encoder.set_vbr(true)?;
    // Bounded swings: a packet never takes the time slice of two on the viewer's link.
    encoder.set_vbr_constraint(true)?;
    encoder.set_inband_fec(true)?;
    // Pauses must not stop the packets: receivers take their clock from them.
    encoder.set_dtx(false)?;
    Ok(encoder)
}

fn failed(error: opus::Error) -> TranscodeError {
    TranscodeError::Encoder { codec: Codec::Opus, reason: error.to_string() }
}
