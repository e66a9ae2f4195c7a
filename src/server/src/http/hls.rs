//! HLS: `GET /{app}/{stream}.m3u8` and the segments beside it, `/{app}/{stream}-{sequence}.ts` (RFC 8216). Keys of encrypted
//! segments are `/{app}/{stream}-{number}.key`; no cache keeps them, so that whoever may no longer have them does not.
//!
//! A playlist may be kept for a second, a segment for as long as anybody likes: its name is never used again. Where
//! viewers must show a token, so must they for every segment; the playlist hangs the one that it was asked with on the
//! segments' names. A cache in front that answers by path alone, without the query, lets in everybody.

use std::sync::Arc;

use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, RANGE, USER_AGENT};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use freshet_bridge::hls::{KEY_ENDING, SEGMENT_ENDING};
use freshet_media::StreamKey;

use super::delivery::{self, Lifetime, NOT_KEPT};
use super::streams::{self, Place};
use super::{AppState, offer};
use crate::engine::{Protocol, Refusal};
use crate::hls::{HlsServer, PlaylistView};
use crate::srs_code as code;
use crate::url::query::{Query, percent_encode};

/// RFC 8216 §4 and §10.
pub(super) const PLAYLIST_TYPE: &str = "application/vnd.apple.mpegurl";
const SEGMENT_TYPE: &str = "video/mp2t";
const KEY_TYPE: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// A second is half of the shortest target duration that is of use; a player that gets the same text again asks after
/// half a target duration (§6.3.4).
pub(super) const PLAYLIST_LIFETIME: Lifetime = Lifetime::seconds(1);

/// Parameters of the playlist's address that segments need as well: who may play, and which stream is meant.
const PASSED_ON: [&str; 4] = ["token", "secret", "vhost", "domain"];

/// Chromium 156's own player fails with "could not parse" when it reads a live playlist of fewer segments again.
const CHROMIUM_MIN_SEGMENTS: usize = 3;

/// Answers `/{app}/{stream}.m3u8`.
pub(super) async fn playlist(state: &AppState, hls: &Arc<HlsServer>, parts: &Parts) -> Response {
    let answer = async {
        let request = streams::play_request(state, parts, Protocol::Hls, &Place::of_path(parts.uri.path()))?;
        let view = PlaylistView {
            name: percent_encode(request.key.stream()),
            query: passed_on(Query::new(parts.uri.query().unwrap_or_default())),
            min_segments: min_segments(parts),
        };
        hls.playlist(&request, &view).await
    };
    match answer.await {
        Ok(text) => delivery::text(&parts.headers, PLAYLIST_TYPE, PLAYLIST_LIFETIME, &text),
        Err(refusal) => refused(state, parts, &refusal),
    }
}

/// Answers `/{app}/{stream}-{sequence}.ts`.
pub(super) fn segment(state: &AppState, hls: &Arc<HlsServer>, parts: &Parts) -> Response {
    let found = numbered(state, parts, SEGMENT_ENDING).and_then(|(key, sequence)| {
        let missing = || missing(parts, "segments are there while the playlist lists them and a little longer");
        hls.segment(&key, sequence).ok_or_else(missing)
    });
    match found {
        Ok(data) => delivery::file(&parts.headers, SEGMENT_TYPE, Lifetime::IMMUTABLE, data),
        Err(refusal) => refused(state, parts, &refusal),
    }
}

/// Answers `/{app}/{stream}-{number}.key`.
pub(super) fn encryption_key(state: &AppState, hls: &Arc<HlsServer>, parts: &Parts) -> Response {
    let found = numbered(state, parts, KEY_ENDING).and_then(|(key, name)| {
        let missing = || missing(parts, "keys are there while segments need them, and with hls.encrypt only");
        hls.encryption_key(&key, name).ok_or_else(missing)
    });
    match found {
        Ok(key) => {
            let headers = [(CONTENT_TYPE, KEY_TYPE), (CACHE_CONTROL, NOT_KEPT)];
            (StatusCode::OK, headers, key.to_vec()).into_response()
        }
        Err(refusal) => refused(state, parts, &refusal),
    }
}

/// The stream and the number in a path `/{app}/{stream}-{number}{ending}`, for whoever may play it.
fn numbered(state: &AppState, parts: &Parts, ending: &str) -> Result<(StreamKey, u64), Refusal> {
    let Place { app, stream: file } = Place::of_path(parts.uri.path());
    let stem = file.get(..file.len().saturating_sub(ending.len())).unwrap_or_default();
    let missing = || missing(parts, "the playlist has the names; ask for it first");
    let (stream, number) = stem.rsplit_once('-').ok_or_else(missing)?;
    let number = number.parse().map_err(|_| missing())?;
    let request = streams::play_request(state, parts, Protocol::Hls, &Place { app, stream })?;
    Ok((request.key, number))
}

/// A refusal of a file that is not there.
pub(super) fn missing(parts: &Parts, hint: &str) -> Refusal {
    let detail = format!("there is nothing at {}", parts.uri.path());
    Refusal::new(404, code::NO_PUBLISHER, "no-segment", detail, hint)
}

/// Refuses a request.
pub(super) fn refused(state: &AppState, parts: &Parts, refusal: &Refusal) -> Response {
    streams::log_refusal(state, parts, refusal);
    let mut response = offer::refused(refusal);
    // What is not there yet may be there in a moment.
    response.headers_mut().insert(CACHE_CONTROL, NOT_KEPT);
    response
}

/// How many segments a request waits for.
pub(super) fn min_segments(parts: &Parts) -> usize {
    if is_chromium_itself(parts) { CHROMIUM_MIN_SEGMENTS } else { 1 }
}

/// Whether a `<video>` of Chromium plays the playlist, and no script: only those ask for a range.
fn is_chromium_itself(parts: &Parts) -> bool {
    let agent = parts.headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
    parts.headers.contains_key(RANGE) && agent.contains("Chrome/")
}

/// What is passed on stands in a playlist dozens of times. Longer values are no names of vhosts and hardly tokens.
const MAX_PASSED_ON_BYTES: usize = 1_024;

/// The query that segments get, with its question mark; empty without parameters.
pub(super) fn passed_on(query: Query<'_>) -> String {
    let pairs = PASSED_ON.iter().filter_map(|name| {
        let value = query.get_verbatim(name).filter(|value| value.len() <= MAX_PASSED_ON_BYTES)?;
        Some(format!("{name}={}", percent_encode(&value)))
    });
    let all = pairs.collect::<Vec<_>>().join("&");
    if all.is_empty() { all } else { format!("?{all}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_segments_need_is_passed_on() {
        for (query, passed) in [
            ("", ""),
            ("_=17&x=y", ""),
            ("token=a+b%2F%22%0A&_=1", "?token=a%2Bb/%22%0A"),
            ("vhost=example.org&secret=s", "?secret=s&vhost=example.org"),
        ] {
            assert_eq!(passed_on(Query::new(query)), passed, "{query}");
        }
        let long = format!("secret=s&token={}", "t".repeat(MAX_PASSED_ON_BYTES + 1));
        assert_eq!(passed_on(Query::new(&long)), "?secret=s");
    }
}
