//! Sound and picture without an encoder, as FLV tag bodies: AVC and AAC as far as a server that forwards them looks, with
//! filler for data and a [`Stamp`] at the end of each.

use crate::stamp::{STAMP_LEN, Stamp};

/// Main profile, level 3.0, 640x360, no B-frames; one SPS and one PPS.
const AVC_CONFIG: [u8; 41] = [
    0x01, 0x4d, 0x40, 0x1e, 0xff, 0xe1, 0x00, 0x19, 0x67, 0x4d, 0x40, 0x1e, 0xd9, 0x00, 0xa0, 0x2f, 0xf9, 0x70, 0x11,
    0x00, 0x00, 0x03, 0x00, 0x01, 0x00, 0x00, 0x03, 0x00, 0x3c, 0x0f, 0x16, 0x2e, 0x48, 0x01, 0x00, 0x05, 0x68, 0xeb,
    0xc3, 0xcb, 0x20,
];
/// AAC-LC, 48 kHz, two channels.
const AAC_CONFIG: [u8; 2] = [0x11, 0x90];
/// Any value that is no start code.
const FILLER: u8 = 0xab;
/// A keyframe is this many times as large as the frames between, as x264 makes them at this size.
const KEYFRAME_RATIO: u64 = 6;
const AAC_SAMPLE_RATE: u64 = 48_000;
const AAC_FRAME_SAMPLES: u64 = 1024;

/// Makes the bodies of one stream.
#[derive(Debug)]
pub(super) struct Source {
    fps: u64,
    keyframe_frames: u64,
    delta_bytes: usize,
    keyframe_bytes: usize,
    audio_bytes: usize,
    video_frames: u64,
    audio_frames: u64,
}

impl Source {
    pub(super) fn new(video_kbps: u32, audio_kbps: u32, fps: u32, keyframe_seconds: u32) -> Source {
        let (fps, seconds) = (u64::from(fps.max(1)), u64::from(keyframe_seconds.max(1)));
        let keyframe_frames = fps * seconds;
        let unit = u64::from(video_kbps) * 125 * seconds / (keyframe_frames - 1 + KEYFRAME_RATIO);
        let audio_bytes = u64::from(audio_kbps) * 125 * AAC_FRAME_SAMPLES / AAC_SAMPLE_RATE;
        Source {
            fps,
            keyframe_frames,
            delta_bytes: unit as usize,
            keyframe_bytes: (unit * KEYFRAME_RATIO) as usize,
            audio_bytes: audio_bytes as usize,
            video_frames: 0,
            audio_frames: 0,
        }
    }

    /// The decoder configurations, picture and sound.
    pub(super) fn configs() -> (Vec<u8>, Vec<u8>) {
        ([&[0x17, 0, 0, 0, 0], &AVC_CONFIG[..]].concat(), [&[0xaf, 0], &AAC_CONFIG[..]].concat())
    }

    /// When the next picture and the next sound are due, in microseconds from the start.
    pub(super) fn due_us(&self) -> (u64, u64) {
        let audio = self.audio_frames * AAC_FRAME_SAMPLES * 1_000_000 / AAC_SAMPLE_RATE;
        (self.video_frames * 1_000_000 / self.fps, audio)
    }

    /// The next picture.
    pub(super) fn next_video(&mut self, clock_ns: u64) -> Vec<u8> {
        let keyframe = self.video_frames.is_multiple_of(self.keyframe_frames);
        let bytes = if keyframe { self.keyframe_bytes } else { self.delta_bytes };
        let nal_bytes = bytes.max(STAMP_LEN + 2);
        let mut body = Vec::with_capacity(9 + nal_bytes);
        body.extend([if keyframe { 0x17 } else { 0x27 }, 1, 0, 0, 0]);
        body.extend((nal_bytes as u32).to_be_bytes());
        body.push(if keyframe { 0x65 } else { 0x41 });
        body.resize(9 + nal_bytes - STAMP_LEN, FILLER);
        stamp(true, keyframe, self.video_frames, clock_ns).append_to(&mut body);
        self.video_frames += 1;
        body
    }

    /// The next sound.
    pub(super) fn next_audio(&mut self, clock_ns: u64) -> Vec<u8> {
        let mut body = vec![0xaf, 1];
        body.resize(2 + self.audio_bytes.saturating_sub(STAMP_LEN), FILLER);
        stamp(false, false, self.audio_frames, clock_ns).append_to(&mut body);
        self.audio_frames += 1;
        body
    }
}

fn stamp(video: bool, keyframe: bool, number: u64, clock_ns: u64) -> Stamp {
    Stamp { video, keyframe, stream: 0, clock_ns, packet: number, frame: number, index: 0, count: 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_seconds_have_the_bit_rate_that_was_asked_for() {
        let mut source = Source::new(1000, 128, 30, 2);
        let (mut video, mut audio) = (0, 0);
        while source.due_us().0 < 10_000_000 {
            video += source.next_video(1 << 60).len();
        }
        while source.due_us().1 < 10_000_000 {
            audio += source.next_audio(1 << 60).len();
        }
        assert!((1_240_000..1_260_000).contains(&video), "{video}");
        assert!((158_000..162_000).contains(&audio), "{audio}");
    }

    #[test]
    fn a_picture_is_one_nal_unit_with_a_stamp_at_its_end() {
        let mut source = Source::new(1000, 128, 30, 1);
        let bodies: Vec<Vec<u8>> = (0..31).map(|_| source.next_video(1 << 60)).collect();
        for (number, body) in bodies.iter().enumerate() {
            let length = u32::from_be_bytes(body[5..9].try_into().unwrap()) as usize;
            assert_eq!(length, body.len() - 9);
            let stamp = Stamp::from_payload(body).unwrap();
            assert_eq!((stamp.packet, stamp.keyframe), (number as u64, number % 30 == 0));
        }
    }
}
