//! The flights are the core's; stores whose flights go wrong in one of its known ways.

use std::sync::OnceLock;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use derp_kv_core::{Flights, KvStore, Mutant as Wrong, Result};
use derp_kv_memory::MemoryStore;
use tokio::runtime::{Builder, Handle};

use super::broken::{Mutant, mutant};
use super::defect::{Defect, defects};

pub(super) fn mutants() -> Vec<Mutant> {
    vec![
        mutant::<OldestFirst>(
            "herd::survives_a_stall",
            "the oldest waiter gets the lead that falls free",
        ),
        mutant::<QueuesAnew>(
            "herd::survives_a_stall",
            "a caller that has waited for `lock_ttl` goes to the end of the queue",
        ),
        mutant::<HandsFailuresOver>(
            "helpers::guarded_get_keeps_no_error",
            "a failed computation leaves the lead to the next caller",
        ),
        mutant::<KeepsThePlace>(
            "herd::waits_for_no_hung_computation",
            "the place beside is given to one caller until that one has ended",
        ),
        mutant::<KeepsThePlace>(
            "herd::nests",
            "the place beside is given to one caller until that one has ended",
        ),
        mutant::<NeverWatches>(
            "herd::sees_what_is_stored",
            "nobody looks at the store while a caller of the process computes",
        ),
        mutant::<TakesLateForHeld>(
            "herd::survives_a_slow_store",
            "a lock that came too late is taken for another caller's",
        ),
        mutant::<TakesARenewalForLife>(
            "helpers::guarded_get_succeeds_the_dead",
            "a holder whose lock was renewed once since it was first seen is alive",
        ),
        mutant::<StoppedRuntime>(
            "helpers::leases_outlive_blocked_work",
            "`runtime` is one that has been shut down",
        ),
        mutant::<KeepsItsThread>(
            "concurrency::lets_others_run",
            "`get` takes no part in the cooperative budget",
        ),
        mutant::<NeverShortens>(
            "helpers::rate_limit_binds_at_once",
            "`expire` only ever lengthens a TTL",
        ),
    ]
}

/// Makes a store of each way in which flights can be wrong.
macro_rules! wrong_flights {
    ($($name:ident)*) => {$(
        #[derive(Debug)]
        struct $name(Flights);

        impl Default for $name {
            fn default() -> Self {
                Self(Flights::broken(Wrong::$name))
            }
        }

        impl Defect for $name {
            fn flights<'a>(&'a self, _: &'a MemoryStore) -> Option<&'a Flights> {
                Some(&self.0)
            }
        }
    )*};
}

pub(super) use wrong_flights;

wrong_flights! {
    OldestFirst QueuesAnew HandsFailuresOver KeepsThePlace NeverWatches TakesLateForHeld TakesARenewalForLife
}

#[derive(Debug, Default)]
struct StoppedRuntime(OnceLock<Handle>);

impl Defect for StoppedRuntime {
    fn runtime(&self) -> Option<Handle> {
        let stopped = || {
            let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
            let runtime = runtime.expect("a runtime for the test");
            let handle = runtime.handle().clone();
            runtime.shutdown_background();
            handle
        };
        Some(self.0.get_or_init(stopped).clone())
    }
}

#[derive(Debug, Default)]
struct KeepsItsThread;

#[async_trait]
impl Defect for KeepsItsThread {
    async fn get(&self, kv: &MemoryStore, key: &[u8]) -> Result<Option<Bytes>> {
        tokio::task::unconstrained(kv.get(key)).await
    }
}

defects! {
    NeverShortens {
        expire(self, kv, key, ttl) {
            let left = kv.ttl(key).await?.and_then(derp_kv_core::Expiry::remaining);
            if left.is_some_and(|left| left > ttl) {
                return Ok(true);
            }
            kv.expire(key, ttl).await
        }
    }
}
