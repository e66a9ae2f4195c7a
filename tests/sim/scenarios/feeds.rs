//! Streams that the server feeds: viewers start at once, whatever the encoder's group of pictures, and catch up.

use std::collections::BTreeMap;
use std::time::Instant;

use freshet_sfu::{CloseReason, Command, ShardEvent};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::*;
use crate::client::ClientId;
use crate::feeder::{BROADCAST, FeedId};
use crate::media::Look;
use crate::net::Loss;
use crate::peer::{Offering, VideoFormat};
use crate::viewer::Arrival;
use crate::world::World;

const FRAME: Duration = Duration::from_micros(33_334);
/// Way of a packet from the server to the client.
const WAY: Duration = ms(20);

/// How a viewer's picture began.
#[derive(Debug)]
struct Start {
    /// From the server's end of the handshake to the first packet, as it was sent.
    first_packet: Duration,
    /// To the first whole frame, as it arrived.
    first_frame: Duration,
    /// To the moment from which on every frame came as fresh as it can be.
    live: Duration,
    /// Age of the keyframe that it began with.
    backlog: Duration,
}

fn connected(world: &World, viewer: ClientId) -> Instant {
    let event = ShardEvent::Connected(world.session(viewer));
    world.events.iter().find(|(_, e)| *e == event).expect("it has connected").0
}

/// Checks that a picture that began since `since` is whole, in order and ends on the live edge, and measures its start.
fn check_start(world: &World, viewer: ClientId, feed: FeedId, since: Instant) -> Start {
    let log = &world.client(viewer).viewer().video;
    log.assert_in_order();
    let source = world.feed(feed).source;
    let packets: Vec<(u64, Arrival)> =
        log.packets.iter().filter(|(_, a)| a.stamp.source == source).map(|(s, a)| (*s, *a)).collect();
    let (first_seq, first) = packets.first().copied().expect("it has a picture");
    let (last_seq, last) = packets.last().copied().expect("it has a picture");
    assert!(first.stamp.keyframe && first.stamp.index == 0, "{:?}", first.stamp);
    assert_eq!(last_seq - first_seq + 1, packets.len() as u64, "numbers are contiguous");
    for pair in packets.windows(2) {
        let (before, after) = (pair[0].1.stamp, pair[1].1.stamp);
        let follows = (after.frame, after.index) == (before.frame, before.index + 1)
            || (after.index == 0
                && before.index + 1 == before.count
                && (after.frame == before.frame + 1 || after.keyframe));
        assert!(follows, "{before:?} {after:?}");
    }
    let captured = |a: &Arrival| world.start + Duration::from_micros(a.stamp.micros);
    let fresh = |a: &Arrival| a.at <= captured(a) + WAY + FRAME;
    let live = packets.iter().rev().find(|(_, a)| !fresh(a)).map_or(first.at, |(_, a)| a.at);
    assert!(fresh(&last), "it ends a frame behind the live edge at most");
    assert_playout(&packets, live);
    let whole = log.frames(source).into_values().min().expect("a frame");
    Start {
        first_packet: (first.at - WAY).saturating_duration_since(since),
        first_frame: whole.saturating_duration_since(since),
        live: live.saturating_duration_since(since + WAY),
        backlog: first.at.saturating_duration_since(captured(&first) + WAY),
    }
}

/// A player that shows the first packet when it comes, and the others by their timestamps, has nothing to wait for, and
/// is not behind when the live edge has been reached.
fn assert_playout(packets: &[(u64, Arrival)], live: Instant) {
    let first = packets[0].1;
    for (seq, a) in packets {
        let shown = f64::from(a.timestamp.wrapping_sub(first.timestamp)) / 90_000.0;
        let came = (a.at - first.at).as_secs_f64();
        let late = came - shown;
        let bound = if a.at > live { 0.045 } else { 0.08 };
        assert!(late.abs() < bound, "{seq}: {late:.3} s later than its timestamp says, {:?}", a.stamp);
    }
}

