//! A client in the world: its peer connection, its links, and what it publishes or watches.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use freshet_sfu::{Credentials, SessionStatus};
use str0m::media::{Direction, KeyframeRequestKind, Mid, Rid};
use str0m::net::{Protocol, Receive};
use str0m::rtp::RawPacket;
use str0m::rtp::rtcp::Rtcp;
use str0m::{Event, Input, Output, Rtc};

use crate::media::{Look, Shape};
use crate::net::{Link, Profile};
use crate::peer::{Offered, Offering};
use crate::publisher::{Publisher, Source};
use crate::viewer::{Report, Viewer};
use crate::world::is_rtp;

/// Index of a client in its world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ClientId(pub(crate) usize);

pub(crate) enum Part {
    Publishes(Publisher),
    Watches(Box<Viewer>),
}

/// One client.
pub(crate) struct Client {
    pub(crate) rtc: Box<Rtc>,
    pub(crate) part: Part,
    /// Its address as the server sees it.
    pub(crate) public: SocketAddr,
    pub(crate) up: Link,
    pub(crate) down: Link,
    pub(crate) deadline: Instant,
    pub(crate) armed: Option<Instant>,
    pub(crate) media_armed: Option<Instant>,
    pub(crate) outbox: Vec<Vec<u8>>,
    pub(crate) connected: Option<Instant>,
    pub(crate) closed: Option<Instant>,
    pub(crate) gone: bool,
    /// RTP datagrams that reached it, by SSRC and payload type.
    pub(crate) received: BTreeMap<(u32, u8), u64>,
    /// RTP datagrams that left it, by SSRC and payload type.
    pub(crate) sent: BTreeMap<(u32, u8), u64>,
    pub(crate) byes: u32,
    pub(crate) username: String,
    pub(crate) server: Option<(Arc<SessionStatus>, Credentials)>,
    /// Datagrams to send again when asked: how a client without RTX repairs.
    pub(crate) resend: Option<BTreeMap<(u32, u16), Vec<u8>>>,
    pub(crate) nacked: u64,
    local: SocketAddr,
}

impl Client {
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn new(
        id: ClientId,
        offering: &Offering,
        offered: Offered,
        answer: &str,
        local: SocketAddr,
        profile: Profile,
        seeds: [u64; 2],
        now: Instant,
        start: Instant,
    ) -> Client {
        let (video, audio) = (offered.video, offered.audio);
        let rtc = offered.accept(answer);
        let part = if offering.direction == Direction::SendOnly {
            Part::Publishes(Publisher::new(id.0 as u16, sources(offering, video, audio, now), start))
        } else {
            let plain_nack = offering.video.iter().all(|v| v.rtx.is_none());
            Part::Watches(Box::new(Viewer { video_mid: video, plain_nack, ..Viewer::default() }))
        };
        Client {
            rtc,
            part,
            public: local,
            up: Link::new(profile, seeds[0]),
            down: Link::new(profile, seeds[1]),
            deadline: now,
            armed: None,
            media_armed: None,
            outbox: Vec::new(),
            connected: None,
            closed: None,
            gone: false,
            received: BTreeMap::new(),
            sent: BTreeMap::new(),
            byes: 0,
            username: String::new(),
            server: None,
            resend: None,
            nacked: 0,
            local,
        }
    }

    pub(crate) fn with_server(self, status: Arc<SessionStatus>, credentials: Credentials, username: String) -> Client {
        Client { server: Some((status, credentials)), username, ..self }
    }

    /// Changes the network in both directions.
    pub(crate) fn set_profile(&mut self, profile: Profile) {
        (self.up.profile, self.down.profile) = (profile, profile);
    }

    pub(crate) fn publisher(&self) -> &Publisher {
        match &self.part {
            Part::Publishes(p) => p,
            Part::Watches(_) => panic!("it is a viewer"),
        }
    }

    pub(crate) fn publisher_mut(&mut self) -> &mut Publisher {
        match &mut self.part {
            Part::Publishes(p) => p,
            Part::Watches(_) => panic!("it is a viewer"),
        }
    }

    pub(crate) fn viewer(&self) -> &Viewer {
        match &self.part {
            Part::Watches(v) => v,
            Part::Publishes(_) => panic!("it is a publisher"),
        }
    }

    pub(crate) fn viewer_mut(&mut self) -> &mut Viewer {
        match &mut self.part {
            Part::Watches(v) => v,
            Part::Publishes(_) => panic!("it is a publisher"),
        }
    }

    pub(crate) fn receive(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) {
        if is_rtp(datagram) {
            *self.received.entry(ssrc_and_pt(datagram)).or_default() += 1;
        }
        // Behind a NAT a client only ever sees its own address.
        let receive = Receive::new(Protocol::Udp, from, self.local, datagram).expect("the server sends no garbage");
        self.rtc.handle_input(Input::Receive(now, receive)).expect("the peer connection goes on");
        self.drain(now);
    }

    pub(crate) fn tick(&mut self, now: Instant) {
        self.rtc.handle_input(Input::Timeout(now)).expect("the peer connection goes on");
        self.drain(now);
    }

