mod calls;
mod cancel;
mod crowd;
mod expired;
mod linearizable;
mod others;
mod pairs;
mod torn;

use std::collections::BTreeSet;
use std::time::Duration;

use derp_kv_core::{Counter, KvStore};

use crate::bench::{Bench, LawResult, at_once};
use crate::erased::Store;
use crate::input::Blob;
use crate::laws::fits;
use crate::scene::Scene;
use crate::violation::{Violation, ensure, ensure_eq};

pub(crate) use cancel::{cancel_is_all_or_nothing, dropped_calls_hold_nothing};
pub(crate) use expired::expired_keys_race_as_absent;
pub(crate) use linearizable::linearizable;
pub(crate) use others::lets_others_run;
pub(crate) use pairs::any_two_calls_have_an_order;
pub(crate) use torn::values_are_never_torn;

/// Callers of one round, over as many handles.
const CALLERS: usize = 8;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A TTL that is waited out before a race begins.
const SHORT: Duration = Duration::from_millis(4);

/// Races of one answer: `call` must be true for exactly one of the callers, who is returned.
async fn one_wins<F>(
    scene: &mut Scene<'_>,
    what: &str,
    call: impl Fn(usize, Store) -> F,
) -> Result<usize, Violation>
where
    F: Future<Output = Result<bool, Violation>> + Send + 'static,
{
    let handles = scene.handles(2).await?;
    let callers = (0..CALLERS).map(|caller| handles[caller % 2].clone());
    let calls = |number, kv| {
        let call = call(number, kv);
        async move { Ok((number, call.await?)) }
    };
    let answers = at_once(callers, calls).await?;
    let winners: Vec<_> =
        answers.iter().filter(|(_, won)| *won).map(|(number, _)| *number).collect();
    let [winner] = winners[..] else {
        let winners = winners.len();
        return Err(Violation::new(format!("{what} is true for {winners} of {CALLERS} callers")));
    };
    Ok(winner)
}

pub(crate) fn one_set_nx_wins(bench: &Bench<'_>) -> LawResult {
    bench.race(async |scene, round| {
        let key = format!("{round}/nx").into_bytes();
        let ttl = (round % 2 == 0).then_some(DAY);
        let winner = one_wins(scene, "set_nx", |number, kv| {
            let key = key.clone();
            async move { Ok(kv.set_nx(&key, number.to_string().as_bytes(), ttl).await?) }
        })
        .await?;
        let found = scene.store.get_with_ttl(&key).await?;
        let (value, expiry) = found.ok_or_else(|| Violation::new("the key is absent"))?;
        ensure_eq!(Blob(value.into()), Blob(winner.to_string().into_bytes()), "the value");
        ensure!(fits(expiry, ttl), "the expiry is {expiry:?}, of a TTL of {ttl:?}");
        // Before or after a plain write, `set_nx` never takes its place.
        let key = format!("{round}/set").into_bytes();
        at_once(scene.handles(2).await?, |number, kv| {
            let key = key.clone();
            async move {
                match number {
                    0 => kv.set(&key, b"set", None).await?,
                    _ => drop(kv.set_nx(&key, b"set_nx", None).await?),
                }
                Ok(())
            }
        })
        .await?;
        let value = scene.store.get(&key).await?;
        ensure_eq!(value.as_deref(), Some(&b"set"[..]), "the value after set and set_nx");
        Ok(())
    })?;
    bench.sweep(async |scene, round| {
        let ttl = |caller: usize| (!caller.is_multiple_of(2)).then_some(DAY);
        let keys = crowd::keys(round, "nx");
        // An expired record is no key that is there.
        let every_second: Vec<_> = keys.iter().step_by(2).cloned().collect();
        crowd::expire(scene, &every_second, b"expired").await?;
        let winners =
            crowd::one_wins_each(scene, "set_nx", &keys, move |caller, kv, key| async move {
                Ok(kv.set_nx(&key, caller.to_string().as_bytes(), ttl(caller)).await?)
            });
        let winners = winners.await?;
        crowd::hold_numbers(&scene.store, &keys, &winners, ttl).await
    })
}

