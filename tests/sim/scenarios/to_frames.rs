//! A publisher behind a bad network, tapped and put together to frames: what players of RTMP, FLV and HLS get.

use std::time::Instant;

use freshet_bridge::crossing::{FromRtpOptions, FromRtpStats, RtpIn, RtpToFrames, RtpTrack, SoundOut};
use freshet_media::{Codec, Frame, MediaKind};
use freshet_sfu::{Command, Tapped};

use super::*;
use crate::media::{STAMP_BYTES, Stamp};
use crate::net::Loss;
use crate::peer::Offering;
use crate::world::World;

/// How often the crossing's thread is thought to look.
const TURN: Duration = ms(2);
/// x264's, for 320x180.
const SPS: [u8; 25] = [
    0x67, 0x4d, 0x40, 0x0d, 0xd9, 0x01, 0x41, 0x9f, 0x9f, 0x01, 0x10, 0x00, 0x00, 0x03, 0x00, 0x10, 0x00, 0x00, 0x03,
    0x03, 0xc0, 0xf1, 0x42, 0xa4, 0x80,
];
const PPS: [u8; 5] = [0x68, 0xeb, 0xc3, 0xcb, 0x20];

/// The payload that an encoder would have sent in place of the stamped one (RFC 6184): parameter sets in a keyframe's
/// first packet, the slice in the others.
fn h264(stamp: Stamp, stamped: &[u8]) -> Vec<u8> {
    if stamp.keyframe && stamp.index == 0 {
        let unit = |unit: &[u8]| [&(unit.len() as u16).to_be_bytes()[..], unit].concat();
        return [&[0x78], &unit(&SPS)[..], &unit(&PPS)].concat();
    }
    let (is_first, is_last) = (stamp.index == u16::from(stamp.keyframe), stamp.index + 1 == stamp.count);
    let kind = if stamp.keyframe { 5 } else { 1 };
    // The slice begins with the first macroblock and is of type 7 or 5.
    let head: &[u8] = match (is_first, stamp.keyframe) {
        (true, true) => &[0x88, 0x84],
        (true, false) => &[0x9a, 0x84],
        (false, _) => &[],
    };
    [&[0x7c, u8::from(is_first) << 7 | u8::from(is_last) << 6 | kind], head, &stamped[6..]].concat()
}

/// What has come out.
struct Played {
    frames: Vec<(Instant, Frame)>,
    stats: FromRtpStats,
    captured: usize,
    requests: usize,
}

struct Gap {
    at: Duration,
    long: Duration,
}

impl Played {
    fn of(&self, kind: MediaKind) -> Vec<(Instant, Stamp, i64)> {
        let of_kind = self.frames.iter().filter(|(_, frame)| frame.kind() == kind);
        let stamped = |(at, frame): &(Instant, Frame)| {
            let (_, stamp) = frame.data.split_last_chunk::<STAMP_BYTES>()?;
            Some((*at, Stamp::read(&[&[0; 6][..], stamp].concat())?, frame.dts.micros()))
        };
        of_kind.map(|frame| stamped(frame).expect("a whole picture")).collect()
    }

    /// The longest time without a picture.
    fn longest_gap(&self, start: Instant) -> Gap {
        let pictures = self.of(MediaKind::Video);
        let gaps = pictures.windows(2).map(|w| Gap { at: w[0].0 - start, long: w[1].0 - w[0].0 });
        gaps.max_by_key(|gap| gap.long).expect("pictures")
    }

    /// Pictures delivered, in per mille of those captured.
    fn share(&self) -> usize {
        (self.of(MediaKind::Video).len() * 1000 / self.captured).min(1000)
    }

    /// Most that pictures and sound lie apart from how they were captured.
    fn skew_micros(&self) -> i64 {
        let moved = |kind| self.of(kind).into_iter().map(|(_, stamp, dts)| dts - stamp.micros as i64);
        let sound: Vec<i64> = moved(MediaKind::Audio).collect();
        let middle = sound[sound.len() / 2];
        assert!(sound.iter().all(|at| (at - middle).abs() < 2), "sound drifts");
        moved(MediaKind::Video).map(|at| (at - middle).abs()).max().expect("pictures")
    }

    fn check(&self) {
        for kind in [MediaKind::Audio, MediaKind::Video] {
            let of_kind = self.of(kind);
            assert!(of_kind.windows(2).all(|w| w[1].2 > w[0].2), "{kind:?} runs backwards");
            assert!(of_kind.windows(2).all(|w| w[1].1.frame > w[0].1.frame));
        }
        // After a hole comes a keyframe, and nothing else.
        let pictures = self.of(MediaKind::Video);
        assert!(pictures.windows(2).all(|w| w[1].1.frame == w[0].1.frame + 1 || w[1].1.keyframe));
    }
}

/// How the publisher's media looks.
#[derive(Clone, Copy)]
struct Shape {
    key_packets: u16,
    delta_packets: u16,
}

