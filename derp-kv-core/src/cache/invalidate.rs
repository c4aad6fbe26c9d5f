use crate::coordinate::keys::{check_key, lock_key};
use crate::error::Result;
use crate::singleflight::flights::Purpose;
use crate::store::kv_store::KvStore;

/// Removes a cached value so that no computation under way can bring an older one back.
///
/// See [`KvStoreExt::invalidate`](crate::KvStoreExt::invalidate).
///
/// # Errors
///
/// As there.
pub async fn invalidate<S, K>(store: &S, key: K) -> Result<bool>
where
    S: KvStore + ?Sized,
    K: AsRef<[u8]> + Send + Sync,
{
    let key = key.as_ref();
    check_key(key).map_err(|error| error.with_operation("invalidate"))?;
    // The lease first: a holder that stores afterwards finds it gone, and takes its value back.
    let lease = store.delete(&lock_key(key)).await;
    let value = store.delete(key).await;
    if let Some(flights) = store.flights() {
        // Who asks from now on must not share a computation that began before.
        flights.detach(Purpose::Cached, key);
    }
    let applied = [&lease, &value].into_iter().any(|deleted| match deleted {
        Ok(deleted) => *deleted,
        Err(error) => error.may_have_applied(),
    });
    lease
        .and(value)
        .map_err(|error| error.with_operation("invalidate").with_may_have_applied(applied))
}
