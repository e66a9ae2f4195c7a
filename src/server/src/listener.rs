//! TCP listeners. Every port speaks all protocols, told apart by the first bytes of a connection (the idea of
//! RFC 7983, carried over to TCP):
//!
//! | first bytes | protocol |
//! |---|---|
//! | `0x16` | TLS handshake record (RFC 8446 §5.1), HTTP or RTMP inside |
//! | `0x03` | RTMP: the version of its handshake (§5.2.2 of the specification) |
//! | 16-bit length, then a STUN header | ICE-TCP (RFC 6544 in the framing of RFC 4571), handed to the engine |
//! | anything else | HTTP/1.1 |
//!
//! HTTP inside TLS is HTTP/2 where the client asks for it (ALPN, RFC 7301).
//!
//! So one open port is enough behind a strict firewall, and `http://` typed for an HTTPS port still works.

mod http;

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use bytes::{Bytes, BytesMut};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

use crate::engine::Engine;
use crate::http::Connection;
use crate::live::RtmpServer;
use crate::peeked::Peeked;

/// A peer that has not shown within this time which protocol it speaks is closed. The same time is given to a TLS
/// handshake and to a request's header; it also ends idle keep-alive connections.
const FIRST_BYTES_TIMEOUT: Duration = Duration::from_secs(10);

/// Unacknowledged data is given up after this time, so that a peer that stops reading cannot hold a response forever.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);

/// Pause after a failed `accept` (out of file descriptors, mostly), which would otherwise spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Connections that the kernel may hold for us before they are accepted.
const BACKLOG: i32 = 1024;

/// Length prefix (2), STUN type and length (4), magic cookie (4).
const STUN_PREFIX_BYTES: usize = 10;

/// The protocols that TLS connections may choose from, best first (RFC 7301 §6). RTMP has no name there: its clients
/// choose none.
pub(crate) const ALPN: [&[u8]; 2] = [HTTP_2, b"http/1.1"];
const HTTP_2: &[u8] = b"h2";

/// First byte of an RTMP connection.
const RTMP_VERSION: u8 = 3;

/// RFC 8489 §5.
const STUN_MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xA4, 0x42];

/// Room for one connection.
type Slot = tokio::sync::OwnedSemaphorePermit;

/// Why a listener could not be opened: a sentence for the person who starts the server.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on TCP {address} ({key}): {reason}")]
pub(crate) struct BindError {
    address: SocketAddr,
    key: String,
    reason: String,
}

/// Opens a listening socket. `[::]` takes IPv4 too, and stands for `0.0.0.0` on a host without IPv6. `key` is the
/// configuration key that named the address, for the error.
///
/// # Errors
/// The address is taken, not of this host, or the port needs privileges.
pub(crate) fn bind(address: SocketAddr, key: &str) -> Result<TcpListener, BindError> {
    let opened = match open(address) {
        Err(error) if address.ip() == Ipv6Addr::UNSPECIFIED && lacks_ipv6(&error) => {
            open((Ipv4Addr::UNSPECIFIED, address.port()).into())
        }
        other => other,
    };
    opened.map_err(|error| {
        let reason = match error.kind() {
            io::ErrorKind::AddrInUse => {
                let port = address.port();
                format!("another program uses the port (`ss -ltnp sport = :{port}` shows it); stop it or change {key}")
            }
            io::ErrorKind::PermissionDenied => {
                format!("ports below 1024 need CAP_NET_BIND_SERVICE; choose a higher one in {key}")
            }
            io::ErrorKind::AddrNotAvailable => format!("this host has no such address; correct {key}"),
            _ => error.to_string(),
        };
        BindError { address, key: key.to_owned(), reason }
    })
}

fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // A restart must not wait for the kernel to forget the connections of the last run.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

fn lacks_ipv6(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL | libc::EPROTONOSUPPORT))
}

/// Takes over an ICE-TCP connection with what has been read from it.
pub(crate) type IceTcpHandler =
    Arc<dyn Fn(TcpStream, SocketAddr, Bytes) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// Hands ICE-TCP connections to the engine.
