mod hub;

use std::time::Duration;

use derp_kv_core::{Counter, KvStore, Operation, Result};
use derp_kv_memory::MemoryStore;

use super::broken::{Mutant, mutant, timed};
use super::defect::{Ttl, defects, gap};
use hub::{Flaw, Flawed, Hears};

pub(super) fn mutants() -> Vec<Mutant> {
    let hears = "wait::hears_each_kind_of_change";
    let every = "wait::wakes_every_waiter";
    let bound = "wait::takes_any_bound";
    let loses = "wait::loses_no_change";
    vec![
        mutant::<WaitsOnAndOn>(
            "wait::returns_in_time",
            "`wait_for_change` waits for a change, however long",
        ),
        mutant::<RoundsBoundUp>(
            "wait::returns_in_time",
            "`at_most` is rounded up to whole seconds",
        ),
        mutant::<WaitingTakes>(
            "wait::returns_in_time",
            "`wait_for_change` takes the changed value away",
        ),
        timed::<LooksThenListens>(
            loses,
            "a change between the look and the subscription is lost",
            Duration::from_secs(2),
        ),
        mutant::<Hears<DeafToSet>>(hears, "`set` wakes nobody"),
        mutant::<Hears<DeafToMset>>(hears, "`mset` wakes nobody"),
        mutant::<Hears<DeafToDelete>>(hears, "`delete` wakes nobody"),
        mutant::<Hears<DeafToDeleteMany>>(hears, "`delete_many` wakes nobody"),
        mutant::<Hears<DeafToExpire>>(
            hears,
            "`expire` wakes nobody, who then sleeps through the new end",
        ),
        mutant::<Hears<DeafToSetNx>>(hears, "`set_nx` wakes nobody"),
        mutant::<Hears<DeafToIncr>>(hears, "`incr` wakes nobody"),
        mutant::<Hears<DeafToSwap>>(hears, "`compare_and_set` wakes nobody"),
        mutant::<Hears<DeafToCompareAndDelete>>(hears, "`compare_and_delete` wakes nobody"),
        mutant::<Hears<AllDeafToIncr>>(
            hears,
            "each change wakes the waiters of all keys, but `incr` wakes nobody",
        ),
        mutant::<Hears<AllDeafToSetNx>>(
            hears,
            "each change wakes the waiters of all keys, but `set_nx` wakes nobody",
        ),
        mutant::<Hears<AllDeafToDelete>>(
            hears,
            "each change wakes the waiters of all keys, but `delete` wakes nobody",
        ),
        mutant::<Hears<AllDeafToExpire>>(
            hears,
            "each change wakes the waiters of all keys, but `expire` wakes nobody",
        ),
        mutant::<Hears<DeafToDeletion>>(
            hears,
            "waiters are woken by another value, and not by none",
        ),
        mutant::<Hears<DeafToWrites>>(hears, "waiters are woken by deletions only"),
        mutant::<Hears<SetOnly>>(hears, "only `set` wakes waiters"),
        mutant::<Hears<DeafToExpiry>>(hears, "a key that expires wakes nobody"),
        mutant::<Hears<ForgetsEndOfSetNx>>(
            hears,
            "the end of a TTL that `set_nx` gave wakes nobody",
        ),
        mutant::<Hears<ForgetsEndOfIncr>>(hears, "the end of a TTL that `incr` gave wakes nobody"),
        mutant::<Hears<KeyIsCut>>(
            hears,
            "waiters are kept by the first 1024 bytes of their key, and told by all of it",
        ),
        mutant::<Hears<SeenByBeginning>>(
            loses,
            "a value with the same first 64 KiB is the same to a waiter",
        ),
        mutant::<Hears<DeafToSameValue>>(
            hears,
            "a write of the same value is no change, although its TTL is another",
        ),
        mutant::<Hears<DeafToDated>>(hears, "writes that have a TTL wake nobody"),
        mutant::<Hears<DeafToEmptyValue>>(hears, "a write of the empty value wakes nobody"),
        mutant::<Hears<DeafToCreation>>(hears, "a key that appears wakes nobody"),
        mutant::<Hears<EveryOtherChange>>(hears, "every other change wakes nobody"),
        mutant::<Hears<FirstChangeOfKey>>(
            hears,
            "only the first change of a key wakes its waiters",
        ),
        mutant::<Hears<FirstOfBatch>>(hears, "a batch wakes the waiters of its first key only"),
        mutant::<Hears<OwnHandleOnly>>(hears, "a change wakes only the waiters of its own handle"),
        mutant::<Hears<OtherHandlesOnly>>(
            hears,
            "a change wakes only the waiters of other handles",
        ),
        mutant::<Hears<BeginningOfKey>>(
            hears,
            "waiters are kept by the first 16 bytes of their key, one for each",
        ),
        mutant::<Hears<KeyAsText>>(
            hears,
            "waiters are kept by their key as text, and told by its bytes",
        ),
        mutant::<Hears<FirstWaiter>>(every, "a change wakes one of the waiters of its key"),
        mutant::<Hears<LastWaiter>>(every, "a waiter takes the place of another one of its key"),
        mutant::<Hears<OneWaiterOfHandle>>(
            every,
            "a waiter takes the place of another one of its key and handle",
        ),
        mutant::<Hears<GoneTakesAll>>(every, "a dropped waiter takes all of its key away"),
        mutant::<Hears<GoneTakesTheLast>>(
            every,
            "a dropped waiter takes the latest of its key away, and not itself",
        ),
        mutant::<Hears<GoneBreaksHub>>(every, "after a dropped waiter nobody is woken any more"),
        mutant::<Hears<LaggingChannel>>(
            every,
            "a waiter that lags behind 64 changes misses what came before",
        ),
        mutant::<Hears<LongChannel>>(
            every,
            "a waiter that lags behind 256 changes misses what came before",
        ),
        mutant::<Hears<FewWaiters>>(every, "of more than 128 waiters the oldest are forgotten"),
        mutant::<Hears<ManyWaiters>>(every, "of more than 1000 waiters the oldest are forgotten"),
        mutant::<Hears<WaitsTakeTurns>>(
            every,
            "only 512 waits listen at once, and the others queue",
        ),
        mutant::<Hears<BoundPanics>>(
            bound,
            "`at_most` is added to the clock, which panics where it overflows",
        ),
        mutant::<Hears<BoundIsCut>>(bound, "`at_most` is cut to 32 bits of milliseconds"),
        mutant::<Hears<LongBoundIsDeaf>>(bound, "a wait of more than a day only sleeps"),
        mutant::<Hears<NoBoundAtZero>>(
            bound,
            "an `at_most` below a millisecond means no bound at all",
        ),
        mutant::<Hears<ReturnsAtOnce>>(bound, "`wait_for_change` always returns at once"),
        mutant::<Hears<SeenNoneMatchesAll>>(
            loses,
            "a waiter that saw no key sleeps, although there is one",
        ),
        mutant::<Hears<SeenEmptyIsAbsent>>(
            loses,
            "an empty value and none are the same to a waiter",
        ),
        mutant::<Hears<SeenByLength>>(loses, "a value of the same length is the same to a waiter"),
        mutant::<Hears<SeenByPresence>>(loses, "a waiter looks only whether the key is there"),
        timed::<Hears<LooksBeforeItListens>>(
            loses,
            "a change within the turn between look and subscription is lost",
            Duration::from_secs(2),
        ),
    ]
}

