//! `/api/v1/records/`: recordings are listed, begun and ended. Not SRS's: unknown ids and refusals have statuses of their own.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::extract::{Path, State};
use axum::http::header::LOCATION;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use freshet_bridge::record::{Iso8601, RecordFormat, RecordPlan};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{AppState, auth, list as page, problem};
use crate::engine::{Refusal, Role};
use crate::record::{FileRecord, Origin, RecordRequest, RecordServer, RecordSnapshot};
use crate::srs_code as code;
use crate::url::query::Query;
use crate::url::stream_url;

/// Shortest and longest segment that may be asked for: those of the configuration.
const SEGMENT_SECONDS: std::ops::RangeInclusive<u64> = 1..=86_400;

/// What a recording is asked to be. What is left out is as configured.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    stream: String,
    vhost: Option<String>,
    format: Option<String>,
    plan: Option<String>,
    segment_seconds: Option<u64>,
}

pub(super) async fn list(State(state): State<Arc<AppState>>, uri: Uri) -> Response {
    let Some(records) = state.records() else { return problem::response(&disabled()) };
    page(&state, "records", &records.list(), &uri, record)
}

pub(super) async fn one(State(state): State<Arc<AppState>>, Path(id): Path<String>) -> Response {
    let Some(records) = state.records() else { return problem::response(&disabled()) };
    match records.get(&id) {
        Some(found) => state.envelope(0, &[("record", record(&found))]),
        None => problem::response(&unknown(&id)),
    }
}

/// Begins a recording. Where publishing takes a token, so does this.
pub(super) async fn start(State(state): State<Arc<AppState>>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let started = may_write(&state, &uri, &headers).and_then(|records| records.start(request(records, &body)?));
    match started {
        Ok(begun) => {
            let mut response = (StatusCode::CREATED, state.envelope(0, &[("record", record(&begun))])).into_response();
            if let Ok(location) = HeaderValue::from_str(&format!("/api/v1/records/{}", begun.id)) {
                response.headers_mut().insert(LOCATION, location);
            }
            response
        }
        Err(refusal) => auth::challenge(problem::response(&refusal)),
    }
}

/// Ends a recording; its file is closed in a moment.
pub(super) async fn stop(
    State(state): State<Arc<AppState>>,
    Path(id): Path<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let stopped = may_write(&state, &uri, &headers).and_then(|records| match records.stop(&id) {
        true => Ok(()),
        false => Err(unknown(&id)),
    });
    match stopped {
        Ok(()) => state.envelope(0, &[]),
        Err(refusal) => auth::challenge(problem::response(&refusal)),
    }
}

fn may_write<'a>(state: &'a AppState, uri: &Uri, headers: &HeaderMap) -> Result<&'a Arc<RecordServer>, Refusal> {
    let query = Query::new(uri.query().unwrap_or_default());
    auth::authorise(&state.settings, Role::Publish, headers, &[query])?;
    state.records().ok_or_else(disabled)
}

fn disabled() -> Refusal {
    let detail = "recording is off on this server";
    Refusal::new(404, code::HTTP_REQUEST, "record-disabled", detail, "set record.enabled = true and record.folder")
}

fn unknown(id: &str) -> Refusal {
    let detail = format!("there is no recording \"{id}\", or it has ended");
    Refusal::new(404, code::HTTP_REQUEST, "no-record", detail, "GET /api/v1/records/ lists them")
}

fn request(records: &RecordServer, body: &[u8]) -> Result<RecordRequest, Refusal> {
    let bad = |detail: String| {
        let hint = "send JSON such as {\"stream\": \"live/cam\", \"format\": \"mp4\", \"plan\": \"session\"}";
        Refusal::new(400, code::API_JSON, "bad-record", detail, hint)
    };
    let wanted: Wanted =
        serde_json::from_slice(body).map_err(|error| bad(format!("the body is not understood: {error}")))?;
    let (app, stream) =
        wanted.stream.rsplit_once('/').ok_or_else(|| bad(format!("\"{}\" names no app and stream", wanted.stream)))?;
    let key = stream_url::stream_key(wanted.vhost.as_deref(), &[], app, stream)?;
    let settings = records.settings();
    let format = match &wanted.format {
        None => settings.format,
        Some(name) => RecordFormat::ALL
            .into_iter()
            .find(|format| format.name().eq_ignore_ascii_case(name))
            .ok_or_else(|| bad(format!("there is no format \"{name}\": {}", names())))?,
    };
    let length = |default: Duration| match wanted.segment_seconds {
        None => Ok(default),
        Some(seconds) if SEGMENT_SECONDS.contains(&seconds) => Ok(Duration::from_secs(seconds)),
        Some(seconds) => Err(bad(format!("segment_seconds is {seconds}: allowed: 1 to 86400"))),
    };
    let plan = match (wanted.plan.as_deref(), settings.plan, wanted.segment_seconds) {
        (Some("session"), _, _) | (None, RecordPlan::Session, None) => RecordPlan::Session,
        (Some("segment") | None, RecordPlan::Segment(default), _) => RecordPlan::Segment(length(default)?),
        (Some("segment"), _, None) => return Err(bad("plan \"segment\" needs segment_seconds".to_owned())),
        (Some("segment") | None, _, Some(_)) => RecordPlan::Segment(length(Duration::ZERO)?),
        (Some(plan), _, _) => return Err(bad(format!("there is no plan \"{plan}\": session, segment"))),
    };
    Ok(RecordRequest { key, format, plan, origin: Origin::Api })
}

fn names() -> String {
    RecordFormat::ALL.map(RecordFormat::name).join(", ")
}

fn record(record: &RecordSnapshot) -> Value {
    let request = &record.request;
    let segment = match request.plan {
        RecordPlan::Session => None,
        RecordPlan::Segment(length) => Some(length.as_secs_f64()),
    };
    json!({
        "id": record.id,
        "stream": request.key.as_str(),
        "state": record.state.as_str(),
        "by": if request.origin == Origin::Api { "api" } else { "pattern" },
        "format": request.format.name(),
        "plan": if segment.is_some() { "segment" } else { "session" },
        "segment_seconds": segment,
        "started_at": date(record.started_at),
        "path": record.files.last().map(|file| &file.path),
        "bytes": record.bytes,
        "duration": record.duration.as_secs_f64(),
        "error": record.error,
        "lost_frames": record.lost_frames,
        "left_out": record.left_out,
        "file_count": record.file_count,
        "files": record.files.iter().map(file).collect::<Vec<_>>(),
    })
}

fn file(file: &FileRecord) -> Value {
    json!({
        "path": file.path,
        "bytes": file.bytes,
        "duration": file.duration.as_secs_f64(),
        "started_at": date(file.started_at),
        "open": file.is_open,
        "complete": file.is_complete,
    })
}

fn date(at: SystemTime) -> String {
    Iso8601(at).to_string()
}
