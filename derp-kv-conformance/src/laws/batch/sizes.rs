use std::collections::BTreeSet;
use std::ops::Range;
use std::time::{Duration, Instant};

use bytes::Bytes;
use derp_kv_core::KvStore;

use crate::bench::{Bench, LawResult};
use crate::input::Blob;
use crate::laws::fits;
use crate::violation::{Violation, ensure, ensure_eq};

const TTL: Option<Duration> = Some(Duration::from_secs(24 * 60 * 60));

/// Above what 16 bits count, and no multiple of what a backend may send at once.
const LARGE: usize = 66_047;

/// Above 10,000 and 2^13, for a store that takes long to write the larger one.
const SMALLER: usize = 10_303;

/// A batch of `SMALLER` keys that takes longer says so: the large one takes seven times as long to
/// write. It is read and deleted all the same, for keys that are missing cost next to nothing.
const DEAR: Duration = Duration::from_millis(400);

/// Multiples of what a backend may send at once: no chunk is left over, and none is empty.
const ROUND: [usize; 5] = [256, 1_000, 1_024, 4_096, 10_000];

/// How many keys go before those of which a key is written twice in one batch.
const REPEATED: usize = 700;

fn name(key: usize) -> Vec<u8> {
    format!("k{key}").into_bytes()
}

/// What a key holds: of different lengths, so that nothing shifts unseen.
fn held(key: usize) -> Vec<u8> {
    format!("{}{}", key, ["", "+", "-"][key % 3]).into_bytes()
}

fn slices(keys: &[Vec<u8>]) -> Vec<&[u8]> {
    keys.iter().map(Vec::as_slice).collect()
}

/// Writes the keys in one batch. The first few stand there twice, far apart, and the later ones win.
async fn write(kv: &impl KvStore, keys: Range<usize>) -> Result<(), Violation> {
    let repeated = keys.start..(keys.start + REPEATED).min(keys.end);
    let stale = repeated.clone().map(|key| (name(key), b"stale".to_vec()));
    let others = (repeated.end..keys.end).map(|key| (name(key), held(key)));
    let fresh = repeated.map(|key| (name(key), held(key)));
    let items: Vec<_> = stale.chain(others).chain(fresh).collect();
    let items: Vec<_> = items.iter().map(|(key, value)| (&key[..], &value[..])).collect();
    Ok(kv.mset(&items, TTL).await?)
}

/// Reads the keys in one batch, of which those from `written` on are missing, in another order, with
/// a miss after each few of them and some of them once more.
async fn read(kv: &impl KvStore, keys: Range<usize>, written: usize) -> Result<(), Violation> {
    let count = keys.len();
    // 7,919 is a prime: every key once, and neighbours far from each other.
    let order = (0..count).map(|place| keys.start + place * 7_919 % count);
    let mut asked = Vec::new();
    for (place, key) in order.enumerate() {
        asked.push((name(key), Some(key)));
        if place % 50 == 17 {
            asked.push((format!("miss{place}").into_bytes(), None));
            asked.push((name(keys.start), Some(keys.start)));
        }
    }
    let names: Vec<_> = asked.iter().map(|(name, _)| &name[..]).collect();
    let values = kv.mget(&names).await?;
    ensure_eq!(values.len(), names.len(), "the number of answers");
    for (place, (value, (name, key))) in values.into_iter().zip(&asked).enumerate() {
        let expected = key.filter(|key| *key < written).map(held);
        ensure!(
            value.as_deref() == expected.as_deref(),
            "answer {place} of {}, for {:?}, is {:?}, not {:?}",
            names.len(),
            Blob::from(&**name),
            value.as_deref().map(Blob::from),
            expected.as_deref().map(Blob::from)
        );
    }
    Ok(())
}

/// Keys over the whole of a batch, and those around where one may be cut.
fn sampled(keys: Range<usize>) -> BTreeSet<usize> {
    let cuts =
        [100, 128, 250, 255, 256, 500, 512, 1_000, 1_024, 4_096, 8_192, 10_000, 32_767, 65_535];
    let spread = (0..keys.len()).step_by((keys.len() / 40).max(1));
    let around = cuts.into_iter().flat_map(|cut| cut - 1..=cut + 1);
    let all = spread.chain(around).chain([keys.len() - 1]).filter(|place| *place < keys.len());
    all.map(|place| keys.start + place).collect()
}

async fn dated(kv: &impl KvStore, keys: Range<usize>) -> Result<(), Violation> {
    let count = keys.len();
    for key in sampled(keys) {
        let expiry = kv.ttl(&name(key)).await?;
        let fits = expiry.is_some_and(|expiry| fits(expiry, TTL));
        ensure!(fits, "key {key} of an mset of {count} expires in {expiry:?}, not in {TTL:?}");
    }
    Ok(())
}

