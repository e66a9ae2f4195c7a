//! The thread around a shard: sockets, queues and the clock.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::{Duration, Instant};

use ahash::AHashMap;
use bytes::{Bytes, BytesMut};
use freshet_sfu::{
    Command, Counter, Input, Path, Protocol, RelayMessage, SendBatch, SessionId, Shard, ShardEvent, Tapped,
};
use tokio::sync::mpsc;

use super::mailbox::{Mail, Queues, RingSender};
use crate::udp::{MediaSocket, RecvBuffers, SendBuffers};

/// Datagram batches that are taken before timers get their turn.
const MAX_RECEIVE_CALLS: usize = 8;
/// Messages of a queue that are taken in one turn.
const MAX_QUEUE_MESSAGES: usize = 1024;
/// Nothing is that far away; also the longest sleep.
const MAX_SLEEP: Duration = Duration::from_secs(1);
/// Control messages for other shards that wait for room in a ring. Reached only if a shard's thread hangs.
const MAX_HELD: usize = 65_536;

/// What the thread counts beyond the shard's own counters.
#[derive(Debug, Default)]
pub(super) struct ThreadStatus {
    pub(super) send_calls: Counter,
    pub(super) drop_send: Counter,
    pub(super) drop_relay: Counter,
    /// Batches of a publisher that a tap's channel had no room for.
    pub(super) drop_tap: Counter,
}

/// Everything that one media thread owns.
pub(super) struct MediaThread {
    pub(super) shard: Shard,
    pub(super) socket: MediaSocket,
    pub(super) queues: Queues,
    pub(super) events: SyncSender<ShardEvent>,
    pub(super) status: Arc<ThreadStatus>,
    pub(super) tcp: AHashMap<SocketAddr, mpsc::Sender<Bytes>>,
    pub(super) held: Vec<VecDeque<RelayMessage>>,
    pub(super) taps: AHashMap<SessionId, SyncSender<Tapped>>,
}

impl MediaThread {
    /// Runs until it is told to stop.
    pub(super) fn run(mut self) {
        let (mut receive, mut send) = (RecvBuffers::new(), SendBuffers::new());
        loop {
            let now = Instant::now();
            let timeout = self.shard.poll_timeout().saturating_duration_since(now).min(MAX_SLEEP);
            self.socket.wait(self.queues.inbox.wake_fd(), timeout);
            self.queues.inbox.clear_wake_up();
            for _ in 0..MAX_RECEIVE_CALLS {
                let now = Instant::now();
                let shard = &mut self.shard;
                let messages = self.socket.receive(&mut receive, |path, payload| {
                    shard.handle_input(now, Input::Datagram { path, payload });
                });
                self.flush(&mut send);
                if messages < receive.capacity() {
                    break;
                }
            }
            self.take_relayed(&mut send);
            if !self.take_mail() {
                self.flush(&mut send);
                return;
            }
            let now = Instant::now();
            if now >= self.shard.poll_timeout() {
                self.shard.handle_input(now, Input::Timeout);
            }
            self.flush(&mut send);
        }
    }

    fn take_relayed(&mut self, send: &mut SendBuffers) {
        for i in 0..self.queues.inbox.rings.len() {
            let now = Instant::now();
            for _ in 0..MAX_QUEUE_MESSAGES {
                let Ok(message) = self.queues.inbox.rings[i].try_recv() else { break };
                self.shard.handle_input(now, Input::Relay(message));
            }
            self.flush(send);
        }
    }

    /// False: the thread has to end.
    fn take_mail(&mut self) -> bool {
        let now = Instant::now();
        for _ in 0..MAX_QUEUE_MESSAGES {
            let Ok(mail) = self.queues.inbox.mail.try_recv() else { break };
            match mail {
                Mail::Command(command) => self.shard.handle_input(now, Input::Command(command)),
                Mail::TcpFrame(path, payload) => {
                    self.shard.handle_input(now, Input::Datagram { path, payload: &payload });
                }
                Mail::TcpOpen(peer, sender) => {
                    self.tcp.insert(peer, sender);
                }
                Mail::TcpClosed(peer) => {
                    self.tcp.remove(&peer);
                }
                Mail::TapOpen(publisher, sender) => self.open_tap(now, publisher, sender),
                Mail::Stop => return false,
            }
        }
        true
    }

