//! Stores whose clones do not share what they must, or share it with others.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use derp_kv_core::{Counter, Expiry, Flights, KvStore, Result};
use derp_kv_memory::MemoryStore;
use futures_core::stream::BoxStream;
use futures_util::{StreamExt, stream};
use tokio::task::unconstrained;

use super::broken::{Mutant, mutant};
use super::defect::{Defect, Ttl, defects};

pub(super) fn mutants() -> Vec<Mutant> {
    let shares = "herd::clones_share_flights";
    let yields = "concurrency::lets_others_run";
    vec![
        mutant::<FlightsOfEachClone>(shares, "each clone has flights of its own"),
        mutant::<FlightsOfEachCall>(shares, "each call for the flights makes new ones"),
        mutant::<FlightsOfAll>(shares, "all stores of the process have the same flights"),
        mutant::<PrefixOfEachClone>(shares, "each clone has its flights under a prefix of its own"),
        mutant::<PrefixOfEachCall>(shares, "each call for the flights gives another prefix"),
        mutant::<FlightsComeAndGo>(shares, "every other call for the flights finds none"),
        mutant::<ClonesHaveNone>(shares, "the first handle has flights, and its clones have none"),
        mutant::<GetMissKeeps>(yields, "`get` of an absent key never yields"),
        mutant::<MgetKeeps>(yields, "`mget` never yields"),
        mutant::<EmptyScanKeeps>(yields, "`scan` that finds nothing never yields"),
        mutant::<ReplacingKeeps>(yields, "`set` of a key that is there never yields"),
        mutant::<CreatingKeeps>(yields, "`set` of an absent key never yields"),
        mutant::<DeleteHitKeeps>(yields, "`delete` of a key that is there never yields"),
        mutant::<DeleteManyKeeps>(yields, "`delete_many` of keys that are there never yields"),
        mutant::<ExpireMissKeeps>(yields, "`expire` of an absent key never yields"),
        mutant::<SetNxWinKeeps>(yields, "`set_nx` that writes never yields"),
        mutant::<IncrCreatesKeeps>(yields, "`incr` that creates a counter never yields"),
        mutant::<SwapKeeps>(yields, "`compare_and_set` that swaps never yields"),
        mutant::<RefusedSwapKeeps>(yields, "`compare_and_set` that refuses never yields"),
        mutant::<CompareDeleteKeeps>(yields, "`compare_and_delete` that deletes never yields"),
        mutant::<TtlKeeps>(yields, "`ttl` of a key that is there never yields"),
    ]
}

#[derive(Debug, Default)]
struct FlightsOfEachClone(Flights);

impl Defect for FlightsOfEachClone {
    fn flights<'a>(&'a self, _: &'a MemoryStore) -> Option<&'a Flights> {
        Some(&self.0)
    }

    fn cloned(&self) -> Option<Arc<dyn Defect>> {
        Some(Arc::new(Self::default()))
    }
}

/// Leaked: what a call returns must live.
#[derive(Debug, Default)]
struct FlightsOfEachCall;

impl Defect for FlightsOfEachCall {
    fn flights<'a>(&'a self, _: &'a MemoryStore) -> Option<&'a Flights> {
        Some(Box::leak(Box::default()))
    }
}

#[derive(Debug, Default)]
struct FlightsOfAll;

impl Defect for FlightsOfAll {
    fn flights<'a>(&'a self, _: &'a MemoryStore) -> Option<&'a Flights> {
        static ALL: OnceLock<Flights> = OnceLock::new();
        Some(ALL.get_or_init(Flights::new))
    }
}

fn prefix() -> Bytes {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    Bytes::from(format!("{}:", NEXT.fetch_add(1, Ordering::SeqCst)))
}

#[derive(Debug)]
struct PrefixOfEachClone {
    shared: Flights,
    own: Flights,
}

impl Default for PrefixOfEachClone {
    fn default() -> Self {
        let shared = Flights::new();
        Self { own: shared.under(&prefix()), shared }
    }
}

impl Defect for PrefixOfEachClone {
    fn flights<'a>(&'a self, _: &'a MemoryStore) -> Option<&'a Flights> {
        Some(&self.own)
    }

    fn cloned(&self) -> Option<Arc<dyn Defect>> {
        let shared = self.shared.clone();
        Some(Arc::new(Self { own: shared.under(&prefix()), shared }))
    }
}

#[derive(Debug, Default)]
struct PrefixOfEachCall(Flights);

