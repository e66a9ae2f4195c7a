//! The certificate of HTTPS: the operator's own, or one that signs itself.
//!
//! Browsers give camera and microphone to pages from `https://` and `localhost` only, so TLS works from the first start: a
//! self-signed certificate is made, kept and used again, because a browser remembers the exception for that very one. The
//! operator's files are read again when they change; a broken change keeps the certificate that works.
//!
//! The certificate of DTLS has nothing to do with this one. Nothing is fetched from an authority (no ACME).

mod self_signed;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, ServerConfig, SupportedCipherSuite};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tracing::{info, warn};

use crate::config::{CertificateFiles, Https};
use crate::listener::ALPN;

/// How soon changed files are noticed.
const POLL_INTERVAL: Duration = Duration::from_secs(5);

/// Why there is no certificate to serve.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CertificateError {
    /// A file cannot be read.
    #[error("cannot read {key} = {path:?}: {reason}")]
    Read {
        /// The configuration key that names it.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        reason: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{key} = {path:?} does not hold {wanted} in PEM form ({reason})")]
    Content {
        /// The configuration key that names it.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What was looked for.
        wanted: &'static str,
        /// What the reader said.
        reason: String,
    },
    /// The two are of different pairs.
    #[error(
        "the key {key:?} does not belong to the certificate {certificate:?}; the server's own certificate must be the first in its file"
    )]
    Mismatch {
        /// The certificate file.
        certificate: PathBuf,
        /// The key file.
        key: PathBuf,
    },
    /// The TLS library refuses it.
    #[error("the certificate cannot be used: {0}")]
    Tls(rustls::Error),
    /// The self-signed certificate could not be made.
    #[error("cannot make a self-signed certificate: {0}")]
    Make(rcgen::Error),
}

/// Tries the configured files, without serving them.
///
/// # Errors
/// They cannot be used.
pub(crate) fn check(https: &Https) -> Result<(), CertificateError> {
    match &https.files {
        Some(files) if https.enabled => load_files(files).map(|_| ()),
        _ => Ok(()),
    }
}

/// What HTTPS serves, and how it is kept up to date.
pub(crate) struct Certificates {
    resolver: Arc<Resolver>,
    source: Source,
}

enum Source {
    Files { files: CertificateFiles, tried: Mutex<Stamp> },
    SelfSigned { names: BTreeSet<String>, folder: PathBuf, not_after: Mutex<SystemTime> },
}

impl Certificates {
    /// Loads the configured files, or finds or makes the self-signed certificate in `folder` for this host, its
    /// `addresses` and the configured names.
    ///
    /// # Errors
    /// The configured files cannot be used. A folder that cannot be written to is no error: the certificate then lives as
    /// long as the process.
    pub(crate) fn open(https: &Https, folder: &Path, addresses: &[IpAddr]) -> Result<Certificates, CertificateError> {
        let now = SystemTime::now();
        if let Some(files) = &https.files {
            let tried = Mutex::new(stamp(files));
            let resolver = Resolver::new(load_files(files)?);
            return Ok(Certificates { resolver, source: Source::Files { files: files.clone(), tried } });
        }
        let names = self_signed::names(&https.names, addresses);
        let kept = self_signed::find_or_make(folder, &names, now)?;
        let resolver = Resolver::new(kept.key);
        let source = Source::SelfSigned { names, folder: folder.to_owned(), not_after: Mutex::new(kept.not_after) };
        Ok(Certificates { resolver, source })
    }

