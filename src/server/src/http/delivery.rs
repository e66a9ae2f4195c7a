//! How files of a stream are given out: what caches may keep and for how long (RFC 9111), parts of files for those who
//! ask for a range (RFC 9110 §14), texts compressed for those who can read that (§8.4).
//!
//! What was allowed by a header may be kept by the asker's own cache only: a shared one looks at addresses alone. What
//! was allowed by a token in the address is another address than the same without it.

use axum::http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, AUTHORIZATION, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_RANGE, CONTENT_TYPE,
    IF_RANGE, RANGE, VARY,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;

use crate::hls::PlaylistText;

/// How long a cache may keep an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lifetime {
    seconds: u32,
    /// It will never be different.
    is_immutable: bool,
}

impl Lifetime {
    /// Of something that changes.
    pub(super) const fn seconds(seconds: u32) -> Lifetime {
        Lifetime { seconds, is_immutable: false }
    }

    /// Of something whose name is never used again. A day outlives every playlist that lists it.
    pub(super) const IMMUTABLE: Lifetime = Lifetime { seconds: 86_400, is_immutable: true };

    fn header(self, request: &HeaderMap) -> HeaderValue {
        let whose = if request.contains_key(AUTHORIZATION) { "private, " } else { "" };
        let how = if self.is_immutable { ", immutable" } else { "" };
        let text = format!("{whose}max-age={}{how}", self.seconds);
        HeaderValue::try_from(text).unwrap_or(NOT_KEPT)
    }
}

/// Some caches keep refusals unless told.
pub(super) const NOT_KEPT: HeaderValue = HeaderValue::from_static("no-store");

/// Gives out a playlist.
pub(super) fn text(request: &HeaderMap, media_type: &'static str, lifetime: Lifetime, text: &PlaylistText) -> Response {
    let zipped = if accepts_gzip(request) { text.gzip() } else { None };
    let is_zipped = zipped.is_some();
    let body = zipped.unwrap_or_else(|| text.plain());
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static(media_type)),
        (CACHE_CONTROL, lifetime.header(request)),
        (VARY, HeaderValue::from_static("Accept-Encoding")),
    ];
    let mut response = (StatusCode::OK, headers, body).into_response();
    if is_zipped {
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

/// Gives out a file, or the part of it that is asked for.
pub(super) fn file(request: &HeaderMap, media_type: &'static str, lifetime: Lifetime, data: Bytes) -> Response {
    let total = data.len();
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static(media_type)),
        (CACHE_CONTROL, lifetime.header(request)),
        (ACCEPT_RANGES, HeaderValue::from_static("bytes")),
    ];
    match asked_range(request, total) {
        Asked::Everything => (StatusCode::OK, headers, data).into_response(),
        Asked::Part { first, last } => {
            let range = format!("bytes {first}-{last}/{total}");
            let part = data.slice(first..=last);
            (StatusCode::PARTIAL_CONTENT, headers, [(CONTENT_RANGE, range)], part).into_response()
        }
        Asked::Nonsense => {
            let range = format!("bytes */{total}");
            (StatusCode::RANGE_NOT_SATISFIABLE, [(CACHE_CONTROL, NOT_KEPT)], [(CONTENT_RANGE, range)]).into_response()
        }
    }
}

/// What a request wants of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Everything,
    /// Both within the file.
    Part {
        first: usize,
        last: usize,
    },
    /// Nothing that the file has (§15.5.17).
    Nonsense,
}

/// A range that is malformed, of another unit or one of several may be ignored (§14.2), and is. So is one with a
/// condition: there are no validators that it could name.
fn asked_range(request: &HeaderMap, total: usize) -> Asked {
    let range = || {
        let text = request.get(RANGE)?.to_str().ok()?.trim();
        let (unit, range) = text.split_once('=')?;
        let (first, last) = range.trim().split_once('-')?;
        unit.trim().eq_ignore_ascii_case("bytes").then_some((first.trim(), last.trim()))
    };
    let Some((first, last)) = range().filter(|_| !request.contains_key(IF_RANGE)) else { return Asked::Everything };
    let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().unwrap_or(usize::MAX));
    match (first, last) {
        ("", "") => Asked::Everything,
        ("", suffix) => match number(suffix) {
            None => Asked::Everything,
            Some(0) => Asked::Nonsense,
            Some(_) if total == 0 => Asked::Nonsense,
            Some(length) => Asked::Part { first: total.saturating_sub(length), last: total - 1 },
        },
        (first, last) => {
            let last = if last.is_empty() { Some(usize::MAX) } else { number(last) };
            match (number(first), last) {
                (Some(first), Some(last)) if first <= last => match first < total {
                    true => Asked::Part { first, last: last.min(total - 1) },
                    false => Asked::Nonsense,
                },
                _ => Asked::Everything,
            }
        }
    }
}

