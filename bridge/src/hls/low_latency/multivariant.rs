//! The multivariant playlist (§4.4.6.2): one variant, with what players choose by.

use std::fmt::Write as _;
use std::time::Duration;

use super::MEDIA_PLAYLIST;
use super::playlist::LowLatencyPlaylist;

impl LowLatencyPlaylist {
    /// The text, `None` as long as there is no segment to measure. `query` is hung on the media playlist's name, with
    /// its question mark; it must be fit for a URI.
    pub fn render_multivariant(&self, query: &str) -> Option<String> {
        let rates = || self.window.listed().iter().map(|segment| bits_per_second(segment.data.len(), segment.duration));
        let peak = rates().max()?;
        let total: Duration = self.window.listed().iter().map(|segment| segment.duration).sum();
        let average = bits_per_second(self.window.listed().iter().map(|segment| segment.data.len()).sum(), total);
        let mut text = String::with_capacity(384 + query.len());
        text.push_str("#EXTM3U\n#EXT-X-VERSION:9\n");
        if self.window.listed().iter().all(|segment| segment.is_independent) {
            text.push_str("#EXT-X-INDEPENDENT-SEGMENTS\n");
        }
        let codecs = self.rendition.codecs.join(",");
        // Writing to a string cannot fail.
        let _ = write!(text, "#EXT-X-STREAM-INF:BANDWIDTH={peak},AVERAGE-BANDWIDTH={average},CODECS=\"{codecs}\"");
        if let Some((width, height)) = self.rendition.size {
            let _ = write!(text, ",RESOLUTION={width}x{height}");
        }
        if let Some(interval) = self.rendition.interval.filter(|interval| !interval.is_zero()) {
            let _ = write!(text, ",FRAME-RATE={:.3}", 1.0 / interval.as_secs_f64());
        }
        let _ = write!(text, "\n{MEDIA_PLAYLIST}{query}\n");
        Some(text)
    }
}

/// At least 1, as there is no stream of none.
fn bits_per_second(bytes: usize, duration: Duration) -> u64 {
    let bits = bytes as f64 * 8.0 / duration.as_secs_f64().max(0.001);
    (bits.ceil() as u64).max(1)
}
