use derp_kv_core::{KvStore, Result};
use derp_kv_memory::MemoryStore;

use super::broken::{Mutant, mutant};
use super::counter::ReportsAsked;
use super::defect::{Ttl, defects};
use super::helpers::{ExpireOnlyWith, SetNxWins};

pub(super) fn mutants() -> Vec<Mutant> {
    let [wins, forgets] = ["`set_nx` always wins", "`set_nx` ignores its TTL"];
    vec![
        mutant::<SetNxWins>("faults::guarded_get_goes_on", wins),
        mutant::<LosesSetBehindRead>(
            "faults::guarded_get_goes_on",
            "`set` on a key that was found absent is acknowledged and dropped",
        ),
        mutant::<SetNxWins>("faults::idempotent_execute_runs_once", wins),
        mutant::<SetNxForgetsTtl>("faults::idempotent_execute_runs_once", forgets),
        mutant::<SetNxForgetsTtl>("faults::process_once_runs_once", forgets),
        mutant::<SetNxWins>("faults::already_processed_is_false_once", wins),
        mutant::<ExpireOnlyWith>(
            "faults::rate_limit_counts_what_was_applied",
            "`expire` leaves a key that has no TTL",
        ),
        mutant::<ReportsAsked>(
            "faults::rate_limit_counts_what_was_applied",
            "`incr` reports the TTL that was asked for",
        ),
        mutant::<SetNxWins>("faults::leases_stay_exclusive", wins),
        mutant::<RefusesSameValue>(
            "faults::leases_stay_exclusive",
            "`compare_and_set` refuses a value that is equal to the old one",
        ),
    ]
}

defects! {
    SetNxForgetsTtl {
        set_nx(self, kv, key, value, _ttl) { kv.set_nx(key, value, None).await }
    }
    LosesSetBehindRead {
        set(self, kv, key, value, ttl) {
            if kv.exists(key).await? {
                kv.set(key, value, ttl).await?;
            }
            Ok(())
        }
    }
    RefusesSameValue {
        compare_and_set(self, kv, key, expected, value, ttl) {
            Ok(expected != value && kv.compare_and_set(key, expected, value, ttl).await?)
        }
    }
}
