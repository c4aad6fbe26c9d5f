use std::collections::BTreeSet;
use std::time::Duration;

use derp_kv_core::{Counter, Expiry, KvStore};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::calls::{Looker, READERS, Writer};
use super::timetable::Fate;
use crate::bench::{Bench, LawResult, at_once};
use crate::erased::Store;
use crate::model::Span;
use crate::resolution;
use crate::scene::Scene;
use crate::violation::{Violation, ensure, ensure_eq};

/// The writes that make an absent key.
const CREATING: [Writer; 4] = [Writer::Set, Writer::Mset, Writer::SetNx, Writer::Incr];

/// What lives on after the law.
const NEW: Option<Duration> = Some(Duration::from_secs(600));

/// Callers that meet at one key.
const CALLERS: usize = 6;

/// A call that meets an expired key, and leaves what a writer beside it may have written.
async fn meets(kv: &Store, looker: Looker, key: &[u8]) -> Result<(), Violation> {
    match looker {
        Looker::CompareAndSet => drop(kv.compare_and_set(key, b"other", b"3", None).await?),
        Looker::CompareAndDelete => drop(kv.compare_and_delete(key, b"other").await?),
        _ => drop(looker.finds(kv, key).await?),
    }
    Ok(())
}

/// Writes each key with a TTL, by each way in turn, and lets it end.
async fn expire_all(
    scene: &Scene<'_>,
    keys: impl IntoIterator<Item = &String>,
) -> Result<(), Violation> {
    let ttl = Duration::from_millis(20);
    for (number, key) in keys.into_iter().enumerate() {
        CREATING[number % CREATING.len()].write(&scene.store, key.as_bytes(), ttl).await?;
    }
    // What goes on in the background has begun by the first half, and is at it after the second.
    scene.elapse(ttl / 2).await;
    scene.elapse(ttl / 2 + scene.slack()).await;
    Ok(())
}

/// Each call that may meet an expired key, beside each write that makes it anew.
async fn write_beside(scene: &Scene<'_>, handles: &[Store]) -> Result<(), Violation> {
    let lookers = READERS.into_iter().chain([Looker::CompareAndSet, Looker::CompareAndDelete]);
    let pairs = lookers.flat_map(|looker| CREATING.map(|writer| (looker, writer)));
    let pairs: Vec<_> = pairs
        .map(|(looker, writer)| (format!("{looker:?} beside {writer:?}/"), looker, writer))
        .collect();
    expire_all(scene, pairs.iter().map(|(key, ..)| key)).await?;
    let mut calls = JoinSet::new();
    for (key, looker, writer) in pairs {
        let (looks, writes, looked) = (handles[0].clone(), handles[1].clone(), key.clone());
        calls.spawn(async move {
            meets(&looks, looker, looked.as_bytes()).await?;
            Ok::<_, Violation>(None)
        });
        calls.spawn(async move {
            let call = writer.call(&writes, key.as_bytes(), (b"0", b"1"), NEW);
            let (wrote, span) = Span::of(call).await;
            ensure!(wrote?, "`{key}`: {writer:?} does not write an expired key");
            Ok(Some((key, span)))
        });
    }
    let mut written = Vec::new();
    while let Some(call) = calls.join_next().await {
        written.extend(call??);
    }
    // Whatever goes on in the background has had its turn by then.
    scene.elapse(Duration::from_millis(20)).await;
    for (key, span) in written {
        let (found, seen) = Span::of(scene.store.get_with_ttl(key.as_bytes())).await;
        let (value, expiry) = found?.unzip();
        let said = |violation: Violation| violation.within(format!("`{key}`: "));
        Fate::of(NEW, span).check(expiry, seen, scene.slack()).map_err(said)?;
        ensure_eq!(value.as_deref(), Some(&b"1"[..]), "the value of `{key}`");
    }
    Ok(())
}

/// Callers of one kind that meet at an expired key: it is absent to all of them together.
async fn meet(scene: &Scene<'_>, handles: &[Store]) -> Result<(), Violation> {
    let rounds = 4;
    let keys: Vec<_> = (0..rounds)
        .flat_map(|round| {
            ["nx", "incr", "delete"].map(|kind| format!("{kind}, all at once {round}/"))
        })
        .collect();
    expire_all(scene, &keys).await?;
    for key in keys {
        let callers = (0..CALLERS).map(|caller| handles[caller % handles.len()].clone());
        let answers = at_once(callers, |_, kv| {
            let key = key.clone().into_bytes();
            async move {
                Ok(match key[0] {
                    b'n' => i64::from(kv.set_nx(&key, b"1", NEW).await?),
                    b'i' => kv.incr(&key, 1, NEW).await?.value,
                    _ => i64::from(kv.delete(&key).await?),
                })
            }
        })
        .await?;
        let sum: i64 = answers.iter().sum();
        match key.as_bytes()[0] {
            b'n' => ensure_eq!(sum, 1, "the number of `set_nx` that write an expired key"),
            b'i' => {
                let counts: BTreeSet<_> = answers.into_iter().collect();
                ensure_eq!(counts, (1..=6).collect(), "the counts from an expired counter on");
                let value = scene.store.get(key.as_bytes()).await?.unwrap_or_default();
                ensure_eq!(Counter::parse(&value)?, 6, "the counter at last");
            }
            _ => ensure_eq!(sum, 0, "the number of deletions that find an expired key"),
        }
    }
    Ok(())
}

/// After how many seconds something in the background may begin, each time anew.
const PERIODS: [u64; 7] = [1, 5, 10, 30, 60, 300, 3_600];

/// How long before and after that keys are written anew, one at each step.
const AROUND: Duration = Duration::from_millis(600);
const STEP: Duration = Duration::from_millis(10);

/// Keys that have long expired are written anew, one after the other, while whatever sweeps them is
/// at it: it may take its time from finding what has expired to removing it.
async fn outlast_sweeps(scene: &Scene<'_>) -> Result<(), Violation> {
    let (kv, began) = (&scene.store, Instant::now());
    let mut written = Vec::new();
    for period in PERIODS {
        let opens = began + Duration::from_secs(period) - AROUND;
        scene.elapse(opens.saturating_duration_since(Instant::now())).await;
        let count = (AROUND * 2).as_millis() / STEP.as_millis();
        let keys: Vec<_> = (0..count)
            .map(|number| format!("{number}, written about {period} s after the first/"))
            .collect();
        let items: Vec<_> = keys.iter().map(|key| (key.as_bytes(), &b"1"[..])).collect();
        kv.mset(&items, Some(Duration::from_millis(1))).await?;
        scene.elapse(STEP.max(resolution::promised()) + scene.slack()).await;
        for (number, key) in keys.into_iter().enumerate() {
            CREATING[number % CREATING.len()].write(kv, key.as_bytes(), None).await?;
            written.push(key);
            scene.elapse(STEP).await;
        }
    }
    scene.elapse(Duration::from_secs(120)).await;
    for key in written {
        let found = kv.get_with_ttl(key.as_bytes()).await?;
        let there = found.is_some_and(|found| found == (b"1"[..].into(), Expiry::Never));
        ensure!(there, "`{key}` was written anew without a TTL, and is gone");
    }
    Ok(())
}

pub(crate) fn expired_gives_way(bench: &Bench<'_>) -> LawResult {
    bench.scenario(async |scene| {
        let handles = scene.handles(2).await?;
        write_beside(scene, &handles).await?;
        meet(scene, &handles).await
    })?;
    // Where time is real, nobody waits for that long.
    if !bench.is_virtual() {
        return Ok(());
    }
    bench.single_thread(async |scene| outlast_sweeps(scene).await)
}
