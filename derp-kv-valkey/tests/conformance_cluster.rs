//! The whole suite on a cluster of three primaries with a replica each.

mod suite;

use async_trait::async_trait;
use derp_kv_conformance::{BoxError, Shared, conformance_tests};
use derp_kv_valkey::test_server::Cluster;
use derp_kv_valkey::{Mode, ValkeyConfig};
use suite::{OnValkey, Place};

struct ThreePrimaries;

async fn start() -> Result<Cluster, BoxError> {
    Ok(Cluster::start(3, 1).await?)
}

#[async_trait]
impl Place for ThreePrimaries {
    async fn config() -> Result<ValkeyConfig, BoxError> {
        static CLUSTER: Shared<Cluster> = Shared::new();
        let addresses = CLUSTER.get(start).await?.addresses();
        Ok(ValkeyConfig::default().addresses(addresses).mode(Mode::Cluster))
    }
}

conformance_tests!(OnValkey::<ThreePrimaries>::NEW);
