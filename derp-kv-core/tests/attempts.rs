//! Attempts that vanish: rejected, counted, given up, and never imagined.

mod common;

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use common::scripted::{Failure, Scripted, gated, scripted};
use common::{drop_after, process};
use derp_kv_core::{
    Attempt, Dedup, Error, ErrorKind, Idempotency, KvStore, KvStoreExt, Layer, Layered,
    OnAbandoned, Operation, Outcome, Processed, Reply, Result,
};
use derp_kv_memory::MemoryStore;
use futures_util::FutureExt as _;
use tokio::sync::Notify;

const RECORD: &[u8] = b"derp:idempotency:k";
const LOCK: &[u8] = b"derp:idempotency:k:lock";
const MARKER: &[u8] = b"derp:idempotency:k:attempt";
/// Longer than any lock lasts.
const LATER: Duration = Duration::from_secs(5);

fn reject() -> Idempotency {
    Idempotency::default().on_abandoned(OnAbandoned::Reject)
}

/// What the work of a test comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comes {
    Done,
    Failed,
    /// An answer that is not to be kept.
    Unavailable,
}

/// Runs the call, and counts how often the work began.
async fn call<S: KvStore + Clone>(
    kv: S,
    began: &AtomicU32,
    comes: Comes,
) -> Result<Outcome<Reply>> {
    kv.idempotent_execute("k", &reject(), || async {
        began.fetch_add(1, Ordering::SeqCst);
        tokio::task::yield_now().await;
        match comes {
            Comes::Done => Ok(Reply::new(201, "{}")),
            Comes::Failed => Err(Error::new(ErrorKind::Backend, "the work failed")),
            Comes::Unavailable => Ok(Reply::new(503, "later")),
        }
    })
    .await
}

