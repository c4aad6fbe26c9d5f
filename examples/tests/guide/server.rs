//! A server agrees with what the guide says of rights and of memory.

use std::time::Duration;

use derp_kv_core::{
    Cache, Dedup, Error, ErrorKind, GuardedGet, Idempotency, KvStore, KvStoreExt, OnAbandoned,
    RateLimit, Result,
};
use derp_kv_valkey::test_server::{Cluster, Server};
use derp_kv_valkey::{Mode, ValkeyConfig, ValkeyStore};
use futures_util::TryStreamExt;

use crate::markdown::{Page, quoted};

const PASSWORD: &str = "secret";
const MINUTE: Duration = Duration::from_secs(60);

/// The rules of the user's lines: for one server, and for a cluster.
fn rules(page: &Page) -> [&str; 2] {
    let lines = page.text.lines();
    let rules: Vec<_> =
        lines.filter_map(|line| line.strip_prefix("user app on >password ")).collect();
    rules.try_into().expect("one line for a server and one for a cluster")
}

fn with_user(address: (String, u16)) -> ValkeyConfig {
    ValkeyConfig::default().addresses([address]).username("app").password(PASSWORD)
}

/// Every primitive and every helper, with ids of this `run`.
async fn use_everything(kv: &ValkeyStore, run: &str) -> Result<()> {
    let key = |name: &str| format!("app:{run}:{name}").into_bytes();
    let (a, b) = (key("a"), key("b"));
    kv.set(&a, b"1", Some(MINUTE)).await?;
    assert!(kv.get(&a).await?.is_some() && kv.exists(&a).await?);
    assert!(kv.get_with_ttl(&a).await?.is_some() && kv.ttl(&a).await?.is_some());
    // Once to make a counter, and once to count.
    kv.incr(&key("n"), 1, None).await?;
    kv.incr(&key("n"), 1, None).await?;
    assert!(kv.expire(&a, MINUTE).await?);
    assert!(kv.set_nx(&b, b"x", None).await?);
    assert!(kv.compare_and_set(&b, b"x", b"y", None).await?);
    assert!(kv.compare_and_delete(&b, b"y").await?);
    kv.mset(&[(&a, b"1"), (&b, b"2")], Some(MINUTE)).await?;
    assert_eq!(kv.mget(&[&a, &b]).await?.iter().flatten().count(), 2);
    let keys: Vec<_> = kv.scan(format!("app:{run}:").as_bytes()).try_collect().await?;
    assert_eq!(keys.len(), 3);
    kv.wait_for_change(&a, Some(b"1"), Duration::from_millis(5)).await;
    assert_eq!(kv.delete_many(&[&a, &b]).await?, 2);
    assert!(!kv.delete(&a).await?);

    let options = GuardedGet::new(MINUTE).stale(MINUTE);
    let prices = Cache::<_, u64>::new(kv.clone(), key("price:"), options);
    assert_eq!(prices.get("1", |_| async { Ok::<_, Error>(7) }).await?, 7);
    assert!(prices.invalidate("1").await?);
    kv.refresh(key("page"), b"page", options.stored_for()).await?;
    let reject = Idempotency::default().on_abandoned(OnAbandoned::Reject);
    let work = || async { Ok::<_, Error>(1) };
    assert!(!kv.idempotent_execute(run, &reject, work).await?.is_replay);
    assert!(!kv.idempotent_forget(run, &reject).await?);
    let dedup = Dedup::default().give_up_after(3);
    kv.process_once(format!("{run}:1"), &dedup, work).await?;
    assert!(!kv.already_processed(format!("{run}:2"), &dedup).await?);
    for limit in
        [RateLimit::new(2, MINUTE), RateLimit::smooth(2, MINUTE), RateLimit::strict(2, MINUTE)]
    {
        assert!(kv.rate_limit(run, &limit).await?.allowed);
        assert!(kv.rate_limit(run, &limit).await?.allowed);
        assert!(!kv.rate_limit_peek(run, &limit).await?.allowed);
        assert!(kv.rate_limit_reset(run, &limit).await?);
    }
    let lease = kv.try_lock(key("job"), MINUTE).await?.expect("nobody has it");
    assert!(lease.release().await?);
    Ok(())
}