    pub(crate) fn media_at(&self) -> Option<Instant> {
        match &self.part {
            Part::Publishes(p) if self.connected.is_some() && self.closed.is_none() => p.next_at(),
            _ => None,
        }
    }

    pub(crate) fn write_due(&mut self, now: Instant) {
        let Part::Publishes(publisher) = &mut self.part else { return };
        if publisher.write_due(now, &mut self.rtc) {
            self.tick(now);
        }
    }

    pub(crate) fn lose_patience(&mut self, now: Instant) {
        if let Part::Watches(viewer) = &mut self.part
            && viewer.has_given_up(now)
        {
            self.ask_for_keyframe(now);
        }
    }

    pub(crate) fn ask_for_keyframe(&mut self, now: Instant) {
        let Some(mid) = self.viewer().video_mid else { return };
        if let Some(rx) = self.rtc.direct_api().stream_rx_by_mid(mid, None) {
            rx.request_keyframe(KeyframeRequestKind::Pli);
            self.tick(now);
        }
    }

    fn drain(&mut self, now: Instant) {
        loop {
            match self.rtc.poll_output().expect("the peer connection goes on") {
                Output::Timeout(at) => {
                    self.deadline = at;
                    return;
                }
                Output::Transmit(transmit) => self.transmit(transmit.contents.to_vec()),
                Output::Event(event) => self.on_event(now, event),
            }
        }
    }

    fn transmit(&mut self, datagram: Vec<u8>) {
        if is_rtp(&datagram) {
            let (ssrc, pt) = ssrc_and_pt(&datagram);
            *self.sent.entry((ssrc, pt)).or_default() += 1;
            if let Some(kept) = &mut self.resend {
                kept.insert((ssrc, u16::from_be_bytes([datagram[2], datagram[3]])), datagram.clone());
            }
        }
        self.outbox.push(datagram);
    }

    fn on_event(&mut self, now: Instant, event: Event) {
        match event {
            Event::Connected => {
                self.connected = Some(now);
                if let Part::Publishes(p) = &mut self.part {
                    p.sources.iter_mut().for_each(|s| s.next_at = now);
                }
            }
            Event::Closed => self.closed = Some(now),
            Event::KeyframeRequest(request) => {
                if let Part::Publishes(p) = &mut self.part {
                    p.keyframe_requested(now, request.rid);
                }
            }
            Event::RtpPacket(packet) => {
                let mut api = self.rtc.direct_api();
                let Some(rx) = api.stream_rx(&packet.header.ssrc) else { return };
                let mid = rx.mid();
                let Part::Watches(viewer) = &mut self.part else { return };
                if viewer.plain_nack && viewer.video_mid == Some(mid) {
                    rx.suppress_nack(false);
                }
                viewer.receive(now, mid, &packet);
            }
            Event::SenderFeedback(feedback) => {
                let Part::Watches(viewer) = &mut self.part else { return };
                let info = feedback.sender_info;
                let rtp = info.rtp_time.numer() as u32;
                let report = Report { at: now, ntp: info.ntp_time, rtp, packets: info.sender_packet_count };
                let is_video = viewer.video_mid == Some(feedback.mid);
                if is_video { &mut viewer.video } else { &mut viewer.audio }.reports.push(report);
            }
            Event::RawPacket(raw) => self.on_raw(&raw),
            _ => {}
        }
    }

    fn on_raw(&mut self, raw: &RawPacket) {
        match raw {
            RawPacket::RtcpRx(Rtcp::Goodbye(_)) => self.byes += 1,
            RawPacket::RtcpRx(Rtcp::Nack(nack)) => {
                for entry in nack.reports.iter() {
                    let follow = (0..16u16).filter(|i| entry.blp & 1 << i != 0).map(|i| entry.pid.wrapping_add(i + 1));
                    for seq in std::iter::once(entry.pid).chain(follow) {
                        self.nacked += 1;
                        let kept = self.resend.as_ref().and_then(|kept| kept.get(&(*nack.ssrc, seq)));
                        self.outbox.extend(kept.cloned());
                    }
                }
            }
            _ => {}
        }
    }
}

fn ssrc_and_pt(datagram: &[u8]) -> (u32, u8) {
    (u32::from_be_bytes([datagram[8], datagram[9], datagram[10], datagram[11]]), datagram[1] & 0x7f)
}

fn sources(offering: &Offering, video: Option<Mid>, audio: Option<Mid>, now: Instant) -> Vec<Source> {
    let mut sources = Vec::new();
    if let (Some(mid), Some(pt)) = (audio, offering.audio) {
        sources.push(Source::new(Look::audio(), mid, None, pt, 0, now));
    }
    if let (Some(mid), Some(format)) = (video, offering.video.first()) {
        let shape = if format.codec == str0m::format::Codec::Vp8 { Shape::Vp8 } else { Shape::H264 };
        if offering.layers.is_empty() {
            sources.push(Source::new(Look::video(shape), mid, None, format.pt, 0, now));
        }
        for (layer, rid) in offering.layers.iter().enumerate() {
            let rid: Option<Rid> = Some((*rid).into());
            sources.push(Source::new(Look::video(shape), mid, rid, format.pt, layer as u8, now));
        }
    }
    sources
}
