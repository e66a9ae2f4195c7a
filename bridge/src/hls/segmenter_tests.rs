use std::time::{Duration, UNIX_EPOCH};

use freshet_media::{Codec, MediaTime};

use super::*;

const AVC: [u8; 19] = [1, 0x42, 0xc0, 0x1e, 0xff, 0xe1, 0, 5, 0x67, 0x42, 0xc0, 0x1e, 1, 1, 0, 3, 0x68, 2, 3];
const OTHER_AVC: [u8; 19] = [1, 0x42, 0xc0, 0x1f, 0xff, 0xe1, 0, 5, 0x67, 0x42, 0xc0, 0x1f, 1, 1, 0, 3, 0x68, 2, 3];
const AAC: [u8; 2] = [0x11, 0x90];
const PICTURE: [u8; 9] = [0, 0, 0, 5, 0x65, 1, 2, 3, 4];

fn config(codec: Codec, record: &[u8]) -> Arc<TrackConfig> {
    Arc::new(TrackConfig { codec, record: Bytes::copy_from_slice(record) })
}

fn seconds(value: f64) -> Duration {
    Duration::from_secs_f64(value)
}

/// A publisher in virtual time: pictures at a rate with a distance of keyframes, sound beside them.
struct Source {
    video: Option<Arc<TrackConfig>>,
    audio: Option<Arc<TrackConfig>>,
    frames_per_second: i64,
    gop_frames: i64,
    at_ms: i64,
    /// Counts pictures; sound in units of 20 ms.
    pictures: i64,
    sounds: i64,
    start_ms: i64,
}

impl Source {
    fn new(gop_seconds: f64) -> Source {
        Source {
            video: Some(config(Codec::H264, &AVC)),
            audio: Some(config(Codec::Aac, &AAC)),
            frames_per_second: 25,
            gop_frames: (gop_seconds * 25.0).round() as i64,
            at_ms: 0,
            pictures: 0,
            sounds: 0,
            start_ms: 0,
        }
    }

    fn of_sound() -> Source {
        Source { video: None, ..Source::new(1.0) }
    }

    /// Goes on elsewhere, as another publisher would.
    fn restart_at(&mut self, at_ms: i64) {
        (self.at_ms, self.start_ms, self.pictures, self.sounds) = (at_ms, at_ms, 0, 0);
    }

    fn frame(config: &Arc<TrackConfig>, at_ms: i64, is_keyframe: bool, data: &'static [u8]) -> Frame {
        let at = MediaTime::from_millis(at_ms);
        Frame { config: Arc::clone(config), dts: at, pts: at, is_keyframe, data: Bytes::from_static(data) }
    }

    fn run(&mut self, segmenter: &mut Segmenter, how_long: f64) {
        let until = self.at_ms + (how_long * 1000.0) as i64;
        while self.at_ms < until {
            let mut frames = Vec::new();
            let picture_at = self.start_ms + self.pictures * 1000 / self.frames_per_second;
            if let Some(video) = self.video.as_ref().filter(|_| picture_at <= self.at_ms) {
                frames.push(Source::frame(video, picture_at, self.pictures % self.gop_frames == 0, &PICTURE));
                self.pictures += 1;
            }
            let sound_at = self.start_ms + self.sounds * 20;
            if let Some(audio) = self.audio.as_ref().filter(|_| sound_at <= self.at_ms) {
                frames.push(Source::frame(audio, sound_at, true, &[7; 50]));
                self.sounds += 1;
            }
            for frame in frames {
                let live_at = UNIX_EPOCH + Duration::from_millis(frame.dts.millis() as u64);
                segmenter.push(frame, live_at).unwrap();
                check(segmenter.playlist());
            }
            self.at_ms += 10;
        }
    }
}

/// What every playlist must obey at any time.
fn check(playlist: &Playlist) {
    let target = playlist.target_seconds();
    let mut next = None;
    for segment in playlist.segments() {
        // RFC 8216 §4.3.3.1.
        assert!((segment.duration.as_millis() as u64 + 500) / 1000 <= target, "{:?} of {target}", segment.duration);
        assert!(next.is_none_or(|next| next == segment.sequence));
        next = Some(segment.sequence + 1);
        assert!(playlist.segment(segment.sequence).is_some());
    }
}

