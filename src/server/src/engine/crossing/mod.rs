//! The crossings of streams between the two planes, each run by a thread of its own while somebody consumes its far
//! side: `to_rtc` for WebRTC viewers of RTMP publishers, `from_rtc` for everybody else of WebRTC publishers.

mod from_rtc;
mod to_rtc;

use freshet_media::StreamKey;

use super::Engine;
use super::registry::Registry;

pub(super) use from_rtc::{FromRtc, no_way};
pub(super) use to_rtc::{ToRtc, crossing_formats};

impl Engine {
    /// Starts and stops a stream's crossings. To be called after every change of a stream's publisher or viewers, while
    /// the registry is locked.
    pub(super) fn sync_crossing(&self, registry: &Registry, key: &StreamKey) {
        self.sync_to_rtc(registry, key);
        self.sync_from_rtc(registry, key);
    }
}
