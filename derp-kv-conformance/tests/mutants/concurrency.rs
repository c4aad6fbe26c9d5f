mod dropped;
mod expired;
mod order;
mod torn;
mod windows;
mod wire;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use derp_kv_core::{Counter, Expiry, KvStore, Result};
use derp_kv_memory::MemoryStore;

use super::broken::{Mutant, mutant};
use super::defect::{Ttl, defect, defects, gap};

pub(super) fn mutants() -> Vec<Mutant> {
    let linearizable = "concurrency::linearizable";
    let cancel = "concurrency::cancel_is_all_or_nothing";
    let mut mutants = vec![
        mutant::<IncrHasGap>(linearizable, "an increment is a read and a later write"),
        mutant::<StaleReplica>(linearizable, "reads go to a replica that lags behind"),
        mutant::<DropsUnderLoad>(linearizable, "a write is dropped, as `Ok`, while another runs"),
        mutant::<SwapsReplies>(linearizable, "two callers get each other's reply"),
        mutant::<DeleteIsLate>(linearizable, "`delete` answers before it deletes"),
        mutant::<DeletesFirst>(cancel, "`set` deletes the old value first"),
        mutant::<WritesLater>(cancel, "a dropped `set` is applied behind a later call"),
        mutant::<TtlAfterSwap>(cancel, "a swap writes its value first and its TTL then"),
        mutant::<TtlAfterSet>(
            "concurrency::value_and_expiry_stay_together",
            "`set` writes its value first and its TTL then",
        ),
        mutant::<SetNxHasGap>(
            "concurrency::one_set_nx_wins",
            "`set_nx` looks first and writes then",
        ),
        mutant::<IncrHasGap>(
            "concurrency::increments_all_count",
            "an increment is a read and a later write",
        ),
        mutant::<CountsTwice>(
            "concurrency::increments_all_count",
            "an increment that meets another is applied twice",
        ),
        mutant::<SwapHasGap>(
            "concurrency::compare_and_set_loses_no_update",
            "a swap compares first and writes then",
        ),
        mutant::<CompareThenDelete>(
            "concurrency::one_compare_and_delete_wins",
            "`compare_and_delete` compares first and deletes then",
        ),
        mutant::<LookThenDelete>(
            "concurrency::one_delete_wins",
            "`delete` looks first and deletes then",
        ),
    ];
    mutants.extend(dropped::mutants());
    mutants.extend(expired::mutants());
    mutants.extend(order::mutants());
    mutants.extend(torn::mutants());
    mutants.extend(windows::mutants());
    mutants
}

/// What the replica has of each key.
#[derive(Clone, Debug, Default)]
struct StaleReplica(Arc<Mutex<HashMap<Vec<u8>, Option<Bytes>>>>);

defect! { StaleReplica []
    get(self, kv, key) {
        // Each read is answered with what the read before would have found.
        let now = kv.get(key).await?;
        let lagging = self.0.lock().unwrap().insert(key.to_vec(), now);
        Ok(lagging.flatten())
    }
}

#[derive(Clone, Debug, Default)]
struct DropsUnderLoad(Arc<AtomicU32>);

defect! { DropsUnderLoad []
    set(self, kv, key, value, ttl) {
        let others = self.0.fetch_add(1, Ordering::SeqCst);
        gap().await;
        self.0.fetch_sub(1, Ordering::SeqCst);
        if others == 0 { kv.set(key, value, ttl).await } else { Ok(()) }
    }
}

#[derive(Clone, Debug, Default)]
struct SwapsReplies(Arc<Mutex<Vec<Option<Bytes>>>>);

defect! { SwapsReplies []
    get(self, kv, key) {
        let reply = kv.get(key).await?;
        self.0.lock().unwrap().push(reply);
        gap().await;
        // The last reply goes to the first caller that looks.
        let last = self.0.lock().unwrap().pop();
        Ok(last.flatten())
    }
}

#[derive(Clone, Debug, Default)]
struct CountsTwice(Arc<AtomicU32>);

