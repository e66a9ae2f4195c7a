//! What our sending half protects opens with str0m's own primitives, for every profile. Two peers only ever negotiate
//! one of them with each other, so the others would go untested end to end.

use str0m::crypto::{AeadAes128Gcm, AeadAes256Gcm, Aes128CmSha1_80, CryptoProvider, from_feature_flags};

use crate::srtp::{MasterKeys, Profile};

const SSRC: u32 = 0x1234_5678;
const HEADER: [u8; 12] = [0x80, 0xe0, 0x01, 0x02, 0, 0, 0, 9, 0x12, 0x34, 0x56, 0x78];
/// Roll-over counter 3, sequence number 0x0102.
const INDEX: u64 = 3 << 16 | 0x0102;
const PAYLOAD: &[u8] = b"a payload that is longer than one block of the cipher";

/// RFC 3711 §4.3.1 by the other side's AES.
fn derive(provider: &CryptoProvider, key: &[u8], salt: &[u8], label: u8, out: &mut [u8]) {
    let mut block = [0; 16];
    block[..salt.len()].copy_from_slice(salt);
    block[7] ^= label;
    for (i, chunk) in out.chunks_mut(16).enumerate() {
        block[15] = i as u8;
        // Both implementations want room for a block more than they fill.
        let mut stream = [0; 32];
        match key.len() {
            16 => provider.srtp_provider.srtp_aes_128_ecb_round(key, &block, &mut stream),
            _ => provider.srtp_provider.srtp_aes_256_ecb_round(key, &block, &mut stream),
        }
        chunk.copy_from_slice(&stream[..chunk.len()]);
    }
}

/// A sealed packet, and the session key, salt and authentication key that the receiver derives.
fn sealed(profile: Profile, key_bytes: usize, salt_bytes: usize) -> (Vec<u8>, Vec<u8>, Vec<u8>, [u8; 20]) {
    let material: Vec<u8> = (0..2 * (key_bytes + salt_bytes)).map(|i| (i * 7) as u8).collect();
    let (key, salt) = (&material[key_bytes..2 * key_bytes], &material[2 * key_bytes + salt_bytes..]);
    let provider = from_feature_flags();
    let (mut session_key, mut session_salt, mut auth) = (vec![0; key_bytes], vec![0; salt_bytes], [0; 20]);
    derive(&provider, key, salt, 0, &mut session_key);
    derive(&provider, key, salt, 1, &mut auth);
    derive(&provider, key, salt, 2, &mut session_salt);
    let mut packet = HEADER.to_vec();
    packet.extend_from_slice(PAYLOAD);
    let keys = MasterKeys { profile, material: material.clone(), is_client: false };
    keys.sealer().unwrap().seal_rtp(&mut packet, 0, HEADER.len(), SSRC, INDEX).unwrap();
    (packet, session_key, session_salt, auth)
}

#[test]
fn aes_128_gcm() {
    let (packet, key, salt, _) = sealed(Profile::AeadAes128Gcm, 16, 12);
    let iv = AeadAes128Gcm::rtp_iv(salt.try_into().unwrap(), SSRC, 3, 0x0102);
    let mut cipher =
        from_feature_flags().srtp_provider.aead_aes_128_gcm().create_cipher(key.try_into().unwrap(), false);
    let mut out = vec![0; packet.len()];
    let length = cipher.decrypt(&iv, &[&HEADER], &packet[12..], &mut out).unwrap();
    assert_eq!(&out[..length.min(PAYLOAD.len())], PAYLOAD);
}

#[test]
fn aes_256_gcm() {
    let (packet, key, salt, _) = sealed(Profile::AeadAes256Gcm, 32, 12);
    let iv = AeadAes256Gcm::rtp_iv(salt.try_into().unwrap(), SSRC, 3, 0x0102);
    let mut cipher =
        from_feature_flags().srtp_provider.aead_aes_256_gcm().create_cipher(key.try_into().unwrap(), false);
    let mut out = vec![0; packet.len()];
    let length = cipher.decrypt(&iv, &[&HEADER], &packet[12..], &mut out).unwrap();
    assert_eq!(&out[..length.min(PAYLOAD.len())], PAYLOAD);
}

#[test]
fn aes_128_cm_hmac_sha1_80() {
    let (packet, key, salt, auth) = sealed(Profile::Aes128CmHmacSha1_80, 16, 14);
    let provider = from_feature_flags();
    let (signed, tag) = packet.split_at(packet.len() - 10);
    let hmac = |key: &[u8], parts: &[&[u8]]| provider.sha1_hmac_provider.sha1_hmac(key, parts);
    assert!(Aes128CmSha1_80::rtp_verify(hmac, &auth, signed, INDEX, tag));
    let iv = Aes128CmSha1_80::rtp_iv(salt.try_into().unwrap(), SSRC, INDEX);
    let mut cipher = provider.srtp_provider.aes_128_cm_sha1_80().create_cipher(key.try_into().unwrap(), false);
    let mut out = vec![0; PAYLOAD.len()];
    cipher.decrypt(&iv, &signed[12..], &mut out).unwrap();
    assert_eq!(out, PAYLOAD);
}
