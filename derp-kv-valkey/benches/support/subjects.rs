use std::time::Duration;

use anyhow::Result;
use derp_kv_valkey::test_server::{Cluster, Server};
use derp_kv_valkey::{Mode, ValkeyConfig, ValkeyStore};
use fred::interfaces::ClientLike as _;
use fred::types::config::{Config, ServerConfig};
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;

use super::measure::{Contender, OURS};
use super::{Data, Fred, Op, RedisRs, Rustis, Store, Task, WINDOW};

/// Longer than any answer takes.
const TIMEOUT: Duration = Duration::from_secs(30);

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
        let (host, port) = server.address();
        let config = ValkeyConfig::default().addresses([server.address()]);
        let redis_rs = bare_connection(server).await?;
        load_window(&redis_rs).await?;
        Ok(Self {
            redis_rs,
            store: ValkeyStore::connect(config.op_timeout(TIMEOUT)).await?,
            fred: connect_fred(Config {
                server: ServerConfig::new_centralized(host, port),
                ..Config::default()
            })
            .await?,
            rustis: rustis::client::Client::connect(url(server.address())).await?,
            fred_has_mget: true,
        })
    }
}

impl Subjects<ClusterConnection> {
    /// # Errors
    /// A client cannot connect.
    pub async fn cluster(cluster: &Cluster) -> Result<Self> {
        let addresses = cluster.addresses();
        let redis_rs = ClusterClient::builder(addresses.iter().cloned().map(url))
            .response_timeout(TIMEOUT)
            .build()?
            .get_async_connection()
            .await?;
        load_window(&redis_rs).await?;
        let config = ValkeyConfig::default().addresses(addresses.clone()).mode(Mode::Cluster);
        let server = ServerConfig::new_clustered(addresses.clone());
        let nodes: Vec<_> = addresses.iter().map(|(host, port)| format!("{host}:{port}")).collect();
        let rustis = format!("redis+cluster://{}", nodes.join(","));
        Ok(Self {
            redis_rs,
            store: ValkeyStore::connect(config.op_timeout(TIMEOUT)).await?,
            fred: connect_fred(Config { server, ..Config::default() }).await?,
            rustis: rustis::client::Client::connect(rustis).await?,
            fred_has_mget: false,
        })
    }
}

impl<C: ConnectionLike + Clone + Send + Sync + 'static> Subjects<C> {
    /// All that can do `op`; bare redis-rs comes first, for the others are compared with it. The
    /// helpers exist nowhere else: there the others do the least that would serve.
    pub fn contenders(&self, op: Op, data: &'static Data) -> Vec<Contender> {
        let mut contenders = vec![
            ("redis-rs", Task::boxed(RedisRs(self.redis_rs.clone()), op, data)),
            (OURS, Task::boxed(Store(self.store.clone()), op, data)),
        ];
        if !matches!(op, Op::Mset(_)) {
            if !matches!(op, Op::Mget(_)) || self.fred_has_mget {
                contenders.push(("fred", Task::boxed(Fred(self.fred.clone()), op, data)));
            }
            contenders.push(("rustis", Task::boxed(Rustis(self.rustis.clone()), op, data)));
        }
        contenders
    }
}

/// Leaves the script in the cache of every server, for those that call it by its digest only.
async fn load_window(connection: &(impl ConnectionLike + Clone + Send + Sync)) -> Result<()> {
    WINDOW.prepare_invoke().load_async(&mut connection.clone()).await?;
    Ok(())
}

fn url((host, port): (String, u16)) -> String {
    format!("redis://{host}:{port}")
}

/// # Errors
/// The address is no address.
pub fn bare_client(server: &Server) -> Result<redis::Client> {
    Ok(redis::Client::open(url(server.address()))?)
}

/// # Errors
/// The server does not answer.
pub async fn bare_connection(server: &Server) -> Result<MultiplexedConnection> {
    // The default of half a second is too short for 512 answers of 400 KiB each.
    let config = redis::AsyncConnectionConfig::new().set_response_timeout(Some(TIMEOUT));
    Ok(bare_client(server)?.get_multiplexed_async_connection_with_config(&config).await?)
}

async fn connect_fred(config: Config) -> Result<fred::clients::Client> {
    let client = fred::clients::Client::new(config, None, None, None);
    client.init().await?;
    Ok(client)
}
