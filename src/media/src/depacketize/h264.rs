//! H.264, RFC 6184: single units, STAP-A and FU-A.

use std::mem::take;
use std::sync::Arc;

use bytes::Bytes;

use super::nal::{Fragments, ParameterSets, Place, append_unit, each_aggregated};
use super::{Assembled, DepacketizeError, PayloadFormat, updated};
use crate::bits::BitReader;
use crate::h264::{AvcConfig, nal, nal_type};
use crate::{Codec, TrackConfig};

const STAP_A: u8 = 24;
const FU_A: u8 = 28;
/// Prefix units and slices of scalable and multi-view extensions, Table 7-1: of no use to players of the base view.
const EXTENSIONS: [u8; 4] = [14, 15, 20, 21];

#[derive(Debug, Default)]
pub(super) struct H264 {
    data: Vec<u8>,
    fragments: Fragments,
    sets: ParameterSets,
    slices: Option<Slices>,
    config: Option<Arc<TrackConfig>>,
}

/// What is known of the slices of a picture.
#[derive(Debug)]
struct Slices {
    /// The first one is the picture's first one.
    has_start: bool,
    is_idr: bool,
    /// Number of the picture parameter set.
    pps_id: Option<u32>,
}

impl PayloadFormat for H264 {
    fn push(&mut self, payload: &[u8]) -> Result<(), DepacketizeError> {
        let kind = nal_type(payload);
        if kind == FU_A {
            let [indicator, header, body @ ..] = payload else {
                return Err(DepacketizeError::Truncated("a fragment's header"));
            };
            // §5.8: the unit's header is spread over indicator and FU header.
            let unit_header = [indicator & 0xe0 | header & 0x1f];
            if let Some(unit) = self.fragments.push(Place::of(*header), &unit_header, body)? {
                let taken = self.take_unit(&unit);
                self.fragments.reuse(unit);
                taken?;
            }
            return Ok(());
        }
        self.fragments.must_be_closed()?;
        match kind {
            STAP_A => each_aggregated(&payload[1..], |unit| self.take_unit(unit)),
            _ if kind <= nal::LAST_VALID => self.take_unit(payload),
            _ => Err(DepacketizeError::PayloadType(kind)),
        }
    }

    fn finish(&mut self, is_after_loss: bool) -> Result<Option<Assembled>, DepacketizeError> {
        self.fragments.must_be_closed()?;
        let Some(slices) = self.slices.take() else {
            // Parameter sets that were sent as a picture of their own belong to the next one.
            self.data.clear();
            return Ok(None);
        };
        if !slices.has_start {
            return Err(DepacketizeError::NoStart);
        }
        let mut data = take(&mut self.data);
        if slices.is_idr {
            self.configure(is_after_loss, slices.pps_id)?;
        } else {
            prepend(&mut data, &self.sets.for_other_picture());
        }
        self.data.reserve(data.len());
        let config = self.config.clone().ok_or(DepacketizeError::NoParameters)?;
        Ok(Some(Assembled { is_keyframe: slices.is_idr, config, data }))
    }

    fn clear(&mut self) {
        self.data.clear();
        self.fragments.clear();
        self.sets.forget_waiting();
        self.slices = None;
    }
}

impl H264 {
    fn take_unit(&mut self, unit: &[u8]) -> Result<(), DepacketizeError> {
        match nal_type(unit) {
            nal::SPS | nal::PPS => return self.sets.push(unit),
            0 | nal::AUD | nal::END_OF_SEQUENCE | nal::END_OF_STREAM | nal::FILLER | nal::SPS_EXTENSION => {
                return Ok(());
            }
            kind if EXTENSIONS.contains(&kind) || kind > nal::LAST_VALID => return Ok(()),
            kind @ nal::SLICE..=nal::IDR => {
                let slices = self.slices.get_or_insert_with(|| Slices::of(unit));
                slices.is_idr |= kind == nal::IDR;
            }
            _ => {}
        }
        append_unit(&mut self.data, unit);
        Ok(())
    }

    fn configure(&mut self, is_after_loss: bool, pps_id: Option<u32>) -> Result<(), DepacketizeError> {
        let known = self.sets.for_keyframe(is_after_loss, nal_type)?;
        let of_kind = |kind| known.iter().filter(move |unit| nal_type(unit) == kind).cloned();
        let (mut sps, pps): (Vec<Bytes>, Vec<Bytes>) = (of_kind(nal::SPS).collect(), of_kind(nal::PPS).collect());
        if sps.is_empty() || pps.is_empty() {
            return Err(DepacketizeError::NoParameters);
        }
        // Readers of the record look at the first one for profile and size. OpenH264 lists one for each size.
        let active = pps.iter().find(|unit| pps_ids(unit).is_some_and(|(id, _)| Some(id) == pps_id));
        let sps_id = active.and_then(|unit| pps_ids(unit)).map(|(_, sps_id)| sps_id);
        if let Some(at) = sps.iter().position(|unit| id_of_sps(unit).is_some_and(|id| Some(id) == sps_id)) {
            sps.swap(0, at);
        }
        let config = AvcConfig::from_parameter_sets(sps, pps);
        let config = config.map_err(|_| DepacketizeError::BadParameters("an H.264 parameter set"))?;
        updated(&mut self.config, Codec::H264, config.to_record());
        Ok(())
    }
}

impl Slices {
    /// §7.3.3: the number of the first macroblock, the type, the number of the picture parameter set.
    fn of(unit: &[u8]) -> Slices {
        let mut bits = BitReader::of_nal_unit(unit.get(1..).unwrap_or_default());
        let has_start = bits.ue() == Some(0);
        let pps_id = bits.ue().and_then(|_| bits.ue());
        Slices { has_start, is_idr: false, pps_id }
    }
}

/// §7.3.2.1.1: the number stands behind profile, constraints and level.
fn id_of_sps(unit: &[u8]) -> Option<u32> {
    let mut bits = BitReader::of_nal_unit(unit.get(1..)?);
    bits.skip(24)?;
    bits.ue()
}

/// §7.3.2.2: its number and that of its SPS.
fn pps_ids(unit: &[u8]) -> Option<(u32, u32)> {
    let mut bits = BitReader::of_nal_unit(unit.get(1..)?);
    Some((bits.ue()?, bits.ue()?))
}

/// Puts units in front of others.
pub(super) fn prepend(data: &mut Vec<u8>, units: &[Bytes]) {
    if units.is_empty() {
        return;
    }
    let mut whole = Vec::with_capacity(data.len() + units.iter().map(|unit| unit.len() + 4).sum::<usize>());
    units.iter().for_each(|unit| append_unit(&mut whole, unit));
    whole.append(data);
    *data = whole;
}
