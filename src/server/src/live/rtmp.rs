//! RTMP connections: sockets around [`RtmpConnection`], requests around the engine.
//!
//! One task for each connection. A publisher's is reading, a player's is reading and writing at once, so that a player
//! that takes nothing still has its acknowledgements heard and a publisher that floods is held back by TCP. What is
//! written to a player are bytes that all players share.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use freshet_bridge::fanout::Wire;
use freshet_bridge::flv::Tag;
use freshet_bridge::rtmp::{Request, RequestKind, RtmpConnection, RtmpError, RtmpLimits, RtmpOutput};
use freshet_sfu::CloseReason;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, info, warn};

use super::{LivePlayer, LivePublisher, Pending, Reading};
use crate::access::{Access, token_of};
use crate::engine::{Engine, LiveRequest, Protocol, Refusal, Role};
use crate::url::query::Query;
use crate::url::stream_url::{self, StreamUrl};

/// From the first byte to a granted request. Encoders take three round trips.
const SETUP_TIMEOUT: Duration = Duration::from_secs(15);
/// A player that takes nothing for so long is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// What is read from a publisher at once.
const READ_BYTES: usize = 64 * 1024;
/// What is read at once from anybody else: handshakes, commands, acknowledgements. Held by every player.
const SMALL_READ_BYTES: usize = 4 * 1024;
/// Bad tags are logged for the first ones of a connection only.
const MAX_COMPLAINTS: u32 = 8;

/// What RTMP is configured with.
#[derive(Debug, Clone)]
pub(crate) struct RtmpSettings {
    /// Who may publish and play.
    pub(crate) access: Access,
    /// A publisher that is silent for so long is over.
    pub(crate) publish_timeout: Duration,
}

/// Serves RTMP connections.
#[derive(Debug)]
pub(crate) struct RtmpServer {
    engine: Arc<Engine>,
    settings: RtmpSettings,
}

/// What a connection has become.
enum Part {
    Idle,
    Publisher(LivePublisher),
    Player { player: LivePlayer, paused: bool },
}

impl Part {
    fn read_bytes(&self) -> usize {
        match self {
            Part::Publisher(_) => READ_BYTES,
            Part::Idle | Part::Player { .. } => SMALL_READ_BYTES,
        }
    }

    fn leave_for(&mut self, reason: CloseReason) {
        match self {
            Part::Idle => {}
            Part::Publisher(publisher) => publisher.leave_for(reason),
            Part::Player { player, .. } => player.leave_for(reason),
        }
    }
}

impl RtmpServer {
    /// Joins engine and settings.
    pub(crate) fn new(engine: Arc<Engine>, settings: RtmpSettings) -> Arc<RtmpServer> {
        Arc::new(RtmpServer { engine, settings })
    }

    /// Carries one connection until it ends.
    pub(crate) async fn serve<S>(&self, stream: S, peer: SocketAddr, stop: watch::Receiver<bool>)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin,
    {
        let mut session = Session {
            server: self,
            peer,
            rtmp: RtmpConnection::new(RtmpLimits::default()),
            part: Part::Idle,
            pending: Pending::default(),
            complaints: 0,
            over: None,
        };
        match session.run(stream, stop).await {
            Ok(why) => debug!(%peer, "RTMP connection ended: {why}"),
            // Most clients hang up without a word; their systems tell in several ways.
            Err(error) => debug!(%peer, %error, "RTMP connection ended"),
        }
    }
}

/// One connection.
struct Session<'a> {
    server: &'a RtmpServer,
    peer: SocketAddr,
    rtmp: RtmpConnection,
    part: Part,
    pending: Pending,
    complaints: u32,
    /// What is queued is written, then the connection is closed.
    over: Option<&'static str>,
}

/// What happens next on a connection.
enum Event {
    Read(usize),
    Written,
    Media(Vec<Bytes>),
    Ended(CloseReason),
    Deadline,
}

