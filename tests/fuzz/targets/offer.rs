//! An offer from anybody: parsed, negotiated in both roles, re-stated for the peer connection, answered.
#![no_main]

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use freshet_media::{Codec, StreamKey};
use freshet_sfu::sdp::{Negotiated, Offer, VideoPreference, negotiate, publisher_offer};
use freshet_sfu::{Credentials, Identity, Session, SessionId, SessionLimits, SessionParams, SessionStatus};
use libfuzzer_sys::fuzz_target;

static IDENTITY: LazyLock<Identity> = LazyLock::new(|| Identity::generate().expect("an identity"));

fuzz_target!(|text: &str| {
    let Ok(offer) = Offer::parse(text) else { return };
    for (publishing, preference) in [
        (true, VideoPreference::Offered),
        (true, VideoPreference::First(Codec::H264)),
        (false, VideoPreference::Offered),
    ] {
        let Ok(negotiated) = negotiate(&offer, publishing, preference) else { continue };
        check_restatement(&offer, &negotiated);
        open(&offer, &negotiated);
    }
});

/// What the peer connection is given says the same as what was accepted.
fn check_restatement(offer: &Offer, negotiated: &Negotiated) {
    let restated = Offer::parse(&publisher_offer(offer, negotiated)).expect("our own re-statement can be parsed");
    assert_eq!(restated.media.len(), negotiated.media.len());
    for (line, media) in restated.media.iter().zip(&negotiated.media) {
        assert_eq!(line.mid, media.mid);
        assert_eq!(line.codecs.len(), media.codecs.len());
    }
    assert_eq!((&restated.ufrag, &restated.pwd), (&offer.ufrag, &offer.pwd));
    assert_eq!(restated.fingerprint, offer.fingerprint);
}

/// Whatever is answered has the offer's m-lines, in order.
fn open(offer: &Offer, negotiated: &Negotiated) {
    let mut seed = 1_u64;
    let params = SessionParams {
        id: SessionId(1),
        key: StreamKey::new("", "live", "cam").expect("a key"),
        offer,
        negotiated,
        identity: &IDENTITY,
        credentials: Credentials { ufrag: "fuzzfuzz".into(), pwd: "fuzzfuzzfuzzfuzzfuzzfuzz".into() },
        udp: &[std::net::SocketAddr::from(([192, 0, 2, 1], 8000))],
        tcp: &[],
        limits: SessionLimits { connect: Duration::from_secs(20), silence: Duration::from_secs(10) },
        status: Arc::new(SessionStatus::default()),
        random: &mut || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            seed ^ seed >> 33
        },
    };
    let Ok((_, answer)) = Session::open(params, Instant::now()) else { return };
    let m_lines = |text: &str| text.lines().filter(|l| l.starts_with("m=")).count();
    assert_eq!(m_lines(&answer), offer.media.len(), "{answer}");
    let mids: Vec<&str> = answer.lines().filter_map(|l| l.strip_prefix("a=mid:")).collect();
    let offered: Vec<&str> = offer.media.iter().map(|m| m.mid.as_str()).collect();
    assert_eq!(mids, offered, "{answer}");
}
