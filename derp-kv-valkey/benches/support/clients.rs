//! The subjects, each used as its documentation shows.

use std::future::Future;

use anyhow::{Result, ensure};
use bytes::Bytes;
use derp_kv_core::KvStore;
use fred::interfaces::KeysInterface as _;
use redis::AsyncCommands as _;
use redis::aio::ConnectionLike;
use rustis::commands::{SetExpiration, StringCommands as _};
use rustis::resp::BulkString;

use super::Data;
use super::measure::{Round, Work};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Get,
    SetTtl,
    Incr,
    Mget100,
}

impl Op {
    pub const ALL: [Self; 4] = [Self::Get, Self::SetTtl, Self::Incr, Self::Mget100];

    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::SetTtl => "set with TTL",
            Self::Incr => "incr",
            Self::Mget100 => "mget of 100",
        }
    }

    /// Whether the size of the value matters to it.
    pub fn has_value(self) -> bool {
        self != Self::Incr
    }
}

/// A client that can do every [`Op`].
pub trait Client: Clone + Send + Sync + 'static {
    fn run(
        &self,
        op: Op,
        data: &'static Data,
        at: usize,
    ) -> impl Future<Output = Result<()>> + Send;
}

/// One operation of one client.
#[derive(Clone, Debug)]
pub struct Task<C> {
    pub client: C,
    pub op: Op,
    pub data: &'static Data,
}

impl<C: Client> Task<C> {
    pub fn boxed(client: C, op: Op, data: &'static Data) -> Box<dyn Round> {
        Box::new(Self { client, op, data })
    }
}

impl<C: Client> Work for Task<C> {
    fn once(&self, at: usize) -> impl Future<Output = Result<()>> + Send {
        self.client.run(self.op, self.data, at)
    }
}

/// Any store of this project.
#[derive(Clone, Debug)]
pub struct Store<S>(pub S);

impl<S: KvStore + Clone> Client for Store<S> {
    async fn run(&self, op: Op, data: &'static Data, at: usize) -> Result<()> {
        let value = data.value.as_bytes();
        match op {
            Op::Get => {
                let found = self.0.get(data.key(at).as_bytes()).await?;
                ensure!(found.is_some_and(|found| found.len() == value.len()));
            }
            Op::SetTtl => self.0.set(data.key(at).as_bytes(), value, Some(Data::TTL)).await?,
            Op::Incr => ensure!(self.0.incr(data.counter(at).as_bytes(), 1, None).await?.value > 0),
            Op::Mget100 => {
                let keys: Vec<&[u8]> = data.batch(at).iter().map(|key| key.as_bytes()).collect();
                ensure!(self.0.mget(&keys).await?.iter().all(Option::is_some));
            }
        }
        Ok(())
    }
}

/// redis-rs: `MultiplexedConnection` or `ClusterConnection`.
#[derive(Clone, Debug)]
pub struct RedisRs<C>(pub C);

impl<C: ConnectionLike + Clone + Send + Sync + 'static> Client for RedisRs<C> {
    async fn run(&self, op: Op, data: &'static Data, at: usize) -> Result<()> {
        let mut connection = self.0.clone();
        match op {
            Op::Get => {
                let found: Option<Vec<u8>> = connection.get(data.key(at)).await?;
                ensure!(found.is_some_and(|found| found.len() == data.value.len()));
            }
            Op::SetTtl => {
                let ttl = Data::TTL.as_millis() as u64;
                connection.pset_ex::<_, _, ()>(data.key(at), data.value, ttl).await?;
            }
            Op::Incr => ensure!(connection.incr::<_, _, i64>(data.counter(at), 1).await? > 0),
            Op::Mget100 => {
                let found: Vec<Option<Vec<u8>>> = connection.mget(data.batch(at)).await?;
                ensure!(found.iter().all(Option::is_some));
            }
        }
        Ok(())
    }
}

/// `fred`, one client with one connection a server.
#[derive(Clone, Debug)]
pub struct Fred(pub fred::clients::Client);

impl Client for Fred {
    async fn run(&self, op: Op, data: &'static Data, at: usize) -> Result<()> {
        match op {
            Op::Get => {
                let found: Option<Bytes> = self.0.get(data.key(at)).await?;
                ensure!(found.is_some_and(|found| found.len() == data.value.len()));
            }
            Op::SetTtl => {
                let ttl = fred::types::Expiration::PX(Data::TTL.as_millis() as i64);
                self.0.set::<(), _, _>(data.key(at), data.value, Some(ttl), None, false).await?;
            }
            Op::Incr => ensure!(self.0.incr::<i64, _>(data.counter(at)).await? > 0),
            Op::Mget100 => {
                let found: Vec<Option<Bytes>> = self.0.mget(data.batch(at).to_vec()).await?;
                ensure!(found.iter().all(Option::is_some));
            }
        }
        Ok(())
    }
}

/// `rustis`, its multiplexed client.
#[derive(Clone)]
pub struct Rustis(pub rustis::client::Client);

impl Client for Rustis {
    async fn run(&self, op: Op, data: &'static Data, at: usize) -> Result<()> {
        match op {
            Op::Get => {
                let found: Option<BulkString> = self.0.get(data.key(at)).await?;
                ensure!(found.is_some_and(|found| found.len() == data.value.len()));
            }
            Op::SetTtl => {
                let ttl = SetExpiration::Px(Data::TTL.as_millis() as u64);
                self.0.set_with_options(data.key(at), data.value, None, ttl).await?;
            }
            Op::Incr => ensure!(self.0.incr(data.counter(at)).await? > 0),
            Op::Mget100 => {
                let found: Vec<Option<BulkString>> = self.0.mget(data.batch(at)).await?;
                ensure!(found.iter().all(Option::is_some));
            }
        }
        Ok(())
    }
}
