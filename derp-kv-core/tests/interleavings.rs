//! Every order in which the calls of two helpers can reach the store.

mod common;

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use common::scripted::Scripted;
use derp_kv_core::{Error, GuardedGet, Idempotency, KvStore, KvStoreExt};
use derp_kv_memory::MemoryStore;
use tokio::task::JoinHandle;

/// Long enough for nothing to be renewed: time stands still while a schedule runs.
const LOCK_TTL: Duration = Duration::from_secs(3600);

/// The source of the data: what a computation reads is what it was at that step.
type Database = Arc<AtomicU32>;

struct Actor {
    kv: Scripted,
    task: JoinHandle<()>,
}

impl Actor {
    fn fills(data: &MemoryStore, database: &Database) -> Self {
        let (kv, database) = (Scripted::gated(data), database.clone());
        let task = tokio::spawn({
            let kv = kv.clone();
            async move {
                let options = GuardedGet::ttl(Duration::from_secs(300)).lock_ttl(LOCK_TTL);
                let value = kv
                    .guarded_get("k", options, || async {
                        let seen = database.load(Ordering::SeqCst);
                        // The data may change between being read and being stored.
                        kv.turn().await;
                        Ok::<_, Error>(seen.to_string())
                    })
                    .await;
                assert!(matches!(&value.unwrap()[..], b"1" | b"2"));
            }
        });
        Self { kv, task }
    }

    fn orders(data: &MemoryStore, runs: &Database) -> Self {
        let (kv, runs) = (Scripted::gated(data), runs.clone());
        let task = tokio::spawn({
            let kv = kv.clone();
            async move {
                let options = Idempotency::default().lock_ttl(LOCK_TTL);
                let outcome = kv
                    .idempotent_execute("k", options, || async {
                        kv.turn().await;
                        Ok::<_, Error>(runs.fetch_add(1, Ordering::SeqCst))
                    })
                    .await;
                assert_eq!(outcome.unwrap().body, 0);
            }
        });
        Self { kv, task }
    }

    fn invalidates(data: &MemoryStore, database: &Database) -> Self {
        let (kv, database) = (Scripted::gated(data), database.clone());
        let task = tokio::spawn({
            let kv = kv.clone();
            async move {
                kv.turn().await;
                database.store(2, Ordering::SeqCst);
                kv.invalidate("k").await.unwrap();
            }
        });
        Self { kv, task }
    }

    fn can_step(&self) -> bool {
        self.kv.waiting() > 0
    }
}

async fn settle() {
    for _ in 0..12 {
        tokio::task::yield_now().await;
    }
}

/// Steps the actors in the order that `choose` gives until none can go on.
async fn run(actors: &[Actor], mut choose: impl FnMut(usize) -> usize) {
    settle().await;
    loop {
        let ready: Vec<_> = actors.iter().filter(|actor| actor.can_step()).collect();
        if ready.is_empty() {
            // Who is left waits for time to pass, as a caller does that found the lock taken.
            if actors.iter().all(|actor| actor.task.is_finished()) {
                return;
            }
            tokio::time::advance(Duration::from_millis(50)).await;
        } else {
            ready[choose(ready.len())].kv.step();
        }
        settle().await;
    }
}

async fn assert_fresh(data: &MemoryStore, schedule: &[usize]) {
    let left = data.get(b"k").await.unwrap();
    assert_ne!(left.as_deref(), Some(&b"1"[..]), "stale after {schedule:?}");
    assert_eq!(data.get(b"k:lock").await.unwrap(), None, "locked after {schedule:?}");
}

/// Runs every schedule of what `actors` makes, and hands each end to `check`.
#[expect(clippy::future_not_send, reason = "a test runs on one thread")]
async fn every_order<T>(
    actors: impl Fn() -> (T, Vec<Actor>),
    check: impl AsyncFn(T, &[usize]),
) -> usize {
    // Depth first over the choices: each schedule is the one before with its last choice that
    // has an alternative changed.
    let mut schedule: Vec<usize> = Vec::new();
    let mut schedules = 0;
    loop {
        let (state, actors) = actors();
        let options = RefCell::new(Vec::new());
        run(&actors, |ready| {
            let mut options = options.borrow_mut();
            let at = options.len();
            options.push(ready);
            if at == schedule.len() {
                schedule.push(0);
            }
            schedule[at]
        })
        .await;
        for actor in actors {
            actor.task.await.unwrap();
        }
        check(state, &schedule).await;
        schedules += 1;
        let options = options.into_inner();
        schedule.truncate(options.len());
        while schedule.last().is_some_and(|last| last + 1 >= options[schedule.len() - 1]) {
            schedule.pop();
        }
        let Some(last) = schedule.last_mut() else { break };
        *last += 1;
    }
    println!("\n{schedules} schedules");
    schedules
}

#[tokio::test(start_paused = true)]
async fn one_computation_in_every_order() {
    let actors = || {
        let (data, database) = (MemoryStore::new(), Database::new(AtomicU32::new(1)));
        let actors = vec![Actor::fills(&data, &database), Actor::invalidates(&data, &database)];
        (data, actors)
    };
    let schedules = every_order(actors, async |data, schedule| {
        assert_fresh(&data, schedule).await;
    })
    .await;
    // Three steps among the six of a computation that meets nobody, at least.
    assert!(schedules >= 84, "{schedules}");
}

#[tokio::test(start_paused = true)]
async fn two_requests_with_one_key_in_every_order() {
    let actors = || {
        let (data, runs) = (MemoryStore::new(), Database::default());
        let actors = (0..2).map(|_| Actor::orders(&data, &runs)).collect();
        ((data, runs), actors)
    };
    let schedules = every_order(actors, async |(data, runs), schedule| {
        assert_eq!(runs.load(Ordering::SeqCst), 1, "executions after {schedule:?}");
        let lock = data.get(b"derp:idempotency:k:lock").await.unwrap();
        assert_eq!(lock, None, "locked after {schedule:?}");
    })
    .await;
    // The loser's look and its try for the lock among the winner's six steps, at least.
    assert!(schedules >= 28, "{schedules}");
}

/// The caller goes away while its value is on the way, after an invalidation.
#[tokio::test(start_paused = true)]
async fn a_caller_dropped_while_storing_takes_its_value_back() {
    let (data, database) = (MemoryStore::new(), Database::new(AtomicU32::new(1)));
    let actor = Actor::fills(&data, &database);
    settle().await;
    // The look, the lock, the second look and the computation; the value waits.
    for _ in 0..4 {
        actor.kv.step();
        settle().await;
    }
    data.invalidate("k").await.unwrap();
    actor.kv.step();
    settle().await;
    actor.task.abort();
    assert_eq!(actor.kv.calls().last(), Some(&"set"));
    settle().await;
    while actor.can_step() {
        actor.kv.step();
        settle().await;
    }
    assert_eq!(data.get(b"k").await.unwrap(), None, "the value is older than the invalidation");
}

#[tokio::test(start_paused = true)]
async fn two_computations_in_many_orders() {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..3000 {
        let (data, database) = (MemoryStore::new(), Database::new(AtomicU32::new(1)));
        let actors = [
            Actor::fills(&data, &database),
            Actor::invalidates(&data, &database),
            Actor::fills(&data, &database),
        ];
        let mut schedule = Vec::new();
        run(&actors, |ready| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let choice = usize::try_from(random % 1000).unwrap() % ready;
            schedule.push(choice);
            choice
        })
        .await;
        assert_fresh(&data, &schedule).await;
    }
}
