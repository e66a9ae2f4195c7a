//! The decoding half: access units to pictures, with all that has to be looked at before a decoder in C may see them.

use bytes::Bytes;
use freshet_media::h264::{AvcConfig, Sps, nal, nal_type, units};
use freshet_media::{Codec, Frame};
use openh264::OpenH264API;
use openh264::decoder::{DecodeOptions, DecodedYUV, Decoder, DecoderConfig, Flush};

use crate::transcode::TranscodeError;

/// What the encoder takes at most, in either orientation.
const MAX_LONG_SIDE: u32 = 3840;
const MAX_SHORT_SIDE: u32 = 2160;
/// What it takes at least: one macroblock.
const MIN_SIDE: u32 = 16;
/// An access unit beyond this is not video for a viewer over the Internet, and its length must fit C's `int`.
const MAX_UNIT_BYTES: usize = 16 << 20;
const START_CODE: [u8; 4] = [0, 0, 0, 1];

/// A decoder for one sequence parameter set. Another one in the stream needs another decoder: reconfiguring this one
/// while it holds pictures back is where such decoders have had their worst bugs.
pub(super) struct PictureDecoder {
    decoder: Decoder,
    avc: AvcConfig,
    /// The SPS that it was opened for, empty until one has come.
    sps: Bytes,
    state: State,
    unit: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing was decoded yet.
    Fresh,
    Running,
    /// There was an error, and no keyframe since.
    Lost,
}

/// What an access unit is to the decoder that should take it.
pub(super) enum Fit {
    /// It can be decoded.
    Yes,
    /// It needs another decoder, for this SPS.
    Other(Bytes),
}

impl PictureDecoder {
    /// `sps` is the one of the record or one from the stream; it may be empty if neither has come yet.
    pub(super) fn new(avc: AvcConfig, sps: Bytes) -> Result<PictureDecoder, TranscodeError> {
        if !sps.is_empty() {
            check(&sps)?;
        }
        // Feeding whole access units and never flushing in between is what makes the reordering of B-frames right.
        let config = DecoderConfig::new().flush_after_decode(Flush::NoFlush);
        let decoder = Decoder::with_api_config(OpenH264API::from_source(), config)
            .map_err(|error| unsupported(error.to_string()))?;
        Ok(PictureDecoder { decoder, avc, sps, state: State::Fresh, unit: Vec::new() })
    }

    /// Looks whether this is the decoder for `frame`.
    pub(super) fn fits(&self, frame: &Frame) -> Fit {
        let (mut sps, mut is_idr) = (None, false);
        for unit in units(&frame.data, self.avc.nal_length_bytes) {
            match nal_type(unit) {
                nal::SPS => sps = sps.or(Some(unit)),
                nal::IDR => is_idr = true,
                _ => (),
            }
        }
        match sps {
            Some(sps) if sps != self.sps => Fit::Other(Bytes::copy_from_slice(sps)),
            // After damage nobody knows how many pictures it still holds, and so which one comes out next.
            _ if is_idr && self.state == State::Lost => Fit::Other(self.sps.clone()),
            _ => Fit::Yes,
        }
    }

    /// The record that this decoder was opened with, for the next one.
    pub(super) fn avc(&self) -> &AvcConfig {
        &self.avc
    }

    /// Decodes a whole access unit; what comes out is the next picture in the order of display, if one is due.
    ///
    /// After an error only a keyframe is decoded.
    pub(super) fn decode(&mut self, frame: &Frame) -> Result<Option<DecodedYUV<'_>>, TranscodeError> {
        let broken =
            |reason: &str| TranscodeError::BrokenFrame { codec: Codec::H264, at: frame.pts, reason: reason.to_owned() };
        let is_idr = self.lay_out(frame).map_err(broken)?;
        if self.state != State::Running && !is_idr {
            return Err(broken("no keyframe since the last error or the start"));
        }
        if self.sps.is_empty() {
            return Err(broken("no sequence parameter set yet"));
        }
        let options = DecodeOptions::new().flush_after_decode(Flush::NoFlush);
        self.state = State::Running;
        match self.decoder.decode_with_options(&self.unit, options) {
            Ok(picture) => Ok(picture),
            Err(error) => {
                self.state = State::Lost;
                Err(broken(&error.to_string()))
            }
        }
    }

    /// What is left inside. The decoder is of no more use then: emptying it leaks its picture buffers to itself.
    pub(super) fn drain(&mut self) -> Vec<DecodedYUV<'_>> {
        self.decoder.flush_remaining().unwrap_or_default()
    }

    /// Writes the access unit with start codes into `unit`, parameter sets first. Whether it is an IDR picture.
    fn lay_out(&mut self, frame: &Frame) -> Result<bool, &'static str> {
        if frame.data.len() > MAX_UNIT_BYTES {
            return Err("larger than 16 MiB");
        }
        self.unit.clear();
        let mut slices = units(&frame.data, self.avc.nal_length_bytes);
        let is_idr = slices.clone().any(|unit| nal_type(unit) == nal::IDR);
        if is_idr {
            for set in std::iter::once(&self.sps).chain(&self.avc.pps) {
                append(&mut self.unit, set);
            }
        }
        let mut has_slice = false;
        for unit in slices.by_ref() {
            match nal_type(unit) {
                nal::SLICE | nal::IDR => has_slice = true,
                nal::PPS => (),
                // The SPS stands at the front already. Partitions, extensions and the like are for other profiles.
                _ => continue,
            }
            append(&mut self.unit, unit);
        }
        match (has_slice, slices.is_malformed()) {
            (_, true) => Err("lengths of NAL units do not add up"),
            (false, _) => Err("no slice in it"),
            _ => Ok(is_idr),
        }
    }
}

fn append(out: &mut Vec<u8>, unit: &[u8]) {
    if !unit.is_empty() {
        out.extend_from_slice(&START_CODE);
        out.extend_from_slice(unit);
    }
}

/// Whether the decoder and the encoder can deal with pictures of this kind.
fn check(sps: &[u8]) -> Result<(), TranscodeError> {
    let sps = Sps::parse(sps).map_err(|error| unsupported(error.to_string()))?;
    if !matches!(sps.profile, 66 | 77 | 100) {
        return Err(unsupported(format!("profile {}", sps.profile)));
    }
    if sps.chroma_format != 1 {
        return Err(unsupported(format!("chroma format {}, not 4:2:0", sps.chroma_format)));
    }
    if (sps.bit_depth_luma, sps.bit_depth_chroma) != (8, 8) {
        return Err(unsupported(format!("{} bits per sample", sps.bit_depth_luma.max(sps.bit_depth_chroma))));
    }
    if !sps.frame_mbs_only {
        return Err(unsupported("interlaced".to_owned()));
    }
    let (long, short) = (sps.width.max(sps.height), sps.width.min(sps.height));
    if long > MAX_LONG_SIDE || !(MIN_SIDE..=MAX_SHORT_SIDE).contains(&short) {
        return Err(unsupported(format!("{}x{} pixels", sps.width, sps.height)));
    }
    Ok(())
}

fn unsupported(reason: String) -> TranscodeError {
    TranscodeError::UnsupportedFormat { codec: Codec::H264, reason }
}
