//! How sessions end, and that nothing is left of them.

use freshet_sfu::{CloseReason, Command, ShardEvent};

use super::*;
use crate::client::ClientId;
use crate::net::Loss;
use crate::peer::Offering;
use crate::world::World;

fn ended(world: &World, id: ClientId) -> Option<(std::time::Instant, CloseReason)> {
    let session = world.session(id);
    world.events.iter().find_map(|(at, event)| match event {
        ShardEvent::Closed(closed, reason) if *closed == session => Some((*at, *reason)),
        _ => None,
    })
}

fn assert_empty(world: &World) {
    assert_eq!(world.sessions(), 0, "sessions");
    assert!(world.lobby.is_empty(), "the lobby");
    assert!(world.seats.iter().all(|s| s.shard.streams() == 0), "the router");
    assert_eq!(world.total(|s| s.sessions.value()), 0);
}

#[test]
fn a_silent_peer_is_given_up_after_ten_seconds() {
    for shards in [1, 3] {
        let mut world = World::new(shards, 41);
        let publisher = world.publish(&Offering::publisher(), NEAR);
        let viewer = world.watch(&Offering::viewer(), NEAR);
        world.run(s(3));
        for id in [viewer, publisher] {
            let gone = world.now;
            world.vanish(id);
            world.run(s(12));
            let (at, reason) = ended(&world, id).expect("it has ended");
            assert_eq!(reason, CloseReason::Silent);
            // What was on its way still counts as heard; a viewer speaks up once a second or so.
            assert!((s(7)..=s(11)).contains(&(at - gone)), "after {:?}", at - gone);
        }
        assert_empty(&world);
    }
}

/// A muted publisher and a viewer of a silent stream keep their sessions: ICE checks are signs of life.
#[test]
fn silence_of_media_is_not_silence_of_the_peer() {
    let mut world = World::new(1, 42);
    let publisher = world.publish(&Offering::publisher(), NEAR);
    let viewer = world.watch(&Offering::viewer(), NEAR);
    world.run(s(2));
    world.client_mut(publisher).publisher_mut().paused = true;
    world.run(s(60));
    assert_eq!((ended(&world, publisher), ended(&world, viewer)), (None, None));
    let now = world.now;
    let p = world.client_mut(publisher).publisher_mut();
    p.paused = false;
    p.sources.iter_mut().for_each(|s| s.next_at = now);
    world.nudge(publisher);
    world.run(s(2));
    assert!(world.client(viewer).viewer().video.frames(publisher.0 as u16).values().filter(|t| **t > now).count() > 50);
}

#[test]
fn a_session_that_never_connects_is_given_up() {
    let mut world = World::new(2, 43);
    let opened = world.now;
    // One never sends a check, one stops before its DTLS handshake is done.
    let mute = world.join(&Offering::viewer(), NEAR.with_loss(Loss::Random(1.0)));
    let half = world.join(&Offering::publisher(), NEAR);
    world.until(s(5), |w| !w.checks.is_empty());
    world.client_mut(half).down.profile = NEAR.with_loss(Loss::Random(1.0));
    assert_eq!(world.lobby.len(), 2);
    world.run(s(22));
    for id in [mute, half] {
        let (at, reason) = ended(&world, id).expect("it has ended");
        assert_eq!(reason, CloseReason::NeverConnected);
        assert!((s(20)..=s(21)).contains(&(at - opened)), "after {:?}", at - opened);
    }
    assert_empty(&world);
}

#[test]
fn a_goodbye_ends_a_session_at_once() {
    let mut world = World::new(1, 44);
    let publisher = world.publish(&Offering::publisher(), NEAR);
    let viewer = world.watch(&Offering::viewer(), NEAR);
    world.run(s(2));
    for id in [publisher, viewer] {
        let at = world.now;
        world.close(id);
        world.run(s(1));
        let (ended_at, reason) = ended(&world, id).expect("it has ended");
        assert_eq!(reason, CloseReason::PeerClosed);
        assert!(ended_at - at <= ms(50), "{:?}", ended_at - at);
    }
    assert_empty(&world);
}

#[test]
fn a_closed_session_says_goodbye() {
    let mut world = World::new(1, 45);
    let heard = |offering: Offering| Offering { raw_packets: true, ..offering };
    let publisher = world.publish(&heard(Offering::publisher()), NEAR);
    let viewer = world.watch(&heard(Offering::viewer()), NEAR);
    world.run(s(2));
    for (id, reason) in [(viewer, CloseReason::Deleted), (publisher, CloseReason::Kicked)] {
        let (at, session) = (world.now, world.session(id));
        world.command(0, Command::Close { id: session, reason });
        assert_eq!(ended(&world, id), Some((at, reason)));
        world.run(s(1));
        assert_eq!(world.client(id).closed, Some(at + ms(20)), "close_notify arrives");
    }
    assert_eq!(world.client(viewer).byes, 1, "RTCP BYE arrives");
    assert_empty(&world);
    // Packets that were on their way find no session and do no harm.
    assert!(world.total(|s| s.drop_stranger.value()) > 0);
}

#[test]
fn all_sessions_can_be_closed_and_memory_returns() {
    let mut world = World::new(3, 46);
    let publisher = world.publish(&Offering::publisher(), NEAR);
    let viewers: Vec<ClientId> = (0..30).map(|_| world.join(&Offering::viewer(), NEAR)).collect();
    world.run(s(3));
    assert_eq!(world.sessions(), 31);
    for shard in 0..3 {
        world.command(shard, Command::CloseAll { reason: CloseReason::Shutdown });
    }
    world.run(s(1));
    for id in viewers.into_iter().chain([publisher]) {
        assert!(world.client(id).closed.is_some());
        assert_eq!(ended(&world, id).map(|(_, r)| r), Some(CloseReason::Shutdown));
    }
    assert_empty(&world);
}
