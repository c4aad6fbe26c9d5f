//! Operations that never wait let others run all the same.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use derp_kv_core::{KvStore, KvStoreExt};
use derp_kv_memory::MemoryStore;
use futures_util::StreamExt;
use tokio::task::coop::{has_budget_remaining, poll_proceed};

const WATCHDOG: Duration = Duration::from_secs(10);

/// Runs the test on a current-thread runtime of its own thread. Where that thread is kept busy for
/// ever, no timer of its runtime could tell.
fn watched<F: Future<Output = ()>>(name: &str, test: impl FnOnce() -> F + Send + 'static) {
    let (done, waiting) = channel();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        runtime.unwrap().block_on(test());
        done.send(()).unwrap();
    });
    match waiting.recv_timeout(WATCHDOG) {
        Ok(()) => thread.join().unwrap(),
        Err(RecvTimeoutError::Disconnected) => {
            std::panic::resume_unwind(thread.join().unwrap_err())
        }
        Err(RecvTimeoutError::Timeout) => panic!("{name} keeps its thread for ever"),
    }
}

fn stores() -> [MemoryStore; 2] {
    [MemoryStore::new(), MemoryStore::builder().max_bytes(1 << 20).build().unwrap()]
}

#[test]
fn a_loop_that_waits_for_a_key_lets_its_writer_run() {
    for kv in stores() {
        watched("get", || async move {
            let writer = kv.clone();
            tokio::spawn(async move { writer.set(b"k", b"v", None).await });
            while kv.get(b"k").await.unwrap().is_none() {}
        });
    }
}

#[test]
fn a_timeout_ends_a_loop_of_increments() {
    for kv in stores() {
        watched("incr", || async move {
            let count = async {
                loop {
                    kv.incr(b"n", 1, None).await.unwrap();
                }
            };
            let ended: Result<(), _> =
                tokio::time::timeout(Duration::from_millis(100), count).await;
            assert!(ended.is_err());
        });
    }
}

#[test]
fn a_loop_that_tries_for_a_lock_lets_its_holder_run() {
    for kv in stores() {
        watched("try_lock", || async move {
            let ttl = Duration::from_secs(60 * 60);
            let held = kv.try_lock("job", ttl).await.unwrap().unwrap();
            tokio::spawn(async move { held.release().await });
            while kv.try_lock("job", ttl).await.unwrap().is_none() {}
        });
    }
}

type Operation = fn(MemoryStore) -> Pin<Box<dyn Future<Output = ()>>>;

/// Every operation of the trait, on keys that are there and on keys that are not.
const OPERATIONS: [(&str, Operation); 19] = [
    ("get", |kv| Box::pin(async move { kv.get(b"k").await.map(drop).unwrap() })),
    ("get_with_ttl", |kv| Box::pin(async move { kv.get_with_ttl(b"k").await.map(drop).unwrap() })),
    ("exists", |kv| Box::pin(async move { assert!(!kv.exists(b"none").await.unwrap()) })),
    ("ttl", |kv| Box::pin(async move { assert!(kv.ttl(b"k").await.unwrap().is_some()) })),
    ("mget", |kv| Box::pin(async move { kv.mget(&[b"k", b"none"]).await.map(drop).unwrap() })),
    ("mget of none", |kv| Box::pin(async move { kv.mget(&[]).await.map(drop).unwrap() })),
    ("scan", |kv| Box::pin(async move { kv.scan(b"").for_each(|_| async {}).await })),
    ("scan for none", |kv| {
        Box::pin(async move { assert!(kv.scan(b"none").next().await.is_none()) })
    }),
    ("set", |kv| Box::pin(async move { kv.set(b"k", b"v", None).await.unwrap() })),
    ("mset", |kv| Box::pin(async move { kv.mset(&[(b"k", b"v")], None).await.unwrap() })),
    ("delete", |kv| Box::pin(async move { kv.delete(b"n").await.map(drop).unwrap() })),
    ("delete_many", |kv| Box::pin(async move { kv.delete_many(&[b"n"]).await.map(drop).unwrap() })),
    ("expire", |kv| Box::pin(async move { kv.expire(b"k", WATCHDOG).await.map(drop).unwrap() })),
    ("a refused expire", |kv| {
        Box::pin(async move { assert!(kv.expire(b"k", Duration::ZERO).await.is_err()) })
    }),
    ("set_nx", |kv| Box::pin(async move { kv.set_nx(b"k", b"v", None).await.map(drop).unwrap() })),
    ("incr", |kv| Box::pin(async move { kv.incr(b"n", 1, None).await.map(drop).unwrap() })),
    ("compare_and_set", |kv| {
        Box::pin(async move { kv.compare_and_set(b"k", b"v", b"v", None).await.map(drop).unwrap() })
    }),
    ("compare_and_delete", |kv| {
        Box::pin(async move { kv.compare_and_delete(b"k", b"other").await.map(drop).unwrap() })
    }),
    ("wait_for_change", |kv| {
        Box::pin(async move { kv.wait_for_change(b"k", Some(b"other"), WATCHDOG).await })
    }),
];

#[test]
fn a_loop_of_any_operation_lets_others_run() {
    for kv in stores() {
        for (name, operation) in OPERATIONS {
            let kv = kv.clone();
            watched(name, move || async move {
                kv.set(b"k", b"v", None).await.unwrap();
                let ran = Arc::new(AtomicBool::new(false));
                let other = ran.clone();
                tokio::spawn(async move { other.store(true, Ordering::Relaxed) });
                while !ran.load(Ordering::Relaxed) {
                    operation(kv.clone()).await;
                }
            });
        }
    }
}

