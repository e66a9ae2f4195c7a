//! Three shards behave as one, and what happens where they meet.

use std::collections::BTreeMap;

use freshet_sfu::RelayMessage;

use super::*;
use crate::client::ClientId;
use crate::net::Loss;
use crate::peer::{Offering, VideoFormat};
use crate::world::{World, client_address};

/// Frames of each publisher at each viewer.
type Outcome = BTreeMap<(usize, u16), Vec<u32>>;

/// Joins, leavings, a republish and a bad network, the same for any number of shards.
fn plan(shards: u16) -> (World, Outcome) {
    let mut world = World::new(shards, 91);
    let early: Vec<ClientId> = (0..4).map(|_| world.join(&Offering::viewer(), NEAR)).collect();
    world.run(s(1));
    let first = world.publish(&Offering::publisher(), NEAR);
    world.run(s(2));
    let late: Vec<ClientId> = (0..8).map(|_| world.join(&Offering::viewer(), NEAR)).collect();
    world.run(s(2));
    early[..2].iter().for_each(|v| world.close(*v));
    for v in &late[..4] {
        world.client_mut(*v).down.profile = NEAR.with_loss(Loss::Random(0.03));
    }
    world.run(s(4));
    world.close(first);
    world.run(ms(700));
    let second = world.publish(&Offering::publisher().with_video(&[VideoFormat::VP8]), NEAR);
    world.run(s(4));
    for v in &late[..4] {
        world.client_mut(*v).down.profile = NEAR;
    }
    world.close(second);
    world.run(s(2));
    let mut outcome = Outcome::new();
    for v in early.iter().chain(&late) {
        let log = &world.client(*v).viewer().video;
        log.assert_in_order();
        for p in [first, second] {
            outcome.insert((v.0, p.0 as u16), log.frames(p.0 as u16).into_keys().collect());
        }
    }
    (world, outcome)
}

#[test]
fn three_shards_deliver_what_one_does() {
    let (one, expected) = plan(1);
    let (three, outcome) = plan(3);
    assert!(expected.values().filter(|f| f.len() > 100).count() >= 20, "the plan shows something");
    for (who, frames) in &expected {
        assert_eq!(frames, &outcome[who], "viewer and publisher {who:?}");
    }
    assert_eq!(one.relayed, [0, 0]);
    assert!(three.relayed[1] > 100);
    assert!((0..3).all(|i| three.seats[i].status.forwarded_packets.value() > 0), "every shard had viewers");
    let requests = |w: &World| w.total(|s| s.keyframe_requests_sent.value());
    assert_eq!(requests(&one), requests(&three), "keyframe requests");
}

#[test]
fn packets_cross_only_while_somebody_wants_them() {
    let mut world = World::new(3, 92);
    let publisher = world.publish(&Offering::publisher(), NEAR);
    let home = world.shard_of(world.client(publisher).public);
    world.run(s(2));
    assert_eq!(world.relayed[1], 0, "no viewer anywhere");
    let away = client_elsewhere(&mut world, home);
    world.run(s(2));
    let crossed = world.relayed[1];
    assert!(crossed > 100);
    world.close(away);
    world.run(s(1));
    let at_leaving = world.relayed[1];
    world.run(s(3));
    assert_eq!(world.relayed[1], at_leaving, "the last viewer elsewhere has left");
    // And on again, for a viewer that begins with a keyframe.
    let again = client_elsewhere(&mut world, home);
    world.run(s(2));
    assert!(world.relayed[1] > at_leaving + 100);
    let log = &world.client(again).viewer().video;
    assert!(log.packets.values().next().expect("a picture").stamp.keyframe);
    assert_eq!(log.gaps(), 0);
}

/// Joins viewers until one is at home on another shard; those on `home` leave again.
fn client_elsewhere(world: &mut World, home: usize) -> ClientId {
    loop {
        let viewer = world.watch(&Offering::viewer(), NEAR);
        if world.shard_of(world.client(viewer).public) != home {
            return viewer;
        }
        world.close(viewer);
        world.run(ms(200));
    }
}

