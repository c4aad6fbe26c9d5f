use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use derp_kv_core::{Counter, Error, ErrorKind, KvStore, MAX_TTL, Result};
use derp_kv_memory::MemoryStore;

use crate::mutants::broken::{Mutant, mutant};
use crate::mutants::defect::{Ttl, defect, defects};

const LAW: &str = "errors::refusals_are_certain";

pub(super) fn mutants() -> Vec<Mutant> {
    vec![
        mutant::<DoubtsOverflow>(LAW, "an increment that overflows may have been applied"),
        mutant::<RetriesOverflow>(LAW, "an increment that overflows is to be tried again"),
        mutant::<DoubtsCounterTtl>(LAW, "an `incr` refused for its TTL may have been applied"),
        mutant::<RetriesCounterTtl>(LAW, "an `incr` refused for its TTL is to be tried again"),
        mutant::<DoubtsBatch>(LAW, "a refused `mset` may have been applied"),
        mutant::<DoubtsSwap>(LAW, "a refused swap may have been applied"),
        mutant::<DoubtsTooFar>(LAW, "a TTL above the longest leaves a `set` in doubt"),
        mutant::<RetriesTooFar>(LAW, "a TTL above the longest is to be tried again"),
        mutant::<TooFarIsBackend>(LAW, "a TTL above the longest is a failure of the backend"),
        mutant::<TooFarIsLongest>(LAW, "a TTL above the longest is the longest"),
        mutant::<AbsentIsFalse>(LAW, "`expire` of an absent key takes any TTL"),
        mutant::<UnequalIsFalse>(LAW, "a swap that fails takes any TTL"),
        mutant::<PresentIsFalse>(LAW, "`set_nx` of a present key takes any TTL"),
        mutant::<EmptyTakesAny>(LAW, "an `mset` of nothing takes any TTL"),
        mutant::<Poisoned>(LAW, "the call after a refusal fails"),
        mutant::<LaterPerhaps>(LAW, "a refusal says when to try again"),
        mutant::<OverflowIsFull>(LAW, "an increment that overflows finds the store full"),
    ]
}

fn too_far(ttl: Ttl) -> bool {
    ttl.is_some_and(|ttl| ttl > MAX_TTL)
}

/// The error of `result`, changed where it is of this kind.
fn changed<T>(result: Result<T>, kind: ErrorKind, change: impl Fn(Error) -> Error) -> Result<T> {
    result.map_err(|error| if error.kind() == kind { change(error) } else { error })
}

fn doubtful(error: Error) -> Error {
    error.with_may_have_applied(true)
}

fn transient(error: Error) -> Error {
    error.with_transient(true)
}

/// The error of an increment of an integer that is too large.
async fn overflow(
    kv: &MemoryStore,
    key: &[u8],
    by: i64,
    ttl: Ttl,
    change: impl Fn(Error) -> Error + Send,
) -> Result<Counter> {
    let result = kv.incr(key, by, ttl).await;
    let value = kv.get(key).await?;
    let is_integer = value.is_some_and(|value| Counter::parse(&value).is_ok());
    if is_integer { changed(result, ErrorKind::NotAnInteger, change) } else { result }
}

/// Whether the call before was refused.
#[derive(Debug, Default)]
struct Poisoned(AtomicBool);

defect! { Poisoned []
    set(self, kv, key, value, ttl) {
        if self.0.swap(false, Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Backend, "the transaction is aborted"));
        }
        kv.set(key, value, ttl).await
    }
    get(self, kv, key) {
        if self.0.swap(false, Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Backend, "the transaction is aborted"));
        }
        kv.get(key).await
    }
    incr(self, kv, key, by, ttl) {
        let result = kv.incr(key, by, ttl).await;
        self.0.store(result.is_err(), Ordering::SeqCst);
        result
    }
}

defects! {
    DoubtsOverflow {
        incr(self, kv, key, by, ttl) { overflow(kv, key, by, ttl, doubtful).await }
    }
    RetriesOverflow {
        incr(self, kv, key, by, ttl) { overflow(kv, key, by, ttl, transient).await }
    }
    OverflowIsFull {
        incr(self, kv, key, by, ttl) {
            overflow(kv, key, by, ttl, |_| Error::new(ErrorKind::Full, "no room for the sum")).await
        }
    }
    DoubtsCounterTtl {
        incr(self, kv, key, by, ttl) {
            changed(kv.incr(key, by, ttl).await, ErrorKind::InvalidArgument, doubtful)
        }
    }
    RetriesCounterTtl {
        incr(self, kv, key, by, ttl) {
            changed(kv.incr(key, by, ttl).await, ErrorKind::InvalidArgument, transient)
        }
    }
    DoubtsBatch {
        mset(self, kv, items, ttl) { kv.mset(items, ttl).await.map_err(doubtful) }
    }
    DoubtsSwap {
        compare_and_set(self, kv, key, expected, value, ttl) {
            kv.compare_and_set(key, expected, value, ttl).await.map_err(doubtful)
        }
    }
    DoubtsTooFar {
        set(self, kv, key, value, ttl) {
            let result = kv.set(key, value, ttl).await;
            if too_far(ttl) { result.map_err(doubtful) } else { result }
        }
    }
    RetriesTooFar {
        set_nx(self, kv, key, value, ttl) {
            let result = kv.set_nx(key, value, ttl).await;
            if too_far(ttl) { result.map_err(transient) } else { result }
        }
    }
    TooFarIsBackend {
        expire(self, kv, key, ttl) {
            let result = kv.expire(key, ttl).await;
            let failed = |_| Error::new(ErrorKind::Backend, "the date is out of range");
            if too_far(Some(ttl)) { result.map_err(failed) } else { result }
        }
    }
    TooFarIsLongest {
        incr(self, kv, key, by, ttl) { kv.incr(key, by, ttl.map(|ttl| ttl.min(MAX_TTL))).await }
    }
    AbsentIsFalse {
        expire(self, kv, key, ttl) {
            if !kv.exists(key).await? {
                return Ok(false);
            }
            kv.expire(key, ttl).await
        }
    }
    UnequalIsFalse {
        compare_and_set(self, kv, key, expected, value, ttl) {
            if kv.get(key).await?.is_none_or(|found| found != expected) {
                return Ok(false);
            }
            kv.compare_and_set(key, expected, value, ttl).await
        }
    }
    PresentIsFalse {
        set_nx(self, kv, key, value, ttl) {
            if kv.exists(key).await? {
                return Ok(false);
            }
            kv.set_nx(key, value, ttl).await
        }
    }
    EmptyTakesAny {
        mset(self, kv, items, ttl) {
            if items.is_empty() {
                return Ok(());
            }
            kv.mset(items, ttl).await
        }
    }
    LaterPerhaps {
        expire(self, kv, key, ttl) {
            kv.expire(key, ttl).await.map_err(|error| error.with_retry_after(Duration::from_secs(1)))
        }
    }
}
