//! RTP packets inside the SFU, and how they are written for a viewer.

use std::sync::Arc;
use std::time::Instant;

/// Index of a track among the tracks of its publisher.
pub type TrackIndex = u8;

/// One packet of a publisher, decrypted once and shared by all its viewers.
#[derive(Debug, Clone)]
pub struct RtpPacket {
    /// Which track of the publisher.
    pub track: TrackIndex,
    /// Which simulcast layer of the track, 0 without simulcast.
    pub layer: u8,
    /// Index of its format among the track's formats.
    pub format: u8,
    /// The last packet of a frame (video), the first of a talk spurt (audio).
    pub marker: bool,
    /// A picture that can be decoded on its own begins here.
    pub opens_keyframe: bool,
    /// Sequence number at the publisher, roll-overs counted.
    pub seq: u64,
    /// RTP time at the publisher.
    pub timestamp: u32,
    /// When it arrived.
    pub arrival: Instant,
    /// Values of header extensions that are forwarded.
    pub extensions: Extensions,
    /// Payload without header and padding.
    pub payload: Arc<[u8]>,
}

#[cfg(test)]
impl RtpPacket {
    /// A packet of one byte on the first track.
    pub(crate) fn for_test(seq: u64, timestamp: u32, arrival: Instant) -> RtpPacket {
        RtpPacket {
            track: 0,
            layer: 0,
            format: 0,
            marker: false,
            opens_keyframe: false,
            seq,
            timestamp,
            arrival,
            extensions: Extensions::default(),
            payload: [0u8; 1].as_slice().into(),
        }
    }
}

/// Header extensions that pass from publisher to viewer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Extensions {
    /// Voice flag and level as RFC 6464 §3 puts them on the wire.
    pub audio_level: Option<u8>,
    /// 3GPP TS 26.114 §7.4.5, as on the wire.
    pub video_orientation: Option<u8>,
}

/// Ids that a viewer has given to header extensions (RFC 8285), 0 for none.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ExtensionIds {
    pub(crate) mid: u8,
    pub(crate) audio_level: u8,
    pub(crate) video_orientation: u8,
    pub(crate) playout_delay: u8,
}

/// The fields of an outgoing header that differ from packet to packet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Header<'a> {
    pub(crate) marker: bool,
    pub(crate) pt: u8,
    pub(crate) seq: u16,
    pub(crate) timestamp: u32,
    pub(crate) ssrc: u32,
    pub(crate) ids: ExtensionIds,
    pub(crate) mid: &'a [u8],
    pub(crate) extensions: Extensions,
    /// Minimum and maximum as on the wire, 24 bits.
    pub(crate) playout_delay: Option<u32>,
}

/// Most padding that a packet is given; encoders' pieces of a frame differ by a byte or two.
const MAX_PADDING: usize = 16;

/// Yields for each packet of a batch how many bytes of padding (RFC 3550 §5.1) make it as long as its neighbours of
/// the same track. Browsers cut a frame into pieces that differ by a byte, and only equal ones leave in one message.
pub(crate) fn equalise(packets: &[RtpPacket], padding: &mut Vec<u8>) {
    padding.clear();
    padding.resize(packets.len(), 0);
    let missing = |have: usize, want: usize| want.checked_sub(have).filter(|n| (1..=MAX_PADDING).contains(n));
    let mut next: Option<(TrackIndex, usize)> = None;
    for (packet, padding) in packets.iter().zip(padding.iter_mut()).rev() {
        let mut bytes = packet.payload.len();
        if let Some((_, longer)) = next.filter(|(track, _)| *track == packet.track && bytes > 0)
            && let Some(n) = missing(bytes, longer)
        {
            *padding = n as u8;
            bytes = longer;
        }
        next = Some((packet.track, bytes));
    }
}

