use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use derp_kv_core::{KvStore, Result};
use futures_core::stream::BoxStream;
use futures_util::TryStreamExt;

use crate::bench::{Bench, LawResult};
use crate::laws::{ENDLESS, all_keys};
use crate::scene::Scene;
use crate::violation::{Violation, ensure, ensure_eq};

type Checked<T> = std::result::Result<T, Violation>;

/// More keys than a page holds in any store.
const MANY: usize = 12_000;

/// Keys written or deleted by one call.
const BATCH: usize = 1_000;

/// Expired keys in one place, more than a page holds, and the key that is in front of them.
const DEAD: usize = 5_000;
const LIVE: usize = 8_400;

/// Bytes at which a cursor that is kept as a text, or compared as one, goes astray: letters of both
/// cases, what a pattern takes for a wildcard, and what is no UTF-8.
const BYTES: &[u8; 24] = b"%ABCDEFGZ\\_abcdefgz\x80\xc3\xe9\xfe\xff";

/// How many of the keys begin with a NUL.
const NULS: usize = MANY / 2;

/// A key of raw bytes. All those that begin with the same of the `BYTES` follow each other.
fn many(number: usize) -> Vec<u8> {
    let (before, number) =
        if number < NULS { (&b"\0"[..], number) } else { (&b""[..], number - NULS) };
    let last = number.to_le_bytes()[0];
    [b"many/", before, &[BYTES[number / 256], last]].concat()
}

/// The number of a key.
fn number(key: &[u8]) -> Option<usize> {
    let (from, byte, last) = match *key.strip_prefix(b"many/")? {
        [0, byte, last] => (0, byte, last),
        [byte, last] => (NULS, byte, last),
        _ => return None,
    };
    let place = BYTES.iter().position(|known| *known == byte)? * 256 + usize::from(last);
    (place < NULS).then_some(from + place)
}

/// Which of the many keys were seen.
struct Seen {
    keys: Vec<bool>,
    yielded: usize,
}

impl Seen {
    fn new() -> Self {
        Self { keys: vec![false; MANY], yielded: 0 }
    }

    /// Takes the next key from the scan; whether there was one.
    async fn take(
        &mut self,
        scan: &mut BoxStream<'static, Result<Bytes>>,
    ) -> Checked<Option<usize>> {
        let Some(key) = scan.try_next().await? else { return Ok(None) };
        let number = number(&key);
        let seen = number.and_then(|number: usize| self.keys.get_mut(number));
        let (Some(number), Some(seen)) = (number, seen) else {
            let key = key.escape_ascii();
            return Err(Violation::new(format!("`{key}` is found, and is expired or unwritten")));
        };
        *seen = true;
        self.yielded += 1;
        ensure!(self.yielded < ENDLESS, "a scan yields keys without end");
        Ok(Some(number))
    }

    /// Takes up to `count` keys.
    async fn take_some(
        &mut self,
        scan: &mut BoxStream<'static, Result<Bytes>>,
        count: usize,
    ) -> Checked<Vec<usize>> {
        let mut taken = Vec::new();
        while taken.len() < count {
            let Some(number) = self.take(scan).await? else { break };
            taken.push(number);
        }
        Ok(taken)
    }

    /// Takes all that are left, and checks that none was missed.
    async fn take_all(
        &mut self,
        scan: &mut BoxStream<'static, Result<Bytes>>,
        what: &str,
    ) -> Checked<()> {
        self.take_some(scan, usize::MAX).await?;
        self.complete(what)
    }

    fn complete(&self, what: &str) -> Checked<()> {
        let missed = self.keys.iter().filter(|seen| !**seen).count();
        ensure_eq!(missed, 0, "the number of keys, of {MANY}, that {what} missed without an error");
        Ok(())
    }
}

/// Writes the keys of these numbers, a batch at a time.
async fn write(
    kv: &impl KvStore,
    numbers: impl IntoIterator<Item = usize>,
    ttl: Option<Duration>,
) -> Result<()> {
    write_keys(kv, numbers.into_iter().map(many).collect(), ttl).await
}

async fn write_keys(kv: &impl KvStore, keys: Vec<Vec<u8>>, ttl: Option<Duration>) -> Result<()> {
    for batch in keys.chunks(BATCH) {
        let items: Vec<_> = batch.iter().map(|key| (&key[..], &b"v"[..])).collect();
        kv.mset(&items, ttl).await?;
    }
    Ok(())
}

async fn delete(kv: &impl KvStore, numbers: &[usize]) -> Result<u64> {
    let keys: Vec<_> = numbers.iter().map(|number| many(*number)).collect();
    let keys: Vec<_> = keys.iter().map(Vec::as_slice).collect();
    kv.delete_many(&keys).await
}

