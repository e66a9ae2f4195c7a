//! The program association and map tables (§2.4.4.3, §2.4.4.8): what is in the stream, and where.

use super::packet::{Counter, push_section};

const PAT_PID: u16 = 0;
const PROGRAM: u16 = 1;
/// Of the only transport stream there is.
const TRANSPORT_STREAM: u16 = 1;

/// How one track is announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StreamType {
    /// `stream_type`, Table 2-34.
    pub(super) number: u8,
    /// `format_identifier` of a registration descriptor (§2.6.8), for types that older players know by it.
    pub(super) registration: Option<[u8; 4]>,
}

/// Appends the PAT.
pub(super) fn push_pat(out: &mut Vec<u8>, counter: &mut Counter, pmt_pid: u16) {
    let mut body = PROGRAM.to_be_bytes().to_vec();
    body.extend((0xe000 | pmt_pid).to_be_bytes());
    push_section(out, PAT_PID, counter, &section(0, TRANSPORT_STREAM, 0, &body));
}

/// Appends the PMT. `place`: its PID, that of the clock, its version.
pub(super) fn push_pmt(out: &mut Vec<u8>, counter: &mut Counter, place: (u16, u16, u8), streams: &[(u16, StreamType)]) {
    let (pid, clock_pid, version) = place;
    let mut body = (0xe000 | clock_pid).to_be_bytes().to_vec();
    // No descriptors of the program.
    body.extend([0xf0, 0]);
    for (pid, stream) in streams {
        body.push(stream.number);
        body.extend((0xe000 | pid).to_be_bytes());
        match stream.registration {
            Some(identifier) => {
                body.extend([0xf0, 6, 5, 4]);
                body.extend(identifier);
            }
            None => body.extend([0xf0, 0]),
        }
    }
    push_section(out, pid, counter, &section(2, PROGRAM, version, &body));
}

/// A section with its header and checksum.
fn section(table: u8, id: u16, version: u8, body: &[u8]) -> Vec<u8> {
    // What follows the length: five bytes of header, the body, four of checksum.
    let length = (5 + body.len() + 4) as u16;
    let mut section = vec![table];
    section.extend((0xb000 | length).to_be_bytes());
    section.extend(id.to_be_bytes());
    // current_next_indicator is set; the section is number 0 of 0.
    section.extend([0xc0 | version << 1 | 1, 0, 0]);
    section.extend_from_slice(body);
    let checksum = crc32(&section);
    section.extend(checksum.to_be_bytes());
    section
}

/// Annex A: polynomial 0x04c11db7, from all ones, highest bit first, not inverted.
pub(super) fn crc32(data: &[u8]) -> u32 {
    data.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte) << 24, |crc, _| crc << 1 ^ if crc >> 31 == 1 { 0x04c1_1db7 } else { 0 })
    })
}
