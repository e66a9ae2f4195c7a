//! DTLS for all sessions of a process: one certificate, one configuration, and a look at the SRTP keys as they pass.
//!
//! str0m's stock provider builds and self-tests a configuration for every session, which costs more than the rest of
//! the set-up together, and keeps the keys to itself. Our sending half protects packets on its own and needs them.

use std::cell::RefCell;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use str0m::config::{CryptoProvider, DtlsCert, DtlsVersion};
use str0m::crypto::CryptoError;
use str0m::crypto::dtls::{DtlsImplError, DtlsInstance, DtlsOutput, DtlsProvider, ProtocolVersion, SrtpProfile};

use crate::srtp::{MasterKeys, Profile};

/// Room for IPv6 and UDP headers and a tunnel's overhead within an Ethernet frame.
const MTU: usize = 1150;

/// Who we are in DTLS: one certificate for all sessions.
#[derive(Clone)]
pub struct Identity {
    provider: Arc<CryptoProvider>,
    certificate: DtlsCert,
    fingerprint: [u8; 32],
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}

/// The cryptographic library refused to make a certificate or a configuration.
#[derive(Debug, thiserror::Error)]
#[error("DTLS cannot be set up: {0}")]
pub struct IdentityError(String);

impl Identity {
    /// Makes a self-signed certificate (ECDSA P-256) and the configuration that all sessions share.
    ///
    /// # Errors
    /// The cryptographic library failed its self-test or has no randomness.
    pub fn generate() -> Result<Identity, IdentityError> {
        let config = dimpl::Config::builder()
            // ICE has verified the peer's address before the first DTLS record is looked at.
            .use_server_cookie(false)
            .mtu(MTU)
            .build()
            .map_err(|e| IdentityError(e.to_string()))?;
        let made = dimpl::certificate::generate_self_signed_certificate().map_err(|e| IdentityError(e.to_string()))?;
        let mut provider = str0m::crypto::from_feature_flags();
        let fingerprint = provider.sha256_provider.sha256(&made.certificate);
        // The provider is a struct of references with static lifetime: one leak per identity, one identity a process.
        provider.dtls_provider = Box::leak(Box::new(SharedDtls { config: Arc::new(config) }));
        let certificate = DtlsCert { certificate: made.certificate, private_key: made.private_key };
        Ok(Identity { provider: Arc::new(provider), certificate, fingerprint })
    }

    /// SHA-256 of the certificate, for `a=fingerprint`.
    pub fn fingerprint(&self) -> &[u8; 32] {
        &self.fingerprint
    }

    pub(super) fn provider(&self) -> Arc<CryptoProvider> {
        Arc::clone(&self.provider)
    }

    pub(super) fn certificate(&self) -> DtlsCert {
        self.certificate.clone()
    }
}

/// Where a session finds its SRTP keys once the handshake is done.
pub(super) type KeySlot = Arc<OnceLock<MasterKeys>>;

thread_local! {
    /// `DtlsProvider::new_dtls` is not told for which session it works; `with_key_slot` says so around the call.
    static CURRENT_SLOT: RefCell<Option<KeySlot>> = const { RefCell::new(None) };
}

/// Runs `build`; the DTLS instance that it creates delivers its keys into `slot`.
pub(super) fn with_key_slot<T>(slot: &KeySlot, build: impl FnOnce() -> T) -> T {
    CURRENT_SLOT.with(|current| *current.borrow_mut() = Some(Arc::clone(slot)));
    let built = build();
    CURRENT_SLOT.with(|current| *current.borrow_mut() = None);
    built
}

#[derive(Debug)]
struct SharedDtls {
    config: Arc<dimpl::Config>,
}

impl DtlsProvider for SharedDtls {
    fn generate_certificate(&self) -> Option<DtlsCert> {
        // Every session is given the identity's certificate.
        None
    }

    fn new_dtls(
        &self,
        cert: &DtlsCert,
        now: Instant,
        _version: DtlsVersion,
        _mtu: Option<usize>,
    ) -> Result<Box<dyn DtlsInstance>, CryptoError> {
        let cert =
            dimpl::DtlsCertificate { certificate: cert.certificate.clone(), private_key: cert.private_key.clone() };
        let slot = CURRENT_SLOT.with(|current| current.borrow_mut().take()).unwrap_or_default();
        Ok(Box::new(Instance { dtls: dimpl::Dtls::new_12(Arc::clone(&self.config), cert, now), slot }))
    }
}

struct Instance {
    dtls: dimpl::Dtls,
    slot: KeySlot,
}

impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Instance").finish_non_exhaustive()
    }
}

impl DtlsInstance for Instance {
    fn set_active(&mut self, active: bool) {
        self.dtls.set_active(active);
    }

    fn handle_packet(&mut self, packet: &[u8]) -> Result<(), DtlsImplError> {
        self.dtls.handle_packet(packet)
    }

    fn poll_output<'a>(&mut self, buf: &'a mut [u8]) -> DtlsOutput<'a> {
        let is_client = self.dtls.is_active();
        let output = self.dtls.poll_output(buf);
        if let DtlsOutput::KeyingMaterial(material, profile) = &output {
            let profile = match *profile {
                SrtpProfile::AES128_CM_SHA1_80 => Some(Profile::Aes128CmHmacSha1_80),
                SrtpProfile::AEAD_AES_128_GCM => Some(Profile::AeadAes128Gcm),
                SrtpProfile::AEAD_AES_256_GCM => Some(Profile::AeadAes256Gcm),
                // Without keys the session never becomes ready and runs into its connect deadline.
                _ => None,
            };
            if let Some(profile) = profile {
                // A second handshake on one session does not happen in DTLS-SRTP; its keys would be ignored.
                let _ = self.slot.set(MasterKeys { profile, material: material.to_vec(), is_client });
            }
        }
        output
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), DtlsImplError> {
        self.dtls.handle_timeout(now)
    }

    fn send_application_data(&mut self, data: &[u8]) -> Result<usize, DtlsImplError> {
        self.dtls.send_application_data(data)
    }

    fn is_active(&self) -> bool {
        self.dtls.is_active()
    }

    fn protocol_version(&self) -> Option<ProtocolVersion> {
        self.dtls.protocol_version()
    }

    fn is_closing(&self) -> bool {
        self.dtls.is_closing()
    }

    fn is_closed(&self) -> bool {
        self.dtls.is_closed()
    }

    fn close(&mut self) -> Result<(), DtlsImplError> {
        self.dtls.close()
    }
}
