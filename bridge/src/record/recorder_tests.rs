use freshet_media::Codec;

use super::testing::{aac, avc, frame, picture, sound};
use super::*;
use crate::flv::{FileItem, FileReader, Tag};
use crate::fmp4::testing as fmp4;

/// What a disk would hold.
#[derive(Debug, Default)]
struct File {
    bytes: Vec<u8>,
    start_ms: i64,
    duration: Duration,
    is_closed: bool,
}

/// A recorder and its files.
struct Bench {
    recorder: Recorder,
    files: Vec<File>,
    left_out: Vec<RecordError>,
}

impl Bench {
    fn new(format: RecordFormat, plan: RecordPlan) -> Bench {
        Bench { recorder: Recorder::new(format, plan), files: Vec::new(), left_out: Vec::new() }
    }

    fn push(&mut self, frame: Frame) {
        self.recorder.push(frame);
        self.carry_out();
    }

    fn finish(&mut self) {
        self.recorder.finish();
        self.carry_out();
    }

    fn carry_out(&mut self) {
        while let Some(output) = self.recorder.poll_output() {
            if let Output::Open { start } = output {
                assert!(self.files.last().is_none_or(|file| file.is_closed), "one file at a time");
                self.files.push(File { start_ms: start.millis(), ..File::default() });
                continue;
            }
            if let Output::LeftOut(error) = output {
                self.left_out.push(error);
                continue;
            }
            let file = self.files.last_mut().filter(|file| !file.is_closed).expect("a file is open");
            match output {
                Output::Write { data, duration } => {
                    file.bytes.extend_from_slice(&data);
                    file.duration = duration;
                    if file.bytes.get(4..8) == Some(b"ftyp") {
                        // Whoever is killed now leaves whole fragments; this reader takes nothing else.
                        fmp4::boxes(&file.bytes);
                    }
                }
                Output::WriteAt { offset, data } => {
                    file.bytes[offset as usize..][..data.len()].copy_from_slice(&data);
                }
                Output::Close => file.is_closed = true,
                Output::Open { .. } | Output::LeftOut(_) => unreachable!(),
            }
        }
    }

    /// Pictures at 25/s with a keyframe every `gop_ms`, sound every 20 ms that comes up to 200 ms early or late.
    fn run(&mut self, from_ms: i64, until_ms: i64, gop_ms: i64) {
        for ms in (from_ms..until_ms).step_by(20) {
            if ms % 40 == 0 {
                self.push(picture(ms, ms % gop_ms == 0));
            }
            // Three packets at once, every 60 ms.
            if ms % 60 == 0 {
                for sound_ms in [ms - 120, ms - 100, ms - 80] {
                    if sound_ms >= from_ms {
                        self.push(sound(sound_ms));
                    }
                }
            }
        }
    }

    /// First picture, first sound, last sound on the stream's timeline, of each FLV file.
    fn times(&self) -> Vec<(i64, i64, i64)> {
        let of = |file: &File| {
            let tags = tags(file);
            let times = |kind| {
                let own = tags.iter().filter(move |tag| tag.kind == kind && !is_header(tag));
                own.map(|tag| i64::from(tag.timestamp_ms) + file.start_ms).collect::<Vec<_>>()
            };
            let (video, audio) = (times(MediaKind::Video), times(MediaKind::Audio));
            (video[0], audio[0], audio[audio.len() - 1])
        };
        self.files.iter().map(of).collect()
    }
}

fn items(file: &File) -> Vec<FileItem> {
    let mut reader = FileReader::new();
    reader.push(&file.bytes);
    std::iter::from_fn(|| reader.next_item().unwrap()).collect()
}

fn tags(file: &File) -> Vec<Tag> {
    let media = items(file).into_iter().filter_map(|item| match item {
        FileItem::Media(tag) => Some(tag),
        FileItem::Script { .. } => None,
    });
    media.collect()
}

fn is_header(tag: &Tag) -> bool {
    tag.body.get(1) == Some(&0)
}

const SESSION: RecordPlan = RecordPlan::Session;