    /// For all listeners. The certificate in it changes when the files do.
    ///
    /// # Errors
    /// The TLS library has no protocol version left, which a build of ours never sees.
    pub(crate) fn server_config(&self) -> Result<Arc<ServerConfig>, CertificateError> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(CertificateError::Tls)?
            .with_no_client_auth()
            .with_cert_resolver(self.resolver.clone());
        config.alpn_protocols = ALPN.map(<[u8]>::to_vec).to_vec();
        Ok(Arc::new(config))
    }

    /// SHA-256 of the certificate, as browsers show it.
    pub(crate) fn fingerprint(&self) -> String {
        fingerprint(&self.resolver.current())
    }

    /// Whether browsers will warn.
    pub(crate) fn is_self_signed(&self) -> bool {
        matches!(self.source, Source::SelfSigned { .. })
    }

    /// Looks for changes forever.
    pub(crate) async fn watch(self: Arc<Certificates>) {
        let mut ticks = tokio::time::interval(POLL_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let this = self.clone();
            // Files may lie on a network disk that hangs.
            let looked = tokio::task::spawn_blocking(move || this.refresh(SystemTime::now())).await;
            if let Err(error) = looked {
                warn!(%error, "looking for a changed certificate failed");
            }
        }
    }

    fn refresh(&self, now: SystemTime) {
        let (renewed, said) = match &self.source {
            Source::Files { files, tried } => {
                let mut tried = tried.lock().unwrap_or_else(PoisonError::into_inner);
                let present = stamp(files);
                if present == *tried {
                    return;
                }
                *tried = present;
                (load_files(files), "certificate files changed, serving the new certificate")
            }
            Source::SelfSigned { names, folder, not_after } => {
                let mut not_after = not_after.lock().unwrap_or_else(PoisonError::into_inner);
                if !self_signed::is_due(*not_after, now) {
                    return;
                }
                let renewed = self_signed::find_or_make(folder, names, now).map(|kept| {
                    *not_after = kept.not_after;
                    kept.key
                });
                (renewed, "self-signed certificate was about to end, serving a new one")
            }
        };
        match renewed {
            Ok(key) => {
                self.resolver.replace(key);
                info!(sha256 = self.fingerprint(), "{said}");
            }
            Err(error) => warn!(%error, "the certificate was not replaced, the one before is still served"),
        }
    }
}

/// Hands the present certificate to every handshake.
#[derive(Debug)]
struct Resolver(RwLock<Arc<CertifiedKey>>);

impl Resolver {
    fn new(key: CertifiedKey) -> Arc<Resolver> {
        Arc::new(Resolver(RwLock::new(Arc::new(key))))
    }

    fn current(&self) -> Arc<CertifiedKey> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn replace(&self, key: CertifiedKey) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(key);
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}

/// Passed explicitly everywhere: a process-wide default would depend on who came first.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn load_files(files: &CertificateFiles) -> Result<CertifiedKey, CertificateError> {
    let chain_text = read("https.certificate", &files.certificate)?;
    let key_text = read("https.key", &files.key)?;
    certified_key(&chain_text, &key_text, files)
}

fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, CertificateError> {
    fs::read(path).map_err(|reason| CertificateError::Read { key, path: path.to_owned(), reason })
}

/// Joins a PEM chain and a PEM key. `files` names them in errors.
fn certified_key(chain: &[u8], key: &[u8], files: &CertificateFiles) -> Result<CertifiedKey, CertificateError> {
    let content = |key: &'static str, path: &Path, wanted: &'static str, error: pem::Error| CertificateError::Content {
        key,
        path: path.to_owned(),
        wanted,
        reason: error.to_string(),
    };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain)
        .collect::<Result<_, _>>()
        .and_then(|chain: Vec<_>| if chain.is_empty() { Err(pem::Error::NoItemsFound) } else { Ok(chain) })
        .map_err(|error| content("https.certificate", &files.certificate, "a certificate", error))?;
    let key =
        PrivateKeyDer::from_pem_slice(key).map_err(|error| content("https.key", &files.key, "a private key", error))?;
    CertifiedKey::from_der(chain, key, &provider()).map_err(|error| match error {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            CertificateError::Mismatch { certificate: files.certificate.clone(), key: files.key.clone() }
        }
        error => CertificateError::Tls(error),
    })
}

/// Tells two states of the files apart. A missing file has a stamp too, so its return is a change.
type Stamp = [Option<(SystemTime, u64)>; 2];

fn stamp(files: &CertificateFiles) -> Stamp {
    // Links are followed: certificate tools swap the link, not the file.
    [&files.certificate, &files.key].map(|path| {
        let metadata = fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    })
}

