//! Viewers whose link is too weak for the stream: sound goes on, and the picture comes whole or not at all.

use std::time::Instant;

use super::*;
use crate::client::ClientId;
use crate::feeder::{BROADCAST, FeedId};
use crate::media::Look;
use crate::net::Loss;
use crate::peer::Offering;
use crate::world::World;

/// What arrived between two moments.
#[derive(Debug)]
struct Share {
    /// Lost packets of sound, in per mille.
    sound_lost: usize,
    /// Whole frames, and of these keyframes.
    frames: usize,
    keyframes: usize,
    /// Frames of which only a part arrived.
    torn: usize,
}

fn share(world: &World, viewer: ClientId, feed: FeedId, from: Instant, until: Instant) -> Share {
    let seen = world.client(viewer).viewer();
    let feed = world.feed(feed);
    let [video, audio] = &feed.tracks;
    let within = |at: Instant| at >= from && at < until;
    let sent: Vec<u32> = audio.log.iter().filter(|f| within(f.at)).map(|f| f.frame).collect();
    let heard = seen.audio.frames(feed.source);
    let lost = sent.iter().filter(|f| !heard.contains_key(f)).count();
    let whole = seen.video.frames(feed.source);
    let made: Vec<_> = video.log.iter().filter(|f| within(f.at)).collect();
    let arrived: std::collections::BTreeSet<u32> = seen.video.packets.values().map(|a| a.stamp.frame).collect();
    Share {
        sound_lost: lost * 1000 / sent.len().max(1),
        frames: made.iter().filter(|f| whole.contains_key(&f.frame)).count(),
        keyframes: made.iter().filter(|f| f.keyframe && whole.contains_key(&f.frame)).count(),
        torn: made.iter().filter(|f| arrived.contains(&f.frame) && !whole.contains_key(&f.frame)).count(),
    }
}

fn budgets(world: &World, viewer: ClientId) -> u64 {
    world.client(viewer).server.as_ref().expect("its status").0.budgets.value()
}

#[test]
fn half_the_rate_leaves_the_sound_and_some_pictures() {
    // Seconds and packets of a keyframe, the queue of the link; how many frames and keyframes at least.
    let cases = [(2, 40, 500, 250, 25), (2, 40, 100, 250, 25), (2, 120, 500, 20, 20), (10, 60, 500, 40, 5)];
    for (gop, key_packets, queue, frames, keyframes) in cases {
        let mut world = World::new(1, 300);
        let feed = world.open_feed(0, Look { key_packets, ..BROADCAST }, s(gop));
        world.run(s(1));
        let strong = world.watch(&Offering::viewer(), NEAR);
        let weak = world.watch(&Offering::viewer(), NEAR);
        world.client_mut(weak).down.profile = Profile { rate_bps: Some(1_000_000), queue: ms(queue), ..NEAR };
        world.make_impatient(weak, ms(1000));
        world.run(s(15));
        assert!(budgets(&world, weak) >= 1);
        let settled = world.now;
        world.run(s(60));
        let got = share(&world, weak, feed, settled, world.now - ms(1500));
        eprintln!("groups of {gop} s, keyframes of {key_packets} packets: {got:?} of 1755 frames");
        assert!(got.sound_lost < 10, "{got:?}");
        assert!(got.keyframes >= keyframes && got.frames >= frames, "{got:?}");
        assert!(got.torn <= 5, "{got:?}");
        let all = share(&world, strong, feed, settled, world.now - ms(1500));
        assert!((all.sound_lost, all.torn) == (0, 0) && all.frames > 1700, "the others see all of it: {all:?}");
        assert_eq!(budgets(&world, strong), 0);
        // The link recovers, and with it the picture.
        world.client_mut(weak).down.profile = NEAR;
        world.run(s(200));
        let got = share(&world, weak, feed, world.now - s(10), world.now - ms(500));
        eprintln!("after the link has recovered: {got:?}");
        assert!(got.frames >= 280 && got.torn == 0, "{got:?}");
    }
}

/// A publisher that can be asked makes more keyframes for a weak viewer, but not many: all viewers get them.
#[test]
fn a_publisher_is_not_asked_for_keyframes_all_the_time() {
    let mut world = World::new(1, 310);
    let publisher = world.publish(&Offering::publisher(), NEAR);
    let look = Look { shape: crate::media::Shape::H264, ..BROADCAST };
    world.client_mut(publisher).publisher_mut().source_mut(true).look = look;
    let weak = world.watch(&Offering::viewer(), NEAR);
    world.client_mut(weak).down.profile = Profile { rate_bps: Some(1_000_000), ..NEAR };
    world.make_impatient(weak, ms(1000));
    world.run(s(15));
    assert!(budgets(&world, weak) >= 1);
    let settled = world.now;
    world.run(s(60));
    let requests = world.client(publisher).publisher().requests.iter().filter(|(at, _)| *at >= settled).count();
    let seen = world.client(weak).viewer();
    let source = publisher.0 as u16;
    let heard = seen.audio.frames(source).values().filter(|at| **at >= settled).count();
    let frames = seen.video.frames(source).values().filter(|at| **at >= settled).count();
    eprintln!("{requests} requests, {heard} of 3000 packets of sound, {frames} whole frames");
    assert!(requests <= 15, "{requests}");
    assert!(heard >= 2970 && frames >= 5, "{heard} {frames}");
}

/// Loss that is not for want of room is repaired, not answered by sending less.
#[test]
fn random_loss_is_no_lack_of_room() {
    for (share, seed) in [(0.10, 1), (0.10, 2), (0.10, 3), (0.20, 4)] {
        let mut world = World::new(1, 320 + seed);
        world.publish(&Offering::publisher(), NEAR);
        let feed_viewer = world.watch(&Offering::viewer(), NEAR);
        world.client_mut(feed_viewer).down.profile = NEAR.with_loss(Loss::Random(share));
        world.make_impatient(feed_viewer, ms(1000));
        world.run(s(60));
        assert_eq!(world.total(|s| s.budgets.value()), 0, "{share} lost, seed {seed}");
    }
}
