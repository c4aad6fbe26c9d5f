//! The suite on the simplest store that keeps the laws: one map behind one lock. With a limit on its
//! keys, the lowest that a store may have, it shows that no law asks for a longer one.

mod common;

use async_trait::async_trait;
use common::Naive;
use derp_kv_conformance::{BoxError, Harness, Profile, Time};

struct InOneMap {
    longest_key: Option<usize>,
}

#[async_trait]
impl Harness for InOneMap {
    type Store = Naive;
    type Guard = ();

    async fn open(&self) -> Result<(Naive, ()), BoxError> {
        let unlimited = || Naive::claiming_deletions(false);
        Ok((self.longest_key.map_or_else(unlimited, Naive::with_longest_key), ()))
    }

    fn time(&self) -> Time {
        Time::Virtual
    }

    fn profile(&self) -> Profile {
        let profile = Profile::default().without_seeds().embedded();
        match self.longest_key {
            Some(bytes) => profile.longest_key(bytes),
            None => profile,
        }
    }
}

mod unlimited {
    use super::InOneMap;

    derp_kv_conformance::conformance_tests!(InOneMap { longest_key: None });
}

mod limited {
    use super::InOneMap;

    derp_kv_conformance::conformance_tests!(InOneMap { longest_key: Some(1_280) });
}
