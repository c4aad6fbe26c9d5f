use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::coordinate::token::random;
use crate::error::Result;

/// A number that no other call gets: of this process for certain, of any other with a probability
/// of one in 2^64 for each pair. A process that is copied, by `fork` or as a snapshot, goes on with the
/// numbers of its copy.
///
/// It makes values different that are written with the same content. The first is random, and each
/// is one more than the one before: to ask the operating system each time would be a good part of
/// what a rate limit in memory costs.
pub(crate) fn nonce() -> Result<u64> {
    static NEXT: OnceLock<AtomicU64> = OnceLock::new();
    let next = match NEXT.get() {
        Some(next) => next,
        None => {
            let bytes = random()?;
            NEXT.get_or_init(|| AtomicU64::new(u64::from_be_bytes(bytes)))
        }
    };
    Ok(next.fetch_add(1, Ordering::Relaxed))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_threads_get_the_same() {
        let threads = (0..4).map(|_| {
            std::thread::spawn(|| (0..1_000).map(|_| nonce().unwrap()).collect::<Vec<_>>())
        });
        let threads: Vec<_> = threads.collect();
        let all: BTreeSet<_> = threads.into_iter().flat_map(|t| t.join().unwrap()).collect();
        assert_eq!(all.len(), 4_000);
    }
}
