//! The helpers are what they are; stores that break what they stand on.

use std::time::Duration;

use bytes::Bytes;
use derp_kv_core::{Counter, Error, ErrorKind, Expiry, KvStore, Result};
use derp_kv_memory::MemoryStore;
use futures_core::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};

use super::basics::DeleteOnlyLooks;
use super::broken::{Mutant, mutant};
use super::concurrency::{IncrHasGap, SetNxHasGap};
use super::conditional::{DeletesNothing, SwapKeepsTtl};
use super::counter::{Renews, ReportsAsked};
use super::defect::{Ttl, defects, gap};

pub(super) fn mutants() -> Vec<Mutant> {
    let [wins, frees, keeps, swaps] = [
        "`set_nx` always wins",
        "`compare_and_delete` deletes whatever is there",
        "`compare_and_delete` leaves the value",
        "a swap leaves the value",
    ];
    vec![
        mutant::<SetForgetsTtl>(
            "helpers::guarded_get_keeps_what_it_computes",
            "`set` ignores its TTL",
        ),
        mutant::<SetNxWins>("helpers::guarded_get_computes_once", wins),
        mutant::<KeepsCompared>("helpers::guarded_get_keeps_no_error", keeps),
        mutant::<KeepsCompared>("helpers::guarded_get_survives_a_panic", keeps),
        mutant::<AppliesDropped>(
            "helpers::guarded_get_survives_dropped_callers",
            "a dropped `set_nx` is applied later all the same",
        ),
        mutant::<ShortTtlIsNever>(
            "helpers::guarded_get_succeeds_the_dead",
            "a TTL of a second or less means no expiry",
        ),
        mutant::<DeletesNothing>(
            "helpers::invalidate_wins",
            "`compare_and_delete` of an absent key is true",
        ),
        mutant::<DeletesNothing>(
            "helpers::refresh_wins",
            "`compare_and_delete` of an absent key is true",
        ),
        mutant::<SwapKeepsTtl>("helpers::idempotent_execute_runs_once", "a swap keeps the old TTL"),
        mutant::<SetNxWins>("helpers::idempotent_execute_runs_once", wins),
        mutant::<DayOverflows>(
            "helpers::idempotent_execute_replays",
            "a TTL of more than an hour overflows",
        ),
        mutant::<SetNxWins>("helpers::idempotent_execute_reports_progress", wins),
        mutant::<CutsValues>(
            "helpers::idempotent_execute_refuses_another_request",
            "a value is cut to 32 bytes",
        ),
        mutant::<KeepsCompared>("helpers::idempotent_execute_frees_failures", keeps),
        mutant::<UndecodableIsMiss>(
            "helpers::idempotent_execute_keeps_corrupt_records",
            "the error of a value that is no JSON is swallowed as a miss",
        ),
        mutant::<KeepsJson>(
            "helpers::idempotent_execute_replays_replies",
            "`set_nx` keeps JSON in a form of its own, as a `jsonb` column does",
        ),
        mutant::<CutsValues>(
            "helpers::idempotent_execute_replays_replies",
            "a value is cut to 32 bytes",
        ),
        mutant::<SetNxWins>("helpers::idempotent_execute_rejects_the_abandoned", wins),
        mutant::<TakesForASecond>(
            "helpers::idempotent_execute_rejects_the_abandoned",
            "what `set_nx` writes lasts for a second at most",
        ),
        mutant::<SwapsNothing>("helpers::idempotent_execute_rejects_the_abandoned", swaps),
        mutant::<DeleteOnlyLooks>(
            "helpers::idempotent_execute_rejects_the_abandoned",
            "`delete` leaves the value",
        ),
        mutant::<IncrHasGap>(
            "helpers::rate_limit_is_exact",
            "an increment is a read and a later write",
        ),
        mutant::<Renews>("helpers::rate_limit_window_ends", "`incr` renews the TTL"),
        mutant::<ReportsAsked>(
            "helpers::rate_limit_repairs_immortal_counters",
            "`incr` reports the TTL that was asked for",
        ),
        mutant::<ExpireOnlyWith>(
            "helpers::rate_limit_repairs_immortal_counters",
            "`expire` leaves a key that has no TTL",
        ),
        mutant::<CountsByOne>("helpers::rate_limit_counts_costs", "`incr` counts by one"),
        mutant::<DeleteOnlyLooks>("helpers::rate_limit_reset_forgets", "`delete` leaves the value"),
        mutant::<DeletesAll>("helpers::rate_limit_reset_forgets", "`delete` clears the store"),
        mutant::<SetNxHasGap>(
            "helpers::already_processed_is_false_once",
            "`set_nx` looks first and writes then",
        ),
        mutant::<SetNxHasGap>(
            "helpers::process_once_runs_once",
            "`set_nx` looks first and writes then",
        ),
        mutant::<KeepsCompared>("helpers::process_once_forgets_failures", keeps),
        mutant::<SetNxWins>("helpers::process_once_gives_up", wins),
        mutant::<SwapsNothing>("helpers::process_once_gives_up", swaps),
        mutant::<SetNxHasGap>("helpers::leases_exclude", "`set_nx` looks first and writes then"),
        mutant::<SwapKeepsTtl>("helpers::leases_are_renewed", "a swap keeps the old TTL"),
        mutant::<FreesAll>("helpers::leases_are_freed_by_their_owner", frees),
        mutant::<HidesLocks>(
            "helpers::lock_keys_are_reserved",
            "a scan hides keys that end in `:lock` (that they are refused is the helpers' own \
             code, which no store breaks: this shows that the law looks at what is left)",
        ),
        mutant::<ShortKeys>(
            "helpers::ids_are_bounded",
            "a key is at most 1 KiB long, so that the longest id does not fit behind its prefix",
        ),
        mutant::<CountersApart>(
            "helpers::records_are_compatible",
            "counters live under keys of their own",
        ),
    ]
}

