use std::sync::Arc;
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use freshet_media::{Codec, Frame, MediaTime, TrackConfig};

use super::checker::{Checker, Seen};
use super::*;
use crate::fmp4::Fmp4Error;
use crate::fmp4::testing::avc;

const FIRST: u64 = 1_000;

fn config(codec: Codec, record: &[u8]) -> Arc<TrackConfig> {
    Arc::new(TrackConfig { codec, record: Bytes::copy_from_slice(record) })
}

fn aac() -> Arc<TrackConfig> {
    config(Codec::Aac, &[0x11, 0x90])
}

/// Another record for the same pictures.
fn other_avc() -> Arc<TrackConfig> {
    config(Codec::H264, &[&avc().record[..], &[0xfc]].concat())
}

/// How far apart pictures are.
#[derive(Clone, Copy)]
enum Rate {
    None,
    /// Frames per second, in whole milliseconds.
    Fixed(i64),
    /// As a camera in bad light: milliseconds from the first to the second, by chance.
    Between(i64, i64),
}

/// A publisher in virtual time. Times are whole milliseconds, as RTMP has them.
struct Source {
    rate: Rate,
    gop_ms: i64,
    has_sound: bool,
    /// Pictures are shown this many frames after they are decoded, by turns.
    reordered: i64,
    video: Arc<TrackConfig>,
    random: u64,
    start_ms: i64,
    at_ms: i64,
    pictures: i64,
    next_picture_ms: i64,
    next_keyframe_ms: i64,
    sounds: i64,
}

impl Source {
    fn new(rate: Rate, gop_seconds: f64, has_sound: bool) -> Source {
        Source {
            rate,
            gop_ms: (gop_seconds * 1000.0) as i64,
            has_sound,
            reordered: 0,
            video: avc(),
            random: 1,
            start_ms: 0,
            at_ms: 0,
            pictures: 0,
            next_picture_ms: 0,
            next_keyframe_ms: 0,
            sounds: 0,
        }
    }

    fn random(&mut self) -> i64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) as i64
    }

    /// Goes on elsewhere, as another publisher would.
    fn restart_at(&mut self, at_ms: i64) {
        (self.start_ms, self.at_ms, self.next_picture_ms, self.next_keyframe_ms) = (at_ms, at_ms, at_ms, at_ms);
        (self.pictures, self.sounds) = (0, 0);
    }

    fn next_frame(&mut self) -> Frame {
        let sound_ms = if self.has_sound { self.start_ms + self.sounds * 64 / 3 } else { i64::MAX };
        let has_pictures = !matches!(self.rate, Rate::None);
        let picture_ms = if has_pictures { self.next_picture_ms } else { i64::MAX };
        if picture_ms > sound_ms {
            self.sounds += 1;
            self.at_ms = sound_ms;
            return frame(&aac(), sound_ms, 0, true, &[7; 40]);
        }
        self.at_ms = picture_ms;
        let is_keyframe = picture_ms >= self.next_keyframe_ms;
        if is_keyframe {
            self.next_keyframe_ms += self.gop_ms;
        }
        self.pictures += 1;
        self.next_picture_ms = match self.rate {
            Rate::Fixed(rate) => self.start_ms + self.pictures * 1000 / rate,
            Rate::Between(least, most) => picture_ms + least + self.random() % (most - least + 1),
            Rate::None => i64::MAX,
        };
        let offset_ms = self.reordered * 40 * (1 + self.pictures % 3);
        let data: &[u8] = if is_keyframe { &[0, 0, 0, 3, 0x65, 1, 2] } else { &[0, 0, 0, 2, 0x41, 9] };
        frame(&self.video, picture_ms, offset_ms, is_keyframe, data)
    }

    /// Publishes for a while, and lets a player look whenever there is something new.
    fn run(&mut self, segmenter: &mut LowLatencySegmenter, checker: &mut Checker, seconds: f64) -> Seen {
        let until = self.at_ms + (seconds * 1000.0) as i64;
        let mut seen = Seen::default();
        while self.at_ms < until {
            let frame = self.next_frame();
            let live_at = UNIX_EPOCH + Duration::from_millis(frame.dts.millis() as u64);
            segmenter.push(frame, live_at).unwrap();
            if has_news(segmenter.playlist(), checker) {
                seen = checker.look(segmenter.playlist());
            }
        }
        seen
    }
}

