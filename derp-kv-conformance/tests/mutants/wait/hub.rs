//! A store that tells waiters of changes through a hub of its own, right but for one flaw.

use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::future::pending;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use derp_kv_core::{Counter, KvStore, Operation, Result};
use derp_kv_memory::MemoryStore;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, sleep, sleep_until};

use super::super::defect::{Defect, Ttl};

/// What is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    /// This operation tells nobody.
    DeafTo(Operation),
    /// Any change wakes all waiters, but that of this operation.
    AllDeafTo(Operation),
    /// No deletion is told, of whichever operation.
    DeafToDeletion,
    /// Nothing but deletions is told.
    DeafToWrites,
    /// Only `set` is told.
    SetOnly,
    DeafToExpiry,
    /// What ends a key that this operation gave a TTL is not known to waiters.
    ForgetsEndOf(Operation),
    /// A key is registered by its first 1024 bytes, and told by all of it.
    KeyIsCut,
    SeenByBeginning,
    /// A write of the same value is no change, although its TTL may be another.
    DeafToSameValue,
    /// A write that has a TTL goes by another way.
    DeafToDated,
    DeafToEmptyValue,
    /// A key that appears is told to nobody.
    DeafToCreation,
    EveryOtherChange,
    FirstChangeOfKey,
    FirstOfBatch,
    FirstWaiter,
    LastWaiter,
    OneWaiterOfHandle,
    OwnHandleOnly,
    OtherHandlesOnly,
    GoneTakesAll,
    GoneBreaksHub,
    GoneTakesTheLast,
    SeenNoneMatchesAll,
    SeenEmptyIsAbsent,
    SeenByLength,
    SeenByPresence,
    BeginningOfKey,
    KeyAsText,
    /// The channel of changes keeps so many, and a waiter that lags misses the others.
    Channel(usize),
    /// So many waiters at most are registered, the latest of them.
    AtMost(usize),
    /// So many waits run at once, and the others queue.
    TakeTurns(usize),
    BoundPanics,
    BoundIsCut,
    LongBoundIsDeaf,
    NoBoundAtZero,
    AtOnce,
    LooksBeforeItListens,
}

/// The flaw of a type.
pub(super) trait Flawed: Debug + Default + Send + Sync + 'static {
    const FLAW: Flaw;
}

#[derive(Debug)]
struct Waiting {
    number: u64,
    handle: u64,
    woken: Arc<Notify>,
}

/// What all handles share.
#[derive(Debug)]
struct Hub {
    waiting: Mutex<HashMap<Vec<u8>, Vec<Waiting>>>,
    next: AtomicU64,
    changes: AtomicU64,
    told: Mutex<HashSet<Vec<u8>>>,
    broken: Mutex<bool>,
    channel: broadcast::Sender<Vec<u8>>,
    turns: Semaphore,
}

/// One handle.
#[derive(Debug)]
pub(super) struct Hears<F> {
    hub: Arc<Hub>,
    handle: u64,
    flaw: PhantomData<F>,
}

impl<F: Flawed> Default for Hears<F> {
    fn default() -> Self {
        let lag = if let Flaw::Channel(lag) = F::FLAW { lag } else { 1 };
        let turns =
            if let Flaw::TakeTurns(turns) = F::FLAW { turns } else { Semaphore::MAX_PERMITS };
        let hub = Hub {
            waiting: Mutex::default(),
            next: AtomicU64::new(1),
            changes: AtomicU64::new(0),
            told: Mutex::default(),
            broken: Mutex::default(),
            channel: broadcast::channel(lag).0,
            turns: Semaphore::new(turns),
        };
        Self { hub: Arc::new(hub), handle: 0, flaw: PhantomData }
    }
}

