use std::time::Duration;

use bytes::Bytes;

/// What a computation came to: the value, and what the cache is to do with it.
///
/// A computation of [`guarded_get`](crate::guarded_get) may return anything that is `Into<Bytes>`, one of
/// [`Cache`](crate::Cache) its value as it is: both are kept for the TTL of the options. A `Fill` says more.
///
/// Laws: `cache::lets_the_computation_decide`.
///
/// # Examples
///
/// ```
/// # use std::time::Duration;
/// use derp_kv_core::{Fill, GuardedGet, KvStore, KvStoreExt};
/// # #[tokio::main] async fn main() -> anyhow::Result<()> {
/// # let kv = derp_kv_memory::MemoryStore::new();
/// const HOUR: GuardedGet = GuardedGet::new(Duration::from_secs(3600));
/// let token = kv.guarded_get("token", &HOUR, || async {
///     let (token, expires_in) = ("s3cr3t", Duration::from_secs(60)); // as its issuer says
///     anyhow::Ok(Fill::new(token).ttl(expires_in))
/// });
/// assert_eq!(token.await?, "s3cr3t");
/// let page = kv.guarded_get("page", &HOUR, || async { anyhow::Ok(Fill::unstored("try again")) });
/// assert_eq!(page.await?, "try again");
/// assert!(!kv.exists(b"page").await?);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Fill<T = Bytes> {
    pub(crate) value: T,
    pub(crate) keep: Keep,
}

/// What becomes of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    /// It is kept for as long as the options say.
    AsOptions,
    For(Duration),
    Not,
    /// It is not kept, and neither is what was there before.
    Remove,
}

impl Keep {
    pub(crate) fn of(ttl: Duration) -> Self {
        if ttl.is_zero() { Self::Not } else { Self::For(ttl) }
    }
}

impl<T> Fill<T> {
    /// A value that is kept for the TTL of the options.
    pub fn new(value: impl Into<T>) -> Self {
        Self { value: value.into(), keep: Keep::AsOptions }
    }

    /// A value that goes to all who wait for it and is not kept. Where the options allow stale data and
    /// there is some, that stays.
    pub fn unstored(value: impl Into<T>) -> Self {
        Self { value: value.into(), keep: Keep::Not }
    }

    /// How long the value is fresh, whatever the options say. Zero means that it is not kept, and more
    /// than [`MAX_TTL`](crate::MAX_TTL) means that long.
    ///
    /// Stale time and jitter are those of the options, and so is the moment of an early refresh: it
    /// counts from the end of the options' TTL. Choose this TTL longer than that last part of theirs,
    /// or the value is refreshed as soon as it is asked for.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.keep = Keep::of(ttl);
        self
    }
}

impl<V: Into<Bytes>> From<V> for Fill {
    fn from(value: V) -> Self {
        Self::new(value)
    }
}

/// What a computation of [`Cache`](crate::Cache) may return: a `T`, or a [`Fill`] of it.
pub trait IntoFill<T>: sealed::Sealed<T> {
    /// The value, and what becomes of it.
    fn into_fill(self) -> Fill<T>;
}

mod sealed {
    /// Only those two: more could be added without breaking anybody.
    pub trait Sealed<T> {}
    impl<T> Sealed<T> for T {}
    impl<T> Sealed<T> for super::Fill<T> {}
}

impl<T> IntoFill<T> for T {
    fn into_fill(self) -> Fill<T> {
        Fill { value: self, keep: Keep::AsOptions }
    }
}

impl<T> IntoFill<T> for Fill<T> {
    fn into_fill(self) -> Self {
        self
    }
}
