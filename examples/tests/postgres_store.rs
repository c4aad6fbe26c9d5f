//! The backend on PostgreSQL: dropped calls, the order of locks, the clock, keys and waiters.

mod postgres;

use std::collections::HashSet;
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use derp_kv_conformance::shared_runtime;
use derp_kv_core::{Error, ErrorKind, Expiry, KvStore, Operation};
use derp_kv_examples::postgres_store::PostgresStore;
use futures_util::TryStreamExt;
use futures_util::future::join_all;
use postgres::{LONG, Server, open, operator, until_locked, value, with};
use tokio::time::{sleep, timeout};

const HOUR: Option<Duration> = Some(Duration::from_secs(3600));

/// Polls a call so often, and drops it.
async fn drop_after(polls: u32, call: impl Future) {
    let (mut call, mut polls) = (pin!(call), polls);
    poll_fn(|cx| {
        while polls > 0 {
            polls -= 1;
            if call.as_mut().poll(cx).is_ready() {
                break;
            }
        }
        Poll::Ready(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_write_never_lands_behind_a_later_one() {
    let kv = open().await;
    for round in 0..60 {
        for (number, write) in
            ["set", "mset", "incr", "nx", "expire", "cas", "delete", "cad", "many"]
                .into_iter()
                .enumerate()
        {
            let key = format!("dropped:{write}:{round}").into_bytes();
            let other = format!("dropped:other:{round}").into_bytes();
            if write != "nx" {
                kv.set(&key, b"1", None).await.unwrap();
            }
            let polls = 1 + round % 3;
            match number {
                0 => drop_after(polls, kv.set(&key, b"2", HOUR)).await,
                1 => drop_after(polls, kv.mset(&[(&key, b"2"), (&other, b"2")], HOUR)).await,
                2 => drop_after(polls, kv.incr(&key, 1, None)).await,
                3 => drop_after(polls, kv.set_nx(&key, b"2", HOUR)).await,
                4 => drop_after(polls, kv.expire(&key, Duration::from_secs(60))).await,
                5 => drop_after(polls, kv.compare_and_set(&key, b"1", b"2", HOUR)).await,
                6 => drop_after(polls, kv.delete(&key)).await,
                7 => drop_after(polls, kv.compare_and_delete(&key, b"1")).await,
                _ => drop_after(polls, kv.delete_many(&[&key, &other])).await,
            }
            // A read is a later call, too: what it sees stays so.
            let seen = kv.get_with_ttl(&key).await.unwrap().map(|(value, _)| value);
            kv.set(&key, b"later", None).await.unwrap();
            for _ in 0..5 {
                let found = kv.get_with_ttl(&key).await.unwrap();
                let expected = Some((Bytes::from_static(b"later"), Expiry::Never));
                assert_eq!(found, expected, "{write}, dropped after {polls} polls, round {round}");
            }
            // Polled once, it has been sent; and what has been sent is over before the read.
            let applied = match number {
                0 | 1 | 2 | 3 | 5 => Some(&b"2"[..]),
                4 => Some(&b"1"[..]),
                _ => None,
            };
            assert_eq!(seen.as_deref(), applied, "{write}, dropped after {polls} polls");
        }
    }
}

#[tokio::test]
async fn a_call_that_was_never_polled_does_nothing() {
    let kv = open().await;
    drop(kv.set(b"unpolled", b"v", None));
    drop_after(0, kv.set(b"unpolled", b"v", None)).await;
    assert_eq!(value(&kv, b"unpolled").await, None);
}

#[tokio::test]
async fn a_call_that_is_not_polled_holds_up_no_other() {
    let (kv, _) = with(|config| config.connections = 1).await;
    let large = vec![7; 8 * 1024 * 1024];
    kv.set(b"large", &large, None).await.unwrap();
    let mut unread = pin!(kv.get(b"large"));
    let pending = poll_fn(|cx| Poll::Ready(unread.as_mut().poll(cx).is_pending())).await;
    assert!(pending, "it waits for the server");
    for _ in 0..20 {
        timeout(LONG, kv.set(b"small", b"v", None)).await.expect("in time").unwrap();
    }
    assert_eq!(unread.await.unwrap().unwrap(), large);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clock_is_read_behind_the_lock() {
    let (kv, config) = with(|config| {
        config.server.application_name("clock");
        config.connections = 8;
    })
    .await;
    let ttl = Duration::from_secs(2);
    let calls = ["set", "mset", "nx", "incr", "cas", "cad", "delete", "many", "expire"];
    let keys: Vec<_> = calls.iter().map(|call| format!("clock:{call}").into_bytes()).collect();
    let items: Vec<(&[u8], &[u8])> = keys.iter().map(|key| (&key[..], &b"7"[..])).collect();
    let mut operator = operator(&config).await;
    let locked = operator.transaction().await.unwrap();
    kv.mset(&items, Some(ttl)).await.unwrap();
    let began = Instant::now();
    let lock = "SELECT FROM derp_kv WHERE key >= 'clock:' AND key < 'clock;' FOR UPDATE";
    locked.execute(lock, &[]).await.unwrap();
    // Of each call the row is live when it begins, and dead when it gets the lock.
    let play = async {
        let short = Some(ttl);
        let key = |name: &str| format!("clock:{name}").into_bytes();
        let [set, mset, nx, incr, cas, cad, delete, many, expire] = calls.map(key);
        let (items, gone) = ([(&mset[..], &b"8"[..])], [&many[..]]);
        let (_, _, nx, counter, cas, cad, delete, many, expire) = tokio::try_join!(
            kv.set(&set, b"8", short),
            kv.mset(&items, short),
            kv.set_nx(&nx, b"8", short),
            kv.incr(&incr, 1, short),
            kv.compare_and_set(&cas, b"7", b"8", None),
            kv.compare_and_delete(&cad, b"7"),
            kv.delete(&delete),
            kv.delete_many(&gone),
            kv.expire(&expire, LONG),
        )?;
        // A TTL that is given behind the lock counts from there.
        assert!(kv.exists(&set).await? && kv.exists(&mset).await?, "born dead");
        assert_eq!((nx, counter.value), (true, 1), "an expired row is no key");
        assert!(matches!(counter.expiry, Expiry::In(left) if left <= ttl));
        assert_eq!((cas, cad, delete, many, expire), (false, false, false, 0, false));
        Ok::<_, Error>(())
    };
    let release = async {
        // Two calls may share a connection, and then the second is not sent to the lock yet.
        until_locked(locked.client(), "clock", 2).await;
        assert!(began.elapsed() < ttl, "the machine is too slow to tell anything");
        sleep(ttl + ttl / 4).await;
        locked.commit().await.unwrap();
    };
    let (played, ()) = tokio::join!(play, release);
    played.unwrap();
}

/// The row that is waited for is gone after the wait, so there is no conflict to evaluate `SET` for.
#[tokio::test(flavor = "multi_thread")]
async fn a_life_counts_from_behind_the_lock_also_where_the_row_is_deleted() {
    let (kv, config) = with(|config| {
        config.server.application_name("deleted");
        // Each of them waits on a connection of its own.
        config.connections = 64;
    })
    .await;
    let keys = [&b"deleted:set"[..], b"deleted:nx", b"deleted:incr"];
    let mut operator = operator(&config).await;
    for key in keys {
        kv.set(key, b"7", HOUR).await.unwrap();
    }
    let deleting = operator.transaction().await.unwrap();
    let delete = "DELETE FROM derp_kv WHERE key >= 'deleted:' AND key < 'deleted;'";
    assert_eq!(deleting.execute(delete, &[]).await.unwrap(), 3);
    let [set, nx, incr] = keys;
    let calls = async {
        tokio::try_join!(kv.set(set, b"8", HOUR), kv.set_nx(nx, b"8", HOUR), kv.incr(incr, 1, HOUR),)
    };
    let release = async {
        let waiting = until_locked(deleting.client(), "deleted", 3);
        timeout(LONG, waiting).await.expect("all three wait");
        sleep(Duration::from_secs(1)).await;
        let released = Instant::now();
        deleting.commit().await.unwrap();
        released
    };
    let (called, released) = tokio::join!(calls, release);
    let ((), nx, counter) = called.unwrap();
    assert_eq!((nx, counter.value), (true, 1), "there is no key any more");
    for key in keys {
        let left = kv.ttl(key).await.unwrap().and_then(|expiry| expiry.remaining()).unwrap();
        let missing = HOUR.unwrap().saturating_sub(left + released.elapsed());
        assert!(missing < Duration::from_millis(500), "{missing:?} of it had passed before");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn racing_batches_do_not_deadlock() {
    let (one, config) = with(|_| ()).await;
    let (other, _) = with(|config| config.connections = 3).await;
    let keys: Vec<_> = (0..200).map(|n| format!("batch:{n}").into_bytes()).collect();
    let race = |kv: PostgresStore, turned: bool| {
        let mut keys = keys.clone();
        async move {
            for round in 0..15 {
                if turned {
                    keys.reverse();
                }
                keys.rotate_left(round);
                let items: Vec<(&[u8], &[u8])> =
                    keys.iter().map(|key| (&key[..], &b"v"[..])).collect();
                kv.mset(&items, HOUR).await?;
                let keys: Vec<_> = keys.iter().map(|key| &key[..]).collect();
                kv.delete_many(&keys).await?;
            }
            Ok::<_, Error>(())
        }
    };
    let races = [(&one, true), (&one, false), (&other, true), (&other, false)];
    let races = races.map(|(kv, turned)| tokio::spawn(race(kv.clone(), turned)));
    for race in join_all(races).await {
        race.unwrap().unwrap();
    }
    let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    let operator = operator(&config).await;
    assert_eq!(operator.query_one(deadlocks, &[]).await.unwrap().get::<_, i64>(0), 0);
}

#[tokio::test]
async fn large_batches_work() {
    let kv = open().await;
    let keys: Vec<_> =
        (0..66_000_u32).map(|n| [b"large:", &n.to_be_bytes()[..]].concat()).collect();
    let items: Vec<(&[u8], &[u8])> = keys.iter().map(|key| (&key[..], &b"v"[..])).collect();
    kv.mset(&items, HOUR).await.unwrap();
    let keys: Vec<_> = keys.iter().map(|key| &key[..]).collect();
    assert!(kv.mget(&keys).await.unwrap().iter().all(|value| value.as_deref() == Some(b"v")));
    let found: HashSet<Bytes> = kv.scan(b"large:").try_collect().await.unwrap();
    assert_eq!(found.len(), keys.len());
    assert_eq!(kv.delete_many(&keys).await.unwrap(), 66_000);
    assert_eq!(kv.delete_many(&keys).await.unwrap(), 0);
    // More than fits into one statement.
    let value = vec![1; 9 * 1024 * 1024];
    kv.mset(&[(b"big:1", &value), (b"big:2", &value), (b"big:3", &value)], None).await.unwrap();
    assert_eq!(kv.delete_many(&[b"big:1", b"big:2", b"big:3"]).await.unwrap(), 3);
}

#[tokio::test]
async fn a_scan_goes_on_behind_dead_keys_and_ends_with_its_prefix() {
    let kv = open().await;
    let keys: Vec<_> = (0..2_500).map(|n| format!("page\u{ff}{n:04}").into_bytes()).collect();
    let (dead, live) = keys.split_at(2_200);
    let items: Vec<(&[u8], &[u8])> = dead.iter().map(|key| (&key[..], &b""[..])).collect();
    // No sweeper clears these away: it looks once a second.
    kv.mset(&items, Some(Duration::from_millis(1))).await.unwrap();
    let items: Vec<(&[u8], &[u8])> = live.iter().map(|key| (&key[..], &b""[..])).collect();
    kv.mset(&items, HOUR).await.unwrap();
    kv.set(b"pagf", b"", None).await.unwrap();
    let found: Vec<_> = kv.scan(b"page").try_collect().await.unwrap();
    assert_eq!(found, live);
    for key in [&b"\xff"[..], b"\xff\xff", b"\xff\xff\x01", b"\xfe\xff"] {
        kv.set(key, b"", None).await.unwrap();
    }
    let found: Vec<_> = kv.scan(b"\xff\xff").try_collect().await.unwrap();
    assert_eq!(found, [&b"\xff\xff"[..], b"\xff\xff\x01"]);
    let found: Vec<_> = kv.scan(b"\xfe\xff").try_collect().await.unwrap();
    assert_eq!(found, [&b"\xfe\xff"[..]]);
}

#[tokio::test]
async fn what_cannot_be_stored_is_refused_by_name() {
    let kv = open().await;
    // Noise: what compresses would fit into the index far longer.
    let mut state = 1_u64;
    let mut noise = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_be_bytes()[0]
    };
    let mut key: Vec<_> = (0..PostgresStore::LONGEST_KEY).map(|_| noise()).collect();
    kv.set(&key, b"v", None).await.unwrap();
    assert_eq!(kv.scan(&key).try_collect::<Vec<_>>().await.unwrap(), [&key[..]]);
    assert!(kv.delete(&key).await.unwrap());
    key.push(0);
    let key = &key[..];
    use Operation::{
        CompareAndDelete, CompareAndSet, Delete, DeleteMany, Exists, Expire, Get, GetWithTtl, Incr,
        Mget, Mset, Set, SetNx, Ttl,
    };
    let large = vec![0; PostgresStore::LONGEST_VALUE + 1];
    let none = Some(Duration::ZERO);
    let errors = [
        (Get, "key", kv.get(key).await.err()),
        (GetWithTtl, "key", kv.get_with_ttl(key).await.err()),
        (Exists, "key", kv.exists(key).await.err()),
        (Ttl, "key", kv.ttl(key).await.err()),
        (Mget, "key", kv.mget(&[b"a", key]).await.err()),
        (Set, "key", kv.set(key, b"v", None).await.err()),
        (Mset, "key", kv.mset(&[(b"a", b"v"), (key, b"v")], None).await.err()),
        (Delete, "key", kv.delete(key).await.err()),
        (DeleteMany, "key", kv.delete_many(&[b"a", key]).await.err()),
        (Expire, "key", kv.expire(key, LONG).await.err()),
        (SetNx, "key", kv.set_nx(key, b"v", None).await.err()),
        (Incr, "key", kv.incr(key, 1, None).await.err()),
        (CompareAndSet, "key", kv.compare_and_set(key, b"v", b"w", None).await.err()),
        (CompareAndDelete, "key", kv.compare_and_delete(key, b"v").await.err()),
        (Set, "value", kv.set(b"a", &large, None).await.err()),
        (Mset, "value", kv.mset(&[(b"a", b"v"), (b"b", &large)], None).await.err()),
        (SetNx, "value", kv.set_nx(b"a", &large, None).await.err()),
        (CompareAndSet, "value", kv.compare_and_set(b"a", &large, b"w", None).await.err()),
        (CompareAndSet, "value", kv.compare_and_set(b"a", b"v", &large, None).await.err()),
        (CompareAndDelete, "value", kv.compare_and_delete(b"a", &large).await.err()),
        (Set, "TTL", kv.set(b"a", b"v", none).await.err()),
        (Mset, "TTL", kv.mset(&[(b"a", b"v")], none).await.err()),
        (Expire, "TTL", kv.expire(b"a", Duration::ZERO).await.err()),
        (SetNx, "TTL", kv.set_nx(b"a", b"v", none).await.err()),
        (Incr, "TTL", kv.incr(b"a", 1, none).await.err()),
        (CompareAndSet, "TTL", kv.compare_and_set(b"a", b"v", b"w", none).await.err()),
    ];
    for (operation, what, error) in errors {
        let error = error.unwrap_or_else(|| panic!("{operation:?} took the {what}"));
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{operation:?}");
        assert!(!error.may_have_applied() && !error.is_transient(), "{operation:?}");
        assert_eq!(error.operation(), Some(operation), "{error}");
        assert!(error.to_string().contains(what), "{error}");
    }
    assert!(kv.scan(key).try_collect::<Vec<_>>().await.unwrap().is_empty());
    assert_eq!(value(&kv, b"a").await, None);
}

#[tokio::test]
async fn every_waiter_is_woken_by_another_process_and_by_the_end_of_the_key() {
    let (one, other) = (open().await, open().await);
    one.set(b"watched", b"v", Some(LONG * 100)).await.unwrap();
    let waiters = (0..50).map(|_| async {
        while value(&one, b"watched").await.as_deref() == Some(b"v") {
            one.wait_for_change(b"watched", Some(b"v"), Duration::MAX).await;
        }
    });
    let writer = async {
        sleep(Duration::from_millis(50)).await;
        other.expire(b"watched", Duration::from_millis(50)).await.unwrap();
    };
    let all = async { tokio::join!(join_all(waiters), writer) };
    timeout(LONG, all).await.expect("all are woken");
}

#[tokio::test]
async fn what_has_expired_is_cleared_away_and_nothing_else() {
    let (kv, config) = with(|_| ()).await;
    let operator = operator(&config).await;
    let keys: Vec<_> = (0..300_u32).map(|n| [b"sweep:", &n.to_be_bytes()[..]].concat()).collect();
    let items: Vec<(&[u8], &[u8])> = keys.iter().map(|key| (&key[..], &b"v"[..])).collect();
    kv.mset(&items, Some(Duration::from_millis(1))).await.unwrap();
    // Made fresh again, one by one, while the sweeper is at it.
    for key in &keys[..100] {
        kv.set(key, b"fresh", HOUR).await.unwrap();
    }
    let count = "SELECT count(*) FROM derp_kv WHERE key >= 'sweep:' AND key < 'sweep;'";
    let left = async {
        while operator.query_one(count, &[]).await.unwrap().get::<_, i64>(0) > 100 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(LONG, left).await.expect("they are cleared away");
    let fresh: Vec<_> = keys[..100].iter().map(|key| &key[..]).collect();
    assert_eq!(kv.delete_many(&fresh).await.unwrap(), 100);
}

#[tokio::test]
async fn the_sweeper_goes_on_behind_a_full_page() {
    // No sweeper of another test is there to help.
    let server = Server::start().await.unwrap();
    let config = server.config();
    let kv = PostgresStore::connect(config.clone(), shared_runtime()).await.unwrap();
    let operator = operator(&config).await;
    let dead = "INSERT INTO derp_kv SELECT convert_to('dead:' || n, 'UTF8'), '', now()
        FROM generate_series(1, 60000) AS n";
    operator.execute(dead, &[]).await.unwrap();
    let left = async {
        let count = "SELECT count(*) FROM derp_kv";
        while operator.query_one(count, &[]).await.unwrap().get::<_, i64>(0) > 0 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(LONG, left).await.expect("a page a second would take twice as long");
    drop(kv);
}

/// A plan that was made for an empty table is kept when the table has grown.
#[tokio::test(flavor = "multi_thread")]
async fn no_statement_reads_the_whole_table() {
    let server = Server::start().await.unwrap();
    // To make the indexes reads the table, and is counted at the latest when the session ends.
    drop(PostgresStore::connect(server.config(), shared_runtime()).await.unwrap());
    let operator = operator(&server.config()).await;
    let sessions = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'";
    let began = Instant::now();
    while operator.query_one(sessions, &[]).await.unwrap().get::<_, i64>(0) > 1 {
        assert!(began.elapsed() < LONG, "the sessions of a store that is gone do not end");
        sleep(Duration::from_millis(20)).await;
    }
    // What the server knows of a table that nobody has written to yet, or that others have emptied.
    operator.batch_execute("VACUUM ANALYZE derp_kv").await.unwrap();
    let kv = PostgresStore::connect(server.config(), shared_runtime()).await.unwrap();
    let seen = async |column: &str| {
        let counted = format!(
            "SELECT coalesce({column}, 0) FROM pg_stat_user_tables WHERE relname = 'derp_kv'"
        );
        operator.query_one(&counted, &[]).await.unwrap().get::<_, i64>(0)
    };
    let before = seen("seq_scan").await;
    let names: Vec<_> = (0..2_000).map(|number| format!("key {number}").into_bytes()).collect();
    let keys: Vec<_> = names.iter().map(Vec::as_slice).collect();
    let items: Vec<_> = keys.iter().map(|key| (*key, &b"1"[..])).collect();
    for _ in 0..3 {
        kv.mset(&items, HOUR).await.unwrap();
        assert_eq!(kv.mget(&keys).await.unwrap().len(), keys.len());
        for key in &keys[..8] {
            assert!(kv.get(key).await.unwrap().is_some() && kv.ttl(key).await.unwrap().is_some());
            kv.set(key, b"1", None).await.unwrap();
            assert!(!kv.set_nx(key, b"2", None).await.unwrap());
            assert_eq!(kv.incr(key, 1, None).await.unwrap().value, 2);
            assert!(kv.compare_and_set(key, b"2", b"3", None).await.unwrap());
            assert!(kv.expire(key, Duration::from_secs(60)).await.unwrap());
            assert!(!kv.compare_and_delete(key, b"4").await.unwrap());
            assert!(kv.delete(key).await.unwrap());
        }
        assert_eq!(kv.scan(b"key 1").try_collect::<Vec<_>>().await.unwrap().len(), 1_110);
        assert_eq!(kv.delete_many(&keys).await.unwrap(), 1_992);
    }
    // The server counts a statement some time after it has ended; the probes of the index, which are
    // many, come with it.
    let began = Instant::now();
    while seen("idx_scan").await < 3 * 2_000 {
        assert!(began.elapsed() < LONG, "the server counts nothing");
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(seen("seq_scan").await, before, "the table was read as a whole");
}
