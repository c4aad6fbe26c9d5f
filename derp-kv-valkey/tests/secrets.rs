//! No key, value, password or user name is told to anybody who watches, whatever happens. A target of its
//! own, because its subscriber hears every thread of the process.

mod common;
mod hush;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use common::{ends, recovers};
use derp_kv_core::{
    Cache, Dedup, Error, ErrorKind, Event, GuardedGet, Idempotency, KvStore, KvStoreExt, Lock,
    Observer, RateLimit, RateLimiter, WithoutStore,
};
use derp_kv_valkey::test_server::{Cluster, Fault, Proxy, Server};
use derp_kv_valkey::{Mode, Repeat, ValkeyConfig, ValkeyStore};
use futures_util::TryStreamExt;
use hush::{SECRET, hear};

const MINUTE: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(700);

/// Hears everything, as the subscriber does.
#[derive(Debug)]
struct Hears;

impl Observer for Hears {
    fn event(&self, event: Event<'_>) {
        hear("an event", &format!("{event:?}"));
    }
}

fn shows(what: &str, shown: &impl Debug) {
    hear(what, &format!("{shown:?} {shown:#?}"));
}

/// Looks at an error as a log does, with its sources.
fn failed<T>(result: Result<T, Error>) -> Option<ErrorKind> {
    let error = result.err()?;
    shows("an error", &error);
    hear("an error", &error.to_string());
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        hear("a source", &format!("{cause} {cause:?}"));
        source = cause.source();
    }
    Some(error.kind())
}

/// Every call there is on a key of this name; the kinds of the errors.
async fn use_everything(kv: &ValkeyStore, name: &str) -> Vec<ErrorKind> {
    let key = format!("{SECRET}:{name}");
    let (k, v) = (key.as_bytes(), SECRET.as_bytes());
    let more = format!("{key}:more");
    let mut kinds = Vec::new();
    kinds.extend(failed(kv.set(k, v, Some(MINUTE)).await));
    kinds.extend(failed(kv.get(k).await));
    kinds.extend(failed(kv.get_with_ttl(k).await));
    kinds.extend(failed(kv.exists(k).await));
    kinds.extend(failed(kv.ttl(k).await));
    kinds.extend(failed(kv.expire(k, MINUTE).await));
    kinds.extend(failed(kv.mset(&[(k, v), (more.as_bytes(), v)], None).await));
    kinds.extend(failed(kv.mget(&[k, more.as_bytes()]).await));
    kinds.extend(failed(kv.set_nx(k, v, None).await));
    kinds.extend(failed(kv.incr(k, 1, None).await));
    kinds.extend(failed(kv.compare_and_set(k, v, v, None).await));
    kinds.extend(failed(kv.scan(k).try_collect::<Vec<_>>().await));
    kv.wait_for_change(k, Some(v), Duration::from_millis(20)).await;
    let unknown: [&[u8]; 3] = [key.as_bytes(), k, v];
    kinds.extend(failed(kv.command(k, &unknown, Repeat::Once).await));
    kinds.extend(failed(kv.command(k, &[b"GET", k], Repeat::Safe).await));
    let echo: [&[u8]; 4] = [b"EVAL", b"return redis.error_reply(ARGV[1])", b"0", b"MINE"];
    kinds.extend(failed(kv.command(k, &echo, Repeat::Safe).await));
    kinds.extend(failed(kv.compare_and_delete(k, v).await));
    kinds.extend(failed(kv.delete_many(&[k, more.as_bytes()]).await));
    kinds.extend(failed(kv.delete(k).await));
    kinds.extend(use_helpers(kv, &key).await);
    kinds
}

