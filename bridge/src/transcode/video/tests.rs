//! Recorded streams through [`BFrameRemover`], and what it makes of them back through a decoder.

use bytes::Bytes;
use freshet_media::h264::{BFrameDetector, nal, nal_type, units};

use super::*;
use crate::transcode::testing::frames_of_flv;

const PYRAMID: &[u8] = include_bytes!("../../../tests/data/bframes-pyramid.flv");
/// What ffmpeg decodes of it: 60 grey pictures of 40x20.
const PYRAMID_GREY: &[u8] = include_bytes!("../../../tests/data/bframes-pyramid.gray");
const GREY: (usize, usize) = (40, 20);

fn remove(remover: &mut BFrameRemover, frames: &[Frame]) -> Vec<Frame> {
    let mut out = Vec::new();
    for frame in frames {
        remover.push(frame, &mut |frame| out.push(frame)).unwrap();
    }
    remover.flush(&mut |frame| out.push(frame));
    out
}

/// Decodes what came out, picture by picture as a WebRTC receiver does, to small grey pictures.
fn grey_pictures(frames: &[Frame]) -> Vec<Vec<u8>> {
    let mut decoder = openh264::decoder::Decoder::new().unwrap();
    let mut pictures = Vec::new();
    for frame in frames {
        let avc = AvcConfig::parse(&frame.config.record).unwrap();
        let mut stream = Vec::new();
        let sets = avc.sps.iter().chain(&avc.pps).map(Bytes::as_ref).filter(|_| frame.is_keyframe);
        for unit in sets.chain(units(&frame.data, 4)) {
            stream.extend([0, 0, 0, 1]);
            stream.extend(unit);
        }
        pictures.push(grey(&decoder.decode(&stream).unwrap().expect("one picture per frame")));
    }
    pictures
}

fn grey(yuv: &impl YUVSource) -> Vec<u8> {
    let (stride, (width, height)) = (yuv.strides().0, yuv.dimensions());
    let (box_width, box_height) = (width / GREY.0, height / GREY.1);
    let mean = |i: usize| {
        let (x, y) = (i % GREY.0 * box_width, i / GREY.0 * box_height);
        let rows = (y..y + box_height).map(|y| &yuv.y()[y * stride + x..y * stride + x + box_width]);
        let sum: u32 = rows.flatten().map(|luma| u32::from(*luma)).sum();
        (sum / (box_width * box_height) as u32) as u8
    };
    (0..GREY.0 * GREY.1).map(mean).collect()
}

fn psnr_db(a: &[u8], b: &[u8]) -> f64 {
    let power: f64 = a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
    10.0 * (255.0 * 255.0 / (power / a.len() as f64).max(1e-9)).log10()
}

#[test]
fn every_picture_comes_out_once_in_order_and_alike() {
    let frames = frames_of_flv(PYRAMID);
    assert!(frames.windows(2).any(|w| w[1].pts < w[0].pts), "the recording has B-frames");
    let mut remover = BFrameRemover::new(VideoOptions::default());
    let out = remove(&mut remover, &frames);
    assert_eq!((out.len(), remover.pictures_in(), remover.pictures_out()), (60, 60, 60));

    let mut times: Vec<MediaTime> = frames.iter().map(|f| f.pts).collect();
    times.sort();
    assert_eq!(out.iter().map(|f| f.pts).collect::<Vec<_>>(), times);
    assert!(out.iter().all(|f| f.dts == f.pts));
    let keyframes = |frames: &[Frame]| frames.iter().filter(|f| f.is_keyframe).map(|f| f.pts).collect::<Vec<_>>();
    assert_eq!(keyframes(&out), keyframes(&frames));

    for (i, (picture, expected)) in grey_pictures(&out).iter().zip(PYRAMID_GREY.chunks(GREY.0 * GREY.1)).enumerate() {
        assert!(psnr_db(picture, expected) > 30.0, "picture {i}: {} dB", psnr_db(picture, expected));
    }
}

#[test]
fn what_comes_out_is_constrained_baseline_of_one_slice() {
    let out = remove(&mut BFrameRemover::new(VideoOptions::default()), &frames_of_flv(PYRAMID));
    let avc = AvcConfig::parse(&out[0].config.record).unwrap();
    assert!(avc.profile_level_id().starts_with("42c0"), "{}", avc.profile_level_id());
    assert!(out.iter().all(|f| Arc::ptr_eq(&f.config, &out[0].config)), "one set of parameters for all");
    let mut detector = BFrameDetector::default();
    for frame in &out {
        detector.push(frame);
        let kinds: Vec<u8> = units(&frame.data, 4).map(nal_type).collect();
        assert_eq!(kinds, [if frame.is_keyframe { nal::IDR } else { nal::SLICE }]);
    }
}

#[test]
fn a_keyframe_is_made_on_request() {
    let frames = frames_of_flv(PYRAMID);
    let mut remover = BFrameRemover::new(VideoOptions::default());
    let mut out: Vec<Frame> = Vec::new();
    let mut asked_at = Vec::new();
    for (i, frame) in frames.iter().enumerate() {
        if [10, 17, 40].contains(&i) {
            remover.request_keyframe();
            asked_at.push(out.len());
        }
        remover.push(frame, &mut |frame| out.push(frame)).unwrap();
        assert!(remover.latency_pictures() <= 3, "{} pictures", remover.latency_pictures());
    }
    assert!(asked_at.iter().all(|at| out[*at].is_keyframe));
    grey_pictures(&out);
}

