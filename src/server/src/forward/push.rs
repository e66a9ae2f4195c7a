//! One connection to another server, from looking up its name to the goodbye.
//!
//! The server is asked first and the stream's place as a player taken when it has answered, so that a server that is down
//! costs nothing: in particular, no crossing from WebRTC runs for it.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use freshet_bridge::fanout::{Tracks, Wire};
use freshet_bridge::flv::describe;
use freshet_bridge::rtmp::{Acceptance, PeerCodecs, PublishError, PublishOutput, PublishTo, RtmpLimits, RtmpPublisher};
use freshet_media::{Codec, StreamKey};
use freshet_sfu::CloseReason;
use socket2::SockRef;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::info;

use super::entry::{Entry, State};
use super::own::OwnAddresses;
use super::target::Target;
use crate::engine::{LiveRequest, Protocol, Refusal};
use crate::http::Sessions;
use crate::live::{LivePlayer, Pending, Reading};
use crate::tls_client;

/// To look up a name, and to connect to all of its addresses.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// From one step of the server's setting up to the next: a server far away takes half a second.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Until the publisher has shown what it sends. A browser's ICE and first keyframe take two or three seconds.
const TRACKS_TIMEOUT: Duration = Duration::from_secs(15);
/// For the last words to a server.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(2);
/// To find out whether an address is our own, when somebody waits for the answer.
const OWN_TIMEOUT: Duration = Duration::from_secs(3);
/// Addresses of a name that are tried.
const MAX_ADDRESSES: usize = 8;
/// Commands and acknowledgements are all that a server sends.
const READ_BYTES: usize = 4 * 1024;
/// What the kernel may hold of what has not been sent yet: a server that has stopped to read, or reads slowly, is noticed
/// by what piles up here, where it can be left out, and not in a buffer of megabytes.
const UNSENT_BYTES: u32 = 128 * 1024;

/// What we call ourselves. Servers look for "FMLE" and nothing behind it.
const FLASH_VER: &str = concat!("FMLE/3.0 (compatible; Freshet/", env!("CARGO_PKG_VERSION"), ")");

/// How a connection ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The stream has no publisher any more.
    SourceGone,
    /// The server has ended the player's session.
    Session(CloseReason),
    /// Somebody has ended the forward.
    Stopped,
}

