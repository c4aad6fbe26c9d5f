//! A harness and its store without their types: the laws are compiled once, in this crate, and not
//! anew in each test of each backend.

use std::any::Any;
use std::time::Duration;

use async_trait::async_trait;
use derp_kv_core::KvStore;

use crate::{BoxError, Cut, Harness, Profile, Time};

/// The store under test. Its clones are what the store itself clones.
pub(crate) type Store = Box<dyn AnyStore>;

/// What has to live as long as the store.
pub(crate) type Guard = Box<dyn Any + Send>;

/// Every store that is a cheap handle.
pub(crate) trait AnyStore: KvStore + Any {
    fn boxed_clone(&self) -> Store;
}

impl<S: KvStore + Clone> AnyStore for S {
    fn boxed_clone(&self) -> Store {
        Box::new(self.clone())
    }
}

impl Clone for Store {
    fn clone(&self) -> Self {
        // Of the store in the box: the box itself is a store, too, whose clone this is.
        (**self).boxed_clone()
    }
}

/// Every [`Harness`], whose methods these are.
#[async_trait]
pub(crate) trait AnyHarness: Send + Sync + 'static {
    async fn open(&self) -> Result<(Store, Guard), BoxError>;

    async fn second_handle(&self, store: &Store, guard: &mut Guard) -> Result<Store, BoxError>;

    async fn sever(
        &self,
        store: &Store,
        guard: &mut Guard,
        key: &[u8],
        cut: Cut,
    ) -> Result<(), BoxError>;

    fn time(&self) -> Time;

    async fn elapse(&self, duration: Duration);

    fn profile(&self) -> Profile;
}

#[async_trait]
impl<H: Harness> AnyHarness for H {
    async fn open(&self) -> Result<(Store, Guard), BoxError> {
        let (store, guard) = Harness::open(self).await?;
        Ok((Box::new(store), Box::new(guard)))
    }

    async fn second_handle(&self, store: &Store, guard: &mut Guard) -> Result<Store, BoxError> {
        let (store, guard) = typed::<H>(store, guard)?;
        Ok(Box::new(Harness::second_handle(self, store, guard).await?))
    }

    async fn sever(
        &self,
        store: &Store,
        guard: &mut Guard,
        key: &[u8],
        cut: Cut,
    ) -> Result<(), BoxError> {
        let (store, guard) = typed::<H>(store, guard)?;
        Harness::sever(self, store, guard, key, cut).await
    }

    fn time(&self) -> Time {
        Harness::time(self)
    }

    async fn elapse(&self, duration: Duration) {
        Harness::elapse(self, duration).await;
    }

    fn profile(&self) -> Profile {
        Harness::profile(self)
    }
}

/// What [`AnyHarness::open`] has given out, as the harness knows it.
fn typed<'a, H: Harness>(
    store: &'a Store,
    guard: &'a mut Guard,
) -> Result<(&'a H::Store, &'a mut H::Guard), BoxError> {
    let store: &dyn Any = &**store;
    let typed = store.downcast_ref().zip(guard.downcast_mut());
    typed.ok_or_else(|| "the harness has opened no such store".into())
}
