use super::*;

const A: MediaKind = MediaKind::Audio;
const V: MediaKind = MediaKind::Video;

/// xorshift64*: the same numbers in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % bound
    }
}

fn placed(timeline: &mut Timeline, steps: &[(MediaKind, u32)]) -> Vec<i64> {
    steps.iter().map(|(kind, dts_ms)| timeline.place(*kind, *dts_ms).millis()).collect()
}

/// What it is about, tags, their times.
type Case = (&'static str, Vec<(MediaKind, u32)>, Vec<i64>);

#[test]
fn tables() {
    let h = 3_600_000u32;
    #[rustfmt::skip]
    let cases: Vec<Case> = vec![
        ("starts near 0 from 3 h",
            vec![(A, 3 * h), (V, 3 * h + 10), (A, 3 * h + 23)], vec![0, 10, 23]),
        ("the second track may begin before the first",
            vec![(V, 1000), (A, 980), (A, 1003), (V, 1033)], vec![0, 0, 3, 33]),
        ("2^32 wraps",
            vec![(A, u32::MAX - 9), (V, u32::MAX), (A, 13), (V, 32)], vec![0, 9, 23, 42]),
        ("2^24 wraps as an ordinary jump",
            vec![(A, 0xff_fff0), (V, 0xff_fff5), (A, 0xff_fff0 + 10), (A, 4), (V, 9)], vec![0, 5, 10, 20, 25]),
        ("a small hole stays", vec![(V, 0), (V, 33), (V, 2033)], vec![0, 33, 2033]),
        ("a jump forwards is closed up", vec![(V, 0), (V, 40), (V, 90_000), (V, 90_040)], vec![0, 40, 80, 120]),
        ("a jump back is closed up", vec![(V, 90_000), (V, 90_040), (V, 0), (V, 40)], vec![0, 40, 80, 120]),
        ("a small step back stands still", vec![(A, 0), (A, 100), (A, 60), (A, 120)], vec![0, 100, 100, 120]),
        ("a step back of a second is a jump", vec![(V, 5000), (V, 5040), (V, 4000), (V, 4040)], vec![0, 40, 80, 120]),
        ("both jump: the offset between them stays",
            vec![(A, 0), (V, 5), (A, 20), (V, 45), (A, 700_040), (V, 700_085), (A, 700_060), (V, 700_125)],
            vec![0, 5, 20, 45, 40, 85, 60, 125]),
        ("the other one's late tags stay where they were",
            vec![(A, 0), (V, 0), (A, 20), (V, 40), (A, 700_040), (V, 80), (V, 120), (A, 700_060), (V, 700_160)],
            vec![0, 0, 20, 40, 40, 80, 120, 60, 160]),
        ("both step back by a second",
            vec![(A, 9000), (V, 9000), (A, 9020), (V, 9040), (A, 8020), (V, 8040), (A, 8040), (V, 8080)],
            vec![0, 0, 20, 40, 40, 60, 60, 100]),
        ("one track silent for a minute takes up its place",
            vec![(A, 0), (V, 0), (V, 2900), (V, 5800), (V, 8700), (A, 8720), (V, 8740)],
            vec![0, 0, 2900, 5800, 8700, 8720, 8740]),
        ("picture far ahead of sound waits for it after a jump of both",
            vec![(V, 0), (A, 0), (V, 200), (V, 400), (A, 20), (A, 700_020), (V, 700_020), (V, 700_420), (A, 700_420)],
            vec![0, 0, 200, 400, 20, 40, 400, 440, 440]),
        ("a track that was silent does not pull the other one back when both jump",
            vec![(A, 0), (V, 0), (V, 2900), (V, 5800), (V, 8700), (A, 900_000), (V, 900_010), (A, 900_023)],
            vec![0, 0, 2900, 5800, 8700, 8700, 8710, 8723]),
        ("one wild time and back",
            vec![(A, 0), (V, 0), (A, 20), (A, 4_000_000_000), (V, 40), (A, 60), (V, 80)],
            vec![0, 0, 20, 40, 40, 60, 80]),
        ("tracks with clocks of their own are level from the start",
            vec![(A, 5_000_000), (A, 5_000_020), (V, 0), (A, 5_000_040), (V, 40)], vec![0, 20, 20, 40, 60]),
    ];
    for (name, steps, expected) in cases {
        assert_eq!(placed(&mut Timeline::new(), &steps), expected, "{name}");
    }
}

#[test]
fn a_republish_goes_on() {
    let mut timeline = Timeline::new();
    timeline.begin_again(Duration::from_secs(5));
    assert_eq!(placed(&mut timeline, &[(A, 50_000), (V, 50_010), (V, 50_050)]), [0, 10, 50]);
    timeline.begin_again(Duration::from_millis(1500));
    assert_eq!(placed(&mut timeline, &[(V, 7), (A, 0), (A, 23), (V, 47)]), [1550, 1543, 1566, 1590]);
    // Without a gap there is a frame's distance at least.
    timeline.begin_again(Duration::ZERO);
    assert_eq!(placed(&mut timeline, &[(V, 100_000)]), [1630]);
    timeline.begin_again(Duration::MAX);
    let late = timeline.place(V, 0);
    assert_eq!(late.millis(), 1630 + MAX_GAP_MS);
    assert_eq!(timeline.latest(), late);
}

/// An encoder of 23 ms sound and 40 ms pictures that runs, jumps and wraps; its tags interleave at random.
struct Encoder {
    base_ms: i64,
    /// How far sound and picture are, in elapsed media time.
    elapsed_ms: [i64; 2],
    mask: u32,
}

impl Encoder {
    fn next_tag(&mut self, random: &mut Random) -> (MediaKind, u32, i64) {
        // Neither track is ahead by more than 300 ms.
        let lead = self.elapsed_ms[0] - self.elapsed_ms[1];
        let kind = match lead {
            300.. => 1,
            ..=-300 => 0,
            _ => random.below(2) as usize,
        };
        let at = self.elapsed_ms[kind];
        self.elapsed_ms[kind] += [23, 40][kind];
        ([A, V][kind], (self.base_ms + at) as u32 & self.mask, at)
    }
}

/// Five hours and more, over the wraps of 24 and 32 bits: with a 32-bit clock not a millisecond is lost; with a 24-bit
/// clock each wrap may cost or win some frames' distance, but the tracks stay together.
#[test]
fn hours_over_wraps_keep_time() {
    for (mask, base_ms) in [(u32::MAX, 0x1_0000_0000 - 9_000_000), (0x00ff_ffff, 3_600_000)] {
        let mut encoder = Encoder { base_ms, elapsed_ms: [0, 0], mask };
        let (mut timeline, mut random) = (Timeline::new(), Random(7));
        let mut lasts = [None::<i64>; 2];
        let mut errors = [0; 2];
        while encoder.elapsed_ms[1] < 6 * 3_600_000 {
            let (kind, dts_ms, true_ms) = encoder.next_tag(&mut random);
            let at = timeline.place(kind, dts_ms).millis();
            let last = lasts[kind as usize].replace(at);
            assert!(last.is_none_or(|last| at >= last && at - last < 700), "{last:?} {at}");
            errors[kind as usize] = at - true_ms;
        }
        if mask == u32::MAX {
            assert_eq!(errors, [0, 0]);
        } else {
            // Sound and picture err alike, and by less than a frame for the wrap.
            assert_eq!(errors[0], errors[1]);
            assert!(errors[0].abs() <= 23, "{errors:?}");
        }
    }
}

#[test]
fn random_jumps_never_run_back_nor_tear_sound_from_picture() {
    for seed in 1..200 {
        let mut random = Random(seed);
        let mut encoder = Encoder { base_ms: random.below(1 << 32) as i64, elapsed_ms: [0, 0], mask: u32::MAX };
        let mut timeline = Timeline::new();
        let mut lasts = [None::<i64>; 2];
        for _ in 0..30 {
            // Every jump is by more than what would be a hole.
            let jump = 10_000 + random.below(1 << 31) as i64;
            encoder.base_ms += if random.below(2) == 0 { jump } else { -jump };
            let mut errors = [0; 2];
            for n in 0..200 {
                let (kind, dts_ms, true_ms) = encoder.next_tag(&mut random);
                let at = timeline.place(kind, dts_ms).millis();
                let last = lasts[kind as usize].replace(at);
                assert!(last.is_none_or(|last| at >= last), "seed {seed}: {last:?} {at}");
                assert!(last.is_none_or(|last| at - last < 1000), "seed {seed}: a hole from {last:?} to {at}");
                if n > 100 {
                    errors[kind as usize] = at - true_ms;
                }
            }
            assert_eq!(errors[0], errors[1], "seed {seed}");
            if random.below(4) == 0 {
                timeline.begin_again(Duration::from_millis(random.below(500)));
            }
        }
    }
}

#[test]
fn anything_is_survived_in_order() {
    let mut random = Random(99);
    let mut timeline = Timeline::new();
    let mut lasts = [0; 2];
    for _ in 0..200_000 {
        let kind = [A, V][random.below(2) as usize];
        let shift = random.below(32);
        let at = timeline.place(kind, random.below(1 << 32) as u32 >> shift).millis();
        assert!(at >= lasts[kind as usize]);
        lasts[kind as usize] = at;
    }
    // Two hundred thousand jumps of at most three seconds each.
    assert!(lasts[0] < 200_000 * 3_100);
}
