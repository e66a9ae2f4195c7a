use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::{Codec, TrackConfig};

const LIMITS: GopLimits =
    GopLimits { max_bytes: 1 << 20, max_age: Duration::from_secs(30), max_lag: Duration::from_secs(3) };

/// A frame with its number in the stream.
#[derive(Debug, Clone)]
struct Numbered(u64, Frame);

impl AsRef<Frame> for Numbered {
    fn as_ref(&self) -> &Frame {
        &self.1
    }
}

/// Makes frames of 10 bytes unless told otherwise.
struct Source {
    video: Arc<TrackConfig>,
    audio: Arc<TrackConfig>,
    made: u64,
}

impl Source {
    fn new() -> Source {
        let config = |codec| Arc::new(TrackConfig { codec, record: Bytes::new() });
        Source { video: config(Codec::H264), audio: config(Codec::Aac), made: 0 }
    }

    fn frame(&mut self, letter: char, at_millis: i64) -> Numbered {
        self.sized(letter, at_millis, 10)
    }

    /// `K` is a keyframe, `p` another picture, `a` sound.
    fn sized(&mut self, letter: char, at_millis: i64, size: usize) -> Numbered {
        let at = MediaTime::from_millis(at_millis);
        let config = if letter == 'a' { &self.audio } else { &self.video };
        let frame = Frame {
            config: Arc::clone(config),
            dts: at,
            pts: at,
            is_keyframe: letter != 'p',
            data: Bytes::from(vec![0; size]),
        };
        self.made += 1;
        Numbered(self.made - 1, frame)
    }
}

/// A cache with one frame per letter, `step` ms apart.
fn cache(limits: GopLimits, letters: &str, step: i64) -> (GopCache<Numbered>, Source) {
    let (mut cache, mut source) = (GopCache::new(limits), Source::new());
    for (i, letter) in letters.chars().enumerate() {
        cache.push(source.frame(letter, i as i64 * step));
    }
    (cache, source)
}

/// What a player gets, as `+number` and `-skipped`.
fn drain(cache: &GopCache<Numbered>, cursor: &mut Cursor) -> String {
    let mut got = String::new();
    loop {
        match cache.next(cursor) {
            Next::Item(item) => got += &format!("+{}", item.0),
            Next::Skipped { frames } => got += &format!("-{frames}"),
            Next::Empty => return got,
        }
    }
}

#[test]
fn players_start_where_their_picture_comes_at_once() {
    let short = GopLimits { max_age: Duration::from_secs(1), max_lag: Duration::from_secs(1), ..LIMITS };
    let small = GopLimits { max_bytes: 50, ..LIMITS };
    for (what, limits, letters, step, expected) in [
        ("last keyframe, and sound after it in order", LIMITS, "KpapKapa", 40, "+4+5+6+7"),
        ("sound goes on, pictures wait for a keyframe", LIMITS, "papap", 40, ""),
        ("0.2 s of sound alone", LIMITS, "aaaaaaaaaaaa", 20, "+1+2+3+4+5+6+7+8+9+10+11"),
        ("the keyframe is too old", short, "Kppppppppppppp", 100, ""),
        ("the keyframe is just young enough", short, "Kpppppppppp", 100, "+0+1+2+3+4+5+6+7+8+9+10"),
        ("no room for the keyframe", small, "aKppppp", 40, ""),
        ("room from the keyframe on", small, "aaKpppp", 40, "+2+3+4+5+6"),
        ("nothing", LIMITS, "", 40, ""),
    ] {
        let (cache, _) = cache(limits, letters, step);
        assert_eq!(drain(&cache, &mut cache.start()), expected, "{what}");
    }
}

#[test]
fn the_live_edge_gives_sound_at_once_and_pictures_from_a_keyframe() {
    let (mut cache, mut source) = cache(LIMITS, "Kpa", 40);
    let mut cursor = cache.live_edge();
    assert_eq!(drain(&cache, &mut cursor), "");
    for (i, letter) in "papKpa".chars().enumerate() {
        cache.push(source.frame(letter, 120 + i as i64 * 40));
    }
    assert_eq!(drain(&cache, &mut cursor), "+4+6+7+8");
}

#[test]
fn a_long_gop_is_no_lag_for_one_that_starts_with_it() {
    // 10 s since the keyframe, three times what a player may lag.
    let (mut cache, mut source) = cache(LIMITS, &format!("K{}", "p".repeat(100)), 100);
    let mut cursor = cache.start();
    for expected in 0..50 {
        assert!(matches!(cache.next(&mut cursor), Next::Item(item) if item.0 == expected));
    }
    // It is still not slow when the rest has become older, but it is when a keyframe lies ahead.
    cache.push(source.frame('p', 10_100));
    assert!(matches!(cache.next(&mut cursor), Next::Item(item) if item.0 == 50));
    cache.push(source.frame('K', 10_200));
    assert_eq!(drain(&cache, &mut cursor), "-51+102");
}

