//! Many viewers come: what the publisher is asked for, and what they see first.

use std::time::Instant;

use super::*;
use crate::client::ClientId;
use crate::peer::Offering;
use crate::world::World;

fn begins_with_keyframe(world: &World, viewer: ClientId) {
    let log = &world.client(viewer).viewer().video;
    let (_, first) = log.packets.first_key_value().expect("the viewer has a picture");
    assert!(first.stamp.keyframe && first.stamp.index == 0, "{:?}", first.stamp);
    assert_eq!(log.gaps(), 0);
    log.assert_in_order();
}

fn requests_since(world: &World, publisher: ClientId, since: Instant) -> Vec<Duration> {
    let requests = world.client(publisher).publisher().requests.iter();
    requests.map(|(at, _)| *at).filter(|at| *at >= since).map(|at| at - since).collect()
}

#[test]
fn one_keyframe_request_for_500_joins_at_once() {
    for shards in [1, 3] {
        let mut world = World::new(shards, 7);
        let publisher = world.publish(&Offering::publisher(), NEAR);
        world.run(s(2));
        let since = world.now;
        let viewers: Vec<ClientId> = (0..500).map(|_| world.join(&Offering::viewer(), NEAR)).collect();
        world.run(s(2));
        let requests = requests_since(&world, publisher, since);
        assert_eq!(requests.len(), 1, "{shards} shards: {requests:?}");
        viewers.iter().for_each(|v| begins_with_keyframe(&world, *v));
    }
}

#[test]
fn joins_over_ten_seconds_make_two_requests_a_second() {
    let mut world = World::new(1, 8);
    let publisher = world.publish(&Offering::publisher(), NEAR);
    world.run(s(2));
    let since = world.now;
    let mut viewers = Vec::new();
    for _ in 0..100 {
        viewers.push(world.join(&Offering::viewer(), NEAR.with_jitter(ms(10))));
        world.run(ms(100));
    }
    world.run(s(2));
    let requests = requests_since(&world, publisher, since);
    // The publisher's own link has no jitter: what it receives is what the throttle lets through.
    let closest = requests.windows(2).map(|w| w[1] - w[0]).min().expect("several requests");
    assert!(closest >= ms(499), "{closest:?} between two requests");
    assert!((3..=22).contains(&requests.len()), "{}", requests.len());
    for viewer in viewers {
        begins_with_keyframe(&world, viewer);
        assert!(first_picture(&world, viewer) <= ms(200), "{:?}", first_picture(&world, viewer));
    }
}

/// From the end of the handshake, at the client, to the first whole frame there.
fn first_picture(world: &World, viewer: ClientId) -> Duration {
    let client = world.client(viewer);
    let log = &client.viewer().video;
    let source = log.packets.first_key_value().expect("a picture").1.stamp.source;
    let first = log.frames(source).into_values().min().expect("a frame");
    first.saturating_duration_since(client.connected.expect("it has connected"))
}

/// While the last keyframe is young, nobody has to be asked for another one.
#[test]
fn a_viewer_starts_from_the_last_keyframe() {
    for shards in [1, 3] {
        let mut world = World::new(shards, 10);
        let publisher = world.publish(&Offering::publisher(), NEAR);
        let keeper = world.watch(&Offering::viewer(), NEAR);
        for n in 0..12 {
            world.run(ms(600));
            world.client_mut(publisher).publisher_mut().make_keyframe();
            world.run(ms(300));
            let since = world.now;
            let viewer = world.join(&Offering::viewer(), NEAR);
            world.run(ms(900));
            let asked = requests_since(&world, publisher, since);
            assert!(asked.is_empty(), "{shards} shards, join {n}: {asked:?}");
            begins_with_keyframe(&world, viewer);
            assert!(first_picture(&world, viewer) <= ms(5), "{:?}", first_picture(&world, viewer));
        }
        begins_with_keyframe(&world, keeper);
    }
}

/// A viewer that was there before the publisher sees it from the first keyframe on.
#[test]
fn a_viewer_may_come_first() {
    let mut world = World::new(1, 9);
    let viewer = world.watch(&Offering::viewer(), NEAR);
    world.run(s(3));
    let publisher = world.publish(&Offering::publisher(), NEAR);
    world.run(s(2));
    begins_with_keyframe(&world, viewer);
    let frames = world.client(viewer).viewer().video.frames(publisher.0 as u16);
    assert_eq!(frames.first_key_value().map(|(f, _)| *f), Some(0), "not one frame is missed");
}