/// Whoever comes later gets the answer of work that is done, does work that was not begun or said that it
/// failed, and is refused where nobody knows.
async fn assert_decided(
    data: &MemoryStore,
    before: u32,
    began: &AtomicU32,
    comes: Comes,
    at: &str,
) {
    tokio::time::sleep(LATER).await;
    let marked = data.get(MARKER).await.unwrap();
    let is_recorded = data.exists(RECORD).await.unwrap();
    let later = call(process(data), began, Comes::Done).await;
    let again = began.load(Ordering::SeqCst) - before;
    match later {
        Ok(outcome) if is_recorded => {
            assert!(outcome.is_replay && again == 0, "{at}: the work ran again");
            assert_eq!(marked, None, "{at}: a marker beside a record");
        }
        Ok(outcome) => {
            assert!(!outcome.is_replay && again == 1, "{at}");
            assert!(before == 0 || comes != Comes::Done, "{at}: the work ran again");
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Abandoned, "{at}: {error}");
            assert!(!error.is_transient() && error.may_have_applied(), "{at}");
            assert_eq!(again, 0, "{at}: the work ran again");
            assert_eq!(before, 1, "{at}: no work was begun");
        }
    }
    assert!(!data.exists(LOCK).await.unwrap(), "{at}: a lock is left");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_anywhere_was_begun_or_was_not() {
    for comes in [Comes::Done, Comes::Failed, Comes::Unavailable] {
        let mut abandoned = 0;
        for polls in 0.. {
            let (data, began) = (MemoryStore::new(), AtomicU32::new(0));
            let finished = drop_after(polls, call(process(&data), &began, comes)).await;
            let before = began.load(Ordering::SeqCst);
            let at = format!("{comes:?} dropped after {polls} polls");
            assert_decided(&data, before, &began, comes, &at).await;
            abandoned += u32::from(data.exists(MARKER).await.unwrap());
            if finished {
                break;
            }
        }
        // Only between the first poll of the work and its end.
        assert_eq!(abandoned, 1, "{comes:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_anywhere_abandons_no_attempt() {
    for comes in [Comes::Done, Comes::Failed, Comes::Unavailable] {
        for failure in [Failure::Before, Failure::After] {
            for number in 0.. {
                let (data, began) = (MemoryStore::new(), AtomicU32::new(0));
                let kv = scripted(&data);
                kv.layer().fail(number, failure);
                let _ = call(kv.clone(), &began, comes).await;
                let Some(operation) = kv.layer().failed() else { break };
                let before = began.load(Ordering::SeqCst);
                let at = format!("{comes:?}, call {number} ({operation}) failed {failure:?}");
                assert_decided(&data, before, &began, comes, &at).await;
                assert!(!data.exists(MARKER).await.unwrap(), "{at}: it seems to be abandoned");
            }
        }
    }
}

/// One look of somebody in another process, who does not wait.
async fn look(data: &MemoryStore, began: &AtomicU32) -> Option<Result<Outcome<Reply>>> {
    let call = call(process(data), began, Comes::Done);
    tokio::time::timeout(Duration::from_millis(1), call).await.ok()
}

async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

/// The store's calls of one who is dropped after some of them, or ends, come one by one, and somebody
/// else looks after each: the lock must go last.
#[tokio::test(start_paused = true)]
async fn nobody_takes_an_attempt_that_ends_for_one_that_was_abandoned() {
    for comes in [Comes::Failed, Comes::Unavailable] {
        for dropped_after in 0..12 {
            let (data, began, others) = (MemoryStore::new(), AtomicU32::new(0), AtomicU32::new(0));
            let began = Arc::new(began);
            let kv = gated(&data);
            let first = {
                let (kv, began) = (kv.clone(), began.clone());
                tokio::spawn(async move { call(kv, &began, comes).await })
            };
            let (mut was_held, mut ended) = (false, false);
            for step in 0..20 {
                if step == dropped_after {
                    first.abort();
                }
                kv.layer().step();
                settle().await;
                was_held |= data.exists(LOCK).await.unwrap();
                if !was_held && step < dropped_after {
                    continue;
                }
                if let Some(later) = look(&data, &others).await {
                    let at = format!("{comes:?}, dropped after {dropped_after}, at step {step}");
                    assert!(!later.unwrap_or_else(|error| panic!("{at}: {error}")).is_replay);
                    ended = true;
                    break;
                }
            }
            assert!(ended, "{comes:?}: the lock is still held");
            // Work that was begun ended by itself: it needs no call of the store.
            assert!(began.load(Ordering::SeqCst) <= 1 && others.into_inner() == 1);
        }
    }
}

/// Neither the answer to the marker's write nor the look after it comes back.
#[tokio::test(start_paused = true)]
async fn an_attempt_that_could_not_begin_leaves_no_marker() {
    let (data, began) = (MemoryStore::new(), AtomicU32::new(0));
    let kv = Layered::new(data.clone(), LosesTheMarker::default());
    let error = call(kv, &began, Comes::Done).await.unwrap_err();
    assert!(error.may_have_applied() && error.is_transient(), "{error}");
    assert_eq!(began.load(Ordering::SeqCst), 0);
    assert_decided(&data, 0, &began, Comes::Done, "a marker whose write is not known").await;
}

/// Loses the answer to the first write of a marker, and refuses the next call.
#[derive(Clone, Debug, Default)]
struct LosesTheMarker(Arc<AtomicU32>);

impl Layer for LosesTheMarker {
    async fn around<T: Send>(
        &self,
        operation: Operation,
        key: Option<&[u8]>,
        call: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        let error = Error::new(ErrorKind::Timeout, "lost by the test").with_operation(operation);
        if key != Some(MARKER) {
            return call.await;
        }
        match self.0.fetch_add(1, Ordering::SeqCst) {
            0 => {
                call.await?;
                Err(error.with_may_have_applied(true))
            }
            1 => Err(error),
            _ => call.await,
        }
    }
}

/// One who had lost its lease comes back and ends, between any two calls of its successor.
#[tokio::test(start_paused = true)]
async fn nobody_works_beside_one_who_comes_back() {
    for gone_after in 0..8 {
        let (data, began) = (MemoryStore::new(), Arc::new(AtomicU32::new(0)));
        let (has_begun, goes_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let first = {
            let (kv, began) = (process(&data), began.clone());
            let (has_begun, goes_on) = (has_begun.clone(), goes_on.clone());
            tokio::spawn(async move {
                kv.idempotent_execute("k", &reject(), || async {
                    began.fetch_add(1, Ordering::SeqCst);
                    has_begun.notify_one();
                    goes_on.notified().await;
                    Ok::<_, Error>(Reply::new(201, "{}"))
                })
                .await
            })
        };
        has_begun.notified().await;
        // What its expiry would do while it is cut off.
        assert!(data.delete(LOCK).await.unwrap());
        let kv = gated(&data);
        let second = {
            let (kv, began) = (kv.clone(), began.clone());
            tokio::spawn(async move { call(kv, &began, Comes::Done).await })
        };
        let mut step = 0;
        while !second.is_finished() {
            if step == gone_after {
                goes_on.notify_one();
            }
            settle().await;
            kv.layer().step();
            settle().await;
            step += 1;
        }
        goes_on.notify_one();
        assert!(!first.await.unwrap().unwrap().is_replay);
        match second.await.unwrap() {
            Ok(outcome) => assert!(outcome.is_replay, "after {gone_after} calls"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Abandoned, "{error}"),
        }
        assert_eq!(began.load(Ordering::SeqCst), 1, "after {gone_after} calls");
        assert!(call(process(&data), &began, Comes::Done).await.unwrap().is_replay);
        assert!(!data.exists(MARKER).await.unwrap());
    }
}

/// Two callers of one key, in two processes, whose calls of the store come in any order: the one whose
/// attempt is under way, or done, has abandoned nothing.
#[tokio::test(start_paused = true)]
async fn an_attempt_that_is_done_is_not_taken_for_one_that_was_abandoned() {
    for (before, meanwhile, after) in
        (0..9).flat_map(|a| (0..4).flat_map(move |b| (0..9).map(move |c| (a, b, c))))
    {
        let (data, began) = (MemoryStore::new(), Arc::new(AtomicU32::new(0)));
        let (one, two) = (gated(&data), gated(&data));
        let [first, second] = [&one, &two].map(|kv| {
            let (kv, began) = (kv.clone(), began.clone());
            tokio::spawn(async move { call(kv, &began, Comes::Done).await })
        });
        let steps = async |kv: &Scripted, count: u32| {
            for _ in 0..count {
                kv.layer().step();
                settle().await;
            }
        };
        settle().await;
        steps(&one, before).await;
        steps(&two, meanwhile).await;
        steps(&one, after).await;
        steps(&two, 10).await;
        steps(&one, 20).await;
        // Where it found a lock, it looks again.
        while !second.is_finished() {
            two.layer().step();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let at = format!("after {before}, {meanwhile} and {after} calls");
        let ends = [first.await.unwrap(), second.await.unwrap()];
        let replays = ends.map(|end| end.unwrap_or_else(|error| panic!("{at}: {error}")).is_replay);
        assert_ne!(replays[0], replays[1], "{at}");
        assert_eq!(began.load(Ordering::SeqCst), 1, "{at}");
    }
}

/// Refuses all that concerns the marker until told otherwise, with the first write applied.
#[derive(Clone, Debug, Default)]
struct Unreachable(Arc<AtomicU32>);

impl Layer for Unreachable {
    async fn around<T: Send>(
        &self,
        operation: Operation,
        key: Option<&[u8]>,
        call: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        if key != Some(MARKER) || self.0.load(Ordering::SeqCst) == 0 {
            return call.await;
        }
        let error = Error::new(ErrorKind::Unavailable, "cut off by the test");
        Err(error.with_operation(operation))
    }
}

/// The store is away for longer than any lock lasts while an attempt ends: whoever comes in between waits,
/// and whoever comes later does the work.
#[tokio::test(start_paused = true)]
async fn a_long_outage_makes_no_failed_work_seem_abandoned() {
    for comes in [Comes::Failed, Comes::Unavailable] {
        let (data, began) = (MemoryStore::new(), AtomicU32::new(0));
        let layer = Unreachable::default();
        let cut_off = layer.0.clone();
        let kv = Layered::new(data.clone(), layer);
        let _ = kv
            .idempotent_execute("k", &reject(), || async {
                cut_off.store(1, Ordering::SeqCst);
                match comes {
                    Comes::Failed => Err(Error::new(ErrorKind::Backend, "the work failed")),
                    _ => Ok(Reply::new(503, "later")),
                }
            })
            .await;
        for _ in 0..10 {
            let error = call(process(&data), &began, Comes::Done).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InProgress, "{error}");
        }
        cut_off.store(0, Ordering::SeqCst);
        tokio::time::sleep(LATER).await;
        assert!(!call(process(&data), &began, Comes::Done).await.unwrap().is_replay);
        assert_eq!(began.into_inner(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn work_that_does_not_know_says_so() {
    let data = MemoryStore::new();
    let unknown = |attempt: Attempt| async move {
        attempt.abandon();
        Err::<Reply, _>(Error::new(ErrorKind::Timeout, "the provider did not answer"))
    };
    let error = process(&data).idempotent_execute_with("k", &reject(), unknown).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    let began = AtomicU32::new(0);
    let error = call(process(&data), &began, Comes::Done).await.unwrap_err();
    assert_eq!((error.kind(), began.into_inner()), (ErrorKind::Abandoned, 0));
}

/// A side effect that goes on by itself, in the process in which another caller works by now.
#[tokio::test(start_paused = true)]
async fn an_attempt_is_lost_to_what_it_left_behind() {
    let data = MemoryStore::new();
    let kv = process(&data);
    let (sender, mut attempts) = tokio::sync::mpsc::unbounded_channel();
    let hangs = |attempt: Attempt| {
        let sender = sender.clone();
        async move {
            sender.send(attempt).unwrap();
            pending::<Result<u32>>().await
        }
    };
    let options = Idempotency::default();
    let first = {
        let mut first = Box::pin(kv.idempotent_execute_with("k", &options, hangs));
        tokio::select! {
            _ = &mut first => unreachable!(),
            attempt = attempts.recv() => attempt.unwrap()
        }
    };
    let mut second = Box::pin(kv.idempotent_execute_with("k", &options, hangs));
    let second = tokio::select! {
        _ = &mut second => unreachable!(),
        attempt = attempts.recv() => attempt.unwrap()
    };
    assert!(first.is_lost() && !second.is_lost());
    first.lost().await;
    assert_ne!(first.token(), second.token());
    assert_eq!((first.number(), second.number()), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn the_callers_that_wait_hear_that_the_attempt_was_abandoned() {
    let data = MemoryStore::new();
    let (kv, other) = (process(&data), process(&data));
    let began = Arc::new(Notify::new());
    let leader = {
        let (kv, began) = (kv.clone(), began.clone());
        tokio::spawn(async move {
            let work = || async {
                began.notify_one();
                pending::<Result<u32>>().await
            };
            kv.idempotent_execute("k", &reject(), work).await
        })
    };
    began.notified().await;
    let waiters: Vec<_> = [kv.clone(), kv.clone(), kv.clone(), other]
        .map(|kv| {
            tokio::spawn(async move {
                let work = || async { Ok::<u32, Error>(2) };
                kv.idempotent_execute("k", &reject(), work).await
            })
        })
        .into();
    tokio::time::sleep(Duration::from_millis(500)).await;
    leader.abort();
    for waiter in waiters {
        let error = waiter.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Abandoned, "{error}");
    }
    assert!(!data.exists(LOCK).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn work_that_panics_is_abandoned() {
    let data = MemoryStore::new();
    let work = || async { panic!("on purpose") };
    let kv = process(&data);
    let options = reject();
    let call = kv.idempotent_execute::<_, u32, _, _, Error>("k", &options, work);
    assert!(std::panic::AssertUnwindSafe(call).catch_unwind().await.is_err());
    let began = AtomicU32::new(0);
    let error = self::call(kv, &began, Comes::Done).await.unwrap_err();
    assert_eq!((error.kind(), began.into_inner()), (ErrorKind::Abandoned, 0));
}

/// Answers with the attempt's number, or fails.
async fn count<S: KvStore + Clone>(kv: &S, options: &Idempotency, fails: bool) -> Result<u32> {
    let work = |attempt: Attempt| async move {
        if fails { Err(Error::new(ErrorKind::Backend, "failed")) } else { Ok(attempt.number()) }
    };
    kv.idempotent_execute_with("k", options, work).await.map(|outcome| outcome.body)
}

#[tokio::test(start_paused = true)]
async fn attempts_that_failed_or_vanished_are_counted() {
    for options in [Idempotency::default(), reject()] {
        let data = MemoryStore::new();
        for _ in 0..3 {
            count(&process(&data), &options, true).await.unwrap_err();
        }
        assert_eq!(data.get(MARKER).await.unwrap().as_deref(), Some(&b"3"[..]));
        assert_eq!(count(&process(&data), &options, false).await.unwrap(), 4);
        assert!(!data.exists(MARKER).await.unwrap());
        // A replay.
        assert_eq!(count(&process(&data), &options, false).await.unwrap(), 4);
    }
    let data = MemoryStore::new();
    let began = Notify::new();
    let hangs = |_| async {
        began.notify_one();
        pending::<Result<u32>>().await
    };
    let options = Idempotency::default();
    let kv = process(&data);
    tokio::select! {
        _ = kv.idempotent_execute_with("k", &options, hangs) => unreachable!(),
        () = began.notified() => {}
    }
    assert_eq!(count(&process(&data), &Idempotency::default(), false).await.unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_knows_its_lease() {
    let data = MemoryStore::new();
    let work = async |attempt: Attempt| {
        let lock = data.get(LOCK).await?.expect("the lock is held");
        assert_eq!(lock, attempt.token());
        assert!(!attempt.is_lost());
        assert!(data.delete(LOCK).await?);
        attempt.lost().await;
        assert!(attempt.is_lost());
        // Somebody else comes meanwhile, and learns that nobody knows.
        let began = AtomicU32::new(0);
        let error = call(process(&data), &began, Comes::Done).await.unwrap_err();
        assert_eq!((error.kind(), began.into_inner()), (ErrorKind::Abandoned, 0));
        Ok::<_, Error>(attempt)
    };
    let mut seen = None;
    let kv = process(&data);
    let outcome = kv
        .idempotent_execute_with("k", &reject(), |attempt| async {
            seen = Some(work(attempt).await?);
            Ok::<_, Error>(Reply::new(201, "{}"))
        })
        .await
        .unwrap();
    assert!(!outcome.is_replay && seen.unwrap().is_lost());
    // It came back, and what it did counts.
    assert!(call(process(&data), &AtomicU32::new(0), Comes::Done).await.unwrap().is_replay);
    assert!(!data.exists(MARKER).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn what_was_abandoned_is_forgotten_on_request_and_not_while_it_is_under_way() {
    let data = MemoryStore::new();
    let (began, kv) = (Notify::new(), process(&data));
    let hangs = || async {
        began.notify_one();
        pending::<Result<u32>>().await
    };
    let options = reject();
    {
        let mut abandoned = Box::pin(kv.idempotent_execute("k", &options, hangs));
        tokio::select! {
            _ = &mut abandoned => unreachable!(),
            () = began.notified() => {}
        }
        let error = process(&data).idempotent_forget("k", &options).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InProgress);
        assert!(error.retry_after().is_some());
    }
    tokio::time::sleep(LATER).await;
    assert!(process(&data).idempotent_forget("k", &options).await.unwrap());
    assert!(!process(&data).idempotent_forget("k", &options).await.unwrap());
    let runs = AtomicU32::new(0);
    assert!(!call(process(&data), &runs, Comes::Done).await.unwrap().is_replay);
    // What is done is not forgotten.
    assert!(!process(&data).idempotent_forget("k", &options).await.unwrap());
    assert!(call(process(&data), &runs, Comes::Done).await.unwrap().is_replay);
    assert_eq!(runs.into_inner(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_marker_that_cannot_be_decoded_stays_and_nothing_runs() {
    let data = MemoryStore::new();
    for hostile in [&b""[..], b":", b"x", b"-1:0", b"4294967296", b"\xff\xfe", b"{\"n\":1}"] {
        data.set(MARKER, hostile, None).await.unwrap();
        let began = AtomicU32::new(0);
        let error = call(process(&data), &began, Comes::Done).await.unwrap_err();
        assert_eq!((error.kind(), began.into_inner()), (ErrorKind::Corrupt, 0));
        assert_eq!(data.get(MARKER).await.unwrap().as_deref(), Some(hostile));
        assert!(!data.exists(LOCK).await.unwrap());
    }
}

const EVENT: &[u8] = b"derp:webhook:evt";
const EVENT_MARKER: &[u8] = b"derp:webhook:evt:attempt";

/// Handles the event, and fails.
async fn deliver<S: KvStore + Clone>(
    kv: S,
    runs: &AtomicU32,
    gives_up: u32,
) -> Result<Processed<()>> {
    kv.process_once("evt", &Dedup::default().give_up_after(gives_up), || async {
        runs.fetch_add(1, Ordering::SeqCst);
        tokio::task::yield_now().await;
        Err(Error::new(ErrorKind::Backend, "the handler failed"))
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn an_event_that_always_fails_is_handled_so_many_times() {
    for gives_up in [1, 2, 5] {
        let (data, runs) = (MemoryStore::new(), AtomicU32::new(0));
        for _ in 0..gives_up {
            assert!(!data.exists(EVENT).await.unwrap());
            let error = deliver(process(&data), &runs, gives_up).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Backend);
        }
        let record = format!("gave_up:{gives_up}");
        assert_eq!(data.get(EVENT).await.unwrap().as_deref(), Some(record.as_bytes()));
        assert!(!data.exists(EVENT_MARKER).await.unwrap());
        for _ in 0..3 {
            let given_up = deliver(process(&data), &runs, gives_up).await.unwrap();
            assert_eq!(given_up, Processed::GivenUp { attempts: gives_up });
        }
        assert_eq!(runs.into_inner(), gives_up);
        assert!(data.already_processed("evt", &Dedup::default()).await.unwrap());
    }
    let error = deliver(process(&MemoryStore::new()), &AtomicU32::new(0), 0).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
}

#[tokio::test(start_paused = true)]
async fn an_event_that_takes_its_process_along_is_given_up_as_well() {
    let (data, runs) = (MemoryStore::new(), AtomicU32::new(0));
    for polls in 0.. {
        let before = runs.load(Ordering::SeqCst);
        assert!(before <= 3, "it was handled too often");
        if before == 3 {
            break;
        }
        drop_after(polls, deliver(process(&data), &runs, 3)).await;
        tokio::time::sleep(LATER).await;
    }
    let given_up = deliver(process(&data), &runs, 3).await.unwrap();
    assert_eq!((given_up, runs.into_inner()), (Processed::GivenUp { attempts: 3 }, 3));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_lets_no_handler_run_more_often() {
    for failure in [Failure::Before, Failure::After] {
        for number in 0.. {
            let (data, runs) = (MemoryStore::new(), AtomicU32::new(0));
            let kv = scripted(&data);
            kv.layer().fail(number, failure);
            let mut given_up = None;
            for _ in 0..20 {
                if let Ok(Processed::GivenUp { attempts }) = deliver(kv.clone(), &runs, 2).await {
                    given_up = Some(attempts);
                    break;
                }
                tokio::time::sleep(LATER).await;
            }
            let at = format!("call {number} failed {failure:?}");
            assert_eq!((given_up, runs.into_inner()), (Some(2), 2), "{at}");
            if kv.layer().failed().is_none() {
                break;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_that_was_given_up_is_handled_after_all_on_request() {
    let (data, runs) = (MemoryStore::new(), AtomicU32::new(0));
    let options = Dedup::default().give_up_after(2);
    for _ in 0..2 {
        deliver(process(&data), &runs, 2).await.unwrap_err();
    }
    assert!(process(&data).process_forget("evt", &options).await.unwrap());
    assert!(!process(&data).process_forget("evt", &options).await.unwrap());
    let handler = |attempt: Attempt| async move { Ok::<_, Error>(attempt.number()) };
    let processed = process(&data).process_once_with("evt", &options, handler).await.unwrap();
    assert_eq!(processed, Processed::Now(1));
    // What was processed stays so.
    assert!(!process(&data).process_forget("evt", &options).await.unwrap());
    let handler = |attempt: Attempt| async move { Ok::<_, Error>(attempt.number()) };
    let processed = process(&data).process_once_with("evt", &options, handler).await.unwrap();
    assert_eq!(processed, Processed::Before);
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_succeeds_at_last_ends_the_count() {
    let (data, runs) = (MemoryStore::new(), AtomicU32::new(0));
    for _ in 0..2 {
        deliver(process(&data), &runs, 3).await.unwrap_err();
    }
    let options = Dedup::default().give_up_after(3);
    let handler = |attempt: Attempt| async move { Ok::<_, Error>(attempt.number()) };
    let processed = process(&data).process_once_with("evt", &options, handler).await.unwrap();
    assert_eq!(processed, Processed::Now(3));
    assert_eq!(data.get(EVENT).await.unwrap().as_deref(), Some(&b"1"[..]));
    assert!(!data.exists(EVENT_MARKER).await.unwrap());
}
