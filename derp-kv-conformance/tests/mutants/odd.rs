//! A store of its own whose clock can be read and compared in odd ways, by a single call if need be:
//! what keeps time otherwise keeps it to the nanosecond.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use derp_kv_conformance::Operation;
use derp_kv_core::{Counter, Expiry, Result, Ttl as Checked};
use derp_kv_memory::MemoryStore;
use futures_core::stream::BoxStream;
use futures_util::{StreamExt, stream};
use tokio::time::Instant;

use super::defect::{Defect, Ttl};

pub(crate) const MILLI: u128 = 1_000_000;
pub(crate) const SECOND: u128 = 1_000 * MILLI;
pub(crate) const HOUR: u128 = 3_600 * SECOND;
pub(crate) const DAY: u128 = 24 * HOUR;

/// How a store gets time wrong. All times are nanoseconds since it was made.
pub(crate) trait Quirk: Debug + Default + Send + Sync + 'static {
    /// The deadline of what `_by` writes.
    fn deadline(&self, _by: Operation, now: u128, ttl: u128) -> u128 {
        now + ttl
    }

    /// When what `_by` writes without a TTL ends, unbeknown to who asks.
    fn lifetime(&self, _by: Operation, _now: u128) -> Option<u128> {
        None
    }

    /// Whether `_by` takes what ends at `deadline` for live.
    fn sees(&self, _by: Operation, now: u128, deadline: u128) -> bool {
        now < deadline
    }

    /// What `_by` reports of what is left.
    fn left(&self, _by: Operation, left: u128) -> u128 {
        left
    }
}

#[derive(Debug)]
struct Record {
    value: Bytes,
    deadline: Option<u128>,
    /// Where there is no deadline.
    lifetime: Option<u128>,
}

impl Record {
    fn ends(&self) -> Option<u128> {
        self.deadline.or(self.lifetime)
    }
}

/// The store of a quirk.
#[derive(Debug)]
pub(crate) struct Odd<Q> {
    origin: Instant,
    records: Mutex<BTreeMap<Vec<u8>, Record>>,
    quirk: Q,
}

impl<Q: Quirk> Default for Odd<Q> {
    fn default() -> Self {
        Self { origin: Instant::now(), records: Mutex::default(), quirk: Q::default() }
    }
}

impl<Q: Quirk> Odd<Q> {
    fn now(&self) -> u128 {
        self.origin.elapsed().as_nanos()
    }

    fn expiry(&self, by: Operation, deadline: Option<u128>) -> Expiry {
        let Some(deadline) = deadline else { return Expiry::Never };
        let left = self.quirk.left(by, deadline.saturating_sub(self.now())).max(1);
        let nanos = u64::try_from(left).unwrap_or(u64::MAX);
        Expiry::In(Duration::from_nanos(nanos))
    }

    /// Works on the record of `key` that `by` takes for live.
    fn with<T>(&self, by: Operation, key: &[u8], work: impl FnOnce(&mut Option<Record>) -> T) -> T {
        let mut records = self.records.lock().unwrap();
        let now = self.now();
        let live = |record: &Record| {
            record.ends().is_none_or(|deadline| self.quirk.sees(by, now, deadline))
        };
        let found = records.remove(key);
        let (mut seen, hidden) = match found {
            Some(record) if live(&record) => (Some(record), None),
            hidden => (None, hidden),
        };
        let output = work(&mut seen);
        // What one call takes for dead, another one may see.
        if let Some(record) = seen.or(hidden) {
            records.insert(key.to_vec(), record);
        }
        output
    }

    fn record(&self, by: Operation, value: &[u8], ttl: Ttl) -> Result<Record> {
        let ttl = Checked::optional(ttl)?;
        let nanos = ttl.map(|ttl| ttl.as_duration().as_nanos());
        let deadline = nanos.map(|ttl| self.quirk.deadline(by, self.now(), ttl));
        let lifetime = self.quirk.lifetime(by, self.now());
        Ok(Record { value: Bytes::copy_from_slice(value), deadline, lifetime })
    }

    fn found(&self, by: Operation, key: &[u8]) -> Option<(Bytes, Expiry)> {
        self.with(by, key, |record| {
            record.as_ref().map(|record| (record.value.clone(), self.expiry(by, record.deadline)))
        })
    }
}

#[async_trait]
impl<Q: Quirk> Defect for Odd<Q> {
    async fn get(&self, _: &MemoryStore, key: &[u8]) -> Result<Option<Bytes>> {
        Ok(self.found(Operation::Get, key).map(|(value, _)| value))
    }

    async fn get_with_ttl(&self, _: &MemoryStore, key: &[u8]) -> Result<Option<(Bytes, Expiry)>> {
        Ok(self.found(Operation::GetWithTtl, key))
    }