/// Where [`CountersApart`] has its counters.
fn apart(key: &[u8]) -> Vec<u8> {
    [key, b":counter"].concat()
}

fn too_long(key: &[u8]) -> Result<()> {
    if key.len() > 1_024 {
        return Err(Error::new(ErrorKind::InvalidArgument, "a key is at most 1 KiB long"));
    }
    Ok(())
}

/// Whether the value reads as absent: it is no JSON, nor a token.
fn is_undecodable(value: &Bytes) -> bool {
    let is_token = value.len() >= 32 && value[..32].iter().all(u8::is_ascii_hexdigit);
    !is_token && serde_json::from_slice::<serde_json::Value>(value).is_err()
}

defects! {
    SetForgetsTtl {
        set(self, kv, key, value, _ttl) { kv.set(key, value, None).await }
    }
    SetNxWins {
        set_nx(self, kv, key, value, ttl) { kv.set(key, value, ttl).await.map(|()| true) }
    }
    KeepsCompared {
        compare_and_delete(self, kv, key, expected) {
            Ok(kv.get(key).await?.as_deref() == Some(expected))
        }
    }
    FreesAll {
        compare_and_delete(self, kv, key, _expected) { kv.delete(key).await }
    }
    AppliesDropped {
        set_nx(self, kv, key, value, ttl) {
            let (kv, key, value) = (kv.clone(), key.to_vec(), value.to_vec());
            let write = tokio::spawn(async move {
                gap().await;
                kv.set_nx(&key, &value, ttl).await
            });
            write.await.expect("the task ends")
        }
    }
    ShortTtlIsNever {
        set(self, kv, key, value, ttl) {
            kv.set(key, value, ttl.filter(|ttl| ttl.as_secs() > 1)).await
        }
    }
    DayOverflows {
        set_nx(self, kv, key, value, ttl) {
            let hour = Duration::from_secs(60 * 60);
            let taken = kv.set_nx(key, value, ttl).await?;
            if taken && ttl.is_some_and(|ttl| ttl > hour) {
                kv.delete(key).await?;
            }
            Ok(taken)
        }
    }
    CutsValues {
        set_nx(self, kv, key, value, ttl) {
            kv.set_nx(key, &value[..value.len().min(32)], ttl).await
        }
    }
    KeepsJson {
        set_nx(self, kv, key, value, ttl) {
            match serde_json::from_slice::<serde_json::Value>(value) {
                Ok(json) => kv.set_nx(key, json.to_string().as_bytes(), ttl).await,
                Err(_) => kv.set_nx(key, value, ttl).await,
            }
        }
    }
    TakesForASecond {
        set_nx(self, kv, key, value, ttl) {
            let second = Duration::from_secs(1);
            kv.set_nx(key, value, ttl.map(|ttl| ttl.min(second))).await
        }
    }
    SwapsNothing {
        compare_and_set(self, kv, key, expected, _value, _ttl) {
            Ok(kv.get(key).await?.as_deref() == Some(expected))
        }
    }
    UndecodableIsMiss {
        get(self, kv, key) { Ok(kv.get(key).await?.filter(|value| !is_undecodable(value))) }
        set_nx(self, kv, key, value, ttl) {
            if kv.get(key).await?.is_some_and(|found| is_undecodable(&found)) {
                kv.delete(key).await?;
            }
            kv.set_nx(key, value, ttl).await
        }
    }
    ExpireOnlyWith {
        expire(self, kv, key, ttl) {
            match kv.ttl(key).await? {
                Some(Expiry::Never) => Ok(true),
                _ => kv.expire(key, ttl).await,
            }
        }
    }
    CountsByOne {
        incr(self, kv, key, by, ttl) { kv.incr(key, by.signum(), ttl).await }
    }
    DeletesAll {
        delete(self, kv, key) {
            let there = kv.exists(key).await?;
            let all: Vec<Bytes> = kv.scan(b"").try_collect().await?;
            for key in all {
                kv.delete(&key).await?;
            }
            Ok(there)
        }
    }
    HidesLocks {
        scan(self, kv, prefix) {
            let shown = |key: &Bytes| std::future::ready(!key.ends_with(b":lock"));
            kv.scan(prefix).try_filter(shown).boxed()
        }
    }
    ShortKeys {
        incr(self, kv, key, by, ttl) {
            too_long(key)?;
            kv.incr(key, by, ttl).await
        }
        set_nx(self, kv, key, value, ttl) {
            too_long(key)?;
            kv.set_nx(key, value, ttl).await
        }
    }
    CountersApart {
        incr(self, kv, key, by, ttl) { kv.incr(&apart(key), by, ttl).await }
    }
}
