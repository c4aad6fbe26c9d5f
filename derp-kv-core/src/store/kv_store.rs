use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_core::stream::BoxStream;
use tokio::runtime::Handle;

use crate::error::{Error, ErrorKind, Result};
use crate::observe::observer::Observer;
use crate::operation::Operation;
use crate::singleflight::flights::Flights;
use crate::store::counter::Counter;
use crate::store::expiry::Expiry;
use crate::store::step::Step;
use crate::store::step::change::Change;
use crate::store::step::future::StepFuture;
use crate::store::step::standing::Stepped;

/// One asynchronous key-value store: what every backend provides and every helper builds on.
///
/// Each operation touches its key atomically, so any store that has a conditional write on one
/// key can implement the trait. Nothing here has a default that emulates an atomic operation with
/// two calls; the only provided methods are accelerations whose defaults are correct.
///
/// # Laws
///
/// A backend is correct when it keeps the laws named in the method documentation
/// (`area::law`). `derp-kv-conformance` holds one test of the same name for each. These hold for
/// every operation:
///
/// * `basics::any_bytes`: keys and values are arbitrary bytes: empty, NUL, not UTF-8, glob
///   characters, a mebibyte. The empty key is a key.
/// * `basics::keys_are_told_apart`: keys that differ in any byte are different keys: nothing is
///   trimmed, folded, decoded or cut, and no key is the store's own.
/// * `basics::long_keys`: a key may be a mebibyte long. A backend may document a lower limit, of
///   1,280 bytes or more: the helpers need as much.
/// * `basics::too_long_keys_are_refused`: a key above a backend's limit is
///   [`InvalidArgument`](crate::ErrorKind::InvalidArgument) to `set`, `mset`, `set_nx` and `incr`,
///   and nothing is written, nor of the batch that it is in. To the other operations it is
///   `InvalidArgument` or absent.
/// * `basics::missing_is_not_an_error`: a missing key is `None`, `false` or 0, never an error.
/// * `expiry::expired_is_absent`: an expired key is absent to every operation, at once.
/// * `expiry::any_history_keeps_its_deadlines`: over any history of operations, a key lives
///   exactly as long as the last TTL that it was given says.
/// * `expiry::invalid_ttl_writes_nothing`: a TTL of zero or above
///   [`MAX_TTL`](crate::MAX_TTL) is [`InvalidArgument`](crate::ErrorKind::InvalidArgument), and
///   nothing is written.
/// * `expiry::millisecond_resolution`: a TTL has a resolution of one millisecond; a fraction of
///   one rounds up (`expiry::fractions_round_up`).
/// * `expiry::ends_on_time`: to every operation, the TTL of a key ends at one and the same moment,
///   be it between two milliseconds.
/// * `expiry::any_length`: a TTL of any length up to [`MAX_TTL`](crate::MAX_TTL) is reported, lasts
///   and ends as it was set.
/// * `expiry::equal_writes_renew`: a write starts its TTL anew, also where it changes nothing; a
///   read, a refused write and an increment leave it.
/// * `expiry::last_write_decides`: whatever a key was before, written, deleted or expired, it has
///   the expiry of its last write, and nothing of an older one.
/// * `expiry::expired_gives_way`: a call that meets an expired key, and a sweep that removes it,
///   takes nothing from a write that makes it anew at the same time.
/// * `expiry::handles_agree`: what one handle has done, every other handle on the same data sees at
///   once; so it does the end of a TTL.
/// * `concurrency::linearizable`: operations on one key are linearizable.
/// * `concurrency::any_two_calls_have_an_order`: so are they with their expiry, on keys that have
///   expired, and where one is part of a batch.
/// * `concurrency::expired_keys_race_as_absent`: an expired key is absent to racing calls too, and
///   whatever removes its record takes no value away that was written since.
/// * `concurrency::values_are_never_torn`: a read beside writes of large values sees one of them
///   whole, with its expiry.
/// * `concurrency::cancel_is_all_or_nothing`: a dropped future leaves a single-key operation
///   wholly applied or not applied, and never harms a later call.
/// * `concurrency::dropped_calls_hold_nothing`: after any number of dropped futures the store
///   serves as before: none keeps a connection, a permit or a lock.
/// * `concurrency::lets_others_run`: a loop of operations lets the other tasks of its thread run: an
///   operation that never waits takes part in tokio's cooperative budget.
/// * `errors::never_show_values`: no error shows a value or a part of one, nor does its source.
///   Keys may show.
/// * `errors::debug_shows_no_values`: what [`Debug`](std::fmt::Debug) prints of a store shows none
///   either.
/// * `errors::refusals_are_certain`: a call refused for its argument, or for what the key holds,
///   is neither [`may_have_applied`](crate::Error::may_have_applied) nor
///   [`is_transient`](crate::Error::is_transient).
///
/// # Errors
///
/// Every method may fail with [`Unavailable`](crate::ErrorKind::Unavailable),
/// [`Timeout`](crate::ErrorKind::Timeout), [`AccessDenied`](crate::ErrorKind::AccessDenied) and
/// [`Backend`](crate::ErrorKind::Backend); a write also with
/// [`ReadOnly`](crate::ErrorKind::ReadOnly) and [`Full`](crate::ErrorKind::Full). A write whose
/// outcome is unknown says so with [`may_have_applied`](crate::Error::may_have_applied). The
/// methods list what comes on top.
///
/// A backend with connections keeps these laws where one breaks under a call:
///
/// * `connection::tells_what_was_applied`: the write fails with a transient error that says truly
///   whether it may have been applied.
/// * `connection::applies_once`: it is applied once at most, and answers for that one time. A write
///   that is sent again without thought counts twice, or finds its own work and says `false`.
/// * `connection::reads_are_right_or_fail`: a read answers right or fails; it takes no broken
///   connection for a missing key or for the end of a scan.
/// * `connection::heals`: the next calls find a new connection, and each gets its own answer.
///
/// # Implementing it
///
/// Turn each `ttl` into a [`Ttl`](crate::Ttl) before anything else, read counters with
/// [`Counter::parse`], and run the conformance suite. Wrap a foreign failure in
/// [`Error::with_source`](crate::Error::with_source).
///
/// * Compute a deadline from a clock finer than a millisecond: one that is cut to whole
///   milliseconds first ends a TTL of one early. A deadline that outlives the process needs the
///   wall clock; guard it against being set back.
/// * Work handed to another thread goes on when its caller is dropped. It must then not be
///   applied behind a later call: look whether the caller is still there where the write can no
///   longer be overtaken, or do not await at all.
/// * Removing or replacing an expired record is a change of yours, but no key that was there.
/// * A store that returns [`flights`](Self::flights) keeps them beside its data, so that all
///   clones share them.
#[async_trait]
pub trait KvStore: fmt::Debug + Send + Sync + 'static {
    /// Reads the value of `key`.
    ///
    /// * `basics::reads_your_writes`: it is the value last written, byte for byte.
    ///
    /// # Cancel safety
    ///
    /// Nothing is written; drop it at any time.
    ///
    /// # Examples
    ///
    /// ```
    /// # use derp_kv_core::{KvStore, Result};
    /// # async fn example(kv: impl KvStore) -> Result<()> {
    /// kv.set(b"greeting", b"hello", None).await?;
    /// assert_eq!(kv.get(b"greeting").await?.as_deref(), Some(&b"hello"[..]));
    /// assert_eq!(kv.get(b"nobody").await?, None);
    /// # Ok(()) }
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
    /// #     .block_on(example(derp_kv_memory::MemoryStore::new())).unwrap();
    /// ```
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>>;

    /// Reads the value of `key` together with its expiry, in one round trip.
    ///
    /// * `expiry::value_and_expiry_agree`: both belong to the same write.
    ///
    /// # Cancel safety
    ///
    /// Nothing is written; drop it at any time.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use derp_kv_core::{Expiry, KvStore, Result};
    /// # async fn example(kv: impl KvStore) -> Result<()> {
    /// kv.set(b"k", b"v", None).await?;
    /// let (value, expiry) = kv.get_with_ttl(b"k").await?.expect("just set");
    /// assert_eq!((&value[..], expiry), (&b"v"[..], Expiry::Never));
    /// # Ok(()) }
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
    /// #     .block_on(example(derp_kv_memory::MemoryStore::new())).unwrap();
    /// ```
    async fn get_with_ttl(&self, key: &[u8]) -> Result<Option<(Bytes, Expiry)>>;

    /// Tells whether `key` is present.
    ///
    /// * `basics::exists_agrees_with_get`: it is true exactly where `get` finds a value.
    ///
    /// # Cancel safety
    ///
    /// Nothing is written; drop it at any time.
    ///
    /// # Examples
    ///
    /// ```
    /// # use derp_kv_core::{KvStore, Result};
    /// # async fn example(kv: impl KvStore) -> Result<()> {
    /// kv.set(b"empty", b"", None).await?;
    /// assert!(kv.exists(b"empty").await?);
    /// # Ok(()) }
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
    /// #     .block_on(example(derp_kv_memory::MemoryStore::new())).unwrap();
    /// ```
    async fn exists(&self, key: &[u8]) -> Result<bool>;

    /// Reads when `key` expires; `None` where there is no such key.
    ///
    /// * `expiry::ttl_within_bounds`: what is left is never zero and never above what was set.
    ///
    /// # Cancel safety
    ///
    /// Nothing is written; drop it at any time.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use derp_kv_core::{Expiry, KvStore, Result};
    /// # async fn example(kv: impl KvStore) -> Result<()> {
    /// kv.set(b"k", b"v", Some(Duration::from_secs(60))).await?;
    /// let Some(Expiry::In(left)) = kv.ttl(b"k").await? else { panic!("it has a TTL") };
    /// assert!(left <= Duration::from_secs(60));
    /// assert_eq!(kv.ttl(b"nobody").await?, None);
    /// # Ok(()) }
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
    /// #     .block_on(example(derp_kv_memory::MemoryStore::new())).unwrap();
    /// ```
    async fn ttl(&self, key: &[u8]) -> Result<Option<Expiry>>;

    /// Reads many keys: one answer for each, in their order.
    ///
    /// * `batch::mget_keeps_order_and_repeats`: a key asked for twice is answered twice.
    /// * `batch::empty_does_nothing`: no keys, no I/O.
    ///
    /// The batch is not one snapshot: another caller's write may show in one key and not yet in
    /// the next.
    ///
    /// # Cancel safety
    ///
    /// Nothing is written; drop it at any time.
    ///
    /// # Examples
    ///
    /// ```
    /// # use derp_kv_core::{KvStore, Result};
    /// # async fn example(kv: impl KvStore) -> Result<()> {
    /// kv.set(b"a", b"1", None).await?;
    /// let values = kv.mget(&[b"a", b"b", b"a"]).await?;
    /// assert_eq!(values, [Some("1".into()), None, Some("1".into())]);
    /// # Ok(()) }
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
    /// #     .block_on(example(derp_kv_memory::MemoryStore::new())).unwrap();
    /// ```
    async fn mget(&self, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>>;

    /// Streams every key that begins with `prefix`, taken literally; the empty prefix means all.
    ///
    /// * `scan::prefix_is_literal`: no byte of the prefix is a wildcard.
    /// * `scan::sees_every_stable_key`: a key that exists during the whole scan is yielded at
    ///   least once.
    /// * `scan::covers_every_page`: so it is over any number of pages, also where a page holds
    ///   expired keys only, and where keys are rewritten, or deleted once they are yielded.
    /// * `scan::never_invents`: a key that never existed is never yielded, nor one without the
    ///   prefix.
    /// * `scan::ends_when_dropped`: a dropped stream stops, and harms nothing.
    ///
    /// The stream owns what it needs, so that it can be returned from a handler.
    ///
    /// A key may be yielded more than once while the store resizes or reshards. A scan is not a
    /// snapshot: of the keys written or deleted meanwhile it may show any. It asks for more only
    /// when the consumer does.
    ///
    /// # Errors
    ///
    /// An item of the stream is an error where a part of the keyspace could not be read. A scan
    /// that ends without one has covered everything.
    ///
    /// # Examples
    ///
    /// ```
    /// # use derp_kv_core::{KvStore, Result};
    /// use futures_util::TryStreamExt;
    /// # async fn example(kv: impl KvStore) -> Result<()> {
    /// kv.set(b"user:1", b"", None).await?;
    /// kv.set(b"user*", b"", None).await?;
    /// let keys: Vec<_> = kv.scan(b"user*").try_collect().await?;
    /// assert_eq!(keys, ["user*"]);
    /// # Ok(()) }
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
    /// #     .block_on(example(derp_kv_memory::MemoryStore::new())).unwrap();
    /// ```
    fn scan(&self, prefix: &[u8]) -> BoxStream<'static, Result<Bytes>>;

    /// Writes `value` under `key`, whatever was there before.
    ///
    /// It is a plain write: a [`guarded_get`](crate::KvStoreExt::guarded_get) that is computing the
    /// same key stores its older value over it. [`refresh`](crate::KvStoreExt::refresh) wins.
    ///
    /// * `basics::set_replaces`: value and expiry of an earlier write are gone.
    /// * `expiry::none_clears`: a `ttl` of `None` means no expiry, also where there was one.
    /// * `concurrency::value_and_expiry_stay_together`: of two racing writes, value and expiry
    ///   come from the same one.
    ///
    /// # Errors
    ///
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) for a bad `ttl`, before any write.
    ///
    /// # Cancel safety
    ///
    /// The write is applied wholly or not at all.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use derp_kv_core::{ErrorKind, Expiry, KvStore, Result};
    /// # async fn example(kv: impl KvStore) -> Result<()> {
    /// kv.set(b"k", b"v", Some(Duration::from_secs(60))).await?;
    /// kv.set(b"k", b"w", None).await?;
    /// assert_eq!(kv.ttl(b"k").await?, Some(Expiry::Never));
    ///
    /// let error = kv.set(b"k", b"x", Some(Duration::ZERO)).await.unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    /// assert_eq!(kv.get(b"k").await?.as_deref(), Some(&b"w"[..]));
    /// # Ok(()) }
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
    /// #     .block_on(example(derp_kv_memory::MemoryStore::new())).unwrap();
    /// ```
    async fn set(&self, key: &[u8], value: &[u8], ttl: Option<Duration>) -> Result<()>;

    /// Writes many keys with one `ttl`.
    ///
    /// * `batch::mset_last_wins`: of two equal keys the later one stays.
    /// * `batch::mset_sets_ttl_with_value`: each key gets its expiry in the same atomic step as
    ///   its value; a crash never leaves one without.
    /// * `batch::any_size`: tens of thousands of keys, or hundreds of large values, are written as a
    ///   few small ones are.
    /// * `batch::racing_batches_all_succeed`: batches that race over the same keys, in whatever
    ///   order each names them, all succeed: none is the victim of a deadlock.
    /// * `batch::empty_does_nothing`: no items, no I/O; a bad `ttl` is refused all the same.
    ///
    /// # Errors
    ///
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) for a bad `ttl`, before any write.
    /// The batch is not atomic across keys: a failure in its middle says
    /// [`may_have_applied`](crate::Error::may_have_applied).
    ///
    /// # Cancel safety
    ///
    /// Each key is written wholly or not at all; some may be and others not.
    ///
    /// # Examples
    ///
    /// ```
    /// # use derp_kv_core::{KvStore, Result};
    /// # async fn example(kv: impl KvStore) -> Result<()> {
    /// kv.mset(&[(b"a", b"1"), (b"b", b"2"), (b"a", b"3")], None).await?;
    /// assert_eq!(kv.get(b"a").await?.as_deref(), Some(&b"3"[..]));
    /// # Ok(()) }
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
    /// #     .block_on(example(derp_kv_memory::MemoryStore::new())).unwrap();
    /// ```
    async fn mset(&self, items: &[(&[u8], &[u8])], ttl: Option<Duration>) -> Result<()>;

    /// Deletes `key` and tells whether it was there.
    ///
    /// It is a plain write: a [`guarded_get`](crate::KvStoreExt::guarded_get) that is computing the
    /// same key brings its older value back. [`invalidate`](crate::KvStoreExt::invalidate) wins.
    ///
    /// * `basics::delete_reports_presence`: true exactly where a live key went away.
    /// * `concurrency::one_delete_wins`: of racing deletions exactly one reports the key.
    ///
    /// # Cancel safety
    ///
    /// The key is deleted or not; what it answered is lost.
    ///
    /// # Examples
    ///
    /// ```
    /// # use derp_kv_core::{KvStore, Result};
    /// # async fn example(kv: impl KvStore) -> Result<()> {
    /// kv.set(b"k", b"v", None).await?;
    /// assert!(kv.delete(b"k").await?);
    /// assert!(!kv.delete(b"k").await?);
    /// # Ok(()) }
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
    /// #     .block_on(example(derp_kv_memory::MemoryStore::new())).unwrap();
    /// ```
    async fn delete(&self, key: &[u8]) -> Result<bool>;

    /// Deletes many keys and counts those that were there.
    ///
    /// * `batch::delete_many_counts_distinct`: a key named twice counts once.
    /// * `batch::any_size`, `batch::racing_batches_all_succeed`: as [`mset`](Self::mset).
    /// * `batch::empty_does_nothing`: no keys, no I/O.
    ///
    /// # Errors
    ///
    /// The batch is not atomic across keys: a failure in its middle says
    /// [`may_have_applied`](crate::Error::may_have_applied).
    ///
    /// # Cancel safety
    ///
    /// Some keys may be deleted and others not.
    ///
    /// # Examples
    ///
    /// ```
    /// # use derp_kv_core::{KvStore, Result};
    /// # async fn example(kv: impl KvStore) -> Result<()> {
    /// kv.set(b"a", b"1", None).await?;
    /// assert_eq!(kv.delete_many(&[b"a", b"a", b"b"]).await?, 1);
    /// # Ok(()) }
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
    /// #     .block_on(example(derp_kv_memory::MemoryStore::new())).unwrap();
    /// ```
    async fn delete_many(&self, keys: &[&[u8]]) -> Result<u64>;

    /// Gives a present `key` a new expiry and tells whether it was there.
    ///
    /// * `expiry::expire_replaces`: the new TTL counts from now, whatever the old one was.
    /// * `expiry::expire_creates_nothing`: `false` on a missing key, which stays missing.
    ///
    /// # Errors
    ///
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) for a bad `ttl`: zero is not a
    /// way to delete.
    ///
    /// # Cancel safety
    ///
    /// The expiry is replaced or not; what it answered is lost.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use derp_kv_core::{KvStore, Result};
    /// # async fn example(kv: impl KvStore) -> Result<()> {
    /// kv.set(b"k", b"v", None).await?;
    /// assert!(kv.expire(b"k", Duration::from_secs(60)).await?);
    /// assert!(!kv.expire(b"nobody", Duration::from_secs(60)).await?);
    /// # Ok(()) }
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
    /// #     .block_on(example(derp_kv_memory::MemoryStore::new())).unwrap();
    /// ```
    async fn expire(&self, key: &[u8], ttl: Duration) -> Result<bool>;

    /// Writes `key` only where it is absent, and tells whether it did.
    ///
    /// * `conditional::set_nx_only_when_absent`: a present key keeps its value and its expiry.
    /// * `concurrency::one_set_nx_wins`: of any number of racing callers exactly one gets `true`,
    ///   and none takes the place of a racing `set`.
    ///
    /// # Errors
    ///
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) for a bad `ttl`, before any write.
    ///
    /// # Cancel safety
    ///
    /// The key is written or not; what it answered is lost. With a value that nobody else writes,
    /// reading it back tells.
    ///
    /// # Examples
    ///
    /// ```
    /// # use derp_kv_core::{KvStore, Result};
    /// # async fn example(kv: impl KvStore) -> Result<()> {
    /// assert!(kv.set_nx(b"k", b"first", None).await?);
    /// assert!(!kv.set_nx(b"k", b"second", None).await?);
    /// assert_eq!(kv.get(b"k").await?.as_deref(), Some(&b"first"[..]));
    /// # Ok(()) }
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
    /// #     .block_on(example(derp_kv_memory::MemoryStore::new())).unwrap();
    /// ```
    async fn set_nx(&self, key: &[u8], value: &[u8], ttl: Option<Duration>) -> Result<bool>;

    /// Adds `by` to the decimal `i64` under `key` and returns the sum with its expiry.
    ///
    /// * `counter::creates_at_by`: an absent key is created at `by` with `ttl`.
    /// * `counter::keeps_expiry`: an existing key keeps its expiry, whatever `ttl` says.
    /// * `counter::get_shows_decimal`: `get` shows what `i64::to_string` prints.
    /// * `counter::reports_expiry`: the expiry belongs to the returned value.
    /// * `concurrency::increments_all_count`: no racing increment is lost or counted twice.
    ///
    /// # Errors
    ///
    /// * [`NotAnInteger`](crate::ErrorKind::NotAnInteger) where the value is something else
    ///   ([`Counter::parse`]) or the sum leaves `i64`; the value stays as it is
    ///   (`counter::failure_changes_nothing`).
    /// * [`InvalidArgument`](crate::ErrorKind::InvalidArgument) for a bad `ttl`, before any write.
    ///
    /// # Cancel safety
    ///
    /// The increment is applied once or not at all; which of them is unknown.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use derp_kv_core::{ErrorKind, Expiry, KvStore, Result};
    /// # async fn example(kv: impl KvStore) -> Result<()> {
    /// assert_eq!(kv.incr(b"hits", 2, None).await?.value, 2);
    /// let counter = kv.incr(b"hits", 3, Some(Duration::from_secs(60))).await?;
    /// assert_eq!((counter.value, counter.expiry), (5, Expiry::Never));
    ///
    /// kv.set(b"name", b"Ada", None).await?;
    /// let error = kv.incr(b"name", 1, None).await.unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::NotAnInteger);
    /// # Ok(()) }
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
    /// #     .block_on(example(derp_kv_memory::MemoryStore::new())).unwrap();
    /// ```
    async fn incr(&self, key: &[u8], by: i64, ttl: Option<Duration>) -> Result<Counter>;

    /// Replaces the value of `key` only where it equals `expected`, and tells whether it did.
    ///
    /// * `conditional::compares_every_byte`: a prefix, another case or another length is no match.
    /// * `conditional::absent_never_matches`: not even the empty `expected`.
    /// * `conditional::swap_sets_expiry`: a swap sets the expiry as `set` does; a refusal keeps it.
    /// * `concurrency::compare_and_set_loses_no_update`: of racing callers that expect the same
    ///   value exactly one gets `true`.
    ///
    /// # Errors
    ///
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) for a bad `ttl`, before any write.
    ///
    /// # Cancel safety
    ///
    /// The value is replaced or not; what it answered is lost.
    ///
    /// # Examples
    ///
    /// ```
    /// # use derp_kv_core::{KvStore, Result};
    /// # async fn example(kv: impl KvStore) -> Result<()> {
    /// kv.set(b"k", b"old", None).await?;
    /// assert!(kv.compare_and_set(b"k", b"old", b"new", None).await?);
    /// assert!(!kv.compare_and_set(b"k", b"old", b"newer", None).await?);
    /// # Ok(()) }
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
    /// #     .block_on(example(derp_kv_memory::MemoryStore::new())).unwrap();
    /// ```
    async fn compare_and_set(
        &self,
        key: &[u8],
        expected: &[u8],
        value: &[u8],
        ttl: Option<Duration>,
    ) -> Result<bool>;

    /// Deletes `key` only where its value equals `expected`, and tells whether it did.
    ///
    /// * `conditional::compares_every_byte`, `conditional::absent_never_matches`: as
    ///   [`compare_and_set`](Self::compare_and_set).
    /// * `concurrency::one_compare_and_delete_wins`: of racing callers exactly one gets `true`.
    ///
    /// # Cancel safety
    ///
    /// The key is deleted or not; what it answered is lost.
    ///
    /// # Examples
    ///
    /// ```
    /// # use derp_kv_core::{KvStore, Result};
    /// # async fn example(kv: impl KvStore) -> Result<()> {
    /// kv.set(b"lock", b"mine", None).await?;
    /// assert!(!kv.compare_and_delete(b"lock", b"yours").await?);
    /// assert!(kv.compare_and_delete(b"lock", b"mine").await?);
    /// # Ok(()) }
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
    /// #     .block_on(example(derp_kv_memory::MemoryStore::new())).unwrap();
    /// ```
    async fn compare_and_delete(&self, key: &[u8], expected: &[u8]) -> Result<bool>;

    /// Returns once the value of `key` may differ from `seen` (`None`: absent), or after
    /// `at_most`.
    ///
    /// * `wait::returns_in_time`: it returns by `at_most`, and the key is unharmed.
    /// * `wait::takes_any_bound`: `at_most` may be anything from zero to [`Duration::MAX`].
    /// * `wait::loses_no_change`: where the value already differs, or comes to differ, it does
    ///   not sleep the whole of a long `at_most`, unless the backend only polls.
    /// * `wait::hears_each_kind_of_change`: so it is whichever operation, of whichever handle,
    ///   changes the value, and where the key expires; and so it is each time.
    /// * `wait::wakes_every_waiter`: a change wakes all who wait for it.
    ///
    /// It may return early for no reason, so look again after it. The default sleeps for
    /// `at_most`: correct, as long as callers pass their polling interval.
    ///
    /// # Cancel safety
    ///
    /// Nothing is written; drop it at any time.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use derp_kv_core::{KvStore, Result};
    /// # async fn example(kv: impl KvStore) -> Result<()> {
    /// // Another task is going to fill `k`.
    /// # kv.set(b"k", b"v", None).await?;
    /// let value = loop {
    ///     match kv.get(b"k").await? {
    ///         Some(value) => break value,
    ///         None => kv.wait_for_change(b"k", None, Duration::from_millis(50)).await,
    ///     }
    /// };
    /// # assert_eq!(&value[..], b"v");
    /// # Ok(()) }
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
    /// #     .block_on(example(derp_kv_memory::MemoryStore::new())).unwrap();
    /// ```
    async fn wait_for_change(&self, key: &[u8], seen: Option<&[u8]>, at_most: Duration) {
        let _ = (key, seen);
        tokio::time::sleep(at_most).await;
    }

    /// Makes one atomic read-modify-write of `key`, by a function that the core knows.
    ///
    /// * `step::is_atomic`: racing steps come to what [`Step::apply`] makes of them in some order.
    /// * `step::agrees_with_the_core`: over any history, with any waits, the store answers and keeps
    ///   what `apply` says.
    /// * `step::denial_writes_nothing`: where `apply` keeps the key, neither its value nor its expiry
    ///   is touched.
    ///
    /// The default is a loop of [`get_with_ttl`](Self::get_with_ttl) and
    /// [`compare_and_set`](Self::compare_and_set). It is correct, with two commands where nobody
    /// else is at the key, and one where nothing is written. The time between its two commands makes
    /// a limit stricter, never more lenient. A store that can run `apply` under a lock or in a
    /// transaction, or does the same in a script, does better with about six lines.
    ///
    /// # Errors
    ///
    /// * [`Corrupt`](crate::ErrorKind::Corrupt) where the key holds what no such step has written.
    ///   It stays as it is.
    /// * [`Unavailable`](crate::ErrorKind::Unavailable), transient, not applied and with a
    ///   [`retry_after`](crate::Error::retry_after), where the default met another writer ten times in
    ///   a row.
    ///
    /// # Cancel safety
    ///
    /// The step is made or not; what it answered is lost.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use derp_kv_core::{Ask, KvStore, RateLimit, Result};
    /// # async fn example(kv: impl KvStore) -> Result<()> {
    /// let limit = RateLimit::strict(1, Duration::from_secs(60));
    /// assert!(kv.step(b"mail:ada", &limit.step(Ask::Admit)?).await?.admitted());
    /// assert!(!kv.step(b"mail:ada", &limit.step(Ask::Admit)?).await?.admitted());
    /// # Ok(()) }
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
    /// #     .block_on(example(derp_kv_memory::MemoryStore::new())).unwrap();
    /// ```
    fn step<'a>(&'a self, key: &'a [u8], step: &'a Step) -> StepFuture<'a> {
        StepFuture::new(by_compare_and_set(self, key, step))
    }

    /// The flights that callers of this store share within the process, where it has them.
    ///
    /// A store that returns `Some` gets the in-process half of
    /// [`guarded_get`](crate::KvStoreExt::guarded_get): concurrent callers of one key share one
    /// computation (singleflight). All handles on one keyspace return the same flights, and handles
    /// on different keyspaces never do.
    ///
    /// * `herd::clones_share_flights`: while one clone computes, callers on all the others join it;
    ///   stores opened apart never do.
    fn flights(&self) -> Option<&Flights> {
        None
    }

    /// Where the store's background work runs, if it has a runtime of its own.
    ///
    /// Leases are renewed there, so that work that blocks its own threads does not lose its lease.
    /// By default there is none, and a lease is renewed on the runtime of the caller that took it.
    fn runtime(&self) -> Option<Handle> {
        None
    }

    /// Who hears what the helpers do on this store. By default nobody.
    fn observer(&self) -> Option<&dyn Observer> {
        None
    }
}

