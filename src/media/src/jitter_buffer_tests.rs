use super::*;
use crate::testing::Random;

const MS: Duration = Duration::from_millis(1);
const AT_ONCE: JitterBufferOptions =
    JitterBufferOptions { patience: Patience::fixed(Duration::from_millis(200)), settle: Duration::ZERO };
const SETTLING: JitterBufferOptions = JitterBufferOptions { settle: Duration::from_millis(30), ..AT_ONCE };

/// When in milliseconds, which packet, what comes out, when the wait ends.
type Step<'a> = (u32, Option<u64>, &'a [i64], Option<u32>);

fn packet(seq: u64, arrival: Instant) -> JitterPacket {
    JitterPacket {
        seq,
        timestamp: seq as u32,
        marker: false,
        opens: false,
        arrival,
        payload: [seq as u8; 10][..].into(),
    }
}

/// What has come out: sequence numbers, and negative numbers of lost packets.
fn drain(buffer: &mut JitterBuffer, now: Instant) -> Vec<i64> {
    let value = |output| match output {
        JitterOutput::Packet(packet) => packet.seq as i64,
        JitterOutput::Lost { count } => -(count as i64),
    };
    std::iter::from_fn(|| buffer.poll(now)).map(value).collect()
}

#[test]
fn order_is_made_and_waits_end() {
    let start = Instant::now();
    let at = |ms: u32| start + MS * ms;
    let mut buffer = JitterBuffer::new(SETTLING);
    let steps: [Step<'_>; 17] = [
        // The first ones change places.
        (0, Some(101), &[], Some(30)),
        (10, Some(100), &[], Some(30)),
        (30, None, &[100, 101], None),
        // Reordered.
        (32, Some(103), &[], Some(232)),
        (33, Some(102), &[102, 103], None),
        // Twice, and late.
        (34, Some(103), &[], None),
        (35, Some(90), &[], None),
        // One is missing and comes in time.
        (40, Some(105), &[], Some(240)),
        (60, Some(106), &[], Some(240)),
        (239, Some(104), &[104, 105, 106], None),
        // Two gaps: the second one's wait begins with its own successor.
        (300, Some(108), &[], Some(500)),
        (400, Some(110), &[], Some(500)),
        (499, None, &[], Some(500)),
        (500, None, &[-1, 108], Some(600)),
        (600, None, &[-1, 110], None),
        // Too late.
        (601, Some(107), &[], None),
        (602, Some(111), &[111], None),
    ];
    for (ms, seq, expected, timeout) in steps {
        if let Some(seq) = seq {
            buffer.push(packet(seq, at(ms)));
        }
        assert_eq!(drain(&mut buffer, at(ms)), expected, "at {ms} ms");
        assert_eq!(buffer.poll_timeout(), timeout.map(at), "at {ms} ms");
    }
    assert_eq!(buffer.late(), 3);
}

#[test]
fn a_missing_packet_that_comes_uncovers_the_wait_of_the_next_one() {
    let start = Instant::now();
    let mut buffer = JitterBuffer::new(AT_ONCE);
    for (ms, seq) in [(0, 1), (10, 3), (150, 5), (160, 2)] {
        buffer.push(packet(seq, start + MS * ms));
    }
    assert_eq!(drain(&mut buffer, start + MS * 160), [1, 2, 3]);
    assert_eq!(buffer.poll_timeout(), Some(start + MS * 350));
    assert_eq!(drain(&mut buffer, start + MS * 350), [-1, 5]);
}

#[test]
fn a_new_count_is_taken_up() {
    let now = Instant::now();
    let mut buffer = JitterBuffer::new(AT_ONCE);
    for (seqs, expected) in [([10_000, 10_001, 10_003], vec![10_000, 10_001]), ([5, 6, 5], vec![0, 5, 6])] {
        seqs.iter().for_each(|seq| buffer.push(packet(*seq, now)));
        assert_eq!(drain(&mut buffer, now), expected);
    }
    buffer.push(packet(u64::MAX, now));
    buffer.push(packet(u64::MAX - 1, now));
    assert_eq!(drain(&mut buffer, now + MS * 200).len(), 3);
    buffer.push(packet(u64::MAX, now));
    let _ = drain(&mut buffer, now + MS * 400);
}

#[test]
fn what_waits_is_bounded() {
    let now = Instant::now();
    let mut buffer =
        JitterBuffer::new(JitterBufferOptions { patience: Patience::fixed(Duration::from_secs(3600)), ..AT_ONCE });
    let mut out = 0;
    buffer.push(packet(0, now));
    for seq in 2..10_000 {
        buffer.push(packet(seq, now));
        out += drain(&mut buffer, now).len();
        assert!(buffer.waiting.len() <= MAX_PACKETS + 1);
    }
    assert!(out > 7000, "{out}");
    for seq in 10_001..10_100 {
        buffer.push(JitterPacket { payload: vec![0; 1 << 20].into(), ..packet(seq, now) });
        drain(&mut buffer, now);
        assert!(buffer.bytes <= MAX_BYTES + (1 << 20));
    }
}

