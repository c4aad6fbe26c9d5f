//! Answers that no command has: what the server did is unknown, and the error says so.

mod common;
mod fake;

use std::fmt::Debug;
use std::time::{Duration, Instant};

use common::{connect, ends};
use derp_kv_core::{Error, ErrorKind, KvStore, Operation};
use derp_kv_valkey::ValkeyStore;
use fake::{Fake, greeting};
use tokio::task::JoinSet;

/// A store on a server of this version that answers every request alike.
async fn answering(version: &'static str, reply: &'static str) -> (Fake, ValkeyStore) {
    let fake = Fake::start(move |request| async move {
        greeting(&request, version, "standalone").unwrap_or_else(|| reply.to_owned())
    })
    .await;
    let store = connect(fake.address()).await;
    (fake, store)
}

fn failed<T: Debug>(result: Result<T, Error>) -> Error {
    result.expect_err("no such answer")
}

/// The error of every operation that writes.
async fn writes(kv: &ValkeyStore) -> Vec<Error> {
    let all = async {
        vec![
            failed(kv.set(b"k", b"v", None).await),
            failed(kv.delete(b"k").await),
            failed(kv.expire(b"k", Duration::from_secs(1)).await),
            failed(kv.set_nx(b"k", b"v", None).await),
            failed(kv.incr(b"k", 1, None).await),
            failed(kv.compare_and_set(b"k", b"v", b"w", None).await),
            failed(kv.compare_and_delete(b"k", b"v").await),
            failed(kv.mset(&[(b"k", b"v")], None).await),
            failed(kv.delete_many(&[b"k"]).await),
        ]
    };
    ends("the writes", all).await
}

const NAMES: [Operation; 9] = [
    Operation::Set,
    Operation::Delete,
    Operation::Expire,
    Operation::SetNx,
    Operation::Incr,
    Operation::CompareAndSet,
    Operation::CompareAndDelete,
    Operation::Mset,
    Operation::DeleteMany,
];

#[tokio::test]
async fn a_write_with_an_odd_answer_may_have_been_applied() {
    // With scripts, and with the commands that newer servers have instead.
    for version in ["8.0.1", "9.1.2"] {
        for reply in [":2\r\n", "+QUEUED\r\n", "$2\r\nOK\r\n", "*1\r\n:1\r\n"] {
            let (_fake, kv) = answering(version, reply).await;
            for (name, error) in NAMES.iter().zip(writes(&kv).await) {
                assert_eq!(error.kind(), ErrorKind::Backend, "{name} {reply:?}: {error:?}");
                assert!(error.may_have_applied(), "{name} {reply:?}: {error:?}");
                assert_eq!(error.operation(), Some(*name));
            }
        }
    }
}

#[tokio::test]
async fn a_write_that_the_server_refuses_was_not_applied() {
    for version in ["8.0.1", "9.1.2"] {
        let (_fake, kv) = answering(version, "-WRONG thing\r\n").await;
        for (name, error) in NAMES.iter().zip(writes(&kv).await) {
            assert!(!error.may_have_applied(), "{name}: {error:?}");
        }
    }
}

#[tokio::test]
async fn a_count_that_cannot_be_read_says_nothing_of_the_value() {
    for reply in ["*2\r\n$3\r\nabc\r\n:-1\r\n", "*2\r\n:1\r\n:-2\r\n", "*2\r\n:1\r\n$1\r\nx\r\n"] {
        let (_fake, kv) = answering("8.0.1", reply).await;
        let error = failed(ends("incr", kv.incr(b"k", 1, None)).await);
        assert_eq!(error.kind(), ErrorKind::Backend, "{reply:?}: {error:?}");
        assert!(error.may_have_applied(), "{reply:?}: {error:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_refuses_every_write_is_not_flooded_with_connections() {
    let (fake, kv) = answering("8.0.1", "-READONLY You can't write against a replica.\r\n").await;
    let start = Instant::now();
    let mut callers = JoinSet::new();
    for _ in 0..500 {
        let kv = kv.clone();
        callers.spawn(async move {
            let write = failed(ends("set", kv.set(b"k", b"v", None)).await);
            let batch = failed(ends("mset", kv.mset(&[(b"k", b"v")], None)).await);
            for error in [write, batch] {
                // A primary may be there at the next try. The last try may be under way when the
                // deadline passes.
                let refused = error.kind() == ErrorKind::ReadOnly && !error.may_have_applied();
                let cut_off = error.kind() == ErrorKind::Timeout && error.may_have_applied();
                assert!(error.is_transient() && (refused || cut_off), "{error:?}");
            }
        });
    }
    while let Some(caller) = callers.join_next().await {
        caller.expect("no wrong error");
    }
    // Each connection is kept for half a second: this many can have begun, however slow it was.
    let most = 2 + start.elapsed().as_millis() / 500;
    assert!(u128::from(fake.connections()) <= most, "{} for {most}", fake.connections());
    // The name may lead to the primary one day: it is looked up again nevertheless.
    assert!(fake.connections() >= 2);
}

#[tokio::test]
async fn a_read_changes_nothing_whatever_the_answer() {
    let (_fake, kv) = answering("8.0.1", "+QUEUED\r\n").await;
    for error in [
        failed(kv.get(b"k").await),
        failed(kv.get_with_ttl(b"k").await),
        failed(kv.exists(b"k").await),
        failed(kv.ttl(b"k").await),
        failed(kv.mget(&[b"k"]).await),
    ] {
        assert_eq!(error.kind(), ErrorKind::Backend, "{error:?}");
        assert!(!error.may_have_applied() && error.operation().is_some(), "{error:?}");
    }
}
