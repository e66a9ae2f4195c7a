//! RTCP of the sending half: reading a viewer's feedback, writing sender reports (RFC 3550 §6, RFC 4585, RFC 5104).

/// The report of one receiver about one of our SSRCs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ReportBlock {
    /// SSRC that the block is about.
    pub(crate) ssrc: u32,
    /// Loss since the last report, in 1/256.
    pub(crate) fraction_lost: u8,
    /// Jitter in units of the RTP clock.
    pub(crate) jitter: u32,
    /// Middle 32 bits of the NTP time of the last sender report, 0 before the first.
    pub(crate) last_sr: u32,
    /// Time since that report, in 1/65536 s.
    pub(crate) delay_since_last_sr: u32,
}

/// A piece of feedback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Feedback {
    /// Of a receiver report.
    Report(ReportBlock),
    /// One lost packet (RFC 4585 §6.2.1).
    Nack {
        /// SSRC that sent the packet.
        ssrc: u32,
        /// Its sequence number.
        seq: u16,
    },
    /// A picture cannot be decoded: PLI (RFC 4585 §6.3.1) or FIR (RFC 5104 §4.3.1).
    KeyframeRequest {
        /// SSRC of the video.
        ssrc: u32,
    },
    /// The peer leaves.
    Bye,
}

/// Most NACKed packets that one datagram may ask for; the rest is ignored.
const MAX_NACKS: usize = 512;

/// Calls `each` for every piece of feedback of a decrypted compound packet. Unknown and malformed parts are passed over.
pub(crate) fn parse(mut packet: &[u8], mut each: impl FnMut(Feedback)) {
    let mut nacks = 0;
    while let Some(&[first, kind, hi, lo]) = packet.first_chunk::<4>() {
        let length = 4 * (usize::from(u16::from_be_bytes([hi, lo])) + 1);
        let Some(body) = packet.get(4..length) else { return };
        if first >> 6 != 2 {
            return;
        }
        let count = first & 0x1f;
        match (kind, count) {
            (200, _) => reports(body.get(24..).unwrap_or_default(), count, &mut each),
            (201, _) => reports(body.get(4..).unwrap_or_default(), count, &mut each),
            (203, _) => each(Feedback::Bye),
            (205, 1) => {
                let Some(ssrc) = u32_at(body, 4) else { return };
                for entry in body[8..].as_chunks::<4>().0 {
                    let pid = u16::from_be_bytes([entry[0], entry[1]]);
                    let mask = u16::from_be_bytes([entry[2], entry[3]]);
                    let lost = (0..16).filter(|bit| mask >> bit & 1 == 1).map(|bit| pid.wrapping_add(bit + 1));
                    for seq in std::iter::once(pid).chain(lost) {
                        nacks += 1;
                        if nacks > MAX_NACKS {
                            return;
                        }
                        each(Feedback::Nack { ssrc, seq });
                    }
                }
            }
            (206, 1) => {
                let Some(ssrc) = u32_at(body, 4) else { return };
                each(Feedback::KeyframeRequest { ssrc });
            }
            (206, 4) => {
                for entry in body.get(8..).unwrap_or_default().as_chunks::<8>().0 {
                    each(Feedback::KeyframeRequest {
                        ssrc: u32::from_be_bytes([entry[0], entry[1], entry[2], entry[3]]),
                    });
                }
            }
            _ => {}
        }
        packet = &packet[length..];
    }
}

