use std::time::Duration;

use bytes::Bytes;
use derp_kv_core::{Error, ErrorKind, GuardedGet, KvStore, KvStoreExt};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::{HOUR, LATE, NEW, PAUSE, soon};
use crate::bench::{Bench, LawResult};
use crate::erased::Store;
use crate::laws::helpers::{Failed, Gate, Runs};
use crate::resolution;
use crate::scene::Scene;
use crate::violation::{Violation, ensure, ensure_eq};

/// A cool-down that a law outlasts.
const BACKOFF: Duration = Duration::from_millis(300);

fn options(backoff: Duration) -> GuardedGet {
    GuardedGet::new(HOUR).backoff(backoff).lock_ttl(HOUR)
}

/// A call whose computation fails.
async fn fails(kv: &Store, key: &str, backoff: Duration, runs: &Runs) -> Result<Bytes, Failed> {
    let work = async || {
        runs.begin();
        Err::<Bytes, _>(Failed::Work)
    };
    kv.guarded_get(key, &options(backoff), work).await
}

/// What a caller is told that comes during a cool-down: after how long it may come again.
fn retry_after(answer: Result<Bytes, Failed>, backoff: Duration) -> Result<Duration, Violation> {
    let error = match answer {
        Err(Failed::Store(error)) if error.kind() == ErrorKind::Failing => error,
        Err(Failed::Store(error)) => return Err(error.into()),
        Err(Failed::Work) => {
            return Err(Violation::new("a computation is begun during a cool-down"));
        }
        Ok(value) => return Err(Violation::new(format!("{value:?} was computed by nobody"))),
    };
    let Some(after) = error.retry_after() else {
        return Err(Violation::new("`Failing` does not say when it is tried again"));
    };
    let most = resolution::most_left(backoff) + Duration::from_millis(2);
    ensure!(after <= most, "in a cool-down of {backoff:?}, one is to wait for {after:?}");
    Ok(after)
}

/// A computation of the process `number` fails, and everybody hears of it; an invalidation by the
/// other one ends it.
async fn everybody_hears(
    scene: &Scene<'_>,
    handles: &[Store],
    number: usize,
) -> Result<(), Violation> {
    let key = format!("{number}");
    let (runs, gate) = (Runs::default(), Gate::default());
    let holder = tokio::spawn({
        let (kv, key, runs, gate) =
            (handles[number].clone(), key.clone(), runs.clone(), gate.clone());
        async move {
            let work = || async {
                runs.begin();
                gate.pass().await;
                Err::<Bytes, _>(Failed::Work)
            };
            kv.guarded_get(&key, &options(HOUR), work).await
        }
    });
    soon("the first computation", gate.begun.notified()).await?;
    let mut waiters = JoinSet::new();
    for kv in handles.iter().chain(handles) {
        let (kv, key, runs) = (kv.clone(), key.clone(), runs.clone());
        waiters.spawn(async move { fails(&kv, &key, HOUR, &runs).await });
    }
    // They surely wait by then.
    sleep(PAUSE * 2).await;
    gate.open.notify_one();
    let own = soon("the one that fails", holder).await??;
    ensure!(matches!(own, Err(Failed::Work)), "the caller gets {own:?}, not its own error");
    while let Some(answer) = soon("one who waited", waiters.join_next()).await? {
        hears_of_an_hour(answer?)?;
    }
    for kv in handles.iter().chain(handles) {
        let answer = soon("a caller in a cool-down", fails(kv, &key, HOUR, &runs)).await?;
        hears_of_an_hour(answer)?;
    }
    ensure_eq!(runs.count(), 1, "the number of computations in a cool-down");
    ensure!(!scene.store.exists(key.as_bytes()).await?, "a failure left a value");
    ensure_eq!(handles[1 - number].invalidate(&key).await?, false, "invalidate without a value");
    let options = options(HOUR);
    for kv in [&handles[2], &handles[number]] {
        let value = kv.guarded_get(&key, &options, async || Ok::<_, Failed>(NEW));
        match soon("who comes after an invalidation", value).await? {
            Ok(value) => ensure_eq!(value, NEW, "the value after an invalidation"),
            Err(Failed::Store(error)) if error.kind() == ErrorKind::Failing => {
                return Err(Violation::new("an invalidation does not end a cool-down"));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn hears_of_an_hour(answer: Result<Bytes, Failed>) -> Result<(), Violation> {
    let after = retry_after(answer, HOUR)?;
    // No case takes as long as this.
    let least = HOUR - Duration::from_secs(90) - resolution::lateness();
    ensure!(after >= least, "in a cool-down of {HOUR:?}, one is to wait for {after:?} only");
    Ok(())
}

/// Whoever waits for as long as it is told computes.
async fn tells_the_truth(scene: &Scene<'_>, handles: &[Store]) -> Result<(), Violation> {
    let began = Instant::now();
    let mut failed = None;
    let mut after = None;
    for number in 0.. {
        let asked = Instant::now();
        let answer = fails(&handles[number % 2], "truth", BACKOFF, &Runs::default()).await;
        if !matches!(answer, Err(Failed::Work)) {
            after = Some(retry_after(answer, BACKOFF)?);
            break;
        }
        // On a machine that stalls, the cool-down may be over before anybody comes. It begins no
        // earlier than the call whose computation failed.
        if let Some(failed) = failed.replace(asked) {
            let rested = failed.elapsed();
            ensure!(rested + PAUSE >= BACKOFF, "it is tried again {rested:?} after a failure");
        }
        if began.elapsed() > LATE {
            break;
        }
    }
    let Some(after) = after else { return Ok(()) };
    sleep(after + scene.slack()).await;
    let options = options(BACKOFF);
    let value = handles[2].guarded_get("truth", &options, async || Ok::<_, Error>(NEW));
    match value.await {
        Ok(value) => ensure_eq!(value, NEW, "the value after a cool-down"),
        Err(error) if error.kind() == ErrorKind::Failing => {
            let again = error.retry_after();
            let text = format!(
                "who has waited for {after:?}, as it was told, is to wait for {again:?} more"
            );
            return Err(Violation::new(text));
        }
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// A lock that is no cool-down is waited for.
async fn a_lock_is_no_cool_down(scene: &Scene<'_>, handles: &[Store]) -> Result<(), Violation> {
    scene.store.set(b"locked:lock", b"0123456789abcdef0123456789abcdef", Some(HOUR)).await?;
    let mut waiters = JoinSet::new();
    for kv in handles {
        let kv = kv.clone();
        waiters.spawn(async move {
            kv.guarded_get("locked", &options(HOUR), async || Ok::<_, Error>(NEW)).await
        });
    }
    // Long enough for several looks at the lock.
    if let Ok(Some(answer)) =
        tokio::time::timeout(Duration::from_millis(150), waiters.join_next()).await
    {
        let answer = answer?;
        return Err(Violation::new(format!("a lock is not waited for: a caller gets {answer:?}")));
    }
    scene.store.delete(b"locked:lock").await?;
    while let Some(answer) = soon("one who waited for a lock", waiters.join_next()).await? {
        ensure_eq!(answer??, NEW, "the value after a lock");
    }
    Ok(())
}

pub(crate) fn cools_down_after_a_failure(bench: &Bench<'_>) -> LawResult {
    bench.scenario(async |scene| {
        let handles = scene.handles(3).await?;
        for number in 0..2 {
            everybody_hears(scene, &handles, number).await?;
        }
        tells_the_truth(scene, &handles).await?;
        a_lock_is_no_cool_down(scene, &handles).await
    })
}
