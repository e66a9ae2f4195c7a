//! H.265, RFC 7798 without decoding order numbers: single units, aggregation packets and fragmentation units.

use std::mem::take;
use std::sync::Arc;

use super::h264::prepend;
use super::nal::{Fragments, ParameterSets, Place, append_unit, each_aggregated};
use super::{Assembled, DepacketizeError, PayloadFormat, h265_record, updated};
use crate::h265::{nal, nal_type};
use crate::{Codec, TrackConfig};

const AGGREGATION: u8 = 48;
const FRAGMENTATION: u8 = 49;
/// Delimiter, end of sequence, end of stream, filler: Table 7-1.
const DISPENSABLE: std::ops::RangeInclusive<u8> = 35..=38;

#[derive(Debug, Default)]
pub(super) struct H265 {
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
    is_irap: bool,
}

impl PayloadFormat for H265 {
    fn push(&mut self, payload: &[u8]) -> Result<(), DepacketizeError> {
        let [first, second, rest @ ..] = payload else { return Err(DepacketizeError::Truncated("a unit's header")) };
        let kind = nal_type(payload);
        if kind == FRAGMENTATION {
            let [header, body @ ..] = rest else { return Err(DepacketizeError::Truncated("a fragment's header")) };
            let unit_header = [first & 0x81 | (header & 0x3f) << 1, *second];
            if let Some(unit) = self.fragments.push(Place::of(*header), &unit_header, body)? {
                let taken = self.take_unit(&unit);
                self.fragments.reuse(unit);
                taken?;
            }
            return Ok(());
        }
        self.fragments.must_be_closed()?;
        match kind {
            AGGREGATION => each_aggregated(rest, |unit| self.take_unit(unit)),
            _ if kind < AGGREGATION => self.take_unit(payload),
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
        if slices.is_irap {
            let record = h265_record::of(self.sets.for_keyframe(is_after_loss, nal_type)?)?;
            updated(&mut self.config, Codec::H265, record);
        } else {
            prepend(&mut data, &self.sets.for_other_picture());
        }
        self.data.reserve(data.len());
        let config = self.config.clone().ok_or(DepacketizeError::NoParameters)?;
        Ok(Some(Assembled { is_keyframe: slices.is_irap, config, data }))
    }

    fn clear(&mut self) {
        self.data.clear();
        self.fragments.clear();
        self.sets.forget_waiting();
        self.slices = None;
    }
}

impl H265 {
    fn take_unit(&mut self, unit: &[u8]) -> Result<(), DepacketizeError> {
        match nal_type(unit) {
            nal::VPS..=nal::PPS => return self.sets.push(unit),
            kind if DISPENSABLE.contains(&kind) || kind >= AGGREGATION => return Ok(()),
            kind @ ..=nal::LAST_VCL => {
                // §7.3.6.1: `first_slice_segment_in_pic_flag`.
                let has_start = unit.get(2).is_some_and(|first| first & 0x80 != 0);
                let slices = self.slices.get_or_insert(Slices { has_start, is_irap: false });
                slices.is_irap |= (nal::FIRST_IRAP..=nal::LAST_IRAP).contains(&kind);
            }
            _ => {}
        }
        append_unit(&mut self.data, unit);
        Ok(())
    }
}
