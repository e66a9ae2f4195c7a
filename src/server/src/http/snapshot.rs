//! `GET /api/v1/streams/{id}/snapshot.jpg` and `GET /api/v1/snapshot.jpg?stream=live/cam`: the last keyframe as a picture,
//! `?width=320` for a smaller one. Who may play may look.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;

use super::{AppState, Routes, auth, offer};
use crate::engine::{Refusal, Role, StreamSnapshot};
use crate::snapshots::{MAX_WIDTH, MIN_WIDTH};
use crate::srs_code as code;
use crate::url::query::Query;

/// A second, as long as the picture is given out without a look; only to whom it was given, since it may need a token.
const CACHE: &str = "private, max-age=1";

pub(super) fn routes() -> Routes {
    Router::new().route("/api/v1/snapshot.jpg", get(by_name)).route("/api/v1/streams/{id}/snapshot.jpg", get(by_id))
}

async fn by_id(State(state): State<Arc<AppState>>, Path(id): Path<String>, uri: Uri, headers: HeaderMap) -> Response {
    answer(&state, &uri, &headers, |stream| stream.id == id, &id).await
}

async fn by_name(State(state): State<Arc<AppState>>, uri: Uri, headers: HeaderMap) -> Response {
    let name = Query::new(uri.query().unwrap_or_default()).get("stream").unwrap_or_default();
    let name = name.trim_matches('/');
    answer(&state, &uri, &headers, |stream| stream.key.as_str() == name, name).await
}

async fn answer(
    state: &AppState,
    uri: &Uri,
    headers: &HeaderMap,
    is_meant: impl Fn(&StreamSnapshot) -> bool,
    name: &str,
) -> Response {
    let query = Query::new(uri.query().unwrap_or_default());
    let made = async {
        auth::authorise(&state.settings, Role::Play, headers, &[query])?;
        let width = width_of(query)?;
        let absent = || {
            let detail = format!("there is no stream \"{name}\"");
            Refusal::new(404, code::NO_PUBLISHER, "stream-absent", detail, "GET /api/v1/streams/ lists them")
        };
        let stream = state.sessions.streams().into_iter().find(is_meant).ok_or_else(absent)?;
        state.snapshots.jpeg(stream, width).await
    };
    match made.await {
        Ok(jpeg) => ([(CONTENT_TYPE, "image/jpeg"), (CACHE_CONTROL, CACHE)], jpeg).into_response(),
        Err(refusal) => offer::refused(&refusal),
    }
}

fn width_of(query: Query<'_>) -> Result<usize, Refusal> {
    let Some(text) = query.get("width") else { return Ok(MAX_WIDTH) };
    text.parse().ok().filter(|width| (MIN_WIDTH..=MAX_WIDTH).contains(width)).ok_or_else(|| {
        let detail = format!("width={text} is not one of {MIN_WIDTH} to {MAX_WIDTH}");
        Refusal::new(400, code::INVALID_PARAMS, "bad-width", detail, "leave it out, or write width=320")
    })
}
