use std::time::Duration;

use bytes::Bytes;
use derp_kv_core::{Error, ErrorKind, GuardedGet, KvStore, KvStoreExt};
use proptest::prelude::*;
use tokio::time::Instant;

use super::{Failed, Gate, LONG, Runs, WORK, until_absent};
use crate::bench::{Bench, LawResult, at_once};
use crate::erased::Store;
use crate::input::{Blob, key_bytes, lasting, value};
use crate::laws::expect;
use crate::violation::{Violation, ensure, ensure_eq};

fn options() -> GuardedGet {
    GuardedGet::new(LONG).lock_ttl(LONG)
}

const VALUE: Bytes = Bytes::from_static(b"value");

/// Computes [`VALUE`], which takes a moment.
async fn compute(kv: Store, runs: Runs) -> Result<Bytes, Violation> {
    let work = move || async move {
        runs.begin();
        tokio::time::sleep(WORK).await;
        Ok::<_, Error>(VALUE)
    };
    Ok(kv.guarded_get("k", &options(), work).await?)
}

pub(crate) fn guarded_get_keeps_what_it_computes(bench: &Bench<'_>) -> LawResult {
    let key = key_bytes().prop_filter("a reserved key", |key| !super::is_reserved(key));
    let inputs = (key, value(), lasting());
    bench.property(inputs, async |scene, (key, value, ttl)| {
        let handles = scene.handles(2).await?;
        let runs = Runs::default();
        let options = ttl.map_or_else(GuardedGet::forever, GuardedGet::new).lock_ttl(LONG);
        for kv in handles.iter().chain(&handles) {
            let work = || async {
                runs.begin();
                Ok::<_, Error>(value.0.clone())
            };
            let got = kv.guarded_get(&*key, &options, work).await?;
            ensure_eq!(Blob(got.into()), value, "the value that was computed");
        }
        ensure_eq!(runs.count(), 1, "the number of computations, over four calls,");
        expect(&scene.store, &key, &value, ttl).await
    })
}

pub(crate) fn guarded_get_computes_once(bench: &Bench<'_>) -> LawResult {
    bench.scenario(async |scene| {
        let handles = scene.handles(3).await?;
        let runs = Runs::default();
        let callers = (0..60).map(|caller| handles[caller % 3].clone());
        let values = at_once(callers, |_, kv| compute(kv, runs.clone())).await?;
        let wrong = values.iter().find(|value| **value != VALUE);
        ensure_eq!(wrong, None, "a value that nobody computed");
        ensure_eq!(runs.count(), 1, "the number of computations, of 60 callers in 3 processes,");
        ensure!(!scene.store.exists(b"k:lock").await?, "the lock stays");
        for kv in handles {
            let empty = kv.flights().is_none_or(|flights| flights.is_empty());
            ensure!(empty, "a flight outlives its callers");
        }
        Ok(())
    })
}

/// Callers of each process while its computation fails.
const ABOARD: usize = 10;

/// How long a computation takes until it fails: longer than a caller takes to meet it.
const UNTIL_FAILED: Duration = Duration::from_millis(500);

/// What a caller hears of a computation that fails.
#[derive(Clone, Copy, PartialEq)]
enum Heard {
    ItsOwn,
    Failing,
}

/// All `callers` ask at once for what cannot be computed, and tell what they heard.
async fn all_fail(
    callers: impl IntoIterator<Item = Store>,
    key: &'static str,
    runs: &Runs,
) -> Result<Vec<Heard>, Violation> {
    at_once(callers, |_, kv| {
        let runs = runs.clone();
        async move {
            let work = || async move {
                runs.begin();
                tokio::time::sleep(UNTIL_FAILED).await;
                Err::<Bytes, _>(Failed::Work)
            };
            match kv.guarded_get(key, &options(), work).await {
                Err(Failed::Work) => Ok(Heard::ItsOwn),
                Err(Failed::Store(error)) if error.kind() == ErrorKind::Failing => {
                    Ok(Heard::Failing)
                }
                Err(Failed::Store(error)) => Err(Violation::from(error)),
                Ok(value) => Err(Violation::new(format!("{value:?} was computed by nobody"))),
            }
        }
    })
    .await
}

