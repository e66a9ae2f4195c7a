//! A reader of fragmented MP4 for tests, written from the standard and apart from the writer.

use std::collections::BTreeMap;
use std::sync::Arc;

use freshet_media::{Frame, TrackConfig};

use crate::flv::{Demuxer, FileItem, FileReader};

/// H.264 with B-frames, 2 s of 320x180 at 30 Hz.
pub(crate) const BFRAMES: &[u8] = include_bytes!("../../tests/data/bframes-pyramid.flv");

/// The frames of a file.
pub(crate) fn frames_of(flv: &[u8]) -> Vec<Frame> {
    let (mut reader, mut demuxer, mut frames) = (FileReader::new(), Demuxer::new(), Vec::new());
    reader.push(flv);
    while let Some(item) = reader.next_item().unwrap() {
        if let FileItem::Media(tag) = item {
            frames.extend(demuxer.tag(&tag).unwrap());
        }
    }
    frames
}

/// A configuration of H.264 of 320x180.
pub(crate) fn avc() -> Arc<TrackConfig> {
    Arc::clone(&frames_of(BFRAMES)[0].config)
}

/// A track of the initialization segment.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ReadTrack {
    pub(crate) handler: [u8; 4],
    pub(crate) clock_hz: u32,
    pub(crate) entry: [u8; 4],
    /// The sample entry's fields before its boxes, then the kind and payload of its only box.
    pub(crate) entry_head: Vec<u8>,
    pub(crate) configuration: ([u8; 4], Vec<u8>),
    pub(crate) size: (u32, u32),
    pub(crate) default_flags: u32,
}

/// A sample of a fragment.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ReadSample {
    pub(crate) dts: i64,
    pub(crate) pts: i64,
    pub(crate) duration: u32,
    pub(crate) is_sync: bool,
    pub(crate) data: Vec<u8>,
}

/// The samples of one fragment by track.
pub(crate) type ReadFragment = BTreeMap<u32, Vec<ReadSample>>;

/// The boxes that `data` consists of, to its last byte.
pub(crate) fn boxes(mut data: &[u8]) -> Vec<([u8; 4], &[u8])> {
    let mut found = Vec::new();
    while !data.is_empty() {
        let size = u32_at(data, 0) as usize;
        assert!((8..=data.len()).contains(&size), "a box of {size} bytes in {}", data.len());
        found.push((data[4..8].try_into().unwrap(), &data[8..size]));
        data = &data[size..];
    }
    found
}

/// The only box of that kind in `data`, through a path of boxes.
fn only<'a>(data: &'a [u8], path: &[&[u8; 4]]) -> &'a [u8] {
    let [kind, rest @ ..] = path else { return data };
    let found: Vec<_> = boxes(data).into_iter().filter(|(found, _)| found == *kind).collect();
    assert_eq!(found.len(), 1, "{}", kind.escape_ascii());
    only(found[0].1, rest)
}

pub(crate) fn u32_at(data: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(data[at..at + 4].try_into().unwrap())
}

