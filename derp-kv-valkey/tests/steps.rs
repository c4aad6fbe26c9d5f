//! Steps that race, that lose their answers, and whose server is gone.

mod common;
mod fake;

use std::time::{Duration, Instant};

use common::{OP_TIMEOUT, connect, ends, recovers};
use derp_kv_core::{
    Ask, DecidedBy, ErrorKind, Expiry, KvStore, KvStoreExt as _, Operation, RateLimit, RateLimiter,
    WithoutStore,
};
use derp_kv_valkey::test_server::{Fault, Proxy, Reply, Server};
use fake::{Fake, greeting};
use tokio::task::JoinSet;

const HOUR: Duration = Duration::from_secs(3600);

fn both(limit: u64) -> [(&'static str, RateLimit); 2] {
    [("smooth", RateLimit::smooth(limit, HOUR)), ("strict", RateLimit::strict(limit, HOUR))]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_racing_calls_as_many_are_allowed_as_the_limit_has_room_for() {
    let server = Server::start().await.unwrap();
    let stores = [connect(server.address()).await, connect(server.address()).await];
    for (name, limit) in both(50) {
        let mut callers = JoinSet::new();
        for caller in 0..200 {
            let (kv, limit) = (stores[caller % 2].clone(), limit.clone());
            callers.spawn(async move { kv.rate_limit("raced", &limit).await.unwrap() });
        }
        let statuses = callers.join_all().await;
        let mut counts: Vec<_> =
            statuses.iter().filter(|status| status.allowed).map(|status| status.count).collect();
        counts.sort_unstable();
        assert_eq!(counts, (1..=50).collect::<Vec<_>>(), "{name}: each has its own place");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_whose_answer_is_lost_may_have_been_applied() {
    let server = Server::start().await.unwrap();
    let proxy = Proxy::start(server.port()).await.unwrap();
    let kv = connect(proxy.address()).await;
    for (name, limit) in both(9) {
        kv.rate_limit("warm", &limit).await.unwrap();
        let key = format!("derp:{name}:lost");
        for (fault, used) in [(Fault::CutAfter, 1), (Fault::CutReply, 2), (Fault::CutBefore, 2)] {
            let armed = proxy.arm(&key, fault);
            let error = ends("a step", kv.rate_limit("lost", &limit)).await.expect_err("no answer");
            armed.fired().await.unwrap();
            assert!(error.may_have_applied() && error.is_transient(), "{name}: {error:?}");
            // Counted once at most, whatever became of the answer.
            let status = recovers(async || kv.rate_limit_peek("lost", &limit).await).await.0;
            assert_eq!(status.remaining, 9 - used, "{name} {fault:?}");
        }
        // One that only looks is asked for again.
        let armed = proxy.arm(&key, Fault::CutAfter);
        let peek = limit.step(Ask::Peek).unwrap();
        assert!(ends("a peek", kv.step(key.as_bytes(), &peek)).await.unwrap().admitted());
        armed.fired().await.unwrap();
    }
}

#[tokio::test]
async fn a_key_of_another_type_is_corrupt_and_stays_as_it_is() {
    let server = Server::start().await.unwrap();
    let kv = connect(server.address()).await;
    for (name, limit) in both(9) {
        let key = format!("derp:{name}:list");
        server.command(&["RPUSH", &key, "a", "b"]).await.unwrap();
        for ask in [Ask::Admit, Ask::Refund, Ask::Peek] {
            let step = limit.step(ask).unwrap();
            let error = kv.step(key.as_bytes(), &step).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{name}: {error:?}");
            assert!(!error.may_have_applied() && !error.is_transient(), "{name}: {error:?}");
            assert_eq!(error.operation(), Some(Operation::Step));
        }
        let list = server.command(&["LRANGE", &key, "0", "-1"]).await.unwrap();
        let kept = ["a", "b"].map(|item| Reply::Bytes(item.into()));
        assert_eq!(list.array().unwrap(), kept, "{name}");
        assert_eq!(server.command(&["PTTL", &key]).await.unwrap().int().unwrap(), -1);
    }
}

#[tokio::test]
async fn what_is_no_record_is_corrupt_and_stays_as_it_is() {
    let server = Server::start().await.unwrap();
    let kv = connect(server.address()).await;
    for (name, limit) in both(9) {
        let key = format!("derp:{name}:other");
        kv.set(key.as_bytes(), b"7", Some(HOUR)).await.unwrap();
        for ask in [Ask::Admit, Ask::Refund, Ask::Peek] {
            let step = limit.step(ask).unwrap();
            let error = kv.step(key.as_bytes(), &step).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{name}: {error:?}");
            assert!(!error.may_have_applied() && !error.is_transient(), "{name}: {error:?}");
        }
        let (value, expiry) = kv.get_with_ttl(key.as_bytes()).await.unwrap().unwrap();
        assert!(value == "7" && expiry != Expiry::Never, "{name}: {value:?} {expiry:?}");
    }
}

#[tokio::test]
async fn what_a_fixed_window_counts_is_left_alone_by_the_others() {
    let server = Server::start().await.unwrap();
    let kv = connect(server.address()).await;
    // As derp-py counts.
    server.command(&["SET", "derp:ratelimit:ada", "3", "EX", "60"]).await.unwrap();
    for (name, limit) in both(1) {
        assert!(kv.rate_limit("ada", &limit).await.unwrap().allowed, "{name}");
        assert!(!kv.rate_limit("ada", &limit).await.unwrap().allowed, "{name}");
        kv.rate_limit_refund("ada", &limit).await.unwrap();
        kv.rate_limit_reset("ada", &limit).await.unwrap();
    }
    let count = server.command(&["GET", "derp:ratelimit:ada"]).await.unwrap();
    assert_eq!(count.int().unwrap(), 3);
    let fixed = RateLimit::new(5, Duration::from_secs(60));
    assert_eq!(kv.rate_limit("ada", &fixed).await.unwrap().count, 4);
}

#[tokio::test]
async fn a_step_with_an_odd_answer_may_have_been_applied() {
    // None of these is what the script makes of an absent key: it would admit the call.
    for reply in [
        ":1\r\n",
        "_\r\n",
        "*3\r\n_\r\n:-2\r\n:0\r\n",
        "*3\r\n_\r\n:-1\r\n:1\r\n",
        "*3\r\n_\r\n:-2\r\n:2\r\n",
        "*3\r\n$1\r\nG\r\n:-2\r\n:1\r\n",
        "*3\r\n$1\r\nG\r\n:5\r\n:1\r\n",
        "*2\r\n_\r\n:-2\r\n",
    ] {
        let fake = Fake::start(move |request| async move {
            greeting(&request, "8.0.1", "standalone").unwrap_or_else(|| reply.to_owned())
        })
        .await;
        let kv = connect(fake.address()).await;
        for (name, limit) in both(9) {
            let admit = limit.step(Ask::Admit).unwrap();
            let error = ends("a step", kv.step(b"k", &admit)).await.expect_err(reply);
            assert_eq!(error.kind(), ErrorKind::Backend, "{name} {reply:?}: {error:?}");
            assert!(error.may_have_applied(), "{name} {reply:?}: {error:?}");
            assert_eq!(error.operation(), Some(Operation::Step));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_server_a_limiter_decides_at_once_and_asks_it_again_when_it_is_back() {
    let mut server = Server::start().await.unwrap();
    let kv = connect(server.address()).await;
    let limit = RateLimit::strict(8, HOUR);
    let limiter = |answer| RateLimiter::new(kv.clone(), limit.clone()).on_store_error(answer);
    let limiters = [
        (limiter(WithoutStore::Deny), DecidedBy::Policy, 0),
        (limiter(WithoutStore::Allow), DecidedBy::Policy, 100),
        (limiter(WithoutStore::Local { share: 0.5 }), DecidedBy::Local, 4),
    ];
    for (limiter, ..) in &limiters {
        let status = limiter.check("before").await.unwrap();
        assert_eq!((status.allowed, status.source), (true, DecidedBy::Store));
    }
    server.kill9();
    // What is asked while the connection breaks fails by its deadline, and is decided then.
    let status = ends("the first call", limiters[0].0.check("first")).await.unwrap();
    assert_eq!((status.allowed, status.source), (false, DecidedBy::Policy));
    // A read is sent again for a whole deadline: after it the server is known to be down.
    ends("get", kv.get(b"k")).await.expect_err("nobody serves");
    for (limiter, source, expected) in &limiters {
        let (mut allowed, mut took) = (0, Vec::new());
        for _ in 0..100 {
            let start = Instant::now();
            let status = ends("a call", limiter.check("down")).await.unwrap();
            took.push(start.elapsed());
            assert_eq!(status.source, *source);
            allowed += u64::from(status.allowed);
        }
        took.sort_unstable();
        println!("{source:?}: {:?} a call, the median, while the server is down", took[50]);
        assert_eq!(allowed, *expected, "{source:?}");
        // Nobody has waited for the server: a hundred calls take less than its deadline.
        assert!(took.iter().sum::<Duration>() < OP_TIMEOUT, "{source:?}: {took:?}");
    }
    server.restart().await.unwrap();
    for (limiter, ..) in &limiters {
        let asked = async {
            while limiter.check("after").await.unwrap().source != DecidedBy::Store {
                tokio::task::yield_now().await;
            }
        };
        ends("the store's answer", asked).await;
    }
}
