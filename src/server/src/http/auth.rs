//! Tokens in HTTP requests: `Authorization: Bearer` (RFC 6750), or `?token=` or `?secret=` of clients that can set nothing
//! but a URL.

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;

use super::HttpSettings;
use crate::access::token_of;
use crate::engine::{Refusal, Role};
use crate::url::query::Query;

/// Passes a request that carries a token of the role, and every request when the role has no tokens. `queries` are
/// searched in order.
pub(super) fn authorise(
    settings: &HttpSettings,
    role: Role,
    headers: &HeaderMap,
    queries: &[Query<'_>],
) -> Result<(), Refusal> {
    settings.access.check(role, shown(headers, queries).as_deref())
}

/// The token that a request shows.
pub(super) fn shown(headers: &HeaderMap, queries: &[Query<'_>]) -> Option<String> {
    bearer(headers).map(str::to_owned).or_else(|| queries.iter().copied().find_map(token_of))
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
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
    use crate::access::Access;

    fn settings() -> HttpSettings {
        let access = Access { publish: vec!["one".into(), "tw+o".into()], play: Vec::new() };
        HttpSettings { access, ..HttpSettings::default() }
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
