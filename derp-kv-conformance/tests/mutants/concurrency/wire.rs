//! A store behind a connection on which requests are under way for a while, right but for what a
//! dropped call leaves behind.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::future::pending;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use derp_kv_core::{Counter, Error, ErrorKind, Expiry, KvStore, Operation, Result};
use derp_kv_memory::MemoryStore;
use futures_core::stream::BoxStream;
use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;

use super::super::defect::{Defect, Ttl};

/// What a dropped call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    /// This operation is applied so many milliseconds later.
    Late(Operation, u64),
    /// Every write is, once the store has several connections.
    LateOfPool(u64),
    /// The reply of this operation goes to the next call of the same.
    Stale(Operation),
    /// The reply of any operation goes to the next call.
    StaleOfAll,
    /// The connection of this operation, of so many, never comes back.
    Leaks(Operation, usize),
    LeaksAll(usize),
    /// The operation is sent once more.
    Twice(Operation),
    /// The next write is answered, and rolled back with the dropped one.
    TakesTheNextAlong,
    /// Its key is locked for ever.
    LocksItsKey,
    /// It breaks the store.
    Breaks(Operation),
    /// It is applied in two steps, of which the second gives the TTL.
    TtlLater(Operation),
}

/// The flaw of a type.
pub(super) trait Flawed: Debug + Default + Send + Sync + 'static {
    const FLAW: Flaw;
}

/// A call as it is sent.
#[derive(Clone, Debug)]
enum Request {
    Get(Vec<u8>),
    GetWithTtl(Vec<u8>),
    Exists(Vec<u8>),
    Ttl(Vec<u8>),
    Mget(Vec<Vec<u8>>),
    Scan(Vec<u8>),
    Set(Vec<u8>, Vec<u8>, Ttl),
    Mset(Vec<(Vec<u8>, Vec<u8>)>, Ttl),
    Delete(Vec<u8>),
    DeleteMany(Vec<Vec<u8>>),
    Expire(Vec<u8>, Duration),
    SetNx(Vec<u8>, Vec<u8>, Ttl),
    Incr(Vec<u8>, i64, Ttl),
    CompareAndSet(Vec<u8>, Vec<u8>, Vec<u8>, Ttl),
    CompareAndDelete(Vec<u8>, Vec<u8>),
}

/// What comes back.
#[derive(Clone, Debug)]
enum Reply {
    Done,
    Flag(bool),
    Count(u64),
    Counter(Counter),
    Value(Option<Bytes>),
    Dated(Option<(Bytes, Expiry)>),
    Expiry(Option<Expiry>),
    Values(Vec<Option<Bytes>>),
    Keys(Vec<Bytes>),
}

impl Request {
    fn operation(&self) -> Operation {
        match self {
            Self::Get(_) => Operation::Get,
            Self::GetWithTtl(_) => Operation::GetWithTtl,
            Self::Exists(_) => Operation::Exists,
            Self::Ttl(_) => Operation::Ttl,
            Self::Mget(_) => Operation::Mget,
            Self::Scan(_) => Operation::Scan,
            Self::Set(..) => Operation::Set,
            Self::Mset(..) => Operation::Mset,
            Self::Delete(_) => Operation::Delete,
            Self::DeleteMany(_) => Operation::DeleteMany,
            Self::Expire(..) => Operation::Expire,
            Self::SetNx(..) => Operation::SetNx,
            Self::Incr(..) => Operation::Incr,
            Self::CompareAndSet(..) => Operation::CompareAndSet,
            Self::CompareAndDelete(..) => Operation::CompareAndDelete,
        }
    }

    fn is_write(&self) -> bool {
        !matches!(
            self,
            Self::Get(_)
                | Self::GetWithTtl(_)
                | Self::Exists(_)
                | Self::Ttl(_)
                | Self::Mget(_)
                | Self::Scan(_)
        )
    }

    fn key(&self) -> Option<&[u8]> {
        match self {
            Self::Get(key)
            | Self::GetWithTtl(key)
            | Self::Exists(key)
            | Self::Ttl(key)
            | Self::Scan(key)
            | Self::Set(key, ..)
            | Self::Delete(key)
            | Self::Expire(key, _)
            | Self::SetNx(key, ..)
            | Self::Incr(key, ..)
            | Self::CompareAndSet(key, ..)
            | Self::CompareAndDelete(key, _) => Some(key),
            Self::Mset(..) | Self::Mget(_) | Self::DeleteMany(_) => None,
        }
    }