/// Reads an initialization segment.
pub(crate) fn read_init(data: &[u8]) -> BTreeMap<u32, ReadTrack> {
    let kinds: Vec<_> = boxes(data).iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, [*b"ftyp", *b"moov"]);
    let moov = only(data, &[b"moov"]);
    let mut defaults = BTreeMap::new();
    for (kind, trex) in boxes(only(moov, &[b"mvex"])) {
        assert_eq!((&kind, u32_at(trex, 8)), (b"trex", 1));
        defaults.insert(u32_at(trex, 4), u32_at(trex, 20));
    }
    let mut tracks = BTreeMap::new();
    for (_, trak) in boxes(moov).into_iter().filter(|(kind, _)| kind == b"trak") {
        let tkhd = only(trak, &[b"tkhd"]);
        let id = u32_at(tkhd, 12);
        let stbl = only(trak, &[b"mdia", b"minf", b"stbl"]);
        for kind in [b"stts", b"stsc", b"stco", b"stsz"] {
            assert!(only(stbl, &[kind]).iter().all(|byte| *byte == 0), "no samples outside of fragments");
        }
        let stsd = only(stbl, &[b"stsd"]);
        assert_eq!(u32_at(stsd, 4), 1);
        let (entry, fields) = boxes(&stsd[8..])[0];
        let handler: [u8; 4] = only(trak, &[b"mdia", b"hdlr"])[8..12].try_into().unwrap();
        let (head, inner) = fields.split_at(if &handler == b"vide" { 78 } else { 28 });
        let inner = boxes(inner);
        assert_eq!(inner.len(), 1);
        let track = ReadTrack {
            handler,
            clock_hz: u32_at(only(trak, &[b"mdia", b"mdhd"]), 12),
            entry,
            entry_head: head.to_vec(),
            configuration: (inner[0].0, inner[0].1.to_vec()),
            size: (u32_at(tkhd, 76) >> 16, u32_at(tkhd, 80) >> 16),
            default_flags: defaults[&id],
        };
        assert_eq!(tracks.insert(id, track), None);
    }
    assert_eq!(tracks.len(), defaults.len());
    tracks
}

/// Reads the fragments of a media segment.
pub(crate) fn read_fragments(data: &[u8], tracks: &BTreeMap<u32, ReadTrack>) -> Vec<ReadFragment> {
    let all = boxes(data);
    let mut fragments = Vec::new();
    let mut start = 0;
    for pair in all.chunks(2) {
        assert_eq!((&pair[0].0, &pair[1].0), (b"moof", b"mdat"));
        let end = start + pair.iter().map(|(_, payload)| payload.len() + 8).sum::<usize>();
        fragments.push(read_fragment(&data[start..end], pair[0].1, tracks));
        start = end;
    }
    fragments
}

fn read_fragment(whole: &[u8], moof: &[u8], tracks: &BTreeMap<u32, ReadTrack>) -> ReadFragment {
    let mut fragment = ReadFragment::new();
    let mut read = 8 + moof.len() + 8;
    for (_, traf) in boxes(moof).into_iter().filter(|(kind, _)| kind == b"traf") {
        let (tfhd, tfdt, trun) = (only(traf, &[b"tfhd"]), only(traf, &[b"tfdt"]), only(traf, &[b"trun"]));
        assert_eq!(u32_at(tfhd, 0), 0x02_0000, "default-base-is-moof");
        assert_eq!(u32_at(tfdt, 0), 1 << 24);
        let id = u32_at(tfhd, 4);
        let mut dts = i64::from(u32_at(tfdt, 4)) << 32 | i64::from(u32_at(tfdt, 8));
        let flags = u32_at(trun, 0);
        assert_eq!(flags >> 24, 1);
        assert_eq!(flags & !0xf00 & 0xff_ffff, 1);
        let mut offset = u32_at(trun, 8) as usize;
        assert_eq!(offset, read, "runs lie one after the other");
        let mut at = 12;
        let mut field = |bit: u32| {
            let value = (flags & bit != 0).then(|| u32_at(trun, at));
            at += if value.is_some() { 4 } else { 0 };
            value
        };
        let mut samples = Vec::new();
        for _ in 0..u32_at(trun, 4) {
            let (duration, size) = (field(0x100).unwrap(), field(0x200).unwrap() as usize);
            let is_sync = field(0x400).unwrap_or(tracks[&id].default_flags) & 0x1_0000 == 0;
            let pts = dts + i64::from(field(0x800).unwrap_or(0).cast_signed());
            let data = whole[offset..offset + size].to_vec();
            samples.push(ReadSample { dts, pts, duration, is_sync, data });
            dts += i64::from(duration);
            offset += size;
        }
        assert_eq!(at, trun.len());
        read = offset;
        assert!(fragment.insert(id, samples).is_none());
    }
    assert_eq!(read, whole.len(), "all data belongs to samples");
    fragment
}
