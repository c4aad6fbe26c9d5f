use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use derp_kv_core::{Error, GuardedGet, KvStore, KvStoreExt};
use futures_util::future::try_join_all;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::{LOCK, millis};
use crate::bench::{Bench, LawResult};
use crate::erased::Store;
use crate::violation::{Violation, ensure};

/// Callers that come one after the other, and the origin that they ask.
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

/// What a herd came to.
#[derive(Debug, Default)]
struct Tally {
    answered: AtomicU32,
    queries: AtomicU32,
    /// Milliseconds from the first caller to the first answer.
    first_answer: std::sync::OnceLock<Duration>,
}

impl Tally {
    fn answered(&self) -> u32 {
        self.answered.load(Ordering::SeqCst)
    }

    fn queries(&self) -> u32 {
        self.queries.load(Ordering::SeqCst)
    }
}

impl Herd {
    async fn query(&self, began: Instant, tally: &Tally) -> Result<&'static str, Error> {
        tally.queries.fetch_add(1, Ordering::SeqCst);
        // What was asked during the stall is answered after it.
        sleep_until(began + self.stall).await;
        sleep(self.query).await;
        Ok("value")
    }

    /// Lets the herd loose on the stores, and beside it the same herd on the bare origin: what
    /// disturbs one disturbs the other.
    async fn run(self, stores: &[Store], key: &str) -> (Arc<Tally>, Arc<Tally>) {
        let tallies = (Arc::<Tally>::default(), Arc::<Tally>::default());
        let began = Instant::now();
        let mut callers = JoinSet::new();
        let mut comes = Duration::ZERO;
        for number in 0.. {
            if comes >= self.lasts {
                break;
            }
            sleep_until(began + comes).await;
            comes += self.every;
            let (with, without) = (tallies.0.clone(), tallies.1.clone());
            let (kv, key) = (stores[number % stores.len()].clone(), key.to_owned());
            callers.spawn(async move {
                let options = GuardedGet::new(Duration::from_secs(3600)).lock_ttl(LOCK);
                let work = || self.query(began, &with);
                let call = kv.guarded_get(&key, &options, work);
                if let Ok(Ok(_)) = timeout(self.patience, call).await {
                    with.answered.fetch_add(1, Ordering::SeqCst);
                    let _ = with.first_answer.set(began.elapsed());
                }
            });
            callers.spawn(async move {
                if let Ok(Ok(_)) = timeout(self.patience, self.query(began, &without)).await {
                    without.answered.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        while callers.join_next().await.is_some() {}
        tallies
    }

    /// `late` is how late an answer may be for reasons that are not the library's.
    async fn check(self, stores: &[Store], key: &str, late: Duration) -> Result<(), Violation> {
        let stores = &stores[..self.processes];
        let key = format!("{key}, {} processes", self.processes);
        if stores[0].flights().is_none() {
            // Who shares nothing has no herd: each caller stands for itself.
            return Ok(());
        }
        let (with, without) = self.run(stores, &key).await;
        // Whoever comes first waits for the lock beside the query.
        let first = with.first_answer.get().copied();
        let bound = self.stall + self.query + late;
        ensure!(
            first.is_some_and(|first| first <= bound),
            "of {self:?}, the first answer comes after {first:?}, not within {bound:?}"
        );
        let missed = u32::try_from(late.as_millis() / self.every.as_millis().max(1)).unwrap_or(0);
        let (answered, bare) = (with.answered(), without.answered());
        ensure!(
            answered + missed >= bare,
            "of {self:?}, {answered} callers are answered; without the library {bare} were"
        );
        let (queries, bare) = (with.queries(), without.queries());
        ensure!(
            queries <= bare / 4 + 1,
            "of {self:?}, {queries} computations are begun; without the library {bare} were"
        );
        Ok(())
    }
}

/// No two moments of these coincide, so that no answer races with a caller that gives up.
const STALLS: [Herd; 5] = [
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
    // A query takes most of what a caller has: only a new one has enough.
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
];

/// The one for stores whose time really passes.
const REAL_STALL: Herd = Herd {
    every: millis(20),
    patience: millis(703),
    stall: millis(1_001),
    query: millis(151),
    lasts: millis(1_900),
    processes: 2,
};

/// In virtual time nothing is late but by a look of those who wait.
const VIRTUALLY_LATE: Duration = millis(50);

/// On a loaded machine.
const REALLY_LATE: Duration = millis(400);

pub(crate) fn survives_a_stall(bench: &Bench<'_>) -> LawResult {
    if bench.is_virtual() {
        bench.scenario(async |scene| {
            let stores = scene.handles(3).await?;
            for (number, herd) in STALLS.into_iter().enumerate() {
                herd.check(&stores, &format!("{number}"), VIRTUALLY_LATE).await?;
            }
            Ok(())
        })?;
    }
    bench.real_scenario(async |scene| {
        // Side by side: they share their waiting.
        let herds = [1, REAL_STALL.processes].map(|processes| Herd { processes, ..REAL_STALL });
        let stores = scene.handles(REAL_STALL.processes).await?;
        try_join_all(herds.map(|herd| herd.check(&stores, "real", REALLY_LATE))).await?;
        Ok(())
    })
}
