//! What leaves in one go: datagrams laid next to each other, grouped for segmentation offload.

use std::net::{IpAddr, SocketAddr};

/// How a datagram travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// A UDP datagram.
    Udp,
    /// A frame of an ICE-TCP connection (RFC 4571, RFC 6544).
    Tcp,
}

impl Protocol {
    /// `udp` or `tcp`.
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Udp => "udp",
            Protocol::Tcp => "tcp",
        }
    }
}

/// A way to a peer: its address, and the address of ours that it talks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Path {
    /// UDP or TCP.
    pub protocol: Protocol,
    /// The peer's address.
    pub remote: SocketAddr,
    /// Our address: what is sent leaves from where the peer's packets came to.
    pub local: IpAddr,
}

/// Kernel limit of segments in one message (`UDP_MAX_SEGMENTS`, 64 before Linux 6.9).
const MAX_SEGMENTS: usize = 64;
/// Longest UDP payload that a message of several segments may have in all.
const MAX_MESSAGE_BYTES: usize = 65_000;
/// Messages of one `sendmmsg`; the gain flattens here.
const MAX_MESSAGES: usize = 64;
/// The arena is handed over when it has grown past this: it stays within a core's second-level cache.
const FULL_BYTES: usize = 256 * 1024;

/// Datagrams for one peer: consecutive bytes of the arena, cut every `segment_bytes`, the last one may be shorter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    /// To whom, and from which address.
    pub path: Path,
    /// Where it begins in the arena.
    pub start: usize,
    /// All its bytes.
    pub bytes: usize,
    /// Size of each datagram but the last.
    pub segment_bytes: usize,
}

impl Message {
    /// Number of datagrams.
    pub fn segments(&self) -> usize {
        self.bytes.div_ceil(self.segment_bytes.max(1))
    }
}

/// A batch of messages and the bytes they consist of.
#[derive(Debug)]
pub struct SendBatch {
    arena: Vec<u8>,
    messages: Vec<Message>,
}

impl Default for SendBatch {
    fn default() -> SendBatch {
        SendBatch { arena: Vec::with_capacity(FULL_BYTES + MAX_MESSAGE_BYTES), messages: Vec::with_capacity(256) }
    }
}

impl SendBatch {
    /// The messages, in the order in which they were written.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// The bytes of a message.
    pub fn bytes(&self, message: &Message) -> &[u8] {
        &self.arena[message.start..message.start + message.bytes]
    }

    /// The datagrams of a message.
    pub fn datagrams(&self, message: &Message) -> impl Iterator<Item = &[u8]> {
        self.bytes(message).chunks(message.segment_bytes.max(1))
    }

    /// Nothing to send.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Enough for a system call.
    pub fn is_full(&self) -> bool {
        self.messages.len() >= MAX_MESSAGES || self.arena.len() >= FULL_BYTES
    }

    /// Forgets everything; memory is kept for the next batch.
    pub fn clear(&mut self) {
        self.arena.clear();
        self.messages.clear();
    }

    /// Adds a datagram. The shard writes its own in place.
    pub fn push(&mut self, path: Path, datagram: &[u8]) {
        self.arena.extend_from_slice(datagram);
        self.commit(path);
    }

    /// Where to write the next datagram: append to the vector, then [`commit`](Self::commit) or
    /// [`abandon`](Self::abandon).
    pub(crate) fn arena(&mut self) -> &mut Vec<u8> {
        &mut self.arena
    }

    /// Start of the datagram being written.
    pub(crate) fn written(&self) -> usize {
        self.messages.last().map_or(0, |m| m.start + m.bytes)
    }

    /// Makes the bytes appended since the last commit a datagram for `path`. Returns its length.
    pub(crate) fn commit(&mut self, path: Path) -> usize {
        let start = self.written();
        let length = self.arena.len() - start;
        if length == 0 {
            return 0;
        }
        if let Some(last) = self.messages.last_mut() {
            let whole = last.bytes.is_multiple_of(last.segment_bytes);
            let fits = last.segments() < MAX_SEGMENTS && last.bytes + length <= MAX_MESSAGE_BYTES;
            if last.path == path && whole && length <= last.segment_bytes && fits {
                last.bytes += length;
                return length;
            }
        }
        self.messages.push(Message { path, start, bytes: length, segment_bytes: length });
        length
    }

    /// Takes back what was appended since the last commit.
    pub(crate) fn abandon(&mut self) {
        let start = self.written();
        self.arena.truncate(start);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(port: u16) -> Path {
        Path {
            protocol: Protocol::Udp,
            remote: SocketAddr::from(([127, 0, 0, 1], port)),
            local: IpAddr::from([127, 0, 0, 1]),
        }
    }

    fn push(batch: &mut SendBatch, port: u16, length: usize) {
        batch.push(path(port), &vec![0; length]);
    }

    #[test]
    fn equal_sizes_share_a_message_and_a_shorter_one_ends_it() {
        let mut batch = SendBatch::default();
        for length in [100, 100, 60, 60, 61] {
            push(&mut batch, 1, length);
        }
        push(&mut batch, 2, 61);
        let shapes: Vec<_> = batch.messages().iter().map(|m| (m.path.remote.port(), m.bytes, m.segments())).collect();
        assert_eq!(shapes, [(1, 260, 3), (1, 60, 1), (1, 61, 1), (2, 61, 1)]);
        let first = batch.messages()[0];
        assert_eq!(batch.datagrams(&first).map(<[u8]>::len).collect::<Vec<_>>(), [100, 100, 60]);
    }

    #[test]
    fn a_message_stays_within_kernel_limits() {
        let mut batch = SendBatch::default();
        for _ in 0..200 {
            push(&mut batch, 1, 10);
        }
        for _ in 0..100 {
            push(&mut batch, 2, 1200);
        }
        assert!(batch.messages().iter().all(|m| m.segments() <= 64 && m.bytes <= MAX_MESSAGE_BYTES));
        batch.arena().extend_from_slice(&[1, 2, 3]);
        batch.abandon();
        assert_eq!(batch.commit(path(1)), 0);
    }
}
