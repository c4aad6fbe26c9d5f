//! A store works from every runtime, whatever state that is in, and leaves nothing behind.

mod common;

use std::fs;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use common::{HANG, config};
use derp_kv_core::{KvStore, KvStoreExt};
use derp_kv_valkey::test_server::{Cluster, Server};
use derp_kv_valkey::{Mode, ValkeyStore};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

/// The tests count the threads of their process, so they run one after the other.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many I/O threads this process has.
fn io_threads() -> usize {
    let threads = fs::read_dir("/proc/self/task").expect("Linux tells the threads").flatten();
    let names = threads.filter_map(|thread| fs::read_to_string(thread.path().join("comm")).ok());
    names.filter(|name| name.trim_end() == "derp-kv-io").count()
}

/// Waits for what happens a moment after a store was dropped.
fn comes_true(what: &str, mut condition: impl FnMut() -> bool) {
    let since = Instant::now();
    while !condition() {
        assert!(since.elapsed() < HANG, "{what}");
        thread::yield_now();
    }
}

fn single() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// A server, the runtime that watches over it, and a store that was connected on a runtime which is
/// gone.
fn connected() -> (Runtime, Server, ValkeyStore) {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let server = runtime.block_on(Server::start()).unwrap();
    let kv = single().block_on(ValkeyStore::connect(config(server.address()))).unwrap();
    (runtime, server, kv)
}

#[test]
fn a_store_outlives_the_runtime_that_connected_it() {
    let _alone = alone();
    let (_runtime, _server, kv) = connected();
    // As in a `static` that several `#[tokio::test]`s use, each with a runtime of its own.
    for round in 0..3_i64 {
        single().block_on(async {
            assert_eq!(kv.incr(b"rounds", 1, None).await.unwrap().value, round + 1);
            kv.set(b"k", b"v", Some(Duration::from_secs(60))).await.unwrap();
            assert_eq!(kv.mget(&[b"k", b"absent"]).await.unwrap()[0].as_deref(), Some(&b"v"[..]));
            let lease = kv.try_lock(b"lock", Duration::from_secs(10)).await.unwrap().unwrap();
            lease.release().await.unwrap();
        });
    }
}

#[test]
fn several_runtimes_use_a_store_at_once() {
    let _alone = alone();
    let (_runtime, _server, kv) = connected();
    // One more runtime that is there and not driven by anybody.
    let idle = single();
    let _unfinished = idle.spawn({
        let kv = kv.clone();
        async move { kv.incr(b"count", 1000, None).await }
    });
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                single().block_on(async {
                    for _ in 0..200 {
                        kv.incr(b"count", 1, None).await.unwrap();
                    }
                });
            });
        }
    });
    let count = single().block_on(kv.get(b"count")).unwrap();
    assert_eq!(count.as_deref(), Some(&b"800"[..]));
}

#[test]
fn deadlines_are_those_of_the_real_clock() {
    let _alone = alone();
    let (runtime, mut server, kv) = connected();
    let paused = Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    paused.block_on(async {
        // On this runtime's clock an hour passes whenever nothing else is to be done.
        let clock = tokio::spawn(async {
            loop {
                tokio::time::sleep(Duration::from_secs(3600)).await;
            }
        });
        for _ in 0..50 {
            kv.set(b"k", b"v", None).await.unwrap();
            assert!(kv.exists(b"k").await.unwrap());
        }
        let waiting = Instant::now();
        kv.wait_for_change(b"k", Some(b"v"), Duration::from_millis(300)).await;
        assert!(waiting.elapsed() >= Duration::from_millis(250), "it waited on the paused clock");
        clock.abort();
    });
    // A server that stands still for less than the deadline is waited for, also here.
    server.freeze().unwrap();
    let resume = thread::spawn(move || {
        thread::sleep(Duration::from_millis(300));
        server.thaw().unwrap();
        server
    });
    paused.block_on(kv.set(b"k", b"w", None)).unwrap();
    let server = resume.join().unwrap();
    drop((server, runtime));
}

