//! The store.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use derp_kv_core::{
    Counter, Error, ErrorKind, Expiry, Flights, KvStore, Observer, Operation, Result, Ttl,
};
use futures_core::stream::BoxStream;
use futures_util::stream;
use redis::Value;
use tokio::runtime::Handle;

use crate::cluster::router::Router;
use crate::config::ValkeyConfig;
use crate::ops::{batch, scan, tracking};
use crate::protocol::request::{Body, Native, Request, Safety};
use crate::protocol::{commands, glob, reply, script};

/// The longest command: a little below the server's `client-query-buffer-limit` of 1 GiB.
const LONGEST_COMMAND: usize = 1024 * 1024 * 1024 - 1024 * 1024;

/// A store on a Valkey server or cluster: a cheap handle, to be cloned freely.
///
/// The clones share one connection per node, which heals itself: after a restart, a failover, a
/// lost network or a refused login it is there again without anybody doing anything. When the last
/// handle is dropped, the connections close and no task is left behind.
///
/// # What a failure means
///
/// Every operation ends within [`ValkeyConfig::op_timeout`]; a scan may take that long for each of
/// its pages, which hold the keys found among about a thousand. A request that the server has
/// surely not executed is sent again until then, unseen by the caller. A read whose answer was lost
/// is sent again as well. A write whose answer was lost is not, nor one whose answer makes no sense:
/// it fails with [`may_have_applied`](derp_kv_core::Error::may_have_applied).
///
/// # Examples
///
/// ```no_run
/// use derp_kv_core::KvStore;
/// use derp_kv_valkey::{ValkeyConfig, ValkeyStore};
///
/// # async fn example() -> derp_kv_core::Result<()> {
/// let kv = ValkeyStore::connect(ValkeyConfig::from_toml_path("derp.toml")?).await?;
/// kv.set(b"greeting", b"hello", None).await?;
/// assert_eq!(kv.get(b"greeting").await?.as_deref(), Some(&b"hello"[..]));
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct ValkeyStore {
    router: Arc<Router>,
    flights: Flights,
}

impl ValkeyStore {
    /// Connects to the servers of `config`, within one connection time-out.
    ///
    /// # Errors
    ///
    /// * [`InvalidArgument`](ErrorKind::InvalidArgument): the configuration is wrong, or the
    ///   server runs in the other mode.
    /// * [`AccessDenied`](ErrorKind::AccessDenied): wrong user or password.
    /// * [`Unavailable`](ErrorKind::Unavailable): nobody listens there, the name does not resolve,
    ///   the TLS handshake fails, the cluster has no slots.
    /// * [`Timeout`](ErrorKind::Timeout): no answer within the connection time-out.
    /// * [`Unsupported`](ErrorKind::Unsupported): the server is too old for RESP3.
    ///
    /// # Cancel safety
    ///
    /// A dropped call leaves no connection behind.
    pub async fn connect(config: ValkeyConfig) -> Result<Self> {
        let router = Router::connect(config)
            .await
            .map_err(|error| error.with_operation(Operation::Connect))?;
        Ok(Self { router: Arc::new(router), flights: Flights::new() })
    }

    /// Refuses what the server would answer by closing the connection on everybody.
    fn check(&self, operation: Operation, parts: &[&[u8]]) -> Result<()> {
        let longest = self.router.config().max_bulk_bytes;
        let too_long = parts.iter().any(|part| part.len() > longest)
            || parts.iter().map(|part| part.len()).sum::<usize>() > LONGEST_COMMAND;
        if too_long {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("a key, value or pattern exceeds {longest} bytes, or the whole 1 GiB"),
            )
            .with_operation(operation));
        }
        Ok(())
    }
}

/// `operation` named, unless the error has a name already.
fn named<T>(operation: Operation, result: Result<T>) -> Result<T> {
    result.map_err(|error| error.with_operation(operation))
}

