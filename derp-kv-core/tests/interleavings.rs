//! Every order in which the calls of a few callers can reach the store.

mod common;

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use common::scripted::{Plan, Scripted, gated, gated_beside};
use derp_kv_core::{
    Error, ErrorKind, GuardedGet, Idempotency, KvStore, KvStoreExt, Operation, Result,
};
use derp_kv_memory::MemoryStore;
use tokio::task::JoinHandle;

/// Long enough for nothing to be renewed: time stands still while a schedule runs.
const LOCK_TTL: Duration = Duration::from_secs(3600);
const OPTIONS: GuardedGet = GuardedGet::new(Duration::from_secs(300)).lock_ttl(LOCK_TTL);
const RETRY_DELAY: Duration = Duration::from_millis(50);

/// The source of the data: what a computation reads is what it was at that step.
type Database = Arc<AtomicU32>;

fn database() -> Database {
    Arc::new(AtomicU32::new(1))
}

/// Reads the data, which may change before what was read is stored.
async fn read(database: Database, gate: Plan) -> Result<String> {
    let seen = database.load(Ordering::SeqCst);
    gate.turn().await;
    Ok(seen.to_string())
}

/// Something with a gate, which the schedule opens step by step.
struct Actor {
    gate: Plan,
    task: Option<JoinHandle<()>>,
}

/// One caller of `guarded_get`, and what it got, once it returned.
struct Caller {
    gate: Plan,
    outcome: Arc<OnceLock<Result<Bytes>>>,
    computed: Arc<AtomicBool>,
}

impl Caller {
    fn outcome(&self) -> Option<&Result<Bytes>> {
        self.outcome.get()
    }

    fn value(&self) -> &Bytes {
        self.outcome().expect("it returned").as_ref().expect("it got a value")
    }

    fn has_computed(&self) -> bool {
        self.computed.load(Ordering::SeqCst)
    }

    fn tries_for_the_lock(&self) -> usize {
        self.gate.calls().iter().filter(|call| **call == Operation::SetNx).count()
    }
}

/// A computation that a refresh may meet.
#[derive(Default)]
struct Work {
    under_way: AtomicBool,
    met: AtomicBool,
}

impl Actor {
    fn new(gate: &Plan, task: impl Future<Output = ()> + Send + 'static) -> Self {
        Self { gate: gate.clone(), task: Some(tokio::spawn(task)) }
    }

    /// A gate of another actor's, which is opened apart from its calls.
    fn gate(gate: &Plan) -> Self {
        Self { gate: gate.clone(), task: None }
    }

    fn gets<Fut>(
        kv: &Scripted,
        options: GuardedGet,
        compute: impl FnOnce() -> Fut + Send + 'static,
    ) -> (Self, Caller)
    where
        Fut: Future<Output = Result<String>> + Send,
    {
        let gate = kv.layer().clone();
        let caller = Caller { gate, outcome: Arc::default(), computed: Arc::default() };
        let (outcome, computed) = (caller.outcome.clone(), caller.computed.clone());
        let actor = Self::new(kv.layer(), {
            let kv = kv.clone();
            async move {
                let compute = || {
                    computed.store(true, Ordering::SeqCst);
                    compute()
                };
                outcome.set(kv.guarded_get("k", &options, compute).await).unwrap();
            }
        });
        (actor, caller)
    }

    /// Gets what the database has.
    fn reads(kv: &Scripted, database: &Database) -> (Self, Caller) {
        let (database, gate) = (database.clone(), kv.layer().clone());
        Self::gets(kv, OPTIONS, || read(database, gate))
    }

    /// A caller of a process of its own.
    fn fills(data: &MemoryStore, database: &Database) -> (Self, Caller) {
        Self::reads(&gated(data), database)
    }

    fn orders(data: &MemoryStore, runs: &Database) -> Self {
        let (kv, runs) = (gated(data), runs.clone());
        Self::new(kv.clone().layer(), async move {
            let options = Idempotency::default().lock_ttl(LOCK_TTL);
            let outcome = kv
                .idempotent_execute("k", &options, || async {
                    kv.layer().turn().await;
                    Ok::<_, Error>(runs.fetch_add(1, Ordering::SeqCst))
                })
                .await;
            assert_eq!(outcome.unwrap().body, 0);
        })
    }

