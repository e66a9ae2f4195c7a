//! As much HTTP/1.1 client as WHIP and WHEP need (RFC 9112): one request per connection, no TLS, no redirects.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A server that takes longer has failed.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// No answer of a WHIP or WHEP server is near this size.
const MAX_RESPONSE_BYTES: u64 = 1 << 20;

/// An `http:` URL in the parts that a request needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Url {
    authority: String,
    target: String,
}

impl Url {
    pub(crate) fn parse(text: &str) -> Result<Url> {
        let Some(rest) = text.strip_prefix("http://") else {
            bail!("{text}: only http:// URLs are supported");
        };
        let at = rest.find('/').unwrap_or(rest.len());
        let (authority, target) = rest.split_at(at);
        if authority.is_empty() {
            bail!("{text}: the host is missing");
        }
        Ok(Url { authority: authority.to_owned(), target: if target.is_empty() { "/" } else { target }.to_owned() })
    }

    /// A `Location` seen from this URL: absolute, or a path on the same host.
    pub(crate) fn resolve(&self, location: &str) -> Result<Url> {
        if location.contains("://") {
            return Url::parse(location);
        }
        let target = if location.starts_with('/') {
            location.to_owned()
        } else {
            let path = self.target.split('?').next().unwrap_or_default();
            let folder = path.rfind('/').map_or("/", |at| &path[..=at]);
            format!("{folder}{location}")
        };
        Ok(Url { authority: self.authority.clone(), target })
    }

    fn connect_to(&self) -> String {
        let port_at = self.authority.rfind(':').filter(|at| !self.authority[*at..].contains(']'));
        if port_at.is_some() { self.authority.clone() } else { format!("{}:80", self.authority) }
    }
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// Sends a request and reads the whole answer.
pub(crate) async fn request(method: &str, url: &Url, bearer: Option<&str>, sdp: Option<&str>) -> Result<Response> {
    let exchange = async {
        let address = url.connect_to();
        let mut stream = TcpStream::connect(&address).await.with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        stream.write_all(head(method, url, bearer, sdp).as_bytes()).await?;
        let mut raw = Vec::with_capacity(8192);
        // `Connection: close` makes the end of the stream the end of the answer.
        stream.take(MAX_RESPONSE_BYTES).read_to_end(&mut raw).await?;
        parse(&raw)
    };
    timeout(REQUEST_TIMEOUT, exchange)
        .await
        .unwrap_or_else(|_| bail!("no answer within {} s", REQUEST_TIMEOUT.as_secs()))
        .with_context(|| format!("{method} http://{}{}", url.authority, url.target))
}

fn head(method: &str, url: &Url, bearer: Option<&str>, sdp: Option<&str>) -> String {
    let mut text = format!(
        "{method} {} HTTP/1.1\r\nHost: {}\r\nAccept: application/sdp\r\nConnection: close\r\n",
        url.target, url.authority
    );
    if let Some(token) = bearer {
        text.push_str(&format!("Authorization: Bearer {token}\r\n"));
    }
    if let Some(sdp) = sdp {
        text.push_str(&format!("Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{sdp}", sdp.len()));
    } else {
        text.push_str("\r\n");
    }
    text
}

fn parse(raw: &[u8]) -> Result<Response> {
    let end = raw.windows(4).position(|four| four == b"\r\n\r\n").context("the answer has no complete header")?;
    let head = String::from_utf8_lossy(&raw[..end]);
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok());
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()))
        .collect();
    let mut response = Response { status: status.context("the answer has no status")?, headers, body: String::new() };
    let mut body = &raw[end + 4..];
    let joined;
    if response.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
        joined = join_chunks(body)?;
        body = &joined;
    } else if let Some(length) = response.header("content-length").and_then(|value| value.parse().ok()) {
        body = body.get(..length).context("the answer was cut short")?;
    }
    response.body = String::from_utf8_lossy(body).into_owned();
    Ok(response)
}

fn join_chunks(mut rest: &[u8]) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|two| two == b"\r\n").context("a chunk has no size line")?;
        let size = std::str::from_utf8(&rest[..end])?.split(';').next().unwrap_or_default();
        let size = usize::from_str_radix(size.trim(), 16).context("a chunk has no size")?;
        if size == 0 {
            return Ok(body);
        }
        let chunk = rest.get(end + 2..end + 2 + size).context("a chunk was cut short")?;
        body.extend_from_slice(chunk);
        rest = rest.get(end + 4 + size..).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn location_may_be_absolute_rooted_or_relative() {
        let url = Url::parse("http://h:1985/rtc/v1/whip/?app=live").expect("a URL");
        assert_eq!(url.resolve("/session/x").expect("a path").target, "/session/x");
        assert_eq!(url.resolve("x?y").expect("a path").target, "/rtc/v1/whip/x?y");
        assert_eq!(url.resolve("http://o/p").expect("a URL"), Url::parse("http://o/p").expect("a URL"));
    }

    #[test]
    fn ports_default_to_80_also_for_ipv6() {
        for (text, address) in
            [("http://h/x", "h:80"), ("http://[::1]/x", "[::1]:80"), ("http://[::1]:8080", "[::1]:8080")]
        {
            assert_eq!(Url::parse(text).expect("a URL").connect_to(), address);
        }
    }

    #[test]
    fn reads_both_framings_and_refuses_cut_answers() {
        let plain = parse(b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\nlocation: /s\r\n\r\nok+").expect("an answer");
        assert_eq!((plain.status, plain.body.as_str(), plain.header("Location")), (201, "ok", Some("/s")));
        let chunked = parse(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1;x\r\nc\r\n0\r\n\r\n");
        assert_eq!(chunked.expect("an answer").body, "abc");
        assert!(parse(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab").is_err());
        assert!(parse(b"HTTP/1.1 200 OK\r\n").is_err());
    }
}
