//! Forwarding allocates nothing.

use super::*;
use crate::peer::Offering;
use crate::world::{Allocations, World};

#[test]
fn forwarding_to_200_viewers_allocates_nothing() {
    let mut world = World::new(1, 71);
    world.publish(&Offering::publisher(), NEAR);
    for _ in 0..200 {
        world.join(&Offering::viewer(), NEAR);
    }
    world.run(s(5));
    let count = |w: &World| {
        [
            w.total(|s| s.forwarded_packets.value()),
            w.total(|s| s.published_packets.value()),
            w.total(|s| s.recv_packets.value()),
        ]
    };
    let before = count(&world);
    world.allocations = Some(Allocations::default());
    world.run(s(3));
    let after = count(&world);
    let [forwarded, published, received] = [0, 1, 2].map(|i| after[i] - before[i]);
    let a = world.allocations.expect("it was counted");
    eprintln!(
        "{published} packets in, {forwarded} out in {} batches: {} allocations in poll_transmit; taking in {received} \
         datagrams, feedback of viewers included, {:.1} each (str0m's)",
        a.batches,
        a.in_transmit,
        a.in_input as f64 / received as f64,
    );
    assert!(forwarded >= 200 * 3 * 100);
    assert_eq!(a.in_transmit, 0, "allocations while {forwarded} packets were forwarded");
}

/// Across shards one allocation carries a batch, however many viewers it has.
#[test]
fn relaying_allocates_per_batch_and_not_per_viewer() {
    let mut world = World::new(2, 72);
    world.publish(&Offering::publisher(), NEAR);
    for _ in 0..200 {
        world.join(&Offering::viewer(), NEAR);
    }
    world.run(s(5));
    let before = (world.total(|s| s.forwarded_packets.value()), world.relayed[1]);
    world.allocations = Some(Allocations::default());
    world.run(s(3));
    let (forwarded, messages) = (world.total(|s| s.forwarded_packets.value()) - before.0, world.relayed[1] - before.1);
    let a = world.allocations.expect("it was counted");
    eprintln!("{forwarded} packets out, {messages} relay messages, {} allocations", a.in_transmit);
    assert!(messages > 200);
    assert!(a.in_transmit <= messages, "{} allocations for {messages} messages", a.in_transmit);
}
