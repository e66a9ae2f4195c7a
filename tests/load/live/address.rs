//! Where streams are played and published.

use anyhow::{Context, Result, bail};

/// Which protocol an address means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Protocol {
    /// With the parts that `connect` and `play` carry.
    Rtmp { app: String, stream: String },
    /// With the path to get.
    Flv { path: String },
}

/// A stream at a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    /// Host and port.
    pub(super) authority: String,
    pub(super) protocol: Protocol,
}

impl Address {
    /// `rtmp://host[:port]/app/stream` or `http://host[:port]/path`.
    pub(super) fn parse(text: &str) -> Result<Address> {
        let (scheme, rest) = text.split_once("://").with_context(|| format!("{text}: no address"))?;
        let (host, path) = rest.split_once('/').with_context(|| format!("{text}: the stream is missing"))?;
        let port = match scheme {
            "rtmp" => 1935,
            "http" => 80,
            _ => bail!("{text}: only rtmp:// and http:// are supported"),
        };
        if host.is_empty() || path.is_empty() {
            bail!("{text}: host or stream is missing");
        }
        let has_port = host.rfind(':').is_some_and(|at| !host[at..].contains(']'));
        let authority = if has_port { host.to_owned() } else { format!("{host}:{port}") };
        if scheme == "http" {
            return Ok(Address { authority, protocol: Protocol::Flv { path: format!("/{path}") } });
        }
        let (app, stream) = path.split_once('/').with_context(|| format!("{text}: give an app and a stream"))?;
        Ok(Address { authority, protocol: Protocol::Rtmp { app: app.to_owned(), stream: stream.to_owned() } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_apart() {
        let rtmp = |authority: &str, app: &str, stream: &str| Address {
            authority: authority.into(),
            protocol: Protocol::Rtmp { app: app.into(), stream: stream.into() },
        };
        let flv = |authority: &str, path: &str| Address {
            authority: authority.into(),
            protocol: Protocol::Flv { path: path.into() },
        };
        for (text, address) in [
            ("rtmp://h/live/cam?token=a", Some(rtmp("h:1935", "live", "cam?token=a"))),
            ("rtmp://[::1]:19/live/cam", Some(rtmp("[::1]:19", "live", "cam"))),
            ("http://[::1]/live/cam.flv", Some(flv("[::1]:80", "/live/cam.flv"))),
            ("rtmp://h/live", None),
            ("srt://h/live/cam", None),
            ("http:///x", None),
        ] {
            assert_eq!(Address::parse(text).ok(), address, "{text}");
        }
    }
}
