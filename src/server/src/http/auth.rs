//! Who may publish, play or kick: bearer tokens (RFC 6750) of the configuration, sent as `Authorization: Bearer`, or as
//! `?token=` or `?secret=` by clients that can set nothing but a URL.

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;

use super::HttpSettings;
use super::query::Query;
use crate::engine::{Refusal, Role};
use crate::srs_code as code;

impl HttpSettings {
    fn tokens(&self, role: Role) -> &[String] {
        match role {
            Role::Publish => &self.publish_tokens,
            Role::Play => &self.play_tokens,
        }
    }
}

/// Passes a request that carries a token of the role, and every request when the role has no tokens. `queries` are
/// searched in order.
pub(super) fn authorise(
    settings: &HttpSettings,
    role: Role,
    headers: &HeaderMap,
    queries: &[Query<'_>],
) -> Result<(), Refusal> {
    let known = settings.tokens(role);
    if known.is_empty() {
        return Ok(());
    }
    let (verb, key) = match role {
        Role::Publish => ("publish", "publish.tokens"),
        Role::Play => ("play", "play.tokens"),
    };
    let Some(shown) = shown_token(headers, queries) else {
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

fn shown_token(headers: &HeaderMap, queries: &[Query<'_>]) -> Option<String> {
    bearer(headers).map(str::to_owned).or_else(|| {
        queries.iter().find_map(|query| query.get_verbatim("token").or_else(|| query.get_verbatim("secret")))
    })
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// Compares in a time that depends on the lengths alone.
fn equal(a: &[u8], b: &[u8]) -> bool {
    let differing = a.iter().zip(b).fold(0, |bits, (a, b)| bits | (a ^ b));
    std::hint::black_box(differing) == 0 && a.len() == b.len()
}

/// Adds the challenge that a 401 must have (RFC 9110 §11.6.1).
pub(super) fn challenge(mut response: Response) -> Response {
    if response.status() == 401 {
        let value = HeaderValue::from_static("Bearer realm=\"freshet\"");
        response.headers_mut().insert(axum::http::header::WWW_AUTHENTICATE, value);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> HttpSettings {
        HttpSettings { publish_tokens: vec!["one".into(), "tw+o".into()], ..HttpSettings::default() }
    }

    fn with_header(value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static(value))])
    }

    #[test]
    fn only_known_tokens_pass() {
        let cases = [
            ("Bearer one", "", true),
            ("bearer  tw+o ", "", true),
            ("Basic one", "", false),
            ("Bearer on", "", false),
            ("Bearer onee", "", false),
            ("Bearer ", "", false),
            ("Basic b25l", "token=one", true),
            ("Basic b25l", "app=live&secret=tw+o", true),
            ("Basic b25l", "secret=tw%2Bo", true),
            ("Basic b25l", "token=two", false),
            ("Bearer wrong", "token=one", false),
        ];
        for (header, query, passes) in cases {
            let outcome = authorise(&settings(), Role::Publish, &with_header(header), &[Query::new(query)]);
            assert_eq!(outcome.is_ok(), passes, "{header:?} {query:?}");
        }
    }

    #[test]
    fn without_tokens_everybody_passes() {
        assert!(authorise(&settings(), Role::Play, &with_header("Bearer whatever"), &[]).is_ok());
        assert!(authorise(&settings(), Role::Play, &HeaderMap::new(), &[]).is_ok());
    }
}
