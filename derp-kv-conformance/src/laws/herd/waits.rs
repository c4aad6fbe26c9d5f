use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use derp_kv_core::{
    Dedup, Error, ErrorKind, GuardedGet, Idempotency, KvStore, KvStoreExt, Layer, Layered,
    Operation, Result,
};
use futures_core::future::BoxFuture;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::{LOCK, millis};
use crate::bench::{Bench, LawResult};
use crate::erased::Store;
use crate::resolution;
use crate::violation::{Violation, ensure, ensure_eq};

/// No test waits for this to pass.
const LONG: Duration = Duration::from_secs(3600);

/// What a loaded machine may add to a wait.
const LATE: Duration = Duration::from_secs(5);

/// How many computations hang, before one that does not.
const HUNG: u32 = 2;

pub(crate) fn waits_for_no_hung_computation(bench: &Bench<'_>) -> LawResult {
    const CALLERS: u32 = 8;
    bench.scenario(async |scene| {
        let kv = scene.handles(1).await?.remove(0);
        let begun = Arc::new(AtomicU32::new(0));
        let options = GuardedGet::new(LONG).lock_ttl(LOCK);
        let began = Instant::now();
        let mut callers = JoinSet::new();
        for _ in 0..CALLERS {
            let (kv, begun) = (kv.clone(), begun.clone());
            callers.spawn(async move {
                let work = || async {
                    if begun.fetch_add(1, Ordering::SeqCst) < HUNG {
                        std::future::pending::<()>().await;
                    }
                    Ok::<_, Error>("value")
                };
                kv.guarded_get("k", &options, work).await
            });
        }
        for _ in 0..CALLERS - HUNG {
            // The lock of each of them may end late.
            let bound = (LOCK + resolution::lateness()) * HUNG + LATE;
            let answer = timeout((began + bound) - Instant::now(), callers.join_next()).await;
            let Ok(Some(answer)) = answer else {
                let seen = begun.load(Ordering::SeqCst);
                let text = format!(
                    "{HUNG} computations hang, and a caller still waits after {bound:?}; \
                     {seen} were begun"
                );
                return Err(Violation::new(text));
            };
            answer??;
        }
        callers.abort_all();
        Ok(())
    })
}

pub(crate) fn sees_what_is_stored(bench: &Bench<'_>) -> LawResult {
    bench.scenario(async |scene| {
        let handles = scene.handles(2).await?;
        let options = GuardedGet::new(LONG).lock_ttl(Duration::from_secs(60));
        let begun = Arc::new(Notify::new());
        let hangs = tokio::spawn({
            let (kv, begun) = (handles[0].clone(), begun.clone());
            async move {
                let work = || async {
                    begun.notify_one();
                    std::future::pending::<Result<&str, Error>>().await
                };
                kv.guarded_get("k", &options, work).await
            }
        });
        begun.notified().await;
        let follower = tokio::spawn({
            let kv = handles[0].clone();
            async move {
                let own = || async { Ok::<_, Error>("computed beside") };
                kv.guarded_get("k", &options, own).await
            }
        });
        // It surely waits by then.
        sleep(millis(100)).await;
        handles[1].set(b"k", b"stored elsewhere", None).await?;
        let bound = Duration::from_secs(10);
        let Ok(seen) = timeout(bound, follower).await else {
            let text = format!("a caller that waits has not seen a stored value for {bound:?}");
            return Err(Violation::new(text));
        };
        ensure!(&seen??[..] == b"stored elsewhere", "a caller got what nobody stored");
        hangs.abort();
        Ok(())
    })
}

/// Asks for one key inside of its own computation, so many times, in the same task or in another.
fn nested(
    kv: Store,
    key: &'static str,
    depth: u32,
    spawned: bool,
) -> BoxFuture<'static, Result<Bytes>> {
    Box::pin(async move {
        if depth == 0 {
            return Ok(Bytes::from_static(b"innermost"));
        }
        let options = GuardedGet::new(LONG).lock_ttl(LOCK / 3);
        let work = || {
            let inner = nested(kv.clone(), key, depth - 1, spawned);
            async move { if spawned { joined(tokio::spawn(inner)).await } else { inner.await } }
        };
        kv.guarded_get(key, &options, work).await
    })
}

async fn joined(task: tokio::task::JoinHandle<Result<Bytes>>) -> Result<Bytes> {
    task.await.unwrap_or_else(|error| {
        Err(Error::new(ErrorKind::Backend, "a nested call has ended abnormally").with_source(error))
    })
}

pub(crate) fn nests(bench: &Bench<'_>) -> LawResult {
    bench.scenario(async |scene| {
        let kv = scene.handles(1).await?.remove(0);
        for (key, depth, spawned) in [("two", 2, false), ("five", 5, false), ("spawned", 3, true)] {
            let bound = (LOCK + resolution::lateness()) * depth + LATE;
            let Ok(value) = timeout(bound, nested(kv.clone(), key, depth, spawned)).await else {
                let text = format!("{depth} calls deep, none has returned after {bound:?}");
                return Err(Violation::new(text));
            };
            ensure_eq!(&value?[..], &b"innermost"[..], "the value of {depth} nested calls");
        }
        Ok(())
    })
}

/// Answers every call late.
#[derive(Clone, Debug)]
struct Late(Duration);

impl Layer for Late {
    async fn around<T: Send>(
        &self,
        _: Operation,
        _: Option<&[u8]>,
        call: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        let result = call.await;
        sleep(self.0).await;
        result
    }
}

pub(crate) fn survives_a_slow_store(bench: &Bench<'_>) -> LawResult {
    bench.scenario(async |scene| {
        let kv = Layered::new(scene.handles(1).await?.remove(0), Late(millis(60)));
        let lock_ttl = millis(20);
        let begun = AtomicU32::new(0);
        let work = || async {
            begun.fetch_add(1, Ordering::SeqCst);
            Ok::<_, Error>("value")
        };
        let options = GuardedGet::new(LONG).lock_ttl(lock_ttl);
        let Ok(value) = timeout(LATE, kv.guarded_get("k", &options, work)).await else {
            let text = "a store slower than a lock keeps a caller waiting for ever";
            return Err(Violation::new(text));
        };
        ensure_eq!((&value?[..], begun.load(Ordering::SeqCst)), (&b"value"[..], 1), "what came");
        let options = Idempotency::default().lock_ttl(lock_ttl);
        let once = kv.idempotent_execute("k", &options, || async {
            begun.fetch_add(1, Ordering::SeqCst);
            Ok::<_, Error>(1)
        });
        let kind = once.await.err().map(|error| error.kind());
        ensure_eq!(kind, Some(ErrorKind::Timeout), "the error where a lock comes too late");
        let options = Dedup::default().lock_ttl(lock_ttl);
        let kind = kv.process_once("k", &options, work).await.err().map(|error| error.kind());
        ensure_eq!(kind, Some(ErrorKind::Timeout), "the error where a claim comes too late");
        ensure_eq!(begun.load(Ordering::SeqCst), 1, "how often work was begun without a lease");
        Ok(())
    })
}
