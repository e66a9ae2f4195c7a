//! Sample entries: what a decoder is set up with, ISO/IEC 14496-12 §8.5.2, §12.1.3 and §12.2.3.

use freshet_media::{Codec, OpusHead};

use super::boxes::{write_box, write_full_box};
use super::codec_string::mp3_object_type;
use super::track::{Fmp4Track, Shape};

/// Writes a track's sample entry.
pub(super) fn write(out: &mut Vec<u8>, track: &Fmp4Track) {
    let config = track.config();
    match &track.shape {
        Shape::Picture { width, height, record, .. } => {
            let (entry, configuration): (_, &[u8; 4]) = match config.codec {
                Codec::H265 => (b"hvc1", b"hvcC"),
                Codec::Av1 => (b"av01", b"av1C"),
                Codec::Vp8 => (b"vp08", b"vpcC"),
                Codec::Vp9 => (b"vp09", b"vpcC"),
                _ => (b"avc1", b"avcC"),
            };
            write_picture(out, entry, (*width, *height), |out| match config.codec {
                Codec::Vp8 | Codec::Vp9 => {
                    write_full_box(out, configuration, 1, 0, |out| out.extend_from_slice(record));
                }
                _ => write_box(out, configuration, |out| out.extend_from_slice(record)),
            });
        }
        Shape::Aac(aac) => write_sound(out, b"mp4a", aac.channels, aac.output_sample_rate, |out| {
            const AAC: u8 = 0x40;
            write_elementary(out, AAC, &config.record);
        }),
        Shape::Mp3(header) => write_sound(out, b"mp4a", header.channels, header.sample_rate, |out| {
            write_elementary(out, mp3_object_type(header), &[]);
        }),
        Shape::Opus(head) => write_sound(out, b"Opus", head.channels, track.clock_hz, |out| write_opus(out, head)),
    }
}

fn write_picture(
    out: &mut Vec<u8>,
    kind: &[u8; 4],
    (width, height): (u16, u16),
    configuration: impl FnOnce(&mut Vec<u8>),
) {
    write_box(out, kind, |out| {
        write_entry_head(out);
        out.extend([0; 16]);
        out.extend(width.to_be_bytes());
        out.extend(height.to_be_bytes());
        // 72 dpi each way, reserved, one frame per sample, no name.
        out.extend([0, 0x48, 0, 0, 0, 0x48, 0, 0, 0, 0, 0, 0, 0, 1]);
        out.extend([0; 32]);
        // Colour without alpha; -1.
        out.extend([0, 0x18, 0xff, 0xff]);
        configuration(out);
    });
}

fn write_sound(out: &mut Vec<u8>, kind: &[u8; 4], channels: u8, rate: u32, configuration: impl FnOnce(&mut Vec<u8>)) {
    write_box(out, kind, |out| {
        write_entry_head(out);
        out.extend([0; 8]);
        out.extend([0, channels, 0, 16, 0, 0, 0, 0]);
        // 16.16; rates that do not fit are left out, decoders know them from their configuration.
        out.extend(u16::try_from(rate).unwrap_or(0).to_be_bytes());
        out.extend([0, 0]);
        configuration(out);
    });
}

fn write_entry_head(out: &mut Vec<u8>) {
    // Reserved; the data is in this file.
    out.extend([0, 0, 0, 0, 0, 0, 0, 1]);
}

/// `esds`, ISO/IEC 14496-14 §6.7 with the descriptors of 14496-1 §7.2.6.
fn write_elementary(out: &mut Vec<u8>, object_type: u8, specific: &[u8]) {
    const ES: u8 = 3;
    const DECODER_CONFIG: u8 = 4;
    const DECODER_SPECIFIC: u8 = 5;
    const SL_CONFIG: u8 = 6;
    /// Audio, upstream no, reserved.
    const STREAM_TYPE: u8 = 5 << 2 | 1;
    write_full_box(out, b"esds", 0, 0, |out| {
        write_descriptor(out, ES, |out| {
            // No id, no dependencies.
            out.extend([0, 0, 0]);
            write_descriptor(out, DECODER_CONFIG, |out| {
                // Buffer size and rates are not told.
                out.extend([object_type, STREAM_TYPE, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
                if !specific.is_empty() {
                    write_descriptor(out, DECODER_SPECIFIC, |out| out.extend_from_slice(specific));
                }
            });
            write_descriptor(out, SL_CONFIG, |out| out.push(2));
        });
    });
}

/// With a size of four bytes of seven bits, §8.3.3 of 14496-1.
fn write_descriptor(out: &mut Vec<u8>, tag: u8, fill: impl FnOnce(&mut Vec<u8>)) {
    out.extend([tag, 0, 0, 0, 0]);
    let start = out.len();
    fill(out);
    let length = out.len() - start;
    for (i, place) in (start - 4..start).enumerate() {
        let more = if i < 3 { 0x80 } else { 0 };
        out[place] = more | (length >> (7 * (3 - i)) & 0x7f) as u8;
    }
}

/// `dOps`, "Encapsulation of Opus in ISO Base Media File Format" §4.3.2: the `OpusHead` with its numbers turned round.
fn write_opus(out: &mut Vec<u8>, head: &OpusHead) {
    write_box(out, b"dOps", |out| {
        out.extend([0, head.channels]);
        out.extend(head.pre_skip.to_be_bytes());
        out.extend(head.input_sample_rate.to_be_bytes());
        out.extend(head.output_gain.to_be_bytes());
        match &head.mapping {
            None => out.push(0),
            Some(mapping) => {
                out.extend([mapping.family, mapping.streams, mapping.coupled_streams]);
                out.extend_from_slice(&mapping.table);
            }
        }
    });
}