    /// The same write without its TTL, and the key and TTL that are still to come.
    fn without_ttl(&self) -> Option<(Self, Vec<u8>, Duration)> {
        let mut request = self.clone();
        let (key, ttl) = match &mut request {
            Self::Set(key, _, ttl)
            | Self::SetNx(key, _, ttl)
            | Self::Incr(key, _, ttl)
            | Self::CompareAndSet(key, .., ttl) => (key.clone(), ttl.take()?),
            Self::Mset(items, ttl) => (items.last()?.0.clone(), ttl.take()?),
            _ => return None,
        };
        Some((request, key, ttl))
    }

    async fn apply(self, kv: &MemoryStore) -> Result<Reply> {
        fn slices(keys: &[Vec<u8>]) -> Vec<&[u8]> {
            keys.iter().map(Vec::as_slice).collect()
        }
        Ok(match self {
            Self::Get(key) => Reply::Value(kv.get(&key).await?),
            Self::GetWithTtl(key) => Reply::Dated(kv.get_with_ttl(&key).await?),
            Self::Exists(key) => Reply::Flag(kv.exists(&key).await?),
            Self::Ttl(key) => Reply::Expiry(kv.ttl(&key).await?),
            Self::Mget(keys) => Reply::Values(kv.mget(&slices(&keys)).await?),
            Self::Scan(prefix) => Reply::Keys(kv.scan(&prefix).try_collect().await?),
            Self::Set(key, value, ttl) => {
                kv.set(&key, &value, ttl).await?;
                Reply::Done
            }
            Self::Mset(items, ttl) => {
                let items: Vec<_> = items.iter().map(|(k, v)| (&k[..], &v[..])).collect();
                kv.mset(&items, ttl).await?;
                Reply::Done
            }
            Self::Delete(key) => Reply::Flag(kv.delete(&key).await?),
            Self::DeleteMany(keys) => Reply::Count(kv.delete_many(&slices(&keys)).await?),
            Self::Expire(key, ttl) => Reply::Flag(kv.expire(&key, ttl).await?),
            Self::SetNx(key, value, ttl) => Reply::Flag(kv.set_nx(&key, &value, ttl).await?),
            Self::Incr(key, by, ttl) => Reply::Counter(kv.incr(&key, by, ttl).await?),
            Self::CompareAndSet(key, expected, value, ttl) => {
                Reply::Flag(kv.compare_and_set(&key, &expected, &value, ttl).await?)
            }
            Self::CompareAndDelete(key, expected) => {
                Reply::Flag(kv.compare_and_delete(&key, &expected).await?)
            }
        })
    }
}

/// What is done where the caller goes away before its reply is there.
struct Gone<'a>(Option<Box<dyn FnOnce() + Send + 'a>>);

impl<'a> Gone<'a> {
    fn so(leaves: impl FnOnce() + Send + 'a) -> Self {
        Self(Some(Box::new(leaves)))
    }

    fn stays(mut self) {
        self.0 = None;
    }
}

impl Drop for Gone<'_> {
    fn drop(&mut self) {
        if let Some(leaves) = self.0.take() {
            leaves();
        }
    }
}

#[derive(Debug)]
pub(super) struct Wire<F> {
    under_way: AtomicU64,
    has_several: AtomicBool,
    stale: Arc<Mutex<VecDeque<Reply>>>,
    connections: Arc<Semaphore>,
    locked: Mutex<Vec<Vec<u8>>>,
    broken: AtomicBool,
    flaw: PhantomData<F>,
}

impl<F: Flawed> Default for Wire<F> {
    fn default() -> Self {
        let connections = match F::FLAW {
            Flaw::Leaks(_, connections) | Flaw::LeaksAll(connections) => connections,
            _ => Semaphore::MAX_PERMITS,
        };
        Self {
            under_way: AtomicU64::new(0),
            has_several: AtomicBool::new(false),
            stale: Arc::default(),
            connections: Arc::new(Semaphore::new(connections)),
            locked: Mutex::default(),
            broken: AtomicBool::new(false),
            flaw: PhantomData,
        }
    }
}

