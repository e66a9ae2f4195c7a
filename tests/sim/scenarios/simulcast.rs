//! Simulcast: the best arriving layer is forwarded.

use super::*;
use crate::peer::{Offering, VideoFormat};
use crate::world::World;

#[test]
fn the_best_arriving_layer_is_forwarded() {
    for (format, shards) in [(VideoFormat::H264, 1), (VideoFormat::VP8, 1), (VideoFormat::VP8, 3)] {
        let mut world = World::new(shards, 81);
        let offering = Offering { layers: vec!["q", "h", "f"], ..Offering::publisher() }.with_video(&[format]);
        let publisher = world.publish(&offering, NEAR);
        let sizes = [150, 400, 1000];
        for source in &mut world.client_mut(publisher).publisher_mut().sources {
            if source.rid.is_some() {
                source.look.packet_bytes = sizes[usize::from(source.layer)];
                source.rtp_base = 1_000_000 * u32::from(source.layer);
                source.next_seq = 10_000 * u64::from(source.layer);
            }
        }
        let viewer = world.watch(&Offering::viewer(), NEAR);
        let homes = [publisher, viewer].map(|id| world.shard_of(world.client(id).public));
        assert_eq!(homes[0] != homes[1], shards > 1);
        world.run(s(4));
        assert_eq!(layers(&world, viewer, ms(1000)), [2], "the largest of three");
        mute(&mut world, publisher, 2, true);
        world.run(s(5));
        assert_eq!(layers(&world, viewer, ms(1000)), [1], "the next one, when it stops");
        mute(&mut world, publisher, 1, true);
        world.run(s(5));
        assert_eq!(layers(&world, viewer, ms(1000)), [0]);
        mute(&mut world, publisher, 2, false);
        world.run(s(4));
        assert_eq!(layers(&world, viewer, ms(1000)), [2], "and back");
        let log = &world.client(viewer).viewer().video;
        log.assert_in_order();
        assert_eq!(log.gaps(), 0, "continuous numbers");
        let mut before = None;
        for arrival in log.packets.values() {
            if before != Some(arrival.stamp.layer) {
                assert!(arrival.stamp.keyframe && arrival.stamp.index == 0, "a layer begins with a keyframe");
            }
            before = Some(arrival.stamp.layer);
        }
    }
}

fn mute(world: &mut World, publisher: crate::client::ClientId, layer: u8, muted: bool) {
    let sources = &mut world.client_mut(publisher).publisher_mut().sources;
    sources.iter_mut().filter(|s| s.rid.is_some() && s.layer == layer).for_each(|s| s.muted = muted);
}

/// Layers that arrived lately.
fn layers(world: &World, viewer: crate::client::ClientId, lately: Duration) -> Vec<u8> {
    let since = world.now - lately;
    let packets = world.client(viewer).viewer().video.packets.values().filter(|a| a.at > since);
    let mut layers: Vec<u8> = packets.map(|a| a.stamp.layer).collect();
    layers.sort_unstable();
    layers.dedup();
    layers
}
