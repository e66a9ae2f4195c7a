//! Where packetizers put payloads, and the two ways in which NAL units share or fill them.

use super::{MAX_PAYLOADS, PacketizeError, RtpPayload};

/// The payloads of one frame.
pub(super) struct Sink<'a> {
    out: &'a mut Vec<RtpPayload>,
    start: usize,
    scratch: &'a mut Vec<u8>,
    /// No payload is made larger.
    pub(super) max: usize,
}

impl<'a> Sink<'a> {
    pub(super) fn new(out: &'a mut Vec<RtpPayload>, scratch: &'a mut Vec<u8>, max: usize) -> Sink<'a> {
        Sink { start: out.len(), out, scratch, max }
    }

    /// Adds a payload made of parts.
    pub(super) fn push(&mut self, parts: &[&[u8]]) -> Result<(), PacketizeError> {
        self.scratch.clear();
        parts.iter().for_each(|part| self.scratch.extend_from_slice(part));
        self.flush()
    }

    /// Adds a payload that `write` appends to an empty buffer.
    pub(super) fn push_with(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Result<(), PacketizeError> {
        self.scratch.clear();
        write(self.scratch);
        self.flush()
    }

    fn flush(&mut self) -> Result<(), PacketizeError> {
        if self.out.len() - self.start >= MAX_PAYLOADS {
            return Err(PacketizeError::TooManyPackets);
        }
        let payload = self.scratch.as_slice().into();
        self.out.push(RtpPayload { payload, marker: false, opens_keyframe: false });
        Ok(())
    }

    /// Forgets the frame's payloads.
    pub(super) fn clear(&mut self) {
        self.out.truncate(self.start);
    }

    /// Cuts what follows a unit's header into equal pieces, each behind the bytes that `prefix` gives for the first
    /// and the last one.
    pub(super) fn push_fragments<const N: usize>(
        &mut self,
        body: &[u8],
        prefix: impl Fn(bool, bool) -> [u8; N],
    ) -> Result<(), PacketizeError> {
        let count = body.len().div_ceil(self.max - N).max(1);
        let piece = body.len().div_ceil(count).max(1);
        // Rounding up may make a piece superfluous.
        let last = body.len().div_ceil(piece).max(1) - 1;
        for (i, fragment) in body.chunks(piece).enumerate() {
            self.push(&[&prefix(i == 0, i == last), fragment])?;
        }
        Ok(())
    }

    /// Puts as many units as fit behind their lengths into one payload after the bytes that `head` gives for them.
    /// One that stays alone goes through `single`.
    pub(super) fn push_aggregates<const N: usize>(
        &mut self,
        mut units: &[&[u8]],
        head: impl Fn(&[&[u8]]) -> [u8; N],
        single: impl Fn(&mut Self, &[u8]) -> Result<(), PacketizeError>,
    ) -> Result<(), PacketizeError> {
        const LENGTH_BYTES: usize = 2;
        while let [first, ..] = units {
            let mut bytes = N;
            let fits = |unit: &&&[u8]| {
                bytes += LENGTH_BYTES + unit.len();
                bytes <= self.max && unit.len() <= usize::from(u16::MAX)
            };
            let count = units.iter().take_while(fits).count();
            if count <= 1 {
                single(self, first)?;
                units = &units[1..];
                continue;
            }
            let (group, rest) = units.split_at(count);
            self.push_with(|payload| {
                payload.extend(head(group));
                for unit in group {
                    payload.extend((unit.len() as u16).to_be_bytes());
                    payload.extend_from_slice(unit);
                }
            })?;
            units = rest;
        }
        Ok(())
    }
}
