//! VP9, RFC 9628. The layers of a picture become one superframe (VP9 bitstream specification, Annex B).

use std::mem::take;
use std::sync::Arc;

use super::vp8::configure;
use super::{Assembled, DepacketizeError, PayloadFormat};
use crate::vpx::VpxHeader;
use crate::{Codec, TrackConfig};

/// What the index of a superframe counts at most; more spatial layers do not exist.
const MAX_LAYERS: usize = 8;

#[derive(Debug, Default)]
pub(super) struct Vp9 {
    data: Vec<u8>,
    /// Where the frame of each layer begins.
    layers: Vec<usize>,
    is_open: bool,
    config: Option<(VpxHeader, Arc<TrackConfig>)>,
}

/// What the descriptor says.
pub(super) struct Descriptor {
    begins: bool,
    ends: bool,
}

impl PayloadFormat for Vp9 {
    fn push(&mut self, payload: &[u8]) -> Result<(), DepacketizeError> {
        let (descriptor, frame) = split(payload).ok_or(DepacketizeError::Truncated("the VP9 descriptor"))?;
        if descriptor.begins == self.is_open {
            return Err(if self.is_open { DepacketizeError::Interrupted } else { DepacketizeError::NoStart });
        }
        if descriptor.begins {
            if self.layers.len() == MAX_LAYERS {
                return Err(DepacketizeError::BadParameters("a VP9 picture of more than eight layers"));
            }
            self.layers.push(self.data.len());
        }
        self.is_open = !descriptor.ends;
        self.data.extend_from_slice(frame);
        Ok(())
    }

    fn finish(&mut self, _: bool) -> Result<Option<Assembled>, DepacketizeError> {
        if self.is_open {
            return Err(DepacketizeError::Interrupted);
        }
        let (mut data, layers) = (take(&mut self.data), take(&mut self.layers));
        if data.is_empty() {
            return Ok(None);
        }
        let header = VpxHeader::of_vp9(&data);
        // The size of the picture is that of the highest layer, whose frame is none of its own that starts a stream.
        if let Some(header) = header {
            configure(&mut self.config, Codec::Vp9, header);
        }
        self.data.reserve(data.len());
        append_index(&mut data, &layers);
        let (_, config) = self.config.clone().ok_or(DepacketizeError::NoParameters)?;
        Ok(Some(Assembled { is_keyframe: header.is_some(), config, data }))
    }

    fn clear(&mut self) {
        self.data.clear();
        self.layers.clear();
        self.is_open = false;
    }
}

/// Annex B: sizes of all frames between two equal marker bytes.
fn append_index(data: &mut Vec<u8>, layers: &[usize]) {
    if layers.len() < 2 {
        return;
    }
    let ends = layers[1..].iter().copied().chain([data.len()]);
    let sizes: Vec<usize> = layers.iter().zip(ends).map(|(begin, end)| end - begin).collect();
    const BYTES_PER_SIZE: u8 = 4;
    let marker = 0xc0 | (BYTES_PER_SIZE - 1) << 3 | (sizes.len() - 1) as u8;
    data.push(marker);
    sizes.iter().for_each(|size| data.extend_from_slice(&(*size as u32).to_le_bytes()));
    data.push(marker);
}

/// §4.2: what the descriptor says, and what follows it.
pub(super) fn split(payload: &[u8]) -> Option<(Descriptor, &[u8])> {
    let (first, mut rest) = payload.split_first()?;
    let has = |bit: u8| first & bit != 0;
    let (has_picture_id, is_inter, has_layers, is_flexible) = (has(0x80), has(0x40), has(0x20), has(0x10));
    if has_picture_id {
        rest = rest.get(if rest.first()? & 0x80 != 0 { 2 } else { 1 }..)?;
    }
    if has_layers {
        rest = rest.get(if is_flexible { 1 } else { 2 }..)?;
    }
    if is_flexible && is_inter {
        const MAX_REFERENCES: usize = 3;
        let more = rest.iter().take(MAX_REFERENCES).take_while(|reference| **reference & 1 != 0).count();
        rest = rest.get((more + 1).min(MAX_REFERENCES)..)?;
    }
    if has(0x02) {
        rest = skip_scalability(rest)?;
    }
    (!rest.is_empty()).then_some((Descriptor { begins: has(0x08), ends: has(0x04) }, rest))
}

/// §4.2.1, the scalability structure.
fn skip_scalability(data: &[u8]) -> Option<&[u8]> {
    let (first, mut rest) = data.split_first()?;
    if first & 0x10 != 0 {
        rest = rest.get(usize::from((first >> 5) + 1) * 4..)?;
    }
    if first & 0x08 != 0 {
        let (pictures, tail) = rest.split_first()?;
        rest = tail;
        for _ in 0..*pictures {
            let references = rest.first()? >> 2 & 3;
            rest = rest.get(1 + usize::from(references)..)?;
        }
    }
    Some(rest)
}