#[test]
fn a_session_is_one_file_that_begins_with_a_keyframe_at_zero() {
    let mut bench = Bench::new(RecordFormat::Flv, SESSION);
    // One and a half seconds into a group of pictures of two.
    bench.run(1_520, 9_020, 2_000);
    assert!(!bench.files[0].is_closed);
    bench.finish();
    assert_eq!(bench.times(), [(2_000, 2_000, 8_920)]);
    let [file] = &bench.files[..] else { panic!("{} files", bench.files.len()) };
    assert!(file.is_closed && file.bytes.starts_with(b"FLV\x01\x05"));
    let tags = tags(file);
    assert_eq!(tags.iter().filter(|tag| is_header(tag)).count(), 2, "one sequence header of each track");
    assert_eq!(tags[1].body[0], 0x17, "the first picture is a keyframe");
    assert!(tags.windows(2).all(|two| two[0].timestamp_ms <= two[1].timestamp_ms), "tags are in order of time");
    assert_eq!(file.duration, Duration::from_millis(9_040 - 2_000));
    // The numbers that were not known at first.
    let FileItem::Script { body, .. } = &items(file)[0] else { panic!("no metadata") };
    let find = |number: f64| body.windows(8).any(|bytes| bytes == number.to_be_bytes());
    assert!(find(7.04) && find(file.bytes.len() as f64));
}

#[test]
fn segments_lose_nothing_and_share_nothing() {
    let mut bench = Bench::new(RecordFormat::Flv, RecordPlan::Segment(Duration::from_secs(3)));
    bench.run(0, 20_000, 2_000);
    bench.finish();
    // Keyframes every two seconds: the first one after three is at four.
    let expected = [
        (0, 0, 3_980),
        (4_000, 4_000, 7_980),
        (8_000, 8_000, 11_980),
        (12_000, 12_000, 15_980),
        (16_000, 16_000, 19_900),
    ];
    assert_eq!(bench.times(), expected);
    let sounds: usize = bench
        .files
        .iter()
        .map(|file| tags(file).iter().filter(|tag| tag.kind == MediaKind::Audio && !is_header(tag)).count())
        .sum();
    assert_eq!(sounds, 996, "every packet of sound is in one file");
    // A keyframe a little early will do.
    let mut bench = Bench::new(RecordFormat::Flv, RecordPlan::Segment(Duration::from_secs(4)));
    bench.run(0, 9_000, 1_960);
    bench.finish();
    assert_eq!(bench.times().iter().map(|times| times.0).collect::<Vec<_>>(), [0, 3_920, 7_840]);
}

#[test]
fn parameters_that_change_do_what_the_container_can() {
    for (format, files) in [(RecordFormat::Flv, 1), (RecordFormat::Ts, 1), (RecordFormat::Mp4, 2)] {
        let mut bench = Bench::new(format, SESSION);
        for i in 0..100 {
            let config = if i < 50 { avc(0x1e) } else { avc(0x1f) };
            bench.push(frame(config, i * 40, i % 25 == 0));
        }
        bench.finish();
        assert_eq!(bench.files.len(), files, "{format}");
        assert!(bench.left_out.is_empty());
        if format == RecordFormat::Flv {
            assert_eq!(tags(&bench.files[0]).iter().filter(|tag| is_header(tag)).count(), 2);
        }
    }
}

#[test]
fn an_mp4_file_is_cut_into_fragments_at_keyframes() {
    for (gop_ms, fragments, begins) in [(1_000, 8, 8), (500, 8, 8), (8_000, 4, 1)] {
        let mut bench = Bench::new(RecordFormat::Mp4, SESSION);
        bench.run(0, 8_000, gop_ms);
        bench.finish();
        let [file] = &bench.files[..] else { panic!("{} files", bench.files.len()) };
        let all = fmp4::boxes(&file.bytes);
        let header_bytes: usize = all[..2].iter().map(|(_, payload)| payload.len() + 8).sum();
        let (header, media) = file.bytes.split_at(header_bytes);
        let tracks = fmp4::read_init(header);
        let found = fmp4::read_fragments(media, &tracks);
        assert_eq!(found.len(), fragments, "keyframes every {gop_ms} ms");
        assert_eq!(found.iter().filter(|fragment| fragment[&1][0].is_sync).count(), begins);
        let samples = |id: u32| found.iter().filter_map(move |fragment| fragment.get(&id)).flatten();
        assert_eq!((samples(1).count(), samples(2).count()), (200, 396));
        assert!(samples(1).all(|sample| sample.duration == 3_600) && samples(1).next().unwrap().dts == 0);
        assert!(samples(2).next().unwrap().dts == 0);
    }
}

