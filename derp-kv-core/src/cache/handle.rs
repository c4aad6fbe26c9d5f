use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::cache::background::Background;
use crate::cache::codec::{Codec, Json};
use crate::cache::invalidate::{invalidate, invalidated, refreshed};
use crate::cache::lookup::Lookup;
use crate::cache::options::{GuardedGet, Storing};
use crate::cache::tell::OPERATION;
use crate::cache::typed::Typed;
use crate::error::{Error, ErrorKind, Result};
use crate::observe::call::call;
use crate::observe::call_outcome::CallOutcome;
use crate::operation::Operation;
use crate::store::kv_store::KvStore;

/// How often a caller asks anew where what it finds cannot be decoded, before it gives up.
pub(crate) const ASKS: u32 = 3;

/// A cache of values of one type, under one prefix, whose computations run on without their callers.
///
/// It promises all that [`guarded_get`](crate::guarded_get) does, on the same records: the value of
/// `key` is the encoded value at `{prefix}{key}`. And as its closures are `'static`, they run as tasks:
///
/// * A caller's time-out does not end its computation, which others may wait for, and what was begun is
///   kept.
/// * With [`stale`](GuardedGet::stale) or [`early`](GuardedGet::early) **nobody waits for a refresh**: it
///   runs in the background while its caller, too, gets the value that is there. With
///   [`soft_timeout`](GuardedGet::soft_timeout) that one caller waits so long for the new value.
/// * The closure gets the value that it is to replace, where there is one: a stale one, or with `early`
///   one that is about to become stale. An origin that can tell "not changed" saves its work so.
/// * One that hangs must not hold its lock for ever. So a computation is looked at every ten `lock_ttl`
///   since it began; where the caller that began it has gone by then, it is dropped, and the newest caller
///   that still waits begins anew. Choose `lock_ttl` above the usual time, and give what may hang a deadline
///   of its own.
///
/// Make one cache and clone it: the handles share everything. When the last one is dropped, what runs in
/// the background ends; [`drain`](Self::drain) waits for it before. A computation that holds a handle
/// itself, to ask for another key, goes on. A cache that is made for each request
/// would end its refreshes with each; where each request has a store of its own, such as a tenant's
/// [`Prefixed`](crate::Prefixed), use [`on`](Self::on).
///
/// On a store without [`flights`](KvStore::flights) each caller of a stale value tries for the lock
/// itself, one command more.
///
/// # Absent values
///
/// "There is no such product" is an answer, and worth keeping. In a cache of `Option<T>` it is stored as
/// JSON `null`, for [`absent_ttl`](Self::absent_ttl) if that is set.
///
/// # Values that are no longer what they were
///
/// [`put`](Self::put) and [`invalidate`](Self::invalidate) win over computations that began before. For
/// whole groups of values, put a number into the prefix or key and count it up:
///
/// * *Versions*: after a change of the type, a prefix of `v2:product:` in the place of `product:`.
/// * *Tags*: to drop all that belongs to one shop at once, read `shop:7:generation` (`get`, 0 if it is
///   missing) and use the key `{generation}:{id}` in its cache; `incr` of the generation makes all old
///   values unreachable, and they end by themselves. It costs one read more, and no clock is asked.
///
/// Why there is no probabilistic early refresh (`XFetch`): it is a way of letting few of many callers
/// refresh where they cannot agree on one. Here a lease lets exactly one of them do it, so a ratio is
/// enough, and no computing time has to be stored with each value.
///
/// Laws: `cache::keeps_typed_values`, `cache::outlives_its_callers`, `cache::refreshes_in_background`,
/// `cache::computes_many_together`.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use derp_kv_core::{Cache, GuardedGet};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Clone, Serialize, Deserialize)]
/// struct Product { name: String }
///
/// # async fn fetch(_: u32) -> anyhow::Result<Option<Product>> { Ok(None) }
/// # #[tokio::main] async fn main() -> anyhow::Result<()> {
/// # let kv = derp_kv_memory::MemoryStore::new();
/// let options = GuardedGet::new(Duration::from_secs(300)).stale(Duration::from_secs(2 * 3600));
/// let products = Cache::<_, Option<Product>>::new(kv, "product:", options)
///     .absent_ttl(Duration::from_secs(30));
///
/// let kettle = products.get("42", |_stale| fetch(42)).await?;
/// assert!(kettle.is_none());
/// // After the database was changed:
/// products.put("42", &Some(Product { name: "kettle".into() })).await?;
/// # Ok(()) }
/// ```
pub struct Cache<S, T, C = Json> {
    pub(crate) store: S,
    prefix: Bytes,
    pub(crate) options: GuardedGet,
    pub(crate) typed: Typed<T, C>,
    pub(crate) background: Arc<Background>,
}

