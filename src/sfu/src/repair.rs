//! Asking a publisher for its lost packets, and taking what comes back however late it is.
//!
//! The transport can do both, but only for the newest hundred packets of an SSRC: at 3 Mbit/s those are a third of a
//! second, and a keyframe alone is more. So the requests are ours ([`crate::nack::Nacks`] tells for what), under an SSRC
//! and an SRTCP index range of our own, so that no nonce repeats; and an answer that the transport has dropped as too old
//! is opened here. RTX: RFC 4588 §4; publishers without it send the very packet again.

use crate::rtcp;
use crate::srtp::{MasterKeys, RtpOpener, Sealer};

/// RTX streams of one publisher: one for each layer.
const MAX_RTX_SSRCS: usize = 32;
/// SRTCP indices of ours begin here; the transport's begin at 0 and never come so far.
const FIRST_RTCP_INDEX: u32 = 1 << 30;
/// Packets that one request names at most, so that it fits into a datagram.
const MAX_NAMED: usize = 240;

/// What is known of an RTP packet without its key (RFC 3550 §5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) ssrc: u32,
    pub(crate) pt: u8,
    pub(crate) seq: u16,
    pub(crate) timestamp: u32,
    pub(crate) marker: bool,
    has_padding: bool,
    bytes: usize,
}

impl Header {
    pub(crate) fn parse(datagram: &[u8]) -> Option<Header> {
        let [first, second, s0, s1, t0, t1, t2, t3, i0, i1, i2, i3] = *datagram.first_chunk::<12>()?;
        let mut bytes = 12 + 4 * usize::from(first & 0x0f);
        if first & 0x10 != 0 {
            let words = datagram.get(bytes + 2..bytes + 4)?;
            bytes += 4 + 4 * usize::from(u16::from_be_bytes([words[0], words[1]]));
        }
        Some(Header {
            ssrc: u32::from_be_bytes([i0, i1, i2, i3]),
            pt: second & 0x7f,
            seq: u16::from_be_bytes([s0, s1]),
            timestamp: u32::from_be_bytes([t0, t1, t2, t3]),
            marker: second & 0x80 != 0,
            has_padding: first & 0x20 != 0,
            bytes,
        })
    }
}

/// One publisher's requests and their answers.
#[derive(Debug)]
pub(crate) struct Repairs {
    /// Under which we ask.
    ssrc: u32,
    /// Made when first needed; `None` inside if the keys are unusable.
    ciphers: Option<Option<(Sealer, RtpOpener)>>,
    /// RTX payload types and those of the media.
    rtx: Vec<(u8, u8)>,
    /// Newest packet of each RTX stream, roll-overs counted.
    newest: Vec<(u32, u64)>,
    opened: Vec<u8>,
}

impl Repairs {
    /// `rtx`: payload types of RTX, and of what they repair.
    pub(crate) fn new(ssrc: u32, rtx: Vec<(u8, u8)>) -> Repairs {
        Repairs { ssrc, ciphers: None, rtx, newest: Vec::new(), opened: Vec::new() }
    }

    fn ciphers(&mut self, keys: &MasterKeys) -> Option<&mut (Sealer, RtpOpener)> {
        let make = || {
            let mut sealer = keys.sealer().ok()?;
            sealer.start_rtcp_at(FIRST_RTCP_INDEX);
            Some((sealer, keys.rtp_opener().ok()?))
        };
        self.ciphers.get_or_insert_with(make).as_mut()
    }

    /// The payload type that a payload type of RTX repairs.
    pub(crate) fn repaired_pt(&self, pt: u8) -> Option<u8> {
        self.rtx.iter().find(|(rtx, _)| *rtx == pt).map(|(_, media)| *media)
    }

    /// Opens a packet of RTX: the sequence number that it repairs, and the payload.
    pub(crate) fn open_rtx(&mut self, keys: &MasterKeys, header: &Header, datagram: &[u8]) -> Option<(u16, &[u8])> {
        let known = self.newest.iter().position(|(ssrc, _)| *ssrc == header.ssrc);
        let newest = known.map_or(u64::from(header.seq), |at| self.newest[at].1);
        let index = extend(newest, header.seq);
        if !self.open(keys, header, index, datagram) {
            return None;
        }
        match known {
            Some(at) => self.newest[at].1 = newest.max(index),
            None => {
                if self.newest.len() >= MAX_RTX_SSRCS {
                    self.newest.remove(0);
                }
                self.newest.push((header.ssrc, index));
            }
        }
        let (low, payload) = self.payload(header)?.split_first_chunk::<2>()?;
        Some((u16::from_be_bytes(*low), payload))
    }

