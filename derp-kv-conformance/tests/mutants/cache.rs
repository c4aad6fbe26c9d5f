//! The cache goes wrong in one of its known ways, in the first of the processes; or what it stands on
//! does.

use bytes::Bytes;
use derp_kv_core::{Expiry, Flights, KvStore, Mutant as Wrong, Result};
use derp_kv_memory::MemoryStore;

use super::broken::{Mutant, mutant};
use super::conditional::{DeletesNothing, SwapKeepsTtl};
use super::defect::{Defect, Ttl, defects};
use super::helpers::{SetForgetsTtl, SetNxWins};
use super::herd::wrong_flights;

pub(super) fn mutants() -> Vec<Mutant> {
    let [one, fails, past, cools, early, wins, decides, dead, typed, background, outlives, many] = [
        "cache::serves_stale_while_one_refreshes",
        "cache::serves_stale_when_the_refresh_fails",
        "cache::serves_nothing_past_the_stale_window",
        "cache::cools_down_after_a_failure",
        "cache::refreshes_early",
        "cache::invalidate_wins_over_a_refresh",
        "cache::lets_the_computation_decide",
        "cache::succeeds_a_dead_refresher",
        "cache::keeps_typed_values",
        "cache::refreshes_in_background",
        "cache::outlives_its_callers",
        "cache::computes_many_together",
    ];
    let [everybody, never, set_nx, at_once, immortal] = [
        "whoever meets a stale value refreshes it",
        "nobody refreshes a value before it is gone",
        "`set_nx` always wins",
        "a failure frees the lock at once",
        "`set` ignores its TTL",
    ];
    vec![
        mutant::<RefreshesForEverybody>(one, everybody),
        mutant::<NeverRefreshes>(one, never),
        mutant::<DropsTheStaleTime>(one, "a value is kept for its TTL alone"),
        mutant::<SetNxWins>(one, set_nx),
        mutant::<HalvesWhatIsLeft>(one, "`get_with_ttl` reports half of what is left"),
        mutant::<WritesStaleBack>(fails, "a failed refresh stores the stale value anew"),
        mutant::<FailsWithTheRefresh>(
            fails,
            "the caller whose refresh fails gets the error in the place of the stale value",
        ),
        mutant::<FreesOnFailure>(fails, at_once),
        mutant::<CoolsDownFromTheStart>(
            fails,
            "a cool-down is counted from the beginning of the computation",
        ),
        mutant::<SwapKeepsTtl>(fails, "a swap keeps the old TTL"),
        mutant::<ServesPastTheWindow>(
            past,
            "after a slow refresh that failed the old value is served although it is gone",
        ),
        mutant::<ReportsASecondMore>(past, "`get_with_ttl` reports a second more than is left"),
        mutant::<SetForgetsTtl>(past, immortal),
        mutant::<FreesOnFailure>(cools, at_once),
        mutant::<LeavesCoolDowns>(cools, "an invalidation leaves a cool-down in place"),
        mutant::<TakesLocksForCoolDowns>(cools, "each lock is taken for a cool-down"),
        mutant::<SwapKeepsTtl>(cools, "a swap keeps the old TTL"),
        mutant::<IgnoresEarly>(early, "no value is refreshed before its TTL ends"),
        mutant::<RefreshesForEverybody>(early, everybody),
        mutant::<FailsWithTheRefresh>(
            early,
            "the caller whose early refresh fails gets the error in the place of the value",
        ),
        mutant::<OutdatesNoRefresh>(
            wins,
            "an invalidation does not reach a refresh of its process",
        ),
        mutant::<NeverTakesBack>(
            wins,
            "a value that was stored without the lock is not taken back",
        ),
        mutant::<DeletesNothing>(wins, "`compare_and_delete` of an absent key is true"),
        mutant::<KeepsUnstored>(decides, "a value is kept although its computation said otherwise"),
        mutant::<JittersUpwards>(decides, "jitter makes TTLs longer"),
        mutant::<IgnoresJitter>(decides, "jitter does nothing"),
        mutant::<DropsTheStaleTime>(decides, "a value is kept for its own TTL alone"),
        mutant::<SetForgetsTtl>(decides, immortal),
        mutant::<RefreshesForEverybody>(dead, everybody),
        mutant::<SetNxWins>(dead, set_nx),
        mutant::<FailsOnUndecodable>(typed, "a value that cannot be decoded is an error"),
        mutant::<DropsTheStaleTime>(typed, "a value is kept for its TTL alone"),
        mutant::<NullIsAbsent>(typed, "`set` of a JSON `null` deletes"),
        mutant::<WaitsForTheRefresh>(background, "the caller that begins a refresh waits for it"),
        mutant::<NeverRefreshes>(background, never),
        mutant::<KeepsThePanicsLock>(background, "a refresh that panics leaves its lock"),
        mutant::<OneTryAtARefresh>(
            background,
            "`set_nx` writes a lock once, whoever deletes it later",
        ),
        mutant::<EndsWithItsCaller>(outlives, "a computation ends with its caller"),
        mutant::<ComputesKeyByKey>(many, "missing keys are computed one by one"),
        mutant::<SetNxWins>(many, set_nx),
        mutant::<NeverRefreshes>(many, never),
    ]
}

wrong_flights! {
    RefreshesForEverybody NeverRefreshes WritesStaleBack FailsWithTheRefresh FreesOnFailure
    CoolsDownFromTheStart LeavesCoolDowns TakesLocksForCoolDowns ServesPastTheWindow
    DropsTheStaleTime KeepsUnstored JittersUpwards IgnoresJitter IgnoresEarly OutdatesNoRefresh
    NeverTakesBack EndsWithItsCaller KeepsThePanicsLock WaitsForTheRefresh FailsOnUndecodable
    ComputesKeyByKey
}

type Found = Option<(Bytes, Expiry)>;

/// What was found, with another expiry.
fn redated(found: Found, other: impl Fn(std::time::Duration) -> std::time::Duration) -> Found {
    found.map(|(value, expiry)| match expiry {
        Expiry::In(left) => (value, Expiry::In(other(left))),
        Expiry::Never => (value, Expiry::Never),
    })
}

defects! {
    HalvesWhatIsLeft {
        get_with_ttl(self, kv, key) { Ok(redated(kv.get_with_ttl(key).await?, |left| left / 2)) }
    }
    ReportsASecondMore {
        get_with_ttl(self, kv, key) {
            let second = std::time::Duration::from_secs(1);
            Ok(redated(kv.get_with_ttl(key).await?, |left| left + second))
        }
    }
    NullIsAbsent {
        set(self, kv, key, value, ttl) {
            if value == b"null" {
                return kv.delete(key).await.map(drop);
            }
            kv.set(key, value, ttl).await
        }
    }
    OneTryAtARefresh {
        set_nx(self, kv, key, value, ttl) {
            let tried = [key, b" was tried"].concat();
            Ok(kv.set_nx(&tried, b"", None).await? && kv.set_nx(key, value, ttl).await?)
        }
    }
}
