use std::error::Error;
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use derp_kv_core::KvStore;
use serde::Serialize;

use crate::{Profile, progress};

/// Whatever a harness may fail with.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Which clock ends the TTLs of the store under test.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Time {
    /// A clock that cannot be moved, such as a server's. Laws about time really wait.
    #[default]
    Real,
    /// tokio's clock, which the suite then pauses and moves. Races still run in real time, on
    /// several threads.
    Virtual,
}

/// When a connection breaks under a call, see [`Harness::sever`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cut {
    /// Before the server has seen the request.
    Before,
    /// Once the server has executed the request, of whose answer nothing arrives.
    After,
}

/// The error of a method of [`Harness`] that does nothing, as its default: the suite then does
/// without it, and its report says so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NotProvided;

impl fmt::Display for NotProvided {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the harness does not provide it")
    }
}

impl Error for NotProvided {}

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

    /// Opens a store on an empty keyspace of its own. The suite calls it for each case, and from
    /// several threads at once.
    ///
    /// Each law has a runtime of its own. What has to outlive it, such as a pool of connections
    /// that all cases use, is made by a [`Shared`](crate::Shared).
    ///
    /// A store on a shared server gets a random prefix: wrap it in
    /// [`Prefixed`](derp_kv_core::Prefixed) with [`fresh_prefix`](crate::fresh_prefix). Nothing is
    /// ever wiped.
    ///
    /// # Errors
    ///
    /// An error fails the law at once, as one that could not be tried, with the error's text.
    /// There is no skipping.
    async fn open(&self) -> Result<(Self::Store, Self::Guard), BoxError>;

    /// Another handle on the same data, as another process would have it: its own connection,
    /// where there is one. By default a clone, which proves less: the report says so.
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
        let _ = (store, guard);
        Err(NotProvided.into())
    }

    /// Breaks the connection under the next call of `store` that names `key`, once, as `cut` says.
    ///
    /// It returns as soon as the next such call will meet the cut. A [`Proxy`](crate::Proxy)
    /// between the store and its server does that. A store without any connection says so in its
    /// profile ([`Profile::embedded`]). By default nothing can be broken, and the report says that
    /// what the store tells of a lost answer is unproved.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    async fn sever(
        &self,
        store: &Self::Store,
        guard: &mut Self::Guard,
        key: &[u8],
        cut: Cut,
    ) -> Result<(), BoxError> {
        let _ = (store, guard, key, cut);
        Err(NotProvided.into())
    }

    /// Which clock ends the store's TTLs. By default the real one.
    fn time(&self) -> Time {
        Time::Real
    }

    /// Lets `duration` pass for the store. By default it sleeps or, in virtual time, moves
    /// tokio's clock.
    async fn elapse(&self, duration: Duration) {
        progress::note_default_elapse();
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
