use super::*;
use crate::flv::TagType;
use crate::rtmp::message::rtmp_message;

/// Type 0: absolute time, length, type, stream.
fn type_0(chunk_stream: u8, at_ms: u32, length: usize, message_type: u8) -> Vec<u8> {
    let mut chunk = vec![chunk_stream];
    put_u24(&mut chunk, at_ms.min(EXTENDED));
    put_u24(&mut chunk, length as u32);
    chunk.push(message_type);
    chunk.extend([1, 0, 0, 0]);
    if at_ms >= EXTENDED {
        chunk.extend(at_ms.to_be_bytes());
    }
    chunk
}

/// Type 1: distance, length, type.
fn type_1(chunk_stream: u8, distance_ms: u32, length: usize, message_type: u8) -> Vec<u8> {
    let mut chunk = vec![1 << 6 | chunk_stream];
    put_u24(&mut chunk, distance_ms);
    put_u24(&mut chunk, length as u32);
    chunk.push(message_type);
    chunk
}

fn type_2(chunk_stream: u8, distance_ms: u32) -> Vec<u8> {
    let mut chunk = vec![2 << 6 | chunk_stream];
    put_u24(&mut chunk, distance_ms);
    chunk
}

fn type_3(chunk_stream: u8) -> Vec<u8> {
    vec![3 << 6 | chunk_stream]
}

fn put_u24(out: &mut Vec<u8>, value: u32) {
    out.extend(&value.to_be_bytes()[1..]);
}

fn payload(length: usize) -> Vec<u8> {
    (0..length).map(|i| i as u8 ^ 0x5a).collect()
}

fn reader() -> ChunkReader {
    ChunkReader::new(RtmpLimits::default())
}

/// Type, time and body of all messages.
type Read = Result<Vec<(u8, u32, Vec<u8>)>, RtmpError>;

fn read_cut(mut reader: ChunkReader, bytes: &[u8], cut: usize) -> Read {
    let mut messages = Vec::new();
    for mut piece in bytes.chunks(cut) {
        while let Some(message) = reader.next_message(&mut piece, Interest::Media)? {
            messages.push((message.message_type, message.timestamp_ms, message.body.to_vec()));
        }
        assert!(piece.is_empty(), "all bytes are taken");
    }
    Ok(messages)
}

/// The same at any cut.
fn read(bytes: &[u8]) -> Read {
    let whole = read_cut(reader(), bytes, bytes.len().max(1));
    for cut in [1, 2, 3, 5, 7, 127] {
        assert_eq!(read_cut(reader(), bytes, cut), whole, "cut in pieces of {cut}");
    }
    whole
}

fn times(bytes: &[u8]) -> Vec<u32> {
    read(bytes).unwrap().into_iter().map(|(_, at_ms, _)| at_ms).collect()
}

#[test]
fn header_types_add_up() {
    let body = payload(10);
    let mut bytes = Vec::new();
    for header in [
        type_0(4, 1000, 10, 8),
        type_1(4, 20, 10, 9),
        type_2(4, 30),
        type_3(4),
        // Another chunk stream counts for itself.
        type_0(5, 7, 10, 8),
        type_3(4),
        type_0(4, 500, 10, 8),
        // §5.3.1.2.4: after type 0 its absolute time is the distance.
        type_3(4),
    ] {
        bytes.extend(header);
        bytes.extend(&body);
    }
    assert_eq!(times(&bytes), [1000, 1020, 1050, 1080, 7, 1110, 500, 1000]);
}

#[test]
fn times_wrap() {
    let mut bytes = type_0(4, u32::MAX - 5, 1, 8);
    bytes.push(0);
    bytes.extend(type_1(4, 10, 1, 8));
    bytes.push(0);
    assert_eq!(times(&bytes), [u32::MAX - 5, 4]);
}

#[test]
fn chunk_stream_ids_of_all_lengths() {
    for basic in [vec![63], vec![0, 0], vec![0, 255], vec![1, 0, 0], vec![1, 255, 255]] {
        let mut bytes = basic.clone();
        bytes.extend(&type_0(0, 9, 200, 9)[1..]);
        bytes.extend(&payload(200)[..128]);
        let mut more = basic;
        more[0] |= 3 << 6;
        bytes.extend(more);
        bytes.extend(&payload(200)[128..]);
        assert_eq!(read(&bytes).unwrap(), [(9, 9, payload(200))]);
    }
}

#[test]
fn messages_interleave() {
    let (long, short) = (payload(300), payload(5));
    let mut bytes = type_0(6, 1, 300, 9);
    bytes.extend(&long[..128]);
    bytes.extend(type_0(4, 2, 5, 8));
    bytes.extend(&short);
    bytes.extend(type_3(6));
    bytes.extend(&long[128..256]);
    bytes.extend(type_3(6));
    bytes.extend(&long[256..]);
    assert_eq!(read(&bytes).unwrap(), [(8, 2, short), (9, 1, long)]);
}

