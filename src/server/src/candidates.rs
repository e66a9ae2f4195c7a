//! Which addresses an answer offers to a client, and in which order.
//!
//! A server rarely knows the address it is reached at: containers, clouds and routers translate. The best witness is the
//! request itself, so its local address and the host in its URL come before anything found on the interfaces, and what
//! somebody configured comes before all. An ICE agent tries pairs by priority (RFC 8445 §6.1.2.3), so the order decides
//! how soon media flows and a useless candidate costs time: at most [`MAX_CANDIDATES`] are offered.
//!
//! Names are not resolved here, nothing is sent to the network, and priorities are given by whoever writes the answer.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// Each candidate multiplies the pairs that the client checks, one every 50 ms (RFC 8445 §14.2): eight of ours and five
/// of its own are through in two seconds.
pub(crate) const MAX_CANDIDATES: usize = 8;

/// Interfaces that lead to containers and virtual machines of this host, by the start of their names. The network inside
/// a container is called `eth0` there and stays.
const VIRTUAL_INTERFACES: [&str; 12] =
    ["docker", "br-", "veth", "cni", "virbr", "podman", "flannel", "cali", "lxcbr", "lxdbr", "vmnet", "vboxnet"];

/// A configured address: `ip`, with the media port, or `ip:port` where a router or container maps the port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct CandidateAddr {
    /// The address clients send to.
    pub(crate) ip: IpAddr,
    /// [`None`] for the media port itself.
    pub(crate) port: Option<u16>,
}

impl CandidateAddr {
    /// With the port filled in.
    pub(crate) fn at(self, media_port: u16) -> SocketAddr {
        SocketAddr::new(self.ip, self.port.unwrap_or(media_port))
    }
}

/// Why a text is not a candidate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum InvalidCandidate {
    /// Neither an address nor an address with a port.
    NotAnAddress,
    /// The port is not one of 1 to 65535.
    Port,
    /// Nobody can send to it, for the reason given.
    Unusable(&'static str),
}

impl fmt::Display for InvalidCandidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InvalidCandidate::NotAnAddress => f.write_str(
                "write an address (\"203.0.113.7\", \"2001:db8::7\") or one with a port (\"203.0.113.7:9000\", \"[2001:db8::7]:9000\"); names are not looked up",
            ),
            InvalidCandidate::Port => f.write_str("the port must be 1 to 65535"),
            InvalidCandidate::Unusable(why) => write!(f, "no client can send to {why}"),
        }
    }
}

impl std::error::Error for InvalidCandidate {}

impl FromStr for CandidateAddr {
    type Err = InvalidCandidate;

    fn from_str(text: &str) -> Result<CandidateAddr, InvalidCandidate> {
        let text = text.trim();
        let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
        let (ip, port) = if let Ok(ip) = bare.parse::<IpAddr>() {
            (ip, None)
        } else if let Ok(address) = text.parse::<SocketAddr>() {
            (address.ip(), Some(address.port()))
        } else {
            let host = text.rsplit_once(':').map_or("", |(host, _)| host.trim_matches(['[', ']']));
            let host_is_fine = host.parse::<IpAddr>().is_ok();
            return Err(if host_is_fine { InvalidCandidate::Port } else { InvalidCandidate::NotAnAddress });
        };
        if port == Some(0) {
            return Err(InvalidCandidate::Port);
        }
        let ip = ip.to_canonical();
        match unusable(ip) {
            Some(why) => Err(InvalidCandidate::Unusable(why)),
            None => Ok(CandidateAddr { ip, port }),
        }
    }
}

/// An address of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Interface {
    /// `eth0`.
    pub(crate) name: String,
    /// One of its addresses.
    pub(crate) ip: IpAddr,
}

/// The addresses of this host that a client might reach: virtual bridges, loopback and link-local ones left out. Empty
/// when the system does not tell.
pub(crate) fn discover() -> Vec<Interface> {
    let found = if_addrs::get_if_addrs().unwrap_or_else(|error| {
        tracing::warn!(%error, "cannot list the network interfaces; set rtc.candidates if clients do not connect");
        Vec::new()
    });
    let named = found.into_iter().filter(|i| i.is_oper_up() || i.oper_status == if_addrs::IfOperStatus::Unknown);
    named.map(|i| Interface { ip: i.ip().to_canonical(), name: i.name }).filter(is_offered).collect()
}

fn is_offered(interface: &Interface) -> bool {
    !VIRTUAL_INTERFACES.iter().any(|start| interface.name.starts_with(start))
        && !interface.ip.is_loopback()
        && unusable(interface.ip).is_none()
}

/// What is known at start about the ways to this server.
#[derive(Debug, Clone)]
pub(crate) struct CandidateSources {
    bound: SocketAddr,
    configured: Vec<SocketAddr>,
    interfaces: Vec<IpAddr>,
}

