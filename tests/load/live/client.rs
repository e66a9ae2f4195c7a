//! The beginning of an RTMP connection at the client's side: handshake, `connect`, `createStream`, `play` or `publish`
//! (RTMP 1.0, §5.2 and §7.2).

use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::amf::{self, Item, Value};
use super::chunk::{COMMAND, ChunkReader, DEFAULT_CHUNK_SIZE, Head, SET_CHUNK_SIZE};
use super::mark::Arrived;

/// A server that takes longer has failed.
const SETUP_TIMEOUT: Duration = Duration::from_secs(15);
/// C1, C2, S1 and S2.
const HANDSHAKE_BYTES: usize = 1536;
/// What publishers announce; encoders send chunks of this size too.
pub(super) const PUBLISHER_CHUNK_SIZE: usize = 60_000;
const READ_BYTES: usize = 16 * 1024;
const VERSION: u8 = 3;

/// What a client connects for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aim {
    Play,
    Publish,
}

/// A connection on which media flows.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) socket: TcpStream,
    pub(super) reader: ChunkReader,
    pub(super) stream_id: u32,
}

/// Commands that have come and not been looked at.
type Inbox = Vec<Vec<Item>>;

/// Connects and asks; a player's answer is left to the reader, since media may come with it.
pub(super) async fn connect(authority: &str, app: &str, stream: &str, aim: Aim) -> Result<Connection> {
    timeout(SETUP_TIMEOUT, set_up(authority, app, stream, aim))
        .await
        .unwrap_or_else(|_| bail!("no answer within {} s", SETUP_TIMEOUT.as_secs()))
}

async fn set_up(authority: &str, app: &str, stream: &str, aim: Aim) -> Result<Connection> {
    let socket = TcpStream::connect(authority).await.with_context(|| format!("cannot connect to {authority}"))?;
    socket.set_nodelay(true)?;
    let mut connection = Connection { socket, reader: ChunkReader::new(), stream_id: 0 };
    connection.shake_hands().await?;
    let mut out = Vec::new();
    let mut chunk_size = DEFAULT_CHUNK_SIZE;
    if aim == Aim::Publish {
        chunk_size = PUBLISHER_CHUNK_SIZE;
        Head::control(SET_CHUNK_SIZE).put(&mut out, &(chunk_size as u32).to_be_bytes(), DEFAULT_CHUNK_SIZE);
    }
    let tc_url = format!("rtmp://{authority}/{app}");
    let about = [("app", app), ("type", "nonprivate"), ("flashVer", "freshet-load"), ("tcUrl", tc_url.as_str())];
    let mut inbox = Inbox::new();
    let body = amf::encode(&[Value::Text("connect"), Value::Number(1.0), Value::Object(&about)]);
    put_command(&mut out, 0, &body, chunk_size);
    connection.socket.write_all(&out).await?;
    connection.result(1.0, &mut inbox).await.context("connect")?;
    out.clear();
    let body = amf::encode(&[Value::Text("createStream"), Value::Number(2.0), Value::Null]);
    put_command(&mut out, 0, &body, chunk_size);
    connection.socket.write_all(&out).await?;
    let created = connection.result(2.0, &mut inbox).await.context("createStream")?;
    let Some(Item::Number(id)) = created.last() else { bail!("createStream was answered without a number") };
    connection.stream_id = *id as u32;
    let body = match aim {
        Aim::Play => amf::encode(&[
            Value::Text("play"),
            Value::Number(0.0),
            Value::Null,
            Value::Text(stream),
            // Live, or recorded if there is no live stream of the name.
            Value::Number(-2000.0),
        ]),
        Aim::Publish => amf::encode(&[
            Value::Text("publish"),
            Value::Number(0.0),
            Value::Null,
            Value::Text(stream),
            Value::Text("live"),
        ]),
    };
    out.clear();
    put_command(&mut out, connection.stream_id, &body, chunk_size);
    connection.socket.write_all(&out).await?;
    if aim == Aim::Publish {
        connection.published(&mut inbox).await?;
    }
    Ok(connection)
}

fn put_command(out: &mut Vec<u8>, stream_id: u32, body: &[u8], chunk_size: usize) {
    Head { chunk_stream: 3, kind: COMMAND, stream_id, timestamp_ms: 0 }.put(out, body, chunk_size);
}

impl Connection {
    /// §5.2, without digests: version 0 in C1.
    async fn shake_hands(&mut self) -> Result<()> {
        let mut hello = vec![0; 1 + HANDSHAKE_BYTES];
        hello[0] = VERSION;
        // Anything that differs from the peer's.
        hello[9..].fill(0x5a);
        self.socket.write_all(&hello).await?;
        let mut answer = vec![0; 1 + 2 * HANDSHAKE_BYTES];
        self.socket.read_exact(&mut answer).await.context("handshake")?;
        if answer[0] != VERSION {
            bail!("the server speaks version {} of RTMP", answer[0]);
        }
        self.socket.write_all(&answer[1..=HANDSHAKE_BYTES]).await?;
        Ok(())
    }

    /// Waits for the answer to a command.
    async fn result(&mut self, transaction: f64, inbox: &mut Inbox) -> Result<Vec<Item>> {
        loop {
            for command in inbox.drain(..) {
                match command.as_slice() {
                    [Item::Text(name), Item::Number(number), ..] if *number == transaction => {
                        if name == "_result" {
                            return Ok(command);
                        }
                        bail!("the server answered {name}: {}", reason(&command));
                    }
                    _ => {}
                }
            }
            self.receive(inbox).await?;
        }
    }

    async fn published(&mut self, inbox: &mut Inbox) -> Result<()> {
        loop {
            for command in inbox.drain(..) {
                if let Some(refusal) = refusal(&command) {
                    bail!("publishing was refused: {refusal}");
                }
                if amf::property(&command, "code") == Some("NetStream.Publish.Start") {
                    return Ok(());
                }
            }
            self.receive(inbox).await?;
        }
    }

    async fn receive(&mut self, inbox: &mut Inbox) -> Result<()> {
        let mut bytes = [0; READ_BYTES];
        let length = self.socket.read(&mut bytes).await?;
        if length == 0 {
            bail!("the server closed the connection");
        }
        self.reader.feed(&bytes[..length], &mut |message: Arrived<'_>| {
            if message.kind == COMMAND {
                inbox.push(amf::items(message.body));
            }
        })
    }
}

/// What an `onStatus` of level `error` says.
pub(super) fn refusal(command: &[Item]) -> Option<String> {
    (amf::property(command, "level") == Some("error")).then(|| reason(command))
}

fn reason(command: &[Item]) -> String {
    let property = |name| amf::property(command, name).unwrap_or_default();
    format!("{} {}", property("code"), property("description"))
}