#[test]
fn a_broken_picture_is_missed_and_the_next_keyframe_mends_it() {
    let mut frames = frames_of_flv(PYRAMID);
    let whole = frames[30].data.clone();
    // In the second of three sequences: a torn length, then no slice at all, then damage inside.
    let torn = whole.slice(..whole.len() / 2);
    let mut damaged = whole.to_vec();
    damaged[6..].fill(0xff);
    for data in [torn, Bytes::new(), Bytes::from(damaged)] {
        frames[30].data = data;
        let mut remover = BFrameRemover::new(VideoOptions::default());
        let (mut out, mut errors) = (Vec::new(), 0);
        for frame in &frames {
            if let Err(error) = remover.push(frame, &mut |frame| out.push(frame)) {
                assert!(!error.is_lasting(), "{error}");
                errors += 1;
            }
        }
        remover.flush(&mut |frame| out.push(frame));
        assert!(errors > 0 && out.len() + errors <= 60, "{errors} errors, {} pictures", out.len());
        assert!(out.windows(2).all(|w| w[0].pts < w[1].pts));
        // The third sequence is whole, in its place and alike.
        let pictures = grey_pictures(&out);
        let third: Vec<usize> = (0..out.len()).filter(|i| out[*i].pts >= frames[50].pts).collect();
        assert_eq!(third.len(), 10);
        for (picture, expected) in third.iter().zip(PYRAMID_GREY.chunks(GREY.0 * GREY.1).skip(50)) {
            assert!(psnr_db(&pictures[*picture], expected) > 30.0);
        }
    }
}

#[test]
fn what_cannot_be_decoded_says_so_at_once() {
    let interlaced = frames_of_flv(include_bytes!("../../../tests/data/interlaced.flv"));
    let high10 = frames_of_flv(include_bytes!("../../../tests/data/high10.flv"));
    let mut h265 = high10[0].clone();
    h265.config = Arc::new(TrackConfig { codec: Codec::H265, record: Bytes::new() });
    let mut no_record = high10[0].clone();
    no_record.config = Arc::new(TrackConfig { codec: Codec::H264, record: Bytes::from_static(&[1, 100, 0]) });
    for (frame, reason) in
        [(&interlaced[0], "interlaced"), (&high10[0], "profile 110"), (&h265, "H265"), (&no_record, "ends within")]
    {
        let mut remover = BFrameRemover::new(VideoOptions::default());
        for _ in 0..2 {
            let error = remover.push(frame, &mut |_| panic!("a picture")).unwrap_err();
            assert!(error.is_lasting() && error.to_string().contains(reason), "{error}");
        }
    }
}

#[test]
fn another_size_goes_on_with_other_parameters() {
    let large = frames_of_flv(PYRAMID);
    // 160x90 made by this very encoder, and in the large one's record but for the stream itself.
    let small = smaller(&large[..25]);
    let mut frames = large[..25].to_vec();
    let shift = std::time::Duration::from_secs(2);
    frames.extend(small.iter().cloned().map(|mut f| {
        (f.pts, f.dts) = (f.pts + shift, f.dts + shift);
        f
    }));
    let out = remove(&mut BFrameRemover::new(VideoOptions::default()), &frames);
    assert_eq!(out.len(), frames.len());
    assert!(out[25].is_keyframe && out[25].config != out[24].config);
    grey_pictures(&out[..25]);
    grey_pictures(&out[25..]);

    // The same with the parameters in the stream instead of a new record.
    for frame in &mut frames[25..] {
        let avc = AvcConfig::parse(&frame.config.record).unwrap();
        let sets = avc.sps.iter().chain(&avc.pps).map(Bytes::as_ref).filter(|_| frame.is_keyframe);
        let mut data = Vec::new();
        for unit in sets.chain(units(&frame.data, 4)) {
            data.extend((unit.len() as u32).to_be_bytes());
            data.extend(unit);
        }
        (frame.config, frame.data) = (Arc::clone(&large[0].config), data.into());
    }
    let again = remove(&mut BFrameRemover::new(VideoOptions::default()), &frames);
    assert_eq!(again.len(), frames.len());
    assert_eq!(again[25].config, out[25].config);
}

/// A stand-in for a publisher that changes its size: every second pixel of flat grey pictures.
fn smaller(like: &[Frame]) -> Vec<Frame> {
    let mut encoder = PictureEncoder::new((160, 90), None, 1).unwrap();
    let picture = openh264::formats::YUVBuffer::from_vec(vec![100; 160 * 90 * 3 / 2], 160, 90);
    let encode = |(i, frame): (usize, &Frame)| encoder.encode(&picture, frame.pts, i == 0).unwrap().unwrap();
    let mut times = like.to_vec();
    times.sort_by_key(|f| f.pts);
    times.iter().enumerate().map(encode).collect()
}

#[test]
fn uneven_times_are_kept() {
    let mut frames = frames_of_flv(PYRAMID);
    // By the place in the order of display: 10, 40 and 90 ms apart in turn.
    let mut order: Vec<MediaTime> = frames.iter().map(|f| f.pts).collect();
    order.sort();
    let uneven = |pts: MediaTime| {
        let place = order.binary_search(&pts).unwrap() as i64;
        MediaTime::from_millis(place / 3 * 140 + [0, 10, 50][place as usize % 3])
    };
    frames.iter_mut().for_each(|f| f.pts = uneven(f.pts));
    let out = remove(&mut BFrameRemover::new(VideoOptions::default()), &frames);
    assert_eq!(out.iter().map(|f| f.pts).collect::<Vec<_>>(), order.iter().copied().map(uneven).collect::<Vec<_>>());
    // And times that make no sense at all do no harm.
    frames.iter_mut().for_each(|f| f.pts = MediaTime::from_micros(i64::MAX));
    let out = remove(&mut BFrameRemover::new(VideoOptions::default()), &frames);
    assert!(out.windows(2).all(|w| w[0].pts <= w[1].pts));
}
