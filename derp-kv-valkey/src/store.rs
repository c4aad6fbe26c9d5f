//! The store.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use derp_kv_core::{
    Counter, Error, ErrorKind, Expiry, Flights, KvStore, Observer, Operation, Result, Step,
    StepFuture, Ttl,
};
use futures_core::stream::BoxStream;
use futures_util::stream;
use tokio::runtime::Handle;

use crate::cluster::router::Router;
use crate::cluster::stats::ValkeyStats;
use crate::config::ValkeyConfig;
use crate::ops::command::{self, Repeat};
use crate::ops::{batch, scan, tracking};
use crate::protocol::Args;
use crate::protocol::reply::Reply;
use crate::protocol::request::{Body, Native, Request, Safety};
use crate::protocol::steps::Encoded;
use crate::protocol::{commands, glob, script, shape};

/// The longest command: a little below the server's `client-query-buffer-limit` of 1 GiB.
const LONGEST_COMMAND: usize = 1024 * 1024 * 1024 - 1024 * 1024;

/// A store on a Valkey server or cluster: a cheap handle, to be cloned freely.
///
/// The clones share the connections to each node, one unless set. Connections heal themselves: after
/// a restart, a failover, a lost network or a refused login they are there again without anybody
/// doing anything. When the last handle is dropped, they close, and no task is left behind.
///
/// They live on an I/O thread that all stores of the process share, so a store works from every
/// tokio runtime, also when the one that connected it is gone, paused or blocked.
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
    /// * [`ReadOnly`](ErrorKind::ReadOnly): a replica answers at the address of a standalone server.
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

    /// Runs any other command of the server, given word by word.
    ///
    /// In a cluster it goes to the node that serves `key`, which should be the command's first key;
    /// without a cluster, and for commands without keys, any `key` will do. Deadline, redirects and
    /// healing are those of the other operations.
    ///
    /// # Errors
    ///
    /// * [`InvalidArgument`](ErrorKind::InvalidArgument): no command, one that changes or blocks the
    ///   connection that all callers share (`SUBSCRIBE`, `MULTI`, `BLPOP`, ..), or one that is longer
    ///   than a server takes.
    /// * What the server refuses: [`AccessDenied`](ErrorKind::AccessDenied),
    ///   [`Unsupported`](ErrorKind::Unsupported), [`Full`](ErrorKind::Full),
    ///   [`ReadOnly`](ErrorKind::ReadOnly), otherwise [`Backend`](ErrorKind::Backend). It was not
    ///   applied then.
    /// * [`Unavailable`](ErrorKind::Unavailable), [`Timeout`](ErrorKind::Timeout): with
    ///   [`Repeat::Once`] it may have been applied, and the error says whether.
    ///
    /// # Cancel safety
    ///
    /// Dropped, the command may have been executed or not, or is executed a moment later.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use derp_kv_valkey::{Repeat, Reply, ValkeyStore};
    ///
    /// # async fn example(kv: ValkeyStore) -> derp_kv_core::Result<()> {
    /// kv.command(b"cart:7", &[b"HSET", b"cart:7", b"apples", b"3"], Repeat::Safe).await?;
    /// let apples = kv.command(b"cart:7", &[b"HGET", b"cart:7", b"apples"], Repeat::Safe).await?;
    /// assert_eq!(apples, Reply::BulkString("3".into()));
    /// # Ok(()) }
    /// ```
    pub async fn command(&self, key: &[u8], args: &[&[u8]], repeat: Repeat) -> Result<Reply> {
        const CALL: Operation = Operation::Command;
        named(CALL, command::check(args))?;
        self.check(CALL, args)?;
        let request = match repeat {
            Repeat::Safe => Request::read(CALL, key, args),
            Repeat::Once => Request::write(CALL, key, args),
        };
        self.router.call(&request, Ok).await
    }

    /// The nodes as they are now, from what the store knows: nothing is sent, and nothing is waited
    /// for.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use derp_kv_valkey::{NodeState, ValkeyStore};
    ///
    /// # fn example(kv: ValkeyStore) {
    /// for node in kv.stats().nodes {
    ///     let is_well = node.state == NodeState::Connected;
    ///     println!("{}: {is_well}, {} in flight", node.address, node.in_flight);
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn stats(&self) -> ValkeyStats {
        ValkeyStats::of(&self.router.view.topology())
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

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl KvStore for ValkeyStore {
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        self.check(Operation::Get, &[key])?;
        let args: Args<'_> = &[b"GET", key];
        let request = Request::read(Operation::Get, key, args);
        self.router.call(&request, shape::value).await
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
        let args: Args<'_> = &[b"EXISTS", key];
        let request = Request::read(Operation::Exists, key, args);
        self.router.call(&request, shape::flag).await
    }

    async fn ttl(&self, key: &[u8]) -> Result<Option<Expiry>> {
        self.check(Operation::Ttl, &[key])?;
        let args: Args<'_> = &[b"PTTL", key];
        let request = Request::read(Operation::Ttl, key, args);
        let left = |reply| shape::expiry(shape::integer(&reply)?);
        self.router.call(&request, left).await
    }

    async fn mget(&self, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>> {
        for key in keys {
            self.check(Operation::Mget, &[key])?;
        }
        batch::mget(&self.router, keys).await
    }

    fn scan(&self, prefix: &[u8]) -> BoxStream<'static, Result<Bytes>> {
        let pattern = glob::pattern(prefix);
        match self.check(Operation::Scan, &[prefix]) {
            Ok(()) => scan::scan(self.router.clone(), prefix, pattern),
            Err(error) => Box::pin(stream::once(async { Err(error) })),
        }
    }

    async fn set(&self, key: &[u8], value: &[u8], ttl: Option<Duration>) -> Result<()> {
        let ttl = named(Operation::Set, Ttl::optional(ttl))?;
        self.check(Operation::Set, &[key, value])?;
        let ttl = commands::ttl(ttl);
        let args = commands::set(key, value, &ttl, &[]);
        self.router.call(&Request::write(Operation::Set, key, &args), shape::ok).await
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
        let args: Args<'_> = &[b"DEL", key];
        let request = Request::write(Operation::Delete, key, args);
        self.router.call(&request, shape::flag).await
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
        let ttl = commands::ttl(Some(ttl));
        let args: Args<'_> = &[b"PEXPIRE", key, ttl.as_bytes()];
        self.router.call(&Request::write(Operation::Expire, key, args), shape::flag).await
    }

    async fn set_nx(&self, key: &[u8], value: &[u8], ttl: Option<Duration>) -> Result<bool> {
        let ttl = named(Operation::SetNx, Ttl::optional(ttl))?;
        self.check(Operation::SetNx, &[key, value])?;
        let ttl = commands::ttl(ttl);
        let args = commands::set(key, value, &ttl, &[b"NX"]);
        self.router.call(&Request::write(Operation::SetNx, key, &args), shape::flag).await
    }

    async fn incr(&self, key: &[u8], by: i64, ttl: Option<Duration>) -> Result<Counter> {
        const CALL: Operation = Operation::Incr;
        let ttl = named(CALL, Ttl::optional(ttl))?;
        self.check(CALL, &[key])?;
        let (by, ttl) = (by.to_string(), commands::ttl(ttl));
        let args = [by.as_bytes(), ttl.as_bytes()];
        let request = Request::script(CALL, key, &script::INCR, &args, None);
        self.router
            .call(&request, counter)
            .await
            .map_err(|error| no_string(error, CALL, ErrorKind::NotAnInteger))
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
        let ttl = commands::ttl(ttl);
        let native = commands::set(key, value, &ttl, &[b"IFEQ", expected]);
        let native = (Native::SetIfEq, &native[..]);
        let args = [expected, value, ttl.as_bytes()];
        let script = &script::COMPARE_AND_SET;
        let request = Request::script(CALL, key, script, &args, Some(native));
        self.router.call(&request, shape::flag).await
    }

    async fn compare_and_delete(&self, key: &[u8], expected: &[u8]) -> Result<bool> {
        const CALL: Operation = Operation::CompareAndDelete;
        self.check(CALL, &[key, expected])?;
        let native: (Native, Args<'_>) = (Native::DelIfEq, &[b"DELIFEQ", key, expected]);
        let (script, args) = (&script::COMPARE_AND_DELETE, [expected]);
        let request = Request::script(CALL, key, script, &args, Some(native));
        self.router.call(&request, shape::flag).await
    }

    async fn wait_for_change(&self, key: &[u8], seen: Option<&[u8]>, at_most: Duration) {
        if self.check(Operation::WaitForChange, &[key]).is_err() {
            return self.router.io().sleep(at_most.min(tracking::LONGEST)).await;
        }
        tracking::wait_for_change(&self.router, key, seen, at_most).await;
    }

    fn step<'a>(&'a self, key: &'a [u8], step: &'a Step) -> StepFuture<'a> {
        const CALL: Operation = Operation::Step;
        StepFuture::new(async move {
            self.check(CALL, &[key])?;
            let encoded = named(CALL, Encoded::new(step))?;
            let args = encoded.args();
            let request = encoded.request(key, &args);
            let stepped = self.router.call(&request, |reply| encoded.read(step, reply)).await;
            named(CALL, stepped.map_err(|error| no_string(error, CALL, ErrorKind::Corrupt))?)
        })
    }

    fn flights(&self) -> Option<&Flights> {
        Some(&self.flights)
    }

    fn runtime(&self) -> Option<Handle> {
        Some(self.router.io().handle().clone())
    }

    fn observer(&self) -> Option<&dyn Observer> {
        self.router.config().watcher.observer()
    }
}

