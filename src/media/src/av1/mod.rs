//! AV1 bitstreams as far as a server looks into them: the open bitstream units of a temporal unit.
//!
//! AV1 bitstream specification §5.3 for the header of a unit, AV1-ISOBMFF §2.3 for the configuration record.

mod sequence_header;

pub use sequence_header::{Colour, SequenceHeader};

/// Types of open bitstream units, §6.2.2.
pub mod obu {
    /// What a decoder needs before the first frame.
    pub const SEQUENCE_HEADER: u8 = 1;
    /// Stands before each temporal unit in some framings.
    pub const TEMPORAL_DELIMITER: u8 = 2;
    /// Part of a large-scale tile stream.
    pub const TILE_LIST: u8 = 8;
    /// Nothing but bytes.
    pub const PADDING: u8 = 15;
}

/// Bytes of an `AV1CodecConfigurationRecord` before its units.
const RECORD_HEADER_BYTES: usize = 4;

/// One open bitstream unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Obu<'a> {
    header: [u8; 2],
    header_bytes: u8,
    /// What follows header and size.
    pub payload: &'a [u8],
}

impl<'a> Obu<'a> {
    /// Its type, see [`obu`].
    pub fn kind(&self) -> u8 {
        self.header[0] >> 3 & 0x0f
    }

    /// Its header, changed to say that no size follows.
    pub fn header(&self) -> &[u8] {
        &self.header[..usize::from(self.header_bytes)]
    }
}

/// The units of a temporal unit. A header or size that does not fit the data ends the list and sets
/// [`Obus::is_malformed`].
pub fn obus(data: &[u8]) -> Obus<'_> {
    Obus { rest: data, is_malformed: false }
}

/// The units in a configuration record, usually one sequence header.
pub fn config_obus(record: &[u8]) -> Obus<'_> {
    obus(record.get(RECORD_HEADER_BYTES..).unwrap_or_default())
}

/// Iterator of [`obus`].
#[derive(Debug, Clone)]
pub struct Obus<'a> {
    rest: &'a [u8],
    is_malformed: bool,
}

impl<'a> Obus<'a> {
    /// Whether what has been read so far ended in something that is no unit.
    pub fn is_malformed(&self) -> bool {
        self.is_malformed
    }

    fn read(&mut self) -> Option<Obu<'a>> {
        const FORBIDDEN: u8 = 0x80;
        const HAS_EXTENSION: u8 = 0x04;
        const HAS_SIZE: u8 = 0x02;
        let (first, mut rest) = self.rest.split_first()?;
        if first & FORBIDDEN != 0 {
            return None;
        }
        let (mut header, mut header_bytes) = ([first & !HAS_SIZE, 0], 1);
        if first & HAS_EXTENSION != 0 {
            (header[1], rest) = rest.split_first().map(|(extension, rest)| (*extension, rest))?;
            header_bytes = 2;
        }
        let size = if first & HAS_SIZE == 0 { rest.len() } else { leb128(&mut rest)? };
        let (payload, rest) = rest.split_at_checked(size)?;
        self.rest = rest;
        Some(Obu { header, header_bytes, payload })
    }
}

impl<'a> Iterator for Obus<'a> {
    type Item = Obu<'a>;

    fn next(&mut self) -> Option<Obu<'a>> {
        if self.rest.is_empty() {
            return None;
        }
        let read = self.read();
        if read.is_none() {
            (self.rest, self.is_malformed) = (&[], true);
        }
        read
    }
}

/// §4.10.5; values above 32 bits are not allowed.
pub(crate) fn leb128(data: &mut &[u8]) -> Option<usize> {
    let mut value = 0_u64;
    for i in 0..8 {
        let (byte, rest) = data.split_first()?;
        *data = rest;
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return u32::try_from(value).ok().and_then(|value| usize::try_from(value).ok());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read() {
        let data = [0x12, 0, 0x0a, 2, 7, 8, 0x36, 0x48, 0x81, 0, 9, 0x30, 1, 2];
        let mut found = obus(&data);
        let units: Vec<_> = found.by_ref().map(|o| (o.kind(), o.header().to_vec(), o.payload.to_vec())).collect();
        assert_eq!(
            units,
            [
                (2, vec![0x10], vec![]),
                (1, vec![0x08], vec![7, 8]),
                (6, vec![0x34, 0x48], vec![9]),
                (6, vec![0x30], vec![1, 2]),
            ]
        );
        assert!(!found.is_malformed());
        assert_eq!(config_obus(&[0x81, 0, 0, 0, 0x0a, 1, 5]).next().map(|o| o.payload), Some(&[5][..]));
        assert_eq!(config_obus(&[0x81, 0]).next(), None);
    }

    #[test]
    fn what_is_no_unit_ends_the_list() {
        for data in
            [&[0x0a, 5, 1][..], &[0x0a], &[0x0e], &[0x80, 0], &[0x0a, 0x80], &[0x0a, 0xff, 0xff, 0xff, 0xff, 0x7f]]
        {
            let mut found = obus(data);
            assert_eq!((found.next(), found.is_malformed()), (None, true), "{data:02x?}");
        }
    }
}
