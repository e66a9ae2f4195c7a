//! What H.264 and H.265 have in common: units behind lengths, aggregates, units in fragments.

use std::mem::take;

use bytes::Bytes;

use super::DepacketizeError;

/// Most parameter sets that wait for their picture. Encoders write two or three, and one per resolution at most.
const MAX_WAITING_SETS: usize = 64;

/// Appends a unit behind its length.
pub(super) fn append_unit(data: &mut Vec<u8>, unit: &[u8]) {
    // Pictures are limited to far less than what four bytes count.
    data.extend_from_slice(&(unit.len() as u32).to_be_bytes());
    data.extend_from_slice(unit);
}

/// Hands out the units of an aggregate (RFC 6184 §5.7.1, RFC 7798 §4.4.2), empty ones left out.
pub(super) fn each_aggregated(
    mut rest: &[u8],
    mut take: impl FnMut(&[u8]) -> Result<(), DepacketizeError>,
) -> Result<(), DepacketizeError> {
    let truncated = DepacketizeError::Truncated("an aggregate of units");
    while !rest.is_empty() {
        let (length, tail) = rest.split_first_chunk::<2>().ok_or(truncated)?;
        let (unit, tail) = tail.split_at_checked(usize::from(u16::from_be_bytes(*length))).ok_or(truncated)?;
        rest = tail;
        if !unit.is_empty() {
            take(unit)?;
        }
    }
    Ok(())
}

/// A unit that comes in fragments (RFC 6184 §5.8, RFC 7798 §4.4.3).
#[derive(Debug, Default)]
pub(super) struct Fragments {
    unit: Vec<u8>,
    is_open: bool,
}

/// Where a fragment stands in its unit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) is_first: bool,
    pub(super) is_last: bool,
}

impl Place {
    /// From an FU header.
    pub(super) fn of(fu_header: u8) -> Place {
        Place { is_first: fu_header & 0x80 != 0, is_last: fu_header & 0x40 != 0 }
    }
}

impl Fragments {
    /// Adds a fragment. Gives the unit with the last one; it should be given back with [`Fragments::reuse`].
    pub(super) fn push(
        &mut self,
        place: Place,
        header: &[u8],
        body: &[u8],
    ) -> Result<Option<Vec<u8>>, DepacketizeError> {
        if place.is_first == self.is_open || self.is_open && !self.unit.starts_with(header) {
            return Err(DepacketizeError::Interrupted);
        }
        if place.is_first {
            self.unit.clear();
            self.unit.extend_from_slice(header);
        }
        self.unit.extend_from_slice(body);
        self.is_open = !place.is_last;
        Ok(place.is_last.then(|| take(&mut self.unit)))
    }

    /// Something else than the next fragment has come, or the end of the picture.
    pub(super) fn must_be_closed(&self) -> Result<(), DepacketizeError> {
        if self.is_open { Err(DepacketizeError::Interrupted) } else { Ok(()) }
    }

    /// Takes an allocation back.
    pub(super) fn reuse(&mut self, unit: Vec<u8>) {
        self.unit = unit;
    }

    pub(super) fn clear(&mut self) {
        self.is_open = false;
    }
}

/// The parameter sets of a track: those that came with the picture, and those that hold.
#[derive(Debug, Default)]
pub(super) struct ParameterSets {
    /// Came since the last picture. Encoders may send them as packets, or even as pictures, of their own.
    waiting: Vec<Bytes>,
    /// Make the configuration.
    known: Vec<Bytes>,
    /// The last keyframe came with parameter sets.
    come_with_keyframes: bool,
}

impl ParameterSets {
    pub(super) fn push(&mut self, unit: &[u8]) -> Result<(), DepacketizeError> {
        if self.waiting.len() >= MAX_WAITING_SETS {
            return Err(DepacketizeError::BadParameters("a picture with more than 64 parameter sets"));
        }
        self.waiting.push(Bytes::copy_from_slice(unit));
        Ok(())
    }

    pub(super) fn forget_waiting(&mut self) {
        self.waiting.clear();
    }

    /// Those that a keyframe is decoded with. Those that came with it replace all of their kind, since encoders change
    /// the number of a set with the size of the picture and never take one back.
    pub(super) fn for_keyframe(
        &mut self,
        is_after_loss: bool,
        kind: impl Fn(&[u8]) -> u8,
    ) -> Result<&[Bytes], DepacketizeError> {
        let waiting = take(&mut self.waiting);
        // They may be among what is missing, and they may have changed.
        if waiting.is_empty() && is_after_loss && self.come_with_keyframes {
            return Err(DepacketizeError::NoParameters);
        }
        self.come_with_keyframes = !waiting.is_empty();
        self.known.retain(|known| !waiting.iter().any(|new| kind(new) == kind(known)));
        for unit in waiting {
            if !self.known.contains(&unit) {
                self.known.push(unit);
            }
        }
        self.known.sort_by_key(|unit| kind(unit));
        Ok(&self.known)
    }

    /// Those that came with a picture between keyframes and are not in the configuration. They stay in the picture's
    /// data: a decoder takes them from there, while a new configuration would need a keyframe to start with.
    pub(super) fn for_other_picture(&mut self) -> Vec<Bytes> {
        let mut waiting = take(&mut self.waiting);
        waiting.retain(|unit| !self.known.contains(unit));
        waiting
    }
}
