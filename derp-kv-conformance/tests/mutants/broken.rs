//! A right store behind a defect, and the law that must notice.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use derp_kv_conformance::{BoxError, Cut, Harness, Law, LawReport, Profile, Time, run_law};
use derp_kv_core::{
    Counter, Expiry, Flights, KvStore, Observer, Operation, Result, Step, StepFuture,
};
use derp_kv_memory::MemoryStore;
use futures_core::stream::BoxStream;
use futures_util::{StreamExt, stream};
use tokio::runtime::Handle;

use super::defect::{Defect, Honest, Ttl};
use super::line::{Lie, Line};

/// A right store behind a defect. Clones share the store, and the defect unless it says otherwise.
#[derive(Debug)]
pub(crate) struct Broken {
    kv: MemoryStore,
    // Not a parameter of the type: each method below would be compiled for each defect.
    defect: Arc<dyn Defect>,
    line: Arc<Line>,
}

fn keys_of<'a>(items: &[(&'a [u8], &[u8])]) -> Vec<&'a [u8]> {
    items.iter().map(|(key, _)| *key).collect()
}

impl Clone for Broken {
    fn clone(&self) -> Self {
        let defect = self.defect.cloned().unwrap_or_else(|| self.defect.clone());
        Self { kv: self.kv.clone(), defect, line: self.line.clone() }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl KvStore for Broken {
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        self.line.carry(Operation::Get, &[key], || self.defect.get(&self.kv, key)).await
    }

    async fn get_with_ttl(&self, key: &[u8]) -> Result<Option<(Bytes, Expiry)>> {
        self.line
            .carry(Operation::GetWithTtl, &[key], || self.defect.get_with_ttl(&self.kv, key))
            .await
    }

    async fn exists(&self, key: &[u8]) -> Result<bool> {
        self.line.carry(Operation::Exists, &[key], || self.defect.exists(&self.kv, key)).await
    }

    async fn ttl(&self, key: &[u8]) -> Result<Option<Expiry>> {
        self.line.carry(Operation::Ttl, &[key], || self.defect.ttl(&self.kv, key)).await
    }

    async fn mget(&self, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>> {
        self.line.carry(Operation::Mget, keys, || self.defect.mget(&self.kv, keys)).await
    }

    fn scan(&self, prefix: &[u8]) -> BoxStream<'static, Result<Bytes>> {
        match self.line.scan(prefix) {
            None => self.defect.scan(&self.kv, prefix),
            Some(Ok(())) => stream::empty().boxed(),
            Some(Err(error)) => stream::iter([Err(error)]).boxed(),
        }
    }

    async fn set(&self, key: &[u8], value: &[u8], ttl: Ttl) -> Result<()> {
        self.line.carry(Operation::Set, &[key], || self.defect.set(&self.kv, key, value, ttl)).await
    }

    async fn mset(&self, items: &[(&[u8], &[u8])], ttl: Ttl) -> Result<()> {
        self.line
            .carry(Operation::Mset, &keys_of(items), || self.defect.mset(&self.kv, items, ttl))
            .await
    }

    async fn delete(&self, key: &[u8]) -> Result<bool> {
        self.line.carry(Operation::Delete, &[key], || self.defect.delete(&self.kv, key)).await
    }

    async fn delete_many(&self, keys: &[&[u8]]) -> Result<u64> {
        self.line
            .carry(Operation::DeleteMany, keys, || self.defect.delete_many(&self.kv, keys))
            .await
    }

    async fn expire(&self, key: &[u8], ttl: Duration) -> Result<bool> {
        self.line.carry(Operation::Expire, &[key], || self.defect.expire(&self.kv, key, ttl)).await
    }

    async fn set_nx(&self, key: &[u8], value: &[u8], ttl: Ttl) -> Result<bool> {
        self.line
            .carry(Operation::SetNx, &[key], || self.defect.set_nx(&self.kv, key, value, ttl))
            .await
    }

    async fn incr(&self, key: &[u8], by: i64, ttl: Ttl) -> Result<Counter> {
        self.line.carry(Operation::Incr, &[key], || self.defect.incr(&self.kv, key, by, ttl)).await
    }

    async fn compare_and_set(
        &self,
        key: &[u8],
        expected: &[u8],
        value: &[u8],
        ttl: Ttl,
    ) -> Result<bool> {
        self.line
            .carry(Operation::CompareAndSet, &[key], || {
                self.defect.compare_and_set(&self.kv, key, expected, value, ttl)
            })
            .await
    }

    async fn compare_and_delete(&self, key: &[u8], expected: &[u8]) -> Result<bool> {
        self.line
            .carry(Operation::CompareAndDelete, &[key], || {
                self.defect.compare_and_delete(&self.kv, key, expected)
            })
            .await
    }

    async fn wait_for_change(&self, key: &[u8], seen: Option<&[u8]>, at_most: Duration) {
        self.defect.wait_for_change(&self.kv, key, seen, at_most).await;
    }

    fn step<'a>(&'a self, key: &'a [u8], step: &'a Step) -> StepFuture<'a> {
        StepFuture::new(async move {
            self.line.carry(Operation::Step, &[key], || self.defect.step(&self.kv, key, step)).await
        })
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
    lie: Lie,
    case_timeout: Duration,
    longest_key: Option<usize>,
}

