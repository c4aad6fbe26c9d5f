//! A store on PostgreSQL: one table, one statement an operation, and the server's clock alone.

mod changes;
mod failure;
mod lane;
mod sql;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::ops::RangeInclusive;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use derp_kv_core::{Counter, Error, ErrorKind, Expiry, Flights, KvStore, Operation, Result, Ttl};
use futures_core::stream::BoxStream;
use futures_util::future::{join_all, try_join_all};
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};
use tokio_postgres::Row;

use changes::{BUCKETS, Changes, POLL};
use lane::{Lane, Param};

/// How many keys a scan reads at a time. Nothing is held between two pages.
const PAGE: i64 = 1_000;
/// The most keys, and about the most bytes, of one statement of a batch.
const BATCH: (usize, usize) = (10_000, 16 * 1024 * 1024);
/// The limits of [`PostgresConfig::op_timeout`].
const OP_TIMEOUT: RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_secs(24 * 24 * 3600);
/// The longest sleep of a waiter, for changes that nobody announces: those made by hand.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// Where the server is and how long it may take.
#[derive(Clone, Debug)]
pub struct PostgresConfig {
    /// Host, user, password, database; its `Debug` shows no password.
    pub server: tokio_postgres::Config,
    /// How many connections the keys are spread over, at least one. A statement that waits for a row
    /// holds up the others of its connection.
    pub connections: usize,
    /// How long a statement may take on the server, from 10 ms to 24 days. A caller waits a second
    /// longer for the answer. Opening a connection may take as long again.
    pub op_timeout: Duration,
}

impl PostgresConfig {
    /// Four connections, and five seconds for an operation.
    #[must_use]
    pub fn new(server: tokio_postgres::Config) -> Self {
        Self { server, connections: 4, op_timeout: Duration::from_secs(5) }
    }

    /// The server takes whole milliseconds, in 31 bits, and none at all would switch the limit off.
    fn check(&self) -> Result<()> {
        let refused = if self.connections == 0 {
            "connections must be at least 1"
        } else if !OP_TIMEOUT.contains(&self.op_timeout) {
            "op_timeout must be from 10 ms to 24 days"
        } else {
            return Ok(());
        };
        Err(Error::new(ErrorKind::InvalidArgument, refused))
    }
}

/// A store in the table `derp_kv` of a PostgreSQL database. Clones share its connections.
///
/// Each key belongs to one connection, on which statements run in the order of the calls: so what a
/// dropped call has sent is applied before any later call of that key, and never behind it. A lost
/// connection is opened again by the next call, once the lost session has ended on the server.
///
/// A scan reads over one of the connections and is outside of that order: a write that was dropped
/// may be applied after the scan has begun, as may the writes of others. It is no snapshot.
///
/// A write whose answer is lost is not sent again: it fails with
/// [`may_have_applied`](Error::may_have_applied).
///
/// [`step`](KvStore::step) is the default, a loop of two statements: a server-side function would be
/// code in two languages to keep in step.
#[derive(Clone)]
pub struct PostgresStore {
    connections: Arc<Connections>,
    flights: Flights,
}

struct Connections {
    lanes: Vec<Arc<Lane>>,
    changes: Arc<Changes>,
    runtime: Handle,
    listener: AbortHandle,
}

impl Drop for Connections {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

/// What one statement of a batch has of it.
#[derive(Default)]
struct Part {
    keys: Vec<Vec<u8>>,
    values: Vec<Vec<u8>>,
    size: usize,
    buckets: BTreeSet<u64>,
}

impl PostgresStore {
    /// The longest key in bytes. An entry of the index holds 2,692.
    pub const LONGEST_KEY: usize = 2_600;
    /// The longest value in bytes. A field, and a whole statement, hold less than 1 GiB.
    pub const LONGEST_VALUE: usize = 256 * 1024 * 1024;

