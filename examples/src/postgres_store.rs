//! A store on PostgreSQL: one table, one statement an operation, and the server's clock alone.

mod changes;
mod failure;
mod lane;
mod sql;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
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
use failure::check;
use lane::{Lane, Param};

/// How many keys a scan reads at a time. Nothing is held between two pages.
const PAGE: i64 = 1_000;
/// The most keys, and about the most bytes, of one statement of a batch.
const BATCH: (usize, usize) = (10_000, 16 * 1024 * 1024);
/// The longest sleep of a waiter, for changes that nobody announces: those made by hand.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// Where the server is and how long it may take.
#[derive(Clone, Debug)]
pub struct PostgresConfig {
    /// Host, user, password, database; its `Debug` shows no password.
    pub server: tokio_postgres::Config,
    /// How many connections the keys are spread over. A statement that waits for a row holds up the
    /// others of its connection.
    pub connections: usize,
    /// How long a statement may take. Opening a connection may take as long again.
    pub op_timeout: Duration,
}

impl PostgresConfig {
    /// Four connections, and five seconds for an operation.
    #[must_use]
    pub fn new(server: tokio_postgres::Config) -> Self {
        Self { server, connections: 4, op_timeout: Duration::from_secs(5) }
    }
}

/// A store in the table `derp_kv` of a PostgreSQL database. Clones share its connections.
///
/// Each key belongs to one connection, on which statements run in the order of the calls: so what a
/// dropped call has sent is applied before any later call of that key, and never behind it. A lost
/// connection is opened again by the next call, once the lost session has ended on the server.
///
/// A write whose answer is lost is not sent again: it fails with
/// [`may_have_applied`](Error::may_have_applied).
#[derive(Clone)]
pub struct PostgresStore {
    shared: Arc<Shared>,
    flights: Flights,
}

struct Shared {
    lanes: Vec<Arc<Lane>>,
    changes: Arc<Changes>,
    runtime: Handle,
    listener: AbortHandle,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

/// What the keys of a batch that belong to one statement are.
type Items<'a> = Vec<(&'a [u8], &'a [u8])>;

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
    /// missing and may not be made, [`Unavailable`](ErrorKind::Unavailable) where nobody answers.
    pub async fn connect(config: PostgresConfig, runtime: Handle) -> Result<Self> {
        let changes = Arc::new(Changes::new());
        let lane = |_| Arc::new(Lane::new(config.clone(), runtime.clone(), changes.clone()));
        let lanes: Vec<_> = (0..config.connections.max(1)).map(lane).collect();
        let opened = try_join_all(lanes.iter().map(|lane| lane.open())).await;
        opened.map_err(|error| error.with_operation(Operation::Connect))?;
        let listener = runtime.spawn(changes.clone().follow(config)).abort_handle();
        let shared = Arc::new(Shared { lanes, changes, runtime, listener });
        Ok(Self { shared, flights: Flights::new() })
    }

    fn lane(&self, key: &[u8]) -> usize {
        let lanes = self.shared.lanes.len() as u64;
        usize::try_from(hash(key) / BUCKETS % lanes).unwrap_or_default()
    }

    /// Runs the statement of one key.
    async fn one(
        &self,
        operation: Operation,
        key: &[u8],
        sql: &'static str,
        params: Vec<Param>,
    ) -> Result<Option<Row>> {
        let lane = &self.shared.lanes[self.lane(key)];
        let buckets = if operation.writes() { vec![hash(key) % BUCKETS] } else { Vec::new() };
        let rows = lane.call(sql, params, buckets).await;
        Ok(rows.map_err(|error| error.with_operation(operation))?.pop())
    }