#[test]
fn viewers_start_at_once_and_catch_up_whenever_they_come() {
    let mut random = StdRng::seed_from_u64(200);
    let mut longest = Duration::ZERO;
    for shards in [1, 3] {
        let mut world = World::new(shards, 200);
        let feed = world.open_feed(0, BROADCAST, s(10));
        world.run(s(3));
        let viewers: Vec<ClientId> = (0..12)
            .map(|n| {
                // The last of them comes just before a keyframe.
                world.run(ms(if n == 11 { 0 } else { random.random_range(200..3000) }));
                while n == 11 && world.feed(feed).group.len() < 2150 {
                    world.run(ms(10));
                }
                world.watch(&Offering::viewer(), NEAR)
            })
            .collect();
        world.run(s(4));
        for viewer in viewers {
            let start = check_start(&world, viewer, feed, connected(&world, viewer));
            eprintln!("{shards} shards: {start:?}");
            // Across shards the backlog comes as a message, which takes no time here.
            assert!(start.first_packet <= ms(1), "{start:?}");
            assert!(start.first_frame <= WAY + ms(15), "{start:?}");
            assert!(start.live <= ms(1500), "{start:?}");
            longest = longest.max(start.backlog);
            let audio = &world.client(viewer).viewer().audio;
            audio.assert_in_order();
            assert_eq!(audio.gaps(), 0);
            let first = audio.packets.values().next().expect("sound");
            let age = first.at - (world.start + Duration::from_micros(first.stamp.micros));
            assert!(age <= WAY + ms(1), "sound begins on the live edge");
        }
        assert!(world.keyframes_wanted(feed).is_empty(), "nobody had to ask");
    }
    assert!(longest > s(9), "a backlog of {longest:?} was among them");
}

#[test]
fn loss_while_catching_up_is_repaired() {
    for seed in [1, 2, 3] {
        let mut world = World::new(1, 210 + seed);
        let feed = world.open_feed(0, BROADCAST, s(10));
        world.run(s(7) + ms(300 * seed));
        // The peer here asks for none but the last hundred packets, which come in 60 ms.
        let near = Profile::clean(ms(5));
        let viewer = world.watch(&Offering::viewer(), near);
        let since = connected(&world, viewer);
        world.client_mut(viewer).down.profile = near.with_loss(Loss::Random(0.05));
        world.run(s(6));
        world.client_mut(viewer).down.profile = near;
        world.run(s(1));
        let log = &world.client(viewer).viewer().video;
        log.assert_in_order();
        let frames = log.frames(world.feed(feed).source);
        let (first, last) = (log.packets.values().next().unwrap().stamp.frame, *frames.last_key_value().unwrap().0);
        // A jump to the keyframe that came meanwhile leaves frames out on purpose.
        let sent = &world.feed(feed).tracks[0].log;
        let keyframe = sent.iter().rev().find(|f| f.keyframe && f.at < since + s(2)).expect("a keyframe").frame;
        let missing: Vec<u32> = (keyframe.max(first)..=last).filter(|f| !frames.contains_key(f)).collect();
        let status = &world.client(viewer).server.as_ref().unwrap().0;
        eprintln!("seed {seed}: {} NACKs, {} frames, {} missing", status.nacks.value(), frames.len(), missing.len());
        assert!(status.nacks.value() > 50 && missing.len() <= 8, "{missing:?}");
        let (nacks, answers) = (status.nacks.value(), world.total(|s| s.retransmitted_packets.value()));
        assert!(answers * 100 >= nacks * 97, "{answers} answers to {nacks} NACKs");
        assert_eq!(status.budgets.value(), 0);
    }
}

