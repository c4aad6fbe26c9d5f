//! What each primitive sends, counted by the server.

use std::collections::BTreeMap;
use std::time::Duration;

use derp_kv_core::{Ask, KvStore, KvStoreExt as _, RateLimit};
use derp_kv_valkey::test_server::Server;
use derp_kv_valkey::{ValkeyConfig, ValkeyStore};
use futures_util::TryStreamExt;

const MINUTE: Option<Duration> = Some(Duration::from_secs(60));

struct Counted {
    server: Server,
    kv: ValkeyStore,
}

impl Counted {
    async fn start() -> Self {
        let server = Server::start().await.unwrap();
        let config = ValkeyConfig::default().addresses([server.address()]);
        let kv = ValkeyStore::connect(config).await.unwrap();
        // From here on the scripts are in the server's cache.
        kv.set(b"n", b"1", None).await.unwrap();
        kv.get_with_ttl(b"n").await.unwrap();
        kv.incr(b"n", 1, None).await.unwrap();
        kv.compare_and_set(b"n", b"", b"", None).await.unwrap();
        kv.compare_and_delete(b"n", b"").await.unwrap();
        Self { server, kv }
    }

    async fn reset(&self) {
        self.server.command(&["CONFIG", "RESETSTAT"]).await.unwrap();
    }

    /// Calls by command since the reset, without this test's own. A command that a script runs
    /// inside the server counts as well.
    async fn calls(&self) -> BTreeMap<String, u64> {
        let info = self.server.command(&["INFO", "commandstats"]).await.unwrap();
        let info = info.text().unwrap().to_owned();
        info.lines()
            .filter_map(|line| {
                let (name, stats) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
                let calls = stats.split(',').next()?.parse().ok()?;
                (!["info", "auth", "config", "config|resetstat"].contains(&name))
                    .then(|| (name.to_owned(), calls))
            })
            .collect()
    }

    async fn assert_sent(&self, what: &str, expected: &[(&str, u64)]) {
        // Redis 6 counts the subcommands of a command together, under its name.
        let together = self.server.version().await.unwrap() < (7, 0, 0);
        let counted =
            |name: &str| name.split('|').next().filter(|_| together).unwrap_or(name).to_owned();
        let expected: BTreeMap<_, _> =
            expected.iter().map(|(name, calls)| (counted(name), *calls)).collect();
        assert_eq!(self.calls().await, expected, "{what}");
        self.reset().await;
    }
}