    /// Runs the statements of a batch, at once: those of one connection go in the order of their
    /// keys, and in no transaction together.
    async fn batch<'a>(
        &self,
        operation: Operation,
        items: BTreeMap<&'a [u8], &'a [u8]>,
        sql: &'static str,
        params: impl Fn(Items<'a>) -> Vec<Param>,
    ) -> Result<Vec<Row>> {
        let mut parts: Vec<(usize, Items<'a>, usize)> = Vec::new();
        let mut last: HashMap<usize, usize> = HashMap::new();
        for (key, value) in items {
            let (lane, size) = (self.lane(key), key.len() + value.len());
            let fits =
                |part: &(_, Items<'_>, usize)| part.1.len() < BATCH.0 && part.2 + size <= BATCH.1;
            let part = last.get(&lane).copied().filter(|part| fits(&parts[*part]));
            let part = part.unwrap_or_else(|| {
                parts.push((lane, Vec::new(), 0));
                parts.len() - 1
            });
            last.insert(lane, part);
            parts[part].1.push((key, value));
            parts[part].2 += size;
        }
        let several = parts.len() > 1;
        let calls = parts.into_iter().map(|(lane, items, _)| {
            let groups = items.iter().map(|(key, _)| hash(key) % BUCKETS);
            let groups: BTreeSet<_> = groups.filter(|_| operation.writes()).collect();
            let (params, groups) = (params(items), groups.into_iter().collect());
            async move { self.shared.lanes[lane].call(sql, params, groups).await }
        });
        let mut rows = Vec::new();
        for answer in join_all(calls).await {
            rows.extend(answer.map_err(|error| {
                // The other statements went their own way.
                let unknown = error.may_have_applied() || (several && operation.writes());
                error.with_may_have_applied(unknown).with_operation(operation)
            })?);
        }
        Ok(rows)
    }

    /// One page of a scan: its live keys, and where the next page begins.
    async fn page(
        &self,
        from: Vec<u8>,
        end: Option<Vec<u8>>,
    ) -> Result<(Vec<Bytes>, Option<Vec<u8>>)> {
        let mut params: Vec<Param> = vec![Box::new(from)];
        let sql = if end.is_some() { sql::SCAN } else { sql::SCAN_TO_END };
        params.extend(end.map(|end| Box::new(end) as Param));
        params.push(Box::new(PAGE));
        let rows = self.shared.lanes[0].call(sql, params, Vec::new()).await;
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

fn bytes(bytes: &[u8]) -> Param {
    Box::new(bytes.to_vec())
}

fn millis(ttl: Option<Ttl>) -> Param {
    // At most 100 years.
    Box::new(ttl.map(|ttl| i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX)))
}

fn keys(items: &Items<'_>) -> Param {
    Box::new(items.iter().map(|(key, _)| key.to_vec()).collect::<Vec<_>>())
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

fn named<T>(operation: Operation, result: Result<T>) -> Result<T> {
    result.map_err(|error| error.with_operation(operation))
}

#[async_trait]
impl KvStore for PostgresStore {
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        named(Operation::Get, check(key, &[]))?;
        let row = self.one(Operation::Get, key, sql::GET, vec![bytes(key)]).await?;
        Ok(row.map(|row| Bytes::copy_from_slice(row.get(0))))
    }

    async fn get_with_ttl(&self, key: &[u8]) -> Result<Option<(Bytes, Expiry)>> {
        named(Operation::GetWithTtl, check(key, &[]))?;
        let row = self.one(Operation::GetWithTtl, key, sql::GET, vec![bytes(key)]).await?;
        Ok(row.map(|row| (Bytes::copy_from_slice(row.get(0)), expiry(&row, 1))))
    }

    async fn exists(&self, key: &[u8]) -> Result<bool> {
        named(Operation::Exists, check(key, &[]))?;
        Ok(self.one(Operation::Exists, key, sql::TTL, vec![bytes(key)]).await?.is_some())
    }

    async fn ttl(&self, key: &[u8]) -> Result<Option<Expiry>> {
        named(Operation::Ttl, check(key, &[]))?;
        let row = self.one(Operation::Ttl, key, sql::TTL, vec![bytes(key)]).await?;
        Ok(row.map(|row| expiry(&row, 0)))
    }

    async fn mget(&self, all: &[&[u8]]) -> Result<Vec<Option<Bytes>>> {
        named(Operation::Mget, all.iter().try_for_each(|key| check(key, &[])))?;
        let items = all.iter().map(|key| (*key, &[][..])).collect();
        let rows =
            self.batch(Operation::Mget, items, sql::MGET, |items| vec![keys(&items)]).await?;
        let found: HashMap<&[u8], Bytes> =
            rows.iter().map(|row| (row.get(0), Bytes::copy_from_slice(row.get(1)))).collect();
        Ok(all.iter().map(|key| found.get(key).cloned()).collect())
    }

    fn scan(&self, prefix: &[u8]) -> BoxStream<'static, Result<Bytes>> {
        if let Err(error) = named(Operation::Scan, check(prefix, &[])) {
            return stream::once(async { Err(error) }).boxed();
        }
        let begin = (self.clone(), after(prefix), Some(prefix.to_vec()));
        let pages = stream::try_unfold(begin, |(store, end, from)| async move {
            let Some(from) = from else { return Ok(None) };
            let (keys, next) = store.page(from, end.clone()).await?;
            Ok(Some((keys, (store, end, next))))
        });
        pages.map_ok(|keys| stream::iter(keys).map(Ok)).try_flatten().boxed()
    }

    async fn set(&self, key: &[u8], value: &[u8], ttl: Option<Duration>) -> Result<()> {
        let ttl = named(Operation::Set, Ttl::optional(ttl))?;
        named(Operation::Set, check(key, &[value]))?;
        let params = vec![bytes(key), bytes(value), millis(ttl)];
        self.one(Operation::Set, key, sql::SET, params).await.map(drop)
    }

    async fn mset(&self, items: &[(&[u8], &[u8])], ttl: Option<Duration>) -> Result<()> {
        let ttl = named(Operation::Mset, Ttl::optional(ttl))?;
        named(Operation::Mset, items.iter().try_for_each(|(key, value)| check(key, &[value])))?;
        // Of two equal keys the later one stays, and a statement may touch a row once.
        let items = items.iter().copied().collect();
        let params = |items: Items<'_>| {
            let values: Vec<_> = items.iter().map(|(_, value)| value.to_vec()).collect();
            vec![keys(&items), Box::new(values), millis(ttl)]
        };
        self.batch(Operation::Mset, items, sql::MSET, params).await.map(drop)
    }

    async fn delete(&self, key: &[u8]) -> Result<bool> {
        named(Operation::Delete, check(key, &[]))?;
        let row = self.one(Operation::Delete, key, sql::DELETE, vec![bytes(key)]).await?;
        Ok(row.is_some_and(|row| row.get(0)))
    }

    async fn delete_many(&self, all: &[&[u8]]) -> Result<u64> {
        named(Operation::DeleteMany, all.iter().try_for_each(|key| check(key, &[])))?;
        let items = all.iter().map(|key| (*key, &[][..])).collect();
        let params = |items: Items<'_>| vec![keys(&items)];
        let rows = self.batch(Operation::DeleteMany, items, sql::DELETE_MANY, params).await?;
        Ok(rows.iter().map(|row| u64::try_from(row.get::<_, i64>(0)).unwrap_or(0)).sum())
    }

    async fn expire(&self, key: &[u8], ttl: Duration) -> Result<bool> {
        let ttl = named(Operation::Expire, Ttl::new(ttl))?;
        named(Operation::Expire, check(key, &[]))?;
        let params = vec![bytes(key), millis(Some(ttl))];
        Ok(self.one(Operation::Expire, key, sql::EXPIRE, params).await?.is_some())
    }

    async fn set_nx(&self, key: &[u8], value: &[u8], ttl: Option<Duration>) -> Result<bool> {
        let ttl = named(Operation::SetNx, Ttl::optional(ttl))?;
        named(Operation::SetNx, check(key, &[value]))?;
        let params = vec![bytes(key), bytes(value), millis(ttl)];
        Ok(self.one(Operation::SetNx, key, sql::SET_NX, params).await?.is_some())
    }

    async fn incr(&self, key: &[u8], by: i64, ttl: Option<Duration>) -> Result<Counter> {
        let ttl = named(Operation::Incr, Ttl::optional(ttl))?;
        named(Operation::Incr, check(key, &[]))?;
        let params = vec![bytes(key), Box::new(by), millis(ttl)];
        let row = self.one(Operation::Incr, key, sql::INCR, params).await?;
        let refused = "the value is not a decimal i64, or the sum would leave its range";
        let row = row.ok_or_else(|| Error::new(ErrorKind::NotAnInteger, refused));
        let row = named(Operation::Incr, row)?;
        Ok(Counter { value: row.get(0), expiry: expiry(&row, 1) })
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
        named(CALL, check(key, &[expected, value]))?;
        let params = vec![bytes(key), bytes(expected), bytes(value), millis(ttl)];
        Ok(self.one(CALL, key, sql::COMPARE_AND_SET, params).await?.is_some())
    }

    async fn compare_and_delete(&self, key: &[u8], expected: &[u8]) -> Result<bool> {
        const CALL: Operation = Operation::CompareAndDelete;
        named(CALL, check(key, &[expected]))?;
        let params = vec![bytes(key), bytes(expected)];
        Ok(self.one(CALL, key, sql::COMPARE_AND_DELETE, params).await?.is_some())
    }

    async fn wait_for_change(&self, key: &[u8], seen: Option<&[u8]>, at_most: Duration) {
        let waiting = async {
            let changes = &self.shared.changes;
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
        Some(self.shared.runtime.clone())
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let connections = self.shared.lanes.len();
        f.debug_struct("PostgresStore").field("connections", &connections).finish_non_exhaustive()
    }
}