fn durations(segmenter: &Segmenter) -> Vec<f64> {
    segmenter.playlist().segments().map(|segment| segment.duration.as_secs_f64()).collect()
}

fn options(fragment: f64, wait_keyframe: bool) -> HlsOptions {
    HlsOptions { fragment: seconds(fragment), wait_keyframe, window: seconds(60.0), ..HlsOptions::default() }
}

#[test]
fn segments_are_as_long_as_the_faq_says() {
    // GOP, fragment, wait_keyframe, first two segments, target, independent
    let cases = [
        (2.0, 5.0, true, [6.0, 6.0], 6, true),
        (10.0, 5.0, true, [10.0, 10.0], 10, true),
        (10.0, 5.0, false, [4.92, 4.92], 5, false),
        (2.0, 2.0, true, [2.0, 2.0], 2, true),
        (0.96, 2.0, true, [1.92, 1.92], 2, true),
        (1.48, 2.0, true, [2.96, 2.96], 3, true),
        (1.0, 1.0, true, [1.0, 1.0], 1, true),
        (4.0, 0.5, true, [4.0, 4.0], 4, true),
    ];
    for (gop, fragment, wait_keyframe, lengths, target, independent) in cases {
        let mut segmenter = Segmenter::new(options(fragment, wait_keyframe), 7);
        Source::new(gop).run(&mut segmenter, 40.0);
        assert_eq!(durations(&segmenter)[..2], lengths, "{gop} {fragment}");
        let text = segmenter.playlist().render("cam", "");
        assert!(text.contains(&format!("#EXT-X-TARGETDURATION:{target}\n#EXT-X-MEDIA-SEQUENCE:7\n")), "{text}");
        assert_eq!(text.contains("#EXT-X-INDEPENDENT-SEGMENTS"), independent, "{text}");
        assert!(!text.contains("DISCONTINUITY"), "{text}");
    }
}

#[test]
fn sound_alone_is_cut_by_its_own_length() {
    let mut segmenter = Segmenter::new(HlsOptions::default(), 0);
    Source::of_sound().run(&mut segmenter, 13.0);
    assert_eq!(durations(&segmenter), [4.2, 4.2, 4.2]);
}

#[test]
fn sound_goes_on_while_there_is_no_picture() {
    let mut segmenter = Segmenter::new(HlsOptions::default(), 0);
    let mut source = Source::new(2.0);
    source.run(&mut segmenter, 4.1);
    let video = source.video.take();
    source.run(&mut segmenter, 12.0);
    source.video = video;
    source.pictures = 25 * 18;
    source.run(&mut segmenter, 8.0);
    let found = durations(&segmenter);
    assert!(found.len() >= 6 && found.iter().all(|length| *length <= 4.5), "{found:?}");
    assert!((found.iter().sum::<f64>() - 22.0).abs() < 2.1, "{found:?}");
}

#[test]
fn keyframes_that_stop_coming_do_not_exceed_the_target() {
    let mut segmenter = Segmenter::new(HlsOptions::default(), 0);
    let mut source = Source::new(2.0);
    source.run(&mut segmenter, 6.5);
    source.gop_frames = 25 * 10;
    source.run(&mut segmenter, 20.0);
    let text = segmenter.playlist().render("cam", "");
    assert!(text.contains("#EXT-X-TARGETDURATION:2\n") && !text.contains("INDEPENDENT"), "{text}");
    // Another publisher may have another distance of keyframes.
    segmenter.start_over();
    source.restart_at(30_000);
    source.run(&mut segmenter, 45.0);
    assert!(segmenter.playlist().render("cam", "").contains("#EXT-X-TARGETDURATION:10\n"));
    assert_eq!(durations(&segmenter).last(), Some(&10.0));
}

