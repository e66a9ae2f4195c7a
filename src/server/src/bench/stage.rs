//! A shard, a publisher and its viewers, in memory and in virtual time: what is measured, without a network.
//!
//! Viewers join by offer, ICE and DTLS like any other; once connected their far ends are dropped, since from then on
//! only the server's half is of interest. Time is the stage's own, so that seconds of a stream are played as fast as
//! the processor can, timers and sender reports included.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, bail};
use freshet_media::StreamKey;
use freshet_sfu::sdp::{Offer, VideoPreference, negotiate};
use freshet_sfu::{
    Credentials, Epoch, Identity, Input, Lobby, Path, Protocol, SendBatch, Session, SessionId, SessionLimits,
    SessionParams, SessionStatus, Shard, ShardConfig, ShardId, ShardStatus,
};
use rand::Rng as _;

use super::peer::{Media, Peer};
use crate::udp::thread_cpu_time;

/// Exchanges of a handshake, lost ones included, are a dozen.
const MAX_EXCHANGES: usize = 200;
/// Viewers say nothing once they are connected.
const PATIENCE: Duration = Duration::from_secs(1_000_000);

/// Where sessions are, as far as addresses go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Addresses {
    /// Our own.
    pub(crate) server: SocketAddr,
    /// Viewers have addresses behind this one, all with its port.
    pub(crate) viewers: (Ipv4Addr, u16),
}

impl Addresses {
    pub(crate) fn peer(&self, index: u32) -> SocketAddr {
        let (base, port) = self.viewers;
        SocketAddr::from((Ipv4Addr::from(u32::from(base) + index), port))
    }
}

/// What forwarding has cost.
#[derive(Debug, Default, Clone)]
pub(crate) struct Usage {
    /// In the shard: decrypting, fan-out, protecting, timers, reports.
    pub(crate) shard: Duration,
    /// In sending.
    pub(crate) send: Duration,
    /// Packets for viewers.
    pub(crate) packets: u64,
    /// Messages to the kernel, of one or several packets.
    pub(crate) messages: u64,
    /// System calls.
    pub(crate) calls: u64,
    /// Processor time from the arrival of a burst until a batch of it had left, and the packets in the batch.
    pub(crate) delays: Vec<(Duration, u64)>,
}

impl Usage {
    /// The delay within which 99 of 100 packets had left.
    pub(crate) fn p99_delay(&self) -> Duration {
        let mut delays = self.delays.clone();
        delays.sort_unstable();
        let mut left = delays.iter().map(|d| d.1).sum::<u64>() / 100;
        let late = delays.iter().rev().find(|(_, packets)| {
            let is_it = left < *packets;
            left = left.saturating_sub(*packets);
            is_it
        });
        late.map_or(Duration::ZERO, |d| d.0)
    }
}

/// One shard with one stream.
pub(crate) struct Stage {
    addresses: Addresses,
    shard: Shard,
    status: Arc<ShardStatus>,
    lobby: Arc<Lobby>,
    identity: Identity,
    key: StreamKey,
    publisher: Peer,
    now: Instant,
    sessions: u32,
}

impl Stage {
    /// A shard with a publisher that is connected and silent.
    ///
    /// # Errors
    /// No certificate can be made, or the publisher does not connect.
    pub(crate) fn new(addresses: Addresses) -> anyhow::Result<Stage> {
        let now = Instant::now();
        let (lobby, status) = (Arc::new(Lobby::default()), Arc::new(ShardStatus::default()));
        let config = ShardConfig {
            id: ShardId(0),
            shards: 1,
            epoch: Epoch::new(now, SystemTime::now()),
            lobby: Arc::clone(&lobby),
            status: Arc::clone(&status),
        };
        let (publisher, offer) = Peer::offer(true, addresses.peer(0), now)?;
        let mut stage = Stage {
            addresses,
            shard: Shard::new(config, now),
            status,
            lobby,
            identity: Identity::generate()?,
            key: StreamKey::new("", "bench", "stream").context("the name of the stream")?,
            publisher,
            now,
            sessions: 0,
        };
        let answer = stage.open(true, &offer)?;
        stage.publisher.accept(now, &answer)?;
        // The stage's own publisher cannot be borrowed beside its shard.
        let (stand_in, _) = Peer::offer(true, addresses.peer(0), now)?;
        let mut publisher = std::mem::replace(&mut stage.publisher, stand_in);
        stage.connect(&mut publisher, 0)?;
        stage.publisher = publisher;
        Ok(stage)
    }

