//! Media without an encoder: payloads shaped like H.264 (RFC 6184), VP8 (RFC 7741) and Opus (RFC 7587), as far as a
//! server that forwards packets looks into them: parameter sets, keyframes, frame starts and fragments are where they
//! belong, the picture data is filler and a [`Stamp`]. Nothing decodes it.

use crate::stamp::{STAMP_LEN, Stamp};

/// Baseline, level 3.1, 1280x720.
const SPS: [u8; 9] = [0x67, 0x42, 0xe0, 0x1f, 0xda, 0x01, 0x40, 0x16, 0xe4];
const PPS: [u8; 4] = [0x68, 0xce, 0x3c, 0x80];
const NAL_STAP_A: u8 = 24;
const NAL_FU_A: u8 = 28;
/// NAL header and payload type of an SEI message "user data unregistered", which carries the stamp of a STAP-A.
const SEI_USER_DATA: [u8; 3] = [0x06, 0x05, STAMP_LEN as u8];
/// Any value that is no start code and no emulation prevention byte.
const FILLER: u8 = 0xab;
/// A keyframe is this many times as large as the frames between.
const KEYFRAME_RATIO: usize = 4;
/// Room for codec headers, a few bytes of data and the stamp.
const MIN_PAYLOAD: usize = STAMP_LEN + 24;
/// Opus TOC: fullband CELT, 20 ms, stereo, one frame.
const OPUS_TOC: u8 = 0xfc;

/// Which shape the video has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
pub(crate) enum VideoCodec {
    H264,
    Vp8,
}

/// Makes the frames of one video track.
#[derive(Debug)]
pub(crate) struct VideoSource {
    codec: VideoCodec,
    stream: u32,
    delta_bytes: usize,
    max_payload: usize,
    next_frame: u64,
    next_packet: u64,
}

impl VideoSource {
    pub(crate) fn new(codec: VideoCodec, stream: u32, bitrate_bps: u64, fps: u32, max_payload: usize) -> VideoSource {
        VideoSource {
            codec,
            stream,
            delta_bytes: (bitrate_bps / 8 / u64::from(fps.max(1))) as usize,
            max_payload: max_payload.max(MIN_PAYLOAD),
            next_frame: 0,
            next_packet: 0,
        }
    }

    /// The payloads of the next frame, in order; the last one takes the RTP marker.
    pub(crate) fn next_frame(&mut self, clock_ns: u64, keyframe: bool) -> Vec<Vec<u8>> {
        let bytes = self.delta_bytes * if keyframe { KEYFRAME_RATIO } else { 1 };
        // Equal pieces, as libwebrtc cuts them.
        let pieces = bytes.div_ceil(self.max_payload).max(1);
        let piece_bytes = (bytes / pieces).clamp(MIN_PAYLOAD, self.max_payload);
        let parameter_sets = keyframe && self.codec == VideoCodec::H264;
        let count = pieces + usize::from(parameter_sets);

        let payloads = (0..count).map(|index| {
            let mut payload = Vec::with_capacity(self.max_payload);
            let mut fill_to = piece_bytes - STAMP_LEN;
            match self.codec {
                VideoCodec::H264 if parameter_sets && index == 0 => {
                    put_parameter_sets(&mut payload);
                    fill_to = 0;
                }
                VideoCodec::H264 => {
                    let piece = index - usize::from(parameter_sets);
                    put_h264_header(&mut payload, keyframe, piece, pieces);
                }
                VideoCodec::Vp8 => put_vp8_header(&mut payload, keyframe, index, self.next_frame),
            }
            payload.resize(payload.len().max(fill_to), FILLER);
            Stamp {
                video: true,
                keyframe,
                stream: self.stream,
                clock_ns,
                packet: self.next_packet + index as u64,
                frame: self.next_frame,
                index: index as u32,
                count: count as u32,
            }
            .append_to(&mut payload);
            payload
        });
        let payloads = payloads.collect();
        self.next_frame += 1;
        self.next_packet += count as u64;
        payloads
    }
}

/// Makes the packets of one audio track, 20 ms each.
#[derive(Debug)]
pub(crate) struct AudioSource {
    stream: u32,
    payload_bytes: usize,
    next_packet: u64,
}

impl AudioSource {
    pub(crate) fn new(stream: u32, payload_bytes: usize) -> AudioSource {
        AudioSource { stream, payload_bytes: payload_bytes.max(STAMP_LEN + 1), next_packet: 0 }
    }

    pub(crate) fn next_packet(&mut self, clock_ns: u64) -> Vec<u8> {
        let mut payload = vec![FILLER; self.payload_bytes - STAMP_LEN];
        payload[0] = OPUS_TOC;
        let packet = self.next_packet;
        Stamp {
            video: false,
            keyframe: false,
            stream: self.stream,
            clock_ns,
            packet,
            frame: packet,
            index: 0,
            count: 1,
        }
        .append_to(&mut payload);
        self.next_packet += 1;
        payload
    }
}

