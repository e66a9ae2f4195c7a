use bytes::Bytes;

use super::*;
use crate::testing::hex;

/// Records of x264 with B-frames (reordering of 2 announced), without them, and of Baseline.
const ANNOUNCED: &str =
    "0164000dffe1001a6764000dacd941419f9f0110000003001000000303c0f142996001000668ebe3cb22c0fdf8f800";
const NEVER: &str = "014d400dffe10019674d400dd901419f9f0110000003001000000303c0f142a48001000568ebc3cb20";
const BASELINE: &str = "0142c00dffe100196742c00dd901419f9f0110000003001000000303c0f142a48001000568cb83cb20";
/// High, its SPS cut off within the VUI, as from hardware encoders that write none.
const SILENT: &str = "0164000dffe1000b6764000dacd941419f9f0101000668ebe3cb22c0";

const P: [u8; 2] = [0x41, 0b1001_1000];
const B: [u8; 2] = [0x01, 0b1001_1100];

fn config(codec: Codec, record: &str) -> Arc<TrackConfig> {
    Arc::new(TrackConfig { codec, record: Bytes::from(hex(record)) })
}

fn frame(config: &Arc<TrackConfig>, is_keyframe: bool, dts: i64, pts: i64, slices: &[[u8; 2]]) -> Frame {
    let data = slices.iter().flat_map(|slice| [0, 0, 0, 2, slice[0], slice[1]]).collect();
    let (dts, pts) = (MediaTime::from_millis(dts), MediaTime::from_millis(pts));
    Frame { config: Arc::clone(config), dts, pts, is_keyframe, data }
}

/// After how many frames the verdict falls, and which. Each letter is a slice type; `offset` is pts - dts in frames,
/// by which frame types are shown in order unless `reordered`.
fn decide(record: &str, letters: &str, offset: i64, reordered: bool) -> (usize, Verdict) {
    let config = config(Codec::H264, record);
    let mut detector = BFrameDetector::new();
    let mut last = (0, Verdict::Unknown);
    for (i, letter) in letters.chars().enumerate() {
        let at = i as i64 * 40;
        let moved = match letter {
            'P' if reordered => 40,
            'B' if reordered => -40,
            _ => 0,
        };
        let slice = match letter {
            'K' => [0x65, 0b1000_1000],
            'P' => P,
            _ => B,
        };
        let verdict = detector.push(&frame(&config, letter == 'K', at, at + offset * 40 + moved, &[slice]));
        if verdict != last.1 {
            last = (i + 1, verdict);
        }
    }
    last
}

#[test]
fn it_decides_as_soon_as_it_can() {
    let long = format!("K{}", "P".repeat(60));
    let late = format!("{long}B");
    for (what, record, letters, offset, reordered, expected) in [
        ("x264 with B-frames", ANNOUNCED, "KPBP", 2, true, (1, Verdict::Present)),
        ("room for B-frames only announced", ANNOUNCED, "KPPP", 0, false, (0, Verdict::Unknown)),
        ("x264 without", NEVER, "KPPP", 0, false, (1, Verdict::None)),
        ("x264 without, times moved", NEVER, "KPPP", 2, false, (1, Verdict::None)),
        ("baseline", BASELINE, "KPPP", 0, false, (1, Verdict::None)),
        ("B slices in order", NEVER, "KBBB", 0, false, (1, Verdict::None)),
        ("the promise is broken", NEVER, "KPBP", 2, true, (3, Verdict::Present)),
        ("no word, a B slice", SILENT, "KPPBP", 1, false, (4, Verdict::Present)),
        ("no word, a picture too early", SILENT, "KPPBP", 1, true, (4, Verdict::Present)),
        ("no word, nothing seen", SILENT, &long, 1, false, (32, Verdict::None)),
        ("no word, a late B slice", SILENT, &late, 1, false, (62, Verdict::Present)),
        ("no record", "", "KPPB", 0, false, (4, Verdict::Present)),
    ] {
        assert_eq!(decide(record, letters, offset, reordered), expected, "{what}");
    }
}

#[test]
fn any_slice_of_a_frame_counts() {
    let config = config(Codec::H264, SILENT);
    let mut detector = BFrameDetector::new();
    assert_eq!(detector.push(&frame(&config, true, 0, 0, &[[0x65, 0b1000_1000]])), Verdict::Unknown);
    assert_eq!(detector.push(&frame(&config, false, 40, 40, &[P, P, B])), Verdict::Present);
}

#[test]
fn changed_parameters_start_anew_and_equal_ones_do_not() {
    let mut detector = BFrameDetector::new();
    let silent = config(Codec::H264, SILENT);
    assert_eq!(detector.push(&frame(&silent, true, 0, 0, &[B])), Verdict::Present);
    assert_eq!(detector.push(&frame(&config(Codec::H264, SILENT), true, 40, 40, &[P])), Verdict::Present);
    let sound = config(Codec::Aac, "1190");
    assert_eq!(detector.push(&frame(&sound, true, 0, 0, &[])), Verdict::Present);
    assert_eq!(detector.push(&frame(&config(Codec::H264, NEVER), true, 80, 80, &[P])), Verdict::None);
    assert_eq!(detector.push(&frame(&silent, true, 120, 120, &[P])), Verdict::Unknown);
}

#[test]
fn an_sps_in_the_stream_is_heard() {
    let config = config(Codec::H264, "");
    let sps = hex(&NEVER[16..66]);
    let data = [&[0, 0, 0, sps.len() as u8], sps.as_slice(), &[0, 0, 0, 2, 0x65, 0x88]].concat();
    let keyframe = Frame { data: Bytes::from(data), ..frame(&config, true, 0, 0, &[]) };
    assert_eq!(BFrameDetector::new().push(&keyframe), Verdict::None);
}

#[test]
fn other_codecs_are_judged_by_order() {
    for (codec, first, second) in [
        (Codec::H265, Verdict::Unknown, Verdict::Present),
        (Codec::Av1, Verdict::None, Verdict::Present),
        (Codec::Vp9, Verdict::None, Verdict::Present),
    ] {
        let (config, mut detector) = (config(codec, ""), BFrameDetector::new());
        assert_eq!(detector.push(&frame(&config, true, 0, 80, &[])), first);
        assert_eq!(detector.push(&frame(&config, false, 40, 40, &[])), second);
        // A keyframe may follow anything, as where a timeline was mended.
        let mut detector = BFrameDetector::new();
        detector.push(&frame(&config, true, 0, 80, &[]));
        assert_eq!(detector.push(&frame(&config, true, 40, 40, &[])), first);
    }
}
