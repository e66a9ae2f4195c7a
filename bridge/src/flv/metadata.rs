//! `onMetaData`: what a publisher says about its stream, and what is said to players if nothing came.

use bytes::Bytes;
use freshet_media::{Codec, MediaKind, TrackConfig};

use super::amf0::{self, AmfError, Reader, Value};
use super::body::{codec_id, four_cc, sound_format};

/// Names of what is known at a file's end.
const DURATION: &str = "duration";
const FILE_SIZE: &str = "filesize";

/// What listings show of a publisher's metadata. Untrusted: an encoder may say anything.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metadata {
    /// Pixels.
    pub width: Option<f64>,
    /// Pixels.
    pub height: Option<f64>,
    /// Pictures per second.
    pub frame_rate: Option<f64>,
    /// In kbit/s.
    pub video_kbps: Option<f64>,
    /// In kbit/s.
    pub audio_kbps: Option<f64>,
    /// The encoder's name.
    pub encoder: Option<String>,
}

impl Metadata {
    /// Reads script data: the name `onMetaData` and an object or associative array. Other names give empty metadata.
    pub fn parse(script: &[u8]) -> Result<Metadata, AmfError> {
        let mut reader = Reader::new(script);
        if reader.value()?.as_ref().and_then(Value::as_str) != Some("onMetaData") {
            return Ok(Metadata::default());
        }
        let Some(properties) = reader.value()? else { return Ok(Metadata::default()) };
        let number = |name| properties.property(name).and_then(Value::as_f64).filter(|n| n.is_finite() && *n >= 0.0);
        Ok(Metadata {
            width: number("width"),
            height: number("height"),
            frame_rate: number("framerate"),
            video_kbps: number("videodatarate"),
            audio_kbps: number("audiodatarate"),
            encoder: properties.property("encoder").and_then(Value::as_str).map(str::to_owned),
        })
    }
}

/// What publishers put in front of script data that the server is to keep for players.
pub(crate) fn set_data_frame() -> Vec<u8> {
    let mut out = Vec::new();
    amf0::write(&mut out, &"@setDataFrame".into());
    out
}

/// Script data for a stream that brought none: the codecs of its tracks, in the numbers that players know, and the size of
/// the picture where the decoder's configuration tells.
pub fn describe<'a>(tracks: impl IntoIterator<Item = &'a TrackConfig>) -> Bytes {
    let mut properties = vec![("server".to_owned(), Value::from("Freshet"))];
    for track in tracks {
        properties.extend(codec_property(track));
        if let Some((width, height)) = freshet_media::facts(track).size {
            properties.push(("width".to_owned(), f64::from(width).into()));
            properties.push(("height".to_owned(), f64::from(height).into()));
        }
    }
    let mut out = Vec::new();
    amf0::write(&mut out, &"onMetaData".into());
    amf0::write(&mut out, &Value::EcmaArray(properties));
    out.into()
}

/// Script data at the beginning of a file, and where its numbers are that are known at the end only.
pub(crate) struct FileDescription {
    pub(crate) script: Bytes,
    /// Where the eight bytes of `duration` begin.
    pub(crate) duration_at: usize,
    /// Where those of `filesize` begin.
    pub(crate) size_at: usize,
}

/// Describes a file of these tracks; duration and size are 0 for the time being.
pub(crate) fn describe_file<'a>(tracks: impl IntoIterator<Item = &'a TrackConfig>) -> FileDescription {
    let mut out = Vec::new();
    amf0::write(&mut out, &"onMetaData".into());
    // In front of the first name: the marker and the count of an associative array.
    let first_name_at = out.len() + 5;
    let mut properties = vec![(DURATION.to_owned(), Value::from(0.0)), (FILE_SIZE.to_owned(), Value::from(0.0))];
    for track in tracks {
        if let Some((width, height)) = freshet_media::facts(track).size {
            properties.push(("width".to_owned(), f64::from(width).into()));
            properties.push(("height".to_owned(), f64::from(height).into()));
        }
        properties.extend(codec_property(track));
    }
    properties.push(("encoder".to_owned(), "Freshet".into()));
    amf0::write(&mut out, &Value::EcmaArray(properties));
    // Two bytes of a name's length, the name, the value's marker.
    let duration_at = first_name_at + 2 + DURATION.len() + 1;
    let size_at = duration_at + 8 + 2 + FILE_SIZE.len() + 1;
    FileDescription { script: out.into(), duration_at, size_at }
}

fn codec_property(track: &TrackConfig) -> Option<(String, Value)> {
    let name = if track.kind() == MediaKind::Audio { "audiocodecid" } else { "videocodecid" };
    Some((name.to_owned(), codec_number(track.codec)?.into()))
}

/// The legacy number where there is one, else the FourCC as a number (Enhanced RTMP, "Metadata Frame").
fn codec_number(codec: Codec) -> Option<f64> {
    match codec {
        Codec::H264 => Some(f64::from(codec_id::AVC)),
        Codec::Aac => Some(f64::from(sound_format::AAC)),
        Codec::Mp3 => Some(f64::from(sound_format::MP3)),
        other => four_cc(other).map(|code| f64::from(u32::from_be_bytes(code))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_known_properties_are_read() {
        let mut script = Vec::new();
        amf0::write(&mut script, &"onMetaData".into());
        let properties = [
            ("width", Value::from(1280.0)),
            ("height", Value::from("tall")),
            ("framerate", Value::from(f64::NAN)),
            ("encoder", "obs".into()),
        ];
        amf0::write(&mut script, &Value::EcmaArray(properties.map(|(k, v)| (k.to_owned(), v)).into()));
        let metadata = Metadata::parse(&script).unwrap();
        assert_eq!(metadata, Metadata { width: Some(1280.0), encoder: Some("obs".into()), ..Metadata::default() });
        assert!(Metadata::parse(&script[..script.len() - 8]).is_err());
        assert_eq!(Metadata::parse(&[2, 0, 1, b'x']).unwrap(), Metadata::default());
        assert_eq!(Metadata::parse(&[]).unwrap(), Metadata::default());
    }

    #[test]
    fn a_files_numbers_are_where_they_are_said_to_be() {
        let track = TrackConfig { codec: Codec::H264, record: Bytes::new() };
        let described = describe_file([&track]);
        let mut script = described.script.to_vec();
        script[described.duration_at..][..8].copy_from_slice(&12.5_f64.to_be_bytes());
        script[described.size_at..][..8].copy_from_slice(&99.0_f64.to_be_bytes());
        let mut reader = Reader::new(&script);
        reader.value().unwrap();
        let properties = reader.value().unwrap().unwrap();
        let number = |name| properties.property(name).and_then(Value::as_f64);
        assert_eq!(
            (number("duration"), number("filesize"), number("videocodecid")),
            (Some(12.5), Some(99.0), Some(7.0))
        );
    }

    #[test]
    fn a_description_names_the_codecs() {
        let track = |codec| TrackConfig { codec, record: Bytes::new() };
        let script = describe([&track(Codec::H264), &track(Codec::Opus)]);
        let mut reader = Reader::new(&script);
        reader.value().unwrap();
        let properties = reader.value().unwrap().unwrap();
        assert_eq!(properties.property("videocodecid").and_then(Value::as_f64), Some(7.0));
        assert_eq!(properties.property("audiocodecid").and_then(Value::as_f64), Some(f64::from(0x4f70_7573)));
    }
}
