//! Wrappers that do something around every call of the store they wrap.

/// Implements the store for a wrapper with an `inner` store. Each call goes through the wrapper's
/// `around`, each scan through its `around_scan`, and `shared_flights` says whose flights it shares.
macro_rules! wrap_store {
    ($wrapper:ident) => {
        #[async_trait::async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl<S: KvStore> KvStore for $wrapper<S> {
            async fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
                self.around(Operation::Get, self.inner.get(key)).await
            }

            async fn get_with_ttl(&self, key: &[u8]) -> Result<Option<(Bytes, Expiry)>> {
                self.around(Operation::GetWithTtl, self.inner.get_with_ttl(key)).await
            }

            async fn exists(&self, key: &[u8]) -> Result<bool> {
                self.around(Operation::Exists, self.inner.exists(key)).await
            }

            async fn ttl(&self, key: &[u8]) -> Result<Option<Expiry>> {
                self.around(Operation::Ttl, self.inner.ttl(key)).await
            }

            async fn mget(&self, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>> {
                self.around(Operation::Mget, self.inner.mget(keys)).await
            }

            fn scan(&self, prefix: &[u8]) -> BoxStream<'_, Result<Bytes>> {
                self.around_scan(self.inner.scan(prefix))
            }

            async fn set(&self, key: &[u8], value: &[u8], ttl: Option<Duration>) -> Result<()> {
                self.around(Operation::Set, self.inner.set(key, value, ttl)).await
            }

            async fn mset(&self, items: &[(&[u8], &[u8])], ttl: Option<Duration>) -> Result<()> {
                self.around(Operation::Mset, self.inner.mset(items, ttl)).await
            }

            async fn delete(&self, key: &[u8]) -> Result<bool> {
                self.around(Operation::Delete, self.inner.delete(key)).await
            }

            async fn delete_many(&self, keys: &[&[u8]]) -> Result<u64> {
                self.around(Operation::DeleteMany, self.inner.delete_many(keys)).await
            }

            async fn expire(&self, key: &[u8], ttl: Duration) -> Result<bool> {
                self.around(Operation::Expire, self.inner.expire(key, ttl)).await
            }

            async fn set_nx(
                &self,
                key: &[u8],
                value: &[u8],
                ttl: Option<Duration>,
            ) -> Result<bool> {
                self.around(Operation::SetNx, self.inner.set_nx(key, value, ttl)).await
            }

            async fn incr(&self, key: &[u8], by: i64, ttl: Option<Duration>) -> Result<Counter> {
                self.around(Operation::Incr, self.inner.incr(key, by, ttl)).await
            }

            async fn compare_and_set(
                &self,
                key: &[u8],
                expected: &[u8],
                value: &[u8],
                ttl: Option<Duration>,
            ) -> Result<bool> {
                let swap = self.inner.compare_and_set(key, expected, value, ttl);
                self.around(Operation::CompareAndSet, swap).await
            }

            async fn compare_and_delete(&self, key: &[u8], expected: &[u8]) -> Result<bool> {
                let delete = self.inner.compare_and_delete(key, expected);
                self.around(Operation::CompareAndDelete, delete).await
            }

            async fn wait_for_change(&self, key: &[u8], seen: Option<&[u8]>, at_most: Duration) {
                self.before_wait();
                self.inner.wait_for_change(key, seen, at_most).await;
            }

            fn flights(&self) -> Option<&Flights> {
                self.shared_flights()
            }
        }
    };
}

pub(crate) use wrap_store;