pub(crate) fn guarded_get_keeps_no_error(bench: &Bench<'_>) -> LawResult {
    bench.scenario(async |scene| {
        let handles = scene.handles(2).await?;
        let failing = || async { Err::<Bytes, _>(Failed::Work) };
        let failed = handles[0].guarded_get("alone", &options(), failing).await;
        let own = matches!(failed, Err(Failed::Work));
        ensure!(own, "the caller gets {failed:?}, and not the error of its own work");
        ensure!(!scene.store.exists(b"alone:lock").await?, "the lock stays after an error");
        ensure!(!scene.store.exists(b"alone").await?, "an error left a value");
        // Where callers share nothing, each computes in its turn.
        let aboard = if handles[0].flights().is_some() { ABOARD } else { 1 };
        for (key, processes) in [("one", 1), ("two", 2)] {
            let runs = Runs::default();
            let callers = (0..aboard * processes).map(|caller| handles[caller % processes].clone());
            let heard = all_fail(callers, key, &runs).await?;
            let own = heard.iter().filter(|heard| **heard == Heard::ItsOwn).count();
            let runs = runs.count() as usize;
            ensure_eq!(own, runs, "the number of callers that hear of their own work's failure");
            ensure!(
                (1..=processes).contains(&runs),
                "{runs} computations fail, of callers that all came before the first one failed, \
                 in {processes} processes"
            );
            let lock = format!("{key}:lock");
            ensure!(!scene.store.exists(lock.as_bytes()).await?, "the lock stays after an error");
            for kv in &handles {
                let work = || async { Ok::<_, Error>(VALUE) };
                let next = kv.guarded_get(key, &options(), work).await?;
                ensure_eq!(next, VALUE, "what the next caller computes");
            }
        }
        Ok(())
    })
}

pub(crate) fn guarded_get_survives_a_panic(bench: &Bench<'_>) -> LawResult {
    bench.scenario(async |scene| {
        let handles = scene.handles(2).await?;
        let gate = Gate::default();
        let (kv, inside) = (handles[0].clone(), gate.clone());
        let holder = tokio::spawn(async move {
            let work = || async {
                inside.pass().await;
                // A panic that prints nothing.
                std::panic::resume_unwind(Box::new("the computation panics"));
                #[allow(unreachable_code)]
                Ok::<&str, Error>("never")
            };
            kv.guarded_get("k", &options(), work).await
        });
        gate.begun.notified().await;
        gate.open.notify_one();
        let ended = holder.await;
        ensure!(ended.is_err_and(|error| error.is_panic()), "the panic was swallowed");
        succeeds_at_once(&handles[1], "k", "a panic").await
    })
}

/// Another process must not wait for the lock to expire.
async fn succeeds_at_once(kv: &Store, key: &str, after: &str) -> Result<(), Violation> {
    let began = Instant::now();
    let value = kv.guarded_get(key, &options(), || async { Ok::<_, Error>("next") }).await?;
    ensure!(value == "next" || value == "first", "{value:?} was computed by nobody");
    let waited = began.elapsed();
    ensure!(waited < LONG / 4, "after {after}, the next caller waited {waited:?}");
    until_absent(kv, format!("{key}:lock").as_bytes()).await
}

pub(crate) fn guarded_get_survives_dropped_callers(bench: &Bench<'_>) -> LawResult {
    bench.scenario(async |scene| {
        let handles = scene.handles(2).await?;
        // In the middle of the computation, and at any point of the calls around it.
        let gate = Gate::default();
        let options = options();
        let call = handles[0].guarded_get("k", &options, || async {
            gate.pass().await;
            Ok::<_, Error>("never")
        });
        tokio::select! {
            result = call => ensure!(false, "the call ended without its computation: {result:?}"),
            () = gate.begun.notified() => {}
        }
        succeeds_at_once(&handles[1], "k", "a dropped caller").await?;
        for polls in 0..16 {
            let key = format!("{polls}");
            let work = || async {
                tokio::task::yield_now().await;
                Ok::<_, Error>("first")
            };
            let call = handles[0].guarded_get(&key, &options, work);
            crate::laws::drop_after(polls, call).await;
            let after = format!("a caller dropped after {polls} polls");
            succeeds_at_once(&handles[1], &key, &after).await?;
        }
        Ok(())
    })
}

