//! The subjects, each used as its documentation shows.

use std::future::Future;
use std::sync::LazyLock;

use anyhow::{Result, bail, ensure};
use bytes::Bytes;
use derp_kv_core::{GuardedGet, KvStore, KvStoreExt as _, RateLimit};
use fred::interfaces::{KeysInterface as _, LuaInterface as _};
use redis::aio::ConnectionLike;
use redis::{AsyncCommands as _, Script};
use rustis::commands::{ScriptingCommands as _, SetExpiration, StringCommands as _};
use rustis::resp::BulkString;

use super::Data;
use super::measure::{Round, Work};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Get,
    SetTtl,
    Incr,
    /// The others run the very script that the store runs.
    IncrByScript,
    /// Of this many keys.
    Mget(usize),
    /// Of this many keys, with one TTL.
    Mset(usize),
    /// Far below its limit.
    RateLimit,
    /// The others run the very script that the store runs.
    RateLimitByScript,
    /// A hit.
    GuardedGet,
}

impl Op {
    pub const ALL: [Self; 6] =
        [Self::Get, Self::SetTtl, Self::Incr, Self::Mget(100), Self::RateLimit, Self::GuardedGet];

    pub fn name(self) -> String {
        match self {
            Self::Get => "get".to_owned(),
            Self::SetTtl => "set with TTL".to_owned(),
            Self::Incr => "incr".to_owned(),
            Self::IncrByScript => "incr, the same script".to_owned(),
            Self::Mget(count) => format!("mget of {count}"),
            Self::Mset(count) => format!("mset of {count}"),
            Self::RateLimit => "rate_limit".to_owned(),
            Self::RateLimitByScript => "rate_limit, the same script".to_owned(),
            Self::GuardedGet => "guarded_get hit".to_owned(),
        }
    }

    /// Whether the size of the value matters to it.
    pub fn has_value(self) -> bool {
        !matches!(self, Self::Incr | Self::IncrByScript | Self::RateLimit | Self::RateLimitByScript)
    }
}

/// A client that does the operations, one command for each.
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
            Op::Incr | Op::IncrByScript => {
                ensure!(self.0.incr(data.counter(at).as_bytes(), 1, None).await?.value > 0);
            }
            Op::Mget(count) => {
                let keys: Vec<&[u8]> =
                    data.batch(at, count).iter().map(|key| key.as_bytes()).collect();
                ensure!(self.0.mget(&keys).await?.iter().all(Option::is_some));
            }
            Op::Mset(count) => {
                let items: Vec<_> =
                    data.batch(at, count).iter().map(|key| (key.as_bytes(), value)).collect();
                self.0.mset(&items, Some(Data::TTL)).await?;
            }
            Op::RateLimit | Op::RateLimitByScript => {
                let limit = RateLimit::new(u64::MAX / 4, Data::TTL);
                ensure!(self.0.rate_limit(data.window(at), &limit).await?.allowed);
            }
            Op::GuardedGet => {
                let options = GuardedGet::new(Data::TTL);
                let miss = || async { Err::<Bytes, _>(anyhow::anyhow!("no hit")) };
                let found = self.0.guarded_get(data.key(at), &options, miss).await?;
                ensure!(found.len() == value.len());
            }
        }
        Ok(())
    }
}

/// The window begins with its first request, as the documentation of INCR shows it.
pub static WINDOW: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local count = redis.call('INCR', KEYS[1])
        if count == 1 then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end
        return {count, redis.call('PTTL', KEYS[1])}",
    )
});

/// What [`derp_kv_core::KvStore::incr`] and with it `rate_limit` run on a server: the key, the
/// increment, and the TTL of a new counter or nothing.
pub static INCR: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("../../src/protocol/scripts/incr.lua")));

/// redis-rs: `MultiplexedConnection` or `ClusterConnection`.
#[derive(Clone, Debug)]
pub struct RedisRs<C>(pub C);

