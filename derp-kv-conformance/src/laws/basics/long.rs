//! Long keys, and those that are too long.

use std::time::Duration;

use derp_kv_core::{ErrorKind, KvStore, Result};
use futures_util::TryStreamExt;

use super::siblings::tell_apart;
use crate::bench::{Bench, LawResult};
use crate::input::{Blob, noise};
use crate::laws::scanned;
use crate::violation::{Violation, ensure, ensure_eq};

/// Where indexes, columns, buffers and lengths of one or two bytes end.
const LENGTHS: &[usize] = &[
    255, 256, 257, 512, 768, 1_000, 1_024, 1_025, 1_280, 1_979, 2_048, 2_700, 2_704, 2_713, 3_073,
    4_096, 4_097, 8_191, 8_192, 16_384, 32_768, 65_535, 65_536, 65_792, 131_072,
];

/// The longest keys that are sent where the limit is higher.
const LONGEST: usize = 1 << 20;

/// The highest limit that is tried: a key above a higher one would be too dear to send.
const HIGHEST: usize = 4 << 20;

pub(crate) fn long_keys(bench: &Bench<'_>) -> LawResult {
    let limit = bench.profile.key_limit().min(LONGEST);
    // Nothing that could be compressed: an index that is told of its limit by luck is none.
    let noise = noise(limit);
    // Apart from the longer ones: where pages hold several keys, each pays for its neighbours.
    let (short, long): (Vec<_>, Vec<_>) = LENGTHS
        .iter()
        .copied()
        .filter(|length| *length < limit)
        .partition(|length| *length < 10_000);
    for lengths in [short, long] {
        bench.scenario(async |scene| tell_apart(&scene.store, &alike(&noise, &lengths)).await)?;
    }
    bench.scenario(async |scene| {
        let longest = vec![Blob::from(&noise[..]), flipped(&noise, limit - 1)];
        tell_apart(&scene.store, &[longest]).await?;
        long_prefixes(&scene.store, &noise).await
    })
}

/// Keys of these lengths, of which each begins the next, so that a key that is cut anywhere is
/// another one; and for each its siblings, which differ from it in one bit.
fn alike(noise: &[u8], lengths: &[usize]) -> Vec<Vec<Blob>> {
    let family: Vec<_> = lengths.iter().map(|length| Blob::from(&noise[..*length])).collect();
    let siblings = lengths.iter().map(|length| {
        let places = if *length < 10_000 { vec![length - 1] } else { vec![length / 2, length - 1] };
        places.into_iter().map(|at| flipped(&noise[..*length], at)).collect()
    });
    siblings.chain([family]).collect()
}

fn flipped(key: &[u8], at: usize) -> Blob {
    let mut key = key.to_vec();
    key[at] ^= 1;
    Blob(key)
}

/// A long prefix is compared to its last byte, too.
async fn long_prefixes(kv: &impl KvStore, noise: &[u8]) -> Result<(), Violation> {
    let keys = [300, 1_279, noise.len()].map(|length| &noise[..length]);
    let sibling = flipped(&noise[..1_279], 1_278);
    for key in keys.into_iter().chain([&sibling[..]]) {
        kv.set(key, b"v", None).await?;
    }
    for (prefix, from) in [(255, 0), (300, 0), (301, 1), (1_279, 1), (noise.len(), 2)] {
        let found = scanned(kv, &noise[..prefix]).await?;
        let mut expected: Vec<_> = keys[from..].iter().map(|key| Blob::from(*key)).collect();
        if prefix < 1_279 {
            expected.push(sibling.clone());
        }
        let expected = expected.into_iter().collect();
        ensure_eq!(found, expected, "what is found under a prefix of {prefix} bytes");
    }
    for key in keys.into_iter().chain([&sibling[..]]) {
        ensure!(kv.delete(key).await?, "a key of {} bytes could not be deleted", key.len());
    }
    Ok(())
}