pub(crate) fn one_compare_and_delete_wins(bench: &Bench<'_>) -> LawResult {
    bench.race(async |scene, round| {
        let key = format!("{round}").into_bytes();
        scene.store.set(&key, b"v", None).await?;
        one_wins(scene, "compare_and_delete", |_, kv| {
            let key = key.clone();
            async move { Ok(kv.compare_and_delete(&key, b"v").await?) }
        })
        .await?;
        ensure!(!scene.store.exists(&key).await?, "the deleted key is there");
        Ok(())
    })?;
    bench.sweep(async |scene, round| {
        let keys = crowd::keys(round, "v");
        crowd::fill(&scene.store, &keys, b"v", (round % 2 == 0).then_some(DAY)).await?;
        let winners =
            crowd::one_wins_each(scene, "compare_and_delete", &keys, |_, kv, key| async move {
                Ok(kv.compare_and_delete(&key, b"v").await?)
            });
        winners.await?;
        crowd::are_absent(&scene.store, &keys).await
    })
}

pub(crate) fn one_delete_wins(bench: &Bench<'_>) -> LawResult {
    bench.race(async |scene, round| {
        let key = format!("{round}").into_bytes();
        scene.store.set(&key, b"v", None).await?;
        one_wins(scene, "delete", |number, kv| {
            let key = key.clone();
            async move {
                match number % 2 {
                    0 => Ok(kv.delete(&key).await?),
                    _ => Ok(kv.delete_many(&[&key]).await? == 1),
                }
            }
        })
        .await?;
        ensure!(!scene.store.exists(&key).await?, "the deleted key is there");
        Ok(())
    })?;
    bench.sweep(async |scene, round| {
        let keys = crowd::keys(round, "v");
        crowd::fill(&scene.store, &keys, b"v", (round % 2 == 0).then_some(DAY)).await?;
        let winners =
            crowd::one_wins_each(scene, "a deletion", &keys, |caller, kv, key| async move {
                match caller {
                    0 => Ok(kv.compare_and_delete(&key, b"v").await?),
                    1 => Ok(kv.delete_many(&[&key, b"nobody"]).await? == 1),
                    _ => Ok(kv.delete(&key).await?),
                }
            });
        winners.await?;
        crowd::are_absent(&scene.store, &keys).await
    })
}

pub(crate) fn increments_all_count(bench: &Bench<'_>) -> LawResult {
    const EACH: i64 = 12;
    bench.race(async |scene, round| {
        let key = format!("{round}").into_bytes();
        let ttl = (round % 2 == 0).then_some(DAY);
        let handles = scene.handles(2).await?;
        let callers = (0..CALLERS).map(|caller| handles[caller % 2].clone());
        let counted = at_once(callers, |_, kv| {
            let key = key.clone();
            async move {
                let mut counted = Vec::new();
                for _ in 0..EACH {
                    let Counter { value, expiry } = kv.incr(&key, 1, ttl).await?;
                    ensure!(fits(expiry, ttl), "incr reports {expiry:?}, of a TTL of {ttl:?}");
                    counted.push(value);
                }
                Ok(counted)
            }
        })
        .await?;
        let total = EACH * CALLERS as i64;
        let seen: BTreeSet<_> = counted.into_iter().flatten().collect();
        ensure_eq!(seen, (1..=total).collect(), "the counts, of {CALLERS} callers,");
        let value = scene.store.get(&key).await?.map(|value| Blob(value.into()));
        ensure_eq!(value, Some(Blob(total.to_string().into_bytes())), "the value at last");
        let expiry = scene.store.ttl(&key).await?;
        let kept = expiry.is_some_and(|expiry| fits(expiry, ttl));
        ensure!(kept, "the expiry is {expiry:?}, of a TTL of {ttl:?}");
        Ok(())
    })?;
    bench.sweep(async |scene, round| {
        let keys = crowd::keys(round, "n");
        let counts = crowd::crowd(scene, &keys, |_, kv, key| async move {
            Ok(kv.incr(&key, 1, Some(DAY)).await?.value)
        });
        for (key, mut counts) in keys.iter().zip(counts.await?) {
            counts.sort_unstable();
            ensure_eq!(counts, vec![1, 2, 3, 4], "what the callers count of {key:?}");
        }
        crowd::hold_numbers(&scene.store, &keys, &vec![crowd::CALLERS; keys.len()], |_| Some(DAY))
            .await
    })
}

