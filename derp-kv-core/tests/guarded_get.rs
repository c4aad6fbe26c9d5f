//! `guarded_get` on the in-memory store, in virtual time.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use common::{forms_of, process};
use derp_kv_core::{Error, ErrorKind, GuardedGet, KvStore, KvStoreExt};
use derp_kv_memory::MemoryStore;
use futures_util::future::join_all;

const TTL: Duration = Duration::from_secs(300);
const SLOW: Duration = Duration::from_millis(500);

const OPTIONS: GuardedGet = GuardedGet::new(TTL);

#[derive(Debug, thiserror::Error)]
enum OwnError {
    #[error(transparent)]
    Store(#[from] Error),
    #[error("the database is down")]
    Database,
}

#[tokio::test(start_paused = true)]
async fn every_form_of_a_store_serves_callers_with_their_own_errors() {
    for kv in forms_of(MemoryStore::new()) {
        let page = tokio::spawn({
            let kv = kv.clone();
            async move {
                let page = kv.guarded_get(b"k", &OPTIONS, || async { anyhow::Ok("page") }).await?;
                anyhow::Ok(page)
            }
        });
        assert_eq!(page.await.unwrap().unwrap(), "page");
        let again =
            kv.guarded_get("k", &OPTIONS, || async { Err::<String, _>(OwnError::Database) });
        assert_eq!(again.await.unwrap(), "page");
        let failed =
            kv.guarded_get("other", &OPTIONS, || async { Err::<String, _>(OwnError::Database) });
        assert!(matches!(failed.await, Err(OwnError::Database)));
        let refused: Result<_, OwnError> =
            kv.guarded_get("k:lock", &OPTIONS, || async { Ok("never") }).await;
        let Err(OwnError::Store(error)) = refused else { panic!("a reserved key was taken") };
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    }
}

#[tokio::test(start_paused = true)]
async fn a_herd_in_two_processes_makes_one_computation() {
    let data = MemoryStore::new();
    let computed = Arc::new(AtomicU32::new(0));
    let processes = [process(&data), process(&data)];
    let calls = processes.iter().flat_map(|process| {
        (0..500).map(|_| {
            let (kv, computed) = (process.clone(), computed.clone());
            tokio::spawn(async move {
                kv.guarded_get("cold", &OPTIONS, || async {
                    tokio::time::sleep(SLOW).await;
                    computed.fetch_add(1, Ordering::SeqCst);
                    Ok::<_, Error>("value")
                })
                .await
            })
        })
    });
    for value in join_all(calls.collect::<Vec<_>>()).await {
        assert_eq!(value.unwrap().unwrap(), "value");
    }
    assert_eq!(computed.load(Ordering::SeqCst), 1);
    for process in &processes {
        assert!(process.flights().unwrap().is_empty());
    }
    assert!(!data.exists(b"cold:lock").await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn an_error_goes_to_its_caller_and_everybody_else_is_told_at_once() {
    let kv = MemoryStore::new();
    let runs = AtomicU32::new(0);
    let call = || {
        kv.guarded_get("k", &OPTIONS, || async {
            tokio::time::sleep(SLOW).await;
            match runs.fetch_add(1, Ordering::SeqCst) {
                0 => Err(OwnError::Database),
                _ => Ok("value"),
            }
        })
    };
    let began = tokio::time::Instant::now();
    let mut results = join_all((0..500).map(|_| call())).await;
    assert_eq!(began.elapsed(), SLOW);
    assert_eq!(runs.load(Ordering::SeqCst), 1);
    results.retain(|result| !matches!(result, Err(OwnError::Database)));
    assert_eq!(results.len(), 499);
    for result in results {
        let Err(OwnError::Store(error)) = result else { panic!("{result:?}") };
        assert_eq!((error.kind(), error.is_transient()), (ErrorKind::Failing, true));
        assert_eq!(error.retry_after(), Some(Duration::ZERO));
    }
    assert!(!kv.exists(b"k:lock").await.unwrap() && kv.flights().unwrap().is_empty());
    assert_eq!(call().await.unwrap(), "value");
}

#[tokio::test(start_paused = true)]
async fn a_panic_leaves_nothing_behind_and_the_next_one_computes() {
    let kv = MemoryStore::new();
    let leader = tokio::spawn({
        let kv = kv.clone();
        async move {
            kv.guarded_get("k", &OPTIONS, || async {
                tokio::time::sleep(SLOW).await;
                assert!(std::hint::black_box(false), "the computation panics");
                Ok::<_, Error>("never")
            })
            .await
        }
    });
    tokio::task::yield_now().await;
    let follower = kv.guarded_get("k", &OPTIONS, || async { Ok::<_, Error>("value") }).await;
    assert_eq!(follower.unwrap(), "value");
    assert!(leader.await.unwrap_err().is_panic());
    assert!(kv.flights().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_caller_dropped_at_any_point_hands_over_at_once() {
    for polls in 0.. {
        let data = MemoryStore::new();
        let (dropped, next) = (process(&data), process(&data));
        let began = tokio::time::Instant::now();
        let call = dropped.guarded_get("k", &OPTIONS, || async {
            tokio::task::yield_now().await;
            Ok::<_, Error>("first")
        });
        let finished = common::drop_after(polls, call).await;
        let value = next.guarded_get("k", &OPTIONS, || async { Ok::<_, Error>("second") }).await;
        assert!(matches!(&value.unwrap()[..], b"first" | b"second"));
        assert!(began.elapsed() < Duration::from_millis(200), "after {polls} polls");
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(!data.exists(b"k:lock").await.unwrap(), "after {polls} polls");
        assert!(dropped.flights().unwrap().is_empty());
        if finished {
            assert!(polls > 5, "the call was dropped at {polls} points only");
            break;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_dead_holder_is_succeeded_by_exactly_one() {
    let data = MemoryStore::new();
    // A holder that crashed: its lock is there, and nobody renews it.
    data.set(b"k:lock", b"dead", Some(Duration::from_secs(2))).await.unwrap();
    let computed = Arc::new(AtomicU32::new(0));
    let began = tokio::time::Instant::now();
    let calls = (0..4).map(|_| {
        let (kv, computed) = (process(&data), computed.clone());
        tokio::spawn(async move {
            let options = OPTIONS.lock_ttl(Duration::from_secs(3));
            kv.guarded_get("k", &options, || async {
                computed.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(SLOW).await;
                Ok::<_, Error>("value")
            })
            .await
        })
    });
    for value in join_all(calls.collect::<Vec<_>>()).await {
        assert_eq!(value.unwrap().unwrap(), "value");
    }
    assert_eq!(computed.load(Ordering::SeqCst), 1);
    let waited = began.elapsed();
    assert!(waited >= Duration::from_secs(2) && waited < Duration::from_secs(3), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn behind_a_slow_holder_one_caller_computes_for_its_process() {
    let data = MemoryStore::new();
    let (holder, other) = (process(&data), process(&data));
    let slow = tokio::spawn(async move {
        holder
            .guarded_get("k", &OPTIONS, || async {
                tokio::time::sleep(Duration::from_secs(60)).await;
                Ok::<_, Error>("slow")
            })
            .await
    });
    tokio::task::yield_now().await;
    let running = Arc::new(AtomicU32::new(0));
    let calls = (0..20).map(|_| {
        let (kv, running) = (other.clone(), running.clone());
        async move {
            kv.guarded_get("k", &OPTIONS, || async {
                assert_eq!(running.fetch_add(1, Ordering::SeqCst), 0, "two at a time");
                tokio::time::sleep(SLOW).await;
                running.fetch_sub(1, Ordering::SeqCst);
                Ok::<_, Error>("own")
            })
            .await
        }
    });
    let began = tokio::time::Instant::now();
    for value in join_all(calls).await {
        assert_eq!(value.unwrap(), "own");
    }
    assert!(began.elapsed() < Duration::from_secs(10));
    assert_eq!(data.get(b"k").await.unwrap(), None, "a value was stored without the lease");
    assert_eq!(slow.await.unwrap().unwrap(), "slow");
    assert_eq!(data.get(b"k").await.unwrap().unwrap(), "slow");
}

#[tokio::test(start_paused = true)]
async fn a_slow_holder_is_known_to_be_alive_whenever_it_renews() {
    let lock_ttl = Duration::from_millis(300);
    for offset in (0..100).step_by(10).map(Duration::from_millis) {
        let data = MemoryStore::new();
        assert!(data.set_nx(b"k:lock", b"holder", Some(lock_ttl)).await.unwrap());
        let holder = tokio::spawn({
            let data = data.clone();
            async move {
                loop {
                    tokio::time::sleep(lock_ttl / 3).await;
                    let holder = b"holder";
                    data.compare_and_set(b"k:lock", holder, holder, Some(lock_ttl)).await.unwrap();
                }
            }
        });
        tokio::time::sleep(offset).await;
        // The looks keep step with the renewals: what is left is the same at each.
        let options = GuardedGet::new(lock_ttl).lock_ttl(lock_ttl).retry_delay(lock_ttl / 3);
        let began = tokio::time::Instant::now();
        let own = data.guarded_get("k", &options, || async { Ok::<_, Error>("own") });
        let own = tokio::time::timeout(lock_ttl * 10, own).await.expect("it computes for itself");
        assert_eq!(own.unwrap(), "own");
        assert!(began.elapsed() <= lock_ttl * 2, "{offset:?}: {:?}", began.elapsed());
        holder.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn invalidation_during_a_computation_wins() {
    let kv = MemoryStore::new();
    let version = Arc::new(AtomicU32::new(1));
    let compute = |kv: MemoryStore| {
        let version = version.clone();
        async move {
            kv.guarded_get("k", &OPTIONS, || async {
                let seen = version.load(Ordering::SeqCst);
                tokio::time::sleep(SLOW).await;
                Ok::<_, Error>(seen.to_string())
            })
            .await
        }
    };
    let old = tokio::spawn(compute(kv.clone()));
    tokio::time::sleep(SLOW / 2).await;
    version.store(2, Ordering::SeqCst);
    assert!(!kv.invalidate("k").await.unwrap());
    // Who asks after the invalidation does not share the older computation.
    assert_eq!(compute(kv.clone()).await.unwrap(), "2");
    assert_eq!(old.await.unwrap().unwrap(), "1");
    tokio::time::sleep(SLOW).await;
    assert_ne!(kv.get(b"k").await.unwrap().as_deref(), Some(&b"1"[..]));
}