/// The encoder reconnects while viewers are catching up: they begin again with what the new one sends.
#[test]
fn a_feed_that_is_reopened_amid_a_catch_up() {
    for shards in [1, 3] {
        let mut world = World::new(shards, 220);
        let first = world.open_feed(0, BROADCAST, s(10));
        world.run(s(9));
        let viewers: Vec<ClientId> = (0..4).map(|_| world.join(&Offering::viewer(), NEAR)).collect();
        world.run(ms(600));
        assert!(world.client(viewers[0]).connected.is_some());
        world.close_feed(first);
        let closed = ShardEvent::Closed(world.feed(first).id, CloseReason::Deleted);
        assert!(world.events.iter().any(|(_, e)| *e == closed));
        world.run(ms(500));
        let quiet: Vec<usize> = viewers.iter().map(|v| world.client(*v).viewer().video.packets.len()).collect();
        world.run(ms(500));
        let still: Vec<usize> = viewers.iter().map(|v| world.client(*v).viewer().video.packets.len()).collect();
        assert_eq!(quiet, still, "nothing comes from a closed feed");
        let reopened = world.now;
        let second = world.open_feed(shards as usize - 1, BROADCAST, s(10));
        world.run(s(5));
        for viewer in &viewers {
            let start = check_start(&world, *viewer, second, reopened);
            assert!(start.first_packet <= ms(1) && start.live <= ms(50), "{start:?}");
            let log = &world.client(*viewer).viewer().video;
            assert_eq!(log.gaps(), 0);
            assert!(!log.frames(world.feed(first).source).is_empty());
        }
        world.close_feed(second);
        viewers.iter().for_each(|v| world.close(*v));
        world.run(s(2));
        assert_eq!(world.seats.iter().map(|s| s.shard.streams()).sum::<usize>(), 0, "nothing is left");
    }
}

/// WHIP takes over from a feed and the other way round; the replaced one ends later and silences nobody.
#[test]
fn feeds_and_publishers_take_over_from_each_other() {
    for shards in [1, 3] {
        let mut world = World::new(shards, 230);
        let viewer = world.watch(&Offering::viewer(), NEAR);
        let first = world.open_feed(0, Look::video(crate::media::Shape::H264), s(10));
        world.run(s(2));
        let whip = world.publish(&Offering::publisher(), NEAR);
        world.run(s(2));
        world.close_feed(first);
        world.run(s(1));
        let second = world.open_feed(shards as usize - 1, Look::video(crate::media::Shape::H264), s(10));
        world.run(s(2));
        world.close(whip);
        world.run(s(2));
        let log = &world.client(viewer).viewer().video;
        log.assert_in_order();
        assert_eq!(log.gaps(), 0);
        let order: Vec<u16> = log.packets.values().map(|a| a.stamp.source).collect();
        let mut sources = order.clone();
        sources.dedup();
        assert_eq!(sources, [world.feed(first).source, whip.0 as u16, world.feed(second).source]);
        let late = world.now - s(1);
        assert!(log.frames(world.feed(second).source).values().filter(|at| **at > late).count() >= 28);
        let audio = &world.client(viewer).viewer().audio;
        audio.assert_in_order();
        assert_eq!(audio.gaps(), 0);
    }
}

/// A crossing begins with the cached group of pictures, for those who wait; those who play are not given it again.
#[test]
fn cached_pictures_start_those_who_wait() {
    for shards in [1, 3] {
        let mut world = World::new(shards, 240);
        let feed = world.make_feed(0, BROADCAST, s(14));
        world.schedule(world.now, crate::world::Happening::Feed(feed));
        let early = world.watch(&Offering::viewer(), NEAR);
        world.run(s(5));
        assert!(world.client(early).viewer().video.packets.is_empty());
        world.put_on_air(feed);
        let since = world.now;
        world.feed_cached(feed);
        world.run(s(3));
        let start = check_start(&world, early, feed, since);
        assert!(start.first_packet <= ms(1) && start.live <= ms(1500) && start.backlog > s(4), "{start:?}");
        // The same again, while somebody plays: only who comes next is concerned.
        world.feed_cached(feed);
        world.run(s(1));
        let late = world.watch(&Offering::viewer(), NEAR);
        world.run(s(1) + ms(500));
        for viewer in [early, late] {
            let log = &world.client(viewer).viewer().video;
            log.assert_in_order();
            assert_eq!((log.gaps(), log.twice), (0, 0));
            let frames = log.frames(world.feed(feed).source);
            let (first, last) = (*frames.first_key_value().unwrap().0, *frames.last_key_value().unwrap().0);
            assert_eq!((first, frames.len() as u32), (0, last + 1), "every frame from the keyframe on");
        }
        let start = check_start(&world, late, feed, connected(&world, late));
        assert!(start.first_packet <= ms(1) && start.live <= ms(1500), "{start:?}");
        assert_eq!(world.client(early).server.as_ref().unwrap().0.nacks.value(), 0);
        let status = &world.feed(feed).status;
        assert!(status.is_connected() && status.recv_bytes.value() > 1_000_000 && status.recv_bps.value() > 1_500_000);
        assert!(status.tracks[1].frames.value() > 150 && status.tracks[0].frames.value() > 250);
        assert!(status.last_media_millis.value() > 5000);
    }
}

