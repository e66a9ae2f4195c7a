//! Addresses as the configuration writes them.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// A block of addresses, `10.0.0.0/8`, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IpBlock {
    network: IpAddr,
    prefix_bits: u8,
}

impl IpBlock {
    /// Reads `address` or `address/bits`. [`None`] when it is neither.
    pub(crate) fn parse(text: &str) -> Option<IpBlock> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse::<u8>().ok()?)),
            None => (text, None),
        };
        let network: IpAddr = address.trim().parse().ok()?;
        let width = if network.is_ipv4() { 32 } else { 128 };
        let prefix_bits = bits.unwrap_or(width);
        (prefix_bits <= width).then_some(IpBlock { network, prefix_bits })
    }

    /// Whether the address lies in the block. An IPv4 address is found in its IPv6-mapped form too.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        match (self.network, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                (network.to_bits() ^ address.to_bits()).checked_shr(32 - u32::from(self.prefix_bits)).unwrap_or(0) == 0
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                (network.to_bits() ^ address.to_bits()).checked_shr(128 - u32::from(self.prefix_bits)).unwrap_or(0) == 0
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

/// Reads a listening address: `[::]:8080`, `0.0.0.0:8080`, or a port alone, `8080` or `:8080`, for all addresses.
pub(super) fn parse_listen(text: &str) -> Option<SocketAddr> {
    let text = text.trim();
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let port: u16 = text.strip_prefix(':').unwrap_or(text).parse().ok()?;
    Some(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_hold_what_they_say() {
        for (block, address, inside) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.0.0.0/8", "::ffff:10.1.2.3", true),
            ("192.0.2.7", "192.0.2.7", true),
            ("192.0.2.7", "192.0.2.6", false),
            ("0.0.0.0/0", "203.0.113.1", true),
            ("::/0", "2001:db8::1", true),
            ("::/0", "10.0.0.1", false),
            ("2001:db8::/33", "2001:db8:8000::1", false),
        ] {
            assert_eq!(IpBlock::parse(block).unwrap().contains(address.parse().unwrap()), inside, "{block} {address}");
        }
        for wrong in ["10.0.0.0/33", "10.0.0.0/", "example.org", "", "10.0.0.0/-1"] {
            assert_eq!(IpBlock::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_port_alone_listens_everywhere() {
        let all = Some("[::]:8000".parse().unwrap());
        assert_eq!((parse_listen("8000"), parse_listen(":8000"), parse_listen("[::]:8000")), (all, all, all));
        assert_eq!(parse_listen("0.0.0.0:80"), Some("0.0.0.0:80".parse().unwrap()));
        for wrong in ["localhost:80", "0.0.0.0", "70000", ""] {
            assert_eq!(parse_listen(wrong), None, "{wrong}");
        }
    }
}