    /// Opens a packet that was sent again as it was.
    pub(crate) fn open_again(
        &mut self,
        keys: &MasterKeys,
        header: &Header,
        seq: u64,
        datagram: &[u8],
    ) -> Option<&[u8]> {
        if self.open(keys, header, seq, datagram) { self.payload(header) } else { None }
    }

    fn open(&mut self, keys: &MasterKeys, header: &Header, index: u64, datagram: &[u8]) -> bool {
        let mut opened = std::mem::take(&mut self.opened);
        let is_open =
            self.ciphers(keys).is_some_and(|(_, o)| o.open(datagram, header.bytes, header.ssrc, index, &mut opened));
        self.opened = opened;
        is_open
    }

    /// What was opened last, without padding.
    fn payload(&self, header: &Header) -> Option<&[u8]> {
        let padding = if header.has_padding { usize::from(*self.opened.last()?) } else { 0 };
        self.opened.get(..self.opened.len().checked_sub(padding)?)
    }

    /// Writes the requests for packets of one SSRC, each of them a datagram. `missing` is in order.
    pub(crate) fn write_requests(
        &mut self,
        keys: &MasterKeys,
        media_ssrc: u32,
        missing: &[u16],
        mut send: impl FnMut(&[u8]),
    ) {
        let own = self.ssrc;
        let Some((sealer, _)) = self.ciphers(keys) else { return };
        let mut datagram = Vec::new();
        for named in missing.chunks(MAX_NAMED) {
            datagram.clear();
            rtcp::write_nack(&mut datagram, own, media_ssrc, named);
            if sealer.seal_rtcp(&mut datagram, 0).is_ok() {
                send(&datagram);
            }
        }
    }
}

/// The number nearest to `newest` that has those lower 16 bits; never below 0.
fn extend(newest: u64, low: u16) -> u64 {
    let step = i64::from(low.wrapping_sub(newest as u16).cast_signed());
    newest.checked_add_signed(step).unwrap_or(u64::from(low))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::srtp::Profile;

    fn keys(is_client: bool) -> MasterKeys {
        MasterKeys { profile: Profile::AeadAes128Gcm, material: (0..56).collect(), is_client }
    }

    fn sealed(sealer: &mut Sealer, header: &[u8], payload: &[u8], index: u64) -> Vec<u8> {
        let mut packet = [header, payload].concat();
        sealer.seal_rtp(&mut packet, 0, header.len(), 9, index).unwrap();
        packet
    }

    #[test]
    fn rtx_is_opened_over_a_roll_over_and_without_its_padding() {
        let mut sealer = keys(true).sealer().unwrap();
        let mut repairs = Repairs::new(1, vec![(97, 96)]);
        // The second one has a CSRC, an extension of one word and three bytes of padding.
        let plain = [0x80, 0xe1, 0xff, 0xff, 0, 0, 0, 5, 0, 0, 0, 9];
        let full = [0xb1, 0x61, 0, 1, 0, 0, 0, 6, 0, 0, 0, 9, 1, 1, 1, 1, 0xbe, 0xde, 0, 1, 0x10, 7, 0, 0];
        let first = sealed(&mut sealer, &plain, &[0x12, 0x34, 7, 8], 0xffff);
        let second = sealed(&mut sealer, &full, &[0x12, 0x35, 9, 0, 0, 3], 0x1_0001);
        for (datagram, expected) in [(&first, (0x1234, &[7, 8][..])), (&second, (0x1235, &[9]))] {
            let header = Header::parse(datagram).unwrap();
            assert_eq!(repairs.repaired_pt(header.pt), Some(96));
            assert_eq!(repairs.open_rtx(&keys(false), &header, datagram), Some(expected));
        }
        let mut forged = second.clone();
        forged[24] ^= 1;
        assert_eq!(repairs.open_rtx(&keys(false), &Header::parse(&second).unwrap(), &forged), None);
        for length in 0..second.len() {
            if let Some(header) = Header::parse(&second[..length]) {
                assert_eq!(repairs.open_rtx(&keys(false), &header, &second[..length]), None);
            }
        }
    }

    #[test]
    fn requests_name_all_that_is_missing() {
        let mut repairs = Repairs::new(5, Vec::new());
        let missing: Vec<u16> = (0..600).map(|i| (i * 3 + 65_000) as u16).collect();
        let mut opener = keys(true).rtcp_opener().unwrap();
        let (mut asked, mut plain) = (Vec::new(), Vec::new());
        repairs.write_requests(&keys(false), 9, &missing, |datagram| {
            assert!(datagram.len() < 1200 && opener.open(datagram, &mut plain));
            rtcp::parse(&plain, |feedback| match feedback {
                rtcp::Feedback::Nack { ssrc: 9, seq } => asked.push(seq),
                other => panic!("{other:?}"),
            });
        });
        assert_eq!(asked, missing);
    }
}
