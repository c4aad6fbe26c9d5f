//! Stores that do one thing wrong: what a defect may get in the way of.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use derp_kv_core::{Counter, Expiry, Flights, KvStore, Result, Step, Stepped};
use derp_kv_memory::MemoryStore;
use futures_core::stream::BoxStream;
use tokio::runtime::Handle;

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

    fn scan(&self, kv: &MemoryStore, prefix: &[u8]) -> BoxStream<'static, Result<Bytes>> {
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

    async fn step(&self, kv: &MemoryStore, key: &[u8], step: &Step) -> Result<Stepped> {
        kv.step(key, step).await
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

    fn flights<'a>(&'a self, kv: &'a MemoryStore) -> Option<&'a Flights> {
        kv.flights()
    }

    fn runtime(&self) -> Option<Handle> {
        None
    }

    /// The defect of a clone of the handle; by default clones share it.
    fn cloned(&self) -> Option<Arc<dyn Defect>> {
        None
    }

    /// The defect of another process's handle on the same data; by default it is this one.
    fn elsewhere(&self) -> Option<Arc<dyn Defect>> {
        None
    }
}

pub(crate) type Ttl = Option<Duration>;

/// The control: no defect at all.
#[derive(Clone, Debug, Default)]
pub(crate) struct Honest;

impl Defect for Honest {}

/// Between a look and a leap: long enough for everybody else to come between them.
pub(crate) async fn gap() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

/// Makes a type for each defect: without state, and with the calls that are wrong.
macro_rules! defects {
    ($($name:ident { $($calls:tt)* })*) => {$(
        #[derive(Clone, Debug, Default)]
        pub(crate) struct $name;

        $crate::mutants::defect::defect! { $name [] $($calls)* }
    )*};
}