fn accepts_gzip(request: &HeaderMap) -> bool {
    let values = request.get_all(ACCEPT_ENCODING).into_iter().filter_map(|value| value.to_str().ok());
    let mut codings = values.flat_map(|value| value.split(',')).map(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, "q=1"));
        let weight = weight.trim().strip_prefix("q=").and_then(|q| q.trim().parse::<f32>().ok());
        (name.trim().to_ascii_lowercase(), weight.unwrap_or(0.0) > 0.0)
    });
    codings.any(|(name, is_wanted)| is_wanted && (name == "gzip" || name == "x-gzip"))
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use axum::http::HeaderName;
    use flate2::read::GzDecoder;

    use super::*;

    fn with(name: HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    fn header<'a>(response: &'a Response, name: &str) -> &'a str {
        response.headers().get(name).map_or("", |value| value.to_str().unwrap())
    }

    async fn body(response: Response) -> Bytes {
        axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap()
    }

    #[tokio::test]
    async fn ranges_are_what_was_asked_for_or_everything() {
        for (range, status, content_range, sent) in [
            ("bytes=0-", 206, "bytes 0-9/10", "0123456789"),
            ("bytes=0-1", 206, "bytes 0-1/10", "01"),
            ("Bytes = 3-5", 206, "bytes 3-5/10", "345"),
            ("bytes=8-99999999999999999999999", 206, "bytes 8-9/10", "89"),
            ("bytes=-3", 206, "bytes 7-9/10", "789"),
            ("bytes=-30", 206, "bytes 0-9/10", "0123456789"),
            ("bytes=9-9", 206, "bytes 9-9/10", "9"),
            ("bytes=10-", 416, "bytes */10", ""),
            ("bytes=-0", 416, "bytes */10", ""),
            ("bytes=5-3", 200, "", "0123456789"),
            ("bytes=0-1,4-5", 200, "", "0123456789"),
            ("bytes=-", 200, "", "0123456789"),
            ("bytes=x-3", 200, "", "0123456789"),
            ("seconds=0-1", 200, "", "0123456789"),
        ] {
            let data = Bytes::from_static(b"0123456789");
            let response = file(&with(RANGE, range), "video/mp2t", Lifetime::IMMUTABLE, data);
            assert_eq!(
                (response.status().as_u16(), header(&response, "content-range")),
                (status, content_range),
                "{range}"
            );
            assert_eq!(body(response).await, sent, "{range}");
        }
        let mut conditional = with(RANGE, "bytes=0-1");
        conditional.insert(IF_RANGE, HeaderValue::from_static("\"x\""));
        let whole = file(&conditional, "video/mp2t", Lifetime::IMMUTABLE, Bytes::from_static(b"0123456789"));
        assert_eq!((whole.status().as_u16(), header(&whole, "accept-ranges")), (200, "bytes"));
        let nothing = file(&with(RANGE, "bytes=-1"), "video/mp2t", Lifetime::IMMUTABLE, Bytes::new());
        assert_eq!(nothing.status(), 416);
    }

    #[tokio::test]
    async fn texts_are_compressed_for_those_who_can_read_that() {
        let playlist = "#EXTINF:2.000,\n".repeat(100);
        for (accepted, is_zipped) in [
            ("gzip", true),
            ("deflate, GZIP;q=0.5, br", true),
            ("gzip;q=0", false),
            ("gzip; q=0.0, br", false),
            ("br", false),
            ("identity", false),
            ("", false),
        ] {
            let response = text(
                &with(ACCEPT_ENCODING, accepted),
                "a/b",
                Lifetime::seconds(1),
                &PlaylistText::new(playlist.clone()),
            );
            assert_eq!(header(&response, "content-encoding") == "gzip", is_zipped, "{accepted}");
            assert_eq!(header(&response, "vary"), "Accept-Encoding");
            let sent = body(response).await;
            let mut read = String::new();
            match is_zipped {
                true => GzDecoder::new(&sent[..]).read_to_string(&mut read).map(drop).unwrap(),
                false => read.push_str(std::str::from_utf8(&sent).unwrap()),
            }
            assert_eq!(read, playlist, "{accepted}");
            assert!(!is_zipped || sent.len() < playlist.len() / 5);
        }
    }

    #[test]
    fn shared_caches_keep_nothing_that_a_header_has_allowed() {
        let none = HeaderMap::new();
        let bearer = with(AUTHORIZATION, "Bearer x");
        assert_eq!(Lifetime::seconds(1).header(&none), "max-age=1");
        assert_eq!(Lifetime::IMMUTABLE.header(&none), "max-age=86400, immutable");
        assert_eq!(Lifetime::seconds(1).header(&bearer), "private, max-age=1");
        assert_eq!(Lifetime::IMMUTABLE.header(&bearer), "private, max-age=86400, immutable");
    }
}
