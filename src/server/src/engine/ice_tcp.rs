//! One ICE-TCP connection (RFC 6544): frames of RFC 4571 in, frames out.
//!
//! The first frame has to be a check of a session that exists; it decides which shard the connection talks to. A
//! connection whose peer does not read is given a bounded queue: what does not fit is dropped, as on a slow link.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use freshet_sfu::{BindingRequest, Path, Protocol};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::mailbox::{Mail, Postbox};

/// Longest frame: an Ethernet frame's worth, as over UDP.
const MAX_FRAME_BYTES: usize = 1500;
/// Frames that wait for a peer: a quarter of a second of 4 Mbit/s.
const QUEUED_FRAMES: usize = 128;
/// For the first frame to come in, and for the peer to take anything at all.
const PATIENCE: Duration = Duration::from_secs(10);
/// A connection on which nothing comes in: checks come every few seconds.
const IDLE: Duration = Duration::from_secs(60);

/// Finds the shard for a check's user name fragment.
pub(super) trait FindShard {
    fn shard_for(&self, ufrag: &str, peer: SocketAddr) -> Option<&Postbox>;
}

/// Carries a connection until it ends.
pub(super) async fn serve(stream: TcpStream, peer: SocketAddr, read_ahead: Bytes, find: &impl FindShard) {
    let Ok(local) = stream.local_addr() else { return };
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    let path = Path { protocol: Protocol::Tcp, remote: peer, local: local.ip().to_canonical() };
    let (mut reader, writer) = stream.into_split();
    let mut buffer = BytesMut::from(&read_ahead[..]);
    let first = timeout(PATIENCE, next_frame(&mut reader, &mut buffer)).await;
    let Ok(Some(first)) = first else { return };
    let Some(request) = BindingRequest::parse(&first) else { return };
    let Some(shard) = find.shard_for(request.ufrag, peer) else { return };
    let (sender, receiver) = mpsc::channel(QUEUED_FRAMES);
    if !shard.post(Mail::TcpOpen(peer, sender)) || !shard.post(Mail::TcpFrame(path, first.clone())) {
        return;
    }
    let write = tokio::spawn(write_frames(writer, receiver));
    while let Ok(Some(frame)) = timeout(IDLE, next_frame(&mut reader, &mut buffer)).await {
        // A full mailbox drops the frame, as a full socket buffer would drop a datagram.
        let _ = shard.post(Mail::TcpFrame(path, frame));
        if write.is_finished() {
            break;
        }
    }
    let _ = shard.post(Mail::TcpClosed(peer));
    write.abort();
}

/// The next frame; [`None`] at the end, on an error, or when a frame is longer than a datagram may be.
async fn next_frame(reader: &mut (impl tokio::io::AsyncRead + Unpin), buffer: &mut BytesMut) -> Option<Bytes> {
    loop {
        if let Some(head) = buffer.first_chunk::<2>() {
            let length = usize::from(u16::from_be_bytes(*head));
            if length > MAX_FRAME_BYTES {
                return None;
            }
            if buffer.len() >= 2 + length {
                buffer.advance(2);
                return Some(buffer.split_to(length).freeze());
            }
        }
        buffer.reserve(4096);
        if reader.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
}

async fn write_frames(mut writer: OwnedWriteHalf, mut frames: mpsc::Receiver<Bytes>) {
    let mut waiting = Vec::with_capacity(QUEUED_FRAMES);
    let mut joined = BytesMut::new();
    while frames.recv_many(&mut waiting, QUEUED_FRAMES).await > 0 {
        joined.clear();
        waiting.drain(..).for_each(|frame| joined.extend_from_slice(&frame));
        if !matches!(timeout(PATIENCE, writer.write_all(&joined)).await, Ok(Ok(()))) {
            return;
        }
    }
}
