use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use derp_kv_core::{Counter, ErrorKind, Expiry, KvStore, Result};
use derp_kv_memory::MemoryStore;
use futures_core::stream::BoxStream;
use futures_util::{StreamExt, stream};

use super::broken::{Mutant, mutant};
use super::defect::{Ttl, defect, defects, gap};

pub(super) fn mutants() -> Vec<Mutant> {
    vec![
        mutant::<DeleteSeesExpired>(
            "expiry::expired_is_absent",
            "`delete` finds an expired key that nobody has swept",
        ),
        mutant::<ScanSeesExpired>("expiry::expired_is_absent", "`scan` yields expired keys"),
        mutant::<BlobsStay>(
            "expiry::expired_is_absent",
            "values above 64 KiB are in a second table, which `get` does not ask for their TTL",
        ),
        mutant::<LongKeysStay>(
            "expiry::expired_is_absent",
            "a scan yields expired keys above 1,000 bytes, which have an index of their own",
        ),
        mutant::<SwappedBlobsStay>(
            "expiry::expired_is_absent",
            "a swap to a value above 16 KiB forgets its TTL",
        ),
        mutant::<LongKeysAreTaken>(
            "expiry::expired_is_absent",
            "`set_nx` finds expired keys above 512 bytes",
        ),
        mutant::<LocksOutliveTtl>("expiry::expired_is_absent", "`set_nx` ignores its TTL"),
        mutant::<ExpireOnlyProlongs>(
            "expiry::any_history_keeps_its_deadlines",
            "`expire` never shortens a TTL",
        ),
        mutant::<ReadingProlongs>(
            "expiry::any_history_keeps_its_deadlines",
            "`get` starts the TTL anew",
        ),
        mutant::<ZeroIsNever>(
            "expiry::invalid_ttl_writes_nothing",
            "a TTL of zero means no expiry",
        ),
        mutant::<ZeroDeletes>(
            "expiry::invalid_ttl_writes_nothing",
            "`expire` with a TTL of zero deletes",
        ),
        mutant::<RefusalIsFalse>(
            "expiry::invalid_ttl_writes_nothing",
            "the error of an invalid TTL is swallowed as `false`",
        ),
        mutant::<WholeSeconds>("expiry::millisecond_resolution", "a TTL is cut to whole seconds"),
        mutant::<TenMillis>(
            "expiry::millisecond_resolution",
            "a TTL is rounded up to ten milliseconds",
        ),
        mutant::<RoundsDown>(
            "expiry::fractions_round_up",
            "a fraction of a millisecond is cut off",
        ),
        mutant::<ReportsSeconds>(
            "expiry::ttl_within_bounds",
            "`ttl` reports what is left in seconds, rounded up",
        ),
        mutant::<ReportsZero>(
            "expiry::ttl_within_bounds",
            "`ttl` reports what is left in seconds, cut off",
        ),
        mutant::<MsetKeepsTtl>("expiry::none_clears", "`mset` without a TTL keeps the old ones"),
        mutant::<OldTimerFires>(
            "expiry::none_clears",
            "the timer of an overwritten TTL deletes the new value",
        ),
        mutant::<ReadsTwice>(
            "expiry::value_and_expiry_agree",
            "`get_with_ttl` reads the value, and then the expiry",
        ),
        mutant::<ExpireCreates>("expiry::expire_creates_nothing", "`expire` creates a missing key"),
        mutant::<ExpireIsTrue>("expiry::expire_creates_nothing", "`expire` is always true"),
        mutant::<ExpireOnlyWithout>(
            "expiry::expire_replaces",
            "`expire` leaves a key that has a TTL",
        ),
        mutant::<ExpireEmpties>("expiry::expire_replaces", "`expire` loses the value"),
    ]
}

/// The keys that were written and not deleted, expired or not.
#[derive(Clone, Debug, Default)]
struct DeleteSeesExpired(Arc<Mutex<HashSet<Vec<u8>>>>);

defect! { DeleteSeesExpired []
    set(self, kv, key, value, ttl) {
        self.0.lock().unwrap().insert(key.to_vec());
        kv.set(key, value, ttl).await
    }
    delete(self, kv, key) {
        let unswept = self.0.lock().unwrap().remove(key);
        Ok(kv.delete(key).await? || unswept)
    }
}

