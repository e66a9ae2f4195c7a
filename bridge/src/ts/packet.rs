//! Transport packets (§2.4.3.2) and the PES packets in them (§2.4.3.6).

/// Every packet is that long.
pub(super) const PACKET_BYTES: usize = 188;
const HEADER_BYTES: usize = 4;
const SYNC_BYTE: u8 = 0x47;

/// Clock of presentation and decoding times.
pub(super) const CLOCK_HZ: i64 = 90_000;
/// Times have 33 bits.
const TIME_MODULUS: i64 = 1 << 33;

/// Flags of the adaptation field.
const RANDOM_ACCESS: u8 = 0x40;
const HAS_PCR: u8 = 0x10;
/// Length and flags of an adaptation field, and a clock reference behind them.
const FLAGS_BYTES: usize = 2;
const PCR_BYTES: usize = 6;

/// `continuity_counter` of one PID (§2.4.3.3): four bits, one up with every packet that has a payload.
#[derive(Debug)]
pub(super) struct Counter {
    last: u8,
}

impl Default for Counter {
    fn default() -> Counter {
        Counter { last: 0x0f }
    }
}

impl Counter {
    fn next(&mut self) -> u8 {
        self.last = (self.last + 1) & 0x0f;
        self.last
    }
}

/// Times of a PES packet in ticks, from a base that never wraps.
#[derive(Debug, Clone, Copy)]
pub(super) struct PesTimes {
    pub(super) pts: i64,
    pub(super) dts: i64,
}

/// What stands before an access unit.
#[derive(Debug)]
pub(super) struct PesHeader {
    pub(super) pid: u16,
    pub(super) stream_id: u8,
    pub(super) times: PesTimes,
    /// The clock reference of the first packet, if the PID carries the clock.
    pub(super) clock: Option<i64>,
    /// Whether players may start here.
    pub(super) is_entry: bool,
}

/// Appends a table section (§2.4.4) in one packet. Ours have some dozens of bytes.
pub(super) fn push_section(out: &mut Vec<u8>, pid: u16, counter: &mut Counter, section: &[u8]) {
    let end = out.len() + PACKET_BYTES;
    push_packet_header(out, pid, true, 1, counter.next());
    // pointer_field: the section starts at once.
    out.push(0);
    out.extend_from_slice(section);
    debug_assert!(out.len() <= end, "a section that needs several packets");
    out.resize(end, 0xff);
}

/// Appends a packet with a clock reference and nothing else. The counter stays: there is no payload (§2.4.3.3).
pub(super) fn push_clock(out: &mut Vec<u8>, pid: u16, counter: &Counter, clock: i64) {
    let end = out.len() + PACKET_BYTES;
    push_packet_header(out, pid, false, 2, counter.last);
    out.extend([(PACKET_BYTES - HEADER_BYTES - 1) as u8, HAS_PCR]);
    push_pcr(out, clock);
    out.resize(end, 0xff);
}

/// Appends an access unit as one PES packet, in as many transport packets as it takes.
pub(super) fn push_pes(out: &mut Vec<u8>, counter: &mut Counter, header: &PesHeader, unit: &[u8]) {
    out.reserve((unit.len() / (PACKET_BYTES - HEADER_BYTES) + 2) * PACKET_BYTES);
    let (pes, pes_bytes) = pes_header(header, unit.len());
    let mut head = &pes[..pes_bytes];
    let mut rest = unit;
    let mut is_first = true;
    while is_first || !rest.is_empty() {
        let clock = header.clock.filter(|_| is_first);
        let flags = if is_first && header.is_entry { RANDOM_ACCESS } else { 0 };
        let mut field_bytes = match (clock, flags) {
            (Some(_), _) => FLAGS_BYTES + PCR_BYTES,
            (None, 0) => 0,
            (None, _) => FLAGS_BYTES,
        };
        let room = PACKET_BYTES - HEADER_BYTES - field_bytes - head.len();
        let (piece, tail) = rest.split_at(room.min(rest.len()));
        // What is left of the last packet becomes stuffing, which only the adaptation field may hold (§2.4.3.5).
        field_bytes += room - piece.len();
        push_packet_header(out, header.pid, is_first, if field_bytes > 0 { 3 } else { 1 }, counter.next());
        push_adaptation_field(out, field_bytes, flags, clock);
        out.extend_from_slice(head);
        out.extend_from_slice(piece);
        (head, rest, is_first) = (&[], tail, false);
    }
}

/// `control`: 1 payload, 2 adaptation field, 3 both.
fn push_packet_header(out: &mut Vec<u8>, pid: u16, starts_unit: bool, control: u8, counter: u8) {
    let [high, low] = pid.to_be_bytes();
    out.extend([SYNC_BYTE, u8::from(starts_unit) << 6 | high & 0x1f, low, control << 4 | counter]);
}

fn push_adaptation_field(out: &mut Vec<u8>, bytes: usize, flags: u8, clock: Option<i64>) {
    if bytes == 0 {
        return;
    }
    let end = out.len() + bytes;
    out.push((bytes - 1) as u8);
    // A field of length 0 is one byte of stuffing.
    if bytes > 1 {
        out.push(flags | if clock.is_some() { HAS_PCR } else { 0 });
        if let Some(clock) = clock {
            push_pcr(out, clock);
        }
    }
    out.resize(end, 0xff);
}

/// `program_clock_reference` (§2.4.3.5): 33 bits of base, six reserved ones, nine bits of extension, which is 0.
fn push_pcr(out: &mut Vec<u8>, clock: i64) {
    let base = clock.rem_euclid(TIME_MODULUS) as u64;
    out.extend_from_slice(&(base << 15 | 0x7e00).to_be_bytes()[2..]);
}

/// The header of a PES packet and its length.
fn pes_header(header: &PesHeader, unit_bytes: usize) -> ([u8; 19], usize) {
    let PesTimes { pts, dts } = header.times;
    let [pts, dts] = [pts, dts].map(|time| time.rem_euclid(TIME_MODULUS) as u64);
    let (flags, times_bytes) = if pts == dts { (2u8, 5) } else { (3, 10) };
    // 0 means "to the next start", which is allowed for pictures alone (§2.4.3.7).
    let length = u16::try_from(3 + times_bytes + unit_bytes).unwrap_or(0).to_be_bytes();
    let mut pes = [0; 19];
    // 0x84: the marker bits and data_alignment_indicator, for each access unit begins its packet.
    let fixed = [0, 0, 1, header.stream_id, length[0], length[1], 0x84, flags << 6, times_bytes as u8];
    pes[..9].copy_from_slice(&fixed);
    pes[9..14].copy_from_slice(&time_field(flags, pts));
    if flags == 3 {
        pes[14..].copy_from_slice(&time_field(1, dts));
    }
    (pes, 9 + times_bytes)
}

/// Four bits of prefix, then 3, 15 and 15 bits of time with a marker bit behind each.
fn time_field(prefix: u8, time: u64) -> [u8; 5] {
    [
        prefix << 4 | ((time >> 29) as u8 & 0x0e) | 1,
        (time >> 22) as u8,
        (time >> 14) as u8 | 1,
        (time >> 7) as u8,
        (time << 1) as u8 | 1,
    ]
}