    fn invalidates(kv: &Scripted, database: &Database) -> Self {
        let (kv, database) = (kv.clone(), database.clone());
        Self::new(kv.clone().layer(), async move {
            kv.layer().turn().await;
            database.store(2, Ordering::SeqCst);
            kv.invalidate("k").await.unwrap();
        })
    }

    /// Replaces the value, and notes whether `work` was under way as it began.
    fn refreshes(kv: &Scripted, database: &Database, work: &Arc<Work>) -> Self {
        let (kv, database, work) = (kv.clone(), database.clone(), work.clone());
        Self::new(kv.clone().layer(), async move {
            kv.layer().turn().await;
            database.store(2, Ordering::SeqCst);
            work.met.store(work.under_way.load(Ordering::SeqCst), Ordering::SeqCst);
            kv.refresh("k", b"2", None).await.unwrap();
        })
    }

    /// Drops the call of `dropped` at one step.
    fn drops(data: &MemoryStore, dropped: &Self) -> Self {
        let gate = gated(data).layer().clone();
        let dropped = dropped.task.as_ref().map(JoinHandle::abort_handle);
        Self::new(&gate.clone(), async move {
            gate.turn().await;
            dropped.inspect(tokio::task::AbortHandle::abort);
        })
    }

    /// Lets as much time pass at one step as a waiting caller sleeps.
    fn lets_time_pass(data: &MemoryStore) -> Self {
        let gate = gated(data).layer().clone();
        Self::new(&gate.clone(), async move {
            gate.turn().await;
            tokio::time::advance(RETRY_DELAY).await;
        })
    }

    fn can_step(&self) -> bool {
        self.gate.waiting() > 0
    }

    fn has_ended(&self) -> bool {
        self.task.as_ref().is_none_or(JoinHandle::is_finished)
    }

