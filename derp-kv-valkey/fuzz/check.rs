//! What holds of every stream of bytes; shared by the fuzz target and the test of its corpus.

use std::mem::size_of;

use crate::fuzzing::{Replies, Reply};

const LONGEST: usize = 40_000;
const LIMIT: usize = 300_000;
const DEEPEST: usize = 32;

/// Panics when the decoder does wrong with `stream`: when replies depend on how the stream was
/// cut into reads, or are larger or deeper than permitted.
pub(crate) fn check(stream: &[u8]) {
    let whole = decode(stream.chunks(stream.len().max(1)));
    assert_eq!(whole, decode(stream.chunks(1)), "byte by byte");
    for size in [2, 7, 100, 20_000] {
        assert_eq!(whole, decode(stream.chunks(size)), "{size} bytes at a time");
    }
}

/// The replies as text, because what is not a number is not equal to itself; and how it ended.
fn decode<'a>(reads: impl Iterator<Item = &'a [u8]>) -> (Vec<String>, Result<bool, &'static str>) {
    let mut decoder = Replies::new(LONGEST, LIMIT);
    let mut replies = Vec::new();
    let mut end = Ok(());
    for read in reads {
        end = decoder.read(read, &mut replies);
        if end.is_err() {
            break;
        }
    }
    for reply in &replies {
        assert!(size_of::<Reply>() + size(reply, 0) <= LIMIT + 2 * size_of::<Reply>());
    }
    let shown = replies.iter().map(|reply| format!("{reply:?}")).collect();
    (shown, end.map(|()| decoder.is_midway()))
}

/// What a reply holds, in bytes.
fn size(reply: &Reply, depth: usize) -> usize {
    assert!(depth <= DEEPEST);
    let all = |replies: &[Reply]| -> usize {
        replies.iter().map(|reply| size_of::<Reply>() + size(reply, depth + 1)).sum()
    };
    match reply {
        Reply::SimpleString(text) | Reply::BigNumber(text) => text.len(),
        Reply::BulkString(bytes) => bytes.len(),
        Reply::VerbatimString { format, text } => format.len() + text.len(),
        Reply::ServerError(error) => error.code().len() + error.details().map_or(0, str::len),
        Reply::Array(replies) => all(replies),
        Reply::Push { kind, data } => kind.len() + all(data),
        Reply::Map(pairs) => {
            pairs.iter().map(|(field, value)| all(&[field.clone(), value.clone()])).sum()
        }
        _ => 0,
    }
}