impl<S, T> Cache<S, T> {
    /// A cache of values that are stored as JSON, under `prefix`.
    ///
    /// Options that do not fit together are refused by each call, as an
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) that names them.
    #[must_use]
    pub fn new(store: S, prefix: impl Into<Bytes>, options: GuardedGet) -> Self {
        Self::with_codec(store, prefix, options, Json)
    }
}

impl<S, T, C> Cache<S, T, C> {
    /// A cache of values that are stored as `codec` encodes them, under `prefix`.
    ///
    /// ```
    /// # use std::time::Duration;
    /// use derp_kv_core::{Cache, GuardedGet, Raw};
    /// # let kv = derp_kv_memory::MemoryStore::new();
    /// let options = GuardedGet::new(Duration::from_secs(300));
    /// let pages = Cache::with_codec(kv, "page:", options, Raw);
    /// # async fn example(pages: Cache<derp_kv_memory::MemoryStore, bytes::Bytes, Raw>) -> anyhow::Result<()> {
    /// let page = pages.get("home", |_| async { anyhow::Ok(bytes::Bytes::from("<h1>Home</h1>")) }).await?;
    /// # Ok(()) }
    /// # example(pages);
    /// ```
    #[must_use]
    pub fn with_codec(store: S, prefix: impl Into<Bytes>, options: GuardedGet, codec: C) -> Self {
        Self {
            store,
            prefix: prefix.into(),
            options,
            typed: Typed::new(codec),
            background: Arc::new(Background::new()),
        }
    }

    pub(crate) fn full_key(&self, key: impl AsRef<[u8]>) -> Bytes {
        [&self.prefix[..], key.as_ref()].concat().into()
    }

    /// The same cache on another store, such as a tenant's: what runs in the background is shared.
    ///
    /// ```
    /// # use std::time::Duration;
    /// use derp_kv_core::{Cache, GuardedGet, Prefixed};
    /// # let kv = derp_kv_memory::MemoryStore::new();
    /// let options = GuardedGet::new(Duration::from_secs(300)).stale(Duration::from_secs(3600));
    /// let names = Cache::<_, String>::new(kv.clone(), "name:", options);
    /// // In a request of a tenant:
    /// let names = names.on(Prefixed::new(kv, "tenant:7:"));
    /// # let _ = names;
    /// ```
    #[must_use]
    pub fn on<S2>(&self, store: S2) -> Cache<S2, T, C> {
        Cache {
            store,
            prefix: self.prefix.clone(),
            options: self.options,
            typed: self.typed.clone(),
            background: self.background.clone(),
        }
    }
}

impl<S, T, C> Cache<S, Option<T>, C> {
    /// How long an absence, `None`, is fresh. By default as long as any value. Zero means that it is not
    /// kept, and that it removes a stale value. Absences are served stale like any value: whoever adds what
    /// was missing invalidates its key.
    #[must_use]
    pub fn absent_ttl(self, absent_ttl: Duration) -> Self {
        Self { typed: self.typed.with_absence(Option::is_none, absent_ttl), ..self }
    }
}

