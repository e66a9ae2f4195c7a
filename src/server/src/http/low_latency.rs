//! Low-latency HLS: `GET /hls/{app}/{stream}/index.m3u8`, and beside it `media.m3u8`, initialization segments, segments and
//! parts (draft-pantos-hls-rfc8216bis).
//!
//! A media playlist is asked for with what the player lacks (`_HLS_msn`, `_HLS_part`), and answered when that is there;
//! such an answer never changes much, so that caches may keep it, and hold the requests of many players while one of
//! them waits (appendix B.1 of the draft). Parts are answered in the same way. Tokens are passed on as for other HLS.

use std::sync::Arc;

use axum::http::request::Parts;
use axum::response::Response;
use freshet_bridge::hls::{
    FRAGMENT_ENDING, INIT_ENDING, INIT_PREFIX, LOW_LATENCY_SEGMENT_PREFIX, MEDIA_PLAYLIST, MULTIVARIANT_PLAYLIST,
    PART_PREFIX,
};

use super::AppState;
use super::delivery::{self, Lifetime};
use super::hls::{PLAYLIST_LIFETIME, PLAYLIST_TYPE, min_segments, missing, passed_on, refused};
use super::streams::{self, Place};
use crate::engine::{Protocol, Refusal};
use crate::hls::{HlsServer, MediaRequest};
use crate::srs_code as code;
use crate::url::query::Query;

/// Where these addresses begin.
const PREFIX: &str = "/hls/";
/// Of fragmented MP4, with sound alone as well.
const FRAGMENT_TYPE: &str = "video/mp4";
/// An answer that was waited for is of use to players for so many target durations (appendix B.1).
const WAITED_FOR_TARGETS: u32 = 6;

/// One address.
pub(super) struct Address<'a> {
    place: Place<'a>,
    file: File,
}

/// What lies beside a multivariant playlist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum File {
    Multivariant,
    Media,
    Init(u64),
    Segment(u64),
    Part(u64),
}

impl Address<'_> {
    /// Takes a path apart. [`None`]: it is none of these.
    pub(super) fn of(path: &str) -> Option<Address<'_>> {
        let (folder, file) = path.strip_prefix(PREFIX)?.rsplit_once('/')?;
        let (app, stream) = folder.rsplit_once('/')?;
        let number = |prefix, ending| file.strip_prefix(prefix)?.strip_suffix(ending)?.parse().ok();
        let file = match file {
            MULTIVARIANT_PLAYLIST => File::Multivariant,
            MEDIA_PLAYLIST => File::Media,
            _ => number(INIT_PREFIX, INIT_ENDING)
                .map(File::Init)
                .or_else(|| number(LOW_LATENCY_SEGMENT_PREFIX, FRAGMENT_ENDING).map(File::Segment))
                .or_else(|| number(PART_PREFIX, FRAGMENT_ENDING).map(File::Part))?,
        };
        Some(Address { place: Place { app, stream }, file })
    }
}

/// Answers one address.
pub(super) async fn answer(state: &AppState, hls: &Arc<HlsServer>, parts: &Parts, address: &Address<'_>) -> Response {
    let answered = match address.file {
        File::Multivariant => multivariant(state, hls, parts, &address.place).await,
        File::Media => media(state, hls, parts, &address.place).await,
        File::Init(_) | File::Segment(_) | File::Part(_) => fragment(state, hls, parts, address).await,
    };
    answered.unwrap_or_else(|refusal| refused(state, parts, &refusal))
}

async fn multivariant(
    state: &AppState,
    hls: &Arc<HlsServer>,
    parts: &Parts,
    place: &Place<'_>,
) -> Result<Response, Refusal> {
    let request = streams::play_request(state, parts, Protocol::Hls, place)?;
    let query = passed_on(Query::new(parts.uri.query().unwrap_or_default()));
    let text = hls.multivariant(&request, &query, min_segments(parts)).await?;
    Ok(delivery::text(&parts.headers, PLAYLIST_TYPE, PLAYLIST_LIFETIME, &text))
}

