//! Sequence numbers and timestamps wrap.

use super::*;
use crate::net::Loss;
use crate::peer::Offering;
use crate::world::World;

#[test]
fn numbers_wrap_more_than_twice_on_both_hops() {
    let mut world = World::new(1, 31);
    let here = Profile::clean(ms(5));
    let publisher = world.publish(&Offering::publisher().without_audio(), here);
    {
        let source = world.client_mut(publisher).publisher_mut().source_mut(true);
        source.next_seq = 65_500;
        (source.look.delta_packets, source.look.packet_bytes) = (24, 120);
    }
    let viewer = world.watch(&Offering::viewer(), here.with_loss(Loss::Random(0.0005)));
    world.run(s(230));
    world.client_mut(viewer).down.profile = here;
    world.run(s(1));
    let log = &world.client(viewer).viewer().video;
    log.assert_in_order();
    let sent = world.client(publisher).publisher().source(true).log.len();
    let (first, last) = (log.packets.first_key_value(), log.packets.last_key_value());
    let (first, last) = (*first.expect("packets").0, *last.expect("packets").0);
    assert!(last >> 16 >= 2 && last - first > 2 * 65_536, "from {first} to {last}");
    let whole = log.frames(publisher.0 as u16).len();
    eprintln!("{whole} of {sent} frames, numbers {first}..={last}, {} gaps", log.gaps());
    assert!(sent - whole < sent / 500, "{whole} of {sent}");
}

#[test]
fn a_timestamp_and_a_number_wrap_while_packets_are_lost() {
    for seed in 0..5 {
        let mut world = World::new(1, 32 + seed);
        let publisher = world.publish(&Offering::publisher(), FAR);
        for source in &mut world.client_mut(publisher).publisher_mut().sources {
            source.next_seq = 65_500;
            source.rtp_base = u32::MAX - 4 * source.look.shape.clock_hz();
        }
        let viewer = world.watch(&Offering::viewer(), FAR);
        let bad = FAR.with_loss(Loss::Random(0.03));
        for id in [publisher, viewer] {
            world.client_mut(id).up.profile = bad;
            world.client_mut(id).down.profile = bad;
        }
        world.run(s(10));
        for id in [publisher, viewer] {
            world.client_mut(id).up.profile = FAR;
            world.client_mut(id).down.profile = FAR;
        }
        world.run(s(3));
        let log = &world.client(viewer).viewer().video;
        log.assert_in_order();
        world.client(viewer).viewer().audio.assert_in_order();
        let source = world.client(publisher).publisher().source(true);
        assert!(source.next_seq > 65_536);
        let wrapped = log.packets.values().map(|a| a.timestamp).collect::<Vec<_>>();
        let frames = log.frames(publisher.0 as u16);
        let first = *frames.first_key_value().expect("frames").0;
        let missing = (first..first + 280).filter(|f| !frames.contains_key(f)).count();
        assert!(missing <= 2, "seed {seed}: {missing} frames missing of {}", wrapped.len());
    }
}
