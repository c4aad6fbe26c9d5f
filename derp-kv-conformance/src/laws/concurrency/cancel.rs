//! Calls whose caller goes away.

use std::pin::pin;
use std::time::Duration;

use derp_kv_core::KvStore;
use futures_util::future::{join_all, try_join_all};
use futures_util::{FutureExt, StreamExt};
use proptest::prelude::*;
use proptest::sample::select;
use tokio::time::timeout;

use super::DAY;
use super::calls::{Call, READS, State, checked, is};
use crate::bench::{Bench, LawResult};
use crate::history::{Op, call};
use crate::input::{Blob, lasting};
use crate::laws::drop_after;
use crate::scene::Scene;
use crate::violation::{Violation, ensure};

/// How a call is dropped.
#[derive(Clone, Copy, Debug)]
enum How {
    /// After so many polls: over a network the first of them sends the request.
    Polls(u32),
    /// After so many milliseconds, being polled when it is woken.
    Millis(u64),
}

impl How {
    async fn of(self, call: impl Future) {
        match self {
            Self::Polls(polls) => {
                drop_after(polls, call).await;
            }
            Self::Millis(millis) => {
                let _ = timeout(Duration::from_millis(millis), call).await;
            }
        }
    }
}

/// What comes right behind the dropped call.
#[derive(Clone, Copy, Debug)]
enum Next {
    /// Nothing but looks at the key.
    Look,
    /// A write of the same key.
    Overtake(Call),
    /// The same call of another key, which has to be answered otherwise.
    Another,
}

/// One dropped call on a key of its own.
#[derive(Clone, Debug)]
struct Dropped {
    before: State,
    call: Call,
    how: How,
    next: Next,
}

fn dropped() -> impl Strategy<Value = Dropped> {
    let value = select(vec![&b"1"[..], b"1", b"x"]);
    let present = (value, lasting()).prop_map(|(value, ttl)| Some((Blob::from(value), ttl)));
    let before = prop_oneof![1 => Just(None), 2 => present];
    let call = (lasting(), 0_usize..15).prop_map(|(ttl, number)| Call::all(ttl)[number]);
    // The first polls are the ones in which a write is half done.
    let how = prop_oneof![
        4 => (0_u32..4).prop_map(How::Polls),
        1 => (4_u32..12).prop_map(How::Polls),
        1 => (12_u32..80).prop_map(How::Polls),
        1 => (0_u64..6).prop_map(How::Millis),
    ];
    let overtaking = lasting().prop_flat_map(|ttl| {
        select(vec![
            // What a late write compares with may be there again.
            Call::Set(b"1", ttl),
            Call::Set(b"1", ttl),
            Call::Set(b"later", ttl),
            Call::Set(b"40", ttl),
            Call::Mset(b"1", ttl),
            Call::Delete,
            Call::Delete,
            Call::DeleteMany,
            Call::SetNx(b"1", ttl),
            Call::Incr(10, ttl),
            Call::CompareAndSet(b"1", b"1", ttl),
            Call::CompareAndDelete(b"1"),
            Call::Expire(ttl.unwrap_or(DAY)),
        ])
    });
    let next = prop_oneof![
        1 => Just(Next::Look),
        2 => overtaking.prop_map(Next::Overtake),
        1 => Just(Next::Another),
    ];
    (before, call, how, next).prop_map(|(before, call, how, next)| Dropped {
        before,
        call,
        how,
        next,
    })
}

/// How many callers there are, of which each drops its calls one after the other.
fn callers() -> impl Strategy<Value = usize> {
    prop_oneof![Just(1_usize), Just(2), Just(8)]
}

/// Each write, dropped at each of the first polls, on a key that is there and on one that is not, and
/// whatever comes next; and each read. Random drops meet none of these for certain.
fn each() -> Vec<Dropped> {
    let mut all = Vec::new();
    let nexts = [
        Next::Look,
        Next::Another,
        Next::Overtake(Call::Set(b"1", None)),
        Next::Overtake(Call::Delete),
    ];
    for (number, call) in Call::all(Some(DAY)).into_iter().enumerate() {
        let nexts = if number < READS { &nexts[1..2] } else { &nexts[..] };
        for before in [None, Some((Blob::from(&b"1"[..]), None))] {
            for polls in 1..5 {
                let dropped =
                    |&next| Dropped { before: before.clone(), call, how: How::Polls(polls), next };
                all.extend(nexts.iter().map(dropped));
            }
        }
    }
    all
}

pub(crate) fn cancel_is_all_or_nothing(bench: &Bench<'_>) -> LawResult {
    let drops = proptest::collection::vec(dropped(), 12..40);
    // What comes late may come as late as that.
    let pause =
        if bench.is_virtual() { Duration::from_secs(20) } else { Duration::from_millis(80) };
    bench.single_thread(async |scene| case(scene, 4, &each(), pause).await)?;
    bench.pausing_property((callers(), drops), async |scene, (callers, drops)| {
        case(scene, callers, &drops, pause).await
    })
}