    /// Connects, and makes the table if it is not there.
    ///
    /// The connections live on `runtime`, and go on there whatever the runtimes of the callers do.
    ///
    /// # Errors
    ///
    /// [`AccessDenied`](ErrorKind::AccessDenied) for a wrong user or password or where the table is
    /// missing and may not be made, [`Unavailable`](ErrorKind::Unavailable) where nobody answers,
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) for settings out of their bounds or without a
    /// host, [`Unsupported`](ErrorKind::Unsupported) where they demand TLS.
    pub async fn connect(config: PostgresConfig, runtime: Handle) -> Result<Self> {
        config.check().map_err(|error| error.with_operation(Operation::Connect))?;
        let changes = Arc::new(Changes::new());
        let lane = |_| Arc::new(Lane::new(config.clone(), runtime.clone(), changes.clone()));
        let lanes: Vec<_> = (0..config.connections).map(lane).collect();
        let opened = try_join_all(lanes.iter().map(|lane| lane.open())).await;
        opened.map_err(|error| error.with_operation(Operation::Connect))?;
        let listener = runtime.spawn(changes.clone().follow(config)).abort_handle();
        let connections = Arc::new(Connections { lanes, changes, runtime, listener });
        Ok(Self { connections, flights: Flights::new() })
    }

    fn lane(&self, key: &[u8]) -> usize {
        let lanes = self.connections.lanes.len() as u64;
        usize::try_from(hash(key) / BUCKETS % lanes).unwrap_or_default()
    }

    /// Runs the statement of one key, whose parameters are the key and `others`.
    async fn one(
        &self,
        operation: Operation,
        key: &[u8],
        sql: &'static str,
        others: impl IntoIterator<Item = Result<Param>>,
    ) -> Result<Option<Row>> {
        let params = check_key(key).and_then(|()| {
            let key: Param = Box::new(key.to_vec());
            [Ok(key)].into_iter().chain(others).collect::<Result<Vec<_>>>()
        });
        let called = async {
            let params = params?;
            let buckets = if operation.writes() { vec![hash(key) % BUCKETS] } else { Vec::new() };
            self.connections.lanes[self.lane(key)].call(sql, params, buckets).await
        };
        Ok(called.await.map_err(|error| error.with_operation(operation))?.pop())
    }

    /// Runs the statements of a batch at once: those of one connection go in the order of their
    /// keys, and no two in one transaction. `params` gets the keys and the values of each.
    async fn batch(
        &self,
        operation: Operation,
        items: BTreeMap<&[u8], &[u8]>,
        sql: &'static str,
        params: impl Fn(Param, Param) -> Vec<Param>,
    ) -> Result<Vec<Row>> {
        let named = |error: Error| error.with_operation(operation);
        let mut open: BTreeMap<usize, Part> = BTreeMap::new();
        let mut parts = Vec::new();
        for (key, value) in items {
            check_key(key).and_then(|()| check_value(value)).map_err(named)?;
            let lane = self.lane(key);
            let part = open.entry(lane).or_default();
            let size = key.len() + value.len();
            if part.keys.len() == BATCH.0 || part.size + size > BATCH.1 {
                parts.push((lane, std::mem::take(part)));
            }
            part.size += size;
            part.keys.push(key.to_vec());
            part.values.push(value.to_vec());
            part.buckets.extend(operation.writes().then_some(hash(key) % BUCKETS));
        }
        parts.extend(open);
        let parts: Vec<_> = parts.into_iter().filter(|(_, part)| !part.keys.is_empty()).collect();
        let calls = parts.into_iter().map(|(lane, part)| {
            let params = params(Box::new(part.keys), Box::new(part.values));
            self.connections.lanes[lane].call(sql, params, part.buckets.into_iter().collect())
        });
        let answers = join_all(calls).await;
        // Each statement is applied or not, whatever becomes of the others.
        let applied =
            |answer: &Result<_>| answer.as_ref().err().is_none_or(Error::may_have_applied);
        let applied = operation.writes() && answers.iter().any(applied);
        let rows: Result<Vec<_>> = answers.into_iter().collect();
        let rows = rows.map_err(|error| named(error.with_may_have_applied(applied)))?;
        Ok(rows.into_iter().flatten().collect())
    }

    /// One page of a scan: its live keys, and where the next page begins.
    async fn page(&self, from: &[u8], end: Option<&[u8]>) -> Result<(Vec<Bytes>, Option<Vec<u8>>)> {
        let bytes = |bytes: &[u8]| -> Param { Box::new(bytes.to_vec()) };
        let (sql, params): (_, Vec<Param>) = match end {
            Some(end) => (sql::SCAN, vec![bytes(from), bytes(end), Box::new(PAGE)]),
            None => (sql::SCAN_TO_END, vec![bytes(from), Box::new(PAGE)]),
        };
        let rows = self.connections.lanes[0].call(sql, params, Vec::new()).await;
        let rows = rows.map_err(|error| error.with_operation(Operation::Scan))?;
        let full = i64::try_from(rows.len()).is_ok_and(|rows| rows == PAGE);
        let last = rows.last().filter(|_| full).map(|row| row.get::<_, &[u8]>(0));
        // The least key above the last one.
        let next = last.map(|key| [key, &[0]].concat());
        let live = rows.iter().filter(|row| row.get(1));
        Ok((live.map(|row| Bytes::copy_from_slice(row.get(0))).collect(), next))
    }
}

