//! Offers as they come: recorded ones, broken ones, and mutants of both.
//!
//! Whatever an offer says, the outcome is an answer that fits it or a refusal in words, never a panic. The fuzz target
//! `offer` of `tests/fuzz` looks for more of the same.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use freshet_media::StreamKey;
use freshet_sfu::sdp::{Negotiated, Offer, VideoPreference, negotiate, publisher_offer};
use freshet_sfu::{Credentials, Identity, Session, SessionId, SessionLimits, SessionParams, SessionStatus};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};

const MUTANTS: usize = 20_000;
/// A request may not keep a thread of the server busy; a slow machine under load gets some room.
const MAX_TIME: Duration = Duration::from_secs(1);

static IDENTITY: LazyLock<Identity> = LazyLock::new(|| Identity::generate().expect("an identity"));

struct Fixture {
    name: String,
    bytes: Vec<u8>,
}

/// The files of a folder of fixtures, by name.
fn fixtures(folder: &str) -> Vec<Fixture> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(folder);
    let files = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut paths: Vec<PathBuf> = files.map(|f| f.expect("a file").path()).filter(|p| p.is_file()).collect();
    paths.sort();
    let read = |path: &PathBuf| Fixture {
        name: path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
        bytes: std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())),
    };
    let all: Vec<Fixture> = paths.iter().map(read).collect();
    assert!(!all.is_empty(), "{} is empty", folder.display());
    all
}

/// An offer's way through the server: an answer, or the reason why there is none.
fn respond(bytes: &[u8], publishing: bool) -> Result<String, String> {
    let text = std::str::from_utf8(bytes).map_err(|e| e.to_string())?;
    let offer = Offer::parse(text).map_err(|e| e.to_string())?;
    let negotiated = negotiate(&offer, publishing, VideoPreference::Offered).map_err(|e| e.to_string())?;
    let answer = open(&offer, &negotiated)?;
    check(&offer, &negotiated, &answer);
    Ok(answer)
}

fn open(offer: &Offer, negotiated: &Negotiated) -> Result<String, String> {
    let mut random = StdRng::seed_from_u64(1);
    let params = SessionParams {
        id: SessionId(1),
        key: StreamKey::new("", "live", "cam").expect("a key"),
        offer,
        negotiated,
        identity: &IDENTITY,
        credentials: Credentials { ufrag: "testtest".into(), pwd: "testtesttesttesttesttest".into() },
        udp: &[SocketAddr::from(([192, 0, 2, 1], 8000))],
        tcp: &[SocketAddr::from(([192, 0, 2, 1], 8000))],
        limits: SessionLimits { connect: Duration::from_secs(20), silence: Duration::from_secs(10) },
        status: Arc::new(SessionStatus::default()),
        random: &mut || random.random(),
    };
    Session::open(params, Instant::now()).map(|(_, answer)| answer).map_err(|e| e.to_string())
}

/// RFC 9429 §5.3.1: the same m-lines in the same order, with the same mids, and no payload type that was not offered.
fn check(offer: &Offer, negotiated: &Negotiated, answer: &str) {
    let sections: Vec<&str> = answer.split("\r\nm=").skip(1).collect();
    assert_eq!(sections.len(), offer.media.len(), "{answer}");
    for (index, (section, offered)) in sections.iter().zip(&offer.media).enumerate() {
        let words: Vec<&str> = section.lines().next().unwrap_or_default().split(' ').collect();
        assert_eq!((words[0], words[2]), (offered.words[0].as_str(), offered.words[2].as_str()), "{answer}");
        let mid = section.lines().find_map(|l| l.strip_prefix("a=mid:"));
        assert_eq!(mid, Some(offered.mid.as_str()), "{answer}");
        let accepted = negotiated.media.iter().any(|m| m.index == index);
        assert_eq!(words[1] != "0", accepted, "{answer}");
        assert!(words.len() > 3 || offered.words.len() == 3, "an m-line without formats: {answer}");
        for pt in &words[3..] {
            assert!(offered.words[3..].iter().any(|w| w == pt), "{pt} was not offered: {answer}");
        }
    }
    let restated = publisher_offer(offer, negotiated);
    assert!(Offer::parse(&restated).is_ok(), "{restated}");
}

#[test]
fn good_offers_are_answered() {
    for Fixture { name, bytes } in fixtures("offers") {
        let roles: &[bool] = match (name.contains("-publish"), name.contains("-play")) {
            (true, _) => &[true],
            (_, true) => &[false],
            _ => &[true, false],
        };
        let answers: Vec<_> = roles.iter().map(|publishing| respond(&bytes, *publishing)).collect();
        let may_be_refused = name == "unknown-video";
        assert!(may_be_refused || answers.iter().any(Result::is_ok), "{name}: {answers:?}");
    }
}

