//! One keyframe request to a publisher for any number of viewers that ask.

use std::time::{Duration, Instant};

/// A requested keyframe needs a round trip and an encoder's next frame to show; asking again before that would only
/// make the publisher send two. Encoders that answer each request with a keyframe stay at two a second.
const MIN_INTERVAL: Duration = Duration::from_millis(500);

/// The requests for one layer of one track.
#[derive(Debug, Default)]
pub(crate) struct KeyframeThrottle {
    sent: Option<Instant>,
    pending: bool,
}

impl KeyframeThrottle {
    /// A viewer asks. True: send a request now.
    #[must_use]
    pub(crate) fn request(&mut self, now: Instant) -> bool {
        self.pending = true;
        self.poll(now)
    }

    /// Like [`request`](Self::request), but leaves the sending to the next [`poll`](Self::poll).
    pub(crate) fn wish(&mut self) {
        self.pending = true;
    }

    /// A keyframe has begun: whoever asked is served by it.
    pub(crate) fn keyframe(&mut self) {
        self.pending = false;
    }

    /// True: a request that had to wait is due and to be sent.
    #[must_use]
    pub(crate) fn poll(&mut self, now: Instant) -> bool {
        let due = self.pending && self.sent.is_none_or(|at| now >= at + MIN_INTERVAL);
        if due {
            self.sent = Some(now);
            self.pending = false;
        }
        due
    }

    /// When to call [`poll`](Self::poll), if a request waits.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.sent.filter(|_| self.pending).map(|at| at + MIN_INTERVAL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_hundred_joins_make_one_request() {
        let start = Instant::now();
        let mut throttle = KeyframeThrottle::default();
        let sent = (0..500).filter(|i| throttle.request(start + Duration::from_micros(*i))).count();
        assert_eq!(sent, 1);
        throttle.keyframe();
        assert_eq!(throttle.deadline(), None);
        assert!(!throttle.poll(start + Duration::from_secs(1)));
    }

    #[test]
    fn a_request_that_came_too_early_is_sent_later() {
        let start = Instant::now();
        let mut throttle = KeyframeThrottle::default();
        assert!(throttle.request(start));
        throttle.keyframe();
        assert!(!throttle.request(start + Duration::from_millis(100)));
        assert_eq!(throttle.deadline(), Some(start + MIN_INTERVAL));
        assert!(throttle.poll(start + MIN_INTERVAL));
        assert!(!throttle.poll(start + MIN_INTERVAL * 3));
    }
}