pub(crate) fn ice_tcp_to(engine: Arc<Engine>) -> IceTcpHandler {
    Arc::new(move |stream, peer, read_ahead| {
        let engine = engine.clone();
        Box::pin(async move { engine.serve_ice_tcp(stream, peer, read_ahead).await })
    })
}

/// What all listeners share. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Services {
    /// Answers HTTP.
    pub(crate) router: Router,
    /// Takes ICE-TCP.
    pub(crate) ice_tcp: IceTcpHandler,
    /// Takes RTMP, if that is spoken.
    pub(crate) rtmp: Option<RtmpService>,
    /// Answers TLS. Without it, TLS connections are closed.
    pub(crate) tls: Option<Arc<rustls::ServerConfig>>,
    /// Bounds HTTP connections and those whose protocol is not known yet, over all listeners.
    pub(crate) http_slots: Arc<Semaphore>,
    /// Bounds ICE-TCP connections, over all listeners.
    pub(crate) ice_tcp_slots: Arc<Semaphore>,
}

/// RTMP and its bound, over all listeners.
#[derive(Clone)]
pub(crate) struct RtmpService {
    server: Arc<RtmpServer>,
    slots: Arc<Semaphore>,
}

impl RtmpService {
    /// At most `max_connections` at a time.
    pub(crate) fn new(server: Arc<RtmpServer>, max_connections: usize) -> RtmpService {
        RtmpService { server, slots: Arc::new(Semaphore::new(max_connections)) }
    }
}

impl Services {
    /// Joins the parts with their connection limits.
    pub(crate) fn new(
        router: Router,
        ice_tcp: IceTcpHandler,
        tls: Option<Arc<rustls::ServerConfig>>,
        max_http_connections: usize,
        max_ice_tcp_connections: usize,
    ) -> Services {
        Services {
            router,
            ice_tcp,
            rtmp: None,
            tls,
            http_slots: Arc::new(Semaphore::new(max_http_connections)),
            ice_tcp_slots: Arc::new(Semaphore::new(max_ice_tcp_connections)),
        }
    }

    /// With RTMP.
    pub(crate) fn with_rtmp(self, rtmp: Option<RtmpService>) -> Services {
        Services { rtmp, ..self }
    }

    /// Carries an RTMP connection until it ends. `slot` is that of a connection of unknown protocol.
    async fn serve_rtmp<S>(
        &self,
        stream: S,
        peer: SocketAddr,
        slot: Slot,
        stop: watch::Receiver<bool>,
    ) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let Some(rtmp) = &self.rtmp else { return Err(io::Error::other("RTMP, which is off (rtmp.enabled)")) };
        let Ok(_rtmp_slot) = rtmp.slots.clone().try_acquire_owned() else {
            warn!(%peer, "RTMP connection closed: too many are open (rtmp.max_connections)");
            return Ok(());
        };
        drop(slot);
        rtmp.server.serve(stream, peer, stop).await;
        Ok(())
    }
}

