//! What a dropped call leaves behind.

use std::sync::Arc;

use derp_kv_core::Operation;

use super::super::broken::{Mutant, mutant};
use super::wire::{Flaw, Flawed, Wire};

pub(super) fn mutants() -> Vec<Mutant> {
    let cancel = "concurrency::cancel_is_all_or_nothing";
    let holds = "concurrency::dropped_calls_hold_nothing";
    vec![
        mutant::<Arc<Wire<LateMset>>>(cancel, "a dropped `mset` is applied behind a later call"),
        mutant::<Arc<Wire<LateIncr>>>(cancel, "a dropped `incr` is applied behind a later call"),
        mutant::<Arc<Wire<LateSetNx>>>(cancel, "a dropped `set_nx` is applied behind a later call"),
        mutant::<Arc<Wire<LateDelete>>>(
            cancel,
            "a dropped `delete` is applied behind a later call",
        ),
        mutant::<Arc<Wire<LateDeleteMany>>>(
            cancel,
            "a dropped `delete_many` is applied behind a later call",
        ),
        mutant::<Arc<Wire<LateExpire>>>(
            cancel,
            "a dropped `expire` is applied behind a later call",
        ),
        mutant::<Arc<Wire<LateSwap>>>(
            cancel,
            "a dropped `compare_and_set` is applied behind a later call",
        ),
        mutant::<Arc<Wire<LateCompareAndDelete>>>(
            cancel,
            "a dropped `compare_and_delete` is applied behind a later call",
        ),
        mutant::<Arc<Wire<SoonIncr>>>(cancel, "a dropped `incr` is applied a millisecond later"),
        mutant::<Arc<Wire<MuchLaterSet>>>(
            cancel,
            "a dropped `set` is applied 30 milliseconds later",
        ),
        mutant::<Arc<Wire<MuchLaterSetNx>>>(
            cancel,
            "a dropped `set_nx` is applied 30 milliseconds later",
        ),
        mutant::<Arc<Wire<MuchLaterDelete>>>(
            cancel,
            "a dropped `delete` is applied two seconds later",
        ),
        mutant::<Arc<Wire<MuchLaterExpire>>>(
            cancel,
            "a dropped `expire` is applied 50 milliseconds later",
        ),
        mutant::<Arc<Wire<PoolLateBy1>>>(
            cancel,
            "a dropped write goes on over its connection, a later one over another, for 1 ms",
        ),
        mutant::<Arc<Wire<PoolLateBy5>>>(
            cancel,
            "a dropped write goes on over its connection, a later one over another, for 5 ms",
        ),
        mutant::<Arc<Wire<PoolLateBy30>>>(
            cancel,
            "a dropped write goes on over its connection, a later one over another, for 30 ms",
        ),
        mutant::<Arc<Wire<StaleGet>>>(cancel, "the reply to a dropped `get` goes to the next"),
        mutant::<Arc<Wire<StaleGetWithTtl>>>(
            cancel,
            "the reply to a dropped `get_with_ttl` goes to the next",
        ),
        mutant::<Arc<Wire<StaleMget>>>(cancel, "the reply to a dropped `mget` goes to the next"),
        mutant::<Arc<Wire<StaleTtl>>>(cancel, "the reply to a dropped `ttl` goes to the next"),
        mutant::<Arc<Wire<StaleExists>>>(
            cancel,
            "the reply to a dropped `exists` goes to the next",
        ),
        mutant::<Arc<Wire<StaleScan>>>(cancel, "the reply to a dropped `scan` goes to the next"),
        mutant::<Arc<Wire<StaleIncr>>>(cancel, "the reply to a dropped `incr` goes to the next"),
        mutant::<Arc<Wire<StaleSetNx>>>(cancel, "the reply to a dropped `set_nx` goes to the next"),
        mutant::<Arc<Wire<StaleDelete>>>(
            cancel,
            "the reply to a dropped `delete` goes to the next",
        ),
        mutant::<Arc<Wire<StaleDeleteMany>>>(
            cancel,
            "the reply to a dropped `delete_many` goes to the next",
        ),
        mutant::<Arc<Wire<StaleSwap>>>(
            cancel,
            "the reply to a dropped `compare_and_set` goes to the next",
        ),
        mutant::<Arc<Wire<StaleExpire>>>(
            cancel,
            "the reply to a dropped `expire` goes to the next",
        ),
        mutant::<Arc<Wire<StaleOfAll>>>(
            cancel,
            "the reply to a dropped call goes to the next call, whichever that is",
        ),
        mutant::<Arc<Wire<IncrementsTwice>>>(cancel, "a dropped `incr` is sent once more"),
        mutant::<Arc<Wire<TakesTheNextAlong>>>(
            cancel,
            "the write behind a dropped one is answered, and rolled back with that",
        ),
        mutant::<Arc<Wire<LocksItsKey>>>(cancel, "a dropped write leaves its key locked"),
        mutant::<Arc<Wire<IncrTtlLater>>>(cancel, "`incr` creates first and gives the TTL then"),
        mutant::<Arc<Wire<SetNxTtlLater>>>(cancel, "`set_nx` creates first and gives the TTL then"),
        mutant::<Arc<Wire<MsetTtlLater>>>(cancel, "`mset` writes first and gives the TTL then"),
        mutant::<Arc<Wire<LeaksOfGet>>>(holds, "a dropped `get` keeps its connection, of 10"),
        mutant::<Arc<Wire<LeaksOfMget>>>(holds, "a dropped `mget` keeps its connection, of 100"),
        mutant::<Arc<Wire<LeaksOfScan>>>(holds, "a dropped `scan` keeps its connection, of 16"),
        mutant::<Arc<Wire<LeaksOfSet>>>(holds, "a dropped `set` keeps its connection, of 64"),
        mutant::<Arc<Wire<LeaksOfIncr>>>(holds, "a dropped `incr` keeps its connection, of 32"),
        mutant::<Arc<Wire<LeaksOfDeleteMany>>>(
            holds,
            "a dropped `delete_many` keeps its connection, of 20",
        ),
        mutant::<Arc<Wire<LeaksOfSwap>>>(
            holds,
            "a dropped `compare_and_set` keeps its connection, of 50",
        ),
        mutant::<Arc<Wire<LeaksAll>>>(holds, "any dropped call keeps its connection, of 1000"),
        mutant::<Arc<Wire<BreaksOfTtl>>>(holds, "a dropped `ttl` breaks the connection for good"),
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
    LateMset = Flaw::Late(Operation::Mset, 0);
    LateIncr = Flaw::Late(Operation::Incr, 0);
    LateSetNx = Flaw::Late(Operation::SetNx, 0);
    LateDelete = Flaw::Late(Operation::Delete, 0);
    LateDeleteMany = Flaw::Late(Operation::DeleteMany, 0);
    LateExpire = Flaw::Late(Operation::Expire, 0);
    LateSwap = Flaw::Late(Operation::CompareAndSet, 0);
    LateCompareAndDelete = Flaw::Late(Operation::CompareAndDelete, 0);
    SoonIncr = Flaw::Late(Operation::Incr, 1);
    MuchLaterSet = Flaw::Late(Operation::Set, 30);
    MuchLaterSetNx = Flaw::Late(Operation::SetNx, 30);
    MuchLaterDelete = Flaw::Late(Operation::Delete, 2_000);
    MuchLaterExpire = Flaw::Late(Operation::Expire, 50);
    PoolLateBy1 = Flaw::LateOfPool(1);
    PoolLateBy5 = Flaw::LateOfPool(5);
    PoolLateBy30 = Flaw::LateOfPool(30);
    StaleGet = Flaw::Stale(Operation::Get);
    StaleGetWithTtl = Flaw::Stale(Operation::GetWithTtl);
    StaleMget = Flaw::Stale(Operation::Mget);
    StaleTtl = Flaw::Stale(Operation::Ttl);
    StaleExists = Flaw::Stale(Operation::Exists);
    StaleScan = Flaw::Stale(Operation::Scan);
    StaleIncr = Flaw::Stale(Operation::Incr);
    StaleSetNx = Flaw::Stale(Operation::SetNx);
    StaleDelete = Flaw::Stale(Operation::Delete);
    StaleDeleteMany = Flaw::Stale(Operation::DeleteMany);
    StaleSwap = Flaw::Stale(Operation::CompareAndSet);
    StaleExpire = Flaw::Stale(Operation::Expire);
    StaleOfAll = Flaw::StaleOfAll;
    IncrementsTwice = Flaw::Twice(Operation::Incr);
    TakesTheNextAlong = Flaw::TakesTheNextAlong;
    LocksItsKey = Flaw::LocksItsKey;
    IncrTtlLater = Flaw::TtlLater(Operation::Incr);
    SetNxTtlLater = Flaw::TtlLater(Operation::SetNx);
    MsetTtlLater = Flaw::TtlLater(Operation::Mset);
    LeaksOfGet = Flaw::Leaks(Operation::Get, 10);
    LeaksOfMget = Flaw::Leaks(Operation::Mget, 100);
    LeaksOfScan = Flaw::Leaks(Operation::Scan, 16);
    LeaksOfSet = Flaw::Leaks(Operation::Set, 64);
    LeaksOfIncr = Flaw::Leaks(Operation::Incr, 32);
    LeaksOfDeleteMany = Flaw::Leaks(Operation::DeleteMany, 20);
    LeaksOfSwap = Flaw::Leaks(Operation::CompareAndSet, 50);
    LeaksAll = Flaw::LeaksAll(1000);
    BreaksOfTtl = Flaw::Breaks(Operation::Ttl);
}
