//! Long random histories against a map with deadlines, in each mode, with time in small steps.

use std::collections::BTreeMap;
use std::time::Duration;

use derp_kv_core::{Counter, ErrorKind, Expiry, KvStore};
use derp_kv_memory::{ManualClock, MemoryStore, OnFull};
use futures_util::TryStreamExt;

const SEEDS: u64 = 8;
const OPERATIONS: usize = 5_000;
const KEYS: [&[u8]; 6] = [b"", b"a", b"ab", b"b", b"b\0", b"\xff"];

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }

    fn key(&mut self) -> &'static [u8] {
        KEYS[self.below(KEYS.len() as u64) as usize]
    }

    /// Of few values, so that comparisons match and increments find numbers.
    fn value(&mut self) -> &'static [u8] {
        [&b"1"[..], b"7", b"", b"x", b"-3"][self.below(5) as usize]
    }

    fn ttl(&mut self) -> Option<Duration> {
        (self.below(2) == 0).then(|| Duration::from_millis(1 + self.below(20)))
    }

    fn keys(&mut self) -> Vec<&'static [u8]> {
        (0..self.below(5)).map(|_| self.key()).collect()
    }
}

/// Value and deadline in milliseconds, of what is live.
#[derive(Default)]
struct Model {
    now: u64,
    records: BTreeMap<&'static [u8], (Vec<u8>, Option<u64>)>,
}

impl Model {
    fn advance(&mut self, millis: u64) {
        self.now += millis;
        let now = self.now;
        self.records.retain(|_, (_, deadline)| deadline.is_none_or(|deadline| now < deadline));
    }

    fn deadline(&self, ttl: Option<Duration>) -> Option<u64> {
        ttl.map(|ttl| self.now + ttl.as_millis() as u64)
    }

    fn set(&mut self, key: &'static [u8], value: &[u8], ttl: Option<Duration>) {
        let deadline = self.deadline(ttl);
        self.records.insert(key, (value.to_vec(), deadline));
    }

    fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.records.get(key).map(|(value, _)| &value[..])
    }

    fn expiry(&self, key: &[u8]) -> Option<Expiry> {
        self.records.get(key).map(|(_, deadline)| {
            deadline.map_or(Expiry::Never, |deadline| {
                Expiry::In(Duration::from_millis(deadline - self.now))
            })
        })
    }

    fn incr(&mut self, key: &'static [u8], by: i64, ttl: Option<Duration>) -> Option<Counter> {
        let value = match self.get(key) {
            Some(value) => Counter::parse(value).ok()?.checked_add(by)?,
            None => by,
        };
        let deadline = self.deadline(ttl);
        let record = self.records.entry(key).or_insert((Vec::new(), deadline));
        record.0 = value.to_string().into();
        let expiry = self.expiry(key)?;
        Some(Counter { value, expiry })
    }
}

async fn step(kv: &MemoryStore, clock: &ManualClock, model: &mut Model, random: &mut Random) {
    let (key, value, ttl) = (random.key(), random.value(), random.ttl());
    match random.below(16) {
        0 => assert_eq!(kv.get(key).await.unwrap().as_deref(), model.get(key)),
        1 => {
            let found = kv.get_with_ttl(key).await.unwrap();
            assert_eq!(found.as_ref().map(|(value, _)| &value[..]), model.get(key));
            assert_eq!(found.map(|(_, expiry)| expiry), model.expiry(key));
        }
        2 => assert_eq!(kv.exists(key).await.unwrap(), model.get(key).is_some()),
        3 => assert_eq!(kv.ttl(key).await.unwrap(), model.expiry(key)),
        4 => {
            let keys = random.keys();
            let found = kv.mget(&keys).await.unwrap();
            let found: Vec<_> = found.iter().map(|value| value.as_deref()).collect();
            assert_eq!(found, keys.iter().map(|key| model.get(key)).collect::<Vec<_>>());
        }
        5 => {
            let prefix = &key[..key.len().min(1)];
            let mut found: Vec<_> = kv.scan(prefix).try_collect().await.unwrap();
            found.sort_unstable();
            let keys = model.records.keys().copied().filter(|key| key.starts_with(prefix));
            assert_eq!(found, keys.collect::<Vec<_>>());
        }
        6 | 7 => {
            kv.set(key, value, ttl).await.unwrap();
            model.set(key, value, ttl);
        }
        8 => {
            let items: Vec<_> =
                random.keys().into_iter().map(|key| (key, random.value())).collect();
            kv.mset(&items, ttl).await.unwrap();
            items.iter().for_each(|(key, value)| model.set(key, value, ttl));
        }
        9 => assert_eq!(kv.delete(key).await.unwrap(), model.records.remove(key).is_some()),
        10 => {
            let keys = random.keys();
            let removed = keys.iter().filter(|key| model.records.remove(**key).is_some()).count();
            assert_eq!(kv.delete_many(&keys).await.unwrap(), removed as u64);
        }
        11 => {
            let ttl = ttl.unwrap_or(Duration::from_millis(3));
            let deadline = model.deadline(Some(ttl));
            let record = model.records.get_mut(key);
            let live = record.map(|record| record.1 = deadline).is_some();
            assert_eq!(kv.expire(key, ttl).await.unwrap(), live);
        }
        12 => {
            let absent = model.get(key).is_none();
            if absent {
                model.set(key, value, ttl);
            }
            assert_eq!(kv.set_nx(key, value, ttl).await.unwrap(), absent);
        }
        13 => {
            let by = [1, -4, i64::MAX][random.below(3) as usize];
            match (kv.incr(key, by, ttl).await, model.incr(key, by, ttl)) {
                (Ok(counter), Some(expected)) => assert_eq!(counter, expected),
                (Err(error), None) => assert_eq!(error.kind(), ErrorKind::NotAnInteger),
                (found, expected) => panic!("incr: {found:?}, and should be {expected:?}"),
            }
        }
        14 => {
            let expected = random.value();
            let equal = model.get(key) == Some(expected);
            if equal {
                model.set(key, value, ttl);
            }
            assert_eq!(kv.compare_and_set(key, expected, value, ttl).await.unwrap(), equal);
        }
        _ => {
            let equal = model.get(key) == Some(value);
            if equal {
                model.records.remove(key);
            }
            assert_eq!(kv.compare_and_delete(key, value).await.unwrap(), equal);
        }
    }
    let millis = random.below(6);
    clock.advance(Duration::from_millis(millis));
    model.advance(millis);
}

async fn play(make: impl Fn(ManualClock) -> MemoryStore) {
    for seed in 1..=SEEDS {
        let clock = ManualClock::new();
        let (kv, mut model) = (make(clock.clone()), Model::default());
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        for _ in 0..OPERATIONS {
            step(&kv, &clock, &mut model, &mut random).await;
        }
        // The account is right to the end: what is deleted holds nothing.
        kv.delete_many(&KEYS).await.unwrap();
        assert_eq!(kv.pinned_bytes(), 0, "with seed {seed}");
    }
}

#[tokio::test]
async fn unbounded() {
    play(|clock| MemoryStore::builder().clock(clock).build().unwrap()).await;
}

#[tokio::test]
async fn evicting() {
    play(|clock| MemoryStore::builder().clock(clock).max_bytes(1 << 30).build().unwrap()).await;
}

#[tokio::test]
async fn rejecting() {
    let builder = MemoryStore::builder().max_bytes(1 << 30).on_full(OnFull::Reject);
    play(|clock| builder.clone().clock(clock).build().unwrap()).await;
}
