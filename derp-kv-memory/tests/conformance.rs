//! The whole suite on the store without a bound and on the bounded one, whose cached values live
//! in the other region, and through `Arc<dyn KvStore>`.

use std::sync::Arc;

use async_trait::async_trait;
use derp_kv_conformance::{BoxError, Harness, Time};
use derp_kv_core::KvStore;
use derp_kv_memory::MemoryStore;

/// Far above what a case writes: the bound itself has tests of its own.
const BOUND: u64 = 256 * 1024 * 1024;

struct Memory(fn() -> MemoryStore);

#[async_trait]
impl Harness for Memory {
    type Store = MemoryStore;
    type Guard = ();

    async fn open(&self) -> Result<(MemoryStore, ()), BoxError> {
        Ok(((self.0)(), ()))
    }

    fn time(&self) -> Time {
        Time::Virtual
    }
}

struct Dynamic;

#[async_trait]
impl Harness for Dynamic {
    type Store = Arc<dyn KvStore>;
    type Guard = ();

    async fn open(&self) -> Result<(Arc<dyn KvStore>, ()), BoxError> {
        Ok((Arc::new(MemoryStore::builder().max_bytes(BOUND).build()), ()))
    }

    fn time(&self) -> Time {
        Time::Virtual
    }
}

mod unbounded {
    use super::{Memory, MemoryStore};

    derp_kv_conformance::conformance_tests!(Memory(MemoryStore::new));
}

mod bounded {
    use super::{BOUND, Memory, MemoryStore};

    derp_kv_conformance::conformance_tests!(Memory(|| MemoryStore::builder()
        .max_bytes(BOUND)
        .build()));
}

mod dynamic {
    use super::Dynamic;

    derp_kv_conformance::conformance_tests!(Dynamic);
}
