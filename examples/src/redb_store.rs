//! A persistent store in one file, on the embedded database redb.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use derp_kv_core::{Change, Counter, Error, ErrorKind, Expiry, Flights, KvStore, Result, Ttl};
use derp_kv_core::{Step, StepFuture};
use futures_core::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt, stream};
use redb::{Database, Durability, ReadableDatabase, ReadableTable, Table, TableDefinition};

/// Key to deadline (Unix time in microseconds: whole milliseconds would end early) and value.
const RECORDS: TableDefinition<Key, Record> = TableDefinition::new("records");
/// The deadlines in their order, to find what has expired.
const DEADLINES: TableDefinition<(u64, Key), ()> = TableDefinition::new("deadlines");
const NEVER: u64 = u64::MAX; // the deadline of a record without expiry
/// How many expired records a write clears away at most, so that none pays for a mass expiry.
const RECLAIM: usize = 8;
/// How many records a scan reads at a time: an open transaction would keep old pages alive.
const PAGE: usize = 256;

type Key = &'static [u8];
type Record = (u64, &'static [u8]);
type Records = redb::ReadOnlyTable<Key, Record>;
type Found = Option<(Bytes, Expiry)>;

/// A store in a redb file. Clones share it; a second process cannot open it.
///
/// An operation holds its thread while the disk works, and awaits its turn alone (tokio's budget, so
/// that a loop of operations lets others run): no call is half done.
#[derive(Clone, Debug)]
pub struct RedbStore {
    database: Arc<Database>,
    durability: Durability,
    flights: Flights,
}

struct Tables<'t> {
    records: Table<'t, Key, Record>,
    deadlines: Table<'t, (u64, Key), ()>,
    now: u64,
    changed: bool, // whether there is anything to commit
}

impl RedbStore {
    /// Opens the file at `path`, or makes it.
    ///
    /// [`Durability::Immediate`] costs an fsync for each write. With [`Durability::None`] a crash
    /// loses the latest ones: right for a cache, not for idempotency records.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Backend`] for a file that cannot be opened or is no redb file.
    pub async fn open(path: impl AsRef<Path> + Send, durability: Durability) -> Result<Self> {
        let database = Arc::new(Database::create(path).map_err(failed)?);
        let store = Self { database, durability, flights: Flights::new() };
        store.write(|_| Ok(())).await?; // makes the tables, which the reads want
        Ok(store)
    }

    async fn read<T>(&self, read: impl FnOnce(&Records, u64) -> Result<T> + Send) -> Result<T> {
        tokio::task::coop::consume_budget().await;
        let snapshot = self.database.begin_read().map_err(failed)?;
        read(&snapshot.open_table(RECORDS).map_err(failed)?, now())
    }

    /// Writes in a transaction, of which redb has one at a time: what it reads holds to the end.
    async fn write<T>(&self, write: impl FnOnce(&mut Tables<'_>) -> Result<T> + Send) -> Result<T> {
        tokio::task::coop::consume_budget().await;
        let mut transaction = self.database.begin_write().map_err(failed)?;
        transaction.set_durability(self.durability).map_err(failed)?;
        let records = transaction.open_table(RECORDS).map_err(failed)?;
        let deadlines = transaction.open_table(DEADLINES).map_err(failed)?;
        let mut tables = Tables { records, deadlines, now: now(), changed: true };
        let result = write(&mut tables)?; // what is not committed is undone
        if tables.changed {
            tables.reclaim()?;
            transaction.commit().map_err(|error| failed(error).with_may_have_applied(true))?;
        }
        Ok(result)
    }

    /// Up to `PAGE` keys with `prefix`, not before `from`, and where the next page begins.
    async fn page(&self, prefix: &[u8], from: &[u8]) -> Result<(Vec<Bytes>, Option<Bytes>)> {
        self.read(|records, now| {
            let mut keys = Vec::new();
            for (read, entry) in records.range(from..).map_err(failed)?.enumerate() {
                let (key, record) = entry.map_err(failed)?;
                match Bytes::copy_from_slice(key.value()) {
                    key if !key.starts_with(prefix) => break,
                    key if read == PAGE => return Ok((keys, Some(key))),
                    key => keys.extend((record.value().0 > now).then_some(key)),
                }
            }
            Ok((keys, None))
        })
        .await
    }
}

impl Tables<'_> {
    fn live(&self, key: &[u8]) -> Result<Found> {
        live(&self.records, key, self.now)
    }

    fn put(&mut self, key: &[u8], value: &[u8], expiry: Expiry) -> Result<bool> {
        self.remove(key)?;
        let ends = |left: Duration| self.now.saturating_add(left.as_micros() as u64);
        let deadline = expiry.remaining().map_or(NEVER, ends);
        self.records.insert(key, (deadline, value)).map_err(failed)?;
        self.deadlines.insert((deadline, key), ()).map_err(failed)?;
        Ok(true)
    }

    /// Removes the record, expired or not, and tells whether it was live.
    fn remove(&mut self, key: &[u8]) -> Result<bool> {
        let removed = self.records.remove(key).map_err(failed)?;
        let Some(deadline) = removed.map(|record| record.value().0) else { return Ok(false) };
        self.deadlines.remove((deadline, key)).map_err(failed)?;
        Ok(deadline > self.now)
    }

    fn holds(&self, key: &[u8], expected: &[u8]) -> Result<bool> {
        Ok(self.live(key)?.is_some_and(|(found, _)| found == expected))
    }

