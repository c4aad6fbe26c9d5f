//! A store as naive as one can be and still keep the laws: one map behind one lock.
#![allow(dead_code, reason = "each test uses a part")]

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use derp_kv_core::{Counter, Error, ErrorKind, Expiry, KvStore, Result, Ttl};
use futures_core::stream::BoxStream;
use futures_util::{StreamExt, stream};
use tokio::sync::Mutex;
use tokio::time::Instant;

#[derive(Clone, Default)]
pub(crate) struct Naive {
    records: Arc<Mutex<BTreeMap<Bytes, Record>>>,
    claims_deletions: bool,
    clock: Clock,
    longest_key: Option<usize>,
}

/// From the time that has passed for the store and a TTL to a deadline.
type Dates = fn(Duration, Duration) -> Duration;

#[derive(Clone, Copy, Debug)]
struct Clock {
    origin: Instant,
    dates: Dates,
}

impl Default for Clock {
    fn default() -> Self {
        Self { origin: Instant::now(), dates: |now, ttl| now + ttl }
    }
}

impl Clock {
    fn deadline(self, ttl: Ttl) -> Instant {
        self.origin + (self.dates)(self.origin.elapsed(), ttl.as_duration())
    }
}

#[derive(Clone)]
struct Record {
    value: Bytes,
    deadline: Option<Instant>,
}

impl fmt::Debug for Naive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the records: what a store prints of itself shows no values.
        f.debug_struct("Naive").finish_non_exhaustive()
    }
}

impl Record {
    fn new(value: &[u8], ttl: Option<Ttl>, clock: Clock) -> Self {
        let deadline = ttl.map(|ttl| clock.deadline(ttl));
        Self { value: Bytes::copy_from_slice(value), deadline }
    }

    fn is_live(&self) -> bool {
        self.deadline.is_none_or(|deadline| Instant::now() < deadline)
    }

    fn expiry(&self) -> Expiry {
        let left = |deadline: Instant| deadline.saturating_duration_since(Instant::now());
        self.deadline.map_or(Expiry::Never, |deadline| {
            Expiry::In(left(deadline).max(Duration::from_nanos(1)))
        })
    }
}

impl Naive {
    /// Reports every deletion as one, which is wrong, where `claims` says so.
    pub(crate) fn claiming_deletions(claims: bool) -> Self {
        Self { claims_deletions: claims, ..Self::default() }
    }

    /// Keeps deadlines that `dates` computes.
    pub(crate) fn dating(dates: Dates) -> Self {
        Self { clock: Clock { dates, ..Clock::default() }, ..Self::default() }
    }

    /// Takes no key that is longer.
    pub(crate) fn with_longest_key(bytes: usize) -> Self {
        Self { longest_key: Some(bytes), ..Self::default() }
    }

    fn check(&self, key: &[u8]) -> Result<()> {
        if self.longest_key.is_some_and(|longest| key.len() > longest) {
            return Err(Error::new(ErrorKind::InvalidArgument, "the key is too long"));
        }
        Ok(())
    }

    /// Runs `work` on the live record of `key`, in one step.
    async fn with<T>(&self, key: &[u8], work: impl FnOnce(&mut Option<Record>) -> T) -> Result<T> {
        self.check(key)?;
        let mut records = self.records.lock().await;
        let mut record = records.remove(key).filter(Record::is_live);
        let output = work(&mut record);
        if let Some(record) = record {
            records.insert(Bytes::copy_from_slice(key), record);
        }
        Ok(output)
    }
}