/// The text is another one only where a part or a segment has ended.
fn has_news(playlist: &LowLatencyPlaylist, checker: &Checker) -> bool {
    !playlist.is_empty() && checker.looked_at() != Some(playlist.next_part)
}

fn frame(config: &Arc<TrackConfig>, at_ms: i64, offset_ms: i64, is_keyframe: bool, data: &[u8]) -> Frame {
    let dts = MediaTime::from_millis(at_ms);
    let pts = MediaTime::from_millis(at_ms + offset_ms);
    Frame { config: Arc::clone(config), dts, pts, is_keyframe, data: Bytes::copy_from_slice(data) }
}

fn new_segmenter(fragment: f64, part_ms: u64) -> LowLatencySegmenter {
    let options = HlsOptions {
        fragment: Duration::from_secs_f64(fragment),
        window: Duration::from_secs(20),
        ..HlsOptions::default()
    };
    LowLatencySegmenter::new(options, Duration::from_millis(part_ms), FIRST)
}

#[test]
fn streams_of_any_kind_obey_the_rules() {
    // Rate, GOP, sound, reordering; part target in ms, usual length of a part in ms, segments in 40 s at least, and
    // how far the lengths of parts may be from their segment's: where a lone picture lasts for longer than a part.
    type Case = (Rate, f64, bool, i64, u64, Option<f64>, usize, f64);
    let cases: [Case; 16] = [
        (Rate::Fixed(30), 2.0, true, 0, 220, Some(200.0), 19, 0.001),
        (Rate::Fixed(30), 2.0, true, 1, 220, Some(200.0), 19, 0.001),
        (Rate::Fixed(60), 2.0, true, 0, 220, Some(200.0), 19, 0.001),
        (Rate::Fixed(25), 2.0, true, 2, 220, Some(200.0), 19, 0.001),
        (Rate::Fixed(24), 1.0, true, 0, 230, Some(208.0), 19, 0.001),
        (Rate::Fixed(50), 0.96, false, 0, 220, Some(200.0), 19, 0.001),
        (Rate::Fixed(15), 2.0, true, 0, 220, Some(200.0), 19, 0.001),
        (Rate::Fixed(12), 2.0, true, 0, 184, Some(167.0), 19, 0.001),
        (Rate::Fixed(8), 2.0, true, 0, 275, Some(250.0), 19, 0.001),
        (Rate::Fixed(1), 2.0, true, 0, 1_100, Some(1_000.0), 19, 0.001),
        (Rate::Fixed(1), 2.0, false, 0, 1_100, Some(1_000.0), 19, 0.001),
        (Rate::Fixed(30), 10.0, true, 0, 220, Some(200.0), 3, 0.001),
        (Rate::None, 2.0, true, 0, 212, None, 9, 0.001),
        (Rate::Between(28, 38), 2.0, true, 0, 0, None, 19, 0.001),
        (Rate::Between(16, 70), 2.0, true, 1, 0, None, 17, 0.25),
        (Rate::Between(5, 400), 2.0, false, 0, 0, None, 15, 1.5),
    ];
    for (i, (rate, gop, has_sound, reordered, target_ms, usual_ms, segments, difference)) in
        cases.into_iter().enumerate()
    {
        let (mut segmenter, mut checker) = (new_segmenter(2.0, 200), Checker::default());
        let mut source = Source { reordered, ..Source::new(rate, gop, has_sound) };
        let seen = source.run(&mut segmenter, &mut checker, 40.0);
        if target_ms > 0 {
            assert_eq!(seen.part_target, Some(target_ms as f64 / 1000.0), "case {i}");
        }
        assert!(checker.segments >= segments, "case {i}: {} segments", checker.segments);
        assert!(checker.parts > segments, "case {i}: {} parts", checker.parts);
        assert!(checker.worst_sum <= difference, "case {i}: {}", checker.worst_sum);
        if let Some(usual) = usual_ms {
            let parts = seen.segments.iter().flat_map(|segment| &segment.parts);
            let off = parts.filter(|part| (part.seconds * 1000.0 - usual).abs() > 1.001).count();
            let listed = seen.segments.iter().filter(|segment| !segment.parts.is_empty()).count();
            assert!(off <= listed, "case {i}: {off} odd parts in {listed} segments");
        }
        segmenter.end();
        assert!(checker.look(segmenter.playlist()).has_ended);
    }
}