impl<S, T, C> Cache<S, T, C>
where
    S: KvStore + Clone,
    T: Send + 'static,
    C: Codec<T>,
{
    /// Waits until nothing runs in the background, no longer than `at_most`, and tells whether that came.
    /// For a graceful shutdown, when no more calls come: what the calls have begun is kept then.
    ///
    /// # Cancel safety
    ///
    /// Dropping it changes nothing.
    pub async fn drain(&self, at_most: Duration) -> bool {
        self.background.drain(at_most).await
    }

    /// Reads the value of `key`, fresh or stale, and computes nothing. One that cannot be decoded counts
    /// as missing.
    ///
    /// # Errors
    ///
    /// Those of reading the store; [`InvalidArgument`](ErrorKind::InvalidArgument) for a reserved key.
    ///
    /// # Cancel safety
    ///
    /// Nothing is written; drop it at any time.
    pub async fn peek(&self, key: impl AsRef<[u8]> + Send) -> Result<Option<T>> {
        let key = self.full_key(key);
        let look = pin!(async {
            let mut lookup = Lookup::new(&self.store, &key, &self.options)?;
            let found = self.store.get(&key).await;
            let Some(bytes) = found.map_err(|error| error.with_operation(Operation::Peek))? else {
                return Ok(None);
            };
            let value = self.typed.decode(&bytes);
            if value.is_none() {
                lookup.ignore(bytes);
            }
            Ok(value)
        });
        let outcome = |value: &Option<T>| match value {
            Some(_) => CallOutcome::Hit,
            None => CallOutcome::Miss,
        };
        call(self.store.observer(), Operation::Peek, look, outcome).await
    }

    /// Replaces the value of `key`, so that no computation that began before can bring an older one back:
    /// [`refresh`](crate::refresh), with the TTL of the options.
    ///
    /// # Errors
    ///
    /// As [`refresh`](crate::refresh); and those of the codec, before anything is done.
    ///
    /// # Cancel safety
    ///
    /// As [`refresh`](crate::refresh).
    pub fn put(
        &self,
        key: impl AsRef<[u8]> + Send,
        value: &T,
    ) -> impl Future<Output = Result<()>> + Send {
        let named = |error: Error| error.with_operation(Operation::Refresh);
        let key = self.full_key(key);
        // Before anything is awaited: the value need not be shared between threads.
        let options = self.options.checked();
        let fill = options.and_then(|options| Ok((options, self.typed.encoded(value)?)));
        async move {
            let put = pin!(async {
                let (options, fill) = fill.map_err(named)?;
                match options.storing(fill.keep) {
                    Storing::For(ttl) => refreshed(&self.store, &key, &fill.value, ttl).await,
                    Storing::Not | Storing::Remove => {
                        invalidated(&self.store, &key).await.map(drop).map_err(named)
                    }
                }
            });
            call(self.store.observer(), Operation::Refresh, put, |()| CallOutcome::Done).await
        }
    }

    /// Removes the value of `key`, so that no computation that began before can bring it back, and ends a
    /// cool-down: [`invalidate`].
    ///
    /// # Errors
    ///
    /// As [`invalidate`].
    ///
    /// # Cancel safety
    ///
    /// As [`invalidate`].
    pub async fn invalidate(&self, key: impl AsRef<[u8]> + Send) -> Result<bool> {
        invalidate(&self.store, self.full_key(key)).await
    }
}

pub(crate) fn abandoned() -> Error {
    let message =
        "the computation ended without a result: it panicked, or its runtime was shut down";
    Error::new(ErrorKind::Abandoned, message).with_operation(OPERATION)
}

pub(crate) fn disagreement() -> Error {
    let message = "what callers of this key store, others cannot decode; give each type a prefix";
    Error::new(ErrorKind::Corrupt, message).with_operation(OPERATION)
}

impl<S: Clone, T, C> Clone for Cache<S, T, C> {
    fn clone(&self) -> Self {
        self.on(self.store.clone())
    }
}

impl<S, T, C> fmt::Debug for Cache<S, T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("prefix", &String::from_utf8_lossy(&self.prefix))
            .field("options", &self.options)
            .field("background", &self.background)
            .finish_non_exhaustive()
    }
}
