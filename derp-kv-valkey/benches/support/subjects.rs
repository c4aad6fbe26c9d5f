use std::time::Duration;

use anyhow::Result;
use derp_kv_valkey::{Mode, ValkeyConfig, ValkeyStore};
use fred::interfaces::ClientLike as _;
use fred::types::config::{Config, ServerConfig};
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;

use super::measure::Contender;
use super::servers::{Cluster, Server};
use super::{Data, Fred, Op, RedisRs, Rustis, Store, Task};

/// Every client, connected to the same server or cluster.
pub struct Subjects<C> {
    pub redis_rs: C,
    pub store: ValkeyStore,
    fred: fred::clients::Client,
    rustis: rustis::client::Client,
    /// Whether `fred` splits a batch by slots.
    fred_has_mget: bool,
}

impl Subjects<MultiplexedConnection> {
    /// # Errors
    /// A client cannot connect.
    pub async fn standalone(server: &Server) -> Result<Self> {
        let config = ValkeyConfig::default().addresses([("127.0.0.1", server.port)]);
        Ok(Self {
            redis_rs: server.connect().await?,
            store: ValkeyStore::connect(config.op_timeout(Duration::from_secs(10))).await?,
            fred: connect_fred(Config::from_url(&server.url())?).await?,
            rustis: rustis::client::Client::connect(server.url()).await?,
            fred_has_mget: true,
        })
    }
}

impl Subjects<ClusterConnection> {
    /// # Errors
    /// A client cannot connect.
    pub async fn cluster(cluster: &Cluster) -> Result<Self> {
        let addresses = cluster.addresses();
        let redis_rs = ClusterClient::builder(cluster.urls())
            .response_timeout(Duration::from_secs(10))
            .build()?;
        let config = ValkeyConfig::default().addresses(addresses.clone()).mode(Mode::Cluster);
        let server = ServerConfig::new_clustered(addresses.clone());
        let nodes: Vec<_> = addresses.iter().map(|(host, port)| format!("{host}:{port}")).collect();
        let rustis = format!("redis+cluster://{}", nodes.join(","));
        Ok(Self {
            redis_rs: redis_rs.get_async_connection().await?,
            store: ValkeyStore::connect(config.op_timeout(Duration::from_secs(10))).await?,
            fred: connect_fred(Config { server, ..Config::default() }).await?,
            rustis: rustis::client::Client::connect(rustis).await?,
            fred_has_mget: false,
        })
    }
}

impl<C: ConnectionLike + Clone + Send + Sync + 'static> Subjects<C> {
    /// All that can do `op`; bare redis-rs comes first, for the others are compared with it.
    pub fn contenders(&self, op: Op, data: &'static Data) -> Vec<Contender> {
        let mut contenders = vec![
            ("redis-rs", Task::boxed(RedisRs(self.redis_rs.clone()), op, data)),
            ("derp-kv", Task::boxed(Store(self.store.clone()), op, data)),
        ];
        // The helpers exist nowhere else: bare redis-rs runs the least that would do.
        if !matches!(op, Op::RateLimit | Op::GuardedGet | Op::Mset(_)) {
            if !matches!(op, Op::Mget(_)) || self.fred_has_mget {
                contenders.push(("fred", Task::boxed(Fred(self.fred.clone()), op, data)));
            }
            contenders.push(("rustis", Task::boxed(Rustis(self.rustis.clone()), op, data)));
        }
        contenders
    }
}

async fn connect_fred(config: Config) -> Result<fred::clients::Client> {
    let client = fred::clients::Client::new(config, None, None, None);
    client.init().await?;
    Ok(client)
}
