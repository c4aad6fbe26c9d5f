use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use derp_kv_core::{KvStore, KvStoreExt, Operation};
use futures_util::TryStreamExt;

use crate::bench::{Bench, LawResult};
use crate::erased::Store;
use crate::violation::{Violation, ensure};

/// After which a thread that runs nothing else is given up, of a real clock: that of the runtime
/// stands still with its thread.
const PATIENCE: Duration = Duration::from_secs(5);

/// And so it is after as many calls that all ended at once: tokio's budget is of some hundred.
const MOST_CALLS: usize = 20_000;

/// Which way a call goes: it finds what it looks for or writes what it was asked to, or not.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Path {
    Hits,
    Misses,
}

const TTL: Option<Duration> = Some(Duration::from_secs(60));

/// One call of a primitive, the `number`th of its loop. A wait lasts until a change, and is left out.
async fn call(
    kv: &Store,
    (operation, path): (Operation, Path),
    number: usize,
) -> Result<(), Violation> {
    let hits = path == Path::Hits;
    let found: &[u8] = if hits { b"k" } else { b"nobody" };
    // A new one each time, and one that was there before the loop began.
    let (fresh, doomed) = (format!("fresh {operation} {number}"), doomed(number));
    let (fresh, doomed) = (fresh.as_bytes(), doomed.as_bytes());
    let written = if hits { b"k" } else { fresh };
    match operation {
        Operation::Get => drop(kv.get(found).await?),
        Operation::GetWithTtl => drop(kv.get_with_ttl(found).await?),
        Operation::Exists => drop(kv.exists(found).await?),
        Operation::Ttl => drop(kv.ttl(found).await?),
        Operation::Mget => drop(kv.mget(&[found, b"none"]).await?),
        Operation::Scan => drop(kv.scan(found).try_collect::<Vec<_>>().await?),
        Operation::Set => kv.set(written, b"v", TTL).await?,
        Operation::Mset => kv.mset(&[(written, b"v"), (b"l", b"v")], TTL).await?,
        Operation::Delete => drop(kv.delete(if hits { doomed } else { found }).await?),
        Operation::DeleteMany => drop(kv.delete_many(&[if hits { doomed } else { found }]).await?),
        Operation::Expire => drop(kv.expire(found, Duration::from_secs(60)).await?),
        Operation::SetNx => drop(kv.set_nx(if hits { fresh } else { b"k" }, b"v", TTL).await?),
        Operation::Incr => drop(kv.incr(if hits { b"n" } else { fresh }, 1, TTL).await?),
        Operation::CompareAndSet => {
            let expected: &[u8] = if hits { b"v" } else { b"w" };
            kv.compare_and_set(b"k", expected, b"v", TTL).await?;
        }
        Operation::CompareAndDelete => {
            let (key, expected): (_, &[u8]) = if hits { (doomed, b"v") } else { (b"k", b"w") };
            kv.compare_and_delete(key, expected).await?;
        }
        _ => drop(kv.try_lock("k", Duration::from_secs(60)).await?),
    }
    Ok(())
}

/// A key that a deletion finds once.
fn doomed(number: usize) -> String {
    format!("doomed {number}")
}

/// How many keys there are to delete, in one try after the other. One try has nothing but deletions:
/// what writes the keys may let others run.
const DOOMED: [usize; 3] = [256, 4_096, 20_000];

/// Calls until another task of this thread has had its turn.
async fn until_another_runs(kv: &Store, call_of: (Operation, Path)) -> Result<(), Violation> {
    let (operation, path) = call_of;
    let deletes = [Operation::Delete, Operation::DeleteMany, Operation::CompareAndDelete];
    let tries =
        if deletes.contains(&operation) && path == Path::Hits { DOOMED } else { [usize::MAX; 3] };
    let began = std::time::Instant::now();
    for most in tries {
        if most != usize::MAX {
            let keys: Vec<_> = (0..most).map(doomed).collect();
            let items: Vec<_> = keys.iter().map(|key| (key.as_bytes(), &b"v"[..])).collect();
            for items in items.chunks(256) {
                kv.mset(items, TTL).await?;
            }
        }
        let ran = Arc::new(AtomicBool::new(false));
        let other = tokio::spawn({
            let ran = ran.clone();
            async move { ran.store(true, Ordering::SeqCst) }
        });
        let mut number = 0;
        while number < most && !ran.load(Ordering::SeqCst) {
            call(kv, call_of, number).await?;
            number += 1;
            ensure!(
                (number < MOST_CALLS && began.elapsed() < PATIENCE) || ran.load(Ordering::SeqCst),
                "a loop of `{operation}` that {path:?} lets nothing else of its thread run in \
                 {number} calls and {:?}",
                began.elapsed()
            );
        }
        if ran.load(Ordering::SeqCst) {
            other.await?;
            return Ok(());
        }
    }
    let calls = DOOMED[2];
    Err(Violation::new(format!(
        "a loop of `{operation}` that {path:?} lets nothing else of its thread run in {calls} calls"
    )))
}

pub(crate) fn lets_others_run(bench: &Bench<'_>) -> LawResult {
    bench.single_thread(async |scene| {
        let kv = scene.handles(1).await?.remove(0);
        for operation in Operation::PRIMITIVES {
            for path in [Path::Hits, Path::Misses] {
                if operation != Operation::WaitForChange {
                    kv.set(b"k", b"v", TTL).await?;
                    until_another_runs(&kv, (operation, path)).await?;
                }
            }
        }
        until_another_runs(&kv, (Operation::TryLock, Path::Hits)).await
    })
}