    fn reclaim(mut self) -> Result<()> {
        let due = self.deadlines.range(..(self.now, &[][..])).map_err(failed)?.take(RECLAIM);
        let keys = due.map(|due| Ok(due.map_err(failed)?.0.value().1.to_vec()));
        keys.collect::<Result<Vec<_>>>()?.iter().try_for_each(|key| self.remove(key).map(drop))
    }
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(NEVER - 1)
}

fn live(records: &impl ReadableTable<Key, Record>, key: &[u8], now: u64) -> Result<Found> {
    let Some(record) = records.get(key).map_err(failed)? else { return Ok(None) };
    let (deadline, value) = record.value();
    let left = Expiry::In(Duration::from_micros(deadline.saturating_sub(now)));
    let expiry = if deadline == NEVER { Expiry::Never } else { left };
    Ok((deadline > now).then(|| (Bytes::copy_from_slice(value), expiry)))
}

fn life(ttl: Option<Duration>) -> Result<Expiry> {
    Ok(Ttl::optional(ttl)?.map_or(Expiry::Never, |ttl| Expiry::In(ttl.as_duration())))
}

fn failed(error: impl Into<redb::Error>) -> Error {
    Error::new(ErrorKind::Backend, "redb failed").with_source(error.into())
}

#[async_trait]
impl KvStore for RedbStore {
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        Ok(self.get_with_ttl(key).await?.map(|(value, _)| value))
    }
    async fn get_with_ttl(&self, key: &[u8]) -> Result<Option<(Bytes, Expiry)>> {
        self.read(|records, now| live(records, key, now)).await
    }
    async fn exists(&self, key: &[u8]) -> Result<bool> {
        Ok(self.get_with_ttl(key).await?.is_some())
    }
    async fn ttl(&self, key: &[u8]) -> Result<Option<Expiry>> {
        Ok(self.get_with_ttl(key).await?.map(|(_, expiry)| expiry))
    }
    async fn mget(&self, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>> {
        let get = |table: &Records, key, now| Ok(live(table, key, now)?.map(|(value, _)| value));
        self.read(|table, now| keys.iter().map(|key| get(table, key, now)).collect()).await
    }
    fn scan(&self, prefix: &[u8]) -> BoxStream<'static, Result<Bytes>> {
        let prefix = Bytes::copy_from_slice(prefix);
        let begin = (self.clone(), prefix.clone(), Some(prefix));
        let pages = stream::try_unfold(begin, |(store, prefix, from)| async move {
            let Some(from) = from else { return Ok(None) };
            let (keys, next) = store.page(&prefix, &from).await?;
            Ok(Some((keys, (store, prefix, next))))
        });
        pages.map_ok(|keys| stream::iter(keys).map(Ok)).try_flatten().boxed()
    }
    async fn set(&self, key: &[u8], value: &[u8], ttl: Option<Duration>) -> Result<()> {
        self.mset(&[(key, value)], ttl).await
    }
    async fn mset(&self, items: &[(&[u8], &[u8])], ttl: Option<Duration>) -> Result<()> {
        let life = life(ttl)?;
        self.write(|t| items.iter().try_for_each(|(key, value)| t.put(key, value, life).map(drop)))
            .await
    }
    async fn delete(&self, key: &[u8]) -> Result<bool> {
        self.write(|tables| tables.remove(key)).await
    }
    async fn delete_many(&self, keys: &[&[u8]]) -> Result<u64> {
        self.write(|t| keys.iter().try_fold(0, |sum, key| Ok(sum + u64::from(t.remove(key)?))))
            .await
    }
    async fn expire(&self, key: &[u8], ttl: Duration) -> Result<bool> {
        let life = life(Some(ttl))?;
        self.write(|t| t.live(key)?.map_or(Ok(false), |(value, _)| t.put(key, &value, life))).await
    }
    async fn set_nx(&self, key: &[u8], value: &[u8], ttl: Option<Duration>) -> Result<bool> {
        let life = life(ttl)?;
        self.write(|tables| Ok(tables.live(key)?.is_none() && tables.put(key, value, life)?)).await
    }
    async fn incr(&self, key: &[u8], by: i64, ttl: Option<Duration>) -> Result<Counter> {
        let life = life(ttl)?;
        self.write(|tables| {
            let (old, expiry) = tables.live(key)?.unwrap_or((Bytes::from_static(b"0"), life));
            let value = Counter::add(Counter::parse(&old)?, by)?;
            tables.put(key, value.to_string().as_bytes(), expiry)?;
            Ok(Counter { value, expiry })
        })
        .await
    }
    async fn compare_and_set(
        &self,
        key: &[u8],
        expected: &[u8],
        value: &[u8],
        ttl: Option<Duration>,
    ) -> Result<bool> {
        let life = life(ttl)?;
        self.write(|tables| Ok(tables.holds(key, expected)? && tables.put(key, value, life)?)).await
    }
    async fn compare_and_delete(&self, key: &[u8], expected: &[u8]) -> Result<bool> {
        self.write(|tables| Ok(tables.holds(key, expected)? && tables.remove(key)?)).await
    }
    fn step<'a>(&'a self, key: &'a [u8], step: &'a Step) -> StepFuture<'a> {
        StepFuture::new(self.write(move |tables| {
            let found = tables.live(key)?;
            let seen = found.as_ref().map(|(value, expiry)| (&value[..], *expiry));
            let (change, stepped) = step.apply(seen)?;
            tables.changed = match change {
                Change::Set { value, ttl } => tables.put(key, &value, Expiry::In(ttl))?,
                Change::Delete => tables.remove(key)?,
                _ => false,
            };
            Ok(stepped)
        }))
    }
    fn flights(&self) -> Option<&Flights> {
        Some(&self.flights)
    }
}
