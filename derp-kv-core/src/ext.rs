use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cache::guarded_get::{self, GuardedGet};
use crate::cache::invalidate;
use crate::coordinate::lease::Lease;
use crate::coordinate::lock;
use crate::error::{Error, Result};
use crate::once::dedup::{self, Dedup, Processed};
use crate::once::idempotency::{self, Idempotency, Outcome};
use crate::rate_limit::fixed_window::{self, RateLimit, RateLimitStatus};
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
/// A helper's record is `{prefix}:{id}`, the lock of a key is the key and `:lock`. So a key or id
/// that ends in `:lock` is [`InvalidArgument`](crate::ErrorKind::InvalidArgument), and so is the id
/// `lock`, an empty one, and one of more than 1 KiB. Build ids that hold more than one part
/// (tenant, method, path, the client's key) so that no two requests can join to the same one.
///
/// Laws: `helpers::lock_keys_are_reserved`, `helpers::ids_are_bounded`,
/// `helpers::records_are_compatible`.
pub trait KvStoreExt: KvStore + Clone {
    /// Reads `key`, or computes its value once for everybody and keeps it.
    ///
    /// ```mermaid
    /// sequenceDiagram
    ///     participant A as caller A
    ///     participant S as store
    ///     participant B as caller B, elsewhere
    ///     A->>S: get k: nothing
    ///     A->>S: set_nx k:lock token, lock_ttl
    ///     A->>S: get k: still nothing
    ///     B->>S: get k: nothing
    ///     B->>S: set_nx k:lock: refused
    ///     Note over A: compute, renewing the lock every lock_ttl / 3
    ///     B-->>S: wait_for_change k
    ///     A->>S: set k value, ttl
    ///     S-->>B: changed
    ///     A->>S: compare_and_delete k:lock token
    ///     B->>S: get k: value
    /// ```
    ///
    /// ```mermaid
    /// sequenceDiagram
    ///     participant A as caller A
    ///     participant S as store
    ///     participant B as caller B
    ///     A->>S: set_nx k:lock token, lock_ttl
    ///     Note over A: crashes
    ///     B->>S: set_nx k:lock: refused
    ///     Note over S: lock_ttl passes, k:lock is gone
    ///     B->>S: set_nx k:lock token': one of the waiters wins
    ///     Note over B: computes
    /// ```
    ///
    /// # What is guaranteed, and what not
    ///
    /// * A hit is one command, an uncontended miss at most five. Callers in one process share one
    ///   flight: one of them contends for the lock, the others get its value.
    /// * One caller computes at a time over all processes while the holder lives. When a holder
    ///   crashes, exactly one other succeeds it after `lock_ttl`; when its future is dropped or
    ///   panics, at once.
    /// * A caller that has waited `lock_ttl` for a holder that is alive computes for the callers of
    ///   its process, one at a time, and stores nothing. So a computation slower than `lock_ttl` may
    ///   run more than once: choose `lock_ttl` above its usual time.
    /// * An error is not cached, and the lock is free when the error is returned. It goes to the
    ///   caller whose closure failed; another caller takes over.
    /// * [`invalidate`](Self::invalidate) wins over computations that began before it, but for a
    ///   round trip: a holder that finds its lease gone takes its value back. A holder that dies
    ///   in between, or cannot reach the store, leaves it to its TTL.
    ///
    /// Laws: `helpers::guarded_get_keeps_what_it_computes`, `helpers::guarded_get_computes_once`,
    /// `helpers::guarded_get_keeps_no_error`, `helpers::guarded_get_survives_a_panic`,
    /// `helpers::guarded_get_survives_dropped_callers`, `helpers::guarded_get_succeeds_the_dead`,
    /// `faults::guarded_get_goes_on`.
    ///
    /// Called for the same key inside `compute`, it waits for the outer call for `lock_ttl` or two,
    /// and then computes as well.
    ///
    /// # Errors
    ///
    /// `compute`'s own, and those of reading and locking; see
    /// [`OnStoreError`](crate::OnStoreError). That a computed value cannot be kept is no error.
    ///
    /// # Cancel safety
    ///
    /// Drop it at any time: the lock is freed in the background, and another caller goes on.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::time::Duration;
    /// use derp_kv_core::{GuardedGet, KvStoreExt};
    /// # async fn fetch_from_db(_: u32) -> anyhow::Result<String> { Ok("kettle".into()) }
    /// # #[tokio::main] async fn main() -> anyhow::Result<()> {
    /// # let kv = derp_kv_memory::MemoryStore::new();
    /// let options = GuardedGet::ttl(Duration::from_secs(300));
    /// let page = kv.guarded_get(b"product:42", options, || fetch_from_db(42)).await?;
    /// assert_eq!(page, "kettle");
    /// # Ok(()) }
    /// ```
    fn guarded_get<K, F, Fut, V, E>(
        &self,
        key: K,
        options: GuardedGet,
        compute: F,
    ) -> impl Future<Output = Result<Bytes, E>> + Send
    where
        K: AsRef<[u8]> + Send + Sync,
        F: FnOnce() -> Fut + Send,
        Fut: Future<Output = Result<V, E>> + Send,
        V: Into<Bytes> + Send,
        E: From<Error> + Send,
    {
        guarded_get::guarded_get(self, key, options, compute)
    }

