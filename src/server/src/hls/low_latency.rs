//! Low-latency HLS: requests that wait for what they ask for (draft-pantos-hls-rfc8216bis §6.2.5.2).

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use freshet_bridge::hls::{LowLatencySegmenter, MediaView, PartAnswer, Readiness};
use freshet_media::Frame;

use super::disk::Disk;
use super::stream::{Cut, HlsStream, Progress};
use super::text::{PlaylistText, TextKind, TextName};
use super::{HlsSettings, MAX_WAIT};
use crate::engine::Refusal;
use crate::srs_code as code;

/// A request for what comes next waits for so many target durations (§6.2.5.2).
const MAX_TARGETS: u32 = 3;

/// How a request wants the media playlist.
#[derive(Debug, Clone, Default)]
pub(crate) struct MediaRequest {
    /// Hung on all names, with its question mark.
    pub(crate) query: String,
    /// `_HLS_msn`: with this segment, or a later one.
    pub(crate) sequence: Option<u64>,
    /// `_HLS_part`: with this part of it.
    pub(crate) part: Option<u64>,
    /// `_HLS_skip`: without what the player knows.
    pub(crate) skip: bool,
    /// A playlist of a stream that goes on is answered from so many segments on.
    pub(crate) min_segments: usize,
}

/// A media playlist, and how long it is worth keeping.
pub(crate) struct MediaAnswer {
    /// The text.
    pub(crate) text: Arc<PlaylistText>,
    /// `EXT-X-TARGETDURATION`.
    pub(crate) target: Duration,
}

impl Cut for LowLatencySegmenter {
    fn new(settings: &HlsSettings, first_sequence: u64) -> LowLatencySegmenter {
        let part = settings.part.unwrap_or_default();
        LowLatencySegmenter::new(settings.options.clone(), part, first_sequence)
    }

    fn push(&mut self, frame: Frame, live_at: SystemTime) -> Result<(), String> {
        LowLatencySegmenter::push(self, frame, live_at).map_err(|error| error.to_string())
    }

    fn start_over(&mut self) {
        LowLatencySegmenter::start_over(self);
    }

    fn finish(&mut self) {
        LowLatencySegmenter::finish(self);
    }

    fn end(&mut self) {
        LowLatencySegmenter::end(self);
    }

    fn unplayable(&self) -> Option<String> {
        LowLatencySegmenter::unplayable(self).map(ToString::to_string)
    }

    fn wants_keyframe(&self) -> bool {
        LowLatencySegmenter::wants_keyframe(self)
    }

    fn progress(&self) -> Progress {
        let playlist = self.playlist();
        Progress {
            segment: playlist.next_sequence(),
            part: playlist.next_part(),
            has_ended: playlist.has_ended(),
            is_unplayable: LowLatencySegmenter::unplayable(self).is_some(),
        }
    }

    fn is_cut_unasked(settings: &HlsSettings) -> bool {
        settings.always
    }

    fn tell_disk(_: &Arc<HlsStream<LowLatencySegmenter>>, _: &Disk) {}
}

impl HlsStream<LowLatencySegmenter> {
    /// The multivariant playlist, as soon as it can be told what the stream is like.
    pub(super) async fn multivariant(&self, query: &str, min_segments: usize) -> Result<Arc<PlaylistText>, Refusal> {
        let name = TextName { kind: TextKind::Multivariant, query: query.to_owned() };
        self.wait_for(|inner| {
            let playlist = inner.cut.playlist();
            let is_enough = playlist.len() >= min_segments || playlist.has_ended();
            if let Some(text) = playlist.render_multivariant(query).filter(|_| is_enough) {
                return Some(Ok(self.sending_text(inner.text(&name, |_| text))));
            }
            inner.refusal(self.key()).map(Err)
        })
        .await
    }

    /// The media playlist with what is asked for in it.
    pub(super) async fn media(&self, request: &MediaRequest) -> Result<MediaAnswer, Refusal> {
        let kind = if request.skip { TextKind::Delta } else { TextKind::Media };
        let name = TextName { kind, query: request.query.clone() };
        let answer = self.wait_for(|inner| {
            let playlist = inner.cut.playlist();
            let is_enough = (playlist.len() >= request.min_segments || playlist.has_ended()) && playlist.lists_parts();
            let readiness = match request.sequence {
                _ if playlist.is_empty() || !is_enough => Readiness::Wait,
                None => Readiness::Ready,
                Some(sequence) => playlist.readiness(sequence, request.part),
            };
            match readiness {
                Readiness::Ready => {
                    let target = playlist.target_duration();
                    let view = MediaView { query: &request.query, skip: request.skip };
                    let text = inner.text(&name, |cut| cut.playlist().render(&view));
                    Some(Ok(MediaAnswer { text: self.sending_text(text), target }))
                }
                Readiness::Wait => inner.refusal(self.key()).map(Err),
                Readiness::TooFar => Some(Err(self.too_far(request))),
            }
        });
        self.patiently(answer).await
    }

    /// A part, which may be the one that players are told of in advance.
    pub(super) async fn part(&self, number: u64) -> Result<Option<Bytes>, Refusal> {
        self.touch();
        let answer = self.wait_for(|inner| match inner.cut.playlist().part(number) {
            PartAnswer::Ready(data) => Some(Ok(Some(self.sending(data)))),
            PartAnswer::Wait => inner.refusal(self.key()).map(Err),
            PartAnswer::Absent => Some(Ok(None)),
        });
        self.patiently(answer).await
    }

