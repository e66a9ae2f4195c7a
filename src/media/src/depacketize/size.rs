//! The size of the picture, read off the packet that opens a keyframe.

use super::nal::each_aggregated;
use super::{vp8, vp9};
use crate::av1::{SequenceHeader, leb128, obu, obus};
use crate::h264::{self, Sps};
use crate::vpx::VpxHeader;
use crate::{Codec, h265};

/// Width and height of the picture, if the payload has the parameters that tell them: it looks at a packet for which
/// [`crate::opens_keyframe`] holds. The first spatial layer counts.
pub fn picture_size(codec: Codec, payload: &[u8]) -> Option<(u32, u32)> {
    match codec {
        Codec::H264 => {
            let sps = |unit: &[u8]| Sps::parse(unit).ok().map(|sps| (sps.width, sps.height));
            first_unit(
                payload,
                payload.first()? & 0x1f == STAP_A,
                1,
                |unit| h264::nal_type(unit) == h264::nal::SPS,
                sps,
            )
        }
        Codec::H265 => {
            let sps = |unit: &[u8]| h265::Sps::parse(unit).map(|sps| (sps.width, sps.height));
            let is_aggregate = h265::nal_type(payload) == AGGREGATION;
            first_unit(payload, is_aggregate, 2, |unit| h265::nal_type(unit) == h265::nal::SPS, sps)
        }
        Codec::Vp8 => VpxHeader::of_vp8(vp8::split(payload)?.1).map(|header| (header.width, header.height)),
        Codec::Vp9 => VpxHeader::of_vp9(vp9::split(payload)?.1).map(|header| (header.width, header.height)),
        Codec::Av1 => av1(payload),
        Codec::Opus | Codec::Pcmu | Codec::Pcma | Codec::Red | Codec::Aac | Codec::Mp3 => None,
    }
}

/// RFC 6184 §5.7.1.
const STAP_A: u8 = 24;
/// RFC 7798 §4.4.2.
const AGGREGATION: u8 = 48;

/// What `read` makes of the first unit that is `wanted`: the payload itself, or one of those in it behind a header.
fn first_unit(
    payload: &[u8],
    is_aggregate: bool,
    header_bytes: usize,
    wanted: impl Fn(&[u8]) -> bool,
    read: impl Fn(&[u8]) -> Option<(u32, u32)>,
) -> Option<(u32, u32)> {
    if !is_aggregate {
        return if wanted(payload) { read(payload) } else { None };
    }
    let mut found = None;
    // What is broken behind it does not matter.
    let _ = each_aggregated(payload.get(header_bytes..)?, |unit| {
        if found.is_none() && wanted(unit) {
            found = read(unit);
        }
        Ok(())
    });
    found
}

/// The sequence header is among the first elements, and never in pieces.
fn av1(payload: &[u8]) -> Option<(u32, u32)> {
    let (header, mut rest) = payload.split_first()?;
    let count = usize::from(header >> 4 & 3);
    let mut element = 0_usize;
    while !rest.is_empty() {
        element += 1;
        let length = if element == count { rest.len() } else { leb128(&mut rest)? };
        let (piece, tail) = rest.split_at_checked(length)?;
        rest = tail;
        let header = obus(piece).find(|unit| unit.kind() == obu::SEQUENCE_HEADER);
        if let Some(header) = header.and_then(|unit| SequenceHeader::parse(unit.payload)) {
            return Some((header.width, header.height));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::packetize::{Packetizer, PacketizerOptions};
    use crate::testing::hex;
    use crate::{Frame, MediaTime, TrackConfig, opens_keyframe};

    /// Real records, packetised in front of a keyframe.
    #[test]
    fn sizes_are_read_from_packets() {
        let avc = "014d400dffe10019674d400dd901419f9f0110000003001000000303c0f142a48001000568ebc3cb20";
        let (hevc, av1) = (include_str!("../../tests/data/hvcc.hex"), include_str!("../../tests/data/av1c.hex"));
        for (codec, records, data, size) in [
            (Codec::H264, avc, "000000026588", (320, 180)),
            (Codec::H265, hevc, "00000003260188", (320, 180)),
            (Codec::Av1, av1, "320110", (320, 180)),
        ] {
            for line in records.lines() {
                let config = Arc::new(TrackConfig { codec, record: hex(line).into() });
                let (at, mut packets) = (MediaTime::default(), Vec::new());
                let frame = Frame { config, dts: at, pts: at, is_keyframe: true, data: hex(data).into() };
                let mut packetizer = Packetizer::new(codec, PacketizerOptions::default()).unwrap();
                packetizer.packetize(&frame, &mut packets).unwrap();
                let opening = packets.iter().find(|packet| opens_keyframe(codec, &packet.payload)).unwrap();
                assert_eq!(picture_size(codec, &opening.payload), Some(size), "{codec}");
                for length in 0..opening.payload.len() {
                    let _ = picture_size(codec, &opening.payload[..length]);
                }
            }
        }
        // A descriptor with a picture number of 15 bits; the header of a keyframe of 640x480.
        let vp8 = hex("908080011000009d012a8002e001");
        assert_eq!(picture_size(Codec::Vp8, &vp8), Some((640, 480)));
        assert_eq!(picture_size(Codec::Vp8, &vp8[..12]), None);
        assert_eq!(picture_size(Codec::Opus, &[1, 2]), None);
    }
}
