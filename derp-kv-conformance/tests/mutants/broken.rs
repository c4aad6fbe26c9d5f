//! Stores with one defect each, and the harness that shows them to a law.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use derp_kv_conformance::{BoxError, Harness, Law, LawReport, Profile, Time, run_law};
use derp_kv_core::{Counter, Expiry, Flights, KvStore, Result};
use derp_kv_memory::MemoryStore;
use futures_core::stream::BoxStream;

/// What a store does instead of the right thing: each call that is not overridden is right.
#[async_trait]
pub(crate) trait Defect: Debug + Send + Sync + 'static {
    async fn get(&self, kv: &MemoryStore, key: &[u8]) -> Result<Option<Bytes>> {
        kv.get(key).await
    }

    async fn get_with_ttl(&self, kv: &MemoryStore, key: &[u8]) -> Result<Option<(Bytes, Expiry)>> {
        kv.get_with_ttl(key).await
    }

    async fn exists(&self, kv: &MemoryStore, key: &[u8]) -> Result<bool> {
        kv.exists(key).await
    }

    async fn ttl(&self, kv: &MemoryStore, key: &[u8]) -> Result<Option<Expiry>> {
        kv.ttl(key).await
    }

    async fn mget(&self, kv: &MemoryStore, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>> {
        kv.mget(keys).await
    }

    fn scan<'a>(&'a self, kv: &'a MemoryStore, prefix: &[u8]) -> BoxStream<'a, Result<Bytes>> {
        kv.scan(prefix)
    }

    async fn set(&self, kv: &MemoryStore, key: &[u8], value: &[u8], ttl: Ttl) -> Result<()> {
        kv.set(key, value, ttl).await
    }

    async fn mset(&self, kv: &MemoryStore, items: &[(&[u8], &[u8])], ttl: Ttl) -> Result<()> {
        kv.mset(items, ttl).await
    }

    async fn delete(&self, kv: &MemoryStore, key: &[u8]) -> Result<bool> {
        kv.delete(key).await
    }

    async fn delete_many(&self, kv: &MemoryStore, keys: &[&[u8]]) -> Result<u64> {
        kv.delete_many(keys).await
    }

    async fn expire(&self, kv: &MemoryStore, key: &[u8], ttl: Duration) -> Result<bool> {
        kv.expire(key, ttl).await
    }

    async fn set_nx(&self, kv: &MemoryStore, key: &[u8], value: &[u8], ttl: Ttl) -> Result<bool> {
        kv.set_nx(key, value, ttl).await
    }

    async fn incr(&self, kv: &MemoryStore, key: &[u8], by: i64, ttl: Ttl) -> Result<Counter> {
        kv.incr(key, by, ttl).await
    }

    async fn compare_and_set(
        &self,
        kv: &MemoryStore,
        key: &[u8],
        expected: &[u8],
        value: &[u8],
        ttl: Ttl,
    ) -> Result<bool> {
        kv.compare_and_set(key, expected, value, ttl).await
    }

    async fn compare_and_delete(
        &self,
        kv: &MemoryStore,
        key: &[u8],
        expected: &[u8],
    ) -> Result<bool> {
        kv.compare_and_delete(key, expected).await
    }

    async fn wait_for_change(
        &self,
        kv: &MemoryStore,
        key: &[u8],
        seen: Option<&[u8]>,
        at_most: Duration,
    ) {
        kv.wait_for_change(key, seen, at_most).await;
    }
}

pub(crate) type Ttl = Option<Duration>;

/// The control: no defect at all.
#[derive(Clone, Debug, Default)]
pub(crate) struct Honest;

impl Defect for Honest {}

/// A right store behind a defect. Clones share both.
#[derive(Clone, Debug)]
pub(crate) struct Broken {
    kv: MemoryStore,
    // Not a parameter of the type: each law would be compiled for each defect.
    defect: Arc<dyn Defect>,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl KvStore for Broken {
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        self.defect.get(&self.kv, key).await
    }

