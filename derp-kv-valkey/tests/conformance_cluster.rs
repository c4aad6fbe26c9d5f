//! The whole suite on a cluster of three primaries with a replica each.

mod suite;

use std::sync::OnceLock;

use async_trait::async_trait;
use derp_kv_conformance::{BoxError, Harness, Profile, conformance_tests};
use derp_kv_core::Prefixed;
use derp_kv_valkey::test_server::Cluster;
use derp_kv_valkey::{Mode, ValkeyConfig, ValkeyStore};

fn config() -> ValkeyConfig {
    static CLUSTER: OnceLock<(tokio::runtime::Runtime, Cluster)> = OnceLock::new();
    let (_, cluster) = CLUSTER
        .get_or_init(|| suite::shared(async || Cluster::start(3, 1).await.expect("a cluster")));
    ValkeyConfig::default().addresses(cluster.addresses()).mode(Mode::Cluster)
}

struct InCluster;

#[async_trait]
impl Harness for InCluster {
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

conformance_tests!(InCluster);
