//! A look and a leap with a few instructions between them, and locks that others do not know.

use std::sync::Arc;

use derp_kv_core::{Counter, Expiry, KvStore, Result};
use derp_kv_memory::MemoryStore;

use super::expired::Records;
use crate::mutants::broken::{Mutant, mutant};
use crate::mutants::defect::{Defect, Ttl, defect, defects};

pub(super) fn mutants() -> Vec<Mutant> {
    let set_nx = "concurrency::one_set_nx_wins";
    let incr = "concurrency::increments_all_count";
    let swap = "concurrency::compare_and_set_loses_no_update";
    let compared = "concurrency::one_compare_and_delete_wins";
    let deleted = "concurrency::one_delete_wins";
    vec![
        mutant::<SetNxWindow>(set_nx, "`set_nx` looks and writes, with nothing between"),
        mutant::<SetNxReadsBack>(set_nx, "`set_nx` is true for whoever reads its own value back"),
        mutant::<SetNxLocksItsProcess>(set_nx, "`set_nx` is atomic within its process alone"),
        mutant::<SetNxTakesExpired>(set_nx, "`set_nx` over an expired record does not look again"),
        mutant::<IncrWindow>(incr, "an increment reads and writes, with nothing between"),
        mutant::<IncrLocksItsProcess>(incr, "an increment is atomic within its process alone"),
        mutant::<IncrCreatesTwice>(incr, "two first increments each create the counter"),
        mutant::<SwapWindow>(swap, "a swap compares and writes, with nothing between"),
        mutant::<SwapLocksItsProcess>(swap, "a swap is atomic within its process alone"),
        mutant::<CompareWindow>(compared, "it compares and deletes, with nothing between"),
        mutant::<CompareThenLook>(compared, "it compares, deletes, and looks whether it is gone"),
        mutant::<DeleteWindow>(deleted, "`delete` looks and deletes, with nothing between"),
        mutant::<DeleteManyWindow>(
            deleted,
            "`delete_many` counts and deletes, with nothing between",
        ),
        mutant::<DeleteManyAlone>(deleted, "`delete` and `delete_many` take different locks"),
    ]
}

/// Atomic on its own handle only.
macro_rules! of_one_process {
    ($($name:ident { $($call:tt)* })*) => {$(
        #[derive(Clone, Debug, Default)]
        struct $name(Arc<tokio::sync::Mutex<()>>);

        #[async_trait::async_trait]
        impl Defect for $name {
            $($call)*

            fn elsewhere(&self) -> Option<Arc<dyn Defect>> {
                Some(Arc::new(Self::default()))
            }
        }
    )*};
}

of_one_process! {
    SetNxLocksItsProcess {
        async fn set_nx(
            &self,
            kv: &MemoryStore,
            key: &[u8],
            value: &[u8],
            ttl: Ttl,
        ) -> Result<bool> {
            let _alone = self.0.lock().await;
            SetNxWindow.set_nx(kv, key, value, ttl).await
        }
    }
    IncrLocksItsProcess {
        async fn incr(&self, kv: &MemoryStore, key: &[u8], by: i64, ttl: Ttl) -> Result<Counter> {
            let _alone = self.0.lock().await;
            IncrWindow.incr(kv, key, by, ttl).await
        }
    }
    SwapLocksItsProcess {
        async fn compare_and_set(
            &self,
            kv: &MemoryStore,
            key: &[u8],
            expected: &[u8],
            value: &[u8],
            ttl: Ttl,
        ) -> Result<bool> {
            let _alone = self.0.lock().await;
            SwapWindow.compare_and_set(kv, key, expected, value, ttl).await
        }
    }
}

/// Whose lock is held while a batch deletes, and not while `delete` does.
#[derive(Clone, Debug, Default)]
struct DeleteManyAlone(Arc<tokio::sync::Mutex<()>>);

defect! { DeleteManyAlone []
    delete_many(self, kv, keys) {
        let _alone = self.0.lock().await;
        DeleteManyWindow.delete_many(kv, keys).await
    }
}

#[derive(Clone, Debug, Default)]
struct SetNxTakesExpired(Records);

defect! { SetNxTakesExpired []
    mset(self, kv, items, ttl) {
        self.0.wrote(items, ttl);
        kv.mset(items, ttl).await
    }
    set_nx(self, kv, key, value, ttl) {
        if self.0.take_expired(key) {
            kv.set(key, value, ttl).await?;
            return Ok(true);
        }
        kv.set_nx(key, value, ttl).await
    }
}

defects! {
    SetNxWindow {
        set_nx(self, kv, key, value, ttl) {
            let absent = !kv.exists(key).await?;
            if absent {
                kv.set(key, value, ttl).await?;
            }
            Ok(absent)
        }
    }
    SetNxReadsBack {
        set_nx(self, kv, key, value, ttl) {
            if kv.exists(key).await? {
                return Ok(false);
            }
            kv.set(key, value, ttl).await?;
            Ok(kv.get(key).await?.as_deref() == Some(value))
        }
    }
    IncrWindow {
        incr(self, kv, key, by, ttl) {
            let before = kv.get_with_ttl(key).await?;
            let value = Counter::parse(before.as_ref().map_or(b"0", |(value, _)| value))?;
            let value = Counter::add(value, by)?;
            let ttl = before.map_or(ttl, |(_, expiry)| expiry.remaining());
            kv.set(key, value.to_string().as_bytes(), ttl).await?;
            Ok(Counter { value, expiry: ttl.map_or(Expiry::Never, Expiry::In) })
        }
    }
    IncrCreatesTwice {
        incr(self, kv, key, by, ttl) {
            if kv.exists(key).await? {
                return kv.incr(key, by, ttl).await;
            }
            kv.set(key, by.to_string().as_bytes(), ttl).await?;
            Ok(Counter { value: by, expiry: ttl.map_or(Expiry::Never, Expiry::In) })
        }
    }
    SwapWindow {
        compare_and_set(self, kv, key, expected, value, ttl) {
            let equal = kv.get(key).await?.as_deref() == Some(expected);
            if equal {
                kv.set(key, value, ttl).await?;
            }
            Ok(equal)
        }
    }
    CompareWindow {
        compare_and_delete(self, kv, key, expected) {
            let equal = kv.get(key).await?.as_deref() == Some(expected);
            if equal {
                kv.delete(key).await?;
            }
            Ok(equal)
        }
    }
    CompareThenLook {
        compare_and_delete(self, kv, key, expected) {
            if kv.get(key).await?.as_deref() != Some(expected) {
                return Ok(false);
            }
            kv.delete(key).await?;
            Ok(!kv.exists(key).await?)
        }
    }
    DeleteWindow {
        delete(self, kv, key) {
            let there = kv.exists(key).await?;
            kv.delete(key).await?;
            Ok(there)
        }
    }
    DeleteManyWindow {
        delete_many(self, kv, keys) {
            let there = kv.mget(keys).await?.into_iter().flatten().count();
            kv.delete_many(keys).await?;
            Ok(there as u64)
        }
    }
}