#[test]
fn the_window_slides() {
    let mut segmenter = Segmenter::new(HlsOptions { window: seconds(10.0), ..HlsOptions::default() }, 100);
    let mut source = Source::new(2.0);
    source.run(&mut segmenter, 60.1);
    let listed: Vec<u64> = segmenter.playlist().segments().map(|segment| segment.sequence).collect();
    assert_eq!(listed, [125, 126, 127, 128, 129]);
    // Former ones for a while, older ones and later ones not.
    for (sequence, is_there) in [(119, false), (120, true), (124, true), (129, true), (130, false), (0, false)] {
        assert_eq!(segmenter.playlist().segment(sequence).map(|s| s.sequence), is_there.then_some(sequence));
    }
    let bytes = segmenter.playlist().bytes();
    source.run(&mut segmenter, 600.0);
    assert!(segmenter.playlist().bytes().abs_diff(bytes) < bytes / 10, "what is kept does not grow");
}

#[test]
fn a_publisher_that_returns_goes_on() {
    let mut segmenter = Segmenter::new(HlsOptions::default(), 50);
    let mut source = Source::new(2.0);
    source.run(&mut segmenter, 5.0);
    segmenter.finish();
    assert_eq!(durations(&segmenter), [2.0, 2.0, 1.0], "what was open is closed");
    // At once and with the same parameters: nothing to tell.
    segmenter.start_over();
    source.restart_at(5_000);
    source.run(&mut segmenter, 4.1);
    assert!(!segmenter.playlist().render("cam", "").contains("DISCONTINUITY"));
    // After a break.
    segmenter.start_over();
    source.restart_at(20_000);
    source.run(&mut segmenter, 4.1);
    // With other parameters, but without a break.
    segmenter.start_over();
    source.restart_at(24_100);
    source.video = Some(config(Codec::H264, &OTHER_AVC));
    source.run(&mut segmenter, 4.1);
    let marks: Vec<_> = segmenter.playlist().segments().map(|s| (s.sequence, s.is_discontinuous)).collect();
    let discontinuous: Vec<u64> = marks.iter().filter(|(_, is)| *is).map(|(sequence, _)| *sequence).collect();
    assert_eq!(discontinuous, [56, 59], "{marks:?}");
    assert!(!segmenter.playlist().has_ended());
}

#[test]
fn parameters_that_change_in_mid_stream_begin_a_segment() {
    let mut segmenter = Segmenter::new(HlsOptions::default(), 0);
    let mut source = Source::new(1.0);
    source.run(&mut segmenter, 5.0);
    source.video = Some(config(Codec::H264, &OTHER_AVC));
    source.run(&mut segmenter, 5.0);
    // The same once more in another allocation is no change.
    source.video = Some(config(Codec::H264, &OTHER_AVC));
    source.run(&mut segmenter, 5.0);
    let marks: Vec<_> =
        segmenter.playlist().segments().map(|s| (s.duration.as_secs_f64(), s.is_discontinuous)).collect();
    assert_eq!(marks[..4], [(2.0, false), (2.0, false), (1.0, false), (2.0, true)], "{marks:?}");
    assert_eq!(marks.iter().filter(|(_, is)| *is).count(), 1);
}

#[test]
fn a_picture_that_comes_late_begins_a_segment_of_its_own() {
    let mut segmenter = Segmenter::new(HlsOptions::default(), 0);
    let mut source = Source::new(2.0);
    let video = source.video.take();
    source.run(&mut segmenter, 5.0);
    (source.video, source.pictures) = (video, 5 * 25);
    source.run(&mut segmenter, 8.0);
    let first = segmenter.playlist().segments().find(|segment| segment.is_discontinuous).unwrap();
    assert!(first.is_independent && first.duration >= seconds(2.0), "{:?}", first.duration);
}

#[test]
fn a_stream_that_is_over_says_so() {
    let mut segmenter = Segmenter::new(HlsOptions::default(), 0);
    let mut source = Source::new(2.0);
    source.run(&mut segmenter, 3.0);
    segmenter.end();
    let text = segmenter.playlist().render("a%20b", "?token=x");
    assert!(text.ends_with("#EXTINF:1.000,\na%20b-1.ts?token=x\n#EXT-X-ENDLIST\n"), "{text}");
    assert!(text.contains("#EXT-X-PROGRAM-DATE-TIME:1970-01-01T00:00:02.000Z\n"), "{text}");
    segmenter.start_over();
    source.restart_at(9_000);
    source.run(&mut segmenter, 3.0);
    assert!(!segmenter.playlist().render("cam", "").contains("ENDLIST"));
}

