//! Stores of the suite's own names around the core's `Layered`.

/// Makes a store of a newtype around a `Layered`. An alias would not do: `CountingStore::new` takes
/// the store alone, and `Layered::new` the layer, too.
macro_rules! layered_store {
    ($store:ident) => {
        const _: () = {
            use std::time::Duration;

            use derp_kv_core::{Counter, Expiry, Flights, Observer, Step, StepFuture};
            use tokio::runtime::Handle;

            $crate::newtype::layered_store! { $store
                async get(key: &[u8]) -> Result<Option<Bytes>>;
                async get_with_ttl(key: &[u8]) -> Result<Option<(Bytes, Expiry)>>;
                async exists(key: &[u8]) -> Result<bool>;
                async ttl(key: &[u8]) -> Result<Option<Expiry>>;
                async mget(keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>>;
                async set(key: &[u8], value: &[u8], ttl: Option<Duration>) -> Result<()>;
                async mset(items: &[(&[u8], &[u8])], ttl: Option<Duration>) -> Result<()>;
                async delete(key: &[u8]) -> Result<bool>;
                async delete_many(keys: &[&[u8]]) -> Result<u64>;
                async expire(key: &[u8], ttl: Duration) -> Result<bool>;
                async set_nx(key: &[u8], value: &[u8], ttl: Option<Duration>) -> Result<bool>;
                async incr(key: &[u8], by: i64, ttl: Option<Duration>) -> Result<Counter>;
                async compare_and_set(
                    key: &[u8], expected: &[u8], value: &[u8], ttl: Option<Duration>
                ) -> Result<bool>;
                async compare_and_delete(key: &[u8], expected: &[u8]) -> Result<bool>;
                async wait_for_change(key: &[u8], seen: Option<&[u8]>, at_most: Duration) -> ();
                now scan(prefix: &[u8]) -> BoxStream<'static, Result<Bytes>>;
                now flights() -> Option<&Flights>;
                now runtime() -> Option<Handle>;
                now observer() -> Option<&dyn Observer>;
            }
        };
    };
    (
        $store:ident
        $(async $call:ident($($arg:ident: $type:ty),*) -> $output:ty;)*
        $(now $getter:ident($($with:ident: $of:ty),*) -> $got:ty;)*
    ) => {
        #[async_trait::async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl<S: KvStore> KvStore for $store<S> {
            $(async fn $call(&self, $($arg: $type),*) -> $output {
                self.0.$call($($arg),*).await
            })*

            fn step<'a>(&'a self, key: &'a [u8], step: &'a Step) -> StepFuture<'a> {
                self.0.step(key, step)
            }

            $(fn $getter(&self, $($with: $of),*) -> $got {
                self.0.$getter($($with),*)
            })*
        }
    };
}

pub(crate) use layered_store;
