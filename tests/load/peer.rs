//! One WebRTC client: a str0m session in RTP mode with a UDP socket of its own, as a real client has.
//!
//! The ICE agent is a full one, so it sends the checks. It has one host candidate; the server's TCP candidates are
//! ignored.

use std::future::Future;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use socket2::{Domain, Protocol as SocketProtocol, Socket, Type};
use str0m::change::{SdpAnswer, SdpOffer, SdpPendingOffer};
use str0m::media::{Direction, MediaKind, Mid};
use str0m::net::{Protocol, Receive};
use str0m::{Candidate, Event, Input, Output, Rtc, RtcConfig};
use tokio::net::UdpSocket;
use tokio::time::{Sleep, sleep_until};

use crate::http::{self, Url};

/// Asked of the kernel, which may give less: a keyframe must fit while the thread serves other sessions.
const SOCKET_BUFFER_BYTES: usize = 1 << 20;
const MAX_DATAGRAM_BYTES: usize = 2048;
/// Datagrams read from one socket before other sessions of the thread have their turn.
const MAX_BATCH: usize = 64;
/// The longest sleep, so that a session sees the end of the run.
const MAX_SLEEP: Duration = Duration::from_millis(250);

/// What is shared by all sessions: certificate, DTLS configuration, codecs.
#[derive(Debug, Clone)]
pub(crate) struct Template {
    config: RtcConfig,
    local_ip: IpAddr,
}

impl Template {
    pub(crate) fn new(local_ip: IpAddr, stats_interval: Duration) -> Result<Template> {
        let (provider, certificate) = freshet_tests::dtls::shared_provider()?;
        let config = RtcConfig::new()
            .set_rtp_mode(true)
            .set_crypto_provider(provider)
            .set_dtls_cert(certificate)
            .set_stats_interval(Some(stats_interval));
        Ok(Template { config, local_ip })
    }

    /// Changes the codecs.
    pub(crate) fn map_config(self, map: impl FnOnce(RtcConfig) -> RtcConfig) -> Template {
        Template { config: map(self.config), ..self }
    }
}

/// What a session does with what arrives.
pub(crate) trait Handler {
    fn on_event(&mut self, rtc: &mut Rtc, event: Event);
    /// Called for each datagram; `false` drops it.
    fn wants_datagram(&mut self, now: Instant, datagram: &[u8]) -> bool;
    /// Called before each datagram leaves; `false` drops it.
    fn wants_transmit(&mut self, _datagram: &[u8]) -> bool {
        true
    }
}

/// A client session.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) rtc: Box<Rtc>,
    socket: UdpSocket,
    local: SocketAddr,
    deadline: Instant,
    timer: std::pin::Pin<Box<Sleep>>,
    /// Datagrams that the kernel did not take.
    pub(crate) send_drops: u64,
}

impl Peer {
    pub(crate) fn new(template: &Template) -> Result<Peer> {
        let socket = bind(template.local_ip)
            .with_context(|| format!("cannot open a UDP socket on {} (raise `ulimit -n`?)", template.local_ip))?;
        let local = socket.local_addr()?;
        let now = Instant::now();
        let mut rtc = Box::new(template.config.clone().build(now));
        let candidate = Candidate::host(local, "udp").map_err(|error| anyhow!("{local}: {error}"))?;
        rtc.add_local_candidate(candidate);
        let timer = Box::pin(sleep_until(now.into()));
        Ok(Peer { rtc, socket, local, deadline: now, timer, send_drops: 0 })
    }

    /// Makes the offer: one video and one audio section.
    pub(crate) fn offer(&mut self, direction: Direction) -> Result<(SdpOffer, SdpPendingOffer, Mid, Mid)> {
        let mut changes = self.rtc.sdp_api();
        let stream = Some("load".to_owned());
        let video = changes.add_media(MediaKind::Video, direction, stream.clone(), None, None);
        let audio = changes.add_media(MediaKind::Audio, direction, stream, None, None);
        let (offer, pending) = changes.apply().context("the offer is empty")?;
        Ok((offer, pending, video, audio))
    }

    /// Takes the server's answer.
    pub(crate) fn accept(&mut self, pending: SdpPendingOffer, answer: &str) -> Result<()> {
        let answer = SdpAnswer::from_sdp_string(answer).context("the answer is not valid SDP")?;
        self.rtc.sdp_api().accept_answer(pending, answer).context("the answer does not fit the offer")
    }