/// A viewer's request is answered from what is kept, now and then, and passed on to whoever may be able to answer it.
#[test]
fn a_request_restarts_the_picture_from_the_last_keyframe() {
    let mut world = World::new(1, 250);
    let feed = world.open_feed(0, BROADCAST, s(10));
    world.run(s(2));
    let viewer = world.watch(&Offering::viewer(), NEAR);
    world.run(s(3));
    let asked = world.now;
    for _ in 0..20 {
        let now = world.now;
        world.client_mut(viewer).ask_for_keyframe(now);
        world.nudge(viewer);
        world.run(ms(200));
    }
    let wanted: Vec<Instant> = world.keyframes_wanted(feed).into_iter().filter(|at| *at >= asked).collect();
    assert!((7..=9).contains(&wanted.len()), "{}", wanted.len());
    let log = &world.client(viewer).viewer().video;
    let again: Vec<Duration> = log
        .packets
        .values()
        .filter(|a| a.at > asked && a.stamp.keyframe && a.stamp.index == 0 && a.stamp.frame == 0)
        .map(|a| a.at - asked)
        .collect();
    assert_eq!(again.len(), 2, "after 0 and 2 s, next after 6: {again:?}");
    assert!(again[0] <= ms(45));
    world.run(s(2));
    let log = &world.client(viewer).viewer().video;
    assert_eq!((log.broken, log.gaps()), (0, 0));
    let stamps: Vec<u32> = log.packets.values().map(|a| a.timestamp).collect();
    assert!(stamps.windows(2).all(|w| w[1].wrapping_sub(w[0]) as i32 >= 0), "timestamps never run back");
    let (_, last) = log.packets.last_key_value().unwrap();
    assert!(last.at - (world.start + Duration::from_micros(last.stamp.micros)) <= WAY + ms(1));
}

/// A feed that can answer makes restarts short: the fresh keyframe is taken as soon as it is there.
#[test]
fn a_fresh_keyframe_is_a_shorter_way() {
    let mut world = World::new(1, 251);
    let feed = world.open_feed(0, BROADCAST, s(60));
    world.feeds[feed.0].obliging = true;
    world.run(s(12));
    let viewer = world.watch(&Offering::viewer(), NEAR);
    world.run(ms(300));
    let asked = world.now;
    world.client_mut(viewer).ask_for_keyframe(asked);
    world.nudge(viewer);
    world.run(s(2));
    let start = check_start(&world, viewer, feed, connected(&world, viewer));
    assert!(start.live <= ms(700), "{start:?}");
    // Beyond what is kept there is no start but a fresh keyframe.
    world.feeds[feed.0].obliging = false;
    world.run(s(20));
    let late = world.watch(&Offering::viewer(), NEAR);
    world.run(s(2));
    assert!(world.client(late).viewer().video.packets.is_empty());
    assert!(!world.keyframes_wanted(feed).is_empty());
    world.feeds[feed.0].obliging = true;
    world.run(s(3));
    let log = &world.client(late).viewer().video;
    assert!(log.packets.values().next().expect("a picture").stamp.keyframe);
    assert_eq!(log.gaps(), 0);
}

