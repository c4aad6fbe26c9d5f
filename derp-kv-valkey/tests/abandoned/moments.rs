//! A process is killed at each moment that matters, one after the other.

use std::time::Duration;

use derp_kv_core::{KvStore, KvStoreExt, OnAbandoned};
use futures_util::stream::{self, StreamExt};

use crate::common::stage::Stage;
use crate::work::{End, Job, Moment, Process, Told, effects, options, state};

/// How many processes are started side by side.
const AT_ONCE: usize = 4;

/// Starts a process that stops at this moment, and kills it there.
async fn kill_at(stage: &Stage, role: &str, on: OnAbandoned, key: &str, moment: Moment) {
    let keys = [key.to_owned()];
    let job = Job { role, on, keys: &keys, fresh: "", stop: Some(moment) };
    let mut process = Process::start(stage, &job);
    while let Some(told) = process.told().await {
        if told == Told::Stopped {
            process.kill().await;
            return;
        }
        assert!(matches!(told, Told::Begins(_)), "{told:?} before {moment:?}");
    }
    panic!("a process ended before {moment:?}");
}

/// What another process hears that tries again, and how often the work was done by then.
async fn retry(stage: &Stage, on: OnAbandoned, key: &str) -> (End, i64) {
    let keys = [key.to_owned()];
    let job = Job { role: "settles", on, keys: &keys, fresh: "", stop: None };
    let told = Process::start(stage, &job).succeeds().await;
    let Some(Told::Ends(_, end)) = told.last() else { panic!("no end: {told:?}") };
    (*end, effects(&stage.control, &[key]).await[0])
}

#[tokio::test]
async fn at_each_moment_it_is_known_whether_the_work_may_have_been_done() {
    use End::{Abandoned, Ran, Replayed};
    use Moment::{Before, Effect, Returned, Work};
    use OnAbandoned::{Reject, Rerun};
    // On its way a first call reads, locks, marks, reads again, works, records, unlocks and unmarks.
    let moments = [
        (Reject, Before(1), (Ran, 1)),
        (Reject, Before(2), (Ran, 1)),
        (Reject, Before(3), (Ran, 1)),
        // Nobody can tell it from one that was killed a moment later.
        (Reject, Before(4), (Abandoned, 0)),
        (Reject, Work, (Abandoned, 0)),
        (Reject, Effect, (Abandoned, 1)),
        (Reject, Before(5), (Abandoned, 1)),
        (Reject, Before(6), (Replayed, 1)),
        (Reject, Before(7), (Replayed, 1)),
        (Reject, Returned, (Replayed, 1)),
        (Rerun, Before(1), (Ran, 1)),
        (Rerun, Before(2), (Ran, 1)),
        (Rerun, Before(3), (Ran, 1)),
        (Rerun, Work, (Ran, 1)),
        (Rerun, Effect, (Ran, 2)),
        (Rerun, Before(4), (Ran, 2)),
        (Rerun, Before(5), (Replayed, 1)),
        (Rerun, Returned, (Replayed, 1)),
    ];
    let stage = Stage::open().await;
    let stage = &stage;
    stream::iter(moments.into_iter().enumerate())
        .for_each_concurrent(AT_ONCE, |(number, (on, moment, expected))| async move {
            let key = format!("moment-{number}");
            kill_at(stage, "settles", on, &key, moment).await;
            let first = retry(stage, on, &key).await;
            assert_eq!(first, expected, "killed at {moment:?} with {on:?}");
            // It stays so, whoever asks.
            let stays = (if first.0 == Ran { Replayed } else { first.0 }, first.1);
            assert_eq!(retry(stage, on, &key).await, stays, "killed at {moment:?} with {on:?}");
        })
        .await;
}

/// Leaves an attempt behind that was abandoned when its effect was done, and waits for the end of its lock.
async fn abandon(stage: &Stage, key: &str) {
    kill_at(stage, "settles", OnAbandoned::Reject, key, Moment::Effect).await;
    let lock = format!("derp:idempotency:{key}:lock");
    while let Some(token) = stage.kv.get(lock.as_bytes()).await.unwrap() {
        let at_most = Duration::from_millis(50);
        stage.kv.wait_for_change(lock.as_bytes(), Some(&token), at_most).await;
    }
    assert_eq!(state(&stage.kv, key).await, [false, true, false]);
}

/// Who is rejected changes nothing, also if it is killed on its way.
#[tokio::test]
async fn a_process_that_is_killed_while_it_is_rejected_changes_nothing() {
    let stage = Stage::open().await;
    let stage = &stage;
    // It reads, locks, tries to mark, reads the marker, reads again and unlocks.
    stream::iter(1..=6)
        .for_each_concurrent(AT_ONCE, |command| async move {
            let key = format!("rejected-{command}");
            abandon(stage, &key).await;
            let moment = Moment::Before(command);
            kill_at(stage, "settles", OnAbandoned::Reject, &key, moment).await;
            let after = retry(stage, OnAbandoned::Reject, &key).await;
            assert_eq!(after, (End::Abandoned, 1), "killed before command {command}");
        })
        .await;
}

/// Forgetting is done or not: if not, the work stays rejected, and otherwise it is done once more.
#[tokio::test]
async fn a_process_that_is_killed_while_it_forgets_has_forgotten_or_not() {
    let stage = Stage::open().await;
    let stage = &stage;
    // It locks, reads the marker, deletes it and unlocks.
    let moments = [
        (Moment::Before(1), false),
        (Moment::Before(2), false),
        (Moment::Before(3), false),
        (Moment::Before(4), true),
        (Moment::Returned, true),
    ];
    stream::iter(moments.into_iter().enumerate())
        .for_each_concurrent(AT_ONCE, |(number, (moment, is_forgotten))| async move {
            let key = format!("forgotten-{number}");
            abandon(stage, &key).await;
            kill_at(stage, "forgets", OnAbandoned::Reject, &key, moment).await;
            let (end, effects) = retry(stage, OnAbandoned::Reject, &key).await;
            if is_forgotten {
                assert_eq!((end, effects), (End::Ran, 2), "killed at {moment:?}");
                return;
            }
            assert_eq!((end, effects), (End::Abandoned, 1), "killed at {moment:?}");
            let options = options(OnAbandoned::Reject);
            assert!(stage.kv.idempotent_forget(&key, &options).await.unwrap());
            assert_eq!(retry(stage, OnAbandoned::Reject, &key).await, (End::Ran, 2));
        })
        .await;
}
