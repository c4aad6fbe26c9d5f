//! What the runs of the conformance suite share: a server for the whole target, and a prefix of
//! its own for each case.
#![allow(dead_code, reason = "each test target uses a part")]

use derp_kv_conformance::{BoxError, Profile, fresh_prefix};
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

pub(crate) async fn open(
    config: ValkeyConfig,
    prefix: &str,
) -> Result<Prefixed<ValkeyStore>, BoxError> {
    let store = ValkeyStore::connect(config).await?;
    Ok(Prefixed::new(store, format!("{prefix}{}", fresh_prefix())))
}

/// Another connection, as another process has it.
pub(crate) async fn second(
    config: ValkeyConfig,
    store: &Prefixed<ValkeyStore>,
) -> Result<Prefixed<ValkeyStore>, BoxError> {
    Ok(Prefixed::new(ValkeyStore::connect(config).await?, store.prefix()))
}

pub(crate) fn profile() -> Profile {
    // Every case is a connection and round trips: fewer of them keep the suite below a minute.
    Profile::default().cases(32).ttl_slack(std::time::Duration::from_millis(100))
}
