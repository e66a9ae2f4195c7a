//! SRTP and SRTCP of the sending half (RFC 3711, RFC 7714), with key schedules made once per session.
//!
//! # Why a nonce cannot repeat
//! Under one key the nonce (GCM) or the counter block (CM) is a function of the kind of packet, the SSRC and the
//! packet's index, so it is enough that nobody protects two different packets under one (kind, SSRC, index):
//! - A viewer's peer connection is given no media, so it never writes RTP or RTCP; the session drops anything but
//!   STUN and DTLS that would come out of it. [`Sealer`] is the only writer under the key, and is not `Clone`.
//! - A publisher's peer connection writes RTCP. What we write beside it has an SSRC of its own, and SRTCP indices that
//!   begin where the peer connection's never come ([`crate::repair`]).
//! - RTP: each SSRC belongs to one record. Media indices are handed out by its rewriter, one per source packet;
//!   RTX uses an SSRC of its own with a counter. A plain retransmission re-creates the very same bytes.
//! - SRTCP: one 31-bit index for all SSRCs of the session, counted here. RTP and RTCP use different derived keys.
//!
//! Debug builds remember every (SSRC, index) with a digest of the plain bytes and panic on a second, different use.

mod rtp;

use aws_lc_rs::aead::{self, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{AES_128, AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hmac;
use aws_lc_rs::iv::FixedLength;

pub(crate) use rtp::RtpOpener;

/// RFC 3711 §4.2: the 80-bit tag of `AES_CM_128_HMAC_SHA1_80`.
const HMAC_TAG_BYTES: usize = 10;
const GCM_TAG_BYTES: usize = 16;
const RTCP_HEADER_BYTES: usize = 8;
/// RFC 3711 §9.2: an SRTCP key may protect 2³¹ packets.
const MAX_SRTCP_INDEX: u32 = (1 << 31) - 1;

/// A protection profile of RFC 5764 §4.1.2 and RFC 7714 §14.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub(crate) enum Profile {
    Aes128CmHmacSha1_80,
    AeadAes128Gcm,
    AeadAes256Gcm,
}

impl Profile {
    fn key_bytes(self) -> usize {
        if self == Profile::AeadAes256Gcm { 32 } else { 16 }
    }

    fn salt_bytes(self) -> usize {
        if self == Profile::Aes128CmHmacSha1_80 { 14 } else { 12 }
    }
}

/// Master keys and salts of both directions, as DTLS exported them (RFC 5764 §4.2).
#[derive(Clone)]
pub(crate) struct MasterKeys {
    /// The negotiated profile.
    pub(crate) profile: Profile,
    /// client key | server key | client salt | server salt.
    pub(crate) material: Vec<u8>,
    /// Whether we were the DTLS client.
    pub(crate) is_client: bool,
}

impl std::fmt::Debug for MasterKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MasterKeys").field("profile", &self.profile).finish_non_exhaustive()
    }
}

/// The material was too short for its profile, or the cryptographic library refused it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("SRTP keying material cannot be used")]
pub(crate) struct BadKeys;

impl From<Unspecified> for BadKeys {
    fn from(_: Unspecified) -> BadKeys {
        BadKeys
    }
}

impl MasterKeys {
    fn direction(&self, of_client: bool) -> Result<(&[u8], [u8; 14]), BadKeys> {
        let (key_bytes, salt_bytes) = (self.profile.key_bytes(), self.profile.salt_bytes());
        let key_start = if of_client { 0 } else { key_bytes };
        let salt_start = 2 * key_bytes + if of_client { 0 } else { salt_bytes };
        let key = self.material.get(key_start..key_start + key_bytes).ok_or(BadKeys)?;
        let salt = self.material.get(salt_start..salt_start + salt_bytes).ok_or(BadKeys)?;
        let mut padded = [0; 14];
        padded[..salt_bytes].copy_from_slice(salt);
        Ok((key, padded))
    }

    /// What protects the packets that we send.
    ///
    /// # Errors
    /// Material that does not fit the profile.
    pub(crate) fn sealer(&self) -> Result<Sealer, BadKeys> {
        let (key, salt) = self.direction(self.is_client)?;
        Ok(Sealer {
            rtp: Cipher::derive(self.profile, key, &salt, 0)?,
            rtcp: Cipher::derive(self.profile, key, &salt, 3)?,
            next_rtcp_index: 1,
            #[cfg(debug_assertions)]
            used: NonceLedger::default(),
        })
    }

