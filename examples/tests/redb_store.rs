//! The backend on redb: what its file keeps, and what it gives back.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::scratch;
use derp_kv_core::{Ask, Error, ErrorKind, Expiry, GuardedGet, KvStore, KvStoreExt, RateLimit};
use derp_kv_examples::redb_store::RedbStore;
use futures_util::TryStreamExt;
use futures_util::future::join_all;
use redb::{Database, Durability, ReadableDatabase, ReadableTableMetadata, TableDefinition};

const HOUR: Option<Duration> = Some(Duration::from_secs(3600));

#[tokio::test]
async fn everything_is_there_after_reopening() {
    for durability in [Durability::Immediate, Durability::None] {
        let path = scratch(&format!("reopen-{durability:?}.redb"));
        let kv = RedbStore::open(&path, durability).await.unwrap();
        kv.set(b"plain", b"\0\xff", None).await.unwrap();
        kv.set(b"", b"the empty key", None).await.unwrap();
        kv.set(b"timed", b"v", HOUR).await.unwrap();
        kv.set(b"short", b"v", Some(Duration::from_millis(1))).await.unwrap();
        kv.incr(b"counter", 41, HOUR).await.unwrap();
        drop(kv);

        tokio::time::sleep(Duration::from_millis(5)).await;
        let kv = RedbStore::open(&path, durability).await.unwrap();
        assert_eq!(kv.get(b"plain").await.unwrap().as_deref(), Some(&b"\0\xff"[..]));
        assert_eq!(kv.get(b"").await.unwrap().as_deref(), Some(&b"the empty key"[..]));
        assert_eq!(kv.ttl(b"plain").await.unwrap(), Some(Expiry::Never));
        let Some(Expiry::In(left)) = kv.ttl(b"timed").await.unwrap() else { panic!("a TTL") };
        assert!(left < HOUR.unwrap() && !left.is_zero(), "{left:?}");
        assert_eq!(kv.get(b"short").await.unwrap(), None);
        let counter = kv.incr(b"counter", 1, None).await.unwrap();
        assert_eq!(counter.value, 42);
        assert!(matches!(counter.expiry, Expiry::In(_)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn racing_callers_lose_nothing() {
    let kv = RedbStore::open(scratch("race.redb"), Durability::None).await.unwrap();
    let work = |task: u64| {
        let kv = kv.clone();
        tokio::spawn(async move {
            let mut wins = 0;
            for round in 0..20 {
                kv.incr(b"sum", 1, None).await.unwrap();
                let key = format!("race:{round}");
                let won = kv.set_nx(key.as_bytes(), &task.to_be_bytes(), HOUR).await.unwrap();
                wins += u64::from(won);
            }
            wins
        })
    };
    let wins: u64 = join_all((0..8).map(work)).await.into_iter().map(|wins| wins.unwrap()).sum();
    assert_eq!(wins, 20);
    assert_eq!(kv.get(b"sum").await.unwrap().as_deref(), Some(&b"160"[..]));
}

#[tokio::test]
async fn a_scan_sees_all_pages_and_only_the_prefix() {
    let kv = RedbStore::open(scratch("scan.redb"), Durability::None).await.unwrap();
    let mut keys: Vec<_> = (0..1_000).map(|n| format!("x*{n:04}").into_bytes()).collect();
    keys.push(b"x*\xff\xff".to_vec());
    let items: Vec<(&[u8], &[u8])> = keys.iter().map(|key| (&key[..], &b""[..])).collect();
    kv.mset(&items, HOUR).await.unwrap();
    kv.set(b"xy1", b"", None).await.unwrap();
    let found: Vec<_> = kv.scan(b"x*").try_collect().await.unwrap();
    assert_eq!(found, keys);
    let all: Vec<_> = kv.scan(b"").try_collect().await.unwrap();
    assert_eq!(all.len(), 1_002);
}

#[tokio::test]
async fn a_failure_changes_nothing() {
    let kv = RedbStore::open(scratch("failure.redb"), Durability::None).await.unwrap();
    kv.set(b"name", b"Ada", None).await.unwrap();
    let error = kv.incr(b"name", 1, None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotAnInteger);
    let error = kv.set(b"name", b"Bob", Some(Duration::ZERO)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(!kv.compare_and_set(b"name", b"Ad", b"Bob", None).await.unwrap());
    assert!(!kv.compare_and_delete(b"nobody", b"").await.unwrap());
    assert_eq!(kv.get(b"name").await.unwrap().as_deref(), Some(&b"Ada"[..]));
    let error =
        RedbStore::open(scratch("no/such/folder.redb"), Durability::None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Backend);
}

#[tokio::test]
async fn a_denied_step_commits_nothing() {
    let path = scratch("denied.redb");
    let kv = RedbStore::open(&path, Durability::None).await.unwrap();
    let limit = RateLimit::strict(1, Duration::from_secs(3600));
    assert!(kv.step(b"ada", &limit.step(Ask::Admit).unwrap()).await.unwrap().admitted());
    kv.set(b"expired", b"", Some(Duration::from_millis(1))).await.unwrap();
    let kept = kv.get_with_ttl(b"ada").await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert!(!kv.step(b"ada", &limit.step(Ask::Admit).unwrap()).await.unwrap().admitted());
    let (value, Expiry::In(left)) = kv.get_with_ttl(b"ada").await.unwrap().unwrap() else {
        panic!("a TTL")
    };
    assert_eq!(value, kept.0);
    assert!(Some(left) < kept.1.remaining(), "{left:?}");
    drop(kv);
    // What is committed clears away what has expired, so this one was not.
    let database = Database::create(&path).unwrap();
    let records: TableDefinition<'_, &[u8], (u64, &[u8])> = TableDefinition::new("records");
    let records = database.begin_read().unwrap().open_table(records).unwrap();
    assert!(records.get(&b"expired"[..]).unwrap().is_some());
}

#[tokio::test]
async fn later_writes_clear_away_what_expired() {
    let path = scratch("reclaim.redb");
    let kv = RedbStore::open(&path, Durability::None).await.unwrap();
    let keys: Vec<_> = (0..100_u32).map(u32::to_be_bytes).collect();
    let items: Vec<(&[u8], &[u8])> = keys.iter().map(|key| (&key[..], &b"v"[..])).collect();
    kv.mset(&items, Some(Duration::from_millis(1))).await.unwrap();
    tokio::time::sleep(Duration::from_millis(5)).await;
    for _ in 0..13 {
        kv.set(b"other", b"", None).await.unwrap();
    }
    drop(kv);
    let database = Database::create(&path).unwrap();
    let records: TableDefinition<'_, &[u8], (u64, &[u8])> = TableDefinition::new("records");
    let records = database.begin_read().unwrap().open_table(records).unwrap();
    assert_eq!(records.len().unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_helpers_run_on_it() {
    let kv: Arc<dyn KvStore> =
        Arc::new(RedbStore::open(scratch("helpers.redb"), Durability::None).await.unwrap());
    let options = GuardedGet::new(Duration::from_secs(60));
    let page = || async { Ok::<_, Error>("kettle") };
    assert_eq!(kv.guarded_get("page", &options, page).await.unwrap(), "kettle");
    let limit = RateLimit::new(5, Duration::from_secs(60));
    let calls = join_all((0..20).map(|_| kv.rate_limit("ada", &limit))).await;
    assert_eq!(calls.into_iter().filter(|call| call.as_ref().unwrap().allowed).count(), 5);
    let keys: Vec<_> = kv.scan(b"").try_collect().await.unwrap();
    assert_eq!(keys, ["derp:ratelimit:ada", "page"], "no lock is left");
}
