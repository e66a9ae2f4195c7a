//! Checks of `[signaling]`.

use super::Findings;
use crate::config::raw::RawSignaling;
use crate::signaling::SignalingSettings;

/// [`None`] when it is off.
pub(super) fn check(f: &mut Findings<'_>, raw: &RawSignaling) -> Option<SignalingSettings> {
    let lobby = freshet_signaling::Settings {
        max_rooms: f.number("signaling", "max_rooms", raw.max_rooms, 1..=1_000_000) as usize,
        // Every notice lists everybody to everybody, so that the work grows with the square.
        max_people: f.number("signaling", "max_people", raw.max_people, 2..=64) as usize,
        tokens: f.tokens("signaling", &raw.tokens),
    };
    let max_sockets = f.number("signaling", "max_sockets", raw.max_sockets, 1..=1_000_000) as usize;
    let of_ip = f.number("signaling", "max_sockets_per_ip", raw.max_sockets_per_ip, 1..=1_000_000) as usize;
    raw.enabled.then_some(SignalingSettings { lobby, max_sockets, max_sockets_per_ip: of_ip })
}