impl<F: Flawed> Wire<F> {
    async fn send(&self, kv: &MemoryStore, request: Request) -> Result<Reply> {
        let others = self.under_way.fetch_add(1, Ordering::SeqCst);
        self.has_several.fetch_or(others > 3, Ordering::SeqCst);
        let (operation, again) = (request.operation(), request.clone());
        let counted = Gone::so(|| {
            self.under_way.fetch_sub(1, Ordering::SeqCst);
        });
        if self.broken.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Unavailable, "the connection is broken"));
        }
        let is_locked = |key: &[u8]| self.locked.lock().unwrap().iter().any(|held| held == key);
        if request.key().is_some_and(is_locked) {
            pending::<()>().await;
        }
        let leaves: Box<dyn FnOnce() + Send + '_> = match F::FLAW {
            Flaw::Late(late, millis) if operation == late => late_by(kv, again, millis),
            Flaw::LateOfPool(millis)
                if request.is_write() && self.has_several.load(Ordering::SeqCst) =>
            {
                late_by(kv, again, millis)
            }
            Flaw::Stale(stale) if stale == operation => self.leaves_its_reply(kv, again),
            Flaw::StaleOfAll => self.leaves_its_reply(kv, again),
            Flaw::Twice(twice) if twice == operation => Box::new(move || {
                let _ = again.clone().apply(kv).now_or_never();
                let _ = again.apply(kv).now_or_never();
            }),
            Flaw::TakesTheNextAlong if request.is_write() => {
                Box::new(|| self.stale.lock().unwrap().push_back(Reply::Done))
            }
            Flaw::LocksItsKey if request.is_write() => {
                Box::new(move || self.locked.lock().unwrap().extend(again.key().map(Vec::from)))
            }
            Flaw::Breaks(breaks) if breaks == operation => {
                Box::new(|| self.broken.store(true, Ordering::SeqCst))
            }
            _ => Box::new(|| {}),
        };
        let connection = self.connections.clone().acquire_owned().await;
        let leaks = match F::FLAW {
            Flaw::Leaks(leaks, _) => leaks == operation,
            Flaw::LeaksAll(_) => true,
            _ => false,
        };
        let permit = Arc::new(Mutex::new(connection.ok()));
        let kept = Gone::so(|| {
            if leaks && let Some(permit) = permit.lock().unwrap().take() {
                OwnedSemaphorePermit::forget(permit);
            }
        });
        let gone = Gone(Some(leaves));
        tokio::task::yield_now().await;
        let ahead = match F::FLAW {
            Flaw::Stale(stale) if stale != operation => None,
            Flaw::Stale(_) | Flaw::StaleOfAll => self.stale.lock().unwrap().pop_front(),
            Flaw::TakesTheNextAlong if request.is_write() => self.stale.lock().unwrap().pop_front(),
            _ => None,
        };
        let reply = match (F::FLAW, request.without_ttl(), ahead) {
            (Flaw::TtlLater(later), Some((first, key, ttl)), _) if later == operation => {
                let before = kv.get(&key).await?;
                let reply = first.apply(kv).await;
                tokio::task::yield_now().await;
                let created = before.is_none();
                if created || matches!(operation, Operation::Set | Operation::Mset) {
                    kv.expire(&key, ttl).await?;
                }
                match reply {
                    Ok(Reply::Counter(Counter { value, .. })) if created => {
                        Ok(Reply::Counter(Counter { value, expiry: Expiry::In(ttl) }))
                    }
                    reply => reply,
                }
            }
            (Flaw::TakesTheNextAlong, _, Some(_)) => {
                // It is applied to what is rolled back at once.
                let scratch = MemoryStore::new();
                if let Some(key) = request.key()
                    && let Some((value, expiry)) = kv.get_with_ttl(key).await?
                {
                    scratch.set(key, &value, expiry.remaining()).await?;
                }
                request.apply(&scratch).await
            }
            (_, _, Some(ahead)) => {
                let own = request.apply(kv).await?;
                self.stale.lock().unwrap().push_back(own);
                Ok(ahead)
            }
            _ => request.apply(kv).await,
        };
        gone.stays();
        kept.stays();
        drop(counted);
        reply
    }

    fn leaves_its_reply<'a>(
        &'a self,
        kv: &'a MemoryStore,
        request: Request,
    ) -> Box<dyn FnOnce() + Send + 'a> {
        Box::new(move || {
            if let Some(Ok(reply)) = request.apply(kv).now_or_never() {
                self.stale.lock().unwrap().push_back(reply);
            }
        })
    }
}

fn late_by(kv: &MemoryStore, request: Request, millis: u64) -> Box<dyn FnOnce() + Send> {
    let kv = kv.clone();
    Box::new(move || {
        tokio::spawn(async move {
            match millis {
                0 => tokio::task::yield_now().await,
                millis => sleep(Duration::from_millis(millis)).await,
            }
            request.apply(&kv).await
        });
    })
}

fn mixed_up<T>(_: Reply) -> Result<T> {
    Err(Error::new(ErrorKind::Backend, "the reply is that of another call"))
}

fn owned(keys: &[&[u8]]) -> Vec<Vec<u8>> {
    keys.iter().map(|key| key.to_vec()).collect()
}

macro_rules! sent {
    ($self:ident, $kv:ident, $request:expr, $reply:path) => {
        match $self.send($kv, $request).await? {
            $reply(reply) => Ok(reply),
            other => mixed_up(other),
        }
    };
}