impl CandidateSources {
    /// `bound` is the address of the media socket as it came out (port filled in; `0.0.0.0` on a host without IPv6).
    pub(crate) fn new(bound: SocketAddr, configured: &[CandidateAddr], interfaces: &[Interface]) -> CandidateSources {
        let mut ips: Vec<IpAddr> = interfaces.iter().filter(|i| is_offered(i)).map(|i| i.ip.to_canonical()).collect();
        // Public before private, IPv4 before IPv6 within each: a broken IPv6 route is the commoner fault. Stable.
        ips.sort_by_key(|ip| (is_private(*ip), ip.is_ipv6()));
        CandidateSources {
            bound: SocketAddr::new(bound.ip().to_canonical(), bound.port()),
            configured: configured.iter().map(|c| c.at(bound.port())).collect(),
            interfaces: ips,
        }
    }

    /// The candidates for one request, best first. `local_ip` is where the request arrived, `host` the address in its URL
    /// (or what its name stands for), `extra` what the client itself asked for (`?eip=`).
    pub(crate) fn for_request(&self, local_ip: IpAddr, host: Option<IpAddr>, extra: &[SocketAddr]) -> Vec<SocketAddr> {
        let local_ip = local_ip.to_canonical();
        let host = host.map(|ip| ip.to_canonical());
        let mut list = Candidates { bound: self.bound, chosen: Vec::with_capacity(MAX_CANDIDATES) };
        if !self.configured.is_empty() {
            list.extend_outside(&self.configured);
            list.extend_outside(extra);
            // Somebody who tests from inside; for all others a loopback or private address would only cost time.
            if local_ip.is_loopback() || is_private(local_ip) {
                list.push_local(local_ip);
            }
            return list.chosen;
        }
        // A request that came over loopback although its URL names another address went through a proxy on this host.
        let proxied = host.is_some_and(|ip| !ip.is_loopback());
        if local_ip.is_loopback() && !proxied {
            list.push_loopback(local_ip);
        }
        list.extend_outside(extra);
        if !local_ip.is_loopback() {
            list.push_local(local_ip);
        }
        if let Some(host) = host.filter(|ip| !ip.is_loopback()) {
            list.push(SocketAddr::new(host, self.bound.port()));
        }
        for ip in &self.interfaces {
            list.push_local(*ip);
        }
        if local_ip.is_loopback() && (proxied || list.chosen.is_empty()) {
            list.push_loopback(local_ip);
        }
        list.chosen
    }

    /// [`CandidateSources::for_request`] with what the request says as it says it: a `host` that is a name other than
    /// `localhost` tells nothing, and an `extra` that is no candidate is left out, as in SRS.
    pub(crate) fn for_texts(&self, local_ip: IpAddr, host: Option<&str>, extra: &[String]) -> Vec<SocketAddr> {
        let host = host.map(|host| host.trim_matches(['[', ']'])).and_then(|host| {
            if host.eq_ignore_ascii_case("localhost") { Some(Ipv4Addr::LOCALHOST.into()) } else { host.parse().ok() }
        });
        let extra: Vec<SocketAddr> = extra
            .iter()
            .take(MAX_CANDIDATES)
            .filter_map(|text| text.parse::<CandidateAddr>().ok())
            .map(|candidate| candidate.at(self.bound.port()))
            .collect();
        self.for_request(local_ip, host, &extra)
    }

    /// What is offered to a request about which nothing is known: for listings and the start of the log.
    pub(crate) fn at_start(&self) -> Vec<SocketAddr> {
        self.for_request(IpAddr::V4(Ipv4Addr::UNSPECIFIED), None, &[])
    }

    /// The start-up lines that say what must be open, one per address.
    pub(crate) fn describe(&self, tcp: bool) -> Vec<String> {
        let or_tcp = if tcp { " (or tcp)" } else { "" };
        let candidates = self.at_start();
        if candidates.is_empty() {
            return vec![format!(
                "no address for media beyond this machine: browsers reach udp://{}:{} only; set rtc.candidates for others",
                if self.bound.ip().is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { self.bound.ip() },
                self.bound.port()
            )];
        }
        candidates.iter().map(|address| format!("browsers must reach udp://{address}{or_tcp}")).collect()
    }
}

/// The list under construction: no duplicates, nothing unreachable, bounded.
struct Candidates {
    bound: SocketAddr,
    chosen: Vec<SocketAddr>,
}

impl Candidates {
    fn push(&mut self, address: SocketAddr) {
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        let fits = self.chosen.len() < MAX_CANDIDATES && !self.chosen.contains(&address);
        if fits && address.port() != 0 && unusable(address.ip()).is_none() {
            self.chosen.push(address);
        }
    }