    /// Removes a cached value, and tells whether there was one, so that no computation that began
    /// before can bring an older value back.
    ///
    /// Laws: `helpers::invalidate_wins`.
    ///
    /// # Errors
    ///
    /// Those of the store; the value may then be gone or not. Try again.
    ///
    /// # Cancel safety
    ///
    /// A dropped call may have removed the value or not. Call it again.
    ///
    /// # Examples
    ///
    /// ```
    /// use derp_kv_core::{KvStore, KvStoreExt};
    /// # #[tokio::main] async fn main() -> derp_kv_core::Result<()> {
    /// # let kv = derp_kv_memory::MemoryStore::new();
    /// kv.set(b"product:42", b"old", None).await?;
    /// // After the database was changed:
    /// assert!(kv.invalidate("product:42").await?);
    /// # Ok(()) }
    /// ```
    fn invalidate<K>(&self, key: K) -> impl Future<Output = Result<bool>> + Send
    where
        K: AsRef<[u8]> + Send + Sync,
    {
        invalidate::invalidate(self, key)
    }

    /// Runs `compute` once for each `key` while its record lives, and gives everybody its outcome.
    ///
    /// The record at `{prefix}:{key}` is the JSON `{"status_code":201,"body":…}`.
    ///
    /// # What is guaranteed, and what not
    ///
    /// * The work runs once, however slow it is, however many callers and processes there are. A
    ///   duplicate waits up to `lock_ttl` for the outcome, then gets
    ///   [`InProgress`](crate::ErrorKind::InProgress); it never runs the work as well.
    /// * With [`fingerprint`](Idempotency::fingerprint), the same key with another request is
    ///   [`KeyReused`](crate::ErrorKind::KeyReused), while the first is under way and after.
    /// * Only `Ok` is kept. After `Err`, a panic or a dropped call the key is free again; after a
    ///   crash, in `lock_ttl`.
    /// * A record is never overwritten. A holder that lost its lease and finds another's record
    ///   returns that one.
    /// * A holder whose process is stopped, or cut off from the store, for longer than `lock_ttl`
    ///   while it works, and a server that forgets an acknowledged write in a failover, can let
    ///   the work run twice. Where that must not be, make its effect conditional on the key
    ///   itself: a unique constraint, or the same idempotency key passed on.
    /// * Where the work was done and its record cannot be written within `lock_ttl`, or its body
    ///   is no JSON, the caller gets an error with
    ///   [`may_have_applied`](crate::Error::may_have_applied), and a later call, or a duplicate
    ///   that waits, runs it again after `lock_ttl`.
    ///
    /// Laws: `helpers::idempotent_execute_runs_once`, `helpers::idempotent_execute_replays`,
    /// `helpers::idempotent_execute_reports_progress`,
    /// `helpers::idempotent_execute_refuses_another_request`,
    /// `helpers::idempotent_execute_frees_failures`,
    /// `helpers::idempotent_execute_keeps_corrupt_records`,
    /// `faults::idempotent_execute_runs_once`.
    ///
    /// # A client that goes away
    ///
    /// A web framework drops a handler when its client disconnects, and dropping this call stops
    /// the work. To let it finish and keep its outcome for the client's next try, spawn the whole
    /// call:
    ///
    /// ```
    /// use derp_kv_core::{Error, Idempotency, KvStoreExt, Outcome};
    /// # use derp_kv_core::KvStore;
    /// # async fn create_order() -> Result<u64, Error> { Ok(1) }
    ///
    /// async fn handler<S: KvStore + Clone>(kv: S, key: String) -> Result<Outcome<u64>, Error> {
    ///     let call = async move {
    ///         kv.idempotent_execute(key, Idempotency::default(), create_order).await
    ///     };
    ///     tokio::spawn(call).await.expect("the call does not panic")
    /// }
    /// # #[tokio::main] async fn main() -> Result<(), Error> {
    /// # handler(derp_kv_memory::MemoryStore::new(), "k".into()).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// `compute`'s own, those of the store, and
    ///
    /// * [`InProgress`](crate::ErrorKind::InProgress) with `retry_after` (HTTP 409),
    /// * [`KeyReused`](crate::ErrorKind::KeyReused) (HTTP 422),
    /// * [`Corrupt`](crate::ErrorKind::Corrupt) for a record that cannot be decoded, which stays,
    /// * [`InvalidArgument`](crate::ErrorKind::InvalidArgument) for a bad key or option, before
    ///   any work, and for a body that is not JSON, after it.
    ///
    /// # Cancel safety
    ///
    /// Dropped during `compute`, it stops the work and frees the key. Dropped later, it still
    /// writes the record.
    ///
    /// # Examples
    ///
    /// ```
    /// use derp_kv_core::{Idempotency, KvStoreExt};
    /// # async fn create_order() -> anyhow::Result<u64> { Ok(1001) }
    /// # #[tokio::main] async fn main() -> anyhow::Result<()> {
    /// # let kv = derp_kv_memory::MemoryStore::new();
    /// let options = Idempotency::default().status_code(201).fingerprint(r#"{"item":42}"#);
    /// let first = kv.idempotent_execute("a-key", options.clone(), create_order).await?;
    /// let again = kv.idempotent_execute("a-key", options, create_order).await?;
    /// assert_eq!((first.body, first.status_code, first.is_replay), (1001, 201, false));
    /// assert_eq!((again.body, again.status_code, again.is_replay), (1001, 201, true));
    /// # Ok(()) }
    /// ```
    fn idempotent_execute<K, T, F, Fut, E>(
        &self,
        key: K,
        options: Idempotency,
        compute: F,
    ) -> impl Future<Output = Result<Outcome<T>, E>> + Send
    where
        K: AsRef<[u8]> + Send + Sync,
        T: Serialize + DeserializeOwned + Send,
        F: FnOnce() -> Fut + Send,
        Fut: Future<Output = Result<T, E>> + Send,
        E: From<Error> + Send,
    {
        idempotency::idempotent_execute(self, key, options, compute)
    }

