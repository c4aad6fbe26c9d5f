use std::time::Duration;

use bytes::Bytes;

use crate::cache::fill::Fill;
use crate::cache::freshness::Got;
use crate::cache::options::GuardedGet;
use crate::cache::{guarded_get, invalidate};
use crate::coordinate::lease::Lease;
use crate::coordinate::lock::{self, Lock};
use crate::error::{Error, Result};
use crate::once::answer::Answer;
use crate::once::attempts::Attempt;
use crate::once::dedup::{self, Processed};
use crate::once::idempotency;
use crate::once::options::{Dedup, Idempotency};
use crate::once::record::Outcome;
use crate::rate_limit::decide;
use crate::rate_limit::limit::RateLimit;
use crate::rate_limit::status::RateLimitStatus;
use crate::store::kv_store::KvStore;

/// The helpers, as methods of every store that is a cheap handle (`Clone`), `Arc<dyn KvStore>`
/// among them.
///
/// All of them are written over [`KvStore`] alone. The futures are `Send`, so they can be
/// spawned. Closures may fail with any `E: From<derp_kv_core::Error>`, such as `anyhow::Error` or
/// your own enum, and `E` goes to the caller whose closure failed.
///
/// # Keys
///
/// A helper's record is `{prefix}:{id}`, the lock of a key is the key and `:lock`, and the
/// marker of its attempts is at the key and `:attempt`. So a key or id
/// that ends in `:lock` is [`InvalidArgument`](crate::ErrorKind::InvalidArgument), and so is the id
/// `lock`, an empty one, and one of more than 1 KiB. Build ids that hold more than one part
/// (tenant, method, path, the client's key) with [`id_of`](crate::id_of), so that no two requests join to
/// the same one.
///
/// Laws: `helpers::lock_keys_are_reserved`, `helpers::ids_are_bounded`,
/// `helpers::records_are_compatible`.
pub trait KvStoreExt: KvStore + Clone {
    /// Reads `key`, or computes its value once for everybody: [`guarded_get`](crate::guarded_get).
    fn guarded_get<K, F, Fut, V, E>(
        &self,
        key: K,
        options: &GuardedGet,
        compute: F,
    ) -> impl Future<Output = Result<Bytes, E>> + Send
    where
        K: AsRef<[u8]> + Send + Sync,
        F: FnOnce() -> Fut + Send,
        Fut: Future<Output = Result<V, E>> + Send,
        V: Into<Fill> + Send,
        E: From<Error> + Send,
    {
        guarded_get::guarded_get(self, key, options, compute)
    }

    /// [`guarded_get`](Self::guarded_get), and what it knows of the value:
    /// [`guarded_get_detailed`](crate::guarded_get_detailed).
    fn guarded_get_detailed<K, F, Fut, V, E>(
        &self,
        key: K,
        options: &GuardedGet,
        compute: F,
    ) -> impl Future<Output = Result<Got, E>> + Send
    where
        K: AsRef<[u8]> + Send + Sync,
        F: FnOnce() -> Fut + Send,
        Fut: Future<Output = Result<V, E>> + Send,
        V: Into<Fill> + Send,
        E: From<Error> + Send,
    {
        guarded_get::guarded_get_detailed(self, key, options, compute)
    }

    /// Removes a cached value for good: [`invalidate`](crate::invalidate).
    fn invalidate<K>(&self, key: K) -> impl Future<Output = Result<bool>> + Send
    where
        K: AsRef<[u8]> + Send + Sync,
    {
        invalidate::invalidate(self, key)
    }

    /// Replaces a cached value for good: [`refresh`](crate::refresh).
    fn refresh<K>(
        &self,
        key: K,
        value: &[u8],
        ttl: Option<Duration>,
    ) -> impl Future<Output = Result<()>> + Send
    where
        K: AsRef<[u8]> + Send + Sync,
    {
        invalidate::refresh(self, key, value, ttl)
    }

    /// Runs `compute` once for each `key`: [`idempotent_execute`](crate::idempotent_execute).
    fn idempotent_execute<K, T, F, Fut, E>(
        &self,
        key: K,
        options: &Idempotency,
        compute: F,
    ) -> impl Future<Output = Result<Outcome<T>, E>> + Send
    where
        K: AsRef<[u8]> + Send + Sync,
        T: Answer + Send,
        F: FnOnce() -> Fut + Send,
        Fut: Future<Output = Result<T, E>> + Send,
        E: From<Error> + Send,
    {
        idempotency::idempotent_execute(self, key, options, compute)
    }

    /// Runs `compute` once, and tells it which attempt it is:
    /// [`idempotent_execute_with`](crate::idempotent_execute_with).
    fn idempotent_execute_with<K, T, F, Fut, E>(
        &self,
        key: K,
        options: &Idempotency,
        compute: F,
    ) -> impl Future<Output = Result<Outcome<T>, E>> + Send
    where
        K: AsRef<[u8]> + Send + Sync,
        T: Answer + Send,
        F: FnOnce(Attempt) -> Fut + Send,
        Fut: Future<Output = Result<T, E>> + Send,
        E: From<Error> + Send,
    {
        idempotency::idempotent_execute_with(self, key, options, compute)
    }

