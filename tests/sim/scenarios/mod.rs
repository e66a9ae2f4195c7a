//! What is tested.

mod addresses;
mod budget;
mod feeds;
mod formats;
mod joins;
mod lifecycle;
mod loss;
mod memory;
mod republish;
mod shards;
mod simulcast;
mod sync;
mod tap;
mod to_frames;
mod wrap;

use std::time::Duration;

use crate::net::Profile;

/// 20 ms each way, nothing lost.
const NEAR: Profile = Profile::clean(ms(20));
/// 200 ms of round trip.
const FAR: Profile = Profile::clean(ms(100));

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
