//! The same random histories on the in-memory store and on a server: the same answers.

use std::fmt::Debug;
use std::time::Duration;

use derp_kv_core::{Expiry, KvStore, Result};
use derp_kv_memory::MemoryStore;
use derp_kv_valkey::test_server::{Cluster, Server};
use derp_kv_valkey::{Mode, ValkeyConfig, ValkeyStore};
use futures_util::TryStreamExt;

/// Remaining times may differ by this much: the two stores are asked one after the other, on a
/// machine that may be busy. Every TTL is far longer, so no key expires on one side alone.
const SLACK: Duration = Duration::from_secs(600);
const OPERATIONS: usize = 100_000;

/// A generator of its own, so that a history is named by its seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    fn of<'a>(&mut self, choices: &[&'a [u8]]) -> &'a [u8] {
        choices[self.below(choices.len())]
    }

    fn key(&mut self) -> &'static [u8] {
        self.of(&[
            b"",
            b"a",
            b"b",
            b"a*",
            b"a?b",
            b"a[b]",
            b"a\\",
            b"\xff\x00",
            b"{t}1",
            b"{t}2",
            b"{}x",
            b"a{b}c",
            b"\r\n",
            b"n1",
            b"n2",
            b"n3",
        ])
    }

    fn value(&mut self) -> &'static [u8] {
        self.of(&[
            b"",
            b"v",
            b"V",
            b"v\x00",
            b"\xff\xfe",
            b"0",
            b"-1",
            b"41",
            b"+1",
            b"01",
            b" 1",
            b"-0",
            b"9223372036854775807",
            b"-9223372036854775808",
            b"9223372036854775808",
            b"1.0",
        ])
    }

    fn by(&mut self) -> i64 {
        [0, 1, -1, 7, i64::MAX, i64::MIN][self.below(6)]
    }

    fn ttl(&mut self) -> Option<Duration> {
        [
            None,
            None,
            Some(Duration::from_secs(3600)),
            Some(Duration::from_secs(86_400)),
            Some(Duration::from_nanos(7_200_000_000_001)),
            Some(Duration::ZERO),
            Some(Duration::MAX),
        ][self.below(7)]
    }
}

fn same<T: PartialEq + Debug>(step: &str, model: Result<T>, real: Result<T>) {
    let model = model.map_err(|error| error.kind());
    let real = real.map_err(|error| error.kind());
    assert_eq!(model, real, "{step}: memory (left), Valkey (right)");
}

fn same_expiry(step: &str, model: Option<Expiry>, real: Option<Expiry>) {
    match (model, real) {
        (Some(Expiry::In(model)), Some(Expiry::In(real))) => {
            assert!(model.abs_diff(real) <= SLACK, "{step}: {model:?} and {real:?}");
        }
        _ => assert_eq!(model, real, "{step}: memory (left), Valkey (right)"),
    }
}

async fn step(random: &mut Random, seed: &str, model: &MemoryStore, real: &ValkeyStore) {
    let (key, other, value, ttl) = (random.key(), random.key(), random.value(), random.ttl());
    let operation = random.below(14);
    let name = format!("{seed}, operation {operation} on {key:?} {other:?} {value:?} {ttl:?}");
    match operation {
        0 => same(&name, model.get(key).await, real.get(key).await),
        1 => {
            let model = model.get_with_ttl(key).await.unwrap();
            let real = real.get_with_ttl(key).await.unwrap();
            same_expiry(&name, model.as_ref().map(|(_, at)| *at), real.as_ref().map(|(_, at)| *at));
            assert_eq!(model.map(|(value, _)| value), real.map(|(value, _)| value), "{name}");
        }
        2 => same(&name, model.exists(key).await, real.exists(key).await),
        3 => same_expiry(&name, model.ttl(key).await.unwrap(), real.ttl(key).await.unwrap()),
        4 => {
            let keys = [key, other, key];
            same(&name, model.mget(&keys).await, real.mget(&keys).await);
        }
        5 | 6 => same(&name, model.set(key, value, ttl).await, real.set(key, value, ttl).await),
        7 => {
            let items = [(key, value), (other, random.value()), (key, random.value())];
            same(&name, model.mset(&items, ttl).await, real.mset(&items, ttl).await);
        }
        8 => same(&name, model.delete(key).await, real.delete(key).await),
        9 => {
            let keys = [key, other, key];
            same(&name, model.delete_many(&keys).await, real.delete_many(&keys).await);
        }
        10 => {
            let ttl = ttl.unwrap_or(Duration::from_secs(3600));
            same(&name, model.expire(key, ttl).await, real.expire(key, ttl).await);
        }
        11 => same(&name, model.set_nx(key, value, ttl).await, real.set_nx(key, value, ttl).await),
        12 => {
            let by = random.by();
            let (model, real) = (model.incr(key, by, ttl).await, real.incr(key, by, ttl).await);
            if let (Ok(model), Ok(real)) = (&model, &real) {
                same_expiry(&name, Some(model.expiry), Some(real.expiry));
            }
            same(&name, model.map(|counter| counter.value), real.map(|counter| counter.value));
        }
        _ => {
            // What is there now, half of the time: a compare that never matches shows little.
            let expected = match model.get(key).await.unwrap() {
                Some(present) if random.below(2) == 0 => present.to_vec(),
                _ => random.value().to_vec(),
            };
            if random.below(2) == 0 {
                let model = model.compare_and_set(key, &expected, value, ttl).await;
                same(&name, model, real.compare_and_set(key, &expected, value, ttl).await);
            } else {
                let model = model.compare_and_delete(key, &expected).await;
                same(&name, model, real.compare_and_delete(key, &expected).await);
            }
        }
    }
}

/// The keys of a scan, without the repeats that a server may show.
async fn scanned(store: &impl KvStore, prefix: &[u8]) -> Vec<Vec<u8>> {
    let mut keys: Vec<_> =
        store.scan(prefix).map_ok(|key| key.to_vec()).try_collect().await.unwrap();
    keys.sort();
    keys.dedup();
    keys
}

async fn run(seed: u64, operations: usize, real: &ValkeyStore) {
    let model = MemoryStore::new();
    let mut random = Random(seed);
    for number in 0..operations {
        let name = format!("seed {seed}, step {number}");
        step(&mut random, &name, &model, real).await;
        if number % 500 == 0 {
            let prefix = random.key();
            let model = scanned(&model, prefix).await;
            assert_eq!(model, scanned(real, prefix).await, "{name}: scan of {prefix:?}");
        }
    }
}

#[tokio::test]
async fn one_server_answers_as_memory_does() {
    let server = Server::start().await.unwrap();
    let config = ValkeyConfig::default().addresses([server.address()]);
    let kv = ValkeyStore::connect(config.op_timeout(Duration::from_secs(60))).await.unwrap();
    run(1, OPERATIONS, &kv).await;
}

#[tokio::test]
async fn a_cluster_answers_as_memory_does() {
    let cluster = Cluster::start(3, 0).await.unwrap();
    let config = ValkeyConfig::default().addresses([cluster.node(0).address()]).mode(Mode::Cluster);
    let kv = ValkeyStore::connect(config.op_timeout(Duration::from_secs(60))).await.unwrap();
    run(2, OPERATIONS / 10, &kv).await;
}
