use std::time::{Duration, Instant};

use derp_kv_core::{Expiry, KvStore};
use futures_util::TryStreamExt;
use futures_util::future::try_join_all;

use crate::bench::{Bench, LawResult, at_once};
use crate::erased::Store;
use crate::input::Blob;
use crate::laws::concurrency::crowd::{CALLERS, are_absent, crowd, expire, fill, keys, read};
use crate::laws::concurrency::{DAY, SHORT};
use crate::laws::fits;
use crate::resolution;
use crate::scene::Scene;
use crate::violation::{Violation, ensure, ensure_eq};

/// What the expired keys held: a counter, so that a lost expiry shows in sums as well.
const STALE: &[u8] = b"7";

/// For how long something in the background may still take away what it must not.
const AFTERWARDS: Duration = Duration::from_millis(60);

/// How many generations of keys expire to be written again, at most, and for how long.
const GENERATIONS: u32 = 14;
const GENERATING: Duration = Duration::from_millis(250);

/// The number at the end of a key.
fn number(key: &[u8]) -> usize {
    let digits = key.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    digits.iter().fold(0, |number, digit| number * 10 + usize::from(digit.wrapping_sub(b'0')))
}

/// Ways to meet an expired key without writing to it.
const LOOKS: usize = 13;

/// Whether one of the calls that find nothing on an expired key beside a write of `fresh` finds
/// nothing, or the fresh value.
async fn look(kv: &Store, way: usize, key: &[u8], fresh: &[u8]) -> Result<bool, Violation> {
    let is_fresh = |value: Option<&[u8]>| value.is_none_or(|value| value == fresh);
    let dated = |expiry: Option<Expiry>| expiry.is_none_or(|expiry| fits(expiry, Some(DAY)));
    Ok(match way % LOOKS {
        0 => is_fresh(kv.get(key).await?.as_deref()),
        1 => match kv.get_with_ttl(key).await? {
            Some((value, expiry)) => is_fresh(Some(&*value)) && dated(Some(expiry)),
            None => true,
        },
        2 => kv.exists(key).await.map(|_| true)?,
        3 => dated(kv.ttl(key).await?),
        4 => is_fresh(kv.mget(&[key]).await?.first().and_then(Option::as_deref)),
        5 => !kv.compare_and_set(key, STALE, b"back", None).await?,
        6 => !kv.compare_and_delete(key, STALE).await?,
        7 => {
            let _: Vec<_> = kv.scan(key).try_collect().await?;
            true
        }
        8 => is_fresh(kv.get(key).await?.as_deref()) && dated(kv.ttl(key).await?),
        9 => !kv.compare_and_set(key, b"", b"empty", None).await?,
        10 => !kv.compare_and_delete(key, b"").await?,
        // A batch meets a second expired key on its way.
        11 => is_fresh(kv.mget(&[key, b"nobody", key]).await?.last().and_then(Option::as_deref)),
        _ => kv.expire(key, DAY).await.map(|_| true)?,
    })
}

/// One writer of each key beside three who only look.
async fn writes_stay(scene: &mut Scene<'_>, round: u32) -> Result<(), Violation> {
    let keys = keys(round, "fresh");
    expire(scene, &keys, STALE).await?;
    let answers = crowd(scene, &keys, move |caller, kv, key| async move {
        let number = number(&key) + round as usize;
        // Anyone of the callers may write, and each turn has other ways to look.
        if caller != number / 5 % CALLERS {
            return look(&kv, number * 7 + caller * 5, &key, b"9").await;
        }
        match number / 20 % 5 {
            0 => kv.mset(&[(&key, b"9")], Some(DAY)).await?,
            1 => return Ok(kv.set_nx(&key, b"9", Some(DAY)).await?),
            2 => return Ok(kv.incr(&key, 9, Some(DAY)).await?.value == 9),
            _ => kv.set(&key, b"9", Some(DAY)).await?,
        }
        Ok(true)
    })
    .await?;
    for (key, answers) in keys.iter().zip(answers) {
        for (caller, right) in answers.into_iter().enumerate() {
            ensure!(right, "caller {caller} of the expired {key:?} is answered by what is gone");
        }
    }
    still_fresh(&scene.store, &keys, "at once").await?;
    tokio::time::sleep(AFTERWARDS).await;
    still_fresh(&scene.store, &keys, "a while later").await
}

