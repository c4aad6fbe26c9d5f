//! What a store keeps of a key in another key beside it: nobody else may have that name then.

use std::collections::BTreeSet;
use std::time::Duration;

use derp_kv_core::{Expiry, KvStore};

use crate::input::Blob;
use crate::laws::{fits, scanned};
use crate::violation::{Violation, ensure, ensure_eq};

const OWN: &[u8] = b"own";

/// What stores keep of a key.
const WORDS: [&str; 23] = [
    "ttl",
    "exp",
    "expiry",
    "expire",
    "expires",
    "expires_at",
    "expireat",
    "deadline",
    "meta",
    "lock",
    "version",
    "ver",
    "v",
    "value",
    "val",
    "data",
    "cnt",
    "type",
    "t",
    "e",
    "counter",
    "index",
    "TTL",
];

const SEPARATORS: [&[u8]; 12] =
    [b":", b"::", b".", b"/", b"_", b"__", b"-", b"#", b"|", b"\0", b"\xff", b""];

/// No number, no date and no record of anything.
const GARBAGE: &[u8] = b"~neither a number nor a date~";

fn names() -> Vec<Vec<u8>> {
    let pairs = WORDS.iter().flat_map(|word| SEPARATORS.map(|between| (word.as_bytes(), between)));
    let names = pairs
        .flat_map(|(word, between)| [[OWN, between, word].concat(), [word, between, OWN].concat()]);
    let marked = WORDS.iter().map(|word| [b"__", word.as_bytes(), b"__:", OWN].concat());
    names.chain(marked).collect()
}

/// Checks that the key is there with its value and its expiry, to whoever tells one.
async fn holds(
    kv: &impl KvStore,
    value: &[u8],
    ttl: Option<Duration>,
    after: &str,
) -> Result<(), Violation> {
    let Some((found, expiry)) = kv.get_with_ttl(OWN).await? else {
        return Err(Violation::new(format!("the key is absent after {after}")));
    };
    ensure_eq!(Blob(found.into()), Blob::from(value), "the value after {after}");
    ensure!(fits(expiry, ttl), "the expiry after {after} is {expiry:?}, of {ttl:?}");
    let alone = kv.ttl(OWN).await?;
    ensure!(alone.is_some_and(|alone| fits(alone, ttl)), "ttl after {after} is {alone:?}");
    Ok(())
}

/// Every way to write, to date and to delete the key, which is absent before and present after.
async fn lives(kv: &impl KvStore, beside: &str) -> Result<(), Violation> {
    let hours = |hours: u64| Some(Duration::from_secs(3_600 * hours));
    let after = |call: &str| format!("{call}, beside {beside}");
    ensure_eq!(kv.ttl(OWN).await?, None, "the expiry of an absent key beside {beside}");
    kv.set(OWN, b"1", hours(1)).await?;
    holds(kv, b"1", hours(1), &after("set")).await?;
    kv.mset(&[(OWN, b"2")], hours(2)).await?;
    holds(kv, b"2", hours(2), &after("mset")).await?;
    let swapped = kv.compare_and_set(OWN, b"2", b"3", hours(3)).await?;
    ensure!(swapped, "compare_and_set does not swap, beside {beside}");
    holds(kv, b"3", hours(3), &after("compare_and_set")).await?;
    kv.set(OWN, b"3", None).await?;
    holds(kv, b"3", None, &after("set without a TTL")).await?;
    ensure!(kv.expire(OWN, Duration::from_secs(14_400)).await?, "expire is false, beside {beside}");
    holds(kv, b"3", hours(4), &after("expire")).await?;
    let counter = kv.incr(OWN, 4, None).await?;
    ensure_eq!(counter.value, 7, "the counter beside {beside}");
    ensure!(fits(counter.expiry, hours(4)), "incr reports {:?}, beside {beside}", counter.expiry);
    holds(kv, b"7", hours(4), &after("incr")).await?;
    ensure!(kv.delete(OWN).await?, "delete is false, beside {beside}");
    ensure_eq!(kv.get(OWN).await?, None, "the deleted key beside {beside}");
    let counter = kv.incr(OWN, 5, hours(5)).await?;
    ensure_eq!(counter.value, 5, "the new counter beside {beside}");
    holds(kv, b"5", hours(5), &after("incr of an absent key")).await?;
    ensure!(kv.compare_and_delete(OWN, b"5").await?, "not deleted, beside {beside}");
    ensure!(kv.set_nx(OWN, b"6", None).await?, "set_nx is false, beside {beside}");
    holds(kv, b"6", None, &after("set_nx without a TTL")).await?;
    ensure_eq!(kv.delete_many(&[OWN]).await?, 1, "the count beside {beside}");
    ensure!(kv.set_nx(OWN, b"6", hours(6)).await?, "set_nx is false, beside {beside}");
    holds(kv, b"6", hours(6), &after("set_nx")).await
}

/// Checks what the keys beside hold.
async fn beside(
    kv: &impl KvStore,
    names: &[&[u8]],
    expected: Option<&[u8]>,
) -> Result<(), Violation> {
    for (name, value) in names.iter().zip(kv.mget(names).await?) {
        let value = value.map(|value| Blob(value.into()));
        let name = Blob::from(*name);
        ensure_eq!(
            value,
            expected.map(Blob::from),
            "{name:?} after calls on {:?}",
            Blob::from(OWN)
        );
    }
    Ok(())
}

/// Keys that a store could take for its own live beside the key, and neither knows of the other.
pub(super) async fn none_is_the_stores(kv: &impl KvStore) -> Result<(), Violation> {
    let names: BTreeSet<_> = names().into_iter().collect();
    let names: Vec<&[u8]> = names.iter().map(Vec::as_slice).collect();
    lives(kv, "nothing").await?;
    beside(kv, &names, None).await?;
    let found = scanned(kv, b"").await?;
    ensure_eq!(found, [Blob::from(OWN)].into(), "what a scan finds after calls on one key");
    // What stands there already is nobody's record of the key.
    ensure!(kv.delete(OWN).await?, "the key could not be deleted");
    let items: Vec<_> = names.iter().map(|name| (*name, GARBAGE)).collect();
    kv.mset(&items, None).await?;
    lives(kv, "keys named for it").await?;
    beside(kv, &names, Some(GARBAGE)).await?;
    let expected: BTreeSet<_> = names.iter().copied().chain([OWN]).map(Blob::from).collect();
    let found = scanned(kv, b"").await?;
    let wrong = found.symmetric_difference(&expected).next();
    ensure_eq!(wrong, None, "a key that a scan misses or invents");
    for name in names.iter().take(40) {
        ensure_eq!(
            kv.ttl(name).await?,
            Some(Expiry::Never),
            "the expiry of {:?}",
            Blob::from(*name)
        );
    }
    // What goes beside it takes nothing of it along.
    ensure_eq!(kv.delete_many(&names).await?, names.len() as u64, "the count of keys beside it");
    holds(kv, b"6", Some(Duration::from_secs(21_600)), "the deletion of keys named for it").await?;
    ensure!(kv.delete(OWN).await?, "the key could not be deleted");
    Ok(())
}