/// How often a step begins anew where another writer was faster.
const STEP_TRIES: usize = 10;

/// When to try a step again that others were always faster than.
const STEP_PAUSE: Duration = Duration::from_millis(10);

/// What [`KvStore::step`] does by default.
async fn by_compare_and_set<S>(store: &S, key: &[u8], step: &Step) -> Result<Stepped>
where
    S: KvStore + ?Sized,
{
    for _ in 0..STEP_TRIES {
        let seen = store.get_with_ttl(key).await?;
        let held = seen.as_ref().map(|(value, expiry)| (&value[..], *expiry));
        let (change, stepped) = step.apply(held)?;
        let done = match (held, change) {
            (_, Change::Keep) | (None, Change::Delete) => true,
            (None, Change::Set { value, ttl }) => store.set_nx(key, &value, Some(ttl)).await?,
            (Some((seen, _)), Change::Set { value, ttl }) => {
                store.compare_and_set(key, seen, &value, Some(ttl)).await?
            }
            (Some((seen, _)), Change::Delete) => store.compare_and_delete(key, seen).await?,
        };
        if done {
            return Ok(stepped);
        }
    }
    let busy = "the key was changed by others ten times in a row";
    // That it says when to try again tells it from a store that is away.
    Err(Error::new(ErrorKind::Unavailable, busy)
        .with_operation(Operation::Step)
        .with_retry_after(STEP_PAUSE))
}
