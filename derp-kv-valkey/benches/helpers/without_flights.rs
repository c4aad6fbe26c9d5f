use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use derp_kv_core::{Counter, Expiry, KvStore, Result};
use futures_util::stream::BoxStream;

/// A store whose callers share nothing: what a flight costs shows beside it.
#[derive(Clone, Debug)]
pub(crate) struct WithoutFlights<S>(pub(crate) S);

macro_rules! forward {
    ($($name:ident($($arg:ident: $type:ty),*) -> $output:ty;)*) => {
        #[async_trait]
        impl<S: KvStore> KvStore for WithoutFlights<S> {
            $(async fn $name(&self, $($arg: $type),*) -> $output {
                self.0.$name($($arg),*).await
            })*

            fn scan(&self, prefix: &[u8]) -> BoxStream<'_, Result<Bytes>> {
                self.0.scan(prefix)
            }
        }
    };
}

forward! {
    get(key: &[u8]) -> Result<Option<Bytes>>;
    get_with_ttl(key: &[u8]) -> Result<Option<(Bytes, Expiry)>>;
    exists(key: &[u8]) -> Result<bool>;
    ttl(key: &[u8]) -> Result<Option<Expiry>>;
    mget(keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>>;
    set(key: &[u8], value: &[u8], ttl: Option<Duration>) -> Result<()>;
    mset(items: &[(&[u8], &[u8])], ttl: Option<Duration>) -> Result<()>;
    delete(key: &[u8]) -> Result<bool>;
    delete_many(keys: &[&[u8]]) -> Result<u64>;
    expire(key: &[u8], ttl: Duration) -> Result<bool>;
    set_nx(key: &[u8], value: &[u8], ttl: Option<Duration>) -> Result<bool>;
    incr(key: &[u8], by: i64, ttl: Option<Duration>) -> Result<Counter>;
    compare_and_set(key: &[u8], expected: &[u8], value: &[u8], ttl: Option<Duration>) -> Result<bool>;
    compare_and_delete(key: &[u8], expected: &[u8]) -> Result<bool>;
    wait_for_change(key: &[u8], seen: Option<&[u8]>, at_most: Duration) -> ();
}