/// A TTL as a script takes it: milliseconds, or nothing.
fn ttl_arg(ttl: Option<Ttl>) -> String {
    ttl.map(|ttl| ttl.as_millis().to_string()).unwrap_or_default()
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl KvStore for ValkeyStore {
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        self.check(Operation::Get, &[key])?;
        let cmd = commands::one_key("GET", key);
        self.router.call(&Request::read(Operation::Get, key, cmd), reply::value).await
    }

    async fn get_with_ttl(&self, key: &[u8]) -> Result<Option<(Bytes, Expiry)>> {
        const CALL: Operation = Operation::GetWithTtl;
        self.check(CALL, &[key])?;
        let body = Body::Script { script: &script::GET_WITH_TTL, args: &[], native: None };
        let request = Request { operation: CALL, safety: Safety::Retry, key, body };
        let found = |reply| {
            let found = with_expiry(reply)?;
            found.map(|(value, expiry)| Ok((present(value)?, expiry))).transpose()
        };
        self.router.call(&request, found).await
    }

    async fn exists(&self, key: &[u8]) -> Result<bool> {
        self.check(Operation::Exists, &[key])?;
        let cmd = commands::one_key("EXISTS", key);
        self.router.call(&Request::read(Operation::Exists, key, cmd), reply::flag).await
    }

    async fn ttl(&self, key: &[u8]) -> Result<Option<Expiry>> {
        self.check(Operation::Ttl, &[key])?;
        let cmd = commands::one_key("PTTL", key);
        let left = |reply| reply::expiry(reply::integer(&reply)?);
        self.router.call(&Request::read(Operation::Ttl, key, cmd), left).await
    }

    async fn mget(&self, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>> {
        for key in keys {
            self.check(Operation::Mget, &[key])?;
        }
        batch::mget(&self.router, keys).await
    }

    fn scan(&self, prefix: &[u8]) -> BoxStream<'static, Result<Bytes>> {
        let pattern = glob::pattern(prefix);
        match self.check(Operation::Scan, &[&pattern]) {
            Ok(()) => scan::scan(self.router.clone(), prefix, pattern),
            Err(error) => Box::pin(stream::once(async { Err(error) })),
        }
    }

    async fn set(&self, key: &[u8], value: &[u8], ttl: Option<Duration>) -> Result<()> {
        let ttl = named(Operation::Set, Ttl::optional(ttl))?;
        self.check(Operation::Set, &[key, value])?;
        let cmd = commands::set(key, value, ttl);
        self.router.call(&Request::write(Operation::Set, key, cmd), reply::ok).await
    }

    async fn mset(&self, items: &[(&[u8], &[u8])], ttl: Option<Duration>) -> Result<()> {
        let ttl = named(Operation::Mset, Ttl::optional(ttl))?;
        for (key, value) in items {
            self.check(Operation::Mset, &[key, value])?;
        }
        batch::mset(&self.router, items, ttl).await
    }

    async fn delete(&self, key: &[u8]) -> Result<bool> {
        self.check(Operation::Delete, &[key])?;
        let cmd = commands::one_key("DEL", key);
        self.router.call(&Request::write(Operation::Delete, key, cmd), reply::flag).await
    }

    async fn delete_many(&self, keys: &[&[u8]]) -> Result<u64> {
        for key in keys {
            self.check(Operation::DeleteMany, &[key])?;
        }
        batch::delete_many(&self.router, keys).await
    }

    async fn expire(&self, key: &[u8], ttl: Duration) -> Result<bool> {
        let ttl = named(Operation::Expire, Ttl::new(ttl))?;
        self.check(Operation::Expire, &[key])?;
        let cmd = commands::pexpire(key, ttl);
        self.router.call(&Request::write(Operation::Expire, key, cmd), reply::flag).await
    }

    async fn set_nx(&self, key: &[u8], value: &[u8], ttl: Option<Duration>) -> Result<bool> {
        let ttl = named(Operation::SetNx, Ttl::optional(ttl))?;
        self.check(Operation::SetNx, &[key, value])?;
        let cmd = commands::set_nx(key, value, ttl);
        self.router.call(&Request::write(Operation::SetNx, key, cmd), reply::flag).await
    }

    async fn incr(&self, key: &[u8], by: i64, ttl: Option<Duration>) -> Result<Counter> {
        let ttl = named(Operation::Incr, Ttl::optional(ttl))?;
        self.check(Operation::Incr, &[key])?;
        let (by, ttl) = (by.to_string(), ttl_arg(ttl));
        let args = [by.as_bytes(), ttl.as_bytes()];
        let request = Request::script(Operation::Incr, key, &script::INCR, &args, None);
        self.router.call(&request, counter).await.map_err(not_a_counter)
    }

    async fn compare_and_set(
        &self,
        key: &[u8],
        expected: &[u8],
        value: &[u8],
        ttl: Option<Duration>,
    ) -> Result<bool> {
        const CALL: Operation = Operation::CompareAndSet;
        let ttl = named(CALL, Ttl::optional(ttl))?;
        self.check(CALL, &[key, expected, value])?;
        let native = (Native::SetIfEq, commands::set_if_eq(key, expected, value, ttl));
        let ttl = ttl_arg(ttl);
        let args = [expected, value, ttl.as_bytes()];
        let script = &script::COMPARE_AND_SET;
        let request = Request::script(CALL, key, script, &args, Some(native));
        self.router.call(&request, reply::flag).await
    }

    async fn compare_and_delete(&self, key: &[u8], expected: &[u8]) -> Result<bool> {
        const CALL: Operation = Operation::CompareAndDelete;
        self.check(CALL, &[key, expected])?;
        let native = (Native::DelIfEq, commands::del_if_eq(key, expected));
        let (script, args) = (&script::COMPARE_AND_DELETE, [expected]);
        let request = Request::script(CALL, key, script, &args, Some(native));
        self.router.call(&request, reply::flag).await
    }

    async fn wait_for_change(&self, key: &[u8], seen: Option<&[u8]>, at_most: Duration) {
        if self.check(Operation::WaitForChange, &[key]).is_err() {
            return tokio::time::sleep(at_most.min(tracking::LONGEST)).await;
        }
        tracking::wait_for_change(&self.router, key, seen, at_most).await;
    }

    fn flights(&self) -> Option<&Flights> {
        Some(&self.flights)
    }

    fn runtime(&self) -> Option<Handle> {
        None
    }

    fn observer(&self) -> Option<&dyn Observer> {
        None
    }
}