impl<C: ConnectionLike + Clone + Send + Sync + 'static> Client for RedisRs<C> {
    async fn run(&self, op: Op, data: &'static Data, at: usize) -> Result<()> {
        let mut connection = self.0.clone();
        match op {
            Op::Get | Op::GuardedGet => {
                let found: Option<Vec<u8>> = connection.get(data.key(at)).await?;
                ensure!(found.is_some_and(|found| found.len() == data.value.len()));
            }
            Op::SetTtl => {
                let ttl = Data::TTL.as_millis() as u64;
                connection.pset_ex::<_, _, ()>(data.key(at), data.value, ttl).await?;
            }
            Op::Incr => ensure!(connection.incr::<_, _, i64>(data.counter(at), 1).await? > 0),
            Op::Mget(count) => {
                let found: Vec<Option<Vec<u8>>> = connection.mget(data.batch(at, count)).await?;
                ensure!(found.iter().all(Option::is_some));
            }
            // MSET takes no TTL.
            Op::Mset(count) => {
                let mut pipeline = redis::pipe();
                for key in data.batch(at, count) {
                    pipeline.pset_ex(*key, data.value, Data::TTL.as_millis() as u64).ignore();
                }
                pipeline.exec_async(&mut connection).await?;
            }
            Op::RateLimit => {
                let mut call = WINDOW.key(data.window(at));
                let call = call.arg(Data::TTL.as_millis() as u64);
                let (count, left): (i64, i64) = call.invoke_async(&mut connection).await?;
                ensure!(count > 0 && left > 0);
            }
            Op::IncrByScript => {
                let mut call = INCR.key(data.counter(at));
                let (count, left): (i64, i64) =
                    call.arg(1).arg("").invoke_async(&mut connection).await?;
                ensure!(count > 0 && left < 0);
            }
            Op::RateLimitByScript => {
                let mut call = INCR.key(data.window(at));
                let call = call.arg(1).arg(Data::TTL.as_millis() as u64);
                let (count, left): (i64, i64) = call.invoke_async(&mut connection).await?;
                ensure!(count > 0 && left > 0);
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
            Op::Get | Op::GuardedGet => {
                let found: Option<Bytes> = self.0.get(data.key(at)).await?;
                ensure!(found.is_some_and(|found| found.len() == data.value.len()));
            }
            Op::SetTtl => {
                let ttl = fred::types::Expiration::PX(Data::TTL.as_millis() as i64);
                self.0.set::<(), _, _>(data.key(at), data.value, Some(ttl), None, false).await?;
            }
            Op::Incr => ensure!(self.0.incr::<i64, _>(data.counter(at)).await? > 0),
            Op::Mget(count) => {
                let found: Vec<Option<Bytes>> = self.0.mget(data.batch(at, count).to_vec()).await?;
                ensure!(found.iter().all(Option::is_some));
            }
            Op::RateLimit => {
                let ttl = Data::TTL.as_millis() as i64;
                let call = self.0.evalsha(WINDOW.get_hash(), data.window(at), ttl);
                let (count, left): (i64, i64) = call.await?;
                ensure!(count > 0 && left > 0);
            }
            Op::IncrByScript => {
                let call = self.0.evalsha(INCR.get_hash(), data.counter(at), vec!["1", ""]);
                let (count, left): (i64, i64) = call.await?;
                ensure!(count > 0 && left < 0);
            }
            Op::RateLimitByScript => {
                let ttl = Data::TTL.as_millis() as i64;
                let call = self.0.evalsha(INCR.get_hash(), data.window(at), vec![1, ttl]);
                let (count, left): (i64, i64) = call.await?;
                ensure!(count > 0 && left > 0);
            }
            Op::Mset(_) => bail!("{op:?} is not measured"),
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
            Op::Get | Op::GuardedGet => {
                let found: Option<BulkString> = self.0.get(data.key(at)).await?;
                ensure!(found.is_some_and(|found| found.len() == data.value.len()));
            }
            Op::SetTtl => {
                let ttl = SetExpiration::Px(Data::TTL.as_millis() as u64);
                self.0.set_with_options(data.key(at), data.value, None, ttl).await?;
            }
            Op::Incr => ensure!(self.0.incr(data.counter(at)).await? > 0),
            Op::Mget(count) => {
                let found: Vec<Option<BulkString>> = self.0.mget(data.batch(at, count)).await?;
                ensure!(found.iter().all(Option::is_some));
            }
            Op::RateLimit => {
                let ttl = Data::TTL.as_millis() as u64;
                let call = self.0.evalsha(WINDOW.get_hash(), data.window(at), ttl);
                let (count, left): (i64, i64) = call.await?;
                ensure!(count > 0 && left > 0);
            }
            Op::IncrByScript => {
                let call = self.0.evalsha(INCR.get_hash(), data.counter(at), ("1", ""));
                let (count, left): (i64, i64) = call.await?;
                ensure!(count > 0 && left < 0);
            }
            Op::RateLimitByScript => {
                let ttl = Data::TTL.as_millis() as u64;
                let call = self.0.evalsha(INCR.get_hash(), data.window(at), (1, ttl));
                let (count, left): (i64, i64) = call.await?;
                ensure!(count > 0 && left > 0);
            }
            Op::Mset(_) => bail!("{op:?} is not measured"),
        }
        Ok(())
    }
}