#[tokio::test]
async fn each_primitive_is_one_command() {
    let counted = Counted::start().await;
    let kv = &counted.kv;
    let version = counted.server.version().await.unwrap();
    let is_valkey = counted.server.info("valkey_version").await.is_ok();
    counted.reset().await;

    kv.get(b"k").await.unwrap();
    counted.assert_sent("get", &[("get", 1)]).await;
    kv.set(b"k", b"v", None).await.unwrap();
    counted.assert_sent("set", &[("set", 1)]).await;
    kv.set(b"k", b"v", MINUTE).await.unwrap();
    counted.assert_sent("set with a TTL", &[("set", 1)]).await;
    kv.get_with_ttl(b"k").await.unwrap();
    counted.assert_sent("get_with_ttl", &[("evalsha", 1), ("get", 1), ("pttl", 1)]).await;
    kv.exists(b"k").await.unwrap();
    counted.assert_sent("exists", &[("exists", 1)]).await;
    kv.ttl(b"k").await.unwrap();
    counted.assert_sent("ttl", &[("pttl", 1)]).await;
    kv.expire(b"k", Duration::from_secs(5)).await.unwrap();
    counted.assert_sent("expire", &[("pexpire", 1)]).await;
    kv.set_nx(b"nx", b"v", MINUTE).await.unwrap();
    counted.assert_sent("set_nx", &[("set", 1)]).await;
    kv.delete(b"nx").await.unwrap();
    counted.assert_sent("delete", &[("del", 1)]).await;
    kv.incr(b"new", 1, MINUTE).await.unwrap();
    let created = [("evalsha", 1), ("pttl", 2), ("set", 1)];
    counted.assert_sent("incr of a new counter", &created).await;
    kv.incr(b"new", 1, MINUTE).await.unwrap();
    let counted_up = [("evalsha", 1), ("incrby", 1), ("pttl", 1)];
    counted.assert_sent("incr", &counted_up).await;
    kv.incr(b"new", 1 << 53, MINUTE).await.unwrap();
    let counted_far = [("evalsha", 1), ("get", 1), ("incrby", 1), ("pttl", 1)];
    counted.assert_sent("incr beyond what a Lua number holds", &counted_far).await;

    kv.compare_and_set(b"k", b"v", b"w", MINUTE).await.unwrap();
    let swap: &[_] = if is_valkey && version >= (8, 1, 0) {
        &[("set", 1)]
    } else {
        &[("evalsha", 1), ("get", 1), ("set", 1)]
    };
    counted.assert_sent("compare_and_set", swap).await;
    kv.compare_and_delete(b"k", b"w").await.unwrap();
    let delete: &[_] = if is_valkey && version >= (9, 0, 0) {
        &[("delifeq", 1)]
    } else {
        &[("del", 1), ("evalsha", 1), ("get", 1)]
    };
    counted.assert_sent("compare_and_delete", delete).await;

    kv.mset(&[(b"a", b"1"), (b"b", b"2"), (b"a", b"3")], MINUTE).await.unwrap();
    counted.assert_sent("mset of two keys", &[("set", 2)]).await;
    kv.mget(&[b"a", b"b", b"a", b"c"]).await.unwrap();
    counted.assert_sent("mget", &[("mget", 1)]).await;
    kv.delete_many(&[b"a", b"b", b"a", b"c"]).await.unwrap();
    counted.assert_sent("delete_many", &[("del", 1)]).await;
    let _: Vec<_> = kv.scan(b"").try_collect().await.unwrap();
    counted.assert_sent("scan of a small keyspace", &[("scan", 1)]).await;
    kv.wait_for_change(b"k", Some(b"other"), Duration::from_secs(60)).await;
    let watched = [("client|caching", 1), ("get", 1), ("pttl", 1)];
    counted.assert_sent("wait_for_change that sees a change", &watched).await;
    kv.wait_for_change(b"k", None, Duration::from_secs(60)).await;
    let watched = [("client|caching", 1), ("get", 1)];
    counted.assert_sent("wait_for_change of an absent key", &watched).await;
}

#[tokio::test]
async fn a_rate_limit_is_one_command_allowed_or_denied() {
    let counted = Counted::start().await;
    let kv = &counted.kv;
    let hour = Duration::from_secs(3600);
    for (name, one) in
        [("smooth", RateLimit::smooth(2, hour)), ("strict", RateLimit::strict(2, hour))]
    {
        for (id, limit) in [("1", one.clone()), ("8", RateLimit::all(vec![one.clone(); 8]))] {
            // From here on the script is in the server's cache.
            kv.rate_limit_refund(id, &limit).await.unwrap();
            counted.reset().await;
            let named = |what| format!("{name} of {id}, {what}");
            assert!(kv.rate_limit(id, &limit).await.unwrap().allowed);
            let new = [("evalsha", 1), ("get", 1), ("set", 1)];
            counted.assert_sent(&named("new"), &new).await;
            assert!(kv.rate_limit(id, &limit).await.unwrap().allowed);
            let known = [("evalsha", 1), ("get", 1), ("pttl", 1), ("set", 1)];
            counted.assert_sent(&named("allowed"), &known).await;
            assert!(!kv.rate_limit(id, &limit).await.unwrap().allowed);
            let looked = [("evalsha", 1), ("get", 1), ("pttl", 1)];
            counted.assert_sent(&named("denied"), &looked).await;
            assert!(!kv.rate_limit_peek(id, &limit).await.unwrap().allowed);
            counted.assert_sent(&named("peek"), &looked).await;
            let key = format!("derp:{name}:{id}");
            let peek = limit.step(Ask::Peek).unwrap();
            assert!(!kv.step(key.as_bytes(), &peek).await.unwrap().admitted());
            counted.assert_sent(&named("a step that peeks"), &looked).await;
            assert_eq!(kv.rate_limit_refund(id, &limit).await.unwrap().remaining, 1);
            counted.assert_sent(&named("refund"), &known).await;
            assert_eq!(kv.rate_limit_refund(id, &limit).await.unwrap().count, 0);
            let deleted = [("del", 1), ("evalsha", 1), ("get", 1), ("pttl", 1)];
            counted.assert_sent(&named("the last refund"), &deleted).await;
        }
    }
}

