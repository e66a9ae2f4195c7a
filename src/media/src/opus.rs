//! `OpusHead`, RFC 7845 §5.1: what says of an Opus track how many channels it has and how many samples to drop at first.

use std::fmt;

use bytes::Bytes;

const MAGIC: &[u8; 8] = b"OpusHead";
/// The rate at which Opus counts samples, whatever the source had.
const CLOCK_HZ: u32 = 48_000;
/// What libopus needs before its output is right, at 48 kHz.
const USUAL_PRE_SKIP: u16 = 312;

/// Why an `OpusHead` cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpusHeadError {
    /// It does not begin with its name.
    Magic,
    /// It ends too early.
    Truncated,
    /// The upper half of the version is not 0.
    Version(u8),
    /// Channels, streams or their mapping contradict each other.
    Channels,
}

impl fmt::Display for OpusHeadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpusHeadError::Magic => f.write_str("no OpusHead"),
            OpusHeadError::Truncated => f.write_str("the OpusHead ends too early"),
            OpusHeadError::Version(version) => write!(f, "OpusHead of the unknown version {version}"),
            OpusHeadError::Channels => f.write_str("the OpusHead's channels contradict each other"),
        }
    }
}

impl std::error::Error for OpusHeadError {}

/// A parsed `OpusHead`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpusHead {
    /// Channels that come out.
    pub channels: u8,
    /// Samples at 48 kHz to drop from the decoder's output at the start.
    pub pre_skip: u16,
    /// Sample rate of the encoder's input in Hz, 0 if unknown. Decoders need not know it.
    pub input_sample_rate: u32,
    /// Gain to apply, in 1/256 dB.
    pub output_gain: i16,
    /// How the channels are spread over streams; `None` for mono and stereo in one stream.
    pub mapping: Option<ChannelMapping>,
}

/// How more than two channels, or channels in a special order, are spread over the streams of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelMapping {
    /// What the channels mean: 1 for the order of Vorbis, 255 for nothing.
    pub family: u8,
    /// Streams in a packet.
    pub streams: u8,
    /// How many of them are stereo.
    pub coupled_streams: u8,
    /// For each channel the decoded channel, 255 for silence.
    pub table: Bytes,
}

/// How long a packet is, in samples at 48 kHz, from its first bytes (RFC 6716 §3.1). `None` if it is empty, cut off, or
/// longer than 120 ms.
pub fn packet_samples(packet: &[u8]) -> Option<u32> {
    const MAX_SAMPLES: u32 = 5_760;
    let toc = *packet.first()?;
    let frame = match toc >> 3 {
        silk @ 0..=11 => [480, 960, 1_920, 2_880][usize::from(silk & 3)],
        hybrid @ 12..=15 => [480, 960][usize::from(hybrid & 1)],
        celt => 120 << (celt & 3),
    };
    let frames = match toc & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => u32::from(*packet.get(1)? & 0x3f),
    };
    Some(frame * frames).filter(|samples| (1..=MAX_SAMPLES).contains(samples))
}

impl OpusHead {
    /// What libopus makes of up to two channels at 48 kHz.
    pub fn new(channels: u8) -> OpusHead {
        OpusHead {
            channels: channels.clamp(1, 2),
            pre_skip: USUAL_PRE_SKIP,
            input_sample_rate: CLOCK_HZ,
            output_gain: 0,
            mapping: None,
        }
    }

    /// Reads one. What follows it is passed over.
    ///
    /// # Errors
    /// It is none, truncated, of another version, or contradicts itself.
    pub fn parse(head: &[u8]) -> Result<OpusHead, OpusHeadError> {
        let Some((magic, head)) = head.split_first_chunk::<8>() else { return Err(OpusHeadError::Truncated) };
        if magic != MAGIC {
            return Err(OpusHeadError::Magic);
        }
        let [version, channels, skip0, skip1, rate0, rate1, rate2, rate3, gain0, gain1, family, rest @ ..] = head
        else {
            return Err(OpusHeadError::Truncated);
        };
        if version & 0xf0 != 0 {
            return Err(OpusHeadError::Version(*version));
        }
        if *channels == 0 || *family == 0 && *channels > 2 {
            return Err(OpusHeadError::Channels);
        }
        let mapping = if *family == 0 { None } else { Some(ChannelMapping::parse(*family, *channels, rest)?) };
        Ok(OpusHead {
            channels: *channels,
            pre_skip: u16::from_le_bytes([*skip0, *skip1]),
            input_sample_rate: u32::from_le_bytes([*rate0, *rate1, *rate2, *rate3]),
            output_gain: i16::from_le_bytes([*gain0, *gain1]),
            mapping,
        })
    }