#[test]
fn a_part_can_be_asked_for_before_it_is_there() {
    let (mut segmenter, mut checker) = (new_segmenter(2.0, 200), Checker::default());
    let mut source = Source::new(Rate::Fixed(30), 2.0, true);
    use Readiness::{Ready, TooFar, Wait};
    assert_eq!(segmenter.playlist().readiness(FIRST, None), Wait);
    // Into the third segment, of which two parts are there.
    let seen = source.run(&mut segmenter, &mut checker, 4.5);
    let playlist = segmenter.playlist();
    let open = seen.segments.last().unwrap();
    assert_eq!((open.sequence, open.parts.len(), open.seconds), (FIRST + 2, 2, None));
    for (sequence, part, expected) in [
        (0, None, Ready),
        (FIRST, None, Ready),
        (FIRST + 1, None, Ready),
        (FIRST + 2, None, Wait),
        (FIRST + 3, None, Wait),
        (FIRST + 4, None, TooFar),
        (u64::MAX, None, TooFar),
        (FIRST + 1, Some(9), Ready),
        // Behind the last part of a finished segment: the first one of the next.
        (FIRST + 1, Some(10), Ready),
        (FIRST + 2, Some(0), Ready),
        (FIRST + 2, Some(1), Ready),
        (FIRST + 2, Some(2), Wait),
        // Three seconds ahead are 13 parts.
        (FIRST + 2, Some(14), Wait),
        (FIRST + 2, Some(15), TooFar),
        (FIRST + 2, Some(u64::MAX), TooFar),
        (FIRST + 3, Some(0), Wait),
        (FIRST + 3, Some(13), TooFar),
        (FIRST + 4, Some(0), TooFar),
    ] {
        assert_eq!(playlist.readiness(sequence, part), expected, "{sequence} {part:?}");
    }
    let hint = seen.hint.unwrap();
    assert_eq!(playlist.part(hint), PartAnswer::Wait);
    assert_eq!(playlist.part(hint + 1), PartAnswer::Absent);
    let PartAnswer::Ready(before) = playlist.part(hint - 1) else { panic!() };
    // The part that was hinted at comes in a segment that nobody knew of then.
    source.run(&mut segmenter, &mut checker, 2.0);
    assert_eq!(segmenter.playlist().part(hint - 1), PartAnswer::Ready(before), "the same bytes after the end");
    assert!(matches!(segmenter.playlist().part(hint), PartAnswer::Ready(_)));
    segmenter.end();
    let playlist = segmenter.playlist();
    assert_eq!(playlist.readiness(FIRST + 9, Some(99)), Ready, "what has ended is told at once");
    assert_eq!(
        playlist.part(checker.look(playlist).segments.last().unwrap().parts.last().unwrap().number + 1),
        PartAnswer::Absent
    );
}

#[test]
fn numbers_go_on_over_a_republish() {
    let (mut segmenter, mut checker) = (new_segmenter(2.0, 200), Checker::default());
    let mut source = Source::new(Rate::Fixed(30), 2.0, true);
    source.run(&mut segmenter, &mut checker, 5.3);
    segmenter.finish();
    let seen = checker.look(segmenter.playlist());
    assert_eq!(seen.segments.last().unwrap().seconds.map(|seconds| (seconds * 10.0).round()), Some(13.0));
    // At once and with the same parameters: nothing to tell.
    segmenter.start_over();
    let at = source.at_ms + 34;
    source.restart_at(at);
    let seen = source.run(&mut segmenter, &mut checker, 3.0);
    assert!(seen.segments.iter().all(|segment| !segment.is_discontinuous && segment.init == FIRST));
    // After a break, with another rate of pictures, for which other parts are right.
    segmenter.start_over();
    checker.is_lenient = true;
    source.restart_at(60_000);
    source.rate = Rate::Fixed(8);
    let seen = source.run(&mut segmenter, &mut checker, 5.0);
    assert_eq!(seen.part_target, Some(0.275));
    assert_eq!(seen.segments.iter().filter(|segment| segment.is_discontinuous).count(), 1);
    assert!(seen.segments.iter().all(|segment| segment.init == FIRST));
    let sequences: Vec<u64> = seen.segments.iter().map(|segment| segment.sequence).collect();
    assert!(sequences.windows(2).all(|w| w[0] + 1 == w[1]), "{sequences:?}");
}

