//! Faults that a single server makes by itself: refusals, scripts, memory, permissions, scans.

mod common;

use std::collections::HashSet;
use std::time::{Duration, Instant};

use common::{Load, config, connect, ends, recovers, report_row, stored};
use derp_kv_core::{Error, ErrorKind, Expiry, KvStore};
use derp_kv_valkey::test_server::{Cluster, Server};
use derp_kv_valkey::{Mode, ValkeyStore};
use futures_util::TryStreamExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

async fn started() -> (Server, ValkeyStore) {
    let server = Server::start().await.expect("server");
    let store = connect(server.address()).await;
    (server, store)
}

/// What `operation` is refused with; nothing can have been written.
async fn refusal<T: std::fmt::Debug>(
    operation: impl Future<Output = Result<T, Error>>,
) -> ErrorKind {
    let error = ends("a refused operation", operation).await.expect_err("refused");
    assert!(!error.may_have_applied(), "{error:?}");
    error.kind()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_that_becomes_right() {
    let mut server = Server::builder().password("one").start().await.expect("server");
    let config = config(server.address());
    let error =
        ValkeyStore::connect(config.clone().password("secret two")).await.expect_err("wrong");
    assert_eq!(error.kind(), ErrorKind::AccessDenied);
    assert!(!format!("{error:?}").contains("secret two"));
    let store = ValkeyStore::connect(config.password("one")).await.expect("connect");
    server.set_option("requirepass", "two");
    server.restart().await.expect("restart");
    let seen = refusal(store.set(b"k", b"v", None)).await;
    assert_eq!(seen, ErrorKind::AccessDenied);
    server.set_option("requirepass", "one");
    server.restart().await.expect("restart");
    let (_, back) = recovers(async || store.set(b"k", b"v", None).await).await;
    report_row("9", "password wrong, then right", format!("{seen:?}"), back, "nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_deleted_and_made_again() {
    let server = Server::builder().user("app", "pw", "~* +@all").start().await.expect("server");
    let config = config(server.address()).username("app").password("pw");
    let store = ValkeyStore::connect(config).await.expect("connect");
    store.incr(b"n", 1, None).await.expect("incr");
    server.command(&["ACL", "DELUSER", "app"]).await.expect("deleted");
    let error = ends("incr", store.incr(b"n", 1, None)).await.expect_err("no such user");
    server.command(&["ACL", "SETUSER", "app", "on", ">pw", "~*", "+@all"]).await.expect("made");
    let (_, back) = recovers(async || store.get(b"n").await).await;
    let counted = stored(&store, "n").await;
    assert!(counted == 1 || error.may_have_applied());
    report_row("9", "ACL DELUSER, then SETUSER", format!("{:?}", error.kind()), back, "nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_clients() {
    let (server, store) = started().await;
    store.set(b"k", b"v", None).await.expect("set");
    server.command(&["CONFIG", "SET", "maxclients", "8"]).await.expect("config");
    let mut held = Vec::new();
    for _ in 0..16 {
        held.push(TcpStream::connect(server.address()).await.expect("connect"));
    }
    // One that is there already goes on; a new one cannot be had.
    assert!(ends("get", store.get(b"k")).await.expect("get").is_some());
    let error = ValkeyStore::connect(config(server.address())).await.expect_err("full");
    assert!(error.is_transient(), "{error:?}");
    drop(held);
    let start = Instant::now();
    let late = recovers(async || ValkeyStore::connect(config(server.address())).await).await.0;
    ends("get", late.get(b"k")).await.expect("get");
    report_row(
        "10",
        "maxclients",
        format!("{:?} at connect", error.kind()),
        start.elapsed(),
        "nothing",
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loading() {
    let (mut server, store) = started().await;
    server.command(&["DEBUG", "POPULATE", "2000"]).await.expect("filled");
    store.set(b"k", b"v", None).await.expect("set");
    server.command(&["SAVE"]).await.expect("saved");
    // Microseconds a key: about a second.
    server.set_option("key-load-delay", "500");
    // Redis 6 does not know it, and is silent while it loads so little.
    if server.version().await.expect("version") >= (7, 0, 0) {
        server.set_option("loading-process-events-interval-bytes", "1024");
    }
    let start = Instant::now();
    let (restarted, _) = tokio::join!(server.restart(), async {
        let (value, _) = recovers(async || store.get(b"k").await).await;
        assert_eq!(value.as_deref(), Some(&b"v"[..]), "never a miss while loading");
    });
    restarted.expect("restart");
    report_row("10", "LOADING", "waits, then ok", start.elapsed(), "nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_script_that_never_ends() {
    let (server, store) = started().await;
    server.command(&["CONFIG", "SET", "lua-time-limit", "50"]).await.expect("config");
    let script = server.command(&["EVAL", "while true do end", "0"]);
    let check = async {
        // Once this comes back, the server says BUSY to everybody else.
        loop {
            if let Err(error) = server.command(&["PING"]).await
                && error.to_string().contains("BUSY")
            {
                break;
            }
        }
        let error = ends("incr", store.incr(b"n", 1, None)).await.expect_err("busy");
        assert!(error.is_transient() && !error.may_have_applied(), "{error:?}");
        server.command(&["SCRIPT", "KILL"]).await.expect("killed");
        let (counter, back) = recovers(async || store.incr(b"n", 1, None).await).await;
        assert_eq!(counter.value, 1);
        (error.kind(), back)
    };
    let (_, (kind, back)) = tokio::join!(script, check);
    report_row("10", "BUSY script", format!("{kind:?}, not applied"), back, "nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn out_of_memory() {
    let (server, store) = started().await;
    store.set(b"k", b"v", None).await.expect("set");
    server.command(&["CONFIG", "SET", "maxmemory", "1"]).await.expect("config");
    for kind in [
        refusal(store.set(b"x", b"v", None)).await,
        refusal(store.incr(b"x", 1, Some(Duration::from_secs(9)))).await,
        refusal(store.set_nx(b"x", b"v", None)).await,
        refusal(store.mset(&[(b"x", b"v")], None)).await,
    ] {
        assert_eq!(kind, ErrorKind::Full);
    }
    assert!(store.get(b"k").await.expect("reads go on").is_some());
    assert!(store.delete(b"k").await.expect("so do deletes"));
    server.command(&["CONFIG", "SET", "maxmemory", "0"]).await.expect("config");
    let start = Instant::now();
    ends("set", store.set(b"x", b"v", None)).await.expect("set");
    report_row("10", "OOM", "Full, not applied", start.elapsed(), "nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paused_writes() {
    let (server, store) = started().await;
    assert_eq!(store.incr(b"n", 1, None).await.expect("incr").value, 1);
    server.command(&["CLIENT", "PAUSE", "600000", "WRITE"]).await.expect("pause");
    let mut tally = common::Tally::default();
    for _ in 0..2 {
        let start = Instant::now();
        tally.add(ends("incr", store.incr(b"n", 1, None)).await, start.elapsed());
    }
    assert_eq!((tally.ok, tally.failed), (0, 0), "nobody knows whether they were applied");
    // The write that hangs holds up what was sent after it, and no longer than that.
    let (value, _) = recovers(async || store.get(b"n").await).await;
    assert_eq!(value.as_deref(), Some(&b"1"[..]));
    server.command(&["CLIENT", "UNPAUSE"]).await.expect("unpause");
    let (counter, back) = recovers(async || store.incr(b"n", 1, None).await).await;
    let others = counter.value - 2;
    assert!((0..=tally.unknown).contains(&others), "{others} of {tally}");
    report_row("+", "CLIENT PAUSE WRITE", tally, back, "nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_writes() {
    let (server, store) = started().await;
    store.set(b"k", b"v", None).await.expect("set");
    server.command(&["CONFIG", "SET", "min-replicas-to-write", "1"]).await.expect("config");
    let no_replicas = refusal(store.set(b"x", b"v", None)).await;
    assert!(store.get(b"k").await.expect("get").is_some());
    server.command(&["CONFIG", "SET", "min-replicas-to-write", "0"]).await.expect("config");
    let (_, back) = recovers(async || store.set(b"x", b"v", None).await).await;
    assert!(matches!(no_replicas, ErrorKind::ReadOnly | ErrorKind::Unavailable), "{no_replicas:?}");
    report_row("10", "NOREPLICAS", format!("{no_replicas:?}, not applied"), back, "nothing");

    server.command(&["CONFIG", "SET", "rdbcompression", "no"]).await.expect("config");
    // No file can be written into a directory that is gone.
    server.command(&["CONFIG", "SET", "save", "3600 1"]).await.expect("config");
    std::fs::create_dir(server.dir().join("dump.rdb")).expect("in the way");
    let _ = server.command(&["BGSAVE"]).await;
    let give_up = Instant::now() + Duration::from_secs(60);
    while server.info("rdb_last_bgsave_status").await.expect("info") != "err" {
        assert!(Instant::now() < give_up, "the save does not fail");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let misconf = refusal(store.set(b"y", b"v", None)).await;
    assert_eq!(misconf, ErrorKind::ReadOnly);
    server.command(&["CONFIG", "SET", "stop-writes-on-bgsave-error", "no"]).await.expect("config");
    let (_, back) = recovers(async || store.set(b"y", b"v", None).await).await;
    report_row("10", "MISCONF", format!("{misconf:?}, not applied"), back, "nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica() {
    let (primary, _) = started().await;
    let (replica, store) = started().await;
    let port = primary.port().to_string();
    replica.command(&["REPLICAOF", "127.0.0.1", &port]).await.expect("replica");
    let read_only = refusal(store.set(b"k", b"v", None)).await;
    assert!(matches!(read_only, ErrorKind::ReadOnly | ErrorKind::Unavailable), "{read_only:?}");
    replica.command(&["REPLICAOF", "NO", "ONE"]).await.expect("primary");
    let (_, back) = recovers(async || store.set(b"k", b"v", None).await).await;
    report_row("10", "READONLY", format!("{read_only:?}, not applied"), back, "nothing");

    drop(primary);
    replica.command(&["CONFIG", "SET", "replica-serve-stale-data", "no"]).await.expect("config");
    replica.command(&["REPLICAOF", "127.0.0.1", &port]).await.expect("replica");
    let master_down = refusal(store.get(b"k")).await;
    assert!(matches!(master_down, ErrorKind::ReadOnly | ErrorKind::Unavailable), "{master_down:?}");
    replica.command(&["REPLICAOF", "NO", "ONE"]).await.expect("primary");
    let (_, back) = recovers(async || store.get(b"k").await).await;
    report_row("10", "MASTERDOWN", format!("{master_down:?}"), back, "nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_oversize_value() {
    let server =
        Server::builder().option("proto-max-bulk-len", "1mb").start().await.expect("server");
    let informed = config(server.address()).max_bulk_bytes(1 << 20);
    let store = ValkeyStore::connect(informed).await.expect("connect");
    let load = Load::start(&store, &["n".to_owned()], 8);
    let big = vec![0; (1 << 20) + 1];
    // Until the others have done their work beside it.
    while stored(&store, "n").await < 200 {
        assert_eq!(refusal(store.set(b"big", &big, None)).await, ErrorKind::InvalidArgument);
    }
    let tally = load.stop().await.remove(0);
    assert_eq!((tally.unknown, tally.failed), (0, 0), "only the culprit fails");
    report_row(
        "12",
        "oversize value beside increments",
        format!("InvalidArgument; others {tally}"),
        Duration::ZERO,
        "nothing",
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_output_buffer_that_is_too_small() {
    let server = Server::builder()
        .option("client-output-buffer-limit", "normal 256kb 256kb 0")
        .start()
        .await
        .expect("server");
    let store = connect(server.address()).await;
    // Many middling values: a big one may be sent without ever being in the buffer.
    let keys: Vec<Vec<u8>> = (0..1000).map(|n| format!("k:{n}").into_bytes()).collect();
    let names: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
    let value = vec![0; 8 << 10];
    let items: Vec<(&[u8], &[u8])> = names.iter().map(|key| (*key, &value[..])).collect();
    store.mset(&items, None).await.expect("mset");
    let error = ends("mget", store.mget(&names)).await.expect_err("the connection is cut");
    assert!(error.is_transient(), "{error:?}");
    let (_, back) = recovers(async || store.set(b"small", b"v", None).await).await;
    report_row("12", "output-buffer limit", format!("{:?}", error.kind()), back, "nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn script_flush() {
    let (server, store) = started().await;
    let load = Load::start(&store, &["a".to_owned(), "b".to_owned()], 4);
    while stored(&store, "a").await < 100 {
        server.command(&["SCRIPT", "FLUSH"]).await.expect("flushed");
    }
    for n in 0..1000 {
        server.command(&["EVAL", &format!("return {n}"), "0"]).await.expect("eval");
    }
    for (key, tally) in ["a", "b"].into_iter().zip(load.stop().await) {
        assert_eq!((tally.unknown, tally.failed), (0, 0), "{tally}");
        assert_eq!(stored(&store, key).await, tally.ok);
    }
    report_row("17", "SCRIPT FLUSH, 1000 EVALs", "ok, exact", Duration::ZERO, "nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scan_while_the_table_grows_and_shrinks() {
    let (_server, store) = started().await;
    let stable: Vec<Vec<u8>> = (0..2000).map(|n| format!("s*[a]?\\:{n}").into_bytes()).collect();
    let items: Vec<(&[u8], &[u8])> = stable.iter().map(|key| (&key[..], &b"v"[..])).collect();
    store.mset(&items, None).await.expect("mset");
    let churn = {
        let store = store.clone();
        tokio::spawn(async move {
            let keys: Vec<Vec<u8>> =
                (0..20_000).map(|n| format!("churn:{n}").into_bytes()).collect();
            let items: Vec<(&[u8], &[u8])> = keys.iter().map(|key| (&key[..], &b"v"[..])).collect();
            let names: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
            for _ in 0..3 {
                store.mset(&items, None).await.expect("mset");
                assert_eq!(store.delete_many(&names).await.expect("delete"), 20_000);
            }
        })
    };
    let mut scans = 0;
    while !churn.is_finished() || scans == 0 {
        let found: Vec<_> = store.scan(b"s*[a]?\\").try_collect().await.expect("scan");
        let found: HashSet<Vec<u8>> = found.into_iter().map(|key| key.to_vec()).collect();
        assert_eq!(found, stable.iter().cloned().collect());
        scans += 1;
    }
    churn.await.expect("churn");
    report_row(
        "18",
        "scan while the table is resized",
        format!("{scans} scans, 0 missing, 0 foreign"),
        Duration::ZERO,
        "nothing",
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiter_of_an_expiring_lock_among_many_keys() {
    let (server, store) = started().await;
    server
        .command(&[
            "EVAL",
            "for n = 1, 200000 do redis.call('SET', 'v:' .. n, 1, 'PX', 600000 + n) end",
            "0",
        ])
        .await
        .expect("filled");
    let start = Instant::now();
    let mut waiters = JoinSet::new();
    store.set(b"lock", b"token", Some(Duration::from_millis(700))).await.expect("set");
    for _ in 0..20 {
        let store = store.clone();
        waiters.spawn(async move {
            while store.get(b"lock").await.expect("get").is_some() {
                ends(
                    "a waiter",
                    store.wait_for_change(b"lock", Some(b"token"), Duration::from_secs(30)),
                )
                .await;
            }
        });
    }
    while let Some(waiter) = waiters.join_next().await {
        waiter.expect("woken");
    }
    // Well before the 30 s that they were willing to wait.
    assert!(start.elapsed() < Duration::from_secs(15));
    let late = start.elapsed().saturating_sub(Duration::from_millis(700));
    report_row(
        "19",
        "lock expires among 200,000 volatile keys",
        "20 of 20 waiters woken",
        late,
        "nothing",
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiters_through_a_killed_connection() {
    let (server, store) = started().await;
    store.set(b"k", b"old", None).await.expect("set");
    let mut waiters = JoinSet::new();
    for _ in 0..20 {
        let store = store.clone();
        waiters.spawn(async move {
            loop {
                let Ok(seen) = ends("get", store.get(b"k")).await else { continue };
                if seen.as_deref() == Some(b"new") {
                    break;
                }
                ends(
                    "a waiter",
                    store.wait_for_change(b"k", seen.as_deref(), Duration::from_secs(30)),
                )
                .await;
            }
        });
    }
    for _ in 0..5 {
        server.command(&["CLIENT", "KILL", "TYPE", "normal"]).await.ok();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    server.command(&["SET", "k", "new"]).await.expect("set");
    let start = Instant::now();
    while let Some(waiter) = waiters.join_next().await {
        waiter.expect("woken");
    }
    assert!(start.elapsed() < Duration::from_secs(15));
    report_row("19", "waiters through CLIENT KILL", "20 of 20 woken", start.elapsed(), "nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn windows_of_a_millisecond() {
    let (server, store) = started().await;
    let mut callers = JoinSet::new();
    for _ in 0..16 {
        let store = store.clone();
        callers.spawn(async move {
            for n in 0..1500_u32 {
                let key = [b'w', u8::try_from(n % 8).expect("small")];
                let window = Duration::from_millis(1);
                let counter = store.incr(&key, 1, Some(window)).await.expect("incr");
                assert!(
                    matches!(counter.expiry, Expiry::In(left) if left <= window),
                    "{counter:?}"
                );
            }
        });
    }
    while let Some(caller) = callers.join_next().await {
        caller.expect("never without an expiry");
    }
    // Every window ends: a counter without an expiry would stay.
    let give_up = Instant::now() + Duration::from_secs(30);
    while server.command(&["DBSIZE"]).await.expect("size").int().expect("int") > 0 {
        assert!(Instant::now() < give_up, "a counter is immortal");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    report_row(
        "20",
        "24,000 increments in 1 ms windows",
        "0 keys without expiry",
        Duration::ZERO,
        "nothing",
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flushall() {
    let (server, store) = started().await;
    store.incr(b"n", 7, None).await.expect("incr");
    store.set(b"k", b"old", None).await.expect("set");
    let waiter = {
        let store = store.clone();
        tokio::spawn(async move {
            while store.get(b"k").await.expect("get").is_some() {
                store.wait_for_change(b"k", Some(b"old"), Duration::from_secs(30)).await;
            }
        })
    };
    let start = Instant::now();
    server.command(&["FLUSHALL"]).await.expect("flushed");
    ends("the waiter", waiter).await.expect("woken");
    assert_eq!(store.incr(b"n", 1, None).await.expect("incr").value, 1);
    assert!(store.set_nx(b"k", b"new", None).await.expect("free again"));
    report_row(
        "+",
        "FLUSHALL",
        "absent at once, waiter woken",
        start.elapsed(),
        "what was flushed",
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_wrong_mode() {
    let (server, _) = started().await;
    let cluster = Cluster::start(3, 0).await.expect("cluster");
    let start = Instant::now();
    let wrong = [config(server.address()).mode(Mode::Cluster), config(cluster.node(0).address())];
    for config in wrong {
        let error = ends("connect", ValkeyStore::connect(config)).await.expect_err("wrong mode");
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.to_string().contains("mode"), "{error}");
    }
    report_row(
        "22",
        "wrong mode, both ways",
        "InvalidArgument at connect",
        start.elapsed(),
        "nothing",
    );
}
