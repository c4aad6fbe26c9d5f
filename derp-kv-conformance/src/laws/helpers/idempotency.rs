use std::time::Duration;

use derp_kv_core::{Error, ErrorKind, Idempotency, KvStore, KvStoreExt, Outcome};
use futures_util::future::try_join_all;
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::succession::Stalls;
use super::{Failed, Gate, LOCK, LONG, Runs, WORK, is_reserved, until_absent};
use crate::bench::{Bench, LawResult, at_once};
use crate::erased::Store;
use crate::input::Blob;
use crate::violation::{Violation, ensure, ensure_eq};

fn options() -> Idempotency {
    Idempotency::default().lock_ttl(LONG)
}

/// Options of a duplicate that waits for a moment only, and yet longer than a loaded machine lets any
/// call wait: a lock that comes later than its TTL is another error.
fn impatient() -> Idempotency {
    Idempotency::default().lock_ttl(LOCK)
}

/// Whether it is the error of a duplicate that has waited: that the work is in progress, or, where the
/// store has kept the call waiting for longer than the lock lasts, that it is too late.
fn is_waited_out(error: Option<ErrorKind>, waited: Duration) -> bool {
    match error {
        Some(ErrorKind::InProgress) => true,
        Some(ErrorKind::Timeout) => waited > LOCK,
        _ => false,
    }
}

/// A call whose work must not run.
pub(super) async fn must_not_run(
    kv: &Store,
    key: &str,
    options: &Idempotency,
) -> Result<Result<Outcome<u64>, Error>, Violation> {
    let runs = Runs::default();
    let work = || async {
        runs.begin();
        Ok::<u64, Error>(0)
    };
    let result = kv.idempotent_execute(key, options, work).await;
    ensure_eq!(runs.count(), 0, "the number of further executions");
    Ok(result)
}

