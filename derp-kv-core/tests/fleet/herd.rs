//! Callers that come without end and give up, in front of an origin that is slow.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use derp_kv_core::{Cache, Error, GuardedGet};
use derp_kv_memory::MemoryStore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::common::process;
use crate::stage::LOCK_TTL;

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// No two moments of a herd coincide, so that no answer races with a caller that gives up.
#[derive(Clone, Copy, Debug)]
struct Herd {
    /// Between two callers.
    every: Duration,
    /// After which a caller goes away.
    patience: Duration,
    /// From the first caller on, the origin answers nobody for so long.
    stall: Duration,
    /// What a query takes, once the origin answers.
    query: Duration,
    /// From the first caller to the last.
    lasts: Duration,
    processes: usize,
}

#[derive(Debug, Default)]
struct Tally {
    answered: AtomicU32,
    queries: AtomicU32,
}

impl Herd {
    async fn query(self, began: Instant, tally: Arc<Tally>) -> Result<u32, Error> {
        tally.queries.fetch_add(1, Ordering::SeqCst);
        sleep_until(began + self.stall).await;
        sleep(self.query).await;
        Ok(1)
    }

    /// Lets the herd loose on caches, and beside it the same herd on the bare origin.
    async fn run(self) -> [Arc<Tally>; 2] {
        let data = MemoryStore::new();
        let options = GuardedGet::new(Duration::from_secs(3600)).lock_ttl(LOCK_TTL);
        let caches: Vec<_> = (0..self.processes)
            .map(|_| Cache::<_, u32>::new(process(&data), "", options))
            .collect();
        let tallies: [Arc<Tally>; 2] = Default::default();
        let began = Instant::now();
        let mut callers = JoinSet::new();
        let mut comes = Duration::ZERO;
        for number in 0.. {
            if comes >= self.lasts {
                break;
            }
            sleep_until(began + comes).await;
            comes += self.every;
            let [with, without] = tallies.clone();
            let cache = caches[number % caches.len()].clone();
            let query = self.query(began, with.clone());
            callers.spawn(async move {
                let call = cache.get("k", move |_| query);
                if let Ok(Ok(_)) = timeout(self.patience, call).await {
                    with.answered.fetch_add(1, Ordering::SeqCst);
                }
            });
            let query = self.query(began, without.clone());
            callers.spawn(async move {
                if let Ok(Ok(_)) = timeout(self.patience, query).await {
                    without.answered.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        while callers.join_next().await.is_some() {}
        tallies
    }
}

/// A slow origin costs nobody an answer that they would have had without the cache. For as long as the
/// first computation goes on, there is one more a `lock_ttl` in each process.
#[tokio::test(start_paused = true)]
async fn as_many_are_answered_as_without_a_cache() {
    for herd in [
        Herd {
            every: millis(50),
            patience: millis(5_003),
            stall: millis(6_000),
            query: millis(211),
            lasts: millis(20_000),
            processes: 1,
        },
        Herd {
            every: millis(10),
            patience: millis(1_003),
            stall: millis(1_501),
            query: millis(201),
            lasts: millis(4_000),
            processes: 2,
        },
        Herd {
            every: millis(20),
            patience: millis(503),
            stall: millis(3_001),
            query: millis(307),
            lasts: millis(6_000),
            processes: 3,
        },
        Herd {
            every: millis(20),
            patience: millis(2_703),
            stall: millis(4_001),
            query: millis(1_907),
            lasts: millis(9_000),
            processes: 1,
        },
        Herd {
            every: millis(50),
            patience: millis(10_003),
            stall: millis(7_001),
            query: millis(2_507),
            lasts: millis(15_000),
            processes: 2,
        },
    ] {
        let [with, without] = herd.run().await;
        let [answered, bare] = [&with, &without].map(|tally| tally.answered.load(Ordering::SeqCst));
        assert!(answered >= bare, "of {herd:?}, {answered} are answered, {bare} without a cache");
        let queries = with.queries.load(Ordering::SeqCst);
        let runs = (herd.stall + herd.query).as_millis() / LOCK_TTL.as_millis();
        let bound = 1 + u32::try_from(runs * herd.processes as u128).unwrap();
        assert!(queries <= bound, "of {herd:?}, {queries} computations, more than {bound}");
    }
}

/// No caller has the time for a whole computation: without a cache nobody is ever answered, with one all
/// are that come after the first computation has ended, or just before.
#[tokio::test(start_paused = true)]
async fn what_takes_longer_than_any_caller_waits_is_computed_once() {
    let herd = Herd {
        every: millis(20),
        patience: millis(303),
        stall: Duration::ZERO,
        query: millis(1_507),
        lasts: millis(6_000),
        processes: 3,
    };
    let [with, without] = herd.run().await;
    assert_eq!(without.answered.load(Ordering::SeqCst), 0);
    assert_eq!(with.queries.load(Ordering::SeqCst), 1);
    let unanswered = (herd.query - herd.patience).as_millis() / herd.every.as_millis();
    let all = herd.lasts.as_millis() / herd.every.as_millis();
    // Those of other processes look once a `retry_delay`.
    let late = 50 / herd.every.as_millis() + 1;
    let answered = u128::from(with.answered.load(Ordering::SeqCst));
    assert!(answered + unanswered + late >= all, "{answered} of {all}");
}
