use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use derp_kv_core::{Error, GuardedGet, KvStore, KvStoreExt};
use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

use super::millis;
use crate::bench::{Bench, LawResult};
use crate::violation::{Violation, ensure, ensure_eq};
use crate::{CountingStore, Operation};

/// No test waits for this to pass.
const LONG: Duration = Duration::from_secs(3600);

/// What a loaded machine may add to a wait.
const LATE: Duration = Duration::from_secs(5);

fn options() -> GuardedGet {
    GuardedGet::new(LONG).lock_ttl(LONG)
}

/// Whether a flight is under way, as two calls for the flights of one handle say.
fn is_under_way(kv: &impl KvStore) -> [bool; 2] {
    [(), ()].map(|()| kv.flights().is_some_and(|flights| !flights.is_empty()))
}

/// A computation that goes on until it is let go.
struct Computing {
    runs: Arc<AtomicU32>,
    open: Arc<Notify>,
    caller: JoinHandle<Result<Bytes, Error>>,
}

impl Computing {
    /// Begins it, and returns once it is under way.
    async fn begin<S: KvStore + Clone>(kv: S) -> Result<Self, Violation> {
        let (runs, begun, open) =
            (Arc::<AtomicU32>::default(), Arc::<Notify>::default(), Arc::<Notify>::default());
        let caller = tokio::spawn({
            let (runs, begun, open) = (runs.clone(), begun.clone(), open.clone());
            async move {
                let work = || async {
                    runs.fetch_add(1, Ordering::SeqCst);
                    begun.notify_one();
                    open.notified().await;
                    Ok::<_, Error>("computed once")
                };
                kv.guarded_get("k", &options(), work).await
            }
        });
        let begun = timeout(LATE, begun.notified()).await.is_ok();
        ensure!(begun, "a computation has not begun after {LATE:?}");
        Ok(Self { runs, open, caller })
    }
}

/// All that call, through clones, for what is computed meanwhile, each counting its calls.
fn join<S: KvStore + Clone>(
    clones: &[S],
    runs: &Arc<AtomicU32>,
) -> JoinSet<Result<(Bytes, CountingStore<S>), Error>> {
    let mut callers = JoinSet::new();
    for kv in clones {
        let (kv, runs) = (CountingStore::new(kv.clone()), runs.clone());
        callers.spawn(async move {
            let work = || async {
                runs.fetch_add(1, Ordering::SeqCst);
                Ok::<_, Error>("computed again")
            };
            Ok((kv.guarded_get("k", &options(), work).await?, kv))
        });
    }
    callers
}

/// What is opened apart computes for itself, while the other computation is under way.
async fn computes_apart(other: &(impl KvStore + Clone)) -> Result<(), Violation> {
    let own = || async { Ok::<_, Error>("its own") };
    let Ok(value) = timeout(LATE, other.guarded_get("k", &options(), own)).await else {
        let text = "a store that was opened apart waits for the computation of another one";
        return Err(Violation::new(text));
    };
    ensure_eq!(&value?[..], &b"its own"[..], "the value of a store that was opened apart");
    Ok(())
}

pub(crate) fn clones_share_flights(bench: &Bench<'_>) -> LawResult {
    bench.scenario(async |scene| {
        let kv = scene.store.clone();
        let (has, clone_has) = (scene.store.flights().is_some(), kv.flights().is_some());
        ensure_eq!(clone_has, has, "whether a clone of the store has flights");
        if !has {
            // Who shares nothing shares nothing between clones.
            return Ok(());
        }
        let before = [kv.clone(), kv.clone().clone()];
        let computing = Computing::begin(kv.clone()).await?;
        // Clones from before the computation, the clone of one, and clones made meanwhile.
        let [first, second] = before;
        let clones = [kv.clone(), first.clone(), first, second, kv.clone().clone()];
        for (number, clone) in [&scene.store].into_iter().chain(&clones).enumerate() {
            let under_way = is_under_way(clone);
            ensure_eq!(under_way, [true; 2], "whether handle {number} knows of the computation");
        }
        let mut callers = join(&clones, &computing.runs);
        // They surely are aboard by then.
        sleep(millis(150)).await;
        let (other, guard) = scene.another().await?;
        let apart = computes_apart(&other).await;
        drop(other);
        // After its store: a server outlives its clients.
        drop(guard);
        apart?;
        computing.open.notify_one();
        ensure_eq!(
            &computing.caller.await??[..],
            &b"computed once"[..],
            "the first caller's value"
        );
        while let Some(joined) = callers.join_next().await {
            let (value, counting) = joined??;
            ensure_eq!(&value[..], &b"computed once"[..], "the value of a caller on a clone");
            let counts = counting.counts();
            for operation in [Operation::SetNx, Operation::Set, Operation::CompareAndDelete] {
                let calls = counts.of(operation);
                ensure!(
                    calls == 0,
                    "to join a computation, a clone calls `{operation}` {calls} times"
                );
            }
        }
        let runs = computing.runs.load(Ordering::SeqCst);
        ensure_eq!(runs, 1, "the number of computations over all clones");
        let mut left = LATE.as_millis() / 10;
        while clones.iter().any(|clone| is_under_way(clone) != [false; 2]) {
            ensure!(left > 0, "a flight outlives its callers");
            left -= 1;
            sleep(millis(10)).await;
        }
        Ok(())
    })
}