    /// Forgets attempts that were abandoned: [`idempotent_forget`](crate::idempotent_forget).
    fn idempotent_forget<K>(
        &self,
        key: K,
        options: &Idempotency,
    ) -> impl Future<Output = Result<bool>> + Send
    where
        K: AsRef<[u8]> + Send + Sync,
    {
        idempotency::idempotent_forget(self, key, options)
    }

    /// Counts a call and tells whether it is within the limit: [`rate_limit`](crate::rate_limit).
    fn rate_limit<K>(
        &self,
        id: K,
        limit: &RateLimit,
    ) -> impl Future<Output = Result<RateLimitStatus>> + Send
    where
        K: AsRef<[u8]> + Send + Sync,
    {
        decide::rate_limit(self, id, limit)
    }

    /// Tells how a call would fare: [`rate_limit_peek`](crate::rate_limit_peek).
    fn rate_limit_peek<K>(
        &self,
        id: K,
        limit: &RateLimit,
    ) -> impl Future<Output = Result<RateLimitStatus>> + Send
    where
        K: AsRef<[u8]> + Send + Sync,
    {
        decide::rate_limit_peek(self, id, limit)
    }

    /// Gives back what a call was counted for: [`rate_limit_refund`](crate::rate_limit_refund).
    fn rate_limit_refund<K>(
        &self,
        id: K,
        limit: &RateLimit,
    ) -> impl Future<Output = Result<RateLimitStatus>> + Send
    where
        K: AsRef<[u8]> + Send,
    {
        decide::rate_limit_refund(self, id, limit)
    }

    /// Forgets what was counted: [`rate_limit_reset`](crate::rate_limit_reset).
    fn rate_limit_reset<K>(
        &self,
        id: K,
        limit: &RateLimit,
    ) -> impl Future<Output = Result<bool>> + Send
    where
        K: AsRef<[u8]> + Send + Sync,
    {
        decide::rate_limit_reset(self, id, limit)
    }

    /// Marks an event and tells whether it was before: [`already_processed`](crate::already_processed).
    fn already_processed<K>(
        &self,
        event_id: K,
        options: &Dedup,
    ) -> impl Future<Output = Result<bool>> + Send
    where
        K: AsRef<[u8]> + Send + Sync,
    {
        dedup::already_processed(self, event_id, options)
    }

    /// Runs `handler` unless the event was processed before: [`process_once`](crate::process_once).
    fn process_once<K, T, F, Fut, E>(
        &self,
        event_id: K,
        options: &Dedup,
        handler: F,
    ) -> impl Future<Output = Result<Processed<T>, E>> + Send
    where
        K: AsRef<[u8]> + Send + Sync,
        T: Send,
        F: FnOnce() -> Fut + Send,
        Fut: Future<Output = Result<T, E>> + Send,
        E: From<Error> + Send,
    {
        dedup::process_once(self, event_id, options, handler)
    }

    /// Runs `handler` unless the event was processed before, and tells it which attempt it is:
    /// [`process_once_with`](crate::process_once_with).
    fn process_once_with<K, T, F, Fut, E>(
        &self,
        event_id: K,
        options: &Dedup,
        handler: F,
    ) -> impl Future<Output = Result<Processed<T>, E>> + Send
    where
        K: AsRef<[u8]> + Send + Sync,
        T: Send,
        F: FnOnce(Attempt) -> Fut + Send,
        Fut: Future<Output = Result<T, E>> + Send,
        E: From<Error> + Send,
    {
        dedup::process_once_with(self, event_id, options, handler)
    }

    /// Forgets attempts at an event, and that it was given up: [`process_forget`](crate::process_forget).
    fn process_forget<K>(
        &self,
        event_id: K,
        options: &Dedup,
    ) -> impl Future<Output = Result<bool>> + Send
    where
        K: AsRef<[u8]> + Send + Sync,
    {
        dedup::process_forget(self, event_id, options)
    }

    /// Takes the lease of `key` unless somebody holds it: [`try_lock`](crate::try_lock).
    fn try_lock<K>(
        &self,
        key: K,
        ttl: Duration,
    ) -> impl Future<Output = Result<Option<Lease>>> + Send
    where
        K: AsRef<[u8]> + Send + Sync,
    {
        lock::try_lock(self, key, ttl)
    }

    /// Waits for the lease of `key`: [`lock`](crate::lock).
    fn lock<K>(&self, key: K, options: &Lock) -> impl Future<Output = Result<Lease>> + Send
    where
        K: AsRef<[u8]> + Send + Sync,
    {
        lock::lock(self, key, options)
    }
}

impl<S: KvStore + Clone> KvStoreExt for S {}