    /// Waits until there is something to read, the session wants the time, or `wake` has come.
    pub(crate) async fn wait(&mut self, wake: Instant) -> Result<()> {
        let until = self.deadline.min(wake).min(Instant::now() + MAX_SLEEP);
        // An early timer costs a wake-up, moving it costs at every packet: so it only moves forward when it must.
        if self.timer.deadline().into_std() > until || self.timer.is_elapsed() {
            self.timer.as_mut().reset(until.into());
        }
        tokio::select! {
            ready = self.socket.readable() => ready.context("the UDP socket failed"),
            () = self.timer.as_mut() => Ok(()),
        }
    }

    /// Reads what has arrived and serves due timers.
    pub(crate) fn turn(&mut self, handler: &mut impl Handler) -> Result<()> {
        let mut buffer = [0; MAX_DATAGRAM_BYTES];
        for _ in 0..MAX_BATCH {
            let (length, source) = match self.socket.try_recv_from(&mut buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // ICMP errors of an earlier send; ICE finds out whether the path is gone.
                Err(_) => continue,
            };
            let now = Instant::now();
            let datagram = &buffer[..length];
            if !handler.wants_datagram(now, datagram) {
                continue;
            }
            let Ok(receive) = Receive::new(Protocol::Udp, source, self.local, datagram) else { continue };
            self.rtc.handle_input(Input::Receive(now, receive))?;
            self.drain(handler)?;
        }
        let now = Instant::now();
        if now >= self.deadline {
            self.handle_timeout(now, handler)?;
        }
        Ok(())
    }

    /// Lets the session know the time, which also sends what has been written, and drains it.
    pub(crate) fn handle_timeout(&mut self, now: Instant, handler: &mut impl Handler) -> Result<()> {
        self.rtc.handle_input(Input::Timeout(now))?;
        self.drain(handler)
    }

    fn drain(&mut self, handler: &mut impl Handler) -> Result<()> {
        loop {
            match self.rtc.poll_output()? {
                Output::Timeout(deadline) => {
                    self.deadline = deadline;
                    return Ok(());
                }
                Output::Transmit(transmit) => {
                    let datagram: &[u8] = &transmit.contents;
                    if transmit.proto == Protocol::Udp
                        && handler.wants_transmit(datagram)
                        && self.socket.try_send_to(datagram, transmit.destination).is_err()
                    {
                        self.send_drops += 1;
                    }
                }
                Output::Event(event) => handler.on_event(&mut self.rtc, event),
            }
        }
    }
}

/// Posts an offer and returns the answer and the URL of the session.
pub(crate) async fn exchange(url: &Url, bearer: Option<&str>, offer: &SdpOffer) -> Result<(String, Option<Url>)> {
    let response = http::request("POST", url, bearer, Some(&offer.to_sdp_string())).await?;
    if response.status != 201 {
        let reason = response.body.chars().take(200).collect::<String>();
        bail!("the server answered {}: {}", response.status, reason.replace(['\r', '\n'], " "));
    }
    let session = response.header("location").map(|location| url.resolve(location)).transpose()?;
    Ok((response.body, session))
}

/// Whether a datagram is RTP (RFC 7983 for the first byte, RFC 5761 §4 for the second).
pub(crate) fn is_rtp(datagram: &[u8]) -> bool {
    matches!(datagram, [128..=191, second, ..] if !(192..=223).contains(second))
}

/// Runs `session`, but no longer than `limit`; the error then says what was missing.
pub(crate) async fn within<T>(limit: Duration, what: &str, session: impl Future<Output = Result<T>>) -> Result<T> {
    let limited = tokio::time::timeout(limit, session).await;
    limited.unwrap_or_else(|_| bail!("{what} within {} s", limit.as_secs_f32()))
}

fn bind(local_ip: IpAddr) -> Result<UdpSocket> {
    let address = SocketAddr::new(local_ip, 0);
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(SocketProtocol::UDP))?;
    socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(UdpSocket::from_std(socket.into())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_rtp_from_rtcp_stun_and_dtls() {
        assert!(is_rtp(&[0x80, 96, 0, 0]));
        assert!(is_rtp(&[0x90, 0x80 | 111, 0, 0]));
        assert!(!is_rtp(&[0x80, 200]));
        assert!(!is_rtp(&[0x00, 0x01]));
        assert!(!is_rtp(&[22, 254]));
        assert!(!is_rtp(&[]));
    }
}