    /// An address on the far side of a router: any family may be translated to the one we listen on.
    fn extend_outside(&mut self, addresses: &[SocketAddr]) {
        for address in addresses {
            self.push(*address);
        }
    }

    /// An address of this host, if the socket hears what is sent to it.
    fn push_local(&mut self, ip: IpAddr) {
        let heard = match self.bound.ip() {
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => true,
            IpAddr::V4(Ipv4Addr::UNSPECIFIED) => ip.is_ipv4(),
            bound => bound == ip,
        };
        if heard {
            self.push(SocketAddr::new(ip, self.bound.port()));
        }
    }

    fn push_loopback(&mut self, local_ip: IpAddr) {
        self.push_local(local_ip);
        // A page opened by ::1 may still have gathered IPv4 only, and every stack has 127.0.0.1.
        self.push_local(Ipv4Addr::LOCALHOST.into());
    }
}

/// Why nothing can be sent to an address, if so.
fn unusable(ip: IpAddr) -> Option<&'static str> {
    match ip {
        _ if ip.is_unspecified() => Some("the unspecified address"),
        _ if ip.is_multicast() => Some("a multicast address"),
        IpAddr::V4(v4) if v4.is_broadcast() => Some("the broadcast address"),
        IpAddr::V4(v4) if v4.is_link_local() => Some("a link-local address"),
        // RFC 8445 §5.1.1.1: link-local IPv6 addresses need a zone that a candidate cannot carry.
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Some("a link-local address"),
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    }
}