#[derive(Clone, Debug, Default)]
struct ScanSeesExpired(Arc<Mutex<HashSet<Vec<u8>>>>);

defect! { ScanSeesExpired []
    set(self, kv, key, value, ttl) {
        self.0.lock().unwrap().insert(key.to_vec());
        kv.set(key, value, ttl).await
    }
    delete(self, kv, key) {
        self.0.lock().unwrap().remove(key);
        kv.delete(key).await
    }
    scan(self, _kv, prefix) {
        let keys = self.0.lock().unwrap().clone();
        let prefix = prefix.to_vec();
        let found = keys.into_iter().filter(move |key| key.starts_with(&prefix));
        stream::iter(found.map(|key| Ok(Bytes::from(key)))).boxed()
    }
}

/// The values in the second table.
#[derive(Clone, Debug, Default)]
struct BlobsStay(Arc<Mutex<HashMap<Vec<u8>, Bytes>>>);

defect! { BlobsStay []
    set(self, kv, key, value, ttl) {
        if value.len() > 1 << 16 {
            self.0.lock().unwrap().insert(key.to_vec(), Bytes::copy_from_slice(value));
        } else {
            self.0.lock().unwrap().remove(key);
        }
        kv.set(key, value, ttl).await
    }
    delete(self, kv, key) {
        self.0.lock().unwrap().remove(key);
        kv.delete(key).await
    }
    get(self, kv, key) {
        let blob = self.0.lock().unwrap().get(key).cloned();
        Ok(kv.get(key).await?.or(blob))
    }
}

/// The long keys that were written and not deleted.
#[derive(Clone, Debug, Default)]
struct LongKeysStay(Arc<Mutex<HashSet<Vec<u8>>>>);

defect! { LongKeysStay []
    set(self, kv, key, value, ttl) {
        if key.len() > 1_000 {
            self.0.lock().unwrap().insert(key.to_vec());
        }
        kv.set(key, value, ttl).await
    }
    delete(self, kv, key) {
        self.0.lock().unwrap().remove(key);
        kv.delete(key).await
    }
    scan(self, kv, prefix) {
        let keys = self.0.lock().unwrap().clone();
        let prefix = prefix.to_vec();
        let long = keys.into_iter().filter({
            let prefix = prefix.clone();
            move |key| key.starts_with(&prefix)
        });
        let short = kv.scan(&prefix);
        let short = short.filter(|key| std::future::ready(key.as_ref().is_ok_and(|key| key.len() <= 1_000)));
        short.chain(stream::iter(long.map(|key| Ok(Bytes::from(key))))).boxed()
    }
}

#[derive(Clone, Debug, Default)]
struct LongKeysAreTaken(Arc<Mutex<HashSet<Vec<u8>>>>);

defect! { LongKeysAreTaken []
    mset(self, kv, items, ttl) {
        let long = items.iter().filter(|(key, _)| key.len() > 512);
        self.0.lock().unwrap().extend(long.map(|(key, _)| key.to_vec()));
        kv.mset(items, ttl).await
    }
    set_nx(self, kv, key, value, ttl) {
        let taken = self.0.lock().unwrap().contains(key);
        Ok(!taken && kv.set_nx(key, value, ttl).await?)
    }
}

/// Whether the error is that of an invalid TTL.
fn is_refusal<T>(result: &Result<T>) -> bool {
    matches!(result, Err(error) if error.kind() == ErrorKind::InvalidArgument)
}

fn rounded_up(ttl: Ttl, unit: Duration) -> Ttl {
    let units = |ttl: Duration| ttl.as_millis().div_ceil(unit.as_millis());
    // Only what is not refused anyway.
    ttl.filter(|ttl| !ttl.is_zero()).map_or(ttl, |ttl| Some(unit * units(ttl).try_into().ok()?))
}

fn seconds(expiry: Option<Expiry>, round: fn(f64) -> f64) -> Option<Expiry> {
    expiry.map(|expiry| match expiry {
        Expiry::Never => Expiry::Never,
        Expiry::In(left) => Expiry::In(Duration::from_secs_f64(round(left.as_secs_f64()))),
    })
}

