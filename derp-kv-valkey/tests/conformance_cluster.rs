//! The whole suite on a cluster of three primaries with a replica each.

mod suite;

use std::sync::OnceLock;

use derp_kv_conformance::conformance_tests;
use derp_kv_valkey::test_server::Cluster;
use derp_kv_valkey::{Mode, ValkeyConfig};
use suite::OnValkey;

fn config() -> ValkeyConfig {
    static CLUSTER: OnceLock<(tokio::runtime::Runtime, Cluster)> = OnceLock::new();
    let (_, cluster) = CLUSTER
        .get_or_init(|| suite::shared(async || Cluster::start(3, 1).await.expect("a cluster")));
    ValkeyConfig::default().addresses(cluster.addresses()).mode(Mode::Cluster)
}

conformance_tests!(OnValkey { config, prefix: "" });