/// A STAP-A of SPS, PPS and an SEI message whose body is the stamp that follows.
fn put_parameter_sets(payload: &mut Vec<u8>) {
    payload.push(0x60 | NAL_STAP_A);
    for nal in [SPS.as_slice(), &PPS] {
        payload.extend_from_slice(&(nal.len() as u16).to_be_bytes());
        payload.extend_from_slice(nal);
    }
    payload.extend_from_slice(&((SEI_USER_DATA.len() + STAMP_LEN) as u16).to_be_bytes());
    payload.extend_from_slice(&SEI_USER_DATA);
}

/// NAL header, or FU-A headers; on the first piece the start of a slice header (`first_mb_in_slice` 0, I or P slice).
fn put_h264_header(payload: &mut Vec<u8>, keyframe: bool, piece: usize, pieces: usize) {
    let (nal_header, slice_start) = if keyframe { (0x65, 0x88) } else { (0x41, 0x9a) };
    if pieces == 1 {
        payload.extend_from_slice(&[nal_header, slice_start]);
        return;
    }
    let mut fu_header = nal_header & 0x1f;
    if piece == 0 {
        fu_header |= 0x80;
    }
    if piece + 1 == pieces {
        fu_header |= 0x40;
    }
    payload.extend_from_slice(&[nal_header & 0xe0 | NAL_FU_A, fu_header]);
    if piece == 0 {
        payload.push(slice_start);
    }
}

/// Payload descriptor with a 15-bit picture id, and on the first packet the frame header (RFC 6386 §9.1), 1280x720.
fn put_vp8_header(payload: &mut Vec<u8>, keyframe: bool, index: usize, frame: u64) {
    let start_of_partition = if index == 0 { 0x10 } else { 0 };
    payload.extend_from_slice(&[0x80 | start_of_partition, 0x80, 0x80 | (frame >> 8) as u8 & 0x7f, frame as u8]);
    match (index, keyframe) {
        (0, true) => payload.extend_from_slice(&[0x10, 0x40, 0x00, 0x9d, 0x01, 0x2a, 0x00, 0x05, 0xd0, 0x02]),
        (0, false) => payload.extend_from_slice(&[0x11, 0x40, 0x00]),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use str0m::format::{detect_h264_keyframe, detect_vp8_keyframe};

    #[test]
    fn h264_keyframe_starts_with_parameter_sets_and_has_one_idr_start() {
        let mut source = VideoSource::new(VideoCodec::H264, 0, 1_000_000, 30, 1200);
        let frame = source.next_frame(1, true);
        assert_eq!(frame[0][0] & 0x1f, NAL_STAP_A);
        assert_eq!(frame.iter().filter(|p| detect_h264_keyframe(p)).count(), 1);
        assert!(detect_h264_keyframe(&frame[1]));
        let delta = source.next_frame(2, false);
        assert!(!delta.iter().any(|p| detect_h264_keyframe(p)));
        assert_eq!(delta[0][1], 0x81);
        assert_eq!(delta.last().map(|p| p[1]), Some(0x41));
    }

    #[test]
    fn stap_a_lengths_cover_the_payload_exactly() {
        let frame = VideoSource::new(VideoCodec::H264, 0, 1_000_000, 30, 1200).next_frame(1, true);
        let mut rest = &frame[0][1..];
        let mut types = Vec::new();
        while let Some((len, tail)) = rest.split_first_chunk::<2>() {
            let (nal, tail) = tail.split_at(usize::from(u16::from_be_bytes(*len)));
            types.push(nal[0] & 0x1f);
            rest = tail;
        }
        assert_eq!(types, [7, 8, 6]);
    }

    #[test]
    fn vp8_keyframe_is_recognised() {
        let mut source = VideoSource::new(VideoCodec::Vp8, 0, 1_000_000, 30, 1200);
        assert!(detect_vp8_keyframe(&source.next_frame(1, true)[0]));
        assert!(!detect_vp8_keyframe(&source.next_frame(2, false)[0]));
    }

    #[test]
    fn frames_keep_to_the_bitrate_and_the_packet_size() {
        let mut source = VideoSource::new(VideoCodec::H264, 0, 1_000_000, 30, 1200);
        let frame = source.next_frame(1, false);
        let bytes: usize = frame.iter().map(Vec::len).sum();
        assert!((4100..=4200).contains(&bytes), "{bytes}");
        assert!(frame.iter().all(|p| p.len() <= 1200));
    }

    #[test]
    fn packet_numbers_run_through_frames() {
        let mut source = VideoSource::new(VideoCodec::H264, 7, 1_000_000, 30, 1200);
        let stamps: Vec<Stamp> = [true, false, false]
            .into_iter()
            .flat_map(|key| source.next_frame(1, key))
            .filter_map(|p| Stamp::from_payload(&p))
            .collect();
        assert!(stamps.iter().enumerate().all(|(i, s)| s.packet == i as u64 && s.stream == 7));
        assert_eq!(stamps.last().map(|s| (s.frame, s.index + 1 == s.count)), Some((2, true)));
    }
}
