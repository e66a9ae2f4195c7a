//! The running numbers of the VP8 payload descriptor (RFC 7741 §4.2).
//!
//! Receivers order frames by PictureID and TL0PICIDX. When the source of a viewer's track changes (another simulcast
//! layer, another publisher) both have to run on; the other codecs carry nothing of the kind that plain forwarding
//! would break.

/// Where the running numbers stand in a payload, and their values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Descriptor {
    /// Offset and value of the 15-bit PictureID. The 7-bit form is not rewritten: nobody sends it in WebRTC.
    pub(crate) picture_id: Option<(usize, u16)>,
    /// Offset and value of TL0PICIDX.
    pub(crate) tl0_pic_idx: Option<(usize, u8)>,
}

impl Descriptor {
    pub(crate) fn parse(payload: &[u8]) -> Option<Descriptor> {
        let first = *payload.first()?;
        let mut d = Descriptor { picture_id: None, tl0_pic_idx: None };
        if first & 0x80 == 0 {
            return Some(d);
        }
        let extension = *payload.get(1)?;
        let mut at = 2;
        if extension & 0x80 != 0 {
            let high = *payload.get(at)?;
            if high & 0x80 == 0 {
                at += 1;
            } else {
                d.picture_id = Some((at, u16::from_be_bytes([high & 0x7f, *payload.get(at + 1)?])));
                at += 2;
            }
        }
        if extension & 0x40 != 0 {
            d.tl0_pic_idx = Some((at, *payload.get(at)?));
        }
        Some(d)
    }
}

/// What is added to the running numbers of one source.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Offsets {
    picture_id: u16,
    tl0_pic_idx: u8,
}

impl Offsets {
    /// Offsets that let `first` of a new source follow on `last` of what was sent.
    pub(crate) fn continuing(last: Descriptor, first: Descriptor) -> Offsets {
        let mut offsets = Offsets::default();
        if let (Some((_, last)), Some((_, first))) = (last.picture_id, first.picture_id) {
            offsets.picture_id = last.wrapping_add(1).wrapping_sub(first) & 0x7fff;
        }
        if let (Some((_, last)), Some((_, first))) = (last.tl0_pic_idx, first.tl0_pic_idx) {
            offsets.tl0_pic_idx = last.wrapping_add(1).wrapping_sub(first);
        }
        offsets
    }

    /// The descriptor as it is sent.
    pub(crate) fn apply(self, mut d: Descriptor) -> Descriptor {
        if let Some((_, id)) = &mut d.picture_id {
            *id = id.wrapping_add(self.picture_id) & 0x7fff;
        }
        if let Some((_, idx)) = &mut d.tl0_pic_idx {
            *idx = idx.wrapping_add(self.tl0_pic_idx);
        }
        d
    }

    /// Rewrites the numbers in a copy of the payload.
    pub(crate) fn patch(self, payload: &mut [u8]) {
        if self == Offsets::default() {
            return;
        }
        let Some(d) = Descriptor::parse(payload).map(|d| self.apply(d)) else { return };
        if let Some((at, id)) = d.picture_id {
            payload[at..at + 2].copy_from_slice(&(0x8000 | id).to_be_bytes());
        }
        if let Some((at, idx)) = d.tl0_pic_idx {
            payload[at] = idx;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_run_on_over_a_change_of_source() {
        let old = [0x90, 0xe0, 0xff, 0xff, 0xff, 0x20, 0];
        let mut new = [0x90, 0xe0, 0x80, 0x05, 0x09, 0x20, 0];
        let last = Descriptor::parse(&old).unwrap();
        assert_eq!((last.picture_id, last.tl0_pic_idx), (Some((2, 0x7fff)), Some((4, 0xff))));
        Offsets::continuing(last, Descriptor::parse(&new).unwrap()).patch(&mut new);
        assert_eq!(new, [0x90, 0xe0, 0x80, 0x00, 0x00, 0x20, 0]);
    }

    #[test]
    fn short_descriptors_are_survived() {
        for length in 0..5 {
            let mut payload = vec![0xff; length];
            Offsets { picture_id: 1, tl0_pic_idx: 1 }.patch(&mut payload);
        }
    }
}