    /// Writes it.
    pub fn to_record(&self) -> Bytes {
        let mut head = MAGIC.to_vec();
        head.extend([1, self.channels]);
        head.extend(self.pre_skip.to_le_bytes());
        head.extend(self.input_sample_rate.to_le_bytes());
        head.extend(self.output_gain.to_le_bytes());
        match &self.mapping {
            None => head.push(0),
            Some(mapping) => {
                head.extend([mapping.family, mapping.streams, mapping.coupled_streams]);
                head.extend_from_slice(&mapping.table);
            }
        }
        head.into()
    }
}

impl ChannelMapping {
    /// RFC 7845 §5.1.1.
    fn parse(family: u8, channels: u8, data: &[u8]) -> Result<ChannelMapping, OpusHeadError> {
        let [streams, coupled_streams, rest @ ..] = data else { return Err(OpusHeadError::Truncated) };
        let table = rest.get(..usize::from(channels)).ok_or(OpusHeadError::Truncated)?;
        let decoded = u16::from(*streams) + u16::from(*coupled_streams);
        let is_known = |index: &u8| *index == 255 || u16::from(*index) < decoded;
        if *streams == 0 || coupled_streams > streams || decoded > 255 || !table.iter().all(is_known) {
            return Err(OpusHeadError::Channels);
        }
        let (streams, coupled_streams) = (*streams, *coupled_streams);
        Ok(ChannelMapping { family, streams, coupled_streams, table: Bytes::copy_from_slice(table) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Random, hex};

    /// From `ffmpeg -c:a libopus`: stereo, and 5.1.
    const HEADS: [&str; 2] =
        ["4f707573486561640102380180bb0000000000", "4f707573486561640106380180bb00000000010402000401020305"];

    #[test]
    fn heads_are_read_and_written() {
        for head in HEADS {
            assert_eq!(OpusHead::parse(&hex(head)).unwrap().to_record(), hex(head));
        }
        assert_eq!(OpusHead::parse(&hex(HEADS[0])), Ok(OpusHead::new(2)));
        let surround = OpusHead::parse(&hex(HEADS[1])).unwrap();
        let mapping = surround.mapping.unwrap();
        assert_eq!((surround.channels, mapping.family, mapping.streams, mapping.coupled_streams), (6, 1, 4, 2));
    }

    #[test]
    fn other_heads_are_refused() {
        for head in HEADS {
            let head = hex(head);
            for cut in 0..head.len() {
                assert_eq!(OpusHead::parse(&head[..cut]), Err(OpusHeadError::Truncated), "{cut}");
            }
            for (at, value, error) in [
                (0, b'o', OpusHeadError::Magic),
                (8, 0x10, OpusHeadError::Version(0x10)),
                (9, 0, OpusHeadError::Channels),
            ] {
                let mut changed = head.clone();
                changed[at] = value;
                assert_eq!(OpusHead::parse(&changed), Err(error));
            }
        }
        for (head, at, value) in [(0, 9, 3), (1, 19, 0), (1, 20, 5), (1, 21, 6)] {
            let mut changed = hex(HEADS[head]);
            changed[at] = value;
            assert_eq!(OpusHead::parse(&changed), Err(OpusHeadError::Channels), "{at}");
        }
    }

    #[test]
    fn packets_tell_how_long_they_are() {
        let cases: [(&[u8], Option<u32>); 9] = [
            (&[], None),
            (&[0x78], Some(960)),
            (&[0x08], Some(960)),
            (&[0x19], Some(5_760)),
            (&[0x1b, 2], Some(5_760)),
            (&[0x1b, 3], None),
            (&[0xe0], Some(120)),
            (&[0xff, 0x83], Some(2_880)),
            (&[0xff], None),
        ];
        for (packet, samples) in cases {
            assert_eq!(packet_samples(packet), samples, "{packet:02x?}");
        }
    }

    #[test]
    fn mutants_are_survived() {
        let mut random = Random::new(9);
        for round in 0..20_000 {
            let mut head = hex(HEADS[round % 2]);
            random.mutate(&mut head);
            if let Ok(parsed) = OpusHead::parse(&head) {
                assert_eq!(OpusHead::parse(&parsed.to_record()), Ok(parsed));
            }
        }
    }
}