#[test]
fn many_writes_in_a_row_let_others_run_and_timers_fire() {
    const WRITES: usize = 300_000;
    for kv in stores() {
        watched("set", || async move {
            let turns = Arc::new(AtomicUsize::new(0));
            let other = tokio::spawn({
                let turns = turns.clone();
                async move {
                    loop {
                        turns.fetch_add(1, Ordering::Relaxed);
                        tokio::task::yield_now().await;
                    }
                }
            });
            let timer = tokio::spawn(tokio::time::sleep(Duration::from_millis(1)));
            for number in 0..WRITES {
                kv.set(&(number % 1_000).to_be_bytes(), b"v", None).await.unwrap();
            }
            assert!(timer.is_finished());
            // tokio's budget is 128; a runtime may make it another number.
            assert!(turns.load(Ordering::Relaxed) > WRITES / 1_000);
            other.abort();
        });
    }
}

#[test]
fn a_lease_is_renewed_while_its_holder_writes_in_a_row() {
    let ttl = Duration::from_secs(2);
    watched("set beside a lease", move || async move {
        let kv = MemoryStore::new();
        let lease = kv.try_lock("job", ttl).await.unwrap().unwrap();
        let began = Instant::now();
        while began.elapsed() < ttl + ttl / 4 {
            kv.set(b"k", b"v", None).await.unwrap();
        }
        assert!(lease.release().await.unwrap(), "it was lost");
    });
}

#[test]
fn a_batch_costs_more_than_one_key() {
    watched("mget", || async {
        let kv = MemoryStore::new();
        let keys: Vec<_> = (0..1_000_u32).map(u32::to_be_bytes).collect();
        let keys: Vec<&[u8]> = keys.iter().map(|key| &key[..]).collect();
        let turns = Arc::new(AtomicUsize::new(0));
        let other = turns.clone();
        tokio::spawn(async move {
            loop {
                other.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        });
        for _ in 0..100 {
            kv.mget(&keys).await.unwrap();
        }
        assert!(turns.load(Ordering::Relaxed) > 10);
    });
}

const WRITES: [(&str, Operation); 9] = [
    ("set", |kv| Box::pin(async move { kv.set(b"absent", b"w", None).await.unwrap() })),
    ("mset", |kv| {
        Box::pin(async move { kv.mset(&[(b"k", b"w"), (b"absent", b"w")], None).await.unwrap() })
    }),
    ("delete", |kv| Box::pin(async move { assert!(kv.delete(b"k").await.unwrap()) })),
    ("delete_many", |kv| Box::pin(async move { kv.delete_many(&[b"k"]).await.map(drop).unwrap() })),
    ("expire", |kv| Box::pin(async move { assert!(kv.expire(b"k", WATCHDOG).await.unwrap()) })),
    ("set_nx", |kv| {
        Box::pin(async move { assert!(kv.set_nx(b"absent", b"w", None).await.unwrap()) })
    }),
    ("incr", |kv| Box::pin(async move { kv.incr(b"absent", 1, None).await.map(drop).unwrap() })),
    ("compare_and_set", |kv| {
        Box::pin(async move { assert!(kv.compare_and_set(b"k", b"v", b"w", None).await.unwrap()) })
    }),
    ("compare_and_delete", |kv| {
        Box::pin(async move { assert!(kv.compare_and_delete(b"k", b"v").await.unwrap()) })
    }),
];

/// Takes all of the budget that the task has for this poll.
fn use_up_the_budget(context: &mut Context<'_>) {
    while has_budget_remaining() {
        if let Poll::Ready(taken) = poll_proceed(context) {
            taken.made_progress();
        }
    }
}

async fn content(kv: &MemoryStore) -> [Option<(bytes::Bytes, bool)>; 2] {
    let mut content = [None, None];
    for (at, key) in [&b"k"[..], b"absent"].into_iter().enumerate() {
        let found = kv.get_with_ttl(key).await.unwrap();
        content[at] = found.map(|(value, expiry)| (value, expiry.remaining().is_some()));
    }
    content
}

#[tokio::test]
async fn a_write_that_is_dropped_while_it_waits_for_its_turn_has_done_nothing() {
    for kv in stores() {
        for (name, write) in WRITES {
            kv.delete_many(&[b"k", b"absent"]).await.unwrap();
            kv.set(b"k", b"v", None).await.unwrap();
            let before = content(&kv).await;
            let dropped = write(kv.clone());
            let mut dropped = Some(dropped);
            poll_fn(|context| {
                use_up_the_budget(context);
                let waits = dropped.as_mut().map(|write| write.as_mut().poll(context).is_pending());
                assert_eq!(waits, Some(true), "{name} takes part in the budget");
                dropped = None;
                Poll::Ready(())
            })
            .await;
            tokio::task::yield_now().await;
            assert_eq!(content(&kv).await, before, "{name}");
            write(kv.clone()).await;
            assert_ne!(content(&kv).await, before, "{name}");
        }
    }
}

#[test]
fn outside_of_a_runtime_nothing_waits() {
    let mut context = Context::from_waker(Waker::noop());
    for kv in stores() {
        assert!(kv.set(b"k", b"v", None).as_mut().poll(&mut context).is_ready());
        for (name, operation) in OPERATIONS {
            for _ in 0..300 {
                assert!(operation(kv.clone()).as_mut().poll(&mut context).is_ready(), "{name}");
            }
        }
    }
}
