//! A publisher's packets through the crossing to frames: track, sequence number and time each move by a byte's worth, so
//! that holes, late packets, new counts and sender reports are met.
#![no_main]

use std::time::{Duration, Instant};

use freshet_bridge::crossing::{FromRtpOptions, RtpIn, RtpToFrames, RtpTrack, SoundOut};
use freshet_media::{Codec, MediaKind, MediaTime};
use libfuzzer_sys::fuzz_target;

/// So that an input of nothing but short packets does not take seconds.
const MAX_PACKETS: usize = 64;

fuzz_target!(|data: &[u8]| {
    let Some((pick, mut rest)) = data.split_first() else { return };
    let video = [Codec::H264, Codec::H265, Codec::Av1, Codec::Vp8][usize::from(*pick) % 4];
    let audio = if pick & 0x80 != 0 { Codec::Red } else { Codec::Opus };
    let tracks = [RtpTrack { codec: audio, clock_hz: 48_000 }, RtpTrack { codec: video, clock_hz: 90_000 }];
    // Codecs make a thousand times fewer runs a second; most inputs do without.
    let sound = if pick & 0x70 == 0 { SoundOut::default() } else { SoundOut::Opus };
    let mut crossing = RtpToFrames::new(&tracks, FromRtpOptions { sound, ..FromRtpOptions::default() });
    let (mut now, mut seqs, mut timestamps) = (Instant::now(), [1u64 << 20; 2], [0u32; 2]);
    let mut latest = [MediaTime::from_micros(i64::MIN); 2];
    for _ in 0..MAX_PACKETS {
        let Some(([flags, seq, time, length], tail)) = rest.split_first_chunk::<4>() else { break };
        let (payload, tail) = tail.split_at(usize::from(*length).min(tail.len()));
        rest = tail;
        let track = usize::from(flags & 1);
        seqs[track] = seqs[track].wrapping_add_signed(i64::from(seq.cast_signed())).wrapping_add(1);
        let step = [960, 3000, 1 << 24, 1 << 31][usize::from(flags >> 1 & 3)];
        timestamps[track] = timestamps[track].wrapping_add(u32::from(*time).wrapping_mul(step));
        now += Duration::from_millis([0, 20, 250, 7_000][usize::from(flags >> 3 & 3)]);
        if flags & 0x40 != 0 {
            crossing.set_clock(track, timestamps[track], i64::from(*seq) << (*time % 56));
        }
        crossing.push(now, RtpIn {
            track,
            seq: seqs[track],
            timestamp: timestamps[track],
            marker: flags & 0x20 != 0,
            arrival: now,
            payload: payload.into(),
        });
        let _ = crossing.wants_keyframe();
        if flags & 0x80 != 0 {
            crossing.handle_timeout(now);
            assert!(crossing.poll_timeout().is_none_or(|timeout| timeout > now));
        }
        if rest.is_empty() {
            crossing.finish();
        }
        while let Some(frame) = crossing.poll_frame() {
            let latest = &mut latest[usize::from(frame.kind() == MediaKind::Video)];
            assert!(frame.dts >= *latest, "{:?} after {latest:?}", frame.dts);
            *latest = frame.dts;
        }
    }
});