#[test]
fn a_slow_player_jumps_to_the_keyframe_ahead() {
    let (mut cache, mut source) = cache(LIMITS, "Kppp", 1000);
    let mut cursor = cache.start();
    assert!(matches!(cache.next(&mut cursor), Next::Item(item) if item.0 == 0));
    for (i, letter) in "aKpa".chars().enumerate() {
        cache.push(source.frame(letter, 3700 + i as i64 * 100));
    }
    // Less than 3 s behind nothing is lost.
    cache.push(source.frame('p', 4000));
    assert!(matches!(cache.next(&mut cursor), Next::Item(item) if item.0 == 1));
    cache.push(source.frame('p', 5001));
    assert_eq!(drain(&cache, &mut cursor), "-3+5+6+7+8+9");
}

#[test]
fn a_slow_player_without_a_keyframe_ahead_keeps_its_sound() {
    let (mut cache, mut source) = cache(LIMITS, "K", 0);
    let mut cursor = cache.start();
    assert_eq!(drain(&cache, &mut cursor), "+0");
    for i in 1..=8 {
        cache.push(source.frame(if i % 2 == 0 { 'a' } else { 'p' }, i * 500));
    }
    assert_eq!(drain(&cache, &mut cursor), "-4+2+4+6+8");
    cache.push(source.frame('p', 4500));
    assert_eq!(drain(&cache, &mut cursor), "");
    cache.push(source.frame('K', 5000));
    cache.push(source.frame('p', 5500));
    assert_eq!(drain(&cache, &mut cursor), "+10+11");
}

#[test]
fn players_outlive_a_change_of_publisher() {
    let (mut cache, mut source) = cache(LIMITS, "Kpp", 40);
    let (mut at_edge, mut behind) = (cache.start(), cache.start());
    assert_eq!(drain(&cache, &mut at_edge), "+0+1+2");
    cache.clear();
    assert_eq!((cache.is_empty(), cache.bytes(), cache.len()), (true, 0, 0));
    let mut between = cache.start();
    for (i, letter) in "papKp".chars().enumerate() {
        cache.push(source.frame(letter, i as i64 * 40));
    }
    assert_eq!(drain(&cache, &mut at_edge), "+4+6+7");
    assert_eq!(drain(&cache, &mut between), "+4+6+7");
    assert_eq!(drain(&cache, &mut behind), "-6+6+7");
    // A cursor from elsewhere does no harm.
    let mut foreign = Cursor { next: 99, backlog_end: 99, awaits_keyframe: false };
    assert_eq!(drain(&cache, &mut foreign), "-0");
    cache.push(source.frame('p', 200));
    cache.push(source.frame('K', 240));
    assert_eq!(drain(&cache, &mut foreign), "+9");
}

#[test]
fn odd_times_and_sizes_stay_bounded() {
    let (mut cache, mut source) = cache(LIMITS, "K", 0);
    // Larger than everything: kept alone, for those who are at the live edge.
    cache.push(source.sized('K', 40, LIMITS.max_bytes + 1));
    assert_eq!((cache.len(), cache.bytes()), (1, LIMITS.max_bytes + 1));
    for _ in 0..=MAX_FRAMES + 10 {
        cache.push(source.sized('p', 40, 0));
    }
    assert_eq!((cache.len(), cache.bytes()), (MAX_FRAMES, 0));
    for at in [i64::MAX / 1000, i64::MIN / 1000, 0] {
        cache.push(source.frame('K', at));
        drain(&cache, &mut cache.start());
    }
}

/// The cache as one would write it without thinking of speed: everything that was ever pushed, and rules over it.
#[derive(Default)]
struct Model {
    all: Vec<Numbered>,
    first: usize,
    cleared_at: usize,
}

/// A player of the model, with what it must be able to rely on.
struct Player {
    cursor: Cursor,
    /// Number of the frame that it got last, or of the first one that it may get, less one.
    last: i64,
    /// Pictures up to here can be decoded without a gap.
    decodes: bool,
    may_skip: bool,
}

impl Model {
    fn push(&mut self, item: Numbered, limits: GopLimits) {
        self.all.push(item);
        while self.all.len() - self.first > 1 && !self.keeps(self.first, limits) {
            self.first += 1;
        }
    }

    fn keeps(&self, at: usize, limits: GopLimits) -> bool {
        let age = self.all.last().unwrap().1.dts.since(self.all[at].1.dts);
        let bytes: usize = self.all[at..].iter().map(|n| n.1.data.len()).sum();
        let age_limit = if self.last_keyframe() == Some(at) { limits.max_age } else { limits.max_lag };
        bytes <= limits.max_bytes && age <= age_limit
    }

    /// The newest keyframe, if it is kept.
    fn last_keyframe(&self) -> Option<usize> {
        (self.first..self.all.len()).rev().find(|i| self.is_video(*i) && self.all[*i].1.is_keyframe)
    }

