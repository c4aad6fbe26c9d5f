//! Faults of the server's process and of the way to it.

mod common;

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Load, OP_TIMEOUT, Tally, config, connect, ends, recovers, report_row, stored};
use derp_kv_core::{ErrorKind, KvStore};
use derp_kv_valkey::ValkeyStore;
use derp_kv_valkey::test_server::{Fault, Proxy, Server, Traffic};
use tokio::task::JoinSet;

async fn behind_proxy() -> (Server, Proxy, ValkeyStore) {
    let server = Server::start().await.expect("server");
    let proxy = Proxy::start(server.port()).await.expect("proxy");
    let store = connect(proxy.address()).await;
    // Now the server knows the script: the request that a fault waits for is the one that counts.
    store.incr(b"warm", 1, None).await.expect("incr");
    (server, proxy, store)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_and_restart() {
    let mut server = Server::start().await.expect("server");
    let store = connect(server.address()).await;
    store.set(b"before", b"1", None).await.expect("set");
    server.kill9();
    let start = Instant::now();
    let error = ends("get", store.get(b"before")).await.expect_err("nobody serves");
    let took = start.elapsed();
    assert!(error.is_transient() && !error.may_have_applied(), "{error:?}");
    // It has been down for a whole deadline: nobody waits for it any more.
    let start = Instant::now();
    for _ in 0..100 {
        let error = ends("get", store.get(b"before")).await.expect_err("nobody serves");
        assert!(error.is_transient() && !error.may_have_applied(), "{error:?}");
    }
    let each = start.elapsed() / 100;
    assert!(each < OP_TIMEOUT / 10, "a call takes {each:?} though the server is known to be down");
    server.restart().await.expect("restart");
    let start = Instant::now();
    recovers(async || store.set(b"after", b"1", None).await).await;
    // Down for less than a deadline: the first operation waits for the restart.
    server.restart().await.expect("restart");
    ends("set", store.set(b"after", b"2", None)).await.expect("the first operation succeeds");
    let saw = format!(
        "{:?} after {} ms, then {} us each while down, then ok",
        error.kind(),
        took.as_millis(),
        each.as_micros()
    );
    report_row("1", "kill -9, restart", saw, start.elapsed(), "nothing acknowledged");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn increments_through_kill_9() {
    let mut server = Server::builder()
        .option("appendonly", "yes")
        .option("appendfsync", "always")
        .start()
        .await
        .expect("server");
    let store = connect(server.address()).await;
    let load = Load::start(&store, &["n".to_owned()], 8);
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        server.restart().await.expect("restart");
    }
    let (_, back) = recovers(async || store.get(b"n").await).await;
    let tally = load.stop().await.remove(0);
    tally.check(stored(&store, "n").await);
    assert!(tally.ok > 0);
    report_row("1", "three kill -9 under increments", tally, back, "nothing, nothing twice");
}

#[tokio::test]
async fn restart_while_idle() {
    let mut server = Server::start().await.expect("server");
    let store = connect(server.address()).await;
    server.restart().await.expect("restart");
    let start = Instant::now();
    let counter =
        ends("incr", store.incr(b"n", 1, None)).await.expect("no failing first operation");
    assert_eq!(counter.value, 1);
    report_row("2", "restart while idle", "ok", start.elapsed(), "nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_server() {
    let mut server = Server::start().await.expect("server");
    let store = connect(server.address()).await;
    store.incr(b"n", 1, None).await.expect("incr");
    server.freeze().expect("freeze");
    let mut callers = JoinSet::new();
    for _ in 0..50 {
        let store = store.clone();
        callers.spawn(async move {
            let start = Instant::now();
            (ends("incr", store.incr(b"n", 1, None)).await, start.elapsed())
        });
    }
    let mut tally = Tally::default();
    while let Some(caller) = callers.join_next().await {
        let (result, took) = caller.expect("ends");
        assert_eq!(result.as_ref().expect_err("frozen").kind(), ErrorKind::Timeout);
        tally.add(result, took);
    }
    server.thaw().expect("thaw");
    let (_, back) = recovers(async || store.get(b"n").await).await;
    tally.ok += 1;
    tally.check(stored(&store, "n").await);
    report_row("3", "hang (SIGSTOP)", tally, back, "nothing, nothing twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_black_hole_of_one_flow() {
    let (_server, proxy, store) = behind_proxy().await;
    store.set(b"k", b"v", None).await.expect("set");
    let before = proxy.connections();
    proxy.set(Traffic::HoleBoth);
    let start = Instant::now();
    let error = ends("incr", store.incr(b"n", 1, None)).await.expect_err("a hole");
    assert!(error.may_have_applied() && error.is_transient(), "{error:?}");
    proxy.set(Traffic::Pass);
    let (value, _) = recovers(async || store.get(b"k").await).await;
    assert_eq!(value.as_deref(), Some(&b"v"[..]));
    assert!(proxy.connections() > before, "the old connection cannot have healed");
    assert_eq!(stored(&store, "n").await, 0);
    report_row(
        "4",
        "black hole of one flow",
        format!("{:?}, unknown", error.kind()),
        start.elapsed(),
        "nothing",
    );
}

const INSIDE: &str = "DERP_KV_TEST_OWN_NETWORK";

fn own_network() -> Command {
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--net"]);
    command
}

fn loopback(state: &str) {
    let status = Command::new("ip").args(["link", "set", "lo", state]).status();
    assert!(status.is_ok_and(|status| status.success()), "`ip` (iproute2) is needed");
}

/// Real packets are lost where the system allows a network of one's own; elsewhere the proxy's
/// hole stands in, and the row says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packets_are_dropped() {
    if std::env::var_os(INSIDE).is_some() {
        loopback("up");
        return lose_packets().await;
    }
    if own_network().arg("true").output().is_ok_and(|output| output.status.success()) {
        let test = std::env::current_exe().expect("this test");
        let output = own_network()
            .arg(test)
            .args(["--exact", "packets_are_dropped", "--nocapture"])
            .env(INSIDE, "1")
            .output()
            .expect("unshare");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        let row = text.lines().find(|line| line.starts_with("fault |")).expect("its row");
        println!("\n{row}");
        return;
    }
    let (_server, proxy, store) = behind_proxy().await;
    proxy.set(Traffic::HoleBoth);
    let error = ends("get", store.get(b"k")).await.expect_err("a hole");
    proxy.set(Traffic::Pass);
    let (_, back) = recovers(async || store.get(b"k").await).await;
    let saw = format!("{:?} (no network namespace: the proxy's hole instead)", error.kind());
    report_row("5", "packets dropped", saw, back, "nothing");
}

async fn lose_packets() {
    let server = Server::start().await.expect("server");
    let store = connect(server.address()).await;
    store.set(b"k", b"v", None).await.expect("set");
    loopback("down");
    let mut tally = Tally::default();
    for _ in 0..2 {
        let start = Instant::now();
        tally.add(ends("incr", store.incr(b"n", 1, None)).await, start.elapsed());
    }
    assert_eq!(tally.ok, 0);
    loopback("up");
    let (value, back) = recovers(async || store.get(b"k").await).await;
    assert_eq!(value.as_deref(), Some(&b"v"[..]));
    tally.check(stored(&store, "n").await);
    report_row("5", "packets dropped (loopback down)", tally, back, "nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_after_execution() {
    let (server, proxy, store) = behind_proxy().await;
    let start = Instant::now();
    for round in 1..=10 {
        let armed = proxy.arm("counter", Fault::CutAfter);
        let error = ends("incr", store.incr(b"counter", 1, None)).await.expect_err("no answer");
        assert!(error.may_have_applied(), "{error:?}");
        armed.fired().await.expect("fired");
        // Applied once, and never again.
        let value = server.command(&["GET", "counter"]).await.expect("get");
        assert_eq!(value.int().expect("integer"), round);
    }
    let armed = proxy.arm("counter", Fault::CutAfter);
    let value = ends("get", store.get(b"counter")).await.expect("a read is sent again");
    armed.fired().await.expect("fired");
    assert_eq!(value.as_deref(), Some(&b"10"[..]));
    report_row(
        "6",
        "cut after execution, 10 times",
        "incr unknown, get ok",
        start.elapsed() / 11,
        "nothing, nothing twice",
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_before_execution() {
    let (server, proxy, store) = behind_proxy().await;
    let armed = proxy.arm("counter", Fault::CutBefore);
    let result = ends("incr", store.incr(b"counter", 1, None)).await;
    armed.fired().await.expect("fired");
    // The client cannot know that it was not executed.
    assert!(result.expect_err("no answer").may_have_applied());
    assert_eq!(server.command(&["EXISTS", "counter"]).await.expect("ok").int().expect("int"), 0);
    let armed = proxy.arm("counter", Fault::CutBefore);
    assert_eq!(ends("get", store.get(b"counter")).await.expect("sent again"), None);
    armed.fired().await.expect("fired");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_cut_in_its_middle() {
    let (_server, proxy, store) = behind_proxy().await;
    let value = vec![7; 1 << 20];
    store.set(b"big", &value, None).await.expect("set");
    let armed = proxy.arm("big", Fault::CutReply);
    let start = Instant::now();
    let got = ends("get", store.get(b"big")).await.expect("sent again");
    armed.fired().await.expect("fired");
    assert_eq!(got.as_deref(), Some(&value[..]));
    report_row("+", "1 MiB reply cut in its middle", "ok, whole", start.elapsed(), "nothing");
    let armed = proxy.arm("counter", Fault::CutReply);
    let error = ends("incr", store.incr(b"counter", 1, None)).await.expect_err("half an answer");
    armed.fired().await.expect("fired");
    assert!(error.may_have_applied());
    assert_eq!(stored(&store, "counter").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replies_are_lost() {
    let (server, proxy, store) = behind_proxy().await;
    let armed = proxy.arm("counter", Fault::HoleReply);
    let start = Instant::now();
    let error = ends("incr", store.incr(b"counter", 1, None)).await.expect_err("no answer");
    armed.fired().await.expect("fired");
    assert!(error.may_have_applied(), "{error:?}");
    assert_eq!(server.command(&["GET", "counter"]).await.expect("get").int().expect("int"), 1);
    let value = recovers(async || store.get(b"counter").await).await.0;
    assert_eq!(value.as_deref(), Some(&b"1"[..]));
    let back = start.elapsed();
    let armed = proxy.arm("counter", Fault::HoleReply);
    let read = ends("get", store.get(b"counter")).await;
    armed.fired().await.expect("fired");
    let saw = format!(
        "incr {:?} and unknown, get {}",
        error.kind(),
        if read.is_ok() { "ok" } else { "error" }
    );
    assert_eq!(read.expect("a read is sent again in time").as_deref(), Some(&b"1"[..]));
    report_row("7", "replies lost", saw, back, "nothing, nothing twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn futures_dropped_at_random_points() {
    let (_server, proxy, store) = behind_proxy().await;
    for n in 0..64_u8 {
        store.set(&[b'k', n], &[n; 3], None).await.expect("set");
    }
    proxy.set(Traffic::Delay(Duration::from_millis(3)));
    let mut callers = JoinSet::new();
    for caller in 0..20_u64 {
        let store = store.clone();
        callers.spawn(async move {
            let (mut right, mut dropped) = (0, 0);
            for round in 0..100 {
                let n = u8::try_from((caller * 31 + round * 7) % 64).expect("small");
                let patience = Duration::from_micros((caller * 977 + round * 613) % 20_000);
                match tokio::time::timeout(patience, store.get(&[b'k', n])).await {
                    Ok(value) => {
                        assert_eq!(value.expect("get").as_deref(), Some(&[n; 3][..]));
                        right += 1;
                    }
                    Err(_) => dropped += 1,
                }
            }
            (right, dropped)
        });
    }
    let (mut right, mut dropped) = (0, 0);
    while let Some(caller) = callers.join_next().await {
        let counts = caller.expect("no wrong answer");
        (right, dropped) = (right + counts.0, dropped + counts.1);
    }
    proxy.set(Traffic::Pass);
    let start = Instant::now();
    for n in 0..64_u8 {
        let value = ends("get", store.get(&[b'k', n])).await.expect("get");
        assert_eq!(value.as_deref(), Some(&[n; 3][..]));
    }
    assert!(dropped > 0);
    report_row(
        "8",
        "2000 futures dropped at random",
        format!("{right} right, {dropped} dropped, 0 wrong"),
        start.elapsed(),
        "nothing",
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_on_a_frozen_server() {
    const CALLERS: i64 = 100_000;
    const IN_FLIGHT: i64 = 256;
    let mut server = Server::start().await.expect("server");
    let config = config(server.address()).max_in_flight(256);
    let store = Arc::new(ValkeyStore::connect(config).await.expect("connect"));
    server.freeze().expect("freeze");
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let store = Arc::clone(&store);
        callers.spawn(async move {
            let start = Instant::now();
            (store.incr(b"n", 1, None).await, start.elapsed())
        });
    }
    let mut tally = Tally::default();
    let all = async {
        while let Some(caller) = callers.join_next().await {
            let (result, took) = caller.expect("ends");
            tally.add(result, took);
        }
    };
    tokio::time::timeout(Duration::from_secs(60), all).await.expect("every caller is released");
    assert_eq!(tally.ok, 0);
    // What was in flight is bounded: only those requests can have been executed.
    assert!(tally.unknown <= IN_FLIGHT * 2, "{tally}");
    server.thaw().expect("thaw");
    let (_, back) = recovers(async || store.get(b"n").await).await;
    let counted = stored(&store, "n").await;
    tally.check(counted);
    report_row(
        "11",
        "100,000 increments on a stopped server",
        format!("{tally}; executed later: {counted}"),
        back,
        "nothing, nothing twice",
    );
    assert!(OP_TIMEOUT < Duration::from_secs(60));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_connections() {
    let (_server, proxy, store) = behind_proxy().await;
    proxy.set(Traffic::Refuse);
    proxy.cut_all();
    let error = ends("incr", store.incr(b"n", 1, None)).await.expect_err("refused");
    assert!(error.is_transient());
    proxy.set(Traffic::Pass);
    let (_, back) = recovers(async || store.get(b"n").await).await;
    report_row("+", "connections cut and refused", format!("{:?}", error.kind()), back, "nothing");
}
