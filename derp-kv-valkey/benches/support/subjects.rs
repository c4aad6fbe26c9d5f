use anyhow::Result;
use derp_kv_valkey::{ValkeyConfig, ValkeyStore};
use fred::interfaces::ClientLike as _;
use fred::types::config::Config;
use redis::aio::{ConnectionLike, MultiplexedConnection};

use super::measure::Contender;
use super::servers::Server;
use super::{Data, Fred, Op, RedisRs, Rustis, Store, Task};

/// Every client, connected to the same server or cluster.
pub struct Subjects<C> {
    pub redis_rs: C,
    pub store: ValkeyStore,
    fred: fred::clients::Client,
    rustis: rustis::client::Client,
}

impl Subjects<MultiplexedConnection> {
    /// # Errors
    /// A client cannot connect.
    pub async fn standalone(server: &Server) -> Result<Self> {
        Ok(Self {
            redis_rs: server.client()?.get_multiplexed_async_connection().await?,
            store: ValkeyStore::connect(ValkeyConfig::from_url(&server.url())?).await?,
            fred: connect_fred(&server.url()).await?,
            rustis: rustis::client::Client::connect(server.url()).await?,
        })
    }
}

impl<C: ConnectionLike + Clone + Send + Sync + 'static> Subjects<C> {
    /// All that can do `op`; bare redis-rs comes first, for the others are compared with it.
    pub fn contenders(&self, op: Op, data: &'static Data) -> Vec<Contender> {
        vec![
            ("redis-rs", Task::boxed(RedisRs(self.redis_rs.clone()), op, data)),
            ("derp-kv", Task::boxed(Store(self.store.clone()), op, data)),
            ("fred", Task::boxed(Fred(self.fred.clone()), op, data)),
            ("rustis", Task::boxed(Rustis(self.rustis.clone()), op, data)),
        ]
    }
}

async fn connect_fred(url: &str) -> Result<fred::clients::Client> {
    let client = fred::clients::Client::new(Config::from_url(url)?, None, None, None);
    client.init().await?;
    Ok(client)
}