#[test]
fn bad_offers_are_refused_in_words() {
    for Fixture { name, bytes } in fixtures("offers/bad") {
        for publishing in [true, false] {
            match respond(&bytes, publishing) {
                Ok(answer) => panic!("{name} was answered: {answer}"),
                Err(text) => assert!((8..400).contains(&text.len()), "{name}: \"{text}\""),
            }
        }
    }
}

/// Offers of the size of the largest accepted body, in which every line is looked at for every other one.
#[test]
fn offers_that_are_made_to_be_slow_are_dealt_with_at_once() {
    const BODY_BYTES: usize = 256 * 1024;
    let base = String::from_utf8(fixtures("offers").swap_remove(0).bytes).expect("text");
    let pts = "96 ".repeat(128);
    let rids = "a;".repeat(4000);
    let section = |m: &str| format!("{}{m}\r\na=mid:v\r\n", base.split("m=").next().unwrap_or_default());
    let one = section("m=video 9 UDP/TLS/RTP/SAVPF 96");
    for (start, line) in [
        (section(&format!("m=video 9 UDP/TLS/RTP/SAVPF {pts}")), "a=rtcp-fb:* x\r\n"),
        (format!("{one}a=simulcast:send {rids}\r\n"), "a=rid:b send\r\n"),
        (one.clone(), "a=extmap:1 x\r\n"),
        (one, "a=ssrc:1\r\n"),
    ] {
        for lines in [4000, (BODY_BYTES - start.len()) / line.len()] {
            let offer = format!("{start}a=rtpmap:96 VP8/90000\r\n{}", line.repeat(lines));
            let started = Instant::now();
            let outcome = respond(offer.as_bytes(), true);
            assert!(started.elapsed() < MAX_TIME, "{:?}: {outcome:?}", started.elapsed());
            let refused = outcome.is_err_and(|text| text.contains("more than 4096 lines"));
            assert_eq!(refused, lines != 4000, "{lines} lines");
        }
    }
}

/// Changes some lines and bytes.
fn mutate(bytes: &[u8], others: &[Fixture], random: &mut StdRng) -> Vec<u8> {
    let mut lines: Vec<Vec<u8>> = bytes.split_inclusive(|b| *b == b'\n').map(<[u8]>::to_vec).collect();
    for _ in 0..random.random_range(1..=4) {
        if lines.is_empty() {
            break;
        }
        let (a, b) = (random.random_range(0..lines.len()), random.random_range(0..lines.len()));
        match random.random_range(0..9) {
            0 => drop(lines.drain(a.min(b)..=a.max(b).min(a.min(b) + 8))),
            1 => lines.swap(a, b),
            2 => lines.truncate(a + 1),
            3 => (0..random.random_range(1..40)).for_each(|_| lines.push(lines[a].clone())),
            4 => lines.insert(b, lines[a].clone()),
            5 => {
                let other = others.choose(random).map(|f| f.bytes.as_slice()).unwrap_or_default();
                let theirs: Vec<&[u8]> = other.split_inclusive(|b| *b == b'\n').collect();
                lines.insert(a, theirs.choose(random).copied().unwrap_or_default().to_vec());
            }
            6 => {
                let at = random.random_range(0..=lines[a].len());
                lines[a].truncate(at);
            }
            7 => {
                // A number becomes another one.
                let number = [b"0".as_slice(), b"1", b"-1", b"96", b"127", b"128", b"255", b"65536", b"4294967296"];
                let digits = lines[a].iter().position(u8::is_ascii_digit);
                let number = number.choose(random).copied().unwrap_or_default();
                digits.into_iter().for_each(|at| drop(lines[a].splice(at..=at, number.iter().copied())));
            }
            _ => {
                for _ in 0..random.random_range(1..4) {
                    let length = lines[a].len();
                    let byte = random.random_range(0..length.max(1));
                    lines[a].get_mut(byte).into_iter().for_each(|b| *b ^= 1 << random.random_range(0..7));
                }
            }
        }
    }
    lines.concat()
}

#[test]
fn mutants_are_answered_or_refused() {
    let mut seeds = fixtures("offers");
    seeds.extend(fixtures("offers/bad").into_iter().filter(|f| f.bytes.len() < 16 * 1024));
    let mut random = StdRng::seed_from_u64(9725);
    let mut answered = 0;
    for round in 0..MUTANTS {
        let seed = &seeds[round % seeds.len()];
        let mutant = mutate(&seed.bytes, &seeds, &mut random);
        let publishing = seed.name.contains("-publish") != random.random_ratio(1, 8);
        let started = Instant::now();
        let outcome = std::panic::catch_unwind(|| respond(&mutant, publishing));
        let took = started.elapsed();
        let shown = || format!("mutant {round} of {}:\n{}", seed.name, String::from_utf8_lossy(&mutant));
        assert!(outcome.is_ok() && took < MAX_TIME, "{took:?}, {}", shown());
        answered += usize::from(matches!(outcome, Ok(Ok(_))));
    }
    // Mutants that are all refused at the first line would test nothing.
    assert!(answered > MUTANTS / 20, "only {answered} of {MUTANTS} were answered");
}
