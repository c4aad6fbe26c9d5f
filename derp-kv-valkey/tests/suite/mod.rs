//! What the runs of the conformance suite share: a server for the whole target, and a prefix of
//! its own for each case.

use std::time::Duration;

use async_trait::async_trait;
use derp_kv_conformance::{BoxError, Harness, Profile, fresh_prefix};
use derp_kv_core::Prefixed;
use derp_kv_valkey::{ValkeyConfig, ValkeyStore};

/// Starts what all cases use, away from the runtime of the first one that asks.
pub(crate) fn shared<T: Send + 'static, F: Future<Output = T>>(
    start: impl FnOnce() -> F + Send + 'static,
) -> (tokio::runtime::Runtime, T) {
    let starting = std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let started = runtime.block_on(start());
        (runtime, started)
    });
    starting.join().expect("the server has started")
}

/// The store under test: as `config` connects to it, under `prefix` and one more for each case.
pub(crate) struct OnValkey {
    pub(crate) config: fn() -> ValkeyConfig,
    pub(crate) prefix: &'static str,
}

#[async_trait]
impl Harness for OnValkey {
    type Store = Prefixed<ValkeyStore>;
    type Guard = ();

    async fn open(&self) -> Result<(Self::Store, ()), BoxError> {
        let store = ValkeyStore::connect((self.config)()).await?;
        Ok((Prefixed::new(store, format!("{}{}", self.prefix, fresh_prefix())), ()))
    }

    /// Another connection, as another process has it.
    async fn second_handle(
        &self,
        store: &Self::Store,
        (): &mut (),
    ) -> Result<Self::Store, BoxError> {
        Ok(Prefixed::new(ValkeyStore::connect((self.config)()).await?, store.prefix()))
    }

    fn profile(&self) -> Profile {
        // Every case is a connection and round trips: fewer of them keep the suite below a minute.
        Profile::default().cases(24).rounds(60).ttl_slack(Duration::from_millis(100))
    }
}