#[test]
fn an_address_change_onto_another_shard_is_handed_over_and_steered() {
    for publisher_moves in [false, true] {
        let mut world = World::new(3, 93);
        let publisher = world.publish(&Offering::publisher(), NEAR);
        let viewer = world.watch(&Offering::viewer(), NEAR);
        world.run(s(2));
        let mover = if publisher_moves { publisher } else { viewer };
        let home = world.shard_of(world.client(mover).public);
        let moved = world.now;
        let target = client_address(mover.0, 1);
        world.steering.insert(target, (home + 1) % 3);
        assert_eq!(world.rebind(mover, 1), target);
        world.run(s(6));
        let check = world.checks.iter().find(|c| c.remote == target && c.nominates).expect("a nominating check");
        let frames = world.client(viewer).viewer().video.frames(publisher.0 as u16);
        let sent = &world.client(publisher).publisher().source(true).log;
        let after = sent.iter().filter(|f| f.at > moved).find_map(|f| frames.get(&f.frame)).expect("it goes on");
        assert!(after.saturating_duration_since(check.at) <= s(1));
        assert!(world.handed_over > 10, "{} datagrams were handed over", world.handed_over);
        let late = world.now - s(1);
        assert!(frames.values().filter(|t| **t > late).count() >= 28);
        assert_eq!(world.sessions(), 2, "nobody was seated twice");
        // Everything goes on to work there: the viewer asks, the publisher hears it.
        let before = world.client(publisher).publisher().requests.len();
        let now = world.now;
        world.client_mut(viewer).ask_for_keyframe(now);
        world.nudge(viewer);
        world.run(s(1));
        assert!(world.client(publisher).publisher().requests.len() > before);
    }
}

/// The last viewer of a shard leaves and another comes while the last keyframe is young: what that shard kept of the
/// time before is no start for the new one.
#[test]
fn a_shard_that_wants_a_stream_again_starts_anew() {
    let mut world = World::new(3, 95);
    let publisher = world.publish(&Offering::publisher(), NEAR);
    let home = world.shard_of(world.client(publisher).public);
    for pause in [ms(50), ms(300), ms(700), ms(1200)] {
        let away = client_elsewhere(&mut world, home);
        world.steering.insert(world.client(away).public, (home + 1) % 3);
        world.run(s(3));
        world.client_mut(publisher).publisher_mut().make_keyframe();
        world.run(ms(200));
        world.close(away);
        world.run(pause);
        let viewers: Vec<ClientId> = (0..6).map(|_| world.join(&Offering::viewer(), NEAR)).collect();
        world.run(s(3));
        for viewer in viewers {
            let log = &world.client(viewer).viewer().video;
            log.assert_in_order();
            assert_eq!(log.gaps(), 0);
            assert_eq!(world.client(viewer).received.keys().filter(|(_, pt)| *pt == 103).count(), 0, "no repairs");
            world.close(viewer);
        }
        world.run(ms(500));
    }
}

/// A ring that is full loses media of the shards behind it and nothing else; their viewers recover.
#[test]
fn a_full_ring_costs_other_shards_only_and_they_recover() {
    let mut world = World::new(3, 94);
    let publisher = world.publish(&Offering::publisher(), NEAR);
    let home = world.shard_of(world.client(publisher).public);
    let viewers: Vec<ClientId> = (0..9).map(|_| world.join(&Offering::viewer(), NEAR)).collect();
    for v in &viewers {
        world.make_impatient(*v, ms(500));
    }
    world.run(s(3));
    let (full_from, full_until) = (world.start + (world.now - world.start) + s(1), world.now + s(2));
    let full = (home + 1) % 3;
    let clock = std::rc::Rc::new(std::cell::Cell::new(world.now));
    let seen = std::rc::Rc::clone(&clock);
    world.drop_relay = Some(Box::new(move |to, message| {
        let is_media = matches!(message, RelayMessage::Media { .. });
        is_media && to == full && seen.get() >= full_from && seen.get() < full_until
    }));
    let end = world.now + s(8);
    while world.now < end {
        world.run(ms(5));
        clock.set(world.now);
    }
    for v in &viewers {
        let log = &world.client(*v).viewer().video;
        log.assert_in_order();
        let there = world.shard_of(world.client(*v).public) == full;
        let gaps = log.gaps();
        assert_eq!(gaps > 0, there, "{gaps} packets missing");
        let late = world.now - s(2);
        let frames = log.frames(publisher.0 as u16);
        assert!(frames.values().filter(|t| **t > late).count() >= 58, "recovered");
        if there {
            let key = log.packets.values().find(|a| a.at > full_until && a.stamp.keyframe).expect("a keyframe");
            assert!(key.at - full_until < s(2), "{:?} after the ring had room", key.at - full_until);
        }
    }
}
