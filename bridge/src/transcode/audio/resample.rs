//! Any sample rate to 48 kHz, a hair faster or slower on demand.
//!
//! A polyphase windowed sinc of linear phase. Written here rather than taken from a crate for three properties that
//! belong together: its position is known to a fraction of a sample at any time (so that time stamps can follow from
//! sample counts), the ratio may be bent from one sample to the next without a seam (clock drift), and 48 kHz that
//! needs no bending passes through bit-exactly at no cost.

use std::f64::consts::PI;

/// The rate of everything that goes out (RFC 7587 §4.1).
pub(super) const OUT_HZ: u32 = 48_000;

/// Rates that are taken: what AAC and MP3 can name. Below, a frame would blow up to too many samples.
pub(super) const IN_HZ: std::ops::RangeInclusive<u32> = 7_350..=96_000;

/// Half the filter's length in samples of the slower side. 24 gives 80 dB of suppression with a band edge of 2 kHz.
const HALF_TAPS: usize = 24;
/// Kaiser window parameter for about 80 dB.
const KAISER_BETA: f64 = 8.0;
/// Where the filter's slope is centred, as a share of the slower side's Nyquist frequency.
const CUTOFF: f64 = 0.945;
/// Fewer phases than this, and interpolating between two of them would be heard.
const MIN_PHASES: usize = 160;
/// One input sample in the fixed-point positions: a multiple of the rate of the output, so that the step of every rate
/// is exact and the positions never leave the filter's phases by rounding.
const ONE: i64 = (OUT_HZ as i64) << 20;

/// Stereo, planar, one stream.
pub(super) struct Resampler {
    in_hz: u32,
    half: usize,
    phases: usize,
    /// `phases + 1` rows of `2 * half` coefficients each.
    table: Vec<f32>,
    left: Vec<f32>,
    right: Vec<f32>,
    /// The next output sample's place: whole input samples after the one that the filter is centred on when it lies
    /// over the buffers' start,
    base: usize,
    /// and a part of one.
    fraction: i64,
    nominal_step: i64,
    step: i64,
    /// The bending has ended, but the position is not yet back on a whole sample (only when the rates are equal).
    is_settling: bool,
}

impl Resampler {
    /// From `in_hz`, which must lie in [`IN_HZ`].
    pub(super) fn new(in_hz: u32) -> Resampler {
        let in_hz = in_hz.clamp(*IN_HZ.start(), *IN_HZ.end());
        let half = if in_hz > OUT_HZ { (HALF_TAPS * in_hz as usize).div_ceil(OUT_HZ as usize) } else { HALF_TAPS };
        let own_phases = OUT_HZ as usize / gcd(in_hz as usize, OUT_HZ as usize);
        let phases = own_phases * MIN_PHASES.div_ceil(own_phases);
        // At equal rates the filter at a whole position must be the identity.
        let cutoff = if in_hz == OUT_HZ { 1.0 } else { CUTOFF * f64::from(OUT_HZ.min(in_hz)) / f64::from(in_hz) };
        let nominal_step = i64::from(in_hz) << 20;
        let mut resampler = Resampler {
            in_hz,
            half,
            phases,
            table: design(half, phases, cutoff),
            left: Vec::new(),
            right: Vec::new(),
            base: 0,
            fraction: 0,
            nominal_step,
            step: nominal_step,
            is_settling: false,
        };
        resampler.restart();
        resampler
    }

    pub(super) fn in_hz(&self) -> u32 {
        self.in_hz
    }

    /// Forgets what was put in; the next output sample sits on the next input sample.
    fn restart(&mut self) {
        for side in [&mut self.left, &mut self.right] {
            side.clear();
            side.resize(self.half - 1, 0.0);
        }
        self.base = 0;
        self.fraction = 0;
        self.step = self.nominal_step;
        self.is_settling = false;
    }

    /// How many output samples the input that waits here stands for.
    pub(super) fn pending(&self) -> f64 {
        let place = self.base as f64 + self.fraction as f64 / ONE as f64;
        let waiting = (self.left.len() + 1 - self.half) as f64 - place;
        waiting * ONE as f64 / self.nominal_step as f64
    }