/// A waiter that is registered, until it is dropped.
struct Registered<'a> {
    hub: &'a Hub,
    flaw: Flaw,
    key: Vec<u8>,
    number: u64,
    heard: bool,
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        let mut waiting = self.hub.waiting.lock().unwrap();
        let Some(here) = waiting.get_mut(&self.key) else { return };
        match self.flaw {
            Flaw::GoneTakesAll if !self.heard => here.clear(),
            Flaw::GoneTakesTheLast if !self.heard => drop(here.pop()),
            Flaw::GoneBreaksHub if !self.heard => *self.hub.broken.lock().unwrap() = true,
            _ => here.retain(|waiting| waiting.number != self.number),
        }
        if here.is_empty() {
            waiting.remove(&self.key);
        }
    }
}

/// What a write did to a key.
struct Told<'a> {
    operation: Operation,
    key: &'a [u8],
    before: Option<Vec<u8>>,
    dated: bool,
}

impl<F: Flawed> Hears<F> {
    fn registered_as(key: &[u8]) -> Vec<u8> {
        match F::FLAW {
            Flaw::BeginningOfKey => key[..key.len().min(16)].to_vec(),
            Flaw::KeyIsCut => key[..key.len().min(1024)].to_vec(),
            Flaw::KeyAsText => String::from_utf8_lossy(key).into_owned().into_bytes(),
            _ => key.to_vec(),
        }
    }

    fn register(&self, key: &[u8]) -> (Registered<'_>, Arc<Notify>) {
        let (key, woken) = (Self::registered_as(key), Arc::new(Notify::new()));
        let number = self.hub.next.fetch_add(1, Ordering::SeqCst);
        let mut waiting = self.hub.waiting.lock().unwrap();
        if let Flaw::AtMost(most) = F::FLAW
            && waiting.values().map(Vec::len).sum::<usize>() >= most
        {
            let oldest = waiting.iter().min_by_key(|(_, here)| here[0].number);
            let oldest = oldest.map(|(key, _)| key.clone()).unwrap();
            waiting.remove(&oldest);
        }
        let here = waiting.entry(key.clone()).or_default();
        match F::FLAW {
            // One place for a key: the next waiter takes it.
            Flaw::BeginningOfKey | Flaw::LastWaiter => here.clear(),
            Flaw::OneWaiterOfHandle => here.retain(|waiting| waiting.handle != self.handle),
            _ => {}
        }
        here.push(Waiting { number, handle: self.handle, woken: woken.clone() });
        (Registered { hub: &self.hub, flaw: F::FLAW, key, number, heard: false }, woken)
    }

    async fn tell(&self, kv: &MemoryStore, told: Told<'_>) {
        let Told { operation, key, before, dated } = told;
        let now = kv.get(key).await.ok().flatten().map(Vec::from);
        let changes = self.hub.changes.fetch_add(1, Ordering::SeqCst);
        if let Flaw::ForgetsEndOf(forgotten) = F::FLAW {
            let mut endless = self.hub.told.lock().unwrap();
            if operation == forgotten {
                endless.insert(key.to_vec())
            } else {
                endless.remove(key)
            };
        }
        let deaf = match F::FLAW {
            Flaw::DeafTo(deaf) | Flaw::AllDeafTo(deaf) => operation == deaf,
            Flaw::SetOnly => operation != Operation::Set,
            Flaw::DeafToDeletion => now.is_none(),
            Flaw::DeafToWrites => now.is_some(),
            Flaw::DeafToSameValue => now == before && operation != Operation::Expire,
            Flaw::DeafToDated => dated,
            Flaw::DeafToEmptyValue => now.as_ref().is_some_and(Vec::is_empty),
            Flaw::DeafToCreation => before.is_none(),
            Flaw::EveryOtherChange => changes.is_multiple_of(2),
            Flaw::FirstChangeOfKey => !self.hub.told.lock().unwrap().insert(key.to_vec()),
            Flaw::GoneBreaksHub => *self.hub.broken.lock().unwrap(),
            _ => false,
        };
        if deaf {
            return;
        }
        // Nobody listens, or somebody does.
        let _ = self.hub.channel.send(key.to_vec());
        let waiting = self.hub.waiting.lock().unwrap();
        let all: Vec<&Waiting> = match F::FLAW {
            Flaw::AllDeafTo(_) => waiting.values().flatten().collect(),
            Flaw::BeginningOfKey => {
                waiting.get(&Self::registered_as(key)).into_iter().flatten().collect()
            }
            _ => waiting.get(key).into_iter().flatten().collect(),
        };
        let most = if F::FLAW == Flaw::FirstWaiter { 1 } else { usize::MAX };
        for waiting in all.into_iter().take(most) {
            let own = waiting.handle == self.handle;
            match F::FLAW {
                Flaw::OwnHandleOnly if !own => {}
                Flaw::OtherHandlesOnly if own => {}
                _ => waiting.woken.notify_one(),
            }
        }
    }

