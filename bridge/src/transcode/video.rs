//! H.264 with B-frames to H.264 without: decoded and encoded again, same size, same pictures, same times.
//!
//! ```text
//! Frame ─► PictureDecoder ─► DisplayOrder ─► PictureEncoder ─► Frame
//! ```
//!
//! What goes out is Constrained Baseline with one slice per picture, in the order of display, `dts` equal to `pts`; as
//! many pictures as came in. It comes late by as many pictures as the source reorders. Keyframes are where the source
//! has IDR pictures and where [`BFrameRemover::request_keyframe`] asks for one, the bit rate follows the source's.
//!
//! Does not do: High 10, 4:2:2, interlaced, error concealment (a broken picture is missed, and all others until the
//! source's next keyframe), conversion of size, rate or colour.

mod decode;
mod encode;
mod order;
mod rate;
mod still;

use std::sync::Arc;

use freshet_media::h264::AvcConfig;
use freshet_media::{Codec, Frame, MediaTime, TrackConfig};
use openh264::formats::YUVSource;

use super::TranscodeError;
use decode::{Fit, PictureDecoder};
use encode::PictureEncoder;
use order::{DisplayOrder, Picture};
use rate::RateMeter;

pub use still::Still;

/// A source without keyframes gets an encoder of its new rate after this many pictures: 10 s at 30 per second, so that
/// one that breathes is not answered with a keyframe at every breath.
const RESET_AFTER_PICTURES: u64 = 300;

/// How pictures are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VideoOptions {
    /// Threads of the encoder. A picture of one slice leaves a second one little to do.
    pub threads: u16,
}

impl Default for VideoOptions {
    fn default() -> VideoOptions {
        VideoOptions { threads: 1 }
    }
}

/// Which of the decoded pictures are encoded again. Decoding cannot be left out, encoding can: for whoever is behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// One of so many, and every keyframe.
    Every(u32),
    /// The very first, and then none.
    FirstOnly,
}

/// One video track on its way to pictures without B-frames.
pub struct BFrameRemover {
    source: Option<Source>,
    output: Output,
    rate: RateMeter,
    order: DisplayOrder,
    pictures_in: u64,
}

struct Source {
    config: Arc<TrackConfig>,
    /// Or what every frame is answered with until the parameters change.
    decoder: Result<PictureDecoder, TranscodeError>,
}

/// The encoding side.
struct Output {
    options: VideoOptions,
    encoder: Option<PictureEncoder>,
    is_keyframe_wanted: bool,
    last_pts: Option<MediaTime>,
    encoding: Encoding,
    /// Pictures that came out of the decoder.
    decoded: u64,
    pictures_out: u64,
    /// Of `pictures_out`, when the encoder was made.
    encoder_since: u64,
}

impl BFrameRemover {
    /// For a track whose first frame has yet to come. Costs nothing until then.
    pub fn new(options: VideoOptions) -> BFrameRemover {
        let output = Output {
            options,
            encoder: None,
            is_keyframe_wanted: true,
            last_pts: None,
            encoding: Encoding::Every(1),
            decoded: 0,
            pictures_out: 0,
            encoder_since: 0,
        };
        BFrameRemover {
            source: None,
            output,
            rate: RateMeter::default(),
            order: DisplayOrder::default(),
            pictures_in: 0,
        }
    }

    /// Takes the next access unit in decoding order and hands out the pictures that are due, in order of display.
    ///
    /// An error concerns this frame, and those up to the source's next keyframe, unless
    /// [`TranscodeError::is_lasting`].
    pub fn push(&mut self, frame: &Frame, emit: &mut impl FnMut(Frame)) -> Result<(), TranscodeError> {
        self.pictures_in += 1;
        self.rate.add(frame.dts, frame.data.len());
        if !self.source.as_ref().is_some_and(|s| Arc::ptr_eq(&s.config, &frame.config)) {
            self.take_config(&frame.config, emit);
        }
        if let Some(Source { decoder: Ok(decoder), .. }) = &self.source
            && let Fit::Other(sps) = decoder.fits(frame)
        {
            let avc = decoder.avc().clone();
            self.flush(emit);
            let config = Arc::clone(&frame.config);
            self.source = Some(Source { config, decoder: PictureDecoder::new(avc, sps) });
        }
        let Some(Source { decoder, .. }) = &mut self.source else { return Ok(()) };
        let decoder = decoder.as_mut().map_err(|error| error.clone())?;
        let picture = Picture { pts: frame.pts, is_keyframe: frame.is_keyframe };
        self.order.put(picture);
        match decoder.decode(frame) {
            Ok(None) => Ok(()),
            Ok(Some(yuv)) => self.output.send(&yuv, self.order.next(), &self.rate, emit),
            Err(error) => {
                self.order.take_back(picture);
                Err(error)
            }
        }
    }