impl Defect for PrefixOfEachCall {
    fn flights<'a>(&'a self, _: &'a MemoryStore) -> Option<&'a Flights> {
        Some(Box::leak(Box::new(self.0.under(&prefix()))))
    }
}

#[derive(Debug, Default)]
struct FlightsComeAndGo(Flights, AtomicU32);

impl Defect for FlightsComeAndGo {
    fn flights<'a>(&'a self, _: &'a MemoryStore) -> Option<&'a Flights> {
        self.1.fetch_add(1, Ordering::SeqCst).is_multiple_of(2).then_some(&self.0)
    }
}

#[derive(Debug)]
struct ClonesHaveNone(Option<Flights>);

impl Default for ClonesHaveNone {
    fn default() -> Self {
        Self(Some(Flights::new()))
    }
}

impl Defect for ClonesHaveNone {
    fn flights<'a>(&'a self, _: &'a MemoryStore) -> Option<&'a Flights> {
        self.0.as_ref()
    }

    fn cloned(&self) -> Option<Arc<dyn Defect>> {
        Some(Arc::new(Self(None)))
    }
}

/// A call that takes no part in the cooperative budget where it goes the one way, and does where it
/// goes the other.
macro_rules! keeps {
    ($kv:ident.exists($key:expr), $wanted:literal: $call:expr) => {
        if unconstrained($kv.exists($key)).await? == $wanted {
            unconstrained($call).await
        } else {
            $call.await
        }
    };
    ($kv:ident.get($key:expr) == $expected:expr, $wanted:literal: $call:expr) => {
        if (unconstrained($kv.get($key)).await?.as_deref() == Some($expected)) == $wanted {
            unconstrained($call).await
        } else {
            $call.await
        }
    };
}

defects! {
    GetMissKeeps {
        get(self, kv, key) { keeps!(kv.exists(key), false: kv.get(key)) }
    }
    MgetKeeps {
        mget(self, kv, keys) { unconstrained(kv.mget(keys)).await }
    }
    EmptyScanKeeps {
        scan(self, kv, prefix) {
            let (kv, prefix) = (kv.clone(), prefix.to_vec());
            let keys = async move {
                let mut keys = unconstrained(kv.scan(&prefix).collect::<Vec<_>>()).await;
                if !keys.is_empty() {
                    keys = kv.scan(&prefix).collect().await;
                }
                stream::iter(keys)
            };
            stream::once(keys).flatten().boxed()
        }
    }
    ReplacingKeeps {
        set(self, kv, key, value, ttl) { keeps!(kv.exists(key), true: kv.set(key, value, ttl)) }
    }
    CreatingKeeps {
        set(self, kv, key, value, ttl) { keeps!(kv.exists(key), false: kv.set(key, value, ttl)) }
    }
    DeleteHitKeeps {
        delete(self, kv, key) { keeps!(kv.exists(key), true: kv.delete(key)) }
    }
    DeleteManyKeeps {
        delete_many(self, kv, keys) {
            keeps!(kv.exists(keys.first().unwrap_or(&&b""[..])), true: kv.delete_many(keys))
        }
    }
    ExpireMissKeeps {
        expire(self, kv, key, ttl) { keeps!(kv.exists(key), false: kv.expire(key, ttl)) }
    }
    SetNxWinKeeps {
        set_nx(self, kv, key, value, ttl) {
            keeps!(kv.exists(key), false: kv.set_nx(key, value, ttl))
        }
    }
    IncrCreatesKeeps {
        incr(self, kv, key, by, ttl) { keeps!(kv.exists(key), false: kv.incr(key, by, ttl)) }
    }
    SwapKeeps {
        compare_and_set(self, kv, key, expected, value, ttl) {
            keeps!(kv.get(key) == expected, true: kv.compare_and_set(key, expected, value, ttl))
        }
    }
    RefusedSwapKeeps {
        compare_and_set(self, kv, key, expected, value, ttl) {
            keeps!(kv.get(key) == expected, false: kv.compare_and_set(key, expected, value, ttl))
        }
    }
    CompareDeleteKeeps {
        compare_and_delete(self, kv, key, expected) {
            keeps!(kv.get(key) == expected, true: kv.compare_and_delete(key, expected))
        }
    }
    TtlKeeps {
        ttl(self, kv, key) { keeps!(kv.exists(key), true: kv.ttl(key)) }
    }
}
