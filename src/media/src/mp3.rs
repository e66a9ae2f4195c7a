//! Headers of MPEG audio layer III, ISO/IEC 11172-3 §2.4.1.3 and its half and quarter rates in 13818-3: all that is
//! known of an MP3 track before it is decoded.

/// Sample rates of MPEG-1; those of MPEG-2 are half, those of MPEG-2.5 a quarter of them.
const SAMPLE_RATES: [u32; 3] = [44_100, 48_000, 32_000];

/// What the header of a frame says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mp3Header {
    /// MPEG-1; else MPEG-2 or 2.5.
    pub is_mpeg1: bool,
    /// In Hz.
    pub sample_rate: u32,
    /// 1 or 2.
    pub channels: u8,
    /// Samples per channel in a frame.
    pub frame_samples: u16,
}

impl Mp3Header {
    /// Reads the header that a frame begins with. `None` if it is none, or one of another layer.
    pub fn parse(frame: &[u8]) -> Option<Mp3Header> {
        const LAYER_III: u8 = 1;
        const MONO: u8 = 3;
        let &[0xff, version, rate, mode, ..] = frame else { return None };
        if version & 0xe0 != 0xe0 || version >> 1 & 3 != LAYER_III {
            return None;
        }
        let divisor = match version >> 3 & 3 {
            3 => 1,
            2 => 2,
            0 => 4,
            _ => return None,
        };
        let is_mpeg1 = divisor == 1;
        Some(Mp3Header {
            is_mpeg1,
            sample_rate: SAMPLE_RATES.get(usize::from(rate >> 2 & 3))? / divisor,
            channels: if mode >> 6 == MONO { 1 } else { 2 },
            frame_samples: if is_mpeg1 { 1_152 } else { 576 },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read() {
        let header = |is_mpeg1, sample_rate, channels, frame_samples| {
            Some(Mp3Header { is_mpeg1, sample_rate, channels, frame_samples })
        };
        let cases: [(&[u8], Option<Mp3Header>); 8] = [
            (&[0xff, 0xfb, 0x90, 0x64], header(true, 44_100, 2, 1_152)),
            (&[0xff, 0xfb, 0x94, 0xc4], header(true, 48_000, 1, 1_152)),
            (&[0xff, 0xf3, 0x48, 0xc4], header(false, 16_000, 1, 576)),
            (&[0xff, 0xe3, 0x18, 0xc4], header(false, 8_000, 1, 576)),
            (&[0xff, 0xfb, 0x9c, 0x64], None),
            (&[0xff, 0xfd, 0x90, 0x64], None),
            (&[0xff, 0xeb, 0x90, 0x64], None),
            (&[0xff, 0xfb, 0x90], None),
        ];
        for (bytes, expected) in cases {
            assert_eq!(Mp3Header::parse(bytes), expected, "{bytes:02x?}");
        }
    }
}