async fn assert_denied(kv: &ValkeyStore, key: &[u8]) {
    assert_eq!(kv.get(key).await.unwrap_err().kind(), ErrorKind::AccessDenied);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rights_for_a_server_suffice_and_each_is_needed() {
    let page = Page::of_guide("production.md");
    let [rules, _] = rules(&page);
    let server = Server::builder().user("app", PASSWORD, rules).start().await.unwrap();
    let kv = ValkeyStore::connect(with_user(server.address())).await.unwrap();
    use_everything(&kv, "all").await.unwrap();
    assert_denied(&kv, b"other:a").await;

    let rights: Vec<_> = rules.split(' ').filter_map(|rule| rule.strip_prefix('+')).collect();
    // Without these, waiting polls, and a refused echo is a sign of life.
    let optional = ["ping", "client|tracking", "client|caching"];
    for right in rights.iter().filter(|right| !optional.contains(right)) {
        server.command(&["SCRIPT", "FLUSH"]).await.unwrap();
        server.command(&["ACL", "SETUSER", "app", &format!("-{right}")]).await.unwrap();
        let error = use_everything(&kv, right).await.expect_err(right);
        assert_eq!(error.kind(), ErrorKind::AccessDenied, "{right}: {error}");
        server.command(&["ACL", "SETUSER", "app", &format!("+{right}")]).await.unwrap();
    }
    for right in &rights {
        let named = page.tables().iter().any(|table| {
            let cells = table.rows.iter().filter_map(|row| row.first());
            cells.flat_map(|cell| quoted(cell)).any(|name| name.replace('\\', "") == **right)
        });
        assert!(named, "no table says what `{right}` is for");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rights_for_a_cluster_suffice() {
    let page = Page::of_guide("production.md");
    let [_, rules] = rules(&page);
    let cluster = Cluster::builder(3, 0).user("app", PASSWORD, rules).start().await.unwrap();
    let config = with_user(cluster.node(0).address()).mode(Mode::Cluster);
    let kv = ValkeyStore::connect(config.clone()).await.unwrap();
    use_everything(&kv, "all").await.unwrap();
    assert_denied(&kv, b"other:a").await;

    for node in cluster.nodes() {
        node.command(&["ACL", "SETUSER", "app", "-cluster|slots"]).await.unwrap();
    }
    let error = ValkeyStore::connect(config).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AccessDenied, "{error}");
}

/// The patterns that the table names are those of the helpers' keys.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_pattern_is_needed() {
    let page = Page::of_guide("production.md");
    let [rules, _] = rules(&page);
    let table = page.table("| pattern |");
    let patterns: Vec<_> = table.rows.iter().flat_map(|row| quoted(row[0])).collect();
    assert_eq!(patterns.len(), 6);
    let each = rules.replace("~app:* ~derp:*", &patterns.join(" "));
    let server = Server::builder().user("app", PASSWORD, &each).start().await.unwrap();
    let kv = ValkeyStore::connect(with_user(server.address())).await.unwrap();
    use_everything(&kv, "all").await.unwrap();
    for (number, left_out) in patterns.iter().enumerate() {
        let others = patterns.iter().filter(|pattern| *pattern != left_out);
        let command = ["ACL", "SETUSER", "app", "resetkeys"].into_iter().chain(others.copied());
        server.command(&command.collect::<Vec<_>>()).await.unwrap();
        let run = format!("without-{number}");
        let error = use_everything(&kv, &run).await.expect_err(left_out);
        assert_eq!(error.kind(), ErrorKind::AccessDenied, "{left_out}: {error}");
    }
}

/// The number at the beginning of a cell such as `64 bytes`, or behind `up to`.
fn bytes(cell: &str) -> usize {
    let digits = cell.split(|char: char| !char.is_ascii_digit()).find(|part| !part.is_empty());
    digits.and_then(|digits| digits.parse().ok()).unwrap_or_else(|| panic!("no number in {cell}"))
}

/// Keys and values as long as the table says take no more than it says, and no less than half of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_is_as_the_table_says() {
    let page = Page::of_guide("production.md");
    let table = page.table("| record | key | value | bytes |");
    let server = Server::start().await.unwrap();
    let kv =
        ValkeyStore::connect(ValkeyConfig::default().addresses([server.address()])).await.unwrap();
    for (number, row) in table.rows.iter().enumerate() {
        let suffix = if row[1].contains(":lock") { ":lock" } else { "" };
        let key = format!("{number:0>width$}{suffix}", width = bytes(row[1]));
        // A counter is kept as a number, and everything else as bytes.
        let is_counter = row[0].contains("counter");
        let value = if is_counter { b'1' } else { b'x' };
        kv.set(key.as_bytes(), &vec![value; bytes(row[2])], Some(MINUTE)).await.unwrap();
        let used = server.command(&["MEMORY", "USAGE", &key]).await.unwrap().int().unwrap();
        let at_most = i64::try_from(bytes(row[3])).unwrap();
        assert!(used <= at_most && used > at_most / 2, "{}: {used} bytes", row[0]);
    }
}

/// The values that the helpers keep are as long as the table says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_are_as_long_as_the_table_says() {
    let page = Page::of_guide("production.md");
    let table = page.table("| record | key | value | bytes |");
    let told = |what: &str| {
        let row = table.rows.iter().find(|row| row[0].contains(what));
        bytes(row.unwrap_or_else(|| panic!("no row of {what}"))[2])
    };
    let kv = derp_kv_memory::MemoryStore::new();
    let length = async |key: &str| kv.get(key.as_bytes()).await.unwrap().map(|value| value.len());

    let lease = kv.try_lock("job", MINUTE).await.unwrap().expect("nobody has it");
    assert_eq!(length("job:lock").await, Some(told("a lock")));
    drop(lease);
    let body = || async { Ok::<_, Error>("x".repeat(38)) };
    let options = Idempotency::default().status_code(201).fingerprint("a request");
    kv.idempotent_execute("k", &options, body).await.unwrap();
    assert_eq!(length("derp:idempotency:k").await, Some(told("an idempotency record")));
    kv.already_processed("e", &Dedup::default()).await.unwrap();
    assert_eq!(length("derp:webhook:e").await, Some(told("the mark")));
    kv.rate_limit("l", &RateLimit::smooth(5, MINUTE)).await.unwrap();
    assert_eq!(length("derp:smooth:l").await, Some(told("a smooth limit")));
    assert!(i64::MIN.to_string().len() <= told("the counter"));
}