/// Lets each of the callers drop its share of the calls, and looks once more at the end.
async fn case(
    scene: &Scene<'_>,
    callers: usize,
    drops: &[Dropped],
    pause: Duration,
) -> Result<(), Violation> {
    scene.warm().await?;
    let kv = &scene.store;
    let share = |caller| drops.iter().enumerate().skip(caller).step_by(callers);
    let left = try_join_all((0..callers).map(|caller| async move {
        let mut left = Vec::new();
        for (number, dropped) in share(caller) {
            // No key begins another: scans look for one.
            let key = format!("{number}.").into_bytes();
            let states = play(kv, &key, dropped)
                .await
                .map_err(|violation| violation.within(format!("after {dropped:?}: ")))?;
            left.push((key, dropped, states));
        }
        Ok::<_, Violation>(left)
    }))
    .await?;
    tokio::time::sleep(pause).await;
    for (key, dropped, states) in left.into_iter().flatten() {
        let found = kv.get_with_ttl(&key).await?;
        ensure!(
            states.iter().any(|state| is(state, &found)),
            "{pause:?} after {dropped:?} there is {found:?}, and it was {states:?}"
        );
    }
    Ok(())
}

/// Drops one call, and tells in which states the key may be from now on.
async fn play(kv: &impl KvStore, key: &[u8], dropped: &Dropped) -> Result<Vec<State>, Violation> {
    let Dropped { before, call: dropping, how, next } = dropped;
    if let Some((value, ttl)) = before {
        kv.set(key, value, *ttl).await?;
    }
    // Another key that is there where this one is not, and the other way round.
    let another = [b"other/", key].concat();
    let its_state: State = match before {
        None => Some((Blob::from(&b"70"[..]), Some(2 * DAY))),
        Some(_) => None,
    };
    if let (Next::Another, Some((value, ttl))) = (next, &its_state) {
        kv.set(&another, value, *ttl).await?;
    }
    let op = dropping.of(key);
    how.of(call(kv, b"", &op)).await;

    let mut possible = vec![before.clone(), super::calls::after(&op, before)];
    match next {
        Next::Look => {}
        Next::Overtake(write) => possible = checked(kv, &write.of(key), &possible).await?,
        Next::Another => {
            let states = checked(kv, &dropping.of(&another), &[its_state]).await?;
            let found = kv.get_with_ttl(&another).await?;
            let fits = states.iter().any(|state| is(state, &found));
            ensure!(fits, "the other key is {found:?}, not {states:?}");
        }
    }
    for _ in 0..3 {
        let found = kv.get_with_ttl(key).await?;
        let fitting: Vec<_> = possible.iter().filter(|state| is(state, &found)).cloned().collect();
        ensure!(!fitting.is_empty(), "the key is {found:?}, which is none of {possible:?}");
        // What was applied stays so; and nothing is applied any more behind a later write.
        if matches!(next, Next::Overtake(_)) || !is(&possible[0], &found) {
            possible = fitting;
        }
        tokio::task::yield_now().await;
    }
    Ok(possible)
}

/// Calls that are dropped side by side, by how often they were polled: more than a pool has
/// connections, at each point at which it may have given one away. A few come first and tell whether
/// there is anything to drop.
const HERDS: [(u32, usize); 5] = [(1, 8), (1, 128), (2, 64), (3, 32), (5, 16)];

/// After which a store that serves nobody any more is given up.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn dropped_calls_hold_nothing(bench: &Bench<'_>) -> LawResult {
    bench.single_thread(async |scene| {
        scene.warm().await?;
        let kv = &scene.store;
        for number in 0..16 {
            let number = number.to_string();
            kv.set(number.as_bytes(), number.as_bytes(), None).await?;
            kv.set(format!("{number}.").as_bytes(), b"1", None).await?;
        }
        for dropping in Call::all(None).into_iter().map(Some).chain([None]) {
            let one = |number: usize| async move {
                let key = format!("{}.", number % 20).into_bytes();
                match dropping {
                    Some(dropping) => drop(call(kv, b"", &dropping.of(&key)).await),
                    // There is one more: a wait for what does not come.
                    None => kv.wait_for_change(b"0", Some(b"0"), DAY).await,
                }
            };
            let what = dropping.map_or("WaitForChange".to_owned(), |call| format!("{call:?}"));
            let herds = async {
                for (polls, size) in HERDS {
                    let herd = join_all((0..size).map(|number| drop_after(polls, one(number))));
                    // Calls that end in their first poll are never under way when they are dropped.
                    if !herd.await.contains(&true) {
                        break;
                    }
                }
                if dropping == Some(Call::Scan) {
                    join_all((0..64).map(|_| half_a_scan(kv))).await;
                }
                serves(kv).await
            };
            timeout(PATIENCE, herds)
                .await
                .unwrap_or_else(|_| {
                    Err(Violation::new(format!("the store serves nobody for {PATIENCE:?}")))
                })
                .map_err(|violation| {
                    violation.within(format!("after many dropped calls of {what}: "))
                })?;
        }
        Ok(())
    })
}

/// A scan that is dropped behind its first key.
async fn half_a_scan(kv: &impl KvStore) {
    let mut keys = pin!(kv.scan(b"1"));
    let _ = keys.next().now_or_never();
    let _ = keys.next().await;
}

/// Whether callers that come all at once get their answers, each its own.
async fn serves(kv: &impl KvStore) -> Result<(), Violation> {
    let callers = (0..16).map(|number: usize| async move {
        let key = number.to_string().into_bytes();
        let state = Some((Blob(key.clone()), None));
        checked(kv, &Op::Get(Blob(key.clone())), &[state]).await?;
        let counter = [b"count/", &key[..]].concat();
        let before = kv.get(&counter).await?.map(|count| (Blob(count.into()), None));
        checked(kv, &Op::Incr(Blob(counter), 1, None), &[before]).await
    });
    try_join_all(callers).await?;
    Ok(())
}