    /// What opens the RTCP that the peer sends.
    ///
    /// # Errors
    /// Material that does not fit the profile.
    pub(crate) fn rtcp_opener(&self) -> Result<RtcpOpener, BadKeys> {
        let (key, salt) = self.direction(!self.is_client)?;
        Ok(RtcpOpener { rtcp: Cipher::derive(self.profile, key, &salt, 3)?, windows: Vec::new() })
    }
}

/// Session keys for RTP or for RTCP of one direction.
enum Cipher {
    Gcm { key: Box<LessSafeKey>, salt: [u8; 12] },
    Cm { keys: Box<(EncryptingKey, hmac::Key)>, salt: [u8; 14] },
}

impl Cipher {
    /// Derives session keys (RFC 3711 §4.3.1); `label` is 0 for RTP and 3 for RTCP, authentication and salt follow it.
    fn derive(profile: Profile, master_key: &[u8], master_salt: &[u8; 14], label: u8) -> Result<Cipher, BadKeys> {
        let mut key = [0; 32];
        let key = &mut key[..profile.key_bytes()];
        derive(master_key, master_salt, label, key)?;
        let mut salt = [0; 14];
        derive(master_key, master_salt, label + 2, &mut salt[..profile.salt_bytes()])?;
        Ok(match profile {
            Profile::Aes128CmHmacSha1_80 => {
                let mut auth = [0; 20];
                derive(master_key, master_salt, label + 1, &mut auth)?;
                let key = EncryptingKey::ctr(UnboundCipherKey::new(&AES_128, key)?)?;
                let auth = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &auth);
                Cipher::Cm { keys: Box::new((key, auth)), salt }
            }
            Profile::AeadAes128Gcm | Profile::AeadAes256Gcm => {
                let algorithm = if key.len() == 32 { &aead::AES_256_GCM } else { &aead::AES_128_GCM };
                let mut short = [0; 12];
                short.copy_from_slice(&salt[..12]);
                Cipher::Gcm { key: Box::new(LessSafeKey::new(UnboundKey::new(algorithm, key)?)), salt: short }
            }
        })
    }
}

fn derive(master_key: &[u8], master_salt: &[u8; 14], label: u8, out: &mut [u8]) -> Result<(), BadKeys> {
    let mut block = [0; 16];
    block[..14].copy_from_slice(master_salt);
    block[7] ^= label;
    let algorithm = if master_key.len() == 32 { &AES_256 } else { &AES_128 };
    out.fill(0);
    counter_mode(&EncryptingKey::ctr(UnboundCipherKey::new(algorithm, master_key)?)?, &block, out)
}

fn counter_mode(key: &EncryptingKey, block: &[u8; 16], data: &mut [u8]) -> Result<(), BadKeys> {
    key.less_safe_encrypt(data, EncryptionContext::Iv128(FixedLength::from(block)))?;
    Ok(())
}

/// RFC 7714 §8.1: 00 00 | SSRC | 48-bit index, over the salt. For RTCP (§9.1) the index has 31 bits.
fn gcm_nonce(salt: &[u8; 12], ssrc: u32, index: u64) -> Nonce {
    let mut nonce = *salt;
    xor(&mut nonce[2..6], &ssrc.to_be_bytes());
    xor(&mut nonce[6..12], &index.to_be_bytes()[2..]);
    Nonce::assume_unique_for_key(nonce)
}

/// RFC 3711 §4.1.1: (salt · 2¹⁶) ⊕ (SSRC · 2⁶⁴) ⊕ (index · 2¹⁶).
fn cm_block(salt: &[u8; 14], ssrc: u32, index: u64) -> [u8; 16] {
    let mut block = [0; 16];
    block[..14].copy_from_slice(salt);
    xor(&mut block[4..8], &ssrc.to_be_bytes());
    xor(&mut block[8..14], &index.to_be_bytes()[2..]);
    block
}

fn xor(into: &mut [u8], with: &[u8]) {
    for (a, b) in into.iter_mut().zip(with) {
        *a ^= b;
    }
}

