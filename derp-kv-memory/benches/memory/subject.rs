//! What is measured: the store, and what it is compared with.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use derp_kv_core::KvStore;
use derp_kv_memory::{MemoryStore, OnFull};
use futures_util::TryStreamExt as _;
use moka::ops::compute::Op;
use quick_cache::sync::{EntryAction, EntryResult};

pub(crate) type Dashmap = Arc<DashMap<Bytes, Bytes>>;
pub(crate) type Moka = moka::sync::Cache<Bytes, Bytes>;
pub(crate) type QuickCache = Arc<quick_cache::sync::Cache<Bytes, Bytes>>;
pub(crate) type Foyer = foyer_memory::Cache<Bytes, Bytes>;

/// Reads and writes.
pub(crate) trait Subject: Clone + Send + Sync + 'static {
    fn read(&self, key: &Bytes) -> impl Future<Output = Result<bool>> + Send;
    fn write(&self, key: &Bytes, value: &[u8]) -> impl Future<Output = Result<()>> + Send;
}

/// What must be atomic. The counters are decimal text, as a reader of the key sees them.
pub(crate) trait Atomic: Subject {
    /// Takes a free key, as a lock is taken, and frees it.
    fn take_and_free(&self, key: &Bytes) -> impl Future<Output = Result<()>> + Send;
    fn count(&self, key: &Bytes) -> impl Future<Output = Result<()>> + Send;
}

/// Goes through all keys for those with a prefix.
pub(crate) trait Scan: Subject {
    fn scan_for(&self, prefix: &[u8]) -> impl Future<Output = Result<usize>> + Send;
}

pub(crate) fn bounded(bytes: u64) -> MemoryStore {
    MemoryStore::builder().max_bytes(bytes).on_full(OnFull::EvictCached).build().unwrap()
}

pub(crate) fn moka_of(bytes: u64) -> Moka {
    moka::sync::Cache::builder()
        .max_capacity(bytes)
        .weigher(|key: &Bytes, value: &Bytes| (key.len() + value.len()) as u32)
        .build()
}

/// Of so many items: it and foyer are made for a count.
pub(crate) fn quick_cache_of(items: usize) -> QuickCache {
    Arc::new(quick_cache::sync::Cache::new(items))
}

pub(crate) fn foyer_of(items: usize) -> Foyer {
    foyer_memory::Cache::builder(items).build()
}

fn next(present: &[u8]) -> Result<Bytes> {
    let count: i64 = std::str::from_utf8(present)?.parse()?;
    Ok(Bytes::from((count + 1).to_string()))
}

impl Subject for MemoryStore {
    async fn read(&self, key: &Bytes) -> Result<bool> {
        Ok(self.get(key).await?.is_some())
    }

    async fn write(&self, key: &Bytes, value: &[u8]) -> Result<()> {
        Ok(self.set(key, value, None).await?)
    }
}

impl Atomic for MemoryStore {
    async fn take_and_free(&self, key: &Bytes) -> Result<()> {
        self.set_nx(key, b"token", None).await?;
        self.delete(key).await?;
        Ok(())
    }

    async fn count(&self, key: &Bytes) -> Result<()> {
        self.incr(key, 1, None).await?;
        Ok(())
    }
}

impl Scan for MemoryStore {
    async fn scan_for(&self, prefix: &[u8]) -> Result<usize> {
        Ok(self.scan(prefix).try_collect::<Vec<_>>().await?.len())
    }
}

impl Subject for Dashmap {
    async fn read(&self, key: &Bytes) -> Result<bool> {
        Ok(self.get(key).map(|value| value.clone()).is_some())
    }

    async fn write(&self, key: &Bytes, value: &[u8]) -> Result<()> {
        self.insert(key.clone(), Bytes::copy_from_slice(value));
        Ok(())
    }
}

impl Atomic for Dashmap {
    async fn take_and_free(&self, key: &Bytes) -> Result<()> {
        if let Entry::Vacant(vacant) = self.entry(key.clone()) {
            vacant.insert(Bytes::copy_from_slice(b"token"));
        }
        self.remove(key);
        Ok(())
    }

    async fn count(&self, key: &Bytes) -> Result<()> {
        let mut present = self.get_mut(key).context("a counter is missing")?;
        *present = next(&present)?;
        Ok(())
    }
}

impl Scan for Dashmap {
    async fn scan_for(&self, prefix: &[u8]) -> Result<usize> {
        let found = self.iter().filter(|entry| entry.key().starts_with(prefix));
        Ok(found.map(|entry| entry.key().clone()).collect::<Vec<_>>().len())
    }
}

impl Subject for Moka {
    async fn read(&self, key: &Bytes) -> Result<bool> {
        Ok(self.get(key).is_some())
    }

    async fn write(&self, key: &Bytes, value: &[u8]) -> Result<()> {
        self.insert(key.clone(), Bytes::copy_from_slice(value));
        Ok(())
    }
}

impl Atomic for Moka {
    async fn take_and_free(&self, key: &Bytes) -> Result<()> {
        self.entry_by_ref(key).or_insert_with(|| Bytes::copy_from_slice(b"token"));
        self.invalidate(key);
        Ok(())
    }

    async fn count(&self, key: &Bytes) -> Result<()> {
        self.entry_by_ref(key).and_compute_with(|entry| {
            match entry.and_then(|entry| next(entry.value()).ok()) {
                Some(value) => Op::Put(value),
                None => Op::Nop,
            }
        });
        Ok(())
    }
}

impl Scan for Moka {
    async fn scan_for(&self, prefix: &[u8]) -> Result<usize> {
        let found = self.iter().filter(|(key, _)| key.starts_with(prefix));
        Ok(found.map(|(key, _)| key).collect::<Vec<_>>().len())
    }
}

impl Subject for QuickCache {
    async fn read(&self, key: &Bytes) -> Result<bool> {
        Ok(self.get(key).is_some())
    }

    async fn write(&self, key: &Bytes, value: &[u8]) -> Result<()> {
        self.insert(key.clone(), Bytes::copy_from_slice(value));
        Ok(())
    }
}

impl Atomic for QuickCache {
    async fn take_and_free(&self, key: &Bytes) -> Result<()> {
        self.get_or_insert_with(key, || anyhow::Ok(Bytes::copy_from_slice(b"token")))?;
        self.remove(key);
        Ok(())
    }

    async fn count(&self, key: &Bytes) -> Result<()> {
        let counted = self.entry(key, None, |_, present| {
            let counted = next(present).map(|value| *present = value);
            EntryAction::Retain(counted)
        });
        match counted {
            EntryResult::Retained(counted) => counted,
            _ => anyhow::bail!("a counter is missing"),
        }
    }
}

impl Scan for QuickCache {
    async fn scan_for(&self, prefix: &[u8]) -> Result<usize> {
        let found = self.iter().filter(|(key, _)| key.starts_with(prefix));
        Ok(found.map(|(key, _)| key).collect::<Vec<_>>().len())
    }
}

impl Subject for Foyer {
    async fn read(&self, key: &Bytes) -> Result<bool> {
        Ok(self.get(key).map(|entry| entry.value().clone()).is_some())
    }

    async fn write(&self, key: &Bytes, value: &[u8]) -> Result<()> {
        self.insert(key.clone(), Bytes::copy_from_slice(value));
        Ok(())
    }
}
