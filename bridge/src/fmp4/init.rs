//! The initialization segment: `ftyp` and a `moov` without samples.

use freshet_media::MediaKind;

use super::boxes::{write_box, write_full_box};
use super::fragment::sample_flags;
use super::track::{Fmp4Track, Shape};
use super::{entry, track_id};

/// Units per second of the movie's own times, of which there are none.
const MOVIE_CLOCK_HZ: u32 = 1_000;

/// Neither turned nor mirrored.
const IDENTITY: [u32; 9] = [0x0001_0000, 0, 0, 0, 0x0001_0000, 0, 0, 0, 0x4000_0000];

/// Of these tracks, in this order.
pub(super) fn write(out: &mut Vec<u8>, tracks: &[&Fmp4Track]) {
    write_box(out, b"ftyp", |out| {
        // Offsets from the fragment and negative composition offsets are of the sixth edition.
        out.extend(b"iso6\0\0\0\0iso6mp41");
    });
    write_box(out, b"moov", |out| {
        write_full_box(out, b"mvhd", 0, 0, |out| {
            let next_track = tracks.iter().map(|track| track_id(track.kind()) + 1).max().unwrap_or(1);
            // Not told when it was made; how long it is stands in the fragments.
            out.extend([0; 8]);
            out.extend(MOVIE_CLOCK_HZ.to_be_bytes());
            out.extend([0; 4]);
            // Speed and loudness are normal.
            out.extend([0, 1, 0, 0, 1, 0]);
            out.extend([0; 10]);
            push_all(out, &IDENTITY);
            out.extend([0; 24]);
            out.extend(next_track.to_be_bytes());
        });
        tracks.iter().for_each(|track| write_track(out, track));
        write_box(out, b"mvex", |out| {
            for track in tracks {
                write_full_box(out, b"trex", 0, 0, |out| {
                    // Sample entry 1, no duration, no size.
                    push_all(out, &[track_id(track.kind()), 1, 0, 0, sample_flags(track.kind() == MediaKind::Audio)]);
                });
            }
        });
    });
}

fn write_track(out: &mut Vec<u8>, track: &Fmp4Track) {
    let is_sound = track.kind() == MediaKind::Audio;
    write_box(out, b"trak", |out| {
        /// Enabled, in the movie, in its preview.
        const TRACK_FLAGS: u32 = 7;
        write_full_box(out, b"tkhd", 0, TRACK_FLAGS, |out| {
            push_all(out, &[0, 0, track_id(track.kind()), 0, 0, 0, 0, 0]);
            out.extend([if is_sound { 1 } else { 0 }, 0, 0, 0]);
            push_all(out, &IDENTITY);
            let (width, height) = track.size().unwrap_or_default();
            push_all(out, &[u32::from(width) << 16, u32::from(height) << 16]);
        });
        write_box(out, b"mdia", |out| {
            write_full_box(out, b"mdhd", 0, 0, |out| {
                push_all(out, &[0, 0, track.clock_hz, 0]);
                // The language is not known: "und" in letters of five bits.
                out.extend([0x55, 0xc4, 0, 0]);
            });
            write_full_box(out, b"hdlr", 0, 0, |out| {
                out.extend([0; 4]);
                out.extend(if is_sound { b"soun" } else { b"vide" });
                out.extend([0; 13]);
            });
            write_box(out, b"minf", |out| write_media_information(out, track));
        });
    });
}

fn write_media_information(out: &mut Vec<u8>, track: &Fmp4Track) {
    match track.shape {
        Shape::Picture { .. } => write_full_box(out, b"vmhd", 0, 1, |out| out.extend([0; 8])),
        _ => write_full_box(out, b"smhd", 0, 0, |out| out.extend([0; 4])),
    }
    write_box(out, b"dinf", |out| {
        write_full_box(out, b"dref", 0, 0, |out| {
            out.extend(1_u32.to_be_bytes());
            // The data is in the same file.
            write_full_box(out, b"url ", 0, 1, |_| {});
        });
    });
    write_box(out, b"stbl", |out| {
        write_full_box(out, b"stsd", 0, 0, |out| {
            out.extend(1_u32.to_be_bytes());
            entry::write(out, track);
        });
        // No samples outside of fragments.
        for kind in [b"stts", b"stsc", b"stco"] {
            write_full_box(out, kind, 0, 0, |out| out.extend([0; 4]));
        }
        write_full_box(out, b"stsz", 0, 0, |out| out.extend([0; 8]));
    });
}

fn push_all(out: &mut Vec<u8>, values: &[u32]) {
    values.iter().for_each(|value| out.extend(value.to_be_bytes()));
}