/// Protects what one session sends.
pub(crate) struct Sealer {
    rtp: Cipher,
    rtcp: Cipher,
    next_rtcp_index: u32,
    #[cfg(debug_assertions)]
    used: NonceLedger,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer").field("next_rtcp_index", &self.next_rtcp_index).finish_non_exhaustive()
    }
}

impl Sealer {
    /// Protects the RTP packet that begins at `start` of `buffer` and reaches to its end. `header_bytes` counts the
    /// fixed header with CSRCs and extensions; `index` is roll-over counter · 2¹⁶ + sequence number.
    ///
    /// # Errors
    /// The library refused, which does not happen for packets of RTP's size; the packet must not be sent then.
    #[cfg_attr(
        not(debug_assertions),
        expect(
            clippy::needless_pass_by_ref_mut,
            reason = "one writer at a time is the point; debug builds write the ledger"
        )
    )]
    pub(crate) fn seal_rtp(
        &mut self,
        buffer: &mut Vec<u8>,
        start: usize,
        header_bytes: usize,
        ssrc: u32,
        index: u64,
    ) -> Result<(), BadKeys> {
        #[cfg(debug_assertions)]
        self.used.check(ssrc, index, &buffer[start..]);
        match &self.rtp {
            Cipher::Gcm { key, salt } => {
                let (header, payload) = buffer[start..].split_at_mut(header_bytes);
                let nonce = gcm_nonce(salt, ssrc, index);
                let tag = key.seal_in_place_separate_tag(nonce, aead::Aad::from(&*header), payload)?;
                buffer.extend_from_slice(tag.as_ref());
            }
            Cipher::Cm { keys, salt } => {
                let (key, auth) = &**keys;
                counter_mode(key, &cm_block(salt, ssrc, index), &mut buffer[start + header_bytes..])?;
                let mut context = hmac::Context::with_key(auth);
                context.update(&buffer[start..]);
                // RFC 3711 §4.2: the roll-over counter is authenticated, not sent.
                context.update(&((index >> 16) as u32).to_be_bytes());
                buffer.extend_from_slice(&context.sign().as_ref()[..HMAC_TAG_BYTES]);
            }
        }
        Ok(())
    }

    /// Leaves the SRTCP indices below to another writer.
    pub(crate) fn start_rtcp_at(&mut self, index: u32) {
        self.next_rtcp_index = index;
    }

    /// Protects the compound RTCP packet that begins at `start` of `buffer` and reaches to its end.
    ///
    /// # Errors
    /// The key is used up, or the packet is shorter than a header.
    pub(crate) fn seal_rtcp(&mut self, buffer: &mut Vec<u8>, start: usize) -> Result<(), BadKeys> {
        let packet = &buffer[start..];
        let (Some(ssrc), true) = (read_u32(packet, 4), self.next_rtcp_index <= MAX_SRTCP_INDEX) else {
            return Err(BadKeys);
        };
        let index = self.next_rtcp_index;
        self.next_rtcp_index += 1;
        let trailer = (1 << 31 | index).to_be_bytes();
        match &self.rtcp {
            Cipher::Gcm { key, salt } => {
                let (header, payload) = buffer[start..].split_at_mut(RTCP_HEADER_BYTES);
                let mut aad = [0; 12];
                aad[..8].copy_from_slice(header);
                aad[8..].copy_from_slice(&trailer);
                let nonce = gcm_nonce(salt, ssrc, u64::from(index));
                let tag = key.seal_in_place_separate_tag(nonce, aead::Aad::from(aad), payload)?;
                buffer.extend_from_slice(tag.as_ref());
                buffer.extend_from_slice(&trailer);
            }
            Cipher::Cm { keys, salt } => {
                let (key, auth) = &**keys;
                let block = cm_block(salt, ssrc, u64::from(index));
                counter_mode(key, &block, &mut buffer[start + RTCP_HEADER_BYTES..])?;
                buffer.extend_from_slice(&trailer);
                let tag = hmac::sign(auth, &buffer[start..]);
                buffer.extend_from_slice(&tag.as_ref()[..HMAC_TAG_BYTES]);
            }
        }
        Ok(())
    }
}

/// SSRCs under which one peer may send RTCP.
const MAX_RTCP_SSRCS: usize = 16;

/// Opens the RTCP of one peer and refuses replays (RFC 3711 §3.3.2): each SSRC counts its own indices.
pub(crate) struct RtcpOpener {
    rtcp: Cipher,
    windows: Vec<(u32, ReplayWindow)>,
}