#[async_trait]
impl Harness for Opens {
    type Store = Broken;
    type Guard = ();

    async fn open(&self) -> Result<(Broken, ()), BoxError> {
        let (kv, defect) = (MemoryStore::new(), (self.defect)());
        Ok((Broken { kv, defect, line: Line::new(self.lie) }, ()))
    }

    async fn second_handle(&self, store: &Broken, (): &mut ()) -> Result<Broken, BoxError> {
        let defect = store.defect.elsewhere().unwrap_or_else(|| store.defect.clone());
        Ok(Broken { kv: store.kv.clone(), defect, line: Line::new(Lie::None) })
    }

    async fn sever(
        &self,
        store: &Broken,
        (): &mut (),
        key: &[u8],
        cut: Cut,
    ) -> Result<(), BoxError> {
        store.line.arm(key, cut);
        Ok(())
    }

    fn time(&self) -> Time {
        Time::Virtual
    }

    fn profile(&self) -> Profile {
        // What an author gets who sets nothing: a law must not miss a defect by chance.
        let profile = Profile::default().without_seeds().case_timeout(self.case_timeout);
        match self.longest_key {
            Some(bytes) => profile.longest_key(bytes),
            None => profile,
        }
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
    lie: Lie,
    case_timeout: Duration,
    longest_key: Option<usize>,
}

impl Mutant {
    pub(crate) fn run(&self) -> LawReport {
        let Self { defect, lie, case_timeout, longest_key, .. } = *self;
        run_law(Opens { defect, lie, case_timeout, longest_key }, self.law)
    }
}

/// A store with the defect `D`, which `law` must catch.
pub(crate) fn mutant<D: Defect + Default>(law: &'static str, wrong: &'static str) -> Mutant {
    let law = Law::named(law).unwrap_or_else(|| panic!("there is no law `{law}`"));
    let path = std::any::type_name::<D>();
    // Where a defect is generic, its parameter tells what is wrong.
    let name = path.rsplit_once("::").map_or(path, |(_, name)| name).trim_end_matches('>');
    let defect = || Arc::new(D::default()) as Arc<dyn Defect>;
    let case_timeout = Duration::from_secs(20);
    Mutant { law, name, wrong, defect, lie: Lie::None, case_timeout, longest_key: None }
}

/// [`mutant`], where a call that takes longer is taken for hung.
pub(crate) fn timed<D: Defect + Default>(
    law: &'static str,
    wrong: &'static str,
    case_timeout: Duration,
) -> Mutant {
    Mutant { case_timeout, ..mutant::<D>(law, wrong) }
}

/// A right store whose connection tells the `lie` called `name` when it breaks.
pub(crate) fn lying(
    lie: Lie,
    name: &'static str,
    law: &'static str,
    wrong: &'static str,
) -> Mutant {
    Mutant { name, lie, ..mutant::<Honest>(law, wrong) }
}

/// [`mutant`], of a store that declares its longest key.
pub(crate) fn bounded<D: Defect + Default>(
    law: &'static str,
    wrong: &'static str,
    longest_key: usize,
) -> Mutant {
    Mutant { longest_key: Some(longest_key), ..mutant::<D>(law, wrong) }
}