/// A link that carries the stream, but not eight times of it, loses parts of the catch-up and nothing of what follows.
#[test]
fn a_link_that_cannot_catch_up_as_fast() {
    for rate_bps in [3_000_000, 5_000_000, 10_000_000] {
        let mut world = World::new(1, 255);
        let feed = world.open_feed(0, BROADCAST, s(14));
        world.run(s(5));
        let viewer = world.join(&Offering::viewer(), Profile { rate_bps: Some(rate_bps), ..NEAR });
        world.make_impatient(viewer, ms(1000));
        world.run(s(12));
        let status = &world.client(viewer).server.as_ref().unwrap().0;
        let log = &world.client(viewer).viewer().video;
        let frames = log.frames(world.feed(feed).source);
        let fresh = |frame: &u32, at: &Instant| *at <= world.feed(feed).tracks[0].log[*frame as usize].at + ms(150);
        let live: Vec<u32> = frames.iter().filter(|(f, at)| fresh(f, at)).map(|(f, _)| *f).collect();
        let missing = (300..480).filter(|f| !frames.contains_key(f)).count();
        let (nacks, budgets, asked) =
            (status.nacks.value(), status.budgets.value(), world.client(viewer).viewer().asked.len());
        eprintln!(
            "{rate_bps}: {} frames, {} of them fresh, {missing} of the last 180 missing; {nacks} NACKs, {asked} requests, {budgets} budgets",
            frames.len(),
            live.len()
        );
        assert_eq!((log.broken, budgets), (0, 0));
        assert!(missing <= 2);
    }
}

/// Three hundred viewers come within a second, each with eight seconds to catch up with.
#[test]
fn three_hundred_joins_share_one_history() {
    let mut world = World::new(1, 260);
    let look = Look { delta_packets: 2, key_packets: 40, ..BROADCAST };
    let feed = world.open_feed(0, look, s(10));
    world.run(s(8));
    let payloads: Vec<_> = world.feeds[feed.0].group.drain(..).map(|p| p.payload).collect();
    assert!(payloads.len() > 500);
    let mut viewers = Vec::new();
    for n in 0..300 {
        viewers.push(world.join(&Offering::viewer().with_video(&[VideoFormat::H264]), NEAR));
        if n % 10 == 9 {
            world.run(ms(33));
        }
        let copies = payloads.iter().map(std::sync::Arc::strong_count).max();
        assert_eq!(copies, Some(2), "the history and this test hold a packet, no viewer does");
    }
    world.run(s(1));
    let mut slowest = Duration::ZERO;
    for viewer in &viewers {
        let log = &world.client(*viewer).viewer().video;
        let frames = log.frames(world.feed(feed).source);
        assert_eq!((log.broken, log.twice, log.gaps()), (0, 0, 0));
        assert!(log.packets.values().next().expect("a picture").stamp.keyframe);
        let captured = |frame: u32| world.feed(feed).tracks[0].log[frame as usize].at;
        let behind = frames.iter().rev().find(|(f, at)| **at > captured(**f) + WAY + FRAME).map(|(_, at)| *at);
        slowest = slowest.max(behind.map_or(s(0), |at| at - connected(&world, *viewer) - WAY));
    }
    eprintln!("on the live edge after {slowest:?} at worst, batches of at most {} bytes", world.largest_batch);
    assert!(slowest <= ms(1500), "{slowest:?}");
    assert!(world.largest_batch < 400_000, "{} bytes at once", world.largest_batch);
    // And from there on it is as cheap as ever.
    world.run(s(3));
    world.allocations = Some(crate::world::Allocations::default());
    world.run(s(2));
    assert_eq!(world.allocations.expect("it was counted").in_transmit, 0);
}

/// Sound and picture stay together while the picture catches up: reports speak of the live edge.
#[test]
fn reports_speak_of_the_live_edge() {
    let mut world = World::new(1, 270);
    let feed = world.open_feed(0, BROADCAST, s(10));
    world.run(s(9));
    let viewer = world.watch(&Offering::viewer(), NEAR);
    world.run(s(6));
    let seen = world.client(viewer).viewer();
    let start = check_start(&world, viewer, feed, connected(&world, viewer));
    assert!(start.backlog > s(8));
    let origin = std::time::UNIX_EPOCH + s(1_800_000_000);
    for (log, hz) in [(&seen.video, 90_000.0), (&seen.audio, 48_000.0)] {
        assert!(log.reports.len() >= 5);
        let mut by_frame: BTreeMap<u32, f64> = BTreeMap::new();
        let newest = log.packets.values().last().expect("a packet");
        for (n, report) in log.reports.iter().enumerate() {
            let ticks = f64::from(newest.timestamp.wrapping_sub(report.rtp) as i32);
            let wall = report.ntp.duration_since(origin).unwrap().as_secs_f64() + ticks / hz;
            by_frame.insert(n as u32, (wall - newest.stamp.micros as f64 / 1e6).abs());
        }
        let worst = by_frame.values().copied().fold(0.0, f64::max);
        assert!(worst < 0.002, "{worst} s from the time of capture");
    }
}

