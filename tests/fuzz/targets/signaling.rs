//! Messages of several sockets to the lobby, with sockets that come and go and time that passes.
#![no_main]

use std::time::{Duration, Instant};

use freshet_signaling::{Departure, Lobby, Output, PeerId, Settings};
use libfuzzer_sys::fuzz_target;

const SOCKETS: usize = 5;
const MAX_PEOPLE: usize = 3;

/// Lines: the first byte says which socket and what happens, the rest is the message.
fuzz_target!(|data: &[u8]| {
    let settings = Settings { max_rooms: 2, max_people: MAX_PEOPLE, tokens: Vec::new() };
    let mut lobby = Lobby::new(settings, [1; 32]);
    let mut now = Instant::now();
    let mut sockets: [Option<PeerId>; SOCKETS] = [None; SOCKETS];
    for line in data.split(|byte| *byte == b'\n') {
        let Some((first, rest)) = line.split_first() else { continue };
        let socket = usize::from(*first) % SOCKETS;
        let id = *sockets[socket].get_or_insert_with(|| lobby.connect(now, None));
        match usize::from(*first) / SOCKETS % 8 {
            0 => lobby.disconnect(now, id, Departure::Closed),
            1 => lobby.disconnect(now, id, Departure::Lost),
            2 => {
                now += Duration::from_millis(rest.len() as u64 * 100);
                lobby.handle_timeout(now);
                assert!(lobby.poll_timeout().is_none_or(|due| due > now), "a timer that does not move");
            }
            _ => lobby.receive(now, id, &String::from_utf8_lossy(rest)),
        }
        if usize::from(*first) / SOCKETS % 8 < 2 {
            sockets[socket] = None;
        }
        let mut sent = 0;
        while let Some(output) = lobby.poll_output() {
            match output {
                Output::Send { peer, text } => {
                    assert!(sockets.contains(&Some(peer)), "a socket that is gone is sent {text}");
                    sent += 1;
                }
                Output::Close { peer, .. } => {
                    for socket in sockets.iter_mut().filter(|socket| **socket == Some(peer)) {
                        *socket = None;
                    }
                }
                Output::Ping { .. } | Output::Ended { .. } => {}
            }
        }
        // An answer; or, where all six people go at once, an away and a leave of each to two others.
        assert!(sent <= 32, "{sent} messages for one");
        let rooms = lobby.rooms(now);
        assert!(rooms.len() <= 2);
        assert!(rooms.iter().all(|room| (1..=MAX_PEOPLE).contains(&room.people.len())));
    }
});