/// FNV-1a: the same in every process, whatever its version.
fn hash(key: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    key.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

/// Refuses a value that the server would refuse, before anything is sent.
fn check_value(value: &[u8]) -> Result<()> {
    if value.len() > PostgresStore::LONGEST_VALUE {
        let refused = "a value is longer than a field of PostgreSQL";
        return Err(Error::new(ErrorKind::InvalidArgument, refused));
    }
    Ok(())
}

/// A value as a parameter.
fn field(value: &[u8]) -> Result<Param> {
    check_value(value)?;
    Ok(Box::new(value.to_vec()))
}

/// A TTL in milliseconds; at most 100 years.
fn millis(ttl: Option<Duration>) -> Result<Option<i64>> {
    Ok(Ttl::optional(ttl)?.map(|ttl| i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX)))
}

/// A TTL as a parameter.
fn life(ttl: Option<Duration>) -> Result<Param> {
    Ok(Box::new(millis(ttl)?))
}

/// Refuses a key that the server would refuse, before anything is sent.
fn check_key(key: &[u8]) -> Result<()> {
    if key.len() > PostgresStore::LONGEST_KEY {
        let refused = "a key is longer than an entry of PostgreSQL's index";
        return Err(Error::new(ErrorKind::InvalidArgument, refused));
    }
    Ok(())
}

/// The column of microseconds: never zero, although the key may have ended since it was found.
fn expiry(row: &Row, column: usize) -> Expiry {
    let left: Option<i64> = row.get(column);
    let micros = |left: i64| Duration::from_micros(u64::try_from(left).unwrap_or(0).max(1));
    left.map_or(Expiry::Never, |left| Expiry::In(micros(left)))
}

