//! Movie fragments: `moof` and `mdat`, ISO/IEC 14496-12 §8.8.

use bytes::Bytes;

use super::boxes::{patch_u32, write_box, write_full_box};

/// One frame in its track's ticks.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    pub(super) duration: u32,
    /// From decoding to showing it.
    pub(super) composition_offset: i32,
    pub(super) is_sync: bool,
    pub(super) data: Bytes,
}

/// The samples of one track in a fragment.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) track_id: u32,
    /// When the first one is decoded.
    pub(super) base_time: u64,
    /// All are sync samples, as the initialization segment says of sound.
    pub(super) is_sound: bool,
    pub(super) samples: Vec<Sample>,
}

/// §8.8.3.1: what a sample depends on and whether it is a sync sample.
pub(super) fn sample_flags(is_sync: bool) -> u32 {
    const DEPENDS_ON_NONE: u32 = 2 << 24;
    const DEPENDS_ON_OTHERS: u32 = 1 << 24;
    const IS_NON_SYNC: u32 = 1 << 16;
    if is_sync { DEPENDS_ON_NONE } else { DEPENDS_ON_OTHERS | IS_NON_SYNC }
}

/// Appends a fragment.
pub(super) fn write(out: &mut Vec<u8>, sequence: u32, runs: &[Run]) {
    let bytes: usize = runs.iter().flat_map(|run| &run.samples).map(|sample| sample.data.len() + 16).sum();
    out.reserve(bytes + 256);
    let start = out.len();
    let mut offset_places = Vec::with_capacity(runs.len());
    write_box(out, b"moof", |out| {
        write_full_box(out, b"mfhd", 0, 0, |out| out.extend(sequence.to_be_bytes()));
        for run in runs {
            write_box(out, b"traf", |out| offset_places.push(write_run(out, run)));
        }
    });
    let header_bytes = out.len() - start + 8;
    let mut offset = header_bytes;
    for (place, run) in offset_places.into_iter().zip(runs) {
        patch_u32(out, place, u32::try_from(offset).unwrap_or(u32::MAX));
        offset += run.samples.iter().map(|sample| sample.data.len()).sum::<usize>();
    }
    write_box(out, b"mdat", |out| {
        for sample in runs.iter().flat_map(|run| &run.samples) {
            out.extend_from_slice(&sample.data);
        }
    });
}

/// Gives back where the offset of the data must be filled in.
fn write_run(out: &mut Vec<u8>, run: &Run) -> usize {
    const DEFAULT_BASE_IS_MOOF: u32 = 0x02_0000;
    const DATA_OFFSET: u32 = 0x1;
    const DURATION: u32 = 0x100;
    const SIZE: u32 = 0x200;
    const FLAGS: u32 = 0x400;
    const COMPOSITION_OFFSET: u32 = 0x800;
    write_full_box(out, b"tfhd", 0, DEFAULT_BASE_IS_MOOF, |out| out.extend(run.track_id.to_be_bytes()));
    write_full_box(out, b"tfdt", 1, 0, |out| out.extend(run.base_time.to_be_bytes()));
    let has_offsets = run.samples.iter().any(|sample| sample.composition_offset != 0);
    let mut flags = DATA_OFFSET | DURATION | SIZE;
    flags |= if run.is_sound { 0 } else { FLAGS };
    flags |= if has_offsets { COMPOSITION_OFFSET } else { 0 };
    let mut place = 0;
    // Version 1: offsets have a sign.
    write_full_box(out, b"trun", 1, flags, |out| {
        out.extend(u32::try_from(run.samples.len()).unwrap_or(u32::MAX).to_be_bytes());
        place = out.len();
        out.extend([0; 4]);
        for sample in &run.samples {
            out.extend(sample.duration.to_be_bytes());
            out.extend(u32::try_from(sample.data.len()).unwrap_or(u32::MAX).to_be_bytes());
            if !run.is_sound {
                out.extend(sample_flags(sample.is_sync).to_be_bytes());
            }
            if has_offsets {
                out.extend(sample.composition_offset.to_be_bytes());
            }
        }
    });
    place
}