/// Spells the signatures out; `self` is passed for its hygiene.
macro_rules! defect {
    ($name:ident [$($done:tt)*]) => {
        #[async_trait::async_trait]
        impl $crate::mutants::defect::Defect for $name { $($done)* }
    };
    ($name:ident [$($done:tt)*] get($this:ident, $kv:ident, $key:ident) {$($body:tt)*} $($more:tt)*) => {
        $crate::mutants::defect::defect! { $name [$($done)*
            async fn get(&$this, $kv: &MemoryStore, $key: &[u8]) -> Result<Option<Bytes>> {$($body)*}
        ] $($more)* }
    };
    ($name:ident [$($done:tt)*] get_with_ttl($this:ident, $kv:ident, $key:ident) {$($body:tt)*} $($more:tt)*) => {
        $crate::mutants::defect::defect! { $name [$($done)*
            async fn get_with_ttl(&$this, $kv: &MemoryStore, $key: &[u8]) -> Result<Option<(Bytes, Expiry)>> {$($body)*}
        ] $($more)* }
    };
    ($name:ident [$($done:tt)*] exists($this:ident, $kv:ident, $key:ident) {$($body:tt)*} $($more:tt)*) => {
        $crate::mutants::defect::defect! { $name [$($done)*
            async fn exists(&$this, $kv: &MemoryStore, $key: &[u8]) -> Result<bool> {$($body)*}
        ] $($more)* }
    };
    ($name:ident [$($done:tt)*] ttl($this:ident, $kv:ident, $key:ident) {$($body:tt)*} $($more:tt)*) => {
        $crate::mutants::defect::defect! { $name [$($done)*
            async fn ttl(&$this, $kv: &MemoryStore, $key: &[u8]) -> Result<Option<Expiry>> {$($body)*}
        ] $($more)* }
    };
    ($name:ident [$($done:tt)*] mget($this:ident, $kv:ident, $keys:ident) {$($body:tt)*} $($more:tt)*) => {
        $crate::mutants::defect::defect! { $name [$($done)*
            async fn mget(&$this, $kv: &MemoryStore, $keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>> {$($body)*}
        ] $($more)* }
    };
    ($name:ident [$($done:tt)*] scan($this:ident, $kv:ident, $prefix:ident) {$($body:tt)*} $($more:tt)*) => {
        $crate::mutants::defect::defect! { $name [$($done)*
            fn scan(&$this, $kv: &MemoryStore, $prefix: &[u8]) -> BoxStream<'static, Result<Bytes>> {$($body)*}
        ] $($more)* }
    };
    ($name:ident [$($done:tt)*] set($this:ident, $kv:ident, $key:ident, $value:ident, $ttl:ident) {$($body:tt)*} $($more:tt)*) => {
        $crate::mutants::defect::defect! { $name [$($done)*
            async fn set(&$this, $kv: &MemoryStore, $key: &[u8], $value: &[u8], $ttl: Ttl) -> Result<()> {$($body)*}
        ] $($more)* }
    };
    ($name:ident [$($done:tt)*] mset($this:ident, $kv:ident, $items:ident, $ttl:ident) {$($body:tt)*} $($more:tt)*) => {
        $crate::mutants::defect::defect! { $name [$($done)*
            async fn mset(&$this, $kv: &MemoryStore, $items: &[(&[u8], &[u8])], $ttl: Ttl) -> Result<()> {$($body)*}
        ] $($more)* }
    };
    ($name:ident [$($done:tt)*] delete($this:ident, $kv:ident, $key:ident) {$($body:tt)*} $($more:tt)*) => {
        $crate::mutants::defect::defect! { $name [$($done)*
            async fn delete(&$this, $kv: &MemoryStore, $key: &[u8]) -> Result<bool> {$($body)*}
        ] $($more)* }
    };
    ($name:ident [$($done:tt)*] delete_many($this:ident, $kv:ident, $keys:ident) {$($body:tt)*} $($more:tt)*) => {
        $crate::mutants::defect::defect! { $name [$($done)*
            async fn delete_many(&$this, $kv: &MemoryStore, $keys: &[&[u8]]) -> Result<u64> {$($body)*}
        ] $($more)* }
    };
    ($name:ident [$($done:tt)*] expire($this:ident, $kv:ident, $key:ident, $ttl:ident) {$($body:tt)*} $($more:tt)*) => {
        $crate::mutants::defect::defect! { $name [$($done)*
            async fn expire(&$this, $kv: &MemoryStore, $key: &[u8], $ttl: Duration) -> Result<bool> {$($body)*}
        ] $($more)* }
    };
    ($name:ident [$($done:tt)*] set_nx($this:ident, $kv:ident, $key:ident, $value:ident, $ttl:ident) {$($body:tt)*} $($more:tt)*) => {
        $crate::mutants::defect::defect! { $name [$($done)*
            async fn set_nx(&$this, $kv: &MemoryStore, $key: &[u8], $value: &[u8], $ttl: Ttl) -> Result<bool> {$($body)*}
        ] $($more)* }
    };
    ($name:ident [$($done:tt)*] incr($this:ident, $kv:ident, $key:ident, $by:ident, $ttl:ident) {$($body:tt)*} $($more:tt)*) => {
        $crate::mutants::defect::defect! { $name [$($done)*
            async fn incr(&$this, $kv: &MemoryStore, $key: &[u8], $by: i64, $ttl: Ttl) -> Result<Counter> {$($body)*}
        ] $($more)* }
    };
    ($name:ident [$($done:tt)*] compare_and_set($this:ident, $kv:ident, $key:ident, $expected:ident, $value:ident, $ttl:ident) {$($body:tt)*} $($more:tt)*) => {
        $crate::mutants::defect::defect! { $name [$($done)*
            async fn compare_and_set(&$this, $kv: &MemoryStore, $key: &[u8], $expected: &[u8], $value: &[u8], $ttl: Ttl) -> Result<bool> {$($body)*}
        ] $($more)* }
    };
    ($name:ident [$($done:tt)*] compare_and_delete($this:ident, $kv:ident, $key:ident, $expected:ident) {$($body:tt)*} $($more:tt)*) => {
        $crate::mutants::defect::defect! { $name [$($done)*
            async fn compare_and_delete(&$this, $kv: &MemoryStore, $key: &[u8], $expected: &[u8]) -> Result<bool> {$($body)*}
        ] $($more)* }
    };
    ($name:ident [$($done:tt)*] wait_for_change($this:ident, $kv:ident, $key:ident, $seen:ident, $at_most:ident) {$($body:tt)*} $($more:tt)*) => {
        $crate::mutants::defect::defect! { $name [$($done)*
            async fn wait_for_change(&$this, $kv: &MemoryStore, $key: &[u8], $seen: Option<&[u8]>, $at_most: Duration) {$($body)*}
        ] $($more)* }
    };
    ($name:ident [$($done:tt)*] step($this:ident, $kv:ident, $key:ident, $step:ident) {$($body:tt)*} $($more:tt)*) => {
        $crate::mutants::defect::defect! { $name [$($done)*
            async fn step(&$this, $kv: &MemoryStore, $key: &[u8], $step: &Step) -> Result<Stepped> {$($body)*}
        ] $($more)* }
    };
    ($name:ident [$($done:tt)*] elsewhere($this:ident) {$($body:tt)*} $($more:tt)*) => {
        $crate::mutants::defect::defect! { $name [$($done)*
            fn elsewhere(&$this) -> Option<std::sync::Arc<dyn $crate::mutants::defect::Defect>> {$($body)*}
        ] $($more)* }
    };
    ($name:ident [$($done:tt)*] flights($this:ident, $kv:ident) {$($body:tt)*} $($more:tt)*) => {
        $crate::mutants::defect::defect! { $name [$($done)*
            fn flights<'a>(&'a $this, $kv: &'a MemoryStore) -> Option<&'a Flights> {$($body)*}
        ] $($more)* }
    };
}

pub(crate) use {defect, defects};