    /// Makes `by` more output than the rates ask for: 0.001 is one sample in a thousand more, 0 ends it.
    pub(super) fn bend(&mut self, by: f64) {
        let step = (self.nominal_step as f64 / (1.0 + by.clamp(-0.01, 0.01))) as i64;
        let is_off_grid = self.nominal_step == ONE && self.fraction != 0;
        if by == 0.0 && is_off_grid && self.step != self.nominal_step {
            self.is_settling = true;
        } else {
            self.is_settling = false;
            self.step = step;
        }
    }

    /// Puts input in (both sides of one length) and appends what comes out.
    pub(super) fn process(&mut self, left: &[f32], right: &[f32], out: &mut [Vec<f32>; 2]) {
        self.left.extend_from_slice(left);
        self.right.extend_from_slice(right);
        let taps = 2 * self.half;
        while self.base + taps <= self.left.len() {
            let (l, r) = if self.fraction == 0 && self.nominal_step == ONE {
                (self.left[self.base + self.half - 1], self.right[self.base + self.half - 1])
            } else {
                self.filter()
            };
            out[0].push(l);
            out[1].push(r);
            self.advance();
        }
        let used = self.base.min(self.left.len());
        self.left.drain(..used);
        self.right.drain(..used);
        self.base -= used;
    }

    /// Brings out what waits here, with silence behind it, and starts anew.
    pub(super) fn finish(&mut self, out: &mut [Vec<f32>; 2]) {
        let due = self.pending().round().max(0.0) as usize;
        let before = out[0].len();
        let silence = vec![0.0; self.half + 1];
        self.process(&silence, &silence, out);
        for side in out {
            side.truncate(before + due);
        }
        self.restart();
    }

    fn advance(&mut self) {
        self.fraction += self.step;
        while self.fraction >= ONE {
            self.fraction -= ONE;
            self.base += 1;
        }
        if self.is_settling {
            self.settle();
        }
    }

    /// Ends a bend where a step comes nearest to a whole sample: what is left out or doubled is under 1 % of one.
    fn settle(&mut self) {
        let near = (self.step - ONE).abs();
        if self.fraction <= near {
            self.fraction = 0;
        } else if ONE - self.fraction <= near {
            self.fraction = 0;
            self.base += 1;
        } else {
            return;
        }
        self.step = self.nominal_step;
        self.is_settling = false;
    }

    fn filter(&self) -> (f32, f32) {
        let taps = 2 * self.half;
        let scaled = self.fraction * self.phases as i64;
        let row = (scaled / ONE) as usize;
        let between = (scaled % ONE) as f32 / ONE as f32;
        let (left, right) = (&self.left[self.base..self.base + taps], &self.right[self.base..self.base + taps]);
        let here = &self.table[row * taps..(row + 1) * taps];
        let (l, r) = dots(here, left, right);
        // Always, unless a bend has led away from the rates' own grid.
        if between == 0.0 {
            return (l, r);
        }
        let (next_l, next_r) = dots(&self.table[(row + 1) * taps..(row + 2) * taps], left, right);
        (l + between * (next_l - l), r + between * (next_r - r))
    }
}

/// Both sides through one row. In lanes, since the compiler may not reorder the addition of floats.
fn dots(row: &[f32], left: &[f32], right: &[f32]) -> (f32, f32) {
    const LANES: usize = 4;
    let (rows, row_rest) = row.as_chunks::<LANES>();
    let (lefts, left_rest) = left.as_chunks::<LANES>();
    let (rights, right_rest) = right.as_chunks::<LANES>();
    let (mut l, mut r) = ([0.0f32; LANES], [0.0f32; LANES]);
    for ((c, x), y) in rows.iter().zip(lefts).zip(rights) {
        for lane in 0..LANES {
            l[lane] += c[lane] * x[lane];
            r[lane] += c[lane] * y[lane];
        }
    }
    let rest = |side: &[f32]| row_rest.iter().zip(side).map(|(c, x)| c * x).sum::<f32>();
    (l.iter().sum::<f32>() + rest(left_rest), r.iter().sum::<f32>() + rest(right_rest))
}