    /// Sends everything that the shard has to say.
    fn flush(&mut self, send: &mut SendBuffers) {
        while let Some(batch) = self.shard.poll_transmit() {
            let report = self.socket.send(batch, send);
            let (mut dropped, mut no_room) = (report.dropped, report.no_room);
            if !self.tcp.is_empty() {
                dropped += send_tcp(&self.tcp, batch, &mut no_room);
            }
            batch.clear();
            add(&self.status.send_calls, report.calls);
            add(&self.status.drop_send, dropped);
            no_room.dedup();
            for path in no_room {
                self.shard.handle_input(Instant::now(), Input::Undelivered(path));
            }
        }
        for (held, ring) in self.held.iter_mut().zip(&self.queues.rings) {
            if let Some(ring) = ring {
                push_held(held, ring);
            }
        }
        // At most one entry for each other shard.
        let mut woken: Vec<usize> = Vec::new();
        while let Some((to, message)) = self.shard.poll_relay() {
            let to = usize::from(to.0);
            let (Some(Some(ring)), Some(held)) = (self.queues.rings.get(to), self.held.get_mut(to)) else { continue };
            if !woken.contains(&to) {
                woken.push(to);
            }
            // What is held goes first, or a stream's end could overtake its beginning.
            let rejected = if held.is_empty() { ring.push(message).err() } else { Some(message) };
            match rejected {
                Some(m) if m.is_media() => add(&self.status.drop_relay, 1),
                Some(m) if held.len() < MAX_HELD => held.push_back(m),
                Some(_) => add(&self.status.drop_relay, 1),
                None => {}
            }
        }
        for ring in woken.iter().filter_map(|to| self.queues.rings.get(*to)?.as_ref()) {
            ring.wake();
        }
        // Before the events: a publisher's end is the last thing that its tap says.
        self.hand_out_tapped();
        while let Some(event) = self.shard.poll_event() {
            if let ShardEvent::Closed(id, _) = event {
                self.taps.remove(&id);
            }
            // The receiver only goes away when the process ends.
            let _ = self.events.send(event);
        }
    }

    fn open_tap(&mut self, now: Instant, publisher: SessionId, sender: SyncSender<Tapped>) {
        // What an earlier tap of the publisher has yielded is not for this one.
        self.hand_out_tapped();
        self.shard.handle_input(now, Input::Command(Command::Tap { publisher, on: true }));
        // Elsewhere or gone: the far side learns it from the closed channel.
        if self.shard.is_tapped(publisher) {
            self.taps.insert(publisher, sender);
        }
    }

    fn close_tap(&mut self, now: Instant, publisher: SessionId) {
        self.taps.remove(&publisher);
        self.shard.handle_input(now, Input::Command(Command::Tap { publisher, on: false }));
    }

    fn hand_out_tapped(&mut self) {
        while let Some((publisher, tapped)) = self.shard.poll_tap() {
            match self.taps.get(&publisher).map(|tap| tap.try_send(tapped)) {
                // What was yielded before the tap was closed.
                None | Some(Ok(())) => {}
                Some(Err(TrySendError::Full(_))) => add(&self.status.drop_tap, 1),
                Some(Err(TrySendError::Disconnected(_))) => self.close_tap(Instant::now(), publisher),
            }
        }
    }
}

fn push_held(held: &mut VecDeque<RelayMessage>, ring: &RingSender) {
    while let Some(message) = held.pop_front() {
        if let Err(message) = ring.push(message) {
            held.push_front(message);
            break;
        }
        ring.wake();
    }
}

/// RFC 4571 frames into the connections' queues. Returns the number of frames that found no place.
fn send_tcp(
    connections: &AHashMap<SocketAddr, mpsc::Sender<Bytes>>,
    batch: &SendBatch,
    no_room: &mut Vec<Path>,
) -> u64 {
    let mut dropped = 0;
    for message in batch.messages().iter().filter(|m| m.path.protocol == Protocol::Tcp) {
        let Some(connection) = connections.get(&message.path.remote) else {
            dropped += message.segments() as u64;
            continue;
        };
        for datagram in batch.datagrams(message) {
            let mut frame = BytesMut::with_capacity(2 + datagram.len());
            frame.extend_from_slice(&(datagram.len() as u16).to_be_bytes());
            frame.extend_from_slice(datagram);
            if connection.try_send(frame.freeze()).is_err() {
                dropped += 1;
                no_room.push(message.path);
            }
        }
    }
    dropped
}

fn add(counter: &Counter, n: u64) {
    if n > 0 {
        counter.add(n);
    }
}

#[cfg(test)]
#[path = "media_thread_tests.rs"]
mod tests;