#[test]
fn other_parameters_bring_another_initialization_segment() {
    let (mut segmenter, mut checker) = (new_segmenter(2.0, 200), Checker::default());
    let mut source = Source::new(Rate::Fixed(30), 1.0, true);
    source.run(&mut segmenter, &mut checker, 4.95);
    source.video = other_avc();
    let seen = source.run(&mut segmenter, &mut checker, 4.0);
    let changes: Vec<_> = seen.segments.iter().map(|segment| (segment.is_discontinuous, segment.init)).collect();
    let first_other = changes.iter().position(|(_, init)| *init != FIRST).unwrap();
    let other = FIRST + first_other as u64;
    for (i, change) in changes.iter().enumerate() {
        let expected = if i < first_other { FIRST } else { other };
        assert_eq!(*change, (i == first_other, expected));
    }
    let inits = [FIRST, other].map(|init| segmenter.playlist().init(init).unwrap());
    assert_ne!(inits[0], inits[1]);
    // The old one goes with its last segment.
    source.run(&mut segmenter, &mut checker, 60.0);
    assert_eq!((segmenter.playlist().init(FIRST), segmenter.playlist().init(other).is_some()), (None, true));
}

#[test]
fn tracks_may_come_and_go() {
    let (mut segmenter, mut checker) = (new_segmenter(2.0, 200), Checker::default());
    let mut source = Source::new(Rate::None, 2.0, true);
    source.run(&mut segmenter, &mut checker, 9.0);
    source.rate = Rate::Fixed(30);
    (source.next_picture_ms, source.next_keyframe_ms) = (9_000, 9_000);
    (source.start_ms, source.sounds) = (9_000, 0);
    let seen = source.run(&mut segmenter, &mut checker, 6.0);
    let change = seen.segments.iter().find(|segment| segment.is_discontinuous).unwrap();
    assert!(change.init > FIRST && change.parts.first().is_some_and(|part| part.is_independent));
    // The picture stands still: sound goes on in parts of the same length, late by what is waited for it.
    (source.rate, source.start_ms, source.sounds) = (Rate::None, source.at_ms, 0);
    let seen = source.run(&mut segmenter, &mut checker, 20.0);
    let last = seen.segments.iter().rev().find(|segment| segment.seconds.is_some()).unwrap();
    assert!(last.parts.len() > 5 && last.parts.iter().all(|part| !part.is_independent), "{last:?}");
}

#[test]
fn what_is_kept_does_not_grow() {
    let (mut segmenter, mut checker) = (new_segmenter(2.0, 200), Checker::default());
    let mut source = Source::new(Rate::Fixed(30), 2.0, true);
    source.run(&mut segmenter, &mut checker, 60.0);
    let bytes = segmenter.playlist().bytes();
    let seen = source.run(&mut segmenter, &mut checker, 120.0);
    assert!(segmenter.playlist().bytes().abs_diff(bytes) < bytes / 20);
    assert!((10..=12).contains(&seen.segments.len()), "{}", seen.segments.len());
    let oldest_kept = seen.sequence - 5;
    assert!(segmenter.playlist().segment(oldest_kept).is_some());
    assert_eq!(segmenter.playlist().segment(oldest_kept - 1), None);
    assert_eq!(segmenter.playlist().segment(seen.segments.last().unwrap().sequence + 1), None);
    // Parts outlive their listing by three target durations and more (§4.4.4.9).
    let listed = seen.segments.iter().flat_map(|segment| &segment.parts).map(|part| part.number).min().unwrap();
    assert!(matches!(segmenter.playlist().part(listed - 40), PartAnswer::Ready(_)));
    assert_eq!(segmenter.playlist().part(FIRST * 1_000 + 3), PartAnswer::Absent);
}

