//! Kinds of offers: which tracks, which codecs, who is the DTLS server, and publishers that leave things out.

use super::*;
use crate::net::Loss;
use crate::peer::{Offering, VideoFormat};
use crate::world::World;

fn plays(publisher: &Offering, viewer: &Offering, seed: u64) {
    let mut world = World::new(1, seed);
    let p = world.publish(publisher, NEAR);
    let v = world.watch(viewer, NEAR);
    world.run(s(3));
    let seen = world.client(v).viewer();
    let both_video = !publisher.video.is_empty() && !viewer.video.is_empty();
    let both_audio = publisher.audio.is_some() && viewer.audio.is_some();
    for (log, is_there, least) in [(&seen.video, both_video, 80), (&seen.audio, both_audio, 140)] {
        let frames = log.frames(p.0 as u16).len();
        assert_eq!(frames >= least, is_there, "{frames} frames");
        assert_eq!((log.gaps(), frames > 0), (0, is_there));
        log.assert_in_order();
    }
}

#[test]
fn audio_video_and_both() {
    let kinds = |o: Offering| [o.clone(), o.clone().without_audio(), o.with_video(&[])];
    for publisher in kinds(Offering::publisher()) {
        for viewer in kinds(Offering::viewer()) {
            plays(&publisher, &viewer, 51);
        }
    }
}

#[test]
fn codecs_by_any_payload_type() {
    let viewer = Offering::viewer().with_video(&[VideoFormat::VP8, VideoFormat::H264.at(119, 120)]);
    for format in [VideoFormat::H264, VideoFormat::VP8, VideoFormat::VP8.at(101, 100), VideoFormat::H264.without_rtx()]
    {
        plays(&Offering::publisher().with_video(&[format]), &viewer, 52);
        plays(&Offering { audio: Some(63), ..Offering::publisher() }.with_video(&[format]), &viewer, 52);
    }
}

#[test]
fn a_client_may_be_the_dtls_server() {
    let passive = |o: Offering| Offering { edit: |text| text.replace("a=setup:actpass", "a=setup:passive"), ..o };
    plays(&passive(Offering::publisher()), &Offering::viewer(), 53);
    plays(&Offering::publisher(), &passive(Offering::viewer()), 54);
}

/// A viewer that cannot show the publisher's codec hears the sound, and the drops are counted.
#[test]
fn a_codec_that_the_viewer_lacks_is_left_out() {
    let mut world = World::new(1, 57);
    let publisher = world.publish(&Offering::publisher(), NEAR);
    let viewer = world.watch(&Offering::viewer().with_video(&[VideoFormat::VP8]), NEAR);
    world.run(s(3));
    let seen = world.client(viewer).viewer();
    assert!(seen.video.packets.is_empty());
    assert!(seen.audio.frames(publisher.0 as u16).len() > 140);
    assert!(world.total(|s| s.drop_codec.value()) > 100);
    let requests = world.client(publisher).publisher().requests.len();
    assert!(requests <= 4, "{requests} keyframe requests for a picture that cannot be shown");
}

fn without(text: &str, unwanted: &[&str]) -> String {
    let kept = text.lines().filter(|line| !unwanted.iter().any(|u| line.contains(u)));
    kept.map(|line| format!("{line}\r\n")).collect()
}

fn bare(text: String) -> String {
    without(&text, &["a=ssrc", "sdes:mid"])
}

#[test]
fn a_publisher_without_ssrc_lines_or_mid_gets_through() {
    for edit in [bare, |t: String| without(&t, &["a=ssrc"]), |t: String| without(&t, &["sdes:mid"])] {
        plays(&Offering { edit, ..Offering::publisher() }, &Offering::viewer(), 55);
    }
}

/// A publisher that resends the very same packet when asked, as OBS and other encoders do.
#[test]
fn a_publisher_without_rtx_is_asked_again() {
    let offering =
        Offering { raw_packets: true, ..Offering::publisher() }.with_video(&[VideoFormat::H264.without_rtx()]);
    for edit in [bare as fn(String) -> String, |t| t] {
        let mut world = World::new(1, 56);
        let publisher = world.publish(&Offering { edit, ..offering.clone() }, NEAR);
        world.client_mut(publisher).resend = Some(Default::default());
        let viewer = world.watch(&Offering::viewer(), NEAR);
        world.client_mut(publisher).up.profile = NEAR.with_loss(Loss::Random(0.05));
        world.run(s(10));
        world.client_mut(publisher).up.profile = NEAR;
        world.run(s(2));
        assert!(world.client(publisher).nacked > 20, "{} NACKs", world.client(publisher).nacked);
        let log = &world.client(viewer).viewer().video;
        log.assert_in_order();
        assert_eq!(log.gaps(), 0, "everything is repaired");
    }
}
