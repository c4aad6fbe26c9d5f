//! Large batches and large values.

use std::collections::HashSet;
use std::time::Duration;

use derp_kv_core::{ErrorKind, Expiry, KvStore, Operation};
use derp_kv_valkey::test_server::{Cluster, Proxy, Server};
use derp_kv_valkey::{Mode, ValkeyConfig, ValkeyStore};
use futures_util::{StreamExt, TryStreamExt};

const KEYS: u32 = 100_000;
const VALUE: usize = 64 * 1024 * 1024;
const TTL: Duration = Duration::from_secs(3600);

/// Time enough for these sizes in an unoptimised build on a busy machine.
fn patient(config: ValkeyConfig) -> ValkeyConfig {
    config.op_timeout(Duration::from_secs(120))
}

async fn a_hundred_thousand_keys(kv: &ValkeyStore) {
    let keys: Vec<_> = (0..KEYS).map(|number| format!("key:{number}")).collect();
    let items: Vec<_> = keys.iter().map(|key| (key.as_bytes(), &key.as_bytes()[4..])).collect();
    kv.mset(&items, Some(TTL)).await.unwrap();
    for key in [&keys[0], &keys[keys.len() - 1]] {
        let ttl = kv.ttl(key.as_bytes()).await.unwrap();
        assert!(matches!(ttl, Some(Expiry::In(left)) if left <= TTL), "{key}: {ttl:?}");
    }

    // In reverse, with a repeat and a miss after each thousand.
    let mut names: Vec<&[u8]> = Vec::new();
    for thousand in keys.chunks(1000).rev() {
        names.extend(thousand.iter().rev().map(String::as_bytes));
        names.extend([thousand[0].as_bytes(), b"missing"]);
    }
    let values = kv.mget(&names).await.unwrap();
    assert_eq!(values.len(), names.len());
    for (name, value) in names.iter().zip(&values) {
        let expected = (*name != b"missing").then(|| &name[4..]);
        assert_eq!(value.as_deref(), expected, "{}", String::from_utf8_lossy(name));
    }

    let found: HashSet<_> = kv.scan(b"key:").try_collect().await.unwrap();
    assert_eq!(found.len(), keys.len());
    assert_eq!(kv.delete_many(&names).await.unwrap(), u64::from(KEYS));
    assert_eq!(kv.scan(b"").try_collect::<Vec<_>>().await.unwrap().len(), 0);
}

#[tokio::test]
async fn names_that_are_too_long_cost_nobody_the_connection() {
    const LONGEST: usize = 1024 * 1024;
    let server = Server::builder().option("proto-max-bulk-len", "1mb").start().await.unwrap();
    let proxy = Proxy::start(server.port()).await.unwrap();
    let config = ValkeyConfig::default().addresses([proxy.address()]).max_bulk_bytes(LONGEST);
    let kv = ValkeyStore::connect(config).await.unwrap();

    let prefix = vec![b'*'; LONGEST + 1];
    let mut scan = kv.scan(&prefix);
    let error = scan.next().await.unwrap().unwrap_err();
    assert_eq!(
        (error.kind(), error.operation()),
        (ErrorKind::InvalidArgument, Some(Operation::Scan))
    );
    assert!(scan.next().await.is_none());
    kv.wait_for_change(&vec![b'k'; LONGEST + 1], None, Duration::from_millis(50)).await;

    // The longest key may begin like this; each byte would be two in a pattern.
    let prefix = vec![b'*'; LONGEST];
    assert_eq!(kv.scan(&prefix).try_collect::<Vec<_>>().await.unwrap().len(), 0);
    assert_eq!(kv.get(b"k").await.unwrap(), None);
    assert_eq!(proxy.connections(), 1);
}

#[tokio::test]
async fn a_hundred_thousand_keys_on_one_server() {
    let server = Server::start().await.unwrap();
    let config = patient(ValkeyConfig::default().addresses([server.address()]));
    a_hundred_thousand_keys(&ValkeyStore::connect(config).await.unwrap()).await;
}

#[tokio::test]
async fn a_hundred_thousand_keys_on_a_cluster() {
    let cluster = Cluster::start(3, 0).await.unwrap();
    let config = ValkeyConfig::default().addresses(cluster.addresses()).mode(Mode::Cluster);
    a_hundred_thousand_keys(&ValkeyStore::connect(patient(config)).await.unwrap()).await;
}

#[tokio::test]
async fn a_batch_that_takes_too_long_says_how_far_it_came() {
    let server = Server::start().await.unwrap();
    let config = ValkeyConfig::default().addresses([server.address()]);
    let kv = ValkeyStore::connect(config.op_timeout(Duration::from_millis(5))).await.unwrap();
    let keys: Vec<_> = (0..KEYS).map(u32::to_be_bytes).collect();
    let items: Vec<_> = keys.iter().map(|key| (&key[..], &b"value"[..])).collect();
    let error = kv.mset(&items, Some(TTL)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert!(error.may_have_applied(), "{error}");
    assert!(error.to_string().contains("of 100000 keys"), "{error}");
}

#[tokio::test]
async fn values_of_64_mebibytes() {
    let server = Server::start().await.unwrap();
    let config = patient(ValkeyConfig::default().addresses([server.address()]));
    let kv = ValkeyStore::connect(config).await.unwrap();
    // No two neighbours are equal, so that a shift by some bytes shows.
    let value: Vec<u8> = (0..VALUE).map(|at| (at % 251) as u8).collect();
    let other: Vec<u8> = value.iter().map(|byte| !byte).collect();

    kv.set(b"big", &value, Some(TTL)).await.unwrap();
    assert!(kv.get(b"big").await.unwrap().as_deref() == Some(&value[..]));
    assert!(kv.compare_and_set(b"big", &value, &other, None).await.unwrap());
    assert!(!kv.compare_and_delete(b"big", &value).await.unwrap());
    kv.mset(&[(b"big", &value), (b"too", &other)], None).await.unwrap();
    let both = kv.mget(&[b"too", b"big"]).await.unwrap();
    assert!(both[0].as_deref() == Some(&other[..]) && both[1].as_deref() == Some(&value[..]));
    assert!(kv.compare_and_delete(b"too", &other).await.unwrap());
    assert!(!kv.exists(b"too").await.unwrap());
}

#[tokio::test]
async fn small_calls_go_on_beside_a_large_value() {
    let server = Server::start().await.unwrap();
    let config = patient(ValkeyConfig::default().addresses([server.address()]));
    let kv = ValkeyStore::connect(config).await.unwrap();
    let value = vec![7; VALUE];
    let large = async {
        kv.set(b"big", &value, None).await.unwrap();
        kv.get(b"big").await.unwrap().map(|value| value.len())
    };
    let small = async {
        for number in 1..=200 {
            assert_eq!(kv.incr(b"n", 1, None).await.unwrap().value, number);
        }
    };
    assert_eq!(tokio::join!(large, small).0, Some(VALUE));
}
