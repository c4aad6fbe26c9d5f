mod stalls;

use std::time::Duration;

use bytes::Bytes;
use derp_kv_core::{Error, GuardedGet, KvStore, KvStoreExt};
use futures_util::future::try_join_all;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

pub(super) use self::stalls::Stalls;
use super::{LONG, Runs, lock_ttl};
use crate::bench::{Bench, LawResult};
use crate::erased::Store;
use crate::model::{Deadline, Known, Span};
use crate::violation::{Violation, ensure, ensure_eq};

const TOKEN: &[u8] = b"the token of the dead";

/// A successor's computation: long enough for another one to begin beside it.
const SUCCESSION: Duration = Duration::from_millis(300);

/// Holds the lock as a living holder does, which took it with the `deadline`, until it dies. Tells
/// when the lock ends then.
///
/// On a machine that stalls, the holder may come too late to renew it, and dies of that.
async fn hold_and_die(
    kv: &Store,
    lock: &[u8],
    lives: Duration,
    mut deadline: Deadline,
    slack: Duration,
) -> Result<Deadline, Violation> {
    let began = Instant::now();
    let mut renewal = lock_ttl() / 3;
    while renewal <= lives {
        sleep_until(began + renewal).await;
        let renewed = kv.compare_and_set(lock, TOKEN, TOKEN, Some(lock_ttl()));
        let (renewed, span) = Span::of(renewed).await;
        if !renewed? {
            let lost = deadline.seen_by(span, slack) == Known::Present;
            ensure!(!lost, "a living holder has lost its lock");
            break;
        }
        deadline = Deadline::new(lock_ttl(), span);
        renewal += lock_ttl() / 3;
    }
    Ok(deadline)
}

/// Callers in several processes wait for a holder that dies after `lives`.
async fn succeed(
    processes: &[Store],
    lives: Duration,
    slack: Duration,
    stalls: &Stalls,
) -> Result<(), Violation> {
    let key = format!("{}", lives.as_millis());
    let lock = format!("{key}:lock");
    let other = &processes[0];
    let (set, span) = Span::of(other.set(lock.as_bytes(), TOKEN, Some(lock_ttl()))).await;
    set?;
    let began = Instant::now();
    let runs = Runs::default();
    let mut callers = JoinSet::new();
    for number in 0..processes.len() * 2 {
        let (kv, key, runs) =
            (processes[number % processes.len()].clone(), key.clone(), runs.clone());
        callers.spawn(async move {
            let work = || async {
                runs.begin();
                let begun = began.elapsed();
                sleep(SUCCESSION).await;
                Ok::<_, Error>(Bytes::from(begun.as_millis().to_string()))
            };
            kv.guarded_get(&key, &GuardedGet::new(LONG).lock_ttl(lock_ttl()), work).await
        });
    }
    let deadline = Deadline::new(lock_ttl(), span);
    let deadline = hold_and_die(other, lock.as_bytes(), lives, deadline, slack).await?;
    let expires = deadline.earliest().saturating_duration_since(began);
    while let Some(value) = callers.join_next().await {
        let value = value??;
        let begun = std::str::from_utf8(&value).ok().and_then(|begun| begun.parse().ok());
        let begun = Duration::from_millis(begun.unwrap_or(0));
        ensure!(
            begun + Duration::from_millis(20) >= expires,
            "a holder died after {lives:?}, and was succeeded after {begun:?}; its lock expires \
             after {expires:?}"
        );
    }
    if stalls.may_end(lock_ttl()) {
        // The successor may have lost the lock in its turn.
        return Ok(());
    }
    ensure_eq!(runs.count(), 1, "the number of successors of a holder that died after {lives:?}");
    Ok(())
}

pub(crate) fn guarded_get_succeeds_the_dead(bench: &Bench<'_>) -> LawResult {
    bench.scenario(async |scene| {
        let processes = scene.handles(6).await?;
        // Before the first renewal, between any two, and just before it has been waited for.
        let lives = [0, 20, 40, 60, 80, 95].map(|percent| lock_ttl() * percent / 100);
        let (slack, stalls) = (scene.slack(), Stalls::watched(scene.is_virtual()));
        try_join_all(lives.map(|lives| succeed(&processes, lives, slack, &stalls))).await?;
        Ok(())
    })
}
