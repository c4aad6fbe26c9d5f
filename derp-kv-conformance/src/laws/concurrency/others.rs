use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use derp_kv_core::{KvStore, KvStoreExt, Operation};
use futures_util::StreamExt;

use crate::Harness;
use crate::bench::{Bench, LawResult};
use crate::scene::Handle;
use crate::violation::{Violation, ensure};

/// After which a thread that runs nothing else is given up, of a real clock: that of the runtime
/// stands still with its thread.
const PATIENCE: Duration = Duration::from_secs(5);

/// One call of a primitive, in a loop of its own. A wait lasts until a change, and is left out.
async fn call<S: KvStore + Clone>(kv: &S, operation: Operation) -> Result<(), Violation> {
    const TTL: Option<Duration> = Some(Duration::from_secs(60));
    match operation {
        Operation::Get => drop(kv.get(b"k").await?),
        Operation::GetWithTtl => drop(kv.get_with_ttl(b"k").await?),
        Operation::Exists => drop(kv.exists(b"k").await?),
        Operation::Ttl => drop(kv.ttl(b"k").await?),
        Operation::Mget => drop(kv.mget(&[b"k", b"l"]).await?),
        Operation::Scan => drop(kv.scan(b"k").next().await.transpose()?),
        Operation::Set => kv.set(b"k", b"v", TTL).await?,
        Operation::Mset => kv.mset(&[(b"k", b"v"), (b"l", b"v")], TTL).await?,
        Operation::Delete => drop(kv.delete(b"nobody").await?),
        Operation::DeleteMany => drop(kv.delete_many(&[b"nobody"]).await?),
        Operation::Expire => drop(kv.expire(b"k", Duration::from_secs(60)).await?),
        Operation::SetNx => drop(kv.set_nx(b"k", b"v", TTL).await?),
        Operation::Incr => drop(kv.incr(b"n", 1, TTL).await?),
        Operation::CompareAndSet => drop(kv.compare_and_set(b"k", b"w", b"v", TTL).await?),
        Operation::CompareAndDelete => drop(kv.compare_and_delete(b"k", b"w").await?),
        _ => drop(kv.try_lock("k", Duration::from_secs(60)).await?),
    }
    Ok(())
}

/// Calls until another task of this thread has had its turn.
async fn until_another_runs<S: KvStore + Clone>(
    kv: &Handle<S>,
    operation: Operation,
) -> Result<(), Violation> {
    let ran = Arc::new(AtomicBool::new(false));
    let other = tokio::spawn({
        let ran = ran.clone();
        async move { ran.store(true, Ordering::SeqCst) }
    });
    let began = std::time::Instant::now();
    while !ran.load(Ordering::SeqCst) {
        call(kv, operation).await?;
        ensure!(
            began.elapsed() < PATIENCE,
            "a loop of `{operation}` lets nothing else of its thread run for {PATIENCE:?}"
        );
    }
    other.await?;
    Ok(())
}

pub(crate) fn lets_others_run<H: Harness>(bench: &Bench<'_, H>) -> LawResult {
    bench.single_thread(async |scene| {
        let kv = scene.handles(1).await?.remove(0);
        for operation in Operation::PRIMITIVES {
            if operation != Operation::WaitForChange {
                until_another_runs(&kv, operation).await?;
            }
        }
        until_another_runs(&kv, Operation::TryLock).await
    })
}
