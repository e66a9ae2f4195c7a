//! Where the packets of a measurement end: addresses of this machine that nobody reads.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context as _;
use socket2::{Domain, SockFilter, Socket, Type};

/// `BPF_RET | BPF_K` of `linux/bpf_common.h`: with 0 it refuses every packet.
const RETURN: u16 = 0x06;

/// A socket that takes the packets for all addresses of the loopback interface on its port, and drops them in the
/// kernel as soon as they have come up to it. Without it every packet would cause an ICMP error.
#[derive(Debug)]
pub(crate) struct Sink {
    _socket: Socket,
    /// Its port.
    pub(crate) port: u16,
}

impl Sink {
    /// Opens it.
    ///
    /// # Errors
    /// The system has no loopback interface, or no socket filters (Linux has both).
    pub(crate) fn open() -> anyhow::Result<Sink> {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).context("cannot open a socket")?;
        // All of 127.0.0.0/8, and nothing from outside.
        socket.bind_device(Some(b"lo")).context("cannot bind to the loopback interface")?;
        socket.attach_filter(&[SockFilter::new(RETURN, 0, 0, 0)]).context("cannot set a socket filter")?;
        socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)).into()).context("cannot bind a socket")?;
        let address = socket.local_addr()?.as_socket().context("a socket has no address")?;
        Ok(Sink { _socket: socket, port: address.port() })
    }
}
