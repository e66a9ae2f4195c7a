//! The server has a publisher's packets as well: each one once, in order of arrival, from a start that can be decoded.

use std::collections::BTreeSet;
use std::time::Instant;

use freshet_media::MediaKind;
use freshet_sfu::{ClockReference, Command, RtpPacket, SessionId, Tapped};

use super::*;
use crate::client::ClientId;
use crate::media::Stamp;
use crate::net::{Loss, Profile};
use crate::peer::{Offering, VideoFormat};
use crate::world::{Allocations, World};

const AUDIO: u8 = 0;
const VIDEO: u8 = 1;

fn home(world: &World, publisher: ClientId) -> usize {
    world.shard_of(world.client(publisher).public)
}

fn tap(world: &mut World, publisher: ClientId, on: bool) {
    let (shard, publisher) = (home(world, publisher), world.session(publisher));
    world.command(shard, Command::Tap { publisher, on });
}

fn is_tapped(world: &World, publisher: ClientId) -> bool {
    world.seats[home(world, publisher)].shard.is_tapped(world.session(publisher))
}

/// What a tap has yielded since a moment.
#[derive(Default)]
struct Yield {
    packets: Vec<(Instant, RtpPacket)>,
    clocks: usize,
    batches: usize,
}

impl Yield {
    /// Checks that the tracks come first, every packet once and in order of arrival, and that at each moment the clocks
    /// tell when a packet was sent, give or take what `jitter` there is.
    fn of(world: &World, session: SessionId, since: Instant, jitter: Duration) -> Yield {
        let mut heard = Yield::default();
        let mut yielded = world.tapped.iter().filter(|(at, of, _)| *of == session && *at >= since);
        let first = yielded.next().map(|(_, _, tapped)| tapped);
        let Some(Tapped::Tracks(tracks)) = first else { panic!("{first:?} before the tracks") };
        assert_eq!([tracks[0].kind, tracks[1].kind], [MediaKind::Audio, MediaKind::Video]);
        let (mut references, mut newest) = ([None; 2], None);
        let mut seen = BTreeSet::new();
        for (at, _, tapped) in yielded {
            match tapped {
                Tapped::Tracks(_) => panic!("the tracks again"),
                Tapped::Clock { track, reference } => {
                    references[usize::from(*track)] = Some(*reference);
                    heard.clocks += 1;
                }
                Tapped::Packets(packets) => {
                    heard.batches += 1;
                    for packet in packets.iter() {
                        assert!(seen.insert((packet.track, packet.layer, packet.seq)), "{packet:?} comes again");
                        assert!(newest <= Some(packet.arrival), "not in order of arrival");
                        newest = Some(packet.arrival);
                        let reference = references[usize::from(packet.track)].expect("a clock before its packets");
                        let clock_hz = tracks[usize::from(packet.track)].formats[usize::from(packet.format)].clock_hz;
                        let late = world_micros(world, packet.arrival) - wall_of(reference, packet.timestamp, clock_hz);
                        let limit = jitter.as_micros() as i64;
                        assert!(late.abs() <= limit, "{late} µs from {reference:?} to {packet:?}");
                        heard.packets.push((*at, packet.clone()));
                    }
                }
            }
        }
        heard
    }

    fn seqs(&self, track: u8) -> Vec<u64> {
        self.packets.iter().filter(|(_, p)| p.track == track).map(|(_, p)| p.seq).collect()
    }

    fn stamps(&self, track: u8) -> Vec<Stamp> {
        let stamp = |p: &RtpPacket| Stamp::read(&p.payload).expect("an unharmed packet");
        self.packets.iter().filter(|(_, p)| p.track == track).map(|(_, p)| stamp(p)).collect()
    }

    /// Nothing is missing between the first and the last.
    fn assert_contiguous(&self) {
        for track in [AUDIO, VIDEO] {
            let seqs = self.seqs(track);
            assert!(seqs.len() > 50, "{} packets of track {track}", seqs.len());
            assert!(seqs.windows(2).all(|w| w[1] == w[0] + 1), "track {track} has gaps");
        }
    }
}