    /// Makes a write of one key and tells of it.
    async fn write<T>(
        &self,
        kv: &MemoryStore,
        operation: Operation,
        key: &[u8],
        dated: bool,
        call: impl Future<Output = T>,
    ) -> T {
        let before = kv.get(key).await.ok().flatten().map(Vec::from);
        let output = call.await;
        self.tell(kv, Told { operation, key, before, dated }).await;
        output
    }

    fn differs(found: Option<&[u8]>, seen: Option<&[u8]>) -> bool {
        match F::FLAW {
            Flaw::SeenNoneMatchesAll => seen.is_some() && found != seen,
            Flaw::SeenEmptyIsAbsent => found.unwrap_or_default() != seen.unwrap_or_default(),
            Flaw::SeenByLength => found.map(<[u8]>::len) != seen.map(<[u8]>::len),
            Flaw::SeenByBeginning => {
                let beginning = |value: &[u8]| value[..value.len().min(64 * 1024)].to_vec();
                found.map(beginning) != seen.map(beginning)
            }
            Flaw::SeenByPresence => found.is_some() != seen.is_some(),
            _ => found != seen,
        }
    }

    /// Sleeps for as long as the bound says.
    async fn bound(at_most: Duration) {
        match F::FLAW {
            Flaw::BoundPanics => sleep_until(Instant::now() + at_most).await,
            // A number of 32 bits.
            Flaw::BoundIsCut => {
                sleep(Duration::from_millis((at_most.as_millis() & 0xffff_ffff) as u64)).await;
            }
            Flaw::NoBoundAtZero if at_most.as_millis() == 0 => pending().await,
            _ => sleep(at_most).await,
        }
    }
}

#[async_trait]
impl<F: Flawed> Defect for Hears<F> {
    async fn set(&self, kv: &MemoryStore, key: &[u8], value: &[u8], ttl: Ttl) -> Result<()> {
        self.write(kv, Operation::Set, key, ttl.is_some(), kv.set(key, value, ttl)).await
    }

    async fn mset(&self, kv: &MemoryStore, items: &[(&[u8], &[u8])], ttl: Ttl) -> Result<()> {
        let keys: Vec<_> = items.iter().map(|(key, _)| *key).collect();
        let before = kv.mget(&keys).await?;
        kv.mset(items, ttl).await?;
        let told = if F::FLAW == Flaw::FirstOfBatch { 1 } else { keys.len() };
        for (key, before) in keys.into_iter().zip(before).take(told) {
            let before = before.map(Vec::from);
            let (operation, dated) = (Operation::Mset, ttl.is_some());
            self.tell(kv, Told { operation, key, before, dated }).await;
        }
        Ok(())
    }

    async fn delete(&self, kv: &MemoryStore, key: &[u8]) -> Result<bool> {
        self.write(kv, Operation::Delete, key, false, kv.delete(key)).await
    }