#[tokio::test]
async fn a_call_is_a_small_future() {
    // redis-rs's own takes 1,112 bytes. Passed on by value once more, it doubled this one, and
    // allocating and moving that was a tenth of a call's processor time.
    let Counted { kv, .. } = Counted::start().await;
    for future in [size_of_val(&*kv.get(b"k")), size_of_val(&*kv.set(b"k", b"v", None))] {
        assert!(future < 2048, "{future} bytes");
    }
}

#[tokio::test]
async fn what_needs_no_server_sends_nothing() {
    let counted = Counted::start().await;
    let kv = &counted.kv;
    counted.reset().await;

    assert_eq!(kv.mget(&[]).await.unwrap(), []);
    kv.mset(&[], MINUTE).await.unwrap();
    assert_eq!(kv.delete_many(&[]).await.unwrap(), 0);
    kv.set(b"k", b"v", Some(Duration::ZERO)).await.unwrap_err();
    kv.expire(b"k", Duration::MAX).await.unwrap_err();
    kv.incr(b"k", 1, Some(Duration::ZERO)).await.unwrap_err();
    counted.assert_sent("nothing", &[]).await;
}

#[tokio::test]
async fn a_flushed_script_is_sent_again_unseen() {
    let counted = Counted::start().await;
    counted.server.command(&["SCRIPT", "FLUSH"]).await.unwrap();
    counted.reset().await;
    assert_eq!(counted.kv.incr(b"n", 1, None).await.unwrap().value, 3);
    let calls = counted.calls().await;
    assert_eq!((calls.get("evalsha"), calls.get("eval")), (Some(&1), Some(&1)), "{calls:?}");
}

#[tokio::test]
async fn a_step_whose_script_was_flushed_is_made_once() {
    let counted = Counted::start().await;
    let hour = Duration::from_secs(3600);
    for limit in [RateLimit::smooth(9, hour), RateLimit::strict(9, hour)] {
        for used in 1..=3 {
            counted.server.command(&["SCRIPT", "FLUSH"]).await.unwrap();
            counted.reset().await;
            let status = counted.kv.rate_limit("n", &limit).await.unwrap();
            assert_eq!((status.allowed, status.remaining), (true, 9 - used));
            let calls = counted.calls().await;
            let sent = (calls.get("evalsha"), calls.get("eval"), calls.get("set"));
            assert_eq!(sent, (Some(&1), Some(&1), Some(&1)), "{calls:?}");
        }
    }
}

#[tokio::test]
async fn a_large_batch_goes_out_in_chunks() {
    let counted = Counted::start().await;
    let keys: Vec<_> = (0..1100).map(|n: u32| n.to_be_bytes()).collect();
    let keys: Vec<_> = keys.iter().map(|key| &key[..]).collect();
    counted.reset().await;
    assert_eq!(counted.kv.mget(&keys).await.unwrap().len(), 1100);
    counted.assert_sent("mget of 1100 keys", &[("mget", 3)]).await;
}
