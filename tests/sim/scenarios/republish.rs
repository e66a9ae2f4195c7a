//! Publishers come and go on one stream; the viewer's tracks stay one continuous thing.

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::*;
use crate::client::ClientId;
use crate::peer::{Offering, VideoFormat};
use crate::viewer::TrackLog;
use crate::world::World;

/// Offers that differ in codec, payload types and their order.
fn offering(round: usize) -> Offering {
    let video: &[VideoFormat] = match round % 4 {
        0 => &[VideoFormat::H264, VideoFormat::VP8],
        1 => &[VideoFormat::VP8, VideoFormat::H264],
        2 => &[VideoFormat::H264.at(125, 107), VideoFormat::VP8.at(102, 103)],
        _ => &[VideoFormat::VP8.at(120, 121)],
    };
    let audio_first = round.is_multiple_of(3);
    Offering { audio_first, audio: Some(if round.is_multiple_of(2) { 111 } else { 109 }), ..Offering::publisher() }
        .with_video(video)
}

fn publish(world: &mut World, round: usize, random: &mut StdRng) -> ClientId {
    let id = world.publish(&offering(round), NEAR);
    for source in &mut world.client_mut(id).publisher_mut().sources {
        source.next_seq = random.random_range(0..65_536);
        source.rtp_base = random.random();
    }
    id
}

/// Reports say the same of time as the packets do.
fn assert_reports(log: &TrackLog, clock_hz: u32) {
    assert!(log.reports.len() > 10, "{} reports", log.reports.len());
    for pair in log.reports.windows(2) {
        assert!(pair[1].ntp > pair[0].ntp, "NTP runs back");
        assert!(pair[1].rtp.wrapping_sub(pair[0].rtp) as i32 > 0, "RTP time runs back");
        assert!(pair[1].packets >= pair[0].packets, "packets are uncounted");
    }
    for report in &log.reports {
        let before = log.packets.values().rfind(|a| a.at <= report.at);
        let Some(newest) = before else { continue };
        let ahead = report.rtp.wrapping_sub(newest.timestamp) as i32;
        // A report extrapolates from the newest packet, at most as long as nothing came.
        let silent = report.at - newest.at;
        let limit = (silent + ms(100)).as_secs_f64() * f64::from(clock_hz);
        assert!((f64::from(ahead)).abs() <= limit, "{ahead} ticks from the newest packet, {silent:?} ago");
    }
}

#[test]
fn sixty_publishers_one_after_the_other() {
    let mut world = World::new(1, 21);
    let mut random = StdRng::seed_from_u64(21);
    let viewer = world.watch(&Offering::viewer(), NEAR);
    for round in 0..60 {
        let id = publish(&mut world, round, &mut random);
        world.run(s(2));
        if round.is_multiple_of(5) {
            // Gone without a word, and the next one is there before the session has expired.
            world.vanish(id);
        } else {
            world.close(id);
        }
        world.run(ms(random.random_range(50..1500)));
        let frames = world.client(viewer).viewer().video.frames(id.0 as u16);
        assert!(frames.len() >= 55, "round {round}: {} frames", frames.len());
    }
    let seen = world.client(viewer).viewer();
    for (log, clock_hz) in [(&seen.video, 90_000), (&seen.audio, 48_000)] {
        log.assert_in_order();
        assert_eq!(log.gaps(), 0, "numbers are continuous");
        assert_reports(log, clock_hz);
    }
    let pts: std::collections::BTreeSet<u8> = seen.video.packets.values().map(|a| a.pt).collect();
    assert_eq!(Vec::from_iter(pts), [96, 102], "the viewer's payload types, whatever the publishers used");
    let ssrcs = world.client(viewer).received.keys().map(|(ssrc, _)| *ssrc).collect::<std::collections::BTreeSet<_>>();
    assert_eq!(ssrcs.len(), 2, "one SSRC for each track, no need of RTX");
    world.run(s(12));
    assert_eq!(world.sessions(), 1, "only the viewer is left");
}

/// Taking over: the new publisher starts while the old one still sends.
#[test]
fn a_takeover_is_one_cut() {
    for shards in [1, 3] {
        let mut world = World::new(shards, 22);
        let mut random = StdRng::seed_from_u64(22);
        let viewers: Vec<ClientId> = (0..3).map(|_| world.watch(&Offering::viewer(), NEAR)).collect();
        let mut publishers = Vec::new();
        for round in 0..8 {
            publishers.push(publish(&mut world, round, &mut random));
            world.run(s(1));
        }
        for viewer in viewers {
            let log = &world.client(viewer).viewer().video;
            log.assert_in_order();
            assert_eq!(log.gaps(), 0);
            let order: Vec<u16> = log.packets.values().map(|a| a.stamp.source).collect();
            assert!(order.is_sorted(), "a replaced publisher is not heard again");
            assert!(publishers.iter().all(|p| order.contains(&(p.0 as u16))));
        }
        // The replaced ones leave after their successors came, in any order: that must not silence the stream.
        for id in publishers[..7].iter().rev() {
            world.close(*id);
        }
        world.run(s(2));
        let last = publishers[7].0 as u16;
        for viewer in 0..3 {
            let frames = world.client(ClientId(viewer)).viewer().video.frames(last);
            assert!(frames.values().filter(|at| **at > world.now - s(1)).count() >= 28, "{shards} shards");
        }
    }
}

/// The next publisher has no audio, the one after no video.
#[test]
fn tracks_may_be_missing_for_a_while() {
    let mut world = World::new(1, 23);
    let viewer = world.watch(&Offering::viewer(), NEAR);
    for offering in [
        Offering::publisher(),
        Offering::publisher().without_audio(),
        Offering::publisher().with_video(&[]),
        Offering::publisher(),
    ] {
        let id = world.publish(&offering, NEAR);
        world.run(s(2));
        let seen = world.client(viewer).viewer();
        let frames = |log: &TrackLog| log.frames(id.0 as u16).len();
        assert_eq!(frames(&seen.video) > 50, !offering.video.is_empty());
        assert_eq!(frames(&seen.audio) > 80, offering.audio.is_some());
        world.close(id);
        world.run(ms(300));
    }
    let seen = world.client(viewer).viewer();
    for log in [&seen.video, &seen.audio] {
        log.assert_in_order();
        assert_eq!(log.gaps(), 0);
    }
}