/// Appends an RTP header (RFC 3550 §5.1) with one-byte extensions and returns its length.
pub(crate) fn write_header(out: &mut Vec<u8>, h: &Header<'_>) -> usize {
    let start = out.len();
    let [s0, s1] = h.seq.to_be_bytes();
    out.extend_from_slice(&[0x80, u8::from(h.marker) << 7 | h.pt, s0, s1]);
    out.extend_from_slice(&h.timestamp.to_be_bytes());
    out.extend_from_slice(&h.ssrc.to_be_bytes());
    let words_at = out.len() + 2;
    out.extend_from_slice(&[0xbe, 0xde, 0, 0]);
    let body = out.len();
    if h.ids.mid != 0 && !h.mid.is_empty() {
        out.push(h.ids.mid << 4 | (h.mid.len() as u8 - 1));
        out.extend_from_slice(h.mid);
    }
    for (id, value) in
        [(h.ids.audio_level, h.extensions.audio_level), (h.ids.video_orientation, h.extensions.video_orientation)]
    {
        if let (1.., Some(value)) = (id, value) {
            out.extend_from_slice(&[id << 4, value]);
        }
    }
    if let (1.., Some(value)) = (h.ids.playout_delay, h.playout_delay) {
        let [_, a, b, c] = value.to_be_bytes();
        out.extend_from_slice(&[h.ids.playout_delay << 4 | 2, a, b, c]);
    }
    if out.len() == body {
        out.truncate(body - 4);
        return out.len() - start;
    }
    while !(out.len() - body).is_multiple_of(4) {
        out.push(0);
    }
    let words = ((out.len() - body) / 4) as u16;
    out[words_at..words_at + 2].copy_from_slice(&words.to_be_bytes());
    out[start] |= 0x10;
    out.len() - start
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_without_extensions_has_twelve_bytes() {
        let mut out = vec![1, 2, 3];
        let h = Header {
            marker: true,
            pt: 96,
            seq: 0x0102,
            timestamp: 0x0304_0506,
            ssrc: 0x0708_090a,
            ids: ExtensionIds::default(),
            mid: b"",
            extensions: Extensions::default(),
            playout_delay: Some(5),
        };
        assert_eq!(write_header(&mut out, &h), 12);
        assert_eq!(out[3..], [0x80, 0xe0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    }

    #[test]
    fn extensions_are_padded_to_words() {
        let mut out = Vec::new();
        let h = Header {
            marker: false,
            pt: 111,
            seq: 0,
            timestamp: 0,
            ssrc: 0,
            ids: ExtensionIds { mid: 4, audio_level: 1, video_orientation: 0, playout_delay: 0 },
            mid: b"0",
            extensions: Extensions { audio_level: Some(0x85), video_orientation: Some(1) },
            playout_delay: None,
        };
        assert_eq!(write_header(&mut out, &h), 20);
        assert_eq!(out[12..], [0xbe, 0xde, 0, 1, 0x40, b'0', 0x10, 0x85]);
        assert_eq!(out[0], 0x90);
    }

    #[test]
    fn pieces_of_a_frame_become_equal() {
        let now = Instant::now();
        let packet = |(track, bytes): (TrackIndex, usize)| RtpPacket {
            track,
            payload: vec![0; bytes].into(),
            ..RtpPacket::for_test(0, 0, now)
        };
        let padded = |sizes: &[(TrackIndex, usize)]| {
            let mut padding = vec![9; 20];
            equalise(&sizes.iter().copied().map(packet).collect::<Vec<_>>(), &mut padding);
            padding
        };
        assert_eq!(padded(&[(0, 1041), (0, 1041), (0, 1042), (0, 1042)]), [1, 1, 0, 0]);
        assert_eq!(padded(&[(0, 1000), (0, 1000), (0, 300)]), [0, 0, 0]);
        assert_eq!(padded(&[(0, 300), (0, 1000), (1, 1001), (0, 1001)]), [0, 0, 0, 0]);
        assert_eq!(padded(&[(0, 0), (0, 2), (0, 0)]), [0, 0, 0]);
    }
}
