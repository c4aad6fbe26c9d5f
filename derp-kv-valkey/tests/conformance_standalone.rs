//! The whole suite on a standalone server.

mod suite;

use async_trait::async_trait;
use derp_kv_conformance::{BoxError, Shared, conformance_tests};
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

conformance_tests!(OnValkey::<Standalone>::NEW);
