//! A persistent store in one file, on the embedded database redb.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use derp_kv_core::{Counter, Error, ErrorKind, Expiry, Flights, KvStore, Result, Ttl};
use futures_core::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt, stream};
use redb::{Database, Durability, ReadableDatabase, ReadableTable, Table, TableDefinition};
use tokio::runtime::{Handle, RuntimeFlavor};

/// Key to deadline (Unix time in microseconds: whole milliseconds would end early) and value.
const RECORDS: TableDefinition<&[u8], Record> = TableDefinition::new("records");
/// The deadlines in their order, to find what has expired.
const DEADLINES: TableDefinition<(u64, &[u8]), ()> = TableDefinition::new("deadlines");
/// The deadline of a record without expiry.
const NEVER: u64 = u64::MAX;
/// How many expired records a write clears away at most, so that none pays for a mass expiry.
const RECLAIM: usize = 8;
/// How many records a scan reads at a time: an open transaction would keep old pages alive.
const PAGE: usize = 256;

type Record = (u64, &'static [u8]);

/// A store in a redb file. Clones share it; a second process cannot open it.
///
/// An operation holds its thread while the disk works; a multi-thread runtime puts another in its
/// place. Nothing is awaited in between, so a dropped future leaves nothing half done.
#[derive(Clone, Debug)]
pub struct RedbStore(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    database: Database,
    durability: Durability,
    /// The wall clock as last seen: deadlines outlive a restart, and must not move when it is set back.
    clock: AtomicU64,
    flights: Flights,
}

struct Tables<'t> {
    records: Table<'t, &'static [u8], Record>,
    deadlines: Table<'t, (u64, &'static [u8]), ()>,
    now: u64,
    changed: bool,
}