    async fn delete_many(&self, kv: &MemoryStore, keys: &[&[u8]]) -> Result<u64> {
        let before = kv.mget(keys).await?;
        let count = kv.delete_many(keys).await?;
        let told = if F::FLAW == Flaw::FirstOfBatch { 1 } else { keys.len() };
        for (key, before) in keys.iter().zip(before).take(told) {
            let before = before.map(Vec::from);
            let operation = Operation::DeleteMany;
            self.tell(kv, Told { operation, key, before, dated: false }).await;
        }
        Ok(count)
    }

    async fn expire(&self, kv: &MemoryStore, key: &[u8], ttl: Duration) -> Result<bool> {
        self.write(kv, Operation::Expire, key, true, kv.expire(key, ttl)).await
    }

    async fn set_nx(&self, kv: &MemoryStore, key: &[u8], value: &[u8], ttl: Ttl) -> Result<bool> {
        self.write(kv, Operation::SetNx, key, ttl.is_some(), kv.set_nx(key, value, ttl)).await
    }

    async fn incr(&self, kv: &MemoryStore, key: &[u8], by: i64, ttl: Ttl) -> Result<Counter> {
        self.write(kv, Operation::Incr, key, false, kv.incr(key, by, ttl)).await
    }

    async fn compare_and_set(
        &self,
        kv: &MemoryStore,
        key: &[u8],
        expected: &[u8],
        value: &[u8],
        ttl: Ttl,
    ) -> Result<bool> {
        let call = kv.compare_and_set(key, expected, value, ttl);
        self.write(kv, Operation::CompareAndSet, key, ttl.is_some(), call).await
    }

    async fn compare_and_delete(
        &self,
        kv: &MemoryStore,
        key: &[u8],
        expected: &[u8],
    ) -> Result<bool> {
        let call = kv.compare_and_delete(key, expected);
        self.write(kv, Operation::CompareAndDelete, key, false, call).await
    }

    async fn wait_for_change(
        &self,
        kv: &MemoryStore,
        key: &[u8],
        seen: Option<&[u8]>,
        at_most: Duration,
    ) {
        if F::FLAW == Flaw::AtOnce {
            return tokio::task::yield_now().await;
        }
        if F::FLAW == Flaw::LongBoundIsDeaf && at_most > Duration::from_secs(86_400) {
            return sleep(at_most).await;
        }
        let _turn = self.hub.turns.acquire().await;
        if F::FLAW == Flaw::LooksBeforeItListens {
            let found = kv.get(key).await.ok().flatten();
            if found.as_deref() != seen {
                return;
            }
            tokio::task::yield_now().await;
        }
        let mut channel = self.hub.channel.subscribe();
        let (mut registered, woken) = self.register(key);
        let found = kv.get_with_ttl(key).await.ok().flatten();
        let differs = Self::differs(found.as_ref().map(|(value, _)| &value[..]), seen);
        if differs && F::FLAW != Flaw::LooksBeforeItListens {
            registered.heard = true;
            return;
        }
        let left = found.and_then(|(_, expiry)| expiry.remaining());
        let forgotten =
            matches!(F::FLAW, Flaw::ForgetsEndOf(_)) && self.hub.told.lock().unwrap().contains(key);
        let ends = async {
            match left {
                Some(left) if F::FLAW != Flaw::DeafToExpiry && !forgotten => sleep(left).await,
                _ => pending().await,
            }
        };
        let told = async {
            if !matches!(F::FLAW, Flaw::Channel(_)) {
                return woken.notified().await;
            }
            loop {
                match channel.recv().await {
                    Ok(changed) if changed == key => return,
                    // What was missed is taken for changes of other keys.
                    Ok(_) | Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => pending().await,
                }
            }
        };
        tokio::select! {
            () = told => {}
            () = ends => {}
            () = Self::bound(at_most) => {}
        }
        registered.heard = true;
    }

    fn elsewhere(&self) -> Option<Arc<dyn Defect>> {
        let handle = self.hub.next.fetch_add(1, Ordering::SeqCst);
        Some(Arc::new(Self { hub: self.hub.clone(), handle, flaw: PhantomData }))
    }
}
