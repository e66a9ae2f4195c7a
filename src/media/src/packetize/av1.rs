//! AV1, the AOMedia RTP payload specification: OBU elements behind an aggregation header (§4.4).

use super::{MAX_PAYLOADS, PacketizeError, Sink};
use crate::av1::{Obu, config_obus, obu, obus};
use crate::{Codec, Frame};

/// Most elements of a packet: with up to three the aggregation header counts them, and the last needs no length. More
/// would only help temporal units of many tiny units.
const MAX_ELEMENTS: usize = 3;
const AGGREGATION_HEADER_BYTES: usize = 1;
/// How often a smaller packet size is tried before packets are filled instead.
const SIZE_ATTEMPTS: usize = 16;

/// Tells whether the frame is a keyframe.
pub(super) fn packetize(frame: &Frame, sink: &mut Sink<'_>) -> Result<bool, PacketizeError> {
    let mut found = obus(&frame.data);
    let mut elements: Vec<Obu<'_>> = Vec::new();
    for unit in found.by_ref().filter(is_sent) {
        if elements.len() == MAX_PAYLOADS {
            return Err(PacketizeError::TooManyPackets);
        }
        elements.push(unit);
    }
    if elements.is_empty() {
        return if found.is_malformed() { Err(PacketizeError::Malformed(Codec::Av1)) } else { Ok(false) };
    }
    let is_sequence_header = |unit: &Obu<'_>| unit.kind() == obu::SEQUENCE_HEADER;
    if frame.is_keyframe && !elements.iter().any(is_sequence_header) {
        elements.splice(0..0, config_obus(&frame.config.record).filter(is_sequence_header).take(1));
    }
    let size = packet_size(&elements, sink.max);
    let mut cutter = Cutter { elements: &elements, element: 0, offset: 0 };
    let mut is_first = true;
    while let Some(packet) = cutter.next(size) {
        let starts_sequence = frame.is_keyframe && is_first;
        is_first = false;
        sink.push_with(|payload| packet.write(&elements, starts_sequence, payload))?;
    }
    Ok(frame.is_keyframe)
}

/// §5: temporal delimiters and tile lists stay out, padding helps nobody.
fn is_sent(unit: &Obu<'_>) -> bool {
    !matches!(unit.kind(), obu::TEMPORAL_DELIMITER | obu::TILE_LIST | obu::PADDING)
}

/// The smallest packet size that needs no more packets than the largest one, so that packets come out equal.
fn packet_size(elements: &[Obu<'_>], max: usize) -> usize {
    let count = |size| {
        let mut cutter = Cutter { elements, element: 0, offset: 0 };
        std::iter::from_fn(|| cutter.next(size)).count()
    };
    let needed = count(max);
    let bytes: usize = elements.iter().map(length).sum();
    // Lengths of elements come on top, which is what the attempts are for.
    let least = bytes.div_ceil(needed) + AGGREGATION_HEADER_BYTES;
    (least..max).take(SIZE_ATTEMPTS).find(|size| count(*size) == needed).unwrap_or(max)
}

fn length(unit: &Obu<'_>) -> usize {
    unit.header().len() + unit.payload.len()
}

/// Walks over the elements packet by packet.
struct Cutter<'a> {
    elements: &'a [Obu<'a>],
    element: usize,
    /// How much of it has been sent.
    offset: usize,
}

/// The pieces of elements in one packet.
#[derive(Default)]
struct Packet {
    /// Index of the first one's element.
    element: usize,
    /// Where in it the packet begins.
    offset: usize,
    lengths: [usize; MAX_ELEMENTS],
    count: usize,
    /// The last piece is continued in the next packet.
    is_continued: bool,
}

impl Cutter<'_> {
    /// The next packet of at most `size` bytes.
    fn next(&mut self, size: usize) -> Option<Packet> {
        let mut packet = Packet { element: self.element, offset: self.offset, ..Packet::default() };
        let mut room = size - AGGREGATION_HEADER_BYTES;
        while let Some(unit) = self.elements.get(self.element) {
            let rest = length(unit) - self.offset;
            let with_length = leb128_bytes(rest) + rest;
            let is_last =
                packet.count + 1 == MAX_ELEMENTS || self.element + 1 == self.elements.len() || with_length >= room;
            let piece = rest.min(room);
            packet.lengths[packet.count] = piece;
            packet.count += 1;
            if piece < rest {
                self.offset += piece;
                packet.is_continued = true;
                break;
            }
            (self.element, self.offset) = (self.element + 1, 0);
            if is_last {
                break;
            }
            room -= with_length;
        }
        (packet.count > 0).then_some(packet)
    }
}

impl Packet {
    fn write(&self, elements: &[Obu<'_>], starts_sequence: bool, payload: &mut Vec<u8>) {
        let (z, y, n) = (u8::from(self.offset > 0), u8::from(self.is_continued), u8::from(starts_sequence));
        payload.push(z << 7 | y << 6 | (self.count as u8) << 4 | n << 3);
        let mut offset = self.offset;
        for (i, (unit, piece)) in elements[self.element..].iter().zip(&self.lengths[..self.count]).enumerate() {
            if i + 1 < self.count {
                push_leb128(payload, *piece);
            }
            let header = unit.header();
            let from_header = &header[offset.min(header.len())..(offset + piece).min(header.len())];
            payload.extend_from_slice(from_header);
            let start = offset.saturating_sub(header.len());
            payload.extend_from_slice(&unit.payload[start..start + piece - from_header.len()]);
            offset = 0;
        }
    }
}

fn leb128_bytes(value: usize) -> usize {
    (usize::BITS - (value | 1).leading_zeros()).div_ceil(7) as usize
}

fn push_leb128(out: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
