//! The address behind the name that a client used for us.
//!
//! Behind a container or a cloud's router the name in the URL is often the only thing that tells our public address.
//! The look-up is the system's; it is bounded in time and number, and remembered for a while, because the name comes
//! from a header that anybody may write. A wrong name only adds a useless candidate to its own writer's answer.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use tokio::net::lookup_host;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// A client waits for its answer meanwhile.
const PATIENCE: Duration = Duration::from_millis(1500);
/// As long as a DNS record of a moving service usually lives.
const REMEMBERED: Duration = Duration::from_secs(60);
/// Names that are remembered.
const MAX_NAMES: usize = 64;
/// Look-ups at a time.
const MAX_LOOKUPS: usize = 8;
/// RFC 1035 §2.3.4.
const MAX_NAME_BYTES: usize = 253;

/// What is known of names.
pub(super) struct HostNames {
    known: Mutex<HashMap<String, (Option<IpAddr>, Instant)>>,
    lookups: Semaphore,
}

impl Default for HostNames {
    fn default() -> HostNames {
        HostNames { known: Mutex::default(), lookups: Semaphore::new(MAX_LOOKUPS) }
    }
}

impl HostNames {
    /// The host as an address in text where it is a name that can be looked up, else as it is.
    pub(super) async fn resolved(&self, host: Option<String>) -> Option<String> {
        let host = host?;
        let literal = host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
        if literal || host.eq_ignore_ascii_case("localhost") || host.len() > MAX_NAME_BYTES {
            return Some(host);
        }
        Some(self.look_up(&host).await.map_or(host, |ip| ip.to_string()))
    }

    async fn look_up(&self, name: &str) -> Option<IpAddr> {
        if let Some((ip, at)) = self.known().get(name).copied()
            && at.elapsed() < REMEMBERED
        {
            return ip;
        }
        let _turn = self.lookups.try_acquire().ok()?;
        let found = timeout(PATIENCE, lookup_host((name, 0))).await;
        let addresses: Vec<IpAddr> =
            found.ok().and_then(Result::ok).map(|a| a.map(|a| a.ip()).collect()).unwrap_or_default();
        // IPv4 first: it is what a router or container translates.
        let ip = addresses.iter().find(|ip| ip.is_ipv4()).or(addresses.first()).copied();
        let mut known = self.known();
        if known.len() >= MAX_NAMES {
            known.clear();
        }
        known.insert(name.to_owned(), (ip, Instant::now()));
        ip
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<String, (Option<IpAddr>, Instant)>> {
        self.known.lock().unwrap_or_else(|e| e.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn addresses_and_localhost_stay_as_they_are() {
        let names = HostNames::default();
        for host in ["192.0.2.7", "[2001:db8::7]", "localhost"] {
            assert_eq!(names.resolved(Some(host.to_owned())).await.as_deref(), Some(host));
        }
        assert_eq!(names.resolved(None).await, None);
        assert!(names.known().is_empty());
    }

    #[tokio::test]
    async fn an_unknown_name_is_asked_for_once() {
        let names = HostNames::default();
        let host = "no-such-host.invalid";
        for _ in 0..2 {
            assert_eq!(names.resolved(Some(host.to_owned())).await.as_deref(), Some(host));
        }
        assert_eq!(names.known().len(), 1);
    }
}
