//! `application/trickle-ice-sdpfrag` (RFC 8840 §9): the body of a WHIP or WHEP `PATCH`.

use super::offer::check_ice_credentials;

/// What a fragment says. Its candidates are not kept: an ICE-lite side learns the peer's addresses from its checks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fragment {
    /// User name fragment and password, where the fragment carries them.
    pub credentials: Option<(String, String)>,
    /// Number of `a=candidate` lines.
    pub candidates: usize,
    /// `a=end-of-candidates` was there.
    pub end_of_candidates: bool,
}

/// Why a fragment cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FragmentError(String);

impl Fragment {
    /// Parses a fragment.
    ///
    /// # Errors
    /// Text that is not SDP, half a pair of credentials, or nothing at all.
    pub fn parse(text: &str) -> Result<Fragment, FragmentError> {
        let mut fragment = Fragment { credentials: None, candidates: 0, end_of_candidates: false };
        let (mut ufrag, mut pwd) = (None, None);
        for line in text.lines().map(str::trim).filter(|l| !l.is_empty()) {
            let Some((_, value)) = line.split_once('=').filter(|(name, _)| name.len() == 1) else {
                let start: String = line.chars().take(40).collect();
                return Err(FragmentError(format!("not a line of an SDP fragment: \"{start}\"")));
            };
            if let Some(v) = value.strip_prefix("ice-ufrag:") {
                ufrag.get_or_insert(v.trim());
            } else if let Some(v) = value.strip_prefix("ice-pwd:") {
                pwd.get_or_insert(v.trim());
            } else if value.starts_with("candidate:") {
                fragment.candidates += 1;
            } else if value == "end-of-candidates" {
                fragment.end_of_candidates = true;
            }
        }
        match (ufrag, pwd) {
            (Some(ufrag), Some(pwd)) => {
                check_ice_credentials(ufrag, pwd).map_err(|e| FragmentError(e.to_string()))?;
                fragment.credentials = Some((ufrag.to_owned(), pwd.to_owned()));
            }
            (None, None) if fragment.candidates > 0 || fragment.end_of_candidates => {}
            (None, None) => {
                return Err(FragmentError("the fragment has neither candidates nor ICE credentials".into()));
            }
            (Some(_), None) if fragment.candidates > 0 || fragment.end_of_candidates => {}
            _ => return Err(FragmentError("a=ice-ufrag and a=ice-pwd have to come together".into())),
        }
        Ok(fragment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_alone_are_a_trickle() {
        let f = Fragment::parse("a=mid:0\r\na=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\na=end-of-candidates\r\n")
            .unwrap();
        assert_eq!(f, Fragment { credentials: None, candidates: 1, end_of_candidates: true });
    }

    #[test]
    fn credentials_come_in_pairs() {
        assert!(Fragment::parse("a=ice-pwd:0123456789012345678901").is_err());
        assert!(Fragment::parse("a=ice-ufrag:abcd").is_err());
        assert!(Fragment::parse("a=ice-ufrag:abcd\na=ice-pwd:short").is_err());
        assert!(Fragment::parse("").is_err());
        assert!(Fragment::parse("hello").is_err());
        let f = Fragment::parse("a=ice-ufrag:abcd\na=ice-pwd:0123456789012345678901").unwrap();
        assert_eq!(f.credentials.unwrap().0, "abcd");
    }
}
