use std::sync::OnceLock;

use futures_core::future::BoxFuture;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::OnceCell;

use crate::BoxError;
use crate::violation::with_sources;

/// What all laws of a test process share: it is made once, on a runtime that outlives each law's.
///
/// A law's runtime ends with the law, and with it whatever runs there: the tasks that drive a pool of
/// connections, for one. A pool that all laws use is made here. So is a server for the whole process,
/// see [`ChildServer`](crate::ChildServer).
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// use derp_kv_conformance::{BoxError, Shared};
///
/// static POOL: Shared<String> = Shared::new();
///
/// async fn pool() -> Result<&'static String, BoxError> {
///     POOL.get(|| async {
///         tokio::time::sleep(Duration::from_millis(1)).await; // connects
///         Ok("the pool".to_owned())
///     })
///     .await
/// }
///
/// for _law in 0..2 {
///     let runtime = tokio::runtime::Builder::new_current_thread().build()?;
///     assert_eq!(runtime.block_on(pool())?, "the pool");
/// }
/// # Ok::<_, BoxError>(())
/// ```
#[derive(Debug)]
pub struct Shared<T> {
    made: OnceCell<Result<T, String>>,
}

impl<T: Send + Sync + 'static> Shared<T> {
    /// Nothing is made yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { made: OnceCell::const_new() }
    }

    /// What was made, or is made now by `make`, which runs on the shared runtime.
    ///
    /// # Errors
    ///
    /// What `make` failed with, each time: it is not tried again, so that a server that is not
    /// installed is looked for once and not for each law.
    pub fn get<F>(
        &'static self,
        make: impl FnOnce() -> F + Send + 'static,
    ) -> BoxFuture<'static, Result<&'static T, BoxError>>
    where
        F: Future<Output = Result<T, BoxError>>,
    {
        let made = self.made.get_or_init(|| async {
            // On a thread of its own, so that the future need not be `Send`.
            let make = move || shared_runtime().block_on(make());
            match shared_runtime().spawn_blocking(make).await {
                Ok(made) => made.map_err(|error| with_sources(&*error)),
                Err(error) => Err(error.to_string()),
            }
        });
        // Boxed: whether it is `Send` is seen here, and not guessed by each async trait that asks.
        Box::pin(async { made.await.as_ref().map_err(|error| error.clone().into()) })
    }
}

impl<T: Send + Sync + 'static> Default for Shared<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// The runtime that outlives each law's, in real time: connections that are made here live as long
/// as the test process.
///
/// # Panics
///
/// Where the system has no thread for it.
#[must_use]
pub fn shared_runtime() -> Handle {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| {
        let built = Builder::new_multi_thread().worker_threads(2).enable_all().build();
        built.unwrap_or_else(|error| panic!("there is no runtime: {error}"))
    });
    runtime.handle().clone()
}
