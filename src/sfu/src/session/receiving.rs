//! A publisher's session: its packets to the router, requests for the lost ones back.

use super::{Desk, Session, Side};
use crate::transport::Received;

impl Session {
    /// A publisher's packet goes to the router.
    pub(super) fn take(&mut self, received: &Received, desk: &mut Desk<'_>) {
        let Side::Publisher(publisher) = &mut self.side else { return };
        let packet = publisher.accept(received, &mut self.transport, &self.status);
        if let (Some((track, reference)), Some(stream)) = (publisher.take_switched_clock(), self.stream) {
            desk.router.set_clock(stream, self.id, track, reference);
        }
        if let (Some(packet), Some(stream)) = (packet, self.stream) {
            desk.router.accept(stream, self.id, packet, desk.epoch);
        }
    }

    /// Sends a publisher the requests for its lost packets that are due.
    pub(super) fn ask_for_lost(&mut self, desk: &mut Desk<'_>) {
        let (Side::Publisher(publisher), Some(path)) = (&mut self.side, self.path) else { return };
        let (status, transport) = (&self.status, &self.transport);
        let named = publisher.poll_nacks(desk.now, transport, |request| {
            desk.batch.arena().extend_from_slice(request);
            let sent = desk.batch.commit(path) as u64;
            status.sent_bytes.add(sent);
            desk.shard.sent_bytes.add(sent);
            desk.shard.sent_packets.add(1);
        });
        status.nacks.add(named as u64);
    }

    /// A datagram of RTP that the transport has been given, in case that it has dropped it as too old.
    pub(super) fn recover(&mut self, datagram: &[u8], desk: &mut Desk<'_>) {
        let Side::Publisher(publisher) = &mut self.side else { return };
        if let Some(received) = publisher.recover(desk.now, &mut self.transport, datagram) {
            self.take(&received, desk);
        }
    }
}
