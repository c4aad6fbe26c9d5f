use std::time::Duration;

use async_trait::async_trait;
use derp_kv_core::KvStore;

use crate::Profile;

/// Whatever a harness may fail with.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Which clock ends the TTLs of the store under test.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Time {
    /// A clock that cannot be moved, such as a server's. Laws about time really wait.
    #[default]
    Real,
    /// tokio's clock, which the suite then pauses and moves. Races still run in real time, on
    /// several threads.
    Virtual,
}

/// How the suite comes to a store: what a backend's author writes.
///
/// # Examples
///
/// ```
/// use async_trait::async_trait;
/// use derp_kv_conformance::{BoxError, Harness, Time};
/// use derp_kv_memory::MemoryStore;
///
/// struct Memory;
///
/// #[async_trait]
/// impl Harness for Memory {
///     type Store = MemoryStore;
///     type Guard = ();
///
///     async fn open(&self) -> Result<(MemoryStore, ()), BoxError> {
///         Ok((MemoryStore::new(), ()))
///     }
///
///     fn time(&self) -> Time {
///         Time::Virtual
///     }
/// }
///
/// // In `tests/conformance.rs`: derp_kv_conformance::conformance_tests!(Memory);
/// ```
#[async_trait]
pub trait Harness: Send + Sync + 'static {
    /// The store under test.
    type Store: KvStore + Clone;

    /// What has to live as long as the store: a server, a temporary directory, or `()`.
    type Guard: Send;

    /// Opens a store on an empty keyspace of its own. The suite calls it for each case.
    ///
    /// A store on a shared server gets a random prefix: wrap it in
    /// [`Prefixed`](derp_kv_core::Prefixed) with [`fresh_prefix`](crate::fresh_prefix). Nothing is
    /// ever wiped.
    ///
    /// # Errors
    ///
    /// An error fails the law at once, with its text. There is no skipping.
    async fn open(&self) -> Result<(Self::Store, Self::Guard), BoxError>;

    /// Another handle on the same data, as another process would have it: its own connection,
    /// where there is one. By default a clone.
    ///
    /// The suite gives each handle but the first [`Flights`](derp_kv_core::Flights) of its own.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    async fn second_handle(
        &self,
        store: &Self::Store,
        guard: &mut Self::Guard,
    ) -> Result<Self::Store, BoxError> {
        let _ = guard;
        Ok(store.clone())
    }

    /// Which clock ends the store's TTLs. By default the real one.
    fn time(&self) -> Time {
        Time::Real
    }

    /// Lets `duration` pass for the store. By default it sleeps or, in virtual time, moves
    /// tokio's clock.
    async fn elapse(&self, duration: Duration) {
        match self.time() {
            Time::Real => tokio::time::sleep(duration).await,
            Time::Virtual => tokio::time::advance(duration).await,
        }
    }

    /// How thoroughly to test, and where the store is known to deviate.
    fn profile(&self) -> Profile {
        Profile::default()
    }
}
