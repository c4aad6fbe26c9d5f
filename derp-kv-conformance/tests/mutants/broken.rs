//! A right store behind a defect, and the law that must notice.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use derp_kv_conformance::{BoxError, Harness, Law, LawReport, Profile, Time, run_law};
use derp_kv_core::{Counter, Expiry, Flights, KvStore, Observer, Result};
use derp_kv_memory::MemoryStore;
use futures_core::stream::BoxStream;
use tokio::runtime::Handle;

use super::defect::{Defect, Ttl};

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

    fn scan(&self, prefix: &[u8]) -> BoxStream<'static, Result<Bytes>> {
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
        self.defect.flights(&self.kv)
    }

    fn runtime(&self) -> Option<Handle> {
        self.defect.runtime()
    }

    fn observer(&self) -> Option<&dyn Observer> {
        self.kv.observer()
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

    async fn second_handle(&self, store: &Broken, (): &mut ()) -> Result<Broken, BoxError> {
        let defect = store.defect.elsewhere().unwrap_or_else(|| store.defect.clone());
        Ok(Broken { kv: store.kv.clone(), defect })
    }

    fn time(&self) -> Time {
        Time::Virtual
    }

    fn profile(&self) -> Profile {
        // What an author gets who sets nothing: a law must not miss a defect by chance.
        Profile::default().without_seeds().case_timeout(self.case_timeout)
    }
}

/// A broken store and the law that must catch it.
pub(crate) struct Mutant {
    pub(crate) law: &'static Law,
    /// The name of its defect's type.
    pub(crate) name: &'static str,
    /// What it does wrong, in a line.
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
    let path = std::any::type_name::<D>();
    let name = path.rsplit_once("::").map_or(path, |(_, name)| name);
    let defect = || Arc::new(D::default()) as Arc<dyn Defect>;
    Mutant { law, name, wrong, defect, case_timeout: Duration::from_secs(20) }
}

/// [`mutant`], where a call that takes longer is taken for hung.
pub(crate) fn timed<D: Defect + Default>(
    law: &'static str,
    wrong: &'static str,
    case_timeout: Duration,
) -> Mutant {
    Mutant { case_timeout, ..mutant::<D>(law, wrong) }
}
