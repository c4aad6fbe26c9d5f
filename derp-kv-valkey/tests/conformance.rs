//! The whole suite on a standalone server, as the type it is and as `Arc<dyn KvStore>`.

mod suite;

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use derp_kv_conformance::{BoxError, Harness, Profile};
use derp_kv_core::{KvStore, Prefixed};
use derp_kv_valkey::test_server::Server;
use derp_kv_valkey::{ValkeyConfig, ValkeyStore};

fn config() -> ValkeyConfig {
    static SERVER: OnceLock<(tokio::runtime::Runtime, Server)> = OnceLock::new();
    let (_, server) =
        SERVER.get_or_init(|| suite::shared(async || Server::start().await.expect("a server")));
    ValkeyConfig::default().addresses([server.address()])
}

struct Standalone;

#[async_trait]
impl Harness for Standalone {
    type Store = Prefixed<ValkeyStore>;
    type Guard = ();

    async fn open(&self) -> Result<(Self::Store, ()), BoxError> {
        Ok((suite::open(config(), "").await?, ()))
    }

    async fn second_handle(
        &self,
        store: &Self::Store,
        (): &mut (),
    ) -> Result<Self::Store, BoxError> {
        suite::second(config(), store).await
    }

    fn profile(&self) -> Profile {
        suite::profile()
    }
}

struct Dynamic;

#[async_trait]
impl Harness for Dynamic {
    type Store = Arc<dyn KvStore>;
    type Guard = ();

    async fn open(&self) -> Result<(Self::Store, ()), BoxError> {
        Ok((Arc::new(suite::open(config(), "").await?), ()))
    }

    fn profile(&self) -> Profile {
        suite::profile()
    }
}

mod standalone {
    use super::Standalone;

    derp_kv_conformance::conformance_tests!(Standalone);
}

mod dynamic {
    use super::Dynamic;

    derp_kv_conformance::conformance_tests!(Dynamic);
}