    pub(super) fn segment(&self, sequence: u64) -> Option<Bytes> {
        self.touch();
        let data = self.lock().cut.playlist().segment(sequence)?;
        Some(self.sending(data))
    }

    pub(super) fn init(&self, number: u64) -> Option<Bytes> {
        self.touch();
        let data = self.lock().cut.playlist().init(number)?;
        Some(self.sending(data))
    }

    /// Waits no longer than a publisher that is well can take.
    async fn patiently<T>(&self, answer: impl Future<Output = Result<T, Refusal>>) -> Result<T, Refusal> {
        let target = self.lock().cut.playlist().target_duration();
        let patience = (target * MAX_TARGETS).min(MAX_WAIT);
        tokio::time::timeout(patience, answer).await.unwrap_or_else(|_| {
            let detail = format!("what comes next of {} was not there within {patience:?}", self.key());
            Err(Refusal::new(503, code::NO_PUBLISHER, "no-segment", detail, "ask again").retry_after(1))
        })
    }

    fn too_far(&self, request: &MediaRequest) -> Refusal {
        let part = request.part.map(|part| format!(", _HLS_part={part}")).unwrap_or_default();
        let sequence = request.sequence.unwrap_or_default();
        let detail = format!("_HLS_msn={sequence}{part} is too far ahead of {}", self.key());
        Refusal::new(400, code::HTTP_REQUEST, "too-far-ahead", detail, "ask for what follows the playlist's last entry")
    }
}

#[cfg(test)]
mod tests {
    use freshet_bridge::hls::HlsOptions;
    use freshet_media::{Codec, MediaTime, StreamKey, TrackConfig};
    use freshet_sfu::SessionStatus;

    use super::*;

    type Stream = Arc<HlsStream<LowLatencySegmenter>>;

    fn stream() -> Stream {
        let options = HlsOptions { fragment: Duration::from_millis(500), ..HlsOptions::default() };
        let cut = LowLatencySegmenter::new(options, Duration::from_millis(200), 100);
        HlsStream::new(StreamKey::new("", "live", "cam").unwrap(), cut, &Arc::new(SessionStatus::default()))
    }

    /// Sound of that time, in frames of 20 ms. Segments of sound are 1.06 s long.
    fn feed(stream: &Stream, millis: std::ops::Range<i64>) {
        let config = Arc::new(TrackConfig { codec: Codec::Aac, record: Bytes::from_static(&[0x11, 0x90]) });
        for at in millis.step_by(20).map(MediaTime::from_millis) {
            let data = Bytes::from_static(&[7; 50]);
            let frame = Frame { config: Arc::clone(&config), dts: at, pts: at, is_keyframe: true, data };
            stream.change(|cut| cut.push(frame, SystemTime::UNIX_EPOCH).unwrap());
        }
    }

    fn asking(
        stream: &Stream,
        sequence: Option<u64>,
        part: Option<u64>,
    ) -> tokio::task::JoinHandle<Result<String, u16>> {
        let stream = Arc::clone(stream);
        let request = MediaRequest { sequence, part, min_segments: 1, ..MediaRequest::default() };
        tokio::spawn(async move {
            let answer = stream.media(&request).await.map_err(|refusal| refusal.status)?;
            Ok(String::from_utf8(answer.text.plain().to_vec()).unwrap())
        })
    }

    /// Lets every task run as far as it comes.
    async fn settle() {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn who_waits_is_answered_when_it_is_there() {
        let stream = stream();
        let first = asking(&stream, None, None);
        settle().await;
        assert!(!first.is_finished());
        feed(&stream, 0..2_500);
        assert!(first.await.unwrap().unwrap().contains("\nseg-100.m4s\n"));
        let next = stream.lock().cut.playlist().next_sequence();
        let (segment, part) = (asking(&stream, Some(next), None), asking(&stream, Some(next), Some(3)));
        settle().await;
        assert!(!segment.is_finished() && !part.is_finished());
        feed(&stream, 2_500..3_060);
        settle().await;
        assert!(!segment.is_finished() && part.is_finished());
        feed(&stream, 3_060..4_500);
        assert!(segment.await.unwrap().unwrap().contains(&format!("\nseg-{next}.m4s\n")));
        let next = stream.lock().cut.playlist().next_sequence();
        assert_eq!(asking(&stream, Some(next + 100), None).await.unwrap(), Err(400));
        assert_eq!(asking(&stream, Some(next), Some(900)).await.unwrap(), Err(400));
    }

    #[tokio::test]
    async fn a_part_that_is_hinted_at_is_waited_for() {
        let stream = stream();
        feed(&stream, 0..2_500);
        let hinted = stream.lock().cut.playlist().next_part();
        let waiting = tokio::spawn({
            let stream = Arc::clone(&stream);
            async move { stream.part(hinted).await }
        });
        settle().await;
        assert!(!waiting.is_finished());
        feed(&stream, 2_500..3_000);
        assert!(waiting.await.unwrap().unwrap().is_some_and(|part| part[4..8] == *b"moof"));
        assert_eq!(stream.part(hinted + 100).await.unwrap(), None);
        let waiting = asking(&stream, Some(stream.lock().cut.playlist().next_sequence()), None);
        settle().await;
        stream.close();
        assert_eq!(waiting.await.unwrap(), Err(404));
    }
}
