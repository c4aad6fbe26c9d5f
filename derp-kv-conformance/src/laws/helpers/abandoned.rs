use derp_kv_core::{Attempt, Error, ErrorKind, Idempotency, KvStore, KvStoreExt, OnAbandoned};

use super::idempotency::{kind, must_not_run};
use super::{Failed, Gate, LOCK, LONG, Runs, until_absent};
use crate::bench::{Bench, LawResult, at_once};
use crate::erased::Store;
use crate::scene::Scene;
use crate::violation::{Violation, ensure, ensure_eq};

fn options(on: OnAbandoned) -> Idempotency {
    Idempotency::default().lock_ttl(LONG).on_abandoned(on)
}

fn rejecting() -> Idempotency {
    options(OnAbandoned::Reject)
}

/// Leaves an attempt at `key` whose caller went away while it worked, and no lock.
async fn abandon(kv: &Store, key: &str) -> Result<(), Violation> {
    let (gate, options) = (Gate::default(), rejecting());
    let work = || async {
        gate.pass().await;
        Ok::<u64, Error>(0)
    };
    tokio::select! {
        result = kv.idempotent_execute(key, &options, work) => {
            ensure!(false, "the call ended without its work: {result:?}");
        }
        () = gate.begun.notified() => {}
    }
    until_absent(kv, format!("derp:idempotency:{key}:lock").as_bytes()).await
}

/// Does the work for `key`, which no attempt stands in the way of.
async fn must_run(
    kv: &Store,
    key: &str,
    options: &Idempotency,
    number: u32,
) -> Result<(), Violation> {
    let work = |attempt: Attempt| async move { Ok::<_, Error>(attempt.number()) };
    let outcome = kv.idempotent_execute_with(key, options, work).await?;
    ensure_eq!((outcome.body, outcome.is_replay), (number, false), "(attempt, whether replayed)");
    Ok(())
}

pub(crate) fn idempotent_execute_rejects_the_abandoned(bench: &Bench<'_>) -> LawResult {
    bench.scenario(async |scene| {
        let handles = scene.handles(3).await?;
        it_is_rejected_until_it_is_forgotten(scene, &handles).await?;
        a_failure_is_known(scene, &handles).await?;
        a_lost_lease_is_not_succeeded(scene, &handles).await?;
        // Where it may run again, it does, and says which attempt it is.
        abandon(&handles[0], "again").await?;
        must_run(&handles[1], "again", &options(OnAbandoned::Rerun), 2).await?;
        let marker = b"derp:idempotency:again:attempt";
        ensure!(!scene.store.exists(marker).await?, "a marker is left beside its record");
        Ok(())
    })
}

async fn it_is_rejected_until_it_is_forgotten(
    scene: &Scene<'_>,
    handles: &[Store],
) -> Result<(), Violation> {
    abandon(&handles[0], "key").await?;
    // What says so outlasts every lock.
    scene.elapse(LOCK * 2).await;
    let runs = Runs::default();
    let callers = (0..9).map(|caller| handles[caller % 3].clone());
    let answers = at_once(callers, |_, kv| {
        let runs = runs.clone();
        async move {
            let work = || async {
                runs.begin();
                Ok::<u64, Error>(0)
            };
            Ok(kv.idempotent_execute("key", &rejecting(), work).await)
        }
    })
    .await?;
    ensure_eq!(runs.count(), 0, "the number of executions after one that was abandoned");
    for answer in answers {
        let Err(error) = answer else {
            return Err(Violation::new("there is an outcome of work that was abandoned"));
        };
        let abandoned = (error.kind(), error.is_transient());
        ensure_eq!(abandoned, (ErrorKind::Abandoned, false), "(error, whether transient)");
    }
    for (kv, there) in handles.iter().zip([true, false, false]) {
        let forgotten = kv.idempotent_forget("key", &rejecting()).await?;
        ensure_eq!(forgotten, there, "whether there was an attempt to forget");
    }
    must_run(&handles[2], "key", &rejecting(), 1).await?;
    for kv in handles {
        let replay = must_not_run(kv, "key", &rejecting()).await??;
        ensure_eq!((replay.body, replay.is_replay), (1, true), "the replay");
    }
    for end in [":lock", ":attempt"] {
        let key = format!("derp:idempotency:key{end}");
        ensure!(!scene.store.exists(key.as_bytes()).await?, "`{key}` is left beside the record");
    }
    Ok(())
}

/// Work that says it failed is not abandoned.
async fn a_failure_is_known(scene: &Scene<'_>, handles: &[Store]) -> Result<(), Violation> {
    for kv in &handles[..2] {
        let failing = || async { Err::<u64, _>(Failed::Work) };
        let failed = kv.idempotent_execute("fails", &rejecting(), failing).await;
        let own = matches!(failed, Err(Failed::Work));
        ensure!(own, "the caller gets {failed:?}, and not the error of its own work");
        let is_recorded = scene.store.exists(b"derp:idempotency:fails").await?;
        ensure!(!is_recorded, "an error was recorded");
    }
    must_run(&handles[2], "fails", &rejecting(), 3).await
}

/// Who lost its lease in the middle of its work may be at it still, and its outcome counts.
async fn a_lost_lease_is_not_succeeded(
    scene: &Scene<'_>,
    handles: &[Store],
) -> Result<(), Violation> {
    let gate = Gate::default();
    let (kv, holds) = (handles[0].clone(), gate.clone());
    let holder = tokio::spawn(async move {
        let work = || async {
            holds.pass().await;
            Ok::<_, Error>(1001_u64)
        };
        kv.idempotent_execute("lost", &rejecting(), work).await
    });
    gate.begun.notified().await;
    let forgotten = handles[1].idempotent_forget("lost", &rejecting()).await;
    ensure_eq!(kind(forgotten), Some(ErrorKind::InProgress), "the error of who forgets it now");
    let lost = scene.store.delete(b"derp:idempotency:lost:lock").await?;
    ensure!(lost, "the holder has no lock");
    let result = must_not_run(&handles[1], "lost", &rejecting()).await?;
    ensure_eq!(kind(result), Some(ErrorKind::Abandoned), "the error of who comes meanwhile");
    gate.open.notify_one();
    ensure_eq!(holder.await??.body, 1001, "the holder's outcome");
    for kv in handles {
        let replay = must_not_run(kv, "lost", &rejecting()).await??;
        ensure_eq!((replay.body, replay.is_replay), (1001, true), "the replay");
    }
    Ok(())
}