fn world_micros(world: &World, at: Instant) -> i64 {
    1_800_000_000_000_000 + (at - world.start).as_micros() as i64
}

fn wall_of(reference: ClockReference, rtp: u32, clock_hz: u32) -> i64 {
    reference.wall + i64::from(rtp.wrapping_sub(reference.rtp) as i32) * 1_000_000 / i64::from(clock_hz)
}

fn requests_since(world: &World, publisher: ClientId, since: Instant) -> usize {
    world.client(publisher).publisher().requests.iter().filter(|(at, _)| *at >= since).count()
}

#[test]
fn a_tap_begins_with_the_last_keyframe() {
    for shards in [1, 3] {
        let mut world = World::new(shards, 501);
        let publisher = world.publish(&Offering::publisher(), NEAR);
        let viewers: Vec<ClientId> = (0..6).map(|_| world.join(&Offering::viewer(), NEAR)).collect();
        world.run(s(3));
        world.client_mut(publisher).publisher_mut().make_keyframe();
        world.run(ms(700));
        let since = world.now;
        tap(&mut world, publisher, true);
        let at_once = Yield::of(&world, world.session(publisher), since, ms(5));
        assert_eq!((at_once.clocks, at_once.batches), (2, 1), "clocks and the start are there at once");
        world.run(s(5));
        assert_eq!(requests_since(&world, publisher, since), 0, "nobody had to be asked");
        let heard = Yield::of(&world, world.session(publisher), since, ms(5));
        heard.assert_contiguous();
        assert!(heard.clocks >= 8, "{} clocks: reports come once a second", heard.clocks);
        let (sound, picture) = (heard.stamps(AUDIO), heard.stamps(VIDEO));
        assert!(picture[0].keyframe && picture[0].index == 0, "{:?}", picture[0]);
        let apart = sound[0].micros.abs_diff(picture[0].micros);
        assert!(apart <= 20_000, "sound begins {apart} µs from the picture");
        // Up to what is on its way.
        let log = &world.client(publisher).publisher().source(true).log;
        let sent = log.iter().rfind(|f| f.at + ms(25) < world.now).expect("a frame").frame;
        assert!(picture.last().is_some_and(|s| s.frame >= sent));
        for viewer in viewers {
            let log = &world.client(viewer).viewer().video;
            log.assert_in_order();
            assert_eq!(log.gaps(), 0);
        }
    }
}

#[test]
fn a_keyframe_is_asked_for_only_if_none_is_kept() {
    let mut world = World::new(1, 502);
    let publisher = world.publish(&Offering::publisher(), NEAR);
    world.run(s(5));
    let since = world.now;
    tap(&mut world, publisher, true);
    assert!(Yield::of(&world, world.session(publisher), since, ms(5)).packets.is_empty());
    world.run(ms(300));
    assert_eq!(requests_since(&world, publisher, since), 1);
    let heard = Yield::of(&world, world.session(publisher), since, ms(5));
    let (_, key) = heard.packets.iter().find(|(_, p)| p.opens_keyframe).expect("a keyframe");
    assert!(key.arrival - since <= ms(80), "a round trip and a frame: {:?}", key.arrival - since);
    // What follows a first frame that cannot be decoded comes as well: sound does not wait for the picture.
    assert!(heard.seqs(AUDIO).len() >= 12);
    let asked = world.now;
    let (shard, session) = (home(&world, publisher), world.session(publisher));
    for _ in 0..100 {
        world.command(shard, Command::RequestKeyframe { publisher: session });
        world.run(ms(20));
    }
    world.run(s(1));
    let requests = requests_since(&world, publisher, asked);
    assert!((4..=5).contains(&requests), "{requests} in two seconds");
}

