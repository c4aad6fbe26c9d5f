//! Servers that stand still or are slow, and are not dead.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use common::{HANG, Load, OP_TIMEOUT, config, connect, ends, recovers, stored};
use derp_kv_core::{ErrorKind, KvStore};
use derp_kv_valkey::ValkeyStore;
use derp_kv_valkey::test_server::{Name, Proxy, Server, Traffic};
use tokio::task::JoinSet;
use tokio::time::sleep;

/// As failovers and slots on their way pause a server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_waits_for_a_paused_server() {
    let server = Server::start().await.unwrap();
    let patient = config(server.address()).op_timeout(4 * OP_TIMEOUT);
    let kv = ValkeyStore::connect(patient).await.unwrap();
    kv.incr(b"warm", 1, None).await.unwrap();
    for round in 1..=2 {
        // For long enough that the connection is taken for dead, and another one takes over.
        server.command(&["CLIENT", "PAUSE", "3000", "WRITE"]).await.unwrap();
        let paused = Instant::now();
        let write = tokio::spawn({
            let kv = kv.clone();
            async move { kv.incr(b"n", 1, None).await }
        });
        // What only reads is not paused: it goes around the write.
        while !write.is_finished() {
            ends("get", kv.get(b"warm")).await.expect("a read does not wait for the write");
            sleep(Duration::from_millis(5)).await;
        }
        let counter = write.await.unwrap().expect("it is only paused");
        assert_eq!(counter.value, round, "it was sent twice");
        assert!(paused.elapsed() >= Duration::from_millis(2500), "it was not paused");
        assert!(paused.elapsed() < HANG);
        server.command(&["CLIENT", "UNPAUSE"]).await.unwrap();
    }
    assert_eq!(stored(&kv, "n").await, 2);
}

