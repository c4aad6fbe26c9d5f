use std::sync::atomic::{AtomicU32, Ordering};

use derp_kv_core::{Attempt, Dedup, Error, ErrorKind, KvStore, KvStoreExt, Processed};
use proptest::prelude::*;

use super::{Failed, Gate, LONG, Runs, WORK, until_absent};
use crate::bench::{Bench, LawResult, at_once};
use crate::erased::Store;
use crate::violation::{Violation, ensure, ensure_eq};

pub(crate) fn already_processed_is_false_once(bench: &Bench<'_>) -> LawResult {
    bench.race(async |scene, round| {
        let handles = scene.handles(3).await?;
        let callers = (0..12).map(|caller| handles[caller % 3].clone());
        let answers = at_once(callers, |_, kv| async move {
            Ok(kv.already_processed(format!("{round}"), &Dedup::default()).await?)
        })
        .await?;
        let first = answers.iter().filter(|before| !**before).count();
        ensure_eq!(first, 1, "the number of callers, of 12, that hear `false`,");
        for kv in handles {
            let before = kv.already_processed(format!("{round}"), &Dedup::default()).await?;
            ensure!(before, "the event is forgotten");
        }
        Ok(())
    })
}

fn options() -> Dedup {
    Dedup::default().lock_ttl(LONG)
}

pub(crate) fn process_once_runs_once(bench: &Bench<'_>) -> LawResult {
    bench.long_race(async |scene, round| {
        let handles = scene.handles(3).await?;
        let runs = Runs::default();
        let callers = (0..9).map(|caller| handles[caller % 3].clone());
        let answers = at_once(callers, |_, kv| {
            let runs = runs.clone();
            async move {
                let handler = || async {
                    runs.begin();
                    tokio::time::sleep(WORK / 10).await;
                    Ok::<_, Error>(())
                };
                match kv.process_once(format!("{round}"), &options(), handler).await {
                    Ok(answer) => Ok(answer == Processed::Now(())),
                    Err(error) if error.kind() == ErrorKind::InProgress => Ok(false),
                    Err(error) => Err(Violation::from(error)),
                }
            }
        })
        .await?;
        let now = answers.iter().filter(|now| **now).count();
        ensure_eq!((runs.count(), now), (1, 1), "(runs, callers that hear `Now`)");
        for kv in handles {
            let handler = || async { Ok::<_, Error>(()) };
            let again = kv.process_once(format!("{round}"), &options(), handler).await?;
            ensure_eq!(again, Processed::Before, "what a later delivery hears");
        }
        Ok(())
    })
}

pub(crate) fn process_once_forgets_failures(bench: &Bench<'_>) -> LawResult {
    bench.scenario(async |scene| {
        let handles = scene.handles(2).await?;
        let (record, lock) = (b"derp:webhook:evt", b"derp:webhook:evt:lock");
        let failing = || async { Err::<(), _>(Failed::Work) };
        let failed = handles[0].process_once("evt", &options(), failing).await;
        let own = matches!(failed, Err(Failed::Work));
        ensure!(own, "the caller gets {failed:?}, and not the error of its own handler");
        ensure!(!scene.store.exists(lock).await?, "the event is claimed after an error");
        ensure!(!scene.store.exists(record).await?, "an event that failed is marked");
        // Dropped in the middle of its handler.
        let gate = Gate::default();
        let options = options();
        let call = handles[0].process_once("evt", &options, || async {
            gate.pass().await;
            Ok::<(), Error>(())
        });
        tokio::select! {
            result = call => ensure!(false, "the call ended without its handler: {result:?}"),
            () = async {
                gate.begun.notified().await;
            } => {}
        }
        until_absent(&scene.store, lock).await?;
        let handler = || async { Ok::<_, Error>(7) };
        let next = handles[1].process_once("evt", &options, handler).await?;
        ensure_eq!(next, Processed::Now(7), "what the next delivery comes to");
        Ok(())
    })
}

/// How an attempt at an event ends that does not succeed.
#[derive(Clone, Copy, Debug)]
enum Fails {
    /// Its handler returns an error.
    Says,
    /// Its caller goes away.
    Vanishes,
}

/// An attempt that fails, and is told to be the one of this number.
async fn fail(
    kv: &Store,
    options: &Dedup,
    runs: &Runs,
    fails: Fails,
    number: u32,
) -> Result<(), Violation> {
    let gate = Gate::default();
    let told = AtomicU32::new(0);
    let call = kv.process_once_with("evt", options, |attempt: Attempt| {
        told.store(attempt.number(), Ordering::SeqCst);
        runs.begin();
        let gate = gate.clone();
        async move {
            match fails {
                Fails::Says => Err::<(), _>(Failed::Work),
                Fails::Vanishes => {
                    gate.pass().await;
                    Ok(())
                }
            }
        }
    });
    tokio::select! {
        result = call => {
            let own = matches!((&result, fails), (Err(Failed::Work), Fails::Says));
            ensure!(own, "attempt {number} gets {result:?}, and not what its handler came to");
        }
        () = gate.begun.notified() => {}
    }
    ensure_eq!(told.into_inner(), number, "the number that a handler is told");
    until_absent(kv, b"derp:webhook:evt:lock").await
}

pub(crate) fn process_once_gives_up(bench: &Bench<'_>) -> LawResult {
    let fails = prop_oneof![Just(Fails::Says), Just(Fails::Vanishes)];
    let inputs = (proptest::collection::vec(fails, 1..5), any::<bool>());
    bench.pausing_property(inputs, async |scene, (fails, succeeds)| {
        let handles = scene.handles(3).await?;
        let (runs, attempts) = (Runs::default(), u32::try_from(fails.len()).unwrap_or(u32::MAX));
        let options = options().give_up_after(attempts + u32::from(succeeds));
        for (number, (fails, kv)) in (1..).zip(fails.into_iter().zip(handles.iter().cycle())) {
            fail(kv, &options, &runs, fails, number).await?;
        }
        let handler = || async {
            runs.begin();
            Ok::<_, Error>(7)
        };
        let expected = if succeeds { Processed::Before } else { Processed::GivenUp { attempts } };
        if succeeds {
            let last = handles[0].process_once("evt", &options, handler).await?;
            ensure_eq!(last, Processed::Now(7), "what the last attempt comes to");
        } else {
            let next = handles[0].process_once("evt", &options, handler).await?;
            ensure_eq!(next, expected, "what the delivery after the last attempt hears");
        }
        let tries = attempts + u32::from(succeeds);
        // From now on it is as it is, for everybody, whatever they would give an event.
        for kv in &handles {
            for options in [&options, &self::options(), &options.clone().give_up_after(100)] {
                let again = kv.process_once("evt", options, handler).await?;
                ensure_eq!(again, expected, "what a later delivery hears");
                ensure!(kv.already_processed("evt", options).await?, "the event is forgotten");
            }
        }
        ensure_eq!(runs.count(), tries, "the number of runs");
        for end in [":lock", ":attempt"] {
            let key = format!("derp:webhook:evt{end}");
            ensure!(!scene.store.exists(key.as_bytes()).await?, "`{key}` is left");
        }
        let other = handles[1].process_once("other", &options, handler).await?;
        ensure_eq!(other, Processed::Now(7), "what another event comes to");
        Ok(())
    })
}