/// 0.3 Mbit/s in small packets; and 3 Mbit/s in packets of full size.
const SMALL: Shape = Shape { key_packets: 8, delta_packets: 2 };
const LARGE: Shape = Shape { key_packets: 60, delta_packets: 10 };

/// A minute over that network, from the second second on.
fn play(profile: Profile, shape: Shape, seconds: u64, seed: u64) -> (Played, World) {
    let mut world = World::new(1, seed);
    let publisher = world.publish(&Offering::publisher(), Profile { loss: Loss::None, ..profile });
    let look = &mut world.client_mut(publisher).publisher_mut().source_mut(true).look;
    (look.key_packets, look.delta_packets) = (shape.key_packets, shape.delta_packets);
    let shard = world.shard_of(world.client(publisher).public);
    let session = world.session(publisher);
    world.command(shard, Command::Tap { publisher: session, on: true });
    let tracks = [RtpTrack { codec: Codec::Opus, clock_hz: 48_000 }, RtpTrack { codec: Codec::H264, clock_hz: 90_000 }];
    let options = FromRtpOptions { sound: SoundOut::Opus, ..FromRtpOptions::default() };
    let mut crossing = RtpToFrames::new(&tracks, options);
    let mut frames = Vec::new();
    world.run(s(1));
    world.client_mut(publisher).set_profile(profile);
    let (from, end) = (world.now, world.now + s(seconds));
    while world.now < end {
        world.run(TURN);
        for (_, _, tapped) in std::mem::take(&mut world.tapped) {
            match tapped {
                Tapped::Tracks(_) => {}
                Tapped::Clock { track, reference } => {
                    crossing.set_clock(usize::from(track), reference.rtp, reference.wall);
                }
                Tapped::Packets(packets) => packets.iter().for_each(|p| {
                    let stamp = Stamp::read(&p.payload).expect("an unharmed packet");
                    let payload = if p.track == 1 { h264(stamp, &p.payload).into() } else { p.payload.clone() };
                    crossing.push(
                        world.now,
                        RtpIn {
                            track: usize::from(p.track),
                            seq: p.seq,
                            timestamp: p.timestamp,
                            marker: p.marker,
                            arrival: p.arrival,
                            payload,
                        },
                    );
                }),
            }
        }
        crossing.handle_timeout(world.now);
        if crossing.wants_keyframe() {
            world.command(shard, Command::RequestKeyframe { publisher: session });
        }
        while let Some(frame) = crossing.poll_frame() {
            frames.push((world.now, frame));
        }
    }
    // Those captured before have been there, or are on their way.
    frames.retain(|(at, _)| *at >= from);
    let sent = world.client(publisher).publisher();
    let captured = sent.source(true).log.iter().filter(|f| f.at >= from && f.at < end).count();
    let requests = sent.requests.iter().filter(|(at, _)| *at >= from).count();
    (Played { frames, stats: crossing.stats(), captured, requests }, world)
}

/// Loss on the publisher's way, both directions. Repairs may be lost as well, and requests for them.
#[test]
fn pictures_go_on_through_loss() {
    // Round trip and jitter in ms, loss in percent; pictures of a thousand, longest gap in ms.
    let cases = [
        (40, 0, SMALL, 5, 990, 450),
        (40, 0, SMALL, 10, 990, 500),
        (40, 0, LARGE, 5, 990, 450),
        (40, 0, LARGE, 10, 990, 500),
        (80, 20, SMALL, 5, 990, 600),
        (80, 20, SMALL, 10, 980, 800),
        (80, 20, LARGE, 5, 980, 700),
        (80, 20, LARGE, 10, 980, 900),
        (200, 20, SMALL, 5, 970, 1000),
        (200, 20, SMALL, 10, 950, 1200),
        (200, 20, LARGE, 5, 950, 1200),
        (200, 20, LARGE, 10, 800, 2000),
    ];
    for (rtt, jitter, shape, percent, least, longest) in cases {
        let profile = Profile::clean(ms(rtt / 2)).with_jitter(ms(jitter));
        let (played, world) = play(profile.with_loss(Loss::Random(f64::from(percent) / 100.0)), shape, 60, 601);
        let gap = played.longest_gap(world.start);
        let what = format!(
            "{rtt}+{jitter} ms, {percent} %, {} packets a picture: {} of 1000 pictures, longest gap {} ms at {} ms, {} \
             requests, {:?}",
            shape.delta_packets,
            played.share(),
            gap.long.as_millis(),
            gap.at.as_millis(),
            played.requests,
            played.stats
        );
        played.check();
        assert!(played.share() >= least && gap.long <= ms(longest), "{what}");
        assert!(played.skew_micros() <= 40_000, "{} µs apart", played.skew_micros());
        // Sound passes with its holes, which are concealed where it becomes AAC.
        let sound = played.of(MediaKind::Audio).len();
        assert!((3000 - sound).abs_diff(percent as usize * 30) <= 90, "{sound} of 3000 packets of sound");
    }
}
