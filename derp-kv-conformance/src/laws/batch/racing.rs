use std::ops::Range;
use std::time::Duration;

use derp_kv_core::{Counter, KvStore};

use crate::bench::{Bench, LawResult};
use crate::input::Blob;
use crate::laws::fits;
use crate::nested::{Call, nested};
use crate::scene::Scene;
use crate::side_by_side::{Caller, side_by_side};
use crate::violation::{Violation, ensure, ensure_eq};

const KEYS: usize = 48;

/// Callers beside each other; each writes batches of the same keys.
const CALLERS: usize = 4;

/// How many batches each caller makes in a round.
const BATCHES: usize = 16;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// What a caller writes is its number times this, and more where it is counted up.
const EACH: i64 = 1_000_000;

fn ttl(caller: i64) -> Option<Duration> {
    match caller {
        0 => None,
        caller => Some(DAY * u32::try_from(caller).unwrap_or(1)),
    }
}

/// The keys in an order of the caller's own: forwards, backwards, or by strides from somewhere.
fn ordered(keys: &[Blob], caller: usize, turn: usize) -> Vec<&[u8]> {
    let stride = [1, 5, 7, 11][(turn / 2) % 4];
    let from = (turn / 2) * 13;
    let mut order: Vec<&[u8]> =
        (0..keys.len()).map(|place| &*keys[(from + place * stride) % keys.len()]).collect();
    if (caller + turn).is_multiple_of(2) {
        order.reverse();
    }
    order
}

/// A call of a kind: an `mset`, a `delete_many`, increments of some of the keys, or an `mget`.
async fn one(
    kv: &impl KvStore,
    kind: usize,
    caller: usize,
    keys: &[&[u8]],
) -> Result<(), Violation> {
    match kind {
        1 => {
            let (deleted, most) = (kv.delete_many(keys).await?, keys.len());
            ensure!(deleted <= most as u64, "delete_many of {most} keys counts {deleted}");
        }
        2 => {
            for key in &keys[..8] {
                kv.incr(key, 1, None).await?;
            }
        }
        3 => {
            let values = kv.mget(keys).await?;
            ensure_eq!(values.len(), keys.len(), "the number of answers");
        }
        _ => {
            let number = i64::try_from(caller).unwrap_or(0);
            let value = (number * EACH).to_string().into_bytes();
            let items: Vec<_> = keys.iter().map(|key| (*key, &*value)).collect();
            kv.mset(&items, ttl(number)).await?;
        }
    }
    Ok(())
}

/// The batch of a caller's turn.
async fn batch(
    kv: &impl KvStore,
    caller: usize,
    turn: usize,
    keys: &[Blob],
    only_msets: bool,
) -> Result<(), Violation> {
    let kind = match (turn + caller) % 4 {
        _ if only_msets => 0,
        3 if turn % 8 != 3 => 0,
        kind => kind,
    };
    one(kv, kind, caller, &ordered(keys, caller, turn)).await
}

/// Checks that each key holds what one of the callers wrote, with that caller's TTL.
async fn check(kv: &impl KvStore, keys: &[Blob], only_msets: bool) -> Result<(), Violation> {
    for key in keys {
        let Some((value, expiry)) = kv.get_with_ttl(key).await? else {
            ensure!(!only_msets, "{key:?} is absent after nothing but writes");
            continue;
        };
        let number = Counter::parse(&value)?;
        let writer = number / EACH;
        let known = (0..CALLERS as i64).contains(&writer);
        ensure!(known && (number % EACH == 0 || !only_msets), "{key:?} holds {number}, of nobody");
        let ttl = ttl(writer);
        ensure!(fits(expiry, ttl), "{key:?} holds {number} of a TTL of {ttl:?}, with {expiry:?}");
    }
    Ok(())
}

/// All callers on threads, each with batch after batch.
async fn on_threads(
    scene: &mut Scene<'_>,
    keys: &[Blob],
    only_msets: bool,
) -> Result<(), Violation> {
    let shared = keys.to_vec();
    let stores = scene.handles(CALLERS).await?;
    side_by_side(stores, BATCHES, 1, move |caller: Caller, turn: Range<usize>| {
        let keys = shared.clone();
        async move { batch(&caller.kv, caller.number, turn.start, &keys, only_msets).await }
    })
    .await?;
    check(&scene.store, keys, only_msets).await
}

/// More keys than a backend sends at once: one that goes over them chunk by chunk locks in an order of
/// its own, whatever the order within a chunk.
const LARGE: usize = 2_100;

/// How many batches of them each caller makes.
const LARGE_BATCHES: usize = 2;

/// Large batches, whose callers each have the keys in another order.
async fn large_on_threads(scene: &mut Scene<'_>) -> Result<(), Violation> {
    let keys: Vec<_> = (0..LARGE).map(|key| Blob(format!("large/{key}").into_bytes())).collect();
    let (shared, stores) = (keys.clone(), scene.handles(CALLERS).await?);
    side_by_side(stores, LARGE_BATCHES, 1, move |caller: Caller, turn: Range<usize>| {
        let keys = shared.clone();
        async move {
            let kind = usize::from((caller.number + turn.start) % 4 == 3);
            let ordered = ordered(&keys, caller.number, turn.start);
            one(&caller.kv, kind, caller.number, &ordered).await
        }
    })
    .await?;
    let some: Vec<_> = keys.iter().step_by(19).cloned().collect();
    check(&scene.store, &some, false).await?;
    let keys: Vec<&[u8]> = keys.iter().map(|key| &**key).collect();
    scene.store.delete_many(&keys).await?;
    Ok(())
}

/// A batch that is stopped in its middle, and another over the same keys from their other end.
async fn one_inside_the_other(scene: &mut Scene<'_>, round: u32) -> Result<(), Violation> {
    let stores = scene.handles(2).await?;
    for (number, units) in [0, 1, 2, 3, 5, 8, 11].into_iter().enumerate() {
        // By kinds: those of `batch`.
        for kinds in [[0, 0], [0, 1], [1, 0], [1, 1], [0, 2], [2, 0], [2, 1]] {
            let name = |key: usize| Blob(format!("{round}/{units}/{kinds:?}/{key}").into_bytes());
            let keys: Vec<_> = (0..12).map(name).collect();
            let calls = [0, 1].map(|caller| {
                let (kv, mut keys) = (stores[caller].clone(), keys.clone());
                if caller == number % 2 {
                    keys.reverse();
                }
                let call = async move {
                    let keys: Vec<&[u8]> = keys.iter().map(|key| &**key).collect();
                    one(&kv, kinds[caller], caller + 1, &keys).await
                };
                Box::pin(call) as Call<()>
            });
            nested(calls.into(), units).await?;
            check(&scene.store, &keys, kinds == [0, 0]).await?;
        }
    }
    Ok(())
}

pub(crate) fn racing_batches_all_succeed(bench: &Bench<'_>) -> LawResult {
    bench.sweep(async |scene, round| {
        if round == 0 {
            large_on_threads(scene).await?;
        }
        one_inside_the_other(scene, round).await?;
        for only_msets in [true, false] {
            let name = |key: usize| Blob(format!("{round}/{only_msets}/{key}").into_bytes());
            let keys: Vec<_> = (0..KEYS).map(name).collect();
            on_threads(scene, &keys, only_msets).await?;
        }
        Ok(())
    })
}
