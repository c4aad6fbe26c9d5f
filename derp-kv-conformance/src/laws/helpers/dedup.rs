use derp_kv_core::{Dedup, Error, ErrorKind, KvStore, KvStoreExt, Processed};

use super::{Failed, Gate, LONG, Runs, WORK, until_absent};
use crate::Harness;
use crate::bench::{Bench, LawResult, at_once};
use crate::violation::{Violation, ensure, ensure_eq};

pub(crate) fn already_processed_is_false_once<H: Harness>(bench: &Bench<'_, H>) -> LawResult {
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

pub(crate) fn process_once_runs_once<H: Harness>(bench: &Bench<'_, H>) -> LawResult {
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

pub(crate) fn process_once_forgets_failures<H: Harness>(bench: &Bench<'_, H>) -> LawResult {
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
