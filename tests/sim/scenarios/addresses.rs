//! Peers whose address changes, and checks that must not move media.

use std::net::SocketAddr;

use freshet_sfu::Credentials;

use super::*;
use crate::client::ClientId;
use crate::peer::Offering;
use crate::world::{World, client_address};

fn pair(shards: u16, seed: u64) -> (World, ClientId, ClientId) {
    let mut world = World::new(shards, seed);
    let publisher = world.publish(&Offering::publisher(), NEAR);
    let viewer = world.watch(&Offering::viewer(), NEAR);
    world.run(s(2));
    (world, publisher, viewer)
}

/// When the first nominating check came from an address.
fn nominated(world: &World, address: SocketAddr) -> std::time::Instant {
    let check = world.checks.iter().find(|c| c.remote == address && c.nominates);
    check.expect("the client nominates its new address").at
}

#[test]
fn media_follows_a_viewer() {
    let (mut world, publisher, viewer) = pair(1, 11);
    for step in 1..4 {
        let moved = world.now;
        let address = world.rebind(viewer, step);
        world.watched.insert(address, Vec::new());
        world.run(s(5));
        let (at, media) = (nominated(&world, address), &world.watched[&address]);
        let first = *media.first().expect("media at the new address");
        assert!(media.iter().all(|t| *t >= at), "media before the check");
        assert!(first - at <= s(1), "{:?} after the nominating check", first - at);
        eprintln!("viewer: check after {:?}, media {:?} later", at - moved, first - at);
        let late = world.now - s(1);
        let newest = world.client(viewer).viewer().video.frames(publisher.0 as u16);
        assert!(newest.values().filter(|t| **t > late).count() >= 28);
    }
}

#[test]
fn a_publisher_may_move() {
    let (mut world, publisher, viewer) = pair(1, 12);
    for step in 1..4 {
        let moved = world.now;
        let address = world.rebind(publisher, step);
        world.run(s(5));
        let at = nominated(&world, address);
        let frames = world.client(viewer).viewer().video.frames(publisher.0 as u16);
        let sent = world.client(publisher).publisher().source(true).log.iter();
        let first = sent.filter(|f| f.at > moved).find_map(|f| frames.get(&f.frame)).expect("media goes on");
        assert!(first.saturating_duration_since(at) <= s(1));
        eprintln!("publisher: check after {:?}, a frame {:?} later", at - moved, first.saturating_duration_since(at));
        // Feedback follows as well: a keyframe can be asked for.
        let before = world.client(publisher).publisher().requests.len();
        world.client_mut(viewer).ask_for_keyframe(moved + s(5));
        world.nudge(viewer);
        world.run(s(1));
        assert!(world.client(publisher).publisher().requests.len() > before);
    }
}

#[test]
fn a_plain_check_moves_nothing() {
    let (mut world, publisher, viewer) = pair(1, 13);
    let password = world.client(viewer).server.as_ref().expect("a session").1.pwd.clone();
    let elsewhere = client_address(200, 9);
    world.watched.insert(elsewhere, Vec::new());
    for _ in 0..5 {
        let check = world.check(viewer, false, &password);
        world.inject(elsewhere, check);
        world.run(ms(300));
    }
    assert!(world.watched[&elsewhere].is_empty(), "media went to an address that was not nominated");
    assert_goes_on(&world, publisher, viewer);
    // The same check with USE-CANDIDATE does move it: the one above was understood.
    let check = world.check(viewer, true, &password);
    world.inject(elsewhere, check);
    world.run(ms(300));
    assert!(!world.watched[&elsewhere].is_empty());
}

