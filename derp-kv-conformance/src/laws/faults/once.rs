use derp_kv_core::{
    Dedup, Error, ErrorKind, GuardedGet, Idempotency, KvStoreExt, Lease, Lock, Processed,
};
use futures_util::future::try_join;
use tokio::time::sleep;

use super::{Alone, Case, LOCK, WORK, each_fault};
use crate::Fault;
use crate::bench::{Bench, LawResult};
use crate::violation::{Violation, ensure, ensure_eq};

pub(crate) fn guarded_get_goes_on(bench: &Bench<'_>) -> LawResult {
    bench.scenario(async |scene| {
        each_fault(scene, async |case| {
            let options = GuardedGet::new(LOCK * 30).lock_ttl(LOCK);
            let alone = Alone::default();
            let work = || async { Ok::<_, Error>(alone.work().await?.to_string()) };
            let failing = async {
                match case.call(case.kv.guarded_get(&case.id, &options, work)).await {
                    Some(Err(error)) => case.check(&error),
                    Some(Ok(_)) | None => Ok(()),
                }
            };
            let meeting = async {
                sleep(WORK / 4).await;
                case.other.guarded_get(&case.id, &options, work).await?;
                Ok(())
            };
            try_join(failing, meeting).await?;
            alone.check()?;
            // Who comes next finds a value, or computes one that is kept.
            let value = case.other.guarded_get(&case.id, &options, work).await?;
            let done = alone.done();
            let again = case.other.guarded_get(&case.id, &options, work).await?;
            ensure_eq!((&again, alone.done()), (&value, done), "(value, computations) of a hit");
            let computed = std::str::from_utf8(&value).ok().and_then(|value| value.parse().ok());
            let known = computed.is_some_and(|run: u32| run < done);
            ensure!(known, "{value:?} was computed by nobody");
            case.leaves_nothing(&case.id).await
        })
        .await
    })
}

/// More than a client needs, one every half of the [`WORK`] while another is at it.
const TRIES: u32 = 20;

/// As a client has it that tries again: calls until there is an answer.
async fn until_answered<T>(
    case: &Case,
    call: impl AsyncFn() -> Option<Result<T, Error>>,
) -> Result<T, Violation> {
    for _ in 0..TRIES {
        match call().await {
            Some(Ok(answer)) => return Ok(answer),
            Some(Err(error)) if error.kind() == ErrorKind::InProgress => sleep(WORK / 2).await,
            Some(Err(error)) => case.check(&error)?,
            None => {}
        }
    }
    Err(Violation::new(format!("of {TRIES} tries none got an answer")))
}

pub(crate) fn idempotent_execute_runs_once(bench: &Bench<'_>) -> LawResult {
    bench.scenario(async |scene| {
        each_fault(scene, async |case| {
            let options = Idempotency::default().lock_ttl(LOCK);
            let alone = Alone::default();
            let work = || alone.work();
            let failing = until_answered(case, async || {
                case.call(case.kv.idempotent_execute(&case.id, &options, work)).await
            });
            let meeting = async {
                sleep(WORK / 4).await;
                until_answered(case, async || {
                    Some(case.other.idempotent_execute(&case.id, &options, work).await)
                })
                .await
            };
            let (ours, theirs) = try_join(failing, meeting).await?;
            alone.check()?;
            ensure_eq!((ours.body, theirs.body, alone.done()), (0, 0, 1), "(bodies, executions)");
            let again = case.other.idempotent_execute(&case.id, &options, work).await?;
            ensure_eq!((again.body, again.is_replay), (0, true), "the replay");
            case.leaves_nothing(&format!("derp:idempotency:{}", case.id)).await
        })
        .await
    })
}

pub(crate) fn process_once_runs_once(bench: &Bench<'_>) -> LawResult {
    bench.scenario(async |scene| {
        each_fault(scene, async |case| {
            let options = Dedup::default().lock_ttl(LOCK);
            let alone = Alone::default();
            let handler = || alone.work();
            let failing = until_answered(case, async || {
                case.call(case.kv.process_once(&case.id, &options, handler)).await
            });
            let meeting = async {
                sleep(WORK / 4).await;
                until_answered(case, async || {
                    Some(case.other.process_once(&case.id, &options, handler).await)
                })
                .await
            };
            try_join(failing, meeting).await?;
            alone.check()?;
            ensure_eq!(alone.done(), 1, "how often the handler succeeds");
            let again = case.other.process_once(&case.id, &options, handler).await?;
            ensure_eq!(again, Processed::Before, "what a later delivery hears");
            case.leaves_nothing(&format!("derp:webhook:{}", case.id)).await
        })
        .await
    })
}

/// Works while it holds the lease, and frees it.
async fn hold(case: &Case, alone: &Alone, lease: Lease) -> Result<(), Violation> {
    alone.work().await?;
    ensure!(!lease.is_lost(), "a lease is lost though its holder lives");
    match case.call(lease.release()).await {
        Some(Ok(held)) => ensure!(held, "the lease was not its holder's to the end"),
        Some(Err(error)) => case.check(&error)?,
        None => {}
    }
    Ok(())
}

pub(crate) fn leases_stay_exclusive(bench: &Bench<'_>) -> LawResult {
    bench.scenario(async |scene| {
        each_fault(scene, async |case| {
            let alone = Alone::default();
            let failing = async {
                match case.call(case.kv.try_lock(&case.id, LOCK)).await {
                    Some(Ok(Some(lease))) => hold(case, &alone, lease).await,
                    Some(Ok(None)) | None => Ok(()),
                    Some(Err(error)) => case.check(&error),
                }
            };
            let meeting = async {
                sleep(WORK / 4).await;
                // The other one has worked and freed it, or crashed and let it expire.
                let lease = case.other.lock(&case.id, &Lock::new(LOCK).at_most(LOCK * 5)).await?;
                alone.work().await?;
                ensure!(lease.release().await?, "the lease was not its holder's to the end");
                Ok(())
            };
            try_join(failing, meeting).await?;
            alone.check()?;
            let hung = case.fault == Fault::Hang && case.kv.injected() > 0;
            ensure!(hung || alone.done() > 0, "nobody had the lease");
            case.leaves_nothing(&case.id).await
        })
        .await
    })
}