fn reports(blocks: &[u8], count: u8, each: &mut impl FnMut(Feedback)) {
    for block in blocks.as_chunks::<24>().0.iter().take(usize::from(count)) {
        let word = |at| u32_at(block, at).unwrap_or(0);
        each(Feedback::Report(ReportBlock {
            ssrc: word(0),
            fraction_lost: block[4],
            jitter: word(12),
            last_sr: word(16),
            delay_since_last_sr: word(20),
        }));
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// What a sender report says (RFC 3550 §6.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SenderReport {
    /// SSRC of the track.
    pub(crate) ssrc: u32,
    /// NTP time in 32.32 fixed point.
    pub(crate) ntp: u64,
    /// RTP time at that moment.
    pub(crate) rtp: u32,
    /// Packets sent.
    pub(crate) packets: u32,
    /// Payload octets sent.
    pub(crate) octets: u32,
}

/// Appends a compound packet of a sender report and the SDES CNAME that RFC 3550 §6.1 asks for.
pub(crate) fn write_sender_report(out: &mut Vec<u8>, report: &SenderReport, cname: &str) {
    out.extend_from_slice(&[0x80, 200, 0, 6]);
    out.extend_from_slice(&report.ssrc.to_be_bytes());
    out.extend_from_slice(&report.ntp.to_be_bytes());
    for word in [report.rtp, report.packets, report.octets] {
        out.extend_from_slice(&word.to_be_bytes());
    }
    let cname = &cname.as_bytes()[..cname.len().min(255)];
    // One chunk: SSRC, the item, and at least one zero octet up to the next 32-bit boundary (RFC 3550 §6.5).
    let words = 2 + (2 + cname.len()) / 4;
    out.extend_from_slice(&[0x81, 202, 0, words as u8]);
    out.extend_from_slice(&report.ssrc.to_be_bytes());
    let end = out.len() + 4 * (words - 1);
    out.extend_from_slice(&[1, cname.len() as u8]);
    out.extend_from_slice(cname);
    out.resize(end, 0);
}

/// Appends an empty receiver report, which RFC 3550 §6.1 asks for, and a request for packets of `media` (RFC 4585
/// §6.2.1). `missing` is in order and not empty.
pub(crate) fn write_nack(out: &mut Vec<u8>, sender: u32, media: u32, missing: &[u16]) {
    out.extend_from_slice(&[0x80, 201, 0, 1]);
    out.extend_from_slice(&sender.to_be_bytes());
    let start = out.len();
    out.extend_from_slice(&[0x81, 205, 0, 0]);
    out.extend_from_slice(&sender.to_be_bytes());
    out.extend_from_slice(&media.to_be_bytes());
    let mut rest = missing;
    while let [pid, followers @ ..] = rest {
        let near = followers.iter().take_while(|seq| seq.wrapping_sub(*pid).wrapping_sub(1) < 16).count();
        let mask = followers[..near].iter().fold(0u16, |mask, seq| mask | 1 << seq.wrapping_sub(*pid).wrapping_sub(1));
        out.extend_from_slice(&pid.to_be_bytes());
        out.extend_from_slice(&mask.to_be_bytes());
        rest = &followers[near..];
    }
    let words = ((out.len() - start) / 4 - 1) as u16;
    out[start + 2..start + 4].copy_from_slice(&words.to_be_bytes());
}

/// Appends a BYE for the given SSRCs (RFC 3550 §6.6), preceded by an empty receiver report.
pub(crate) fn write_bye(out: &mut Vec<u8>, ssrcs: &[u32]) {
    let Some(first) = ssrcs.first() else { return };
    out.extend_from_slice(&[0x80, 201, 0, 1]);
    out.extend_from_slice(&first.to_be_bytes());
    let count = ssrcs.len().min(31) as u8;
    out.extend_from_slice(&[0x80 | count, 203, 0, count]);
    for ssrc in &ssrcs[..usize::from(count)] {
        out.extend_from_slice(&ssrc.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collect(packet: &[u8]) -> Vec<Feedback> {
        let mut all = Vec::new();
        parse(packet, |f| all.push(f));
        all
    }

    #[test]
    fn nack_expands_its_bit_mask() {
        let packet = [0x81, 205, 0, 3, 0, 0, 0, 1, 0, 0, 0, 9, 0xff, 0xff, 0, 0b101];
        let seqs: Vec<u16> = collect(&packet)
            .into_iter()
            .map(|f| if let Feedback::Nack { ssrc: 9, seq } = f { seq } else { panic!("{f:?}") })
            .collect();
        assert_eq!(seqs, [65535, 0, 2]);
    }

    #[test]
    fn compound_of_report_and_pli() {
        let mut packet = vec![0x81, 201, 0, 7, 0, 0, 0, 1];
        packet.extend_from_slice(&[0, 0, 0, 9, 64, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0, 5]);
        packet.extend_from_slice(&[0x81, 206, 0, 2, 0, 0, 0, 1, 0, 0, 0, 9]);
        let block = ReportBlock { ssrc: 9, fraction_lost: 64, jitter: 3, last_sr: 4, delay_since_last_sr: 5 };
        assert_eq!(collect(&packet), [Feedback::Report(block), Feedback::KeyframeRequest { ssrc: 9 }]);
    }

    #[test]
    fn every_truncation_is_survived() {
        let mut packet = Vec::new();
        let report = SenderReport { ssrc: 1, ntp: 2, rtp: 3, packets: 4, octets: 5 };
        write_sender_report(&mut packet, &report, "abc");
        packet.extend_from_slice(&[0x81, 205, 0, 3, 0, 0, 0, 1, 0, 0, 0, 9, 0, 1, 0, 0]);
        write_bye(&mut packet, &[1, 2]);
        for length in 0..packet.len() {
            let _ = collect(&packet[..length]);
        }
        assert_eq!(collect(&packet), [Feedback::Nack { ssrc: 9, seq: 1 }, Feedback::Bye]);
    }

    #[test]
    fn sdes_ends_on_a_word_with_a_zero() {
        for n in 0..20 {
            let mut packet = Vec::new();
            let report = SenderReport { ssrc: 1, ntp: 2, rtp: 3, packets: 4, octets: 5 };
            write_sender_report(&mut packet, &report, &"c".repeat(n));
            assert_eq!(packet.len() % 4, 0);
            assert_eq!(packet.len(), 28 + 4 * (usize::from(packet[31]) + 1));
            assert_eq!(packet.last(), Some(&0));
        }
    }
}
