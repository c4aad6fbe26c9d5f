//! What the decoder holds. A process of its own, because the allocator counts for all threads.

use std::alloc::System;

use derp_kv_valkey::fuzzing::{Replies, Reply};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const READ: usize = 64 * 1024;
/// How many allocations, and bytes, may come from the thread that waits for this test.
const OTHERS: usize = 4096;
const LONGEST: usize = 512 << 20;

/// Bytes that have been allocated since, and are not free yet.
fn held(region: &Region<'_, System>) -> usize {
    let change = region.change();
    change.bytes_allocated.saturating_sub(change.bytes_deallocated)
}

fn read(decoder: &mut Replies, stream: &[u8], replies: &mut Vec<Reply>) {
    decoder.read(stream, replies).expect("replies");
}

#[test]
fn memory() {
    small_values_hold_only_themselves();
    long_values_are_not_copied_and_leave_nothing();
    what_is_not_a_value_allocates_nothing();
    what_is_announced_is_not_allocated();
    a_reply_is_bounded();
}

fn small_values_hold_only_themselves() {
    let stream = b"$10\r\n0123456789\r\n".repeat(10_000);
    let mut replies = Vec::with_capacity(10_000);
    let region = Region::new(ALLOCATOR);
    let mut decoder = Replies::new(LONGEST, 1 << 30);
    read(&mut decoder, &stream, &mut replies);
    let change = region.change();
    assert!(change.allocations + change.reallocations < 10_000 + OTHERS, "{change:?}");
    drop(decoder);
    assert!(held(&region) <= 10_000 * 10 + OTHERS, "{}", held(&region));
    assert_eq!(replies.len(), 10_000);
}

fn long_values_are_not_copied_and_leave_nothing() {
    const LENGTH: usize = 100 << 20;
    let stream = [format!("${LENGTH}\r\n").as_bytes(), &vec![7; LENGTH], b"\r\n"].concat();
    let mut replies = Vec::with_capacity(1);
    let region = Region::new(ALLOCATOR);
    let mut decoder = Replies::new(LONGEST, 1 << 30);
    for piece in stream.chunks(150_000) {
        read(&mut decoder, piece, &mut replies);
    }
    // The value and its line's end, the common buffer, and a few words for the counts.
    let most = LENGTH + READ + OTHERS;
    assert!(held(&region) <= most, "{}", held(&region));
    assert!(region.change().bytes_allocated <= most, "{:?}", region.change());
    assert_eq!(replies.pop(), Some(Reply::BulkString(vec![7; LENGTH].into())));
    assert!(held(&region) <= READ + OTHERS, "{}", held(&region));
    assert!(!decoder.is_midway());
}

fn what_is_not_a_value_allocates_nothing() {
    let stream = b"+OK\r\n:12345\r\n_\r\n$-1\r\n#t\r\n,1.5\r\n*0\r\n$0\r\n\r\n".repeat(10_000);
    let mut replies = Vec::with_capacity(80_000);
    let mut decoder = Replies::new(LONGEST, 1 << 30);
    let region = Region::new(ALLOCATOR);
    read(&mut decoder, &stream, &mut replies);
    assert!(region.change().allocations < OTHERS, "{:?}", region.change());
    assert_eq!(replies.len(), 80_000);
    replies.clear();
    // An array has one allocation.
    let stream = b"*2\r\n:1\r\n:2\r\n".repeat(50_000);
    let region = Region::new(ALLOCATOR);
    read(&mut decoder, &stream, &mut replies);
    let change = region.change();
    assert!(change.allocations + change.reallocations < 50_000 + OTHERS, "{change:?}");
    assert_eq!(replies.len(), 50_000);
}

fn what_is_announced_is_not_allocated() {
    for stream in ["*19000000\r\n".to_owned(), "*2\r\n".repeat(31) + "%4000000\r\n"] {
        let mut replies = Vec::new();
        let region = Region::new(ALLOCATOR);
        let mut decoder = Replies::new(LONGEST, 1 << 30);
        read(&mut decoder, stream.as_bytes(), &mut replies);
        assert!(held(&region) < 2 * READ, "{}", held(&region));
        assert!(decoder.is_midway());
    }
}

/// Whatever comes, a reply that is too large is refused before it takes twice its bound.
fn a_reply_is_bounded() {
    const LIMIT: usize = 4 << 20;
    let values = b"$1000\r\n".iter().copied().chain([b'x'; 1000]).chain(*b"\r\n");
    for (head, body) in [
        ("*70000\r\n", values.collect::<Vec<u8>>()),
        ("*70000\r\n", b"+\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\r\n".to_vec()),
        ("*30000\r\n", b"*2\r\n:1\r\n:2\r\n".to_vec()),
        ("*30000\r\n", b"%1\r\n:1\r\n$20\r\n01234567890123456789\r\n".to_vec()),
        ("*30000\r\n", b"|1\r\n:1\r\n:2\r\n+x\r\n".to_vec()),
        ("", b"|1\r\n:1\r\n:2\r\n".to_vec()),
        ("*2\r\n", b"*1000\r\n".repeat(31)),
    ] {
        let mut replies = Vec::new();
        let region = Region::new(ALLOCATOR);
        let mut decoder = Replies::new(LIMIT, LIMIT);
        let refused = std::iter::once(head.as_bytes())
            .chain(std::iter::repeat_n(body.as_slice(), 200_000))
            .filter(|piece| !piece.is_empty())
            .any(|piece| {
                let broken = decoder.read(piece, &mut replies).is_err();
                assert!(held(&region) <= 2 * LIMIT + READ, "{head:?} {}", held(&region));
                broken
            });
        assert!(refused, "{head:?}");
        assert!(replies.is_empty());
    }
}
