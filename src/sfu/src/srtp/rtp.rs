//! Opening single RTP packets of a publisher. The transport does that for all that come in time; this is for those that
//! it no longer takes (see [`crate::repair`]).

use aws_lc_rs::{aead, constant_time, hmac};

use super::{BadKeys, Cipher, GCM_TAG_BYTES, HMAC_TAG_BYTES, MasterKeys, cm_block, counter_mode, gcm_nonce};

/// Opens RTP packets of one peer. It does not refuse replays: whoever uses it knows what is missing.
pub(crate) struct RtpOpener {
    rtp: Cipher,
}

impl std::fmt::Debug for RtpOpener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RtpOpener").finish_non_exhaustive()
    }
}

impl MasterKeys {
    /// What opens the RTP that the peer sends.
    ///
    /// # Errors
    /// Material that does not fit the profile.
    pub(crate) fn rtp_opener(&self) -> Result<RtpOpener, BadKeys> {
        let (key, salt) = self.direction(!self.is_client)?;
        Ok(RtpOpener { rtp: Cipher::derive(self.profile, key, &salt, 0)? })
    }
}

impl RtpOpener {
    /// Authenticates a packet and decrypts its payload, padding included, into `out`, which is overwritten.
    /// `header_bytes` counts the fixed header with CSRCs and extensions; `index` is roll-over counter · 2¹⁶ + sequence
    /// number. False: forged, or of another index.
    #[must_use]
    pub(crate) fn open(&self, datagram: &[u8], header_bytes: usize, ssrc: u32, index: u64, out: &mut Vec<u8>) -> bool {
        let Some((header, sealed)) = datagram.split_at_checked(header_bytes) else { return false };
        out.clear();
        match &self.rtp {
            Cipher::Gcm { key, salt } => {
                out.extend_from_slice(sealed);
                let nonce = gcm_nonce(salt, ssrc, index);
                if key.open_in_place(nonce, aead::Aad::from(header), out).is_err() {
                    return false;
                }
                out.truncate(sealed.len().saturating_sub(GCM_TAG_BYTES));
            }
            Cipher::Cm { keys, salt } => {
                let (key, auth) = &**keys;
                let Some(tag_at) = sealed.len().checked_sub(HMAC_TAG_BYTES) else { return false };
                let (body, tag) = sealed.split_at(tag_at);
                let mut context = hmac::Context::with_key(auth);
                context.update(header);
                context.update(body);
                context.update(&((index >> 16) as u32).to_be_bytes());
                let expected = context.sign();
                let equal = constant_time::verify_slices_are_equal(&expected.as_ref()[..HMAC_TAG_BYTES], tag);
                out.extend_from_slice(body);
                if equal.is_err() || counter_mode(key, &cm_block(salt, ssrc, index), out).is_err() {
                    return false;
                }
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::Profile;
    use super::*;

    #[test]
    fn what_a_peer_seals_opens_under_its_index_only() {
        for profile in [Profile::Aes128CmHmacSha1_80, Profile::AeadAes128Gcm, Profile::AeadAes256Gcm] {
            let material: Vec<u8> = (0..2 * (profile.key_bytes() + profile.salt_bytes())).map(|i| i as u8).collect();
            let keys = |is_client| MasterKeys { profile, material: material.clone(), is_client };
            let opener = keys(false).rtp_opener().unwrap();
            let plain = [&[0x80; 12][..], b"a payload"].concat();
            let mut sealed = plain.clone();
            keys(true).sealer().unwrap().seal_rtp(&mut sealed, 0, 12, 7, 3 << 16 | 5).unwrap();
            let mut out = vec![1; 3];
            assert!(opener.open(&sealed, 12, 7, 3 << 16 | 5, &mut out), "{profile:?}");
            assert_eq!(out, b"a payload");
            assert!(!opener.open(&sealed, 12, 7, 4 << 16 | 5, &mut out));
            for length in 0..sealed.len() {
                assert!(!opener.open(&sealed[..length], 12, 7, 3 << 16 | 5, &mut out));
            }
        }
    }
}