#[async_trait]
impl KvStore for Naive {
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        Ok(self.get_with_ttl(key).await?.map(|(value, _)| value))
    }

    async fn get_with_ttl(&self, key: &[u8]) -> Result<Option<(Bytes, Expiry)>> {
        let read = |record: &mut Option<Record>| {
            record.as_ref().map(|record| (record.value.clone(), record.expiry()))
        };
        self.with(key, read).await
    }

    async fn exists(&self, key: &[u8]) -> Result<bool> {
        Ok(self.get(key).await?.is_some())
    }

    async fn ttl(&self, key: &[u8]) -> Result<Option<Expiry>> {
        Ok(self.get_with_ttl(key).await?.map(|(_, expiry)| expiry))
    }

    async fn mget(&self, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>> {
        let mut values = Vec::new();
        for key in keys {
            values.push(self.get(key).await?);
        }
        Ok(values)
    }

    fn scan(&self, prefix: &[u8]) -> BoxStream<'static, Result<Bytes>> {
        let (records, prefix) = (self.records.clone(), prefix.to_vec());
        let keys = async move {
            let records = records.lock().await;
            let live = records.iter().filter(|(_, record)| record.is_live());
            let keys = live.map(|(key, _)| key.clone()).filter(|key| key.starts_with(&prefix));
            stream::iter(keys.map(Ok).collect::<Vec<_>>())
        };
        stream::once(keys).flatten().boxed()
    }

    async fn set(&self, key: &[u8], value: &[u8], ttl: Option<Duration>) -> Result<()> {
        let ttl = Ttl::optional(ttl)?;
        self.with(key, |record| *record = Some(Record::new(value, ttl, self.clock))).await
    }

    async fn mset(&self, items: &[(&[u8], &[u8])], ttl: Option<Duration>) -> Result<()> {
        Ttl::optional(ttl)?;
        items.iter().try_for_each(|(key, _)| self.check(key))?;
        for (key, value) in items {
            self.set(key, value, ttl).await?;
        }
        Ok(())
    }

    async fn delete(&self, key: &[u8]) -> Result<bool> {
        Ok(self.with(key, |record| record.take().is_some()).await? || self.claims_deletions)
    }

    async fn delete_many(&self, keys: &[&[u8]]) -> Result<u64> {
        keys.iter().try_for_each(|key| self.check(key))?;
        let mut count = 0;
        for key in keys {
            count += u64::from(self.delete(key).await?);
        }
        Ok(count)
    }

    async fn expire(&self, key: &[u8], ttl: Duration) -> Result<bool> {
        let ttl = Ttl::new(ttl)?;
        let redate = |record: &mut Option<Record>| {
            let Some(record) = record else { return false };
            *record = Record::new(&record.value, Some(ttl), self.clock);
            true
        };
        self.with(key, redate).await
    }

    async fn set_nx(&self, key: &[u8], value: &[u8], ttl: Option<Duration>) -> Result<bool> {
        let ttl = Ttl::optional(ttl)?;
        let write = |record: &mut Option<Record>| {
            let absent = record.is_none();
            record.get_or_insert_with(|| Record::new(value, ttl, self.clock));
            absent
        };
        self.with(key, write).await
    }

    async fn incr(&self, key: &[u8], by: i64, ttl: Option<Duration>) -> Result<Counter> {
        let ttl = Ttl::optional(ttl)?;
        let add = |record: &mut Option<Record>| {
            let before = match record {
                Some(record) => Counter::parse(&record.value)?,
                None => 0,
            };
            let value = Counter::add(before, by)?;
            let record = record.get_or_insert_with(|| Record::new(b"", ttl, self.clock));
            record.value = value.to_string().into();
            Ok(Counter { value, expiry: record.expiry() })
        };
        self.with(key, add).await?
    }

    async fn compare_and_set(
        &self,
        key: &[u8],
        expected: &[u8],
        value: &[u8],
        ttl: Option<Duration>,
    ) -> Result<bool> {
        let ttl = Ttl::optional(ttl)?;
        let swap = |record: &mut Option<Record>| {
            let equal = record.as_ref().is_some_and(|record| record.value == expected);
            if equal {
                *record = Some(Record::new(value, ttl, self.clock));
            }
            equal
        };
        self.with(key, swap).await
    }

    async fn compare_and_delete(&self, key: &[u8], expected: &[u8]) -> Result<bool> {
        let delete = |record: &mut Option<Record>| {
            record.take_if(|record| record.value == expected).is_some()
        };
        self.with(key, delete).await
    }
}
