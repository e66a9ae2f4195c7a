//! Addresses of hooks.

use std::fmt;

use hyper::Uri;

/// Where a hook is called.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct HookUrl {
    uri: Uri,
    is_https: bool,
    /// Without the brackets of an IPv6 address.
    host: String,
    port: u16,
}

impl HookUrl {
    /// Reads an address.
    ///
    /// # Errors
    /// It is none; the text says what to write.
    pub(crate) fn parse(text: &str) -> Result<HookUrl, String> {
        let wanted = || "write a URL such as \"http://127.0.0.1:8085/hook\"".to_owned();
        let uri: Uri = text.parse().map_err(|_| wanted())?;
        let is_https = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(wanted()),
        };
        let authority = uri.authority().ok_or_else(wanted)?;
        if authority.as_str().contains('@') {
            return Err("a user and password in the URL are not sent: use a token in the query".to_owned());
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(wanted());
        }
        let port = authority.port_u16().unwrap_or(if is_https { 443 } else { 80 });
        Ok(HookUrl { is_https, host, port, uri })
    }

    pub(super) fn is_https(&self) -> bool {
        self.is_https
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// What the `Host` header says.
    pub(super) fn authority(&self) -> &str {
        self.uri.authority().map(|authority| authority.as_str()).unwrap_or_default()
    }

    /// What the request line says.
    pub(super) fn path(&self) -> &str {
        self.uri.path_and_query().map_or("/", |path| path.as_str())
    }
}

/// Without the query, which may hold a secret.
impl fmt::Display for HookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_https { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.uri.path())
    }
}

impl fmt::Debug for HookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HookUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_apart() {
        for (text, https, host, port, path, shown) in [
            ("http://h/a?token=x", false, "h", 80, "/a?token=x", "http://h/a"),
            ("https://h.example", true, "h.example", 443, "/", "https://h.example/"),
            ("http://[::1]:8085/hook", false, "::1", 8085, "/hook", "http://[::1]:8085/hook"),
        ] {
            let url = HookUrl::parse(text).unwrap();
            assert_eq!((url.is_https(), url.host(), url.port(), url.path()), (https, host, port, path), "{text}");
            assert_eq!(url.to_string(), shown);
        }
        for text in ["", "h/a", "ftp://h/", "/hook", "http://", "http://u:p@h/", "http://h h/"] {
            assert!(HookUrl::parse(text).is_err(), "{text:?}");
        }
    }
}
