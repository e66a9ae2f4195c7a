//! Doors for the fuzzers of `tests/fuzz` to parsers that are private otherwise. Only with the feature `fuzzing`.

use crate::rtcp::{self, Feedback};
use crate::vp8::{Descriptor, Offsets};
use freshet_media::depacketize::red_primary;

/// How many NACKed packets and how many other pieces of feedback a decrypted RTCP datagram holds.
pub fn rtcp_feedback(datagram: &[u8]) -> (usize, usize) {
    let (mut nacks, mut others) = (0, 0);
    rtcp::parse(datagram, |feedback| match feedback {
        Feedback::Nack { .. } => nacks += 1,
        _ => others += 1,
    });
    (nacks, others)
}

/// The primary block of a RED payload.
pub fn red_primary_block(payload: &[u8]) -> Option<&[u8]> {
    red_primary(payload)
}

/// Lets `next` follow on `last` as after a change of source. Returns the PictureID and TL0PICIDX of both afterwards.
pub fn vp8_continue(last: &[u8], next: &mut [u8]) -> Option<[(Option<u16>, Option<u8>); 2]> {
    let numbers = |d: Descriptor| (d.picture_id.map(|(_, id)| id), d.tl0_pic_idx.map(|(_, idx)| idx));
    let last = Descriptor::parse(last)?;
    Offsets::continuing(last, Descriptor::parse(next)?).patch(next);
    Some([numbers(last), numbers(Descriptor::parse(next)?)])
}
