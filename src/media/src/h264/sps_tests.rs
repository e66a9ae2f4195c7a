use super::*;
use crate::testing::{Random, hex};

/// What it is, the unit, width, height, pictures reordered, whether no picture is interlaced.
type Case = (&'static str, &'static str, u32, u32, Option<u32>, bool);

/// Made with x264 (ffmpeg 5.1 `-f lavfi -i testsrc2`) and judged by ffprobe: size, B-frames, interlacing, rate.
const X264: [Case; 10] = [
    ("baseline", "6742c00cd901419f9f011000000300100000030320f142a480", 320, 180, Some(0), true),
    ("main, cropped", "674d4028eca03c0113f2e022000003000200000300641e30632c", 1920, 1080, Some(2), true),
    ("odd size", "6764000dacd941519e226c0440000003004000000c83c50a6580", 322, 182, Some(2), true),
    ("High 10", "676e000ca6cd941419f9f011000003000100000300320f142996", 320, 180, Some(2), true),
    ("High 4:2:2", "677a000cbcd941419f8dc044000003000400000300c83c50a658", 320, 180, Some(2), true),
    ("High 4:4:4", "67f4000c919b282833dc7e0220000003002000000641e28532c0", 318, 178, Some(2), true),
    ("interlaced", "6764001eacd940b424d8088000000300800000190f8a14cb", 720, 576, Some(2), false),
    ("rates", "6764001facb200a00b76022000000300200000065c08001e848003d09c98600f183248", 1280, 720, Some(0), true),
    ("no VUI rates", "6764000cacd941419f9f011000000300100000030320f1429960", 320, 180, Some(2), true),
    (
        "aspect ratio and colours",
        "6764001eacd940b4126ffc0040003da808080a000003000200000300641e2c5b2c",
        720,
        576,
        Some(2),
        true,
    ),
];

#[test]
fn parameter_sets_of_x264() {
    for (what, unit, width, height, reorder, frame_mbs_only) in X264 {
        let sps = Sps::parse(&hex(unit)).unwrap();
        assert_eq!((sps.width, sps.height), (width, height), "{what}");
        assert_eq!((sps.max_num_reorder_frames, sps.frame_mbs_only), (reorder, frame_mbs_only), "{what}");
        assert_eq!(sps.frames_per_second, Some(25.0), "{what}");
        assert_eq!(sps.never_reorders(), reorder == Some(0), "{what}");
        let format = (sps.chroma_format, sps.bit_depth_luma, sps.bit_depth_chroma);
        let expected = match sps.profile {
            110 => (1, 10, 10),
            122 => (2, 8, 8),
            244 => (3, 8, 8),
            _ => (1, 8, 8),
        };
        assert_eq!(format, expected, "{what}");
    }
}

#[test]
fn colours_are_read() {
    // x264 with `fullrange=on:colormatrix=bt709`, `fullrange=off:colormatrix=smpte170m`, and neither.
    for (unit, is_full_range, matrix) in [
        ("6764000aacd9447b016e040402800000030080000005078912cb", true, Some(1)),
        ("6764000aacd9447b016a04040c800000030080000005078912cb", false, Some(6)),
        ("6764000aacd9447b0110000003001000000300a0f1225960", false, None),
    ] {
        assert_eq!(Sps::parse(&hex(unit)).unwrap().colour, Colour { is_full_range, matrix }, "{unit}");
    }
}

/// Writes fields in the way in which [`BitReader`] reads them.
#[derive(Default)]
struct Writer(Vec<bool>);

impl Writer {
    fn bits(mut self, value: u32, count: u32) -> Writer {
        self.0.extend((0..count).rev().map(|i| value >> i & 1 == 1));
        self
    }

    fn ue(self, value: u32) -> Writer {
        let length = 32 - (value + 1).leading_zeros();
        self.bits(0, length - 1).bits(value + 1, length)
    }

    fn se(self, value: i32) -> Writer {
        self.ue(if value > 0 { value as u32 * 2 - 1 } else { value.unsigned_abs() * 2 })
    }

    /// The unit, its end padded with ones, with emulation prevention.
    fn unit(self) -> Vec<u8> {
        let bytes = self.0.chunks(8).map(|c| (0..8).fold(0, |b, i| b << 1 | u8::from(*c.get(i).unwrap_or(&true))));
        let mut unit = vec![0x67];
        for byte in bytes {
            if byte <= 3 && unit.ends_with(&[0, 0]) {
                unit.push(3);
            }
            unit.push(byte);
        }
        unit
    }
}

