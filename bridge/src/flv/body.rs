//! The numbers of tag bodies, shared by reading and writing.

use freshet_media::Codec;

/// Legacy `SoundFormat` values (E.4.2.1).
pub(super) mod sound_format {
    pub(crate) const MP3: u8 = 2;
    /// Enhanced RTMP: the low nibble is a packet type, a FourCC follows.
    pub(crate) const EX_HEADER: u8 = 9;
    pub(crate) const AAC: u8 = 10;
    pub(crate) const MP3_8_KHZ: u8 = 14;
}

/// Legacy `CodecID` values (E.4.3.1).
pub(super) mod codec_id {
    pub(crate) const AVC: u8 = 7;
    /// Not Adobe's: the extension of CDN vendors, older than Enhanced RTMP.
    pub(crate) const HEVC: u8 = 12;
}

/// `FrameType` values (E.4.3.1).
pub(super) mod frame_type {
    pub(crate) const KEY: u8 = 1;
    pub(crate) const INTER: u8 = 2;
    /// Info or command: no picture.
    pub(crate) const COMMAND: u8 = 5;
}

/// Packet types of Enhanced RTMP; legacy AVC and AAC have the first two as well. Others carry nothing for us.
pub(super) mod packet_type {
    pub(crate) const SEQUENCE_START: u8 = 0;
    pub(crate) const CODED_FRAMES: u8 = 1;
    /// Video only: coded frames without a composition time.
    pub(crate) const CODED_FRAMES_X: u8 = 3;
    /// HDR metadata of video, channel layout of sound.
    pub(crate) const METADATA: u8 = 4;
    pub(crate) const VIDEO_MULTITRACK: u8 = 6;
    pub(crate) const AUDIO_MULTITRACK: u8 = 5;
    pub(crate) const MOD_EX: u8 = 7;
}

/// `AvMultitrackType` values.
pub(super) mod multitrack {
    pub(crate) const ONE_TRACK: u8 = 0;
    pub(crate) const MANY_TRACKS: u8 = 1;
    pub(crate) const MANY_TRACKS_MANY_CODECS: u8 = 2;
}

/// The FourCC of a codec in Enhanced RTMP.
pub(crate) fn four_cc(codec: Codec) -> Option<[u8; 4]> {
    Some(*match codec {
        Codec::H264 => b"avc1",
        Codec::H265 => b"hvc1",
        Codec::Vp8 => b"vp08",
        Codec::Vp9 => b"vp09",
        Codec::Av1 => b"av01",
        Codec::Opus => b"Opus",
        Codec::Aac => b"mp4a",
        Codec::Mp3 => b".mp3",
        Codec::Pcmu | Codec::Pcma | Codec::Red => return None,
    })
}

/// The codec of a FourCC of Enhanced RTMP.
pub(super) fn codec_of(four_cc: [u8; 4]) -> Option<Codec> {
    Some(match &four_cc {
        b"avc1" => Codec::H264,
        b"hvc1" => Codec::H265,
        b"vp08" => Codec::Vp8,
        b"vp09" => Codec::Vp9,
        b"av01" => Codec::Av1,
        b"Opus" => Codec::Opus,
        b"mp4a" => Codec::Aac,
        b".mp3" => Codec::Mp3,
        _ => return None,
    })
}
