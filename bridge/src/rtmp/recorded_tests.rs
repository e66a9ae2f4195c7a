//! Recordings of real publishers (`tests/data/rtmp`), through the connection and the demultiplexer.

use freshet_media::{Codec, Frame, MediaKind};

use super::*;
use crate::flv::{Demuxer, FlvError};

struct Recording {
    name: &'static str,
    bytes: &'static [u8],
    /// FFmpeg's list of what it sent.
    frames: &'static str,
    codecs: [Option<Codec>; 2],
}

macro_rules! recording {
    ($name:literal, $video:expr, $audio:expr) => {
        Recording {
            name: $name,
            bytes: include_bytes!(concat!("../../tests/data/rtmp/", $name, ".rtmp")),
            frames: include_str!(concat!("../../tests/data/rtmp/", $name, ".frames")),
            codecs: [$video, $audio],
        }
    };
}

const RECORDINGS: [Recording; 5] = [
    recording!("h264_aac", Some(Codec::H264), Some(Codec::Aac)),
    recording!("hevc_opus", Some(Codec::H265), Some(Codec::Opus)),
    recording!("av1_mp3", Some(Codec::Av1), Some(Codec::Mp3)),
    recording!("vp9_aac", Some(Codec::Vp9), Some(Codec::Aac)),
    recording!("audio_only", None, Some(Codec::Aac)),
];

const UNSUPPORTED: &[u8] = include_bytes!("../../tests/data/rtmp/flv1_alaw.rtmp");

/// All outputs but what is written, with every request accepted.
fn outputs<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Result<Vec<RtmpOutput>, RtmpError> {
    let mut connection = RtmpConnection::new(RtmpLimits::default());
    let mut outputs = Vec::new();
    for piece in pieces {
        let result = connection.handle_bytes(piece);
        while let Some(output) = connection.poll_output() {
            if let RtmpOutput::Request(request) = &output {
                connection.accept(request.id)?;
            }
            if !matches!(output, RtmpOutput::Write(_)) {
                outputs.push(output);
            }
        }
        result?;
    }
    Ok(outputs)
}

fn frames(outputs: &[RtmpOutput]) -> (Vec<Frame>, Vec<FlvError>) {
    let mut demuxer = Demuxer::new();
    let (mut frames, mut errors) = (Vec::new(), Vec::new());
    for output in outputs {
        if let RtmpOutput::Media(tag) = output {
            match demuxer.tag(tag) {
                Ok(frame) => frames.extend(frame),
                Err(error) => errors.push(error),
            }
        }
    }
    (frames, errors)
}

fn adler32(bytes: &[u8]) -> u32 {
    let (mut a, mut b) = (1u32, 0u32);
    for byte in bytes {
        a = (a + u32::from(*byte)) % 65_521;
        b = (b + a) % 65_521;
    }
    b << 16 | a
}

/// xorshift64*: the same numbers in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as usize % bound
    }
}

