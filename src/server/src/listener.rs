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
//! So one open port is enough behind a strict firewall, and `http://` typed for an HTTPS port still works.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::header::CONTENT_LENGTH;
use axum::http::{Request, StatusCode};
use bytes::{Bytes, BytesMut};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;
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

/// Largest request head, in bytes.
const MAX_HEAD_BYTES: usize = 32 * 1024;

/// Length prefix (2), STUN type and length (4), magic cookie (4).
const STUN_PREFIX_BYTES: usize = 10;

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
            let stream = timeout(FIRST_BYTES_TIMEOUT, Peeked::new(stream)).await??;
            if stream.first() == RTMP_VERSION {
                return services.serve_rtmp(stream, peer, slot, stop).await;
            }
            serve_http(stream, Connection { peer, local, tls: true }, services.router.clone(), stop).await
        }
        (Spoken::Tls, None) => Err(io::Error::other("TLS, but no certificate is configured")),
        (Spoken::Rtmp, _) => {
            give_up_on_silence(&stream)?;
            services.serve_rtmp(stream, peer, slot, stop).await
        }
        (Spoken::Http, _) => {
            give_up_on_silence(&stream)?;
            serve_http(stream, Connection { peer, local, tls: false }, services.router.clone(), stop).await
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

async fn serve_http<S>(
    stream: S,
    connection: Connection,
    router: Router,
    mut stop: watch::Receiver<bool>,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(connection);
        let answer = router.clone().oneshot(request);
        async move {
            let mut response = answer.await?;
            if response.status() == StatusCode::NO_CONTENT {
                // RFC 9110 §8.6 forbids it here; axum adds it to the answers to HEAD.
                response.headers_mut().remove(CONTENT_LENGTH);
            }
            Ok::<_, Infallible>(response)
        }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(FIRST_BYTES_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut serving = std::pin::pin!(serving);
    tokio::select! {
        ended = serving.as_mut() => return ended.map_err(io::Error::other),
        () = stopped(&mut stop) => {}
    }
    serving.as_mut().graceful_shutdown();
    serving.await.map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
    use tokio::io::AsyncWriteExt;
    use tokio::sync::mpsc;
    use tokio_rustls::TlsConnector;

    use super::*;

    const STUN: [u8; 22] = *b"\x00\x14\x00\x01\x00\x00\x21\x12\xA4\x42transaction!";
    const REQUEST: &[u8] = b"GET /peer HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

    /// A listener on a loopback port, and what reached the ICE-TCP side.
    struct Running {
        address: SocketAddr,
        ice_tcp: mpsc::Receiver<Bytes>,
        stop: watch::Sender<bool>,
        serving: tokio::task::JoinHandle<()>,
    }

    fn run(tls: Option<Arc<rustls::ServerConfig>>, max_http_connections: usize) -> Running {
        let router = Router::new()
            .route(
                "/peer",
                get(async |request: Request<Body>| {
                    let connection = request.extensions().get::<Connection>().copied().unwrap();
                    format!("{} {} {}", connection.peer.ip(), connection.local.ip(), connection.tls)
                }),
            )
            .route("/nothing", get(async || StatusCode::NO_CONTENT));
        let (sender, ice_tcp) = mpsc::channel(4);
        let handler: IceTcpHandler = Arc::new(move |mut stream, _, read_ahead| {
            let sender = sender.clone();
            Box::pin(async move {
                let mut bytes = read_ahead.to_vec();
                let _ = stream.read_to_end(&mut bytes).await;
                let _ = sender.send(bytes.into()).await;
            })
        });
        let listener = bind("127.0.0.1:0".parse().unwrap(), "test").unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopping) = watch::channel(false);
        let services = Services::new(router, handler, tls, max_http_connections, 4);
        let serving = tokio::spawn(serve(listener, services, stopping));
        Running { address, ice_tcp, stop, serving }
    }

    fn certificate() -> (Arc<rustls::ServerConfig>, Arc<rustls::ClientConfig>) {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let made = rcgen::generate_simple_self_signed(["media.example".to_owned()]).unwrap();
        let der: CertificateDer<'static> = made.cert.der().clone();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let server = rustls::ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![der.clone()], key)
            .unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(der).unwrap();
        let client = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        (Arc::new(server), Arc::new(client))
    }

    async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &[u8]) -> String {
        stream.write_all(request).await.unwrap();
        let mut response = Vec::new();
        // A closed TLS stream may lack its last alert; what came before counts.
        let _ = stream.read_to_end(&mut response).await;
        String::from_utf8(response).unwrap()
    }

    #[test]
    fn protocols_are_told_apart() {
        assert_eq!(recognise(b""), Spoken::Unclear);
        assert_eq!(recognise(&[0x16, 3, 1]), Spoken::Tls);
        assert_eq!(recognise(b"GET / HTTP/1.1"), Spoken::Http);
        for len in 1..STUN_PREFIX_BYTES {
            assert_eq!(recognise(&STUN[..len]), Spoken::Unclear, "{len}");
        }
        assert_eq!(recognise(&STUN[..STUN_PREFIX_BYTES]), Spoken::IceTcp);
        let mut wrong_cookie = STUN;
        wrong_cookie[6] ^= 1;
        assert_eq!(recognise(&wrong_cookie), Spoken::Nothing);
        let mut no_stun_type = STUN;
        no_stun_type[2] = 0x80;
        assert_eq!(recognise(&no_stun_type), Spoken::Nothing);
    }

    #[tokio::test]
    async fn one_port_speaks_all_three() {
        let (server_config, client_config) = certificate();
        let mut running = run(Some(server_config), 8);

        let plain = exchange(TcpStream::connect(running.address).await.unwrap(), REQUEST).await;
        assert!(plain.starts_with("HTTP/1.1 200") && plain.ends_with("127.0.0.1 127.0.0.1 false"), "{plain}");

        let tcp = TcpStream::connect(running.address).await.unwrap();
        let name = ServerName::try_from("media.example").unwrap();
        let tls = TlsConnector::from(client_config).connect(name, tcp).await.unwrap();
        let secure = exchange(tls, REQUEST).await;
        assert!(secure.starts_with("HTTP/1.1 200") && secure.ends_with("127.0.0.1 127.0.0.1 true"), "{secure}");

        let mut ice = TcpStream::connect(running.address).await.unwrap();
        for byte in STUN {
            ice.write_all(&[byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        ice.shutdown().await.unwrap();
        assert_eq!(running.ice_tcp.recv().await.unwrap(), STUN[..]);
    }

    #[tokio::test]
    async fn no_content_has_no_length() {
        let running = run(None, 8);
        for method in ["GET", "HEAD"] {
            let request = format!("{method} /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            let stream = TcpStream::connect(running.address).await.unwrap();
            let response = exchange(stream, request.as_bytes()).await.to_lowercase();
            assert!(response.starts_with("http/1.1 204") && !response.contains("content-length"), "{response}");
        }
    }

    #[tokio::test]
    async fn tls_without_a_certificate_and_garbage_are_closed() {
        let running = run(None, 8);
        for bytes in [&[0x16, 3, 1, 0, 5][..], &[0, 20, 9, 9, 9, 9, 9, 9, 9, 9], &[0]] {
            let mut stream = TcpStream::connect(running.address).await.unwrap();
            stream.write_all(bytes).await.unwrap();
            stream.shutdown().await.unwrap();
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
            assert!(rest.is_empty(), "{bytes:?}");
        }
    }

    #[tokio::test]
    async fn connections_beyond_the_limit_are_closed() {
        let running = run(None, 1);
        let mut first = TcpStream::connect(running.address).await.unwrap();
        first.write_all(b"GET /peer HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut begin = [0; 12];
        first.read_exact(&mut begin).await.unwrap();
        assert_eq!(&begin, b"HTTP/1.1 200");
        let mut second = TcpStream::connect(running.address).await.unwrap();
        assert_eq!(second.read(&mut begin).await.unwrap_or(0), 0);
    }

    #[tokio::test]
    async fn stopping_ends_idle_connections_and_returns() {
        let running = run(None, 8);
        let mut idle = TcpStream::connect(running.address).await.unwrap();
        idle.write_all(b"GET /peer HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut begin = [0; 12];
        idle.read_exact(&mut begin).await.unwrap();
        running.stop.send(true).unwrap();
        timeout(Duration::from_secs(5), running.serving).await.expect("serve returns").unwrap();
        assert!(TcpStream::connect(running.address).await.is_err());
    }

    #[tokio::test]
    async fn a_taken_port_is_explained() {
        let running = run(None, 1);
        let error = bind(running.address, "http.listen").unwrap_err().to_string();
        assert!(error.contains(&running.address.to_string()) && error.contains("(http.listen)"), "{error}");
        assert!(error.contains("another program uses the port"), "{error}");
    }
}