    /// Hands out what the decoder holds back: at the end of the stream.
    pub fn flush(&mut self, emit: &mut impl FnMut(Frame)) {
        let Some(Source { decoder: Ok(decoder), .. }) = &mut self.source else { return };
        let pictures = decoder.drain();
        self.order.keep_latest(pictures.len());
        for yuv in pictures {
            if let Err(error) = self.output.send(&yuv, self.order.next(), &self.rate, emit) {
                tracing::debug!(%error, "picture lost at the end of a sequence");
            }
        }
        self.order.keep_latest(0);
    }

    /// Sets which pictures are encoded from here on.
    pub fn set_encoding(&mut self, encoding: Encoding) {
        self.output.encoding = encoding;
    }

    /// Makes the next picture a keyframe.
    pub fn request_keyframe(&mut self) {
        self.output.is_keyframe_wanted = true;
    }

    /// Access units that came in.
    pub fn pictures_in(&self) -> u64 {
        self.pictures_in
    }

    /// Pictures that went out.
    pub fn pictures_out(&self) -> u64 {
        self.output.pictures_out
    }

    /// Pictures that are held back at the moment, since one that is shown earlier may yet come.
    pub fn latency_pictures(&self) -> usize {
        self.order.len()
    }

    fn take_config(&mut self, config: &Arc<TrackConfig>, emit: &mut impl FnMut(Frame)) {
        if let Some(source) = &mut self.source
            && *source.config == **config
        {
            source.config = Arc::clone(config);
            return;
        }
        self.flush(emit);
        self.source = Some(Source { config: Arc::clone(config), decoder: open(config) });
    }
}

fn open(config: &TrackConfig) -> Result<PictureDecoder, TranscodeError> {
    if config.codec != Codec::H264 {
        return Err(TranscodeError::UnsupportedCodec { codec: config.codec });
    }
    let avc = AvcConfig::parse(&config.record)
        .map_err(|error| TranscodeError::UnsupportedFormat { codec: Codec::H264, reason: error.to_string() })?;
    let sps = avc.sps.first().cloned().unwrap_or_default();
    PictureDecoder::new(avc, sps)
}

impl Output {
    fn is_left_out(&self, as_keyframe: bool) -> bool {
        match self.encoding {
            Encoding::Every(n) => !as_keyframe && !self.decoded.is_multiple_of(u64::from(n.max(1))),
            Encoding::FirstOnly => self.pictures_out > 0,
        }
    }

    fn send(
        &mut self,
        yuv: &impl YUVSource,
        picture: Option<Picture>,
        rate: &RateMeter,
        emit: &mut impl FnMut(Frame),
    ) -> Result<(), TranscodeError> {
        // More pictures than went in cannot be told where they belong.
        let Some(picture) = picture else { return Ok(()) };
        // Time stamps that contradict the order of display: the picture is shown right behind the one before it.
        let pts = match self.last_pts {
            Some(last) if picture.pts <= last => MediaTime::from_micros(last.micros().saturating_add(1)),
            _ => picture.pts,
        };
        let as_keyframe = picture.is_keyframe || self.is_keyframe_wanted;
        self.decoded += 1;
        if self.is_left_out(as_keyframe) {
            return Ok(());
        }
        let size = yuv.dimensions();
        let is_old = self.pictures_out.saturating_sub(self.encoder_since) >= RESET_AFTER_PICTURES;
        let may_measure = as_keyframe || is_old;
        let measured = if may_measure { rate.measured() } else { None };
        let encoder = match self.encoder.take() {
            Some(encoder) if encoder.fits(size, measured) => self.encoder.insert(encoder),
            old => {
                let mut encoder = PictureEncoder::new(size, rate.measured(), self.options.threads)?;
                if let Some(old) = &old {
                    encoder.succeed(old);
                }
                self.encoder_since = self.pictures_out;
                self.encoder.insert(encoder)
            }
        };
        let frame = encoder.encode(yuv, pts, as_keyframe)?;
        if let Some(frame) = frame {
            self.is_keyframe_wanted = false;
            self.last_pts = Some(pts);
            self.pictures_out += 1;
            emit(frame);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
