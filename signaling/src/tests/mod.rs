//! The lobby as its sockets see it.

mod examples;
mod hostile;
mod model;
mod rules;
mod world;
