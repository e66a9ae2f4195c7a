//! One stream's frames to many players.
