//! Sender reports keep lips and sound together.

use rand::Rng as _;
use rand::rngs::StdRng;

use super::*;
use crate::peer::Offering;
use crate::viewer::{Report, TrackLog};
use crate::world::World;

/// Video packets take 30 to 150 ms, everything else 20 to 25.
fn video_is_late(datagram: &[u8], random: &mut StdRng) -> Duration {
    let is_video = crate::world::is_rtp(datagram) && datagram[1] & 0x7f == 102;
    if is_video { ms(10) + ms(120).mul_f64(random.random()) } else { ms(5).mul_f64(random.random()) }
}

/// Wall time that a report gives to a packet, minus its time of capture, in microseconds.
fn offset(log: &TrackLog, report: &Report, clock_hz: u32) -> f64 {
    let near = log.packets.values().rfind(|a| a.at <= report.at).expect("a packet");
    let ticks = f64::from(near.timestamp.wrapping_sub(report.rtp) as i32);
    let origin = std::time::UNIX_EPOCH + s(1_800_000_000);
    let ntp = report.ntp.duration_since(origin).expect("after the origin").as_secs_f64() * 1e6;
    ntp + ticks * 1e6 / f64::from(clock_hz) - near.stamp.micros as f64
}

#[test]
fn reports_keep_the_publishers_distance_within_a_millisecond() {
    for (seed, shards) in [(61, 1), (62, 1), (63, 3)] {
        let mut world = World::new(shards, seed);
        let jittery = Profile { extra: Some(video_is_late), ..NEAR };
        world.publish(&Offering::publisher(), jittery);
        let viewer = world.watch(&Offering::viewer(), NEAR);
        world.run(s(20));
        let seen = world.client(viewer).viewer();
        assert!(seen.video.reports.len() >= 15 && seen.audio.reports.len() >= 15);
        let mut worst: f64 = 0.0;
        for (video, audio) in seen.video.reports.iter().zip(&seen.audio.reports).skip(2) {
            let distance = offset(&seen.video, video, 90_000) - offset(&seen.audio, audio, 48_000);
            worst = worst.max(distance.abs());
        }
        let early =
            offset(&seen.video, &seen.video.reports[0], 90_000) - offset(&seen.audio, &seen.audio.reports[0], 48_000);
        let first = seen.video.reports[0].at - seen.video.packets.values().next().expect("a packet").at;
        eprintln!("{shards} shards: {worst:.0} µs apart at worst; first report after {first:?}, {early:.0} µs apart");
        assert!(worst < 1000.0, "{worst} µs between picture and sound");
    }
}

/// Two publishers in a row with clocks of their own: the time of the stream goes on.
#[test]
fn reports_stay_true_over_a_republish() {
    let mut world = World::new(1, 64);
    let jittery = Profile { extra: Some(video_is_late), ..NEAR };
    let viewer = world.watch(&Offering::viewer(), NEAR);
    for base in [0, 3_000_000_000] {
        let publisher = world.publish(&Offering::publisher(), jittery);
        for source in &mut world.client_mut(publisher).publisher_mut().sources {
            source.rtp_base = base;
        }
        world.run(s(8));
        let seen = world.client(viewer).viewer();
        let (video, audio) = (seen.video.reports.last(), seen.audio.reports.last());
        let distance = offset(&seen.video, video.expect("a report"), 90_000)
            - offset(&seen.audio, audio.expect("a report"), 48_000);
        assert!(distance.abs() < 1000.0, "{distance} µs");
        world.close(publisher);
        world.run(ms(700));
    }
}

/// Simulcast layers have RTP times of their own; a change of layer must not show in the reports.
#[test]
fn reports_stay_true_over_a_change_of_layer() {
    for (seed, shards) in [(65, 1), (66, 3)] {
        let mut world = World::new(shards, seed);
        let offering = Offering { layers: vec!["q", "f"], ..Offering::publisher() };
        let publisher = world.publish(&offering, NEAR);
        for source in world.client_mut(publisher).publisher_mut().sources.iter_mut().filter(|s| s.rid.is_some()) {
            source.look.packet_bytes = [150, 900][usize::from(source.layer)];
            source.rtp_base = [4_000_000_000, 1_000_000_000][usize::from(source.layer)];
        }
        let viewer = world.watch(&Offering::viewer(), NEAR);
        for muted in [false, true, false] {
            let sources = &mut world.client_mut(publisher).publisher_mut().sources;
            sources.iter_mut().filter(|s| s.layer == 1).for_each(|s| s.muted = muted);
            world.run(s(8));
        }
        let seen = world.client(viewer).viewer();
        let layers: Vec<u8> = seen.video.packets.values().map(|a| a.stamp.layer).collect();
        let switches = layers.windows(2).filter(|w| w[0] != w[1]).count();
        assert!(switches >= 2, "{switches} switches");
        assert!(seen.video.reports.len() > 15);
        for report in seen.video.reports.iter().skip(2) {
            let audio = seen.audio.reports.iter().min_by_key(|a| a.at.max(report.at) - a.at.min(report.at));
            let audio = offset(&seen.audio, audio.expect("a report"), 48_000);
            let distance = offset(&seen.video, report, 90_000) - audio;
            let at = report.at - world.start;
            assert!(distance.abs() < 1000.0, "{shards} shards: {distance:.0} µs apart at {at:?}");
        }
    }
}