    async fn step(&self) {
        self.gate.step();
        settle().await;
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
            if actors.iter().all(Actor::has_ended) {
                return;
            }
            tokio::time::advance(RETRY_DELAY).await;
            settle().await;
        } else {
            ready[choose(ready.len())].step().await;
        }
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
    actors: impl AsyncFn() -> (T, Vec<Actor>),
    check: impl AsyncFn(T, &[usize]),
) -> u32 {
    // Depth first over the choices: each schedule is the one before with its last choice that
    // has an alternative changed.
    let mut schedule: Vec<usize> = Vec::new();
    let mut schedules = 0;
    loop {
        let (state, actors) = actors().await;
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
        for task in actors.into_iter().filter_map(|actor| actor.task) {
            match task.await {
                Err(error) if error.is_cancelled() => {}
                ended => ended.unwrap(),
            }
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

/// Nobody is left aboard, and the lock is free.
async fn assert_tidy(data: &MemoryStore, kv: &Scripted, schedule: &[usize]) {
    assert!(kv.flights().unwrap().is_empty(), "a flight is left after {schedule:?}");
    assert_eq!(data.get(b"k:lock").await.unwrap(), None, "locked after {schedule:?}");
}

#[tokio::test(start_paused = true)]
async fn one_computation_in_every_order() {
    let actors = async || {
        let (data, database) = (MemoryStore::new(), database());
        let (fills, filled) = Actor::fills(&data, &database);
        let invalidates = Actor::invalidates(&gated(&data), &database);
        ((data, filled), vec![fills, invalidates])
    };
    let schedules = every_order(actors, async |(data, filled), schedule| {
        assert!(matches!(&filled.value()[..], b"1" | b"2"));
        assert_fresh(&data, schedule).await;
    })
    .await;
    // Three steps among the six of a computation that meets nobody, at least.
    assert!(schedules >= 84, "{schedules}");
}

#[tokio::test(start_paused = true)]
async fn two_requests_with_one_key_in_every_order() {
    let actors = async || {
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

/// A caller whose computation fails.
fn one_fails(kv: &Scripted) -> (Actor, Caller) {
    let gate = kv.layer().clone();
    Actor::gets(kv, OPTIONS, || async move {
        gate.turn().await;
        Err(Error::new(ErrorKind::Backend, "on purpose"))
    })
}

/// After a failure the next caller computes.
async fn assert_computes(data: &MemoryStore, schedule: &[usize]) {
    let value = data.guarded_get("k", &OPTIONS, || async { Ok::<_, Error>("next") }).await;
    assert_eq!(value.unwrap(), "next", "after {schedule:?}");
}

fn kind(caller: &Caller) -> Option<ErrorKind> {
    caller.outcome()?.as_ref().err().map(Error::kind)
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_computation_that_fails_is_told_so_in_every_order() {
    let actors = async || {
        let (data, database) = (MemoryStore::new(), database());
        let kv = gated(&data);
        let (fails, failed) = one_fails(&kv);
        settle().await;
        // It misses, and boards; whoever calls now waits for it.
        fails.step().await;
        let (waits, waited) = Actor::reads(&gated_beside(&data, &kv), &database);
        settle().await;
        let time = [(); 2].map(|()| Actor::lets_time_pass(&data));
        ((data, kv, failed, waited), [fails, waits].into_iter().chain(time).collect())
    };
    let check = async |(data, kv, failed, waited): (_, _, Caller, Caller), schedule: &[usize]| {
        assert_eq!(kind(&failed), Some(ErrorKind::Backend), "after {schedule:?}");
        assert_eq!(kind(&waited), Some(ErrorKind::Failing), "after {schedule:?}");
        assert!(!waited.has_computed());
        assert_tidy(&data, &kv, schedule).await;
        assert_computes(&data, schedule).await;
    };
    let schedules = every_order(actors, check).await;
    // Two steps of time among the five of a computation that fails, less the lock's release that a
    // look may come after, at least.
    assert!(schedules >= 42, "{schedules}");
}

#[tokio::test(start_paused = true)]
async fn a_computation_that_fails_beside_another_caller_in_every_order() {
    let (told, succeeded) = (Cell::new(0), Cell::new(0));
    let actors = async || {
        let (data, database) = (MemoryStore::new(), database());
        let kv = gated(&data);
        let (fails, failed) = one_fails(&kv);
        let (calls, called) = Actor::reads(&gated_beside(&data, &kv), &database);
        let time = Actor::lets_time_pass(&data);
        ((data, kv, failed, called), vec![fails, calls, time])
    };
    let check = async |(data, kv, failed, called): (_, _, Caller, Caller), schedule: &[usize]| {
        assert_tidy(&data, &kv, schedule).await;
        let expected = failed.has_computed().then_some(ErrorKind::Backend);
        assert_eq!(kind(&failed), expected, "after {schedule:?}");
        if called.has_computed() {
            assert_eq!(called.value(), "1", "after {schedule:?}");
            succeeded.set(succeeded.get() + u32::from(failed.has_computed()));
        } else {
            assert_eq!(kind(&called), Some(ErrorKind::Failing), "after {schedule:?}");
            assert_computes(&data, schedule).await;
            told.set(told.get() + 1);
        }
    };
    let schedules = every_order(actors, check).await;
    assert!(schedules >= 100, "{schedules}");
    assert!(told.get() > 0 && succeeded.get() > 0, "{told:?} told, {succeeded:?} computed after");
}

#[tokio::test(start_paused = true)]
async fn a_leader_dropped_at_every_step_is_succeeded_in_every_order() {
    let (inherited, anew) = (Cell::new(0), Cell::new(0));
    let actors = async || {
        let (data, database) = (MemoryStore::new(), database());
        let kv = gated(&data);
        let (leads, led) = Actor::reads(&kv, &database);
        settle().await;
        // It misses, and boards: the other one waits from here on.
        leads.step().await;
        let (waits, waited) = Actor::reads(&gated_beside(&data, &kv), &database);
        settle().await;
        let drops = Actor::drops(&data, &leads);
        let time = Actor::lets_time_pass(&data);
        ((data, kv, led, waited), vec![leads, waits, drops, time])
    };
    let check = async |(data, kv, led, waited): (MemoryStore, _, Caller, Caller),
                       schedule: &[usize]| {
        assert_eq!(waited.value(), "1", "after {schedule:?}");
        let kept = data.get(b"k").await.unwrap();
        assert_eq!(kept.as_deref(), Some(&b"1"[..]), "after {schedule:?}");
        assert_tidy(&data, &kv, schedule).await;
        if waited.has_computed() {
            assert_eq!(led.outcome().map(|_| ()), None, "two values after {schedule:?}");
            let leases = led.tries_for_the_lock() + waited.tries_for_the_lock();
            let inherits = led.has_computed();
            // The lease of a leader that computed is passed on, not taken again.
            assert!(!inherits || leases == 1, "{leases} leases after {schedule:?}");
            let counted = if inherits { &inherited } else { &anew };
            counted.set(counted.get() + 1);
        }
    };
    let schedules = every_order(actors, check).await;
    assert!(schedules >= 100, "{schedules}");
    assert!(inherited.get() > 0 && anew.get() > 0, "{inherited:?} inherited, {anew:?} anew");
}

/// One caller has waited for a holder in another process until it computes beside it. From there
/// on, both end their work while the data changes.
#[tokio::test(start_paused = true)]
async fn a_computation_beside_a_holder_in_every_order() {
    const SHORT: Duration = Duration::from_secs(1);
    let actors = async || {
        let (data, database) = (MemoryStore::new(), database());
        let gets = |database: &Database| {
            let (kv, gate) = (gated(&data), gated(&data).layer().clone());
            let work = read(database.clone(), gate.clone());
            let (actor, caller) = Actor::gets(&kv, OPTIONS.lock_ttl(SHORT), || work);
            (actor, caller, Actor::gate(&gate))
        };
        let (holder, held, holders_work) = gets(&database);
        while !holders_work.can_step() {
            settle().await;
            holder.step().await;
        }
        let (beside, fell_through, work_beside) = gets(&Arc::new(AtomicU32::new(3)));
        while !work_beside.can_step() {
            tokio::time::advance(RETRY_DELAY).await;
            settle().await;
            for actor in [&holder, &beside] {
                while actor.can_step() {
                    actor.step().await;
                }
            }
        }
        let invalidates = Actor::invalidates(&gated(&data), &database);
        let actors = vec![holder, holders_work, beside, work_beside, invalidates];
        ((data, held, fell_through), actors)
    };
    let check = async |(data, held, fell_through): (MemoryStore, Caller, Caller),
                       schedule: &[usize]| {
        assert_eq!(held.value(), "1");
        assert!(matches!(&fell_through.value()[..], b"1" | b"3"), "after {schedule:?}");
        assert!(held.has_computed() && fell_through.has_computed());
        let kept = data.get(b"k").await.unwrap();
        assert_ne!(kept.as_deref(), Some(&b"3"[..]), "stored from beside after {schedule:?}");
        assert_fresh(&data, schedule).await;
    };
    let schedules = every_order(actors, check).await;
    // The one step beside, and three of the invalidation, among the three of the holder.
    assert!(schedules >= 140, "{schedules}");
}

/// An older value never stays. A value that was on its way to the store already, and one that was
/// computed while the refresh was under way, may be taken back together with the new one. Tells how
/// many orders there are, and in how many of them the refresh met a computation and its value stays.
#[expect(clippy::future_not_send, reason = "a test runs on one thread")]
async fn refresh_beside_a_computation(same_process: bool) -> (u32, u32) {
    let stays = Cell::new(0);
    let actors = async || {
        let (data, database) = (MemoryStore::new(), database());
        let (kv, work) = (gated(&data), Arc::<Work>::default());
        let (fills, filled) = Actor::gets(&kv, OPTIONS, {
            let (database, gate, work) = (database.clone(), kv.layer().clone(), work.clone());
            || async move {
                work.under_way.store(true, Ordering::SeqCst);
                let value = read(database, gate).await;
                work.under_way.store(false, Ordering::SeqCst);
                value
            }
        });
        let refresher = if same_process { gated_beside(&data, &kv) } else { gated(&data) };
        let refreshes = Actor::refreshes(&refresher, &database, &work);
        ((data, kv, filled, work), vec![fills, refreshes])
    };
    let check = async |(data, kv, filled, work): (_, _, Caller, Arc<Work>), schedule: &[usize]| {
        assert!(matches!(&filled.value()[..], b"1" | b"2"), "after {schedule:?}");
        assert_tidy(&data, &kv, schedule).await;
        let kept = data.get(b"k").await.unwrap();
        assert_ne!(kept.as_deref(), Some(&b"1"[..]), "stale after {schedule:?}");
        if work.met.load(Ordering::SeqCst) {
            assert!(!same_process || kept.is_some(), "taken back after {schedule:?}");
            stays.set(stays.get() + u32::from(kept.is_some()));
        }
    };
    let schedules = every_order(actors, check).await;
    (schedules, stays.get())
}

#[tokio::test(start_paused = true)]
async fn a_refresh_beside_a_computation_of_another_process_in_every_order() {
    let (schedules, stays) = refresh_beside_a_computation(false).await;
    println!("{stays} stay");
    // Three steps among the six of a computation that meets nobody, at least.
    assert!(schedules >= 84, "{schedules}");
    assert!(stays > 0, "no order in which the new value stays");
}

#[tokio::test(start_paused = true)]
async fn a_refresh_beside_a_computation_of_its_process_in_every_order() {
    let (schedules, stays) = refresh_beside_a_computation(true).await;
    println!("{stays} stay");
    // Three steps among the five of a computation that is outdated and stores nothing, at least.
    assert!(schedules >= 56, "{schedules}");
    assert!(stays > 0, "no order in which the refresh meets a computation");
}

#[tokio::test(start_paused = true)]
async fn two_processes_with_two_callers_each_in_every_order() {
    let actors = async || {
        let (data, database) = (MemoryStore::new(), database());
        let (mut actors, mut callers) = (Vec::new(), Vec::new());
        for process in 0..2 {
            let kv = gated(&data);
            for kv in [kv.clone(), gated_beside(&data, &kv)] {
                let (actor, caller) = Actor::reads(&kv, &database);
                settle().await;
                // Of one process, the callers have missed and are aboard.
                if process == 0 && actor.can_step() {
                    actor.step().await;
                }
                actors.push(actor);
                callers.push((kv, caller));
            }
        }
        ((data, callers), actors)
    };
    let check = async |(data, callers): (MemoryStore, Vec<(Scripted, Caller)>),
                       schedule: &[usize]| {
        for (kv, caller) in &callers {
            assert_eq!(caller.value(), "1", "after {schedule:?}");
            assert_tidy(&data, kv, schedule).await;
        }
        let computed = callers.iter().filter(|(_, caller)| caller.has_computed()).count();
        assert_eq!(computed, 1, "computations after {schedule:?}");
    };
    let schedules = every_order(actors, check).await;
    assert!(schedules >= 1000, "{schedules}");
}

/// The caller goes away while its value is on the way, after an invalidation.
#[tokio::test(start_paused = true)]
async fn a_caller_dropped_while_storing_takes_its_value_back() {
    let (data, database) = (MemoryStore::new(), database());
    let (mut actor, caller) = Actor::fills(&data, &database);
    settle().await;
    // The look, the lock, the second look and the computation; the value waits.
    for _ in 0..4 {
        actor.step().await;
    }
    data.invalidate("k").await.unwrap();
    actor.step().await;
    actor.task.take().unwrap().abort();
    assert_eq!(actor.gate.calls().last(), Some(&Operation::Set));
    settle().await;
    while actor.can_step() {
        actor.step().await;
    }
    assert!(caller.outcome().is_none());
    assert_eq!(data.get(b"k").await.unwrap(), None, "the value is older than the invalidation");
}

#[tokio::test(start_paused = true)]
async fn two_computations_in_many_orders() {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..3000 {
        let (data, database) = (MemoryStore::new(), database());
        let actors = [
            Actor::fills(&data, &database).0,
            Actor::invalidates(&gated(&data), &database),
            Actor::fills(&data, &database).0,
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
