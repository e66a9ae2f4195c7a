//! Addresses at which this server itself answers: what is forwarded there under the same name would come back for ever.

use std::net::{IpAddr, SocketAddr};

/// Our own ports and addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct OwnAddresses {
    /// Of all TCP listeners: each speaks RTMP.
    pub(crate) ports: Vec<u16>,
    /// Addresses by which others reach us, beside those of the interfaces.
    pub(crate) public: Vec<IpAddr>,
}

impl OwnAddresses {
    /// Whether a connection to that address would end here.
    pub(super) fn contain(&self, address: SocketAddr) -> bool {
        self.contain_among(address, || if_addrs::get_if_addrs().unwrap_or_default().iter().map(|i| i.ip()).collect())
    }

    fn contain_among(&self, address: SocketAddr, interfaces: impl FnOnce() -> Vec<IpAddr>) -> bool {
        let ip = address.ip().to_canonical();
        self.ports.contains(&address.port())
            && (ip.is_loopback()
                || ip.is_unspecified()
                || self.public.contains(&ip)
                || interfaces().iter().any(|own| own.to_canonical() == ip))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_ports_at_our_own_addresses_are_ours() {
        let own = OwnAddresses { ports: vec![1935, 8080], public: vec!["203.0.113.7".parse().unwrap()] };
        for (address, is_own) in [
            ("127.0.0.1:1935", true),
            ("127.0.0.2:8080", true),
            ("[::1]:1935", true),
            ("[::ffff:127.0.0.1]:1935", true),
            ("0.0.0.0:1935", true),
            ("192.0.2.1:1935", true),
            ("203.0.113.7:1935", true),
            ("192.0.2.2:1935", false),
            ("127.0.0.1:1936", false),
        ] {
            let interfaces = || vec!["192.0.2.1".parse().unwrap()];
            assert_eq!(own.contain_among(address.parse().unwrap(), interfaces), is_own, "{address}");
        }
    }
}
