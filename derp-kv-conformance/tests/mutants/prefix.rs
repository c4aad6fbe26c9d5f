use std::sync::LazyLock;

use bytes::Bytes;
use derp_kv_core::{Flights, KvStore, Result};
use derp_kv_memory::MemoryStore;
use futures_core::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};

use super::broken::{Mutant, mutant};
use super::defect::{Ttl, defects};

pub(super) fn mutants() -> Vec<Mutant> {
    vec![
        mutant::<DropsStars>("prefix::isolates", "a `*` in a key is dropped"),
        mutant::<StripsItself>(
            "prefix::scan_strips",
            "a scan yields keys without the prefix it was asked for",
        ),
        mutant::<FlightsOfAll>(
            "prefix::flights_are_its_own",
            "`flights` are the process's, shared by stores with different data",
        ),
    ]
}

fn without_stars(key: &[u8]) -> Vec<u8> {
    key.iter().copied().filter(|byte| *byte != b'*').collect()
}

defects! {
    DropsStars {
        get(self, kv, key) { kv.get(&without_stars(key)).await }
        set(self, kv, key, value, ttl) { kv.set(&without_stars(key), value, ttl).await }
        delete(self, kv, key) { kv.delete(&without_stars(key)).await }
    }
    FlightsOfAll {
        flights(self, _kv) {
            static ALL: LazyLock<Flights> = LazyLock::new(Flights::new);
            Some(&ALL)
        }
    }
    StripsItself {
        scan(self, kv, prefix) {
            let strip = prefix.len();
            kv.scan(prefix).map_ok(move |key| key.slice(strip..)).boxed()
        }
    }
}