#[test]
fn a_forged_check_moves_nothing() {
    let (mut world, publisher, viewer) = pair(1, 14);
    let elsewhere = client_address(200, 9);
    let home = world.client(viewer).public;
    world.watched.insert(elsewhere, Vec::new());
    let before = world.total(|s| s.drop_stun.value());
    for from in [elsewhere, home, elsewhere] {
        let check = world.check(viewer, true, "not-the-password-of-this-session");
        world.inject(from, check);
        world.run(ms(300));
    }
    assert!(world.watched[&elsewhere].is_empty());
    assert!(world.total(|s| s.drop_stun.value()) >= before + 2);
    assert_goes_on(&world, publisher, viewer);
}

/// A peer is known by its latest addresses; an old one is a stranger's again.
#[test]
fn old_addresses_are_forgotten() {
    let (mut world, publisher, viewer) = pair(1, 17);
    let password = world.client(viewer).server.as_ref().expect("a session").1.pwd.clone();
    let addresses: Vec<SocketAddr> = (0..40).map(|i| client_address(300 + i, 9)).collect();
    for address in &addresses {
        let check = world.check(viewer, false, &password);
        world.inject(*address, check);
        world.run(ms(20));
    }
    let before = world.total(|s| s.drop_stranger.value());
    for address in &addresses {
        world.inject(*address, vec![0x80, 96, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }
    world.run(ms(20));
    let strangers = world.total(|s| s.drop_stranger.value()) - before;
    assert!((20..40).contains(&strangers), "{strangers} of 40 addresses are forgotten");
    assert_goes_on(&world, publisher, viewer);
}

/// An ICE restart, twice, with an address change behind each: only the new credentials count.
#[test]
fn an_ice_restart_keeps_the_media() {
    for (mover, shards) in [(0, 1), (1, 1), (1, 3)] {
        let (mut world, publisher, viewer) = pair(shards, 16);
        let id = [publisher, viewer][mover];
        let password = world.client(viewer).server.as_ref().expect("a session").1.pwd.clone();
        for step in 1..3 {
            let credentials =
                |who: &str| Credentials { ufrag: format!("{who}{step}abcd"), pwd: format!("{who}{step}").repeat(12) };
            world.restart_ice(id, credentials("s"), credentials("c"));
            world.run(s(2));
            let address = world.rebind(id, step);
            world.run(s(5));
            assert!(nominated(&world, address) <= world.now);
            assert_flows(&world, publisher, viewer);
        }
        // A check with the first password is one with a wrong password now.
        if id == viewer {
            let elsewhere = client_address(202, 9);
            world.watched.insert(elsewhere, Vec::new());
            let check = world.check(viewer, true, &password);
            world.inject(elsewhere, check);
            world.run(s(1));
            assert!(world.watched[&elsewhere].is_empty());
        }
    }
}

/// A stranger's packets reach nobody.
#[test]
fn a_stranger_is_not_heard() {
    let (mut world, publisher, viewer) = pair(1, 15);
    let stranger = client_address(201, 9);
    let before = world.total(|s| s.drop_stranger.value());
    let rtp = [&[0x80, 102, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1], [7; 80].as_slice()].concat();
    for datagram in [rtp.clone(), vec![22; 60], vec![0; 3], vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42], Vec::new()] {
        world.inject(stranger, datagram.clone());
        let home = world.client(publisher).public;
        world.inject(home, datagram);
    }
    // A forged SSRC and number of the publisher, from the publisher's address, without its key.
    world.inject(world.client(publisher).public, rtp);
    world.run(s(2));
    assert!(world.total(|s| s.drop_stranger.value()) > before);
    assert_goes_on(&world, publisher, viewer);
}

fn assert_goes_on(world: &World, publisher: ClientId, viewer: ClientId) {
    let log = &world.client(viewer).viewer().video;
    log.assert_in_order();
    assert_eq!(log.gaps(), 0);
    assert_flows(world, publisher, viewer);
}

fn assert_flows(world: &World, publisher: ClientId, viewer: ClientId) {
    let late = world.now - s(1);
    let frames = world.client(viewer).viewer().video.frames(publisher.0 as u16);
    assert!(frames.values().filter(|t| **t > late).count() >= 28);
}
