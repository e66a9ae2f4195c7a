//! H.265, RFC 7798 without decoding order numbers: single units, aggregation packets and fragmentation units.

use std::sync::Arc;

use super::{MAX_PARAMETER_SETS, PacketizeError, Sink};
use crate::h264::units;
use crate::h265::{H265Error, HevcConfig, nal, nal_type};
use crate::{Codec, Frame, TrackConfig};

const AGGREGATION: u8 = 48;
const FRAGMENTATION: u8 = 49;
/// Length size of frames of a track without record, whose parameter sets are in the stream.
const USUAL_LENGTH_BYTES: u8 = 4;

#[derive(Debug)]
pub(super) struct Packetizer {
    keep_sei: bool,
    track: Option<(Arc<TrackConfig>, Result<HevcConfig, H265Error>)>,
}

impl Packetizer {
    pub(super) fn new(keep_sei: bool) -> Packetizer {
        Packetizer { keep_sei, track: None }
    }

    /// Tells whether the frame is a keyframe.
    pub(super) fn packetize(&mut self, frame: &Frame, sink: &mut Sink<'_>) -> Result<bool, PacketizeError> {
        let keep_sei = self.keep_sei;
        let config = self.config(&frame.config)?;
        let mut units = units(&frame.data, config.map_or(USUAL_LENGTH_BYTES, |c| c.nal_length_bytes));
        let is_keyframe = frame.is_keyframe || units.clone().any(is_random_access);
        if is_keyframe {
            let sets = parameter_sets(units.clone(), config);
            sink.push_aggregates(&sets, aggregation_header, push_unit)?;
        }
        let mut has_slices = false;
        for unit in units.by_ref() {
            let wanted = match nal_type(unit) {
                nal::VPS..=nal::PPS => !is_keyframe,
                nal::PREFIX_SEI | nal::SUFFIX_SEI => keep_sei,
                // Delimiters, ends, filler, and numbers that mean something else in RTP.
                kind => kind <= nal::LAST_VCL,
            };
            if wanted {
                has_slices |= nal_type(unit) <= nal::LAST_VCL;
                push_unit(sink, unit)?;
            }
        }
        if !has_slices {
            sink.clear();
            if units.is_malformed() {
                return Err(PacketizeError::Malformed(Codec::H265));
            }
        }
        Ok(is_keyframe)
    }

    /// The parsed record of the track, `None` if it has none.
    fn config(&mut self, config: &Arc<TrackConfig>) -> Result<Option<&HevcConfig>, PacketizeError> {
        if config.record.is_empty() {
            return Ok(None);
        }
        if self.track.as_ref().is_none_or(|(known, _)| !Arc::ptr_eq(known, config)) {
            self.track = None;
        }
        let (_, parsed) = self.track.get_or_insert_with(|| (Arc::clone(config), HevcConfig::parse(&config.record)));
        parsed.as_ref().map(Some).map_err(|error| PacketizeError::H265Record(*error))
    }
}

fn is_random_access(unit: &[u8]) -> bool {
    (nal::FIRST_IRAP..=nal::LAST_IRAP).contains(&nal_type(unit))
}

/// Those of the frame, and of the record where the frame has none of a kind.
fn parameter_sets<'a>(frame: impl Iterator<Item = &'a [u8]> + Clone, config: Option<&'a HevcConfig>) -> Vec<&'a [u8]> {
    let mut sets = Vec::new();
    let known = config.map_or(&[][..], |c| &c.parameter_sets);
    for kind in nal::VPS..=nal::PPS {
        let before = sets.len();
        sets.extend(frame.clone().filter(|unit| nal_type(unit) == kind).take(MAX_PARAMETER_SETS));
        if sets.len() == before {
            sets.extend(known.iter().map(AsRef::<[u8]>::as_ref).filter(|unit| nal_type(unit) == kind));
        }
    }
    sets
}

/// §4.4.2: the lowest layer and the lowest temporal layer of the units. Each of them has a whole header.
fn aggregation_header(units: &[&[u8]]) -> [u8; 2] {
    let ids = |unit: &&[u8]| u16::from_be_bytes([unit[0], unit[1]]) & 0x01ff;
    let layer = units.iter().map(|unit| ids(unit) >> 3).min().unwrap_or(0);
    let temporal = units.iter().map(|unit| ids(unit) & 7).min().unwrap_or(1);
    (u16::from(AGGREGATION) << 9 | layer << 3 | temporal).to_be_bytes()
}

fn push_unit(sink: &mut Sink<'_>, unit: &[u8]) -> Result<(), PacketizeError> {
    if unit.len() <= sink.max {
        return sink.push(&[unit]);
    }
    // §4.4.3: the type moves from the unit's header into the FU header.
    let (header, body) = unit.split_at(2);
    let kind = nal_type(unit);
    sink.push_fragments(body, |first, last| {
        [header[0] & 0x81 | FRAGMENTATION << 1, header[1], u8::from(first) << 7 | u8::from(last) << 6 | kind]
    })
}