    /// A further viewer. Returns the processor time that the server's side of its set-up took.
    ///
    /// # Errors
    /// It does not connect.
    pub(crate) fn join(&mut self) -> anyhow::Result<Duration> {
        Ok(self.seat()?.1)
    }

    fn seat(&mut self) -> anyhow::Result<(Peer, Duration)> {
        let index = self.sessions;
        let (mut viewer, offer) = Peer::offer(false, self.addresses.peer(index), self.now)?;
        let start = thread_cpu_time();
        let answer = self.open(false, &offer)?;
        let opened = thread_cpu_time() - start;
        viewer.accept(self.now, &answer)?;
        let connected = self.connect(&mut viewer, index)?;
        Ok((viewer, opened + connected))
    }

    fn open(&mut self, publishing: bool, offer: &str) -> anyhow::Result<String> {
        let mut rng = rand::rng();
        let mut text = |n: usize| -> String { (0..n).map(|_| char::from(rng.random_range(b'a'..=b'z'))).collect() };
        let credentials = Credentials { ufrag: text(8), pwd: text(32) };
        let offer = Offer::parse(offer).context("a peer's offer")?;
        let negotiated = negotiate(&offer, publishing, VideoPreference::Offered).context("a peer's offer")?;
        self.sessions += 1;
        let params = SessionParams {
            id: SessionId(u64::from(self.sessions)),
            key: self.key.clone(),
            offer: &offer,
            negotiated: &negotiated,
            identity: &self.identity,
            credentials,
            udp: &[self.addresses.server],
            tcp: &[],
            limits: SessionLimits { connect: PATIENCE, silence: PATIENCE },
            status: Arc::new(SessionStatus::default()),
            random: &mut || rng.random(),
        };
        let (session, answer) = Session::open(params, self.now).context("a session")?;
        self.lobby.admit(session);
        Ok(answer)
    }

    /// Carries datagrams to and fro until both sides are connected. Returns the server's processor time.
    fn connect(&mut self, peer: &mut Peer, index: u32) -> anyhow::Result<Duration> {
        let path = self.path(index);
        let mut spent = Duration::ZERO;
        let mut ready = false;
        for _ in 0..MAX_EXCHANGES {
            let start = thread_cpu_time();
            for payload in peer.outbox.drain(..) {
                self.shard.handle_input(self.now, Input::Datagram { path, payload: &payload });
            }
            let replies = self.take(path);
            spent += thread_cpu_time() - start;
            for reply in &replies {
                peer.receive(self.now, self.addresses.server, reply)?;
            }
            while self.shard.poll_event().is_some() {
                ready = true;
            }
            if ready && peer.is_connected && peer.outbox.is_empty() {
                return Ok(spent);
            }
            if peer.outbox.is_empty() {
                self.now = self.now.max(peer.deadline);
                peer.tick(self.now)?;
            }
        }
        bail!("a peer does not connect: {MAX_EXCHANGES} exchanges were not enough")
    }

    fn path(&self, index: u32) -> Path {
        let remote = self.addresses.peer(index);
        Path { protocol: Protocol::Udp, remote, local: self.addresses.server.ip() }
    }

    fn take(&mut self, path: Path) -> Vec<Vec<u8>> {
        let mut taken = Vec::new();
        while let Some(batch) = self.shard.poll_transmit() {
            for message in batch.messages().iter().filter(|m| m.path == path) {
                taken.extend(batch.datagrams(message).map(<[u8]>::to_vec));
            }
            batch.clear();
        }
        taken
    }