impl Session<'_> {
    /// Returns why the connection has ended.
    async fn run<S>(&mut self, stream: S, mut stop: watch::Receiver<bool>) -> io::Result<&'static str>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin,
    {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let mut input = BytesMut::with_capacity(SMALL_READ_BYTES);
        // One registration for all turns of the loop.
        let mut stopped = pin!(stop.wait_for(|stop| *stop));
        let mut progress = Instant::now();
        loop {
            let may_write = self.pending.has_more();
            if let (Some(why), false) = (self.over, may_write) {
                // The peer reads the last words before it sees the end.
                let _ = timeout(WRITE_TIMEOUT, writer.shutdown()).await;
                return Ok(why);
            }
            input.reserve(self.part.read_bytes());
            let is_open = self.over.is_none();
            let may_read = is_open && self.rtmp.wants_input();
            let patience = self.patience(may_write);
            let event = tokio::select! {
                read = reader.read_buf(&mut input), if may_read => Event::Read(read?),
                written = self.pending.write_to(&mut writer), if may_write => written.map(|_| Event::Written)?,
                event = next_of(&mut self.part, !may_write), if is_open => event,
                _ = &mut stopped, if is_open => Event::Ended(CloseReason::Shutdown),
                () = sleep_until(progress + patience.unwrap_or_default()), if patience.is_some() => Event::Deadline,
            };
            // What a client asks for before it publishes or plays buys it no time.
            if !matches!(self.part, Part::Idle) {
                progress = Instant::now();
            }
            match event {
                Event::Read(0) => return Ok("the peer closed it"),
                Event::Read(bytes) => {
                    self.count(bytes);
                    if let Err(error) = self.take_input(&input.split()) {
                        self.part.leave_for(CloseReason::Failed);
                        info!(peer = %self.peer, "RTMP connection is closed: {error}");
                        self.over = Some("the peer broke the protocol");
                        progress = Instant::now();
                    }
                }
                Event::Written => {}
                Event::Media(pieces) => {
                    self.pending.extend(pieces);
                    // Mostly the socket takes it all, and another turn of everything else is saved.
                    self.pending.write_at_once(&mut writer).await?;
                }
                Event::Ended(reason) => {
                    self.say_end(reason);
                    progress = Instant::now();
                }
                Event::Deadline => {
                    self.part.leave_for(CloseReason::Silent);
                    return Ok("the peer was silent for too long");
                }
            }
        }
    }

    /// How long nothing may happen.
    fn patience(&self, may_write: bool) -> Option<Duration> {
        match &self.part {
            _ if self.over.is_some() => Some(WRITE_TIMEOUT),
            Part::Idle => Some(SETUP_TIMEOUT),
            Part::Publisher(_) => Some(self.server.settings.publish_timeout),
            // A player has nothing to say; it has to take what it is sent.
            Part::Player { .. } => may_write.then_some(WRITE_TIMEOUT),
        }
    }

    fn count(&mut self, bytes: usize) {
        if let Part::Publisher(publisher) = &mut self.part {
            publisher.received(bytes);
        }
    }

    fn take_input(&mut self, bytes: &[u8]) -> Result<(), RtmpError> {
        let taken = self.rtmp.handle_bytes(bytes);
        // Answers to what was right still go out.
        self.drain()?;
        taken
    }

    fn drain(&mut self) -> Result<(), RtmpError> {
        while let Some(output) = self.rtmp.poll_output() {
            match output {
                RtmpOutput::Write(bytes) => self.pending.push(bytes),
                RtmpOutput::Request(request) => self.take_request(&request)?,
                RtmpOutput::Media(tag) => self.take_tag(&tag),
                RtmpOutput::Metadata(script) => {
                    if let Part::Publisher(publisher) = &self.part {
                        publisher.set_metadata(script);
                    }
                }
                RtmpOutput::PublishFinished | RtmpOutput::PlayFinished => self.part = Part::Idle,
                RtmpOutput::Paused(on) => {
                    if let Part::Player { paused, .. } = &mut self.part {
                        *paused = on;
                    }
                }
            }
        }
        Ok(())
    }

    fn take_tag(&mut self, tag: &Tag) {
        let Part::Publisher(publisher) = &mut self.part else { return };
        if let Err(error) = publisher.push(tag) {
            self.complaints += 1;
            if self.complaints <= MAX_COMPLAINTS {
                warn!(peer = %self.peer, "{error}");
            }
        }
    }

    fn take_request(&mut self, request: &Request) -> Result<(), RtmpError> {
        if self.over.is_some() {
            return Ok(());
        }
        match self.grant(request) {
            Ok(part) => {
                self.part = part;
                self.rtmp.accept(request.id)
            }
            Err(refusal) => {
                let role = role_of(request.kind);
                let verb = if role == Role::Publish { "publish" } else { "play" };
                info!(peer = %self.peer, app = without_query(&request.app), stream = without_query(&request.stream),
                    kind = refusal.kind, "refused to {verb}: {} ({})", refusal.detail, refusal.hint);
                self.over = Some("the request was refused");
                let text = format!("{}: {}", refusal.detail, refusal.hint);
                self.rtmp.reject(request.id, status_code(request.kind, &refusal), &text)
            }
        }
    }

    fn grant(&self, request: &Request) -> Result<Part, Refusal> {
        let url = StreamUrl::parse(&address(request))?;
        let role = role_of(request.kind);
        let access = &self.server.settings.access;
        access.check(role, token_of(Query::new(&url.query)).as_deref())?;
        let request = LiveRequest {
            key: stream_url::stream_key(url.vhost.as_deref(), &[&url.host], &url.app, &url.stream)?,
            protocol: Protocol::Rtmp,
            peer: self.peer,
            client_ip: self.peer.ip(),
            user_agent: request.flash_ver.clone(),
        };
        let engine = &self.server.engine;
        Ok(match role {
            Role::Publish => Part::Publisher(engine.publish_live(&request)?),
            Role::Play => Part::Player { player: engine.play_live(&request, Wire::Rtmp)?, paused: false },
        })
    }

    /// Tells the peer why the server ends the session.
    fn say_end(&mut self, reason: CloseReason) {
        let text = match reason {
            CloseReason::Kicked => "an operator ended the session",
            CloseReason::Replaced => "another publisher took the stream over",
            CloseReason::Shutdown => "the server stops",
            _ => "the session has ended",
        };
        match &self.part {
            Part::Publisher(_) => self.rtmp.send_error("NetStream.Publish.BadName", text),
            Part::Player { .. } => self.rtmp.send_stream_eof(),
            Part::Idle => {}
        }
        self.over = Some(text);
        if let Err(error) = self.drain() {
            debug!(peer = %self.peer, %error, "at the end of an RTMP connection");
        }
        self.part.leave_for(reason);
    }
}