/// Both kinds of encoders: those that repeat the extended timestamp in type 3, and those that do not.
#[test]
fn extended_timestamps_repeated_or_not() {
    for at_ms in [EXTENDED - 1, EXTENDED, EXTENDED + 1, 0x0123_4567, u32::MAX] {
        for repeats in [true, false] {
            // The last chunk has 1 to 130 bytes: also fewer than the four that are looked at.
            for length in (129..260).chain([1000]) {
                let body = payload(length);
                let mut bytes = Vec::new();
                for _ in 0..2 {
                    bytes.extend(type_0(6, at_ms, length, 9));
                    for (n, piece) in body.chunks(128).enumerate() {
                        if n > 0 {
                            bytes.extend(type_3(6));
                            if repeats && at_ms >= EXTENDED {
                                bytes.extend(at_ms.to_be_bytes());
                            }
                        }
                        bytes.extend(piece);
                    }
                }
                // Something follows at last, else fewer than four bytes could not be told from a cut timestamp.
                bytes.extend(type_0(4, 1, 4, 8));
                bytes.extend(payload(4));
                let mut expected = vec![(9, at_ms, body); 2];
                expected.push((8, 1, payload(4)));
                assert_eq!(read(&bytes).unwrap(), expected, "{at_ms} {repeats} {length}");
            }
        }
    }
}

#[test]
fn a_spill_may_hold_the_rest_of_a_message_and_whole_small_ones() {
    // One byte of payload is left, then come messages of one byte on another chunk stream, by type 3.
    let mut bytes = type_0(4, 5, 1, 8);
    bytes.push(0xaa);
    bytes.extend(type_0(6, EXTENDED, 129, 9));
    bytes.extend(payload(128));
    bytes.extend(type_3(6));
    bytes.push(0x77);
    for n in 0..3 {
        bytes.extend(type_3(4));
        bytes.push(n);
    }
    let messages = read(&bytes).unwrap();
    let bodies: Vec<_> = messages.iter().map(|(_, _, body)| (body.len(), body[body.len() - 1])).collect();
    assert_eq!(bodies, [(1, 0xaa), (129, 0x77), (1, 0), (1, 1), (1, 2)]);
}

#[test]
fn what_we_write_is_read() {
    for length in [0, 1, 128, 60_000, 60_001, 200_000] {
        for at_ms in [0, 40, EXTENDED, u32::MAX] {
            let body = payload(length);
            let (header, data) = body.split_at(length.min(5));
            for (tag_type, number) in [(TagType::Audio, 8), (TagType::Video, 9), (TagType::Script, 18)] {
                let bytes = rtmp_message(tag_type, at_ms, header, data);
                let mut reader = reader();
                reader.set_chunk_size(crate::rtmp::OUT_CHUNK_SIZE);
                assert_eq!(read_cut(reader, &bytes, 4093).unwrap(), [(number, at_ms, body.clone())]);
            }
        }
    }
}

/// The library's reader is not ours: it must understand what we write.
#[test]
fn rml_rtmp_reads_what_we_write() {
    let body = payload(150_000);
    let mut theirs = rml_rtmp::chunk_io::ChunkDeserializer::new();
    theirs.set_max_chunk_size(crate::rtmp::OUT_CHUNK_SIZE).unwrap();
    let mut bytes = rtmp_message(TagType::Video, 123_456, &body[..5], &body[5..]).to_vec();
    bytes.extend_from_slice(&rtmp_message(TagType::Audio, EXTENDED + 7, &[], &body[..100]));
    let first = theirs.get_next_message(&bytes).unwrap().unwrap();
    assert_eq!((first.type_id, first.timestamp.value, first.message_stream_id), (9, 123_456, 1));
    assert_eq!(first.data, body);
    let second = theirs.get_next_message(&[]).unwrap().unwrap();
    assert_eq!((second.type_id, second.timestamp.value, second.data.len()), (8, EXTENDED + 7, 100));
}

#[test]
fn largest_message_and_no_larger() {
    let limit = 16 << 20;
    let mut at_limit = reader();
    at_limit.set_chunk_size(1 << 20);
    // 24 bits of length end one below the limit.
    let length = limit - 1;
    let body = payload(length);
    let mut bytes = type_0(6, 0, length, 9);
    for (n, piece) in body.chunks(1 << 20).enumerate() {
        if n > 0 {
            bytes.extend(type_3(6));
        }
        bytes.extend(piece);
    }
    let messages = read_cut(at_limit, &bytes, 65_536).unwrap();
    assert_eq!(messages.len(), 1);
    assert!(messages[0].2 == body);

    let too_long = RtmpError::MessageTooLong { message_type: 20, length: 300_000, limit: 256 << 10 };
    assert_eq!(read(&type_0(3, 0, 300_000, 20)), Err(too_long));
    let small = RtmpLimits { max_media_bytes: 1000, ..RtmpLimits::default() };
    let error = read_cut(ChunkReader::new(small), &type_0(6, 0, 1001, 9), 1).unwrap_err();
    assert_eq!(error, RtmpError::MessageTooLong { message_type: 9, length: 1001, limit: 1000 });
}

