//! The whole suite on a standalone server, as the type it is and as `Arc<dyn KvStore>`.

mod suite;

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use derp_kv_conformance::{BoxError, Harness, Profile};
use derp_kv_core::KvStore;
use derp_kv_valkey::ValkeyConfig;
use derp_kv_valkey::test_server::Server;
use suite::OnValkey;

fn config() -> ValkeyConfig {
    static SERVER: OnceLock<(tokio::runtime::Runtime, Server)> = OnceLock::new();
    let (_, server) =
        SERVER.get_or_init(|| suite::shared(async || Server::start().await.expect("a server")));
    ValkeyConfig::default().addresses([server.address()])
}

const STANDALONE: OnValkey = OnValkey { config, prefix: "" };

struct Dynamic;

#[async_trait]
impl Harness for Dynamic {
    type Store = Arc<dyn KvStore>;
    type Guard = ();

    async fn open(&self) -> Result<(Self::Store, ()), BoxError> {
        let (store, ()) = STANDALONE.open().await?;
        Ok((Arc::new(store), ()))
    }

    fn profile(&self) -> Profile {
        STANDALONE.profile()
    }
}

mod standalone {
    use super::STANDALONE;

    derp_kv_conformance::conformance_tests!(STANDALONE);
}

mod dynamic {
    use super::Dynamic;

    derp_kv_conformance::conformance_tests!(Dynamic);
}