impl RedbStore {
    /// Opens the file at `path`, or makes it.
    ///
    /// With [`Durability::Immediate`] a write is on the disk when it returns, which costs an
    /// fsync each. With [`Durability::None`] writes reach the disk when the last handle is
    /// dropped, and a crash loses them: right for a cache, not for idempotency records.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Backend`] for a file that cannot be opened or is no redb file.
    pub fn open(path: impl AsRef<Path>, durability: Durability) -> Result<Self> {
        let database = blocking(|| Database::create(path)).map_err(failed)?;
        let (clock, flights) = (AtomicU64::new(0), Flights::new());
        let store = Self(Arc::new(Inner { database, durability, clock, flights }));
        let make_tables = |tables: &mut Tables<'_>| {
            tables.changed = true;
            Ok(())
        };
        store.write(make_tables)?; // the reads want them
        Ok(store)
    }

    fn now(&self) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
        let now = u64::try_from(now).unwrap_or(NEVER - 1);
        self.0.clock.fetch_max(now, Ordering::SeqCst).max(now)
    }

    /// Reads in one snapshot.
    fn read<T>(
        &self,
        read: impl FnOnce(&redb::ReadOnlyTable<&'static [u8], Record>, u64) -> Result<T>,
    ) -> Result<T> {
        blocking(|| {
            let snapshot = self.0.database.begin_read().map_err(failed)?;
            read(&snapshot.open_table(RECORDS).map_err(failed)?, self.now())
        })
    }

    /// Writes in one transaction, of which redb has one at a time: what it reads holds until it commits.
    fn write<T>(&self, write: impl FnOnce(&mut Tables<'_>) -> Result<T>) -> Result<T> {
        blocking(|| {
            let mut transaction = self.0.database.begin_write().map_err(failed)?;
            transaction.set_durability(self.0.durability).map_err(failed)?;
            let mut tables = Tables {
                records: transaction.open_table(RECORDS).map_err(failed)?,
                deadlines: transaction.open_table(DEADLINES).map_err(failed)?,
                now: self.now(),
                changed: false,
            };
            let result = write(&mut tables)?;
            if tables.changed {
                tables.reclaim()?;
                drop(tables);
                transaction.commit().map_err(|error| failed(error).with_may_have_applied(true))?;
            }
            Ok(result) // what is not committed is undone
        })
    }

    /// Up to `PAGE` keys with `prefix`, not before `from`, and where the next page begins.
    fn page(&self, prefix: &[u8], from: &[u8]) -> Result<(Vec<Bytes>, Option<Bytes>)> {
        self.read(|records, now| {
            let mut keys = Vec::new();
            for (read, entry) in records.range(from..).map_err(failed)?.enumerate() {
                let (key, record) = entry.map_err(failed)?;
                let name = Bytes::copy_from_slice(key.value());
                match name.starts_with(prefix) {
                    false => break,
                    true if read == PAGE => return Ok((keys, Some(name))),
                    true if record.value().0 > now => keys.push(name),
                    true => {}
                }
            }
            Ok((keys, None))
        })
    }
}

impl Tables<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<(u64, Bytes)>> {
        live(&self.records, key, self.now)
    }

    fn put(&mut self, key: &[u8], value: &[u8], deadline: u64) -> Result<bool> {
        self.remove(key)?;
        self.records.insert(key, (deadline, value)).map_err(failed)?;
        if deadline != NEVER {
            self.deadlines.insert((deadline, key), ()).map_err(failed)?;
        }
        self.changed = true;
        Ok(true)
    }

    /// Removes the record, expired or not, and tells whether it was live.
    fn remove(&mut self, key: &[u8]) -> Result<bool> {
        let deadline = self.records.remove(key).map_err(failed)?.map(|record| record.value().0);
        let Some(deadline) = deadline else { return Ok(false) };
        self.deadlines.remove((deadline, key)).map_err(failed)?;
        self.changed = true;
        Ok(deadline > self.now)
    }

    fn reclaim(&mut self) -> Result<()> {
        for _ in 0..RECLAIM {
            let first = self.deadlines.first().map_err(failed)?.map(|(entry, _)| {
                let (deadline, key) = entry.value();
                (deadline, key.to_vec())
            });
            match first {
                Some((deadline, key)) if deadline <= self.now => self.remove(&key)?,
                _ => break,
            };
        }
        Ok(())
    }

    fn deadline(&self, ttl: Option<Ttl>) -> u64 {
        ttl.map_or(NEVER, |ttl| self.now.saturating_add(ttl.as_millis() * 1_000))
    }

    fn holds(&self, key: &[u8], expected: &[u8]) -> Result<bool> {
        Ok(self.get(key)?.is_some_and(|(_, value)| value == expected))
    }
}

fn live(
    records: &impl ReadableTable<&'static [u8], Record>,
    key: &[u8],
    now: u64,
) -> Result<Option<(u64, Bytes)>> {
    let record = records.get(key).map_err(failed)?;
    let record = record.map(|record| (record.value().0, Bytes::copy_from_slice(record.value().1)));
    Ok(record.filter(|(deadline, _)| *deadline > now))
}

fn expiry(deadline: u64, now: u64) -> Expiry {
    let left = (deadline != NEVER).then(|| Duration::from_micros(deadline.saturating_sub(now)));
    left.map_or(Expiry::Never, Expiry::In)
}

fn failed(error: impl Into<redb::Error>) -> Error {
    Error::new(ErrorKind::Backend, "redb failed").with_source(error.into())
}

