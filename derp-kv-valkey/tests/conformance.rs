//! The whole suite on a standalone server, as the type it is and as `Arc<dyn KvStore>`.

mod suite;

use std::sync::Arc;

use async_trait::async_trait;
use derp_kv_conformance::{BoxError, Harness, Profile, Shared};
use derp_kv_core::KvStore;
use derp_kv_valkey::ValkeyConfig;
use derp_kv_valkey::test_server::Server;
use suite::{OnValkey, Place};

struct Standalone;

async fn server() -> Result<&'static Server, BoxError> {
    static SERVER: Shared<Server> = Shared::new();
    SERVER.get(|| async { Ok(Server::start().await?) }).await
}

#[async_trait]
impl Place for Standalone {
    async fn config() -> Result<ValkeyConfig, BoxError> {
        Ok(ValkeyConfig::default().addresses([server().await?.address()]))
    }

    async fn plain_port() -> Result<Option<u16>, BoxError> {
        Ok(Some(server().await?.port()))
    }
}

const STANDALONE: OnValkey<Standalone> = OnValkey::NEW;

struct Dynamic;

#[async_trait]
impl Harness for Dynamic {
    type Store = Arc<dyn KvStore>;
    type Guard = <OnValkey<Standalone> as Harness>::Guard;

    async fn open(&self) -> Result<(Self::Store, Self::Guard), BoxError> {
        let (store, guard) = STANDALONE.open().await?;
        Ok((Arc::new(store), guard))
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