/// Why nothing is sent, or no longer.
#[derive(Debug, Error)]
pub(super) enum PushError {
    #[error("cannot look up {host}: {error}")]
    Lookup { host: String, error: io::Error },
    #[error("cannot connect to {address}: {error}")]
    Connect { address: SocketAddr, error: io::Error },
    #[error("TLS with {host} failed: {reason}")]
    Tls { host: String, reason: String },
    #[error("{0} is this server, and the stream has the same name there: it would come back for ever")]
    Loop(SocketAddr),
    #[error("the server did not {what} within {} s", within.as_secs())]
    Late { what: &'static str, within: Duration },
    #[error(transparent)]
    Publish(#[from] PublishError),
    #[error("RTMP cannot carry {0}")]
    Uncarried(Codec),
    #[error("the server takes {takes} and not {codec}, which the stream has: publish with H.264 and AAC")]
    Codec { codec: Codec, takes: String },
    #[error("the server has taken nothing for {} s", .0.as_secs())]
    Stalled(Duration),
    #[error("the connection broke: {0}")]
    Broken(io::Error),
    #[error("{}: {}", .0.detail, .0.hint)]
    Refused(Refusal),
    #[error("the publisher has sent neither sound nor picture for {} s", .0.as_secs())]
    NoMedia(Duration),
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// One attempt.
pub(super) struct Push<'a> {
    entry: &'a Entry,
    sessions: Arc<dyn Sessions>,
    own: &'a OwnAddresses,
    stall: Duration,
    live_since: Option<Instant>,
}

impl<'a> Push<'a> {
    pub(super) fn new(entry: &'a Entry, sessions: Arc<dyn Sessions>, own: &'a OwnAddresses, stall: Duration) -> Self {
        Push { entry, sessions, own, stall, live_since: None }
    }

    /// How long the server took the stream.
    pub(super) fn live_for(&self) -> Duration {
        self.live_since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Connects and sends until there is a reason to stop.
    pub(super) async fn run(&mut self, mut stopped: watch::Receiver<bool>) -> Result<End, PushError> {
        let mut stopped = pin!(async move {
            // An error means that nobody is left who could stop it; `pending` then.
            if stopped.wait_for(|stop| *stop).await.is_err() {
                std::future::pending::<()>().await;
            }
        });
        let ready = tokio::select! {
            ready = self.set_up() => ready?,
            () = &mut stopped => return Ok(End::Stopped),
        };
        let (mut wire, mut player) = match ready {
            Ready::Publishing(both) => *both,
            Ready::Ended(end) => return Ok(end),
        };
        self.live_since = Some(Instant::now());
        self.entry.set_state(State::Live);
        let (stream, to, address) = (&self.entry.key, &self.entry.target.shown, wire.address);
        info!(%stream, to, %address, "forwarding");
        let ended = wire.pump(&mut player, self.stall, stopped).await;
        match &ended {
            Ok(End::Session(reason)) => player.leave_for(*reason),
            Ok(End::SourceGone | End::Stopped) => player.leave_for(CloseReason::PeerClosed),
            Err(_) => player.leave_for(CloseReason::Failed),
        }
        if ended.is_ok() {
            wire.say_goodbye().await;
        }
        ended
    }

    /// Everything before the first frame.
    async fn set_up(&self) -> Result<Ready<'a>, PushError> {
        let (stream, address) = self.connect().await?;
        let target = &self.entry.target;
        let to = PublishTo {
            app: target.app.clone(),
            stream: target.stream.clone(),
            tc_url: target.tc_url().to_owned(),
            flash_ver: FLASH_VER.to_owned(),
        };
        let mut wire = RtmpWire::new(stream, address, RtmpPublisher::new(RtmpLimits::default(), to)?, self.entry);
        let codecs = loop {
            match wire.told("answer the handshake and \"connect\"").await? {
                PublishOutput::Connected(codecs) => break codecs,
                PublishOutput::Started | PublishOutput::Write(_) => {}
            }
        };
        let request = LiveRequest {
            key: self.entry.key.clone(),
            protocol: Protocol::Forward,
            peer: address,
            client_ip: address.ip(),
            user_agent: format!("forward to {}", target.shown),
        };
        let sessions = Arc::clone(&self.sessions);
        let mut player = sessions.play_live(&request, Wire::RtmpPublish).map_err(PushError::Refused)?;
        let known = wire.meanwhile(timeout(TRACKS_TIMEOUT, player.tracks())).await?;
        match known.map_err(|_| PushError::NoMedia(TRACKS_TIMEOUT))? {
            Ok(_) => {}
            Err(reason) => return Ok(Ready::Ended(End::Session(reason))),
        }
        let tracks = player.stream().tracks();
        self.check_codecs(&codecs, &tracks)?;
        wire.rtmp.publish()?;
        wire.drain();
        while wire.told("accept the stream").await? != PublishOutput::Started {}
        if player.stream().lock().fanout.metadata().is_none() {
            let all = [&tracks.audio, &tracks.video].into_iter().flatten();
            let script = describe(all.map(AsRef::as_ref));
            wire.send([Wire::RtmpPublish.metadata(&script)]);
        }
        Ok(Ready::Publishing(Box::new((wire, player))))
    }

    fn check_codecs(&self, codecs: &PeerCodecs, tracks: &Tracks) -> Result<(), PushError> {
        for track in [&tracks.video, &tracks.audio].into_iter().flatten() {
            let codec = track.codec;
            match codecs.accept(codec) {
                Acceptance::Yes => {}
                Acceptance::Uncarried => return Err(PushError::Uncarried(codec)),
                Acceptance::No => {
                    let takes = [&["H.264", "AAC", "MP3"].map(str::to_owned)[..], codecs.names()].concat().join(", ");
                    return Err(PushError::Codec { codec, takes });
                }
                Acceptance::Unknown => self.entry.set_note(format!(
                    "the server does not say whether it takes {codec} (Enhanced RTMP); it is sent all the same"
                )),
            }
        }
        Ok(())
    }

    async fn connect(&self) -> Result<(Box<dyn Stream>, SocketAddr), PushError> {
        let target = &self.entry.target;
        let connected = timeout(CONNECT_TIMEOUT, async {
            let addresses = look_up(target).await?;
            if let Some(own) = addresses.iter().find(|a| self.own.contain(**a) && target.names(&self.entry.key)) {
                return Err(PushError::Loop(*own));
            }
            connect_to_any(&addresses).await
        });
        let late = PushError::Late { what: "accept a connection", within: CONNECT_TIMEOUT };
        let (tcp, address) = connected.await.map_err(|_| late)??;
        let socket = SockRef::from(&tcp);
        // Both only shorten the delay.
        let _ = socket.set_tcp_nodelay(true);
        let _ = socket.set_tcp_notsent_lowat(UNSENT_BYTES);
        if !target.secure {
            return Ok((Box::new(tcp), address));
        }
        let late = PushError::Late { what: "finish the TLS handshake", within: ANSWER_TIMEOUT };
        let secured = timeout(ANSWER_TIMEOUT, secure(tcp, target, self.entry.verify_certificate));
        Ok((Box::new(secured.await.map_err(|_| late)??), address))
    }
}

/// Whether a stream that is forwarded there comes back under its own name. For who waits for the answer: a name that
/// cannot be looked up in a moment is looked up again later.
pub(super) async fn leads_back(target: &Target, key: &StreamKey, own: &OwnAddresses) -> bool {
    if !target.names(key) {
        return false;
    }
    let addresses = timeout(OWN_TIMEOUT, look_up(target)).await;
    addresses.is_ok_and(|found| found.is_ok_and(|found| found.iter().any(|address| own.contain(*address))))
}

async fn look_up(target: &Target) -> Result<Vec<SocketAddr>, PushError> {
    let failed = |error| PushError::Lookup { host: target.host.clone(), error };
    let found = lookup_host((target.host.as_str(), target.port)).await.map_err(failed)?;
    let addresses: Vec<SocketAddr> = found.take(MAX_ADDRESSES).collect();
    if addresses.is_empty() {
        return Err(failed(io::Error::new(io::ErrorKind::NotFound, "the name has no address")));
    }
    Ok(addresses)
}

async fn connect_to_any(addresses: &[SocketAddr]) -> Result<(TcpStream, SocketAddr), PushError> {
    let mut last = None;
    for address in addresses {
        // So that one address that answers nothing leaves time for the others.
        let patience = CONNECT_TIMEOUT / addresses.len().max(1) as u32;
        let error = match timeout(patience, TcpStream::connect(address)).await {
            Ok(Ok(tcp)) => return Ok((tcp, *address)),
            Ok(Err(error)) => error,
            Err(_) => io::ErrorKind::TimedOut.into(),
        };
        last = Some(PushError::Connect { address: *address, error });
    }
    Err(last.unwrap_or(PushError::Late { what: "accept a connection", within: CONNECT_TIMEOUT }))
}

async fn secure(tcp: TcpStream, target: &Target, verify: bool) -> Result<impl Stream + use<>, PushError> {
    let failed = |reason: String| PushError::Tls { host: target.host.clone(), reason };
    let make = if verify { tls_client::checking } else { tls_client::trusting };
    let connector = tokio::task::spawn_blocking(make).await;
    let connector = connector.map_err(|error| failed(error.to_string()))?.map_err(failed)?;
    let name =
        rustls_pki_types::ServerName::try_from(target.host.clone()).map_err(|error| failed(error.to_string()))?;
    connector.connect(name, tcp).await.map_err(|error| failed(error.to_string()))
}

/// What setting up came to.
enum Ready<'a> {
    Publishing(Box<(RtmpWire<'a>, LivePlayer)>),
    Ended(End),
}

/// A connection and the state machine on it.
struct RtmpWire<'a> {
    reader: ReadHalf<Box<dyn Stream>>,
    writer: WriteHalf<Box<dyn Stream>>,
    address: SocketAddr,
    rtmp: RtmpPublisher,
    input: BytesMut,
    pending: Pending,
    told: VecDeque<PublishOutput>,
    entry: &'a Entry,
}

impl<'a> RtmpWire<'a> {
    fn new(stream: Box<dyn Stream>, address: SocketAddr, rtmp: RtmpPublisher, entry: &'a Entry) -> RtmpWire<'a> {
        let (reader, writer) = tokio::io::split(stream);
        let (input, pending) = (BytesMut::with_capacity(READ_BYTES), Pending::default());
        let mut wire = RtmpWire { reader, writer, address, rtmp, input, pending, told: VecDeque::new(), entry };
        wire.drain();
        wire
    }

    fn drain(&mut self) {
        while let Some(output) = self.rtmp.poll_output() {
            match output {
                PublishOutput::Write(bytes) => self.pending.push(bytes),
                other => self.told.push_back(other),
            }
        }
    }

    fn take_input(&mut self, bytes: usize) -> Result<(), PushError> {
        if bytes == 0 {
            return Err(self.rtmp.closed().into());
        }
        let taken = self.rtmp.handle_bytes(&self.input.split());
        self.drain();
        Ok(taken?)
    }

    /// A connection that is reset is one that was closed by the peer: it only had not read everything.
    fn broken(&self, error: io::Error) -> PushError {
        match error.kind() {
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof => {
                self.rtmp.closed().into()
            }
            _ => PushError::Broken(error),
        }
    }

    /// Reads or writes once.
    async fn turn(&mut self) -> Result<(), PushError> {
        self.input.reserve(READ_BYTES);
        let may_write = self.pending.has_more();
        tokio::select! {
            read = self.reader.read_buf(&mut self.input) => {
                let bytes = read.map_err(|error| self.broken(error))?;
                self.take_input(bytes)
            }
            written = self.pending.write_to(&mut self.writer), if may_write => {
                self.entry.add_bytes(self.pending.take_written());
                written.map_err(|error| self.broken(error))
            }
        }
    }

    /// Waits for the next thing that the server tells.
    async fn told(&mut self, what: &'static str) -> Result<PublishOutput, PushError> {
        let telling = timeout(ANSWER_TIMEOUT, async {
            loop {
                if let Some(told) = self.told.pop_front() {
                    return Ok(told);
                }
                self.turn().await?;
            }
        });
        telling.await.unwrap_or(Err(PushError::Late { what, within: ANSWER_TIMEOUT }))
    }

    /// Serves the connection while something else is waited for.
    async fn meanwhile<T>(&mut self, work: impl Future<Output = T>) -> Result<T, PushError> {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return Ok(done),
                turned = self.turn() => turned?,
            }
        }
    }

    fn send(&mut self, messages: impl IntoIterator<Item = Bytes>) {
        messages.into_iter().for_each(|message| self.rtmp.readdress(message, &mut self.pending));
    }

    /// Sends what the player reads.
    async fn pump(
        &mut self,
        player: &mut LivePlayer,
        stall: Duration,
        mut stopped: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<End, PushError> {
        let stream = Arc::clone(player.stream());
        // One registration for all turns of the loop.
        let mut silence = pin!(stream.silence());
        let (mut messages, mut skipped) = (Vec::new(), 0);
        let mut progress = Instant::now();
        loop {
            self.input.reserve(READ_BYTES);
            let is_behind = self.pending.has_more();
            tokio::select! {
                // What has come is sent before the stream's end is seen.
                biased;
                () = &mut stopped => return Ok(End::Stopped),
                read = self.reader.read_buf(&mut self.input) => {
                    let bytes = read.map_err(|error| self.broken(error))?;
                    self.take_input(bytes)?;
                }
                written = self.pending.write_to(&mut self.writer), if is_behind => {
                    self.entry.add_bytes(self.pending.take_written());
                    written.map_err(|error| self.broken(error))?;
                    progress = Instant::now();
                }
                () = sleep_until(progress + stall), if is_behind => return Err(PushError::Stalled(stall)),
                reading = next_of(player, &mut messages, !is_behind) => {
                    if let Reading::Ended(reason) = reading {
                        return Ok(End::Session(reason));
                    }
                    self.send(messages.drain(..));
                    self.entry.add_skipped(player.lost_frames() - skipped);
                    skipped = player.lost_frames();
                    progress = Instant::now();
                    let written = self.pending.write_at_once(&mut self.writer).await;
                    self.entry.add_bytes(self.pending.take_written());
                    written.map_err(|error| self.broken(error))?;
                }
                () = &mut silence, if !is_behind => return Ok(End::SourceGone),
            }
        }
    }

    /// Tells the server that the stream is over, and closes.
    async fn say_goodbye(&mut self) {
        self.rtmp.finish();
        self.drain();
        let last_words = async {
            while self.pending.has_more() {
                self.pending.write_to(&mut self.writer).await?;
            }
            self.writer.shutdown().await
        };
        // Whoever does not hear it sees the connection end.
        let _ = timeout(GOODBYE_TIMEOUT, last_words).await;
    }
}

/// What the player has, or, where it may read no more for now, why it is over.
async fn next_of(player: &mut LivePlayer, messages: &mut Vec<Bytes>, may_read: bool) -> Reading {
    if may_read { player.read(messages).await } else { Reading::Ended(player.ended().await) }
}
