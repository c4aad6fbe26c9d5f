//! A program of its own, because it counts the allocations of all its threads.

use std::alloc::System;
use std::time::Duration;

use derp_kv_core::{
    Error, Event, GuardedGet, KvStore, KvStoreExt, Layered, Observe, Observer, RateLimit,
    RateLimiter, WithoutStore,
};
use derp_kv_memory::{ManualClock, MemoryStore};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const CALLS: usize = 10_000;
const ID: &str = "an id of usual length, such as 2001:db8::/64";

/// Allocations and reallocations of so many calls, one each millisecond.
async fn allocations(limit: RateLimit) -> (usize, u64) {
    let clock = ManualClock::new();
    let store = MemoryStore::builder().clock(clock.clone()).build().expect("a store");
    let limiter = RateLimiter::new(store, limit).on_store_error(WithoutStore::Deny);
    let mut allowed = 0;
    let mut run = async |calls: usize| {
        for _ in 0..calls {
            clock.advance(Duration::from_millis(1));
            let status = limiter.check(ID).await.expect("it answers");
            allowed += u64::from(status.allowed);
        }
    };
    // The first calls make the entry, and fill the buffers of the store.
    run(CALLS).await;
    let region = Region::new(ALLOCATOR);
    run(CALLS).await;
    let change = region.change();
    (change.allocations + change.reallocations, allowed)
}

/// What an observer costs is its own affair: this one takes everything, and keeps nothing.
#[derive(Debug)]
struct Deaf;

impl Observer for Deaf {
    fn event(&self, _: Event<'_>) {}
}

/// Allocations of so many hits of a cache, and of as many plain reads.
async fn hits<S: KvStore + Clone>(kv: S) -> [usize; 2] {
    const PAGES: GuardedGet = GuardedGet::new(Duration::from_secs(300));
    let page = || async { Ok::<_, Error>("a kettle") };
    kv.guarded_get("product:42", &PAGES, page).await.expect("it computes");
    let region = Region::new(ALLOCATOR);
    for _ in 0..CALLS {
        kv.guarded_get("product:42", &PAGES, page).await.expect("it answers");
    }
    let hits = region.change();
    let region = Region::new(ALLOCATOR);
    for _ in 0..CALLS {
        kv.get(b"product:42").await.expect("it answers");
    }
    let reads = region.change();
    [hits, reads].map(|change| change.allocations + change.reallocations)
}

// One test for all of it: another one beside it would be counted with it.
#[tokio::test(flavor = "current_thread")]
async fn what_calls_allocate() {
    a_check_of_a_rate_limit_allocates_nothing().await;
    let [hits_unseen, reads] = hits(MemoryStore::new()).await;
    assert_eq!(hits_unseen, reads, "a hit allocates what a read does");
    let seen = Layered::new(MemoryStore::new(), Observe::with(Deaf));
    let [hits_seen, reads] = hits(seen).await;
    assert_eq!(hits_seen, reads, "and so does one that an observer hears of");
}

async fn a_check_of_a_rate_limit_allocates_nothing() {
    const SECOND: Duration = Duration::from_secs(1);
    for (limit, what) in [
        (RateLimit::smooth(900, SECOND).burst(100_000), "smooth, all allowed"),
        (RateLimit::smooth(500, SECOND).burst(5), "smooth, half denied"),
        (RateLimit::strict(2_000, SECOND), "strict, all allowed"),
        (RateLimit::strict(500, SECOND), "strict, half denied"),
        (
            RateLimit::all(std::array::from_fn::<_, 8, _>(|_| RateLimit::smooth(700, SECOND))),
            "eight smooth ones",
        ),
    ] {
        let (allocated, allowed) = allocations(limit).await;
        assert!(allowed > 0);
        assert_eq!(allocated, 0, "{what}: {allowed} of {} allowed", 2 * CALLS);
    }
}