/// Serves until `stop` turns true (or its sender is gone), then lets the requests at hand finish and returns.
/// ICE-TCP connections are not waited for: their sessions end them.
pub(crate) async fn serve(listener: TcpListener, services: Services, mut stop: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    let mut refused: u64 = 0;
    loop {
        tokio::select! {
            () = stopped(&mut stop) => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    let Ok(slot) = services.http_slots.clone().try_acquire_owned() else {
                        refused += 1;
                        if refused.is_power_of_two() {
                            warn!(%peer, refused, "connection closed: too many open, raise the limit or find the client that opens them");
                        }
                        continue;
                    };
                    let (services, stop) = (services.clone(), stop.clone());
                    connections.spawn(async move {
                        if let Err(error) = serve_connection(stream, peer, &services, slot, stop).await {
                            debug!(%peer, %error, "connection ended");
                        }
                    });
                }
                Err(error) => {
                    warn!(%error, "cannot accept connections, trying again");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, which is as good as a stop.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// What the first bytes of a connection say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spoken {
    Http,
    Tls,
    Rtmp,
    IceTcp,
    /// Could still be ICE-TCP.
    Unclear,
    Nothing,
}

fn recognise(first: &[u8]) -> Spoken {
    match first {
        [] => Spoken::Unclear,
        [0x16, ..] => Spoken::Tls,
        [RTMP_VERSION, ..] => Spoken::Rtmp,
        // The high byte of a length up to 767 bytes: longer than any STUN message, and no letter of a method.
        [0x00..=0x02, ..] if first.len() < STUN_PREFIX_BYTES => Spoken::Unclear,
        [0x00..=0x02, ..] => {
            let stun_type_bits = first[2] & 0xC0;
            if stun_type_bits == 0 && first[6..10] == STUN_MAGIC_COOKIE { Spoken::IceTcp } else { Spoken::Nothing }
        }
        _ => Spoken::Http,
    }
}

async fn serve_connection(
    mut stream: TcpStream,
    peer: SocketAddr,
    services: &Services,
    slot: Slot,
    stop: watch::Receiver<bool>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let peer = canonical(peer);
    let local = canonical(stream.local_addr()?);
    let (spoken, read_ahead) = timeout(FIRST_BYTES_TIMEOUT, first_bytes(&mut stream)).await??;
    match (spoken, &services.tls) {
        (Spoken::IceTcp, _) => {
            let Ok(ice_slot) = services.ice_tcp_slots.clone().try_acquire_owned() else {
                return Err(io::Error::other("too many ICE-TCP connections"));
            };
            drop(slot);
            let carry = (services.ice_tcp)(stream, peer, read_ahead);
            tokio::spawn(async move {
                carry.await;
                drop(ice_slot);
            });
            Ok(())
        }
        (Spoken::Tls, Some(config)) => {
            give_up_on_silence(&stream)?;
            let acceptor = TlsAcceptor::from(config.clone());
            let stream = timeout(FIRST_BYTES_TIMEOUT, acceptor.accept(stream)).await??;
            if stream.get_ref().1.alpn_protocol() == Some(HTTP_2) {
                return http::serve_2(stream, Connection { peer, local, tls: true }, services.router.clone(), stop)
                    .await;
            }
            let stream = timeout(FIRST_BYTES_TIMEOUT, Peeked::new(stream)).await??;
            if stream.first() == RTMP_VERSION {
                return services.serve_rtmp(stream, peer, slot, stop).await;
            }
            http::serve_1(stream, Connection { peer, local, tls: true }, services.router.clone(), stop).await
        }
        (Spoken::Tls, None) => Err(io::Error::other("TLS, but no certificate is configured")),
        (Spoken::Rtmp, _) => {
            give_up_on_silence(&stream)?;
            services.serve_rtmp(stream, peer, slot, stop).await
        }
        (Spoken::Http, _) => {
            give_up_on_silence(&stream)?;
            http::serve_1(stream, Connection { peer, local, tls: false }, services.router.clone(), stop).await
        }
        (Spoken::Unclear | Spoken::Nothing, _) => Err(io::Error::other("neither HTTP, TLS, RTMP nor STUN")),
    }
}

/// Reads no more than it takes to tell the protocol; HTTP and TLS are only peeked at, so that their bytes stay where
/// they are.
async fn first_bytes(stream: &mut TcpStream) -> io::Result<(Spoken, Bytes)> {
    let mut first = [0; 1];
    if stream.peek(&mut first).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    match recognise(&first) {
        Spoken::Unclear => {}
        known => return Ok((known, Bytes::new())),
    }
    let mut read_ahead = BytesMut::with_capacity(STUN_PREFIX_BYTES);
    while recognise(&read_ahead) == Spoken::Unclear {
        let missing = (STUN_PREFIX_BYTES - read_ahead.len()) as u64;
        if (&mut *stream).take(missing).read_buf(&mut read_ahead).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok((recognise(&read_ahead), read_ahead.freeze()))
}

/// IPv4 peers of a dual-stack socket appear as mapped IPv6 addresses.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn give_up_on_silence(stream: &TcpStream) -> io::Result<()> {
    let socket = SockRef::from(stream);
    socket.set_tcp_user_timeout(Some(SEND_TIMEOUT))?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(SEND_TIMEOUT))
}

#[cfg(test)]
mod tests;