async fn use_helpers(kv: &ValkeyStore, key: &str) -> Vec<ErrorKind> {
    let key = |of: &str| format!("{key}:{of}");
    let mut kinds = Vec::new();
    let page = GuardedGet::new(MINUTE);
    let compute = || async { Ok::<_, Error>(SECRET) };
    for _ in 0..2 {
        kinds.extend(failed(kv.guarded_get(key("page"), &page, compute).await));
        kinds.extend(failed(kv.guarded_get_detailed(key("page"), &page, compute).await));
    }
    kinds.extend(failed(kv.refresh(key("page"), SECRET.as_bytes(), Some(MINUTE)).await));
    kinds.extend(failed(kv.invalidate(key("page")).await));
    let names: Cache<_, String> = Cache::new(kv.clone(), "names:", page);
    shows("a cache", &names);
    let name = || async { Ok::<_, Error>(SECRET.to_owned()) };
    let named = move |_| name();
    for id in [SECRET, "2"] {
        kinds.extend(failed(names.get(id, named).await));
        kinds.extend(failed(names.peek(id).await));
    }
    let all = |ids: Vec<String>| async move { Ok::<_, Error>(ids) };
    kinds.extend(failed(names.get_many(&[SECRET.to_owned(), "3".to_owned()], all).await));
    kinds.extend(failed(names.put(SECRET, &SECRET.to_owned()).await));
    kinds.extend(failed(names.invalidate(SECRET).await));
    // What another helper has written cannot be decoded, and is computed anew.
    let odd = format!("names:{}", key("odd"));
    kinds.extend(failed(kv.set(odd.as_bytes(), SECRET.as_bytes(), None).await));
    kinds.extend(failed(names.get(key("odd"), named).await));
    let once = Idempotency::default();
    for _ in 0..2 {
        kinds.extend(failed(kv.idempotent_execute(key("order"), &once, name).await));
    }
    kinds.extend(failed(kv.idempotent_forget(key("order"), &once).await));
    let dedup = Dedup::default();
    for _ in 0..2 {
        kinds.extend(failed(kv.already_processed(key("seen"), &dedup).await));
        kinds.extend(failed(kv.process_once(key("event"), &dedup, name).await));
    }
    kinds.extend(failed(kv.process_forget(key("event"), &dedup).await));
    for limit in [RateLimit::new(1, MINUTE), RateLimit::smooth(1, MINUTE)] {
        for _ in 0..2 {
            kinds.extend(failed(kv.rate_limit(key("limit"), &limit).await));
        }
        kinds.extend(failed(kv.rate_limit_peek(key("limit"), &limit).await));
        kinds.extend(failed(kv.rate_limit_refund(key("limit"), &limit).await));
        kinds.extend(failed(kv.rate_limit_reset(key("limit"), &limit).await));
        let limiter = RateLimiter::new(kv.clone(), limit).on_store_error(WithoutStore::Deny);
        kinds.extend(failed(limiter.check(key("limiter")).await));
        shows("a limiter", &limiter);
    }
    let lease = kv.try_lock(key("job"), MINUTE).await;
    kinds.extend(failed(lease.map(drop)));
    let patience = Lock::new(MINUTE).at_most(Duration::from_millis(20));
    kinds.extend(failed(kv.lock(key("job"), &patience).await));
    kinds
}

async fn watched(config: ValkeyConfig) -> (ValkeyStore, ValkeyConfig) {
    hush::listen();
    let config = config.op_timeout(SHORT).observer(Arc::new(Hears));
    let kv = recovers(async || ValkeyStore::connect(config.clone()).await).await.0;
    shows("a store", &kv);
    (kv, config)
}