async fn still_fresh(kv: &impl KvStore, keys: &[Blob], when: &str) -> Result<(), Violation> {
    for (key, held) in keys.iter().zip(read(kv, keys).await?) {
        let Some((value, expiry)) = held else {
            let lost = "was written after it had expired, and is absent";
            return Err(Violation::new(format!("{key:?} {lost} {when}")));
        };
        ensure_eq!(value, Blob(b"9".to_vec()), "the value of {key:?}, {when}");
        ensure!(fits(expiry, Some(DAY)), "{key:?} expires in {expiry:?} {when}, of a day");
    }
    Ok(())
}

/// What nobody may win, and what counts from nothing.
async fn absent_to_all(scene: &mut Scene<'_>, round: u32) -> Result<(), Violation> {
    let (nobody, counted) = (keys(round, "nobody"), keys(round, "counted"));
    fill(&scene.store, &nobody, STALE, Some(SHORT)).await?;
    expire(scene, &counted, STALE).await?;
    let won = crowd(scene, &nobody, move |caller, kv, key| async move {
        Ok(match (caller + number(&key) / 4 + round as usize) % 5 {
            0 => kv.delete(&key).await?,
            1 => kv.delete_many(&[&key]).await? > 0,
            2 => kv.compare_and_delete(&key, STALE).await?,
            3 => kv.compare_and_set(&key, STALE, b"back", None).await?,
            _ => kv.expire(&key, DAY).await?,
        })
    })
    .await?;
    for (key, won) in nobody.iter().zip(won) {
        ensure!(!won.contains(&true), "a caller of the expired {key:?} is told that it was there");
    }
    are_absent(&scene.store, &nobody).await?;
    let counts =
        crowd(scene, &counted, |_, kv, key| async move { Ok(kv.incr(&key, 1, Some(DAY)).await?) });
    for (key, counts) in counted.iter().zip(counts.await?) {
        let mut values: Vec<_> = counts.iter().map(|counter| counter.value).collect();
        values.sort_unstable();
        ensure_eq!(values, vec![1, 2, 3, 4], "what racing increments make of the expired {key:?}");
        let dated = counts.iter().all(|counter| fits(counter.expiry, Some(DAY)));
        ensure!(dated, "{key:?} is counted with the expiries of {counts:?}, of a TTL of a day");
    }
    Ok(())
}

/// Keys that are written again as soon as each of them is seen to be gone: what collects expired
/// keys and removes them then must not take what was written between.
async fn sweepers_take_nothing(scene: &mut Scene<'_>, round: u32) -> Result<(), Violation> {
    let began = Instant::now();
    let handles = scene.handles(2).await?;
    let mut written = Vec::new();
    for generation in 0..GENERATIONS {
        // Not in step with what sweeps at intervals.
        let ttl = SHORT + Duration::from_micros(1_300) * (generation % 4);
        let keys = keys(round, &format!("swept{generation}"));
        fill(&scene.store, &keys, STALE, Some(ttl)).await?;
        let callers = (0..CALLERS).map(|caller| handles[caller % 2].clone());
        at_once(callers, |caller, kv| {
            let keys = keys.clone();
            async move {
                let its = keys.chunks(keys.len() / CALLERS).nth(caller).unwrap_or_default();
                for keys in its.chunks(25) {
                    try_join_all(keys.iter().map(|key| again(&kv, key))).await?;
                }
                Ok(())
            }
        })
        .await?;
        written.push(keys);
        if generation > 0 && began.elapsed() > GENERATING {
            break;
        }
    }
    tokio::time::sleep(AFTERWARDS).await;
    for keys in written {
        still_fresh(&scene.store, &keys, "a while later").await?;
    }
    Ok(())
}

/// Writes the key as soon as it has expired.
async fn again(kv: &impl KvStore, key: &[u8]) -> Result<(), Violation> {
    let (began, bound) = (Instant::now(), Duration::from_secs(15) + resolution::lateness());
    while kv.exists(key).await? {
        ensure!(began.elapsed() < bound, "a key with a TTL does not expire");
        tokio::time::sleep(Duration::from_micros(300)).await;
    }
    Ok(kv.set(key, b"9", Some(DAY)).await?)
}

pub(crate) fn expired_keys_race_as_absent(bench: &Bench<'_>) -> LawResult {
    bench.sweep(async |scene, round| {
        sweepers_take_nothing(scene, round).await?;
        writes_stay(scene, round).await?;
        absent_to_all(scene, round).await
    })
}
