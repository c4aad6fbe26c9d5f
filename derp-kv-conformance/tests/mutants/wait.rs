use std::time::Duration;

use derp_kv_core::{Counter, KvStore, Result};
use derp_kv_memory::MemoryStore;

use super::broken::{Mutant, mutant, timed};
use super::defect::{Ttl, defects, gap};

pub(super) fn mutants() -> Vec<Mutant> {
    vec![
        mutant::<WaitsOnAndOn>(
            "wait::returns_in_time",
            "`wait_for_change` waits for a change, however long",
        ),
        mutant::<WaitingTakes>(
            "wait::returns_in_time",
            "`wait_for_change` takes the changed value away",
        ),
        timed::<LooksThenListens>(
            "wait::loses_no_change",
            "a change between the look and the subscription is lost",
            Duration::from_secs(2),
        ),
    ]
}

defects! {
    WaitsOnAndOn {
        wait_for_change(self, kv, key, seen, at_most) {
            kv.wait_for_change(key, seen, at_most + Duration::from_secs(3600)).await;
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
