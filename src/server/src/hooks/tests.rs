use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

/// A server of a few lines: answers in turn what it is told, and gives away what it was asked.
async fn server(answers: &'static [&'static str]) -> (String, mpsc::Receiver<(String, Value)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook?token=s", listener.local_addr().unwrap());
    let (sender, received) = mpsc::channel(100);
    tokio::spawn(async move {
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (mut text, mut buffer) = (Vec::new(), [0; 4096]);
            let (head, body) = loop {
                let count = stream.read(&mut buffer).await.unwrap();
                assert!(count > 0, "the request is cut off");
                text.extend_from_slice(&buffer[..count]);
                let whole = String::from_utf8(text.clone()).unwrap();
                if let Some((head, body)) = whole.split_once("\r\n\r\n")
                    && let Ok(body) = serde_json::from_str::<Value>(body)
                {
                    break (head.to_lowercase(), body);
                }
            };
            sender.send((head, body)).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (url, received)
}

const YES: &str = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{\"code\":0}";
const NO: &str = "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n";

fn hooks(url: &str) -> Hooks {
    let timing = Timing { timeout: Duration::from_secs(5), retry_after: [Duration::ZERO; 3] };
    let urls = vec![(Action::OnDvr, vec![HookUrl::parse(url).unwrap()])];
    Hooks::start(&HookSettings { urls, timing }, &Identity::new())
}

fn delivered(hooks: &Hooks) -> (u64, u64) {
    let of =
        |wanted| hooks.metrics().iter().find(|(a, outcome, _)| *a == Action::OnDvr && *outcome == wanted).unwrap().2;
    (of("delivered"), of("failed"))
}

#[tokio::test]
async fn events_arrive_in_the_shape_of_srs() {
    let (url, mut received) = server(&[YES]).await;
    let hooks = hooks(&url);
    let key = StreamKey::new("v.example", "live", "cam").unwrap();
    hooks.notify(Action::OnRecord, &key, None, json!({}));
    hooks.notify(Action::OnDvr, &key, None, json!({ "cwd": "/srv", "file": "a.mp4" }));
    let (head, body) = received.recv().await.unwrap();
    assert!(
        head.starts_with("post /hook?token=s http/1.1\r\n") && head.contains("content-type: application/json"),
        "{head}"
    );
    for (name, value) in [
        ("action", "on_dvr"),
        ("vhost", "v.example"),
        ("app", "live"),
        ("stream", "cam"),
        ("stream_url", "/live/cam"),
        ("cwd", "/srv"),
        ("file", "a.mp4"),
        ("client_id", ""),
    ] {
        assert_eq!(body[name], value, "{name}");
    }
    assert!(body["server_id"].as_str().unwrap().starts_with("vid-"));
    hooks.drain().await;
    assert_eq!(delivered(&hooks), (1, 0));
}

#[tokio::test]
async fn a_refused_event_is_sent_again_and_order_is_kept() {
    let (url, mut received) = server(&[NO, YES, YES]).await;
    let hooks = hooks(&url);
    let key = StreamKey::new("", "live", "cam").unwrap();
    for file in ["one", "two"] {
        hooks.notify(Action::OnDvr, &key, None, json!({ "file": file }));
    }
    let mut files = Vec::new();
    for _ in 0..3 {
        files.push(received.recv().await.unwrap().1["file"].clone());
    }
    assert_eq!(files, ["one", "one", "two"]);
    hooks.drain().await;
    assert_eq!(delivered(&hooks), (2, 0));
}

#[tokio::test]
async fn a_dead_url_is_given_up_and_its_queue_is_bounded() {
    // A port that was free a moment ago.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    let hooks = hooks(&url);
    let key = StreamKey::new("", "live", "cam").unwrap();
    for _ in 0..QUEUED_EVENTS + 50 {
        hooks.notify(Action::OnDvr, &key, None, json!({}));
    }
    hooks.drain().await;
    let dropped = hooks.metrics().iter().find(|(_, outcome, count)| *outcome == "dropped" && *count > 0).unwrap().2;
    assert_eq!(delivered(&hooks), (0, QUEUED_EVENTS as u64 + 50 - dropped));
    assert!((49..=51).contains(&dropped), "{dropped}");
}

/// A TLS server that answers once, and its certificate.
async fn tls_server() -> (HookUrl, rustls::pki_types::CertificateDer<'static>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    let listener = TcpListener::bind("localhost:0").await.unwrap();
    let url = format!("https://localhost:{}/", listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        while let Ok((stream, _)) = listener.accept().await {
            // A client that does not trust us hangs up.
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(YES.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    (HookUrl::parse(&url).unwrap(), certificate)
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_is_refused() {
    let (url, certificate) = tls_server().await;
    let trusting = |roots: Vec<_>| tls_client::checking_against(roots).unwrap();
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap().cert.der().clone();
    let refused = call::post(&url, Some(&trusting(vec![other])), Bytes::from_static(b"{}")).await;
    assert!(refused.as_ref().is_err_and(|error| error.starts_with("TLS failed")), "{refused:?}");
    let called = call::post(&url, Some(&trusting(vec![certificate])), Bytes::from_static(b"{}")).await;
    assert_eq!(called, Ok(()));
}
