//! What waits to be written to a connection.
//!
//! A TLS stream takes bytes and keeps the record that it has made of them if the socket is full: it goes out with the next
//! write, or when it is flushed. So nothing is written before it has been flushed.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::pin;
use std::task::Poll;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

/// Pieces that leave in one system call.
const MAX_SLICES: usize = 64;

/// Bytes that wait to be written, or to be flushed.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    pieces: VecDeque<Bytes>,
    is_unflushed: bool,
    /// Since it was last asked for.
    written_bytes: usize,
}

impl Pending {
    pub(crate) fn push(&mut self, piece: Bytes) {
        self.pieces.push_back(piece);
    }

    /// Whether anything has not gone out.
    pub(crate) fn has_more(&self) -> bool {
        !self.pieces.is_empty() || self.is_unflushed
    }

    /// How many bytes have been written since this was last asked.
    pub(crate) fn take_written(&mut self) -> usize {
        std::mem::take(&mut self.written_bytes)
    }

    /// Writes what the socket takes without waiting.
    pub(crate) async fn write_at_once(&mut self, writer: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        while self.has_more() {
            let mut writing = pin!(self.write_to(writer));
            match poll_fn(|context| Poll::Ready(writing.as_mut().poll(context))).await {
                Poll::Ready(written) => written?,
                Poll::Pending => break,
            }
        }
        Ok(())
    }

    /// Writes what the socket takes at once, and flushes behind the last piece. May be given up at any time.
    pub(crate) async fn write_to(&mut self, writer: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        if !self.pieces.is_empty() {
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let count = self.pieces.len().min(MAX_SLICES);
            for (slice, piece) in slices.iter_mut().zip(&self.pieces) {
                *slice = IoSlice::new(piece);
            }
            let written = writer.write_vectored(&slices[..count]).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.is_unflushed = true;
            // Counted before the flush, in which this may be given up.
            self.written_bytes += written;
            self.forget(written);
        }
        if self.pieces.is_empty() {
            writer.flush().await?;
            self.is_unflushed = false;
        }
        Ok(())
    }

    fn forget(&mut self, mut written: usize) {
        while let Some(piece) = self.pieces.front_mut().filter(|_| written > 0) {
            if piece.len() > written {
                piece.advance(written);
                break;
            }
            written -= piece.len();
            self.pieces.pop_front();
        }
    }
}

impl Extend<Bytes> for Pending {
    fn extend<I: IntoIterator<Item = Bytes>>(&mut self, pieces: I) {
        self.pieces.extend(pieces);
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, BufWriter, duplex};

    use super::*;

    /// A writer that keeps what it is given, before a wire that takes ten bytes at a time.
    #[tokio::test]
    async fn what_is_written_comes_out_without_another_write() {
        let (near, mut far) = duplex(10);
        let mut writer = BufWriter::new(near);
        let mut pending = Pending::default();
        let pieces = [vec![1; 7], vec![2; 12], vec![3; 4]].map(Bytes::from);
        pending.extend(pieces.to_vec());
        let (mut come, mut buffer) = (Vec::new(), [0; 10]);
        for _ in 0..10 {
            pending.write_at_once(&mut writer).await.unwrap();
            // What is on the wire now: no read waits.
            let mut reading = pin!(far.read(&mut buffer));
            match poll_fn(|context| Poll::Ready(reading.as_mut().poll(context))).await {
                Poll::Ready(read) => come.extend_from_slice(&buffer[..read.unwrap()]),
                Poll::Pending => break,
            }
        }
        assert_eq!((come, pending.has_more()), (pieces.concat(), false));
    }
}
