//! In which ways a stream can be played, and why not in others: for listings and the log.

use freshet_media::{Codec, MediaKind};

use super::types::{OutputSnapshot, Protocol, TrackSnapshot};

/// What the configuration allows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Switches {
    pub(super) rtmp2rtc: bool,
    pub(super) rtc2rtmp: bool,
    pub(super) passes_opus: bool,
}

/// The ways of a publisher's stream.
pub(super) fn of(publisher: Protocol, tracks: &[TrackSnapshot], switches: &Switches) -> Vec<OutputSnapshot> {
    let codec = |kind| tracks.iter().find(|track| track.kind == kind).map(|track| track.codec);
    let (video, audio) = (codec(MediaKind::Video), codec(MediaKind::Audio));
    let is_rtc = publisher == Protocol::WebRtc;
    let webrtc = if is_rtc { None } else { obstacle_to_webrtc(video, switches) };
    let frames = if is_rtc && !switches.rtc2rtmp { Some("rtc2rtmp is off".to_owned()) } else { None };
    let flv = frames.clone().or_else(|| {
        // Frames of VP8 are not made: hardly any player of RTMP or FLV knows it.
        video.filter(|codec| is_rtc && *codec == Codec::Vp8).map(|codec| cannot("RTMP and FLV", codec))
    });
    let ll_hls = frames.clone().or_else(|| {
        let unplayed = video.filter(|codec| *codec == Codec::Vp8);
        unplayed.map(|codec| format!("no browser plays {codec} in MP4"))
    });
    let hls = frames.or_else(|| {
        video.filter(|codec| !matches!(codec, Codec::H264 | Codec::H265)).map(|codec| cannot("MPEG-TS", codec))
    });
    let keeps_opus = !is_rtc || switches.passes_opus;
    let opus = audio.filter(|codec| keeps_opus && matches!(codec, Codec::Opus | Codec::Red));
    let g711 = audio.filter(|codec| is_rtc && matches!(codec, Codec::Pcmu | Codec::Pcma));
    let mp3 = audio.filter(|codec| *codec == Codec::Mp3);
    let silent = |by: &str, codec: Option<Codec>| codec.map(|codec| format!("without sound: {}", cannot(by, codec)));
    let output = |name, obstacle, lacks| OutputSnapshot { name, obstacle, lacks };
    vec![
        output("webrtc", webrtc, None),
        output("rtmp", flv.clone(), silent("RTMP", g711)),
        output("flv", flv, silent("FLV", g711)),
        output("hls", hls, silent("MPEG-TS", opus.or(g711))),
        output("ll-hls", ll_hls, silent("low-latency HLS", g711.or(mp3))),
    ]
}

fn obstacle_to_webrtc(video: Option<Codec>, switches: &Switches) -> Option<String> {
    if !switches.rtmp2rtc {
        return Some("rtmp2rtc is off".to_owned());
    }
    video
        .filter(|codec| !freshet_bridge::crossing::can_carry(*codec))
        .map(|codec| format!("{codec} does not cross to WebRTC"))
}

fn cannot(carrier: &str, codec: Codec) -> String {
    let verb = if carrier.contains(" and ") { "do" } else { "does" };
    format!("{carrier} {verb} not carry {codec}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn track(codec: Codec) -> TrackSnapshot {
        let fmtp = String::new();
        TrackSnapshot { kind: codec.kind(), codec, clock_hz: 0, fmtp, channels: 0, size: None, layers: 1 }
    }

    const ALL: Switches = Switches { rtmp2rtc: true, rtc2rtmp: true, passes_opus: false };

    #[test]
    fn what_cannot_be_played_is_said() {
        let (rtc, rtmp) = (Protocol::WebRtc, Protocol::Rtmp);
        let opus = Switches { passes_opus: true, ..ALL };
        let off = Switches { rtmp2rtc: false, rtc2rtmp: false, ..ALL };
        const OFF: &str = "rtc2rtmp is off";
        const NO_FLV: &str = "RTMP and FLV do not carry VP8";
        // What stands against webrtc, rtmp, flv, hls and ll-hls; "~" before what is only missing.
        let cases: [(Protocol, [Codec; 2], Switches, [&str; 5]); 9] = [
            (rtc, [Codec::H264, Codec::Opus], ALL, ["", "", "", "", ""]),
            (rtc, [Codec::H264, Codec::Opus], opus, ["", "", "", "~without sound: MPEG-TS does not carry Opus", ""]),
            (rtc, [Codec::H264, Codec::Opus], off, ["", OFF, OFF, OFF, OFF]),
            (
                rtc,
                [Codec::H265, Codec::Pcmu],
                ALL,
                [
                    "",
                    "~without sound: RTMP does not carry PCMU",
                    "~without sound: FLV does not carry PCMU",
                    "~without sound: MPEG-TS does not carry PCMU",
                    "~without sound: low-latency HLS does not carry PCMU",
                ],
            ),
            (
                rtc,
                [Codec::Vp8, Codec::Opus],
                ALL,
                ["", NO_FLV, NO_FLV, "MPEG-TS does not carry VP8", "no browser plays VP8 in MP4"],
            ),
            (rtc, [Codec::Vp9, Codec::Opus], ALL, ["", "", "", "MPEG-TS does not carry VP9", ""]),
            (rtc, [Codec::Av1, Codec::Opus], ALL, ["", "", "", "MPEG-TS does not carry AV1", ""]),
            (
                rtmp,
                [Codec::Vp9, Codec::Aac],
                ALL,
                ["VP9 does not cross to WebRTC", "", "", "MPEG-TS does not carry VP9", ""],
            ),
            (rtmp, [Codec::H264, Codec::Aac], off, ["rtmp2rtc is off", "", "", "", ""]),
        ];
        for (publisher, codecs, switches, expected) in cases {
            const NAMES: [&str; 5] = ["webrtc", "rtmp", "flv", "hls", "ll-hls"];
            let found = of(publisher, &codecs.map(track), &switches);
            assert_eq!(found.iter().map(|output| output.name).collect::<Vec<_>>(), NAMES);
            let said = found.iter().map(|output| match (&output.obstacle, &output.lacks) {
                (Some(obstacle), _) => obstacle.clone(),
                (None, Some(lacks)) => format!("~{lacks}"),
                (None, None) => String::new(),
            });
            assert_eq!(said.collect::<Vec<_>>(), expected, "{publisher:?} {codecs:?}");
        }
    }
}
