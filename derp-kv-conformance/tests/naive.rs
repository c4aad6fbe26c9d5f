//! The suite on the simplest store that keeps the laws: one map behind one lock.

mod common;

use async_trait::async_trait;
use common::Naive;
use derp_kv_conformance::{BoxError, Harness, Profile, Time, conformance_tests};

struct InOneMap;

#[async_trait]
impl Harness for InOneMap {
    type Store = Naive;
    type Guard = ();

    async fn open(&self) -> Result<(Naive, ()), BoxError> {
        Ok((Naive::claiming_deletions(false), ()))
    }

    fn time(&self) -> Time {
        Time::Virtual
    }

    fn profile(&self) -> Profile {
        Profile::default().without_seeds().embedded()
    }
}

conformance_tests!(InOneMap);
