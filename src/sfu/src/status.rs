//! What the outside may know of a session while it runs on its shard: a handful of atomics, written by the shard
//! alone, read by listings and metrics.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::batch::Protocol;

const RELAXED: Ordering = Ordering::Relaxed;
/// No packet has told the format yet.
const NO_FORMAT: u8 = u8::MAX;

/// A counter that one thread writes and any thread reads.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// The present value.
    pub fn value(&self) -> u64 {
        self.0.load(RELAXED)
    }

    /// Adds without a locked instruction, which a single writer may.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(RELAXED).wrapping_add(n), RELAXED);
    }

    /// Replaces the value.
    pub fn set(&self, n: u64) {
        self.0.store(n, RELAXED);
    }
}

/// One session as seen from outside its shard.
#[derive(Debug, Default)]
pub struct SessionStatus {
    connected: AtomicBool,
    path: Mutex<Option<(Protocol, SocketAddr)>>,
    /// Bytes received, headers of RTP included.
    pub recv_bytes: Counter,
    /// Bytes sent.
    pub sent_bytes: Counter,
    /// Received bits per second over the last second.
    pub recv_bps: Counter,
    /// Sent bits per second over the last second.
    pub sent_bps: Counter,
    /// Packets that NACKs were about: a viewer's, or ours to a publisher.
    pub nacks: Counter,
    /// Keyframe requests: a viewer's, or ours to a publisher.
    pub keyframe_requests: Counter,
    /// Times that a viewer's link turned out to be too weak for its stream, so that its picture got a budget.
    pub budgets: Counter,
    rtt_micros: AtomicU32,
    loss_permille: AtomicU32,
    /// Tracks of a publisher, audio first.
    pub tracks: [TrackStatus; 2],
    /// Milliseconds of the shard's clock at which media last arrived from a publisher, 0 before the first.
    pub last_media_millis: Counter,
}

/// A publisher's track as seen from outside.
#[derive(Debug)]
pub struct TrackStatus {
    format: AtomicU8,
    layers: AtomicU8,
    /// Width and height, 16 bits each.
    size: AtomicU32,
    /// Frames received (of the layer that is forwarded).
    pub frames: Counter,
}

impl Default for TrackStatus {
    fn default() -> TrackStatus {
        TrackStatus {
            format: AtomicU8::new(NO_FORMAT),
            layers: AtomicU8::new(0),
            size: AtomicU32::new(0),
            frames: Counter::default(),
        }
    }
}

impl TrackStatus {
    /// Index of the format that arrives among those negotiated.
    pub fn format(&self) -> Option<usize> {
        Some(self.format.load(RELAXED)).filter(|f| *f != NO_FORMAT).map(usize::from)
    }

    /// Simulcast layers that have arrived.
    pub fn layers(&self) -> usize {
        usize::from(self.layers.load(RELAXED))
    }

    /// Width and height of the picture, as its keyframes tell them.
    pub fn size(&self) -> Option<(u32, u32)> {
        Some(self.size.load(RELAXED)).filter(|size| *size != 0).map(|size| (size >> 16, size & 0xffff))
    }

    pub(crate) fn set_size(&self, (width, height): (u32, u32)) {
        if let (Ok(width), Ok(height)) = (u16::try_from(width), u16::try_from(height)) {
            self.size.store(u32::from(width) << 16 | u32::from(height), RELAXED);
        }
    }

    pub(crate) fn set(&self, format: u8, layers: u8) {
        self.format.store(format, RELAXED);
        self.layers.store(layers, RELAXED);
    }
}

impl SessionStatus {
    /// ICE and DTLS are up.
    pub fn is_connected(&self) -> bool {
        self.connected.load(RELAXED)
    }

    /// Protocol and address of the peer, once nominated.
    pub fn path(&self) -> Option<(Protocol, SocketAddr)> {
        *self.path.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Round trip from RTCP.
    pub fn rtt(&self) -> Option<Duration> {
        Some(self.rtt_micros.load(RELAXED)).filter(|r| *r > 0).map(|r| Duration::from_micros(u64::from(r)))
    }

    /// Share of packets lost in the last report interval.
    pub fn loss_permille(&self) -> u32 {
        self.loss_permille.load(RELAXED)
    }

    /// Tells that media can flow.
    pub fn set_connected(&self) {
        self.connected.store(true, RELAXED);
    }

    /// Tells where media goes.
    pub fn set_path(&self, protocol: Protocol, remote: SocketAddr) {
        *self.path.lock().unwrap_or_else(|e| e.into_inner()) = Some((protocol, remote));
    }

    pub(crate) fn set_rtt(&self, rtt: Duration) {
        self.rtt_micros.store(u32::try_from(rtt.as_micros()).unwrap_or(u32::MAX), RELAXED);
    }

    pub(crate) fn set_loss(&self, permille: u32) {
        self.loss_permille.store(permille, RELAXED);
    }
}

/// Totals of one shard since start.
#[derive(Debug, Default)]
pub struct ShardStatus {
    /// Sessions at home.
    pub sessions: Counter,
    /// Datagrams received.
    pub recv_packets: Counter,
    /// Bytes received.
    pub recv_bytes: Counter,
    /// Datagrams written for sending.
    pub sent_packets: Counter,
    /// Bytes written for sending.
    pub sent_bytes: Counter,
    /// RTP packets of publishers.
    pub published_packets: Counter,
    /// RTP packets written for viewers, retransmissions left out.
    pub forwarded_packets: Counter,
    /// RTP packets sent again.
    pub retransmitted_packets: Counter,
    /// Packets for which viewers sent NACK.
    pub nacks: Counter,
    /// Keyframe requests of viewers.
    pub keyframe_requests: Counter,
    /// Keyframe requests sent to publishers.
    pub keyframe_requests_sent: Counter,
    /// Budgets set for viewers' pictures.
    pub budgets: Counter,
    /// Dropped: from an address that has no session.
    pub drop_stranger: Counter,
    /// Dropped: STUN that names no session or is not authentic.
    pub drop_stun: Counter,
    /// Dropped: malformed, forged or replayed.
    pub drop_malformed: Counter,
    /// Dropped: the ring to another shard was full.
    pub drop_relay: Counter,
    /// Dropped: the viewer has no payload type for the codec.
    pub drop_codec: Counter,
}
