//! The suite on the in-memory store: itself, behind a pointer, under a prefix, and under a bound.

use std::sync::Arc;

use async_trait::async_trait;
use derp_kv_conformance::{BoxError, Harness, Time, conformance_tests, fresh_prefix};
use derp_kv_core::{KvStore, Prefixed};
use derp_kv_memory::MemoryStore;

/// Opens what `make` makes.
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
}

mod unbounded {
    use super::*;

    conformance_tests!(Memory(MemoryStore::new));
}

mod bounded {
    use super::*;

    fn store() -> MemoryStore {
        MemoryStore::builder().max_bytes(1 << 30).build()
    }

    conformance_tests!(Memory(store));
}

mod behind_a_pointer {
    use super::*;

    fn store() -> Arc<dyn KvStore> {
        Arc::new(MemoryStore::new())
    }

    conformance_tests!(Memory(store));
}

mod prefixed {
    use super::*;

    fn store() -> Prefixed<MemoryStore> {
        Prefixed::new(MemoryStore::new(), fresh_prefix())
    }

    conformance_tests!(Memory(store));
}
