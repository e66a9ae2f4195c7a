//! The one door to str0m: ICE, DTLS, and for publishers everything of the receiving half.
//!
//! A publisher is a complete str0m peer connection in RTP mode: decryption, NACK, TWCC feedback, receiver reports,
//! keyframe requests. A viewer is str0m's ICE and DTLS alone: what is sent to viewers is written by
//! [`Subscriber`](crate::subscriber::Subscriber) with the keys of that DTLS handshake.
//!
//! str0m is told of one local address per protocol and family, a stand-in. Which address of ours a peer talks to is
//! the session's business: it answers from where a packet came to and lets media follow nominating checks, which an
//! ICE-lite str0m would only do after the old pair has expired.

mod dtls;
mod receive;
#[cfg(test)]
mod second_opinion;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Instant;

use str0m::ice::StunMessage;
use str0m::net::{DatagramSend, Protocol as Str0mProtocol, Receive, TcpType};
use str0m::{Candidate, Event, IceCreds, Input, Output, Rtc};

pub use dtls::{Identity, IdentityError};
pub(crate) use receive::{Received, SenderReportReceived};

use crate::batch::{Path, Protocol};
use crate::sdp::{Negotiated, Offer, Setup, publisher_offer};
use crate::srtp::MasterKeys;

/// ICE credentials of our side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// User name fragment: finds the session of a check.
    pub ufrag: String,
    /// Password: authenticates it.
    pub pwd: String,
}

/// The peer connection ended by itself, or could not be set up.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct TransportError(String);

impl From<str0m::RtcError> for TransportError {
    fn from(e: str0m::RtcError) -> TransportError {
        TransportError(e.to_string())
    }
}

/// What comes out of a transport.
pub(crate) enum TransportOutput {
    /// Nothing more until then.
    Timeout(Instant),
    /// STUN: an answer, to where the request came from.
    Stun(DatagramSend, SocketAddr),
    /// DTLS, or a publisher's feedback: along the session's path, `SocketAddr` before one is nominated.
    Record(DatagramSend, SocketAddr),
    /// ICE and DTLS are up.
    Connected,
    /// The peer said goodbye.
    Closed,
    /// A publisher's packet.
    Rtp(Received),
    /// A publisher's sender report.
    SenderReport(SenderReportReceived),
}

/// ICE and DTLS of one session.
#[derive(Debug)]
pub(crate) struct Transport {
    rtc: Box<Rtc>,
    keys: dtls::KeySlot,
    /// Whether anything but STUN and DTLS may leave.
    feedback: bool,
}

/// The stand-in for our address (RFC 5737, RFC 3849): never seen outside.
fn stand_in(v4: bool) -> SocketAddr {
    let ip = if v4 {
        IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1))
    } else {
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))
    };
    SocketAddr::new(ip, 9)
}

fn protocol(p: Protocol) -> Str0mProtocol {
    match p {
        Protocol::Udp => Str0mProtocol::Udp,
        Protocol::Tcp => Str0mProtocol::Tcp,
    }
}

impl Transport {
    /// A publisher's transport: takes the media of the accepted m-lines.
    pub(crate) fn publisher(
        identity: &Identity,
        local: &Credentials,
        offer: &Offer,
        negotiated: &Negotiated,
        now: Instant,
    ) -> Result<Transport, TransportError> {
        let config = receive::configure(Rtc::builder(), negotiated);
        let mut transport = Transport::build(identity, local, config, true, now)?;
        let text = publisher_offer(offer, negotiated);
        let parsed = str0m::change::SdpOffer::from_sdp_string(&text).map_err(|e| TransportError(e.to_string()))?;
        transport.rtc.sdp_api().accept_offer(parsed)?;
        // Accepting draws new credentials; the answer carries ours.
        transport.rtc.direct_api().set_local_ice_credentials(creds(local));
        Ok(transport)
    }

    /// A viewer's transport: ICE and DTLS only.
    pub(crate) fn subscriber(
        identity: &Identity,
        local: &Credentials,
        offer: &Offer,
        now: Instant,
    ) -> Result<Transport, TransportError> {
        let mut transport = Transport::build(identity, local, Rtc::builder(), false, now)?;
        let mut api = transport.rtc.direct_api();
        api.set_ice_controlling(false);
        api.set_remote_ice_credentials(IceCreds { ufrag: offer.ufrag.clone(), pass: offer.pwd.clone() });
        api.set_remote_fingerprint(str0m::config::Fingerprint {
            hash_func: offer.fingerprint.0.clone(),
            bytes: offer.fingerprint.1.clone(),
        });
        api.start_dtls(offer.setup == Setup::Passive)?;
        Ok(transport)
    }

    fn build(
        identity: &Identity,
        local: &Credentials,
        config: str0m::RtcConfig,
        feedback: bool,
        now: Instant,
    ) -> Result<Transport, TransportError> {
        let keys = dtls::KeySlot::default();
        let config = config
            .set_rtp_mode(true)
            .set_ice_lite(true)
            .set_crypto_provider(identity.provider())
            .set_dtls_cert(identity.certificate())
            .set_local_ice_credentials(creds(local));
        let mut rtc = Box::new(dtls::with_key_slot(&keys, || config.build(now)));
        for v4 in [true, false] {
            let udp = Candidate::host(stand_in(v4), "udp");
            let tcp = Candidate::builder().tcp().host(stand_in(v4)).tcptype(TcpType::Passive).build();
            for candidate in [udp, tcp] {
                let candidate = candidate.map_err(|e| TransportError(e.to_string()))?;
                rtc.add_local_candidate(candidate);
            }
        }
        Ok(Transport { rtc, keys, feedback })
    }

