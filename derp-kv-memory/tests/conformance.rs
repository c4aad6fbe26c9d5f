//! The whole suite on the store without a bound and on the bounded one, whose cached values live
//! in the other region, and under a prefix.

use async_trait::async_trait;
use derp_kv_conformance::{BoxError, Harness, Profile, Time};
use derp_kv_core::{KvStore, Prefixed};
use derp_kv_memory::MemoryStore;

/// Far above what a case writes: the bound itself has tests of its own.
const BOUND: u64 = 256 * 1024 * 1024;

/// Opens what the function makes.
struct Memory<S>(fn() -> S);

#[async_trait]
impl<S: KvStore + Clone> Harness for Memory<S> {
    type Store = S;
    type Guard = ();

    async fn open(&self) -> Result<(S, ()), BoxError> {
        Ok(((self.0)(), ()))
    }

    fn time(&self) -> Time {
        Time::Virtual
    }

    fn profile(&self) -> Profile {
        Profile::default().embedded()
    }
}

fn bounded_store() -> MemoryStore {
    MemoryStore::builder().max_bytes(BOUND).build().unwrap()
}

mod unbounded {
    use super::{Memory, MemoryStore};

    derp_kv_conformance::conformance_tests!(Memory(MemoryStore::new));
}

mod bounded {
    use super::{Memory, bounded_store};

    derp_kv_conformance::conformance_tests!(Memory(bounded_store));
}

mod prefixed {
    use super::*;

    fn store() -> Prefixed<MemoryStore> {
        Prefixed::new(MemoryStore::new(), "tenant:")
    }

    derp_kv_conformance::conformance_tests!(Memory(store));
}