#[test]
fn discontinuities_that_have_left_are_counted() {
    let mut segmenter = Segmenter::new(HlsOptions { window: seconds(6.0), ..HlsOptions::default() }, 0);
    let mut source = Source::new(2.0);
    for round in 0..4 {
        segmenter.start_over();
        source.restart_at(round * 100_000);
        source.run(&mut segmenter, 10.1);
    }
    let text = segmenter.playlist().render("cam", "");
    assert!(text.contains("#EXT-X-DISCONTINUITY-SEQUENCE:3\n") && !text.contains("DISCONTINUITY\n"), "{text}");
}

#[test]
fn a_day_keeps_its_time() {
    let mut segmenter = Segmenter::new(HlsOptions::default(), 0);
    let mut source = Source { audio: None, frames_per_second: 2, gop_frames: 4, ..Source::new(2.0) };
    // Over the wrap of times in the stream after 26.5 hours too.
    for hour in 1..=27 {
        source.run(&mut segmenter, 3_600.0);
        let newest = segmenter.playlist().segments().last().unwrap();
        let end = newest.starts_at + newest.duration;
        assert_eq!(end.duration_since(UNIX_EPOCH).unwrap().as_secs(), hour * 3_600 - 2);
        assert_eq!(newest.sequence, hour * 1_800 - 2);
        assert!(!segmenter.playlist().render("cam", "").contains("DISCONTINUITY"));
    }
}

#[test]
fn what_cannot_be_carried_is_told_once_and_the_rest_goes_on() {
    let opus = config(Codec::Opus, &[]);
    let mut segmenter = Segmenter::new(HlsOptions::default(), 0);
    let now = UNIX_EPOCH;
    let said: Vec<_> =
        (0..40).map(|i| segmenter.push(Source::frame(&opus, i * 20, true, &[1]), now)).filter(Result::is_err).collect();
    assert_eq!(said, [Err(TsError::Codec(Codec::Opus))]);
    assert_eq!(segmenter.unplayable(), Some(&TsError::Codec(Codec::Opus)));

    let mut segmenter = Segmenter::new(HlsOptions::default(), 0);
    let mut source = Source { audio: None, ..Source::new(2.0) };
    segmenter.push(Source::frame(&opus, 0, true, &[1]), now).unwrap_err();
    source.run(&mut segmenter, 5.0);
    assert_eq!(segmenter.unplayable(), None);
    assert_eq!(durations(&segmenter), [2.0, 2.0]);
}

#[test]
fn pictures_wait_for_a_keyframe_and_sound_for_them() {
    let mut segmenter = Segmenter::new(HlsOptions::default(), 0);
    let mut source = Source::new(2.0);
    // One and a half seconds into a group of pictures.
    source.pictures = 37;
    source.start_ms = -1_480;
    source.sounds = 74;
    source.run(&mut segmenter, 5.0);
    let first = segmenter.playlist().segments().next().unwrap();
    assert_eq!((first.duration, first.is_independent), (seconds(2.0), true));
    assert_eq!(first.starts_at, UNIX_EPOCH + seconds(0.52));
}

#[test]
fn holes_and_absurd_times_are_survived() {
    let mut random = 1u64;
    for round in 0..200 {
        let mut segmenter = Segmenter::new(HlsOptions::default(), 0);
        let (video, audio) = (config(Codec::H264, &AVC), config(Codec::Aac, &AAC));
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
            let at = at.clamp(-(1 << 50), 1 << 50);
            let frame = match dice % 3 {
                0 => Source::frame(&audio, at, true, &[1; 9]),
                _ => Source::frame(&video, at, dice.is_multiple_of(7), &PICTURE),
            };
            let _ = segmenter.push(frame, UNIX_EPOCH);
            match dice % 97 {
                0 => segmenter.start_over(),
                1 => segmenter.end(),
                _ => {}
            }
            check(segmenter.playlist());
        }
    }
}
