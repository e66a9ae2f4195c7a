//! Any channel layout to left and right.

use syom::Channel;

/// What a channel adds to left and to right. Rec. ITU-R BS.775-3 Table 2: centre and surrounds at −3 dB; the
/// low-frequency effects channel is left out, as every consumer decoder does.
fn gains(channel: Channel) -> (f32, f32) {
    const MINUS_3_DB: f32 = std::f32::consts::FRAC_1_SQRT_2;
    match channel {
        Channel::FrontLeft => (1.0, 0.0),
        Channel::FrontRight => (0.0, 1.0),
        Channel::FrontCenter => (MINUS_3_DB, MINUS_3_DB),
        Channel::BackLeft | Channel::SideLeft => (MINUS_3_DB, 0.0),
        Channel::BackRight | Channel::SideRight => (0.0, MINUS_3_DB),
        Channel::BackCenter => (0.5, 0.5),
        _ => (0.0, 0.0),
    }
}

/// Beyond full scale a decoder may overshoot a little; what is far beyond, or no number, is damage.
const MAX_SAMPLE: f32 = 4.0;

/// A sample as it may go on: damage becomes silence.
pub(super) fn sane(sample: f32) -> f32 {
    if sample.abs() <= MAX_SAMPLE { sample } else { 0.0 }
}

/// Appends the planes, mixed to stereo, to `left` and `right`. One plane goes to both sides, two are left and right
/// whatever they are called; more are mixed by their labels and scaled so that the sum cannot clip.
pub(super) fn to_stereo(planes: &[&[f32]], labels: &[Channel], left: &mut Vec<f32>, right: &mut Vec<f32>) {
    match planes {
        [] => {}
        [mono] => {
            left.extend(mono.iter().map(|s| sane(*s)));
            right.extend(mono.iter().map(|s| sane(*s)));
        }
        [l, r] => {
            left.extend(l.iter().map(|s| sane(*s)));
            right.extend(r.iter().map(|s| sane(*s)));
        }
        _ => mix(planes, labels, left, right),
    }
}

fn mix(planes: &[&[f32]], labels: &[Channel], left: &mut Vec<f32>, right: &mut Vec<f32>) {
    let gain_of = |i: usize| labels.get(i).map_or((0.0, 0.0), |c| gains(*c));
    let (sum_left, sum_right) =
        (0..planes.len()).map(gain_of).fold((0.0f32, 0.0f32), |sum, gain| (sum.0 + gain.0, sum.1 + gain.1));
    // One scale for both sides keeps the balance.
    let scale = 1.0 / sum_left.max(sum_right).max(1.0);
    let samples = planes.iter().map(|p| p.len()).min().unwrap_or(0);
    let (from_left, from_right) = (left.len(), right.len());
    left.resize(from_left + samples, 0.0);
    right.resize(from_right + samples, 0.0);
    for (i, plane) in planes.iter().enumerate() {
        let (to_left, to_right) = gain_of(i);
        for ((out_left, out_right), sample) in left[from_left..].iter_mut().zip(&mut right[from_right..]).zip(*plane) {
            *out_left += sane(*sample) * to_left * scale;
            *out_right += sane(*sample) * to_right * scale;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_become_left_and_right() {
        let surround = syom::mpeg_channels(6);
        // Channel that alone is at full scale, what is expected left and right.
        let full = 1.0 / (1.0 + 2.0 * std::f32::consts::FRAC_1_SQRT_2);
        let minus_3_db = full * std::f32::consts::FRAC_1_SQRT_2;
        let cases = [
            (Channel::FrontLeft, full, 0.0),
            (Channel::FrontRight, 0.0, full),
            (Channel::FrontCenter, minus_3_db, minus_3_db),
            (Channel::BackLeft, minus_3_db, 0.0),
            (Channel::BackRight, 0.0, minus_3_db),
            (Channel::Lfe, 0.0, 0.0),
        ];
        for (loud, expected_left, expected_right) in cases {
            let planes: Vec<Vec<f32>> = surround.iter().map(|c| vec![if *c == loud { 1.0 } else { 0.0 }; 3]).collect();
            let planes: Vec<&[f32]> = planes.iter().map(Vec::as_slice).collect();
            let (mut left, mut right) = (Vec::new(), Vec::new());
            to_stereo(&planes, surround, &mut left, &mut right);
            assert_eq!(left.len(), 3);
            assert!((left[1] - expected_left).abs() < 1e-6, "{loud:?}: {left:?}");
            assert!((right[1] - expected_right).abs() < 1e-6, "{loud:?}: {right:?}");
        }
        let (mut left, mut right) = (Vec::new(), Vec::new());
        to_stereo(&[&[0.5, f32::NAN, 1e30]], &[Channel::FrontCenter], &mut left, &mut right);
        assert_eq!((left.as_slice(), right.as_slice()), (&[0.5, 0.0, 0.0][..], &[0.5, 0.0, 0.0][..]));
    }
}