pub(crate) fn too_long_keys_are_refused(bench: &Bench<'_>) -> LawResult {
    let limit = bench.profile.key_limit();
    if limit > HIGHEST {
        return Ok(());
    }
    let must_refuse = bench.profile.refuses_longer_keys();
    // Where no limit is declared, there is none to be off by: one length is enough.
    let lengths = [1, 2, 256, 4_096].map(|above| limit + above);
    let lengths = if must_refuse { &lengths[..] } else { &lengths[..1] };
    bench.scenario(async |scene| {
        let kv = &scene.store;
        let noise = noise(limit + 4_096);
        for length in lengths {
            let key = &noise[..*length];
            // What the key would be if it were cut, and what stands beside it in a batch.
            let cut = &noise[..limit];
            kv.mset(&[(cut, b"7"), (b"beside", b"7")], None).await?;
            finds_nothing(kv, key).await?;
            writes_nothing(kv, key, must_refuse).await?;
            for (name, kept) in [("the longest key", cut), ("the key beside", b"beside")] {
                let value = kv.get(kept).await?.map(|value| Blob(value.into()));
                let what = format!("{name}, after calls on one of {length} bytes,");
                ensure_eq!(value, Some(Blob::from(&b"7"[..])), "{what}");
            }
            let expected = [cut, b"beside"].map(Blob::from).into_iter().collect();
            let found = scanned(kv, b"").await?;
            ensure_eq!(found, expected, "what is there after calls on a key of {length} bytes");
            kv.delete_many(&[cut, b"beside"]).await?;
        }
        Ok(())
    })
}

/// Whether the call was refused, and that for certain; an error of another kind is a violation.
fn refused<T>(call: &str, result: Result<T>) -> Result<Option<T>, Violation> {
    let error = match result {
        Ok(answer) => return Ok(Some(answer)),
        Err(error) => error,
    };
    let expected = ErrorKind::InvalidArgument;
    ensure_eq!(error.kind(), expected, "the kind of {call}'s error for a key that is too long");
    let applied = error.may_have_applied();
    ensure!(!applied, "{call} refused a key that is too long, and may have been applied");
    let transient = error.is_transient();
    ensure!(!transient, "{call} refused a key that is too long, and may accept it later");
    Ok(None)
}

/// Makes the calls that answer as for an absent key, or are refused.
async fn finds_nothing(kv: &impl KvStore, key: &[u8]) -> Result<(), Violation> {
    let minute = Duration::from_secs(60);
    let both = kv.mget(&[b"beside", key]).await.map(|values| values != [Some("7".into()), None]);
    let calls = [
        ("get", kv.get(key).await.map(|value| value.is_some())),
        ("get_with_ttl", kv.get_with_ttl(key).await.map(|found| found.is_some())),
        ("exists", kv.exists(key).await),
        ("ttl", kv.ttl(key).await.map(|expiry| expiry.is_some())),
        ("mget", both),
        ("scan", kv.scan(key).try_next().await.map(|key| key.is_some())),
        ("expire", kv.expire(key, minute).await),
        ("compare_and_set", kv.compare_and_set(key, b"7", b"8", None).await),
        ("compare_and_delete", kv.compare_and_delete(key, b"7").await),
        ("delete", kv.delete(key).await),
        ("delete_many", kv.delete_many(&[key]).await.map(|count| count > 0)),
    ];
    for (call, result) in calls {
        let found = refused(call, result)?.unwrap_or_default();
        ensure!(!found, "{call} finds a key of {} bytes that nobody wrote", key.len());
    }
    kv.wait_for_change(key, None, Duration::from_millis(1)).await;
    // A batch is refused whole, or is as good as without the key.
    match refused("delete_many", kv.delete_many(&[b"beside", key]).await)? {
        None => ensure!(kv.exists(b"beside").await?, "a refused delete_many deleted a key"),
        Some(count) => {
            ensure_eq!(count, 1, "what delete_many counts beside a key that is too long");
            kv.set(b"beside", b"7", None).await?;
        }
    }
    Ok(())
}

/// Makes the calls that must be refused, or else must work.
async fn writes_nothing(kv: &impl KvStore, key: &[u8], must_refuse: bool) -> Result<(), Violation> {
    for call in ["set", "set_nx", "incr", "mset", "mset, the key first,"] {
        let result = match call {
            "set" => kv.set(key, b"9", None).await,
            "set_nx" => kv.set_nx(key, b"9", None).await.map(drop),
            "incr" => kv.incr(key, 9, None).await.map(drop),
            "mset" => kv.mset(&[(b"fresh", b"9"), (key, b"9")], None).await,
            _ => kv.mset(&[(key, b"9"), (b"fresh", b"9")], None).await,
        };
        if refused(call, result)?.is_none() {
            ensure!(!kv.exists(b"fresh").await?, "a refused {call} wrote a key of its batch");
            continue;
        }
        let length = key.len();
        ensure!(!must_refuse, "{call} accepts a key of {length} bytes, which is too long");
        let value = kv.get(key).await?.map(|value| Blob(value.into()));
        ensure_eq!(value, Some(Blob::from(&b"9"[..])), "a key of {length} bytes after {call}");
        kv.delete_many(&[key, b"fresh"]).await?;
    }
    Ok(())
}