#[test]
fn a_blocked_runtime_loses_neither_answers_nor_leases() {
    let _alone = alone();
    let (_runtime, server, _) = connected();
    let config = config(server.address()).op_timeout(Duration::from_millis(500));
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let kv = ValkeyStore::connect(config.clone()).await.unwrap();
        let lease = kv.try_lock(b"lock", Duration::from_millis(900)).await.unwrap().unwrap();
        let (mut writes, mut counts, mut blockers) =
            (JoinSet::new(), JoinSet::new(), JoinSet::new());
        for number in 0..40_u32 {
            let (one, other) = (kv.clone(), kv.clone());
            writes.spawn(async move { one.set(&number.to_le_bytes(), b"v", None).await });
            // Their script is not in the server's cache, so that the first try is refused.
            counts.spawn(async move { other.incr(&number.to_be_bytes(), 1, None).await });
        }
        // Longer than the calls' deadline and than the lease.
        for _ in 0..2 {
            blockers.spawn(async { thread::sleep(Duration::from_millis(1200)) });
        }
        thread::sleep(Duration::from_millis(1200));
        while let Some(write) = writes.join_next().await {
            write.unwrap().expect("an answer that had come was not looked at");
        }
        while let Some(count) = counts.join_next().await {
            match count.unwrap() {
                Ok(counter) => assert_eq!(counter.value, 1),
                // Too late to send the script itself; what was refused has done nothing.
                Err(error) => assert!(!error.may_have_applied(), "{error:?}"),
            }
        }
        assert!(!lease.is_lost(), "it was not renewed while the callers' threads were blocked");
        let other = ValkeyStore::connect(config).await.unwrap();
        assert!(other.try_lock(b"lock", Duration::from_secs(1)).await.unwrap().is_none());
    });
}

#[test]
fn nothing_is_left_behind() {
    let _alone = alone();
    comes_true("threads of earlier tests end", || io_threads() == 0);
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let server = runtime.block_on(Server::start()).unwrap();
    let connect = || single().block_on(ValkeyStore::connect(config(server.address()))).unwrap();

    // All stores of a process share their thread, which ends with the last of them.
    let (one, other) = (connect(), connect());
    assert_eq!(io_threads(), 1);
    drop(one);
    assert!(!single().block_on(other.exists(b"k")).unwrap());
    drop(other);
    comes_true("the thread ends", || io_threads() == 0);

    // The last handle is dropped inside of a runtime, by a task, and on the I/O thread itself.
    let kv = connect();
    runtime.block_on(async { drop(kv) });
    comes_true("the thread ends", || io_threads() == 0);
    let kv = Arc::new(connect());
    let io = kv.runtime().unwrap();
    drop(io.spawn(async move { drop(kv) }));
    comes_true("the thread ends", || io_threads() == 0);

    // A connection's tasks end with it, while the thread goes on for another store.
    let stays = connect();
    let tasks = || stays.runtime().unwrap().metrics().num_alive_tasks();
    let before = tasks();
    let goes = connect();
    assert!(tasks() > before);
    drop(goes);
    comes_true("the tasks end", || tasks() <= before);
    drop(stays);
    comes_true("the thread ends", || io_threads() == 0);

    // The nodes of a cluster are served by as many threads as are asked for.
    let cluster = runtime.block_on(Cluster::start(3, 0)).unwrap();
    let cluster_config = config(cluster.node(0).address()).mode(Mode::Cluster).io_threads(2);
    let kv = single().block_on(ValkeyStore::connect(cluster_config)).unwrap();
    assert_eq!(io_threads(), 2);
    for number in 0..100_u32 {
        single().block_on(kv.set(&number.to_be_bytes(), b"v", None)).unwrap();
    }
    drop(kv);
    comes_true("the threads end", || io_threads() == 0);

    // A call that is dropped while it connects leaves nothing either.
    single().block_on(async {
        let connecting = ValkeyStore::connect(config(server.address()));
        let _ = tokio::time::timeout(Duration::ZERO, connecting).await;
    });
    comes_true("the thread ends", || io_threads() == 0);
    comes_true("the server has no clients", || {
        let clients = runtime.block_on(server.command(&["CLIENT", "LIST", "TYPE", "NORMAL"]));
        !clients.unwrap().text().unwrap().contains("resp=3")
    });
}