    async fn exists(&self, _: &MemoryStore, key: &[u8]) -> Result<bool> {
        Ok(self.found(Operation::Exists, key).is_some())
    }

    async fn ttl(&self, _: &MemoryStore, key: &[u8]) -> Result<Option<Expiry>> {
        Ok(self.found(Operation::Ttl, key).map(|(_, expiry)| expiry))
    }

    async fn mget(&self, _: &MemoryStore, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>> {
        Ok(keys
            .iter()
            .map(|key| self.found(Operation::Mget, key).map(|(value, _)| value))
            .collect())
    }

    fn scan(&self, _: &MemoryStore, prefix: &[u8]) -> BoxStream<'static, Result<Bytes>> {
        let (now, records) = (self.now(), self.records.lock().unwrap());
        let live = |record: &Record| {
            record.ends().is_none_or(|end| self.quirk.sees(Operation::Scan, now, end))
        };
        let found = records.iter().filter(|(key, record)| key.starts_with(prefix) && live(record));
        let keys: Vec<_> = found.map(|(key, _)| Ok(Bytes::from(key.clone()))).collect();
        stream::iter(keys).boxed()
    }

    async fn set(&self, _: &MemoryStore, key: &[u8], value: &[u8], ttl: Ttl) -> Result<()> {
        let new = self.record(Operation::Set, value, ttl)?;
        self.with(Operation::Set, key, |record| *record = Some(new));
        Ok(())
    }

    async fn mset(&self, _: &MemoryStore, items: &[(&[u8], &[u8])], ttl: Ttl) -> Result<()> {
        Checked::optional(ttl)?;
        for (key, value) in items {
            let new = self.record(Operation::Mset, value, ttl)?;
            self.with(Operation::Mset, key, |record| *record = Some(new));
        }
        Ok(())
    }

    async fn delete(&self, _: &MemoryStore, key: &[u8]) -> Result<bool> {
        let deleted = self.with(Operation::Delete, key, |record| record.take().is_some());
        self.records.lock().unwrap().remove(key);
        Ok(deleted)
    }

    async fn delete_many(&self, _: &MemoryStore, keys: &[&[u8]]) -> Result<u64> {
        let mut count = 0;
        for key in keys {
            count +=
                u64::from(self.with(Operation::DeleteMany, key, |record| record.take().is_some()));
            self.records.lock().unwrap().remove(*key);
        }
        Ok(count)
    }

    async fn expire(&self, _: &MemoryStore, key: &[u8], ttl: Duration) -> Result<bool> {
        let deadline = self.record(Operation::Expire, b"", Some(ttl))?.deadline;
        Ok(self.with(Operation::Expire, key, |record| {
            record.as_mut().map(|record| record.deadline = deadline).is_some()
        }))
    }

    async fn set_nx(&self, _: &MemoryStore, key: &[u8], value: &[u8], ttl: Ttl) -> Result<bool> {
        let new = self.record(Operation::SetNx, value, ttl)?;
        Ok(self.with(Operation::SetNx, key, |record| {
            let absent = record.is_none();
            record.get_or_insert(new);
            absent
        }))
    }

    async fn incr(&self, _: &MemoryStore, key: &[u8], by: i64, ttl: Ttl) -> Result<Counter> {
        let new = self.record(Operation::Incr, b"0", ttl)?;
        self.with(Operation::Incr, key, |record| {
            let before = record.as_ref().map_or(Ok(0), |record| Counter::parse(&record.value))?;
            let value = Counter::add(before, by)?;
            let record = record.get_or_insert(new);
            record.value = value.to_string().into();
            Ok(Counter { value, expiry: self.expiry(Operation::Incr, record.deadline) })
        })
    }

    async fn compare_and_set(
        &self,
        _: &MemoryStore,
        key: &[u8],
        expected: &[u8],
        value: &[u8],
        ttl: Ttl,
    ) -> Result<bool> {
        let new = self.record(Operation::CompareAndSet, value, ttl)?;
        Ok(self.with(Operation::CompareAndSet, key, |record| {
            let equal = record.as_ref().is_some_and(|record| record.value == expected);
            if equal {
                *record = Some(new);
            }
            equal
        }))
    }

    async fn compare_and_delete(
        &self,
        _: &MemoryStore,
        key: &[u8],
        expected: &[u8],
    ) -> Result<bool> {
        Ok(self.with(Operation::CompareAndDelete, key, |record| {
            record.take_if(|record| record.value == expected).is_some()
        }))
    }

    async fn wait_for_change(
        &self,
        _: &MemoryStore,
        _: &[u8],
        _: Option<&[u8]>,
        at_most: Duration,
    ) {
        tokio::time::sleep(at_most).await;
    }
}

/// No quirk: shows that the store itself is right.
#[derive(Debug, Default)]
pub(crate) struct NoQuirk;

impl Quirk for NoQuirk {}