#[test]
fn the_multivariant_playlist_tells_what_players_choose_by() {
    let (mut segmenter, mut checker) = (new_segmenter(2.0, 200), Checker::default());
    let mut source = Source::new(Rate::Fixed(30), 2.0, true);
    source.run(&mut segmenter, &mut checker, 1.0);
    assert_eq!(segmenter.playlist().render_multivariant(""), None);
    source.run(&mut segmenter, &mut checker, 10.0);
    let text = segmenter.playlist().render_multivariant("?token=a%2Fb").unwrap();
    let (head, rest) = text.split_once("BANDWIDTH=").unwrap();
    assert_eq!(head, "#EXTM3U\n#EXT-X-VERSION:9\n#EXT-X-INDEPENDENT-SEGMENTS\n#EXT-X-STREAM-INF:");
    let (peak, rest) = rest.split_once(",AVERAGE-BANDWIDTH=").unwrap();
    let (average, rest) = rest.split_once(',').unwrap();
    assert_eq!(rest, "CODECS=\"avc1.64000D,mp4a.40.2\",RESOLUTION=320x180,FRAME-RATE=30.000\nmedia.m3u8?token=a%2Fb\n");
    // 47 packets of 40 bytes and 30 pictures of 6 bytes a second, and their headers.
    let (peak, average): (u64, u64) = (peak.parse().unwrap(), average.parse().unwrap());
    assert!((17_000..45_000).contains(&average) && average <= peak && peak < average + 5_000, "{average} {peak}");

    let mut segmenter = new_segmenter(2.0, 200);
    Source::new(Rate::None, 2.0, true).run(&mut segmenter, &mut Checker::default(), 10.0);
    let text = segmenter.playlist().render_multivariant("").unwrap();
    assert!(text.ends_with(",CODECS=\"mp4a.40.2\"\nmedia.m3u8\n"), "{text}");
}

#[test]
fn a_keyframe_is_wanted_when_a_segment_is_due() {
    let mut segmenter = new_segmenter(2.0, 200);
    let video = avc();
    let mut wanted_at = Vec::new();
    let mut is_asked = true;
    for i in 0..300 {
        // A keyframe comes two frames after it has been asked for.
        let is_keyframe = std::mem::replace(&mut is_asked, false);
        segmenter.push(frame(&video, i * 40, 0, is_keyframe, &[0, 0, 0, 1, 0x65]), UNIX_EPOCH).unwrap();
        if segmenter.wants_keyframe() {
            wanted_at.push(i * 40);
            is_asked = true;
        }
    }
    assert!(
        wanted_at.len() >= 5 && wanted_at.windows(2).all(|w| (1_960..=2_040).contains(&(w[1] - w[0]))),
        "{wanted_at:?}"
    );
    assert!(wanted_at[0] >= 1_900);
    // At the beginning, and where only a keyframe tells the size.
    for codec_config in [video, config(Codec::Vp9, &[])] {
        let mut segmenter = new_segmenter(2.0, 200);
        assert!(!segmenter.wants_keyframe());
        for i in 0..20 {
            let picture = frame(&codec_config, i * 40, 0, false, &[0, 0, 0, 2, 0x41, 9]);
            segmenter.push(picture, UNIX_EPOCH).unwrap();
        }
        assert!(segmenter.wants_keyframe() && segmenter.playlist().is_empty());
        assert_eq!(segmenter.unplayable(), None);
    }
}

