//! HLS of MPEG-TS segments.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use freshet_bridge::hls::{Encryption, Key, Playlist, Segmenter};
use freshet_media::Frame;

use super::disk::Disk;
use super::stream::{Cut, HlsStream, Progress};
use super::text::{PlaylistText, TextKind, TextName};
use super::{HlsSettings, PlaylistView};
use crate::engine::Refusal;

impl Cut for Segmenter {
    fn new(settings: &HlsSettings, first_sequence: u64) -> Segmenter {
        let segmenter = Segmenter::new(settings.options.clone(), first_sequence);
        match settings.segments_per_key {
            Some(segments) => segmenter.with_encryption(Encryption::new(&rand::random(), segments)),
            None => segmenter,
        }
    }

    fn push(&mut self, frame: Frame, live_at: SystemTime) -> Result<(), String> {
        Segmenter::push(self, frame, live_at).map_err(|error| error.to_string())
    }

    fn start_over(&mut self) {
        Segmenter::start_over(self);
    }

    fn finish(&mut self) {
        Segmenter::finish(self);
    }

    fn end(&mut self) {
        Segmenter::end(self);
    }

    fn unplayable(&self) -> Option<String> {
        Segmenter::unplayable(self).map(ToString::to_string)
    }

    fn wants_keyframe(&self) -> bool {
        Segmenter::wants_keyframe(self)
    }

    fn progress(&self) -> Progress {
        let playlist = self.playlist();
        Progress {
            segment: playlist.segments().last().map_or(0, |segment| segment.sequence + 1),
            part: 0,
            has_ended: playlist.has_ended(),
            is_unplayable: Segmenter::unplayable(self).is_some(),
        }
    }

    fn is_cut_unasked(settings: &HlsSettings) -> bool {
        // Files must be complete.
        settings.always || settings.disk.is_some()
    }

    fn tell_disk(stream: &Arc<HlsStream<Segmenter>>, disk: &Disk) {
        disk.tell(stream);
    }
}

impl HlsStream<Segmenter> {
    /// Waits for the first segments.
    pub(super) async fn playlist(&self, view: &PlaylistView) -> Result<Arc<PlaylistText>, Refusal> {
        let name = TextName { kind: TextKind::Media, query: view.query.clone() };
        self.wait_for(|inner| {
            let playlist = inner.cut.playlist();
            let is_enough = playlist.len() >= view.min_segments || playlist.has_ended();
            if is_enough && !playlist.is_empty() {
                let text = inner.text(&name, |cut| cut.playlist().render(&view.name, &view.query));
                return Some(Ok(self.sending_text(text)));
            }
            inner.refusal(self.key()).map(Err)
        })
        .await
    }

    pub(super) fn segment(&self, sequence: u64) -> Option<Bytes> {
        self.touch();
        let data = self.lock().cut.playlist().segment(sequence)?.data.clone();
        Some(self.sending(data))
    }

    /// A key by its name.
    pub(super) fn encryption_key(&self, name: u64) -> Option<Key> {
        self.lock().cut.playlist().key(name)
    }

    /// What players see now, and whether nothing more will come.
    pub(super) fn snapshot(&self) -> (Playlist, bool) {
        let inner = self.lock();
        (inner.cut.playlist().clone(), inner.is_closed)
    }
}