#[test]
fn a_tap_may_be_open_before_its_publisher_is_on_the_air() {
    for shards in [1, 3] {
        let mut world = World::new(shards, 503);
        let publisher = world.join(&Offering::publisher(), NEAR);
        let session = world.session(publisher);
        tap(&mut world, publisher, true);
        assert!(!is_tapped(&world, publisher), "it has no shard yet");
        assert!(world.until(s(1), |w| w.lobby.home(session).is_some()));
        assert_eq!(world.lobby.home(session).map(|s| usize::from(s.0)), Some(home(&world, publisher)));
        tap(&mut world, publisher, true);
        assert!(is_tapped(&world, publisher) && world.client(publisher).connected.is_none());
        assert!(world.tapped.is_empty());
        world.run(s(4));
        let start = world.start;
        let heard = Yield::of(&world, session, start, ms(5));
        heard.assert_contiguous();
        for track in [AUDIO, VIDEO] {
            let first = heard.stamps(track)[0];
            assert_eq!((first.frame, first.index), (0, 0), "the first packet of the publish");
        }
        assert_eq!(requests_since(&world, publisher, start), 0);
        world.close(publisher);
        world.run(s(1));
        assert!(!is_tapped(&world, publisher));
        let count = world.tapped.len();
        world.run(s(1));
        assert_eq!(world.tapped.len(), count);
    }
}

#[test]
fn a_closed_tap_costs_nothing_and_can_be_opened_again() {
    let mut world = World::new(1, 504);
    let publisher = world.publish(&Offering::publisher(), NEAR);
    for _ in 0..20 {
        world.join(&Offering::viewer(), NEAR);
    }
    // What a debug build remembers of every viewer's packets doubles after 16 s, and not again before 32 s.
    world.run(s(17));
    let measure = |world: &mut World| {
        world.allocations = Some(Allocations::default());
        world.run(s(2));
        world.allocations.take().expect("it was counted")
    };
    let without = measure(&mut world);
    assert_eq!(without.in_transmit, 0);
    for _ in 0..2 {
        let since = world.now;
        tap(&mut world, publisher, true);
        // The queue towards the server finds its size.
        world.run(ms(100));
        let with = measure(&mut world);
        let heard = Yield::of(&world, world.session(publisher), since, ms(5));
        heard.assert_contiguous();
        assert!(with.in_transmit > 100 && with.in_transmit <= heard.batches as u64, "{with:?}");
        tap(&mut world, publisher, false);
        assert!(!is_tapped(&world, publisher));
        let count = world.tapped.len();
        assert_eq!(measure(&mut world).in_transmit, 0);
        assert_eq!(world.tapped.len(), count, "nothing is yielded any more");
    }
}

#[test]
fn a_replaced_publisher_falls_silent_and_its_successor_is_tapped_apart() {
    for shards in [1, 3] {
        let mut world = World::new(shards, 505);
        let start = world.now;
        let viewer = world.watch(&Offering::viewer(), NEAR);
        let first = world.publish(&Offering::publisher(), NEAR);
        tap(&mut world, first, true);
        world.run(s(2));
        let second = world.publish(&Offering::publisher(), NEAR);
        let taken_over = world.now;
        tap(&mut world, second, true);
        world.run(s(3));
        let (old, new) = (world.session(first), world.session(second));
        let heard = Yield::of(&world, old, start, ms(5));
        heard.assert_contiguous();
        assert!(heard.packets.iter().all(|(at, _)| *at <= taken_over + ms(1)), "it still sends, unheard");
        let heard = Yield::of(&world, new, taken_over, ms(5));
        heard.assert_contiguous();
        assert!(heard.stamps(VIDEO).iter().all(|s| s.source == second.0 as u16));
        assert_eq!(heard.stamps(VIDEO)[0].frame, 0);
        // A tap of the one that has been replaced yields nothing; its end takes it along.
        let count = world.tapped.iter().filter(|(_, of, _)| *of == old).count();
        tap(&mut world, first, true);
        world.close(first);
        world.run(s(1));
        assert_eq!(world.tapped.iter().filter(|(_, of, _)| *of == old).count(), count);
        assert!(!is_tapped(&world, first) && is_tapped(&world, second));
        let (at, ..) = world.tapped.last().expect("packets");
        assert!(*at + ms(50) > world.now, "the successor's goes on");
        assert_eq!(world.client(viewer).viewer().video.gaps(), 0);
    }
}

