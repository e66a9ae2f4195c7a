//! Codecs in the words of RFC 6381, as `CODECS` of playlists and `MediaSource.isTypeSupported` want them.

use freshet_media::h264::AvcConfig;
use freshet_media::{AacConfig, Mp3Header};

/// ISO/IEC 14496-15 §E: profile, constraints and level in hexadecimal digits.
pub(super) fn avc(config: &AvcConfig) -> String {
    format!("avc1.{:02X}{:02X}{:02X}", config.profile, config.constraints, config.level)
}

/// ISO/IEC 14496-15 §E.3, from the record's `general_profile_space` on.
pub(super) fn hevc(record: &[u8]) -> Option<String> {
    let [_version, profile, rest @ ..] = record else { return None };
    let (compatibility, rest) = rest.split_first_chunk::<4>()?;
    let (constraints, rest) = rest.split_first_chunk::<6>()?;
    let level = rest.first()?;
    let space = ["", "A", "B", "C"][usize::from(profile >> 6)];
    let tier = if profile & 0x20 == 0 { 'L' } else { 'H' };
    // The flag of profile 0 comes first in the record, and last in the number.
    let compatibility = u32::from_be_bytes(*compatibility).reverse_bits();
    let mut text = format!("hvc1.{space}{}.{compatibility:X}.{tier}{level}", profile & 0x1f);
    let used = constraints.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    for byte in &constraints[..used] {
        text.push_str(&format!(".{byte:X}"));
    }
    Some(text)
}

/// AV1-ISOBMFF §5, from the configuration record.
pub(super) fn av1(record: &[u8]) -> Option<String> {
    let [_marker, first, second, ..] = record else { return None };
    let (profile, level) = (first >> 5, first & 0x1f);
    let tier = if second & 0x80 == 0 { 'M' } else { 'H' };
    let depth = match (second & 0x40 != 0, second & 0x20 != 0) {
        (false, _) => 8,
        (true, false) => 10,
        (true, true) => 12,
    };
    Some(format!("av01.{profile}.{level:02}{tier}.{depth:02}"))
}

/// The VP codec binding, §"Codecs Parameter String", from the configuration record.
pub(super) fn vpx(four_cc: &str, record: &[u8]) -> Option<String> {
    let [profile, level, sampling, ..] = record else { return None };
    Some(format!("{four_cc}.{profile:02}.{level:02}.{:02}", sampling >> 4))
}

/// RFC 6381 §3.3: the object type that is announced first.
pub(super) fn aac(config: &AacConfig) -> String {
    const SBR: u8 = 5;
    const PS: u8 = 29;
    let object_type = match (config.ps, config.sbr) {
        (Some(true), _) => PS,
        (_, Some(true)) => SBR,
        _ => config.object_type,
    };
    format!("mp4a.40.{object_type}")
}

/// RFC 6381 §3.3: the object type alone, which is what `esds` says.
pub(super) fn mp3(header: &Mp3Header) -> String {
    format!("mp4a.{:02X}", mp3_object_type(header))
}

/// MPEG-1 audio, or MPEG-2 audio.
pub(super) fn mp3_object_type(header: &Mp3Header) -> u8 {
    if header.is_mpeg1 { 0x6b } else { 0x69 }
}
