//! The SFU with real peers in virtual time: str0m clients with full ICE publish and watch through one or several
//! shards over a simulated network that is bad in a repeatable way.
//!
//! Nothing here sleeps or opens a socket. `world` runs the earliest event first; the scenarios are the modules below
//! it. The seeds fix what the network does; keys and SSRCs of the clients are random in every run.

#![deny(unsafe_code)]

mod allocations;
mod client;
mod feeder;
mod media;
mod net;
mod peer;
mod publisher;
mod viewer;
mod world;

mod scenarios;
