//! AV1, the AOMedia RTP payload specification: OBU elements behind an aggregation header (§4.4).

use std::mem::take;
use std::sync::Arc;

use super::{Assembled, DepacketizeError, PayloadFormat, av1_record, updated};
use crate::av1::{Obu, leb128, obu, obus};
use crate::bits::BitReader;
use crate::{Codec, TrackConfig};

/// Types of units that carry a frame header, AV1 specification §6.2.2.
const FRAME_HEADER: u8 = 3;
const FRAME: u8 = 6;

#[derive(Debug, Default)]
pub(super) struct Av1 {
    data: Vec<u8>,
    /// An element that goes on in the next packet.
    element: Vec<u8>,
    is_open: bool,
    /// Of the temporal unit, with header and without size.
    sequence_header: Option<Vec<u8>>,
    /// Whether the first frame is a key frame that is shown.
    is_keyframe: Option<bool>,
    config: Option<Arc<TrackConfig>>,
}

impl PayloadFormat for Av1 {
    fn push(&mut self, payload: &[u8]) -> Result<(), DepacketizeError> {
        let Some((header, mut rest)) = payload.split_first() else { return Ok(()) };
        let (continues, is_continued) = (header & 0x80 != 0, header & 0x40 != 0);
        let count = usize::from(header >> 4 & 3);
        if continues != self.is_open {
            return Err(DepacketizeError::Interrupted);
        }
        let mut element = 0_usize;
        while !rest.is_empty() {
            element += 1;
            // With a count the last element has no length.
            let length = if element == count { rest.len() } else { leb128(&mut rest).ok_or(TRUNCATED)? };
            let (piece, tail) = rest.split_at_checked(length).ok_or(TRUNCATED)?;
            rest = tail;
            let is_whole = !(rest.is_empty() && is_continued);
            if self.is_open || !is_whole {
                self.element.extend_from_slice(piece);
                self.is_open = !is_whole;
                if is_whole {
                    let element = take(&mut self.element);
                    self.take_element(&element)?;
                    self.element = element;
                    self.element.clear();
                }
            } else {
                self.take_element(piece)?;
            }
        }
        Ok(())
    }

    fn finish(&mut self, is_after_loss: bool) -> Result<Option<Assembled>, DepacketizeError> {
        if self.is_open {
            return Err(DepacketizeError::Interrupted);
        }
        let Some(is_keyframe) = self.is_keyframe.take() else {
            self.data.clear();
            return Ok(None);
        };
        match self.sequence_header.take() {
            // Others than that of a keyframe repeat what is known (§7.5).
            Some(header) if is_keyframe => {
                let record = av1_record::of(&header).ok_or(DepacketizeError::BadParameters("a sequence header"))?;
                updated(&mut self.config, Codec::Av1, record);
            }
            None if is_keyframe && is_after_loss => return Err(DepacketizeError::NoParameters),
            _ => {}
        }
        let data = take(&mut self.data);
        self.data.reserve(data.len());
        let config = self.config.clone().ok_or(DepacketizeError::NoParameters)?;
        Ok(Some(Assembled { is_keyframe, config, data }))
    }

    fn clear(&mut self) {
        self.data.clear();
        self.element.clear();
        self.is_open = false;
        (self.sequence_header, self.is_keyframe) = (None, None);
    }
}

const TRUNCATED: DepacketizeError = DepacketizeError::Truncated("an OBU element");

impl Av1 {
    fn take_element(&mut self, element: &[u8]) -> Result<(), DepacketizeError> {
        // Elements should have no size of their own (§4.5), which would allow several units in one.
        let mut units = obus(element);
        for unit in units.by_ref() {
            self.take_unit(&unit);
        }
        if units.is_malformed() { Err(TRUNCATED) } else { Ok(()) }
    }

    fn take_unit(&mut self, unit: &Obu<'_>) {
        match unit.kind() {
            obu::TEMPORAL_DELIMITER | obu::TILE_LIST | obu::PADDING => return,
            obu::SEQUENCE_HEADER if self.sequence_header.is_none() => {
                self.sequence_header = Some([unit.header(), unit.payload].concat());
            }
            FRAME_HEADER | FRAME if self.is_keyframe.is_none() => self.is_keyframe = Some(shows_key_frame(unit)),
            _ => {}
        }
        append_unit(&mut self.data, unit);
    }
}

/// Appends a unit with its size.
pub(super) fn append_unit(data: &mut Vec<u8>, unit: &Obu<'_>) {
    const HAS_SIZE: u8 = 0x02;
    let at = data.len();
    data.extend_from_slice(unit.header());
    data[at] |= HAS_SIZE;
    let mut size = unit.payload.len();
    while size >= 0x80 {
        data.push(size as u8 | 0x80);
        size >>= 7;
    }
    data.push(size as u8);
    data.extend_from_slice(unit.payload);
}

/// §5.9.2: whether the header is one of a new frame of type KEY_FRAME that is shown. (Reduced headers of still pictures
/// look different, and are not sent.)
fn shows_key_frame(unit: &Obu<'_>) -> bool {
    const KEY_FRAME: u32 = 0;
    let mut bits = BitReader::new(unit.payload);
    let mut read = || Some((bits.flag()?, bits.bits(2)?, bits.flag()?));
    read().is_some_and(|(shows_existing, kind, is_shown)| !shows_existing && kind == KEY_FRAME && is_shown)
}