#[test]
fn whatever_happens_order_and_count_hold() {
    let mut random = Random::new(3);
    for round in 0..200 {
        let start = Instant::now();
        let mut buffer = JitterBuffer::new(SETTLING);
        let mut packets = Vec::new();
        for seq in 1..300 {
            if random.below(100) >= round % 20 {
                packets.push((seq * 5 + random.below(round) as u64, seq + 7));
            }
        }
        packets.sort_by_key(|(ms, _)| *ms);
        let (mut next, mut out) = (None, Vec::new());
        for (ms, seq) in &packets {
            let now = start + MS * *ms as u32;
            buffer.push(packet(*seq, now));
            out.extend(drain(&mut buffer, now));
        }
        out.extend(drain(&mut buffer, start + MS * 10_000));
        for value in out {
            let expected = next.unwrap_or(value);
            next = Some(if value < 0 { expected - value } else { value + 1 });
            assert!(value <= 0 || value == expected, "round {round}: {value}, not {expected}");
        }
        let last = packets.iter().map(|(_, seq)| *seq as i64).max().unwrap();
        assert_eq!((next, buffer.poll_timeout()), (Some(last + 1), None));
    }
}

/// A packet of a picture of three: time is that of the picture, the last one has the marker.
fn piece(seq: u64, opens: bool, arrival: Instant) -> JitterPacket {
    JitterPacket { timestamp: (seq / 3) as u32, marker: seq % 3 == 2, opens, ..packet(seq, arrival) }
}

/// Which packet, and whether it opens a keyframe.
type Arrived = (u64, bool);

#[test]
fn who_needs_a_keyframe_goes_on_with_one() {
    let now = Instant::now();
    // What waits behind 9 (openings are marked), what comes out after the skip.
    let cases: [(&[Arrived], &[i64]); 8] = [
        // No keyframe: the wait goes on.
        (&[(11, false), (12, false)], &[]),
        // One that is whole, behind two holes.
        (&[(11, false), (14, false), (15, true), (16, false), (17, false), (18, false)], &[-3, 15, 16, 17, 18]),
        // Its first packets are missing, perhaps: what is right before it is waited for.
        (&[(11, false), (16, true), (17, false)], &[-1]),
        (&[(16, true), (17, false)], &[]),
        // A keyframe with a hole: it is waited for, unless the next one is whole.
        (&[(11, false), (12, true), (14, false)], &[-1, 12]),
        (&[(11, false), (12, true), (14, false), (18, true), (19, false), (20, false)], &[-1, 12]),
        (&[(11, false), (12, true), (14, false), (17, false), (18, true), (19, false), (20, false)], &[-4, 18, 19, 20]),
        // The marker is not needed where the next picture has begun.
        (&[(11, false), (12, true), (13, false), (14, false), (15, false)], &[-1, 12, 13, 14, 15]),
    ];
    for (waiting, expected) in cases {
        let mut buffer = JitterBuffer::new(AT_ONCE);
        buffer.push(piece(9, false, now));
        assert_eq!(drain(&mut buffer, now), [9]);
        waiting.iter().for_each(|(seq, opens)| buffer.push(piece(*seq, *opens, now)));
        assert_eq!(buffer.holds_opening(), waiting.iter().any(|(_, opens)| *opens));
        buffer.skip_to_opening();
        assert_eq!(drain(&mut buffer, now), expected, "{waiting:?}");
        // All of it comes out in the end, and nothing is counted twice.
        drain(&mut buffer, now + MS * 5000);
        assert_eq!((buffer.bytes, buffer.poll_timeout()), (0, None), "{waiting:?}");
    }
}

#[test]
fn the_wait_is_as_long_as_repairs_take() {
    let start = Instant::now();
    let mut buffer = JitterBuffer::new(JitterBufferOptions::for_pictures());
    let mut seq = 0;
    let mut now = start;
    // A gap of one packet each; it is filled after so many milliseconds, given up (and then filled) after the wait.
    for (repaired_after, expected) in [(40, 300), (40, 160), (250, 160), (130, 500), (400, 500)] {
        buffer.push(packet(seq, now));
        drain(&mut buffer, now + MS * 30);
        buffer.push(packet(seq + 2, now));
        let wait = buffer.poll_timeout().map(|at| at - now);
        assert_eq!(wait, Some(MS * expected), "before {repaired_after}");
        now += MS * repaired_after;
        drain(&mut buffer, now);
        buffer.push(packet(seq + 1, now));
        drain(&mut buffer, now);
        seq += 3;
    }
    assert_eq!(buffer.late(), 1);
}