/// The last 64 indices of an SSRC.
#[derive(Debug, Clone, Copy, Default)]
struct ReplayWindow {
    newest: u32,
    seen: u64,
}

impl std::fmt::Debug for RtcpOpener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RtcpOpener").field("windows", &self.windows).finish_non_exhaustive()
    }
}

impl RtcpOpener {
    /// Authenticates and decrypts a datagram into `out`, which is overwritten. False: forged, replayed or not SRTCP.
    #[must_use]
    pub(crate) fn open(&mut self, datagram: &[u8], out: &mut Vec<u8>) -> bool {
        let tail = match self.rtcp {
            Cipher::Gcm { .. } => 4,
            Cipher::Cm { .. } => 4 + HMAC_TAG_BYTES,
        };
        let (Some(ssrc), Some(trailer_at)) = (read_u32(datagram, 4), datagram.len().checked_sub(tail)) else {
            return false;
        };
        let Some(trailer) = read_u32(datagram, trailer_at).filter(|_| trailer_at >= RTCP_HEADER_BYTES) else {
            return false;
        };
        let index = trailer & MAX_SRTCP_INDEX;
        let known = self.windows.iter().position(|(of, _)| *of == ssrc);
        let mut window = known.map_or_else(ReplayWindow::default, |at| self.windows[at].1);
        let has_room = known.is_some() || self.windows.len() < MAX_RTCP_SSRCS;
        // Nobody in WebRTC sends clear RTCP (RFC 8834 §5); the E bit has to be set.
        if trailer >> 31 == 0 || !has_room || window.is_replay(index) {
            return false;
        }
        out.clear();
        out.extend_from_slice(&datagram[..trailer_at]);
        match &self.rtcp {
            Cipher::Gcm { key, salt } => {
                let mut aad = [0; 12];
                aad[..8].copy_from_slice(&datagram[..8]);
                aad[8..].copy_from_slice(&trailer.to_be_bytes());
                let nonce = gcm_nonce(salt, ssrc, u64::from(index));
                if key.open_in_place(nonce, aead::Aad::from(aad), &mut out[RTCP_HEADER_BYTES..]).is_err() {
                    return false;
                }
                out.truncate(trailer_at - GCM_TAG_BYTES);
            }
            Cipher::Cm { keys, salt } => {
                let (key, auth) = &**keys;
                let (signed, tag) = datagram.split_at(trailer_at + 4);
                let expected = hmac::sign(auth, signed);
                let equal =
                    aws_lc_rs::constant_time::verify_slices_are_equal(&expected.as_ref()[..HMAC_TAG_BYTES], tag);
                let block = cm_block(salt, ssrc, u64::from(index));
                if equal.is_err() || counter_mode(key, &block, &mut out[RTCP_HEADER_BYTES..]).is_err() {
                    return false;
                }
            }
        }
        window.remember(index);
        match known {
            Some(at) => self.windows[at].1 = window,
            None => self.windows.push((ssrc, window)),
        }
        true
    }
}

impl ReplayWindow {
    fn is_replay(&self, index: u32) -> bool {
        match self.newest.checked_sub(index) {
            None => false,
            Some(age) => age >= 64 || self.seen >> age & 1 == 1,
        }
    }

    fn remember(&mut self, index: u32) {
        if let Some(age) = self.newest.checked_sub(index) {
            self.seen |= 1 << age;
        } else {
            self.seen = self.seen.checked_shl(index - self.newest).unwrap_or(0) | 1;
            self.newest = index;
        }
    }
}

fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// Remembers what was protected under which index, so that tests see a reuse at once.
#[cfg(debug_assertions)]
#[derive(Default)]
struct NonceLedger {
    used: std::collections::HashMap<(u32, u64), u64>,
}

#[cfg(debug_assertions)]
impl NonceLedger {
    /// Enough for the longest simulated call; older entries give way.
    const MAX_ENTRIES: usize = 1 << 16;

