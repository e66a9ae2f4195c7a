//! Writing boxes, ISO/IEC 14496-12 §4.2.

/// Writes a box around what `fill` appends.
pub(super) fn write_box(out: &mut Vec<u8>, kind: &[u8; 4], fill: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend([0; 4]);
    out.extend(kind);
    fill(out);
    // What a fragment holds is bounded far below four gigabytes.
    let size = u32::try_from(out.len() - start).unwrap_or(u32::MAX);
    patch_u32(out, start, size);
}

/// The same with version and flags.
pub(super) fn write_full_box(
    out: &mut Vec<u8>,
    kind: &[u8; 4],
    version: u8,
    flags: u32,
    fill: impl FnOnce(&mut Vec<u8>),
) {
    write_box(out, kind, |out| {
        out.extend((u32::from(version) << 24 | flags & 0x00ff_ffff).to_be_bytes());
        fill(out);
    });
}

/// Overwrites four bytes that were written before.
pub(super) fn patch_u32(out: &mut [u8], at: usize, value: u32) {
    if let Some(place) = out.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<4>()) {
        *place = value.to_be_bytes();
    }
}