fn fingerprint(key: &CertifiedKey) -> String {
    let SupportedCipherSuite::Tls13(suite) = rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256 else {
        return String::new();
    };
    let Some(certificate) = key.cert.first() else { return String::new() };
    let digest = suite.common.hash_provider.hash(certificate);
    digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder of its own that goes away.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("freshet-certificates-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir_all(&path).unwrap();
            Folder(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn self_signed_settings() -> Https {
        crate::config::Config::default().https
    }

    fn pair(folder: &Path, name: &str) -> (Vec<u8>, Vec<u8>) {
        let folder = folder.join(name);
        Certificates::open(&self_signed_settings(), &folder, &[]).unwrap();
        let read = |file: &str| fs::read(folder.join(file)).unwrap();
        (read(self_signed::CERTIFICATE_FILE), read(self_signed::KEY_FILE))
    }

    #[test]
    fn the_self_signed_certificate_is_used_again_until_an_address_is_new() {
        let folder = Folder::new("again");
        let open = |addresses: &[IpAddr]| {
            Certificates::open(&self_signed_settings(), &folder.0, addresses).unwrap().fingerprint()
        };
        let first = open(&["192.0.2.1".parse().unwrap()]);
        assert_eq!(first.len(), 32 * 3 - 1);
        assert_eq!(open(&["192.0.2.1".parse().unwrap()]), first);
        assert_eq!(open(&[]), first);
        // Privacy addresses come and go by the day; a new exception in the browser each time would be worse.
        assert_eq!(open(&["2001:db8::1234".parse().unwrap()]), first);
        let second = open(&["192.0.2.2".parse().unwrap()]);
        assert_ne!(second, first);
        assert_eq!(open(&["192.0.2.1".parse().unwrap()]), second, "back in the first network");
        fs::write(folder.0.join(self_signed::KEY_FILE), "damaged").unwrap();
        assert_ne!(open(&[]), second);
    }

    #[cfg(unix)]
    #[test]
    fn only_the_owner_reads_the_key() {
        use std::os::unix::fs::PermissionsExt;
        let folder = Folder::new("mode");
        pair(&folder.0, "a");
        let mode = fs::metadata(folder.0.join("a").join(self_signed::KEY_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_no_obstacle() {
        let folder = Folder::new("unwritable");
        let file = folder.0.join("file");
        fs::write(&file, "").unwrap();
        let certificates = Certificates::open(&self_signed_settings(), &file.join("certs"), &[]).unwrap();
        assert!(certificates.server_config().is_ok());
    }

    #[test]
    fn changed_files_are_served_and_broken_ones_are_not() {
        let folder = Folder::new("reload");
        let (old, new) = (pair(&folder.0, "old"), pair(&folder.0, "new"));
        let files = CertificateFiles { certificate: folder.0.join("c.crt"), key: folder.0.join("c.key") };
        // A clock with coarse ticks could give two writes one time; lengths may agree too.
        let mut tick = 1_000_000_000;
        let mut put = |pair: &(Vec<u8>, Vec<u8>)| {
            for (path, bytes) in [(&files.certificate, &pair.0), (&files.key, &pair.1)] {
                fs::write(path, bytes).unwrap();
                tick += 10;
                let file = fs::File::options().write(true).open(path).unwrap();
                file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(tick)).unwrap();
            }
        };
        put(&old);
        let https = Https { files: Some(files.clone()), ..self_signed_settings() };
        let certificates = Certificates::open(&https, &folder.0, &[]).unwrap();
        let first = certificates.fingerprint();
        certificates.refresh(SystemTime::now());
        assert_eq!(certificates.fingerprint(), first);
        put(&(new.0.clone(), old.1.clone()));
        certificates.refresh(SystemTime::now());
        assert_eq!(certificates.fingerprint(), first, "a key of another pair");
        put(&(b"rubbish".to_vec(), b"rubbish".to_vec()));
        certificates.refresh(SystemTime::now());
        assert_eq!(certificates.fingerprint(), first, "rubbish");
        put(&new);
        certificates.refresh(SystemTime::now());
        assert_ne!(certificates.fingerprint(), first);
        fs::remove_file(&files.key).unwrap();
        let error = Certificates::open(&https, &folder.0, &[]).err().unwrap().to_string();
        assert!(error.contains("https.key") && error.contains("c.key"), "{error}");
    }
}