/// What the server's side of the connection has to say. `may_read`: a player may be given more.
async fn next_of(part: &mut Part, may_read: bool) -> Event {
    match part {
        Part::Idle => std::future::pending().await,
        Part::Publisher(publisher) => Event::Ended(publisher.ended().await),
        Part::Player { player, paused } if may_read && !*paused => {
            let mut pieces = Vec::new();
            match player.read(&mut pieces).await {
                Reading::Media => Event::Media(pieces),
                Reading::Ended(reason) => Event::Ended(reason),
            }
        }
        Part::Player { player, .. } => Event::Ended(player.ended().await),
    }
}

fn role_of(kind: RequestKind) -> Role {
    match kind {
        RequestKind::Publish => Role::Publish,
        RequestKind::Play => Role::Play,
    }
}

/// The stream's address as one URL: encoders split it as they like between `tcUrl`, app and stream.
fn address(request: &Request) -> String {
    let tc_url = request.tc_url.trim_end_matches('/');
    let stream = request.stream.trim_start_matches('/');
    if tc_url.contains("://") { format!("{tc_url}/{stream}") } else { format!("rtmp://-/{}/{stream}", request.app) }
}

fn without_query(text: &str) -> &str {
    text.split('?').next().unwrap_or_default()
}

/// The `code` of `onStatus` that encoders and players know.
fn status_code(kind: RequestKind, refusal: &Refusal) -> &'static str {
    match (kind, refusal.status) {
        (RequestKind::Publish, 401) => "NetStream.Publish.Denied",
        (RequestKind::Publish, _) => "NetStream.Publish.BadName",
        (RequestKind::Play, 401) => "NetStream.Play.Failed",
        (RequestKind::Play, _) => "NetStream.Play.StreamNotFound",
    }
}

#[cfg(test)]
mod tests {
    use freshet_bridge::rtmp::RequestId;

    use super::*;

    fn request(tc_url: &str, app: &str, stream: &str) -> Request {
        Request {
            id: RequestId::default(),
            kind: RequestKind::Publish,
            app: app.into(),
            stream: stream.into(),
            tc_url: tc_url.into(),
            page_url: String::new(),
            flash_ver: String::new(),
        }
    }

    #[test]
    fn an_address_comes_together() {
        let cases = [
            (request("rtmp://h:1935/live", "live", "cam?token=a/b"), ("live", "cam", "token=a/b")),
            (request("rtmp://h/live/", "live/", "/cam"), ("live", "cam", "")),
            (request("rtmp://h/live?token=x", "live?token=x", "cam"), ("live", "cam", "token=x")),
            (request("rtmp://h/a/b", "a/b", "cam"), ("a/b", "cam", "")),
            (request("", "live", "cam?k=v"), ("live", "cam", "k=v")),
            // FFmpeg splits at the last slash, even inside a token.
            (request("rtmp://h/live/cam?token=a", "live/cam?token=a", "b"), ("live", "cam", "token=a/b")),
        ];
        for (request, (app, stream, query)) in cases {
            let url = StreamUrl::parse(&address(&request)).unwrap();
            assert_eq!((url.app.as_str(), url.stream.as_str(), url.query.as_str()), (app, stream, query));
        }
    }
}
