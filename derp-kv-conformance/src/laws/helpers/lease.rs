use std::time::Duration;

use derp_kv_core::{KvStore, KvStoreExt, Lock};

use super::succession::Stalls;
use super::{LOCK, LONG, Runs, until_absent};
use crate::bench::{Bench, LawResult, at_once};
use crate::violation::{Violation, ensure, ensure_eq};

pub(crate) fn leases_exclude(bench: &Bench<'_>) -> LawResult {
    bench.long_race(async |scene, round| {
        let handles = scene.handles(3).await?;
        let (inside, entered) = (Runs::default(), Runs::default());
        let callers = (0..6).map(|caller| handles[caller % 3].clone());
        at_once(callers, |_, kv| {
            let (inside, entered) = (inside.clone(), entered.clone());
            async move {
                let lease = kv.lock(format!("{round}"), &Lock::new(LONG).at_most(LONG / 4)).await?;
                ensure_eq!(inside.begin(), 0, "the number of other holders");
                entered.begin();
                tokio::task::yield_now().await;
                inside.0.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                ensure!(lease.release().await?, "a lease was not its holder's to the end");
                Ok(())
            }
        })
        .await?;
        ensure_eq!(entered.count(), 6, "the number of callers that had the lease");
        Ok(())
    })
}

pub(crate) fn leases_are_renewed(bench: &Bench<'_>) -> LawResult {
    bench.scenario(async |scene| {
        let handles = scene.handles(2).await?;
        let stalls = Stalls::watched(scene.is_virtual());
        let lease = handles[0].try_lock("k", LOCK).await?;
        let lease = lease.ok_or_else(|| Violation::new("a free lease was refused"))?;
        // Longer than the lease lasts by itself.
        for _ in 0..15 {
            tokio::time::sleep(LOCK / 10).await;
            let other = handles[1].try_lock("k", LOCK).await?;
            let kept = other.is_none() || stalls.may_end(LOCK);
            ensure!(kept, "a lease was taken from its living holder");
        }
        let lost = lease.is_lost() && !stalls.may_end(LOCK);
        ensure!(!lost, "a lease is lost though it is renewed");
        let kept = lease.release().await? || stalls.may_end(LOCK);
        ensure!(kept, "the lease was not its holder's to the end");
        Ok(())
    })
}

pub(crate) fn leases_are_freed_by_their_owner(bench: &Bench<'_>) -> LawResult {
    bench.scenario(async |scene| {
        let handles = scene.handles(2).await?;
        let take = async |number: usize| {
            let lease = handles[number].try_lock("k", LOCK).await?;
            lease.ok_or_else(|| Violation::new("a free lease was refused"))
        };
        let (older, dropped) = (take(0).await?, "k:lock".as_bytes());
        // An operator frees it by hand, and another holder takes it.
        scene.store.delete(dropped).await?;
        let newer = take(1).await?;
        ensure!(older.token() != newer.token(), "two leases have one token");
        let told = tokio::time::timeout(LOCK * 10, older.lost()).await;
        ensure!(told.is_ok() && older.is_lost(), "the holder was not told that its lease is lost");
        ensure_eq!(older.release().await?, false, "whether the lost lease was kept to the end");
        let found = scene.store.get(dropped).await?;
        let kept = found.is_some_and(|value| value.starts_with(newer.token().as_bytes()));
        ensure!(kept, "a holder that lost its lease freed its successor's");
        // A dropped lease is free at once, far before it expires.
        drop(newer);
        until_absent(&scene.store, dropped).await?;
        let lease = handles[0].try_lock("k", LONG).await?;
        drop(lease.ok_or_else(|| Violation::new("a dropped lease is not free"))?);
        until_absent(&scene.store, dropped).await?;
        // A holder that crashed holds it for its TTL.
        let ttl = Duration::from_millis(200);
        scene.store.set(dropped, b"the token of the dead", Some(ttl)).await?;
        let lease = handles[1].lock("k", &Lock::new(LOCK).at_most(LONG / 4)).await?;
        ensure!(lease.release().await?, "the lease was not its holder's to the end");
        Ok(())
    })
}

pub(crate) fn leases_outlive_blocked_work(bench: &Bench<'_>) -> LawResult {
    let ttl = Duration::from_millis(800);
    bench.real_scenario(async |scene| {
        let kv = scene.handles(1).await?.remove(0);
        if kv.runtime().is_none() {
            // The lease is then renewed on the runtime of its holder, and the documentation says so.
            return Ok(());
        }
        let stalls = Stalls::watched(false);
        let work = async move {
            let lease = kv.try_lock("k", ttl).await?;
            let lease = lease.ok_or_else(|| Violation::new("a free lease was refused"))?;
            // After an await the thread may be the one that keeps the runtime's timers.
            tokio::time::sleep(Duration::from_millis(5)).await;
            std::thread::sleep(ttl * 2);
            Ok::<_, Violation>(lease.release().await?)
        };
        let kept = tokio::spawn(work).await??;
        let kept = kept || stalls.may_end(ttl);
        ensure!(kept, "work that blocked its thread for longer than its lease has lost it");
        Ok(())
    })
}