/// Reads what the scripts return: a value and the `PTTL` of its key, or nil.
fn with_expiry(reply: Value) -> Result<Option<(Value, Expiry)>> {
    let pair = match reply {
        Value::Nil => return Ok(None),
        Value::Array(pair) => pair,
        _ => return Err(reply::unexpected()),
    };
    let Ok([value, pttl]) = <[Value; 2]>::try_from(pair) else {
        return Err(reply::unexpected());
    };
    let expiry = reply::expiry(reply::integer(&pttl)?)?.ok_or_else(reply::unexpected)?;
    Ok(Some((value, expiry)))
}

/// Reads what `incr` returns. The server has counted: what it says of that says nothing of the value.
fn counter(reply: Value) -> Result<Counter> {
    let (value, expiry) = with_expiry(reply)?.ok_or_else(reply::unexpected)?;
    let value = match value {
        Value::Int(value) => value,
        text => Counter::parse(&present(text)?).map_err(|_| reply::unexpected())?,
    };
    Ok(Counter { value, expiry })
}

fn present(value: Value) -> Result<Bytes> {
    reply::value(value)?.ok_or_else(reply::unexpected)
}

/// A key that holds a list or a hash is no counter either.
fn not_a_counter(error: Error) -> Error {
    if error.kind() == ErrorKind::Backend && error.to_string().contains("WRONGTYPE") {
        Error::new(ErrorKind::NotAnInteger, "the key holds no string")
            .with_operation(Operation::Incr)
    } else {
        error
    }
}

impl fmt::Debug for ValkeyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let config = self.router.config();
        f.debug_struct("ValkeyStore")
            .field("addresses", &config.addresses)
            .field("mode", &config.mode)
            .finish_non_exhaustive()
    }
}
