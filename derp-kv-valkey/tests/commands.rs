//! What each primitive sends, counted by the server.

use std::collections::BTreeMap;
use std::time::Duration;

use derp_kv_core::KvStore;
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
async fn a_large_batch_goes_out_in_chunks() {
    let counted = Counted::start().await;
    let keys: Vec<_> = (0..1100).map(|n: u32| n.to_be_bytes()).collect();
    let keys: Vec<_> = keys.iter().map(|key| &key[..]).collect();
    counted.reset().await;
    assert_eq!(counted.kv.mget(&keys).await.unwrap().len(), 1100);
    counted.assert_sent("mget of 1100 keys", &[("mget", 3)]).await;
}