defects! {
    LocksOutliveTtl {
        set_nx(self, kv, key, value, _ttl) { kv.set_nx(key, value, None).await }
    }
    SwappedBlobsStay {
        compare_and_set(self, kv, key, expected, value, ttl) {
            let ttl = ttl.filter(|_| value.len() <= 1 << 14);
            kv.compare_and_set(key, expected, value, ttl).await
        }
    }
    ExpireOnlyProlongs {
        expire(self, kv, key, ttl) {
            let before = kv.ttl(key).await?.and_then(|expiry| expiry.remaining());
            kv.expire(key, before.map_or(ttl, |before| before.max(ttl))).await
        }
    }
    ReadingProlongs {
        get(self, kv, key) {
            if kv.ttl(key).await?.is_some_and(|expiry| expiry != Expiry::Never) {
                kv.expire(key, Duration::from_secs(60)).await?;
            }
            kv.get(key).await
        }
    }
    ZeroIsNever {
        set(self, kv, key, value, ttl) {
            kv.set(key, value, ttl.filter(|ttl| !ttl.is_zero())).await
        }
    }
    ZeroDeletes {
        expire(self, kv, key, ttl) {
            if ttl.is_zero() { kv.delete(key).await } else { kv.expire(key, ttl).await }
        }
    }
    RefusalIsFalse {
        set_nx(self, kv, key, value, ttl) {
            let result = kv.set_nx(key, value, ttl).await;
            if is_refusal(&result) { Ok(false) } else { result }
        }
    }
    WholeSeconds {
        set(self, kv, key, value, ttl) {
            kv.set(key, value, rounded_up(ttl, Duration::from_secs(1))).await
        }
    }
    TenMillis {
        incr(self, kv, key, by, ttl) {
            kv.incr(key, by, rounded_up(ttl, Duration::from_millis(10))).await
        }
        set(self, kv, key, value, ttl) {
            kv.set(key, value, rounded_up(ttl, Duration::from_millis(10))).await
        }
    }
    RoundsDown {
        set(self, kv, key, value, ttl) {
            let cut = |ttl: Duration| Duration::from_millis((ttl.as_micros() / 1_000) as u64);
            kv.set(key, value, ttl.map(|ttl| cut(ttl).max(Duration::from_millis(1)))).await
        }
    }
    ReportsSeconds {
        ttl(self, kv, key) { Ok(seconds(kv.ttl(key).await?, f64::ceil)) }
    }
    ReportsZero {
        ttl(self, kv, key) { Ok(seconds(kv.ttl(key).await?, f64::floor)) }
    }
    MsetKeepsTtl {
        mset(self, kv, items, ttl) {
            for (key, value) in items {
                let before = kv.ttl(key).await?.and_then(|expiry| expiry.remaining());
                kv.set(key, value, ttl.or(before)).await?;
            }
            Ok(())
        }
    }
    OldTimerFires {
        set(self, kv, key, value, ttl) {
            kv.set(key, value, ttl).await?;
            if let Some(ttl) = ttl {
                let (kv, key) = (kv.clone(), key.to_vec());
                let deadline = tokio::time::Instant::now() + ttl;
                tokio::spawn(async move {
                    tokio::time::sleep_until(deadline).await;
                    kv.delete(&key).await
                });
            }
            Ok(())
        }
    }
    ReadsTwice {
        get_with_ttl(self, kv, key) {
            let Some(value) = kv.get(key).await? else { return Ok(None) };
            gap().await;
            Ok(kv.ttl(key).await?.map(|expiry| (value, expiry)))
        }
        set(self, kv, key, value, ttl) {
            kv.set(key, value, ttl).await?;
            gap().await;
            Ok(())
        }
    }
    ExpireCreates {
        expire(self, kv, key, ttl) {
            kv.set_nx(key, b"", Some(ttl)).await?;
            kv.expire(key, ttl).await
        }
    }
    ExpireIsTrue {
        expire(self, kv, key, ttl) { kv.expire(key, ttl).await.map(|_| true) }
    }
    ExpireOnlyWithout {
        expire(self, kv, key, ttl) {
            match kv.ttl(key).await? {
                Some(Expiry::In(_)) => Ok(true),
                _ => kv.expire(key, ttl).await,
            }
        }
    }
    ExpireEmpties {
        expire(self, kv, key, ttl) {
            let there = kv.exists(key).await?;
            if there {
                kv.set(key, b"", Some(ttl)).await?;
            }
            Ok(there)
        }
    }
}
