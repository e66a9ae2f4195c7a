//! A shard with a connected publisher, a connected viewer and a session that waits, under arbitrary datagrams.
//!
//! The input is a list of steps: a kind, a length, that many bytes. The world is kept from input to input, because
//! handshakes cost milliseconds, and made anew when a session has ended or after [`MAX_INPUTS`].
#![no_main]

mod world;

use std::cell::RefCell;
use std::time::Duration;

use freshet_sfu::Protocol;
use libfuzzer_sys::fuzz_target;

use world::{PUBLISHER, STRANGER, VIEWER, World};

const MAX_INPUTS: u32 = 2000;
const MAX_STEPS: usize = 24;

thread_local! {
    static WORLD: RefCell<Option<(World, u32)>> = const { RefCell::new(None) };
}

fuzz_target!(|data: &[u8]| {
    WORLD.with_borrow_mut(|kept| {
        let (mut world, used) = kept.take().unwrap_or_else(|| (World::connected(), 0));
        steps(&mut world, data);
        *kept = (!world.ended() && used < MAX_INPUTS).then_some((world, used + 1));
    });
});

fn steps(world: &mut World, mut data: &[u8]) {
    for _ in 0..MAX_STEPS {
        let [kind, length, rest @ ..] = data else { return };
        let (bytes, rest) = rest.split_at(usize::from(*length).min(rest.len()));
        data = rest;
        let detail = kind >> 4;
        let protocol = if detail & 1 == 0 { Protocol::Udp } else { Protocol::Tcp };
        match kind & 0x0f {
            0 | 1 => drop(world.forged(VIEWER, protocol, bytes)),
            2 | 3 => drop(world.forged(PUBLISHER, protocol, bytes)),
            4 => {
                let answers = world.forged(STRANGER, protocol, bytes);
                assert_eq!(answers, 0, "a stranger was answered");
            }
            5 => world.check(detail & 3, STRANGER, bytes),
            6 => world.check(detail & 3, VIEWER, bytes),
            7 | 8 => world.publish(detail, bytes),
            9 => world.lose_to_viewer(*length),
            10 => world.replay(VIEWER, bytes),
            11 => world.replay(PUBLISHER, bytes),
            12 => world.request_keyframe(),
            _ => world.advance(Duration::from_millis(1 + u64::from(*length))),
        }
        assert!(world.sessions() <= 3);
        if world.ended() {
            return;
        }
    }
}