    async fn get_with_ttl(&self, key: &[u8]) -> Result<Option<(Bytes, Expiry)>> {
        self.defect.get_with_ttl(&self.kv, key).await
    }

    async fn exists(&self, key: &[u8]) -> Result<bool> {
        self.defect.exists(&self.kv, key).await
    }

    async fn ttl(&self, key: &[u8]) -> Result<Option<Expiry>> {
        self.defect.ttl(&self.kv, key).await
    }

    async fn mget(&self, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>> {
        self.defect.mget(&self.kv, keys).await
    }

    fn scan(&self, prefix: &[u8]) -> BoxStream<'_, Result<Bytes>> {
        self.defect.scan(&self.kv, prefix)
    }

    async fn set(&self, key: &[u8], value: &[u8], ttl: Ttl) -> Result<()> {
        self.defect.set(&self.kv, key, value, ttl).await
    }

    async fn mset(&self, items: &[(&[u8], &[u8])], ttl: Ttl) -> Result<()> {
        self.defect.mset(&self.kv, items, ttl).await
    }

    async fn delete(&self, key: &[u8]) -> Result<bool> {
        self.defect.delete(&self.kv, key).await
    }

    async fn delete_many(&self, keys: &[&[u8]]) -> Result<u64> {
        self.defect.delete_many(&self.kv, keys).await
    }

    async fn expire(&self, key: &[u8], ttl: Duration) -> Result<bool> {
        self.defect.expire(&self.kv, key, ttl).await
    }

    async fn set_nx(&self, key: &[u8], value: &[u8], ttl: Ttl) -> Result<bool> {
        self.defect.set_nx(&self.kv, key, value, ttl).await
    }

    async fn incr(&self, key: &[u8], by: i64, ttl: Ttl) -> Result<Counter> {
        self.defect.incr(&self.kv, key, by, ttl).await
    }

    async fn compare_and_set(
        &self,
        key: &[u8],
        expected: &[u8],
        value: &[u8],
        ttl: Ttl,
    ) -> Result<bool> {
        self.defect.compare_and_set(&self.kv, key, expected, value, ttl).await
    }

    async fn compare_and_delete(&self, key: &[u8], expected: &[u8]) -> Result<bool> {
        self.defect.compare_and_delete(&self.kv, key, expected).await
    }

    async fn wait_for_change(&self, key: &[u8], seen: Option<&[u8]>, at_most: Duration) {
        self.defect.wait_for_change(&self.kv, key, seen, at_most).await;
    }

    fn flights(&self) -> Option<&Flights> {
        self.kv.flights()
    }
}

/// Opens stores with a defect.
struct Opens {
    defect: fn() -> Arc<dyn Defect>,
    case_timeout: Duration,
}

#[async_trait]
impl Harness for Opens {
    type Store = Broken;
    type Guard = ();

    async fn open(&self) -> Result<(Broken, ()), BoxError> {
        Ok((Broken { kv: MemoryStore::new(), defect: (self.defect)() }, ()))
    }

    fn time(&self) -> Time {
        Time::Virtual
    }

    fn profile(&self) -> Profile {
        Profile::default().without_seeds().case_timeout(self.case_timeout)
    }
}

/// A broken store and the law that must catch it.
pub(crate) struct Mutant {
    pub(crate) law: &'static Law,
    /// What it does wrong.
    pub(crate) wrong: &'static str,
    defect: fn() -> Arc<dyn Defect>,
    case_timeout: Duration,
}

impl Mutant {
    pub(crate) fn run(&self) -> LawReport {
        run_law(Opens { defect: self.defect, case_timeout: self.case_timeout }, self.law)
    }
}

/// A store with the defect `D`, which `law` must catch.
pub(crate) fn mutant<D: Defect + Default>(law: &'static str, wrong: &'static str) -> Mutant {
    let law = Law::named(law).unwrap_or_else(|| panic!("there is no law `{law}`"));
    let defect = || Arc::new(D::default()) as Arc<dyn Defect>;
    Mutant { law, wrong, defect, case_timeout: Duration::from_secs(20) }
}