/// On a bad network the tap has what a viewer with a good one has, whenever it is opened.
#[test]
fn repaired_packets_come_late_and_once() {
    let bad = Profile { reorder: 0.05, duplicate: 0.05, jitter: ms(5), ..NEAR.with_loss(Loss::Random(0.05)) };
    let mut world = World::new(1, 506);
    let publisher = world.publish(&Offering::publisher(), bad);
    let viewer = world.watch(&Offering::viewer(), NEAR);
    let (mut late, mut with_start) = (0, 0);
    for round in 0..20u64 {
        world.run(s(1));
        world.client_mut(publisher).publisher_mut().make_keyframe();
        world.run(ms(40 + 37 * round));
        let since = world.now;
        tap(&mut world, publisher, true);
        world.run(ms(1500));
        let until = world.now;
        tap(&mut world, publisher, false);
        world.run(s(1));
        let heard = Yield::of(&world, world.session(publisher), since, ms(400));
        let seqs = heard.seqs(VIDEO);
        late += seqs.windows(2).filter(|w| w[1] < w[0]).count();
        with_start += usize::from(heard.packets[0].0 == since);
        let key = heard.stamps(VIDEO).into_iter().find(|s| s.keyframe).expect("a keyframe").frame;
        let of = |stamps: &mut dyn Iterator<Item = Stamp>| -> BTreeSet<(u32, u16)> {
            stamps.filter(|s| s.frame >= key).map(|s| (s.frame, s.index)).collect()
        };
        let tapped = of(&mut heard.stamps(VIDEO).into_iter());
        let seen = world.client(viewer).viewer().video.packets.values().filter(|a| a.at <= until + ms(20));
        let missing: Vec<_> = of(&mut seen.map(|a| a.stamp)).difference(&tapped).copied().collect();
        assert!(missing.is_empty(), "round {round}: the viewer has {missing:?} as well");
    }
    assert!(late > 20, "{late} packets came late");
    assert!(with_start >= 15, "{with_start} of 20 began with what was kept");
}

/// Layers have numbers and RTP times of their own; each change begins with a keyframe and the clock of its layer.
#[test]
fn a_change_of_layer_brings_its_clock_along() {
    let mut world = World::new(1, 507);
    let offering = Offering { layers: vec!["q", "h", "f"], ..Offering::publisher() }.with_video(&[VideoFormat::VP8]);
    let publisher = world.publish(&offering, NEAR);
    let sizes = [150, 400, 1000];
    for source in &mut world.client_mut(publisher).publisher_mut().sources {
        if source.rid.is_some() {
            source.look.packet_bytes = sizes[usize::from(source.layer)];
            source.rtp_base = 1_000_000 * u32::from(source.layer);
            source.next_seq = 10_000 * u64::from(source.layer);
        }
    }
    let since = world.now;
    tap(&mut world, publisher, true);
    for muted in [false, true, false] {
        let sources = &mut world.client_mut(publisher).publisher_mut().sources;
        sources.iter_mut().filter(|s| s.layer == 2 && s.rid.is_some()).for_each(|s| s.muted = muted);
        world.run(s(5));
    }
    let heard = Yield::of(&world, world.session(publisher), since, ms(60));
    let (mut sizes, mut before) = (Vec::new(), None);
    for (_, packet) in heard.packets.iter().filter(|(_, p)| p.track == VIDEO) {
        if before.replace(packet.layer) != Some(packet.layer) {
            assert!(packet.opens_keyframe, "{packet:?}");
            sizes.push(packet.payload.len());
        }
    }
    assert!(sizes.ends_with(&[1000, 400, 1000]), "{sizes:?}");
}