pub(crate) fn covers_every_page(bench: &Bench<'_>) -> LawResult {
    // Long for a consumer; where it means to wait, as long as need be.
    let pause = if bench.is_virtual() { 300_000 } else { 150 };
    let pause = Duration::from_millis(pause);
    bench.scenario(async |scene| {
        let kv = &scene.store;
        let dead =
            (0..DEAD).map(|number| [&many(LIVE)[..], format!("/{number:05}").as_bytes()].concat());
        write_keys(kv, dead.collect(), Some(Duration::from_millis(1))).await?;
        write_all(kv).await?;
        write_keys(kv, (0..3).map(|number| vec![b'r', number]).collect(), None).await?;
        scene.elapse(Duration::from_millis(1) + scene.slack()).await;
        parts(kv).await?;
        side_by_side(scene, pause).await?;
        // What is left would be in the way of all other scans on a server.
        let left: Vec<_> = (0..MANY).collect();
        for numbers in left.chunks(BATCH) {
            delete(kv, numbers).await?;
        }
        kv.delete_many(&[b"r\0", b"r\x01", b"r\x02"]).await?;
        Ok(())
    })?;
    // In a case of its own, for each has its time.
    bench.scenario(async |scene| {
        let kv = &scene.store;
        write_all(kv).await?;
        rewritten(kv).await?;
        emptied(kv).await?;
        deleted_one_by_one(kv).await
    })
}

/// Writes all the many keys, in another order than their own.
async fn write_all(kv: &impl KvStore) -> Result<()> {
    // The factor has no divisor in common with their number, so that it meets each.
    write(kv, (0..MANY).map(|number| number * 7_919 % MANY), None).await
}

/// Prefixes that few of the keys have, and that many have which are dead.
async fn parts(kv: &impl KvStore) -> Checked<()> {
    let (live, under_nul) = (many(LIVE), many(300));
    let parts: [(&[u8], usize); 8] = [
        (b"many", MANY),
        (b"r", 3),
        (b"many/\0", NULS),
        (&under_nul[..7], 256),
        (b"many/A", 256),
        (b"many/a", 256),
        (b"many/\xfe", 256),
        (&live, 1),
    ];
    for (prefix, count) in parts {
        let found: BTreeSet<_> = all_keys(kv, prefix).await?.into_iter().collect();
        let prefix = prefix.escape_ascii();
        ensure_eq!(found.len(), count, "the number of keys found under `{prefix}`");
    }
    Ok(())
}

/// A scan that was given up, and two at once on one handle, of which one is slow.
async fn side_by_side(scene: &Scene<'_>, pause: Duration) -> Checked<()> {
    let kv = &scene.store;
    let mut given_up = kv.scan(b"many/");
    Seen::new().take_some(&mut given_up, MANY / 2 + 1).await?;
    drop(given_up);
    let (mut slow, mut other) = (kv.scan(b"many/"), kv.scan(b"many/"));
    let (mut by_slow, mut by_other) = (Seen::new(), Seen::new());
    by_slow.take_some(&mut slow, 1).await?;
    scene.elapse(pause).await;
    loop {
        let taken = by_slow.take_some(&mut slow, 7).await?.len();
        let also = by_other.take_some(&mut other, 7).await?.len();
        if taken == 0 && also == 0 {
            break;
        }
        if by_slow.yielded == 2_100 {
            scene.elapse(pause).await;
        }
    }
    by_slow.complete("a slow scan beside another")?;
    by_other.complete("a scan beside a slow one")?;
    // What has ended stays at its end.
    let after = other.try_next().await?;
    ensure_eq!(after, None, "what comes after the end of a scan");
    Ok(())
}

/// Keys that are written anew meanwhile are there all the time.
async fn rewritten(kv: &impl KvStore) -> Checked<()> {
    let hour = Some(Duration::from_secs(3_600));
    let mut scan = kv.scan(b"many/");
    let mut seen = Seen::new();
    let mut taken = seen.take_some(&mut scan, 1).await?;
    write(kv, (0..MANY).step_by(4), hour).await?;
    taken.extend(seen.take_some(&mut scan, 1_500).await?);
    write(kv, taken, None).await?;
    seen.take_some(&mut scan, MANY / 2).await?;
    write(kv, (1..MANY).step_by(4), hour).await?;
    seen.take_all(&mut scan, "a scan while keys were written anew").await
}

/// A consumer that deletes what it gets: the scan goes on after keys that are no more.
async fn emptied(kv: &impl KvStore) -> Checked<()> {
    let mut scan = kv.scan(b"many/");
    let mut seen = Seen::new();
    let mut deleted = 0;
    loop {
        // The batches end where pages do, of round sizes as of powers of two.
        let next = [500, 512].map(|size| size - seen.yielded % size).into_iter().min();
        let taken = seen.take_some(&mut scan, next.unwrap_or(1)).await?;
        if taken.is_empty() {
            break;
        }
        deleted += delete(kv, &taken).await?;
    }
    seen.complete("a scan whose consumer deletes what it gets")?;
    ensure_eq!(deleted, MANY as u64, "the number of keys that were deleted during the scan");
    let left = all_keys(kv, b"many/").await?.len();
    ensure_eq!(left, 0, "the number of keys found after all were deleted");
    Ok(())
}

/// The same, key by key, so that the last key of each page is gone when the next is asked for.
async fn deleted_one_by_one(kv: &impl KvStore) -> Checked<()> {
    const FEW: usize = 550;
    write(kv, 0..FEW, None).await?;
    let mut scan = kv.scan(b"many/");
    let mut seen = Seen::new();
    while let Some(number) = seen.take(&mut scan).await? {
        kv.delete(&many(number)).await?;
    }
    let missed = seen.keys[..FEW].iter().filter(|seen| !**seen).count();
    ensure_eq!(missed, 0, "the number of keys, of {FEW}, missed by who deletes each that it gets");
    Ok(())
}
