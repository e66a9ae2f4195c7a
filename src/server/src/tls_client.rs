//! TLS of connections that we make, to hooks and to servers that streams are forwarded to.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ConfigBuilder, DigitallySignedStruct, Error, RootCertStore, SignatureScheme, WantsVerifier,
};
use tokio_rustls::TlsConnector;

/// Checks certificates against the roots of this host (`SSL_CERT_FILE` names others). Reads files, each time anew, since
/// they may change: not for a thread that must not wait.
///
/// # Errors
/// What keeps TLS from working, as a sentence.
pub(crate) fn checking() -> Result<TlsConnector, String> {
    checking_against(rustls_native_certs::load_native_certs().certs)
}

/// Checks certificates against these roots.
///
/// # Errors
/// Those of [`checking`].
pub(crate) fn checking_against(certificates: Vec<CertificateDer<'static>>) -> Result<TlsConnector, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates);
    if roots.is_empty() {
        let hint = "install the package ca-certificates, or name a file in SSL_CERT_FILE";
        return Err(format!("this host has no root certificates to check the server's with: {hint}"));
    }
    connector(|builder, _| builder.with_root_certificates(roots).with_no_client_auth())
}

/// Takes every certificate.
///
/// # Errors
/// Those of [`checking`].
pub(crate) fn trusting() -> Result<TlsConnector, String> {
    connector(|builder, provider| {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(provider))).with_no_client_auth()
    })
}

fn connector(
    finish: impl FnOnce(ConfigBuilder<ClientConfig, WantsVerifier>, Arc<CryptoProvider>) -> ClientConfig,
) -> Result<TlsConnector, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(TlsConnector::from(Arc::new(finish(builder, provider))))
}

/// Takes every certificate, since the operator has said so. That its key signs the handshake is checked all the same.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