    fn check(&mut self, ssrc: u32, index: u64, plain: &[u8]) {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        plain.hash(&mut hasher);
        if self.used.len() >= Self::MAX_ENTRIES {
            self.used.clear();
        }
        let digest = hasher.finish();
        let before = self.used.insert((ssrc, index), digest);
        assert!(before.is_none_or(|d| d == digest), "SRTP index {index} of SSRC {ssrc:#x} used for two packets");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(profile: Profile, is_client: bool) -> MasterKeys {
        let material = (0..2 * (profile.key_bytes() + profile.salt_bytes())).map(|i| i as u8).collect();
        MasterKeys { profile, material, is_client }
    }

    const PROFILES: [Profile; 3] = [Profile::Aes128CmHmacSha1_80, Profile::AeadAes128Gcm, Profile::AeadAes256Gcm];

    #[test]
    fn rfc_3711_key_derivation_vectors() {
        // RFC 3711 appendix B.3.
        let hex = |s: &str| -> Vec<u8> {
            (0..s.len()).step_by(2).map(|i| u8::from_str_radix(&s[i..i + 2], 16).unwrap()).collect()
        };
        let key = hex("E1F97A0D3E018BE0D64FA32C06DE4139");
        let salt: [u8; 14] = hex("0EC675AD498AFEEBB6960B3AABE6").try_into().unwrap();
        let mut out = [0; 16];
        derive(&key, &salt, 0, &mut out).unwrap();
        assert_eq!(out.to_vec(), hex("C61E7A93744F39EE10734AFE3FF7A087"));
        let mut out = [0; 14];
        derive(&key, &salt, 2, &mut out).unwrap();
        assert_eq!(out.to_vec(), hex("30CBBC08863D8C85D49DB34A9AE1"));
    }

    #[test]
    fn rtcp_opens_once_and_only_untouched() {
        for profile in PROFILES {
            let mut sealer = keys(profile, false).sealer().unwrap();
            let mut opener = keys(profile, true).rtcp_opener().unwrap();
            let plain: Vec<u8> = [0x81, 201, 0, 7, 0, 0, 0, 9].into_iter().chain(0..24).collect();
            let mut sealed = vec![0xAA; 3];
            sealed.extend_from_slice(&plain);
            sealer.seal_rtcp(&mut sealed, 3).unwrap();
            let mut out = Vec::new();
            let mut broken = sealed[3..].to_vec();
            broken[12] ^= 1;
            assert!(!opener.open(&broken, &mut out), "{profile:?} forged");
            assert!(opener.open(&sealed[3..], &mut out), "{profile:?}");
            assert_eq!(out, plain);
            assert!(!opener.open(&sealed[3..], &mut out), "{profile:?} replayed");
            for length in 0..sealed.len() - 3 {
                assert!(!opener.open(&sealed[3..3 + length], &mut out));
            }
        }
    }

    #[test]
    fn replay_window_takes_late_packets_once() {
        let mut window = ReplayWindow::default();
        for index in [5, 3, 4, 100] {
            assert!(!window.is_replay(index));
            window.remember(index);
            assert!(window.is_replay(index));
        }
        assert!(window.is_replay(36));
        assert!(!window.is_replay(37));
    }

    #[test]
    fn each_ssrc_of_a_peer_counts_for_itself() {
        let mut opener = keys(Profile::AeadAes128Gcm, true).rtcp_opener().unwrap();
        let mut opens = |ssrc: u8, index: u32| {
            let mut sealer = keys(Profile::AeadAes128Gcm, false).sealer().unwrap();
            sealer.start_rtcp_at(index);
            let mut sealed = vec![0x80, 201, 0, 1, 0, 0, 0, ssrc];
            sealer.seal_rtcp(&mut sealed, 0).unwrap();
            opener.open(&sealed, &mut Vec::new())
        };
        assert!(opens(1, 1 << 30) && opens(2, 1) && opens(2, 2) && opens(1, (1 << 30) + 1));
        assert!(!opens(2, 2) && !opens(1, 1));
        assert_eq!((3..30).filter(|ssrc| opens(*ssrc, 1)).count(), MAX_RTCP_SSRCS - 2);
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "used for two packets")]
    fn reuse_of_an_index_is_noticed() {
        let mut sealer = keys(Profile::AeadAes128Gcm, false).sealer().unwrap();
        for payload in [1, 2] {
            let mut packet = vec![0x80; 12];
            packet.push(payload);
            sealer.seal_rtp(&mut packet, 0, 12, 7, 1).unwrap();
        }
    }
}
