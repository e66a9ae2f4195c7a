//! H.264/AVC bitstreams as far as a server looks into them: parameter sets, units of a frame, kinds of slices.
//!
//! ITU-T H.264 for the syntax, ISO/IEC 14496-15 §5.2 for the configuration record and the framing. Nothing here
//! decodes pictures. H.265 has the same framing, so [`units`] serves it too.

mod b_frames;
mod config;
mod slice;
mod sps;
mod units;

use std::fmt;

pub use b_frames::{BFrameDetector, Verdict};
pub use config::AvcConfig;
pub use slice::{SliceType, is_b_slice, slice_type};
pub use sps::{Colour, Sps};
pub use units::{Units, units};

/// Types of NAL units, Table 7-1.
pub mod nal {
    /// A slice of a picture that is no IDR picture.
    pub const SLICE: u8 = 1;
    /// A slice of an IDR picture.
    pub const IDR: u8 = 5;
    /// Supplemental enhancement information.
    pub const SEI: u8 = 6;
    /// A sequence parameter set.
    pub const SPS: u8 = 7;
    /// A picture parameter set.
    pub const PPS: u8 = 8;
    /// An access unit delimiter.
    pub const AUD: u8 = 9;
    /// The end of a sequence.
    pub const END_OF_SEQUENCE: u8 = 10;
    /// The end of the stream.
    pub const END_OF_STREAM: u8 = 11;
    /// Filler data.
    pub const FILLER: u8 = 12;
    /// A sequence parameter set extension.
    pub const SPS_EXTENSION: u8 = 13;
    /// Above this the numbers mean something else in RTP (RFC 6184 §5.2).
    pub const LAST_VALID: u8 = 23;
}

/// The type of a NAL unit. An empty one has the type 0, which is not in use.
pub fn nal_type(unit: &[u8]) -> u8 {
    unit.first().map_or(0, |header| header & 0x1f)
}

/// What is wrong with a configuration record or a parameter set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum H264Error {
    /// It ends within the named part.
    Truncated(&'static str),
    /// The record's version is not 1.
    RecordVersion(u8),
    /// Lengths of three bytes do not exist.
    LengthSize,
    /// The unit is of another type than it should be.
    UnitType(u8),
    /// A value is beyond what the standard allows.
    OutOfRange(&'static str),
    /// A parameter set is too large for a record, or there are too many.
    TooLarge,
}

impl fmt::Display for H264Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            H264Error::Truncated(part) => write!(f, "H.264 data ends within {part}"),
            H264Error::RecordVersion(version) => write!(f, "H.264 configuration record of version {version}, not 1"),
            H264Error::LengthSize => f.write_str("H.264 configuration record with unit lengths of three bytes"),
            H264Error::UnitType(kind) => write!(f, "H.264 NAL unit of type {kind} where another one is expected"),
            H264Error::OutOfRange(field) => write!(f, "H.264 {field} is out of range"),
            H264Error::TooLarge => f.write_str("H.264 parameter sets are too large for a configuration record"),
        }
    }
}

impl std::error::Error for H264Error {}