    /// New credentials of both sides (RFC 8445 §9). Media goes on over the old path until a new one is nominated.
    pub(crate) fn restart_ice(&mut self, local: &Credentials, remote: &Credentials) {
        let mut api = self.rtc.direct_api();
        api.set_remote_ice_credentials(creds(remote));
        api.set_local_ice_credentials(creds(local));
    }

    /// Whether a STUN request carries our credentials.
    pub(crate) fn admits(&self, now: Instant, path: Path, datagram: &[u8]) -> bool {
        let destination = stand_in(path.remote.is_ipv4());
        is_stun(datagram)
            && Receive::new(protocol(path.protocol), path.remote, destination, datagram)
                .is_ok_and(|receive| self.rtc.accepts(&Input::Receive(now, receive)))
    }

    /// Takes a datagram. For STUN it says whether the check is authentic, and only then is it let in.
    pub(crate) fn handle_datagram(
        &mut self,
        now: Instant,
        path: Path,
        datagram: &[u8],
    ) -> Result<Admission, TransportError> {
        let destination = stand_in(path.remote.is_ipv4());
        let Ok(receive) = Receive::new(protocol(path.protocol), path.remote, destination, datagram) else {
            return Ok(Admission::Malformed);
        };
        let input = Input::Receive(now, receive);
        if is_stun(datagram) && !self.rtc.accepts(&input) {
            return Ok(Admission::Unauthentic);
        }
        self.rtc.handle_input(input)?;
        Ok(Admission::Taken)
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Result<(), TransportError> {
        Ok(self.rtc.handle_input(Input::Timeout(now))?)
    }

    pub(crate) fn poll_output(&mut self) -> Result<TransportOutput, TransportError> {
        loop {
            match self.rtc.poll_output()? {
                Output::Timeout(at) => return Ok(TransportOutput::Timeout(at)),
                Output::Transmit(t) => match t.contents.first() {
                    Some(0..=3) => return Ok(TransportOutput::Stun(t.contents, t.destination)),
                    Some(20..=63) => return Ok(TransportOutput::Record(t.contents, t.destination)),
                    // Two writers under one SRTP key could repeat a nonce: only a publisher's peer connection may.
                    Some(_) if self.feedback => return Ok(TransportOutput::Record(t.contents, t.destination)),
                    _ => debug_assert!(false, "a viewer's peer connection wrote RTP or RTCP"),
                },
                Output::Event(event) => match event {
                    Event::Connected => return Ok(TransportOutput::Connected),
                    Event::Closed => return Ok(TransportOutput::Closed),
                    Event::RtpPacket(packet) => return Ok(TransportOutput::Rtp(Received::new(packet))),
                    Event::SenderFeedback(feedback) => {
                        return Ok(TransportOutput::SenderReport(SenderReportReceived::new(&feedback)));
                    }
                    // Everything else is either off by configuration or the session's own business.
                    _ => {}
                },
            }
        }
    }

    /// SRTP keys, once DTLS is done.
    pub(crate) fn keys(&self) -> Option<&MasterKeys> {
        self.keys.get()
    }

    /// Says goodbye: DTLS close_notify. Drain the outputs afterwards.
    pub(crate) fn close(&mut self) {
        // An error means that there is nobody to say goodbye to.
        let _ = self.rtc.close();
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.rtc.is_alive()
    }
}

/// What became of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It was for us.
    Taken,
    /// A STUN message without our credentials.
    Unauthentic,
    /// Nothing that ICE, DTLS or SRTP know.
    Malformed,
}

fn creds(c: &Credentials) -> IceCreds {
    IceCreds { ufrag: c.ufrag.clone(), pass: c.pwd.clone() }
}

/// RFC 7983 §7.
pub(crate) fn is_stun(datagram: &[u8]) -> bool {
    matches!(datagram.first(), Some(0..=3))
}

/// RFC 7983 §7.
pub(crate) fn is_rtp_or_rtcp(datagram: &[u8]) -> bool {
    matches!(datagram.first(), Some(128..=191))
}

/// RFC 5761 §4.
pub(crate) fn is_rtcp(datagram: &[u8]) -> bool {
    is_rtp_or_rtcp(datagram) && matches!(datagram.get(1), Some(192..=223))
}

/// A binding request: for which of our user name fragments, and whether it nominates its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BindingRequest<'a> {
    /// Our user name fragment.
    pub ufrag: &'a str,
    /// USE-CANDIDATE (RFC 8445 §7.2.5.1).
    pub nominates: bool,
}

impl<'a> BindingRequest<'a> {
    /// Reads a request without checking its integrity.
    pub fn parse(datagram: &'a [u8]) -> Option<BindingRequest<'a>> {
        if !is_stun(datagram) {
            return None;
        }
        let message = StunMessage::parse(datagram).ok()?;
        if !message.is_binding_request() {
            return None;
        }
        let (ufrag, _) = message.username()?.split_once(':')?;
        Some(BindingRequest { ufrag, nominates: message.use_candidate() })
    }
}