async fn media(state: &AppState, hls: &Arc<HlsServer>, parts: &Parts, place: &Place<'_>) -> Result<Response, Refusal> {
    let request = streams::play_request(state, parts, Protocol::Hls, place)?;
    let media = media_request(parts)?;
    let answer = hls.media(&request, &media).await?;
    let lifetime = match media.sequence {
        Some(_) => Lifetime::seconds((answer.target * WAITED_FOR_TARGETS).as_secs() as u32),
        None => PLAYLIST_LIFETIME,
    };
    Ok(delivery::text(&parts.headers, PLAYLIST_TYPE, lifetime, &answer.text))
}

/// Reads the delivery directives (§6.2.5).
fn media_request(parts: &Parts) -> Result<MediaRequest, Refusal> {
    let query = Query::new(parts.uri.query().unwrap_or_default());
    let number = |name: &str| match query.get(name) {
        None => Ok(None),
        Some(text) => text.parse::<u64>().map(Some).map_err(|_| {
            let detail = format!("{name}={text:?} is no number");
            Refusal::new(400, code::HTTP_REQUEST, "bad-directive", detail, "ask for a number of the playlist")
        }),
    };
    let (sequence, part) = (number("_HLS_msn")?, number("_HLS_part")?);
    if part.is_some() && sequence.is_none() {
        let detail = "_HLS_part stands without _HLS_msn";
        return Err(Refusal::new(400, code::HTTP_REQUEST, "bad-directive", detail, "tell the segment of the part too"));
    }
    Ok(MediaRequest {
        query: passed_on(query),
        sequence,
        part,
        skip: query.get("_HLS_skip").is_some_and(|skip| skip == "YES" || skip == "v2"),
        min_segments: min_segments(parts),
    })
}

async fn fragment(
    state: &AppState,
    hls: &Arc<HlsServer>,
    parts: &Parts,
    address: &Address<'_>,
) -> Result<Response, Refusal> {
    let key = streams::play_request(state, parts, Protocol::Hls, &address.place)?.key;
    let found = match address.file {
        File::Init(number) => hls.init(&key, number),
        File::Segment(sequence) => hls.fragmented_segment(&key, sequence),
        File::Part(number) => hls.part(&key, number).await?,
        File::Multivariant | File::Media => None,
    };
    let missing = || missing(parts, "fragments are there while the playlist lists them and a little longer");
    Ok(delivery::file(&parts.headers, FRAGMENT_TYPE, Lifetime::IMMUTABLE, found.ok_or_else(missing)?))
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    #[test]
    fn addresses_come_apart() {
        for (path, expected) in [
            ("/hls/live/cam/index.m3u8", Some(("live", "cam", File::Multivariant))),
            ("/hls/a/b/c%20d/media.m3u8", Some(("a/b", "c%20d", File::Media))),
            ("/hls/live/cam/init-17.mp4", Some(("live", "cam", File::Init(17)))),
            ("/hls/live/cam/seg-18.m4s", Some(("live", "cam", File::Segment(18)))),
            ("/hls/live/cam/part-18000.m4s", Some(("live", "cam", File::Part(18_000)))),
            ("/hls/cam/index.m3u8", None),
            ("/hls/live/cam.m3u8", None),
            ("/hls/live/cam/other.m3u8", None),
            ("/hls/live/cam/seg-x.m4s", None),
            ("/hls/live/cam/seg-99999999999999999999999.m4s", None),
            ("/live/cam/index.m3u8", None),
        ] {
            let found = Address::of(path).map(|found| (found.place.app, found.place.stream, found.file));
            assert_eq!(found, expected, "{path}");
        }
    }

    #[test]
    fn directives_are_read_and_nonsense_is_refused() {
        let ask = |query: &str| {
            let uri = format!("/hls/live/cam/media.m3u8?{query}");
            media_request(&Request::builder().uri(uri).body(()).unwrap().into_parts().0)
        };
        let request = ask("token=a&_HLS_msn=12&_HLS_part=3&_HLS_skip=YES").unwrap();
        assert_eq!((request.sequence, request.part, request.skip), (Some(12), Some(3), true));
        assert_eq!(request.query, "?token=a");
        let plain = ask("").unwrap();
        assert_eq!((plain.sequence, plain.part, plain.skip), (None, None, false));
        for query in ["_HLS_msn=x", "_HLS_msn=-1", "_HLS_part=1", "_HLS_msn=1&_HLS_part=1.5"] {
            assert_eq!(ask(query).unwrap_err().status, 400, "{query}");
        }
    }
}