/// Makes a type for each flaw.
macro_rules! flaws {
    ($($name:ident = $flaw:expr;)*) => {$(
        #[derive(Debug, Default)]
        struct $name;

        impl Flawed for $name {
            const FLAW: Flaw = $flaw;
        }
    )*};
}

flaws! {
    DeafToSet = Flaw::DeafTo(Operation::Set);
    DeafToMset = Flaw::DeafTo(Operation::Mset);
    DeafToDelete = Flaw::DeafTo(Operation::Delete);
    DeafToDeleteMany = Flaw::DeafTo(Operation::DeleteMany);
    DeafToExpire = Flaw::DeafTo(Operation::Expire);
    DeafToSetNx = Flaw::DeafTo(Operation::SetNx);
    DeafToIncr = Flaw::DeafTo(Operation::Incr);
    DeafToSwap = Flaw::DeafTo(Operation::CompareAndSet);
    DeafToCompareAndDelete = Flaw::DeafTo(Operation::CompareAndDelete);
    AllDeafToIncr = Flaw::AllDeafTo(Operation::Incr);
    AllDeafToSetNx = Flaw::AllDeafTo(Operation::SetNx);
    AllDeafToDelete = Flaw::AllDeafTo(Operation::Delete);
    AllDeafToExpire = Flaw::AllDeafTo(Operation::Expire);
    DeafToDeletion = Flaw::DeafToDeletion;
    DeafToWrites = Flaw::DeafToWrites;
    SetOnly = Flaw::SetOnly;
    DeafToExpiry = Flaw::DeafToExpiry;
    ForgetsEndOfSetNx = Flaw::ForgetsEndOf(Operation::SetNx);
    ForgetsEndOfIncr = Flaw::ForgetsEndOf(Operation::Incr);
    KeyIsCut = Flaw::KeyIsCut;
    SeenByBeginning = Flaw::SeenByBeginning;
    DeafToSameValue = Flaw::DeafToSameValue;
    DeafToDated = Flaw::DeafToDated;
    DeafToEmptyValue = Flaw::DeafToEmptyValue;
    DeafToCreation = Flaw::DeafToCreation;
    EveryOtherChange = Flaw::EveryOtherChange;
    FirstChangeOfKey = Flaw::FirstChangeOfKey;
    FirstOfBatch = Flaw::FirstOfBatch;
    OwnHandleOnly = Flaw::OwnHandleOnly;
    OtherHandlesOnly = Flaw::OtherHandlesOnly;
    BeginningOfKey = Flaw::BeginningOfKey;
    KeyAsText = Flaw::KeyAsText;
    FirstWaiter = Flaw::FirstWaiter;
    LastWaiter = Flaw::LastWaiter;
    OneWaiterOfHandle = Flaw::OneWaiterOfHandle;
    GoneTakesAll = Flaw::GoneTakesAll;
    GoneTakesTheLast = Flaw::GoneTakesTheLast;
    GoneBreaksHub = Flaw::GoneBreaksHub;
    LaggingChannel = Flaw::Channel(64);
    LongChannel = Flaw::Channel(256);
    FewWaiters = Flaw::AtMost(128);
    ManyWaiters = Flaw::AtMost(1000);
    WaitsTakeTurns = Flaw::TakeTurns(512);
    BoundPanics = Flaw::BoundPanics;
    BoundIsCut = Flaw::BoundIsCut;
    LongBoundIsDeaf = Flaw::LongBoundIsDeaf;
    NoBoundAtZero = Flaw::NoBoundAtZero;
    ReturnsAtOnce = Flaw::AtOnce;
    SeenNoneMatchesAll = Flaw::SeenNoneMatchesAll;
    SeenEmptyIsAbsent = Flaw::SeenEmptyIsAbsent;
    SeenByLength = Flaw::SeenByLength;
    SeenByPresence = Flaw::SeenByPresence;
    LooksBeforeItListens = Flaw::LooksBeforeItListens;
}