    fn is_video(&self, at: usize) -> bool {
        self.all[at].1.kind() == MediaKind::Video
    }

    fn start(&self) -> usize {
        let has_video = (self.cleared_at..self.all.len()).any(|i| self.is_video(i));
        self.last_keyframe().unwrap_or_else(|| {
            if has_video {
                return self.all.len();
            }
            let newest = self.all.last().map_or(MediaTime::default(), |n| n.1.dts);
            let old = |i: &usize| newest.since(self.all[*i].1.dts) > AUDIO_BACKLOG;
            (self.first..self.all.len()).rev().find(old).map_or(self.first, |i| i + 1)
        })
    }
}

impl Player {
    fn new(cursor: Cursor, start: usize) -> Player {
        Player { cursor, last: start as i64 - 1, decodes: false, may_skip: false }
    }

    /// Reads at most `count` times.
    fn read(&mut self, cache: &GopCache<Numbered>, model: &Model, limits: GopLimits, count: usize) {
        for _ in 0..count {
            let expected = (self.last + 1) as usize;
            let behind =
                model.all.get(expected).map_or(Duration::ZERO, |n| model.all.last().unwrap().1.dts.since(n.1.dts));
            let too_slow = expected < model.first || behind > limits.max_lag;
            if expected <= model.cleared_at {
                self.decodes = false;
            }
            match cache.next(&mut self.cursor) {
                Next::Empty => {
                    let rest = expected.max(model.first)..model.all.len();
                    assert!(rest.clone().all(|i| model.is_video(i)), "sound {rest:?} was kept back");
                    self.skip_pictures(model, rest);
                    self.last = model.all.len() as i64 - 1;
                    return;
                }
                Next::Skipped { .. } => {
                    assert!(too_slow, "{expected} skipped without being slow");
                    (self.may_skip, self.decodes) = (true, false);
                }
                Next::Item(Numbered(number, frame)) => {
                    let number = *number as usize;
                    assert!(number >= expected && number >= model.first);
                    let gap = expected..number;
                    if !self.may_skip {
                        assert!(gap.clone().all(|i| model.is_video(i)), "sound {gap:?} was left out");
                    }
                    if model.is_video(number) {
                        assert!(frame.is_keyframe || self.decodes && gap.clone().all(|i| !model.is_video(i)));
                        self.decodes = true;
                    } else if !self.may_skip {
                        self.skip_pictures(model, gap);
                    }
                    self.may_skip = false;
                    self.last = number as i64;
                }
            }
        }
    }

    /// Pictures are left out only as long as nothing could be made of them.
    fn skip_pictures(&self, model: &Model, gap: std::ops::Range<usize>) {
        for i in gap.filter(|i| model.is_video(*i)) {
            assert!(!self.decodes && !model.all[i].1.is_keyframe, "picture {i} was left out");
        }
    }
}

#[test]
fn agrees_with_the_naive_model() {
    for seed in 1..=300 {
        let mut random = crate::testing::Random::new(seed);
        let limits = GopLimits {
            max_bytes: random.below(4000) + 200,
            max_age: Duration::from_millis(2000 + random.below(4000) as u64),
            max_lag: Duration::from_millis(300 + random.below(1700) as u64),
        };
        let (video_share, gop) = (random.below(4), 2 + random.below(60));
        let (mut cache, mut model, mut source) = (GopCache::new(limits), Model::default(), Source::new());
        let mut players: Vec<Player> = Vec::new();
        let (mut now, mut pictures) = (0, 0);
        for _ in 0..600 {
            now += random.below(60) as i64;
            let letter = if random.below(4) >= video_share {
                'a'
            } else {
                pictures += 1;
                if pictures % gop == 1 { 'K' } else { 'p' }
            };
            let item = source.sized(letter, now, random.below(60));
            cache.push(item.clone());
            model.push(item, limits);
            if random.below(200) == 0 {
                cache.clear();
                (model.first, model.cleared_at) = (model.all.len(), model.all.len());
            }
            check(&cache, &model, limits);
            match random.below(20) {
                0 => players.push(Player::new(cache.start(), model.start())),
                1 => players.push(Player::new(cache.live_edge(), model.all.len())),
                _ => {}
            }
            for (i, player) in players.iter_mut().enumerate() {
                // Some keep up, some read now and then.
                let count = if i % 3 == 0 { usize::MAX } else { random.below(1 + i % 7) };
                player.read(&cache, &model, limits, count);
            }
        }
    }
}

fn check(cache: &GopCache<Numbered>, model: &Model, limits: GopLimits) {
    assert_eq!(cache.len(), model.all.len() - model.first);
    assert_eq!(cache.bytes(), model.all[model.first..].iter().map(|n| n.1.data.len()).sum::<usize>());
    assert!(cache.bytes() <= limits.max_bytes || cache.len() == 1);
    assert_eq!(cache.is_empty(), model.all.len() == model.first);
    assert_eq!(cache.start().next, model.start() as u64);
}
