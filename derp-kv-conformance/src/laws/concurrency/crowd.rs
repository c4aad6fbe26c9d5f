//! Several callers over hundreds of keys, of whom each makes one call on each key.

use std::sync::Arc;
use std::time::Duration;

use derp_kv_core::{Expiry, KvStore};
use futures_util::future::try_join_all;
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::erased::Store;
use crate::input::Blob;
use crate::laws::concurrency::SHORT;
use crate::laws::fits;
use crate::nested::{Call, nested};
use crate::scene::Scene;
use crate::side_by_side::side_by_side;
use crate::violation::{Violation, ensure, ensure_eq};

/// The callers of a key: more than there may be cores, so that one comes when others are gone.
pub(super) const CALLERS: usize = 4;

const KEYS: usize = 400;

/// How many calls of one caller are under way together.
const GROUP: usize = 8;

/// On how many keys the callers that are stopped in their middle have the store to themselves.
const ALONE: usize = 48;

/// What is read at once.
const READS: usize = 32;

/// How many keys a preparing batch has at most.
const BATCH: usize = 500;

pub(super) type Keys = Arc<[Blob]>;

pub(super) fn keys(round: u32, what: &str) -> Keys {
    (0..KEYS).map(|key| Blob(format!("{round}/{what}/{key}").into_bytes())).collect()
}

/// Writes all keys, with one TTL.
pub(super) async fn fill(
    kv: &impl KvStore,
    keys: &[Blob],
    value: &[u8],
    ttl: Option<Duration>,
) -> Result<(), Violation> {
    let items: Vec<(&[u8], &[u8])> = keys.iter().map(|key| (&**key, value)).collect();
    for items in items.chunks(BATCH) {
        kv.mset(items, ttl).await?;
    }
    Ok(())
}

/// Leaves keys that have expired, and whose records may still be there.
pub(super) async fn expire(
    scene: &Scene<'_>,
    keys: &[Blob],
    value: &[u8],
) -> Result<(), Violation> {
    fill(&scene.store, keys, value, Some(SHORT)).await?;
    scene.outlast(SHORT).await;
    Ok(())
}

/// What all keys hold when nobody writes, which two ways to read must agree on.
pub(super) async fn read(
    kv: &impl KvStore,
    keys: &[Blob],
) -> Result<Vec<Option<(Blob, Expiry)>>, Violation> {
    let held = stream::iter(keys.iter().enumerate()).map(async |(number, key)| {
        let dated = kv.get_with_ttl(key).await?;
        // What a cache has kept from the race is found by the call that fills it.
        if number % 2 == 0 {
            let plain = kv.get(key).await?;
            let value = dated.as_ref().map(|(value, _)| value);
            ensure!(
                plain.as_ref() == value,
                "get finds {plain:?} under {key:?} after the race, and get_with_ttl {value:?}"
            );
        }
        Ok::<_, Violation>(dated.map(|(value, expiry)| (Blob(value.into()), expiry)))
    });
    held.buffered(READS).try_collect().await
}

/// Each caller's call on each key: what `call` answers the callers, key by key. On the first half
/// of the keys the callers run on threads; on the others, each but one is stopped in its middle.
pub(super) async fn crowd<T, F>(
    scene: &mut Scene<'_>,
    keys: &Keys,
    call: impl Fn(usize, Store, Blob) -> F + Send + Sync + 'static,
) -> Result<Vec<Vec<T>>, Violation>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Violation>> + Send + 'static,
{
    let handles = scene.handles(2).await?;
    let stores: Vec<_> = (0..CALLERS).map(|caller| handles[caller % 2].clone()).collect();
    let (shared, call) = (keys.clone(), Arc::new(call));
    let its = call.clone();
    let half = keys.len() / 2;
    let answers = side_by_side(stores.clone(), half, GROUP, move |caller, places| {
        let (keys, call) = (shared.clone(), its.clone());
        async move {
            let one = |key: usize| call(caller.number, caller.kv.clone(), keys[key].clone());
            caller.each(places, one).await
        }
    })
    .await?;
    let mut answers: Vec<_> =
        answers.into_iter().map(|groups| groups.into_iter().flatten()).collect();
    let by_key = (0..half).map(|_| answers.iter_mut().filter_map(Iterator::next).collect());
    let mut by_key: Vec<_> = by_key.collect();
    // One key at a time first: a store may have one lock for all keys, which others would hold.
    let (alone, together) = keys[half..].split_at(ALONE.min(half));
    let mut turns = 0..;
    for keys in alone.chunks(1).chain(together.chunks(GROUP)) {
        let plays = keys.iter().zip(turns.by_ref()).map(async |(key, turn)| {
            let order: Vec<_> = (0..CALLERS).map(|caller| (caller + turn) % CALLERS).collect();
            let calls = order.iter().map(|caller| {
                Box::pin(call(*caller, stores[*caller].clone(), key.clone())) as Call<T>
            });
            let units = u32::try_from(turn / CALLERS % 4).unwrap_or(1);
            let answers = nested(calls.collect(), units).await?;
            let mut answers: Vec<_> = order.into_iter().zip(answers).collect();
            answers.sort_by_key(|(caller, _)| *caller);
            Ok::<_, Violation>(answers.into_iter().map(|(_, answer)| answer).collect())
        });
        by_key.extend(try_join_all(plays).await?);
    }
    Ok(by_key)
}

/// Races of one answer: `call` must be true for exactly one caller of each key. Returns who won.
pub(super) async fn one_wins_each<F>(
    scene: &mut Scene<'_>,
    what: &str,
    keys: &Keys,
    call: impl Fn(usize, Store, Blob) -> F + Send + Sync + 'static,
) -> Result<Vec<usize>, Violation>
where
    F: Future<Output = Result<bool, Violation>> + Send + 'static,
{
    let mut winners = Vec::new();
    for (key, answers) in keys.iter().zip(crowd(scene, keys, call).await?) {
        let won: Vec<_> = (0..CALLERS).filter(|caller| answers[*caller]).collect();
        ensure_eq!(
            won.len(),
            1,
            "of {CALLERS} callers of {key:?}, the number for whom {what} is true"
        );
        winners.extend(won);
    }
    Ok(winners)
}

/// Checks that each key holds the number of its caller, with that caller's TTL.
pub(super) async fn hold_numbers(
    kv: &impl KvStore,
    keys: &[Blob],
    callers: &[usize],
    ttl: impl Fn(usize) -> Option<Duration>,
) -> Result<(), Violation> {
    for ((key, caller), held) in keys.iter().zip(callers).zip(read(kv, keys).await?) {
        let Some((value, expiry)) = held else {
            return Err(Violation::new(format!("{key:?}, which caller {caller} wrote, is absent")));
        };
        ensure_eq!(value, Blob(caller.to_string().into_bytes()), "the value of {key:?}");
        let ttl = ttl(*caller);
        ensure!(fits(expiry, ttl), "{key:?} expires in {expiry:?}, of a TTL of {ttl:?}");
    }
    Ok(())
}

/// Checks that no key is there.
pub(super) async fn are_absent(kv: &impl KvStore, keys: &[Blob]) -> Result<(), Violation> {
    for (key, held) in keys.iter().zip(read(kv, keys).await?) {
        ensure!(held.is_none(), "{key:?} is there at last, with {held:?}");
    }
    Ok(())
}