pub(super) fn kind<T>(result: Result<T, Error>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

pub(crate) fn idempotent_execute_runs_once(bench: &Bench<'_>) -> LawResult {
    bench.scenario(async |scene| {
        let handles = scene.handles(3).await?;
        let runs = Runs::default();
        let stalls = Stalls::watched(scene.is_virtual());
        // The work takes longer than the lock lasts without renewal, and half of the callers come
        // late enough to see that.
        let callers = (0..12).map(|caller| handles[caller % 3].clone());
        let results = at_once(callers, |number, kv| {
            let runs = runs.clone();
            async move {
                if number % 2 == 1 {
                    tokio::time::sleep(LOCK / 3).await;
                }
                let work = || async {
                    runs.begin();
                    tokio::time::sleep(LOCK + LOCK / 2).await;
                    Ok::<_, Error>(1001_u64)
                };
                let options = Idempotency::default().lock_ttl(LOCK);
                match kv.idempotent_execute("key", &options, work).await {
                    Ok(outcome) => Ok(Some(outcome)),
                    Err(error) if error.kind() == ErrorKind::InProgress => Ok(None),
                    Err(error) => Err(error.into()),
                }
            }
        })
        .await?;
        if stalls.may_end(LOCK) {
            // The lock may have ended in the middle of the work.
            return Ok(());
        }
        ensure_eq!(runs.count(), 1, "the number of executions, of 12 callers in 3 processes,");
        let outcomes: Vec<_> = results.into_iter().flatten().collect();
        let first = outcomes.iter().filter(|outcome| !outcome.is_replay).count();
        ensure_eq!(first, 1, "the number of callers that executed");
        let wrong = outcomes.iter().find(|outcome| outcome.body != 1001);
        ensure_eq!(wrong, None, "an outcome of nobody's work");
        for kv in &handles {
            let replay = must_not_run(kv, "key", &options()).await??;
            ensure_eq!((replay.body, replay.is_replay), (1001, true), "the replay");
        }
        until_absent(&scene.store, b"derp:idempotency:key:lock").await
    })
}

/// Bodies of any shape.
pub(super) fn body() -> impl Strategy<Value = Value> + Clone {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map("[a-z\"\\\\]{0,4}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

pub(crate) fn idempotent_execute_replays(bench: &Bench<'_>) -> LawResult {
    let id = "[ -~]{1,30}".prop_filter("a reserved id", |id| !is_reserved(id.as_bytes()));
    let inputs = (id, body(), 100_u16..=999, proptest::option::of(".{0,12}"));
    bench.property(inputs, async |scene, (id, body, status_code, fingerprint)| {
        let handles = scene.handles(2).await?;
        let mut options = options().status_code(status_code);
        if let Some(request) = &fingerprint {
            options = options.fingerprint(request);
        }
        let work = || async { Ok::<_, Error>(body.clone()) };
        let first = handles[0].idempotent_execute(&id, &options, work).await?;
        let first = (first.body, first.status_code, first.is_replay);
        ensure_eq!(first, (body.clone(), status_code, false), "the first outcome");
        for kv in &handles {
            let work = || async { Ok::<_, Error>(json!("executed twice")) };
            let again = kv.idempotent_execute(&id, &options.clone().status_code(500), work).await?;
            let again = (again.body, again.status_code, again.is_replay);
            ensure_eq!(again, (body.clone(), status_code, true), "the replay");
        }
        Ok(())
    })
}

pub(crate) fn idempotent_execute_reports_progress(bench: &Bench<'_>) -> LawResult {
    bench.scenario(async |scene| {
        let handles = scene.handles(2).await?;
        let gate = Gate::default();
        let holder = gated(&handles[0], &gate, options());
        gate.begun.notified().await;
        // At once, so that they share their waiting.
        let impatient = impatient();
        let began = Instant::now();
        let duplicates = handles.iter().map(|kv| must_not_run(kv, "key", &impatient));
        for result in try_join_all(duplicates).await? {
            let Err(error) = result else {
                return Err(Violation::new("a duplicate got an outcome of work not yet done"));
            };
            let (kind, waited) = (error.kind(), began.elapsed());
            let right = is_waited_out(Some(kind), waited);
            ensure!(right, "the duplicate's error after {waited:?} is {kind:?}");
            let in_progress = kind == ErrorKind::InProgress;
            let says = error.retry_after().is_some() || !in_progress;
            ensure!(says, "the error does not say when to try again");
        }
        gate.open.notify_one();
        ensure_eq!(holder.await??.body, 1001, "the holder's body");
        let replay = must_not_run(&handles[1], "key", &options()).await??;
        ensure_eq!((replay.body, replay.is_replay), (1001, true), "the replay");
        Ok(())
    })
}

/// Executes `key` until the gate opens.
fn gated(
    kv: &Store,
    gate: &Gate,
    options: Idempotency,
) -> tokio::task::JoinHandle<Result<Outcome<u64>, Error>> {
    let (kv, gate) = (kv.clone(), gate.clone());
    tokio::spawn(async move {
        let work = || async {
            gate.pass().await;
            Ok::<_, Error>(1001)
        };
        kv.idempotent_execute("key", &options, work).await
    })
}

pub(crate) fn idempotent_execute_refuses_another_request(bench: &Bench<'_>) -> LawResult {
    bench.scenario(async |scene| {
        let handles = scene.handles(2).await?;
        let gate = Gate::default();
        let holder = gated(&handles[0], &gate, options().fingerprint("one tea"));
        gate.begun.notified().await;
        let other = options().fingerprint("two teas");
        let same = impatient().fingerprint("one tea");
        let others = handles.iter().map(|kv| must_not_run(kv, "key", &other));
        for result in try_join_all(others).await? {
            ensure_eq!(kind(result), Some(ErrorKind::KeyReused), "the error while in progress");
        }
        let began = Instant::now();
        let duplicates = handles.iter().map(|kv| must_not_run(kv, "key", &same));
        for result in try_join_all(duplicates).await? {
            let (kind, waited) = (kind(result), began.elapsed());
            let right = is_waited_out(kind, waited);
            ensure!(right, "the same request's error after {waited:?} is {kind:?}");
        }
        gate.open.notify_one();
        holder.await??;
        for kv in &handles {
            let other = options().fingerprint("two teas");
            let result = must_not_run(kv, "key", &other).await?;
            ensure_eq!(kind(result), Some(ErrorKind::KeyReused), "the error afterwards");
            let same = options().fingerprint("one tea");
            ensure!(must_not_run(kv, "key", &same).await??.is_replay, "the same request ran again");
        }
        Ok(())
    })
}

pub(crate) fn idempotent_execute_frees_failures(bench: &Bench<'_>) -> LawResult {
    bench.scenario(async |scene| {
        let handles = scene.handles(2).await?;
        let lock = b"derp:idempotency:key:lock";
        let failing = || async {
            tokio::time::sleep(WORK).await;
            Err::<u64, _>(Failed::Work)
        };
        let failed = handles[0].idempotent_execute("key", &options(), failing).await;
        let own = matches!(failed, Err(Failed::Work));
        ensure!(own, "the caller gets {failed:?}, and not the error of its own work");
        ensure!(!scene.store.exists(lock).await?, "the key is taken after an error");
        ensure!(!scene.store.exists(b"derp:idempotency:key").await?, "an error was recorded");
        // Dropped in the middle of its work.
        let gate = Gate::default();
        let options = options();
        let call = handles[0].idempotent_execute("key", &options, || async {
            gate.pass().await;
            Ok::<u64, Error>(0)
        });
        tokio::select! {
            result = call => ensure!(false, "the call ended without its work: {result:?}"),
            () = gate.begun.notified() => {}
        }
        let work = || async { Ok::<_, Error>(1001_u64) };
        let next = handles[1].idempotent_execute("key", &options, work).await?;
        ensure_eq!((next.body, next.is_replay), (1001, false), "the next caller's outcome");
        until_absent(&scene.store, lock).await
    })
}

pub(crate) fn idempotent_execute_keeps_corrupt_records(bench: &Bench<'_>) -> LawResult {
    let corrupt = prop_oneof![
        crate::input::bytes(),
        Just(Blob(b"{\"status_code\":201}".to_vec())),
        Just(Blob(b"{\"status_code\":201,\"body\":\"of another type\"}".to_vec())),
        Just(Blob(b"{\"status_code\":70000,\"body\":7}".to_vec())),
        Just(Blob(b"{\"status_code\":201,\"body\":7".to_vec())),
    ];
    bench.property(corrupt, async |scene, record| {
        scene.store.set(b"derp:idempotency:key", &record, None).await?;
        for kv in scene.handles(2).await? {
            let result = must_not_run(&kv, "key", &options()).await?;
            ensure_eq!(kind(result), Some(ErrorKind::Corrupt), "the error");
            let found = scene.store.get(b"derp:idempotency:key").await?;
            ensure_eq!(found.map(|found| Blob(found.into())), Some(record.clone()), "the record");
        }
        Ok(())
    })
}
