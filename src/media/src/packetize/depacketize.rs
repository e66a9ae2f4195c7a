//! The receiving half, straight from the payload formats: what the tests take packets apart with.

/// The NAL units of H.264 payloads, RFC 6184 §5.6 to §5.8.
pub(super) fn h264(payloads: &[&[u8]]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let mut fragments: Option<Vec<u8>> = None;
    for payload in payloads {
        let kind = payload[0] & 0x1f;
        assert!(fragments.is_none() || kind == 28, "a fragmented unit is interrupted");
        match kind {
            1..=23 => found.push(payload.to_vec()),
            24 => {
                let units = aggregated(&payload[1..]);
                let importance = units.iter().map(|unit| unit[0] & 0x60).max().unwrap();
                assert_eq!(payload[0], importance | 24);
                found.extend(units);
            }
            28 => {
                let (start, end, reserved) = (payload[1] & 0x80 != 0, payload[1] & 0x40 != 0, payload[1] & 0x20);
                assert!(reserved == 0 && !(start && end), "FU header {:02x}", payload[1]);
                let header = payload[0] & 0xe0 | payload[1] & 0x1f;
                join(&mut fragments, &mut found, (start, end), &[header], &payload[2..]);
            }
            _ => panic!("packet type {kind}"),
        }
    }
    assert!(fragments.is_none(), "a fragmented unit has no end");
    found
}

/// The NAL units of H.265 payloads, RFC 7798 §4.4.
pub(super) fn h265(payloads: &[&[u8]]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let mut fragments: Option<Vec<u8>> = None;
    for payload in payloads {
        let kind = payload[0] >> 1 & 0x3f;
        assert!(fragments.is_none() || kind == 49, "a fragmented unit is interrupted");
        match kind {
            0..=47 => found.push(payload.to_vec()),
            48 => {
                let units = aggregated(&payload[2..]);
                assert!(units.iter().all(|unit| unit.len() > 2 && payload[1] & 7 <= unit[1] & 7));
                found.extend(units);
            }
            49 => {
                let (start, end, kind) = (payload[2] & 0x80 != 0, payload[2] & 0x40 != 0, payload[2] & 0x3f);
                assert!(!(start && end), "FU header {:02x}", payload[2]);
                let header = [payload[0] & 0x81 | kind << 1, payload[1]];
                join(&mut fragments, &mut found, (start, end), &header, &payload[3..]);
            }
            _ => panic!("packet type {kind}"),
        }
    }
    assert!(fragments.is_none(), "a fragmented unit has no end");
    found
}

/// The OBU elements of AV1 payloads, §4.4 of the specification.
pub(super) fn av1(payloads: &[&[u8]]) -> Vec<Vec<u8>> {
    let mut found: Vec<Vec<u8>> = Vec::new();
    let mut continued = false;
    for (i, payload) in payloads.iter().enumerate() {
        let (header, mut rest) = payload.split_first().unwrap();
        let (z, y, w, n) = (header & 0x80 != 0, header & 0x40 != 0, header >> 4 & 3, header & 8 != 0);
        assert_eq!((z, header & 7), (continued, 0), "aggregation header {header:02x}");
        assert!(!n || i == 0 && !z, "N in the middle");
        let mut count = 0;
        while !rest.is_empty() {
            count += 1;
            let length = if count == w { rest.len() } else { leb128(&mut rest) };
            let (piece, tail) = rest.split_at(length);
            assert!(!piece.is_empty());
            rest = tail;
            match found.last_mut() {
                Some(last) if count == 1 && z => last.extend(piece),
                _ => found.push(piece.to_vec()),
            }
        }
        assert!(w == 0 || count == w, "{count} elements, not {w}");
        continued = y;
    }
    assert!(!continued, "an element has no end");
    found
}

fn leb128(data: &mut &[u8]) -> usize {
    let end = data.iter().position(|byte| byte & 0x80 == 0).unwrap();
    let value = data[..=end].iter().rev().fold(0, |value, byte| value << 7 | usize::from(byte & 0x7f));
    *data = &data[end + 1..];
    value
}

fn aggregated(mut rest: &[u8]) -> Vec<Vec<u8>> {
    let mut units = Vec::new();
    while !rest.is_empty() {
        let (length, tail) = rest.split_at(2);
        let (unit, tail) = tail.split_at(usize::from(u16::from_be_bytes([length[0], length[1]])));
        units.push(unit.to_vec());
        rest = tail;
    }
    assert!(units.len() > 1, "an aggregate of one unit");
    units
}

fn join(
    fragments: &mut Option<Vec<u8>>,
    found: &mut Vec<Vec<u8>>,
    (start, end): (bool, bool),
    header: &[u8],
    body: &[u8],
) {
    assert_eq!(start, fragments.is_none(), "start bit");
    assert!(!body.is_empty(), "an empty fragment");
    let unit = fragments.get_or_insert_with(|| header.to_vec());
    assert_eq!(unit[..header.len()], *header);
    unit.extend(body);
    if end {
        found.extend(fragments.take());
    }
}