/// Profile, constraints and level, then id 0.
fn head(profile: u32, constraints: u32) -> Writer {
    Writer::default().bits(profile, 8).bits(constraints, 8).bits(30, 8).ue(0)
}

/// Sizes in macroblocks and crop on each side, without VUI.
fn tail(writer: Writer, columns: u32, rows: u32, crop: Option<u32>) -> Vec<u8> {
    let writer = writer.ue(1).bits(0, 1).ue(columns - 1).ue(rows - 1).bits(1, 1).bits(1, 1);
    let writer = match crop {
        Some(crop) => (0..4).fold(writer.bits(1, 1), |w, _| w.ue(crop)),
        None => writer.bits(0, 1),
    };
    writer.bits(0, 1).unit()
}

#[test]
fn what_x264_does_not_write() {
    // Two scaling lists, one of which ends early by a scale of 0.
    let lists = head(100, 0).ue(1).ue(0).ue(0).bits(0, 1).bits(1, 1);
    let lists = (0..16).fold(lists.bits(1, 1), |w, i| w.se(i % 3)).bits(1, 1).se(-8).bits(0, 6).ue(0).ue(0).ue(0);
    let sps = Sps::parse(&tail(lists, 20, 15, Some(1))).unwrap();
    assert_eq!((sps.width, sps.height, sps.max_num_reorder_frames), (316, 236, None));
    assert!(!sps.never_reorders());

    let cycle = head(77, 0).ue(0).ue(1).bits(0, 1).se(-3).se(4).ue(2).se(-1).se(700);
    assert_eq!(Sps::parse(&tail(cycle, 20, 15, None)).unwrap().pic_order_count_type, 1);
    let in_order = Sps::parse(&tail(head(77, 0).ue(0).ue(2), 20, 15, None)).unwrap();
    assert!(in_order.never_reorders() && in_order.pic_order_count_type == 2);
    let intra = head(100, 0x10).ue(1).ue(0).ue(0).bits(0, 2).ue(0).ue(0).ue(4);
    assert!(Sps::parse(&tail(intra, 20, 15, None)).unwrap().never_reorders());
}

#[test]
fn impossible_values_are_refused() {
    let order = |kind| head(77, 0).ue(0).ue(kind);
    for (unit, error) in [
        (tail(order(3), 20, 15, None), H264Error::OutOfRange("picture order count type")),
        (tail(order(2), 1056, 15, None), H264Error::OutOfRange("picture size")),
        (tail(order(2), 20, u32::MAX, None), H264Error::OutOfRange("picture size")),
        (tail(order(2), 20, 15, Some(80)), H264Error::OutOfRange("picture size")),
        (tail(order(2), 20, 15, Some(u32::MAX / 2)), H264Error::OutOfRange("picture size")),
        (
            tail(order(1).bits(0, 1).se(0).se(0).ue(256), 20, 15, None),
            H264Error::OutOfRange("picture order count cycle"),
        ),
        (head(100, 0).ue(4).unit(), H264Error::OutOfRange("chroma format")),
        (head(100, 0).ue(1).ue(7).unit(), H264Error::OutOfRange("bit depth")),
        (vec![0x68, 1, 2], H264Error::UnitType(8)),
        (vec![], H264Error::UnitType(0)),
    ] {
        assert_eq!(Sps::parse(&unit), Err(error), "{unit:02x?}");
    }
    // A VUI that breaks off is none.
    let sps = Sps::parse(&hex(X264[0].1)[..16]).unwrap();
    assert_eq!((sps.width, sps.max_num_reorder_frames), (320, None));
}

#[test]
fn mutants_are_survived() {
    let mut random = Random::new(3);
    for round in 0..30_000 {
        let mut unit = hex(X264[round % X264.len()].1);
        random.mutate(&mut unit);
        if let Ok(sps) = Sps::parse(&unit) {
            assert!((1..=16880).contains(&sps.width) && (1..=33760).contains(&sps.height));
            assert!((8..=14).contains(&sps.bit_depth_luma) && (8..=14).contains(&sps.bit_depth_chroma));
        }
    }
}