/// [`mutant`], where a call that takes longer is taken for hung.
pub(crate) fn timed<D: Defect + Default>(
    law: &'static str,
    wrong: &'static str,
    case_timeout: Duration,
) -> Mutant {
    Mutant { case_timeout, ..mutant::<D>(law, wrong) }
}

/// Between a look and a leap: long enough for everybody else to come between them.
pub(crate) async fn gap() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

/// Makes a type for each defect: without state, and with the calls that are wrong.
macro_rules! defects {
    ($($name:ident { $($calls:tt)* })*) => {$(
        #[derive(Clone, Debug, Default)]
        pub(crate) struct $name;

        $crate::mutants::broken::defect! { $name [] $($calls)* }
    )*};
}

/// Spells the signatures out; `self` is passed for its hygiene.
macro_rules! defect {
    ($name:ident [$($done:tt)*]) => {
        #[async_trait::async_trait]
        impl $crate::mutants::broken::Defect for $name { $($done)* }
    };
    ($name:ident [$($done:tt)*] get($this:ident, $kv:ident, $key:ident) {$($body:tt)*} $($more:tt)*) => {
        $crate::mutants::broken::defect! { $name [$($done)*
            async fn get(&$this, $kv: &MemoryStore, $key: &[u8]) -> Result<Option<Bytes>> {$($body)*}
        ] $($more)* }
    };
    ($name:ident [$($done:tt)*] get_with_ttl($this:ident, $kv:ident, $key:ident) {$($body:tt)*} $($more:tt)*) => {
        $crate::mutants::broken::defect! { $name [$($done)*
            async fn get_with_ttl(&$this, $kv: &MemoryStore, $key: &[u8]) -> Result<Option<(Bytes, Expiry)>> {$($body)*}
        ] $($more)* }
    };
    ($name:ident [$($done:tt)*] exists($this:ident, $kv:ident, $key:ident) {$($body:tt)*} $($more:tt)*) => {
        $crate::mutants::broken::defect! { $name [$($done)*
            async fn exists(&$this, $kv: &MemoryStore, $key: &[u8]) -> Result<bool> {$($body)*}
        ] $($more)* }
    };
    ($name:ident [$($done:tt)*] ttl($this:ident, $kv:ident, $key:ident) {$($body:tt)*} $($more:tt)*) => {
        $crate::mutants::broken::defect! { $name [$($done)*
            async fn ttl(&$this, $kv: &MemoryStore, $key: &[u8]) -> Result<Option<Expiry>> {$($body)*}
        ] $($more)* }
    };
    ($name:ident [$($done:tt)*] mget($this:ident, $kv:ident, $keys:ident) {$($body:tt)*} $($more:tt)*) => {
        $crate::mutants::broken::defect! { $name [$($done)*
            async fn mget(&$this, $kv: &MemoryStore, $keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>> {$($body)*}
        ] $($more)* }
    };
    ($name:ident [$($done:tt)*] scan($this:ident, $kv:ident, $prefix:ident) {$($body:tt)*} $($more:tt)*) => {
        $crate::mutants::broken::defect! { $name [$($done)*
            fn scan<'a>(&'a $this, $kv: &'a MemoryStore, $prefix: &[u8]) -> BoxStream<'a, Result<Bytes>> {$($body)*}
        ] $($more)* }
    };
    ($name:ident [$($done:tt)*] set($this:ident, $kv:ident, $key:ident, $value:ident, $ttl:ident) {$($body:tt)*} $($more:tt)*) => {
        $crate::mutants::broken::defect! { $name [$($done)*
            async fn set(&$this, $kv: &MemoryStore, $key: &[u8], $value: &[u8], $ttl: Ttl) -> Result<()> {$($body)*}
        ] $($more)* }
    };
    ($name:ident [$($done:tt)*] mset($this:ident, $kv:ident, $items:ident, $ttl:ident) {$($body:tt)*} $($more:tt)*) => {
        $crate::mutants::broken::defect! { $name [$($done)*
            async fn mset(&$this, $kv: &MemoryStore, $items: &[(&[u8], &[u8])], $ttl: Ttl) -> Result<()> {$($body)*}
        ] $($more)* }
    };
    ($name:ident [$($done:tt)*] delete($this:ident, $kv:ident, $key:ident) {$($body:tt)*} $($more:tt)*) => {
        $crate::mutants::broken::defect! { $name [$($done)*
            async fn delete(&$this, $kv: &MemoryStore, $key: &[u8]) -> Result<bool> {$($body)*}
        ] $($more)* }
    };
    ($name:ident [$($done:tt)*] delete_many($this:ident, $kv:ident, $keys:ident) {$($body:tt)*} $($more:tt)*) => {
        $crate::mutants::broken::defect! { $name [$($done)*
            async fn delete_many(&$this, $kv: &MemoryStore, $keys: &[&[u8]]) -> Result<u64> {$($body)*}
        ] $($more)* }
    };
    ($name:ident [$($done:tt)*] expire($this:ident, $kv:ident, $key:ident, $ttl:ident) {$($body:tt)*} $($more:tt)*) => {
        $crate::mutants::broken::defect! { $name [$($done)*
            async fn expire(&$this, $kv: &MemoryStore, $key: &[u8], $ttl: Duration) -> Result<bool> {$($body)*}
        ] $($more)* }
    };
    ($name:ident [$($done:tt)*] set_nx($this:ident, $kv:ident, $key:ident, $value:ident, $ttl:ident) {$($body:tt)*} $($more:tt)*) => {
        $crate::mutants::broken::defect! { $name [$($done)*
            async fn set_nx(&$this, $kv: &MemoryStore, $key: &[u8], $value: &[u8], $ttl: Ttl) -> Result<bool> {$($body)*}
        ] $($more)* }
    };
    ($name:ident [$($done:tt)*] incr($this:ident, $kv:ident, $key:ident, $by:ident, $ttl:ident) {$($body:tt)*} $($more:tt)*) => {
        $crate::mutants::broken::defect! { $name [$($done)*
            async fn incr(&$this, $kv: &MemoryStore, $key: &[u8], $by: i64, $ttl: Ttl) -> Result<Counter> {$($body)*}
        ] $($more)* }
    };
    ($name:ident [$($done:tt)*] compare_and_set($this:ident, $kv:ident, $key:ident, $expected:ident, $value:ident, $ttl:ident) {$($body:tt)*} $($more:tt)*) => {
        $crate::mutants::broken::defect! { $name [$($done)*
            async fn compare_and_set(&$this, $kv: &MemoryStore, $key: &[u8], $expected: &[u8], $value: &[u8], $ttl: Ttl) -> Result<bool> {$($body)*}
        ] $($more)* }
    };
    ($name:ident [$($done:tt)*] compare_and_delete($this:ident, $kv:ident, $key:ident, $expected:ident) {$($body:tt)*} $($more:tt)*) => {
        $crate::mutants::broken::defect! { $name [$($done)*
            async fn compare_and_delete(&$this, $kv: &MemoryStore, $key: &[u8], $expected: &[u8]) -> Result<bool> {$($body)*}
        ] $($more)* }
    };
    ($name:ident [$($done:tt)*] wait_for_change($this:ident, $kv:ident, $key:ident, $seen:ident, $at_most:ident) {$($body:tt)*} $($more:tt)*) => {
        $crate::mutants::broken::defect! { $name [$($done)*
            async fn wait_for_change(&$this, $kv: &MemoryStore, $key: &[u8], $seen: Option<&[u8]>, $at_most: Duration) {$($body)*}
        ] $($more)* }
    };
}

pub(crate) use {defect, defects};
