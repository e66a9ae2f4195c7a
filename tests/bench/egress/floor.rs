//! What cannot be saved: one encryption and one copy of each packet, and the same send calls.

use anyhow::anyhow;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use freshet_sfu::{Path, SendBatch};

/// RTP header with one extension word or two.
const HEADER_BYTES: usize = 24;
const TAG_BYTES: usize = 16;

pub(crate) struct FloorViewer {
    key: Box<LessSafeKey>,
    index: u64,
    path: Path,
}

impl FloorViewer {
    pub(crate) fn new(number: u32, path: Path) -> anyhow::Result<FloorViewer> {
        let mut key = [7; 32];
        key[..4].copy_from_slice(&number.to_be_bytes());
        let key = UnboundKey::new(&AES_256_GCM, &key).map_err(|_| anyhow!("no AES"))?;
        Ok(FloorViewer { key: Box::new(LessSafeKey::new(key)), index: 0, path })
    }

    /// `scratch` holds header, payload and room for the tag. It is encrypted again and again: the cipher does not
    /// care, and the copy into the batch is the one that a payload needs.
    pub(crate) fn forward(&mut self, count: usize, scratch: &mut [u8], batch: &mut SendBatch) -> anyhow::Result<u64> {
        for _ in 0..count {
            let (head, rest) = scratch.split_at_mut(HEADER_BYTES);
            let tag_at = rest.len() - TAG_BYTES;
            let mut nonce = [0; 12];
            nonce[4..].copy_from_slice(&self.index.to_be_bytes());
            self.index += 1;
            let nonce = Nonce::assume_unique_for_key(nonce);
            let tag = self.key.seal_in_place_separate_tag(nonce, Aad::from(&*head), &mut rest[..tag_at]);
            rest[tag_at..].copy_from_slice(tag.map_err(|_| anyhow!("no AES"))?.as_ref());
            batch.push(self.path, scratch);
        }
        Ok(count as u64)
    }

    pub(crate) fn scratch(payload_bytes: usize) -> Vec<u8> {
        vec![0x80; HEADER_BYTES + payload_bytes + TAG_BYTES]
    }
}
