//! Who may publish and play: the tokens of the configuration. Every protocol asks here, before the media side hears of a
//! client.

use crate::engine::{Refusal, Role};
use crate::srs_code as code;
use crate::url::query::Query;

/// Tokens by role. A role without tokens is open to everybody.
#[derive(Debug, Clone, Default)]
pub(crate) struct Access {
    /// Tokens that may publish.
    pub(crate) publish: Vec<String>,
    /// Tokens that may play.
    pub(crate) play: Vec<String>,
}

impl Access {
    /// Passes a client that shows a token of the role, and everybody when the role has none.
    ///
    /// # Errors
    /// No token, or none of those.
    pub(crate) fn check(&self, role: Role, shown: Option<&str>) -> Result<(), Refusal> {
        let (known, verb, key) = match role {
            Role::Publish => (&self.publish, "publish", "publish.tokens"),
            Role::Play => (&self.play, "play", "play.tokens"),
        };
        if known.is_empty() {
            return Ok(());
        }
        let Some(shown) = shown else {
            return Err(Refusal::new(
                401,
                code::SECURITY_DENY,
                "unauthorized",
                format!("a token is needed to {verb} here, and the request has none"),
                "send `Authorization: Bearer TOKEN` (OBS: the field \"Bearer Token\") or add ?token=TOKEN to the URL",
            ));
        };
        // Every token is compared, so that the time tells nothing about which one came close.
        let matches = known.iter().fold(false, |found, token| found | equal(token.as_bytes(), shown.as_bytes()));
        if matches {
            return Ok(());
        }
        Err(Refusal::new(
            401,
            code::SECURITY_DENY,
            "unauthorized",
            format!("the token of the request is none of those that may {verb}"),
            format!("compare it with {key} of the server's configuration"),
        ))
    }
}

/// The token that a query carries, under either of its names.
pub(crate) fn token_of(query: Query<'_>) -> Option<String> {
    query.get_verbatim("token").or_else(|| query.get_verbatim("secret"))
}

/// Compares in a time that depends on the lengths alone.
fn equal(a: &[u8], b: &[u8]) -> bool {
    let differing = a.iter().zip(b).fold(0, |bits, (a, b)| bits | (a ^ b));
    std::hint::black_box(differing) == 0 && a.len() == b.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_without_tokens_is_open() {
        let access = Access { publish: vec!["one".into(), "two".into()], play: Vec::new() };
        assert!(access.check(Role::Play, None).is_ok());
        assert!(access.check(Role::Publish, None).is_err());
        assert!(access.check(Role::Publish, Some("two")).is_ok());
        assert!(access.check(Role::Publish, Some("tw")).is_err());
        assert!(access.check(Role::Publish, Some("onetwo")).is_err());
    }
}
