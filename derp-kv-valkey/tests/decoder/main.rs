//! The codec: every type of reply, whatever the reads, and what a hostile server may send.

use derp_kv_valkey::fuzzing::{self, Replies, Reply};

#[path = "../../fuzz/check.rs"]
mod check;
mod properties;
mod replies;
mod tree;

const LONGEST: usize = 1 << 20;
const LIMIT: usize = 4 << 20;

/// What the reads complete, and whether they end in the midst of a reply.
fn decode<'a>(
    reads: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<Reply>, Result<bool, &'static str>) {
    let mut decoder = Replies::new(LONGEST, LIMIT);
    let mut replies = Vec::new();
    for read in reads {
        if let Err(broken) = decoder.read(read, &mut replies) {
            return (replies, Err(broken));
        }
    }
    (replies, Ok(decoder.is_midway()))
}