/// The least key above all that begin with `prefix`; `None` where there is none.
fn after(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

#[async_trait]
impl KvStore for PostgresStore {
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        let row = self.one(Operation::Get, key, sql::GET, []).await?;
        Ok(row.map(|row| Bytes::copy_from_slice(row.get(0))))
    }
    async fn get_with_ttl(&self, key: &[u8]) -> Result<Option<(Bytes, Expiry)>> {
        let row = self.one(Operation::GetWithTtl, key, sql::GET, []).await?;
        Ok(row.map(|row| (Bytes::copy_from_slice(row.get(0)), expiry(&row, 1))))
    }
    async fn exists(&self, key: &[u8]) -> Result<bool> {
        Ok(self.one(Operation::Exists, key, sql::TTL, []).await?.is_some())
    }
    async fn ttl(&self, key: &[u8]) -> Result<Option<Expiry>> {
        let row = self.one(Operation::Ttl, key, sql::TTL, []).await?;
        Ok(row.map(|row| expiry(&row, 0)))
    }
    async fn mget(&self, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>> {
        let items = keys.iter().map(|key| (*key, &[][..])).collect();
        let rows = self.batch(Operation::Mget, items, sql::MGET, |keys, _| vec![keys]).await?;
        let found: HashMap<&[u8], Bytes> =
            rows.iter().map(|row| (row.get(0), Bytes::copy_from_slice(row.get(1)))).collect();
        Ok(keys.iter().map(|key| found.get(key).cloned()).collect())
    }
    fn scan(&self, prefix: &[u8]) -> BoxStream<'static, Result<Bytes>> {
        // No key begins with more than a key may have.
        let from = (prefix.len() <= Self::LONGEST_KEY).then(|| prefix.to_vec());
        let begin = (self.clone(), after(prefix), from);
        let pages = stream::try_unfold(begin, |(store, end, from)| async move {
            let Some(from) = from else { return Ok(None) };
            let (keys, next) = store.page(&from, end.as_deref()).await?;
            Ok(Some((keys, (store, end, next))))
        });
        pages.map_ok(|keys| stream::iter(keys).map(Ok)).try_flatten().boxed()
    }
    async fn set(&self, key: &[u8], value: &[u8], ttl: Option<Duration>) -> Result<()> {
        let params = [field(value), life(ttl)];
        self.one(Operation::Set, key, sql::SET, params).await.map(drop)
    }
    async fn mset(&self, items: &[(&[u8], &[u8])], ttl: Option<Duration>) -> Result<()> {
        let ttl = millis(ttl).map_err(|error| error.with_operation(Operation::Mset))?;
        // Of two equal keys the later one stays: a statement may touch a row once only.
        let items = items.iter().copied().collect();
        let params = |keys, values| -> Vec<Param> { vec![keys, values, Box::new(ttl)] };
        self.batch(Operation::Mset, items, sql::MSET, params).await.map(drop)
    }
    async fn delete(&self, key: &[u8]) -> Result<bool> {
        let row = self.one(Operation::Delete, key, sql::DELETE, []).await?;
        Ok(row.is_some_and(|row| row.get(0)))
    }
    async fn delete_many(&self, keys: &[&[u8]]) -> Result<u64> {
        let items = keys.iter().map(|key| (*key, &[][..])).collect();
        let call = self.batch(Operation::DeleteMany, items, sql::DELETE_MANY, |keys, _| vec![keys]);
        Ok(call.await?.iter().map(|row| u64::try_from(row.get::<_, i64>(0)).unwrap_or(0)).sum())
    }
    async fn expire(&self, key: &[u8], ttl: Duration) -> Result<bool> {
        let params = [life(Some(ttl))];
        Ok(self.one(Operation::Expire, key, sql::EXPIRE, params).await?.is_some())
    }
    async fn set_nx(&self, key: &[u8], value: &[u8], ttl: Option<Duration>) -> Result<bool> {
        let params = [field(value), life(ttl)];
        Ok(self.one(Operation::SetNx, key, sql::SET_NX, params).await?.is_some())
    }
    async fn incr(&self, key: &[u8], by: i64, ttl: Option<Duration>) -> Result<Counter> {
        let by: Param = Box::new(by);
        let params = [Ok(by), life(ttl)];
        let row = self.one(Operation::Incr, key, sql::INCR, params).await?;
        let refused = "the value is not a decimal i64, or the sum would leave its range";
        let refused = || Error::new(ErrorKind::NotAnInteger, refused);
        let row = row.ok_or_else(|| refused().with_operation(Operation::Incr))?;
        Ok(Counter { value: row.get(0), expiry: expiry(&row, 1) })
    }
    async fn compare_and_set(
        &self,
        key: &[u8],
        expected: &[u8],
        value: &[u8],
        ttl: Option<Duration>,
    ) -> Result<bool> {
        let params = [field(expected), field(value), life(ttl)];
        let row = self.one(Operation::CompareAndSet, key, sql::COMPARE_AND_SET, params).await?;
        Ok(row.is_some())
    }
    async fn compare_and_delete(&self, key: &[u8], expected: &[u8]) -> Result<bool> {
        let (call, params) = (Operation::CompareAndDelete, [field(expected)]);
        Ok(self.one(call, key, sql::COMPARE_AND_DELETE, params).await?.is_some())
    }
    async fn wait_for_change(&self, key: &[u8], seen: Option<&[u8]>, at_most: Duration) {
        let waiting = async {
            let changes = &self.connections.changes;
            // Registered before the value is looked at: a change after the look wakes it.
            let mut changed = pin!(changes.of(hash(key)).notified());
            changed.as_mut().enable();
            let found = if changes.are_heard() { self.get_with_ttl(key).await.ok() } else { None };
            match found {
                None => sleep(POLL).await,
                Some(found) => {
                    let value = found.as_ref().map(|(value, _)| &value[..]);
                    let left = found.as_ref().and_then(|(_, expiry)| expiry.remaining());
                    // Nobody announces that a key has expired.
                    let gone = left.map_or(LONGEST_WAIT, |left| left + Duration::from_millis(1));
                    if value == seen {
                        let _ = timeout(gone, changed).await;
                    }
                }
            }
        };
        let _ = timeout(at_most.min(LONGEST_WAIT), waiting).await;
    }

    fn flights(&self) -> Option<&Flights> {
        Some(&self.flights)
    }

    fn runtime(&self) -> Option<Handle> {
        Some(self.connections.runtime.clone())
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let connections = self.connections.lanes.len();
        f.debug_struct("PostgresStore").field("connections", &connections).finish_non_exhaustive()
    }
}
