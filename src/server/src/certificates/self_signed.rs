//! The certificate that Freshet makes itself: found again at the next start, made anew when it ends or an address is new.
//!
//! Its end and its names stand in plain lines above the PEM block (explanatory text, RFC 7468 §2), for people and so that
//! no X.509 parser is needed to read back what we wrote.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose};
use rustls::sign::CertifiedKey;
use tracing::{info, warn};

use super::{CertificateError, certified_key};
use crate::config::CertificateFiles;

pub(super) const CERTIFICATE_FILE: &str = "freshet-self-signed.crt";
pub(super) const KEY_FILE: &str = "freshet-self-signed.key";

const DAY: Duration = Duration::from_secs(86_400);

/// Browsers distrust server certificates that last longer than 398 days.
const VALIDITY: Duration = Duration::from_secs(397 * 86_400);

/// So much of it lies in the past, for clients whose clock is behind.
const BACKDATE: Duration = DAY;

/// Renewed when no more than this is left.
const RENEW_BEFORE: Duration = Duration::from_secs(14 * 86_400);

/// Some hosts have hundreds of addresses, and the certificate travels in every handshake.
const MAX_NAMES: usize = 64;

const NOT_AFTER_LINE: &str = "Not after (seconds since 1970): ";
const NAMES_LINE: &str = "Names: ";

pub(super) struct SelfSigned {
    pub(super) key: CertifiedKey,
    pub(super) not_after: SystemTime,
}

/// Whether it is time for a new one.
pub(super) fn is_due(not_after: SystemTime, now: SystemTime) -> bool {
    not_after.duration_since(now).is_ok_and(|left| left <= RENEW_BEFORE) || not_after <= now
}

/// What the certificate is to be valid for.
pub(super) fn names(configured: &[String], addresses: &[IpAddr]) -> BTreeSet<String> {
    let mut names: BTreeSet<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into();
    names.extend(configured.iter().map(|name| name.to_lowercase()));
    names.extend(hostname());
    for address in addresses {
        if names.len() < MAX_NAMES {
            names.insert(address.to_string());
        }
    }
    names
}

fn hostname() -> Option<String> {
    let text = fs::read_to_string("/proc/sys/kernel/hostname").or_else(|_| fs::read_to_string("/etc/hostname")).ok()?;
    let name = text.trim().to_lowercase();
    let is_plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.');
    (is_plain && !name.is_empty() && name.len() <= 253).then_some(name)
}

/// The kept certificate if it will do, else a new one, which is kept if the folder lets us.
pub(super) fn find_or_make(
    folder: &Path,
    names: &BTreeSet<String>,
    now: SystemTime,
) -> Result<SelfSigned, CertificateError> {
    let files = CertificateFiles { certificate: folder.join(CERTIFICATE_FILE), key: folder.join(KEY_FILE) };
    let kept = Kept::read(&files);
    if let Some(kept) = &kept
        && !is_due(kept.not_after, now)
        && names.iter().filter(|name| !is_passing(name)).all(|name| kept.names.contains(name))
        && let Ok(key) = certified_key(kept.chain.as_bytes(), &kept.key, &files)
    {
        return Ok(SelfSigned { key, not_after: kept.not_after });
    }
    let names = with_former(names, kept.map(|kept| kept.names).unwrap_or_default());
    let not_before = now - BACKDATE;
    let not_after = not_before + VALIDITY;
    let (chain, key) = make(&names, not_before, not_after).map_err(CertificateError::Make)?;
    let made = SelfSigned { key: certified_key(chain.as_bytes(), key.as_bytes(), &files)?, not_after };
    match keep(folder, &files, &chain, &key) {
        Ok(()) => info!(file = %files.certificate.display(), "made a self-signed certificate"),
        Err(error) => warn!(
            folder = %folder.display(), %error,
            "cannot keep the self-signed certificate; browsers will ask again after each start. Make the folder writable or set https.certificate and https.key"
        ),
    }
    Ok(made)
}

/// Global IPv6 addresses change by the day (RFC 8981); they are put in, but do not call for a new certificate.
fn is_passing(name: &str) -> bool {
    name.parse::<Ipv6Addr>().is_ok_and(|ip| !ip.is_loopback())
}

/// Adds what the certificate before was valid for, so that a laptop that goes back and forth between two networks does
/// not get a new one, and its browser a new warning, each time.
fn with_former(names: &BTreeSet<String>, former: BTreeSet<String>) -> BTreeSet<String> {
    let room = MAX_NAMES.saturating_sub(names.len());
    let added =
        former.into_iter().filter(|name| !names.contains(name) && !is_passing(name) && name.is_ascii()).take(room);
    names.iter().cloned().chain(added).collect()
}

/// What an earlier start left in the folder.
struct Kept {
    chain: String,
    key: Vec<u8>,
    not_after: SystemTime,
    names: BTreeSet<String>,
}

impl Kept {
    fn read(files: &CertificateFiles) -> Option<Kept> {
        let chain = fs::read_to_string(&files.certificate).ok()?;
        let key = fs::read(&files.key).ok()?;
        let not_after: u64 = chain.lines().find_map(|line| line.strip_prefix(NOT_AFTER_LINE))?.trim().parse().ok()?;
        let not_after = UNIX_EPOCH.checked_add(Duration::from_secs(not_after))?;
        let names = chain.lines().find_map(|line| line.strip_prefix(NAMES_LINE))?;
        let names = names.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect();
        Some(Kept { chain, key, not_after, names })
    }
}

fn make(
    names: &BTreeSet<String>,
    not_before: SystemTime,
    not_after: SystemTime,
) -> Result<(String, String), rcgen::Error> {
    let names: Vec<String> = names.iter().cloned().collect();
    let mut params = CertificateParams::new(names.clone())?;
    params.not_before = not_before.into();
    params.not_after = not_after.into();
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "Freshet, self-signed");
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let certificate = params.self_signed(&key)?;
    let not_after_seconds = not_after.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let text = format!(
        "Made by Freshet. Delete this file and its key to get new ones at the next start.\n{NOT_AFTER_LINE}{not_after_seconds}\n{NAMES_LINE}{}\n{}",
        names.join(", "),
        certificate.pem()
    );
    Ok((text, key.serialize_pem()))
}

fn keep(folder: &Path, files: &CertificateFiles, chain: &str, key: &str) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    write_whole(&files.key, key.as_bytes(), 0o600)?;
    write_whole(&files.certificate, chain.as_bytes(), 0o644)
}

/// A reader sees the old file or the new one, never half of either.
fn write_whole(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let draft = path.with_extension(format!("{}.draft", std::process::id()));
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    #[cfg(not(unix))]
    let _ = mode;
    let written = options.open(&draft).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    let moved = written.and_then(|()| fs::rename(&draft, path));
    if moved.is_err() {
        let _ = fs::remove_file(&draft);
    }
    moved
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_renewed_two_weeks_before_its_end() {
        let now = UNIX_EPOCH + 1000 * DAY;
        assert!(!is_due(now + 15 * DAY, now));
        assert!(is_due(now + 14 * DAY, now));
        assert!(is_due(now - DAY, now));
    }

    #[test]
    fn a_host_with_many_addresses_gets_a_certificate_of_sane_size() {
        let addresses: Vec<IpAddr> = (0..200).map(|n| IpAddr::from([10, 0, 0, n])).collect();
        let names = names(&["Media.Example.org".to_owned()], &addresses);
        assert_eq!(names.len(), MAX_NAMES);
        assert!(names.contains("media.example.org") && names.contains("::1") && names.contains("10.0.0.0"));
    }
}