#[test]
fn commands_end_feeds_and_strangers_are_ignored() {
    let mut world = World::new(2, 280);
    let feed = world.open_feed(1, BROADCAST, s(2));
    let viewer = world.watch(&Offering::viewer(), NEAR);
    world.run(s(2));
    let id = world.feed(feed).id;
    world.command(0, Command::CloseFeed { id });
    world.command(0, Command::Feed { id, packets: Vec::new() });
    world.run(s(1));
    assert!(world.client(viewer).viewer().video.last.unwrap() > world.now - ms(100), "another shard's feed goes on");
    world.command(1, Command::Close { id, reason: CloseReason::Replaced });
    assert!(world.events.iter().any(|(_, e)| *e == ShardEvent::Closed(id, CloseReason::Replaced)));
    let second = world.open_feed(0, BROADCAST, s(2));
    let reopened = world.feed(second).id;
    world.run(s(1));
    world.command(0, Command::CloseAll { reason: CloseReason::Shutdown });
    world.command(1, Command::CloseAll { reason: CloseReason::Shutdown });
    assert!(world.events.iter().any(|(_, e)| *e == ShardEvent::Closed(reopened, CloseReason::Shutdown)));
    world.run(s(1));
    assert_eq!(world.seats.iter().map(|s| s.shard.streams()).sum::<usize>(), 0);
}

/// Whatever a feed brings and however its viewers behave: nothing breaks, and a sound feed that follows is played.
#[test]
fn odd_feeds_do_no_harm() {
    for seed in 0..6 {
        let mut world = World::new(if seed % 2 == 0 { 1 } else { 3 }, 290 + seed);
        let mut random = StdRng::seed_from_u64(seed);
        let bad = NEAR.with_loss(Loss::Random(0.05));
        let viewers: Vec<ClientId> = (0..4).map(|_| world.join(&Offering::viewer(), bad)).collect();
        world.run(s(1));
        let feed = world.make_feed(0, BROADCAST, s(10));
        world.put_on_air(feed);
        let id = world.feed(feed).id;
        let (mut seq, mut timestamp) = (1 << 32, 0u32);
        for _ in 0..400 {
            let packets = (0..random.random_range(0..30)).map(|_| {
                seq = match random.random_range(0..100) {
                    0 => random.random_range(0..u64::MAX),
                    1 => seq.saturating_sub(random.random_range(0..100)),
                    2 => seq.saturating_add(random.random_range(0..50_000)),
                    _ => seq.saturating_add(1),
                };
                if random.random_bool(0.3) {
                    timestamp = timestamp.wrapping_add(random.random_range(0..10_000));
                } else if random.random_bool(0.01) {
                    timestamp = random.random();
                }
                let age = [Duration::ZERO, ms(500), s(20), Duration::MAX][random.random_range(0..4)];
                let bytes = [0, 1, 2, 700, 1200, 20_000][random.random_range(0..6)];
                freshet_sfu::FeedPacket {
                    track: [0, 0, 0, 1, 7][random.random_range(0..5)],
                    seq,
                    timestamp,
                    marker: random.random(),
                    opens_keyframe: random.random_bool(0.02),
                    age,
                    payload: vec![random.random(); bytes].into(),
                    cached: random.random_bool(0.2),
                }
            });
            let packets = packets.collect();
            world.command(0, Command::Feed { id, packets });
            if random.random_bool(0.1) {
                let (viewer, now) = (viewers[random.random_range(0..4)], world.now);
                world.client_mut(viewer).ask_for_keyframe(now);
                world.nudge(viewer);
            }
            world.run(ms(random.random_range(0..60)));
        }
        world.close_feed(feed);
        world.run(s(1));
        viewers.iter().for_each(|v| world.close(*v));
        let sound = world.open_feed(0, BROADCAST, s(10));
        world.run(s(2));
        let viewer = world.watch(&Offering::viewer(), NEAR);
        world.run(s(3));
        let start = check_start(&world, viewer, sound, connected(&world, viewer));
        assert!(start.live <= ms(1500), "{start:?}");
    }
}