defects! {
    WaitsOnAndOn {
        wait_for_change(self, kv, key, seen, at_most) {
            kv.wait_for_change(key, seen, at_most + Duration::from_secs(3600)).await;
        }
    }
    RoundsBoundUp {
        wait_for_change(self, kv, key, seen, at_most) {
            let seconds = at_most.as_millis().div_ceil(1_000);
            let seconds = u64::try_from(seconds).unwrap_or(u64::MAX);
            kv.wait_for_change(key, seen, Duration::from_secs(seconds)).await;
        }
    }
    WaitingTakes {
        wait_for_change(self, kv, key, seen, at_most) {
            kv.wait_for_change(key, seen, at_most).await;
            if let Ok(Some(found)) = kv.get(key).await
                && seen != Some(&found)
            {
                let _ = kv.delete(key).await;
            }
        }
    }
    LooksThenListens {
        wait_for_change(self, kv, key, seen, at_most) {
            if kv.get(key).await.is_ok_and(|found| found.as_deref() != seen) {
                return;
            }
            for _ in 0..20 {
                gap().await;
            }
            let now = kv.get(key).await.ok().flatten();
            kv.wait_for_change(key, now.as_deref(), at_most).await;
        }
        mset(self, kv, items, ttl) {
            gap().await;
            kv.mset(items, ttl).await
        }
        incr(self, kv, key, by, ttl) {
            gap().await;
            kv.incr(key, by, ttl).await
        }
    }
}
