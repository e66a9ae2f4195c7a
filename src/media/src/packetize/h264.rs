//! H.264, RFC 6184 in packetization mode 1: single units, STAP-A and FU-A.

use std::sync::Arc;

use super::{MAX_PARAMETER_SETS, PacketizeError, Sink};
use crate::h264::{AvcConfig, H264Error, nal, nal_type, units};
use crate::{Codec, Frame, TrackConfig};

const STAP_A: u8 = 24;
const FU_A: u8 = 28;
/// `nal_ref_idc`: more important units have higher values.
const IMPORTANCE: u8 = 0x60;
/// Length size of frames of a track without record, whose parameter sets are in the stream.
const USUAL_LENGTH_BYTES: u8 = 4;

#[derive(Debug)]
pub(super) struct Packetizer {
    keep_sei: bool,
    track: Option<(Arc<TrackConfig>, Result<AvcConfig, H264Error>)>,
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
        let is_keyframe = frame.is_keyframe || units.clone().any(|unit| nal_type(unit) == nal::IDR);
        if is_keyframe {
            let sets = parameter_sets(units.clone(), config);
            sink.push_aggregates(&sets, stap_header, push_unit)?;
        }
        let mut has_slices = false;
        for unit in units.by_ref() {
            let wanted = match nal_type(unit) {
                nal::SPS | nal::PPS | nal::SPS_EXTENSION => !is_keyframe,
                nal::SEI => keep_sei,
                0 | nal::AUD | nal::END_OF_SEQUENCE | nal::END_OF_STREAM | nal::FILLER => false,
                kind => kind <= nal::LAST_VALID,
            };
            if wanted {
                has_slices |= nal_type(unit) <= nal::IDR;
                push_unit(sink, unit)?;
            }
        }
        if !has_slices {
            sink.clear();
            if units.is_malformed() {
                return Err(PacketizeError::Malformed(Codec::H264));
            }
        }
        Ok(is_keyframe)
    }

    /// The parsed record of the track, `None` if it has none.
    fn config(&mut self, config: &Arc<TrackConfig>) -> Result<Option<&AvcConfig>, PacketizeError> {
        if config.record.is_empty() {
            return Ok(None);
        }
        if self.track.as_ref().is_none_or(|(known, _)| !Arc::ptr_eq(known, config)) {
            self.track = None;
        }
        let (_, parsed) = self.track.get_or_insert_with(|| (Arc::clone(config), AvcConfig::parse(&config.record)));
        parsed.as_ref().map(Some).map_err(|error| PacketizeError::H264Record(*error))
    }
}

/// Those of the frame, and of the record where the frame has none of a kind.
fn parameter_sets<'a>(frame: impl Iterator<Item = &'a [u8]> + Clone, config: Option<&'a AvcConfig>) -> Vec<&'a [u8]> {
    let mut sets = Vec::new();
    let (sps, pps) = config.map_or((&[][..], &[][..]), |c| (&c.sps, &c.pps));
    for (kind, known) in [(nal::SPS, sps), (nal::SPS_EXTENSION, &[]), (nal::PPS, pps)] {
        let before = sets.len();
        sets.extend(frame.clone().filter(|unit| nal_type(unit) == kind).take(MAX_PARAMETER_SETS));
        if sets.len() == before {
            sets.extend(known.iter().map(AsRef::<[u8]>::as_ref).filter(|unit| nal_type(unit) == kind));
        }
    }
    sets
}

/// §5.7.1: the importance of the most important unit.
fn stap_header(units: &[&[u8]]) -> [u8; 1] {
    [STAP_A | units.iter().map(|unit| unit[0] & IMPORTANCE).max().unwrap_or(IMPORTANCE)]
}

fn push_unit(sink: &mut Sink<'_>, unit: &[u8]) -> Result<(), PacketizeError> {
    if unit.len() <= sink.max {
        return sink.push(&[unit]);
    }
    // §5.8: the unit's header is spread over indicator and FU header.
    let (header, body) = (unit[0], &unit[1..]);
    sink.push_fragments(body, |first, last| {
        [header & 0xe0 | FU_A, u8::from(first) << 7 | u8::from(last) << 6 | header & 0x1f]
    })
}
