//! `Box<T>` and `Arc<T>` are stores wherever `T` is one.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_core::future::BoxFuture;
use futures_core::stream::BoxStream;
use tokio::runtime::Handle;

use crate::error::Result;
use crate::observe::observer::Observer;
use crate::singleflight::flights::Flights;
use crate::store::counter::Counter;
use crate::store::expiry::Expiry;
use crate::store::kv_store::KvStore;
use crate::store::step::Step;
use crate::store::step::future::StepFuture;

/// One forwarded method, spelled out the way `async_trait` spells it: an `async fn` here would
/// box the inner boxed future a second time.
macro_rules! forward_method {
    ($name:ident<$($life:lifetime),*>($($arg:ident: $type:ty),*) -> $output:ty) => {
        fn $name<'a, $($life,)* 'f>(&'a self, $($arg: $type),*) -> BoxFuture<'f, $output>
        where
            'a: 'f,
            $($life: 'f,)*
            Self: 'f,
        {
            (**self).$name($($arg),*)
        }
    };
}

macro_rules! forward_store {
    ($pointer:ident) => {
        #[deny(clippy::missing_trait_methods)]
        impl<T: KvStore + ?Sized> KvStore for $pointer<T> {
            forward_method!(get<'b>(key: &'b [u8]) -> Result<Option<Bytes>>);
            forward_method!(get_with_ttl<'b>(key: &'b [u8]) -> Result<Option<(Bytes, Expiry)>>);
            forward_method!(exists<'b>(key: &'b [u8]) -> Result<bool>);
            forward_method!(ttl<'b>(key: &'b [u8]) -> Result<Option<Expiry>>);
            forward_method!(mget<'b, 'c>(keys: &'b [&'c [u8]]) -> Result<Vec<Option<Bytes>>>);
            forward_method!(set<'b, 'c>(key: &'b [u8], value: &'c [u8], ttl: Option<Duration>) -> Result<()>);
            forward_method!(mset<'b, 'c, 'd>(items: &'b [(&'c [u8], &'d [u8])], ttl: Option<Duration>) -> Result<()>);
            forward_method!(delete<'b>(key: &'b [u8]) -> Result<bool>);
            forward_method!(delete_many<'b, 'c>(keys: &'b [&'c [u8]]) -> Result<u64>);
            forward_method!(expire<'b>(key: &'b [u8], ttl: Duration) -> Result<bool>);
            forward_method!(set_nx<'b, 'c>(key: &'b [u8], value: &'c [u8], ttl: Option<Duration>) -> Result<bool>);
            forward_method!(incr<'b>(key: &'b [u8], by: i64, ttl: Option<Duration>) -> Result<Counter>);
            forward_method!(compare_and_set<'b, 'c, 'd>(
                key: &'b [u8], expected: &'c [u8], value: &'d [u8], ttl: Option<Duration>
            ) -> Result<bool>);
            forward_method!(compare_and_delete<'b, 'c>(key: &'b [u8], expected: &'c [u8]) -> Result<bool>);
            forward_method!(wait_for_change<'b, 'c>(
                key: &'b [u8], seen: Option<&'c [u8]>, at_most: Duration
            ) -> ());

            fn scan(&self, prefix: &[u8]) -> BoxStream<'static, Result<Bytes>> {
                (**self).scan(prefix)
            }

            fn step<'a>(&'a self, key: &'a [u8], step: &'a Step) -> StepFuture<'a> {
                (**self).step(key, step)
            }

            fn flights(&self) -> Option<&Flights> {
                (**self).flights()
            }

            fn runtime(&self) -> Option<Handle> {
                (**self).runtime()
            }

            fn observer(&self) -> Option<&dyn Observer> {
                (**self).observer()
            }
        }
    };
}

forward_store!(Box);
forward_store!(Arc);

#[cfg(test)]
mod tests {
    use super::*;

    fn _dyn_compatible(_: &dyn KvStore) {}

    fn _stores() {
        fn store<S: KvStore>() {}
        store::<Arc<dyn KvStore>>();
        store::<Box<dyn KvStore>>();
    }
}