fn said_nothing(at_least: u64) {
    assert_eq!(hush::leaks(), [""; 0]);
    assert!(hush::told() >= at_least, "nobody listens: {}", hush::told());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_server_in_all_its_troubles() {
    let password = format!("{SECRET}-password");
    let user = format!("{SECRET}-user");
    let mut server =
        Server::builder().user(&user, &password, "~* &* +@all").start().await.expect("server");
    let proxy = Proxy::start(server.port()).await.expect("proxy");
    let config = ValkeyConfig::default().addresses([proxy.address()]);
    let (kv, config) = watched(config.username(&user).password(&password)).await;
    assert!(!format!("{config:?}").contains(&password), "the user is no secret here");
    let kinds = use_everything(&kv, "plain").await;
    // The value is no number, and the word is no command.
    assert!(kinds.contains(&ErrorKind::NotAnInteger), "{kinds:?}");
    assert!(kinds.contains(&ErrorKind::Unsupported), "{kinds:?}");

    // Something else is at the keys.
    for of in ["wrong", "wrong:page", "wrong:more", "wrong:limit", "wrong:job"] {
        let key = format!("{SECRET}:{of}");
        server.command(&["HSET", &key, "field", SECRET]).await.expect("hset");
    }
    let kinds = use_everything(&kv, "wrong").await;
    assert!(kinds.contains(&ErrorKind::Backend), "{kinds:?}");

    // The answer is lost, or the request is.
    for fault in [Fault::CutBefore, Fault::CutAfter, Fault::CutReply] {
        let armed = proxy.arm(format!("{SECRET}:cut"), fault);
        failed(kv.incr(format!("{SECRET}:cut").as_bytes(), 1, None).await);
        ends("the fault", armed.fired()).await.expect("fired");
        recovers(async || kv.get(b"k").await).await;
    }

    server.freeze().expect("freeze");
    let key = format!("{SECRET}:late");
    let late = ends("set", kv.set(key.as_bytes(), SECRET.as_bytes(), None)).await;
    assert_eq!(failed(late), Some(ErrorKind::Timeout));
    shows("stats", &kv.stats());
    let kinds = ends("calls of a frozen server", async {
        let mut kinds = Vec::new();
        while !kinds.contains(&ErrorKind::Unavailable) {
            kinds.extend(failed(kv.get(key.as_bytes()).await));
        }
        kinds.extend(failed(kv.mget(&[key.as_bytes(), b"k"]).await));
        kinds
    })
    .await;
    assert!(kinds.len() >= 2, "{kinds:?}");
    server.thaw().expect("thaw");
    recovers(async || kv.get(key.as_bytes()).await).await;

    // The user may do nothing more, and then is none.
    server.command(&["ACL", "SETUSER", &user, "resetkeys", "~other"]).await.expect("acl");
    let denied = |error: Error| {
        // The server names the user, who is told to the caller alone.
        assert!(!error.to_string().contains(&format!("{SECRET}:")), "{error}");
        assert!(!format!("{error:?}").contains(&password), "{error:?}");
        error.kind()
    };
    let denied_get = kv.get(key.as_bytes()).await.map_err(denied).expect_err("no such key");
    assert_eq!(denied_get, ErrorKind::AccessDenied);
    let denied_set = kv.incr(key.as_bytes(), 1, None).await.map_err(denied).expect_err("denied");
    assert_eq!(denied_set, ErrorKind::AccessDenied);
    server.command(&["ACL", "DELUSER", &user]).await.expect("acl");
    let unknown = ends("a user that is none", async {
        loop {
            if let Err(error) = kv.get(key.as_bytes()).await
                && denied(error) == ErrorKind::AccessDenied
            {
                break;
            }
        }
    });
    unknown.await;
    let wrong = config.clone().password(format!("{SECRET}-wrong"));
    let error = ValkeyStore::connect(wrong).await.map_err(denied).expect_err("no such user");
    assert_eq!(error, ErrorKind::AccessDenied);

    server.kill9();
    failed(ends("get", kv.get(key.as_bytes())).await);
    shows("stats", &kv.stats());
    drop(kv);
    said_nothing(1_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_moves() {
    let mut cluster = Cluster::start(3, 0).await.expect("cluster");
    let config = ValkeyConfig::default().addresses(cluster.addresses()).mode(Mode::Cluster);
    let (kv, _) = watched(config).await;
    use_everything(&kv, "cluster").await;
    let key = format!("{SECRET}:moves");
    let key = key.as_bytes();
    recovers(async || kv.set(key, SECRET.as_bytes(), None).await).await;
    let slot = derp_kv_valkey::test_server::slot_of(key);
    let from = cluster.owner_of(slot).await.expect("owner");
    let to = (from + 1) % 3;
    cluster.begin_move(slot, to).await.expect("begun");
    failed(kv.get(format!("{{{SECRET}:moves}}:ask").as_bytes()).await);
    failed(kv.mget(&[key, b"k"]).await);
    cluster.move_slot(slot, to).await.expect("moved");
    recovers(async || kv.get(key).await).await;
    cluster.node_mut(to).kill9();
    let error = ends("get", kv.get(key)).await;
    assert!(failed(error).is_some());
    failed(ends("mset", kv.mset(&[(key, SECRET.as_bytes()), (b"k", b"v")], None)).await);
    shows("stats", &kv.stats());
    said_nothing(100);
}
