//! Encrypted segments: AES-128 in CBC mode with PKCS#7 padding (RFC 8216 §4.3.2.4, §5.2).
//!
//! A key serves a few segments and is named by the number of the first. Keys are made of one secret and that number, so
//! none has to be kept. A segment's number is its initialisation vector, which is what playlists without an `IV` mean.
//!
//! It keeps segments that lie on a cache or a disk from those who have no key; who may have the key is the server's to
//! decide. Sample encryption and DRM are not here.

use aws_lc_rs::cipher::{AES_128, EncryptionContext, PaddedBlockEncryptingKey, UnboundCipherKey};
use aws_lc_rs::hmac;
use aws_lc_rs::iv::FixedLength;
use bytes::Bytes;

/// An AES-128 key.
pub type Key = [u8; 16];

/// How the segments of one stream are encrypted.
#[derive(Clone)]
pub struct Encryption {
    secret: hmac::Key,
    segments_per_key: u64,
}

impl std::fmt::Debug for Encryption {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encryption").field("segments_per_key", &self.segments_per_key).finish_non_exhaustive()
    }
}

impl Encryption {
    /// A new key every so many segments, all made of `secret`, which must be random and of this stream alone.
    pub fn new(secret: &[u8; 32], segments_per_key: u32) -> Encryption {
        let secret = hmac::Key::new(hmac::HMAC_SHA256, secret);
        Encryption { secret, segments_per_key: u64::from(segments_per_key.max(1)) }
    }

    /// The name of the key for a segment of a stream that began with segment `first`: the number of the first segment
    /// that has it.
    pub(super) fn key_name(&self, sequence: u64, first: u64) -> u64 {
        sequence - sequence.saturating_sub(first) % self.segments_per_key
    }

    /// The key of that name.
    pub(super) fn key(&self, name: u64) -> Key {
        let tag = hmac::sign(&self.secret, &name.to_be_bytes());
        // A tag of SHA-256 is longer than the key.
        tag.as_ref().first_chunk().copied().unwrap_or_default()
    }

    /// Encrypts a segment. [`None`]: the library cannot, which it does not say of keys of the right length.
    pub(super) fn seal(&self, data: Bytes, key_name: u64, sequence: u64) -> Option<Bytes> {
        let key = UnboundCipherKey::new(&AES_128, &self.key(key_name)).ok()?;
        let key = PaddedBlockEncryptingKey::cbc_pkcs7(key).ok()?;
        let mut data = Vec::from(data);
        let vector = FixedLength::from(u128::from(sequence).to_be_bytes());
        key.less_safe_encrypt(&mut data, EncryptionContext::Iv128(vector)).ok()?;
        Some(Bytes::from(data))
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::cipher::{DecryptionContext, PaddedBlockDecryptingKey};

    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::hls::playlist::{Playlist, Segment};

    fn open(data: &[u8], key: &Key, sequence: u64) -> Vec<u8> {
        let key = PaddedBlockDecryptingKey::cbc_pkcs7(UnboundCipherKey::new(&AES_128, key).unwrap()).unwrap();
        let mut data = data.to_vec();
        let vector = FixedLength::from(u128::from(sequence).to_be_bytes());
        key.decrypt(&mut data, DecryptionContext::Iv128(vector)).unwrap().to_vec()
    }

    #[test]
    fn keys_change_every_so_many_segments_and_are_each_stream_s_own() {
        let one = Encryption::new(&[1; 32], 3);
        let names: Vec<u64> = (100..108).map(|sequence| one.key_name(sequence, 100)).collect();
        assert_eq!(names, [100, 100, 100, 103, 103, 103, 106, 106]);
        assert_ne!(one.key(100), one.key(103));
        assert_ne!(one.key(100), Encryption::new(&[2; 32], 3).key(100));
        assert_eq!(Encryption::new(&[1; 32], 0).key_name(7, 5), 7);
    }

    #[test]
    fn what_is_sealed_opens_with_key_and_number() {
        let encryption = Encryption::new(&[7; 32], 5);
        for length in [0, 1, 15, 16, 188 * 100] {
            let plain = Bytes::from(vec![0x47; length]);
            let sealed = encryption.seal(plain.clone(), 40, 42).unwrap();
            assert_eq!(sealed.len(), length / 16 * 16 + 16);
            assert_eq!(open(&sealed, &encryption.key(40), 42), plain);
        }
        assert!(!format!("{encryption:?}").contains("secret"));
    }

    #[test]
    fn playlists_name_each_key_once_and_give_it_while_it_is_needed() {
        let mut playlist = Playlist::new(Duration::from_secs(8), 70, 2);
        playlist.encrypt(Encryption::new(&[7; 32], 2));
        for _ in 0..20 {
            playlist.push(Segment {
                sequence: 0,
                duration: Duration::from_secs(2),
                starts_at: SystemTime::UNIX_EPOCH,
                is_discontinuous: false,
                is_independent: true,
                key: None,
                data: Bytes::from_static(b"clear"),
            });
        }
        let text = playlist.render("cam", "?token=x");
        let keys: Vec<&str> = text.lines().filter(|line| line.starts_with("#EXT-X-KEY")).collect();
        let expected = [86, 88].map(|name| format!("#EXT-X-KEY:METHOD=AES-128,URI=\"cam-{name}.key?token=x\""));
        assert_eq!(keys, expected);
        assert!(text.contains("#EXT-X-MEDIA-SEQUENCE:86\n") && text.contains("\ncam-89.ts?token=x\n"), "{text}");
        assert_eq!((playlist.key(78), playlist.key(87)), (None, None));
        let former = playlist.former().next().unwrap();
        assert_eq!(open(&former.data, &playlist.key(80).unwrap(), former.sequence), b"clear");
    }
}