fn blocking<T>(work: impl FnOnce() -> T) -> T {
    let flavor = Handle::try_current().map(|runtime| runtime.runtime_flavor());
    match flavor {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

#[async_trait]
impl KvStore for RedbStore {
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        Ok(self.get_with_ttl(key).await?.map(|(value, _)| value))
    }

    async fn get_with_ttl(&self, key: &[u8]) -> Result<Option<(Bytes, Expiry)>> {
        self.read(|records, now| {
            let record = live(records, key, now)?;
            Ok(record.map(|(deadline, value)| (value, expiry(deadline, now))))
        })
    }

    async fn exists(&self, key: &[u8]) -> Result<bool> {
        Ok(self.get_with_ttl(key).await?.is_some())
    }

    async fn ttl(&self, key: &[u8]) -> Result<Option<Expiry>> {
        Ok(self.get_with_ttl(key).await?.map(|(_, expiry)| expiry))
    }

    async fn mget(&self, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>> {
        let value = |record: Option<(u64, Bytes)>| record.map(|(_, value)| value);
        self.read(|records, now| {
            keys.iter().map(|key| live(records, key, now).map(value)).collect()
        })
    }

    fn scan(&self, prefix: &[u8]) -> BoxStream<'_, Result<Bytes>> {
        let prefix = Bytes::copy_from_slice(prefix);
        let pages = stream::try_unfold(Some(prefix.clone()), move |from| {
            let page = from.map(|from| self.page(&prefix, &from)).transpose();
            async { page }
        });
        pages.map_ok(|keys| stream::iter(keys).map(Ok)).try_flatten().boxed()
    }

    async fn set(&self, key: &[u8], value: &[u8], ttl: Option<Duration>) -> Result<()> {
        self.mset(&[(key, value)], ttl).await
    }

    async fn mset(&self, items: &[(&[u8], &[u8])], ttl: Option<Duration>) -> Result<()> {
        let ttl = Ttl::optional(ttl)?;
        self.write(|tables| {
            let deadline = tables.deadline(ttl);
            items.iter().try_for_each(|(key, value)| tables.put(key, value, deadline).map(drop))
        })
    }

    async fn delete(&self, key: &[u8]) -> Result<bool> {
        self.write(|tables| tables.remove(key))
    }

    async fn delete_many(&self, keys: &[&[u8]]) -> Result<u64> {
        let keys = BTreeSet::from_iter(keys);
        self.write(|tables| {
            keys.iter().try_fold(0, |count, key| Ok(count + u64::from(tables.remove(key)?)))
        })
    }

    async fn expire(&self, key: &[u8], ttl: Duration) -> Result<bool> {
        let ttl = Ttl::new(ttl)?;
        self.write(|tables| match tables.get(key)? {
            Some((_, value)) => tables.put(key, &value, tables.deadline(Some(ttl))),
            None => Ok(false),
        })
    }

    async fn set_nx(&self, key: &[u8], value: &[u8], ttl: Option<Duration>) -> Result<bool> {
        let ttl = Ttl::optional(ttl)?;
        self.write(|tables| {
            Ok(tables.get(key)?.is_none() && tables.put(key, value, tables.deadline(ttl))?)
        })
    }

    async fn incr(&self, key: &[u8], by: i64, ttl: Option<Duration>) -> Result<Counter> {
        let ttl = Ttl::optional(ttl)?;
        self.write(|tables| {
            let (deadline, value) = match tables.get(key)? {
                Some((deadline, value)) => (deadline, Counter::add(Counter::parse(&value)?, by)?),
                None => (tables.deadline(ttl), by),
            };
            tables.put(key, value.to_string().as_bytes(), deadline)?;
            Ok(Counter { value, expiry: expiry(deadline, tables.now) })
        })
    }

    async fn compare_and_set(
        &self,
        key: &[u8],
        expected: &[u8],
        value: &[u8],
        ttl: Option<Duration>,
    ) -> Result<bool> {
        let ttl = Ttl::optional(ttl)?;
        self.write(|tables| {
            Ok(tables.holds(key, expected)? && tables.put(key, value, tables.deadline(ttl))?)
        })
    }

    async fn compare_and_delete(&self, key: &[u8], expected: &[u8]) -> Result<bool> {
        self.write(|tables| Ok(tables.holds(key, expected)? && tables.remove(key)?))
    }

    fn flights(&self) -> Option<&Flights> {
        Some(&self.0.flights)
    }
}
