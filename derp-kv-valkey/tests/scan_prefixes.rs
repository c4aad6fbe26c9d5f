//! The server's patterns find exactly the keys that begin with a prefix, whatever bytes it holds.

use std::collections::BTreeSet;

use bytes::Bytes;
use derp_kv_core::KvStore;
use derp_kv_valkey::test_server::Server;
use derp_kv_valkey::{ValkeyConfig, ValkeyStore};
use futures_util::TryStreamExt;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

/// Short words of what a pattern may take for a wildcard, so that many are prefixes of others.
fn nasty() -> impl Strategy<Value = Vec<u8>> {
    vec(prop_oneof![9 => select(&b"ab*?[]^-\\{}\r\n\0\xff"[..]), 1 => any::<u8>()], 0..7)
}

#[tokio::test]
async fn four_hundred_prefixes_over_five_thousand_keys() {
    let server = Server::start().await.unwrap();
    let config = ValkeyConfig::default().addresses([server.address()]);
    let kv = ValkeyStore::connect(config).await.unwrap();
    let mut random = TestRunner::default();
    let mut draw = |count| vec(nasty(), count).new_tree(&mut random).unwrap().current();

    let keys: BTreeSet<Vec<u8>> = draw(5000).into_iter().collect();
    let items: Vec<_> = keys.iter().map(|key| (&key[..], &b""[..])).collect();
    kv.mset(&items, None).await.unwrap();
    for prefix in draw(400).iter().chain(&[b"a[b]".to_vec(), b"\\".to_vec(), Vec::new()]) {
        let found: Vec<Bytes> = kv.scan(prefix).try_collect().await.unwrap();
        let found: BTreeSet<Vec<u8>> = found.into_iter().map(Vec::from).collect();
        let expected: BTreeSet<Vec<u8>> =
            keys.iter().filter(|key| key.starts_with(prefix)).cloned().collect();
        assert_eq!(found, expected, "under {:?}", Bytes::copy_from_slice(prefix));
    }
}

/// Only the beginning of a long prefix goes into the pattern.
#[tokio::test]
async fn prefixes_longer_than_their_patterns() {
    let server = Server::start().await.unwrap();
    let config = ValkeyConfig::default().addresses([server.address()]);
    let kv = ValkeyStore::connect(config).await.unwrap();
    let lengths = [200, 255, 256, 257, 300, 10 << 10, 1 << 20];
    let keys: Vec<_> = lengths
        .iter()
        .flat_map(|length| [b'*', b'a'].map(|byte| [&vec![b'*'; *length][..], &[byte]].concat()))
        .collect();
    let items: Vec<_> = keys.iter().map(|key| (&key[..], &b""[..])).collect();
    kv.mset(&items, None).await.unwrap();
    for length in lengths {
        let prefix = vec![b'*'; length];
        let found: Vec<Bytes> = kv.scan(&prefix).try_collect().await.unwrap();
        let expected = keys.iter().filter(|key| key.starts_with(&prefix)).count();
        assert_eq!(found.len(), expected, "under {length} bytes");
        assert!(found.iter().all(|key| key.starts_with(&prefix)));
    }
}