#[test]
fn unfinished_messages_are_bounded_together_and_take_no_room_by_claiming_it() {
    let limits = RtmpLimits { max_partial_bytes: 3000, ..RtmpLimits::default() };
    let mut bytes = Vec::new();
    for chunk_stream in 4..60 {
        bytes.extend(type_0(chunk_stream, 0, 16_000_000, 9));
        bytes.extend(payload(128));
    }
    let error = read_cut(ChunkReader::new(limits), &bytes, 1000).unwrap_err();
    assert_eq!(error, RtmpError::TooMuchInParts(3000));

    let mut reader = reader();
    let mut rest = &bytes[..];
    assert_eq!(reader.next_message(&mut rest, Interest::Media), Ok(None));
    let room: usize = reader.streams.iter().map(|stream| stream.body.capacity()).sum();
    assert!(room <= 56 * FIRST_ROOM_BYTES, "{room}");
}

#[test]
fn finished_messages_do_not_count() {
    let limits = RtmpLimits { max_partial_bytes: 1000, ..RtmpLimits::default() };
    let mut bytes = Vec::new();
    for _ in 0..100 {
        bytes.extend(type_0(6, 0, 100, 9));
        bytes.extend(payload(100));
    }
    assert_eq!(read_cut(ChunkReader::new(limits), &bytes, 50).unwrap().len(), 100);
}

#[test]
fn a_body_takes_no_more_room_than_it_has_bytes() {
    let length = 100_000;
    let mut reader = reader();
    reader.set_chunk_size(4096);
    let mut bytes = type_0(6, 0, length, 9);
    for (n, piece) in payload(length).chunks(4096).enumerate() {
        if n > 0 {
            bytes.extend(type_3(6));
        }
        bytes.extend(piece);
    }
    // All but the last byte, so that the body can still be seen.
    let mut rest = &bytes[..bytes.len() - 1];
    assert_eq!(reader.next_message(&mut rest, Interest::Media), Ok(None));
    assert_eq!(reader.streams[0].body.capacity(), length);
}

#[test]
fn chunk_streams_are_bounded() {
    let mut bytes = Vec::new();
    for id in 0..=64 {
        bytes.extend([0, id]);
        bytes.extend(&type_0(0, 0, 1, 8)[1..]);
        bytes.push(0);
    }
    assert_eq!(read(&bytes), Err(RtmpError::TooManyChunkStreams(64)));
}

#[test]
fn what_never_began_cannot_continue() {
    let error = |format| RtmpError::NothingToContinue { format, chunk_stream: 9 };
    assert_eq!(read(&type_3(9)), Err(error(3)));
    assert_eq!(read(&type_2(9, 5)), Err(error(2)));
    // librtmp's first ping.
    let mut bytes = type_1(2, 0, 6, 4);
    bytes.extend(payload(6));
    assert_eq!(read(&bytes).unwrap().len(), 1);
}

#[test]
fn a_new_header_or_an_abort_drops_what_was_unfinished() {
    let mut bytes = type_0(6, 1, 300, 9);
    bytes.extend(payload(128));
    bytes.extend(type_0(6, 2, 10, 9));
    bytes.extend(payload(10));
    assert_eq!(read(&bytes).unwrap(), [(9, 2, payload(10))]);

    let mut reader = reader();
    let mut rest = &bytes[..140];
    assert_eq!(reader.next_message(&mut rest, Interest::Media), Ok(None));
    reader.abort(6);
    reader.abort(7);
    assert_eq!(reader.partial_bytes, 0);
    let mut next = type_0(6, 3, 4, 8);
    next.extend(payload(4));
    assert_eq!(read_cut(reader, &next, 3).unwrap(), [(8, 3, payload(4))]);
}

#[test]
fn unwanted_messages_pass_without_being_kept() {
    let mut bytes = Vec::new();
    // An unknown type of the greatest length, and sound that nobody has been allowed to send.
    for (message_type, length) in [(99, (1 << 24) - 1), (8, 100_000)] {
        bytes.extend(type_0(5, 0, length, message_type));
        for (n, piece) in payload(length).chunks(128).enumerate() {
            if n > 0 {
                bytes.extend(type_3(5));
            }
            bytes.extend(piece);
        }
    }
    bytes.extend(type_0(3, 0, 2, 20));
    bytes.extend(payload(2));
    let mut reader = reader();
    let mut rest = &bytes[..];
    let message = reader.next_message(&mut rest, Interest::NoMedia).unwrap().unwrap();
    assert_eq!((message.message_type, message.body.len()), (20, 2));
    assert!(reader.streams.iter().all(|stream| stream.body.capacity() == 0));
}