pub(crate) fn compare_and_set_loses_no_update(bench: &Bench<'_>) -> LawResult {
    const EACH: u64 = 4;
    bench.race(async |scene, round| {
        let key = format!("{round}/one").into_bytes();
        scene.store.set(&key, b"old", None).await?;
        let winner = one_wins(scene, "compare_and_set", |number, kv| {
            let key = key.clone();
            async move {
                Ok(kv.compare_and_set(&key, b"old", number.to_string().as_bytes(), None).await?)
            }
        })
        .await?;
        let value = scene.store.get(&key).await?.map(|value| Blob(value.into()));
        ensure_eq!(value, Some(Blob(winner.to_string().into_bytes())), "the winner's value");
        // A counter made of compare_and_set alone.
        let key = format!("{round}/sum").into_bytes();
        scene.store.set(&key, b"0", None).await?;
        at_once(scene.handles(4).await?, |_, kv| {
            let key = key.clone();
            async move {
                let mut left = EACH;
                while left > 0 {
                    let seen = kv.get(&key).await?;
                    let seen = seen.ok_or_else(|| Violation::new("the key is absent"))?;
                    let next = (Counter::parse(&seen)? + 1).to_string();
                    if kv.compare_and_set(&key, &seen, next.as_bytes(), None).await? {
                        left -= 1;
                    }
                }
                Ok(())
            }
        })
        .await?;
        let value = scene.store.get(&key).await?.map(|value| Blob(value.into()));
        ensure_eq!(value, Some(Blob((4 * EACH).to_string().into_bytes())), "the sum");
        Ok(())
    })?;
    bench.sweep(async |scene, round| {
        let ttl = |caller: usize| (!caller.is_multiple_of(2)).then_some(DAY);
        let keys = crowd::keys(round, "old");
        crowd::fill(&scene.store, &keys, b"old", None).await?;
        let winners = crowd::one_wins_each(
            scene,
            "compare_and_set",
            &keys,
            move |caller, kv, key| async move {
                let new = caller.to_string();
                Ok(kv.compare_and_set(&key, b"old", new.as_bytes(), ttl(caller)).await?)
            },
        );
        let winners = winners.await?;
        crowd::hold_numbers(&scene.store, &keys, &winners, ttl).await
    })
}

pub(crate) fn value_and_expiry_stay_together(bench: &Bench<'_>) -> LawResult {
    /// A TTL that tells whose it is, or none.
    fn ttl_of(caller: u64) -> Option<Duration> {
        (!caller.is_multiple_of(3)).then(|| DAY * u32::try_from(caller).unwrap_or(1))
    }
    bench.race(async |scene, round| {
        let key = format!("{round}").into_bytes();
        if round % 2 == 0 {
            scene.store.set(&key, b"0", None).await?;
        }
        let handles = scene.handles(2).await?;
        let callers = (0..6).map(|caller| handles[caller % 2].clone());
        at_once(callers, |number, kv| {
            let (key, caller) = (key.clone(), number as u64);
            async move {
                let (value, ttl) = (caller.to_string(), ttl_of(caller));
                for _ in 0..3 {
                    match caller {
                        4 => drop(kv.set_nx(&key, value.as_bytes(), ttl).await?),
                        5 => drop(kv.compare_and_set(&key, b"2", value.as_bytes(), ttl).await?),
                        1 => kv.mset(&[(&key, value.as_bytes())], ttl).await?,
                        _ => kv.set(&key, value.as_bytes(), ttl).await?,
                    }
                }
                Ok(())
            }
        })
        .await?;
        let found = scene.store.get_with_ttl(&key).await?;
        let (value, expiry) = found.ok_or_else(|| Violation::new("the key is absent"))?;
        let caller = u64::try_from(Counter::parse(&value)?).unwrap_or(0);
        let ttl = ttl_of(caller);
        ensure!(fits(expiry, ttl), "{value:?} was set with {ttl:?} and expires in {expiry:?}");
        Ok(())
    })
}