    /// Counts a call and tells whether it is within the limit: a fixed window that begins with
    /// the first call, at `{prefix}:{id}`.
    ///
    /// # What is guaranteed, and what not
    ///
    /// * One command. Of N simultaneous calls exactly `limit` are allowed, over any number of
    ///   processes.
    /// * Denied calls are counted too; the window does not grow by them.
    /// * A counter that was found without an expiry is given one.
    /// * A call that fails may have been counted. Whether to let it through then is yours to say.
    /// * Around the edge of a window up to twice the limit may pass.
    ///
    /// Laws: `helpers::rate_limit_is_exact`, `helpers::rate_limit_window_ends`,
    /// `helpers::rate_limit_repairs_immortal_counters`, `helpers::rate_limit_counts_costs`,
    /// `faults::rate_limit_counts_what_was_applied`.
    ///
    /// # Errors
    ///
    /// Those of the store, where the call may have been counted, and
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) for a bad id, a window out of range,
    /// and a cost of 0 or above the limit.
    ///
    /// # Cancel safety
    ///
    /// A dropped call is counted or not.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::time::Duration;
    /// use derp_kv_core::{KvStoreExt, RateLimit};
    /// # #[tokio::main] async fn main() -> derp_kv_core::Result<()> {
    /// # let kv = derp_kv_memory::MemoryStore::new();
    /// let limit = RateLimit::new(1, Duration::from_secs(60));
    /// assert!(kv.rate_limit("checkout:ada", limit.clone()).await?.allowed);
    /// let denied = kv.rate_limit("checkout:ada", limit).await?;
    /// assert!(!denied.allowed && denied.retry_after_secs() <= Some(60));
    /// # Ok(()) }
    /// ```
    fn rate_limit<K>(
        &self,
        id: K,
        limit: RateLimit,
    ) -> impl Future<Output = Result<RateLimitStatus>> + Send
    where
        K: AsRef<[u8]> + Send + Sync,
    {
        fixed_window::rate_limit(self, id, limit)
    }

    /// Tells how a call would fare, and counts nothing.
    ///
    /// # Errors
    ///
    /// As [`rate_limit`](Self::rate_limit), and
    /// [`NotAnInteger`](crate::ErrorKind::NotAnInteger) where the key holds something else.
    ///
    /// # Cancel safety
    ///
    /// Nothing is written; drop it at any time.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::time::Duration;
    /// use derp_kv_core::{KvStoreExt, RateLimit};
    /// # #[tokio::main] async fn main() -> derp_kv_core::Result<()> {
    /// # let kv = derp_kv_memory::MemoryStore::new();
    /// let limit = RateLimit::new(5, Duration::from_secs(60));
    /// assert_eq!(kv.rate_limit_peek("checkout:ada", limit).await?.remaining, 5);
    /// # Ok(()) }
    /// ```
    fn rate_limit_peek<K>(
        &self,
        id: K,
        limit: RateLimit,
    ) -> impl Future<Output = Result<RateLimitStatus>> + Send
    where
        K: AsRef<[u8]> + Send + Sync,
    {
        fixed_window::rate_limit_peek(self, id, limit)
    }

    /// Forgets what was counted for `id`, and tells whether anything was.
    ///
    /// Laws: `helpers::rate_limit_reset_forgets`.
    ///
    /// # Errors
    ///
    /// As [`rate_limit`](Self::rate_limit).
    ///
    /// # Cancel safety
    ///
    /// The counter is deleted or not; what it answered is lost.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::time::Duration;
    /// use derp_kv_core::{KvStoreExt, RateLimit};
    /// # #[tokio::main] async fn main() -> derp_kv_core::Result<()> {
    /// # let kv = derp_kv_memory::MemoryStore::new();
    /// let limit = RateLimit::new(1, Duration::from_secs(60));
    /// kv.rate_limit("checkout:ada", limit.clone()).await?;
    /// assert!(kv.rate_limit_reset("checkout:ada", limit.clone()).await?);
    /// assert!(kv.rate_limit("checkout:ada", limit).await?.allowed);
    /// # Ok(()) }
    /// ```
    fn rate_limit_reset<K>(
        &self,
        id: K,
        limit: RateLimit,
    ) -> impl Future<Output = Result<bool>> + Send
    where
        K: AsRef<[u8]> + Send + Sync,
    {
        fixed_window::rate_limit_reset(self, id, limit)
    }

    /// Marks an event as processed, at `{prefix}:{event_id}`, and tells whether it was before:
    /// `false` once, `true` after.
    ///
    /// This is *at most once*: the event is marked before it is handled, and a handler that then
    /// fails has lost it. Where that matters use [`process_once`](Self::process_once).
    ///
    /// Laws: `helpers::already_processed_is_false_once`, `faults::already_processed_is_false_once`.
    ///
    /// # Errors
    ///
    /// Those of the store, where the event may have been marked;
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) for a bad id or option.
    ///
    /// # Cancel safety
    ///
    /// The event is marked or not; what it answered is lost.
    ///
    /// # Examples
    ///
    /// ```
    /// use derp_kv_core::{Dedup, KvStoreExt};
    /// # #[tokio::main] async fn main() -> derp_kv_core::Result<()> {
    /// # let kv = derp_kv_memory::MemoryStore::new();
    /// assert!(!kv.already_processed("evt_1", Dedup::default()).await?);
    /// assert!(kv.already_processed("evt_1", Dedup::default()).await?);
    /// # Ok(()) }
    /// ```
    fn already_processed<K>(
        &self,
        event_id: K,
        options: Dedup,
    ) -> impl Future<Output = Result<bool>> + Send
    where
        K: AsRef<[u8]> + Send + Sync,
    {
        dedup::already_processed(self, event_id, options)
    }

    /// Runs `handler` for an event unless it was processed before: claim, run, mark.
    ///
    /// # What is guaranteed, and what not
    ///
    /// * While a handler runs nobody else's does. A handler that fails, panics or is dropped
    ///   leaves the event to be delivered again at once; one that dies, after `lock_ttl`.
    /// * After it returned `Ok`, no handler runs for this event while the record lives.
    /// * This is *at least once*: a process that dies between the handler's effect and the mark
    ///   leaves an event that is handled again. Make the effect itself idempotent, or write the
    ///   event's id in the same transaction.
    ///
    /// Laws: `helpers::process_once_runs_once`, `helpers::process_once_forgets_failures`,
    /// `faults::process_once_runs_once`.
    ///
    /// # Errors
    ///
    /// `handler`'s own, those of the store, and [`InProgress`](crate::ErrorKind::InProgress) with
    /// `retry_after` where another caller handles the event now: answer the sender with an error
    /// so that it delivers again. An error with
    /// [`may_have_applied`](crate::Error::may_have_applied) may mean that the handler ran and the
    /// event could not be marked.
    ///
    /// # Cancel safety
    ///
    /// Dropped while the handler runs, it frees the claim. Dropped later, it still marks the
    /// event.
    ///
    /// # Examples
    ///
    /// ```
    /// use derp_kv_core::{Dedup, KvStoreExt, Processed};
    /// # async fn ship() -> anyhow::Result<()> { Ok(()) }
    /// # #[tokio::main] async fn main() -> anyhow::Result<()> {
    /// # let kv = derp_kv_memory::MemoryStore::new();
    /// assert_eq!(kv.process_once("evt_1", Dedup::default(), ship).await?, Processed::Now(()));
    /// assert_eq!(kv.process_once("evt_1", Dedup::default(), ship).await?, Processed::Before);
    /// # Ok(()) }
    /// ```
    fn process_once<K, T, F, Fut, E>(
        &self,
        event_id: K,
        options: Dedup,
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

    /// Takes the lease of `key` unless somebody holds it; see [`Lease`].
    ///
    /// Laws: `helpers::leases_exclude`, `helpers::leases_are_renewed`,
    /// `helpers::leases_are_freed_by_their_owner`, `faults::leases_stay_exclusive`.
    ///
    /// # Errors
    ///
    /// Those of the store. Where the answer was lost, the token is read back; where it came late,
    /// the lease is renewed first. An error with
    /// [`may_have_applied`](crate::Error::may_have_applied) means that this did not tell either,
    /// and the lease, if it was taken, is freed in the background or expires.
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) for a key that ends in `:lock` and
    /// a TTL out of range.
    ///
    /// # Cancel safety
    ///
    /// A lease that a dropped call took is freed in the background.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::time::Duration;
    /// use derp_kv_core::KvStoreExt;
    /// # #[tokio::main] async fn main() -> derp_kv_core::Result<()> {
    /// # let kv = derp_kv_memory::MemoryStore::new();
    /// let lease = kv.try_lock("job", Duration::from_secs(5)).await?.expect("nobody has it");
    /// assert!(kv.try_lock("job", Duration::from_secs(5)).await?.is_none());
    /// lease.release().await?;
    /// # Ok(()) }
    /// ```
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

    /// Takes the lease of `key`, and waits for it no longer than `at_most`.
    ///
    /// Waiters are not served in order.
    ///
    /// # Errors
    ///
    /// As [`try_lock`](Self::try_lock), and [`Timeout`](crate::ErrorKind::Timeout) after
    /// `at_most`.
    ///
    /// # Cancel safety
    ///
    /// As [`try_lock`](Self::try_lock).
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::time::Duration;
    /// use derp_kv_core::{ErrorKind, KvStoreExt};
    /// # #[tokio::main] async fn main() -> derp_kv_core::Result<()> {
    /// # let kv = derp_kv_memory::MemoryStore::new();
    /// let (ttl, at_most) = (Duration::from_secs(5), Duration::from_millis(10));
    /// let lease = kv.lock("job", ttl, at_most).await?;
    /// let error = kv.lock("job", ttl, at_most).await.unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::Timeout);
    /// # drop(lease);
    /// # Ok(()) }
    /// ```
    fn lock<K>(
        &self,
        key: K,
        ttl: Duration,
        at_most: Duration,
    ) -> impl Future<Output = Result<Lease>> + Send
    where
        K: AsRef<[u8]> + Send + Sync,
    {
        lock::lock(self, key, ttl, at_most)
    }
}

impl<S: KvStore + Clone> KvStoreExt for S {}