/// The rows of the filter: row `p` is centred `p / phases` of a sample after tap `half - 1`.
fn design(half: usize, phases: usize, cutoff: f64) -> Vec<f32> {
    let taps = 2 * half;
    let mut table = Vec::with_capacity((phases + 1) * taps);
    for phase in 0..=phases {
        let offset = phase as f64 / phases as f64;
        let row = (0..taps).map(|tap| {
            let x = tap as f64 - (half as f64 - 1.0) - offset;
            let sinc = if x == 0.0 { cutoff } else { (PI * x * cutoff).sin() / (PI * x) };
            let inside = (1.0 - (x / half as f64).powi(2)).max(0.0);
            sinc * bessel_i0(KAISER_BETA * inside.sqrt()) / bessel_i0(KAISER_BETA)
        });
        let row: Vec<f64> = row.collect();
        // Every phase passes a constant unchanged, else the phases' differences would be heard as a tone.
        let sum: f64 = row.iter().sum();
        table.extend(row.iter().map(|c| (c / sum) as f32));
    }
    table
}

/// The modified Bessel function of order zero, by its power series.
fn bessel_i0(x: f64) -> f64 {
    let mut sum = 1.0;
    let mut term = 1.0;
    for k in 1..40 {
        term *= (x / (2.0 * f64::from(k))).powi(2);
        sum += term;
    }
    sum
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(hz: f64, rate: u32, samples: usize) -> Vec<f32> {
        (0..samples).map(|i| (2.0 * PI * hz * i as f64 / f64::from(rate)).sin() as f32).collect()
    }

    /// The error against the ideal tone at 48 kHz, in dB below it, in the middle of the output.
    fn error_db(out: &[f32], hz: f64) -> f64 {
        let ideal = tone(hz, OUT_HZ, out.len());
        let middle = out.len() / 4..out.len() * 3 / 4;
        let power: f64 =
            out[middle.clone()].iter().zip(&ideal[middle.clone()]).map(|(a, b)| f64::from(a - b).powi(2)).sum();
        10.0 * (power / (middle.len() as f64 / 2.0)).log10()
    }

    #[test]
    fn tones_come_out_clean_and_in_place() {
        for rate in
            [7_350, 8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 64_000, 88_200, 96_000]
        {
            for hz in [100.0, 1000.0, 0.35 * f64::from(rate.min(OUT_HZ))] {
                let input = tone(hz, rate, rate as usize);
                let mut resampler = Resampler::new(rate);
                let mut out: [Vec<f32>; 2] = Default::default();
                for chunk in input.chunks(1024) {
                    resampler.process(chunk, chunk, &mut out);
                    let made = out[0].len() as f64 + resampler.pending();
                    let put = (chunk.as_ptr() as usize - input.as_ptr() as usize) / 4 + chunk.len();
                    assert!((made - put as f64 * f64::from(OUT_HZ) / f64::from(rate)).abs() < 0.01, "{rate}");
                }
                resampler.finish(&mut out);
                assert!(out[0].len().abs_diff(OUT_HZ as usize) <= 1, "{rate}: {}", out[0].len());
                assert!(error_db(&out[0], hz) < -66.0, "{rate} Hz, tone {hz}: {} dB", error_db(&out[0], hz));
                assert_eq!(out[0], out[1]);
            }
        }
    }

    #[test]
    fn equal_rates_pass_bit_exactly_also_after_a_bend() {
        let input = tone(440.0, OUT_HZ, 48_000);
        let mut resampler = Resampler::new(OUT_HZ);
        let mut out: [Vec<f32>; 2] = Default::default();
        for (bend, from) in [(0.0, 0), (0.003, 8_000), (0.0, 16_000), (-0.001, 24_000), (0.0, 32_000)] {
            resampler.bend(bend);
            resampler.process(&input[from..from + 8_000], &input[from..from + 8_000], &mut out);
        }
        assert_eq!(out[0][..7_900], input[..7_900]);
        let made = out[0].len() as i64 - (40_000 - HALF_TAPS as i64);
        assert!((14..=18).contains(&made), "{made} samples more");
        // Whole samples again, shifted by what was made.
        let end = out[0].len();
        let same = end - made as usize;
        assert_eq!(out[0][end - 100..], input[same - 100..same]);
        let roughest = out[0].windows(3).map(|w| (w[0] - 2.0 * w[1] + w[2]).abs()).fold(0.0, f32::max);
        assert!(roughest < 0.0045, "{roughest}");
    }
}