#[async_trait]
impl<F: Flawed> Defect for Arc<Wire<F>> {
    async fn get(&self, kv: &MemoryStore, key: &[u8]) -> Result<Option<Bytes>> {
        sent!(self, kv, Request::Get(key.to_vec()), Reply::Value)
    }

    async fn get_with_ttl(&self, kv: &MemoryStore, key: &[u8]) -> Result<Option<(Bytes, Expiry)>> {
        sent!(self, kv, Request::GetWithTtl(key.to_vec()), Reply::Dated)
    }

    async fn exists(&self, kv: &MemoryStore, key: &[u8]) -> Result<bool> {
        sent!(self, kv, Request::Exists(key.to_vec()), Reply::Flag)
    }

    async fn ttl(&self, kv: &MemoryStore, key: &[u8]) -> Result<Option<Expiry>> {
        sent!(self, kv, Request::Ttl(key.to_vec()), Reply::Expiry)
    }

    async fn mget(&self, kv: &MemoryStore, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>> {
        sent!(self, kv, Request::Mget(owned(keys)), Reply::Values)
    }

    fn scan(&self, kv: &MemoryStore, prefix: &[u8]) -> BoxStream<'static, Result<Bytes>> {
        let (wire, kv, request) = (self.clone(), kv.clone(), Request::Scan(prefix.to_vec()));
        let keys = async move {
            match wire.send(&kv, request).await {
                Ok(Reply::Keys(keys)) => stream::iter(keys.into_iter().map(Ok).collect::<Vec<_>>()),
                Ok(other) => stream::iter(vec![mixed_up(other)]),
                Err(error) => stream::iter(vec![Err(error)]),
            }
        };
        stream::once(keys).flatten().boxed()
    }

    async fn set(&self, kv: &MemoryStore, key: &[u8], value: &[u8], ttl: Ttl) -> Result<()> {
        match self.send(kv, Request::Set(key.to_vec(), value.to_vec(), ttl)).await? {
            Reply::Done => Ok(()),
            other => mixed_up(other),
        }
    }

    async fn mset(&self, kv: &MemoryStore, items: &[(&[u8], &[u8])], ttl: Ttl) -> Result<()> {
        let items = items.iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
        match self.send(kv, Request::Mset(items, ttl)).await? {
            Reply::Done => Ok(()),
            other => mixed_up(other),
        }
    }

    async fn delete(&self, kv: &MemoryStore, key: &[u8]) -> Result<bool> {
        sent!(self, kv, Request::Delete(key.to_vec()), Reply::Flag)
    }

    async fn delete_many(&self, kv: &MemoryStore, keys: &[&[u8]]) -> Result<u64> {
        sent!(self, kv, Request::DeleteMany(owned(keys)), Reply::Count)
    }

    async fn expire(&self, kv: &MemoryStore, key: &[u8], ttl: Duration) -> Result<bool> {
        sent!(self, kv, Request::Expire(key.to_vec(), ttl), Reply::Flag)
    }

    async fn set_nx(&self, kv: &MemoryStore, key: &[u8], value: &[u8], ttl: Ttl) -> Result<bool> {
        sent!(self, kv, Request::SetNx(key.to_vec(), value.to_vec(), ttl), Reply::Flag)
    }

    async fn incr(&self, kv: &MemoryStore, key: &[u8], by: i64, ttl: Ttl) -> Result<Counter> {
        sent!(self, kv, Request::Incr(key.to_vec(), by, ttl), Reply::Counter)
    }

    async fn compare_and_set(
        &self,
        kv: &MemoryStore,
        key: &[u8],
        expected: &[u8],
        value: &[u8],
        ttl: Ttl,
    ) -> Result<bool> {
        let request = Request::CompareAndSet(key.to_vec(), expected.to_vec(), value.to_vec(), ttl);
        sent!(self, kv, request, Reply::Flag)
    }

    async fn compare_and_delete(
        &self,
        kv: &MemoryStore,
        key: &[u8],
        expected: &[u8],
    ) -> Result<bool> {
        let request = Request::CompareAndDelete(key.to_vec(), expected.to_vec());
        sent!(self, kv, request, Reply::Flag)
    }

    async fn wait_for_change(
        &self,
        kv: &MemoryStore,
        key: &[u8],
        seen: Option<&[u8]>,
        at_most: Duration,
    ) {
        if let Flaw::Leaks(Operation::WaitForChange, _) = F::FLAW {
            let Ok(permit) = self.connections.acquire().await else { return };
            let permit = Mutex::new(Some(permit));
            let kept = Gone::so(|| {
                if let Some(permit) = permit.lock().unwrap().take() {
                    permit.forget();
                }
            });
            kv.wait_for_change(key, seen, at_most).await;
            return kept.stays();
        }
        kv.wait_for_change(key, seen, at_most).await;
    }
}