    /// The publisher's packets of one moment go through the shard and into `send`, which returns its system calls.
    ///
    /// # Errors
    /// The publisher's far end failed, or a viewer was not sent something.
    pub(crate) fn play(
        &mut self,
        step: Duration,
        packets: &[Media],
        usage: &mut Usage,
        mut send: impl FnMut(&SendBatch) -> u64,
    ) -> anyhow::Result<()> {
        self.now += step;
        if self.publisher.deadline <= self.now {
            self.publisher.tick(self.now)?;
        }
        self.publisher.publish(self.now, packets)?;
        let (path, before) = (self.path(0), self.status.forwarded_packets.value());
        let mut replies: Vec<Vec<u8>> = Vec::new();
        let began = thread_cpu_time();
        let mut mark = began;
        for payload in self.publisher.outbox.drain(..) {
            self.shard.handle_input(self.now, Input::Datagram { path, payload: &payload });
        }
        if self.now >= self.shard.poll_timeout() {
            self.shard.handle_input(self.now, Input::Timeout);
        }
        loop {
            let batch = self.shard.poll_transmit();
            let written = thread_cpu_time();
            usage.shard += written - mark;
            let Some(batch) = batch else { break };
            usage.calls += send(batch);
            let sent = thread_cpu_time();
            usage.send += sent - written;
            usage.messages += batch.messages().len() as u64;
            let count = batch.messages().iter().map(|m| m.segments() as u64).sum();
            usage.delays.push((sent - began, count));
            for message in batch.messages().iter().filter(|m| m.path == path) {
                replies.extend(batch.datagrams(message).map(<[u8]>::to_vec));
            }
            batch.clear();
            mark = thread_cpu_time();
        }
        for reply in replies {
            self.publisher.receive(self.now, self.addresses.server, &reply)?;
        }
        let forwarded = self.status.forwarded_packets.value() - before;
        usage.packets += forwarded;
        let due = u64::from(self.sessions - 1) * packets.len() as u64;
        if forwarded != due {
            bail!("{forwarded} packets were forwarded instead of {due}");
        }
        Ok(())
    }
}

/// Payload of an H.264 packet (RFC 6184 §5.8, FU-A) of `bytes`; the first one of a keyframe can start a picture.
pub(crate) fn h264(bytes: usize, keyframe: bool, first: bool, last: bool) -> Arc<[u8]> {
    let mut payload = vec![0x5a; bytes.max(2)];
    payload[0] = 0x7c;
    payload[1] = u8::from(first) << 7 | u8::from(last) << 6 | if keyframe { 5 } else { 1 };
    payload.into()
}

/// Resident memory of this process.
///
/// # Errors
/// There is no proc file system.
pub(crate) fn resident_bytes() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status").context("cannot read /proc/self/status")?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).context("/proc/self/status has no VmRSS")?;
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().context("VmRSS is not a number")?;
    Ok(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_a_frame_leave_in_one_message_and_arrive_as_they_were() {
        let addresses =
            Addresses { server: SocketAddr::from(([127, 0, 0, 1], 9)), viewers: (Ipv4Addr::new(127, 1, 0, 0), 9) };
        let mut stage = Stage::new(addresses).unwrap();
        let (mut viewer, _) = stage.seat().unwrap();
        let path = stage.path(1);
        let sizes = [1041, 1041, 1042, 1042, 500];
        let burst = sizes.map(|bytes| Media {
            is_video: true,
            timestamp: 0,
            marker: bytes == 500,
            payload: h264(bytes, true, bytes == 1041, bytes == 500),
        });
        let (mut messages, mut datagrams) = (Vec::new(), Vec::new());
        let mut usage = Usage::default();
        let played = stage.play(Duration::from_millis(1), &burst, &mut usage, |batch| {
            for message in batch.messages().iter().filter(|m| m.path == path) {
                messages.push(message.segments());
                datagrams.extend(batch.datagrams(message).map(<[u8]>::to_vec));
            }
            0
        });
        played.unwrap();
        let now = stage.now;
        datagrams.iter().for_each(|d| viewer.receive(now, addresses.server, d).unwrap());
        assert_eq!(messages, [5]);
        assert_eq!(viewer.received, sizes);
    }
}
