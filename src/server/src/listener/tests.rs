//! Every protocol on one port, with sockets of this host.

use axum::body::Body;
use axum::http::{Request, StatusCode};
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
    let mut server = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![der.clone()], key)
        .unwrap();
    server.alpn_protocols = ALPN.map(<[u8]>::to_vec).to_vec();
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
async fn tls_speaks_http_2_to_those_who_ask_for_it() {
    const PREFACE_AND_SETTINGS: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    const SETTINGS: u8 = 4;
    let (server, client) = certificate();
    let running = run(Some(server), 8);
    for (offered, agreed) in
        [(&[&b"h2"[..], b"http/1.1"][..], Some(&b"h2"[..])), (&[b"http/1.1"], Some(b"http/1.1")), (&[], None)]
    {
        let mut client = (*client).clone();
        client.alpn_protocols = offered.iter().map(|name| name.to_vec()).collect();
        let stream = TcpStream::connect(running.address).await.unwrap();
        let name = ServerName::try_from("media.example").unwrap();
        let mut stream = TlsConnector::from(Arc::new(client)).connect(name, stream).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), agreed);
        if agreed == Some(HTTP_2) {
            stream.write_all(PREFACE_AND_SETTINGS).await.unwrap();
            let mut frame = [0; 9];
            stream.read_exact(&mut frame).await.unwrap();
            assert_eq!(frame[3], SETTINGS);
        } else {
            let response = exchange(stream, REQUEST).await;
            assert!(response.starts_with("HTTP/1.1 200"), "{response}");
        }
    }
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

#[tokio::test]
async fn a_client_that_agrees_on_http_2_and_says_nothing_is_not_waited_for() {
    let (server, client) = certificate();
    let running = run(Some(server), 8);
    let mut client = (*client).clone();
    client.alpn_protocols = vec![HTTP_2.to_vec()];
    let stream = TcpStream::connect(running.address).await.unwrap();
    let name = ServerName::try_from("media.example").unwrap();
    let _silent = TlsConnector::from(Arc::new(client)).connect(name, stream).await.unwrap();
    running.stop.send(true).unwrap();
    timeout(Duration::from_secs(5), running.serving).await.expect("serve returns").unwrap();
}