#[test]
fn a_track_that_comes_late_begins_a_file() {
    let mut bench = Bench::new(RecordFormat::Flv, SESSION);
    for ms in (0..4_000).step_by(20) {
        bench.push(sound(ms));
    }
    bench.run(4_000, 8_000, 2_000);
    bench.finish();
    let starts: Vec<_> = bench.files.iter().map(|file| (file.start_ms, file.bytes[4])).collect();
    assert_eq!(starts, [(0, 4), (4_000, 5)]);
}

#[test]
fn another_publisher_and_a_cut_begin_files() {
    let mut bench = Bench::new(RecordFormat::Ts, SESSION);
    bench.run(0, 3_000, 1_000);
    bench.finish();
    bench.finish();
    assert_eq!(bench.files.len(), 1);
    bench.run(10_040, 13_000, 1_000);
    bench.recorder.cut();
    bench.run(13_000, 15_000, 1_000);
    bench.finish();
    assert_eq!(bench.files.iter().map(|file| file.start_ms).collect::<Vec<_>>(), [0, 11_000, 13_000]);
    for file in &bench.files {
        assert!(file.is_closed && file.bytes.len().is_multiple_of(188) && file.bytes[0] == 0x47);
    }
}

#[test]
fn what_has_no_place_is_told_once_and_the_rest_recorded() {
    let opus = Arc::new(TrackConfig { codec: Codec::Opus, record: Bytes::new() });
    let mut bench = Bench::new(RecordFormat::Ts, SESSION);
    for i in 0..200 {
        bench.push(picture(i * 40, i % 25 == 0));
        bench.push(frame(Arc::clone(&opus), i * 40, true));
    }
    bench.finish();
    let error = RecordError::Codec { codec: Codec::Opus, format: RecordFormat::Ts };
    assert_eq!((&bench.left_out[..], bench.files.len()), (&[error][..], 1));
    let mut bench = Bench::new(RecordFormat::Ts, SESSION);
    (0..100).for_each(|i| bench.push(frame(Arc::clone(&opus), i * 20, true)));
    assert!(bench.recorder.is_barren() && bench.files.is_empty());
    assert_eq!(bench.left_out[0].to_string(), "Opus cannot be recorded as ts");
}

#[test]
fn a_file_holds_all_but_the_last_second_at_any_time() {
    for format in RecordFormat::ALL {
        let mut bench = Bench::new(format, SESSION);
        for second in 1..30 {
            bench.run((second - 1) * 1_000, second * 1_000, 2_000);
            let written = bench.files.first().map_or(Duration::ZERO, |file| file.duration);
            let lag = Duration::from_secs(second as u64).saturating_sub(written);
            assert!(lag <= Duration::from_millis(2_500), "{format}: {written:?} after {second} s");
        }
    }
}

#[test]
fn absurd_streams_are_survived() {
    let mut random = 7u64;
    for round in 0..100 {
        let format = RecordFormat::ALL[round % RecordFormat::ALL.len()];
        let plan = if round % 3 == 0 { RecordPlan::Segment(Duration::from_secs(1)) } else { SESSION };
        let mut bench = Bench::new(format, plan);
        let configs = [avc(0x1e), avc(0x1f), aac(), Arc::new(TrackConfig { codec: Codec::Vp8, record: Bytes::new() })];
        let mut at = 0i64;
        for _ in 0..2_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let dice = random >> 33;
            at += match dice % 60 {
                0 => (dice % 100_000) as i64,
                1 => -500,
                2 if round % 10 == 0 => i64::MAX / 4_000_000,
                _ => 20,
            };
            let config = &configs[match dice % 20 {
                0 => 3,
                1 => 1,
                n if n < 10 => 2,
                _ => 0,
            }];
            bench.push(frame(Arc::clone(config), at, dice.is_multiple_of(5)));
            match dice % 301 {
                0 => bench.finish(),
                1 => bench.recorder.cut(),
                _ => {}
            }
        }
        bench.finish();
        assert!(bench.files.iter().all(|file| file.is_closed && !file.bytes.is_empty()), "{format} {round}");
    }
}