/// Reads what the scripts return: a value and the `PTTL` of its key, or nil.
fn with_expiry(reply: Reply) -> Result<Option<(Reply, Expiry)>> {
    let pair = match reply {
        Reply::Nil => return Ok(None),
        Reply::Array(pair) => pair,
        _ => return Err(shape::unexpected()),
    };
    let Ok([value, pttl]) = <[Reply; 2]>::try_from(pair) else {
        return Err(shape::unexpected());
    };
    let expiry = shape::expiry(shape::integer(&pttl)?)?.ok_or_else(shape::unexpected)?;
    Ok(Some((value, expiry)))
}

/// Reads what `incr` returns. The server has counted: what it says of that says nothing of the value.
fn counter(reply: Reply) -> Result<Counter> {
    let (value, expiry) = with_expiry(reply)?.ok_or_else(shape::unexpected)?;
    let value = match value {
        Reply::Int(value) => value,
        text => Counter::parse(&present(text)?).map_err(|_| shape::unexpected())?,
    };
    Ok(Counter { value, expiry })
}

fn present(value: Reply) -> Result<Bytes> {
    shape::value(value)?.ok_or_else(shape::unexpected)
}

/// A key that holds a list or a hash is no counter and no record either.
fn no_string(error: Error, operation: Operation, kind: ErrorKind) -> Error {
    if error.kind() == ErrorKind::Backend && error.to_string().contains("WRONGTYPE") {
        Error::new(kind, "the key holds no string").with_operation(operation)
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
