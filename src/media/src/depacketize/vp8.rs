//! VP8, RFC 7741.

use std::mem::take;
use std::sync::Arc;

use super::{Assembled, DepacketizeError, PayloadFormat};
use crate::vpx::VpxHeader;
use crate::{Codec, TrackConfig};

#[derive(Debug, Default)]
pub(super) struct Vp8 {
    data: Vec<u8>,
    config: Option<(VpxHeader, Arc<TrackConfig>)>,
}

impl PayloadFormat for Vp8 {
    fn push(&mut self, payload: &[u8]) -> Result<(), DepacketizeError> {
        let (begins, frame) = split(payload).ok_or(DepacketizeError::Truncated("the VP8 descriptor"))?;
        if begins != self.data.is_empty() {
            return Err(if begins { DepacketizeError::Interrupted } else { DepacketizeError::NoStart });
        }
        self.data.extend_from_slice(frame);
        Ok(())
    }

    fn finish(&mut self, _: bool) -> Result<Option<Assembled>, DepacketizeError> {
        const IS_INTER: u8 = 1;
        let data = take(&mut self.data);
        let Some(first) = data.first() else { return Ok(None) };
        let is_keyframe = first & IS_INTER == 0;
        if is_keyframe {
            let header = VpxHeader::of_vp8(&data).ok_or(DepacketizeError::BadParameters("a VP8 frame header"))?;
            configure(&mut self.config, Codec::Vp8, header);
        }
        self.data.reserve(data.len());
        let (_, config) = self.config.clone().ok_or(DepacketizeError::NoParameters)?;
        Ok(Some(Assembled { is_keyframe, config, data }))
    }

    fn clear(&mut self) {
        self.data.clear();
    }
}

/// Another configuration also if only the size is another one, which the record does not tell.
pub(super) fn configure(known: &mut Option<(VpxHeader, Arc<TrackConfig>)>, codec: Codec, header: VpxHeader) {
    if known.as_ref().is_none_or(|(known, _)| *known != header) {
        *known = Some((header, Arc::new(TrackConfig { codec, record: header.to_record() })));
    }
}

/// §4.2: whether a frame begins in the payload, and what follows the descriptor.
pub(super) fn split(payload: &[u8]) -> Option<(bool, &[u8])> {
    let (first, mut rest) = payload.split_first()?;
    if first & 0x80 != 0 {
        let (extension, tail) = rest.split_first()?;
        rest = tail;
        if extension & 0x80 != 0 {
            rest = rest.get(if rest.first()? & 0x80 != 0 { 2 } else { 1 }..)?;
        }
        // TL0PICIDX, and one byte for temporal layer and key index.
        rest = rest.get(usize::from(extension & 0x40 != 0) + usize::from(extension & 0x30 != 0)..)?;
    }
    let begins = first & 0x10 != 0 && first & 0x07 == 0;
    (!rest.is_empty()).then_some((begins, rest))
}