/// Deletes the keys in one batch, in which some are missing, as are those from `written` on, and some
/// stand twice, far apart.
async fn delete(kv: &impl KvStore, keys: Range<usize>, written: usize) -> Result<(), Violation> {
    let expected = keys.len().min(written) as u64;
    let again = keys.start..(keys.start + REPEATED).min(keys.end);
    let misses = (0..100).map(|miss| format!("miss{miss}").into_bytes());
    let asked: Vec<_> = keys.clone().map(name).chain(misses).chain(again.map(name)).collect();
    let count = kv.delete_many(&slices(&asked)).await?;
    ensure_eq!(count, expected, "the count, of {} keys asked for,", asked.len());
    for key in sampled(keys) {
        ensure!(!kv.exists(&name(key)).await?, "key {key} of a delete_many is still there");
    }
    Ok(())
}

/// Values of hundreds of bytes to 100 KB, so that a batch of a few hundred makes megabytes.
fn value(key: usize) -> Vec<u8> {
    let len = match key % 32 {
        0 | 4 | 12 | 20 => 100_000 - key,
        8 => 65_536,
        16 => 16_384,
        _ => 512 + key * 3,
    };
    let mut value = vec![b'a' + u8::try_from(key % 26).unwrap_or(0); len];
    value.extend_from_slice(key.to_string().as_bytes());
    value
}

/// Batches of values that are not small: megabytes in one.
async fn large_values(kv: &impl KvStore) -> Result<(), Violation> {
    const COUNT: usize = 320;
    let name = |key: usize| format!("large{key}").into_bytes();
    let items: Vec<_> = (0..COUNT).map(|key| (name(key), value(key))).collect();
    let items: Vec<_> = items.iter().map(|(key, value)| (&key[..], &value[..])).collect();
    kv.mset(&items, TTL).await?;
    // In another order; each of the largest is asked for twice, at once and far apart.
    let order = (0..COUNT).rev().flat_map(|key| [Some(key)].repeat(1 + usize::from(key % 32 == 0)));
    let asked: Vec<_> = order.chain([None, Some(0), Some(COUNT - 1), Some(32)]).collect();
    let names: Vec<_> = asked.iter().map(|key| key.map_or(b"nobody".to_vec(), name)).collect();
    let values = kv.mget(&slices(&names)).await?;
    ensure_eq!(values.len(), names.len(), "the number of answers");
    for (place, (found, key)) in values.iter().zip(&asked).enumerate() {
        let (len, expected) = (found.as_ref().map(Bytes::len), key.map(value));
        ensure!(
            found.as_deref() == expected.as_deref(),
            "answer {place} of {}, of {len:?} bytes, is not that of key {key:?}, of {:?} bytes",
            names.len(),
            expected.map(|expected| expected.len())
        );
    }
    for (key, _) in items.iter().step_by(16) {
        let found = kv.get_with_ttl(key).await?;
        let fits = found.is_some_and(|(_, expiry)| fits(expiry, TTL));
        ensure!(fits, "a large value of an mset has not its TTL of {TTL:?}");
    }
    let names: Vec<_> = items.iter().map(|(key, _)| *key).collect();
    ensure_eq!(kv.delete_many(&names).await?, COUNT as u64, "the count of large values");
    Ok(())
}

pub(crate) fn any_size(bench: &Bench<'_>) -> LawResult {
    bench.scenario(async |scene| large_values(&scene.store).await)?;
    bench.scenario(async |scene| {
        let kv = &scene.store;
        let began = Instant::now();
        write(kv, 0..SMALLER).await?;
        let took = began.elapsed();
        read(kv, 0..SMALLER, SMALLER).await?;
        for count in ROUND {
            let keys: Vec<_> = (0..count).map(name).collect();
            let values = kv.mget(&slices(&keys)).await?;
            let right =
                values.iter().enumerate().all(|(key, v)| v.as_deref() == Some(&held(key)[..]));
            ensure!(right && values.len() == count, "an mget of {count} keys answers others");
            if count < 2_000 {
                ensure_eq!(kv.delete_many(&slices(&keys)).await?, count as u64, "the count");
                let items: Vec<_> = keys.iter().map(|key| (&key[..], &key[..])).collect();
                kv.mset(&items, TTL).await?;
                let last = kv.get(&keys[count - 1]).await?;
                ensure!(
                    last.as_deref() == Some(&keys[count - 1][..]),
                    "an mset of {count} lost its last"
                );
            }
            write(kv, 0..count.min(2_000)).await?;
        }
        dated(kv, 0..SMALLER).await?;
        // What runs in this process is never too dear, however busy the machine is.
        let written = if took > DEAR && !bench.is_virtual() { SMALLER } else { LARGE };
        if written == LARGE {
            write(kv, 0..LARGE).await?;
            dated(kv, 0..LARGE).await?;
        }
        read(kv, 0..LARGE, written).await?;
        delete(kv, 0..LARGE, written).await
    })
}