pub(crate) fn invalidate_wins(bench: &Bench<'_>) -> LawResult {
    bench.scenario(async |scene| {
        let handles = scene.handles(3).await?;
        scene.store.set(b"k", b"stale", None).await?;
        ensure_eq!(handles[1].invalidate("k").await?, true, "invalidate of a cached value");
        ensure_eq!(scene.store.get(b"k").await?, None, "the invalidated value");
        for asks_again in [false, true] {
            let gate = Gate::default();
            let (kv, inside) = (handles[0].clone(), gate.clone());
            let older = tokio::spawn(async move {
                let work = || async {
                    inside.pass().await;
                    Ok::<_, Error>("old")
                };
                kv.guarded_get("k", &options(), work).await
            });
            gate.begun.notified().await;
            ensure_eq!(handles[1].invalidate("k").await?, false, "invalidate without a value");
            if asks_again {
                // Who asks after the invalidation does not share the older computation.
                let fresh = || async { Ok::<_, Error>("new") };
                let value = handles[2].guarded_get("k", &options(), fresh).await?;
                ensure_eq!(&value[..], &b"new"[..], "the value computed after invalidation");
            }
            gate.open.notify_one();
            let value = older.await??;
            ensure_eq!(&value[..], &b"old"[..], "the older caller's own value");
            let left = scene.store.get(b"k").await?;
            let stale = left.as_deref() == Some(b"old");
            ensure!(!stale, "the value computed before invalidation is cached after it");
            ensure!(!scene.store.exists(b"k:lock").await?, "the lock stays");
        }
        Ok(())
    })
}

pub(crate) fn refresh_wins(bench: &Bench<'_>) -> LawResult {
    bench.scenario(async |scene| {
        let handles = scene.handles(2).await?;
        let kv = &scene.store;
        handles[1].refresh("k", b"first", Some(LONG)).await?;
        expect(kv, b"k", &Blob(b"first".to_vec()), Some(LONG)).await?;
        handles[1].refresh("k", b"second", None).await?;
        expect(kv, b"k", &Blob(b"second".to_vec()), None).await?;
        // Of this process, and of another.
        for (number, refreshes) in handles.iter().enumerate() {
            kv.delete(b"k").await?;
            let gate = Gate::default();
            let (computes, inside) = (handles[0].clone(), gate.clone());
            let older = tokio::spawn(async move {
                let work = || async {
                    inside.pass().await;
                    Ok::<_, Error>("old")
                };
                computes.guarded_get("k", &options(), work).await
            });
            gate.begun.notified().await;
            refreshes.refresh("k", b"new", Some(LONG)).await?;
            gate.open.notify_one();
            let value = older.await??;
            ensure_eq!(&value[..], &b"old"[..], "the older caller's own value");
            let left = kv.get(b"k").await?;
            let stale = left.as_deref() == Some(b"old");
            ensure!(!stale, "the value computed before the refresh is cached after it");
            // Whoever shares nothing takes its older value back, and with it the newer one.
            let shared = number == 0 && refreshes.flights().is_some();
            ensure!(!shared || left.is_some(), "the newer value is gone");
            ensure!(!kv.exists(b"k:lock").await?, "the lock stays");
            let fresh = || async { Ok::<_, Error>("new") };
            let value = refreshes.guarded_get("k", &options(), fresh).await?;
            ensure_eq!(&value[..], &b"new"[..], "the value after the refresh");
        }
        Ok(())
    })
}