/// How many connections the server has accepted since it began.
async fn connections(server: &Server) -> u64 {
    server.info("total_connections_received").await.unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stall_is_not_met_with_new_connections_of_everybody() {
    const STORES: u64 = 30;
    let mut server = Server::start().await.unwrap();
    for _ in 0..20 {
        let mut stores = Vec::new();
        for _ in 0..STORES {
            stores.push(connect(server.address()).await);
        }
        // Each looks at its connection every half second, and will do so soon now.
        sleep(Duration::from_millis(350)).await;
        let before = connections(&server).await;
        let stalled = Instant::now();
        server.freeze().unwrap();
        let mut reads = JoinSet::new();
        for kv in &stores {
            let kv = kv.clone();
            reads.spawn(async move { kv.get(b"k").await });
        }
        // Longer than an answer may be due; but first of all each is asked for a sign of life.
        sleep(Duration::from_millis(680)).await;
        server.thaw().unwrap();
        let stalled = stalled.elapsed();
        while let Some(read) = reads.join_next().await {
            read.unwrap().expect("a stall shorter than the deadline is only waited for");
        }
        // One of them is the connection that asks.
        let new = connections(&server).await - before - 1;
        // A machine that stalls itself says nothing of that.
        if stalled < Duration::from_millis(750) {
            assert!(new <= STORES / 5, "{new} new connections for a stall of {stalled:?}");
            return;
        }
    }
    panic!("this machine stalls itself each time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_always_slower_than_the_deadline_is_not_dialled_for_ever() {
    let server = Server::start().await.unwrap();
    let proxy = Proxy::start(server.port()).await.unwrap();
    let brief = config(proxy.address()).op_timeout(Duration::from_millis(20));
    let kv = ValkeyStore::connect(brief).await.unwrap();
    proxy.set(Traffic::Delay(Duration::from_millis(25)));
    let load = async |time: Duration| {
        let until = Instant::now() + time;
        while Instant::now() < until {
            let _ = ends("get", kv.get(b"k")).await;
        }
    };
    load(Duration::from_secs(4)).await;
    // By now the connection is trusted.
    let before = proxy.connections();
    load(Duration::from_secs(4)).await;
    let new = proxy.connections() - before;
    assert!(new <= 8, "{new} new connections in four seconds, though the server only is slow");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_demoted_server_is_neither_read_nor_taken_for_good() {
    let (server, primary) = (Server::start().await.unwrap(), Server::start().await.unwrap());
    let patient = config(server.address()).op_timeout(4 * OP_TIMEOUT);
    let kv = ValkeyStore::connect(patient).await.unwrap();
    kv.set(b"k", b"old", None).await.unwrap();
    let port = primary.port().to_string();
    server.command(&["REPLICAOF", "127.0.0.1", &port]).await.unwrap();

    // The write is tried again until the server is a primary once more.
    let write = tokio::spawn({
        let kv = kv.clone();
        async move { kv.set(b"k", b"new", None).await }
    });
    sleep(OP_TIMEOUT / 4).await;
    assert!(!write.is_finished());
    server.command(&["REPLICAOF", "NO", "ONE"]).await.unwrap();
    write.await.unwrap().expect("the server was a replica for a moment only");

    // One that stays a replica fails writes as something that passes, and reads are not served from it.
    server.command(&["REPLICAOF", "127.0.0.1", &port]).await.unwrap();
    let error = ends("set", kv.set(b"k", b"late", None)).await.unwrap_err();
    assert!(error.kind() == ErrorKind::ReadOnly && error.is_transient(), "{error:?}");
    assert!(!error.may_have_applied());
    let error = ends("get", kv.get(b"k")).await.expect_err("a replica may lag");
    assert_eq!(error.kind(), ErrorKind::ReadOnly, "{error:?}");
    server.command(&["REPLICAOF", "NO", "ONE"]).await.unwrap();
    recovers(async || kv.set(b"k", b"again", None).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_demoted_is_noticed_by_readers_alone() {
    let (server, primary) = (Server::start().await.unwrap(), Server::start().await.unwrap());
    let kv = connect(server.address()).await;
    let port = primary.port().to_string();
    server.command(&["REPLICAOF", "127.0.0.1", &port]).await.unwrap();
    let noticed = async {
        loop {
            match kv.get(b"k").await {
                Ok(_) => sleep(Duration::from_millis(20)).await,
                Err(error) => break error,
            }
        }
    };
    let error = ends("the look at its role", noticed).await;
    assert_eq!(error.kind(), ErrorKind::ReadOnly, "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_largest_value_does_not_outstay_its_deadline() {
    let server = Server::start().await.unwrap();
    let kv = connect(server.address()).await;
    let value = vec![b'x'; 512 * 1024 * 1024];
    let start = Instant::now();
    let written = ends("set", kv.set(b"large", &value, None)).await;
    let took = start.elapsed();
    // On a slow machine it is an error: then it says that it may have been applied.
    match written {
        Ok(()) => assert!(took < OP_TIMEOUT + OP_TIMEOUT, "{took:?}"),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Timeout, "{error:?}");
            assert!(error.may_have_applied(), "{error:?}");
            assert!(took < 4 * OP_TIMEOUT, "{took:?}");
        }
    }
    recovers(async || kv.set(b"small", b"v", None).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hangs_for_a_whole_deadline_is_waited_for_no_longer() {
    let mut server = Server::start().await.unwrap();
    let kv = connect(server.address()).await;
    kv.set(b"k", b"v", None).await.unwrap();
    server.freeze().unwrap();
    let hung = Instant::now();
    while hung.elapsed() < 3 * OP_TIMEOUT {
        ends("get", kv.get(b"k")).await.expect_err("nobody answers");
    }
    let start = Instant::now();
    for _ in 0..100 {
        let error = ends("get", kv.get(b"k")).await.expect_err("nobody answers");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    }
    let each = start.elapsed() / 100;
    assert!(each < OP_TIMEOUT / 10, "a call takes {each:?} though the server is known to hang");
    server.thaw().unwrap();
    recovers(async || kv.get(b"k").await).await;
}

/// What cannot be read is the answer of one request, which is not asked for again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_cannot_be_read_is_final() {
    let server = Server::start().await.unwrap();
    let kv = ValkeyStore::connect(config(server.address()).max_bulk_bytes(1 << 20)).await.unwrap();
    let long = "x".repeat(2 << 20);
    server.command(&["SET", "long", &long]).await.unwrap();
    let before = connections(&server).await;
    for _ in 0..3 {
        let error = ends("get", kv.get(b"long")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Backend, "{error:?}");
        assert!(error.to_string().contains("cannot be read") && !error.may_have_applied());
    }
    recovers(async || kv.set(b"k", b"v", None).await).await;
    // Those that ask for the count are connections too.
    let new = connections(&server).await - before;
    assert!(new <= 6, "{new} connections for three answers");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinated_failover_loses_and_refuses_nothing() {
    let old = Server::start().await.unwrap();
    let new = Server::builder().option("repl-diskless-sync-delay", "0").start().await.unwrap();
    old.command(&["CONFIG", "SET", "repl-diskless-sync-delay", "0"]).await.unwrap();
    new.command(&["REPLICAOF", "127.0.0.1", &old.port().to_string()]).await.unwrap();
    let synced = async {
        while new.info("master_link_status").await.unwrap() != "up" {
            sleep(Duration::from_millis(20)).await;
        }
    };
    ends("the first synchronisation", synced).await;

    let port = Arc::new(AtomicU16::new(old.port()));
    let looked_up = Arc::clone(&port);
    let name =
        Name::new(move || Ok(vec![([127, 0, 0, 1], looked_up.load(Ordering::SeqCst)).into()]));
    let patient = config(name.address()).op_timeout(5 * OP_TIMEOUT);
    let kv = ValkeyStore::connect(patient).await.unwrap();
    let load = Load::start(&kv, &["n".to_owned()], 8);
    sleep(Duration::from_millis(200)).await;
    old.command(&["FAILOVER", "TO", "127.0.0.1", &new.port().to_string()]).await.unwrap();
    let promoted = async {
        while new.info("role").await.unwrap() != "master" {
            sleep(Duration::from_millis(5)).await;
        }
    };
    ends("the promotion", promoted).await;
    // As a service that is told of the new primary changes the name.
    port.store(new.port(), Ordering::SeqCst);
    recovers(async || kv.set(b"after", b"v", None).await).await;
    let tally = load.stop().await.remove(0);
    assert_eq!((tally.failed, tally.unknown), (0, 0), "{tally}");
    let count = new.command(&["GET", "n"]).await.unwrap().int().unwrap();
    assert_eq!(count, tally.ok, "counted more or less than the callers were told");
}