/// Addresses that mean nothing outside their own network: RFC 1918, RFC 6598 (carriers), RFC 4193.
fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_private() || (v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 64),
        IpAddr::V6(v6) => v6.is_unique_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(bound: &str, configured: &[&str], interfaces: &[(&str, &str)]) -> CandidateSources {
        let configured: Vec<CandidateAddr> = configured.iter().map(|c| c.parse().unwrap()).collect();
        let interfaces: Vec<Interface> = interfaces
            .iter()
            .map(|(name, ip)| Interface { name: (*name).to_owned(), ip: ip.parse().unwrap() })
            .collect();
        CandidateSources::new(bound.parse().unwrap(), &configured, &interfaces)
    }

    fn ask(sources: &CandidateSources, local: &str, host: &str, extra: &[&str]) -> String {
        let extra: Vec<SocketAddr> = extra.iter().map(|e| e.parse().unwrap()).collect();
        let list = sources.for_request(local.parse().unwrap(), host.parse().ok(), &extra);
        list.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    }

    const INTERFACES: [(&str, &str); 7] = [
        ("lo", "127.0.0.1"),
        ("eth1", "192.168.1.5"),
        ("docker0", "172.17.0.1"),
        ("br-1f00ba", "172.18.0.1"),
        ("eth0", "2001:db8::5"),
        ("eth0", "203.0.113.5"),
        ("eth0", "fe80::1"),
    ];

    #[test]
    fn what_the_request_tells_comes_before_what_the_host_has() {
        let s = sources("[::]:8000", &[], &INTERFACES);
        let found = "203.0.113.5:8000 [2001:db8::5]:8000 192.168.1.5:8000";
        for (local, host, extra, expected) in [
            ("203.0.113.5", "", &[][..], found.to_owned()),
            ("192.168.1.5", "", &[], "192.168.1.5:8000 203.0.113.5:8000 [2001:db8::5]:8000".to_owned()),
            ("::ffff:192.168.1.5", "", &[], "192.168.1.5:8000 203.0.113.5:8000 [2001:db8::5]:8000".to_owned()),
            // A container: the request's URL knows the public address, the container only its own.
            ("172.17.0.2", "198.51.100.1", &[], format!("172.17.0.2:8000 198.51.100.1:8000 {found}")),
            ("203.0.113.5", "", &["198.51.100.9:9000"], format!("198.51.100.9:9000 {found}")),
            ("127.0.0.1", "127.0.0.1", &[], format!("127.0.0.1:8000 {found}")),
            ("::1", "", &[], format!("[::1]:8000 127.0.0.1:8000 {found}")),
            // A proxy on this host.
            ("127.0.0.1", "198.51.100.1", &[], format!("198.51.100.1:8000 {found} 127.0.0.1:8000")),
            ("0.0.0.0", "", &["0.0.0.0:1", "224.0.0.1:1", "169.254.0.1:1", "192.0.2.1:0"], found.to_owned()),
        ] {
            assert_eq!(ask(&s, local, host, extra), expected, "{local} {host} {extra:?}");
        }
    }

    #[test]
    fn configured_addresses_replace_the_found_ones() {
        let s = sources("[::]:8000", &["198.51.100.1", "198.51.100.2:9000", "198.51.100.1:8000"], &INTERFACES);
        let configured = "198.51.100.1:8000 198.51.100.2:9000";
        for (local, extra, expected) in [
            ("203.0.113.5", &[][..], configured.to_owned()),
            ("192.168.1.5", &[], format!("{configured} 192.168.1.5:8000")),
            ("127.0.0.1", &[], format!("{configured} 127.0.0.1:8000")),
            ("203.0.113.5", &["192.0.2.9:8000"], format!("{configured} 192.0.2.9:8000")),
        ] {
            assert_eq!(ask(&s, local, "203.0.113.77", extra), expected, "{local} {extra:?}");
        }
    }

    #[test]
    fn only_addresses_that_the_socket_hears_are_offered() {
        let any4 = sources("0.0.0.0:8000", &[], &INTERFACES);
        assert_eq!(ask(&any4, "::1", "", &[]), "127.0.0.1:8000 203.0.113.5:8000 192.168.1.5:8000");
        let one = sources("192.168.1.5:8000", &[], &INTERFACES);
        assert_eq!(ask(&one, "203.0.113.5", "", &[]), "192.168.1.5:8000");
        let loopback = sources("127.0.0.1:8000", &[], &INTERFACES);
        assert_eq!(ask(&loopback, "127.0.0.1", "", &[]), "127.0.0.1:8000");
    }

    #[test]
    fn texts_of_a_request_are_taken_as_they_come() {
        let s = sources("[::]:8000", &[], &[]);
        for (local, host, extra, expected) in [
            ("192.0.2.1", Some("[2001:db8::9]"), &[][..], "192.0.2.1:8000 [2001:db8::9]:8000"),
            ("127.0.0.1", Some("LocalHost"), &[], "127.0.0.1:8000"),
            ("192.0.2.1", Some("media.example.org"), &["rubbish", "192.0.2.7"], "192.0.2.7:8000 192.0.2.1:8000"),
            ("192.0.2.1", None, &["192.0.2.7:0", "192.0.2.8:9"], "192.0.2.8:9 192.0.2.1:8000"),
        ] {
            let extra: Vec<String> = extra.iter().map(|text| (*text).to_owned()).collect();
            let list = s.for_texts(local.parse().unwrap(), host, &extra);
            assert_eq!(
                list.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
                expected,
                "{local} {host:?}"
            );
        }
    }

    #[test]
    fn the_list_is_short() {
        let names: Vec<String> = (1..40).map(|n| format!("10.0.0.{n}")).collect();
        let interfaces: Vec<(&str, &str)> = names.iter().map(|ip| ("eth0", ip.as_str())).collect();
        let s = sources("[::]:8000", &[], &interfaces);
        assert_eq!(s.for_request("10.0.0.39".parse().unwrap(), None, &[]).len(), MAX_CANDIDATES);
        assert_eq!(s.for_request("10.0.0.39".parse().unwrap(), None, &[])[0].to_string(), "10.0.0.39:8000");
    }

    #[test]
    fn candidates_are_read_in_every_form() {
        for (text, expected) in [
            ("203.0.113.7", Ok("203.0.113.7:8000")),
            (" 203.0.113.7:9000 ", Ok("203.0.113.7:9000")),
            ("2001:db8::7", Ok("[2001:db8::7]:8000")),
            ("[2001:db8::7]", Ok("[2001:db8::7]:8000")),
            ("[2001:db8::7]:9000", Ok("[2001:db8::7]:9000")),
            ("::ffff:203.0.113.7", Ok("203.0.113.7:8000")),
            ("203.0.113.7:0", Err(InvalidCandidate::Port)),
            ("203.0.113.7:99999", Err(InvalidCandidate::Port)),
            ("203.0.113.7:", Err(InvalidCandidate::Port)),
            ("media.example.org", Err(InvalidCandidate::NotAnAddress)),
            ("203.0.113", Err(InvalidCandidate::NotAnAddress)),
            ("", Err(InvalidCandidate::NotAnAddress)),
            ("0.0.0.0", Err(InvalidCandidate::Unusable("the unspecified address"))),
            ("fe80::1", Err(InvalidCandidate::Unusable("a link-local address"))),
        ] {
            let read = text.parse::<CandidateAddr>().map(|c| c.at(8000));
            assert_eq!(read, expected.map(|e| e.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn the_start_says_which_ports_to_open() {
        let s = sources("[::]:8000", &[], &INTERFACES);
        assert_eq!(s.describe(true)[0], "browsers must reach udp://203.0.113.5:8000 (or tcp)");
        assert_eq!(s.describe(false).len(), 3);
        assert!(sources("127.0.0.1:8000", &[], &INTERFACES).describe(true)[0].contains("udp://127.0.0.1:8000 only"));
    }
}