defect! { CountsTwice []
    incr(self, kv, key, by, ttl) {
        let others = self.0.fetch_add(1, Ordering::SeqCst);
        let mut counter = kv.incr(key, by, ttl).await?;
        gap().await;
        if others > 0 {
            counter = kv.incr(key, by, ttl).await?;
        }
        self.0.fetch_sub(1, Ordering::SeqCst);
        Ok(counter)
    }
}

/// Sends a write again where its caller has gone away.
struct Resend<'a> {
    kv: &'a MemoryStore,
    key: &'a [u8],
    value: &'a [u8],
    ttl: Ttl,
    done: bool,
}

impl Drop for Resend<'_> {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        let (kv, key, value, ttl) =
            (self.kv.clone(), self.key.to_vec(), self.value.to_vec(), self.ttl);
        tokio::spawn(async move {
            tokio::task::yield_now().await;
            kv.set(&key, &value, ttl).await
        });
    }
}

defects! {
    WritesLater {
        set(self, kv, key, value, ttl) {
            let mut resend = Resend { kv, key, value, ttl, done: false };
            tokio::task::yield_now().await;
            resend.done = true;
            kv.set(key, value, ttl).await
        }
    }
    IncrHasGap {
        incr(self, kv, key, by, ttl) {
            let before = kv.get_with_ttl(key).await?;
            let value = Counter::parse(before.as_ref().map_or(b"0", |(value, _)| value))?;
            let value = Counter::add(value, by)?;
            let ttl = before.map_or(ttl, |(_, expiry)| expiry.remaining());
            gap().await;
            kv.set(key, value.to_string().as_bytes(), ttl).await?;
            Ok(Counter { value, expiry: ttl.map_or(Expiry::Never, Expiry::In) })
        }
    }
    DeleteIsLate {
        delete(self, kv, key) {
            let there = kv.exists(key).await?;
            let (kv, key) = (kv.clone(), key.to_vec());
            tokio::spawn(async move {
                gap().await;
                kv.delete(&key).await
            });
            Ok(there)
        }
    }
    DeletesFirst {
        set(self, kv, key, value, ttl) {
            kv.delete(key).await?;
            tokio::task::yield_now().await;
            kv.set(key, value, ttl).await
        }
    }
    TtlAfterSwap {
        compare_and_set(self, kv, key, expected, value, ttl) {
            let swapped = kv.compare_and_set(key, expected, value, None).await?;
            tokio::task::yield_now().await;
            if let (true, Some(ttl)) = (swapped, ttl) {
                kv.expire(key, ttl).await?;
            }
            Ok(swapped)
        }
    }
    TtlAfterSet {
        set(self, kv, key, value, ttl) {
            kv.set(key, value, None).await?;
            gap().await;
            if let Some(ttl) = ttl {
                kv.expire(key, ttl).await?;
            }
            Ok(())
        }
    }
    SetNxHasGap {
        set_nx(self, kv, key, value, ttl) {
            let absent = !kv.exists(key).await?;
            gap().await;
            if absent {
                kv.set(key, value, ttl).await?;
            }
            Ok(absent)
        }
    }
    SwapHasGap {
        compare_and_set(self, kv, key, expected, value, ttl) {
            let equal = kv.get(key).await?.as_deref() == Some(expected);
            gap().await;
            if equal {
                kv.set(key, value, ttl).await?;
            }
            Ok(equal)
        }
    }
    CompareThenDelete {
        compare_and_delete(self, kv, key, expected) {
            let equal = kv.get(key).await?.as_deref() == Some(expected);
            gap().await;
            if equal {
                kv.delete(key).await?;
            }
            Ok(equal)
        }
    }
    LookThenDelete {
        delete(self, kv, key) {
            let there = kv.exists(key).await?;
            gap().await;
            kv.delete(key).await?;
            Ok(there)
        }
        delete_many(self, kv, keys) {
            let there = kv.mget(keys).await?.into_iter().flatten().count();
            gap().await;
            kv.delete_many(keys).await?;
            Ok(there as u64)
        }
    }
}
