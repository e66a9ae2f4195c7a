//! One certificate and one DTLS configuration for all peers of a test: str0m's own provider makes and tests a
//! configuration per session, which costs more than the rest of a join.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow};
use str0m::config::CryptoProvider;
use str0m::crypto::CryptoError;
use str0m::crypto::dtls::{
    DtlsCert, DtlsImplError, DtlsInstance, DtlsOutput, DtlsProvider, DtlsVersion, ProtocolVersion,
};

/// A provider whose sessions share a configuration, and the certificate to give them. The provider is a struct of
/// references with static lifetime: one leak per call, so call it once per process.
///
/// # Errors
/// The cryptographic library failed its self-test.
pub fn shared_provider() -> Result<(Arc<CryptoProvider>, DtlsCert)> {
    let mut provider = str0m::crypto::from_feature_flags();
    let certificate = provider.dtls_provider.generate_certificate().context("cannot make a DTLS certificate")?;
    let config = dimpl::Config::builder().use_server_cookie(false).mtu(1150).build();
    let config = config.map_err(|e| anyhow!("cannot make a DTLS configuration: {e}"))?;
    provider.dtls_provider = Box::leak(Box::new(SharedDtls { config: Arc::new(config) }));
    Ok((Arc::new(provider), certificate))
}

#[derive(Debug)]
struct SharedDtls {
    config: Arc<dimpl::Config>,
}

impl DtlsProvider for SharedDtls {
    fn generate_certificate(&self) -> Option<DtlsCert> {
        None
    }

    fn new_dtls(
        &self,
        certificate: &DtlsCert,
        now: Instant,
        _version: DtlsVersion,
        _mtu: Option<usize>,
    ) -> Result<Box<dyn DtlsInstance>, CryptoError> {
        Ok(Box::new(Dtls(dimpl::Dtls::new_12(Arc::clone(&self.config), certificate.clone(), now))))
    }
}

struct Dtls(dimpl::Dtls);

impl std::fmt::Debug for Dtls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Dtls")
    }
}

impl DtlsInstance for Dtls {
    fn set_active(&mut self, active: bool) {
        self.0.set_active(active);
    }
    fn handle_packet(&mut self, packet: &[u8]) -> Result<(), DtlsImplError> {
        self.0.handle_packet(packet)
    }
    fn poll_output<'a>(&mut self, buffer: &'a mut [u8]) -> DtlsOutput<'a> {
        self.0.poll_output(buffer)
    }
    fn handle_timeout(&mut self, now: Instant) -> Result<(), DtlsImplError> {
        self.0.handle_timeout(now)
    }
    fn send_application_data(&mut self, data: &[u8]) -> Result<usize, DtlsImplError> {
        self.0.send_application_data(data)
    }
    fn is_active(&self) -> bool {
        self.0.is_active()
    }
    fn protocol_version(&self) -> Option<ProtocolVersion> {
        self.0.protocol_version()
    }
    fn is_closing(&self) -> bool {
        self.0.is_closing()
    }
    fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
    fn close(&mut self) -> Result<(), DtlsImplError> {
        self.0.close()
    }
}
