//! The suite on the in-memory store.

use async_trait::async_trait;
use derp_kv_conformance::{BoxError, Harness, Time, conformance_tests};
use derp_kv_memory::MemoryStore;

struct Memory;

#[async_trait]
impl Harness for Memory {
    type Store = MemoryStore;
    type Guard = ();

    async fn open(&self) -> Result<(MemoryStore, ()), BoxError> {
        Ok((MemoryStore::new(), ()))
    }

    fn time(&self) -> Time {
        Time::Virtual
    }
}

conformance_tests!(Memory);