#[test]
fn every_frame_is_what_ffmpeg_says_it_sent() {
    for recording in RECORDINGS {
        let name = recording.name;
        let outputs = outputs([recording.bytes].into_iter()).unwrap();
        let Some(RtmpOutput::Request(request)) = outputs.first() else { panic!("{name}: no request") };
        assert_eq!((&*request.app, &*request.stream, request.kind), ("live", "cam?token=t", RequestKind::Publish));
        assert!(matches!(outputs[1], RtmpOutput::Metadata(_)), "{name}");
        assert_eq!(outputs.last(), Some(&RtmpOutput::PublishFinished), "{name}");

        let (frames, errors) = frames(&outputs);
        assert_eq!(errors, [], "{name}");
        // FFmpeg numbers video first, if there is any.
        let tracks: Vec<MediaKind> = recording.codecs.into_iter().flatten().map(Codec::kind).collect();
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for frame in &frames {
            assert!(recording.codecs.contains(&Some(frame.config.codec)), "{name}");
            let track = tracks.iter().position(|kind| *kind == frame.kind()).unwrap();
            ours.push((track, frame.dts.millis(), frame.pts.millis(), frame.data.len(), adler32(&frame.data)));
        }
        for line in recording.frames.lines() {
            if let Some(record) = line.strip_prefix("#extradata") {
                let fields: Vec<&str> = record.split(',').collect();
                let track = tracks[fields[0].parse::<usize>().unwrap()];
                let record = &frames.iter().find(|frame| frame.kind() == track).unwrap().config.record;
                assert_eq!(record.len(), fields[1].parse::<usize>().unwrap(), "{name} {track}");
                assert_eq!(adler32(record), u32::from_str_radix(fields[2], 16).unwrap(), "{name} {track}");
                continue;
            }
            let fields: Vec<&str> = line.split(',').collect();
            let number = |n: usize| fields[n].parse::<i64>().unwrap();
            let hash = u32::from_str_radix(fields[5], 16).unwrap();
            theirs.push((number(0) as usize, number(1), number(2), number(4) as usize, hash));
        }
        // Our timeline starts with the first frame, theirs where the encoder's did.
        let start = theirs.iter().map(|frame| frame.1).min().unwrap();
        theirs.iter_mut().for_each(|frame| (frame.1, frame.2) = (frame.1 - start, frame.2 - start));
        ours.sort_unstable();
        theirs.sort_unstable();
        assert_eq!(ours, theirs, "{name}");
        assert!(frames.iter().any(|frame| !frame.is_keyframe) == recording.codecs[0].is_some(), "{name}");
    }
}

#[test]
fn cuts_make_no_difference() {
    for recording in RECORDINGS {
        let whole = outputs([recording.bytes].into_iter());
        assert_eq!(outputs(recording.bytes.chunks(1)), whole, "{}", recording.name);
        for seed in 1..20 {
            let mut random = Random(seed);
            let mut rest = recording.bytes;
            let pieces = std::iter::from_fn(|| {
                let piece = rest.split_off(..(1 + random.below(3000)).min(rest.len()))?;
                (!piece.is_empty()).then_some(piece)
            });
            assert_eq!(outputs(pieces), whole, "{} {seed}", recording.name);
        }
    }
}

#[test]
fn mutants_neither_panic_nor_grow() {
    let mut random = Random(42);
    for round in 0..1500 {
        let mut bytes = RECORDINGS[round % RECORDINGS.len()].bytes.to_vec();
        for _ in 0..1 + random.below(8) {
            // Behind the handshake, where something can be broken.
            let at = 3073 + random.below(bytes.len() - 3073);
            match random.below(4) {
                0 => bytes[at] = random.below(256) as u8,
                1 => bytes[at] ^= 1 << random.below(8),
                2 => drop(bytes.drain(at..(at + random.below(40)).min(bytes.len()))),
                _ => bytes.splice(at..at, std::iter::repeat_n(0xff, random.below(20))).for_each(drop),
            }
        }
        if let Ok(outputs) = outputs(bytes.chunks(1 + random.below(5000))) {
            let (frames, _) = frames(&outputs);
            let total: usize = frames.iter().map(|frame| frame.data.len()).sum();
            assert!(total <= bytes.len());
        }
    }
}

#[test]
fn unsupported_codecs_are_told_once_each() {
    let outputs = outputs([UNSUPPORTED].into_iter()).unwrap();
    let (frames, errors) = frames(&outputs);
    assert!(frames.is_empty());
    let unsupported = |kind, codec: &str| FlvError::UnsupportedCodec { kind, codec: codec.into() };
    assert_eq!(errors.len(), 2);
    assert!(errors.contains(&unsupported(MediaKind::Video, "Sorenson H.263")));
    assert!(errors.contains(&unsupported(MediaKind::Audio, "G.711 A-law")));
}
