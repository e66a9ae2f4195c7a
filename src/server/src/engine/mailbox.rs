//! How the rest of the process reaches a shard's thread, and how shards reach each other.
//!
//! Every queue is bounded. A thread that sleeps in `ppoll` is woken through a socket pair; a flag keeps a burst of
//! messages to one write.

use std::io::Read as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use bytes::Bytes;
use freshet_sfu::{Command, Path, RelayMessage, SessionId, Tapped};
use tokio::sync::mpsc;

/// Commands and TCP frames that wait for one shard.
const MAILBOX_MESSAGES: usize = 4096;
/// Messages between one pair of shards: a tenth of a second of packets of a very busy stream.
const RING_MESSAGES: usize = 4096;

/// What the asynchronous side tells a shard.
#[derive(Debug)]
pub(super) enum Mail {
    /// For the SFU.
    Command(Command),
    /// An ICE-TCP connection is open; what is sent to that address goes into the channel.
    TcpOpen(SocketAddr, mpsc::Sender<Bytes>),
    /// A frame of that connection.
    TcpFrame(Path, Bytes),
    /// It is over.
    TcpClosed(SocketAddr),
    /// Send a publisher's packets into the channel, which drops what it has no room for. The shard's end of it is dropped
    /// when the publisher has gone, or at once if it is not at home there; dropping the other end closes the tap with the next packet.
    TapOpen(SessionId, SyncSender<Tapped>),
    /// End the thread.
    Stop,
}

/// Wakes a shard's thread.
#[derive(Debug)]
pub(super) struct Waker {
    writer: UnixStream,
    pending: AtomicBool,
}

impl Waker {
    pub(super) fn wake(&self) {
        if !self.pending.swap(true, Ordering::AcqRel) {
            // A full pipe means that the thread has enough wake-ups waiting.
            let _ = (&self.writer).write(&[1]);
        }
    }
}

/// The far end of a shard's queues.
#[derive(Debug, Clone)]
pub(super) struct Postbox {
    mail: SyncSender<Mail>,
    waker: Arc<Waker>,
}

impl Postbox {
    /// False: the mailbox is full or the shard has ended.
    #[must_use]
    pub(super) fn post(&self, mail: Mail) -> bool {
        let posted = self.mail.try_send(mail).is_ok();
        self.waker.wake();
        posted
    }
}

/// One direction between two shards.
#[derive(Debug)]
pub(super) struct RingSender {
    ring: SyncSender<RelayMessage>,
    waker: Arc<Waker>,
}

impl RingSender {
    /// Gives the message back when the ring is full.
    pub(super) fn push(&self, message: RelayMessage) -> Result<(), RelayMessage> {
        use std::sync::mpsc::TrySendError::{Disconnected, Full};
        self.ring.try_send(message).map_err(|(Full(m) | Disconnected(m))| m)
    }

    pub(super) fn wake(&self) {
        self.waker.wake();
    }
}

/// The near end of a shard's queues.
#[derive(Debug)]
pub(super) struct Inbox {
    pub(super) mail: Receiver<Mail>,
    pub(super) rings: Vec<Receiver<RelayMessage>>,
    reader: UnixStream,
    waker: Arc<Waker>,
}

impl Inbox {
    /// To be called after every sleep, before the queues are looked into.
    pub(super) fn clear_wake_up(&mut self) {
        let mut bytes = [0; 64];
        while matches!(self.reader.read(&mut bytes), Ok(n) if n == bytes.len()) {}
        self.waker.pending.store(false, Ordering::Release);
    }

    pub(super) fn wake_fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }
}

/// The queues of one shard.
pub(super) struct Queues {
    pub(super) inbox: Inbox,
    /// Towards the other shards, by their number; [`None`] at its own.
    pub(super) rings: Vec<Option<RingSender>>,
}

/// Connects `count` shards with each other and with the outside.
///
/// # Errors
/// No sockets are left for the wake-ups.
pub(super) fn connect(count: usize) -> std::io::Result<(Vec<Postbox>, Vec<Queues>)> {
    let (mut postboxes, mut queues) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let (writer, reader) = UnixStream::pair()?;
        writer.set_nonblocking(true)?;
        reader.set_nonblocking(true)?;
        let waker = Arc::new(Waker { writer, pending: AtomicBool::new(false) });
        let (sender, mail) = sync_channel(MAILBOX_MESSAGES);
        postboxes.push(Postbox { mail: sender, waker: Arc::clone(&waker) });
        queues.push(Queues { inbox: Inbox { mail, rings: Vec::new(), reader, waker }, rings: Vec::new() });
    }
    for from in 0..count {
        for to in 0..count {
            let ring = (from != to).then(|| {
                let (ring, receiver) = sync_channel(RING_MESSAGES);
                queues[to].inbox.rings.push(receiver);
                RingSender { ring, waker: Arc::clone(&queues[to].inbox.waker) }
            });
            queues[from].rings.push(ring);
        }
    }
    Ok((postboxes, queues))
}