#[test]
fn what_cannot_be_carried_is_told_once_and_the_rest_goes_on() {
    let speech = config(Codec::Pcma, &[]);
    let mut segmenter = new_segmenter(2.0, 200);
    let push =
        |segmenter: &mut LowLatencySegmenter, i: i64| segmenter.push(frame(&speech, i * 20, 0, true, &[1]), UNIX_EPOCH);
    let said: Vec<_> = (0..40).map(|i| push(&mut segmenter, i)).filter(Result::is_err).collect();
    assert_eq!(said, [Err(Fmp4Error::Codec(Codec::Pcma))]);
    assert_eq!(segmenter.unplayable(), Some(&Fmp4Error::Codec(Codec::Pcma)));
    let mut segmenter = new_segmenter(2.0, 200);
    let picture = frame(&config(Codec::Vp8, &[]), 0, 0, true, &[0x10, 0, 0, 0x9d, 1, 0x2a, 0x40, 1, 180, 0]);
    assert_eq!(segmenter.push(picture, UNIX_EPOCH), Err(Fmp4Error::NotPlayed(Codec::Vp8)));
    // A picture that browsers play without its sound is better than none.
    let mut segmenter = new_segmenter(2.0, 200);
    let sound = frame(&config(Codec::Mp3, &[]), 0, 0, true, &[0xff, 0xfb, 0x90, 0x64]);
    assert_eq!(segmenter.push(sound, UNIX_EPOCH), Err(Fmp4Error::NotPlayed(Codec::Mp3)));
    Source::new(Rate::Fixed(30), 2.0, false).run(&mut segmenter, &mut Checker::default(), 3.0);
    assert!(segmenter.playlist().render_multivariant("").unwrap().contains("CODECS=\"avc1.64000D\","));
}

#[test]
fn lives_by_chance_obey_the_rules() {
    for seed in 1..60 {
        let (mut segmenter, mut checker) = (new_segmenter(2.0, 200), Checker::default());
        checker.is_lenient = true;
        let rates = [Rate::Fixed(30), Rate::Fixed(25), Rate::Between(10, 90), Rate::Fixed(60), Rate::None];
        let mut source = Source { random: seed, ..Source::new(Rate::Fixed(30), 2.0, true) };
        for _ in 0..8 {
            let dice = source.random();
            source.rate = rates[dice as usize % rates.len()];
            source.has_sound = dice / 8 % 4 > 0 || matches!(source.rate, Rate::None);
            source.gop_ms = [500, 1_000, 2_000, 3_333, 8_000][dice as usize / 64 % 5];
            source.reordered = dice / 512 % 2;
            source.video = if dice / 1_024 % 3 == 0 { other_avc() } else { avc() };
            let hole = [34, 60, 600, 20_000][dice as usize / 4_096 % 4];
            let at = source.at_ms + hole;
            if dice / 16_384 % 3 == 0 {
                // The same publisher changes in mid-stream.
                source.start_ms = at;
                (source.next_picture_ms, source.next_keyframe_ms) = (at, at);
                (source.pictures, source.sounds) = (0, 0);
            } else {
                segmenter.start_over();
                source.restart_at(at);
            }
            let seconds = 1.0 + (dice / 65_536 % 100) as f64 / 10.0;
            let until = source.at_ms + (seconds * 1000.0) as i64;
            while source.at_ms < until {
                let frame = source.next_frame();
                let live_at = UNIX_EPOCH + Duration::from_millis(frame.dts.millis() as u64);
                segmenter.push(frame, live_at).unwrap();
                if has_news(segmenter.playlist(), &checker) {
                    checker.look(segmenter.playlist());
                }
            }
            if dice / 8_388_608 % 5 == 0 {
                segmenter.end();
            }
        }
    }
}

#[test]
fn absurd_times_are_survived() {
    let (video, audio) = (avc(), aac());
    let mut random = 1u64;
    for round in 0..20 {
        let mut segmenter = new_segmenter(2.0, 200);
        let mut at = 0i64;
        for _ in 0..500 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let dice = random >> 33;
            at += match dice % 50 {
                0 => (dice % 100_000) as i64,
                1 => 3_000,
                2 if round % 10 == 0 => -1_000_000_000,
                3 if round % 10 == 1 => i64::MAX / 4_000,
                _ => 20,
            };
            at = at.clamp(-(1 << 50), 1 << 50);
            let frame = match dice % 3 {
                0 => frame(&audio, at, 0, true, &[1; 9]),
                _ => frame(&video, at, (dice % 200) as i64 - 100, dice.is_multiple_of(7), &[0, 0, 0, 1, 0x65]),
            };
            let _ = segmenter.push(frame, UNIX_EPOCH);
            match dice % 97 {
                0 => segmenter.start_over(),
                1 => segmenter.end(),
                _ => {}
            }
            let playlist = segmenter.playlist();
            let text = playlist.render(&MediaView::default());
            assert!(text.len() < 100_000 && playlist.bytes() < 1_000_000);
        }
    }
}
