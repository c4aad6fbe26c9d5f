use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use derp_kv_core::{ErrorKind, Freshness, Got, GuardedGet, KvStoreExt, Source};
use futures_util::future::try_join_all;
use proptest::collection::vec;
use proptest::prelude::*;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::HOUR;
use crate::bench::{Bench, LawResult};
use crate::erased::Store;
use crate::laws::helpers::Failed;
use crate::resolution;
use crate::violation::{Violation, ensure};

/// Callers of one key, each with a computation that takes a while and may fail.
#[derive(Clone, Debug)]
struct History {
    ttl: Duration,
    stale: Duration,
    backoff: Duration,
    steps: Vec<Step>,
}

#[derive(Clone, Debug)]
struct Step {
    /// After the step before.
    pause: Duration,
    work: Duration,
    fails: bool,
    process: usize,
}

const PROCESSES: usize = 3;

fn millis(range: std::ops::Range<u64>) -> impl Strategy<Value = Duration> {
    range.prop_map(Duration::from_millis)
}

fn history() -> impl Strategy<Value = History> {
    let step = (millis(0..60), millis(0..80), any::<bool>(), 0..PROCESSES)
        .prop_map(|(pause, work, fails, process)| Step { pause, work, fails, process });
    (millis(1..60), millis(1..80), millis(1..20), vec(step, 4..8))
        .prop_map(|(ttl, stale, backoff, steps)| History { ttl, stale, backoff, steps })
}

/// What came of one call.
struct Served {
    began: Instant,
    ended: Instant,
    /// When its own computation failed.
    failed: Option<Instant>,
    got: Option<Got>,
}

/// The caller's computation is of the value `number`.
async fn call(
    kv: Store,
    key: String,
    options: GuardedGet,
    step: Step,
    number: usize,
) -> Result<Served, Violation> {
    let failed = Arc::new(OnceLock::new());
    let work = || async {
        sleep(step.work).await;
        if step.fails {
            let _ = failed.set(Instant::now());
            return Err(Failed::Work);
        }
        Ok(Bytes::from(number.to_string()))
    };
    let began = Instant::now();
    let got = match kv.guarded_get_detailed(&key, &options, work).await {
        Ok(got) => Some(got),
        Err(Failed::Work) => None,
        Err(Failed::Store(error)) if error.kind() == ErrorKind::Failing => None,
        Err(Failed::Store(error)) => return Err(error.into()),
    };
    Ok(Served { began, ended: Instant::now(), failed: failed.get().copied(), got })
}

impl History {
    async fn play(&self, handles: &[Store], key: usize, slack: Duration) -> Result<(), Violation> {
        let options = GuardedGet::new(self.ttl)
            .stale(self.stale)
            .backoff(self.backoff)
            .lock_ttl(HOUR)
            .retry_delay(Duration::from_millis(10));
        let mut calls = JoinSet::new();
        for (number, step) in self.steps.iter().enumerate() {
            sleep(step.pause).await;
            let (kv, key) = (handles[step.process].clone(), format!("{key}"));
            calls.spawn(call(kv, key, options, step.clone(), number));
        }
        let mut served = Vec::new();
        while let Some(call) = calls.join_next().await {
            served.push(call??);
        }
        self.check(&served, slack)
    }

    /// Compares what was served with when each value was stored, at the latest.
    fn check(&self, served: &[Served], slack: Duration) -> Result<(), Violation> {
        let computed = served.iter().filter_map(|call| {
            let got = call.got.as_ref().filter(|got| got.source == Source::Computed)?;
            Some((got.value.clone(), call.ended))
        });
        let stored: BTreeMap<Bytes, Instant> = computed.collect();
        for Served { began, failed, got, .. } in served {
            let Some(got) = got else { continue };
            let Some(stored) = stored.get(&got.value) else {
                return Err(Violation::new(format!("{:?} was computed by nobody", got.value)));
            };
            // No earlier than this: a caller whose own computation failed is answered after it.
            let at_least = failed.unwrap_or(*began).max(*began);
            let age = at_least.saturating_duration_since(*stored);
            let most = if got.freshness == Freshness::Fresh && failed.is_none() {
                self.ttl
            } else {
                self.ttl + self.stale
            };
            ensure!(
                age <= most + slack,
                "a value that was stored at least {age:?} before is served as {:?}, with a TTL of \
                 {:?} and a stale time of {:?}",
                got.freshness,
                self.ttl,
                self.stale
            );
        }
        Ok(())
    }
}

pub(crate) fn serves_nothing_past_the_stale_window(bench: &Bench<'_>) -> LawResult {
    bench.timed_property(vec(history(), 3..6), async |scene, histories| {
        let handles = scene.handles(PROCESSES).await?;
        // A coarse store rounds up, and tells what is left to within its resolution.
        let slack = scene.slack() + resolution::lateness() * 2 + Duration::from_millis(2);
        let each = histories.iter().enumerate();
        try_join_all(each.map(|(key, history)| history.play(&handles, key, slack))).await?;
        Ok(())
    })
}
